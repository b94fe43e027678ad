//! The gate as a module: a trap, and a native gate beside it that is asked the same.

use gate_core::{
    Answer, Config, Enrollment, EnrollmentRef, Freshness, Mode, NodeId, PolicyAnswer, PublicKey, RolloutState, Status,
    ToolName, TrustedKeys, Verdict,
    manifest::{Channel, Provenance},
    reason::{Attestation, Audit, Policy},
};
use host_native::{
    Gate, Policies,
    bundle::{self, Description, Files},
    enrollment::{Observation, Source},
    gate::now_ms,
    key::PrivateKey,
    wal::{Options, Wal},
    wasm::{self, Engine, Export, Instance, MODULE, TimedExport, WasmError, Wasmtime},
};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    conformance::{Native, corpus, unpack},
    support::root,
    wasmi::Wasmi,
};

/// The same answer at first, and then nothing new.
struct Once(Option<Answer>);

impl Source for Once {
    fn observe(&mut self, _: u64) -> Observation {
        self.0.take().map_or(Observation::Unchanged, Observation::Changed)
    }
}

fn allowed() -> PolicyAnswer {
    PolicyAnswer { policy_ref: None, reason: Policy::Allowed, detail: None }
}

/// A gate that passes, deciding in an engine.
async fn gate(engine: Arc<dyn Engine>, mode: Mode, wal: Wal) -> Gate {
    let (key, fleet, node_id) =
        (PrivateKey::generate().unwrap(), EnrollmentRef::parse("fleet-a").unwrap(), NodeId::parse("robot-7").unwrap());
    let description = Description {
        name: "fleet".into(),
        version: "1.0.0".into(),
        channel: Channel::Stable,
        policy_version: "1".into(),
        provenance: Provenance { enrollment_ref: Some(fleet.clone()), ..Provenance::default() },
    };
    let files: Files = [("policies/main.rego".to_owned(), b"package autonomy\nallow := true\n".to_vec())].into();
    let tar = bundle::sign(&bundle::build(description, &files).unwrap(), &key).unwrap();
    let config = Config {
        mode,
        node_id: Some(node_id.clone()),
        bundle_keys: Some(TrustedKeys::new([key.public().clone()], 1).unwrap()),
        lease_keys: None,
        freshness: Freshness { max_staleness_ms: 3_600_000, max_skew_ms: 0 },
    };
    let enrollment = Enrollment {
        node_id,
        enrollment_ref: fleet,
        status: Status::Active,
        rollout_state: RolloutState::None,
        serial: 1,
    };
    let source = Once(Some(Answer::Enrolled { enrollment, observed_at_ms: now_ms() }));
    Gate::open_in(engine, config, Policies::Bundle(tar), Some(Box::new(source)), Arc::new(wal)).await.unwrap()
}

/// A build of the module in which the tool `gate.trap` traps. It traps in the new instance as well, so nobody can put that
/// call into frames: it is denied, and does not run.
#[tokio::test]
async fn a_trap_is_a_denial_and_the_next_thousand_calls_are_right() {
    let module = fs::read(root().join("target/gate-trap.wasm"))
        .expect("target/gate-trap.wasm is missing: run `cargo xtask wasm --doctored`");
    let engine = Arc::new(Wasmtime::new(&module, None).unwrap());
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path().join("wal"), Options::default()).unwrap();
    let gate = gate(engine, Mode::Enforce, wal).await;
    let (echo, trap) = (ToolName::parse("tool.echo").unwrap(), ToolName::parse("gate.trap").unwrap());
    let checks =
        || -> Vec<_> { gate.explain().unwrap().into_iter().map(|check| (check.outcome, check.expected)).collect() };
    let before = checks();
    for _ in 0..3 {
        let denial = gate.decide(trap.clone(), allowed()).await.unwrap_err();
        assert_eq!(denial.reason, Audit::WalUnavailable.into());
    }
    let calls = (0..1_000).map(|_| gate.decide(echo.clone(), allowed()));
    let mut permits = 0;
    for call in calls {
        call.await.unwrap().finish(host_native::ToolOutcome::Completed);
        permits += 1;
    }
    assert_eq!(permits, 1_000);
    assert_eq!(checks(), before, "the new instance knows what the old one knew");
}

