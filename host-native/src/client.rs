//! One HTTP/1.1 exchange: TLS by rustls, a bound on what is kept of the answer, and a connection of its own unless whoever asks
//! keeps that of the exchange before.
//!
//! **Absent: redirects, proxies, cookies, credentials, a pool, retries** but for the one that a kept connection needs. Whoever
//! asks says what they mean to it.

use std::{
    error::Error as _,
    fmt, io, iter,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
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
    ErrorClass,
    file::{self, wrong},
};

/// Why a client of `https` cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The file of roots is not usable.
    #[error("cannot read roots from `{}`: {cause}: give a pem file with at least one certificate", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// A certificate of ours is not usable.
    #[error("cannot use certificate `{}` with key `{}`: {cause}: give both as pem, the certificate first in its file, the key readable by its owner alone", cert.display(), key.display())]
    Identity {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of its key.
        key: PathBuf,
        /// What is wrong with them.
        cause: io::Error,
    },
    /// A certificate where none is looked at.
    #[error("`{}` is for tls, and `{to}` is asked without: {remedy}, or leave it out", path.display())]
    NoTls {
        /// The file of roots or of ours.
        path: PathBuf,
        /// Who is asked.
        to: String,
        /// How to have tls there.
        remedy: &'static str,
    },
    /// `https` is wanted, but the machine trusts nobody.
    #[error("this machine has no trusted roots for https ({0}): install `ca-certificates`")]
    NoRoots(String),
    /// The TLS library refuses its own defaults.
    #[error("cannot set up tls ({0}): report it")]
    Tls(#[from] rustls::Error),
}

impl SetUpError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::CaFile { cause, .. } | Self::Identity { cause, .. } => ErrorClass::of(cause),
            Self::NoTls { .. } => ErrorClass::Usage,
            Self::NoRoots(_) | Self::Tls(_) => ErrorClass::Unavailable,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0}")]
    Connect(String),
    #[error("tls handshake: {0}")]
    Tls(String),
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// Why there is not the whole body of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("cannot read the body: {0}")]
    Lost(hyper::Error),
}

/// Why there is not a whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Body(#[from] BodyError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) scheme: Scheme,
    /// Lower case; an IPv6 address in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// What goes into the `host` header.
    pub(crate) fn authority(&self) -> String {
        match self.port == self.scheme.default_port() {
            true => self.host.clone(),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether this is how somebody writes it, with or without the default port.
    pub(crate) fn is_called(&self, authority: &str) -> bool {
        authority == self.authority() || authority == format!("{}:{}", self.host, self.port)
    }

    /// Whether it is this machine, by its name alone.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(self.bare_host())
    }

    fn bare_host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority())
    }
}

/// What is asked for, and of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) origin: Origin,
    pub(crate) path: PathAndQuery,
}

