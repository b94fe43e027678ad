//! `autonomy runtime`

use std::{net::SocketAddr, sync::Arc, thread};

use clap::{Args, Subcommand};
use gate_core::{
    Freshness, Mode, TrustedKeys,
    facts::{SubCheck, SubCheckOutcome},
    reason::Attestation,
};
use host_native::{
    Gate, Policies, bundle,
    config::{Config, Engine, Origin},
    drain,
    enrollment::{LeaseSource, LocalSource, RemoteStore, Source, StoreError, rollout::RolloutId},
    follow::{Follower, Shelf},
    gate::OpenError,
    oci::Access,
    runtime,
    serve::{Limits, Listener, Metrics},
    tool::{HttpGetConfig, Tools},
    wal::{Opened, Wal},
};
use serde::Serialize;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    args::{
        DrainFlags, EngineFlags, FreshnessFlags, KeepFlags, LeaseFlags, NodeFlag, RegistryFlags, StoreFlag, TrustFlags,
        WalFlag,
    },
    context::{self, Context, Flags},
    error::{CliError, Exit},
    output::Format,
    service,
};

/// Run tools behind the gate.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve `POST /v1/tool`, `/healthz`, `/readyz` and `/metrics` until interrupted.
    ///
    /// Every decision is in the log, on disk, before the tool runs. Without a bundle every call is denied.
    ///
    /// With an orchestrator it follows rollouts: it takes the bundle that is ordered for its node, checks it, runs it without a
    /// restart, and runs it after one too. `--bundle` is what it begins with.
    #[command(after_help = "Examples:
  AUTONOMY_ATTESTATION_MODE=advisory \\
    autonomy runtime start --bundle bundle.tar --node-id robot-7
  autonomy runtime start --bundle bundle.tar --node-id robot-7 \\
    --mode enforce --listen 127.0.0.1:7777
  autonomy runtime start --policy-dir src/policies \\
    --http-allow https://api.example.com
  autonomy runtime start --bundle bundle.tar --node-id robot-7 \\
    --mode enforce --orchestrator-url https://fleet.example.com \\
    --orchestrator-token-file node.token --lease-key lease.pem.pub

Then:
  curl -s 127.0.0.1:7777/v1/tool \\
    -d '{\"kind\":\"tool.echo\",\"params\":{\"text\":\"hello\"}}'")]
    Start(Box<Start>),
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The bundle to run, until a rollout brings another; it must verify (else `AUTONOMY_RUNTIME_BUNDLE`, else
    /// `runtime.bundle`).
    #[arg(long, value_name = "FILE", conflicts_with = "policy_dir")]
    bundle: Option<String>,
    /// Policies without a bundle, for development: the gate then fails every call.
    #[arg(long, value_name = "DIR")]
    policy_dir: Option<String>,
    #[command(flatten)]
    node: NodeFlag,
    /// `off`, `advisory` or `enforce` (else `AUTONOMY_ATTESTATION_MODE`, else `attestation.mode`, else `off`).
    #[arg(long)]
    mode: Option<String>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:7777].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// What `tool.http_get` may fetch: an origin and, if wanted, a path; repeat it for several.
    #[arg(long = "http-allow", value_name = "ORIGIN")]
    http_allow: Vec<String>,
    #[command(flatten)]
    store: StoreFlag,
    #[command(flatten)]
    wal: WalFlag,
    #[command(flatten)]
    keep: KeepFlags,
    #[command(flatten)]
    drain: DrainFlags,
    #[command(flatten)]
    trust: TrustFlags,
    #[command(flatten)]
    leases: LeaseFlags,
    #[command(flatten)]
    freshness: FreshnessFlags,
    #[command(flatten)]
    engine: EngineFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

/// What a runtime says when it is ready.
#[derive(Debug, Serialize)]
struct Started {
    event: &'static str,
    address: Option<SocketAddr>,
    mode: Mode,
    mode_origin: Origin,
    node_id: Option<String>,
    policy_ref: Option<String>,
    /// The rollout that the bundle came by.
    rollout_id: Option<RolloutId>,
    store: String,
    wal_dir: String,
    wal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_to: Option<String>,
    engine: Engine,
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let Self::Start(start) = self;
        let flags = Flags::default()
            .set("runtime.bundle", start.bundle.as_ref())
            .set("runtime.policy_dir", start.policy_dir.as_ref())
            .set("attestation.mode", start.mode.as_ref())
            .set("runtime.listen", start.listen.as_ref())
            .list("runtime.http_allow", &start.http_allow);
        let flags = start.keep.add_to(flags);
        let flags =
            start.wal.add_to(start.store.add_to(start.node.add_to(start.freshness.add_to(start.engine.add_to(flags)))));
        let config = context.config(&start.leases.add_to(start.trust.add_to(start.drain.add_to(flags))?)?)?;
        service::block_on(serve(context, &config, start.registry.access()?))
    }
}

