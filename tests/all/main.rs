//! What crosses crates, a file a topic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it counted"
)]

mod book;
mod checkpoint;
mod client;
mod cluster;
mod conformance;
mod contract;
mod corpus;
mod crash;
mod drain;
mod host;
mod independent;
mod leases;
mod metrics;
mod module;
mod nginx;
mod orchestrator;
mod postgres;
mod progress;
mod published;
mod registry;
mod rollout;
mod runbook;
mod secrets;
mod service;
mod support;
mod wasmi;
