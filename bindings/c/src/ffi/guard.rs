//! `ag_guard`, `ag_permit`, `ag_denial`, and the callbacks that a host brings.

use gate_core::json;
use serde::Serialize;
use std::{
    ffi::{CString, c_char, c_void},
    fmt, ptr,
    sync::Arc,
    time::Duration,
};

use super::{
    Failure, ag_status, constant, entry,
    gate::{ag_answer, ag_gate, free, no_answer},
    handle, null, optional, out, reason, required, row,
};
use crate::{
    answer::Answer,
    error::Error,
    guard::{Appended, Denied, Guard, Outcome, Permit, Policy, PolicyAnswer, Refused, Sink, Source, Times, ToolCall},
    reasons::ag_reason,
};

/// Who says whether a node is enrolled. A guard may call it from several threads at once.
#[derive(Debug)]
#[repr(C)]
pub struct ag_source {
    /// Given to each callback.
    pub context: *mut c_void,
    /// Puts into `answer` what is known of the node now, and comes back within `timeout_ms`: the guard cannot interrupt it. An
    /// answer that comes later, or none, counts as unavailable. `answer` is the guard's: it is not kept and not freed.
    pub look_up: Option<
        unsafe extern "C" fn(context: *mut c_void, node_id: *const c_char, timeout_ms: u32, answer: *mut ag_answer),
    >,
    /// Called once, when nobody will call it again. May be NULL.
    pub release: Option<unsafe extern "C" fn(context: *mut c_void)>,
}

/// What became of an append. Whatever number is none of these is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ag_appended {
    /// It may be in the log or not: the call is denied with `AG_AUDIT_WAL_UNAVAILABLE`.
    AG_APPEND_FAILED = 0,
    /// It is on disk, whole.
    AG_APPEND_DURABLE = 1,
    /// The log does not have the facts that the frames name, and took none of them: they are sent again, with the facts.
    AG_APPEND_FACTS_NOT_LOGGED = 2,
}

/// Where decisions are written down. A guard may call it from several threads at once.
#[derive(Debug)]
#[repr(C)]
pub struct ag_sink {
    /// Given to each callback.
    pub context: *mut c_void,
    /// Appends `frames`, the text of a JSON array, as one batch; comes back within `timeout_ms`, and says
    /// `AG_APPEND_DURABLE` when it is on disk. Never tries again. `frames` and `note` are the guard's.
    pub append: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            frames: *const c_char,
            frames_len: usize,
            timeout_ms: u32,
            note: *mut ag_note,
        ) -> i32,
    >,
    /// Called once, when nobody will call it again. May be NULL.
    pub release: Option<unsafe extern "C" fn(context: *mut c_void)>,
}

/// The host's own policy. A guard may call it from several threads at once.
#[derive(Debug)]
#[repr(C)]
pub struct ag_policy {
    /// Given to each callback.
    pub context: *mut c_void,
    /// Gives one of `AG_POLICY_…`; any other number is `AG_POLICY_UNDEFINED`, which denies. `params` are those of the call, and
    /// may be empty. NULL: there is no policy, and every call goes to the gate.
    pub ask: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            tool: *const c_char,
            params: *const c_char,
            note: *mut ag_note,
        ) -> i32,
    >,
    /// Called once, when nobody will call it again. May be NULL.
    pub release: Option<unsafe extern "C" fn(context: *mut c_void)>,
}

/// What a callback has to say beside its number. It is the guard's: it is not kept and not freed.
#[derive(Default)]
pub struct ag_note {
    pub(super) text: Option<String>,
    policy_ref: Option<String>,
}

/// What the operator should know: why an append failed, or what the policy found. It is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_note_text(note: *mut ag_note, text: *const c_char) -> ag_status {
    entry(|| {
        let note = unsafe { note.as_mut() }.ok_or_else(|| null("note"))?;
        note.text = Some(unsafe { required("text", text) }?.to_owned());
        Ok(())
    })
}

/// Which policies answered. It is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_note_policy_ref(note: *mut ag_note, policy_ref: *const c_char) -> ag_status {
    entry(|| {
        let note = unsafe { note.as_mut() }.ok_or_else(|| null("note"))?;
        note.policy_ref = Some(unsafe { required("policy_ref", policy_ref) }?.to_owned());
        Ok(())
    })
}

