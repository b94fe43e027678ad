//! A registry, as the OCI distribution specification 1.1 has it.
//!
//! Credentials and uploads go to the registry itself and, where the caller names it, to its token service: never to where
//! a redirect leads. **Absent: retries.** A challenge is answered once a request.

use std::{
    convert::Infallible,
    panic,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use axum::body::Bytes;
use gate_core::Digest;
use http::{HeaderValue, Method, Request, StatusCode, header, uri::PathAndQuery};
use hyper::body::{Body, Frame, SizeHint};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Access, Artifact, BUNDLE_BYTES, DOCUMENT_BYTES, Fault, OciError,
    access::{Credentials, PlainHttp, Told},
    challenge::Challenge,
    document::{EMPTY, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Manifest, check_content, check_word},
    len,
    reference::{Name, Repository},
};
use crate::client::{self, Answer, BodyError, Client, ClientError, Origin, Scheme, Target, query_value};

/// From the look-up of a name to the end of the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often one request is sent on.
const REDIRECTS: usize = 5;
/// Most bytes of an answer that says what went wrong, or that holds a token.
const SMALL_BYTES: usize = 64 * 1024;
/// How much of what a registry says is shown.
const SHOWN_CHARS: usize = 200;
/// The part of an upload that is one step of its progress.
const PART_BYTES: usize = 64 * 1024;

pub(super) fn push(bundle: &[u8], repository: &Repository, tag: &str, access: &Access) -> Result<Artifact, OciError> {
    let session = Session::open(repository, access, "pull,push")?;
    run(session, async |session| session.push(bundle, tag).await)
}

pub(super) fn pull(repository: &Repository, name: &Name, access: &Access) -> Result<(Artifact, Vec<u8>), OciError> {
    let session = Session::open(repository, access, "pull")?;
    run(session, async |session| session.pull(name).await)
}

/// Works until it is done or the time is up, on a thread of its own: the caller's may be one of a runtime already.
fn run<T: Send>(
    mut session: Session<'_>,
    work: impl AsyncFnOnce(&mut Session<'_>) -> Result<T, Fault> + Send,
) -> Result<T, OciError> {
    let (repository, max) = (session.repository, session.access.timeout);
    let working = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::NoRuntime)?;
        let outcome = runtime.block_on(async { timeout(max, work(&mut session)).await });
        // The look-up of a name may not end in time: it is not waited for.
        runtime.shutdown_background();
        outcome.unwrap_or(Err(Fault::TimedOut(max)))
    };
    let outcome = thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, working) {
        Ok(working) => working.join().unwrap_or_else(|payload| panic::resume_unwind(payload)),
        Err(error) => Err(Fault::NoRuntime(error)),
    });
    outcome.map_err(|fault| failed(repository, fault))
}

fn failed(repository: &Repository, fault: Fault) -> OciError {
    OciError::Registry { registry: repository.registry(), repository: repository.path.clone(), fault: Box::new(fault) }
}

/// What is done at one repository.
struct Session<'a> {
    repository: &'a Repository,
    access: &'a Access,
    /// What is asked of a token service.
    actions: &'static str,
    origin: Origin,
    client: Client,
    credentials: Option<Credentials>,
    /// What the last challenge was answered with.
    authorization: Option<HeaderValue>,
}

/// One request, as often as it has to be sent.
struct Ask<'a> {
    method: Method,
    target: Target,
    /// What it is about, in words.
    what: &'a str,
    header: Option<(header::HeaderName, &'static str)>,
    body: Bytes,
}

impl<'a> Session<'a> {
    fn open(repository: &'a Repository, access: &'a Access, actions: &'static str) -> Result<Self, OciError> {
        let origin = |scheme: Scheme| Origin {
            scheme,
            host: repository.host.clone(),
            port: repository.port.unwrap_or(scheme.default_port()),
        };
        let is_plain = access.allows(&origin(Scheme::Http));
        if !is_plain && access.plain_http != PlainHttp::Never {
            return Err(failed(repository, Fault::NotPlain(repository.registry())));
        }
        let tls = client::connector(access.ca_file.as_deref(), None, client::HTTP);
        // A registry without TLS needs no roots, unless they were asked for.
        let tls = if is_plain && access.ca_file.is_none() { tls.ok() } else { Some(tls?) };
        Ok(Self {
            repository,
            access,
            actions,
            origin: origin(if is_plain { Scheme::Http } else { Scheme::Https }),
            client: Client::new(tls, CONNECT_TIMEOUT),
            credentials: access.credentials(repository)?,
            authorization: None,
        })
    }

