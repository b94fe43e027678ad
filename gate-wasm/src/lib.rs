//! `gate-core` as `gate.wasm`: one instance is one gate.
//!
//! [`Instance`] is what the module does, as a Rust type: documents in, a number and a document out. `abi` puts it behind
//! plain exported functions. `docs/src/spec/abi.md` is the contract, and enough to write a host for a new language.
//!
//! With the feature `js` the module has typed JavaScript objects for its surface, and no `abi`.

#![cfg_attr(all(target_arch = "wasm32", not(feature = "js")), no_std)]

extern crate alloc;

#[cfg(all(target_arch = "wasm32", not(feature = "js")))]
pub mod abi;
pub mod document;
mod instance;
#[cfg(all(target_arch = "wasm32", feature = "js"))]
mod js;
#[cfg(feature = "schema")]
pub mod schema;

pub use instance::{INPUT_BYTES, Instance, MALFORMED, REFUSED};
