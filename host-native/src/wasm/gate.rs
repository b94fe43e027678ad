//! A gate in an instance of the module, and another one after a trap.

use gate_core::{
    Answer, Call, Config, Digest, Effect, Facts, Frame, Freshness, NodeId, Reason, TrustedKeys, Verdict,
    facts::SubCheck, frame::Received, json, read_object,
};
use serde::Serialize;
use std::sync::Arc;

use super::{Engine, Export, Instance, TimedExport, WasmError};
use crate::gate::{Core, Decided, NoDecision, OpenError};

/// One node's gate in an instance of the module.
///
/// After a trap the instance is gone: a new one is told everything again. The call on which it trapped is denied. That one
/// decides it as if the enrollment source had not answered, so that the denial is written down; where it would let the call
/// through all the same, there is no decision.
pub struct Gate {
    engine: Arc<dyn Engine>,
    instance: Box<dyn Instance>,
    configuration: Vec<u8>,
    bundle: Option<Vec<u8>>,
    /// The last lease that held: a new instance has to know its serial.
    lease: Option<Vec<u8>>,
    enrollment: Option<Told>,
}

/// What was told of the enrollment, and how.
#[derive(Clone)]
struct Told {
    export: Export,
    input: Vec<u8>,
}

/// In: `gate_configure`.
#[derive(Serialize)]
struct Configuration<'a> {
    mode: &'a str,
    node_id: Option<&'a NodeId>,
    bundle_keys: Vec<String>,
    bundle_threshold: usize,
    lease_keys: Vec<String>,
    lease_threshold: usize,
    max_staleness_ms: u64,
    max_skew_ms: u64,
}

/// In: `gate_decide`.
#[derive(Serialize)]
struct CallDocument<'a> {
    now_ms: u64,
    audit_id: &'a str,
    tool: &'a str,
    policy: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_ref: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts_logged: Option<Digest>,
}

/// Out: `gate_decide`.
struct Decision {
    reason: Option<Reason>,
    verdict: Option<String>,
    facts: Digest,
    frames: Vec<Received>,
    effect: String,
}

read_object!(Decision { effect, reason, verdict, facts, frames });

/// What the module decides on, and what it finds.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What the gate finds.
    pub verdict: Verdict,
    /// The id of the facts.
    pub facts_id: Digest,
    /// What it decides on.
    pub facts: Facts,
}

/// Out: `gate_explain`.
struct ExplanationDocument {
    verdict: String,
    facts_id: Digest,
    facts: Facts,
    sub_checks: Ignored,
}

read_object!(ExplanationDocument { verdict, facts_id, facts, sub_checks });

/// The texts of the sub-checks come from the facts: gate-core writes them here as it does there.
struct Ignored;

impl json::Read for Ignored {
    fn read(_: json::Value<'_>) -> Self {
        Self
    }
}

/// Out: every call that returns a negative number.
struct Refusal {
    error: String,
}

read_object!(Refusal { error });

impl Gate {
    /// The version of the ABI that is spoken here.
    pub const ABI_MAJOR: i32 = 1;

    /// A gate that knows its configuration and nothing else.
    ///
    /// # Errors
    /// The module speaks another ABI, or refuses the configuration.
    pub fn new(engine: Arc<dyn Engine>, config: &Config) -> Result<Self, WasmError> {
        let keys = |keys: &Option<TrustedKeys>| match keys {
            Some(keys) => (keys.iter().map(gate_core::PublicKey::to_pem).collect(), keys.threshold()),
            None => (Vec::new(), 1),
        };
        let ((bundle_keys, bundle_threshold), (lease_keys, lease_threshold)) =
            (keys(&config.bundle_keys), keys(&config.lease_keys));
        let Freshness { max_staleness_ms, max_skew_ms } = config.freshness;
        let configuration = json::write(&Configuration {
            mode: config.mode.as_str(),
            node_id: config.node_id.as_ref(),
            bundle_keys,
            bundle_threshold,
            lease_keys,
            lease_threshold,
            max_staleness_ms,
            max_skew_ms,
        })
        .into_bytes();
        let instance = instantiate(&*engine, &configuration)?;
        Ok(Self { engine, instance, configuration, bundle: None, lease: None, enrollment: None })
    }

    /// Makes a tar the active bundle.
    ///
    /// # Errors
    /// Why it is refused; the bundle that was active stays so.
    pub fn load_bundle(&mut self, tar: &[u8]) -> Result<(), WasmError> {
        let told = tell(&mut *self.instance, Export::LoadBundle, tar);
        if told.is_ok() {
            self.bundle = Some(tar.to_vec());
        }
        self.or_rebuilt(told)
    }