    async fn pull(&mut self, name: &Name) -> Result<(Artifact, Vec<u8>), Fault> {
        let (what, name_text) = match name {
            Name::Tag(tag) => (format!("tag `{tag}`"), tag.clone()),
            Name::Digest(digest) => (format!("manifest `{digest}`"), digest.to_string()),
        };
        let ask = Ask {
            header: Some((header::ACCEPT, MANIFEST_MEDIA_TYPE)),
            ..Ask::new(Method::GET, self.at("manifests", &name_text)?, &what)
        };
        let answer = self.ask(&ask, &[StatusCode::OK]).await?;
        let refused = |why| Fault::Refused { what: "its manifest", why };
        let announced = answer.head.headers.get(CONTENT_DIGEST).cloned();
        check_media_type(&answer).map_err(refused)?;
        let limit = usize::try_from(DOCUMENT_BYTES).unwrap_or(usize::MAX);
        let bytes = answer.read(limit, |_| {}).await.map_err(|error| lost("its manifest", error))?;
        let digest = Digest::of(&bytes);
        if let Name::Digest(asked) = name {
            check_content(&bytes, asked, None).map_err(refused)?;
        }
        if let Some(announced) = announced.filter(|announced| *announced != digest.to_string()) {
            return Err(refused(format!("its digest is `{digest}`, and it comes as {announced:?}")));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
        let layer = manifest.bundle().map_err(refused)?;
        if layer.size > BUNDLE_BYTES {
            return Err(refused(format!("its layer has {} bytes, and {BUNDLE_BYTES} are allowed", layer.size)));
        }
        let bundle = self.layer(&layer.digest, layer.size).await?;
        Ok((Artifact::new(digest, &bundle), bundle))
    }

    async fn layer(&mut self, digest: &Digest, size: u64) -> Result<Vec<u8>, Fault> {
        let refused = |why| Fault::Refused { what: "its bundle", why };
        let ask = Ask::new(
            Method::GET,
            self.at("blobs", &digest.to_string())?,
            "blob of the bundle, which its manifest names",
        );
        let answer = self.ask(&ask, &[StatusCode::OK]).await?;
        let limit = usize::try_from(size).unwrap_or(usize::MAX);
        let told = |at| self.access.tell(u64::try_from(at).unwrap_or(u64::MAX), size);
        let bundle = match answer.read(limit, told).await {
            Err(BodyError::TooLarge(_)) => return Err(refused(format!("it has more bytes, not {size}"))),
            read => read.map_err(|error| lost("its bundle", error))?,
        };
        check_content(&bundle, digest, Some(size)).map_err(refused)?;
        Ok(bundle)
    }

    async fn push(&mut self, bundle: &[u8], tag: &str) -> Result<Artifact, Fault> {
        // Blobs first: whoever reads the manifest finds all that it names. The tag moves with the last request.
        for content in [bundle, EMPTY] {
            self.push_blob(content).await?;
        }
        let manifest =
            serde_json::to_vec(&Manifest::of(bundle)).map_err(|error| Fault::NotSpoken(error.to_string()))?;
        let artifact = Artifact::new(Digest::of(&manifest), bundle);
        let ask = Ask {
            header: Some((header::CONTENT_TYPE, MANIFEST_MEDIA_TYPE)),
            body: manifest.into(),
            ..Ask::new(Method::PUT, self.at("manifests", tag)?, "such repository")
        };
        let answer = self.ask(&ask, &[StatusCode::CREATED]).await?;
        match answer.head.headers.get(CONTENT_DIGEST) {
            Some(stored) if *stored != artifact.manifest.to_string() => Err(Fault::Stored(shown(stored.as_bytes()))),
            Some(_) | None => Ok(artifact),
        }
    }

    async fn push_blob(&mut self, content: &[u8]) -> Result<(), Fault> {
        let digest = Digest::of(content);
        let ask = Ask::new(Method::HEAD, self.at("blobs", &digest.to_string())?, "such blob");
        if self.ask(&ask, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let ask = Ask::new(Method::POST, self.at("blobs", "uploads/")?, "such repository");
        let answer = self.ask(&ask, &[StatusCode::ACCEPTED]).await?;
        let location = answer.header(header::LOCATION).and_then(|location| ask.target.join(location));
        let location = location.ok_or_else(|| Fault::NotSpoken("an upload without a place for it".to_owned()))?;
        if location.origin != self.origin {
            return Err(Fault::UploadElsewhere(location.origin.authority()));
        }
        let joint = if location.path.query().is_some() { '&' } else { '?' };
        let target = self.target(format!("{}{joint}digest={digest}", location.path))?;
        let ask = Ask {
            header: Some((header::CONTENT_TYPE, "application/octet-stream")),
            body: Bytes::copy_from_slice(content),
            ..Ask::new(Method::PUT, target, "place for the upload")
        };
        self.ask(&ask, &[StatusCode::CREATED]).await.map(drop)
    }

    fn at(&self, kind: &str, name: &str) -> Result<Target, Fault> {
        self.target(format!("/v2/{}/{kind}/{name}", self.repository.path))
    }

    fn target(&self, path: String) -> Result<Target, Fault> {
        let path = PathAndQuery::try_from(path).map_err(|error| Fault::NotSpoken(error.to_string()))?;
        Ok(Target { origin: self.origin.clone(), path })
    }

    /// An answer with one of these statuses.
    async fn ask(&mut self, ask: &Ask<'_>, accepted: &[StatusCode]) -> Result<Answer, Fault> {
        let (mut from, mut answer) = self.send(ask).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && from == self.origin {
            self.authenticate(answer).await?;
            (from, answer) = self.send(ask).await?;
        }
        if !accepted.contains(&answer.status()) {
            return Err(self.refusal(answer, &from, ask.what).await);
        }
        match answer.header(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            None => Ok(answer),
            // It would be the digest of something else that holds.
            Some(encoding) => Err(Fault::Refused {
                what: "its answer",
                why: format!("it comes with content-encoding `{}`", shown(encoding.as_bytes())),
            }),
        }
    }

    /// Sends it, and reads again where the registry says; the answer, and whose it is.
    async fn send(&self, ask: &Ask<'_>) -> Result<(Origin, Answer), Fault> {
        let mut target = ask.target.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.client.send(&target, self.request(ask, &target.origin)).await?;
            let is_sent_on = answer.status().is_redirection() && matches!(ask.method, Method::GET | Method::HEAD);
            if !is_sent_on {
                return Ok((target.origin, answer));
            }
            let next = answer.header(header::LOCATION).and_then(|location| target.join(location));
            target = next.ok_or_else(|| Fault::NotSpoken("a redirect that leads nowhere".to_owned()))?;
            if !self.access.allows(&target.origin) {
                return Err(Fault::Downgrade(target.origin.to_string()));
            }
        }
        Err(Fault::TooManyRedirects(REDIRECTS))
    }

    fn request(&self, ask: &Ask<'_>, origin: &Origin) -> Request<Upload> {
        let told = self.access.told.clone();
        let mut request = Request::new(Upload { of: len(&ask.body), rest: ask.body.clone(), told });
        *request.method_mut() = ask.method.clone();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.extend(ask.header.clone().map(|(name, value)| (name, HeaderValue::from_static(value))));
        if *origin == self.origin {
            headers.extend(self.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
        }
        request
    }

    /// Answers the registry's challenge.
    async fn authenticate(&mut self, answer: Answer) -> Result<(), Fault> {
        if self.credentials.is_some() && self.origin.scheme == Scheme::Http && !self.origin.is_loopback() {
            return Err(Fault::CredentialsInClear);
        }
        self.authorization = match Challenge::of(&answer.head.headers) {
            Some(Challenge::Bearer { realm, service }) => Some(self.token(realm, service.as_deref()).await?),
            Some(Challenge::Basic) => match &self.credentials {
                Some(credentials) => Some(credentials.basic.clone()),
                None => return Err(Fault::Unauthenticated(said(answer).await)),
            },
            None => return Err(Fault::NotSpoken("401 without a challenge that is `Basic` or `Bearer`".to_owned())),
        };
        Ok(())
    }

    /// A token for this repository, from the registry or a service that the caller named.
    async fn token(&self, realm: Target, service: Option<&str>) -> Result<HeaderValue, Fault> {
        let authority = realm.origin.authority();
        if !self.access.allows(&realm.origin) {
            return Err(Fault::Downgrade(realm.origin.to_string()));
        }
        if realm.origin != self.origin && !self.access.token_hosts.iter().any(|host| realm.origin.is_called(host)) {
            return Err(Fault::RealmElsewhere(authority));
        }
        let joint = if realm.path.query().is_some() { '&' } else { '?' };
        let service = service.map(|service| format!("service={}&", query_value(service))).unwrap_or_default();
        let scope = query_value(&format!("repository:{}:{}", self.repository.path, self.actions));
        let path = PathAndQuery::try_from(format!("{}{joint}{service}scope={scope}", realm.path));
        let path = path.map_err(|error| Fault::NotSpoken(error.to_string()))?;
        let mut request = Request::new(Upload { rest: Bytes::new(), of: 0, told: None });
        let basic = self.credentials.as_ref().map(|credentials| credentials.basic.clone());
        request.headers_mut().extend(basic.map(|basic| (header::AUTHORIZATION, basic)));
        let answer = self.client.send(&Target { origin: realm.origin.clone(), path }, request).await?;
        if answer.status() != StatusCode::OK {
            return Err(match answer.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.refusal(answer, &self.origin, "").await,
                status => Fault::Elsewhere { host: authority, status: status.as_u16() },
            });
        }
        let body = answer.read(SMALL_BYTES, |_| {}).await.map_err(|error| lost("its token", error))?;
        // Its words may hold the token.
        let malformed = || Fault::NotSpoken(format!("`{authority}` gives no token"));
        let TokenAnswer { token, access_token } = serde_json::from_slice(&body).map_err(|_| malformed())?;
        let token = token.or(access_token).filter(|token| !token.is_empty()).ok_or_else(malformed)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| malformed())?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }

