//! The gate behind a lock, and what becomes of it when it panics.

use gate_core::{AuditId, Digest, PolicyRef, Reason, ToolName, Verdict, json, read_object, reason};
use gate_wasm::{Instance, document};
use serde::Serialize;
#[cfg(feature = "inject-trap")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    answer::Answer,
    error::{Error, caught},
    lock::lock,
};

/// What a gate is told once: `gate_configure` of `docs/src/spec/abi.md`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Configuration<'a> {
    pub(crate) mode: &'static str,
    pub(crate) node_id: Option<&'a str>,
    pub(crate) bundle_keys: Vec<&'a str>,
    pub(crate) bundle_threshold: u64,
    pub(crate) lease_keys: Vec<&'a str>,
    pub(crate) lease_threshold: u64,
    pub(crate) max_staleness_ms: u64,
    pub(crate) max_skew_ms: u64,
}

/// A call that asks to run a tool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) tool: &'a str,
    pub(crate) policy: Option<Reason>,
    pub(crate) policy_ref: Option<&'a str>,
    pub(crate) policy_detail: Option<&'a str>,
    pub(crate) audit_id: &'a str,
    pub(crate) now_ms: u64,
    pub(crate) facts_logged: Option<&'a str>,
}

/// What comes of a call.
#[derive(Debug)]
pub(crate) struct Decision {
    /// Why it is denied; `None` when it is allowed.
    pub(crate) reason: Option<Reason>,
    /// `None` when the gate was not asked.
    pub(crate) verdict: Option<Verdict>,
    /// `None` where no instance could decide: there are no frames then.
    pub(crate) facts: Option<Digest>,
    /// The text of a JSON array.
    pub(crate) frames: Vec<u8>,
}

/// A bundle that is active.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) described: Described,
    pub(crate) tar: Arc<[u8]>,
}

/// Out: `gate_load_bundle`.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) digest: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) channel: String,
    pub(crate) policy_version: String,
    pub(crate) schema_version: String,
    pub(crate) policy_ref: Option<String>,
    pub(crate) enrollment_ref: Option<String>,
    pub(crate) files: Vec<File>,
    pub(crate) signers: Vec<String>,
}

read_object!(Described {
    digest,
    name,
    version,
    channel,
    policy_version,
    schema_version,
    policy_ref,
    enrollment_ref,
    files,
    signers,
});

#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) digest: String,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

read_object!(File { path, digest, offset, size });

struct Refusal {
    error: String,
}

read_object!(Refusal { error });

/// One node's gate. Calls from several threads wait for one another: a decision takes less than a microsecond.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) node_id: Option<String>,
    pub(crate) max_staleness_ms: u64,
    audit_ids: Mutex<AuditIds>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    told: Told,
    /// `None` marks it as dead, by a panic: what it held cannot be believed, and the next call makes a new one.
    instance: Option<Box<Instance>>,
    bundle: Option<Arc<Bundle>>,
}

/// What the instance was told, to tell it to the next one.
#[derive(Debug)]
struct Told {
    configuration: String,
    bundle: Option<Arc<[u8]>>,
    /// A lease that was taken: it raises the serial below which others are refused.
    lease: Option<Arc<[u8]>>,
    enrollment: Option<Answer>,
}

impl Gate {
    pub(crate) fn load(configuration: &Configuration<'_>) -> Result<Self, Error> {
        let told = Told { configuration: json::write(configuration), bundle: None, lease: None, enrollment: None };
        let instance = told.configured()?;
        Ok(Self {
            node_id: configuration.node_id.map(str::to_owned),
            max_staleness_ms: configuration.max_staleness_ms,
            audit_ids: Mutex::default(),
            state: Mutex::new(State { told, instance: Some(instance), bundle: None }),
        })
    }

    /// The gate of `robot-7`.
    #[cfg(test)]
    pub(crate) fn without_bundle(mode: &'static str) -> Self {
        let configuration = Configuration {
            mode,
            node_id: Some("robot-7"),
            bundle_keys: vec![],
            bundle_threshold: 1,
            lease_keys: vec![],
            lease_threshold: 1,
            max_staleness_ms: 60_000,
            max_skew_ms: 0,
        };
        Self::load(&configuration).unwrap()
    }

