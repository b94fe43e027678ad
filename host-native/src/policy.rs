//! May this call be made? The host's own question, answered by Rego: `data.autonomy.allow`.
//!
//! A policy is a pure function. It sees `input` (`{"kind": …, "params": …}`), the `data` it was compiled with, and nothing
//! else: no network, no files, no environment, no clock, no randomness. `http.send`, `time.now_ns`, `opa.runtime`,
//! `uuid.rfc4122` and the `json.match_schema` family are not there, and `rand.intn` is refused; a policy that calls one
//! fails to evaluate, and so denies. Only a literal `true` allows.
//!
//! An evaluation is bounded by wall time ([`limits::EVALUATION`]). The evaluator looks at its clock between steps, not within one
//! built-in function, so the built-ins whose result can be far larger than their arguments are bounded here as well.

mod builtins;
mod recursion;
mod source;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, PoisonError},
};

use gate_core::identity::{PolicyRef, ToolName};
use regorus::{Engine, Value, utils::limits::ExecutionTimerConfig};
use serde::Deserialize;

use crate::ErrorClass;

/// What a policy may cost.
pub mod limits {
    use std::time::Duration;

    /// Modules in one policy.
    pub const MODULES: usize = 256;
    /// Bytes of one module.
    pub const MODULE_BYTES: usize = 1024 * 1024;
    /// Bytes of all modules together.
    pub const SOURCE_BYTES: usize = 8 * 1024 * 1024;
    /// Bytes of the data document.
    pub const DATA_BYTES: usize = 16 * 1024 * 1024;
    /// Depth of folders below a policy folder.
    pub const FOLDER_DEPTH: usize = 16;
    /// Entries, of any kind, below a policy folder.
    pub const FOLDER_ENTRIES: usize = 10_000;
    /// Rules and functions that need one another, from the first to the last.
    pub const RULE_DEPTH: usize = 32;
    /// Wall time of one evaluation.
    pub const EVALUATION: Duration = Duration::from_millis(100);
    /// Elements that `numbers.range` may make.
    pub const RANGE_ELEMENTS: i64 = 10_000;
    /// Bits that `bits.lsh` may shift by; the result has to fit into 127.
    pub const SHIFT_BITS: i64 = 126;
    /// Bytes of a value in an evaluator's message, and of what follows it, that are kept.
    pub const VALUE_BYTES: usize = 64;
    /// Bytes of an evaluator's message that are kept.
    pub const DETAIL_BYTES: usize = 512;
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to compile.
    #[error("the policy has no `.rego` module: add one with `package autonomy` and a rule `allow`")]
    NoModules,
    /// Modules there are, but none answers the question.
    #[error("no module defines `data.autonomy.allow`: add a rule `allow` to a module with `package autonomy`")]
    NoAllowRule,
    /// Two modules under one path.
    #[error("module `{0}` is given twice: give each module its own path")]
    DuplicateModule(String),
    /// Larger than [`limits`] allow.
    #[error("{what} has more than {max} {unit}: split the policy or shorten it")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How much is allowed.
        max: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// Not Rego (version 1).
    #[error(
        "policy does not compile at `{at}`: {cause}: correct the module (rego v1: rules need `if`, sets `contains`)"
    )]
    Syntax {
        /// `file:line:column`, as far as it is known.
        at: String,
        /// The compiler's words.
        cause: String,
    },
    /// A function needs itself.
    #[error("function `{0}` reaches itself: rego has no recursion; use a comprehension, `walk` or `graph.reachable`")]
    Recursion(String),
    /// The data document is not a JSON object, or claims the place of a rule.
    #[error("policy data is unusable: {0}: give one json object that has no key of a policy package")]
    Data(String),
    /// A policy folder cannot be read.
    #[error("cannot read `{path}`: {cause}: check that it exists and that this user may read it")]
    Read {
        /// The file or folder.
        path: String,
        /// The operating system's words.
        cause: std::io::Error,
    },
    /// A module is not text.
    #[error("{0} is not utf-8: save it as utf-8")]
    NotText(String),
    /// A link, or another thing that is not a file, where a module is expected.
    #[error("{0} is not a regular file (a link?): put the file itself there")]
    NotAFile(String),
}

impl Error {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { cause, .. } => ErrorClass::of(cause),
            Self::NoModules
            | Self::NoAllowRule
            | Self::DuplicateModule(_)
            | Self::TooLarge { .. }
            | Self::Syntax { .. }
            | Self::Recursion(_)
            | Self::Data(_)
            | Self::NotText(_)
            | Self::NotAFile(_) => ErrorClass::Usage,
        }
    }
}

/// What the policy says to a call. Everything but [`Outcome::Allowed`] is a deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `data.autonomy.allow` is `true`.
    Allowed,
    /// `data.autonomy.allow` is `false`.
    Denied,
    /// `data.autonomy.allow` has no value, or one that is not a boolean; the text says which.
    Undefined(String),
    /// The evaluator gave up; the text says where and why.
    EvaluationFailed(String),
}

/// A compiled policy, shared by all threads.
///
/// Evaluators are kept and reused: one more is made only when more threads ask at once than ever before.
pub struct Policy {
    policy_ref: PolicyRef,
    template: Engine,
    idle: Mutex<Vec<Engine>>,
}

const ALLOW: &str = "data.autonomy.allow";

/// Evaluators that are kept between calls.
const IDLE_MAX: usize = 64;

