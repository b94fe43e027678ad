//! The decision corpus (`docs/src/spec/corpus.md`) against gate-core: every case, verdict, effect and frames.

use gate_core::{
    Answer, AuditId, Call, Config, Effect, Enrollment, EnrollmentRef, Freshness, Gate, Mode, NodeId, PolicyAnswer,
    PublicKey, Reason, RolloutState, Status, ToolName, TrustedKeys, Verdict, decision::DecisionAttrs, frame::Kind,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path, thread};

use crate::conformance::unpack;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    format: String,
    version: u64,
    cases: usize,
    settings: Settings,
    dimensions: Vec<Dimension>,
    outcomes: Vec<Value>,
    expected: Vec<(usize, usize)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    now_ms: u64,
    max_staleness_ms: u64,
    max_skew_ms: u64,
    bundle_keys: Vec<String>,
    bundle_threshold: usize,
    lease_keys: Vec<String>,
    lease_threshold: usize,
    audit_id: AuditId,
    tool: ToolName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dimension {
    name: String,
    values: Vec<Value>,
}

impl Corpus {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/decision.json");
        let corpus: Self = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((corpus.format.as_str(), corpus.version), ("autonomy-decision-corpus", 1));
        corpus
    }

    /// Which outcome each case has.
    fn expanded(&self) -> Vec<usize> {
        self.expected.iter().flat_map(|(outcome, count)| std::iter::repeat_n(*outcome, *count)).collect()
    }

    /// How many values each dimension has, the slowest first.
    fn sizes(&self) -> [usize; 8] {
        let names: Vec<_> = self.dimensions.iter().map(|dimension| dimension.name.as_str()).collect();
        assert_eq!(
            names,
            ["mode", "policy", "bundle", "node_id", "answer", "enrollment_ref", "status", "rollout_state"]
        );
        std::array::from_fn(|at| self.dimensions[at].values.len())
    }

    fn value(&self, dimension: usize, at: usize, member: &str) -> &Value {
        &self.dimensions[dimension].values[at][member]
    }

    fn text(&self, dimension: usize, at: usize, member: &str) -> &str {
        self.value(dimension, at, member).as_str().unwrap()
    }

    /// A gate that knows all but its enrollment.
    fn gate(&self, mode: usize, bundle: usize, node_id: usize) -> Gate {
        let keys = |pems: &[String], threshold| {
            TrustedKeys::new(pems.iter().map(|pem| PublicKey::from_pem(pem).unwrap()), threshold).unwrap()
        };
        let Settings { max_staleness_ms, max_skew_ms, .. } = self.settings;
        let mut gate = Gate::new(Config {
            mode: self.text(0, mode, "mode").parse().unwrap(),
            node_id: self.value(3, node_id, "node_id").as_str().map(|id| NodeId::parse(id).unwrap()),
            bundle_keys: Some(keys(&self.settings.bundle_keys, self.settings.bundle_threshold)),
            lease_keys: Some(keys(&self.settings.lease_keys, self.settings.lease_threshold)),
            freshness: Freshness { max_staleness_ms, max_skew_ms },
        });
        let tar = self.value(2, bundle, "tar");
        if tar.is_array() {
            // Whether it is refused shows in the verdict.
            drop(gate.load_bundle(&unpack(tar)));
        }
        gate
    }

    /// Tells a gate what the source answered.
    fn enroll(&self, gate: &mut Gate, [answer, enrollment_ref, status, rollout_state]: [usize; 4]) {
        let input = &self.dimensions[4].values[answer];
        let observed_at_ms = input["observed_at_ms"].as_u64().unwrap_or_default();
        match input["kind"].as_str().unwrap() {
            "unavailable" => {
                gate.set_enrollment(Answer::Unavailable { why: input["why"].as_str().unwrap().to_owned() });
            }
            "not_enrolled" => gate.set_enrollment(Answer::NotEnrolled { observed_at_ms }),
            "row" => {
                let enrollment = Enrollment {
                    node_id: NodeId::parse("robot-7").unwrap(),
                    enrollment_ref: EnrollmentRef::parse(self.text(5, enrollment_ref, "enrollment_ref")).unwrap(),
                    status: Status::from_word(self.text(6, status, "status")),
                    rollout_state: RolloutState::from_word(self.text(7, rollout_state, "rollout_state")),
                    serial: 7,
                };
                gate.set_enrollment(Answer::Enrolled { enrollment, observed_at_ms });
            }
            "lease" => {
                let [.., statuses, states] = self.sizes();
                let at = (enrollment_ref * statuses + status) * states + rollout_state;
                for lease in [&input["before"], &input["leases"][at]].into_iter().filter_map(Value::as_str) {
                    // Whether it is refused shows in the verdict.
                    drop(gate.set_lease(lease.as_bytes()));
                }
            }
            other => panic!("answer of kind `{other}`"),
        }
    }

    fn call(&self, policy: usize) -> Call {
        let number = self.value(1, policy, "reason").as_u64().unwrap();
        let Some(Reason::Policy(reason)) = Reason::from_number(number.try_into().unwrap()) else {
            panic!("{number} is no policy reason");
        };
        let Settings { audit_id, tool, .. } = &self.settings;
        Call {
            audit_id: audit_id.clone(),
            tool: tool.clone(),
            policy: PolicyAnswer { policy_ref: None, reason, detail: None },
        }
    }
}

