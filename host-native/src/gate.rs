//! The gate as a tool server holds it: ask before running a tool, and run it only with the permit in hand.

use gate_core::{
    Answer, AuditId, Bundle, BundleError, Call, Digest, Effect, EnrollmentRef, Frame, Mode, NodeId, PolicyAnswer,
    PolicyRef, Reason, ToolName, TrustedKeys, Verdict,
    facts::SubCheck,
    frame::{ActionAttrs, ActionOutcome, Kind},
    reason::{Audit, Policy as PolicyReason},
    ustar::Entry,
};
use serde::Serialize;
use serde_json::Value;
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use uuid::{ContextV7, Timestamp, Uuid};

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

/// What decides: gate-core itself, or the same as a module.
pub(crate) trait Core: Send {
    /// Makes a bundle the active one. Where it is refused, the one that was active stays so.
    fn load_bundle(&mut self, tar: &[u8]) -> Result<(), OpenError>;

    fn set_enrollment(&mut self, answer: Answer);

    /// Takes a lease. One that does not hold makes the enrollment untrusted.
    fn set_lease(&mut self, envelope: &[u8]);

    /// Decides a call. The frame of the facts comes first where they are not those that are logged.
    ///
    /// # Errors
    /// There is no decision, so there is nothing to write down.
    fn decide(&mut self, call: Call, now_ms: u64, facts_logged: Option<Digest>) -> Result<Decided, NoDecision>;

    fn facts_id(&mut self) -> Result<Digest, NoDecision>;

    fn explain(&mut self, now_ms: u64) -> Result<Vec<SubCheck>, NoDecision>;
}

/// Why nothing could decide. gate-core always can.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoDecision(pub(crate) String);

/// What came of a call.
pub(crate) struct Decided {
    pub(crate) effect: Effect,
    pub(crate) verdict: Option<Verdict>,
    /// The id of the facts that it was decided on.
    pub(crate) facts: Digest,
    pub(crate) frames: Vec<Frame>,
}

impl Core for gate_core::Gate {
    fn load_bundle(&mut self, tar: &[u8]) -> Result<(), OpenError> {
        Self::load_bundle(self, tar).map(drop).map_err(OpenError::Bundle)
    }

    fn set_enrollment(&mut self, answer: Answer) {
        Self::set_enrollment(self, answer);
    }

    fn set_lease(&mut self, envelope: &[u8]) {
        if let Err(error) = Self::set_lease(self, envelope) {
            tracing::warn!("a lease is not trusted: {error}");
        }
    }

    fn decide(&mut self, call: Call, now_ms: u64, facts_logged: Option<Digest>) -> Result<Decided, NoDecision> {
        let facts = Self::facts_id(self);
        let facts_frame = (facts_logged != Some(facts)).then(|| self.facts_frame(call.audit_id.clone()));
        let gate_core::Decision { effect, verdict, mut frames } = Self::decide(self, call, now_ms);
        frames.splice(0..0, facts_frame);
        Ok(Decided { effect, verdict, facts, frames })
    }

    fn facts_id(&mut self) -> Result<Digest, NoDecision> {
        Ok(Self::facts_id(self))
    }

    fn explain(&mut self, now_ms: u64) -> Result<Vec<SubCheck>, NoDecision> {
        Ok(Self::explain(self, now_ms))
    }
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

/// A bundle that verifies, with its policies compiled.
pub struct Prepared {
    tar: Vec<u8>,
    policy: Policy,
    /// The enrollment that it declares to be for.
    pub enrollment_ref: Option<EnrollmentRef>,
}

impl Prepared {
    fn new(tar: Vec<u8>, keys: Option<&TrustedKeys>) -> Result<Self, OpenError> {
        let keys = keys.ok_or(OpenError::Bundle(BundleError::NoTrustedKeys))?;
        let (policy, enrollment_ref) = {
            let bundle = Bundle::verify(&tar, keys).map_err(OpenError::Bundle)?;
            (compile(&bundle)?, bundle.manifest.declared_ref().cloned())
        };
        Ok(Self { tar, policy, enrollment_ref })
    }

    /// Its bytes.
    pub fn tar(&self) -> &[u8] {
        &self.tar
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// A decision whose frames are on their way to the disk.
struct Queued {
    started: Instant,
    audit_id: AuditId,
    policy_ref: Option<PolicyRef>,
    tool: ToolName,
    outcome: Result<(Effect, Option<Verdict>, Ack), NoDecision>,
}

/// A call that is not to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// Which policies answered.
    pub policy_ref: Option<PolicyRef>,
    /// Joins the frames of the call.
    pub audit_id: AuditId,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (audit id `{}`): {}", self.reason, self.audit_id, self.reason.remedy())
    }
}

impl std::error::Error for Denial {}

/// How a tool went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolOutcome {
    /// It did its work.
    Completed,
    /// It did not.
    Failed,
}