    /// What a status means that was not hoped for.
    async fn refusal(&self, answer: Answer, from: &Origin, what: &str) -> Fault {
        let status = answer.status().as_u16();
        if *from != self.origin {
            return Fault::Elsewhere { host: from.authority(), status };
        }
        let said = said(answer).await;
        match (status, &self.credentials) {
            (401, None) => Fault::Unauthenticated(said),
            (401, Some(credentials)) => Fault::CredentialsRefused { file: credentials.file.clone(), said },
            (403, _) => Fault::Forbidden(said),
            (404, _) => Fault::NotFound { what: what.to_owned(), said },
            (429, _) => Fault::TooManyRequests(said),
            (500..=599, _) => Fault::Failed { status, said },
            (_, _) => Fault::Unexpected { status, said },
        }
    }
}

impl<'a> Ask<'a> {
    fn new(method: Method, target: Target, what: &'a str) -> Self {
        Self { method, target, what, header: None, body: Bytes::new() }
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Connect(_) => Self::Unreachable(message),
            ClientError::Tls(_) => Self::Tls(message),
            ClientError::NoAnswer(_) => Self::Lost(message),
        }
    }
}

/// The digest of what is in the body, or was stored.
const CONTENT_DIGEST: &str = "docker-content-digest";

fn check_media_type(answer: &Answer) -> Result<(), String> {
    let found = answer.header(header::CONTENT_TYPE).map(|value| shown(value.as_bytes())).unwrap_or_default();
    match found.split(';').next().unwrap_or_default().trim() {
        INDEX_MEDIA_TYPE => Err("it is an index of other manifests: name one of them by its digest".to_owned()),
        found => check_word("content-type", found, MANIFEST_MEDIA_TYPE),
    }
}

