//! `tool.http_get`: one GET to an allowed URL.
//!
//! Follows no redirect, uses no proxy, sends no cookie and no credentials, keeps no connection. The allow-list names hosts,
//! not addresses: who answers for an allowed name is decided by the resolver of this machine.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::body::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{body::Body, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::{
    Error,
    url::{AllowedPrefix, Scheme, Url},
};

pub(super) const NAME: &str = "tool.http_get";

/// What `tool.http_get` may reach and take. The default reaches nothing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpGetConfig {
    /// What may be asked for. Empty: nothing.
    pub allow: Vec<AllowedPrefix>,
    /// PEM file of the only roots to trust for `https`; without it, those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// From the look-up of the name to the end of the TLS handshake.
    pub connect_timeout: Duration,
    /// From the look-up of the name to the end of the body.
    pub total_timeout: Duration,
    /// Bytes of a body.
    pub max_body_bytes: usize,
}

impl Default for HttpGetConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            ca_file: None,
            connect_timeout: Duration::from_secs(3),
            total_timeout: Duration::from_secs(10),
            max_body_bytes: 1024 * 1024,
        }
    }
}

/// Why `tool.http_get` cannot be set up.
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
    /// An `https` URL is allowed, but the machine trusts nobody.
    #[error("this machine has no trusted roots for https ({0}): install `ca-certificates`")]
    NoRoots(String),
    /// The TLS library refuses its own defaults.
    #[error("cannot set up tls ({0}): report it")]
    Tls(#[from] rustls::Error),
}

pub(super) struct HttpGet {
    config: HttpGetConfig,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for HttpGet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpGet").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    url: String,
}

#[derive(Serialize)]
struct Output {
    status: u16,
    content_type: Option<String>,
    body: String,
    /// The body is not UTF-8: what does not fit was replaced by U+FFFD.
    lossy: bool,
}

impl HttpGet {
    pub(super) fn new(config: HttpGetConfig) -> Result<Self, SetUpError> {
        let needs_tls = config.allow.iter().any(|allowed| allowed.scheme() == Scheme::Https);
        let tls = if needs_tls { Some(connector(&config)?) } else { None };
        Ok(Self { config, tls })
    }

    pub(super) async fn run(&self, params: Params) -> Result<Value, Error> {
        let url = Url::parse(&params.url).map_err(|e| Error::BadParams { tool: NAME, cause: e.to_string() })?;
        if !self.config.allow.iter().any(|allowed| allowed.allows(&url)) {
            // What is on the list is not the caller's to know.
            let cause = format!("`{}` is not on the allow-list: the operator adds it with `--http-allow`", params.url);
            return Err(Error::Refused { tool: NAME, cause });
        }
        let output = match timeout(self.config.total_timeout, self.get(&url)).await {
            Ok(output) => output,
            Err(_) => Err(format!("no whole answer within {:?}", self.config.total_timeout)),
        };
        output
            .and_then(|output| serde_json::to_value(output).map_err(|e| e.to_string()))
            .map_err(|cause| Error::Failed { tool: NAME, cause })
    }

    async fn get(&self, url: &Url) -> Result<Output, String> {
        let connecting = async {
            let stream = connect(url).await?;
            match (url.scheme, &self.tls) {
                (Scheme::Http, _) => Ok(Box::new(stream) as Box<dyn Stream>),
                (Scheme::Https, None) => Err("https is not set up: report it".to_owned()),
                (Scheme::Https, Some(tls)) => {
                    let name = url.host.trim_matches(['[', ']']).to_owned();
                    let name = ServerName::try_from(name).map_err(|e| format!("bad server name: {e}"))?;
                    let stream = tls.connect(name, stream).await.map_err(|e| format!("tls handshake: {e}"))?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
            }
        };
        let max = self.config.connect_timeout;
        let stream = timeout(max, connecting).await.map_err(|_| format!("no connection within {max:?}"))??;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        let asking = async {
            let response = sender.send_request(request(url)?).await.map_err(|e| format!("no answer: {e}"))?;
            self.read(response).await
        };
        // Driven here and not on a task of its own: when the deadline drops this future, the socket is closed with it.
        tokio::pin!(asking);
        tokio::select! {
            output = &mut asking => output,
            ended = connection => match ended {
                Ok(()) => asking.await,
                Err(error) => Err(format!("connection lost: {error}")),
            },
        }
    }

    async fn read(&self, response: http::Response<hyper::body::Incoming>) -> Result<Output, String> {
        let (head, body) = response.into_parts();
        let content_type =
            head.headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let max = self.config.max_body_bytes;
        let too_large = || format!("the body has more than {max} bytes");
        if body.size_hint().lower() > max as u64 {
            return Err(too_large()); // announced: not a byte of it is read
        }
        let body = Limited::new(body, max).collect().await.map_err(|e| match e.is::<LengthLimitError>() {
            true => too_large(),
            false => format!("cannot read the body: {e}"),
        })?;
        let body = body.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let lossy = matches!(text, std::borrow::Cow::Owned(_));
        Ok(Output { status: head.status.as_u16(), content_type, body: text.into_owned(), lossy })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(url: &Url) -> Result<TcpStream, String> {
    let host = url.host.trim_matches(['[', ']']);
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host, url.port)).await.map_err(|e| format!("cannot look `{host}` up: {e}"))?.collect();
    TcpStream::connect(addresses.as_slice()).await.map_err(|e| format!("cannot connect to `{}`: {e}", url.authority()))
}

fn request(url: &Url) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.path_and_query().parse().map_err(|e| format!("bad path: {e}"))?;
    let host = HeaderValue::from_str(&url.authority()).map_err(|e| format!("bad host: {e}"))?;
    request.headers_mut().insert(header::HOST, host);
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("autonomy-gate"));
    Ok(request)
}

fn connector(config: &HttpGetConfig) -> Result<TlsConnector, SetUpError> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            let unusable = |cause: String| SetUpError::CaFile { path: path.clone(), cause };
            let found = CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.to_string()))?;
            for certificate in found {
                let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
                roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("it holds no certificate".to_owned()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                return Err(SetUpError::NoRoots(causes.join("; ")));
            }
        }
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}
