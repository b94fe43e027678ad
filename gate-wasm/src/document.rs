//! The JSON that goes in and comes out. Unknown and repeated members are refused.

use alloc::{string::String, vec::Vec};
use gate_core::{
    AuditId, Digest, EnrollmentRef, Facts, Mode, NodeId, PolicyRef, ToolName,
    facts::SubCheck,
    json,
    key::KeyId,
    manifest::{Channel, SchemaVersion},
    read_object,
    reason::Reason,
};
use serde::Serialize;

/// In: `gate_configure`. What a gate is told once.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Configuration {
    /// How far the gate is turned on; absent means `off`.
    #[cfg_attr(feature = "schema", schemars(default = "off"))]
    pub mode: Mode,
    /// Which node this is; none denies every call that the gate is asked about.
    pub node_id: Option<NodeId>,
    /// Who may sign bundles, as SPKI PEM; none refuses every bundle.
    pub bundle_keys: Option<Vec<String>>,
    /// How many distinct ones of them must have signed; 1 unless given.
    pub bundle_threshold: Option<u64>,
    /// Who may sign leases, as SPKI PEM; none refuses every lease.
    pub lease_keys: Option<Vec<String>>,
    /// How many distinct ones of them must have signed; 1 unless given.
    pub lease_threshold: Option<u64>,
    /// How long a row or a "no such node" counts after it was observed, in milliseconds; see [`gate_core::Freshness`].
    pub max_staleness_ms: Option<u64>,
    /// How far the source's clock may be ahead of this one, in milliseconds.
    pub max_skew_ms: Option<u64>,
}

#[cfg(feature = "schema")]
fn off() -> Mode {
    Mode::Off
}

read_object!(Configuration {
    mode,
    node_id,
    bundle_keys,
    bundle_threshold,
    lease_keys,
    lease_threshold,
    max_staleness_ms,
    max_skew_ms,
});

/// In: `gate_decide`, and a line of `gate_decide_batch`. A call that asks to run a tool.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
#[cfg_attr(feature = "js", derive(serde::Deserialize), serde(deny_unknown_fields))]
pub struct Call {
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Joins the frames of this call; the host makes it.
    pub audit_id: AuditId,
    /// The tool.
    pub tool: ToolName,
    /// What the host's policy said: the text of a policy reason. Only `policy: allowed` allows.
    pub policy: Reason,
    /// Which policies answered.
    #[cfg_attr(feature = "js", serde(default))]
    pub policy_ref: Option<PolicyRef>,
    /// What the operator should know of their answer.
    #[cfg_attr(feature = "js", serde(default))]
    pub policy_detail: Option<String>,
    /// The id of the facts that the host's log has. When the gate decides on others, their frame comes first.
    #[cfg_attr(feature = "js", serde(default))]
    pub facts_logged: Option<Digest>,
}

read_object!(Call { now_ms, audit_id, tool, policy, policy_ref, policy_detail, facts_logged });

/// Out: `gate_decide`, up to its last member, `frames`: the frames to append as one, before the tool runs and before the
/// caller is answered.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Decision {
    /// What the caller gets.
    pub effect: Effect,
    /// Why it is denied; `null` when it is allowed.
    pub reason: Option<Reason>,
    /// What the gate found; `null` when it was not asked.
    pub verdict: Option<Verdict>,
    /// The id of the facts that it was decided on: `facts_logged` of the next call, once the frames are durable.
    pub facts: Digest,
}

impl Decision {
    /// Appends it up to its frames, a JSON list that goes out as it will be hashed.
    pub(crate) fn write_start(&self, out: &mut Vec<u8>) {
        let effect = match self.effect {
            Effect::Allow => "{\"effect\":\"allow\",\"reason\":",
            Effect::Deny => "{\"effect\":\"deny\",\"reason\":",
        };
        json::put_optional(out, effect, self.reason.map(Reason::as_str));
        json::put_optional(out, ",\"verdict\":", self.verdict.map(Verdict::into));
        json::put(out, &[",\"facts\":\"", &self.facts.text(), "\",\"frames\":"]);
    }
}

/// Whether the tool may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// `pass`, or the reason of the first sub-check that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub struct Verdict(pub gate_core::Verdict);

impl From<Verdict> for &'static str {
    fn from(verdict: Verdict) -> Self {
        match verdict.0 {
            gate_core::Verdict::Pass => "pass",
            gate_core::Verdict::Fail(reason) => reason.as_str(),
        }
    }
}

/// Out: `gate_load_bundle`. The bundle that is active now.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Bundle<'a> {
    /// Its identity.
    pub digest: Digest,
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// How far it has come.
    pub channel: Channel,
    /// The version of its policies.
    pub policy_version: &'a str,
    /// The schema of its manifest.
    pub schema_version: SchemaVersion,
    /// `policy_ref` of the calls that its policies answer; `null` where name and version are too long for one.
    pub policy_ref: Option<PolicyRef>,
    /// The enrollment it declares; `null` below schema 1.2.
    pub enrollment_ref: Option<&'a EnrollmentRef>,
    /// Its files in the order of their paths, without the manifest and its envelope.
    pub files: Vec<File<'a>>,
    /// The ids of the trusted keys that have signed.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub signers: Vec<KeyId>,
}

/// Where a file lies in the tar that was given.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct File<'a> {
    /// Its path.
    pub path: &'a str,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Where its bytes begin.
    pub offset: usize,
    /// How many they are.
    pub size: usize,
}

/// Out: `gate_explain`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explanation<'a> {
    /// What the gate finds.
    pub verdict: Verdict,
    /// The id of the facts.
    pub facts_id: Digest,
    /// What it decides on.
    pub facts: &'a Facts,
    /// Every sub-check in order, with what it expected and found.
    pub sub_checks: Vec<SubCheck>,
}

/// Out: `gate_info`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Info {
    /// The version of the gate.
    pub version: &'static str,
    /// The version of the ABI, as in the exported globals.
    pub abi: Abi,
    /// The highest schema of a manifest whose every field is known.
    pub schema_version: SchemaVersion,
    /// The SHA-256 of the lines `<number> <text>` of all reasons, by number: whether a binding knows the same ones.
    pub reasons: Digest,
    /// What is refused beyond.
    pub limits: Limits,
}

/// The version of the ABI.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Abi {
    /// Another major is another ABI.
    pub major: u32,
    /// A higher minor has more.
    pub minor: u32,
}

/// Limits, in bytes where nothing else is said.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limits {
    /// What `gate_input` gives at most.
    pub input_bytes: usize,
    /// A bundle.
    pub bundle_bytes: usize,
    /// Entries of a bundle.
    pub bundle_entries: usize,
    /// Lines of a batch.
    pub batch_calls: usize,
    /// Trusted keys of a set.
    pub trusted_keys: usize,
    /// A frame's payload.
    pub frame_bytes: usize,
}

/// Out: every call that returns a negative number.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Error<'a> {
    /// What was wrong, with which value, and what to do.
    pub error: &'a str,
}
