//! What the gate costs in wasmtime. `cargo bench -p host-native --features wasm --bench wasm`
//!
//! The table is divan's; the lines after it compare, in turns in the same run, with the same gate natively.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark prints, and stops where it fails"
)]

use divan::{Bencher, black_box};
use gate_core::{
    Answer, AuditId, Call, Config, Enrollment, EnrollmentRef, Freshness, Gate, Mode, NodeId, PolicyAnswer,
    RolloutState, Status, ToolName, TrustedKeys,
    manifest::{Channel, Provenance},
    reason::Policy,
};
use host_native::{
    bundle::{self, Description, Files},
    key::PrivateKey,
    wasm::{Engine as _, Export, Instance, MODULE, TimedExport, Wasmtime},
};
use std::time::{Duration, Instant};

const NOW_MS: u64 = 1_000_000;

const ROUNDS: usize = 15;

fn main() {
    divan::main();
    compare_decisions();
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn compile() -> Wasmtime {
    Wasmtime::new(MODULE, None).unwrap()
}

#[divan::bench]
fn load_from_the_cache(bencher: Bencher<'_, '_>) {
    let cache = tempfile::tempdir().unwrap();
    drop(Wasmtime::new(MODULE, Some(cache.path())).unwrap());
    bencher.bench(|| {
        let engine = Wasmtime::new(MODULE, Some(cache.path())).unwrap();
        assert!(engine.is_from_cache());
        engine
    });
}

#[divan::bench]
fn instantiate_from_the_pool(bencher: Bencher<'_, '_>) {
    let engine = Wasmtime::new(MODULE, None).unwrap();
    bencher.bench(|| drop(engine.instantiate().unwrap()));
}

fn compare_decisions() {
    let (key, node_id, fleet) =
        (PrivateKey::generate().unwrap(), NodeId::parse("robot-7").unwrap(), EnrollmentRef::parse("fleet-a").unwrap());
    let description = Description {
        name: "fleet".into(),
        version: "1.0.0".into(),
        channel: Channel::Stable,
        policy_version: "1".into(),
        provenance: Provenance { enrollment_ref: Some(fleet.clone()), ..Provenance::default() },
    };
    let files: Files = [("policies/main.rego".to_owned(), b"package autonomy\nallow := true\n".to_vec())].into();
    let tar = bundle::sign(&bundle::build(description, &files).unwrap(), &key).unwrap();
    let mut native = Gate::new(Config {
        mode: Mode::Enforce,
        node_id: Some(node_id.clone()),
        bundle_keys: Some(TrustedKeys::new([key.public().clone()], 1).unwrap()),
        lease_keys: None,
        freshness: Freshness::default(),
    });
    native.load_bundle(&tar).unwrap();
    let enrollment = Enrollment {
        node_id,
        enrollment_ref: fleet,
        status: Status::Active,
        rollout_state: RolloutState::Active,
        serial: 1,
    };
    let answer = Answer::Enrolled { enrollment, observed_at_ms: NOW_MS };
    let mut module = Wasmtime::new(MODULE, None).unwrap().instantiate().unwrap();
    let configuration =
        serde_json::json!({"mode": "enforce", "node_id": "robot-7", "bundle_keys": [key.public().to_pem()]});
    let mut told = |export, input: &[u8]| assert_eq!(module.call(export, input).unwrap(), 0);
    told(Export::Configure, configuration.to_string().as_bytes());
    told(Export::LoadBundle, &tar);
    told(Export::SetEnrollment, gate_core::json::write(&answer).as_bytes());
    native.set_enrollment(answer);

    compare(
        "verdict",
        100_000,
        || native.verdict(black_box(NOW_MS)),
        || module.call_at(TimedExport::Verdict, black_box(NOW_MS as f64)).unwrap(),
    );
    let facts = native.facts_id();
    let document = format!(
        "{{\"now_ms\":{NOW_MS},\"audit_id\":\"0199aaaa-0000-7000-8000-000000000000\",\"tool\":\"tool.echo\",\"policy\":\"policy: allowed\",\"facts_logged\":\"{facts}\"}}"
    );
    let call = || Call {
        audit_id: AuditId::parse("0199aaaa-0000-7000-8000-000000000000").unwrap(),
        tool: ToolName::parse("tool.echo").unwrap(),
        policy: PolicyAnswer { policy_ref: None, reason: Policy::Allowed, detail: None },
    };
    compare(
        "decide, with its frame",
        20_000,
        || native.decide(call(), black_box(NOW_MS)),
        || decide(&mut *module, document.as_bytes()),
    );
}

/// One call: documents in and out.
fn decide(module: &mut dyn Instance, document: &[u8]) -> usize {
    assert_eq!(module.call(Export::Decide, black_box(document)).unwrap(), 0);
    module.output().unwrap().len()
}

/// In turns; the ratio is the median of the rounds' ratios.
fn compare<N, M>(what: &str, times: u32, mut native: impl FnMut() -> N, mut module: impl FnMut() -> M) {
    let mut rounds = [(); ROUNDS].map(|()| (time(times, &mut native), time(times, &mut module)));
    let ratio = |(native, module): &(Duration, Duration)| module.as_secs_f64() / native.as_secs_f64();
    rounds.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let round = &rounds[ROUNDS / 2];
    println!("{what:<24} {:.1?} in wasmtime, {:.1?} natively: {:.1} x", round.1, round.0, ratio(round));
}

/// What one of many takes.
fn time<T>(times: u32, run: &mut impl FnMut() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..times {
        drop(black_box(run()));
    }
    begun.elapsed() / times
}
