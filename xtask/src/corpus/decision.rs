//! Every combination of what a decision can be made on, with what must come of it, from two tables.

use serde_json::{Map, Value, json};

use super::make::{LEASE_TYPE, MANIFEST_TYPE, Piece, Signer, digest, envelope, envelope_of, segments, tar};
use crate::Result;

const NOW_MS: u64 = 1_800_000_000_000;
const MAX_STALENESS_MS: u64 = 60_000;
const MAX_SKEW_MS: u64 = 5_000;
const HOUR_MS: u64 = 3_600_000;
const NODE_ID: &str = "robot-7";

/// The dimensions in their order, the first turning slowest, each with the names of its values.
const DIMENSIONS: [(&str, &[&str]); 8] = [
    ("mode", &["off", "advisory", "enforce"]),
    ("policy", &["allowed", "denied", "undefined", "evaluation_failed", "no_bundle"]),
    (
        "bundle",
        &[
            "none",
            "malformed_tar",
            "bad_signature",
            "below_threshold",
            "schema_1.1_with_ref",
            "schema_1.2_without_ref",
            "schema_1.2_with_ref",
            "schema_1.3_with_ref",
        ],
    ),
    ("node_id", &["unset", "set"]),
    (
        "answer",
        &[
            "unavailable",
            "not_enrolled_fresh",
            "not_enrolled_stale",
            "row_fresh",
            "row_at_the_last_fresh_millisecond",
            "row_stale",
            "row_from_the_future",
            "lease_good",
            "lease_expired",
            "lease_from_the_future",
            "lease_forged",
            "lease_of_another_node",
            "lease_with_an_older_serial",
        ],
    ),
    ("enrollment_ref", &["fleet-a", "Fleet-A", "fleet-b"]),
    ("status", &["active", "revoked", "suspended", "Active"]),
    ("rollout_state", &["<none>", "pending", "acknowledged", "active", "rolled_back", "failed", "paused", "ACTIVE"]),
];

/// The verdict: the first line of which the dimension has one of the values gives the reason.
const REASONS: [(&str, &str, &[&str]); 10] = [
    ("bundle_unverified", "bundle", &["none", "malformed_tar", "bad_signature", "below_threshold"]),
    ("enrollment_ref_undeclared", "bundle", &["schema_1.1_with_ref", "schema_1.2_without_ref"]),
    ("node_id_unset", "node_id", &["unset"]),
    ("enrollment_unavailable", "answer", &["unavailable"]),
    ("enrollment_untrusted", "answer", &["lease_forged", "lease_of_another_node", "lease_with_an_older_serial"]),
    (
        "enrollment_stale",
        "answer",
        &["not_enrolled_stale", "row_stale", "row_from_the_future", "lease_expired", "lease_from_the_future"],
    ),
    ("not_enrolled", "answer", &["not_enrolled_fresh"]),
    ("enrollment_revoked", "status", &["revoked", "suspended", "Active"]),
    ("enrollment_ref_mismatch", "enrollment_ref", &["Fleet-A", "fleet-b"]),
    ("rollout_incoherent", "rollout_state", &["rolled_back", "failed", "paused", "ACTIVE"]),
];

/// What the policy's answers are numbered with.
const POLICIES: [(&str, u64); 5] =
    [("allowed", 101), ("denied", 102), ("undefined", 103), ("evaluation_failed", 104), ("no_bundle", 105)];

/// A line of the effects: whether the policy allows, the modes, the verdicts, who denies, and the frames.
type Line = (bool, &'static [&'static str], &'static [Verdict], Option<Layer>, &'static [Frame]);
/// Who speaks, what it says, and whether the caller is answered by it.
type Frame = (Layer, &'static str, bool);

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Pass,
    Fail,
}

#[derive(Clone, Copy)]
enum Layer {
    Policy,
    Attestation,
}

/// An outcome, and how many cases in a row have it.
type Run = (usize, u64);

