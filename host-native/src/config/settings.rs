//! The settings as they are typed.

use std::{fmt, net::SocketAddr, path::PathBuf};

use gate_core::{Mode, NodeId};
use serde::{Deserialize, Serialize};

use crate::{
    serve,
    tool::{AllowedPrefix, url},
    wal,
};

/// The settings of a layer, or of all of them together.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Who this node is.
    pub(super) identity: Identity,
    /// The gate.
    pub(super) attestation: Attestation,
    /// Where enrollments are.
    pub(super) store: Store,
    /// Where a fleet's enrollments are, and the service that keeps them.
    pub(super) orchestrator: Orchestrator,
    /// Where the log is.
    pub(super) wal: Wal,
    /// Where the log is sent.
    pub(super) drain: Drain,
    /// The runtime.
    pub(super) runtime: Runtime,
    /// The native host.
    pub(super) host: Host,
}

/// Who this node is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Identity {
    /// Which node this is.
    pub(super) node_id: Option<NodeId>,
}

/// The gate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Attestation {
    /// How far it is turned on.
    pub(super) mode: Option<Mode>,
    /// How long an enrollment answer counts, in milliseconds.
    pub(super) max_staleness_ms: Option<u64>,
    /// How far the source's clock may be ahead, in milliseconds.
    pub(super) max_skew_ms: Option<u64>,
    /// The public keys that may sign bundles.
    pub(super) trusted_keys: Option<Vec<PathBuf>>,
    /// The directory that holds them, where they are not named one by one.
    pub(super) trust_dir: Option<PathBuf>,
    /// How many distinct trusted keys must sign.
    pub(super) threshold: Option<usize>,
    /// The public keys that may sign leases.
    pub(super) lease_keys: Option<Vec<PathBuf>>,
    /// How many distinct lease keys must sign.
    pub(super) lease_threshold: Option<usize>,
    /// What decides.
    pub(super) engine: Option<Engine>,
    /// Where the compiled module is kept.
    pub(super) wasm_cache: Option<PathBuf>,
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
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Store {
    /// The SQLite file.
    pub(super) path: Option<PathBuf>,
}

/// The orchestrator: how it is asked, and how it serves.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Orchestrator {
    /// The service to ask, in the place of the local store.
    #[serde(deserialize_with = "service")]
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
    pub requests_per_second: Option<u64>,
    /// Its certificate, with those that lead to a root.
    pub tls_cert: Option<PathBuf>,
    /// That certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// The roots of the certificates that clients must show.
    pub tls_client_ca: Option<PathBuf>,
}

/// Where the log is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wal {
    /// Its directory.
    pub(super) dir: Option<PathBuf>,
    /// When a segment is full, in bytes.
    pub(super) segment_bytes: Option<u64>,
    /// How many bytes of it are kept.
    pub(super) retain_bytes: Option<u64>,
    /// How many days a segment is kept after it was sealed.
    pub(super) retain_days: Option<u64>,
    /// Whether only what was drained is deleted.
    pub(super) prune: Option<wal::Prune>,
    /// The private key that signs checkpoints.
    pub(super) signing_key: Option<PathBuf>,
    /// The file that checkpoints are appended to.
    pub(super) checkpoints: Option<PathBuf>,
}

/// Where the log is sent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// The collector.
    #[serde(deserialize_with = "service")]
    pub to: Option<String>,
    /// The file of the token that it lets in.
    pub token_file: Option<PathBuf>,
    /// The only roots to trust for it.
    pub ca: Option<PathBuf>,
}

/// The runtime.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Runtime {
    /// Where it listens.
    #[serde(deserialize_with = "loopback")]
    pub(super) listen: Option<SocketAddr>,
    /// The bundle it runs.
    pub(super) bundle: Option<PathBuf>,
    /// Policies without a bundle, for development.
    pub(super) policy_dir: Option<PathBuf>,
    /// What `tool.http_get` may fetch.
    pub(super) http_allow: Option<Vec<AllowedPrefix>>,
}

/// The native host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Host {
    /// Where it listens.
    #[serde(deserialize_with = "loopback")]
    pub(super) listen: Option<SocketAddr>,
    /// The Unix socket it listens on.
    pub(super) socket: Option<PathBuf>,
    /// The file of the token that lets runtimes in.
    pub(super) token_file: Option<PathBuf>,
}

fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| {
        let text = text.escape_debug();
        serde::de::Error::custom(format!("address `{text}` is not known: use `<ip>:<port>`, such as `127.0.0.1:7777`"))
    })
}

/// Without TLS of its own, a service is for this machine alone.
fn loopback<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let listen = address(deserializer)?;
    listen.map_or(Ok(()), serve::is_loopback).map_err(serde::de::Error::custom)?;
    Ok(listen)
}

/// Who is asked with a token.
fn service<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let url = String::deserialize(deserializer)?;
    url::check_service(&url).map_err(serde::de::Error::custom)?;
    Ok(Some(url))
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
