//! One HTTP/1.1 exchange as a client: on a connection of its own, bounded in time and size. It follows no redirect, uses no
//! proxy, and keeps no cookie.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::body::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::{
    file,
    tool::url::{Scheme, Url},
};

/// What one exchange may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the look-up of the name to the end of the TLS handshake.
    pub(crate) connect_timeout: Duration,
    /// From the look-up of the name to the end of the body.
    pub(crate) total_timeout: Duration,
    /// Bytes of the answer's body.
    pub(crate) max_body_bytes: usize,
}

/// Why HTTPS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The file of roots is not usable.
    #[error("cannot read roots from `{path}`: {cause}: give a pem file with at least one certificate")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A certificate of ours is not usable.
    #[error("cannot use certificate `{}` with key `{}`: {cause}: give both as pem, the certificate first in its file, the key readable by its owner alone", cert.display(), key.display())]
    Identity {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of its key.
        key: PathBuf,
        /// What is wrong with them.
        cause: String,
    },
    /// An `https` URL is to be used, but the machine trusts nobody.
    #[error("this machine has no trusted roots for https ({0}): install `ca-certificates`")]
    NoRoots(String),
    /// The TLS library refuses its own defaults.
    #[error("cannot set up tls ({0}): report it")]
    Tls(#[from] rustls::Error),
}

/// Sends a request and reads the whole answer.
pub(crate) async fn exchange(
    url: &Url,
    tls: Option<&TlsConnector>,
    mut request: Request<Full<Bytes>>,
    limits: &Limits,
) -> Result<Response<Bytes>, String> {
    *request.uri_mut() = url.path_and_query().parse().map_err(|e| format!("bad path: {e}"))?;
    let host = HeaderValue::from_str(&url.authority()).map_err(|e| format!("bad host: {e}"))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("autonomy-gate"));
    let max = limits.total_timeout;
    let answer = timeout(max, send(url, tls, request, limits)).await;
    answer.unwrap_or_else(|_| Err(format!("no whole answer within {max:?}")))
}

async fn send(
    url: &Url,
    tls: Option<&TlsConnector>,
    request: Request<Full<Bytes>>,
    limits: &Limits,
) -> Result<Response<Bytes>, String> {
    let max = limits.connect_timeout;
    let stream = timeout(max, connect(url, tls)).await.map_err(|_| format!("no connection within {max:?}"))??;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(|e| format!("no answer: {e}"))?;
        read(response, limits.max_body_bytes).await
    };
    // Driven here and not on a task of its own: when the deadline drops this future, the socket is closed with it.
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        ended = connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(format!("connection lost: {error}")),
        },
    }
}

async fn read(response: Response<Incoming>, max: usize) -> Result<Response<Bytes>, String> {
    let (head, body) = response.into_parts();
    let too_large = || format!("the body has more than {max} bytes");
    if body.size_hint().lower() > max as u64 {
        return Err(too_large()); // announced: not a byte of it is read
    }
    let body = Limited::new(body, max).collect().await.map_err(|e| match e.is::<LengthLimitError>() {
        true => too_large(),
        false => format!("cannot read the body: {e}"),
    })?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(url: &Url, tls: Option<&TlsConnector>) -> Result<Box<dyn Stream>, String> {
    let host = url.host.trim_matches(['[', ']']);
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host, url.port)).await.map_err(|e| format!("cannot look `{host}` up: {e}"))?.collect();
    let connected = TcpStream::connect(addresses.as_slice()).await;
    let stream = connected.map_err(|e| format!("cannot connect to `{}`: {e}", url.authority()))?;
    match (url.scheme, tls) {
        (Scheme::Http, _) => Ok(Box::new(stream)),
        (Scheme::Https, None) => Err("https is not set up: report it".to_owned()),
        (Scheme::Https, Some(tls)) => {
            let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("bad server name: {e}"))?;
            let stream = tls.connect(name, stream).await.map_err(|e| format!("tls handshake: {e}"))?;
            Ok(Box::new(stream))
        }
    }
}

/// A certificate of ours, and its private key: their files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) cert: &'a Path,
    pub(crate) key: &'a Path,
}

impl Identity<'_> {
    pub(crate) fn read(self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), SetUpError> {
        let read = || -> Result<_, String> {
            let certificates =
                CertificateDer::pem_file_iter(self.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            if let Some(mode) = file::exposed(self.key).map_err(|e| e.to_string())? {
                return Err(format!("the key can be read by others (mode {mode:03o})"));
            }
            let key = PrivateKeyDer::from_pem_file(self.key).map_err(|e| format!("the key: {e}"))?;
            Ok((certificates.map_err(|e| format!("the certificate: {e}"))?, key))
        };
        read().map_err(|cause| self.refused(cause))
    }

    pub(crate) fn refused(self, cause: impl ToString) -> SetUpError {
        SetUpError::Identity { cert: self.cert.to_owned(), key: self.key.to_owned(), cause: cause.to_string() }
    }
}

/// Speaks TLS to who has a certificate of these roots, or of those that the machine trusts.
pub(crate) fn connector(ca_file: Option<&Path>, identity: Option<Identity<'_>>) -> Result<TlsConnector, SetUpError> {
    let roots = match ca_file {
        Some(path) => roots(path)?,
        None => {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                return Err(SetUpError::NoRoots(causes.join("; ")));
            }
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut tls = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (certificates, key) = identity.read()?;
            builder.with_client_auth_cert(certificates, key).map_err(|e| identity.refused(e))?
        }
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

pub(crate) fn roots(path: &Path) -> Result<RootCertStore, SetUpError> {
    let unusable = |cause: String| SetUpError::CaFile { path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.to_string()))? {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