impl Target {
    /// Reads an absolute `http` or `https` URL.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts = text.parse::<Uri>().ok()?.into_parts();
        let scheme = match parts.scheme?.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let authority = parts.authority?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok()?,
            None => scheme.default_port(),
        };
        let origin = Origin { scheme, host: authority.host().to_ascii_lowercase(), port };
        Some(Self { origin, path: parts.path_and_query? })
    }

    /// Where a `location` of its answer leads.
    pub(crate) fn join(&self, location: &HeaderValue) -> Option<Self> {
        let location = location.to_str().ok()?;
        match location.starts_with('/') && !location.starts_with("//") {
            true => Some(Self { origin: self.origin.clone(), path: location.parse().ok()? }),
            false => Self::parse(location),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

/// Makes exchanges.
#[derive(Clone)]
pub(crate) struct Client {
    tls: Option<TlsConnector>,
    /// From the look-up of the name to the end of the TLS handshake.
    connect_timeout: Duration,
}

impl Client {
    pub(crate) fn new(tls: Option<TlsConnector>, connect_timeout: Duration) -> Self {
        Self { tls, connect_timeout }
    }

    /// A client of who is at `origin`, over TLS unless that is this machine; none where all would be there to read on the way.
    pub(crate) fn to(
        origin: &Origin,
        ca_file: Option<&Path>,
        identity: Option<Identity<'_>>,
        connect_timeout: Duration,
    ) -> Result<Option<Self>, SetUpError> {
        let tls = match origin.scheme {
            Scheme::Https => Some(connector(ca_file, identity, HTTP)?),
            Scheme::Http if origin.is_loopback() => match ca_file.or(identity.map(|identity| identity.cert)) {
                None => None,
                // Whoever names it takes what is said for protected.
                Some(path) => {
                    let (path, to) = (path.to_owned(), origin.to_string());
                    return Err(SetUpError::NoTls { path, to, remedy: "use https" });
                }
            },
            Scheme::Http => return Ok(None),
        };
        Ok(Some(Self::new(tls, connect_timeout)))
    }

    /// Sends one request over a connection of its own, and gives its answer up to the end of the head.
    pub(crate) async fn send<B>(&self, target: &Target, mut request: Request<B>) -> Result<Answer, ClientError>
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let mut connection = self.connect(&target.origin).await?;
        let (head, body) = connection.send(target, request).await?.into_parts();
        Ok(Answer { head, body, _driver: connection.driver })
    }

    /// Sends one request over the connection that was kept, where there is one, and keeps the one that it used once the answer
    /// was read.
    ///
    /// Whoever is asked closes a connection when they like, as a request comes as well. What only reads is sent again then, once,
    /// over a new connection; what changes something is sent over a new one from the start.
    pub(crate) async fn send_kept(
        &self,
        kept: &mut Kept,
        target: &Target,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<(StatusCode, Vec<u8>), ExchangeError> {
        let mut answered = None;
        if let Some(mut connection) = kept.take().filter(|_| request.method().is_safe()) {
            let answer = connection.send(target, request.clone()).await;
            answered = answer.ok().map(|answer| (connection, answer));
        }
        let (connection, answer) = match answered {
            Some(answered) => answered,
            None => {
                let mut connection = self.connect(&target.origin).await?;
                let answer = connection.send(target, request).await?;
                (connection, answer)
            }
        };
        let (head, body) = answer.into_parts();
        let body = read(body, limit, |_| {}).await?;
        *kept = Kept(Some((connection, Instant::now())));
        Ok((head.status, body))
    }

    async fn connect<B>(&self, origin: &Origin) -> Result<Connection<B>, ClientError>
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let max = self.connect_timeout;
        let stream = timeout(max, self.open(origin)).await;
        let stream = stream.map_err(|_| ClientError::Connect(format!("no connection within {max:?}")))??;
        let handshake = http1::Builder::new().max_buf_size(64 * 1024).handshake::<_, B>(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(no_answer)?;
        let mut driver = JoinSet::new();
        // What ends it, the one who waits for the answer or its body is told.
        driver.spawn(connection);
        Ok(Connection { sender, driver })
    }

    async fn open(&self, origin: &Origin) -> Result<Box<dyn Stream>, ClientError> {
        let host = origin.bare_host();
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, origin.port))
            .await
            .map_err(|error| ClientError::Connect(format!("cannot look `{host}` up: {error}")))?
            .collect();
        let refused = |error| ClientError::Connect(format!("cannot connect to `{}`: {error}", origin.authority()));
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(refused)?;
        match (origin.scheme, &self.tls) {
            (Scheme::Http, _) => Ok(Box::new(stream)),
            (Scheme::Https, None) => Err(ClientError::Tls("https is not set up: report it".to_owned())),
            (Scheme::Https, Some(tls)) => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|error| ClientError::Tls(format!("bad server name: {error}")))?;
                let stream = tls.connect(name, stream).await;
                Ok(Box::new(stream.map_err(|error| ClientError::Tls(error.to_string()))?))
            }
        }
    }
}

fn no_answer(error: hyper::Error) -> ClientError {
    let causes = iter::successors(error.source(), |&cause| cause.source()).map(|cause| format!(": {cause}"));
    ClientError::NoAnswer(iter::once(error.to_string()).chain(causes).collect())
}

/// What one exchange after the other is made over.
#[derive(Debug)]
struct Connection<B> {
    sender: http1::SendRequest<B>,
    /// Dropped with it, and the socket is closed with it.
    driver: JoinSet<hyper::Result<()>>,
}

impl<B: Body + 'static> Connection<B> {
    async fn send(&mut self, target: &Target, mut request: Request<B>) -> Result<Response<Incoming>, ClientError> {
        *request.uri_mut() = target.path.clone().into();
        let host = HeaderValue::from_str(&target.origin.authority());
        let host = host.map_err(|error| ClientError::Connect(format!("bad host: {error}")))?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("autonomy-gate"));
        let answered = match self.sender.ready().await {
            Ok(()) => self.sender.send_request(request).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(answer) => Ok(answer),
            // It ended before it took the request, and knows why: a server may not want the certificate, or want one.
            Err(error) if self.sender.is_closed() => match self.driver.join_next().await {
                Some(Ok(Err(cause))) => Err(no_answer(cause)),
                Some(Ok(Ok(())) | Err(_)) | None => Err(no_answer(error)),
            },
            Err(error) => Err(no_answer(error)),
        }
    }
}