    /// Makes a tar the active bundle. One that is refused leaves the bundle that was active.
    pub(crate) fn load_bundle(&self, tar: &[u8]) -> Result<(), Error> {
        let mut state = self.lock();
        let tar = Arc::<[u8]>::from(tar);
        let described = state.guarded("the bundle was read", |instance| match instance.load_bundle(&tar) {
            0 => json::read::<Described>(instance.output()).map_err(Error::refused),
            number => Err(refusal(instance, number)),
        })?;
        match described {
            Ok(described) => {
                state.told.bundle = Some(Arc::clone(&tar));
                state.bundle = Some(Arc::new(Bundle { described, tar }));
                Ok(())
            }
            Err(error) => {
                // The facts say why there is none.
                if state.bundle.is_none() {
                    state.told.bundle = Some(tar);
                }
                Err(error)
            }
        }
    }

    /// Tells what the source answered. What does not hold is an error, and denies from then on.
    pub(crate) fn set_enrollment(&self, answer: &Answer) -> Result<(), Error> {
        let mut state = self.lock();
        state.told.enrollment = Some(answer.clone());
        let told = state.guarded("the answer was read", |instance| match tell(instance, answer) {
            0 => Ok(()),
            number => Err(refusal(instance, number)),
        })?;
        if let (Ok(()), Answer::Lease(envelope)) = (&told, answer) {
            state.told.lease = Some(envelope.as_slice().into());
        }
        told
    }

    /// Decides a call. One on which the gate panics is denied: a new instance decides it, told that the enrollment is
    /// unavailable; where that one panics as well or would let the call through, there are no frames and the reason is
    /// `audit: wal_unavailable`.
    pub(crate) fn decide(&self, call: &Call<'_>) -> Result<Decision, Error> {
        self.lock().decide(call)
    }

    /// Decides each call as [`Self::decide`] would, under one lock.
    pub(crate) fn decide_batch<'a>(
        &self,
        calls: impl Iterator<Item = Result<Call<'a>, Error>>,
    ) -> Vec<Result<Decision, Error>> {
        let mut state = self.lock();
        calls.map(|call| state.decide(&call?)).collect()
    }

    /// 0, the number of a reason, or below 0 for what is no time.
    pub(crate) fn verdict(&self, now_ms: f64) -> i32 {
        let unavailable = i32::from(reason::Attestation::EnrollmentUnavailable.number());
        self.lock().guarded("it looked", |instance| instance.verdict(now_ms)).unwrap_or(unavailable)
    }

    /// Every sub-check, as JSON.
    pub(crate) fn explain(&self, now_ms: f64) -> Result<Vec<u8>, Error> {
        self.lock().guarded("it explained", |instance| match instance.explain(now_ms) {
            0 => Ok(instance.output().to_vec()),
            number => Err(refusal(instance, number)),
        })?
    }

    /// A new audit id of this time.
    pub(crate) fn audit_id(&self, now_ms: u64) -> Result<AuditId, Error> {
        lock(&self.audit_ids, |ids| *ids = AuditIds::default()).next(now_ms)
    }

    pub(crate) fn bundle(&self) -> Option<Arc<Bundle>> {
        self.lock().bundle.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state, |state| state.instance = None)
    }
}

impl State {
    fn decide(&mut self, call: &Call<'_>) -> Result<Decision, Error> {
        let document = call.document()?;
        match self.guarded("it decided", |instance| decide(instance, document)) {
            Ok(decision) => decision,
            Err(panicked) => self.decide_again(call, &panicked),
        }
    }

    /// The same call by a new instance, so that the denial is written down.
    fn decide_again(&mut self, call: &Call<'_>, panicked: &Error) -> Result<Decision, Error> {
        let document = call.document()?;
        let decided = self.guarded("it decided again", |instance| {
            tell(instance, &Answer::unavailable(&panicked.message));
            decide(instance, document)
        });
        // It was told of the panic: what is told next is what the source said.
        self.instance = None;
        match decided {
            Ok(Ok(denied)) if denied.reason.is_some() => Ok(denied),
            Ok(Err(refused)) => Err(refused),
            // Or a mode lets it through: a call on which the gate panicked must not run.
            Ok(Ok(_)) | Err(_) => {
                let reason = Some(reason::Audit::WalUnavailable.into());
                Ok(Decision { reason, verdict: None, facts: None, frames: b"[]".to_vec() })
            }
        }
    }