/// The largest is a bundle's. The engine's cap is far from twice as much.
#[test]
fn inputs_each_larger_than_the_one_before_leave_room_for_the_largest() {
    let mut instance = Wasmtime::new(MODULE, None).unwrap().instantiate().unwrap();
    for size in (1..=64).step_by(3) {
        let refused = instance.call(Export::LoadBundle, &vec![0; size * 1024 * 1024]);
        assert!(matches!(refused, Ok(gate_wasm::REFUSED)), "{size} MiB: {refused:?}");
    }
}

/// Memory for all but large inputs.
const SMALL_BYTES: usize = 2 * 1024 * 1024;

/// A host may keep the address of a buffer that it asked for once: it must not go on with one that is no more.
#[test]
fn an_input_that_the_memory_has_no_room_for_is_a_trap() {
    let mut instance = Wasmi::within(MODULE, SMALL_BYTES).instantiate().unwrap();
    let answer = |why: String| gate_core::json::write(&Answer::Unavailable { why }).into_bytes();
    assert_eq!(instance.call(Export::SetEnrollment, &answer("x".into())).unwrap(), 0);
    for size in [4 * 1024 * 1024, 1] {
        let told = instance.call(Export::SetEnrollment, &answer("x".repeat(size)));
        assert!(matches!(told, Err(WasmError::Trap(_))), "{size}: {told:?}");
    }
}

/// Traps once, on the call of `export` that is number `at`.
struct TrapsOnce {
    engine: Arc<dyn Engine>,
    calls: Arc<AtomicUsize>,
    export: Export,
    at: usize,
}

struct TrapsOnceInstance {
    instance: Box<dyn Instance>,
    calls: Arc<AtomicUsize>,
    export: Export,
    at: usize,
    dead: bool,
}

impl TrapsOnce {
    fn new(export: Export, at: usize) -> Self {
        Self::of(Arc::new(Wasmtime::new(MODULE, None).unwrap()), export, at)
    }

    fn of(engine: Arc<dyn Engine>, export: Export, at: usize) -> Self {
        Self { engine, calls: Arc::default(), export, at }
    }
}

impl Engine for TrapsOnce {
    fn instantiate(&self) -> Result<Box<dyn Instance>, WasmError> {
        let (instance, calls) = (self.engine.instantiate()?, Arc::clone(&self.calls));
        Ok(Box::new(TrapsOnceInstance { instance, calls, export: self.export, at: self.at, dead: false }))
    }
}

impl TrapsOnceInstance {
    fn alive(&self) -> Result<(), WasmError> {
        if self.dead { Err(WasmError::Trap("it trapped before".into())) } else { Ok(()) }
    }
}

impl Instance for TrapsOnceInstance {
    fn abi_major(&mut self) -> Result<i32, WasmError> {
        self.instance.abi_major()
    }

    fn call(&mut self, export: Export, input: &[u8]) -> Result<i32, WasmError> {
        self.dead |= export == self.export && self.calls.fetch_add(1, Ordering::Relaxed) == self.at;
        self.alive()?;
        self.instance.call(export, input)
    }

    fn call_at(&mut self, export: TimedExport, now_ms: f64) -> Result<i32, WasmError> {
        self.alive()?;
        self.instance.call_at(export, now_ms)
    }

    fn output(&mut self) -> Result<&[u8], WasmError> {
        self.alive()?;
        self.instance.output()
    }
}