/// Of what a guard is made. Members that are 0 have their default.
#[derive(Debug)]
#[repr(C)]
pub struct ag_guard_options {
    /// The gate. It stays yours, and may be freed before the guard. A guard owns what its gate is told about the enrollment:
    /// use one guard for a gate.
    pub gate: *const ag_gate,
    /// Who is asked. The guard takes it over: it is released with the guard, or at once where there is no guard.
    pub source: ag_source,
    /// Who writes. Taken over likewise.
    pub sink: ag_sink,
    /// The host's own policy; one without `ask` is none. Taken over likewise.
    pub policy: ag_policy,
    /// How long an answer is asked for no more. 0: every call looks up, and sees a revoke at once.
    pub max_age_ms: u32,
    /// How long a look-up may take; 0 means 2,000.
    pub look_up_timeout_ms: u32,
    /// How long an append may take; 0 means 10,000.
    pub append_timeout_ms: u32,
}

/// A call that asks to run a tool.
#[derive(Debug)]
#[repr(C)]
pub struct ag_tool_call {
    /// The tool's name.
    pub tool: *const c_char,
    /// Its parameters, for the policy alone; may be NULL.
    pub params: *const c_char,
    /// One of `AG_POLICY_…` where the policy was asked already. 0: the guard's policy is asked.
    pub policy: i32,
    /// Which policies answered; may be NULL.
    pub policy_ref: *const c_char,
    /// What the operator should know of their answer; may be NULL.
    pub policy_detail: *const c_char,
    /// Joins the frames of the call; NULL means a new one.
    pub audit_id: *const c_char,
}

/// How a tool went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ag_outcome {
    /// It was given up before it said how it went; so is any number that is none of these.
    AG_ABANDONED = 0,
    /// It did what it should.
    AG_COMPLETED = 1,
    /// It did not.
    AG_FAILED = 2,
}

/// A call that may not run. Yours, and all that it points to: `ag_denial_free`.
#[derive(Debug)]
#[repr(C)]
pub struct ag_denial {
    /// Why.
    pub reason: ag_reason,
    /// For HTTP: 403, or 503 where the decision could not be written down.
    pub status: i32,
    /// Joins the frames of the call.
    pub audit_id: *const c_char,
    /// Which policies answered; may be NULL.
    pub policy_ref: *const c_char,
    /// What the operator does about it. Static.
    pub remedy: *const c_char,
    /// What the caller is answered.
    pub json: *const c_char,
    /// For the operator alone: why it could not be written down. Else NULL.
    pub cause: *const c_char,
}

/// An `ag_denial` with what it points to.
#[repr(C)]
struct OwnedDenial {
    public: ag_denial,
    _audit_id: CString,
    _policy_ref: Option<CString>,
    _json: CString,
    _cause: Option<CString>,
}

/// Asks before each tool: looks up the enrollment, decides, and has the decision written down. May be used from several threads
/// at once: look-ups and appends run side by side.
pub struct ag_guard(Arc<Guard>);

/// The right to run one tool once. The decision behind it is durable.
pub struct ag_permit {
    permit: Permit,
    audit_id: CString,
}

/// A new guard. Yours: `ag_guard_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_guard_new(options: *const ag_guard_options, guard: *mut *mut ag_guard) -> ag_status {
    entry(|| {
        let options = unsafe { handle("options", options) }?;
        let (source, sink, policy) = (&options.source, &options.sink, &options.policy);
        // Taken over first: whatever is wrong, each is released.
        let context = |context, release| Context { context, release };
        let source = (context(source.context, source.release), source.look_up);
        let sink = (context(sink.context, sink.release), sink.append);
        let policy = (context(policy.context, policy.release), policy.ask);
        let guard = unsafe { out("guard", guard) }?;
        let gate = Arc::clone(&unsafe { handle("gate", options.gate) }?.0);
        let source = CSource { context: source.0, look_up: source.1.ok_or_else(|| null("source.look_up"))? };
        let sink = CSink { context: sink.0, append: sink.1.ok_or_else(|| null("sink.append"))? };
        let policy = policy.1.map(|ask| Box::new(CPolicy { context: policy.0, ask }) as Box<dyn Policy>);
        let ms = |ms: u32, absent: u32| Duration::from_millis(if ms == 0 { absent } else { ms }.into());
        let times = Times {
            max_age: ms(options.max_age_ms, 0),
            look_up: ms(options.look_up_timeout_ms, 2_000),
            append: ms(options.append_timeout_ms, 10_000),
        };
        let made = Guard::new(gate, Arc::new(source), Arc::new(sink), policy, times);
        *guard = Box::into_raw(Box::new(ag_guard(Arc::new(made))));
        Ok(())
    })
}