    /// Calls the instance, or a new one where the old one was lost. Only one that returned is kept.
    fn guarded<T>(&mut self, doing: &str, call: impl FnOnce(&mut Instance) -> T) -> Result<T, Error> {
        let Self { told, instance, .. } = self;
        let kept = mem::take(instance);
        let (kept, result) = caught(doing, || {
            let mut instance = match kept {
                Some(instance) => instance,
                None => told.instance()?,
            };
            let result = call(&mut instance);
            Ok::<_, Error>((instance, result))
        })??;
        *instance = Some(kept);
        Ok(result)
    }
}

impl Told {
    fn configured(&self) -> Result<Box<Instance>, Error> {
        let mut instance = Box::new(Instance::new());
        match instance.configure(self.configuration.as_bytes()) {
            0 => Ok(instance),
            number => Err(refusal(&instance, number)),
        }
    }

    /// A new instance that is told all that the old one was told. What was refused is refused again, and leaves the same
    /// facts.
    fn instance(&self) -> Result<Box<Instance>, Error> {
        let mut instance = self.configured()?;
        if let Some(bundle) = &self.bundle {
            instance.load_bundle(bundle);
        }
        if let Some(lease) = &self.lease {
            instance.set_lease(lease);
        }
        if let Some(answer) = &self.enrollment {
            tell(&mut instance, answer);
        }
        Ok(instance)
    }
}

impl Call<'_> {
    fn document(&self) -> Result<document::Call, Error> {
        let policy =
            self.policy.ok_or_else(|| malformed("policy", &"is missing: say what the host's policy answered"))?;
        Ok(document::Call {
            now_ms: self.now_ms,
            audit_id: AuditId::parse(self.audit_id).map_err(|error| malformed("audit_id", &error))?,
            tool: ToolName::parse(self.tool).map_err(|error| malformed("tool", &error))?,
            policy,
            policy_ref: (self.policy_ref.map(PolicyRef::parse).transpose())
                .map_err(|error| malformed("policy_ref", &error))?,
            policy_detail: self.policy_detail.map(str::to_owned),
            facts_logged: self.facts_logged.map(digest).transpose()?,
        })
    }
}

fn malformed(member: &str, error: &dyn std::fmt::Display) -> Error {
    Error::malformed(format_args!("the call is malformed: `{member}`: {error}"))
}

fn digest(text: &str) -> Result<Digest, Error> {
    let digest = text.strip_prefix("sha256:").and_then(Digest::from_hex);
    digest.ok_or_else(|| malformed("facts_logged", &"is no digest: pass `facts` of a decision that is durable"))
}

fn decide(instance: &Instance, call: document::Call) -> Result<Decision, Error> {
    #[cfg(feature = "inject-trap")]
    assert!(call.tool.as_str() != "gate.trap-once" || PANICKED.fetch_not(Ordering::Relaxed), "a trap was asked for");
    // Room for the frames of a decision whose facts are logged. Above a kibibyte, allocators take their slow path.
    let mut frames = Vec::with_capacity(1024);
    let decided = instance.decide_call(call, &mut frames).map_err(Error::malformed)?;
    let document::Decision { effect, reason, verdict, facts } = decided;
    let reason = match effect {
        document::Effect::Allow => None,
        document::Effect::Deny => Some(reason.unwrap_or(reason::Audit::WalUnavailable.into())),
    };
    Ok(Decision { reason, verdict: verdict.map(|verdict| verdict.0), facts: Some(facts), frames })
}

fn tell(instance: &mut Instance, answer: &Answer) -> i32 {
    #[cfg(feature = "inject-trap")]
    trap_on(answer);
    match answer {
        Answer::Json(json) => instance.set_enrollment(json),
        Answer::Lease(envelope) => instance.set_lease(envelope),
    }
}