/// The call on which it trapped is decided without its enrollment, and written down as that; where the mode would let it
/// through all the same, it is denied and nothing is written.
#[tokio::test]
async fn a_call_that_trapped_is_denied_in_every_mode() {
    for mode in [Mode::Enforce, Mode::Advisory, Mode::Off] {
        let engine = Arc::new(TrapsOnce::new(Export::Decide, 1));
        let home = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(home.path().join("wal"), Options::default()).unwrap();
        let gate = gate(engine, mode, wal).await;
        let echo = ToolName::parse("tool.echo").unwrap();
        let answers = [
            gate.decide(echo.clone(), allowed()).await.map(drop),
            gate.decide(echo.clone(), allowed()).await.map(drop),
            gate.decide(echo.clone(), allowed()).await.map(drop),
        ];
        let unavailable = Attestation::EnrollmentUnavailable;
        let reason = if mode == Mode::Enforce { unavailable.into() } else { Audit::WalUnavailable.into() };
        let found = answers.map(|answer| answer.map_err(|denial| denial.reason));
        let expected = [Ok(()), Err(reason), Ok(())];
        assert_eq!(found, expected, "{mode}");
        gate.wal().close().unwrap();
        let log = fs::read(home.path().join("wal/telemetry.wal")).unwrap();
        let log = String::from_utf8_lossy(&log).into_owned();
        let denials = log.matches(&format!("\"reason\":\"{unavailable}\"")).count();
        assert_eq!(denials, usize::from(mode == Mode::Enforce), "{mode}");
        assert_eq!(log.contains("the module failed on this call"), mode == Mode::Enforce, "{mode}");
    }
}

/// A bundle that makes the module trap is refused; what the gate knew, it knows.
#[test]
fn a_bundle_that_trapped_takes_no_answer_with_it() {
    let config = Config {
        mode: Mode::Enforce,
        node_id: Some(NodeId::parse("robot-7").unwrap()),
        bundle_keys: None,
        lease_keys: None,
        freshness: Freshness::default(),
    };
    let mut gate = wasm::Gate::new(Arc::new(TrapsOnce::new(Export::LoadBundle, 0)), &config).unwrap();
    gate.set_enrollment(&Answer::NotEnrolled { observed_at_ms: 1_000 }).unwrap();
    let before = gate.explain(1_000).unwrap();
    assert!(matches!(gate.load_bundle(b"no tar"), Err(WasmError::Trap(_))));
    assert_eq!(gate.explain(1_000).unwrap().facts, before.facts);
}

/// A gate of the corpus of decisions, with its bundle, and the time of its world.
fn gate_of_leases(engine: Arc<dyn Engine>) -> (wasm::Gate, u64) {
    let decisions = corpus("decision.json");
    let settings = &decisions["settings"];
    let keys = |pems: &Value, threshold: &Value| {
        let pems: Vec<String> = serde_json::from_value(pems.clone()).unwrap();
        let keys = pems.iter().map(|pem| PublicKey::from_pem(pem).unwrap());
        Some(TrustedKeys::new(keys, threshold.as_u64().unwrap().try_into().unwrap()).unwrap())
    };
    let config = Config {
        mode: Mode::Enforce,
        node_id: Some(NodeId::parse("robot-7").unwrap()),
        bundle_keys: keys(&settings["bundle_keys"], &settings["bundle_threshold"]),
        lease_keys: keys(&settings["lease_keys"], &settings["lease_threshold"]),
        freshness: Freshness { max_staleness_ms: 60_000, max_skew_ms: 0 },
    };
    let mut gate = wasm::Gate::new(engine, &config).unwrap();
    gate.load_bundle(&unpack(&named(&decisions, 2, "schema_1.2_with_ref")["tar"])).unwrap();
    (gate, settings["now_ms"].as_u64().unwrap())
}

/// A value of a dimension of the corpus of decisions.
fn named(decisions: &Value, dimension: usize, name: &str) -> Value {
    let values = decisions["dimensions"][dimension]["values"].as_array().unwrap();
    values.iter().find(|value| value["name"] == name).unwrap().clone()
}

