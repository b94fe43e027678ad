//! What an operator sets: flag beats environment beats config file beats default.
//!
//! Every layer is read into the same typed settings, so that a word is refused at the same place with the same
//! message wherever it was written, and an unknown name is refused everywhere.

mod document;
mod error;
mod key;
mod places;
mod settings;
#[cfg(test)]
mod tests;
mod variables;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{self, Path, PathBuf},
};

use gate_core::{Freshness, Mode, NodeId};
use serde::Serialize;

pub use error::ConfigError;
pub use key::{KEYS, Key};
pub use settings::{Drain, Engine, Orchestrator};
pub use variables::Variables;

use crate::{tool::AllowedPrefix, wal};
use document::Document;
use key::{PATH_SEPARATOR, Shape};
use places::Places;
use settings::{Attestation, Host, Settings, Wal};

/// Where a setting's value comes from, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The config file.
    File,
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// A setting's value from the command line.
#[derive(Debug, Clone)]
pub struct Given {
    /// The setting.
    pub name: &'static str,
    /// The flag that it was given with.
    pub flag: &'static str,
    /// As it was written.
    pub text: String,
}

/// The settings in force, each with its origin.
#[derive(Debug, Clone)]
pub struct Config {
    places: Places,
    settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

impl Config {
    /// Reads the config file, the environment and the command line's values, and checks them all.
    ///
    /// # Errors
    /// The first thing that is refused, with where it was written.
    pub fn load(variables: &Variables, config_file: Option<PathBuf>, flags: &[Given]) -> Result<Self, ConfigError> {
        let mut places = Places::from_environment(variables)?;
        let named = config_file.or(variables.path("AUTONOMY_CONFIG", "file")?);
        let must_exist = named.is_some();
        if let Some(file) = named {
            places.config_file = file;
        }
        variables.refuse_unknown()?;
        let mut merged = Document::read(&places.config_file, must_exist)?;
        merged.anchor(places.config_file.parent().unwrap_or(Path::new("")));
        let mut origins: BTreeMap<_, _> =
            KEYS.iter().filter(|key| merged.holds(key)).map(|key| (key.name, Origin::File)).collect();
        for key in KEYS {
            if let Some(text) = variables.text(key.env)? {
                merged.put(key, &text, &format!("environment variable `{}`", key.env))?;
                origins.insert(key.name, Origin::Environment);
            }
        }
        for Given { name, flag, text } in flags {
            let key = Key::named(name)?;
            merged.put(key, text, &format!("flag `{flag}`"))?;
            origins.insert(key.name, Origin::Flag);
        }
        let settings =
            merged.settings().map_err(|why| ConfigError::Content { path: places.config_file.clone(), why })?;
        Ok(Self { places, settings, origins })
    }

    /// The config file, whether or not it is there.
    pub fn file(&self) -> &Path {
        &self.places.config_file
    }

    /// Which node this is.
    pub fn node_id(&self) -> Option<&NodeId> {
        self.settings.identity.node_id.as_ref()
    }

    /// How far the gate is turned on: `off` unless somebody said otherwise.
    pub fn mode(&self) -> Mode {
        self.settings.attestation.mode.unwrap_or(Mode::Off)
    }

    /// How old an enrollment answer may be, and how far the clock of its source may be ahead: an orchestrator has one of
    /// its own.
    pub fn freshness(&self) -> Freshness {
        let default = Freshness::default();
        let Attestation { max_staleness_ms, max_skew_ms, .. } = self.settings.attestation;
        let default_skew_ms = if self.orchestrator_url().is_some() { REMOTE_SKEW_MS } else { default.max_skew_ms };
        Freshness {
            max_staleness_ms: max_staleness_ms.unwrap_or(default.max_staleness_ms),
            max_skew_ms: max_skew_ms.unwrap_or(default_skew_ms),
        }
    }

    /// The service to ask for enrollments. None where nobody set it, or where somebody named a local store more closely,
    /// as by a flag.
    pub fn orchestrator_url(&self) -> Option<&str> {
        let is_local = self.origin("store.path") < self.origin("orchestrator.url");
        self.settings.orchestrator.url.as_deref().filter(|_| !is_local)
    }

    /// How the orchestrator is asked, and how it serves.
    pub fn orchestrator(&self) -> &Orchestrator {
        &self.settings.orchestrator
    }

