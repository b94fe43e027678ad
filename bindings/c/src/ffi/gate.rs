//! `ag_gate`, `ag_answer`, `ag_decision`, `ag_bundle`.

use gate_core::Verdict;
use std::{
    ffi::{CStr, CString, c_char},
    ptr,
    sync::Arc,
};

use super::{
    AG_ABI_MAJOR, AG_ABI_MINOR, ag_status, bytes, constant, entry, handle, list, optional, out, owned, reason, required,
};
use crate::{
    answer::{Answer, Row},
    error::{Error, ErrorKind},
    gate::{Bundle, Call, Configuration, Decision, Gate, now_ms},
    reasons::ag_reason,
};

/// How far the gate is turned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ag_mode {
    /// It is not asked.
    AG_MODE_OFF = 0,
    /// It is asked and written down, and answers do not change.
    AG_MODE_ADVISORY = 1,
    /// What it finds is enforced.
    AG_MODE_ENFORCE = 2,
}

/// What a gate is told once. Members that are 0 or NULL have their default. Nothing of it is kept: the gate copies.
#[derive(Debug)]
#[repr(C)]
pub struct ag_gate_options {
    /// Which node this is. NULL: every call that the gate is asked about is denied.
    pub node_id: *const c_char,
    /// An `ag_mode`; off unless given.
    pub mode: i32,
    /// The tar of a bundle. One that does not verify is refused, and no gate is loaded.
    pub bundle: *const u8,
    /// How many bytes it has.
    pub bundle_len: usize,
    /// Who may sign bundles: SPKI PEM. None refuses every bundle.
    pub trusted_keys: *const *const c_char,
    /// How many there are.
    pub trusted_keys_len: usize,
    /// How many distinct ones of them must have signed; 0 means 1.
    pub threshold: u64,
    /// Who may sign leases: SPKI PEM. None refuses every lease.
    pub lease_keys: *const *const c_char,
    /// How many there are.
    pub lease_keys_len: usize,
    /// How many distinct ones of them must have signed; 0 means 1.
    pub lease_threshold: u64,
    /// How long an answer counts after it was observed; 0 means 60,000.
    pub max_staleness_ms: u64,
    /// How far the source's clock may be ahead.
    pub max_skew_ms: u64,
}

/// A call that asks to run a tool.
#[derive(Debug)]
#[repr(C)]
pub struct ag_call {
    /// The tool's name.
    pub tool: *const c_char,
    /// What the host's policy said: one of `AG_POLICY_…`. It must be said; only `AG_POLICY_ALLOWED` allows.
    pub policy: i32,
    /// Which policies answered; may be NULL.
    pub policy_ref: *const c_char,
    /// What the operator should know of their answer; may be NULL.
    pub policy_detail: *const c_char,
    /// Joins the frames of the call; NULL means a new one.
    pub audit_id: *const c_char,
    /// The id of the facts that the log has: `facts` of the last decision whose frames are durable. May be NULL.
    pub facts_logged: *const c_char,
    /// The time, in milliseconds since the Unix epoch; 0 means now.
    pub now_ms: u64,
}

/// `verdict` of a decision that did not ask the gate.
pub const AG_NOT_ASKED: i32 = -1;

/// What comes of a call. Yours, and all that it points to: `ag_decision_free`.
#[derive(Debug)]
#[repr(C)]
pub struct ag_decision {
    /// Whether the tool may run, once `frames` are durable.
    pub allowed: bool,
    /// Why it may not; 0 when it may.
    pub reason: ag_reason,
    /// What the gate found: 0, an `ag_reason`, or `AG_NOT_ASKED`.
    pub verdict: i32,
    /// The id of the facts it was decided on: the next call's `facts_logged`, once `frames` are durable. NULL where there are
    /// no frames.
    pub facts: *const c_char,
    /// Joins the frames of the call.
    pub audit_id: *const c_char,
    /// The text of a JSON array, NUL at its end: append it as it is, durably, before the tool runs and before you answer.
    pub frames: *const c_char,
    /// How many bytes it has, without the NUL.
    pub frames_len: usize,
    /// Of a batch alone: why this call is malformed. It is then not allowed, and has no frames. Else NULL.
    pub error: *const c_char,
}

/// An `ag_decision` with what it points to.
#[repr(C)]
struct OwnedDecision {
    public: ag_decision,
    /// Never looked at: it keeps the strings.
    _text: Vec<u8>,
}