/// A new instance is told a lease for its serial. As an answer it must not come back with it.
#[test]
fn an_answer_that_is_too_large_or_traps_leaves_no_lease_before_it() {
    let lease = named(&corpus("decision.json"), 4, "lease_good")["leases"][0].clone();
    // The second one takes more time than there is on a busy machine.
    let in_wasmtime: (Arc<dyn Engine>, _) =
        (Arc::new(Wasmtime::new(MODULE, None).unwrap()), ["x".repeat(68 << 20), "\n".repeat(31 << 20)]);
    let in_little_memory: (Arc<dyn Engine>, _) =
        (Arc::new(Wasmi::within(MODULE, SMALL_BYTES)), ["x".repeat(4 << 20), "\n".repeat(600 << 10)]);
    for (engine, whys) in [in_wasmtime, in_little_memory] {
        let (mut gate, now_ms) = gate_of_leases(engine);
        for why in whys {
            gate.set_lease(lease.as_str().unwrap().as_bytes()).unwrap();
            assert_eq!(gate.verdict(now_ms).unwrap(), Verdict::Pass);
            drop(gate.set_enrollment(&Answer::Unavailable { why }));
            assert_eq!(gate.verdict(now_ms).unwrap(), Verdict::Fail(Attestation::EnrollmentUnavailable));
        }
    }
}

/// The lease is the second instance's. The third one must know its serial all the same.
#[test]
fn a_lease_that_an_instance_took_after_a_trap_holds_off_an_older_one_after_the_next() {
    let leases = named(&corpus("decision.json"), 4, "lease_with_an_older_serial");
    let (newer, older) = (leases["before"].as_str().unwrap(), leases["leases"][0].as_str().unwrap());
    let engine = TrapsOnce::of(Arc::new(Wasmi::within(MODULE, SMALL_BYTES)), Export::SetLease, 0);
    let (mut gate, now_ms) = gate_of_leases(Arc::new(engine));
    gate.set_lease(newer.as_bytes()).unwrap();
    assert_eq!(gate.verdict(now_ms).unwrap(), Verdict::Pass);
    let why = "x".repeat(4 << 20);
    assert!(matches!(gate.set_enrollment(&Answer::Unavailable { why }), Err(WasmError::Trap(_))));
    assert!(matches!(gate.set_lease(older.as_bytes()), Err(WasmError::Refused(_))));
    assert_eq!(gate.verdict(now_ms).unwrap(), Verdict::Fail(Attestation::EnrollmentUntrusted));
}

/// A call of the ABI.
#[derive(Debug, Clone)]
enum Step {
    Call(Export, Vec<u8>),
    At(TimedExport, f64),
}

/// What is good for each call, to be spoilt.
fn good() -> Vec<(Export, Vec<u8>)> {
    let (bundles, decisions) = (corpus("bundles.json"), corpus("decision.json"));
    let settings = &decisions["settings"];
    let configuration = json!({
        "mode": "enforce", "node_id": "robot-7",
        "bundle_keys": settings["bundle_keys"], "bundle_threshold": settings["bundle_threshold"],
        "lease_keys": settings["lease_keys"], "lease_threshold": settings["lease_threshold"],
        "max_staleness_ms": settings["max_staleness_ms"], "max_skew_ms": settings["max_skew_ms"],
    });
    let mut good = vec![(Export::Configure, configuration.to_string().into_bytes())];
    let values = |at: usize| decisions["dimensions"][at]["values"].as_array().unwrap();
    let tars = values(2)
        .iter()
        .map(|value| &value["tar"])
        .chain(bundles["bundles"].as_array().unwrap().iter().map(|case| &case["tar"]));
    let small = tars.filter(|tar| tar.is_array()).map(unpack).filter(|tar| tar.len() < 64 * 1024);
    good.extend(small.map(|tar| (Export::LoadBundle, tar)));
    let leases = values(4).iter().flat_map(|answer| answer["leases"].as_array().into_iter().flatten().step_by(17));
    good.extend(leases.map(|lease| (Export::SetLease, lease.as_str().unwrap().as_bytes().to_vec())));
    for status in ["active", "revoked", "\u{e9}\\\"\u{7}"] {
        let row = json!({
            "node_id": "robot-7", "enrollment_ref": "fleet-a", "status": status, "rollout_state": "<none>",
            "serial": u64::MAX,
        });
        let answer = json!({"answer": "enrolled", "enrollment": row, "observed_at_ms": settings["now_ms"]});
        good.push((Export::SetEnrollment, answer.to_string().into_bytes()));
    }
    let call = |policy: &str, detail: Value| {
        json!({
            "now_ms": settings["now_ms"], "audit_id": "a-1", "tool": "tool.echo", "policy": policy,
            "policy_ref": "fleet@1", "policy_detail": detail,
        })
        .to_string()
    };
    let calls = [
        call("policy: allowed", Value::Null),
        call("policy: denied", json!("line 3: \u{202e}\u{1f916}\u{0}")),
        call("policy: evaluation_failed", json!("x".repeat(5_000))),
    ];
    good.extend(calls.iter().map(|call| (Export::Decide, call.clone().into_bytes())));
    good.push((Export::DecideBatch, calls.join("\n").into_bytes()));
    good.push((Export::VerifySignature, vec![7; 100]));
    good
}

