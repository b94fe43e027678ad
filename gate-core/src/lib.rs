//! Decides whether an AI agent or robot may run a tool on a node now, and verifies the signed bundle the node runs by.
//!
//! This crate does no I/O. It reads no file, no clock and no environment, opens no socket and draws no random numbers:
//! a [`Gate`] is told bytes, answers and the time, and hands back decisions and the frames to write down. The host
//! (the `host-native` crate, or a runtime in another language around `gate.wasm`) owns everything else.
//!
//! ```
//! use gate_core::{Answer, Config, Freshness, Gate, Mode, NodeId, Verdict, reason::Attestation};
//!
//! let mut gate = Gate::new(Config {
//!     mode: Mode::Enforce,
//!     node_id: Some(NodeId::parse("robot-7")?),
//!     bundle_keys: None,
//!     lease_keys: None,
//!     freshness: Freshness::default(),
//! });
//! gate.set_enrollment(Answer::NotEnrolled { observed_at_ms: 1_000 });
//! // No bundle is loaded, and that comes first.
//! assert_eq!(gate.verdict(1_000), Verdict::Fail(Attestation::BundleUnverified));
//! # Ok::<(), gate_core::identity::ParseNameError>(())
//! ```
//!
//! How it decides, what it refuses, and which test proves it: [`manual`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod base64;
pub mod bundle;
pub mod decision;
pub mod digest;
pub mod dsse;
pub mod enrollment;
pub mod facts;
pub mod frame;
mod gate;
pub mod identity;
pub mod json;
pub mod key;
pub mod lease;
pub mod limits;
pub mod manifest;
pub mod manual;
mod mode;
pub mod reason;
#[cfg(feature = "schema")]
mod schema;
pub mod text;
pub mod ustar;

pub use bundle::{Bundle, BundleError};
pub use decision::{Call, Decision, Effect, PolicyAnswer};
pub use digest::Digest;
pub use enrollment::{Answer, Enrollment, RolloutState, Status};
pub use facts::{Facts, Verdict};
pub use frame::Frame;
pub use gate::{Config, Freshness, Gate};
pub use identity::{AuditId, EnrollmentRef, NodeId, PolicyRef, ToolName};
pub use key::{PublicKey, TrustedKeys};
pub use mode::{Mode, ParseModeError};
pub use reason::Reason;
