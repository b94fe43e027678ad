//! Host.

pub mod policy;
pub mod serve;
