//! The `autonomy` command as people and programs run it: real processes, a file a topic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bundles;
mod demo;
mod gate;
mod harness;
mod help;
mod nodes;
mod output;
mod runtime;
mod settings;
mod typos;
