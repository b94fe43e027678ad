//! From a call to a permit: looks up the enrollment, decides, and has the decision written down.

use gate_core::{Reason, json, reason};
use serde::Serialize;
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::{
    answer::{Answer, Observation},
    error::{Error, ErrorKind, caught},
    gate::{Call, Decision, Gate, now_ms},
    lock::lock,
};

/// Who says whether a node is enrolled.
pub(crate) trait Source: Send + Sync {
    /// What is known of the node now, or why nothing is.
    fn look_up(&self, node_id: &str, timeout: Duration) -> Result<Answer, String>;
}

/// Where decisions are written down.
pub(crate) trait Sink: Send + Sync {
    /// Appends frames, the text of a JSON array, as one batch.
    fn append(&self, frames: &str, timeout: Duration) -> Appended;
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is on disk.
    Durable,
    /// The log does not have the facts that the frames name, and took none of them.
    FactsNotLogged(String),
    /// It may be in the log or not.
    Failed(String),
}

/// The host's own policy.
pub(crate) trait Policy: Send + Sync {
    fn ask(&self, tool: &str, params: &str) -> PolicyAnswer;
}

/// What it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyAnswer {
    pub(crate) reason: Reason,
    pub(crate) policy_ref: Option<String>,
    pub(crate) detail: Option<String>,
}

/// A call that asks to run a tool.
#[derive(Debug)]
pub(crate) struct ToolCall<'a> {
    pub(crate) tool: &'a str,
    /// For the policy alone.
    pub(crate) params: &'a str,
    /// What the policy said, where it was asked already.
    pub(crate) policy: Option<PolicyAnswer>,
    pub(crate) audit_id: Option<&'a str>,
}

/// How a tool went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Completed,
    Failed,
    Abandoned,
}

/// A call that may not run.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) reason: Reason,
    pub(crate) audit_id: String,
    pub(crate) policy_ref: Option<String>,
    /// What the operator should know: why it could not be written down.
    pub(crate) cause: Option<String>,
}

/// Why there is no permit.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It was decided so.
    Denied(Denied),
    /// It could not be decided, and nothing was written down.
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Why a decision is not in the log.
enum Unrecorded {
    /// There was none: the call is not what the gate takes.
    Malformed(Error),
    Because(String),
}

impl From<Error> for Unrecorded {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Panicked => Self::Because(error.message),
            ErrorKind::Malformed | ErrorKind::Refused | ErrorKind::Unsupported => Self::Malformed(error),
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// How long an answer is asked for no more.
    pub(crate) max_age: Duration,
    pub(crate) look_up: Duration,
    pub(crate) append: Duration,
}

/// No tool runs without a permit, and there is a permit only when the frames of its decision are durable.
pub(crate) struct Guard {
    gate: Arc<Gate>,
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    policy: Option<Box<dyn Policy>>,
    times: Times,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    told: Option<Observation>,
    facts_logged: Option<String>,
}

/// What the source answered, and when it was asked.
#[derive(Clone)]
struct Known {
    answer: Arc<Answer>,
    asked: Instant,
}

impl Guard {
    pub(crate) fn new(
        gate: Arc<Gate>,
        source: Arc<dyn Source>,
        sink: Arc<dyn Sink>,
        policy: Option<Box<dyn Policy>>,
        times: Times,
    ) -> Self {
        Self { gate, source, sink, policy, times, state: Mutex::default() }
    }

    /// A permit when the call may run and its decision is durable. A panic counts as a failure of what panicked.
    pub(crate) fn ask(self: &Arc<Self>, call: ToolCall<'_>) -> Result<Permit, Refused> {
        let audit_id = match call.audit_id {
            Some(id) => id.to_owned(),
            None => self.gate.audit_id(now_ms())?.as_str().to_owned(),
        };
        let policy = match (call.policy, &self.policy) {
            (Some(answer), _) => answer,
            (None, Some(policy)) => {
                let answer = caught("the policy was asked", || policy.ask(call.tool, call.params));
                answer.unwrap_or_else(|panicked| PolicyAnswer {
                    reason: reason::Policy::EvaluationFailed.into(),
                    policy_ref: None,
                    detail: Some(panicked.message),
                })
            }
            (None, None) => PolicyAnswer { reason: reason::Policy::Allowed.into(), policy_ref: None, detail: None },
        };
        let recorded = caught("the call was decided and written down", || self.record(call.tool, &policy, &audit_id));
        let (reason, cause) = match recorded.unwrap_or_else(|panicked| Err(panicked.into())) {
            Ok(Decision { reason: None, .. }) => return Ok(Permit::new(self, call.tool, audit_id)),
            Ok(Decision { reason: Some(reason), .. }) => (reason, None),
            Err(Unrecorded::Because(why)) => (reason::Audit::WalUnavailable.into(), Some(why)),
            Err(Unrecorded::Malformed(error)) => return Err(error.into()),
        };
        Err(Refused::Denied(Denied { reason, audit_id, policy_ref: policy.policy_ref, cause }))
    }

