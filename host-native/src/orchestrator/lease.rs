//! Leases: rows, signed for a while.

use gate_core::{
    enrollment::Enrollment,
    json,
    lease::{Lease, PAYLOAD_TYPE},
};

use crate::key::PrivateKey;

/// Signs rows.
///
/// The same row signed again within a quarter of a lease's time gives the same bytes, whoever signs: leases can be cached,
/// and be told apart by their [`Offer::etag`].
pub(super) struct Signer {
    key: PrivateKey,
    ttl_ms: u64,
}

/// A lease that is not signed yet: who holds it already needs no signature.
pub(super) struct Offer {
    lease: Lease,
    /// What tells it from any other.
    pub(super) etag: String,
    /// How long it is the one that would be signed, in whole seconds.
    pub(super) max_age_s: u64,
}

impl Signer {
    pub(super) fn new(key: PrivateKey, ttl_ms: u64) -> Self {
        Self { key, ttl_ms }
    }

    pub(super) fn offer(&self, row: Enrollment, now_ms: u64) -> Offer {
        let step_ms = (self.ttl_ms / 4).max(1);
        let into_step_ms = now_ms % step_ms;
        let issued_at_ms = now_ms.saturating_sub(into_step_ms);
        let Enrollment { node_id, enrollment_ref, status, rollout_state, serial } = row;
        let expires_at_ms = issued_at_ms.saturating_add(self.ttl_ms);
        let lease = Lease { node_id, enrollment_ref, status, rollout_state, serial, issued_at_ms, expires_at_ms };
        let etag = format!("\"{:.16}-{serial}-{issued_at_ms}\"", self.key.id().to_string());
        Offer { lease, etag, max_age_s: (step_ms - into_step_ms) / 1000 }
    }

    /// The envelope.
    pub(super) fn sign(&self, offer: &Offer) -> Vec<u8> {
        self.key.seal(PAYLOAD_TYPE, json::write(&offer.lease).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gate_core::{
        TrustedKeys,
        enrollment::{RolloutState, Status},
        identity::{EnrollmentRef, NodeId},
    };

    #[test]
    fn a_row_signed_again_within_a_quarter_of_its_time_gives_the_same_bytes_and_after_a_change_others() {
        let node_id = NodeId::parse("robot-7").unwrap();
        let row = |serial| Enrollment {
            node_id: node_id.clone(),
            enrollment_ref: EnrollmentRef::parse("fleet-a").unwrap(),
            status: Status::Active,
            rollout_state: RolloutState::None,
            serial,
        };
        let key = PrivateKey::generate().unwrap();
        let keys = TrustedKeys::new([key.public().clone()], 1).unwrap();
        let signer = Signer::new(key, 60_000);
        let (now, step) = (1_767_225_600_000, 15_000);
        let first = signer.offer(row(1), now);
        let bytes = signer.sign(&first);
        let lease = Lease::verify(&bytes, Some(&keys), Some(&node_id), 0).unwrap();
        assert_eq!((lease.issued_at_ms, lease.expires_at_ms), (now, now + 60_000));
        assert_eq!(lease.into_enrollment(), row(1));
        assert_eq!(first.max_age_s, 15);
        for (later, max_age_s) in [(1, 14), (step - 1001, 1), (step - 1, 0)] {
            let again = signer.offer(row(1), now + later);
            assert_eq!((signer.sign(&again), &again.etag, again.max_age_s), (bytes.clone(), &first.etag, max_age_s));
        }
        let (renewed, changed) = (signer.offer(row(1), now + step), signer.offer(row(2), now));
        assert!(renewed.etag != first.etag && changed.etag != first.etag && changed.etag != renewed.etag);
        assert!(Lease::verify(&signer.sign(&renewed), Some(&keys), Some(&node_id), 1).is_ok());
        // A time that no clock tells makes no panic.
        for now in [0, u64::MAX] {
            assert!(Lease::verify(&signer.sign(&signer.offer(row(1), now)), Some(&keys), Some(&node_id), 0).is_ok());
        }
    }
}