    /// The PostgreSQL database that the orchestrator keeps enrollments in. None where nobody set it, or where somebody
    /// named a local store more closely.
    pub fn orchestrator_database(&self) -> Option<&str> {
        let is_local = self.origin("store.path") < self.origin("orchestrator.database");
        self.settings.orchestrator.database.as_deref().filter(|_| !is_local)
    }

    /// Where the orchestrator listens.
    pub fn orchestrator_listen(&self) -> SocketAddr {
        self.settings.orchestrator.listen.unwrap_or(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7779).into())
    }

    /// The file of the tokens that the orchestrator lets in.
    pub fn orchestrator_tokens(&self) -> PathBuf {
        self.settings.orchestrator.tokens.clone().unwrap_or_else(|| self.places.data.join("orchestrator.tokens"))
    }

    /// The private key that signs leases.
    pub fn orchestrator_signing_key(&self) -> PathBuf {
        let default = || self.places.data.join("keys").join("lease.pem");
        self.settings.orchestrator.signing_key.clone().unwrap_or_else(default)
    }

    /// How long a lease counts, in milliseconds.
    pub fn lease_ttl_ms(&self) -> u64 {
        self.settings.orchestrator.lease_ttl_ms.unwrap_or(60_000)
    }

    /// How often each token may ask the orchestrator.
    pub fn requests_per_second(&self) -> u64 {
        self.settings.orchestrator.requests_per_second.unwrap_or(1_000)
    }

    /// The public keys that may sign leases.
    pub fn lease_keys(&self) -> &[PathBuf] {
        self.settings.attestation.lease_keys.as_deref().unwrap_or_default()
    }

    /// How many distinct lease keys must sign.
    pub fn lease_threshold(&self) -> usize {
        self.settings.attestation.lease_threshold.unwrap_or(1)
    }

    /// The private key that signs bundles.
    pub fn bundle_signing_key(&self) -> PathBuf {
        self.places.data.join("keys").join("bundle.pem")
    }

    /// The public keys that may sign bundles: those that are set, else every `*.pub` and `*.pem` in [`Self::trust_dir`].
    ///
    /// # Errors
    /// The directory exists and cannot be read.
    pub fn trusted_keys(&self) -> Result<Vec<PathBuf>, ConfigError> {
        // A directory on the command line beats keys in the config file.
        let named = self.origin("attestation.trusted_keys") <= self.origin("attestation.trust_dir");
        if let Some(keys) = self.settings.attestation.trusted_keys.as_ref().filter(|_| named) {
            return Ok(keys.clone());
        }
        let directory = self.trust_dir();
        let failed = |source| ConfigError::TrustDir { path: directory.clone(), source };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Nobody has to have the directory that nobody named.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.settings.attestation.trust_dir.is_none() => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(failed(error)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "pub" || extension == "pem") {
                keys.push(path);
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// Where the public keys lie that may sign bundles.
    pub fn trust_dir(&self) -> PathBuf {
        self.settings.attestation.trust_dir.clone().unwrap_or_else(|| self.places.data.join("trusted-keys"))
    }

    /// How many distinct trusted keys must sign.
    pub fn threshold(&self) -> usize {
        self.settings.attestation.threshold.unwrap_or(1)
    }

    /// What decides.
    pub fn engine(&self) -> Engine {
        self.settings.attestation.engine.unwrap_or_default()
    }

    /// Where the compiled module is kept.
    pub fn wasm_cache(&self) -> PathBuf {
        self.settings.attestation.wasm_cache.clone().unwrap_or_else(|| self.places.cache.join("wasm"))
    }

    /// The SQLite file of enrollments.
    pub fn store_path(&self) -> PathBuf {
        self.settings.store.path.clone().unwrap_or_else(|| self.places.data.join("enrollment.sqlite"))
    }

    /// The directory of the write-ahead log.
    pub fn wal_dir(&self) -> PathBuf {
        self.settings.wal.dir.clone().unwrap_or_else(|| self.places.state.join("wal"))
    }

    /// How the log is written.
    pub fn wal_options(&self) -> wal::Options {
        let mut options = wal::Options::default();
        options.segment_bytes = self.settings.wal.segment_bytes.unwrap_or(options.segment_bytes);
        options
    }

    /// What of the log is kept: everything, unless somebody says otherwise.
    pub fn retention(&self) -> wal::Retention {
        let Wal { retain_bytes, retain_days, prune, .. } = self.settings.wal;
        wal::Retention { bytes: retain_bytes, days: retain_days, prune: prune.unwrap_or_default() }
    }

    /// The private key that signs checkpoints of the log.
    pub fn wal_signing_key(&self) -> Option<&Path> {
        self.settings.wal.signing_key.as_deref()
    }

    /// The file that checkpoints of the log are appended to.
    pub fn checkpoints(&self) -> PathBuf {
        self.settings.wal.checkpoints.clone().unwrap_or_else(|| self.wal_dir().join("telemetry.checkpoints"))
    }

    /// The directory of the bundles that rollouts brought to this node.
    pub fn shelf_dir(&self, node_id: &NodeId) -> PathBuf {
        self.places.state.join("rollout").join(node_id.as_str())
    }

    /// The directory of the leases that this machine held last.
    pub fn leases_dir(&self) -> PathBuf {
        self.places.state.join("leases")
    }

    /// Where the log is sent.
    pub fn drain(&self) -> &Drain {
        &self.settings.drain
    }

    /// Where the runtime listens.
    pub fn listen(&self) -> SocketAddr {
        self.settings.runtime.listen.unwrap_or(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7777).into())
    }

    /// Where the native host listens: nowhere but on its socket, where it has one and no address is set.
    pub fn host_listen(&self) -> Option<SocketAddr> {
        let Host { listen, socket, .. } = &self.settings.host;
        let default = || socket.is_none().then(|| SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7778).into());
        listen.or_else(default)
    }

