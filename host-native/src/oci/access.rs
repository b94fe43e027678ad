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
            (Scheme::Http, PlainHttp::Only(registry)) => origin.is_called(registry),
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
        let unusable = |source| OciError::AuthFile { path: path.to_owned(), source };
        let bytes = file::read(path, file::CONFIG_BYTES).map_err(|error| unusable(error.into()))?;
        // The parser's own words may hold a value of the file.
        let malformed = |error: serde_json::Error| {
            unusable(file::wrong(format!("line {} column {} is malformed", error.line(), error.column())))
        };
        let AuthFile { auths } = serde_json::from_slice(&bytes).map_err(malformed)?;
        let Some(auth) = entry(&auths, repository) else { return Ok(None) };
        let registry = repository.registry();
        let is_pair = STANDARD.decode(auth).is_ok_and(|pair| pair.contains(&b':'));
        let basic = HeaderValue::try_from(format!("Basic {auth}")).ok().filter(|_| is_pair);
        let no_pair = || unusable(file::wrong(format!("the `auth` of `{registry}` is no name and password")));
        let mut basic = basic.ok_or_else(no_pair)?;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        ErrorClass,
        oci::reference::{Place, Reference},
    };

    fn repository(path: &str) -> Repository {
        match Reference::parse(&format!("registry.example:5000/{path}:1")).unwrap().0 {
            Place::Registry(repository, _) => repository,
            Place::Layout(..) => panic!(),
        }
    }

    fn auths(entries: &[(&str, &str)]) -> String {
        let entries: Vec<_> =
            entries.iter().map(|(key, pair)| format!("\"{key}\":{{\"auth\":\"{}\"}}", STANDARD.encode(pair))).collect();
        format!("{{\"auths\":{{{}}},\"credsStore\":\"desktop\"}}", entries.join(","))
    }

    /// The name and password that are found.
    fn found(access: &Access, path: &str) -> Option<String> {
        let basic = access.credentials(&repository(path)).unwrap()?.basic;
        assert!(basic.is_sensitive(), "no log shows it");
        let pair = STANDARD.decode(basic.to_str().unwrap().strip_prefix("Basic ").unwrap()).unwrap();
        Some(String::from_utf8(pair).unwrap())
    }

    #[test]
    fn the_nearest_entry_of_the_first_file_that_has_one_counts() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for name in ["run/containers", ".config/containers", ".docker", "xdg/containers", "docker"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (home_dir, run, xdg, docker) = (text(at("")), text(at("run")), text(at("xdg")), text(at("docker")));
        let usual = Access::of(&Variables::from([("HOME", &*home_dir), ("XDG_RUNTIME_DIR", &run)])).unwrap();
        assert_eq!(found(&usual, "fleet/p"), None, "no file is there");
        fs::write(at(".docker/config.json"), auths(&[("registry.example:5000", "docker:1")])).unwrap();
        assert_eq!(found(&usual, "fleet/p").as_deref(), Some("docker:1"));
        fs::write(at(".config/containers/auth.json"), auths(&[("registry.example:5000/fleet", "fleet:2")])).unwrap();
        assert_eq!(found(&usual, "fleet/p").as_deref(), Some("fleet:2"));
        assert_eq!(found(&usual, "fleets/p").as_deref(), Some("docker:1"));
        let entries = [("registry.example:5000/fleet", "a:"), ("registry.example:5000/fleet/p", "run:3")];
        fs::write(at("run/containers/auth.json"), auths(&entries)).unwrap();
        assert_eq!(found(&usual, "fleet/p").as_deref(), Some("run:3"));
        assert_eq!(found(&usual, "fleet/q").as_deref(), Some("a:"));

        fs::write(at("docker/config.json"), auths(&[("registry.example", "another registry:4")])).unwrap();
        let moved = [("HOME", &*home_dir), ("XDG_CONFIG_HOME", &xdg), ("DOCKER_CONFIG", &docker)];
        assert_eq!(found(&Access::of(&Variables::from(moved)).unwrap(), "fleet/p"), None);
        let named = text(at(".docker/config.json"));
        let named = Access::of(&Variables::from([("XDG_RUNTIME_DIR", &*run), ("REGISTRY_AUTH_FILE", &named)])).unwrap();
        assert_eq!(found(&named, "fleet/p").as_deref(), Some("docker:1"));
        // A helper program keeps it: there is nothing here.
        fs::write(at(".docker/config.json"), r#"{"auths":{"registry.example:5000":{}},"credsStore":"desktop"}"#)
            .unwrap();
        assert_eq!(found(&named, "fleet/p"), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_and_nothing_of_it_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.json");
        let access = Access { auth_file: Some(path.clone()), ..Access::default() };
        let refused = |class, why: &str| {
            let error = access.credentials(&repository("p")).err().unwrap();
            assert_eq!(error.class(), class);
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot take credentials from `{}` ({why}): make it with `skopeo login --authfile`, or name another with \
                     `--auth-file`",
                    path.display()
                )
            );
        };
        refused(ErrorClass::Unavailable, "No such file or directory (os error 2)");
        for (content, why) in [
            (r#"{"auths":{"registry.example:5000":"c2VjcmV0"}}"#, "line 1 column 44 is malformed"),
            (
                r#"{"auths":{"registry.example:5000":{"auth":"secret"}}}"#,
                "the `auth` of `registry.example:5000` is no name and password",
            ),
            (
                r#"{"auths":{"registry.example:5000":{"auth":"c2VjcmV0"}}}"#,
                "the `auth` of `registry.example:5000` is no name and password",
            ),
            ("secret", "line 1 column 1 is malformed"),
        ] {
            fs::write(&path, content).unwrap();
            refused(ErrorClass::Usage, why);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused(ErrorClass::Usage, "it is not a regular file");
    }

    #[test]
    fn plain_http_is_for_whom_it_is_allowed() {
        let origin = |scheme, host: &str, port| Origin { scheme, host: host.to_owned(), port };
        for (plain_http, host, port, allowed) in [
            (PlainHttp::Never, "127.0.0.1", 5000, false),
            (PlainHttp::Loopback, "127.0.0.1", 5000, true),
            (PlainHttp::Loopback, "127.8.8.8", 5000, true),
            (PlainHttp::Loopback, "[::1]", 5000, true),
            (PlainHttp::Loopback, "localhost", 80, true),
            (PlainHttp::Loopback, "localhost.example", 80, false),
            (PlainHttp::Loopback, "10.0.0.5", 5000, false),
            (PlainHttp::Loopback, "0.0.0.0", 5000, false),
            (PlainHttp::Only("10.0.0.5:5000".to_owned()), "10.0.0.5", 5000, true),
            (PlainHttp::Only("10.0.0.5:5000".to_owned()), "10.0.0.5", 5001, false),
            (PlainHttp::Only("10.0.0.5".to_owned()), "10.0.0.5", 80, true),
            (PlainHttp::Only("10.0.0.5:80".to_owned()), "10.0.0.5", 80, true),
            (PlainHttp::Only("10.0.0.5".to_owned()), "127.0.0.1", 80, false),
        ] {
            let access = Access { plain_http, ..Access::default() };
            assert_eq!(access.allows(&origin(Scheme::Http, host, port)), allowed, "{access:?} {host}:{port}");
            assert!(access.allows(&origin(Scheme::Https, host, port)));
        }
    }
}
