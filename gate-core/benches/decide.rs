//! What a decision and a bundle cost. `cargo bench -p gate-core --bench decide`
//!
//! The admission of a bundle stands beside the least that any reader must do for it: one SHA-256 of its bytes and one strict
//! verification of its signature.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

mod ratio;
#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{BatchSize, Criterion};
use gate_core::{
    Answer, AuditId, Bundle, Call, Config, Digest, Enrollment, EnrollmentRef, Freshness, Gate, Mode, NodeId,
    PolicyAnswer, PolicyRef, RolloutState, Status, ToolName, dsse, manifest, reason::Policy, ustar,
};
use std::hint::black_box;

const NOW_MS: u64 = 1_000_000;

fn main() {
    let mut times = Criterion::default().configure_from_args();
    for (name, enrollment_ref) in [("pass", "fleet-a"), ("mismatch", "fleet-b")] {
        let gate = gate(Mode::Enforce, enrollment_ref);
        times.bench_function(&format!("verdict, {name}"), |bencher| {
            bencher.iter(|| black_box(&gate).verdict(black_box(NOW_MS)));
        });
    }
    for (name, enrollment_ref) in [("allowed, one frame", "fleet-a"), ("denied, two frames", "fleet-b")] {
        let gate = gate(Mode::Enforce, enrollment_ref);
        times.bench_function(&format!("decide, {name}"), |bencher| {
            bencher.iter_batched(call, |call| gate.decide(call, black_box(NOW_MS)), BatchSize::SmallInput);
        });
    }
    let mut ratios = Criterion::default().with_measurement(ratio::Ratio).configure_from_args();
    for kib in [16, 256, 4096] {
        admission(&mut times, &mut ratios, kib);
    }
}

/// A gate whose node is enrolled with `enrollment_ref`; its bundle declares `fleet-a`.
fn gate(mode: Mode, enrollment_ref: &str) -> Gate {
    let node_id = NodeId::parse("robot-7").unwrap();
    let mut gate = Gate::new(Config {
        mode,
        node_id: Some(node_id.clone()),
        bundle_keys: Some(support::trusted(&[1], 1)),
        lease_keys: None,
        freshness: Freshness::default(),
    });
    gate.load_bundle(&support::small_bundle(Some("fleet-a"))).unwrap();
    let enrollment = Enrollment {
        node_id,
        enrollment_ref: EnrollmentRef::parse(enrollment_ref).unwrap(),
        status: Status::Active,
        rollout_state: RolloutState::Active,
        serial: 1,
    };
    gate.set_enrollment(Answer::Enrolled { enrollment, observed_at_ms: NOW_MS });
    gate
}

fn call() -> Call {
    Call {
        audit_id: AuditId::from_uuid([7; 16]),
        tool: ToolName::parse("tool.echo").unwrap(),
        policy: PolicyAnswer {
            policy_ref: Some(PolicyRef::parse("fleet@1.0.0").unwrap()),
            reason: Policy::Allowed,
            detail: None,
        },
    }
}

fn bundle_of(bytes: usize) -> Vec<u8> {
    let file = vec![b'#'; bytes / 8];
    let paths: Vec<_> = (0..8).map(|at| format!("policies/p{at}.rego")).collect();
    let files: Vec<_> = paths.iter().map(|path| (path.as_str(), file.as_slice())).collect();
    support::bundle(Some("fleet-a"), &files, &[1])
}

fn admission(times: &mut Criterion, ratios: &mut Criterion<ratio::Ratio>, kib: usize) {
    let (bundle, keys, key) = (bundle_of(kib * 1024), support::trusted(&[1], 1), support::public(1));
    let entries = ustar::read(&bundle).unwrap();
    let envelope = dsse::Envelope::parse(entries.get(1).unwrap().data).unwrap();
    let message = dsse::pre_authentication_encoding(manifest::PAYLOAD_TYPE, &envelope.payload);
    let signature = envelope.signatures.first().unwrap().1;
    let admit = || Bundle::verify(black_box(&bundle), &keys).unwrap();
    let least = || {
        assert!(key.verifies(&message, &signature));
        Digest::of(black_box(&bundle))
    };
    let what = format!("admission of {kib} KiB");
    ratio::time_both((times, ratios), &what, ("admit", admit), ("the least", least));
}
