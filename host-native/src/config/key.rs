//! The one table of settings: what each is called, where it is set, what its value is.

use super::ConfigError;

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
}

impl Key {
    pub(super) fn named(name: &str) -> Result<&'static Self, ConfigError> {
        KEYS.iter().find(|key| key.name == name).ok_or_else(|| ConfigError::UnknownKey { name: name.to_owned() })
    }

    /// Whether its value is where one file or directory is.
    pub fn is_path(&self) -> bool {
        self.shape == Shape::Path
    }

    /// Its table in the config file, and its key there.
    pub(super) fn place(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
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
