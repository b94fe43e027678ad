//! What a decision and a bundle cost. `cargo bench -p gate-core --bench decide`
//!
//! The table is divan's; the lines after it compare, in turns in the same run, the admission of a bundle with the least
//! that any reader must do for it: one SHA-256 of its bytes and one strict verification of its signature.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and stops where it fails"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use divan::{Bencher, black_box};
use gate_core::{
    Answer, AuditId, Bundle, Call, Config, Digest, Enrollment, EnrollmentRef, Freshness, Gate, Mode, NodeId,
    PolicyAnswer, PolicyRef, RolloutState, Status, ToolName, dsse, manifest, reason::Policy, ustar,
};
use std::time::{Duration, Instant};

const NOW_MS: u64 = 1_000_000;

fn main() {
    divan::main();
    for kib in [16, 256, 4096] {
        compare_admission(kib * 1024);
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

#[divan::bench]
fn verdict_pass(bencher: Bencher<'_, '_>) {
    let gate = gate(Mode::Enforce, "fleet-a");
    bencher.bench(|| black_box(&gate).verdict(black_box(NOW_MS)));
}

#[divan::bench]
fn verdict_mismatch(bencher: Bencher<'_, '_>) {
    let gate = gate(Mode::Enforce, "fleet-b");
    bencher.bench(|| black_box(&gate).verdict(black_box(NOW_MS)));
}

#[divan::bench]
fn decide_allow_one_frame(bencher: Bencher<'_, '_>) {
    let gate = gate(Mode::Enforce, "fleet-a");
    bencher.with_inputs(call).bench_values(|call| gate.decide(call, black_box(NOW_MS)));
}

#[divan::bench]
fn decide_deny_two_frames(bencher: Bencher<'_, '_>) {
    let gate = gate(Mode::Enforce, "fleet-b");
    bencher.with_inputs(call).bench_values(|call| gate.decide(call, black_box(NOW_MS)));
}

#[divan::bench(args = [16 * 1024, 256 * 1024, 4096 * 1024])]
fn admit_bundle(bencher: Bencher<'_, '_>, bytes: usize) {
    let (bundle, keys) = (bundle_of(bytes), support::trusted(&[1], 1));
    bencher.bench(|| Bundle::verify(black_box(&bundle), &keys).unwrap().digest);
}

fn bundle_of(bytes: usize) -> Vec<u8> {
    let file = vec![b'#'; bytes / 8];
    let paths: Vec<_> = (0..8).map(|at| format!("policies/p{at}.rego")).collect();
    let files: Vec<_> = paths.iter().map(|path| (path.as_str(), file.as_slice())).collect();
    support::bundle(Some("fleet-a"), &files, &[1])
}

fn compare_admission(bytes: usize) {
    let (bundle, keys, key) = (bundle_of(bytes), support::trusted(&[1], 1), support::public(1));
    let entries = ustar::read(&bundle).unwrap();
    let envelope = dsse::Envelope::parse(entries.get(1).unwrap().data).unwrap();
    let message = dsse::pre_authentication_encoding(manifest::PAYLOAD_TYPE, &envelope.payload);
    let signature = envelope.signatures.first().unwrap().1;
    let least = || {
        black_box(Digest::of(black_box(&bundle)));
        assert!(key.verifies(&message, &signature));
    };
    let admit = || {
        black_box(Bundle::verify(black_box(&bundle), &keys).unwrap());
    };
    let mut ratios: Vec<_> = (0..31).map(|_| (time(&admit), time(&least))).collect();
    ratios.sort_by(|a, b| (a.0.as_secs_f64() / a.1.as_secs_f64()).total_cmp(&(b.0.as_secs_f64() / b.1.as_secs_f64())));
    let (admit, least) = ratios.get(15).unwrap();
    let ratio = admit.as_secs_f64() / least.as_secs_f64();
    println!(
        "admission of {} KiB: {admit:.1?}, SHA-256 and one verify_strict: {least:.1?}, ratio {ratio:.3}",
        bytes / 1024
    );
}

/// The mean of a few runs, so that one look at the clock is nothing beside them.
fn time(run: &dyn Fn()) -> Duration {
    let started = Instant::now();
    (0..8).for_each(|_| run());
    started.elapsed() / 8
}
