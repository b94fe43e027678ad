//! What the gate costs in wasmtime, beside the same gate natively, in turns in the same run: compile, load from the cache,
//! instantiate, verdict, decide. `cargo bench -p host-native --features wasm --bench wasm`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark prints, and stops where it fails"
)]

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
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const NOW_MS: u64 = 1_000_000;

const ROUNDS: usize = 15;

fn main() {
    let cache = tempfile::tempdir().unwrap();
    let compile = median(5, || time(1, || Wasmtime::new(MODULE, None).unwrap()));
    drop(Wasmtime::new(MODULE, Some(cache.path())).unwrap());
    let load = median(9, || {
        time(1, || {
            let engine = Wasmtime::new(MODULE, Some(cache.path())).unwrap();
            assert!(engine.is_from_cache());
            engine
        })
    });
    let engine = Wasmtime::new(MODULE, Some(cache.path())).unwrap();
    let instantiate = median(ROUNDS, || time(1_000, || engine.instantiate().unwrap()));
    println!("{:<28} {}", "compile", shown(compile));
    println!("{:<28} {} (compile / {:.0})", "load from the cache", shown(load), ratio(compile, load));
    println!("{:<28} {}", "instantiate, pooled", shown(instantiate));

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
    let mut module = engine.instantiate().unwrap();
    let configuration =
        serde_json::json!({"mode": "enforce", "node_id": "robot-7", "bundle_keys": [key.public().to_pem()]});
    let mut told = |export, input: &[u8]| assert_eq!(module.call(export, input).unwrap(), 0);
    told(Export::Configure, configuration.to_string().as_bytes());
    told(Export::LoadBundle, &tar);
    told(Export::SetEnrollment, gate_core::json::write(&answer).as_bytes());
    native.set_enrollment(answer);

    let verdicts = (
        median(ROUNDS, || time(100_000, || native.verdict(black_box(NOW_MS)))),
        median(ROUNDS, || time(100_000, || module.call_at(TimedExport::Verdict, black_box(NOW_MS as f64)).unwrap())),
    );
    row("verdict", verdicts);
    let facts = native.facts_id();
    let document = format!(
        "{{\"now_ms\":{NOW_MS},\"audit_id\":\"0199aaaa-0000-7000-8000-000000000000\",\"tool\":\"tool.echo\",\"policy\":\"policy: allowed\",\"facts_logged\":\"{facts}\"}}"
    );
    let call = || Call {
        audit_id: AuditId::parse("0199aaaa-0000-7000-8000-000000000000").unwrap(),
        tool: ToolName::parse("tool.echo").unwrap(),
        policy: PolicyAnswer { policy_ref: None, reason: Policy::Allowed, detail: None },
    };
    let decides = (
        median(ROUNDS, || time(20_000, || native.decide(call(), black_box(NOW_MS)))),
        median(ROUNDS, || time(20_000, || decide(&mut *module, document.as_bytes()))),
    );
    row("decide, with its frame", decides);
}

/// One call: documents in and out.
fn decide(module: &mut dyn Instance, document: &[u8]) -> usize {
    assert_eq!(module.call(Export::Decide, black_box(document)).unwrap(), 0);
    module.output().unwrap().len()
}

fn row(what: &str, (native, module): (Duration, Duration)) {
    println!("{what:<28} {} in wasmtime, {} natively: {:.1} x", shown(module), shown(native), ratio(module, native));
}

/// What one of many takes.
fn time<T>(times: u32, mut run: impl FnMut() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..times {
        drop(black_box(run()));
    }
    begun.elapsed() / times
}

fn median(rounds: usize, mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..rounds).map(|_| run()).collect();
    times.sort_unstable();
    times[rounds / 2]
}

fn shown(time: Duration) -> String {
    format!("{time:>9.2?}")
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}
