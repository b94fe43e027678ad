//! The command line as a whole, and the flags that several commands share.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum as _,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use gate_core::{Reason, frame::Kind, reason::UnknownReason};
use host_native::{
    config::Variables,
    oci::{Access, PlainHttp},
};

use crate::{
    attestation, audit, bundle, completions, config,
    context::Flags,
    demo,
    error::CliError,
    host, key, node, orchestrator,
    output::{Color, Format},
    rollout, runtime,
    time::parse_duration,
    wal,
};

/// Decides whether an AI agent or robot may run a tool now, and proves it afterwards.
#[derive(Debug, Parser)]
#[command(
    name = "autonomy",
    version,
    arg_required_else_help = true,
    propagate_version = false,
    disable_help_subcommand = true,
    after_help = "Examples:
  autonomy node enroll --node-id robot-7 --enrollment-ref fleet-a
  autonomy attestation status --node-id robot-7
  autonomy attestation explain not_enrolled
  autonomy config show
  autonomy demo

Exit codes: 0 done, 1 the gate would deny, 2 usage or configuration, 3 unavailable, 4 damaged log."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What stands before or after any command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Keep configuration and state below this directory (else `AUTONOMY_HOME`, else the XDG directories).
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<String>,
    /// Read this config file (else `AUTONOMY_CONFIG`, else `config.toml` in its place).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print for people or for programs.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Print with colours.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy key generate --out release.pem --trust"
    )]
    Key(key::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy bundle build --source src --name fleet/policies --version 1.0.0 \\
    --enrollment-ref fleet-a --key release.pem --out bundle.tar
  autonomy bundle verify bundle.tar"
    )]
    Bundle(bundle::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy node enroll --node-id robot-7 --enrollment-ref fleet-a
  autonomy node revoke --node-id robot-7
  autonomy node list"
    )]
    Node(node::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy rollout create --bundle registry.example/fleet/policies:1.1.0 \\
    --all --canary 10%
  autonomy rollout list
  autonomy rollout set --node-id robot-7 --state pending"
    )]
    Rollout(rollout::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy attestation status --node-id robot-7
  autonomy attestation eval --bundle bundle.tar --node-id robot-7
  autonomy attestation explain not_enrolled"
    )]
    Attestation(attestation::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  AUTONOMY_ATTESTATION_MODE=advisory \\
    autonomy runtime start --bundle bundle.tar --node-id robot-7"
    )]
    Runtime(runtime::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy host token
  autonomy host serve"
    )]
    Host(host::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy orchestrator token --name ops --role operator --out ops.token
  autonomy orchestrator serve"
    )]
    Orchestrator(orchestrator::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy wal inspect --follow
  autonomy wal verify
  autonomy wal drain --to http://127.0.0.1:4318
  autonomy wal doctor"
    )]
    Wal(wal::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy audit list
  autonomy audit get 0196f0c2-7d3e-7a41-9f55-0c5d8e1b2a34"
    )]
    Audit(audit::Command),
    #[command(
        subcommand,
        after_help = "Examples:
  autonomy config set identity.node_id robot-7
  autonomy config show"
    )]
    Config(config::Command),
    /// Play the runbook for real on this machine, in seconds.
    Demo(demo::Demo),
    /// Print a completion script for a shell.
    Completions(completions::Completions),
    /// Write the manual pages.
    Man(completions::Man),
}

/// What `--output` and `--color` ask for, whatever else is on the command line.
pub(crate) fn format_and_color(arguments: &[OsString]) -> (Format, Color) {
    let words: Vec<_> = arguments.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--").collect();
    let value = |flag: &str| {
        let apart = words.windows(2).filter_map(|pair| match pair {
            [name, value] if *name == flag => Some(*value),
            _ => None,
        });
        let joined = words.iter().filter_map(|word| word.strip_prefix(flag)?.strip_prefix('='));
        apart.chain(joined).last()
    };
    let format = value("--output").and_then(|word| Format::from_str(word, false).ok()).unwrap_or(Format::Text);
    let color = value("--color").and_then(|word| Color::from_str(word, false).ok()).unwrap_or(Color::Auto);
    (format, color)
}

