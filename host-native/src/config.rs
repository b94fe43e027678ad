//! What an operator sets: flag beats environment beats config file beats default.
//!
//! Every layer is read into the same typed [`Settings`], so that a word is refused at the same place with the same
//! message wherever it was written, and an unknown name is refused everywhere.

use gate_core::{Freshness, Mode, NodeId};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
};
use toml_edit::{Array, DocumentMut, Item, Table, Value};

use crate::{ErrorClass, wal};

/// The settings of a layer, or of all of them together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Who this node is.
    pub identity: Identity,
    /// The gate.
    pub attestation: Attestation,
    /// Where enrollments are.
    pub store: Store,
    /// Where a fleet's enrollments are, and the service that keeps them.
    pub orchestrator: Orchestrator,
    /// Where the log is.
    pub wal: Wal,
    /// Where the log is sent.
    pub drain: Drain,
    /// The runtime.
    pub runtime: Runtime,
    /// The native host.
    pub host: Host,
}

/// Who this node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Which node this is.
    pub node_id: Option<NodeId>,
}

/// The gate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attestation {
    /// How far it is turned on.
    pub mode: Option<Mode>,
    /// How long an enrollment answer counts, in milliseconds.
    pub max_staleness_ms: Option<u64>,
    /// How far the source's clock may be ahead, in milliseconds.
    pub max_skew_ms: Option<u64>,
    /// The public keys that may sign bundles.
    pub trusted_keys: Option<Vec<PathBuf>>,
    /// The directory that holds them, where they are not named one by one.
    pub trust_dir: Option<PathBuf>,
    /// How many distinct trusted keys must sign.
    pub threshold: Option<usize>,
    /// The public keys that may sign leases.
    pub lease_keys: Option<Vec<PathBuf>>,
    /// How many distinct lease keys must sign.
    pub lease_threshold: Option<usize>,
    /// What decides.
    pub engine: Option<Engine>,
    /// Where the compiled module is kept.
    pub wasm_cache: Option<PathBuf>,
}

/// What decides: the answers are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// gate-core, as part of this program.
    #[default]
    Native,
    /// gate.wasm, as in runtimes of other languages.
    Wasm,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Wasm => "wasm",
        })
    }
}

/// Where enrollments are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The SQLite file.
    pub path: Option<PathBuf>,
}

/// The orchestrator: how it is asked, and how it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Orchestrator {
    /// The service to ask, in the place of the local store.
    pub url: Option<String>,
    /// The file of the token that it lets in.
    pub token_file: Option<PathBuf>,
    /// The only roots to trust for it.
    pub ca: Option<PathBuf>,
    /// The certificate to show it, where it asks for one.
    pub client_cert: Option<PathBuf>,
    /// That certificate's private key.
    pub client_key: Option<PathBuf>,
    /// The PostgreSQL database of enrollments, in the place of the local store.
    #[serde(deserialize_with = "without_password")]
    pub database: Option<String>,
    /// The file of the database's password.
    pub database_password_file: Option<PathBuf>,
    /// The only roots to trust for the database.
    pub database_ca: Option<PathBuf>,
    /// Where it listens.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// The file of the tokens that it lets in.
    pub tokens: Option<PathBuf>,
    /// The private key that signs leases.
    pub signing_key: Option<PathBuf>,
    /// How long a lease counts, in milliseconds.
    pub lease_ttl_ms: Option<u64>,
    /// How often each token may ask.
    pub requests_per_second: Option<u32>,
    /// Its certificate, with those that lead to a root.
    pub tls_cert: Option<PathBuf>,
    /// That certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// The roots of the certificates that clients must show.
    pub tls_client_ca: Option<PathBuf>,
}

/// Where the log is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wal {
    /// Its directory.
    pub dir: Option<PathBuf>,
    /// When a segment is full, in bytes.
    pub segment_bytes: Option<u64>,
    /// How many bytes of it are kept.
    pub retain_bytes: Option<u64>,
    /// How many days a segment is kept after it was sealed.
    pub retain_days: Option<u64>,
    /// Whether only what was drained is deleted.
    pub prune: Option<wal::Prune>,
    /// The private key that signs checkpoints.
    pub signing_key: Option<PathBuf>,
    /// The file that checkpoints are appended to.
    pub checkpoints: Option<PathBuf>,
}

/// Where the log is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// The collector.
    pub to: Option<String>,
    /// The file of the token that it lets in.
    pub token_file: Option<PathBuf>,
    /// The only roots to trust for it.
    pub ca: Option<PathBuf>,
}

/// The runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Where it listens.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// The bundle it runs.
    pub bundle: Option<PathBuf>,
    /// Policies without a bundle, for development.
    pub policy_dir: Option<PathBuf>,
    /// What `tool.http_get` may fetch.
    pub http_allow: Option<Vec<String>>,
}

/// The native host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Where it listens.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// The Unix socket it listens on.
    pub socket: Option<PathBuf>,
    /// The file of the token that lets runtimes in.
    pub token_file: Option<PathBuf>,
}

fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| {
        let text = text.escape_debug();
        serde::de::Error::custom(format!("address `{text}` is not known: use `<ip>:<port>`, such as `127.0.0.1:7777`"))
    })
}

