//! What a runtime needs around the gate: enrollment stores, the write-ahead log, policy, tools, services.
//!
//! A tool server of its own puts [`Gate`] in front of its execution, or [`AttestationLayer`] in front of its routes.
//! The `autonomy` command is arguments in, this crate called, tables or JSON out.

#[cfg(not(unix))]
compile_error!("the log and the store rely on Unix files: locks, permissions, inodes");

use std::io;

pub mod audit;
pub mod bundle;
mod client;
pub mod config;
pub mod drain;
pub mod enrollment;
pub mod evaluate;
mod file;
pub mod follow;
pub mod gate;
pub mod host;
pub mod key;
mod layer;
pub mod oci;
#[cfg(feature = "schema")]
mod openapi;
pub mod orchestrator;
pub mod policy;
pub mod runtime;
pub mod serve;
mod token;
pub mod tool;
pub mod wal;
#[cfg(feature = "wasm")]
pub mod wasm;

pub use file::shell_word;
pub use gate::{Denial, Gate, Permit, Policies, ToolOutcome};
pub use layer::{AttestationLayer, Attested};

/// What a caller does about an error: correct the request, or wait for the thing that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The request was refused and would be refused again. The CLI exits with 2.
    Usage,
    /// Something the request needs is missing, locked or damaged. The CLI exits with 3.
    Unavailable,
    /// The write-ahead log is damaged. The CLI exits with 4.
    Damaged,
}

impl ErrorClass {
    /// Of a file that somebody names: one that is in the way, or something else than it must be, is theirs to correct; one that is
    /// missing may come, and what the disk or its rights refuse may be had later.
    pub fn of(error: &io::Error) -> Self {
        let is_theirs = matches!(
            error.kind(),
            io::ErrorKind::AlreadyExists
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::InvalidFilename
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidData
        );
        if is_theirs { Self::Usage } else { Self::Unavailable }
    }
}
