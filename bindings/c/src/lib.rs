//! The gate as a library for C and C++: `libautonomy_gate`, with `include/autonomy_gate.h` and `autonomy_gate.hpp`.
//!
//! The decision is [`gate_wasm::Instance`], the very code that `gate.wasm` is built from, so the answers are those of every
//! other language. `gate` puts it behind a lock; `guard` looks up, decides and appends; `ffi` is all that C sees.

mod answer;
mod error;
pub mod ffi;
mod gate;
mod guard;
mod http;
mod lock;
mod memory_host;
mod native_host;
#[expect(non_camel_case_types, reason = "the names that C sees")]
pub mod reasons;