impl<T, E> From<&Result<T, E>> for ToolOutcome {
    fn from(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Completed } else { Self::Failed }
    }
}

/// The right to run one tool once. The decision behind it is durable.
///
/// Say how the tool went with [`Self::finish`]; a permit that is dropped is written down as abandoned.
#[derive(Debug)]
#[must_use = "a permit that is dropped is written down as abandoned"]
pub struct Permit {
    /// Joins the frames of the call.
    pub audit_id: AuditId,
    /// Which policies answered.
    pub policy_ref: Option<PolicyRef>,
    tool: ToolName,
    node_id: Option<NodeId>,
    started: Instant,
    wal: Option<Arc<Wal>>,
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
        let mut core = gate_core::Gate::new(config.clone());
        if let Policies::Directory(_) = &policies {
            core.set_unverified("policies come from a directory, not from a bundle");
        }
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
    pub fn prepare(&self, tar: Vec<u8>) -> Result<Prepared, OpenError> {
        Prepared::new(tar, self.bundle_keys.as_ref())
    }

    /// Puts a bundle in the place of the active one, between two calls: a call that was being decided keeps the policies
    /// and the facts it began with. That it did is written down, ahead of the next decision.
    ///
    /// # Errors
    /// The module refuses it. The bundle that was active stays so.
    pub fn activate(&self, prepared: Prepared) -> Result<(), OpenError> {
        let Prepared { tar, policy, .. } = prepared;
        let policy_ref = policy.policy_ref().clone();
        {
            let mut active = self.policy.write().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.lock();
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

impl Permit {
    /// Writes down how the tool went, without waiting for the disk: what counted was the decision.
    pub fn finish(mut self, outcome: impl Into<ToolOutcome>) {
        self.write(match outcome.into() {
            ToolOutcome::Completed => ActionOutcome::Completed,
            ToolOutcome::Failed => ActionOutcome::Failed,
        });
    }

    fn write(&mut self, outcome: ActionOutcome) {
        if let Some(wal) = self.wal.take() {
            let took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let attrs = ActionAttrs { tool: self.tool.clone(), outcome, took_ms };
            append_later(&wal, frame(Kind::Action, self.audit_id.clone(), self.node_id.clone(), &attrs));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.write(ActionOutcome::Abandoned);
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("mode", &self.mode).field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// Milliseconds since the Unix epoch, by this machine's clock.
pub fn now_ms() -> u64 {
    // A clock before 1970 stands at 0: a row that was just read counts, and every lease is from the future.
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| u64::try_from(now.as_millis()).ok()).unwrap_or(0)
}

/// The policies of a bundle: `policies/*.rego`, and `data.json` where it has one.
///
/// # Errors
/// Why they do not compile.
pub fn compile(bundle: &Bundle<'_>) -> Result<Policy, OpenError> {
    let manifest = &bundle.manifest;
    let policy_ref = manifest
        .policy_ref()
        .ok_or_else(|| OpenError::PolicyRef { name: manifest.name.clone(), version: manifest.version.clone() })?;
    let text = |file: &Entry<'_>| match str::from_utf8(file.data) {
        Ok(text) => Ok((file.path.to_owned(), text.to_owned())),
        Err(_) => Err(policy::Error::NotText(format!("`{}`", file.path))),
    };
    let modules = bundle.policies().map(text).collect::<Result<Vec<_>, _>>()?;
    let data = bundle.files.iter().find(|file| file.path == "data.json").map(text).transpose()?;
    Ok(Policy::compile(policy_ref, modules, data.as_ref().map(|(_, text)| text.as_str()))?)
}

/// Audit ids sort by time.
pub(crate) fn new_audit_id() -> AuditId {
    static CONTEXT: Mutex<ContextV7> = Mutex::new(ContextV7::new());
    audit_id_at(&CONTEXT, now_ms())
}

/// A new id of this time, by a clock that may stand before 1970: [`Uuid::now_v7`] would panic then.
fn audit_id_at(context: &Mutex<ContextV7>, now_ms: u64) -> AuditId {
    let (seconds, ms) = (now_ms / 1000, now_ms % 1000);
    // Less than 1000 milliseconds are less than 2^32 nanoseconds.
    let nanos = u32::try_from(ms.saturating_mul(1_000_000)).unwrap_or_default();
    AuditId::from_uuid(Uuid::new_v7(Timestamp::from_unix(context, seconds, nanos)).into_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_gives_ids_and_they_sort_by_time() {
        let context = Mutex::new(ContextV7::new());
        let times = [0, 0, 1, 1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_001];
        let ids = times.map(|now_ms| audit_id_at(&context, now_ms));
        assert!(ids.windows(2).all(|two| two[0].as_str() < two[1].as_str()), "{ids:?}");
        assert!(ids[0].as_str().starts_with("00000000-0000-7"), "{ids:?}");
        assert!(ids[5].as_str().starts_with("018bcfe5-6801-7"), "{ids:?}");
    }
}
