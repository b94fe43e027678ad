//! `gate-core` as `gate.wasm`: one instance is one gate.
//!
//! [`Instance`] is what the module does, as a Rust type: documents in, a number and a document out. `abi` puts it behind
//! plain exported functions. `docs/src/spec/abi.md` is the contract, and enough to write a host for a new language.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

#[cfg(target_arch = "wasm32")]
pub mod abi;
pub mod document;
mod instance;

pub use instance::{INPUT_BYTES, Instance, MALFORMED, REFUSED};