/// A file of a bundle.
#[derive(Debug)]
#[repr(C)]
pub struct ag_file {
    /// Its path.
    pub path: *const c_char,
    /// The SHA-256 of its bytes.
    pub digest: *const c_char,
    /// Its bytes.
    pub bytes: *const u8,
    /// How many they are.
    pub size: usize,
    /// Where they begin in the tar.
    pub offset: usize,
}

/// A bundle that is active, as it was when it was asked for. Yours, and all that it points to: `ag_bundle_free`.
#[derive(Debug)]
#[repr(C)]
pub struct ag_bundle {
    /// Its identity.
    pub digest: *const c_char,
    /// Its name.
    pub name: *const c_char,
    /// Its version.
    pub version: *const c_char,
    /// How far it has come: `dev`, `canary` or `stable`.
    pub channel: *const c_char,
    /// The version of its policies.
    pub policy_version: *const c_char,
    /// The schema of its manifest.
    pub schema_version: *const c_char,
    /// `policy_ref` of the calls that its policies answer; NULL where name and version are too long for one.
    pub policy_ref: *const c_char,
    /// The enrollment it declares; NULL where there is none.
    pub enrollment_ref: *const c_char,
    /// Its files in their order.
    pub files: *const ag_file,
    /// How many there are.
    pub files_len: usize,
    /// The ids of the trusted keys that have signed.
    pub signers: *const *const c_char,
    /// How many there are.
    pub signers_len: usize,
}

/// An `ag_bundle` with what it points to.
#[repr(C)]
struct OwnedBundle {
    public: ag_bundle,
    _strings: Vec<CString>,
    _files: Vec<ag_file>,
    _signers: Vec<*const c_char>,
    _bundle: Arc<Bundle>,
}

/// One node's gate: told who it is, which bundle runs and what its enrollment source answered, it decides. It does no I/O.
/// May be used from several threads at once.
pub struct ag_gate(pub(super) Arc<Gate>);

/// What an enrollment source says of a node. One that nothing was put into says that the source gave no answer.
pub struct ag_answer(pub(super) Answer);

/// A row of an enrollment store.
#[derive(Debug)]
#[repr(C)]
pub struct ag_enrollment {
    /// Whose it is.
    pub node_id: *const c_char,
    /// The enrollment.
    pub enrollment_ref: *const c_char,
    /// Only `active` is good.
    pub status: *const c_char,
    /// `<none>`, `pending`, `acknowledged` and `active` are good.
    pub rollout_state: *const c_char,
    /// Grows with each change.
    pub serial: u64,
}

/// `ag_gate_load` calls it with the version that the program was compiled for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_load_abi(
    abi_major: u32,
    options: *const ag_gate_options,
    gate: *mut *mut ag_gate,
) -> ag_status {
    entry(|| {
        let gate = unsafe { out("gate", gate) }?;
        if abi_major != AG_ABI_MAJOR {
            let message = format!(
                "the program was compiled for major version `{abi_major}` of libautonomy_gate's interface, the library has \
                 `{AG_ABI_MAJOR}.{AG_ABI_MINOR}`: compile it with the header of this library"
            );
            return Err(Error { kind: ErrorKind::Unsupported, message }.into());
        }
        let options = unsafe { handle("options", options) }?;
        let loaded = Gate::load(&unsafe { configuration(options) }?)?;
        let bundle = unsafe { bytes("bundle", options.bundle, options.bundle_len) }?;
        if !bundle.is_empty() {
            loaded.load_bundle(bundle)?;
        }
        *gate = Box::into_raw(Box::new(ag_gate(Arc::new(loaded))));
        Ok(())
    })
}

unsafe fn configuration(options: &ag_gate_options) -> Result<Configuration<'_>, Error> {
    const MODES: [(i32, &str); 3] = [
        (ag_mode::AG_MODE_OFF as i32, "off"),
        (ag_mode::AG_MODE_ADVISORY as i32, "advisory"),
        (ag_mode::AG_MODE_ENFORCE as i32, "enforce"),
    ];
    let mode = MODES.into_iter().find(|(number, _)| *number == options.mode);
    let (_, mode) = mode.ok_or_else(|| {
        Error::malformed(format_args!(
            "mode `{}` is none: use AG_MODE_OFF, AG_MODE_ADVISORY or AG_MODE_ENFORCE",
            options.mode
        ))
    })?;
    let keys = |name, keys, len| -> Result<Vec<_>, Error> {
        unsafe { list(name, keys, len) }?.iter().map(|key| unsafe { required(name, *key) }).collect()
    };
    Ok(Configuration {
        mode,
        node_id: unsafe { optional("node_id", options.node_id) }?,
        bundle_keys: keys("trusted_keys", options.trusted_keys, options.trusted_keys_len)?,
        bundle_threshold: options.threshold.max(1),
        lease_keys: keys("lease_keys", options.lease_keys, options.lease_keys_len)?,
        lease_threshold: options.lease_threshold.max(1),
        max_staleness_ms: if options.max_staleness_ms == 0 { 60_000 } else { options.max_staleness_ms },
        max_skew_ms: options.max_skew_ms,
    })
}