/// The output of a call that gave an error, as one.
fn refusal(instance: &Instance, number: i32) -> Error {
    let message = json::read::<Refusal>(instance.output()).map_or_else(|error| error.to_string(), |said| said.error);
    match number {
        gate_wasm::MALFORMED => Error::malformed(message),
        _ => Error::refused(message),
    }
}

/// What this library is, as JSON.
pub(crate) fn info() -> Vec<u8> {
    let mut instance = Instance::new();
    instance.info();
    instance.output().to_vec()
}

/// Whether a signature holds by the strict rules.
pub(crate) fn verify_signature(bytes: &[u8]) -> Result<(), Error> {
    let mut instance = Instance::new();
    match instance.verify_signature(bytes) {
        0 => Ok(()),
        number => Err(refusal(&instance, number)),
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the tool `gate.trap-once` has panicked, and is decided the next time.
#[cfg(feature = "inject-trap")]
static PANICKED: AtomicBool = AtomicBool::new(false);

/// What is told next is that it panicked, and why: that panics as well.
#[cfg(feature = "inject-trap")]
fn trap_on(answer: &Answer) {
    const ASKED_FOR: &str = "gate.trap-told";
    let (Answer::Json(text) | Answer::Lease(text)) = answer;
    assert!(!String::from_utf8_lossy(text).contains(ASKED_FOR), "a trap was asked for: {ASKED_FOR}");
}

/// Makes audit ids: UUIDs of version 7, which sort by the time they were made at.
///
/// Random bytes for hundreds of them are drawn at once, since that is a system call. A gate that is copied by a fork would
/// draw the same: the header says to make it afterwards.
#[derive(Debug, Default)]
struct AuditIds {
    pool: Vec<u8>,
}

impl AuditIds {
    const POOL_BYTES: usize = 4000;

    fn next(&mut self, now_ms: u64) -> Result<AuditId, Error> {
        if self.pool.len() < 10 {
            self.pool.resize(Self::POOL_BYTES, 0);
            let filled = getrandom::fill(&mut self.pool);
            filled.map_err(|error| Error::refused(format_args!("no random numbers: {error}: see the system's log")))?;
        }
        let rest = self.pool.len().saturating_sub(10);
        let random = self.pool.get(rest..).and_then(|random| random.first_chunk::<10>()).copied().unwrap_or_default();
        self.pool.truncate(rest);
        let mut id = [0; 16];
        for (byte, value) in id.iter_mut().zip(now_ms.to_be_bytes().into_iter().skip(2).chain(random)) {
            *byte = value;
        }
        let [.., version, _, variant, _, _, _, _, _, _, _] = &mut id;
        *version = 0x70 | (*version & 0x0f);
        *variant = 0x80 | (*variant & 0x3f);
        Ok(AuditId::from_uuid(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_marks_a_gate_as_dead_and_the_next_call_makes_it_anew() {
        let gate = Gate::without_bundle("enforce");
        gate.set_enrollment(&Answer::not_enrolled(1)).unwrap();
        let explained = gate.explain(1.0).unwrap();
        gate.lock().instance = Some(Box::new(Instance::new()));
        assert_ne!(gate.explain(1.0).unwrap(), explained);
        crate::lock::kill(&gate.state);
        assert_eq!(gate.explain(1.0).unwrap(), explained);

        gate.audit_id(1).unwrap();
        let drawn = gate.audit_ids.lock().unwrap().pool.clone();
        crate::lock::kill(&gate.audit_ids);
        gate.audit_id(1).unwrap();
        assert_eq!(gate.audit_ids.lock().unwrap().pool.len(), drawn.len());
        assert_ne!(gate.audit_ids.lock().unwrap().pool, drawn);
    }

    #[test]
    fn audit_ids_are_uuids_that_sort_by_time_and_never_come_twice() {
        let mut ids = AuditIds::default();
        let mut made: Vec<_> =
            (0..1000).map(|at| ids.next(0x0199_0000_0000 + at).unwrap().as_str().to_owned()).collect();
        assert!(made.is_sorted());
        for (at, id) in made.iter().enumerate() {
            assert_eq!((id.len(), &id[..15], at), (36, format!("01990000-{at:04x}-7").as_str(), at));
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        }
        for id in &mut made {
            id.replace_range(..15, "");
        }
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), 1000);
    }
}