/// What is set is shown: a password is not taken.
fn without_password<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let url = String::deserialize(deserializer)?;
    let credentials = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map_or("", |(before, _)| before);
    if credentials.contains(':') || url.contains("password=") {
        return Err(serde::de::Error::custom(
            "the url holds a password: put it into a file that its owner alone can read, and name that with \
             `--database-password-file`",
        ));
    }
    Ok(Some(url))
}

/// How a value is written in an environment variable or on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Path,
    /// From this one.
    Number(i64),
    /// Joined by the platform's path separator.
    Paths,
    /// Joined by commas.
    List,
}

/// A setting that has a name.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the config file: `<table>.<key>`.
    pub name: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// Its flag on a command line, where one value may be given, or several by repeating it.
    pub flag: &'static str,
    /// What it means, in a line.
    pub help: &'static str,
    shape: Shape,
}

impl Key {
    /// Whether its value is where one file or directory is.
    pub fn is_path(&self) -> bool {
        self.shape == Shape::Path
    }
}

const fn key(name: &'static str, env: &'static str, flag: &'static str, shape: Shape, help: &'static str) -> Key {
    Key { name, env, flag, help, shape }
}

/// Every setting.
pub const KEYS: &[Key] = &[
    key("identity.node_id", "AUTONOMY_NODE_ID", "--node-id", Shape::Text, "which node this is"),
    key("attestation.mode", "AUTONOMY_ATTESTATION_MODE", "--mode", Shape::Text, "`off`, `advisory` or `enforce`"),
    key(
        "attestation.max_staleness_ms",
        "AUTONOMY_ATTESTATION_MAX_STALENESS_MS",
        "--max-staleness-ms",
        Shape::Number(0),
        "how long an enrollment answer counts",
    ),
    key(
        "attestation.max_skew_ms",
        "AUTONOMY_ATTESTATION_MAX_SKEW_MS",
        "--max-skew-ms",
        Shape::Number(0),
        "how far the enrollment source's clock may be ahead",
    ),
    key(
        "attestation.trusted_keys",
        "AUTONOMY_ATTESTATION_TRUSTED_KEYS",
        "--trusted-key",
        Shape::Paths,
        "public keys that may sign bundles",
    ),
    key(
        "attestation.trust_dir",
        "AUTONOMY_ATTESTATION_TRUST_DIR",
        "--trust-dir",
        Shape::Path,
        "the directory whose public keys may sign bundles",
    ),
    key(
        "attestation.threshold",
        "AUTONOMY_ATTESTATION_THRESHOLD",
        "--threshold",
        Shape::Number(1),
        "how many distinct trusted keys must sign",
    ),
    key(
        "attestation.lease_keys",
        "AUTONOMY_ATTESTATION_LEASE_KEYS",
        "--lease-key",
        Shape::Paths,
        "public keys that may sign leases",
    ),
    key(
        "attestation.lease_threshold",
        "AUTONOMY_ATTESTATION_LEASE_THRESHOLD",
        "--lease-threshold",
        Shape::Number(1),
        "how many distinct lease keys must sign",
    ),
    key(
        "attestation.engine",
        "AUTONOMY_ATTESTATION_ENGINE",
        "--engine",
        Shape::Text,
        "what decides: `native` or `wasm`",
    ),
    key(
        "attestation.wasm_cache",
        "AUTONOMY_ATTESTATION_WASM_CACHE",
        "--wasm-cache",
        Shape::Path,
        "the directory that keeps the compiled module",
    ),
    key("store.path", "AUTONOMY_STORE_PATH", "--store", Shape::Path, "the SQLite file of enrollments"),
    key(
        "orchestrator.url",
        "AUTONOMY_ORCHESTRATOR_URL",
        "--orchestrator-url",
        Shape::Text,
        "the service that keeps a fleet's enrollments",
    ),
    key(
        "orchestrator.token_file",
        "AUTONOMY_ORCHESTRATOR_TOKEN_FILE",
        "--orchestrator-token-file",
        Shape::Path,
        "the file of the token that the orchestrator lets in",
    ),
    key(
        "orchestrator.ca",
        "AUTONOMY_ORCHESTRATOR_CA",
        "--orchestrator-ca",
        Shape::Path,
        "the only roots to trust for the orchestrator",
    ),
    key(
        "orchestrator.client_cert",
        "AUTONOMY_ORCHESTRATOR_CLIENT_CERT",
        "--orchestrator-client-cert",
        Shape::Path,
        "the certificate to show the orchestrator",
    ),
    key(
        "orchestrator.client_key",
        "AUTONOMY_ORCHESTRATOR_CLIENT_KEY",
        "--orchestrator-client-key",
        Shape::Path,
        "the private key of that certificate",
    ),
    key(
        "orchestrator.database",
        "AUTONOMY_ORCHESTRATOR_DATABASE",
        "--database",
        Shape::Text,
        "the PostgreSQL database that the orchestrator keeps enrollments in",
    ),
    key(
        "orchestrator.database_password_file",
        "AUTONOMY_ORCHESTRATOR_DATABASE_PASSWORD_FILE",
        "--database-password-file",
        Shape::Path,
        "the file of the database's password",
    ),
    key(
        "orchestrator.database_ca",
        "AUTONOMY_ORCHESTRATOR_DATABASE_CA",
        "--database-ca",
        Shape::Path,
        "the only roots to trust for the database",
    ),
    key(
        "orchestrator.listen",
        "AUTONOMY_ORCHESTRATOR_LISTEN",
        "--listen",
        Shape::Text,
        "where the orchestrator listens",
    ),
    key(
        "orchestrator.tokens",
        "AUTONOMY_ORCHESTRATOR_TOKENS",
        "--tokens",
        Shape::Path,
        "the file of the tokens that the orchestrator lets in",
    ),
    key(
        "orchestrator.signing_key",
        "AUTONOMY_ORCHESTRATOR_SIGNING_KEY",
        "--signing-key",
        Shape::Path,
        "the private key that signs leases",
    ),
    key(
        "orchestrator.lease_ttl_ms",
        "AUTONOMY_ORCHESTRATOR_LEASE_TTL_MS",
        "--lease-ttl-ms",
        Shape::Number(1),
        "how long a lease counts",
    ),
    key(
        "orchestrator.requests_per_second",
        "AUTONOMY_ORCHESTRATOR_REQUESTS_PER_SECOND",
        "--requests-per-second",
        Shape::Number(1),
        "how often each token may ask",
    ),
    key(
        "orchestrator.tls_cert",
        "AUTONOMY_ORCHESTRATOR_TLS_CERT",
        "--tls-cert",
        Shape::Path,
        "the orchestrator's certificate",
    ),
    key(
        "orchestrator.tls_key",
        "AUTONOMY_ORCHESTRATOR_TLS_KEY",
        "--tls-key",
        Shape::Path,
        "the private key of that certificate",
    ),
    key(
        "orchestrator.tls_client_ca",
        "AUTONOMY_ORCHESTRATOR_TLS_CLIENT_CA",
        "--tls-client-ca",
        Shape::Path,
        "the roots of the certificates that clients must show",
    ),
    key("wal.dir", "AUTONOMY_WAL_DIR", "--wal-dir", Shape::Path, "the directory of the write-ahead log"),
    key(
        "wal.segment_bytes",
        "AUTONOMY_WAL_SEGMENT_BYTES",
        "--segment-bytes",
        Shape::Number(4096),
        "when a segment of the log is full and sealed",
    ),
    key(
        "wal.retain_bytes",
        "AUTONOMY_WAL_RETAIN_BYTES",
        "--retain-bytes",
        Shape::Number(1),
        "how much of the log is kept",
    ),
    key(
        "wal.retain_days",
        "AUTONOMY_WAL_RETAIN_DAYS",
        "--retain-days",
        Shape::Number(1),
        "how long a segment of the log is kept",
    ),
    key(
        "wal.prune",
        "AUTONOMY_WAL_PRUNE",
        "--prune",
        Shape::Text,
        "what may be deleted then: what was `drained`, or `any`",
    ),
    key(
        "wal.signing_key",
        "AUTONOMY_WAL_SIGNING_KEY",
        "--wal-signing-key",
        Shape::Path,
        "the private key that signs checkpoints of the log",
    ),
    key(
        "wal.checkpoints",
        "AUTONOMY_WAL_CHECKPOINTS",
        "--checkpoints",
        Shape::Path,
        "the file that checkpoints of the log are appended to",
    ),
    key("drain.to", "AUTONOMY_DRAIN_TO", "--drain-to", Shape::Text, "the OTLP collector that the log is sent to"),
    key(
        "drain.token_file",
        "AUTONOMY_DRAIN_TOKEN_FILE",
        "--drain-token-file",
        Shape::Path,
        "the file of the token that the collector lets in",
    ),
    key("drain.ca", "AUTONOMY_DRAIN_CA", "--drain-ca", Shape::Path, "the only roots to trust for the collector"),
    key("runtime.listen", "AUTONOMY_RUNTIME_LISTEN", "--listen", Shape::Text, "where the runtime listens"),
    key("runtime.bundle", "AUTONOMY_RUNTIME_BUNDLE", "--bundle", Shape::Path, "the bundle the runtime runs"),
    key(
        "runtime.policy_dir",
        "AUTONOMY_RUNTIME_POLICY_DIR",
        "--policy-dir",
        Shape::Path,
        "policies without a bundle, for development",
    ),
    key(
        "runtime.http_allow",
        "AUTONOMY_RUNTIME_HTTP_ALLOW",
        "--http-allow",
        Shape::List,
        "what `tool.http_get` may fetch",
    ),
    key("host.listen", "AUTONOMY_HOST_LISTEN", "--listen", Shape::Text, "where the native host listens"),
    key("host.socket", "AUTONOMY_HOST_SOCKET", "--socket", Shape::Path, "the Unix socket the native host listens on"),
    key(
        "host.token_file",
        "AUTONOMY_HOST_TOKEN_FILE",
        "--token-file",
        Shape::Path,
        "the file of the token that lets runtimes in",
    ),
];