/// Frees a gate. A guard that was made with it keeps what it needs. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_free(gate: *mut ag_gate) {
    unsafe { free(gate) }
}

/// Makes a tar the active bundle. One that is refused leaves the bundle that was active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_load_bundle(gate: *const ag_gate, tar: *const u8, len: usize) -> ag_status {
    entry(|| Ok(unsafe { handle("gate", gate) }?.0.load_bundle(unsafe { bytes("tar", tar, len) }?)?))
}

/// The active bundle; `*bundle` is NULL where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_bundle(gate: *const ag_gate, bundle: *mut *mut ag_bundle) -> ag_status {
    entry(|| {
        let bundle = unsafe { out("bundle", bundle) }?;
        if let Some(active) = unsafe { handle("gate", gate) }?.0.bundle() {
            *bundle = Box::into_raw(Box::new(OwnedBundle::new(active)?)).cast();
        }
        Ok(())
    })
}

/// Frees a bundle. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_bundle_free(bundle: *mut ag_bundle) {
    unsafe { free(bundle.cast::<OwnedBundle>()) }
}

/// Tells what the source answered about this node. What is malformed or does not hold is an error, and the enrollment is
/// then unavailable or untrusted: it denies.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_set_enrollment(gate: *const ag_gate, answer: *const ag_answer) -> ag_status {
    entry(|| {
        let gate = &unsafe { handle("gate", gate) }?.0;
        match unsafe { handle("answer", answer) } {
            Ok(answer) => Ok(gate.set_enrollment(&answer.0)?),
            Err(none) => {
                // There is no answer, and the one before must not stand.
                gate.set_enrollment(&Answer::unavailable("the source gave no answer"))?;
                Err(none.into())
            }
        }
    })
}

/// What the gate finds at a time, in milliseconds since the Unix epoch: 0, or the `ag_reason` of the first sub-check that
/// fails. Below 0 for what is no time. Looks at no mode, and writes nothing down: a call is decided by `ag_gate_decide`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_verdict(gate: *const ag_gate, now_ms: u64) -> i32 {
    let mut verdict = ag_reason::AG_ATTESTATION_ENROLLMENT_UNAVAILABLE as i32;
    let status = entry(|| {
        // What does not fit is no time of this millennium either.
        verdict = unsafe { handle("gate", gate) }?.0.verdict(now_ms as f64);
        if verdict < 0 {
            let wrong =
                format_args!("`{now_ms}` is not a time: give milliseconds since the Unix epoch, up to 2^53 - 1");
            return Err(Error::malformed(wrong).into());
        }
        Ok(())
    });
    if status == ag_status::AG_MALFORMED { ag_status::AG_MALFORMED as i32 } else { verdict }
}

/// Decides a call. `*decision` is yours: append its frames, wait until they are durable, and only then run the tool or
/// answer the denial.
///
/// A call on which the library panics is denied: a new instance decides it, told that the enrollment is unavailable; where
/// that one panics as well or would let the call through, the reason is `AG_AUDIT_WAL_UNAVAILABLE` and there are no frames.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_decide(
    gate: *const ag_gate,
    call: *const ag_call,
    decision: *mut *mut ag_decision,
) -> ag_status {
    entry(|| {
        let decision = unsafe { out("decision", decision) }?;
        let gate = &unsafe { handle("gate", gate) }?.0;
        let mut id = String::new();
        let call = unsafe { asked(gate, handle("call", call)?, &mut id) }?;
        let decided = gate.decide(&call)?;
        *decision = OwnedDecision::new(decided, call.audit_id).into_raw();
        Ok(())
    })
}