    /// Takes a source's answer.
    ///
    /// # Errors
    /// No instance takes it.
    pub fn set_enrollment(&mut self, answer: &Answer) -> Result<(), WasmError> {
        self.tell_enrollment(Told::answer(answer))
    }

    /// Takes a lease, the envelope's own bytes.
    ///
    /// # Errors
    /// It does not hold: the enrollment is then untrusted. Or no instance takes it.
    pub fn set_lease(&mut self, envelope: &[u8]) -> Result<(), WasmError> {
        self.tell_enrollment(Told { export: Export::SetLease, input: envelope.to_vec() })
    }

    fn tell_enrollment(&mut self, enrollment: Told) -> Result<(), WasmError> {
        let Told { export, input } = &enrollment;
        let told = match tell(&mut *self.instance, *export, input) {
            Err(WasmError::Trap(_)) => self.rebuild(None).and_then(|()| tell(&mut *self.instance, *export, input)),
            told => told,
        };
        if *export == Export::SetLease && told.is_ok() {
            self.lease = Some(input.clone());
        }
        let Err(untold @ (WasmError::Trap(_) | WasmError::TooLarge(_))) = told else {
            self.enrollment = Some(enrollment);
            return told;
        };
        // No instance can be told it, and what was told before must not stand.
        let unavailable = Told::answer(&Answer::Unavailable { why: untold.to_string() });
        self.enrollment = Some(unavailable.clone());
        if unavailable.again(&mut *self.instance).is_err() {
            self.rebuild(Some(&unavailable))?;
        }
        Err(untold)
    }

    /// What the gate finds at `now_ms`, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// A trap. A new instance has taken over.
    pub fn verdict(&mut self, now_ms: u64) -> Result<Verdict, WasmError> {
        let number = self.instance.call_at(TimedExport::Verdict, time(now_ms)).and_then(|number| match number {
            0 => Ok(Verdict::Pass),
            _ => match u8::try_from(number).ok().and_then(Reason::from_number) {
                Some(Reason::Attestation(reason)) => Ok(Verdict::Fail(reason)),
                Some(Reason::Policy(_) | Reason::Audit(_)) | None => {
                    Err(WasmError::Trap(format!("verdict `{number}` is none")))
                }
            },
        });
        self.or_rebuilt(number)
    }

    /// What the gate decides on, and what it finds at `now_ms`.
    ///
    /// # Errors
    /// A trap. A new instance has taken over.
    pub fn explain(&mut self, now_ms: u64) -> Result<Explanation, WasmError> {
        let explained = explain(&mut *self.instance, now_ms);
        self.or_rebuilt(explained)
    }

    /// Replaces the instance, tells the new one what the old one knew, and this of the enrollment.
    fn rebuild(&mut self, enrollment: Option<&Told>) -> Result<(), WasmError> {
        self.instance = instantiate(&*self.engine, &self.configuration)?;
        if let Some(bundle) = &self.bundle {
            tell(&mut *self.instance, Export::LoadBundle, bundle)?;
        }
        if let Some(lease) = &self.lease {
            tell(&mut *self.instance, Export::SetLease, lease)?;
        }
        enrollment.map_or(Ok(()), |enrollment| enrollment.again(&mut *self.instance))
    }

    fn or_rebuilt<T>(&mut self, result: Result<T, WasmError>) -> Result<T, WasmError> {
        if let Err(WasmError::Trap(_)) = &result {
            self.rebuild(self.enrollment.clone().as_ref())?;
        }
        result
    }
}

impl Told {
    fn answer(answer: &Answer) -> Self {
        Self { export: Export::SetEnrollment, input: json::write(answer).into_bytes() }
    }

    /// Tells a new instance. A lease that does not hold is not trusted by it either, which is not a failure.
    fn again(&self, instance: &mut dyn Instance) -> Result<(), WasmError> {
        match (self.export, tell(instance, self.export, &self.input)) {
            (Export::SetLease, Err(WasmError::Refused(_))) => Ok(()),
            (_, told) => told,
        }
    }
}

impl Core for Gate {
    fn load_bundle(&mut self, tar: &[u8]) -> Result<(), OpenError> {
        Ok(Self::load_bundle(self, tar)?)
    }

    fn set_enrollment(&mut self, answer: Answer) {
        if let Err(error) = Self::set_enrollment(self, &answer) {
            // The instance knows of no enrollment then, and denies.
            tracing::error!("the enrollment could not be told: {error}");
        }
    }

    fn set_lease(&mut self, envelope: &[u8]) {
        if let Err(error) = Self::set_lease(self, envelope) {
            tracing::warn!("a lease is not trusted: {error}");
        }
    }

