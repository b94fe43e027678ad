//! What every command is given.

use std::{env, sync::Arc};

use gate_core::{NodeId, TrustedKeys};
use host_native::{
    config::{self, Config, Variables},
    key,
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
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    pub(crate) fn set(mut self, name: &'static str, value: Option<&String>) -> Self {
        self.0.extend(value.map(|value| (name, value.clone())));
        self
    }

    /// A list of paths, in the notation that the environment has for it.
    pub(crate) fn paths(mut self, name: &'static str, flag: &str, paths: &[String]) -> Result<Self, CliError> {
        if let (Some(_), joined) = (paths.first(), env::join_paths(paths)) {
            let joined = joined.ok().and_then(|joined| joined.into_string().ok()).ok_or_else(|| {
                CliError::usage(format!(
                    "flag `{flag}`: a path may not hold the character that separates paths: rename it"
                ))
            })?;
            self.0.push((name, joined));
        }
        Ok(self)
    }

    /// A list of words.
    pub(crate) fn list(mut self, name: &'static str, words: &[String]) -> Self {
        if !words.is_empty() {
            self.0.push((name, words.join(",")));
        }
        self
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
