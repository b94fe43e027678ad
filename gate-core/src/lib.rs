//! core
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
pub mod enrollment;
pub mod frame;
pub mod identity;
pub mod limits;
mod text;