pub(crate) const SETTINGS: &str = "Settings";

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct NodeFlag {
    /// The node (else `AUTONOMY_NODE_ID`, else `identity.node_id`).
    #[arg(long, value_name = "ID")]
    pub(crate) node_id: Option<String>,
}

impl NodeFlag {
    pub(crate) fn add_to(&self, flags: Flags) -> Flags {
        flags.set("identity.node_id", self.node_id.as_ref())
    }
}

/// Where enrollments are.
#[derive(Debug, Args)]
pub(crate) struct StoreFlag {
    /// The SQLite file of enrollments (else `AUTONOMY_STORE_PATH`, else `store.path`).
    #[arg(long, value_name = "FILE", help_heading = SETTINGS, conflicts_with = "orchestrator_url")]
    pub(crate) store: Option<String>,
    /// Ask this orchestrator instead (else `AUTONOMY_ORCHESTRATOR_URL`, else `orchestrator.url`).
    #[arg(long, value_name = "URL", help_heading = SETTINGS)]
    orchestrator_url: Option<String>,
    /// The file of the token that the orchestrator lets in.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    orchestrator_token_file: Option<String>,
    /// PEM file of the only roots to trust for the orchestrator.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    orchestrator_ca: Option<String>,
    /// The certificate to show the orchestrator, where it asks for one.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS, requires = "orchestrator_client_key")]
    orchestrator_client_cert: Option<String>,
    /// The private key of that certificate.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS, requires = "orchestrator_client_cert")]
    orchestrator_client_key: Option<String>,
}

impl StoreFlag {
    pub(crate) fn add_to(&self, flags: Flags) -> Flags {
        flags
            .set("store.path", self.store.as_ref())
            .set("orchestrator.url", self.orchestrator_url.as_ref())
            .set("orchestrator.token_file", self.orchestrator_token_file.as_ref())
            .set("orchestrator.ca", self.orchestrator_ca.as_ref())
            .set("orchestrator.client_cert", self.orchestrator_client_cert.as_ref())
            .set("orchestrator.client_key", self.orchestrator_client_key.as_ref())
    }
}

/// Who may sign leases.
#[derive(Debug, Args)]
pub(crate) struct LeaseFlags {
    /// A public key that may sign leases; repeat it for several (else `AUTONOMY_ATTESTATION_LEASE_KEYS`).
    #[arg(long = "lease-key", value_name = "FILE", help_heading = SETTINGS)]
    lease_keys: Vec<String>,
    /// How many distinct lease keys must have signed.
    #[arg(long, value_name = "N", help_heading = SETTINGS)]
    lease_threshold: Option<String>,
}

impl LeaseFlags {
    pub(crate) fn add_to(&self, flags: Flags) -> Result<Flags, CliError> {
        flags.set("attestation.lease_threshold", self.lease_threshold.as_ref()).paths(
            "attestation.lease_keys",
            "--lease-key",
            &self.lease_keys,
        )
    }
}

/// Where the log is.
#[derive(Debug, Args)]
pub(crate) struct WalFlag {
    /// The directory of the log (else `AUTONOMY_WAL_DIR`, else `wal.dir`).
    #[arg(long, value_name = "DIR", help_heading = SETTINGS)]
    pub(crate) wal_dir: Option<String>,
}

impl WalFlag {
    pub(crate) fn add_to(&self, flags: Flags) -> Flags {
        flags.set("wal.dir", self.wal_dir.as_ref())
    }
}

/// What of the log is kept.
#[derive(Debug, Args)]
pub(crate) struct RetentionFlags {
    /// Delete the oldest sealed segments while the log has more bytes (else `AUTONOMY_WAL_RETAIN_BYTES`, else
    /// `wal.retain_bytes`, else never).
    #[arg(long, value_name = "BYTES", help_heading = SETTINGS)]
    retain_bytes: Option<String>,
    /// Delete segments that were sealed more days ago (else `AUTONOMY_WAL_RETAIN_DAYS`, else `wal.retain_days`, else never).
    #[arg(long, value_name = "DAYS", help_heading = SETTINGS)]
    retain_days: Option<String>,
    /// Of these, delete what was `drained`, or `any`, of which there may be no copy [default: drained].
    #[arg(long, value_name = "WHAT", help_heading = SETTINGS)]
    prune: Option<String>,
}

