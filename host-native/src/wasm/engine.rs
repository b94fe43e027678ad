//! What it takes to run the module, whoever compiles it.

use super::WasmError;

/// Runs the module: compiled once, with an instance for each gate.
pub trait Engine: Send + Sync {
    /// A new instance, that knows nothing.
    ///
    /// # Errors
    /// Why there is none.
    fn instantiate(&self) -> Result<Box<dyn Instance>, WasmError>;
}

/// One instance: one gate. After a [`WasmError::Trap`] it is gone.
pub trait Instance: Send {
    /// What `gate_abi_major` holds.
    ///
    /// # Errors
    /// There is no such global.
    fn abi_major(&mut self) -> Result<i32, WasmError>;

    /// Gives the input to an export and what it returns.
    ///
    /// # Errors
    /// A trap; or [`WasmError::TooLarge`] where the input is more than the module takes, and the instance is as it was.
    fn call(&mut self, export: Export, input: &[u8]) -> Result<i32, WasmError>;

    /// Calls an export that takes a time.
    ///
    /// # Errors
    /// A trap.
    fn call_at(&mut self, export: TimedExport, now_ms: f64) -> Result<i32, WasmError>;

    /// What the last call left there.
    ///
    /// # Errors
    /// A trap.
    fn output(&mut self) -> Result<&[u8], WasmError>;
}

/// An export that takes an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// `gate_configure`
    Configure,
    /// `gate_load_bundle`
    LoadBundle,
    /// `gate_set_enrollment`
    SetEnrollment,
    /// `gate_set_lease`
    SetLease,
    /// `gate_decide`
    Decide,
    /// `gate_decide_batch`
    DecideBatch,
    /// `gate_verify_signature`
    VerifySignature,
}

impl Export {
    /// Every one, each at the place of its discriminant.
    pub const ALL: [Self; 7] = [
        Self::Configure,
        Self::LoadBundle,
        Self::SetEnrollment,
        Self::SetLease,
        Self::Decide,
        Self::DecideBatch,
        Self::VerifySignature,
    ];

    /// Its name in the module.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configure => "gate_configure",
            Self::LoadBundle => "gate_load_bundle",
            Self::SetEnrollment => "gate_set_enrollment",
            Self::SetLease => "gate_set_lease",
            Self::Decide => "gate_decide",
            Self::DecideBatch => "gate_decide_batch",
            Self::VerifySignature => "gate_verify_signature",
        }
    }
}

/// An export that takes a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedExport {
    /// `gate_verdict`
    Verdict,
    /// `gate_explain`
    Explain,
}

impl TimedExport {
    /// Its name in the module.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verdict => "gate_verdict",
            Self::Explain => "gate_explain",
        }
    }
}
