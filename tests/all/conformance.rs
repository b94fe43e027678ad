//! The corpora through the documents of the ABI, on every engine that runs the gate natively: the same transcripts, byte for
//! byte. Contract: `docs/src/spec/conformance.md`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{fs, time::Instant};

use crate::{published::is_published, support::root};

/// One gate behind the calls of the ABI: a number, and where the call has one, its output.
trait Module {
    /// A fresh one.
    fn new_gate(&self) -> Box<dyn Gate>;
}

trait Gate {
    fn configure(&mut self, input: &[u8]) -> i32;
    fn load_bundle(&mut self, input: &[u8]) -> i32;
    fn set_enrollment(&mut self, input: &[u8]) -> i32;
    fn set_lease(&mut self, input: &[u8]) -> i32;
    fn verdict(&mut self, now_ms: f64) -> i32;
    fn decide(&mut self, input: &[u8]) -> i32;
    fn verify_signature(&mut self, input: &[u8]) -> i32;
    fn output(&mut self) -> Vec<u8>;
}

/// gate-core, without wasm.
struct Native;

impl Module for Native {
    fn new_gate(&self) -> Box<dyn Gate> {
        Box::new(gate_wasm::Instance::new())
    }
}

impl Gate for gate_wasm::Instance {
    fn configure(&mut self, input: &[u8]) -> i32 {
        self.configure(input)
    }

    fn load_bundle(&mut self, input: &[u8]) -> i32 {
        self.load_bundle(input)
    }

    fn set_enrollment(&mut self, input: &[u8]) -> i32 {
        self.set_enrollment(input)
    }

    fn set_lease(&mut self, input: &[u8]) -> i32 {
        self.set_lease(input)
    }

    fn verdict(&mut self, now_ms: f64) -> i32 {
        Self::verdict(self, now_ms)
    }

    fn decide(&mut self, input: &[u8]) -> i32 {
        self.decide(input)
    }

    fn verify_signature(&mut self, input: &[u8]) -> i32 {
        self.verify_signature(input)
    }

    fn output(&mut self) -> Vec<u8> {
        Self::output(self).to_vec()
    }
}

fn corpus(name: &str) -> Value {
    serde_json::from_slice(&fs::read(root().join("tests/corpus").join(name)).unwrap()).unwrap()
}

fn unpack(segments: &Value) -> Vec<u8> {
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

fn signatures(module: &dyn Module) -> Value {
    let (mut transcript, mut gate) = (Transcript::default(), module.new_gate());
    for case in corpus("signatures.json")["cases"].as_array().unwrap() {
        let [key, message, signature] =
            ["key", "message", "signature"].map(|member| hex(case[member].as_str().unwrap()));
        let holds = signature.len() == 64 && gate.verify_signature(&[key, signature, message].concat()) == 0;
        let name = case["name"].as_str().unwrap();
        assert_eq!(holds, case["valid"].as_bool().unwrap(), "{name}");
        transcript.line(&[name.as_bytes(), if holds { b"valid" } else { b"invalid" }]);
    }
    transcript.summary()
}

fn bundles(module: &dyn Module) -> Value {
    let (mut transcript, corpus) = (Transcript::default(), corpus("bundles.json"));
    for case in corpus["bundles"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let keys: Vec<_> =
            case["keys"].as_array().unwrap().iter().map(|key| &corpus["keys"][key.as_str().unwrap()]).collect();
        let mut gate = module.new_gate();
        let configuration = json!({"bundle_keys": keys, "bundle_threshold": case["threshold"]});
        assert_eq!(gate.configure(configuration.to_string().as_bytes()), 0);
        let number = gate.load_bundle(&unpack(&case["tar"]));
        let output: Value = serde_json::from_slice(&gate.output()).unwrap();
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

fn decisions(module: &dyn Module) -> Value {
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
                let mut gate = module.new_gate();
                let configuration = json!({
                    "mode": mode["mode"], "node_id": node["node_id"],
                    "bundle_keys": settings["bundle_keys"], "bundle_threshold": settings["bundle_threshold"],
                    "lease_keys": settings["lease_keys"], "lease_threshold": settings["lease_threshold"],
                    "max_staleness_ms": settings["max_staleness_ms"], "max_skew_ms": settings["max_skew_ms"],
                });
                assert_eq!(gate.configure(configuration.to_string().as_bytes()), 0);
                if let Some(tar) = tar {
                    gate.load_bundle(tar);
                }
                for answer in answers {
                    if let Some(lease) = answer["before"].as_str() {
                        gate.set_lease(lease.as_bytes());
                    }
                    for world in 0..refs.len() * statuses.len() * states.len() {
                        let (rest, state) = (world / states.len(), &states[world % states.len()]);
                        let (enrollment_ref, status) = (&refs[rest / statuses.len()], &statuses[rest % statuses.len()]);
                        match answer["kind"].as_str().unwrap() {
                            "lease" => gate.set_lease(answer["leases"][world].as_str().unwrap().as_bytes()),
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
                                gate.set_enrollment(told.to_string().as_bytes())
                            }
                        };
                        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
                        let verdict = gate.verdict(now_ms as f64).to_string();
                        for call in &calls {
                            assert!(gate.decide(call.as_bytes()) >= 0);
                            transcript.line(&[verdict.as_bytes(), &gate.output()]);
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
fn run(engine: &str, module: &dyn Module) -> Value {
    let mut transcripts = serde_json::Map::new();
    type Corpus = fn(&dyn Module) -> Value;
    let corpora: [(&str, Corpus); 3] = [("signatures", signatures), ("bundles", bundles), ("decision", decisions)];
    for (name, corpus) in corpora {
        let started = Instant::now();
        let summary = corpus(module);
        println!("{engine}: {name}: {} cases in {:.1} s", summary["cases"], started.elapsed().as_secs_f64());
        transcripts.insert(name.to_owned(), summary);
    }
    transcripts.into()
}

/// The decisions themselves are held to the corpus's own expectation by `corpus.rs`; this is what other engines must equal.
#[test]
fn published_transcripts_are_those_of_gate_core() {
    is_published("tests/corpus/transcripts.json", &run("native", &Native));
}