impl RetentionFlags {
    pub(crate) fn add_to(&self, flags: Flags) -> Flags {
        flags
            .set("wal.retain_bytes", self.retain_bytes.as_ref())
            .set("wal.retain_days", self.retain_days.as_ref())
            .set("wal.prune", self.prune.as_ref())
    }
}

/// How the log is kept beside a service that writes it.
#[derive(Debug, Args)]
pub(crate) struct KeepFlags {
    /// Seal the live segment of the log, and begin another, once it has so many bytes [default: 67108864].
    #[arg(long, value_name = "BYTES", help_heading = SETTINGS)]
    segment_bytes: Option<String>,
    #[command(flatten)]
    retention: RetentionFlags,
    /// Sign checkpoints of the log with this private key: at the start and the end, and of all that is sealed, before it is deleted.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    wal_signing_key: Option<String>,
    /// The file that the checkpoints are appended to [default: telemetry.checkpoints beside the log].
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    checkpoints: Option<String>,
}

impl KeepFlags {
    pub(crate) fn add_to(&self, flags: Flags) -> Flags {
        let flags = self.retention.add_to(flags.set("wal.segment_bytes", self.segment_bytes.as_ref()));
        flags.set("wal.signing_key", self.wal_signing_key.as_ref()).set("wal.checkpoints", self.checkpoints.as_ref())
    }
}

/// Where the log is sent.
#[derive(Debug, Args)]
pub(crate) struct DrainFlags {
    /// Send the log to this OTLP collector, in the background (else `AUTONOMY_DRAIN_TO`, else `drain.to`).
    #[arg(long, value_name = "URL", help_heading = SETTINGS)]
    drain_to: Option<String>,
    /// The file of the token that the collector lets in.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    drain_token_file: Option<String>,
    /// PEM file of the only roots to trust for the collector.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    drain_ca: Option<String>,
}

impl DrainFlags {
    pub(crate) fn add_to(&self, flags: Flags) -> Flags {
        flags
            .set("drain.to", self.drain_to.as_ref())
            .set("drain.token_file", self.drain_token_file.as_ref())
            .set("drain.ca", self.drain_ca.as_ref())
    }
}

/// Who may sign bundles.
#[derive(Debug, Args)]
pub(crate) struct TrustFlags {
    /// A public key that may sign bundles; repeat it for several (else every key in the trust directory).
    #[arg(long = "trusted-key", value_name = "FILE", help_heading = SETTINGS)]
    pub(crate) trusted_keys: Vec<String>,
    /// The trust directory: every `*.pub` and `*.pem` in it may sign bundles.
    #[arg(long, value_name = "DIR", help_heading = SETTINGS, conflicts_with = "trusted_keys")]
    pub(crate) trust_dir: Option<String>,
    /// How many distinct trusted keys must have signed.
    #[arg(long, value_name = "N", help_heading = SETTINGS)]
    pub(crate) threshold: Option<String>,
}

impl TrustFlags {
    pub(crate) fn add_to(&self, flags: Flags) -> Result<Flags, CliError> {
        let flags = flags.set("attestation.trust_dir", self.trust_dir.as_ref());
        flags.set("attestation.threshold", self.threshold.as_ref()).paths(
            "attestation.trusted_keys",
            "--trusted-key",
            &self.trusted_keys,
        )
    }
}

