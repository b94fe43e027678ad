//! The gate as a tool server holds it: ask before running a tool, and run it only with the permit in hand.

mod clock;
mod core;
mod permit;
mod prepared;

use gate_core::{
    AuditId, BundleError, Call, Digest, Effect, Frame, Mode, NodeId, PolicyAnswer, PolicyRef, ToolName, TrustedKeys,
    Verdict,
    facts::SubCheck,
    frame::Kind,
    reason::{Audit, Policy as PolicyReason},
};
use serde::Serialize;
use serde_json::Value;
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

pub use self::core::NoDecision;
pub(crate) use self::core::{Core, Decided};
pub(crate) use clock::new_audit_id;
pub use clock::now_ms;
pub use permit::{Denial, Permit, ToolOutcome};
pub(crate) use prepared::Prepared;
pub use prepared::compile;

#[cfg(feature = "wasm")]
use crate::wasm;
use crate::{
    enrollment::{Observation, Source},
    policy::{self, Outcome, Policy},
    serve::{self, Metrics},
    wal::{Ack, Wal, WalError},
};

/// Where a gate's policies come from.
#[derive(Debug, Clone)]
pub enum Policies {
    /// A bundle's bytes. They must verify.
    Bundle(Vec<u8>),
    /// A directory, for development: the gate then fails `bundle_unverified`.
    Directory(PathBuf),
    /// There are none: every call that asks for them is denied.
    None,
}