const ANY_MODE: &[&str] = &["off", "advisory", "enforce"];
const ANY_VERDICT: &[Verdict] = &[Verdict::Pass, Verdict::Fail];

/// The effects: exactly one line fits a case.
const EFFECTS: [Line; 5] = [
    (false, ANY_MODE, ANY_VERDICT, Some(Layer::Policy), &[(Layer::Policy, "deny", true)]),
    (true, &["off"], ANY_VERDICT, None, &[(Layer::Policy, "allow", true)]),
    (true, &["advisory", "enforce"], &[Verdict::Pass], None, &[(Layer::Policy, "allow", true)]),
    (
        true,
        &["advisory"],
        &[Verdict::Fail],
        None,
        &[(Layer::Policy, "allow", true), (Layer::Attestation, "deny", false)],
    ),
    (
        true,
        &["enforce"],
        &[Verdict::Fail],
        Some(Layer::Attestation),
        &[(Layer::Policy, "allow", true), (Layer::Attestation, "deny", true)],
    ),
];

/// The whole corpus as JSON, a dimension a line.
pub fn corpus() -> Result<String> {
    let [a, b] = ["a", "b"].map(Signer::named);
    let lease_key = Signer::named("lease");
    let dimensions: Vec<_> = DIMENSIONS.iter().map(|(name, _)| dimension(name)).collect::<Result<_>>()?;
    let (outcomes, expected) = expected()?;
    let cases: u64 = expected.iter().map(|run| run.1).sum();
    let lines = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n");
    let settings = json!({
        "now_ms": NOW_MS, "max_staleness_ms": MAX_STALENESS_MS, "max_skew_ms": MAX_SKEW_MS,
        "bundle_keys": [a.pem, b.pem], "bundle_threshold": 2,
        "lease_keys": [lease_key.pem], "lease_threshold": 1,
        "audit_id": "corpus-1", "tool": "tool.echo",
    });
    Ok(format!(
        "{{\n\"format\":\"autonomy-decision-corpus\",\"version\":1,\"cases\":{cases},\n\"settings\":{settings},\n\
         \"dimensions\":[\n{}\n],\n\"outcomes\":[\n{}\n],\n\"expected\":{}\n}}\n",
        lines(&dimensions),
        lines(&outcomes),
        json!(expected),
    ))
}

/// The distinct outcomes, and for the cases in their order which one and how often in a row.
fn expected() -> Result<(Vec<Value>, Vec<Run>)> {
    let (mut outcomes, mut runs) = (Vec::new(), Vec::<Run>::new());
    let sizes = DIMENSIONS.map(|(_, values)| values.len());
    let total: usize = sizes.iter().product();
    for case in 0..total {
        let mut rest = case;
        let mut world = [""; 8];
        for ((slot, (_, values)), size) in world.iter_mut().zip(DIMENSIONS).zip(sizes).rev() {
            *slot = values.get(rest % size).copied().unwrap_or_default();
            rest /= size;
        }
        let outcome = outcome(&world)?;
        let at = outcomes.iter().position(|known| *known == outcome).unwrap_or_else(|| {
            outcomes.push(outcome);
            outcomes.len() - 1
        });
        match runs.last_mut() {
            Some((last, count)) if *last == at => *count += 1,
            _ => runs.push((at, 1)),
        }
    }
    Ok((outcomes, runs))
}