/// How a registry may be reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryFlags {
    /// The credentials, as `skopeo login --authfile` writes them (else `REGISTRY_AUTH_FILE`, else where skopeo, podman
    /// and docker keep theirs).
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// Trust only the certificate authorities in this PEM file (else those that the machine trusts).
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// Send the credentials to this token service as well; repeat it for several.
    #[arg(long = "token-host", value_name = "HOST[:PORT]")]
    token_hosts: Vec<String>,
    /// Speak plain http with a registry on this machine, or with the one that is named.
    #[arg(long, value_name = "HOST[:PORT]", num_args = 0..=1, require_equals = true)]
    allow_insecure_registry: Option<Option<String>>,
    /// Give up when it is not done after this time.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    timeout: Duration,
}

impl RegistryFlags {
    pub(crate) fn access(self) -> Result<Access, CliError> {
        let mut access = Access::of(&Variables::of_process())?;
        let plain_http = match self.allow_insecure_registry {
            None => PlainHttp::Never,
            Some(None) => PlainHttp::Loopback,
            Some(Some(registry)) => PlainHttp::Only(registry),
        };
        access.auth_file = self.auth_file.or(access.auth_file);
        access.ca_file = self.registry_ca;
        access.plain_http = plain_http;
        access.token_hosts = self.token_hosts;
        access.timeout = self.timeout;
        Ok(access)
    }
}

/// When an enrollment answer counts.
#[derive(Debug, Args)]
pub(crate) struct FreshnessFlags {
    /// How long an enrollment answer counts.
    #[arg(long, value_name = "MS", help_heading = SETTINGS)]
    pub(crate) max_staleness_ms: Option<String>,
    /// How far the enrollment source's clock may be ahead.
    #[arg(long, value_name = "MS", help_heading = SETTINGS)]
    pub(crate) max_skew_ms: Option<String>,
}

impl FreshnessFlags {
    pub(crate) fn add_to(&self, flags: Flags) -> Flags {
        flags
            .set("attestation.max_staleness_ms", self.max_staleness_ms.as_ref())
            .set("attestation.max_skew_ms", self.max_skew_ms.as_ref())
    }
}

/// What decides.
#[derive(Debug, Args)]
pub(crate) struct EngineFlags {
    /// What decides: `native`, or `wasm` as in runtimes of other languages; the answers are the same.
    #[arg(long, value_name = "ENGINE", help_heading = SETTINGS)]
    pub(crate) engine: Option<String>,
    /// The directory that keeps the compiled module, so that the next start need not compile it.
    #[arg(long, value_name = "DIR", help_heading = SETTINGS)]
    pub(crate) wasm_cache: Option<String>,
}

impl EngineFlags {
    pub(crate) fn add_to(&self, flags: Flags) -> Flags {
        flags.set("attestation.engine", self.engine.as_ref()).set("attestation.wasm_cache", self.wasm_cache.as_ref())
    }
}

/// A reason: as the wire has it, without its layer, or its number.
pub(crate) fn reasons() -> impl TypedValueParser<Value = Reason> {
    let values = Reason::ALL.iter().map(|reason| {
        let others = [reason.as_str().to_owned(), reason.number().to_string()];
        PossibleValue::new(short(*reason)).help(reason.meaning()).aliases(others)
    });
    PossibleValuesParser::new(values).try_map(|text| {
        let is = |reason: &&Reason| {
            [reason.as_str(), short(**reason)].contains(&text.as_str()) || text.parse() == Ok(reason.number())
        };
        Reason::ALL.iter().find(is).copied().ok_or(UnknownReason)
    })
}

/// A reason without its layer.
pub(crate) fn short(reason: Reason) -> &'static str {
    reason.as_str().rsplit(": ").next().unwrap_or_default()
}

/// A kind of frame, with or without its `autonomy.`.
pub(crate) fn kinds() -> impl TypedValueParser<Value = Kind> {
    let short = |kind: Kind| kind.as_str().trim_start_matches("autonomy.");
    let values = Kind::ALL.map(|kind| PossibleValue::new(kind.as_str()).alias(short(kind)));
    PossibleValuesParser::new(values).map(move |word| {
        let is = |kind: &Kind| [kind.as_str(), short(*kind)].contains(&word.as_str());
        Kind::ALL.into_iter().find(is).unwrap_or(Kind::Decision)
    })
}
