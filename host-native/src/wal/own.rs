//! The log's own frames: what it says about itself.

use gate_core::{AuditId, frame::Kind};
use serde::{Deserialize, Serialize};

use super::{
    Record,
    codec::{Encoder, Envelope},
    retention::Past,
};

/// What the log says about itself: the `attrs` of its own frames, members in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", deny_unknown_fields)]
pub(super) enum Own {
    /// A repair set an unfinished write aside.
    #[serde(rename = "wal_repaired")]
    Repaired { tail_number: u64, tail_files: Vec<String>, offset: u64, bytes: u64, reason: String },
    /// The doctor accepted a loss.
    #[serde(rename = "wal_doctored")]
    Doctored { row: String, reason: String, kept: u64, committed: u64, dropped_bytes: u64, copies: Vec<String> },
    /// A segment begins with this frame.
    #[serde(rename = "wal_rotated")]
    Rotated { wal_id: String },
    /// A sealed segment is about to be deleted; `hash` is that of its last frame.
    #[serde(rename = "wal_pruned")]
    Pruned { first: u64, last: u64, hash: String, bytes: u64, why: Past, drained: bool, by: String },
}

impl Own {
    /// What a frame says, if it is one of the log's own: nobody else can append one.
    pub(super) fn of(frame: &Envelope<'_>) -> Option<Self> {
        Self::parse(frame.seq, frame.kind, &frame.audit_id, frame.attrs)
    }

    /// The same of a frame that was read.
    pub(super) fn of_record(record: &Record) -> Option<Self> {
        Self::parse(record.seq, record.kind, &record.audit_id, &record.attrs)
    }

    /// Whether it says that everything before the first frame of a log was pruned, up to the one that this link leads to.
    pub(super) fn says_why_it_begins(&self, first: u64, prev: &[u8]) -> bool {
        matches!(self, Self::Pruned { last, hash, .. } if first - 1 == *last && prev == hash.as_bytes())
    }

    fn parse(seq: u64, kind: Kind, id: &AuditId, attrs: &str) -> Option<Self> {
        let is_own = kind == Kind::Lifecycle && id.as_str() == audit_id(seq);
        is_own.then(|| serde_json::from_str(attrs).ok()).flatten()
    }

    /// Appends the frame that says it.
    pub(super) fn push(&self, encoder: &mut Encoder, out: &mut Vec<u8>, unix_ns: u64, left: u32, durable: u64) {
        let (audit_id, attrs) = (audit_id(encoder.next_seq), gate_core::json::write(self));
        let members =
            format!("\"kind\":\"autonomy.lifecycle\",\"audit_id\":\"{audit_id}\",\"node_id\":null,\"attrs\":{attrs}");
        encoder.push(out, unix_ns, |out| out.extend_from_slice(members.as_bytes()), left, durable);
    }
}

fn audit_id(seq: u64) -> String {
    format!("wal-{seq}")
}