fn outcome(world: &[&str; 8]) -> Result<Value> {
    let value = |name: &str| {
        let at = DIMENSIONS.iter().position(|dimension| dimension.0 == name);
        at.and_then(|at| world.get(at)).copied().ok_or_else(|| format!("no dimension `{name}`"))
    };
    let mut failed = None;
    for (number, (reason, dimension, values)) in (1_u64..).zip(REASONS) {
        if values.contains(&value(dimension)?) {
            failed = Some((number, reason));
            break;
        }
    }
    let verdict = if failed.is_some() { Verdict::Fail } else { Verdict::Pass };
    let (mode, policy) = (value("mode")?, value("policy")?);
    let allowed = policy == "allowed";
    let fits = |line: &&Line| line.0 == allowed && line.1.contains(&mode) && line.2.contains(&verdict);
    let lines: Vec<_> = EFFECTS.iter().filter(fits).collect();
    let [(.., denied_by, frames)] = lines.as_slice() else {
        return Err(format!("{} lines of the effects fit {world:?}", lines.len()).into());
    };
    let (policy, policy_number) =
        POLICIES.into_iter().find(|(name, _)| *name == policy).ok_or("no such policy answer")?;
    let (reason, number) = failed.map_or(("", 0), |(number, reason)| (reason, number));
    let frames: Vec<_> = frames
        .iter()
        .map(|(layer, outcome, enforced)| match layer {
            Layer::Policy => json!({ "layer": "policy", "outcome": outcome, "reason": format!("policy: {policy}"), "enforced": enforced }),
            Layer::Attestation => json!({ "layer": "attestation", "outcome": outcome, "reason": format!("attestation: {reason}"), "enforced": enforced }),
        })
        .collect();
    let effect = match denied_by {
        None => 0,
        Some(Layer::Policy) => policy_number,
        Some(Layer::Attestation) => number,
    };
    Ok(json!({ "verdict": number, "effect": effect, "frames": frames }))
}

/// A dimension with its values as inputs.
fn dimension(name: &str) -> Result<Value> {
    let values = values_of(name).iter().map(|value| {
        let mut input: Map<String, Value> = input(name, value)?;
        input.insert("name".into(), json!(value));
        Ok(Value::Object(input))
    });
    Ok(json!({ "name": name, "values": values.collect::<Result<Vec<_>>>()? }))
}

fn values_of(name: &str) -> &'static [&'static str] {
    DIMENSIONS.iter().find(|dimension| dimension.0 == name).map_or(&[], |dimension| dimension.1)
}

fn input(dimension: &str, value: &str) -> Result<Map<String, Value>> {
    let input = match dimension {
        "mode" => json!({ "mode": value }),
        "policy" => {
            json!({ "reason": POLICIES.iter().find(|policy| policy.0 == value).ok_or("no such policy answer")?.1 })
        }
        "bundle" => json!({ "tar": bundle(value)?.map(|tar| segments(&tar)) }),
        "node_id" => json!({ "node_id": if value == "set" { Some(NODE_ID) } else { None } }),
        "answer" => answer(value)?,
        "enrollment_ref" | "status" | "rollout_state" => json!({ dimension: value }),
        other => return Err(format!("no inputs for dimension `{other}`").into()),
    };
    match input {
        Value::Object(members) => Ok(members),
        _ => Err("an input is an object".into()),
    }
}

