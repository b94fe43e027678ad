//! What C sees. cbindgen writes `include/autonomy_gate.h` from here, comments and all.
//!
//! Each function looks at its arguments, calls safe code, and lets no panic out.

#![allow(
    unsafe_code,
    reason = "pointers of another language, and exported names; nothing else in this crate is unsafe"
)]
#![allow(non_camel_case_types, reason = "the names that C sees")]
#![allow(clippy::missing_safety_doc, reason = "the header's first comment says it for all of them")]

pub mod gate;
pub mod guard;
pub mod host;

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char},
    ptr, slice,
};

use crate::{
    error::{Error, ErrorKind, caught},
    guard::{Denied, Refused},
    reasons::{REASONS, Row},
};
use gate_core::Reason;

/// The version of this interface: another major is another interface, and has another soname.
pub const AG_ABI_MAJOR: u32 = 1;
/// A higher minor has more.
pub const AG_ABI_MINOR: u32 = 0;

/// What a call came to. 0 is good; whatever else it is, no tool may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ag_status {
    /// It is done. Of `ag_guard_ask`: the call may run.
    AG_OK = 0,
    /// Of `ag_guard_ask` alone: the call may not run.
    AG_DENIED = 1,
    /// The input is not what the call takes.
    AG_MALFORMED = -1,
    /// The input was read, and does not hold: a bundle, a lease, a signature, a file that others can read.
    AG_REFUSED = -2,
    /// This is not the library that the program was compiled for.
    AG_UNSUPPORTED = -3,
    /// A panic was caught, which is a defect of the library. The next call is right: there is nothing to reset.
    AG_PANICKED = -4,
}

use ag_status::{AG_DENIED, AG_MALFORMED, AG_OK, AG_PANICKED, AG_REFUSED, AG_UNSUPPORTED};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Why the last call on this thread that was not `AG_OK` was not: one line, the cause and then the remedy. Empty before.
/// Yours until the next call on this thread; free nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ag_error() -> *const c_char {
    LAST_ERROR.try_with(|error| error.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The version of the library, `major.minor.patch`. Static.
#[unsafe(no_mangle)]
pub extern "C" fn ag_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    CStr::from_bytes_with_nul(VERSION.as_bytes()).unwrap_or_default().as_ptr()
}

/// What the library is, as JSON: its version, the reasons it knows, its limits. `*json` is yours: `ag_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_info(json: *mut *mut c_char) -> ag_status {
    entry(|| {
        let json = unsafe { out("json", json) }?;
        *json = owned(crate::gate::info())?;
        Ok(())
    })
}

/// A reason's text: what the wire, the log and the metrics say. NULL for a number that is no reason's. Static.
#[unsafe(no_mangle)]
pub extern "C" fn ag_reason_text(reason: i32) -> *const c_char {
    row(reason).map_or(ptr::null(), |(_, text, _)| text.as_ptr())
}

/// What the operator does about a reason, in a line. NULL for a number that is no reason's. Static.
#[unsafe(no_mangle)]
pub extern "C" fn ag_reason_remedy(reason: i32) -> *const c_char {
    row(reason).map_or(ptr::null(), |(_, _, remedy)| remedy.as_ptr())
}

/// The number of the reason with this text, an `ag_reason`; 0 where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_reason_number(text: *const c_char) -> i32 {
    let Ok(text) = (unsafe { required("text", text) }) else { return 0 };
    REASONS.iter().find(|(_, known, _)| known.to_bytes() == text.as_bytes()).map_or(0, |(reason, ..)| *reason as i32)
}

/// Whether an Ed25519 signature holds by the strict rules: the key's 32 bytes, the signature's 64, then the message.
/// `AG_REFUSED` where it does not. No part of a decision: so that published vectors can be run on what runs the gate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_verify_signature(bytes: *const u8, len: usize) -> ag_status {
    entry(|| Ok(crate::gate::verify_signature(unsafe { self::bytes("bytes", bytes, len) }?)?))
}

/// Frees what is said to be freed so. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ag_string_free(string: *mut c_char) {
    if !string.is_null() {
        drop(unsafe { CString::from_raw(string) });
    }
}

/// Why a call is not `AG_OK`.
enum Failure {
    Denied(Box<Denied>),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Denied(denied) => Self::Denied(Box::new(denied)),
            Refused::Error(error) => Self::Error(error),
        }
    }
}

/// Runs a call; what it comes to is a status and a line.
fn entry(call: impl FnOnce() -> Result<(), Failure>) -> ag_status {
    let failure = match caught("a call ran", call) {
        Ok(Ok(())) => return AG_OK,
        Ok(Err(failure)) => failure,
        Err(panicked) => Failure::Error(panicked),
    };
    let (status, message) = match failure {
        Failure::Denied(denied) => (AG_DENIED, format!("the call is denied: {}", denied.reason)),
        Failure::Error(Error { kind, message }) => (status(kind), message),
    };
    let message = CString::new(message).unwrap_or_default();
    // A thread that is ending has nobody to tell.
    let _ended = LAST_ERROR.try_with(|error| *error.borrow_mut() = message);
    status
}

