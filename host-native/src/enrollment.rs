//! Which nodes are enrolled: where it is kept, and how a runtime asks.
//!
//! A [`Store`] is what operators change: enroll, revoke, set a rollout. [`SqliteStore`] is the one on disk, and
//! `PostgresStore` (feature `postgres`) the one that several machines share.
//! A [`Source`] is what a runtime asks on every decision. [`LocalSource`] asks the file that a [`SqliteStore`] writes,
//! and sees a change made by another process on the very next call. [`Lookup`] answers for any node from the same file.
//!
//! [`rollout`] has bundles ordered for nodes, and how far each has come.
//!
//! Both can be far away: [`RemoteStore`] changes what an orchestrator keeps, and [`LeaseSource`] holds a lease of it.
//!
//! ```
//! use gate_core::identity::{EnrollmentRef, NodeId};
//! use host_native::enrollment::{IfActive, LocalSource, Observation, Source, SqliteStore, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("enrollment.db");
//! let node_id = NodeId::parse("robot-7")?;
//! let store = SqliteStore::open(&path)?;
//! store.enroll(&node_id, &EnrollmentRef::parse("fleet/a")?, IfActive::Refuse, "ops@example.com", 1_000)?;
//!
//! let mut source = LocalSource::new(&path, node_id.clone(), 5_000)?;
//! assert!(matches!(source.observe(2_000), Observation::Changed(_)));
//! assert_eq!(source.observe(2_001), Observation::Unchanged);
//! store.revoke(&node_id, "ops@example.com", 2_002)?;
//! assert!(matches!(source.observe(2_003), Observation::Changed(_)));
//! # Ok(())
//! # }
//! ```

#[cfg(test)]
mod conformance;
mod database;
mod error;
mod lease;
mod ledger;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
mod remote;
mod request;
pub mod rollout;
mod source;
mod sqlite;
mod store;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use gate_core::{limits, text};

pub use error::StoreError;
pub use lease::{LeaseFileError, read_lease};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresError, PostgresStore};
pub use remote::{LeaseLookup, LeaseSource, OrchestratorClient, RemoteError, RemoteStore};
pub use source::{LocalSource, Lookup, Observation, Source};
pub use sqlite::SqliteStore;
pub use store::{Action, Change, Changes, IfActive, Mutation, Query, Revised, Row, Store};

/// Somebody else's words in one line, no longer than what a frame may hold: what would be obeyed is a space.
fn one_line(text: &str) -> String {
    text::cut(text, limits::DETAIL_BYTES).chars().map(|c| if text::is_obeyed(c) { ' ' } else { c }).collect()
}