/// A good input, or one in which some bytes are others, are missing, or stand twice.
fn step(good: Vec<(Export, Vec<u8>)>) -> impl Strategy<Value = Step> {
    let spoil = prop::collection::vec((any::<Index>(), 0_u8..4, any::<u8>()), 0..3);
    let call = (prop::sample::select(good), spoil).prop_map(|((export, mut input), spoils)| {
        for (place, how, byte) in spoils {
            let at = place.index(input.len().max(1));
            match how {
                0 if at < input.len() => input[at] = byte,
                1 if at < input.len() => input[at] ^= 1 << (byte % 8),
                2 => input.truncate(at),
                _ => input.insert(at.min(input.len()), byte),
            }
        }
        Step::Call(export, input)
    });
    let times = prop_oneof![
        Just(f64::NAN),
        Just(-1.0),
        Just(9.1e15),
        any::<f64>(),
        (0_u64..4_000_000_000_000).prop_map(|ms| ms as f64)
    ];
    let exports = prop::sample::select(vec![TimedExport::Verdict, TimedExport::Explain]);
    prop_oneof![6 => call, 1 => (exports, times).prop_map(|(export, now_ms)| Step::At(export, now_ms))]
}

fn answers(instance: &mut dyn Instance, steps: &[Step]) -> Vec<(i32, String)> {
    let mut answers = Vec::new();
    for step in steps {
        let number = match step {
            Step::Call(export, input) => instance.call(*export, input).unwrap(),
            Step::At(export, now_ms) => instance.call_at(*export, *now_ms).unwrap(),
        };
        answers.push((number, String::from_utf8_lossy(instance.output().unwrap()).into_owned()));
    }
    answers
}

/// Numbers and outputs, after any calls in any order, with inputs good and spoilt.
#[test]
fn the_module_and_gate_core_answer_alike_whatever_they_are_asked() {
    let (engine, good) = (Wasmtime::new(MODULE, None).unwrap(), good());
    let steps = prop::collection::vec(step(good.clone()), 1..12);
    proptest!(ProptestConfig::with_cases(400), |(mut steps in steps, configured in any::<bool>())| {
        if configured {
            steps.splice(0..0, good.iter().take(2).map(|(export, input)| Step::Call(*export, input.clone())));
        }
        let native = answers(&mut *Native.instantiate().unwrap(), &steps);
        let module = answers(&mut *engine.instantiate().unwrap(), &steps);
        prop_assert_eq!(native, module);
    });
}

/// What a gate in the module says is what the matrix shows: the interface for those who ask and do not call.
#[test]
fn a_verdict_of_the_module_is_its_explanation() {
    let config = Config {
        mode: Mode::Advisory,
        node_id: None,
        bundle_keys: None,
        lease_keys: None,
        freshness: Freshness::default(),
    };
    let mut gate = wasm::Gate::new(Arc::new(Wasmtime::new(MODULE, None).unwrap()), &config).unwrap();
    let native = gate_core::Gate::new(config);
    let explanation = gate.explain(1_000).unwrap();
    assert_eq!(gate.verdict(1_000).unwrap(), native.verdict(1_000));
    assert_eq!((explanation.verdict, explanation.facts_id), (native.verdict(1_000), native.facts_id()));
    assert_eq!(&explanation.facts, native.facts());
    assert_eq!(
        gate.load_bundle(b"no tar").unwrap_err(),
        WasmError::Refused("no keys are trusted: give the public keys that sign bundles".into())
    );
}