/// Frees a guard. Permits that were given may be finished after it. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_guard_free(guard: *mut ag_guard) {
    unsafe { free(guard) }
}

/// Asks whether a call may run. `AG_OK`: it may, once, and `*permit` is yours until `ag_permit_finish`. `AG_DENIED`: it may
/// not, and `*denial` is yours: `ag_denial_free`. Anything else: it may not, and nothing was written down. `denial` may be
/// NULL.
///
/// A panic counts as a failure of what panicked: of the gate as `ag_gate_decide` says; of the look-up,
/// `AG_ATTESTATION_ENROLLMENT_UNAVAILABLE`; of the policy, `AG_POLICY_EVALUATION_FAILED`; of an append or of anything else,
/// `AG_AUDIT_WAL_UNAVAILABLE` in every mode, and the denial's `cause` has what it said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_guard_ask(
    guard: *const ag_guard,
    call: *const ag_tool_call,
    permit: *mut *mut ag_permit,
    denial: *mut *mut ag_denial,
) -> ag_status {
    let mut denied = None;
    let status = entry(|| {
        if !denial.is_null() {
            unsafe { out("denial", denial) }?;
        }
        let permit = unsafe { out("permit", permit) }?;
        let guard = &unsafe { handle("guard", guard) }?.0;
        let call = unsafe { tool_call(handle("call", call)?) }?;
        match guard.ask(call) {
            Ok(given) => {
                let audit_id = CString::new(given.audit_id.as_str()).map_err(Error::refused)?;
                *permit = Box::into_raw(Box::new(ag_permit { permit: given, audit_id }));
                Ok(())
            }
            Err(Refused::Error(error)) => Err(error.into()),
            Err(Refused::Denied(why)) => {
                denied = Some(OwnedDenial::new(&why));
                Err(Failure::from(Refused::Denied(why)))
            }
        }
    });
    if let (Some(denied), Some(denial)) = (denied, unsafe { denial.as_mut() }) {
        *denial = Box::into_raw(Box::new(denied)).cast();
    }
    status
}

unsafe fn tool_call(call: &ag_tool_call) -> Result<ToolCall<'_>, Error> {
    let policy_ref = unsafe { optional("policy_ref", call.policy_ref) }?.map(str::to_owned);
    let detail = unsafe { optional("policy_detail", call.policy_detail) }?.map(str::to_owned);
    let policy = match (call.policy, reason(call.policy)) {
        (0, _) => None,
        (_, Some(reason)) => Some(PolicyAnswer { reason, policy_ref, detail }),
        (number, None) => {
            let wrong = format_args!(
                "the call is malformed: `policy`: `{number}` is no reason: use AG_POLICY_ALLOWED or another"
            );
            return Err(Error::malformed(wrong));
        }
    };
    Ok(ToolCall {
        tool: unsafe { required("tool", call.tool) }?,
        params: unsafe { optional("params", call.params) }?.unwrap_or_default(),
        policy,
        audit_id: unsafe { optional("audit_id", call.audit_id) }?,
    })
}

/// The audit id of a permit's call. The permit's: it ends with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_permit_audit_id(permit: *const ag_permit) -> *const c_char {
    unsafe { permit.as_ref() }.map_or(ptr::null(), |permit| permit.audit_id.as_ptr())
}

/// Writes down how the tool went, an `ag_outcome`, and frees the permit. It comes back when that is durable or has failed:
/// answer your caller before. Whether it was written changes nothing, and is not said. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_permit_finish(permit: *mut ag_permit, outcome: i32) {
    const COMPLETED: i32 = ag_outcome::AG_COMPLETED as i32;
    const FAILED: i32 = ag_outcome::AG_FAILED as i32;
    if permit.is_null() {
        return;
    }
    let permit = unsafe { Box::from_raw(permit) };
    entry(|| {
        permit.permit.finish(match outcome {
            COMPLETED => Outcome::Completed,
            FAILED => Outcome::Failed,
            _ => Outcome::Abandoned,
        });
        Ok(())
    });
}

/// Frees a denial. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_denial_free(denial: *mut ag_denial) {
    unsafe { free(denial.cast::<OwnedDenial>()) }
}

