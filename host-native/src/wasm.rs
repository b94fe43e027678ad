//! The gate as `gate.wasm`: the module that runtimes in other languages load, behind the same handle as gate-core itself.
//!
//! [`Gate`] speaks the documents of `docs/src/spec/abi.md` to an [`Engine`]. [`Wasmtime`] is the engine of this crate; the trait
//! lets another one run the same module.

mod cache;
mod engine;
mod gate;
mod wasmtime;

pub use engine::{Engine, Export, Instance, TimedExport};
pub use gate::{Explanation, Gate};
pub use wasmtime::Wasmtime;

/// The module that belongs to this version.
pub const MODULE: &[u8] = include_bytes!("../../gate-wasm/gate.wasm");

/// Why a gate cannot run as a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WasmError {
    /// The engine takes no such module.
    #[error("the engine cannot run the module ({0}): take the module of this version, or decide natively")]
    Module(String),
    /// The module speaks another ABI.
    #[error(
        "the module's ABI has major version {found}, this host speaks {}: take the module of this version",
        Gate::ABI_MAJOR
    )]
    Abi {
        /// What it says.
        found: i32,
    },
    /// The module stopped, or did what its contract rules out: it is gone, and nothing may run on the call.
    #[error("the module failed ({0}): the call is denied, and a new instance takes over")]
    Trap(String),
    /// More than the module takes: it has read nothing of it.
    #[error("an input of `{0}` bytes is larger than the module takes: send less")]
    TooLarge(usize),
    /// The module refused what it was told.
    #[error("{0}")]
    Refused(String),
}