/// Why a gate cannot be opened, or a bundle not be activated.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The bundle does not verify.
    #[error("bundle is refused: {}", crate::bundle::refusal(_0))]
    Bundle(BundleError),
    /// The policies do not compile.
    #[error("{0}")]
    Policy(#[from] policy::Error),
    /// The bundle's name and version make no policy ref.
    #[error("bundle `{name}@{version}` makes too long a policy ref: shorten its name or version")]
    PolicyRef {
        /// The bundle's name.
        name: String,
        /// The bundle's version.
        version: String,
    },
    /// The log did not take the first frame.
    #[error("{0}")]
    Wal(#[from] WalError),
    /// The gate cannot run as a module.
    #[cfg(feature = "wasm")]
    #[error("{0}")]
    Wasm(#[from] wasm::WasmError),
}

/// Decides whether a tool may run, and writes every decision down before it counts.
///
/// Share it behind an [`Arc`]: a tool server asks it before each call, from any thread.
///
/// ```no_run
/// # async fn serve(gate: &host_native::Gate) -> Result<(), Box<dyn std::error::Error>> {
/// let tool = gate_core::ToolName::parse("arm.move")?;
/// match gate.ask(&tool, &serde_json::json!({"joint": 2})).await {
///     Ok(permit) => {
///         // run the tool here, then say how it went
///         permit.finish(host_native::ToolOutcome::Completed);
///     }
///     Err(denial) => eprintln!("{denial}"),
/// }
/// # Ok(()) }
/// ```
pub struct Gate {
    state: Mutex<State>,
    /// Held for reading from the question to the policies until the decision's frames are queued.
    policy: RwLock<Option<Policy>>,
    bundle_keys: Option<TrustedKeys>,
    wal: Arc<Wal>,
    mode: Mode,
    node_id: Option<NodeId>,
    metrics: Option<Arc<Metrics>>,
    /// Whether the last decision could not be written down.
    refused: AtomicBool,
}

struct State {
    core: Box<dyn Core>,
    source: Option<Box<dyn Source>>,
    /// The facts that the log has, so that they are written when they change, and once in a segment.
    logged: Option<Logged>,
}

/// Facts that were written down.
struct Logged {
    facts: Digest,
    /// Where.
    seq: u64,
    frame: Frame,
}

/// A decision whose frames are on their way to the disk.
struct Queued {
    started: Instant,
    audit_id: AuditId,
    policy_ref: Option<PolicyRef>,
    tool: ToolName,
    outcome: Result<(Effect, Option<Verdict>, Ack), NoDecision>,
}

#[derive(Serialize)]
struct LifecycleAttrs<'a> {
    event: &'static str,
    mode: Mode,
    policy_ref: Option<&'a PolicyRef>,
    /// Absent where no module can say.
    facts: Option<Digest>,
    version: &'static str,
}

impl Gate {
    /// Opens a gate and writes down that it did.
    ///
    /// # Errors
    /// What is refused. A gate that cannot trust its bundle or its log is not opened.
    pub async fn open(
        config: gate_core::Config,
        policies: Policies,
        source: Option<Box<dyn Source>>,
        wal: Arc<Wal>,
    ) -> Result<Self, OpenError> {
        let core = gate_core::Gate::new(config.clone());
        Self::start(Box::new(core), config, policies, source, wal).await
    }

    /// [`Self::open`], deciding in the module that an engine runs.
    ///
    /// # Errors
    /// As there, and what keeps the module from running.
    #[cfg(feature = "wasm")]
    pub async fn open_in(
        engine: Arc<dyn wasm::Engine>,
        config: gate_core::Config,
        policies: Policies,
        source: Option<Box<dyn Source>>,
        wal: Arc<Wal>,
    ) -> Result<Self, OpenError> {
        let core = wasm::Gate::new(engine, &config)?;
        Self::start(Box::new(core), config, policies, source, wal).await
    }

    async fn start(
        mut core: Box<dyn Core>,
        config: gate_core::Config,
        policies: Policies,
        source: Option<Box<dyn Source>>,
        wal: Arc<Wal>,
    ) -> Result<Self, OpenError> {
        let gate_core::Config { mode, node_id, bundle_keys, .. } = config;
        let policy = match policies {
            Policies::Bundle(tar) => {
                let Prepared { tar, policy, .. } = Prepared::new(tar, bundle_keys.as_ref())?;
                core.load_bundle(&tar)?;
                Some(policy)
            }
            Policies::Directory(path) => Some(Policy::from_dir(&path)?),
            Policies::None => None,
        };
        let gate = Self {
            state: Mutex::new(State { core, source, logged: None }),
            policy: RwLock::new(policy),
            bundle_keys,
            wal,
            mode,
            node_id,
            metrics: None,
            refused: AtomicBool::new(false),
        };
        gate.record("runtime_started").await?;
        Ok(gate)
    }

    /// The gate, counting what it does.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        metrics.runs(self.policy_ref().as_ref());
        self.metrics = Some(metrics);
        self
    }

    /// Verifies a bundle and compiles its policies, as activating it needs.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn prepare(&self, tar: Vec<u8>) -> Result<Prepared, OpenError> {
        Prepared::new(tar, self.bundle_keys.as_ref())
    }

    /// Puts a bundle in the place of the active one, between two calls: a call that was being decided keeps the policies
    /// and the facts it began with. That it did is written down, ahead of the next decision.
    ///
    /// # Errors
    /// The module refuses it. The bundle that was active stays so.
    pub(crate) fn activate(&self, prepared: Prepared) -> Result<(), OpenError> {
        let Prepared { tar, policy, .. } = prepared;
        let policy_ref = policy.policy_ref().clone();
        {
            let mut active = self.policy.write().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.lock();
            // What decides takes nobody's word for a bundle, this gate's neither: it verifies the bytes itself.
            state.core.load_bundle(&tar)?;
            *active = Some(policy);
            let facts = state.core.facts_id().ok();
            append_later(&self.wal, self.lifecycle("bundle_activated", Some(&policy_ref), facts));
        }
        if let Some(metrics) = &self.metrics {
            metrics.runs(Some(&policy_ref));
        }
        Ok(())
    }

    /// Asks the policies and the gate whether `tool` may run with `params`, and waits until the answer is durable.
    ///
    /// # Errors
    /// The denial.
    pub async fn ask(&self, tool: &ToolName, params: &Value) -> Result<Permit, Denial> {
        let queued = {
            let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
            let (reason, detail) = match policy.as_ref().map(|policy| policy.evaluate(tool, params)) {
                None => (PolicyReason::NoBundle, None),
                Some(Outcome::Allowed) => (PolicyReason::Allowed, None),
                Some(Outcome::Denied) => (PolicyReason::Denied, None),
                Some(Outcome::Undefined(detail)) => (PolicyReason::Undefined, Some(detail)),
                Some(Outcome::EvaluationFailed(detail)) => (PolicyReason::EvaluationFailed, Some(detail)),
            };
            let policy_ref = policy.as_ref().map(|policy| policy.policy_ref().clone());
            self.decide_and_queue(tool.clone(), PolicyAnswer { policy_ref, reason, detail })
        };
        self.settle(queued).await
    }

    /// Decides a call whose policy the host asked itself, and waits until the answer is durable.
    ///
    /// # Errors
    /// The denial.
    pub async fn decide(&self, tool: ToolName, policy: PolicyAnswer) -> Result<Permit, Denial> {
        let queued = self.decide_and_queue(tool, policy);
        self.settle(queued).await
    }

    /// Waits until the answer is durable.
    async fn settle(&self, queued: Queued) -> Result<Permit, Denial> {
        let Queued { started, audit_id, policy_ref, tool, outcome } = queued;
        let decided = Instant::now();
        // An unwritten decision is none: no unrecorded execution, in any mode.
        let unrecorded = Effect::Deny(Audit::WalUnavailable.into());
        let (effect, verdict, seq) = match outcome {
            Ok((effect, verdict, ack)) => match ack.await {
                Ok(seqs) => {
                    self.refused.store(false, Ordering::Relaxed);
                    (effect, verdict, Some(*seqs.end()))
                }
                Err(error) => {
                    self.tell_once(&error);
                    (unrecorded, verdict, None)
                }
            },
            Err(error) => {
                self.tell_once(&error);
                (unrecorded, None, None)
            }
        };
        if let Some(metrics) = &self.metrics {
            let (effect, reason) = match effect {
                Effect::Allow => ("allow", PolicyReason::Allowed.as_str()),
                Effect::Deny(reason) => ("deny", reason.as_str()),
            };
            let decision = serve::Decision { effect, reason, mode: self.mode.as_str() };
            metrics.decided(&decision, decided.duration_since(started));
            if let (Some(Verdict::Fail(reason)), Mode::Advisory) = (verdict, self.mode) {
                metrics.would_deny(reason.as_str());
            }
            if let Some(seq) = seq {
                metrics.appended(seq, decided.elapsed());
            }
        }
        match effect {
            Effect::Deny(reason) => Err(Denial { reason, policy_ref, audit_id }),
            Effect::Allow => Ok(Permit {
                audit_id,
                policy_ref,
                tool,
                node_id: self.node_id.clone(),
                started: Instant::now(),
                wal: Some(Arc::clone(&self.wal)),
            }),
        }
    }

    /// Decides, and queues the frames under the same lock, so that no decision comes before its facts.
    fn decide_and_queue(&self, tool: ToolName, policy: PolicyAnswer) -> Queued {
        let (started, audit_id, policy_ref) = (Instant::now(), new_audit_id(), policy.policy_ref.clone());
        let outcome = self.queue(Call { audit_id: audit_id.clone(), tool: tool.clone(), policy });
        Queued { started, audit_id, policy_ref, tool, outcome }
    }

    fn queue(&self, call: Call) -> Result<(Effect, Option<Verdict>, Ack), NoDecision> {
        let mut state = self.lock();
        let now_ms = now_ms();
        state.observe(now_ms);
        let logged = state.logged.as_ref().map(|logged| logged.facts);
        let Decided { effect, verdict, facts, frames } = state.core.decide(call, now_ms, logged)?;
        let (ack, facts_frame) = match &state.logged {
            Some(Logged { facts: written, seq, frame }) if *written == facts => {
                match self.wal.append_beside(*seq, frames) {
                    Ok(ack) => return Ok((effect, verdict, ack)),
                    // Their segment is sealed: the next one has them again.
                    Err(mut frames) => {
                        let audit_id = frames.first().map_or_else(|| frame.audit_id.clone(), |of| of.audit_id.clone());
                        let again = Frame { audit_id, ..frame.clone() };
                        frames.insert(0, again.clone());
                        (self.wal.append(frames), Some(again))
                    }
                }
            }
            Some(_) | None => {
                let facts_frame = frames.first().filter(|first| first.kind == Kind::Facts).cloned();
                (self.wal.append(frames), facts_frame)
            }
        };
        if let (Some(seq), Some(frame)) = (ack.first_seq(), facts_frame) {
            state.logged = Some(Logged { facts, seq, frame });
        }
        Ok((effect, verdict, ack))
    }

    /// Every sub-check as it stands now.
    ///
    /// # Errors
    /// The gate is a module, and it failed.
    pub fn explain(&self) -> Result<Vec<SubCheck>, NoDecision> {
        let mut state = self.lock();
        let now_ms = now_ms();
        state.observe(now_ms);
        state.core.explain(now_ms)
    }

    /// Writes down a change of the gate's life, such as `runtime_stopped`.
    ///
    /// # Errors
    /// Why it is not durable.
    pub async fn record(&self, event: &'static str) -> Result<(), WalError> {
        let facts = self.lock().core.facts_id().ok();
        let frame = self.lifecycle(event, self.policy_ref().as_ref(), facts);
        self.wal.append(vec![frame]).await.map(drop)
    }

    fn lifecycle(&self, event: &'static str, policy_ref: Option<&PolicyRef>, facts: Option<Digest>) -> Frame {
        let attrs = LifecycleAttrs { event, mode: self.mode, policy_ref, facts, version: env!("CARGO_PKG_VERSION") };
        frame(Kind::Lifecycle, new_audit_id(), self.node_id.clone(), &attrs)
    }

    /// How far the gate is turned on.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Which policies answer; `None` denies every call that asks them.
    pub fn policy_ref(&self) -> Option<PolicyRef> {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        policy.as_ref().map(|policy| policy.policy_ref().clone())
    }

    /// The log, to wait for its end or to close it.
    pub fn wal(&self) -> &Arc<Wal> {
        &self.wal
    }

    /// Why calls are answered 503 is said when it begins, not for each call.
    fn tell_once(&self, error: &dyn std::fmt::Display) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::error!("decisions cannot be written down, so every call is denied: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is a whole value put in its place: there is no half of one to find.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn observe(&mut self, now_ms: u64) {
        match self.source.as_mut().map(|source| source.observe(now_ms)) {
            Some(Observation::Changed(answer)) => self.core.set_enrollment(answer),
            Some(Observation::Leases(envelopes)) => {
                for envelope in envelopes {
                    self.core.set_lease(&envelope);
                }
            }
            Some(Observation::Unchanged) | None => {}
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("mode", &self.mode).field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// Appends what nobody waits for. A log that takes nothing more says so to the next call; that this is missing is said here.
fn append_later(wal: &Wal, frame: Frame) {
    let (kind, audit_id) = (frame.kind, frame.audit_id.clone());
    if wal.append(vec![frame]).first_seq().is_none() {
        tracing::warn!(
            "the log did not take the {} frame of `{audit_id}`: it has too much to write, or has stopped",
            kind.as_str()
        );
    }
}

pub(crate) fn frame(kind: Kind, audit_id: AuditId, node_id: Option<NodeId>, attrs: &impl Serialize) -> Frame {
    // Names, enums and numbers: there is nothing in them that JSON cannot hold.
    Frame { kind, audit_id, node_id, attrs: serde_json::to_string(attrs).unwrap_or_default() }
}