fn bundle(state: &str) -> Result<Option<Vec<u8>>> {
    let [a, b] = ["a", "b"].map(Signer::named);
    let policy = "package autonomy\ndefault allow := true\n";
    let (schema, provenance) = match state {
        "none" => return Ok(None),
        "schema_1.1_with_ref" => ("1.1", r#"{"enrollment_ref":"fleet-a"}"#),
        "schema_1.2_without_ref" => ("1.2", "{}"),
        "schema_1.3_with_ref" => ("1.3", r#"{"enrollment_ref":"fleet-a","slsa":{"level":3}}"#),
        _ => ("1.2", r#"{"enrollment_ref":"fleet-a"}"#),
    };
    let manifest = format!(
        r#"{{"kind":"bundle","schema_version":"{schema}","name":"fleet/patrol","version":"1.4.0","channel":"stable","policy_version":"7","provenance":{provenance},"files":{{"policies/allow.rego":"{}"}}}}"#,
        digest(policy)
    );
    let [of_a, of_b] = [&a, &b].map(|signer| signer.signature(MANIFEST_TYPE, manifest.as_bytes()));
    let signatures = match state {
        "bad_signature" => vec![of_a.clone(), (b.id, of_a.1)],
        "below_threshold" => vec![of_a],
        _ => vec![of_a, of_b],
    };
    let envelope = envelope_of(MANIFEST_TYPE, &manifest, &signatures);
    let pieces = [
        Piece::file("manifest.json", manifest),
        Piece::file("manifest.dsse.json", envelope),
        Piece::file("policies/allow.rego", policy),
    ];
    let mut tar = tar(&pieces);
    if state == "malformed_tar" {
        tar.truncate(tar.len() - 512);
    }
    Ok(Some(tar))
}

fn answer(value: &str) -> Result<Value> {
    let observed = |kind: &str, observed_at_ms: u64| Ok(json!({ "kind": kind, "observed_at_ms": observed_at_ms }));
    let now = NOW_MS;
    match value {
        "unavailable" => Ok(json!({ "kind": "unavailable", "why": "the source is away" })),
        "not_enrolled_fresh" => observed("not_enrolled", now - 1_000),
        "not_enrolled_stale" => observed("not_enrolled", now - MAX_STALENESS_MS - 1),
        "row_fresh" => observed("row", now - 1_000),
        "row_at_the_last_fresh_millisecond" => observed("row", now - MAX_STALENESS_MS),
        "row_stale" => observed("row", now - MAX_STALENESS_MS - 1),
        "row_from_the_future" => observed("row", now + MAX_SKEW_MS + 1),
        "lease_good" => Ok(leases(NODE_ID, 7, now - HOUR_MS, now + HOUR_MS, true, None)),
        "lease_expired" => Ok(leases(NODE_ID, 7, now - HOUR_MS, now - 1, true, None)),
        "lease_from_the_future" => Ok(leases(NODE_ID, 7, now + MAX_SKEW_MS + 1, now + HOUR_MS, true, None)),
        "lease_forged" => Ok(leases(NODE_ID, 7, now - HOUR_MS, now + HOUR_MS, false, None)),
        "lease_of_another_node" => Ok(leases("robot-8", 7, now - HOUR_MS, now + HOUR_MS, true, None)),
        "lease_with_an_older_serial" => Ok(leases(NODE_ID, 7, now - HOUR_MS, now + HOUR_MS, true, Some(8))),
        other => Err(format!("no inputs for answer `{other}`").into()),
    }
}

/// The leases of every ref, status and rollout state, in the order of the cases; `before` is a serial that came first.
fn leases(
    node_id: &str,
    serial: u64,
    issued_at_ms: u64,
    expires_at_ms: u64,
    sound: bool,
    before: Option<u64>,
) -> Value {
    let (signer, forger) = (Signer::named("lease"), Signer::named("a"));
    let payload = |serial: u64, enrollment_ref: &str, status: &str, rollout_state: &str| {
        format!(
            r#"{{"node_id":"{node_id}","enrollment_ref":"{enrollment_ref}","status":"{status}","rollout_state":"{rollout_state}","serial":{serial},"issued_at_ms":{issued_at_ms},"expires_at_ms":{expires_at_ms}}}"#
        )
    };
    let mut leases = Vec::new();
    for enrollment_ref in values_of("enrollment_ref") {
        for status in values_of("status") {
            for rollout_state in values_of("rollout_state") {
                let payload = payload(serial, enrollment_ref, status, rollout_state);
                leases.push(if sound {
                    envelope(LEASE_TYPE, &payload, &[&signer])
                } else {
                    let (_, forged) = forger.signature(LEASE_TYPE, payload.as_bytes());
                    envelope_of(LEASE_TYPE, &payload, &[(signer.id.clone(), forged)])
                });
            }
        }
    }
    let before = before.map(|serial| envelope(LEASE_TYPE, &payload(serial, "fleet-a", "active", "active"), &[&signer]));
    json!({ "kind": "lease", "before": before, "leases": leases })
}
