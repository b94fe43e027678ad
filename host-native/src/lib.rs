//! Host.

pub mod policy;