/// Why the settings are refused. Nothing starts with half of them.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The config file cannot be read or written.
    #[error("config file `{}` ({source}): correct the path, or who may read and write it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory of trusted keys cannot be read.
    #[error("trust directory `{}` ({source}): correct `--trust-dir` or `attestation.trust_dir`, or who may read it", path.display())]
    TrustDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The config file is not what it must be.
    #[error("config file `{}`: {why}; correct the file", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A value is refused.
    #[error("{origin}: {why}")]
    Value {
        /// Where it was written.
        origin: String,
        /// Why.
        why: String,
    },
    /// An environment variable that nothing reads.
    #[error("environment variable `{name}` is not known: use one of {}", known_attestation_variables())]
    UnknownVariable {
        /// The variable.
        name: String,
    },
    /// An environment variable that nothing reads, almost named as one that is.
    #[error("environment variable `{name}` is not known, did you mean `{meant}`: set that, or unset it")]
    MisspeltVariable {
        /// The variable.
        name: String,
        /// The one that is read.
        meant: &'static str,
    },
    /// An environment variable that is not Unicode.
    #[error("environment variable `{name}` is not UTF-8: set it again, or unset it")]
    NotUnicode {
        /// The variable.
        name: String,
    },
    /// A name that is no setting's.
    #[error("`{name}` is not a setting{}: `autonomy config show` lists them", nearest(name))]
    UnknownKey {
        /// The name.
        name: String,
    },
    /// There is nowhere to keep state.
    #[error("no home directory: set `AUTONOMY_HOME`, or `HOME`")]
    NoHome,
}