    /// Looks up, decides and appends. A log that does not have the facts gets them, this once.
    fn record(&self, tool: &str, policy: &PolicyAnswer, id: &str) -> Result<Decision, Unrecorded> {
        let answer = self.look_up();
        let decision = self.decide(tool, policy, id, &answer)?;
        match self.append(&decision) {
            Appended::Durable => return Ok(decision),
            Appended::Failed(why) => return Err(Unrecorded::Because(why)),
            // Another log, or an older state of it.
            Appended::FactsNotLogged(_) => self.lock().facts_logged = None,
        }
        let decision = self.decide(tool, policy, id, &answer)?;
        match self.append(&decision) {
            Appended::Durable => Ok(decision),
            Appended::Failed(why) | Appended::FactsNotLogged(why) => Err(Unrecorded::Because(why)),
        }
    }

    fn look_up(&self) -> Arc<Answer> {
        let Some(node_id) = &self.gate.node_id else {
            // There is nobody to ask for, and the verdict fails before it looks at the answer.
            return Arc::new(Answer::unavailable("the gate has no node id"));
        };
        let asked = Instant::now();
        if let Some(known) = &self.lock().known
            && asked.saturating_duration_since(known.asked) < self.times.max_age
        {
            return Arc::clone(&known.answer);
        }
        let timeout = self.times.look_up;
        let answer = caught("the enrollment was looked up", || self.source.look_up(node_id, timeout));
        let answer = match answer.unwrap_or_else(|panicked| Err(panicked.message)) {
            Ok(_) if asked.elapsed() > timeout => {
                Answer::unavailable(&format!("the look-up took longer than {} ms", timeout.as_millis()))
            }
            Ok(answer) => answer,
            Err(why) => Answer::unavailable(&gate_core::text::line(&why)),
        };
        let mut state = self.lock();
        match &state.known {
            // A look-up that began later knows better.
            Some(known) if known.asked > asked => Arc::clone(&known.answer),
            Some(_) | None => {
                let answer = Arc::new(answer);
                state.known = Some(Known { answer: Arc::clone(&answer), asked });
                answer
            }
        }
    }

    /// Tells and decides under one lock: no other call's answer comes in between.
    fn decide(&self, tool: &str, policy: &PolicyAnswer, id: &str, answer: &Answer) -> Result<Decision, Error> {
        let mut state = self.lock();
        let now_ms = now_ms();
        self.tell(&mut state, answer, now_ms)?;
        self.gate.decide(&Call {
            tool,
            policy: Some(policy.reason),
            policy_ref: policy.policy_ref.as_deref(),
            policy_detail: policy.detail.as_deref(),
            audit_id: id,
            now_ms,
            facts_logged: state.facts_logged.as_deref(),
        })
    }

    /// A row that was read again is the same but for the time, and would be logged as new facts with each call. The answer
    /// that was told before stands for half of its time.
    fn tell(&self, state: &mut State, answer: &Answer, now_ms: u64) -> Result<(), Error> {
        let observed = answer.observation();
        if let (Some(observed), Some(told)) = (&observed, &state.told)
            && observed.same == told.same
            && (told.observed_at_ms..=now_ms).contains(&observed.observed_at_ms)
            && now_ms.saturating_sub(told.observed_at_ms).saturating_mul(2) < self.gate.max_staleness_ms
        {
            return Ok(());
        }
        state.told = None;
        match self.gate.set_enrollment(answer) {
            Ok(()) => {
                state.told = observed;
                Ok(())
            }
            Err(error) if error.kind == ErrorKind::Panicked => {
                self.gate.set_enrollment(&Answer::unavailable(&error.message))
            }
            // What does not hold has been told as that, and denies.
            Err(_) => Ok(()),
        }
    }

    fn append(&self, decision: &Decision) -> Appended {
        // There are none where the gate panicked, and the new instance panicked too or would let the call through.
        let Some(facts) = decision.facts else { return Appended::Failed("the gate panicked on this call".to_owned()) };
        let appended = match str::from_utf8(&decision.frames) {
            Ok(frames) => self.sink.append(frames, self.times.append),
            Err(error) => Appended::Failed(error.to_string()),
        };
        if appended == Appended::Durable {
            self.lock().facts_logged = Some(facts.to_string());
        }
        appended
    }

    /// What a panic left behind is not believed: the gate is told again, and the facts are logged again.
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state, |state| *state = State::default())
    }
}

/// The right to run one tool once. The decision behind it is durable.
pub(crate) struct Permit {
    guard: Arc<Guard>,
    tool: String,
    pub(crate) audit_id: String,
    started: Instant,
}

