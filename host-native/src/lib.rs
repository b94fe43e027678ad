//! Host.

pub mod wal;