impl ConfigError {
    /// Whose turn it is: a wrong name is the operator's, what the disk or its rights refuse is not.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::File { source, .. } | Self::TrustDir { source, .. } if source.kind() != io::ErrorKind::NotFound => {
                ErrorClass::Unavailable
            }
            Self::File { .. }
            | Self::TrustDir { .. }
            | Self::Content { .. }
            | Self::Value { .. }
            | Self::UnknownVariable { .. }
            | Self::MisspeltVariable { .. }
            | Self::NotUnicode { .. }
            | Self::UnknownKey { .. }
            | Self::NoHome => ErrorClass::Usage,
        }
    }
}

fn known_attestation_variables() -> String {
    let names = KEYS.iter().map(|key| key.env).filter(|env| env.starts_with("AUTONOMY_ATTESTATION_"));
    names.map(|env| format!("`{env}`")).collect::<Vec<_>>().join(", ")
}

fn nearest(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let close = KEYS.iter().find(|key| key.name.ends_with(last) || name.contains(key.name));
    close.map(|key| format!(", did you mean `{}`", key.name)).unwrap_or_default()
}

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

/// Where this machine keeps configuration and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The config file.
    pub config_file: PathBuf,
    /// Keys and enrollments.
    pub data: PathBuf,
    /// The log.
    pub state: PathBuf,
    /// What can be made again.
    pub cache: PathBuf,
}

impl Places {
    /// Everything below one directory.
    pub fn below(home: &Path) -> Self {
        Self {
            config_file: home.join("config.toml"),
            data: home.to_owned(),
            state: home.to_owned(),
            cache: home.join("cache"),
        }
    }

    /// `AUTONOMY_HOME`, else the XDG base directories (version 0.8).
    fn from_environment(variables: &Variables) -> Result<Self, ConfigError> {
        if let Some(home) = variables.text("AUTONOMY_HOME")? {
            if home.is_empty() {
                return Err(ConfigError::Value {
                    origin: "environment variable `AUTONOMY_HOME`".into(),
                    why: "is empty: name a directory, or unset it".into(),
                });
            }
            return Ok(Self::below(Path::new(&home)));
        }
        let user = variables.text("HOME")?.filter(|home| !home.is_empty()).map(PathBuf::from);
        let base = |variable: &str, below_home: &str| -> Result<PathBuf, ConfigError> {
            // The specification: a relative path is to be ignored.
            match variables.text(variable)?.map(PathBuf::from).filter(|path| path.is_absolute()) {
                Some(base) => Ok(base.join("autonomy")),
                None => user.as_ref().map(|user| user.join(below_home).join("autonomy")).ok_or(ConfigError::NoHome),
            }
        };
        Ok(Self {
            config_file: base("XDG_CONFIG_HOME", ".config")?.join("config.toml"),
            data: base("XDG_DATA_HOME", ".local/share")?,
            state: base("XDG_STATE_HOME", ".local/state")?,
            cache: base("XDG_CACHE_HOME", ".cache")?,
        })
    }
}

/// The environment, taken once.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, Option<String>>);

impl Variables {
    /// The process's.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()))
        };
        Self(env::vars_os().filter_map(text).collect())
    }

    /// The same, with one of them set.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), Some(value.to_owned()));
        self
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value.clone())),
            Some(None) => Err(ConfigError::NotUnicode { name: name.to_owned() }),
        }
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Variables {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), Some(value.to_owned()))).collect())
    }
}

/// The settings in force, each with its origin.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where this machine keeps things.
    pub places: Places,
    settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