/// Decides each call as `ag_gate_decide` would, and puts a decision for each into `decisions`, which has room for `len`. A
/// call that is malformed gets one with `error`. Each is to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_decide_batch(
    gate: *const ag_gate,
    calls: *const ag_call,
    len: usize,
    decisions: *mut *mut ag_decision,
) -> ag_status {
    entry(|| {
        let gate = &unsafe { handle("gate", gate) }?.0;
        let calls = unsafe { list("calls", calls, len) }?;
        // SAFETY: the caller vouches for the room; it is written to, never read.
        unsafe { list("decisions", decisions, len) }?;
        let mut ids = vec![String::new(); len];
        let asked: Vec<_> = calls.iter().zip(&mut ids).map(|(call, id)| unsafe { asked(gate, call, id) }).collect();
        let audit_ids: Vec<_> = asked.iter().map(|call| call.as_ref().map_or("", |call| call.audit_id)).collect();
        for (at, decided) in gate.decide_batch(asked.iter().cloned()).into_iter().enumerate() {
            let id = audit_ids.get(at).copied().unwrap_or_default();
            let decided =
                decided.map_or_else(|error| OwnedDecision::malformed(&error), |it| OwnedDecision::new(it, id));
            // SAFETY: as above; `at` is below `len`.
            unsafe { decisions.add(at).write(decided.into_raw()) };
        }
        Ok(())
    })
}

/// Frees a decision. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_decision_free(decision: *mut ag_decision) {
    unsafe { free(decision.cast::<OwnedDecision>()) }
}

/// All ten sub-checks at a time, with what was expected and found, as JSON. `*json` is yours: `ag_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_gate_explain(gate: *const ag_gate, now_ms: u64, json: *mut *mut c_char) -> ag_status {
    entry(|| {
        let json = unsafe { out("json", json) }?;
        let now_ms = now_ms as f64;
        *json = owned(unsafe { handle("gate", gate) }?.0.explain(now_ms)?)?;
        Ok(())
    })
}

/// A new answer, which says that the source gave none. Yours: `ag_answer_free`. A source's callback is given one, and frees
/// none.
#[unsafe(no_mangle)]
pub extern "C" fn ag_answer_new() -> *mut ag_answer {
    Box::into_raw(Box::new(ag_answer(no_answer())))
}

pub(super) fn no_answer() -> Answer {
    Answer::unavailable("the source gave no answer")
}

/// Frees an answer. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_answer_free(answer: *mut ag_answer) {
    unsafe { free(answer) }
}

/// The answer is this JSON, as the native host gave it: integers in it are exact. It is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_answer_json(answer: *mut ag_answer, json: *const c_char, len: usize) -> ag_status {
    entry(|| unsafe { put(answer, || Ok(Answer::Json(bytes("json", json.cast(), len)?.to_vec()))) })
}

/// The answer is this lease, the envelope's own bytes. They are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_answer_lease(answer: *mut ag_answer, envelope: *const u8, len: usize) -> ag_status {
    entry(|| unsafe { put(answer, || Ok(Answer::Lease(bytes("envelope", envelope, len)?.to_vec()))) })
}

/// The answer is this row, observed at a time in milliseconds since the Unix epoch. It is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_answer_enrolled(
    answer: *mut ag_answer,
    row: *const ag_enrollment,
    observed_at_ms: u64,
) -> ag_status {
    entry(|| unsafe {
        put(answer, || {
            let row = handle("row", row)?;
            let row = Row {
                node_id: required("node_id", row.node_id)?,
                enrollment_ref: required("enrollment_ref", row.enrollment_ref)?,
                status: required("status", row.status)?,
                rollout_state: required("rollout_state", row.rollout_state)?,
                serial: row.serial,
            };
            Ok(Answer::enrolled(row, observed_at_ms))
        })
    })
}

/// The answer is: no such node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_answer_not_enrolled(answer: *mut ag_answer, observed_at_ms: u64) -> ag_status {
    entry(|| unsafe { put(answer, || Ok(Answer::not_enrolled(observed_at_ms))) })
}

/// There is no answer, and this is why. It is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_answer_unavailable(answer: *mut ag_answer, why: *const c_char) -> ag_status {
    entry(|| unsafe { put(answer, || Ok(Answer::unavailable(required("why", why)?))) })
}

/// What is malformed leaves no earlier answer standing.
unsafe fn put(answer: *mut ag_answer, made: impl FnOnce() -> Result<Answer, Error>) -> Result<(), super::Failure> {
    let answer = unsafe { answer.as_mut() }.ok_or_else(|| super::null("answer"))?;
    match made() {
        Ok(made) => answer.0 = made,
        Err(error) => {
            answer.0 = Answer::unavailable(&error.message);
            return Err(error.into());
        }
    }
    Ok(())
}

