//! The time, and ids that sort by it.

use gate_core::AuditId;
use std::{
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};
use uuid::{ContextV7, Timestamp, Uuid};

/// Milliseconds since the Unix epoch, by this machine's clock.
pub fn now_ms() -> u64 {
    // A clock before 1970 stands at 0: a row that was just read counts, and every lease is from the future.
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| u64::try_from(now.as_millis()).ok()).unwrap_or(0)
}

/// Audit ids sort by time.
pub(crate) fn new_audit_id() -> AuditId {
    static CONTEXT: Mutex<ContextV7> = Mutex::new(ContextV7::new());
    audit_id_at(&CONTEXT, now_ms())
}

/// A new id of this time, by a clock that may stand before 1970: [`Uuid::now_v7`] would panic then.
fn audit_id_at(context: &Mutex<ContextV7>, now_ms: u64) -> AuditId {
    let (seconds, ms) = (now_ms / 1000, now_ms % 1000);
    // Less than 1000 milliseconds are less than 2^32 nanoseconds.
    let nanos = u32::try_from(ms.saturating_mul(1_000_000)).unwrap_or_default();
    AuditId::from_uuid(Uuid::new_v7(Timestamp::from_unix(context, seconds, nanos)).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_gives_ids_and_they_sort_by_time() {
        let context = Mutex::new(ContextV7::new());
        let times = [0, 0, 1, 1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_001];
        let ids = times.map(|now_ms| audit_id_at(&context, now_ms));
        assert!(ids.windows(2).all(|two| two[0].as_str() < two[1].as_str()), "{ids:?}");
        assert!(ids[0].as_str().starts_with("00000000-0000-7"), "{ids:?}");
        assert!(ids[5].as_str().starts_with("018bcfe5-6801-7"), "{ids:?}");
    }
}