    fn decide(&mut self, call: Call, now_ms: u64, facts_logged: Option<Digest>) -> Result<Decided, NoDecision> {
        let document = json::write(&CallDocument {
            now_ms,
            audit_id: call.audit_id.as_str(),
            tool: call.tool.as_str(),
            policy: call.policy.reason.into(),
            policy_ref: call.policy.policy_ref.as_ref().map(gate_core::PolicyRef::as_str),
            policy_detail: call.policy.detail.as_deref(),
            facts_logged,
        });
        let decided = decide(&mut *self.instance, document.as_bytes());
        let Err(WasmError::Trap(why)) = decided else { return Ok(decided?) };
        tracing::error!("a call is decided without its enrollment, by a new instance: the module failed ({why})");
        let unavailable = Answer::Unavailable { why: format!("the module failed on this call: {why}") };
        self.rebuild(Some(&Told::answer(&unavailable)))?;
        let decided = decide(&mut *self.instance, document.as_bytes());
        match &self.enrollment {
            Some(enrollment) if decided.is_ok() => enrollment.again(&mut *self.instance)?,
            _ => self.rebuild(self.enrollment.clone().as_ref())?,
        }
        match decided? {
            Decided { effect: Effect::Allow, .. } => Err(WasmError::Trap(why).into()),
            denied => Ok(denied),
        }
    }

    fn facts_id(&mut self) -> Result<Digest, NoDecision> {
        Ok(Self::explain(self, 0)?.facts_id)
    }

    fn explain(&mut self, now_ms: u64) -> Result<Vec<SubCheck>, NoDecision> {
        Ok(Self::explain(self, now_ms)?.facts.explain(now_ms))
    }
}

impl From<WasmError> for NoDecision {
    fn from(error: WasmError) -> Self {
        Self(error.to_string())
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

fn instantiate(engine: &dyn Engine, configuration: &[u8]) -> Result<Box<dyn Instance>, WasmError> {
    let mut instance = engine.instantiate()?;
    let found = instance.abi_major()?;
    if found != Gate::ABI_MAJOR {
        return Err(WasmError::Abi { found });
    }
    tell(&mut *instance, Export::Configure, configuration)?;
    Ok(instance)
}

/// A call whose output matters only where it is refused.
fn tell(instance: &mut dyn Instance, export: Export, input: &[u8]) -> Result<(), WasmError> {
    match instance.call(export, input)? {
        0 => Ok(()),
        number => Err(refusal(instance, number)),
    }
}

fn decide(instance: &mut dyn Instance, call: &[u8]) -> Result<Decided, WasmError> {
    let number = instance.call(Export::Decide, call)?;
    if number < 0 {
        return Err(refusal(instance, number));
    }
    let Decision { effect, reason, verdict, facts, frames } = read(instance)?;
    let effect = match (effect.as_str(), reason, number) {
        ("allow", None, 0) => Effect::Allow,
        ("deny", Some(reason), number) if number == i32::from(reason.number()) => Effect::Deny(reason),
        _ => return Err(WasmError::Trap(format!("the decision contradicts itself: `{effect}`, number `{number}`"))),
    };
    let verdict = verdict.as_deref().map(verdict_of).transpose()?;
    Ok(Decided { effect, verdict, facts, frames: frames.into_iter().map(Frame::from).collect() })
}

fn explain(instance: &mut dyn Instance, now_ms: u64) -> Result<Explanation, WasmError> {
    let number = instance.call_at(TimedExport::Explain, time(now_ms))?;
    if number != 0 {
        return Err(refusal(instance, number));
    }
    let ExplanationDocument { verdict, facts_id, facts, sub_checks: Ignored } = read(instance)?;
    Ok(Explanation { verdict: verdict_of(&verdict)?, facts_id, facts })
}

fn verdict_of(text: &str) -> Result<Verdict, WasmError> {
    match text.parse() {
        _ if text == "pass" => Ok(Verdict::Pass),
        Ok(Reason::Attestation(reason)) => Ok(Verdict::Fail(reason)),
        Ok(Reason::Policy(_) | Reason::Audit(_)) | Err(_) => Err(WasmError::Trap(format!("verdict `{text}` is none"))),
    }
}

fn refusal(instance: &mut dyn Instance, number: i32) -> WasmError {
    match read(instance) {
        Ok(Refusal { error }) => WasmError::Refused(error),
        Err(error) => WasmError::Trap(format!("number `{number}`, and {error}")),
    }
}

/// A document that cannot be read is as good as a trap: the instance is not what it should be.
fn read<T: json::Read>(instance: &mut dyn Instance) -> Result<T, WasmError> {
    json::read(instance.output()?).map_err(|error| WasmError::Trap(format!("its output is malformed: {error}")))
}

/// Exact for the next 285,000 years; the module refuses what is not.
fn time(now_ms: u64) -> f64 {
    now_ms as f64
}
