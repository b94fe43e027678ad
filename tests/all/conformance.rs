//! The corpora through the documents of the ABI, on every engine that runs the gate natively: the same transcripts, byte for
//! byte. Contract: `docs/src/spec/conformance.md`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use host_native::wasm::{Engine, Export, Gate, Instance, MODULE, TimedExport, WasmError, Wasmtime};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{fs, time::Instant};

use crate::{published::is_published, support::root, wasmi::Wasmi};

/// gate-core, without wasm.
pub(crate) struct Native;

impl Engine for Native {
    fn instantiate(&self) -> Result<Box<dyn Instance>, WasmError> {
        Ok(Box::new(NativeInstance(gate_wasm::Instance::new())))
    }
}

struct NativeInstance(gate_wasm::Instance);

impl Instance for NativeInstance {
    fn abi_major(&mut self) -> Result<i32, WasmError> {
        Ok(Gate::ABI_MAJOR)
    }

    fn call(&mut self, export: Export, input: &[u8]) -> Result<i32, WasmError> {
        Ok(match export {
            Export::Configure => self.0.configure(input),
            Export::LoadBundle => self.0.load_bundle(input),
            Export::SetEnrollment => self.0.set_enrollment(input),
            Export::SetLease => self.0.set_lease(input),
            Export::Decide => self.0.decide(input),
            Export::DecideBatch => self.0.decide_batch(input),
            Export::VerifySignature => self.0.verify_signature(input),
        })
    }

    fn call_at(&mut self, export: TimedExport, now_ms: f64) -> Result<i32, WasmError> {
        Ok(match export {
            TimedExport::Verdict => self.0.verdict(now_ms),
            TimedExport::Explain => self.0.explain(now_ms),
        })
    }

    fn output(&mut self) -> Result<&[u8], WasmError> {
        Ok(self.0.output())
    }
}

pub(crate) fn corpus(name: &str) -> Value {
    serde_json::from_slice(&fs::read(root().join("tests/corpus").join(name)).unwrap()).unwrap()
}

pub(crate) fn unpack(segments: &Value) -> Vec<u8> {
    let bytes = |segment: &Value| match segment.as_u64() {
        Some(zeros) => vec![0; zeros.try_into().unwrap()],
        None => STANDARD.decode(segment.as_str().unwrap()).unwrap(),
    };
    segments.as_array().unwrap().iter().flat_map(bytes).collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Its SHA-256, and how many cases it is of.
#[derive(Default)]
struct Transcript {
    hash: Sha256,
    cases: usize,
}

impl Transcript {
    fn line(&mut self, fields: &[&[u8]]) {
        self.hash.update(fields.join(&b'\t'));
        self.hash.update(b"\n");
        self.cases += 1;
    }

    fn summary(self) -> Value {
        let digest: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"cases": self.cases, "transcript": format!("sha256:{digest}")})
    }
}

fn signatures(engine: &dyn Engine) -> Value {
    let (mut transcript, mut gate) = (Transcript::default(), engine.instantiate().unwrap());
    for case in corpus("signatures.json")["cases"].as_array().unwrap() {
        let [key, message, signature] =
            ["key", "message", "signature"].map(|member| hex(case[member].as_str().unwrap()));
        let holds = signature.len() == 64
            && gate.call(Export::VerifySignature, &[key, signature, message].concat()).unwrap() == 0;
        let name = case["name"].as_str().unwrap();
        assert_eq!(holds, case["valid"].as_bool().unwrap(), "{name}");
        transcript.line(&[name.as_bytes(), if holds { b"valid" } else { b"invalid" }]);
    }
    transcript.summary()
}

