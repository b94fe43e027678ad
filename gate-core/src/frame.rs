//! What is written down: the part of a log record that the decision owns.
//!
//! The log adds `seq`, `ts`, `left`, `durable`, `prev` and `crc` around it (`docs/src/spec/wal.md`).

use alloc::{string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::{
    decision::{DecisionAttrs, FactsAttrs},
    digest::Digest,
    identity::{AuditId, NodeId, ToolName},
    json::{self, put, put_optional},
    read_object,
    text::fill,
};

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

/// How a tool went that was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ActionOutcome {
    /// It did its work.
    Completed,
    /// It did not.
    Failed,
    /// Nobody said: its runtime gave the call up.
    Abandoned,
}

/// The `attrs` of an action frame, in the order of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ActionAttrs {
    /// The tool.
    pub tool: ToolName,
    /// How it went.
    pub outcome: ActionOutcome,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
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
        write_head(out, self.kind, &self.audit_id);
        write_node_id(out, self.node_id.as_ref());
        out.extend_from_slice(self.attrs.as_bytes());
    }
}

/// Appends a frame's members up to the end of its audit id.
pub(crate) fn write_head(out: &mut Vec<u8>, kind: Kind, audit_id: &AuditId) {
    // Names are parsed types without quotes, backslashes or control characters: they need no escaping.
    put(out, &["\"kind\":\"", kind.as_str(), "\",\"audit_id\":\"", audit_id.as_str()]);
}

/// Appends what comes then, up to the value of its `attrs`.
pub(crate) fn write_node_id(out: &mut Vec<u8>, node_id: Option<&NodeId>) {
    put_optional(out, "\",\"node_id\":", node_id.map(NodeId::as_str));
    put(out, &[",\"attrs\":"]);
}

/// A frame that a gate in another process made: read member by member, so that what is appended is what a gate writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Received {
    /// Joins the frames of one call.
    pub audit_id: AuditId,
    /// The node, where it has an id.
    pub node_id: Option<NodeId>,
    /// Its own members.
    #[cfg_attr(feature = "schema", schemars(flatten))]
    pub attrs: Attrs,
}

/// What a runtime may hand over. Lifecycle and errors are for whoever owns the log to write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(tag = "kind", content = "attrs"))]
pub enum Attrs {
    /// Of a decision frame.
    #[cfg_attr(feature = "schema", schemars(rename = "autonomy.decision"))]
    Decision(DecisionAttrs),
    /// Of a facts frame; the id is that of the facts.
    #[cfg_attr(feature = "schema", schemars(rename = "autonomy.facts"))]
    Facts(FactsAttrs),
    /// Of an action frame.
    #[cfg_attr(feature = "schema", schemars(rename = "autonomy.action"))]
    Action(ActionAttrs),
}

impl From<Received> for Frame {
    fn from(received: Received) -> Self {
        let Received { audit_id, node_id, attrs } = received;
        let (kind, attrs) = match &attrs {
            Attrs::Decision(attrs) => (Kind::Decision, attrs.to_json()),
            Attrs::Facts(attrs) => (Kind::Facts, json::write(attrs)),
            Attrs::Action(attrs) => (Kind::Action, json::write(attrs)),
        };
        Self { kind, audit_id, node_id, attrs }
    }
}

impl json::Read for Received {
    fn read(value: json::Value<'_>) -> Self {
        let whole = value.object(|object| {
            let kind: String = object.take("kind");
            let attrs = match kind.as_str() {
                "autonomy.decision" => Attrs::Decision(object.take("attrs")),
                "autonomy.facts" => Attrs::Facts(object.take("attrs")),
                _ => {
                    if kind != "autonomy.action" {
                        let expected = "`autonomy.decision`, `autonomy.facts` or `autonomy.action`";
                        object.fail(json::Error::unknown_word(&kind, expected));
                    }
                    Attrs::Action(object.take("attrs"))
                }
            };
            Self { audit_id: object.take("audit_id"), node_id: object.take("node_id"), attrs }
        });
        if let Attrs::Facts(FactsAttrs { id, facts }) = &whole.attrs {
            let is: Digest = facts.id();
            if is != *id {
                let why = fill("the facts' id is `{}`, not `{}`", &[&is.text(), &id.text()]);
                value.fail(json::Error::new(why).within("attrs"));
            }
            if facts.node_id != whole.node_id {
                value.fail(json::Error::new("the facts are another node's".into()).within("node_id"));
            }
        }
        whole
    }
}