/// What the caller is answered.
#[derive(Serialize)]
struct Wire<'a> {
    decision: &'a str,
    reason: gate_core::Reason,
    policy_ref: Option<&'a str>,
    audit_id: &'a str,
}

impl OwnedDenial {
    fn new(Denied { reason, audit_id, policy_ref, cause }: &Denied) -> Self {
        let wire = Wire { decision: "deny", reason: *reason, policy_ref: policy_ref.as_deref(), audit_id };
        let string = |text: &str| CString::new(text).unwrap_or_default();
        let (json, audit_id) = (string(&json::write(&wire)), string(audit_id));
        let (policy_ref, cause) = (policy_ref.as_deref().map(string), cause.as_deref().map(string));
        let reason = constant(*reason);
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let public = ag_denial {
            reason,
            status: if reason == ag_reason::AG_AUDIT_WAL_UNAVAILABLE { 503 } else { 403 },
            audit_id: audit_id.as_ptr(),
            policy_ref: pointer(&policy_ref),
            remedy: row(reason as i32).map_or(c"".as_ptr(), |(_, _, remedy)| remedy.as_ptr()),
            json: json.as_ptr(),
            cause: pointer(&cause),
        };
        Self { public, _audit_id: audit_id, _policy_ref: policy_ref, _json: json, _cause: cause }
    }
}

/// A host's own data, and what ends it.
struct Context {
    context: *mut c_void,
    release: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: the host vouches for callbacks that may come from any thread, several at once: the header says so.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the host's own function with the host's own data.
            unsafe { release(self.context) };
        }
    }
}

struct CSource {
    context: Context,
    look_up: unsafe extern "C" fn(*mut c_void, *const c_char, u32, *mut ag_answer),
}

impl Source for CSource {
    fn look_up(&self, node_id: &str, timeout: Duration) -> Result<Answer, String> {
        let node_id = CString::new(node_id).map_err(|error| error.to_string())?;
        let mut answer = ag_answer(no_answer());
        // SAFETY: the host's own function; what it is given outlives the call.
        unsafe { (self.look_up)(self.context.context, node_id.as_ptr(), millis(timeout), &raw mut answer) };
        Ok(answer.0)
    }
}

struct CSink {
    context: Context,
    append: unsafe extern "C" fn(*mut c_void, *const c_char, usize, u32, *mut ag_note) -> i32,
}

impl Sink for CSink {
    fn append(&self, frames: &str, timeout: Duration) -> Appended {
        const DURABLE: i32 = ag_appended::AG_APPEND_DURABLE as i32;
        const FACTS_NOT_LOGGED: i32 = ag_appended::AG_APPEND_FACTS_NOT_LOGGED as i32;
        let text = match CString::new(frames) {
            Ok(text) => text,
            Err(error) => return Appended::Failed(error.to_string()),
        };
        let mut note = ag_note::default();
        let (context, timeout_ms) = (self.context.context, millis(timeout));
        // SAFETY: the host's own function; what it is given outlives the call.
        let appended = unsafe { (self.append)(context, text.as_ptr(), frames.len(), timeout_ms, &raw mut note) };
        let why = || note.text.unwrap_or_else(|| format!("the sink gave `{appended}` and did not say why"));
        match appended {
            DURABLE => Appended::Durable,
            FACTS_NOT_LOGGED => Appended::FactsNotLogged(why()),
            _ => Appended::Failed(why()),
        }
    }
}

struct CPolicy {
    context: Context,
    ask: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, *mut ag_note) -> i32,
}

impl Policy for CPolicy {
    fn ask(&self, tool: &str, params: &str) -> PolicyAnswer {
        let mut note = ag_note::default();
        let given = match (CString::new(tool), CString::new(params)) {
            // SAFETY: the host's own function; what it is given outlives the call.
            (Ok(tool), Ok(params)) => unsafe {
                (self.ask)(self.context.context, tool.as_ptr(), params.as_ptr(), &raw mut note)
            },
            _ => 0,
        };
        let answered = reason(given).filter(|reason| matches!(reason, gate_core::Reason::Policy(_)));
        let reason = answered.unwrap_or(gate_core::reason::Policy::Undefined.into());
        PolicyAnswer { reason, policy_ref: note.policy_ref, detail: note.text }
    }
}

fn millis(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)
}

impl fmt::Debug for ag_note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ag_note").field("text", &self.text).finish_non_exhaustive()
    }
}