impl Config {
    /// Reads the config file, the environment and the command line's values (`name`, value), and checks them all.
    ///
    /// # Errors
    /// The first thing that is refused, with where it was written.
    pub fn load(
        variables: &Variables,
        config_file: Option<PathBuf>,
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigError> {
        let mut places = Places::from_environment(variables)?;
        let variable = variables.text("AUTONOMY_CONFIG")?;
        if variable.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::Value {
                origin: "environment variable `AUTONOMY_CONFIG`".into(),
                why: "is empty: name a file, or unset it".into(),
            });
        }
        let named = config_file.or(variable.map(PathBuf::from));
        let must_exist = named.is_some();
        if let Some(file) = named {
            places.config_file = file;
        }
        refuse_unknown_variables(variables)?;
        let file = read_file(&places.config_file, must_exist)?;
        let mut merged = file.as_table().clone();
        anchor(&mut merged, places.config_file.parent().unwrap_or(Path::new("")));
        let mut origins: BTreeMap<_, _> =
            KEYS.iter().filter(|key| item(&merged, key.name).is_some()).map(|key| (key.name, Origin::File)).collect();
        for key in KEYS {
            if let Some(text) = variables.text(key.env)? {
                put(&mut merged, key, &text, &format!("environment variable `{}`", key.env))?;
                origins.insert(key.name, Origin::Environment);
            }
        }
        for (name, text) in flags {
            let key = find(name)?;
            put(&mut merged, key, text, &format!("flag `{}`", key.flag))?;
            origins.insert(key.name, Origin::Flag);
        }
        let settings = typed(merged).map_err(|why| ConfigError::Content { path: places.config_file.clone(), why })?;
        Ok(Self { places, settings, origins })
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
    pub fn requests_per_second(&self) -> u32 {
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
    pub fn http_allow(&self) -> &[String] {
        self.settings.runtime.http_allow.as_deref().unwrap_or_default()
    }

    /// Every setting with its value in force, as text, and where it comes from.
    ///
    /// # Errors
    /// The directory of trusted keys exists and cannot be read.
    pub fn show(&self) -> Result<Vec<(Key, String, Origin)>, ConfigError> {
        KEYS.iter().map(|key| Ok((*key, self.value(key.name)?, self.origin(key.name)))).collect()
    }

    /// One setting's value in force, as text; empty when there is none.
    ///
    /// # Errors
    /// A name that is no setting's.
    pub fn value(&self, name: &str) -> Result<String, ConfigError> {
        let path = |path: &Path| path.display().to_string();
        let paths = |paths: &[PathBuf]| paths.iter().map(|one| path(one)).collect::<Vec<_>>().join(PATH_SEPARATOR);
        let set = |file: &Option<PathBuf>| file.as_deref().map(path).unwrap_or_default();
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let orchestrator = &self.settings.orchestrator;
        Ok(match find(name)?.name {
            "identity.node_id" => self.node_id().map(ToString::to_string).unwrap_or_default(),
            "attestation.mode" => self.mode().to_string(),
            "attestation.max_staleness_ms" => self.freshness().max_staleness_ms.to_string(),
            "attestation.max_skew_ms" => self.freshness().max_skew_ms.to_string(),
            "attestation.trusted_keys" => paths(&self.trusted_keys()?),
            "attestation.trust_dir" => path(&self.trust_dir()),
            "attestation.threshold" => self.threshold().to_string(),
            "attestation.lease_keys" => paths(self.lease_keys()),
            "attestation.lease_threshold" => self.lease_threshold().to_string(),
            "attestation.engine" => self.engine().to_string(),
            "attestation.wasm_cache" => path(&self.wasm_cache()),
            "store.path" => path(&self.store_path()),
            "orchestrator.url" => orchestrator.url.clone().unwrap_or_default(),
            "orchestrator.token_file" => set(&orchestrator.token_file),
            "orchestrator.ca" => set(&orchestrator.ca),
            "orchestrator.client_cert" => set(&orchestrator.client_cert),
            "orchestrator.client_key" => set(&orchestrator.client_key),
            "orchestrator.database" => orchestrator.database.clone().unwrap_or_default(),
            "orchestrator.database_password_file" => set(&orchestrator.database_password_file),
            "orchestrator.database_ca" => set(&orchestrator.database_ca),
            "orchestrator.listen" => self.orchestrator_listen().to_string(),
            "orchestrator.tokens" => path(&self.orchestrator_tokens()),
            "orchestrator.signing_key" => path(&self.orchestrator_signing_key()),
            "orchestrator.lease_ttl_ms" => self.lease_ttl_ms().to_string(),
            "orchestrator.requests_per_second" => self.requests_per_second().to_string(),
            "orchestrator.tls_cert" => set(&orchestrator.tls_cert),
            "orchestrator.tls_key" => set(&orchestrator.tls_key),
            "orchestrator.tls_client_ca" => set(&orchestrator.tls_client_ca),
            "wal.dir" => path(&self.wal_dir()),
            "wal.retain_bytes" => number(self.retention().bytes),
            "wal.retain_days" => number(self.retention().days),
            "wal.prune" => self.retention().prune.to_string(),
            "wal.signing_key" => self.wal_signing_key().map(path).unwrap_or_default(),
            "wal.checkpoints" => path(&self.checkpoints()),
            "wal.segment_bytes" => self.wal_options().segment_bytes.to_string(),
            "drain.to" => self.drain().to.clone().unwrap_or_default(),
            "drain.token_file" => set(&self.drain().token_file),
            "drain.ca" => set(&self.drain().ca),
            "runtime.listen" => self.listen().to_string(),
            "runtime.bundle" => self.bundle().map(path).unwrap_or_default(),
            "runtime.policy_dir" => self.policy_dir().map(path).unwrap_or_default(),
            "host.listen" => self.host_listen().map(|address| address.to_string()).unwrap_or_default(),
            "host.socket" => self.host_socket().map(path).unwrap_or_default(),
            "host.token_file" => path(&self.token_file()),
            "runtime.http_allow" => self.http_allow().join(","),
            // A key without a value here is a defect, which every `config show` tells.
            _ => return Err(ConfigError::UnknownKey { name: name.to_owned() }),
        })
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
    pub fn set(&self, name: &str, value: &str) -> Result<String, ConfigError> {
        let key = find(name)?;
        let value = match key.shape {
            Shape::Path => from_here(value),
            Shape::Paths => value.split(PATH_SEPARATOR).map(from_here).collect::<Vec<_>>().join(PATH_SEPARATOR),
            Shape::Text | Shape::Number(_) | Shape::List => value.to_owned(),
        };
        self.edit(|file| put(file, key, &value, &format!("setting `{name}`")))?;
        Ok(value)
    }

    /// Takes one setting out of the config file, keeping its comments.
    ///
    /// # Errors
    /// A name that is no setting's, or why the file cannot be written.
    pub fn unset(&self, name: &str) -> Result<(), ConfigError> {
        let (table, leaf) = split(find(name)?.name);
        self.edit(|file| {
            if let Some(table) = file.get_mut(table).and_then(Item::as_table_like_mut) {
                table.remove(leaf);
            }
            Ok(())
        })
    }

    /// Replaces the config file whole; who may read it stays.
    fn edit(&self, edit: impl FnOnce(&mut Table) -> Result<(), ConfigError>) -> Result<(), ConfigError> {
        let path = &self.places.config_file;
        let mut document = read_file(path, false)?;
        edit(document.as_table_mut())?;
        let failed = |source| ConfigError::File { path: path.clone(), source };
        fs::create_dir_all(crate::file::directory_of(path)).map_err(failed)?;
        crate::file::replace(path, document.to_string().as_bytes()).map_err(failed)
    }
}

/// A path that stays right wherever the config file is.
fn from_here(path: &str) -> String {
    // What no absolute path can be made of, such as nothing, is refused by its form.
    let absolute = std::path::absolute(path).ok().and_then(|path| path.into_os_string().into_string().ok());
    absolute.unwrap_or_else(|| path.to_owned())
}

const PATH_SEPARATOR: &str = ":";

/// How far the clock of an orchestrator may be ahead, in milliseconds, unless somebody says otherwise: what machines on
/// NTP are apart, with room.
const REMOTE_SKEW_MS: u64 = 5_000;

fn find(name: &str) -> Result<&'static Key, ConfigError> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| ConfigError::UnknownKey { name: name.to_owned() })
}

fn split(name: &'static str) -> (&'static str, &'static str) {
    name.split_once('.').unwrap_or(("", name))
}

fn item<'a>(table: &'a Table, name: &'static str) -> Option<&'a Item> {
    let (outer, leaf) = split(name);
    table.get(outer)?.get(leaf)
}

fn refuse_unknown_variables(variables: &Variables) -> Result<(), ConfigError> {
    // Not every name of ours: a cluster sets some for a service that is called `autonomy-…`.
    for name in variables.0.keys().filter(|name| !KEYS.iter().any(|key| key.env == name.as_str())) {
        if let Some(key) = KEYS.iter().find(|key| is_meant(name, key)) {
            return Err(ConfigError::MisspeltVariable { name: name.clone(), meant: key.env });
        }
        if name.to_ascii_uppercase().starts_with("AUTONOMY_ATTESTATION_") {
            return Err(ConfigError::UnknownVariable { name: name.clone() });
        }
    }
    Ok(())
}

/// Whether a name is one slip or two away from a variable, or is one of those that decide without its middle word.
fn is_meant(name: &str, key: &Key) -> bool {
    strsim::osa_distance(name, key.env) <= 2
        || key
            .env
            .strip_prefix("AUTONOMY_ATTESTATION_")
            .is_some_and(|leaf| name.strip_prefix("AUTONOMY_") == Some(leaf))
}

fn read_file(path: &Path, must_exist: bool) -> Result<DocumentMut, ConfigError> {
    let text = match crate::file::read_text(path, crate::file::CONFIG_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => String::new(),
        Err(source) => return Err(ConfigError::File { path: path.to_owned(), source }),
    };
    let content = |why: String| ConfigError::Content { path: path.to_owned(), why };
    let document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| content(one_line(&error.to_string())))?;
    typed(document.as_table().clone()).map_err(content)?;
    Ok(document)
}