impl Policy {
    /// Compiles modules (path, source text) and an optional data document (a JSON object).
    ///
    /// # Errors
    /// See [`Error`]; a module that does not parse is named with its line.
    pub fn compile<P: Into<String>, T: Into<String>>(
        policy_ref: PolicyRef,
        modules: impl IntoIterator<Item = (P, T)>,
        data: Option<&str>,
    ) -> Result<Self, Error> {
        let modules = source::collect(modules.into_iter().map(|(path, text)| (path.into(), text.into())))?;
        let mut engine = Engine::new();
        builtins::restrict(&mut engine).map_err(syntax)?;
        let mut defines_allow = false;
        for (path, text) in modules {
            let package = engine.add_policy(path.clone(), text).map_err(syntax)?;
            defines_allow |=
                package == "data.autonomy" && engine.has_declared_rule_rooted_at(&path, "allow").map_err(syntax)?;
        }
        if !defines_allow {
            return Err(Error::NoAllowRule);
        }
        recursion::refuse(&mut engine)?;
        if let Some(data) = data {
            let data = parse_data(data)?;
            refuse_package_keys(&engine, &data)?;
            engine.add_data(data).map_err(|e| Error::Data(source::one_line(&e.to_string())))?;
        }
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: limits::EVALUATION,
            check_interval: CHECK_INTERVAL,
        });
        engine.set_gather_prints(true); // `print` would write to standard error
        engine.compile_with_entrypoint(&ALLOW.into()).map_err(|e| match e.to_string() {
            // `allow.x := …` declares something below `allow`, not `allow`.
            message if message.contains("not a valid rule path") => Error::NoAllowRule,
            message => syntax(message),
        })?;
        Ok(Self { policy_ref, template: engine, idle: Mutex::default() })
    }

    /// For development: compiles every `*.rego` file below `path`, in sorted order. Links are refused.
    ///
    /// The policy ref is `dir@sha256:` and twelve hex digits over the names and contents.
    ///
    /// # Errors
    /// What cannot be read, and what [`Policy::compile`] refuses.
    pub(crate) fn from_dir(path: &Path) -> Result<Self, Error> {
        let modules = source::read_dir(path)?;
        let policy_ref = source::policy_ref(&modules)?;
        Self::compile(policy_ref, modules, None)
    }

    /// Which policy this is.
    pub fn policy_ref(&self) -> &PolicyRef {
        &self.policy_ref
    }

    /// Asks whether a call may be made. Takes a few microseconds, and never much more than [`limits::EVALUATION`].
    pub fn evaluate(&self, kind: &ToolName, params: &serde_json::Value) -> Outcome {
        let params = match Value::deserialize(params) {
            Ok(params) => params,
            Err(e) => return Outcome::EvaluationFailed(source::one_line(&e.to_string())),
        };
        let input = Value::from(BTreeMap::from([
            (Value::from("kind"), Value::from(kind.as_str())),
            (Value::from("params"), params),
        ]));
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut engine = kept.unwrap_or_else(|| self.template.clone());

        // A panic in the evaluator is one denied call; that evaluator is not used again.
        let answer = catch_unwind(AssertUnwindSafe(|| {
            engine.set_input(input);
            let answer = engine.eval_rule(ALLOW.to_owned());
            let _ = engine.take_prints();
            engine.set_input(Value::Undefined); // the caller's data is not kept
            (engine, answer)
        }));
        let Ok((engine, answer)) = answer else {
            return Outcome::EvaluationFailed(
                "the evaluator panicked: report it with the policy and the call".to_owned(),
            );
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(engine);
        }
        drop(idle);
        outcome(answer.as_ref().map_err(|e| source::failure(&e.to_string())))
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("policy_ref", &self.policy_ref).finish_non_exhaustive()
    }
}

/// Steps between two looks at the clock: reading it costs more than a step.
const CHECK_INTERVAL: NonZeroU32 = match NonZeroU32::new(64) {
    Some(steps) => steps,
    None => NonZeroU32::MIN,
};

fn parse_data(text: &str) -> Result<Value, Error> {
    if text.len() > limits::DATA_BYTES {
        return Err(Error::TooLarge { what: "policy data".to_owned(), max: limits::DATA_BYTES, unit: "bytes" });
    }
    let data: Value = serde_json::from_str(text).map_err(|e| Error::Data(e.to_string()))?;
    if data.as_object().is_err() {
        return Err(Error::Data(format!("it is {}", name_of(&data))));
    }
    Ok(data)
}

/// Data under the name of a package would answer in place of a rule that has no value.
fn refuse_package_keys(engine: &Engine, data: &Value) -> Result<(), Error> {
    for package in engine.get_packages().map_err(syntax)? {
        let root = package.split('.').nth(1).unwrap_or_default();
        if data.as_object().is_ok_and(|data| data.contains_key(&Value::from(root))) {
            return Err(Error::Data(format!("its key `{root}` is the name of a policy package")));
        }
    }
    Ok(())
}

fn outcome(answer: Result<&Value, String>) -> Outcome {
    match answer {
        Ok(Value::Bool(true)) => Outcome::Allowed,
        Ok(Value::Bool(false)) => Outcome::Denied,
        Ok(Value::Undefined) => Outcome::Undefined(format!("`{ALLOW}` has no value: add `default allow := false`")),
        Ok(other) => {
            Outcome::Undefined(format!("`{ALLOW}` is {}, not a boolean: make it `true` or `false`", name_of(other)))
        }
        Err(detail) => Outcome::EvaluationFailed(detail),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "undefined",
    }
}

fn syntax(error: impl std::fmt::Display) -> Error {
    let (at, cause) = source::place_and_cause(&error.to_string());
    Error::Syntax { at: at.unwrap_or_else(|| "?".to_owned()), cause }
}

#[cfg(test)]
mod tests;