fn number(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Fail(reason) => reason.number(),
    }
}

/// What a gate makes of a call, as the corpus writes it.
fn outcome(gate: &Gate, call: Call, now_ms: u64) -> Value {
    let decision = gate.decide(call, now_ms);
    let frames = decision.frames.iter().map(|frame| {
        assert_eq!((frame.kind, &frame.node_id), (Kind::Decision, &gate.config().node_id));
        let attrs: DecisionAttrs = serde_json::from_str(&frame.attrs).unwrap();
        assert_eq!((attrs.facts, attrs.mode, attrs.now_ms), (gate.facts_id(), gate.config().mode, now_ms));
        json!({ "layer": attrs.layer, "outcome": attrs.outcome, "reason": attrs.reason, "enforced": attrs.enforced })
    });
    let effect = match decision.effect {
        Effect::Allow => 0,
        Effect::Deny(reason) => reason.number(),
    };
    let frames = frames.collect::<Vec<_>>();
    json!({ "verdict": number(gate.verdict(now_ms)), "effect": effect, "frames": frames })
}

/// Runs every case with this bundle, in every mode, and gives how many there were.
fn run(corpus: &Corpus, expected: &[usize], bundle: usize) -> usize {
    let [modes, policies, bundles, nodes, answers, refs, statuses, states] = corpus.sizes();
    let now_ms = corpus.settings.now_ms;
    let mut count = 0;
    for node in 0..nodes {
        let gates: Vec<_> = (0..modes).map(|mode| corpus.gate(mode, bundle, node)).collect();
        for world in 0..answers * refs * statuses * states {
            let (rest, state) = (world / states, world % states);
            let (rest, status) = (rest / statuses, rest % statuses);
            let (answer, declared) = (rest / refs, rest % refs);
            let mut verdicts = BTreeSet::new();
            for (mode, gate) in gates.iter().enumerate() {
                let mut gate = gate.clone();
                corpus.enroll(&mut gate, [answer, declared, status, state]);
                verdicts.insert(number(gate.verdict(now_ms)));
                for policy in 0..policies {
                    let case = (((mode * policies + policy) * bundles + bundle) * nodes + node)
                        * (answers * refs * statuses * states)
                        + world;
                    let expected = &corpus.outcomes[expected[case]];
                    assert_eq!(&outcome(&gate, corpus.call(policy), now_ms), expected, "case {case}");
                    count += 1;
                }
            }
            assert_eq!(verdicts.len(), 1, "the verdict is the same in all modes: {verdicts:?}");
        }
    }
    count
}

#[test]
fn every_case_of_the_decision_corpus_is_decided_as_its_tables_say() {
    let corpus = Corpus::read();
    let expected = corpus.expanded();
    let product: usize = corpus.sizes().iter().product();
    assert_eq!((expected.len(), corpus.cases), (product, product));
    let [modes, _, bundles, ..] = corpus.sizes();
    assert_eq!(modes, Mode::ALL.len());
    let count = thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            let (corpus, expected) = (&corpus, &expected);
            scope.spawn(move || (half..bundles).step_by(2).map(|bundle| run(corpus, expected, bundle)).sum::<usize>())
        });
        halves.into_iter().map(|half| half.join().unwrap()).sum::<usize>()
    });
    println!("{count} cases");
    assert_eq!(count, product);
    let used: BTreeSet<_> = expected.iter().collect();
    assert_eq!(used.len(), corpus.outcomes.len(), "every outcome is some case's");
    let spec = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/spec/corpus.md")).unwrap();
    let factors = corpus.sizes().map(|size| size.to_string()).join(" × ");
    let claim = format!("{factors} = {},{:03} cases", count / 1000, count % 1000);
    assert!(spec.contains(&claim), "docs/src/spec/corpus.md does not say `{claim}`");
}
