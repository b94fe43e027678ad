//! What a runtime needs around the gate.

pub mod bundle;
pub mod config;
pub mod key;