    /// The Unix socket the native host listens on.
    pub fn host_socket(&self) -> Option<&Path> {
        self.settings.host.socket.as_deref()
    }

    /// The file of the token that lets runtimes in.
    pub fn token_file(&self) -> PathBuf {
        self.settings.host.token_file.clone().unwrap_or_else(|| self.places.data.join("host.token"))
    }

    /// The bundle the runtime runs.
    pub fn bundle(&self) -> Option<&Path> {
        self.settings.runtime.bundle.as_deref()
    }

    /// Policies without a bundle.
    pub fn policy_dir(&self) -> Option<&Path> {
        self.settings.runtime.policy_dir.as_deref()
    }

    /// What `tool.http_get` may fetch.
    pub fn http_allow(&self) -> &[AllowedPrefix] {
        self.settings.runtime.http_allow.as_deref().unwrap_or_default()
    }

    /// A setting's value in force, as text, which is empty when there is none.
    ///
    /// # Errors
    /// It is the trusted keys, and their directory cannot be read.
    pub fn value(&self, key: &Key) -> Result<String, ConfigError> {
        (key.value)(self)
    }

    /// Where a setting's value comes from.
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).copied().unwrap_or(Origin::Default)
    }

    /// Writes one setting into the config file, keeping its comments, and gives what was written: a relative path is meant
    /// from where this is run. A value that is not of the setting's form is not written; what it leads to, such as a
    /// file, is not looked at.
    ///
    /// # Errors
    /// What is refused, or why the file cannot be written.
    pub fn set(&self, key: &Key, value: &str) -> Result<String, ConfigError> {
        let value = match key.shape {
            Shape::Path => from_here(value),
            Shape::Paths => value.split(PATH_SEPARATOR).map(from_here).collect::<Vec<_>>().join(PATH_SEPARATOR),
            Shape::Text | Shape::Number(_) | Shape::List => value.to_owned(),
        };
        let mut document = self.document()?;
        document.put(key, &value, &format!("setting `{}`", key.name))?;
        document.write(&self.places.config_file)?;
        Ok(value)
    }

    /// Takes one setting out of the config file, keeping its comments.
    ///
    /// # Errors
    /// Why the file cannot be written.
    pub fn unset(&self, key: &Key) -> Result<(), ConfigError> {
        let mut document = self.document()?;
        document.remove(key);
        document.write(&self.places.config_file)
    }

    fn document(&self) -> Result<Document, ConfigError> {
        Document::read(&self.places.config_file, false)
    }
}

/// A path that stays right wherever the config file is.
fn from_here(path: &str) -> String {
    // What no absolute path can be made of, such as nothing, is refused by its form.
    let absolute = path::absolute(path).ok().and_then(|path| path.into_os_string().into_string().ok());
    absolute.unwrap_or_else(|| path.to_owned())
}

/// How far the clock of an orchestrator may be ahead, in milliseconds, unless somebody says otherwise: what machines on
/// NTP are apart, with room.
const REMOTE_SKEW_MS: u64 = 5_000;