#[derive(Serialize)]
struct Action<'a> {
    kind: &'a str,
    audit_id: &'a str,
    node_id: Option<&'a str>,
    attrs: Attrs<'a>,
}

#[derive(Serialize)]
struct Attrs<'a> {
    tool: &'a str,
    outcome: Outcome,
    took_ms: u64,
}

impl Permit {
    fn new(guard: &Arc<Guard>, tool: &str, audit_id: String) -> Self {
        Self { guard: Arc::clone(guard), tool: tool.to_owned(), audit_id, started: Instant::now() }
    }

    /// Writes down how the tool went. What counted was the decision: there is nobody to tell where this fails.
    pub(crate) fn finish(self, outcome: Outcome) {
        let Self { guard, tool, audit_id, started } = &self;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let attrs = Attrs { tool, outcome, took_ms };
        let node_id = guard.gate.node_id.as_deref();
        let action = json::write([Action { kind: "autonomy.action", audit_id, node_id, attrs }].as_slice());
        guard.sink.append(&action, guard.times.append);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::memory_host::MemoryHost;

    pub(crate) struct Panicking;

    impl Source for Panicking {
        fn look_up(&self, _: &str, _: Duration) -> Result<Answer, String> {
            panic!("on purpose")
        }
    }

    impl Sink for Panicking {
        fn append(&self, _: &str, _: Duration) -> Appended {
            panic!("on purpose")
        }
    }

    impl Policy for Panicking {
        fn ask(&self, _: &str, _: &str) -> PolicyAnswer {
            panic!("on purpose")
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn guard(mode: &'static str, source: Arc<dyn Source>, sink: Arc<dyn Sink>) -> Guard {
        let times = Times { max_age: MINUTE, look_up: MINUTE, append: MINUTE };
        Guard::new(Arc::new(Gate::without_bundle(mode)), source, sink, None, times)
    }

    fn enrolled() -> Arc<MemoryHost> {
        let host = Arc::new(MemoryHost::default());
        host.enroll("robot-7", "fleet@1", "active", "<none>");
        host
    }

    fn ask(guard: &Arc<Guard>) -> Result<Permit, Refused> {
        guard.ask(ToolCall { tool: "arm.move", params: "", policy: None, audit_id: Some("a-1") })
    }

    fn denied(guard: Guard) -> Denied {
        match ask(&Arc::new(guard)) {
            Err(Refused::Denied(denied)) => denied,
            Err(Refused::Error(error)) => panic!("it is no denial: {error}"),
            Ok(_) => panic!("it is allowed"),
        }
    }

    #[test]
    fn a_look_up_that_panics_has_no_answer() {
        let host = enrolled();
        // Whatever the gate finds is written down here, and denies nothing.
        let guard = Arc::new(guard("advisory", Arc::new(Panicking), Arc::clone(&host) as _));
        assert!(ask(&guard).is_ok());
        let why = "\"answer\":\"unavailable\",\"why\":\"a panic while the enrollment was looked up: on purpose; ";
        assert!(host.frames().contains(why), "{}", host.frames());
    }

    #[test]
    fn a_policy_that_panics_has_failed() {
        let host = enrolled();
        let mut guard = guard("off", Arc::clone(&host) as _, Arc::clone(&host) as _);
        guard.policy = Some(Box::new(Panicking));
        assert_eq!(denied(guard).reason, reason::Policy::EvaluationFailed.into());
        assert!(host.frames().contains("a panic while the policy was asked: on purpose; "), "{}", host.frames());
    }

    #[test]
    fn a_sink_that_panics_denies_in_every_mode() {
        for mode in ["off", "advisory", "enforce"] {
            let Denied { reason, audit_id, policy_ref, cause } = denied(guard(mode, enrolled(), Arc::new(Panicking)));
            assert_eq!((reason, audit_id.as_str(), policy_ref), (reason::Audit::WalUnavailable.into(), "a-1", None));
            let why = "a panic while the call was decided and written down: on purpose; report it as a defect of this library";
            assert_eq!(cause.as_deref(), Some(why));
        }
    }

    #[test]
    fn a_guard_that_a_panic_marked_as_dead_believes_nothing_that_it_held() {
        let host = enrolled();
        let guard = Arc::new(guard("advisory", Arc::clone(&host) as _, Arc::clone(&host) as _));
        let facts = |calls| {
            for _ in 0..calls {
                assert!(ask(&guard).is_ok());
            }
            host.frames().matches("autonomy.facts").count()
        };
        assert_eq!(facts(2), 1);
        // An answer that a panic left behind, for as long as it stands.
        host.revoke("robot-7");
        crate::lock::kill(&guard.state);
        assert_eq!(facts(2), 2);
        assert!(host.frames().contains("\"status\":\"revoked\""), "{}", host.frames());
    }
}
