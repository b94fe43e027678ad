//! What goes wrong, in one line: the cause, then the remedy.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// An error and what kind of thing was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The input is not what the call takes.
    Malformed,
    /// The input was read, and does not hold.
    Refused,
    /// Made for another version of this library.
    Unsupported,
    /// A defect of this library.
    Panicked,
}

impl Error {
    pub(crate) fn malformed(message: impl fmt::Display) -> Self {
        Self { kind: ErrorKind::Malformed, message: message.to_string() }
    }

    pub(crate) fn refused(message: impl fmt::Display) -> Self {
        Self { kind: ErrorKind::Refused, message: message.to_string() }
    }
}

/// Runs a call. A panic in it is an error, which says what was done then.
pub(crate) fn caught<T>(doing: &str, call: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why");
        let message = format!("a panic while {doing}: {said}; report it as a defect of this library");
        Error { kind: ErrorKind::Panicked, message: gate_core::text::line(&message) }
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