fn typed(table: Table) -> Result<Settings, String> {
    toml_edit::de::from_document(DocumentMut::from(table)).map_err(|error| one_line(&error.to_string()))
}

/// Errors of the TOML reader draw the place over several lines. What stands there is not shown: it may be a password.
fn one_line(text: &str) -> String {
    let is_drawing = |line: &str| line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|');
    let parts: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_drawing(line)).collect();
    parts.join(": ")
}

/// Relative paths in the config file are meant from where the file is.
fn anchor(table: &mut Table, directory: &Path) {
    let joined = |path: &str| Value::from(directory.join(path).to_string_lossy().into_owned());
    for key in KEYS.iter().filter(|key| matches!(key.shape, Shape::Path | Shape::Paths)) {
        let (outer, leaf) = split(key.name);
        match table.get_mut(outer).and_then(Item::as_table_like_mut).and_then(|inner| inner.get_mut(leaf)) {
            Some(Item::Value(Value::Array(paths))) => {
                for path in paths.iter_mut() {
                    *path = joined(path.as_str().unwrap_or_default());
                }
            }
            Some(Item::Value(path)) => *path = joined(path.as_str().unwrap_or_default()),
            _ => {}
        }
    }
}

/// Sets one key from text, refusing what its type refuses.
fn put(table: &mut Table, key: &Key, text: &str, origin: &str) -> Result<(), ConfigError> {
    let fail = |why: String| Err(ConfigError::Value { origin: origin.to_owned(), why });
    let list = |separator: &str| Value::Array(text.split(separator).filter(|part| !part.is_empty()).collect::<Array>());
    let value = match key.shape {
        Shape::Text | Shape::Path
            if text.is_empty() && key.name != "attestation.mode" && key.name != "identity.node_id" =>
        {
            return fail("is empty: give a value, or leave it out".into());
        }
        Shape::Text | Shape::Path => Value::from(text),
        Shape::Number(least) => match text.parse::<i64>() {
            Ok(number) if number >= least => Value::from(number),
            Ok(_) => return fail(format!("`{}` is too small: give a whole number from {least}", text.escape_debug())),
            Err(_) => {
                let text = text.escape_debug();
                return fail(format!("`{text}` is not a whole number from {least} to {}: give one", i64::MAX));
            }
        },
        Shape::Paths => list(PATH_SEPARATOR),
        Shape::List => list(","),
    };
    let (outer, leaf) = split(key.name);
    let mut alone = Table::new();
    alone.insert(outer, Item::Table(Table::from_iter([(leaf, value.clone())])));
    if let Err(why) = typed(alone) {
        return fail(why.split(": in `").next().unwrap_or(&why).to_owned());
    }
    let entry = table.entry(outer).or_insert_with(|| Item::Table(Table::new()));
    if let Some(inner) = entry.as_table_like_mut() {
        let mut value = value;
        if let Some(before) = inner.get(leaf).and_then(Item::as_value) {
            // The comment behind it.
            *value.decor_mut() = before.decor().clone();
        }
        inner.insert(leaf, Item::Value(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn load(pairs: &[(&str, &str)], file: &str, flags: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("config.toml"), file).unwrap();
        let mut variables: Variables = [("AUTONOMY_HOME", home.path().to_str().unwrap())].into();
        variables.0.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))));
        let flags: Vec<_> = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Config::load(&variables, None, &flags)
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let file = "[attestation]\nmode = \"advisory\"\nthreshold = 2\n";
        let config = load(&[], "", &[]).unwrap();
        assert_eq!((config.mode(), config.origin("attestation.mode")), (Mode::Off, Origin::Default));
        let config = load(&[], file, &[]).unwrap();
        assert_eq!((config.mode(), config.origin("attestation.mode")), (Mode::Advisory, Origin::File));
        assert_eq!(config.threshold(), 2);
        let config = load(&[("AUTONOMY_ATTESTATION_MODE", "enforce")], file, &[]).unwrap();
        assert_eq!((config.mode(), config.origin("attestation.mode")), (Mode::Enforce, Origin::Environment));
        let config = load(&[("AUTONOMY_ATTESTATION_MODE", "enforce")], file, &[("attestation.mode", "off")]).unwrap();
        assert_eq!((config.mode(), config.origin("attestation.mode")), (Mode::Off, Origin::Flag));
    }

    #[test]
    fn the_trust_directory_is_where_somebody_said_and_beats_keys_of_a_weaker_layer() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.pub"), "").unwrap();
        let keys = "[attestation]\ntrusted_keys = [\"/a.pub\"]\n";
        let directory = ("attestation.trust_dir", dir.path().to_str().unwrap());
        assert_eq!(load(&[], keys, &[]).unwrap().trusted_keys().unwrap(), [Path::new("/a.pub")]);
        assert_eq!(load(&[], keys, &[directory]).unwrap().trusted_keys().unwrap(), [dir.path().join("b.pub")]);
        let environment = ("AUTONOMY_ATTESTATION_TRUST_DIR", directory.1);
        assert_eq!(load(&[environment], keys, &[]).unwrap().trusted_keys().unwrap(), [dir.path().join("b.pub")]);
        assert_eq!(load(&[], "", &[]).unwrap().trusted_keys().unwrap(), Vec::<PathBuf>::new());
        let gone = load(&[], "", &[("attestation.trust_dir", "/gone")]).unwrap();
        assert!(gone.trusted_keys().unwrap_err().to_string().contains("`/gone`"));
    }

    #[test]
    fn a_relative_path_in_the_file_is_meant_from_where_the_file_is() {
        let file =
            "[wal]\ndir = \"log\"\n[store]\npath = \"/var/e.sqlite\"\n[attestation]\ntrusted_keys = [\"a.pub\"]\n";
        let config = load(&[], file, &[]).unwrap();
        let home = config.places.config_file.parent().unwrap();
        assert_eq!(config.wal_dir(), home.join("log"));
        assert_eq!(config.store_path(), Path::new("/var/e.sqlite"));
        assert_eq!(config.trusted_keys().unwrap(), [home.join("a.pub")]);
        assert_eq!(load(&[], file, &[("wal.dir", "log")]).unwrap().wal_dir(), Path::new("log"), "a flag: from here");
    }

    #[test]
    fn each_typo_is_refused_with_its_place() {
        let environment = [
            (
                "AUTONOMY_ATTESTATION_MODE",
                "",
                "environment variable `AUTONOMY_ATTESTATION_MODE`: mode `` is not known: use `off`, `advisory` or `enforce`",
            ),
            (
                "AUTONOMY_ATTESTATION_MODE",
                "Enforce",
                "environment variable `AUTONOMY_ATTESTATION_MODE`: mode `Enforce` is not known: use `off`, `advisory` or `enforce`",
            ),
            (
                "AUTONOMY_NODE_ID",
                "",
                "environment variable `AUTONOMY_NODE_ID`: node id is empty: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`",
            ),
            (
                "AUTONOMY_NODE_ID",
                "robot 7",
                "environment variable `AUTONOMY_NODE_ID`: node id `robot 7` holds ` `: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`",
            ),
            (
                "AUTONOMY_ATTESTATION_THRESHOLD",
                "two",
                "environment variable `AUTONOMY_ATTESTATION_THRESHOLD`: `two` is not a whole number from 1 to 9223372036854775807: give one",
            ),
            (
                "AUTONOMY_ATTESTATION_MAX_SKEW_MS",
                "-1",
                "environment variable `AUTONOMY_ATTESTATION_MAX_SKEW_MS`: `-1` is too small: give a whole number from 0",
            ),
            (
                "AUTONOMY_RUNTIME_LISTEN",
                "localhost",
                "environment variable `AUTONOMY_RUNTIME_LISTEN`: address `localhost` is not known: use `<ip>:<port>`, such as `127.0.0.1:7777`",
            ),
        ];
        for (name, value, message) in environment {
            assert_eq!(load(&[(name, value)], "", &[]).unwrap_err().to_string(), message);
        }
        let unknown = load(&[("AUTONOMY_ATTESTATION_MODUS", "off")], "", &[]).unwrap_err().to_string();
        assert!(unknown.starts_with("environment variable `AUTONOMY_ATTESTATION_MODUS` is not known"), "{unknown}");
        for (file, part) in [
            ("[attestation]\nmodus = \"off\"", "unknown field `modus`"),
            ("[atestation]\nmode = \"off\"", "unknown field `atestation`"),
            ("[attestation]\nmode = \"on\"", "mode `on` is not known: use `off`, `advisory` or `enforce`"),
            ("[attestation]\nmode = off", "TOML parse error at line 2"),
            ("[identity]\nnode_id = \"a\u{2013}b\"", "which only looks like `-`"),
            ("[attestation]\nmode = \"off\"\nmode = \"enforce\"", "duplicate key"),
        ] {
            let message = load(&[], file, &[]).unwrap_err().to_string();
            assert!(message.starts_with("config file `") && message.contains(part), "{message}");
            assert!(message.ends_with("; correct the file"), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        let flag = load(&[], "", &[("attestation.mode", "enforced")]).unwrap_err().to_string();
        assert_eq!(flag, "flag `--mode`: mode `enforced` is not known: use `off`, `advisory` or `enforce`");
        let flag = load(&[], "", &[("store.path", "")]).unwrap_err().to_string();
        assert_eq!(flag, "flag `--store`: is empty: give a value, or leave it out");
    }

    #[test]
    fn a_setting_is_written_only_when_it_would_be_accepted_and_comments_stay() {
        let home = tempfile::tempdir().unwrap();
        let variables: Variables = [("AUTONOMY_HOME", home.path().to_str().unwrap())].into();
        let file = home.path().join("config.toml");
        fs::write(&file, "# ours\n[attestation] # the gate\nmode = \"off\" # since May\n").unwrap();
        let config = Config::load(&variables, None, &[]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        config.set("attestation.mode", "enforce").unwrap();
        config.set("identity.node_id", "robot-7").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# ours\n[attestation] # the gate\nmode = \"enforce\" # since May\n"), "{text}");
        assert!(config.set("attestation.mode", "on").is_err());
        let unknown = config.set("node_id", "x").unwrap_err().to_string();
        assert_eq!(
            unknown,
            "`node_id` is not a setting, did you mean `identity.node_id`: `autonomy config show` lists them"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        config.unset("identity.node_id").unwrap();
        let written = config.set("attestation.trusted_keys", "a.pub:/b.pub").unwrap();
        assert_eq!(written, format!("{}:/b.pub", env::current_dir().unwrap().join("a.pub").display()));
        assert!(config.set("runtime.bundle", "").is_err());
        let config = Config::load(&variables, None, &[]).unwrap();
        assert_eq!((config.mode(), config.node_id()), (Mode::Enforce, None));
        assert_eq!(config.value("attestation.trusted_keys").unwrap(), written);
    }
}
