//! From a verdict to what the caller gets and what is written down.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    facts::{Facts, Known, Verdict},
    frame::{self, Frame, Kind},
    identity::{AuditId, NodeId, PolicyRef, ToolName},
    json::{self, put},
    mode::Mode,
    read_object,
    reason::{Policy, Reason},
    text::fill,
};

/// A call that asks to run a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Joins the frames of this call; the host makes it.
    pub audit_id: AuditId,
    /// The tool.
    pub tool: ToolName,
    /// What the policy said.
    pub policy: PolicyAnswer,
}

/// What the host's policy said of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyAnswer {
    /// Which policies answered; none when there are none.
    pub policy_ref: Option<PolicyRef>,
    /// Their answer. Only [`Policy::Allowed`] allows.
    pub reason: Policy,
    /// What the operator should know of it.
    pub detail: Option<String>,
}

/// What the caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The tool may run.
    Allow,
    /// It may not.
    Deny(Reason),
}

impl Effect {
    /// The effect of a policy's answer and a verdict in a mode. `verdict` is asked only where the mode and the policy
    /// make it matter, and comes back where it was asked.
    pub fn of(mode: Mode, policy: Policy, verdict: impl FnOnce() -> Verdict) -> (Self, Option<Verdict>) {
        if policy != Policy::Allowed {
            return (Self::Deny(policy.into()), None);
        }
        match mode {
            Mode::Off => (Self::Allow, None),
            Mode::Advisory => (Self::Allow, Some(verdict())),
            Mode::Enforce => match verdict() {
                Verdict::Pass => (Self::Allow, Some(Verdict::Pass)),
                Verdict::Fail(reason) => (Self::Deny(reason.into()), Some(Verdict::Fail(reason))),
            },
        }
    }
}

/// What came of a call. Nothing of it counts before its frames are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the caller gets.
    pub effect: Effect,
    /// What the gate found; `None` where it was not asked.
    pub verdict: Option<Verdict>,
    /// To be appended as one, before the tool runs and before the caller is answered.
    pub frames: Vec<Frame>,
}

/// Which layer a decision frame speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The host's policy.
    Policy,
    /// The gate.
    Attestation,
}

/// What a layer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It has nothing against the call.
    Allow,
    /// It has.
    Deny,
}

/// The `attrs` of a decision frame, in the order of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DecisionAttrs {
    /// Who speaks.
    pub layer: Layer,
    /// Of which tool.
    pub tool: ToolName,
    /// What it said.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// Which policies were asked.
    pub policy_ref: Option<PolicyRef>,
    /// Which bundle was active.
    pub bundle_digest: Option<Digest>,
    /// The mode then.
    pub mode: Mode,
    /// Whether the caller was answered by it. False only for an attestation deny in `advisory`.
    pub enforced: bool,
    /// The id of the facts that it was decided on.
    pub facts: Digest,
    /// The time that it was decided at, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// What was expected and found, for the operator alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The `attrs` of a facts frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FactsAttrs {
    /// The SHA-256 of `facts`, its bytes as they stand in the frame.
    pub id: Digest,
    /// The facts.
    pub facts: Facts,
}

impl DecisionAttrs {
    /// As they stand in a frame.
    pub fn to_json(&self) -> String {
        self.to_json_with(&Parts::new(None, self.bundle_digest, self.facts))
    }

    fn to_json_with(&self, parts: &Parts) -> String {
        // Room for most, so that they are not moved while they grow.
        let mut out = Vec::with_capacity(512);
        self.write_to(&mut out, parts, |_| ());
        String::from_utf8(out).unwrap_or_default()
    }

    /// Appends [`Self::to_json`], and tells `ends` where in `out` the tool and the time end. `policy_ref` and `detail` can need
    /// escaping.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>, parts: &Parts, mut ends: impl FnMut(usize)) {
        let layer = match self.layer {
            Layer::Policy => "{\"layer\":\"policy\",\"tool\":\"",
            Layer::Attestation => "{\"layer\":\"attestation\",\"tool\":\"",
        };
        let outcome = match self.outcome {
            Outcome::Allow => "\",\"outcome\":\"allow\",\"reason\":\"",
            Outcome::Deny => "\",\"outcome\":\"deny\",\"reason\":\"",
        };
        let enforced = if self.enforced { "\",\"enforced\":true" } else { "\",\"enforced\":false" };
        put(out, &[layer, self.tool.as_str()]);
        ends(out.len());
        put(out, &[outcome, self.reason.as_str(), "\",\"policy_ref\":"]);
        json::write_to(out, &self.policy_ref);
        put(out, &[&parts.bundle_digest, self.mode.as_str(), enforced, &parts.facts]);
        json::write_to(out, &self.now_ms);
        ends(out.len());
        if let Some(detail) = &self.detail {
            put(out, &[",\"detail\":"]);
            json::write_to(out, detail.as_str());
        }
        out.push(b'}');
    }
}