fn bundles(engine: &dyn Engine) -> Value {
    let (mut transcript, corpus) = (Transcript::default(), corpus("bundles.json"));
    for case in corpus["bundles"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let keys: Vec<_> =
            case["keys"].as_array().unwrap().iter().map(|key| &corpus["keys"][key.as_str().unwrap()]).collect();
        let mut gate = engine.instantiate().unwrap();
        let configuration = json!({"bundle_keys": keys, "bundle_threshold": case["threshold"]});
        assert_eq!(gate.call(Export::Configure, configuration.to_string().as_bytes()).unwrap(), 0);
        let number = gate.call(Export::LoadBundle, &unpack(&case["tar"])).unwrap();
        let output: Value = serde_json::from_slice(gate.output().unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let mut fields = vec![name.to_owned()];
        if number == 0 {
            let list = |member: &str| output[member].as_array().unwrap().clone();
            fields.push("accepted".to_owned());
            let members = ["digest", "name", "version", "channel", "policy_version", "schema_version", "policy_ref"];
            fields.extend(members.iter().chain(&["enrollment_ref"]).map(|member| text(&output[*member])));
            fields.push(list("signers").iter().map(text).collect::<Vec<_>>().join(","));
            fields.extend(list("files").iter().map(|file| {
                format!("{}={}@{}+{}", text(&file["path"]), text(&file["digest"]), file["offset"], file["size"])
            }));
            assert_eq!(output["digest"], case["accepted"]["digest"], "{name}");
        } else {
            assert_eq!((number, &output["error"]), (-2, &case["refused"]), "{name}");
            fields.extend(["refused".to_owned(), text(&output["error"])]);
        }
        transcript.line(&fields.iter().map(String::as_bytes).collect::<Vec<_>>());
    }
    transcript.summary()
}

fn decisions(engine: &dyn Engine) -> Value {
    let (mut transcript, corpus) = (Transcript::default(), corpus("decision.json"));
    let settings = &corpus["settings"];
    let now_ms = settings["now_ms"].as_u64().unwrap();
    let [modes, policies, tars, nodes, answers, refs, statuses, states]: [&Vec<Value>; 8] =
        std::array::from_fn(|at| corpus["dimensions"][at]["values"].as_array().unwrap());
    let calls: Vec<_> = policies
        .iter()
        .map(|policy| {
            let reason =
                gate_core::Reason::from_number(policy["reason"].as_u64().unwrap().try_into().unwrap()).unwrap();
            let call = json!({
                "now_ms": now_ms, "audit_id": settings["audit_id"], "tool": settings["tool"], "policy": reason.as_str(),
            });
            call.to_string()
        })
        .collect();
    let tars: Vec<_> = tars.iter().map(|tar| (!tar["tar"].is_null()).then(|| unpack(&tar["tar"]))).collect();
    for mode in modes {
        for tar in &tars {
            for node in nodes {
                let mut gate = engine.instantiate().unwrap();
                let configuration = json!({
                    "mode": mode["mode"], "node_id": node["node_id"],
                    "bundle_keys": settings["bundle_keys"], "bundle_threshold": settings["bundle_threshold"],
                    "lease_keys": settings["lease_keys"], "lease_threshold": settings["lease_threshold"],
                    "max_staleness_ms": settings["max_staleness_ms"], "max_skew_ms": settings["max_skew_ms"],
                });
                assert_eq!(gate.call(Export::Configure, configuration.to_string().as_bytes()).unwrap(), 0);
                if let Some(tar) = tar {
                    gate.call(Export::LoadBundle, tar).unwrap();
                }
                for answer in answers {
                    if let Some(lease) = answer["before"].as_str() {
                        gate.call(Export::SetLease, lease.as_bytes()).unwrap();
                    }
                    for world in 0..refs.len() * statuses.len() * states.len() {
                        let (rest, state) = (world / states.len(), &states[world % states.len()]);
                        let (enrollment_ref, status) = (&refs[rest / statuses.len()], &statuses[rest % statuses.len()]);
                        match answer["kind"].as_str().unwrap() {
                            "lease" => gate
                                .call(Export::SetLease, answer["leases"][world].as_str().unwrap().as_bytes())
                                .unwrap(),
                            kind => {
                                let observed_at_ms = &answer["observed_at_ms"];
                                let told = match kind {
                                    "row" => json!({
                                        "answer": "enrolled",
                                        "enrollment": {
                                            "node_id": "robot-7", "enrollment_ref": enrollment_ref["enrollment_ref"],
                                            "status": status["status"], "rollout_state": state["rollout_state"], "serial": 7,
                                        },
                                        "observed_at_ms": observed_at_ms,
                                    }),
                                    "not_enrolled" => json!({"answer": kind, "observed_at_ms": observed_at_ms}),
                                    _ => json!({"answer": kind, "why": answer["why"]}),
                                };
                                gate.call(Export::SetEnrollment, told.to_string().as_bytes()).unwrap()
                            }
                        };
                        let verdict = gate.call_at(TimedExport::Verdict, now_ms as f64).unwrap().to_string();
                        for call in &calls {
                            assert!(gate.call(Export::Decide, call.as_bytes()).unwrap() >= 0);
                            transcript.line(&[verdict.as_bytes(), gate.output().unwrap()]);
                        }
                    }
                }
            }
        }
    }
    assert_eq!(transcript.cases, usize::try_from(corpus["cases"].as_u64().unwrap()).unwrap());
    transcript.summary()
}

/// All three corpora, with what it takes to see that they ran.
pub(crate) fn run(name: &str, engine: &dyn Engine) -> Value {
    let mut transcripts = serde_json::Map::new();
    type Corpus = fn(&dyn Engine) -> Value;
    let corpora: [(&str, Corpus); 3] = [("signatures", signatures), ("bundles", bundles), ("decision", decisions)];
    for (corpus, run) in corpora {
        let started = Instant::now();
        let summary = run(engine);
        println!("{name}: {corpus}: {} cases in {:.1} s", summary["cases"], started.elapsed().as_secs_f64());
        transcripts.insert(corpus.to_owned(), summary);
    }
    transcripts.into()
}

/// The decisions themselves are held to the corpus's own expectation by `corpus.rs`; this is what other engines must equal.
#[test]
fn published_transcripts_are_those_of_gate_core() {
    is_published("tests/corpus/transcripts.json", &run("native", &Native));
}

#[test]
fn wasmtime_gives_the_transcripts_of_gate_core() {
    let engine = Wasmtime::new(MODULE, None).unwrap();
    assert_eq!(run("wasmtime", &engine), corpus("transcripts.json"));
}

#[test]
fn wasmi_gives_the_transcripts_of_gate_core() {
    assert_eq!(run("wasmi", &Wasmi::new(MODULE)), corpus("transcripts.json"));
}