impl json::Read for ActionOutcome {
    fn read(value: json::Value<'_>) -> Self {
        match value.text() {
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "abandoned" => Self::Abandoned,
            word => {
                value.fail(json::Error::unknown_word(word, "`completed`, `failed` or `abandoned`"));
                Self::Abandoned
            }
        }
    }
}

read_object!(ActionAttrs { tool, outcome, took_ms });

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::ToString, vec};

    const ACTION: &str = r#"{"kind":"autonomy.action","audit_id":"a-1","node_id":null,"attrs":{"tool":"tool.echo","outcome":"completed","took_ms":3}}"#;
    const DECISION: &str = r#"{"kind":"autonomy.decision","audit_id":"a-1","node_id":"n","attrs":{"layer":"policy","tool":"t","outcome":"allow","reason":"policy: allowed","policy_ref":null,"bundle_digest":null,"mode":"off","enforced":true,"facts":"sha256:0000000000000000000000000000000000000000000000000000000000000000","now_ms":1}}"#;

    fn facts(facts: &str) -> String {
        let id = Digest::of(facts.as_bytes());
        format!(
            "{{\"kind\":\"autonomy.facts\",\"audit_id\":\"a-1\",\"node_id\":\"n\",\"attrs\":{{\"id\":\"{id}\",\"facts\":{facts}}}}}"
        )
    }

    const FACTS: &str =
        r#"{"node_id":"n","bundle":{"state":"unverified","why":"x"},"enrollment":{"answer":"unavailable","why":"y"}}"#;

    #[test]
    fn what_no_gate_writes_is_refused_with_its_place() {
        let good = facts(FACTS);
        for text in [ACTION, DECISION, &good] {
            let mut again = vec![b'{'];
            Frame::from(json::read::<Received>(text.as_bytes()).unwrap()).write_members(&mut again);
            again.push(b'}');
            assert_eq!(String::from_utf8(again).unwrap(), *text);
        }
        for (text, from, to, message) in [
            (
                ACTION,
                "autonomy.action",
                "autonomy.lifecycle",
                "`kind`: `autonomy.lifecycle` is not known: use `autonomy.decision`, `autonomy.facts` or `autonomy.action`",
            ),
            (
                ACTION,
                "completed",
                "done",
                "`attrs`: `outcome`: `done` is not known: use `completed`, `failed` or `abandoned`",
            ),
            (ACTION, "}}", "},\"seq\":1}", "member `seq` is not known"),
            (ACTION, "{\"tool", "{\"seq\":1,\"tool", "`attrs`: member `seq` is not known"),
            (ACTION, "{\"tool", "{\"took_ms\":3,\"tool", "key `took_ms` stands twice"),
            (DECISION, "\"mode\":\"off\",", "", "`attrs`: `mode`: is missing, expected a mode"),
            (
                DECISION,
                "policy: allowed",
                "policy: maybe",
                "`attrs`: `reason`: not a reason: `autonomy attestation explain` lists them",
            ),
            (DECISION, "true", "1", "`attrs`: `enforced`: found a number, expected a truth value"),
            (&good, "\"why\":\"x\"", "\"why\":\"z\"", "`attrs`: the facts' id is `sha256:"),
            (
                &good,
                "\"node_id\":\"n\",\"attrs\"",
                "\"node_id\":\"m\",\"attrs\"",
                "`node_id`: the facts are another node's",
            ),
        ] {
            assert!(text.contains(from), "{from} is not in {text}");
            let error = json::read::<Received>(text.replace(from, to).as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
