//! What is written down: the part of a log record that the decision owns.
//!
//! The log adds `seq`, `ts`, `left`, `durable`, `prev` and `crc` around it (`docs/src/spec/wal.md`).

use alloc::{string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::identity::{AuditId, NodeId};

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// One layer's answer to one call.
    #[serde(rename = "autonomy.decision")]
    Decision,
    /// What was decided on, once, when it changes.
    #[serde(rename = "autonomy.facts")]
    Facts,
    /// What the tool did after it was allowed.
    #[serde(rename = "autonomy.action")]
    Action,
    /// The log or a runtime started, stopped, repaired, or changed mode.
    #[serde(rename = "autonomy.lifecycle")]
    Lifecycle,
    /// Something failed that an operator should see.
    #[serde(rename = "autonomy.error")]
    Error,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Decision, Self::Facts, Self::Action, Self::Lifecycle, Self::Error];

    /// The kind on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "autonomy.decision",
            Self::Facts => "autonomy.facts",
            Self::Action => "autonomy.action",
            Self::Lifecycle => "autonomy.lifecycle",
            Self::Error => "autonomy.error",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A frame before the log has numbered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is about.
    pub kind: Kind,
    /// Joins the frames of one call.
    pub audit_id: AuditId,
    /// The node, where it has an id.
    pub node_id: Option<NodeId>,
    /// A JSON object: the frame's own members.
    pub attrs: String,
}

impl Frame {
    /// Appends `"kind":…,"audit_id":…,"node_id":…,"attrs":{…}`, the members in the order the log writes them.
    pub fn write_members(&self, out: &mut Vec<u8>) {
        // Names are parsed types without quotes, backslashes or control characters: they need no escaping.
        out.extend_from_slice(b"\"kind\":\"");
        out.extend_from_slice(self.kind.as_str().as_bytes());
        out.extend_from_slice(b"\",\"audit_id\":\"");
        out.extend_from_slice(self.audit_id.as_str().as_bytes());
        match &self.node_id {
            Some(node_id) => {
                out.extend_from_slice(b"\",\"node_id\":\"");
                out.extend_from_slice(node_id.as_str().as_bytes());
                out.push(b'"');
            }
            None => out.extend_from_slice(b"\",\"node_id\":null"),
        }
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(self.attrs.as_bytes());
    }
}