/// A call as the gate takes it; its audit id is in `id` where it is a new one.
unsafe fn asked<'a>(gate: &Gate, call: &'a ag_call, id: &'a mut String) -> Result<Call<'a>, Error> {
    let now_ms = if call.now_ms == 0 { now_ms() } else { call.now_ms };
    let audit_id = match unsafe { optional("audit_id", call.audit_id) }? {
        Some(id) => id,
        None => {
            *id = gate.audit_id(now_ms)?.as_str().to_owned();
            id
        }
    };
    Ok(Call {
        tool: unsafe { required("tool", call.tool) }?,
        policy: reason(call.policy),
        policy_ref: unsafe { optional("policy_ref", call.policy_ref) }?,
        policy_detail: unsafe { optional("policy_detail", call.policy_detail) }?,
        audit_id,
        now_ms,
        facts_logged: unsafe { optional("facts_logged", call.facts_logged) }?,
    })
}

impl OwnedDecision {
    fn new(decision: Decision, audit_id: &str) -> Self {
        let Decision { reason, verdict, facts, frames: mut text } = decision;
        let frames_len = text.len();
        text.push(0);
        let audit_id_at = text.len();
        text.extend_from_slice(audit_id.as_bytes());
        text.push(0);
        let facts_at = facts.map(|facts| {
            let at = text.len();
            text.extend_from_slice(facts.to_string().as_bytes());
            text.push(0);
            at
        });
        // From here on the text neither grows nor moves.
        let at = |at: usize| text.as_ptr().wrapping_add(at).cast::<c_char>();
        let public = ag_decision {
            allowed: reason.is_none(),
            reason: reason.map_or(ag_reason::AG_REASON_NONE, constant),
            verdict: match verdict {
                None => AG_NOT_ASKED,
                Some(Verdict::Pass) => 0,
                Some(Verdict::Fail(reason)) => reason.number().into(),
            },
            facts: facts_at.map_or(ptr::null(), at),
            audit_id: at(audit_id_at),
            frames: at(0),
            frames_len,
            error: ptr::null(),
        };
        Self { public, _text: text }
    }

    fn malformed(error: &Error) -> Self {
        let text = CString::new(error.message.as_str()).unwrap_or_default().into_bytes_with_nul();
        let empty = |text: &'static CStr| text.as_ptr();
        let public = ag_decision {
            allowed: false,
            reason: ag_reason::AG_REASON_NONE,
            verdict: AG_NOT_ASKED,
            facts: ptr::null(),
            audit_id: empty(c""),
            frames: empty(c"[]"),
            frames_len: 2,
            error: text.as_ptr().cast(),
        };
        Self { public, _text: text }
    }

    fn into_raw(self) -> *mut ag_decision {
        Box::into_raw(Box::new(self)).cast()
    }
}

impl OwnedBundle {
    fn new(bundle: Arc<Bundle>) -> Result<Self, Error> {
        let mut strings = Vec::new();
        let mut string = |text: &str| -> Result<*const c_char, Error> {
            let text = CString::new(text).map_err(Error::refused)?;
            let pointer = text.as_ptr();
            strings.push(text);
            Ok(pointer)
        };
        let it = &bundle.described;
        let mut files = Vec::with_capacity(it.files.len());
        for file in &it.files {
            let part = usize::try_from(file.offset).ok().zip(usize::try_from(file.size).ok());
            let part = part.and_then(|(offset, size)| bundle.tar.get(offset..offset.checked_add(size)?));
            let part =
                part.ok_or_else(|| Error::refused("a file lies outside of its bundle: report it as a defect"))?;
            let offset = (part.as_ptr() as usize).wrapping_sub(bundle.tar.as_ptr() as usize);
            let (path, digest) = (string(&file.path)?, string(&file.digest)?);
            files.push(ag_file { path, digest, bytes: part.as_ptr(), size: part.len(), offset });
        }
        let signers = it.signers.iter().map(|signer| string(signer)).collect::<Result<Vec<_>, _>>()?;
        let public = ag_bundle {
            digest: string(&it.digest)?,
            name: string(&it.name)?,
            version: string(&it.version)?,
            channel: string(&it.channel)?,
            policy_version: string(&it.policy_version)?,
            schema_version: string(&it.schema_version)?,
            policy_ref: it.policy_ref.as_deref().map_or(Ok(ptr::null()), &mut string)?,
            enrollment_ref: it.enrollment_ref.as_deref().map_or(Ok(ptr::null()), &mut string)?,
            files: files.as_ptr(),
            files_len: files.len(),
            signers: signers.as_ptr(),
            signers_len: signers.len(),
        };
        Ok(Self { public, _strings: strings, _files: files, _signers: signers, _bundle: bundle })
    }
}

/// Takes a handle back.
pub(super) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: the caller of the library vouches that it came from here and was not freed.
        drop(unsafe { Box::from_raw(handle) });
    }
}
