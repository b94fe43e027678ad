//! A lease in a file, and one that was verified here, for the native host.

use std::{
    io,
    path::{Path, PathBuf},
};

use gate_core::{
    TrustedKeys,
    enrollment::Answer,
    identity::NodeId,
    lease::{Lease, LeaseError},
    limits,
};

use crate::{ErrorClass, file};

/// A file in which there should be a lease cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the lease `{}` ({source}): correct the path, or who may read it", path.display())]
pub struct LeaseFileError {
    path: PathBuf,
    source: io::Error,
}

impl LeaseFileError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::of(&self.source)
    }
}

/// Reads a lease's envelope, byte for byte, and of a file that is too large to be one only as many as show that it is. Nothing is
/// verified.
///
/// # Errors
/// The file cannot be read.
pub fn read_lease(path: &Path) -> Result<Vec<u8>, LeaseFileError> {
    file::read_beyond(path, limits::ENVELOPE_BYTES as u64)
        .map_err(|error| LeaseFileError { path: path.to_owned(), source: error.into() })
}

/// A lease that was verified on this machine: there is no other way to have one.
#[derive(Debug, Clone)]
pub(super) struct VerifiedLease(Lease);

impl VerifiedLease {
    /// Reads the envelope of a lease for this node, where none before had a serial above `seen`.
    pub(super) fn verify(
        envelope: &[u8],
        keys: Option<&TrustedKeys>,
        node_id: &NodeId,
        seen: u64,
    ) -> Result<Self, LeaseError> {
        Lease::verify(envelope, keys, Some(node_id), seen).map(Self)
    }

    pub(super) fn serial(&self) -> u64 {
        self.0.serial
    }

    /// Whether it is neither over nor from the future, by a clock that may be behind by so much.
    pub(super) fn counts(&self, max_skew_ms: u64, now_ms: u64) -> bool {
        now_ms <= self.0.expires_at_ms && !self.is_from_the_future(max_skew_ms, now_ms)
    }

    /// Whether it does not count yet.
    pub(super) fn is_from_the_future(&self, max_skew_ms: u64, now_ms: u64) -> bool {
        now_ms < self.0.issued_at_ms.saturating_sub(max_skew_ms)
    }

    /// Whether it says the same of the node, its serial among it.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.0.clone().into_enrollment() == other.0.clone().into_enrollment()
    }

    /// What it says while it counts, by a clock that may be behind by so much: observed, as far as whoever asked is concerned, at
    /// the last multiple of `refresh_ms`.
    pub(super) fn answer(&self, max_skew_ms: u64, now_ms: u64, refresh_ms: u64) -> Answer {
        if !self.counts(max_skew_ms, now_ms) {
            let (from, to) = (self.0.issued_at_ms, self.0.expires_at_ms);
            let why = format!(
                "the lease counts from {from} to {to} and it is {now_ms}, in milliseconds since 1970: see that the \
                 orchestrator can be reached, and set the clocks"
            );
            return Answer::Unavailable { why };
        }
        let observed_at_ms = now_ms.saturating_sub(now_ms % refresh_ms.max(1));
        Answer::Enrolled { enrollment: self.0.clone().into_enrollment(), observed_at_ms }
    }
}
