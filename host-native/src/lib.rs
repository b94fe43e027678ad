//! What a runtime needs around the gate.

pub mod bundle;
pub mod config;
pub mod enrollment;
pub mod evaluate;
pub mod key;

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