/// The parts of a decision frame that are the same in every one on the same facts, as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// From behind the audit id to the value of `attrs`.
    pub(crate) node_id: String,
    /// From behind `policy_ref` into `mode`.
    bundle_digest: String,
    /// From behind `enforced` to the value of `now_ms`.
    facts: String,
}

impl Parts {
    pub(crate) fn new(node_id: Option<&NodeId>, bundle_digest: Option<Digest>, facts: Digest) -> Self {
        let mut behind_audit_id = Vec::new();
        frame::write_node_id(&mut behind_audit_id, node_id);
        Self {
            node_id: String::from_utf8(behind_audit_id).unwrap_or_default(),
            bundle_digest: fill(",\"bundle_digest\":{},\"mode\":\"", &[&json::write(&bundle_digest)]),
            facts: fill(",\"facts\":{},\"now_ms\":", &[&json::write(&facts)]),
        }
    }
}

impl json::Read for Layer {
    fn read(value: json::Value<'_>) -> Self {
        match value.text() {
            "policy" => Self::Policy,
            "attestation" => Self::Attestation,
            word => {
                value.fail(json::Error::unknown_word(word, "`policy` or `attestation`"));
                Self::Policy
            }
        }
    }
}

impl json::Read for Outcome {
    fn read(value: json::Value<'_>) -> Self {
        match value.text() {
            "allow" => Self::Allow,
            "deny" => Self::Deny,
            word => {
                value.fail(json::Error::unknown_word(word, "`allow` or `deny`"));
                Self::Deny
            }
        }
    }
}

impl json::Read for DecisionAttrs {
    fn read(value: json::Value<'_>) -> Self {
        value.object(|object| {
            // A configuration may leave its mode out; a record of what was decided may not.
            let mode: Option<Mode> = object.take("mode");
            if mode.is_none() {
                object.fail(json::Error::new("is missing, expected a mode".into()));
            }
            Self {
                layer: object.take("layer"),
                tool: object.take("tool"),
                outcome: object.take("outcome"),
                reason: object.take("reason"),
                policy_ref: object.take("policy_ref"),
                bundle_digest: object.take("bundle_digest"),
                mode: mode.unwrap_or(Mode::Enforce),
                enforced: object.take("enforced"),
                facts: object.take("facts"),
                now_ms: object.take("now_ms"),
                detail: object.take("detail"),
            }
        })
    }
}

read_object!(FactsAttrs { id, facts });

/// Decides a call on what is `known`, at `now_ms` (milliseconds since the Unix epoch).
///
/// A [`Gate`](crate::Gate) does this with the facts it holds; a replay does it again with those that the log holds,
/// and gets the same frames, byte for byte.
pub fn decide(mode: Mode, known: &Known, call: Call, now_ms: u64) -> Decision {
    let Call { audit_id, tool, policy } = call;
    let mut frames = Vec::with_capacity(2);
    let (effect, verdict) = decide_with(mode, known, tool, policy, now_ms, |attrs| {
        let (audit_id, node_id) = (audit_id.clone(), known.facts().node_id.clone());
        frames.push(Frame { kind: Kind::Decision, audit_id, node_id, attrs: attrs.to_json_with(known.parts()) });
    });
    Decision { effect, verdict, frames }
}

/// Decides as [`decide`] does, and hands each frame's attributes over, in their order.
pub(crate) fn decide_with(
    mode: Mode,
    known: &Known,
    tool: ToolName,
    policy: PolicyAnswer,
    now_ms: u64,
    mut frame: impl FnMut(&DecisionAttrs),
) -> (Effect, Option<Verdict>) {
    let (effect, verdict) = Effect::of(mode, policy.reason, || known.verdict(now_ms));
    let mut attrs = DecisionAttrs {
        layer: Layer::Policy,
        tool,
        outcome: if policy.reason == Policy::Allowed { Outcome::Allow } else { Outcome::Deny },
        reason: policy.reason.into(),
        policy_ref: policy.policy_ref,
        bundle_digest: known.facts().bundle_digest(),
        mode,
        enforced: true,
        facts: known.id(),
        now_ms,
        detail: policy.detail.map(|detail| crate::text::cut(&detail, crate::limits::DETAIL_BYTES).into()),
    };
    frame(&attrs);
    if let Some(Verdict::Fail(reason)) = verdict {
        attrs.layer = Layer::Attestation;
        attrs.outcome = Outcome::Deny;
        attrs.reason = reason.into();
        attrs.enforced = mode == Mode::Enforce;
        attrs.detail = Some(known.facts().detail(reason, now_ms));
        frame(&attrs);
    }
    (effect, verdict)
}