/// Longest time that a connection is kept without a request: less than any server keeps one.
const IDLE: Duration = Duration::from_secs(10);

/// The connection of the last exchange. It belongs to one who asks the same origin, one exchange after the other, on the same
/// executor, which drives it.
#[derive(Debug, Default)]
pub(crate) struct Kept(Option<(Connection<Full<Bytes>>, Instant)>);

impl Kept {
    fn take(&mut self) -> Option<Connection<Full<Bytes>>> {
        let (connection, since) = self.0.take()?;
        (since.elapsed() < IDLE).then_some(connection)
    }
}

/// The head of an answer, and its body to be read.
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    body: Incoming,
    /// Dropped with the answer, and the connection is closed with it.
    _driver: JoinSet<hyper::Result<()>>,
}

impl Answer {
    /// The whole body, if it has at most so many bytes. `told` hears how many there are after each part.
    pub(crate) async fn read(self, limit: usize, told: impl FnMut(usize)) -> Result<Vec<u8>, BodyError> {
        read(self.body, limit, told).await
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&HeaderValue> {
        self.head.headers.get(name)
    }
}

async fn read(mut body: Incoming, limit: usize, mut told: impl FnMut(usize)) -> Result<Vec<u8>, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge(limit)); // announced: not a byte of it is read
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(part) = frame.map_err(BodyError::Lost)?.into_data() {
            if part.len() > limit.saturating_sub(bytes.len()) {
                return Err(BodyError::TooLarge(limit));
            }
            bytes.extend_from_slice(&part);
            told(bytes.len());
        }
    }
    Ok(bytes)
}

/// A text as it may stand in a query.
pub(crate) fn query_value(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What a connection is read from and written to, with TLS or without.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A certificate of ours, and its private key: their files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) cert: &'a Path,
    pub(crate) key: &'a Path,
}

impl Identity<'_> {
    pub(crate) fn read(self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), SetUpError> {
        let read = || -> io::Result<_> {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem(self.cert)?).collect();
            if let Some(mode) = file::exposed(self.key)? {
                return Err(wrong(format!("the key can be read by others (mode {mode:03o})")));
            }
            let key = PrivateKeyDer::from_pem_slice(&pem(self.key)?).map_err(|e| wrong(format!("the key: {e}")))?;
            Ok((certificates.map_err(|e| wrong(format!("the certificate: {e}")))?, key))
        };
        read().map_err(|cause| self.refused(cause))
    }

    pub(crate) fn refused(self, cause: io::Error) -> SetUpError {
        SetUpError::Identity { cert: self.cert.to_owned(), key: self.key.to_owned(), cause }
    }
}

/// Whether a host is this machine, by its name alone.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The protocol of [`Client`], as TLS names it.
pub(crate) const HTTP: &[u8] = b"http/1.1";

/// Speaks TLS to who has a certificate of these roots, or of those that the machine trusts, and this protocol over it.
pub(crate) fn connector(
    ca_file: Option<&Path>,
    identity: Option<Identity<'_>>,
    protocol: &[u8],
) -> Result<TlsConnector, SetUpError> {
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
            builder.with_client_auth_cert(certificates, key).map_err(|e| identity.refused(wrong(e.to_string())))?
        }
    };
    tls.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

/// Largest file of certificates, in bytes: the roots of a whole machine have a quarter of it.
const PEM_BYTES: u64 = 1024 * 1024;

fn pem(path: &Path) -> io::Result<Vec<u8>> {
    Ok(file::read(path, PEM_BYTES)?)
}

