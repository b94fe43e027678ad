//! What the gate costs in wasmtime, beside the same gate natively. `cargo bench -p host-native --features wasm --bench wasm`

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark stops where it fails")]

#[path = "../../gate-core/benches/ratio/mod.rs"]
mod ratio;

use std::hint::black_box;

use criterion::Criterion;
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

const NOW_MS: u64 = 1_000_000;

fn main() {
    let mut times = Criterion::default().configure_from_args();
    let mut compiled = times.benchmark_group("engine");
    compiled.sample_size(10).bench_function("compile", |bencher| bencher.iter(|| Wasmtime::new(MODULE, None).unwrap()));
    compiled.finish();
    let cache = tempfile::tempdir().unwrap();
    drop(Wasmtime::new(MODULE, Some(cache.path())).unwrap());
    times.bench_function("load from the cache", |bencher| {
        bencher.iter(|| {
            let engine = Wasmtime::new(MODULE, Some(cache.path())).unwrap();
            assert!(engine.is_from_cache());
            engine
        });
    });
    let engine = Wasmtime::new(MODULE, None).unwrap();
    times.bench_function("instantiate from the pool", |bencher| bencher.iter(|| drop(engine.instantiate().unwrap())));
    decisions(&mut times, &mut Criterion::default().with_measurement(ratio::Ratio).configure_from_args());
}

fn decisions(times: &mut Criterion, ratios: &mut Criterion<ratio::Ratio>) {
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
    let answer = |status: &str| Answer::Enrolled {
        enrollment: Enrollment {
            node_id: node_id.clone(),
            enrollment_ref: fleet.clone(),
            status: Status::from(status.to_owned()),
            rollout_state: RolloutState::Active,
            serial: 1,
        },
        observed_at_ms: NOW_MS,
    };
    let mut module = Wasmtime::new(MODULE, None).unwrap().instantiate().unwrap();
    let configuration =
        serde_json::json!({"mode": "enforce", "node_id": "robot-7", "bundle_keys": [key.public().to_pem()]});
    let mut told = |export, input: &[u8]| assert_eq!(module.call(export, input).unwrap(), 0);
    told(Export::Configure, configuration.to_string().as_bytes());
    told(Export::LoadBundle, &tar);
    told(Export::SetEnrollment, gate_core::json::write(&answer("active")).as_bytes());
    native.set_enrollment(answer("active"));

    ratio::time_both(
        (times, ratios),
        "verdict",
        ("wasmtime", || module.call_at(TimedExport::Verdict, black_box(NOW_MS as f64)).unwrap()),
        ("native", || native.verdict(black_box(NOW_MS))),
    );
    let facts = native.facts_id();
    let document = |tool: u64, policy_ref: &str| {
        format!(
            "{{\"now_ms\":{NOW_MS},\"audit_id\":\"0199aaaa-0000-7000-8000-000000000000\",\"tool\":\"tool.{tool}\",\"policy\":\"policy: allowed\"{policy_ref},\"facts_logged\":\"{facts}\"}}"
        )
    };
    let call = || Call {
        audit_id: AuditId::parse("0199aaaa-0000-7000-8000-000000000000").unwrap(),
        tool: ToolName::parse("tool.0").unwrap(),
        policy: PolicyAnswer { policy_ref: None, reason: Policy::Allowed, detail: None },
    };
    let documents: Vec<_> = (0..64).map(|tool| document(tool, "")).collect();
    let mut asked = documents.iter().cycle();
    ratio::time_both(
        (times, ratios),
        "decide, with its frame",
        ("wasmtime", || decide(&mut *module, asked.next().unwrap(), true)),
        ("native", || native.decide(call(), black_box(NOW_MS))),
    );
    // Its form is remembered by none: there is room for 32.
    let firsts: Vec<_> = (0..4096).map(|at| document(0, &format!(",\"policy_ref\":\"fleet@{at}\""))).collect();
    let mut asked = firsts.iter().cycle();
    ratio::time_both(
        (times, ratios),
        "decide, the first of its form",
        ("wasmtime", || decide(&mut *module, asked.next().unwrap(), true)),
        ("native", || native.decide(call(), black_box(NOW_MS))),
    );
    let revoked = answer("revoked");
    assert_eq!(module.call(Export::SetEnrollment, gate_core::json::write(&revoked).as_bytes()).unwrap(), 0);
    native.set_enrollment(revoked);
    let (before, now) = (facts.to_string(), native.facts_id().to_string());
    let denied: Vec<_> = documents.iter().map(|document| document.replace(&before, &now)).collect();
    let mut asked = denied.iter().cycle();
    ratio::time_both(
        (times, ratios),
        "decide, denied by the gate",
        ("wasmtime", || decide(&mut *module, asked.next().unwrap(), false)),
        ("native", || native.decide(call(), black_box(NOW_MS))),
    );
}

/// One call: documents in and out.
fn decide(module: &mut dyn Instance, document: &str, allowed: bool) -> usize {
    assert_eq!(module.call(Export::Decide, black_box(document.as_bytes())).unwrap() == 0, allowed);
    module.output().unwrap().len()
}
