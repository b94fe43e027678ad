//! Host.

pub mod policy;
pub mod serve;
pub mod tool;
