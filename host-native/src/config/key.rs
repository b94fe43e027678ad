//! The one table of settings: what each is called, where it is set, what its value is.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError};

pub(super) const PATH_SEPARATOR: &str = ":";

/// How a value is written in an environment variable or on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
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
    pub(super) shape: Shape,
    /// Its value in force, as text; empty when there is none.
    pub(super) value: fn(&Config) -> Result<String, ConfigError>,
}

impl Key {
    /// The setting with this name.
    ///
    /// # Errors
    /// There is none: which may have been meant.
    pub fn named(name: &str) -> Result<&'static Self, ConfigError> {
        KEYS.iter().find(|key| key.name == name).ok_or_else(|| ConfigError::UnknownKey { name: name.to_owned() })
    }

    /// The files and directories that a value of it names.
    pub fn paths<'a>(&self, value: &'a str) -> Vec<&'a Path> {
        match self.shape {
            Shape::Path => vec![Path::new(value)],
            Shape::Paths => value.split(PATH_SEPARATOR).map(Path::new).collect(),
            Shape::Text | Shape::Number(_) | Shape::List => Vec::new(),
        }
    }

    /// Its table in the config file, and its key there.
    pub(super) fn place(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }
}

/// Every setting.
pub const KEYS: &[Key] = &[
    Key {
        name: "identity.node_id",
        env: "AUTONOMY_NODE_ID",
        flag: "--node-id",
        shape: Shape::Text,
        help: "which node this is",
        value: |config| Ok(optional(config.node_id())),
    },
    Key {
        name: "attestation.mode",
        env: "AUTONOMY_ATTESTATION_MODE",
        flag: "--mode",
        shape: Shape::Text,
        help: "`off`, `advisory` or `enforce`",
        value: |config| Ok(config.mode().to_string()),
    },
    Key {
        name: "attestation.max_staleness_ms",
        env: "AUTONOMY_ATTESTATION_MAX_STALENESS_MS",
        flag: "--max-staleness-ms",
        shape: Shape::Number(0),
        help: "how long an enrollment answer counts",
        value: |config| Ok(config.freshness().max_staleness_ms.to_string()),
    },
    Key {
        name: "attestation.max_skew_ms",
        env: "AUTONOMY_ATTESTATION_MAX_SKEW_MS",
        flag: "--max-skew-ms",
        shape: Shape::Number(0),
        help: "how far the enrollment source's clock may be ahead",
        value: |config| Ok(config.freshness().max_skew_ms.to_string()),
    },
    Key {
        name: "attestation.trusted_keys",
        env: "AUTONOMY_ATTESTATION_TRUSTED_KEYS",
        flag: "--trusted-key",
        shape: Shape::Paths,
        help: "public keys that may sign bundles",
        value: |config| config.trusted_keys().map(|keys| paths(&keys)),
    },
    Key {
        name: "attestation.trust_dir",
        env: "AUTONOMY_ATTESTATION_TRUST_DIR",
        flag: "--trust-dir",
        shape: Shape::Path,
        help: "the directory whose public keys may sign bundles",
        value: |config| Ok(path(&config.trust_dir())),
    },
    Key {
        name: "attestation.threshold",
        env: "AUTONOMY_ATTESTATION_THRESHOLD",
        flag: "--threshold",
        shape: Shape::Number(1),
        help: "how many distinct trusted keys must sign",
        value: |config| Ok(config.threshold().to_string()),
    },
    Key {
        name: "attestation.lease_keys",
        env: "AUTONOMY_ATTESTATION_LEASE_KEYS",
        flag: "--lease-key",
        shape: Shape::Paths,
        help: "public keys that may sign leases",
        value: |config| Ok(paths(config.lease_keys())),
    },
    Key {
        name: "attestation.lease_threshold",
        env: "AUTONOMY_ATTESTATION_LEASE_THRESHOLD",
        flag: "--lease-threshold",
        shape: Shape::Number(1),
        help: "how many distinct lease keys must sign",
        value: |config| Ok(config.lease_threshold().to_string()),
    },
    Key {
        name: "attestation.engine",
        env: "AUTONOMY_ATTESTATION_ENGINE",
        flag: "--engine",
        shape: Shape::Text,
        help: "what decides: `native` or `wasm`",
        value: |config| Ok(config.engine().to_string()),
    },
    Key {
        name: "attestation.wasm_cache",
        env: "AUTONOMY_ATTESTATION_WASM_CACHE",
        flag: "--wasm-cache",
        shape: Shape::Path,
        help: "the directory that keeps the compiled module",
        value: |config| Ok(path(&config.wasm_cache())),
    },
    Key {
        name: "store.path",
        env: "AUTONOMY_STORE_PATH",
        flag: "--store",
        shape: Shape::Path,
        help: "the SQLite file of enrollments",
        value: |config| Ok(path(&config.store_path())),
    },
    Key {
        name: "orchestrator.url",
        env: "AUTONOMY_ORCHESTRATOR_URL",
        flag: "--orchestrator-url",
        shape: Shape::Text,
        help: "the service that keeps a fleet's enrollments",
        value: |config| Ok(optional(config.orchestrator().url.as_ref())),
    },
    Key {
        name: "orchestrator.token_file",
        env: "AUTONOMY_ORCHESTRATOR_TOKEN_FILE",
        flag: "--orchestrator-token-file",
        shape: Shape::Path,
        help: "the file of the token that the orchestrator lets in",
        value: |config| Ok(optional_path(config.orchestrator().token_file.as_deref())),
    },
    Key {
        name: "orchestrator.ca",
        env: "AUTONOMY_ORCHESTRATOR_CA",
        flag: "--orchestrator-ca",
        shape: Shape::Path,
        help: "the only roots to trust for the orchestrator",
        value: |config| Ok(optional_path(config.orchestrator().ca.as_deref())),
    },
    Key {
        name: "orchestrator.client_cert",
        env: "AUTONOMY_ORCHESTRATOR_CLIENT_CERT",
        flag: "--orchestrator-client-cert",
        shape: Shape::Path,
        help: "the certificate to show the orchestrator",
        value: |config| Ok(optional_path(config.orchestrator().client_cert.as_deref())),
    },
    Key {
        name: "orchestrator.client_key",
        env: "AUTONOMY_ORCHESTRATOR_CLIENT_KEY",
        flag: "--orchestrator-client-key",
        shape: Shape::Path,
        help: "the private key of that certificate",
        value: |config| Ok(optional_path(config.orchestrator().client_key.as_deref())),
    },
    Key {
        name: "orchestrator.database",
        env: "AUTONOMY_ORCHESTRATOR_DATABASE",
        flag: "--database",
        shape: Shape::Text,
        help: "the PostgreSQL database that the orchestrator keeps enrollments in",
        value: |config| Ok(optional(config.orchestrator().database.as_ref())),
    },
    Key {
        name: "orchestrator.database_password_file",
        env: "AUTONOMY_ORCHESTRATOR_DATABASE_PASSWORD_FILE",
        flag: "--database-password-file",
        shape: Shape::Path,
        help: "the file of the database's password",
        value: |config| Ok(optional_path(config.orchestrator().database_password_file.as_deref())),
    },
    Key {
        name: "orchestrator.database_ca",
        env: "AUTONOMY_ORCHESTRATOR_DATABASE_CA",
        flag: "--database-ca",
        shape: Shape::Path,
        help: "the only roots to trust for the database",
        value: |config| Ok(optional_path(config.orchestrator().database_ca.as_deref())),
    },
    Key {
        name: "orchestrator.listen",
        env: "AUTONOMY_ORCHESTRATOR_LISTEN",
        flag: "--listen",
        shape: Shape::Text,
        help: "where the orchestrator listens",
        value: |config| Ok(config.orchestrator_listen().to_string()),
    },
    Key {
        name: "orchestrator.tokens",
        env: "AUTONOMY_ORCHESTRATOR_TOKENS",
        flag: "--tokens",
        shape: Shape::Path,
        help: "the file of the tokens that the orchestrator lets in",
        value: |config| Ok(path(&config.orchestrator_tokens())),
    },
    Key {
        name: "orchestrator.signing_key",
        env: "AUTONOMY_ORCHESTRATOR_SIGNING_KEY",
        flag: "--signing-key",
        shape: Shape::Path,
        help: "the private key that signs leases",
        value: |config| Ok(path(&config.orchestrator_signing_key())),
    },
    Key {
        name: "orchestrator.lease_ttl_ms",
        env: "AUTONOMY_ORCHESTRATOR_LEASE_TTL_MS",
        flag: "--lease-ttl-ms",
        shape: Shape::Number(1),
        help: "how long a lease counts",
        value: |config| Ok(config.lease_ttl_ms().to_string()),
    },
    Key {
        name: "orchestrator.requests_per_second",
        env: "AUTONOMY_ORCHESTRATOR_REQUESTS_PER_SECOND",
        flag: "--requests-per-second",
        shape: Shape::Number(1),
        help: "how often each token may ask",
        value: |config| Ok(config.requests_per_second().to_string()),
    },
    Key {
        name: "orchestrator.tls_cert",
        env: "AUTONOMY_ORCHESTRATOR_TLS_CERT",
        flag: "--tls-cert",
        shape: Shape::Path,
        help: "the orchestrator's certificate",
        value: |config| Ok(optional_path(config.orchestrator().tls_cert.as_deref())),
    },
    Key {
        name: "orchestrator.tls_key",
        env: "AUTONOMY_ORCHESTRATOR_TLS_KEY",
        flag: "--tls-key",
        shape: Shape::Path,
        help: "the private key of that certificate",
        value: |config| Ok(optional_path(config.orchestrator().tls_key.as_deref())),
    },
    Key {
        name: "orchestrator.tls_client_ca",
        env: "AUTONOMY_ORCHESTRATOR_TLS_CLIENT_CA",
        flag: "--tls-client-ca",
        shape: Shape::Path,
        help: "the roots of the certificates that clients must show",
        value: |config| Ok(optional_path(config.orchestrator().tls_client_ca.as_deref())),
    },
    Key {
        name: "wal.dir",
        env: "AUTONOMY_WAL_DIR",
        flag: "--wal-dir",
        shape: Shape::Path,
        help: "the directory of the write-ahead log",
        value: |config| Ok(path(&config.wal_dir())),
    },
    Key {
        name: "wal.segment_bytes",
        env: "AUTONOMY_WAL_SEGMENT_BYTES",
        flag: "--segment-bytes",
        shape: Shape::Number(4096),
        help: "when a segment of the log is full and sealed",
        value: |config| Ok(config.wal_options().segment_bytes.to_string()),
    },
    Key {
        name: "wal.retain_bytes",
        env: "AUTONOMY_WAL_RETAIN_BYTES",
        flag: "--retain-bytes",
        shape: Shape::Number(1),
        help: "how much of the log is kept",
        value: |config| Ok(optional(config.retention().bytes.as_ref())),
    },
    Key {
        name: "wal.retain_days",
        env: "AUTONOMY_WAL_RETAIN_DAYS",
        flag: "--retain-days",
        shape: Shape::Number(1),
        help: "how long a segment of the log is kept",
        value: |config| Ok(optional(config.retention().days.as_ref())),
    },
    Key {
        name: "wal.prune",
        env: "AUTONOMY_WAL_PRUNE",
        flag: "--prune",
        shape: Shape::Text,
        help: "what may be deleted then: what was `drained`, or `any`",
        value: |config| Ok(config.retention().prune.to_string()),
    },
    Key {
        name: "wal.signing_key",
        env: "AUTONOMY_WAL_SIGNING_KEY",
        flag: "--wal-signing-key",
        shape: Shape::Path,
        help: "the private key that signs checkpoints of the log",
        value: |config| Ok(optional_path(config.wal_signing_key())),
    },
    Key {
        name: "wal.checkpoints",
        env: "AUTONOMY_WAL_CHECKPOINTS",
        flag: "--checkpoints",
        shape: Shape::Path,
        help: "the file that checkpoints of the log are appended to",
        value: |config| Ok(path(&config.checkpoints())),
    },
    Key {
        name: "drain.to",
        env: "AUTONOMY_DRAIN_TO",
        flag: "--drain-to",
        shape: Shape::Text,
        help: "the OTLP collector that the log is sent to",
        value: |config| Ok(optional(config.drain().to.as_ref())),
    },
    Key {
        name: "drain.token_file",
        env: "AUTONOMY_DRAIN_TOKEN_FILE",
        flag: "--drain-token-file",
        shape: Shape::Path,
        help: "the file of the token that the collector lets in",
        value: |config| Ok(optional_path(config.drain().token_file.as_deref())),
    },
    Key {
        name: "drain.ca",
        env: "AUTONOMY_DRAIN_CA",
        flag: "--drain-ca",
        shape: Shape::Path,
        help: "the only roots to trust for the collector",
        value: |config| Ok(optional_path(config.drain().ca.as_deref())),
    },
    Key {
        name: "runtime.listen",
        env: "AUTONOMY_RUNTIME_LISTEN",
        flag: "--listen",
        shape: Shape::Text,
        help: "where the runtime listens",
        value: |config| Ok(config.listen().to_string()),
    },
    Key {
        name: "runtime.bundle",
        env: "AUTONOMY_RUNTIME_BUNDLE",
        flag: "--bundle",
        shape: Shape::Path,
        help: "the bundle the runtime runs",
        value: |config| Ok(optional_path(config.bundle())),
    },
    Key {
        name: "runtime.policy_dir",
        env: "AUTONOMY_RUNTIME_POLICY_DIR",
        flag: "--policy-dir",
        shape: Shape::Path,
        help: "policies without a bundle, for development",
        value: |config| Ok(optional_path(config.policy_dir())),
    },
    Key {
        name: "runtime.http_allow",
        env: "AUTONOMY_RUNTIME_HTTP_ALLOW",
        flag: "--http-allow",
        shape: Shape::List,
        help: "what `tool.http_get` may fetch",
        value: |config| Ok(config.http_allow().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    },
    Key {
        name: "host.listen",
        env: "AUTONOMY_HOST_LISTEN",
        flag: "--listen",
        shape: Shape::Text,
        help: "where the native host listens",
        value: |config| Ok(optional(config.host_listen().as_ref())),
    },
    Key {
        name: "host.socket",
        env: "AUTONOMY_HOST_SOCKET",
        flag: "--socket",
        shape: Shape::Path,
        help: "the Unix socket the native host listens on",
        value: |config| Ok(optional_path(config.host_socket())),
    },
    Key {
        name: "host.token_file",
        env: "AUTONOMY_HOST_TOKEN_FILE",
        flag: "--token-file",
        shape: Shape::Path,
        help: "the file of the token that lets runtimes in",
        value: |config| Ok(path(&config.token_file())),
    },
];

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|one| path(one)).collect::<Vec<_>>().join(PATH_SEPARATOR)
}

fn optional_path(file: Option<&Path>) -> String {
    file.map(path).unwrap_or_default()
}

fn optional(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