pub(crate) fn roots(path: &Path) -> Result<RootCertStore, SetUpError> {
    let unusable = |cause: io::Error| SetUpError::CaFile { path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem(path).map_err(unusable)?) {
        let certificate = certificate.map_err(|e| unusable(wrong(e.to_string())))?;
        roots.add(certificate).map_err(|e| unusable(wrong(e.to_string())))?;
    }
    if roots.is_empty() {
        return Err(unusable(wrong("it holds no certificate")));
    }
    Ok(roots)
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        sync::Mutex,
        thread,
    };

    /// What a server does with the requests of one connection.
    #[derive(Clone, Copy)]
    enum Server {
        Answers,
        /// Answers the first, and closes the connection without a word.
        ClosesAfterOne,
        /// Answers the first, reads the second and closes the connection.
        DropsTheSecond,
        /// The same in the midst of the second's answer.
        BreaksOffTheSecond,
        /// Reads the first and closes the connection.
        DropsEach,
        /// Answers the first, reads the second and is silent.
        HangsAtTheSecond,
    }

    /// What each connection was asked, in the order in which they came.
    type Asked = Arc<Mutex<Vec<Vec<String>>>>;

    fn start(server: Server) -> (Target, Asked) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for (at, stream) in listener.incoming().enumerate() {
                let (mut stream, seen) = (BufReader::new(stream.unwrap()), Arc::clone(&seen));
                seen.lock().unwrap().push(Vec::new());
                thread::spawn(move || {
                    loop {
                        let mut head = String::new();
                        while !head.ends_with("\r\n\r\n") {
                            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                                return;
                            }
                        }
                        let count = {
                            let mut seen = seen.lock().unwrap();
                            seen[at].push(head.split(' ').next().unwrap().to_owned());
                            seen[at].len()
                        };
                        let answer = match (server, count) {
                            (Server::DropsEach, _) | (Server::DropsTheSecond, 2) => return,
                            (Server::BreaksOffTheSecond, 2) => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal",
                            (Server::HangsAtTheSecond, 2) => "",
                            _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                        };
                        stream.get_mut().write_all(answer.as_bytes()).unwrap();
                        if matches!((server, count), (Server::ClosesAfterOne, 1) | (Server::BreaksOffTheSecond, 2)) {
                            return;
                        }
                    }
                });
            }
        });
        (target, asked)
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_what_reads_is_asked_once_more_where_that_is_gone_and_what_changes_never() {
        let (get, put) = (Method::GET, Method::PUT);
        let [ok, lost] = ["ok", "lost"];
        for (server, methods, answers, asked) in [
            (Server::Answers, [&get, &get, &get], [ok; 3], vec![vec!["GET"; 3]]),
            (Server::Answers, [&get, &put, &get], [ok; 3], vec![vec!["GET"], vec!["PUT", "GET"]]),
            (Server::Answers, [&put, &put, &put], [ok; 3], vec![vec!["PUT"]; 3]),
            (Server::ClosesAfterOne, [&get, &get, &get], [ok; 3], vec![vec!["GET"]; 3]),
            (Server::ClosesAfterOne, [&put, &put, &put], [ok; 3], vec![vec!["PUT"]; 3]),
            (Server::DropsTheSecond, [&get, &get, &put], [ok; 3], vec![vec!["GET"; 2], vec!["GET"], vec!["PUT"]]),
            (Server::BreaksOffTheSecond, [&get, &get, &get], [ok, lost, ok], vec![vec!["GET"; 2], vec!["GET"]]),
            (Server::DropsEach, [&get, &put, &get], [lost; 3], vec![vec!["GET"], vec!["PUT"], vec!["GET"]]),
        ] {
            // Whoever closes has closed when the next request comes, and the connection's driver has seen it or not.
            for is_driven in [false, true] {
                let (target, seen) = start(server);
                let (client, mut kept) = (Client::new(None, Duration::from_secs(60)), Kept::default());
                for (method, wanted) in methods.into_iter().zip(answers) {
                    let mut request = Request::new(Full::<Bytes>::default());
                    *request.method_mut() = method.clone();
                    let answer = client.send_kept(&mut kept, &target, request, 16).await;
                    assert_eq!(answer.map_or(lost, |(_, body)| if body == b"ok" { ok } else { "?" }), wanted);
                    match is_driven {
                        true => tokio::time::sleep(Duration::from_millis(20)).await,
                        false => thread::sleep(Duration::from_millis(20)),
                    }
                }
                assert_eq!(*seen.lock().unwrap(), asked);
            }
        }
    }

    #[tokio::test]
    async fn who_hangs_on_a_kept_connection_is_waited_for_no_longer_and_not_on_it_again() {
        let (target, seen) = start(Server::HangsAtTheSecond);
        let (client, mut kept) = (Client::new(None, Duration::from_secs(60)), Kept::default());
        for is_answered in [true, false, true] {
            let request = Request::new(Full::<Bytes>::default());
            let answer = timeout(Duration::from_millis(500), client.send_kept(&mut kept, &target, request, 16)).await;
            assert_eq!(answer.is_ok(), is_answered);
        }
        assert_eq!(seen.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }
}
