//! What a command ends with.

use std::{io, process::ExitCode};

use host_native::{
    ErrorClass,
    audit::AuditError,
    bundle::BuildError,
    config::ConfigError,
    drain::{self, DrainError},
    enrollment::{LeaseFileError, RemoteError, StoreError},
    follow::ShelfError,
    gate::{NoDecision, OpenError},
    host::TokenError,
    key::KeyFileError,
    oci::OciError,
    orchestrator::AccessError,
    serve,
    tool::SetUpError,
    wal::{CheckpointError, WalError},
    wasm::WasmError,
};

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did it, and the answer is good.
    Success,
    /// The gate would deny.
    Denied,
    /// The request was refused.
    Usage,
    /// Something the request needs is missing.
    Unavailable,
    /// The log is damaged.
    Damaged,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Denied => 1,
            Exit::Usage => 2,
            Exit::Unavailable => 3,
            Exit::Damaged => 4,
        })
    }
}

impl From<ErrorClass> for Exit {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Usage => Self::Usage,
            ErrorClass::Unavailable => Self::Unavailable,
            ErrorClass::Damaged => Self::Damaged,
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum CliError {
    /// Whoever read the output has gone away, as `head` does.
    Closed,
    /// The rest, in one line: cause, then remedy.
    Failed {
        /// Who has to act.
        class: ErrorClass,
        /// The line.
        message: String,
    },
}

impl CliError {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Failed { class: ErrorClass::Usage, message: message.into() }
    }

    /// The output could not be written.
    pub(crate) fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        let message = format!("cannot write the output ({error}): check where it goes");
        Self::Failed { class: ErrorClass::Unavailable, message }
    }
}

/// Errors that know their class.
macro_rules! classed {
    ($($error:ty),+) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::Failed { class: error.class(), message: error.to_string() }
            }
        }
    )+};
}

classed!(
    AccessError,
    ConfigError,
    RemoteError,
    TokenError,
    KeyFileError,
    BuildError,
    LeaseFileError,
    OciError,
    WalError,
    AuditError,
    serve::Error,
    SetUpError
);
classed!(drain::SetUpError, DrainError, CheckpointError);

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let message = if let StoreError::Missing { path } = &error {
            format!(
                "no enrollment store at `{}`: run `autonomy node enroll` first, or name the store with `--store`",
                path.display()
            )
        } else {
            error.to_string()
        };
        Self::Failed { class: error.class(), message }
    }
}

/// Errors of what this machine must have.
macro_rules! unavailable {
    ($($error:ty),+) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::Failed { class: ErrorClass::Unavailable, message: error.to_string() }
            }
        }
    )+};
}

unavailable!(NoDecision, WasmError, ShelfError);

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Wal(error) => error.into(),
            OpenError::Wasm(error) => error.into(),
            OpenError::Policy(error) => Self::Failed { class: error.class(), message: error.to_string() },
            OpenError::Bundle(_) | OpenError::PolicyRef { .. } => Self::usage(error.to_string()),
        }
    }
}