async fn serve(context: &mut Context<'_>, config: &Config, access: Access) -> Result<Exit, CliError> {
    let shelf = shelf(config)?;
    let (policies, bundle_keys) = policies(config, shelf.as_ref())?;
    let first = match (&policies, &shelf) {
        (Policies::Bundle(tar), Some(shelf)) if shelf.current().is_none() => Some(tar.clone()),
        _ => None,
    };
    let tools = Tools::new(http_get(config))?;
    let signing = context::signing(config)?;
    let (lease_keys, engine) = (context::lease_keys(config)?, context::engine(config)?);
    let exporter = context::exporter(config)?;
    let (source, changes) = source(config).await?;
    // Taken before anything is written: a second runtime on the address leaves no trace in the log.
    let shutdown = service::interrupted()?;
    let listener = Listener::tcp(config.listen()).await?;
    let (wal, opened) = Wal::open(config.wal_dir(), config.wal_options())?;
    let core = gate_core::Config {
        mode: config.mode(),
        node_id: config.node_id().cloned(),
        bundle_keys,
        lease_keys,
        freshness: config.freshness(),
    };
    let metrics = Arc::new(Metrics::new("autonomy-runtime", env!("CARGO_PKG_VERSION")));
    let wal = Arc::new(wal);
    let opened_gate = match engine {
        None => Gate::open(core, policies, source, wal).await,
        Some(engine) => Gate::open_in(engine, core, policies, source, wal).await,
    };
    let gate = opened_gate.map_err(|error| match (error, config.bundle()) {
        (OpenError::Bundle(error), Some(path)) if first.is_some() || shelf.is_none() => {
            crate::bundle::refused(path, &error)
        }
        (error, _) => error.into(),
    })?;
    let gate = Arc::new(gate.with_metrics(Arc::clone(&metrics)));
    let _keeper = service::keep(Arc::clone(gate.wal()), config, signing, "runtime")?;
    let _drain = exporter.map(|to| drain::Task::start(config.wal_dir(), to, Arc::clone(&metrics))).transpose()?;
    announce(context, config, &listener, &gate, &opened, shelf.as_ref())?;
    service::warn_of_retention(context, config)?;
    let limits = service::within_open_files(context, Limits::default(), None)?;
    warn(context, config, &gate)?;
    if let (Some(shelf), Some(changes), Some(node_id), Some(client)) =
        (shelf, changes, config.node_id().cloned(), context::orchestrator(config)?)
    {
        let orders = Box::new(RemoteStore::new(client)?);
        let follower = Follower::new(orders, node_id, Arc::clone(&gate), shelf, first, access);
        let executor = Handle::current();
        // It waits for a registry and for the disk: on a thread of its own, which ends with the process.
        let spawned = thread::Builder::new().name("rollout".to_owned());
        spawned.spawn(move || follower.run(changes, &executor)).map_err(service::no_threads)?;
    }
    runtime::run(listener, gate, tools, metrics, limits, shutdown).await?;
    service::stopped(context)
}

/// Where rollouts bring bundles to: with an orchestrator, and without policies of another kind.
fn shelf(config: &Config) -> Result<Option<Shelf>, CliError> {
    match (config.orchestrator_url(), config.policy_dir(), config.node_id()) {
        (Some(_), None, Some(node_id)) => Ok(Some(Shelf::open(config.shelf_dir(node_id))?)),
        _ => Ok(None),
    }
}

fn policies(config: &Config, shelf: Option<&Shelf>) -> Result<(Policies, Option<TrustedKeys>), CliError> {
    if let Some(shelf) = shelf {
        let keys = Some(context::trusted_keys(config)?);
        return match (shelf.current(), config.bundle()) {
            (Some(entry), _) => Ok((Policies::Bundle(shelf.read(entry)?), keys)),
            (None, Some(path)) => Ok((Policies::Bundle(bundle::read(path)?), keys)),
            (None, None) => Ok((Policies::None, keys)),
        };
    }
    match (config.bundle(), config.policy_dir()) {
        (Some(_), Some(_)) => Err(CliError::usage(
            "both a bundle and a policy directory are set: unset `runtime.bundle` or `runtime.policy_dir`",
        )),
        (Some(path), None) => Ok((Policies::Bundle(bundle::read(path)?), Some(context::trusted_keys(config)?))),
        (None, Some(path)) => Ok((Policies::Directory(path.to_owned()), None)),
        (None, None) => Ok((Policies::None, None)),
    }
}

fn http_get(config: &Config) -> HttpGetConfig {
    let mut http_get = HttpGetConfig::default();
    http_get.allow = config.http_allow().to_vec();
    http_get
}