fn status(kind: ErrorKind) -> ag_status {
    match kind {
        ErrorKind::Malformed => AG_MALFORMED,
        ErrorKind::Refused => AG_REFUSED,
        ErrorKind::Unsupported => AG_UNSUPPORTED,
        ErrorKind::Panicked => AG_PANICKED,
    }
}

fn row(number: i32) -> Option<&'static Row> {
    REASONS.iter().find(|(reason, ..)| *reason as i32 == number)
}

fn reason(number: i32) -> Option<Reason> {
    u8::try_from(number).ok().and_then(Reason::from_number)
}

/// The constant of a reason. The list is generated from the same file as gate-core's: a test compares them.
fn constant(reason: Reason) -> crate::reasons::ag_reason {
    row(reason.number().into()).map_or(crate::reasons::ag_reason::AG_AUDIT_WAL_UNAVAILABLE, |(reason, ..)| *reason)
}

/// Where a result goes: NULL until there is one.
unsafe fn out<'a, T>(name: &str, out: *mut *mut T) -> Result<&'a mut *mut T, Error> {
    // SAFETY: the caller of the library vouches for a pointer that is not NULL.
    let out = unsafe { out.as_mut() }.ok_or_else(|| null(name))?;
    *out = ptr::null_mut();
    Ok(out)
}

unsafe fn handle<'a, T>(name: &str, handle: *const T) -> Result<&'a T, Error> {
    // SAFETY: the caller of the library vouches for a pointer that is not NULL.
    unsafe { handle.as_ref() }.ok_or_else(|| null(name))
}

/// Bytes; NULL only where there are none.
unsafe fn bytes<'a>(name: &str, bytes: *const u8, len: usize) -> Result<&'a [u8], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    if bytes.is_null() {
        return Err(null(name));
    }
    if len > gate_wasm::INPUT_BYTES {
        let most = gate_wasm::INPUT_BYTES;
        return Err(Error::malformed(format_args!("`{name}` has `{len}` bytes: give at most {most}")));
    }
    // SAFETY: the caller of the library vouches for what its length says.
    Ok(unsafe { slice::from_raw_parts(bytes, len) })
}

/// A list; NULL only where it is empty.
unsafe fn list<'a, T>(name: &str, items: *const T, len: usize) -> Result<&'a [T], Error> {
    const ITEMS: usize = 1 << 20;
    match (items.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(null(name)),
        (false, ..=ITEMS) => Ok(unsafe { slice::from_raw_parts(items, len) }),
        (false, _) => Err(Error::malformed(format_args!("`{name}` has `{len}` members: give at most {ITEMS}"))),
    }
}

/// A string that may be NULL.
unsafe fn optional<'a>(name: &str, text: *const c_char) -> Result<Option<&'a str>, Error> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller of the library vouches for the NUL at its end.
    let text = unsafe { CStr::from_ptr(text) }.to_str();
    text.map(Some).map_err(|_| Error::malformed(format_args!("`{name}` is no UTF-8: give text")))
}

unsafe fn required<'a>(name: &str, text: *const c_char) -> Result<&'a str, Error> {
    unsafe { optional(name, text) }?.ok_or_else(|| null(name))
}

fn null(name: &str) -> Error {
    Error::malformed(format_args!("`{name}` is NULL: it must be given"))
}

/// A string that is the caller's to free.
fn owned(text: Vec<u8>) -> Result<*mut c_char, Error> {
    CString::new(text).map(CString::into_raw).map_err(Error::refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::REASONS_DIGEST;
    use gate_core::Digest;

    #[test]
    fn the_reasons_are_those_of_the_core() {
        let lines: String = Reason::ALL.iter().map(|reason| format!("{} {reason}\n", reason.number())).collect();
        assert_eq!(Digest::of(lines.as_bytes()).to_string(), REASONS_DIGEST);
        for (reason, (number, text, remedy)) in Reason::ALL.iter().zip(REASONS) {
            assert_eq!(*number as i32, i32::from(reason.number()));
            assert_eq!((text.to_str().unwrap(), remedy.to_str().unwrap()), (reason.as_str(), reason.remedy()));
        }
        assert_eq!(Reason::ALL.len(), REASONS.len());
    }

    #[test]
    fn a_panic_is_a_status() {
        assert_eq!(entry(|| panic!("on purpose")), AG_PANICKED);
        let said = unsafe { CStr::from_ptr(ag_error()) }.to_str().unwrap();
        assert_eq!(said, "a panic while a call ran: on purpose; report it as a defect of this library");
    }
}