fn lost(what: &'static str, error: BodyError) -> Fault {
    match error {
        BodyError::TooLarge(limit) => Fault::Refused { what, why: format!("it has more than {limit} bytes") },
        BodyError::Lost(error) => Fault::Lost(error.to_string()),
    }
}

/// What the registry itself says of its refusal: `, <code>: <message>`, or nothing.
async fn said(answer: Answer) -> String {
    #[derive(Deserialize)]
    struct Said {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        code: String,
        #[serde(default)]
        message: String,
    }
    let after = answer.header(header::RETRY_AFTER).map(|after| format!(", retry-after {}", shown(after.as_bytes())));
    let body = answer.read(SMALL_BYTES, |_| {}).await.unwrap_or_default();
    let error = serde_json::from_slice::<Said>(&body).ok().and_then(|said| said.errors.into_iter().next());
    let error = error.map(|Error { code, message }| format!(", {}", shown(format!("{code}: {message}").as_bytes())));
    after.into_iter().chain(error).collect()
}

/// Words of a stranger.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect()
}

/// What a token service answers; some say the one, some the other, some both.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The body of a request, in parts that somebody is told of.
struct Upload {
    rest: Bytes,
    of: u64,
    told: Option<Arc<Told>>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let bytes = self.rest.len().min(PART_BYTES);
        let part = self.rest.split_to(bytes);
        if let Some(told) = &self.told {
            told(self.of.saturating_sub(len(&self.rest)), self.of);
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(len(&self.rest))
    }
}
