//! How a registry may be reached, and who it is told we are.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use serde::Deserialize;

use super::{OciError, reference::Repository};
use crate::{
    client::{Origin, Scheme},
    config::{ConfigError, Variables},
    file,
};

/// How a registry may be reached. By default over TLS, with the roots that the machine trusts and without credentials.
#[derive(Clone)]
pub struct Access {
    /// The only file of credentials to read; without it, those where `skopeo`, `podman` and `docker` keep them.
    pub auth_file: Option<PathBuf>,
    /// PEM file of the only roots to trust.
    pub ca_file: Option<PathBuf>,
    /// Whom plain http is spoken with.
    pub plain_http: PlainHttp,
    /// `<host>[:<port>]` of token services that may be sent the credentials, beside the registry itself.
    pub token_hosts: Vec<String>,
    /// From the beginning to the end, however many requests it takes.
    pub timeout: Duration,
    usual_auth_files: Vec<PathBuf>,
    pub(super) told: Option<Arc<Told>>,
}

/// Called with the bytes that have gone over, and with how many there are.
pub(super) type Told = dyn Fn(u64, u64) + Send + Sync;

/// Whom plain http is spoken with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlainHttp {
    /// Nobody.
    Never,
    /// Registries on this machine.
    Loopback,
    /// The registry of this `<host>[:<port>]`.
    Only(String),
}

impl Default for Access {
    fn default() -> Self {
        Self {
            auth_file: None,
            ca_file: None,
            plain_http: PlainHttp::Never,
            token_hosts: Vec::new(),
            timeout: Duration::from_secs(300),
            usual_auth_files: Vec::new(),
            told: None,
        }
    }
}

impl Access {
    /// With the credentials of whoever these variables belong to: `REGISTRY_AUTH_FILE`, else the first of
    /// `$XDG_RUNTIME_DIR/containers/auth.json`, `$XDG_CONFIG_HOME/containers/auth.json` (`~/.config`) and
    /// `$DOCKER_CONFIG/config.json` (`~/.docker`) that has some for the registry.
    ///
    /// # Errors
    /// One of the variables is not Unicode.
    pub fn of(variables: &Variables) -> Result<Self, ConfigError> {
        let directory = |name| Ok(variables.text(name)?.filter(|text| !text.is_empty()).map(PathBuf::from));
        let home = directory("HOME")?;
        let at_home = |name| home.as_ref().map(|home| home.join(name));
        let usual = [
            (directory("XDG_RUNTIME_DIR")?, "containers/auth.json"),
            (directory("XDG_CONFIG_HOME")?.or_else(|| at_home(".config")), "containers/auth.json"),
            (directory("DOCKER_CONFIG")?.or_else(|| at_home(".docker")), "config.json"),
        ];
        Ok(Self {
            auth_file: directory("REGISTRY_AUTH_FILE")?,
            usual_auth_files: usual.into_iter().filter_map(|(place, name)| Some(place?.join(name))).collect(),
            ..Self::default()
        })
    }

    /// Calls `told` while a blob goes over, with the bytes that have gone and with how many there are.
    #[must_use]
    pub fn told(self, told: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self { told: Some(Arc::new(told)), ..self }
    }

    pub(super) fn tell(&self, at: u64, of: u64) {
        if let Some(told) = &self.told {
            told(at, of);
        }
    }

    /// Whether this may be asked, for whatever it is.
    pub(super) fn allows(&self, origin: &Origin) -> bool {
        match (origin.scheme, &self.plain_http) {
            (Scheme::Https, _) => true,
            (Scheme::Http, PlainHttp::Never) => false,
            (Scheme::Http, PlainHttp::Loopback) => origin.is_loopback(),
            (Scheme::Http, PlainHttp::Only(registry)) => origin.authority() == *registry,
        }
    }

    /// What the auth files have for this repository.
    pub(super) fn credentials(&self, repository: &Repository) -> Result<Option<Credentials>, OciError> {
        if let Some(file) = &self.auth_file {
            return Credentials::find(file, repository);
        }
        for file in self.usual_auth_files.iter().filter(|file| file.exists()) {
            if let Some(found) = Credentials::find(file, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("auth_file", &self.auth_file)
            .field("ca_file", &self.ca_file)
            .field("plain_http", &self.plain_http)
            .field("token_hosts", &self.token_hosts)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A name and a password.
pub(super) struct Credentials {
    /// As `authorization` has them.
    pub(super) basic: HeaderValue,
    pub(super) file: PathBuf,
}

/// What `skopeo login` and `docker login` write, as far as it is used.
#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
}

#[derive(Deserialize)]
struct AuthEntry {
    /// Absent where a helper program keeps it.
    #[serde(default)]
    auth: Option<String>,
}

impl Credentials {
    fn find(path: &Path, repository: &Repository) -> Result<Option<Self>, OciError> {
        let unusable = |why: String| OciError::AuthFile { path: path.to_owned(), why };
        let bytes = file::read(path, file::CONFIG_BYTES).map_err(|error| unusable(error.to_string()))?;
        // The parser's own words may hold a value of the file.
        let malformed = |error: serde_json::Error| {
            unusable(format!("line {} column {} is malformed", error.line(), error.column()))
        };
        let AuthFile { auths } = serde_json::from_slice(&bytes).map_err(malformed)?;
        let Some(auth) = entry(&auths, repository) else { return Ok(None) };
        let registry = repository.registry();
        let is_pair = STANDARD.decode(auth).is_ok_and(|pair| pair.contains(&b':'));
        let basic = HeaderValue::try_from(format!("Basic {auth}")).ok().filter(|_| is_pair);
        let mut basic = basic.ok_or_else(|| unusable(format!("the `auth` of `{registry}` is no name and password")))?;
        basic.set_sensitive(true);
        Ok(Some(Self { basic, file: path.to_owned() }))
    }
}

/// The entry of the repository, else of what it is in, up to the registry.
fn entry<'a>(auths: &'a BTreeMap<String, AuthEntry>, repository: &Repository) -> Option<&'a str> {
    let whole = format!("{}/{}", repository.registry(), repository.path);
    let mut at = whole.as_str();
    loop {
        if let Some(auth) = auths.get(at).and_then(|entry| entry.auth.as_deref()).filter(|auth| !auth.is_empty()) {
            return Some(auth);
        }
        (at, _) = at.rsplit_once('/')?;
    }
}
