//! What every command is given.

use std::{env, sync::Arc};

use gate_core::{NodeId, TrustedKeys};
use host_native::{
    config::{self, Config, Given, KEYS, Variables},
    drain::Exporter,
    enrollment::{OrchestratorClient, RemoteStore, SqliteStore, Store, StoreError},
    key::{self, PrivateKey},
    wal::Signing,
    wasm::{self, Wasmtime},
};

use crate::{args::Global, error::CliError, output::Output};

/// The options that stand before any command, and where the answer goes.
pub(crate) struct Context<'a> {
    global: Global,
    pub(crate) out: &'a mut Output,
}

impl<'a> Context<'a> {
    pub(crate) fn new(global: Global, out: &'a mut Output) -> Self {
        Self { global, out }
    }

    /// The settings in force under these flags.
    pub(crate) fn config(&self, flags: &Flags) -> Result<Config, CliError> {
        let mut variables = Variables::of_process();
        if let Some(home) = &self.global.home {
            variables = variables.with("AUTONOMY_HOME", home);
        }
        Ok(Config::load(&variables, self.global.config.clone(), &flags.0)?)
    }
}

/// Values of settings from the command line.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<Given>);

impl Flags {
    /// A value of the flag that most commands have for the setting.
    pub(crate) fn set(self, name: &'static str, value: Option<&String>) -> Self {
        let flag = KEYS.iter().find(|key| key.name == name).map_or(name, |key| key.flag);
        self.set_by(flag, name, value)
    }

    /// A value of a flag that one command alone has for the setting.
    pub(crate) fn set_by(mut self, flag: &'static str, name: &'static str, value: Option<&String>) -> Self {
        self.0.extend(value.map(|text| Given { name, flag, text: text.clone() }));
        self
    }

    /// A list of paths, in the notation that the environment has for it.
    pub(crate) fn paths(self, name: &'static str, flag: &'static str, paths: &[String]) -> Result<Self, CliError> {
        if let (Some(_), joined) = (paths.first(), env::join_paths(paths)) {
            let joined = joined.ok().and_then(|joined| joined.into_string().ok()).ok_or_else(|| {
                CliError::usage(format!(
                    "flag `{flag}`: a path may not hold the character that separates paths: rename it"
                ))
            })?;
            return Ok(self.set_by(flag, name, Some(&joined)));
        }
        Ok(self)
    }

    /// A list of words.
    pub(crate) fn list(self, name: &'static str, words: &[String]) -> Self {
        self.set(name, (!words.is_empty()).then(|| words.join(",")).as_ref())
    }
}

/// The keys that may sign bundles.
pub(crate) fn trusted_keys(config: &Config) -> Result<TrustedKeys, CliError> {
    let paths = config.trusted_keys()?;
    if paths.is_empty() {
        let trust_dir = config.trust_dir();
        return Err(CliError::usage(format!(
            "no keys are trusted: put the public key that signs bundles into `{}` as `<name>.pub`, or give `--trusted-key FILE`",
            trust_dir.display()
        )));
    }
    Ok(key::read_trusted(&paths, config.threshold())?)
}

/// What is done with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is changed, and made where it is missing.
    Create,
    /// It is changed.
    Change,
    /// It is read.
    Read,
}

/// Where enrollments are: with the orchestrator, where one is set, else in a file.
pub(crate) fn store(config: &Config, access: Access) -> Result<Box<dyn Store>, CliError> {
    if let Some(client) = orchestrator(config)? {
        return Ok(Box::new(RemoteStore::new(client)?));
    }
    let path = config.store_path();
    Ok(Box::new(match access {
        Access::Create => SqliteStore::open(path)?,
        Access::Change => SqliteStore::open_existing(path)?,
        Access::Read => SqliteStore::open_read_only(path)?,
    }))
}

/// The orchestrator, where one is set.
pub(crate) fn orchestrator(config: &Config) -> Result<Option<OrchestratorClient>, CliError> {
    let Some(url) = config.orchestrator_url() else { return Ok(None) };
    let config::Orchestrator { token_file, ca, client_cert, client_key, .. } = config.orchestrator();
    let identity = match (client_cert, client_key) {
        (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(CliError::usage(
                "a certificate to show the orchestrator is half there: set both `orchestrator.client_cert` and `orchestrator.client_key`",
            ));
        }
    };
    Ok(Some(OrchestratorClient::new(url, token_file.as_deref(), ca.as_deref(), identity)?))
}

/// That a node is not enrolled, where another is whose id differs from its only in case: what people mistype.
pub(crate) fn mistyped(store: &dyn Store, node_id: &NodeId) -> Option<StoreError> {
    let lower = NodeId::parse(&node_id.as_str().to_ascii_lowercase()).ok()?;
    let close = store.get(&lower).ok()??.enrollment.node_id;
    Some(StoreError::NotEnrolled { node_id: node_id.clone(), close: Some(close) })
}

/// Where enrollments come from, in a word.
pub(crate) fn enrollments(config: &Config) -> String {
    config.orchestrator_url().map_or_else(|| config.store_path().display().to_string(), str::to_owned)
}

/// The keys that may sign leases; needed where an orchestrator is asked.
pub(crate) fn lease_keys(config: &Config) -> Result<Option<TrustedKeys>, CliError> {
    match config.lease_keys() {
        [] if config.orchestrator_url().is_none() => Ok(None),
        _ => keys_of_leases(config).map(Some),
    }
}

/// The keys that may sign leases.
pub(crate) fn keys_of_leases(config: &Config) -> Result<TrustedKeys, CliError> {
    match config.lease_keys() {
        [] => Err(CliError::usage(
            "no lease keys are trusted: give the public half of the orchestrator's signing key as `--lease-key FILE`, or set `attestation.lease_keys`",
        )),
        paths => Ok(key::read_trusted(paths, config.lease_threshold())?),
    }
}

/// Where the log is sent, where that is set.
pub(crate) fn exporter(config: &Config) -> Result<Option<Exporter>, CliError> {
    let config::Drain { to, token_file, ca } = config.drain();
    let Some(to) = to else { return Ok(None) };
    Ok(Some(Exporter::new(to, token_file.as_deref(), ca.as_deref())?))
}

/// What signs checkpoints of the log, where that is set.
pub(crate) fn signing(config: &Config) -> Result<Option<Signing>, CliError> {
    let Some(key) = config.wal_signing_key() else { return Ok(None) };
    Ok(Some(Signing { key: PrivateKey::read(key)?, file: config.checkpoints() }))
}

/// What decides, where it is not this program itself.
pub(crate) fn engine(config: &Config) -> Result<Option<Arc<dyn wasm::Engine>>, CliError> {
    match config.engine() {
        config::Engine::Native => Ok(None),
        config::Engine::Wasm => Ok(Some(Arc::new(Wasmtime::new(wasm::MODULE, Some(&config.wasm_cache()))?))),
    }
}

/// The node that a command is about: the flag's, else this machine's.
pub(crate) fn node_id(config: &Config) -> Result<NodeId, CliError> {
    config.node_id().cloned().ok_or_else(|| {
        CliError::usage("no node id: give `--node-id ID`, or set `AUTONOMY_NODE_ID` or `identity.node_id`")
    })
}