/// The orchestrator's leases, where one is set, and who tells of changes there; else the enrollment store of this machine,
/// told again well within the staleness that the gate allows.
async fn source(config: &Config) -> Result<(Option<Box<dyn Source>>, Option<watch::Receiver<()>>), CliError> {
    let Some(node_id) = config.node_id().cloned() else { return Ok((None, None)) };
    if let Some(client) = context::orchestrator(config)? {
        let (keys, max_skew_ms) = (context::lease_keys(config)?, config.freshness().max_skew_ms);
        let source = LeaseSource::start(client, node_id, keys, max_skew_ms, &config.leases_dir()).await;
        let changes = source.changes();
        return Ok((Some(Box::new(source)), Some(changes)));
    }
    let Freshness { max_staleness_ms, .. } = config.freshness();
    Ok((Some(Box::new(LocalSource::new(config.store_path(), node_id, max_staleness_ms / 4)?)), None))
}

fn announce(
    context: &mut Context<'_>,
    config: &Config,
    listener: &Listener,
    gate: &Gate,
    opened: &Opened,
    shelf: Option<&Shelf>,
) -> Result<(), CliError> {
    let entry = shelf.and_then(Shelf::current);
    let started = Started {
        event: "started",
        address: listener.address(),
        mode: gate.mode(),
        mode_origin: config.origin("attestation.mode"),
        node_id: config.node_id().map(ToString::to_string),
        policy_ref: gate.policy_ref().map(|policy_ref| policy_ref.to_string()),
        rollout_id: entry.and_then(|entry| entry.rollout_id.clone()),
        store: context::enrollments(config),
        wal_dir: config.wal_dir().display().to_string(),
        wal: service::how_opened(opened),
        drain_to: config.drain().to.clone(),
        engine: config.engine(),
    };
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.json(&started)?;
        return out.flush();
    }
    let Started { mode, mode_origin, node_id, policy_ref, store, wal_dir, wal, drain_to, engine, .. } = &started;
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "<none>".to_owned());
    out.line(format_args!("mode {mode} ({mode_origin}), node {}, policies {}", or_none(node_id), or_none(policy_ref)))?;
    if let (Some(shelf), Some(_)) = (shelf, entry) {
        let by = or_none(&started.rollout_id.as_ref().map(ToString::to_string));
        out.line(format_args!("bundle of rollout {by}, from {}", shelf.directory().display()))?;
        if config.bundle().is_some() {
            out.note(
                "the bundle that is set is what this node began with: rollouts have decided since which one it runs",
            )?;
        }
    }
    if *engine == Engine::Wasm {
        out.line("decided by gate.wasm")?;
    }
    out.line(format_args!("enrollments {store}"))?;
    out.line(format_args!("log {wal_dir} ({wal})"))?;
    if let Some(drain_to) = drain_to {
        out.line(format_args!("drained to {drain_to}"))?;
    }
    out.line(format_args!("listening on {listener}"))?;
    if *mode_origin == Origin::Default {
        out.note("the mode is not set, which means `off`: the gate is not asked")?;
    }
    out.flush()
}

/// What a call would come to as things stand, where that is not what the operator wants: a fleet that was turned on and denies
/// every call is to be seen at the start.
fn warn(context: &mut Context<'_>, config: &Config, gate: &Gate) -> Result<(), CliError> {
    let out = &mut context.out;
    if gate.policy_ref().is_none() {
        return out.warning("no bundle is given: every call is denied; give `--bundle`");
    }
    let failing = gate.explain()?.into_iter().find(|check| check.outcome == SubCheckOutcome::Fail);
    match (gate.mode(), failing) {
        (Mode::Off, _) | (_, None) => Ok(()),
        (Mode::Advisory | Mode::Enforce, Some(SubCheck { reason, found, .. })) => {
            let remedy = match mistyped(config, reason) {
                Some(error) => error.to_string(),
                None if reason == Attestation::BundleUnverified && config.policy_dir().is_some() => {
                    "policies of a directory are in no bundle: build one with `autonomy bundle build`, and give it by `--bundle`".into()
                }
                None => reason.remedy().into(),
            };
            out.warning(format_args!(
                "as things stand the gate fails every call with `{reason}` (found {}): {remedy}",
                found.as_deref().unwrap_or("nothing")
            ))
        }
    }
}

/// What the node id may have been meant to be. An orchestrator is not asked: it shows a node its own row alone.
fn mistyped(config: &Config, failing: Attestation) -> Option<StoreError> {
    let is_unknown = failing == Attestation::NotEnrolled && config.orchestrator_url().is_none();
    let node_id = config.node_id().filter(|_| is_unknown)?;
    context::mistyped(&*context::store(config, context::Access::Read).ok()?, node_id)
}
