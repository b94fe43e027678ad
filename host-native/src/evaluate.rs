//! What the gate would say of many nodes and bundles, before anything is rolled out.
//!
//! A [`Matrix`] opens each bundle once and is shown one row at a time; each pair costs a verdict and nothing more.

#[cfg(feature = "wasm")]
use std::sync::Arc;
use std::{collections::BTreeMap, mem};

use gate_core::{
    Answer, Bundle, BundleError, Config, Facts, Freshness, Gate, Mode, NodeId, Reason, TrustedKeys, Verdict,
    enrollment::{Enrollment, Status},
    facts::{BundleFact, EnrollmentFact},
    reason::Attestation,
};
use serde::Serialize;

use crate::gate::NoDecision;
#[cfg(feature = "wasm")]
use crate::wasm;

/// Bundles against which nodes are judged as of one instant.
#[derive(Debug)]
pub struct Matrix {
    bundles: Vec<BundleFact>,
    facts: Facts,
    freshness: Freshness,
    now_ms: u64,
    #[cfg(feature = "wasm")]
    module: Option<Module>,
}

/// What it takes to have the module judge a pair.
#[cfg(feature = "wasm")]
struct Module {
    engine: Arc<dyn wasm::Engine>,
    bundles: Vec<(Vec<u8>, TrustedKeys)>,
    node: Option<(NodeId, Told)>,
}

/// What is known of a node, and by whom.
#[cfg(feature = "wasm")]
#[derive(Debug)]
enum Told {
    Answer(Answer),
    Lease(Vec<u8>, TrustedKeys),
}

impl Matrix {
    /// Judges as a gate would that asks its source at `now_ms`.
    pub fn new(freshness: Freshness, now_ms: u64) -> Self {
        Self {
            bundles: Vec::new(),
            facts: Facts::unknown(None),
            freshness,
            now_ms,
            #[cfg(feature = "wasm")]
            module: None,
        }
    }

    /// The same, each pair by a gate of its own in a module: to see that it says the same. A thousand times slower.
    #[cfg(feature = "wasm")]
    pub fn in_module(engine: Arc<dyn wasm::Engine>, freshness: Freshness, now_ms: u64) -> Self {
        let module = Some(Module { engine, bundles: Vec::new(), node: None });
        Self { module, ..Self::new(freshness, now_ms) }
    }

    /// Adds a bundle, verified once. One that is refused stays in the matrix, where it fails every node.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn add_bundle<'a>(&mut self, tar: &'a [u8], keys: &TrustedKeys) -> Result<Bundle<'a>, BundleError> {
        let mut gate = Gate::new(Config {
            mode: Mode::Off,
            node_id: None,
            bundle_keys: Some(keys.clone()),
            lease_keys: None,
            freshness: Freshness::default(),
        });
        let verified = gate.load_bundle(tar);
        self.bundles.push(gate.facts().bundle.clone());
        #[cfg(feature = "wasm")]
        if let Some(module) = &mut self.module {
            module.bundles.push((tar.to_vec(), keys.clone()));
        }
        verified
    }

    /// What was made of each bundle, in the order they were added.
    pub fn bundles(&self) -> &[BundleFact] {
        &self.bundles
    }

    /// The node that the next verdicts are about, and the source's answer.
    pub fn set_node(&mut self, node_id: NodeId, answer: Answer) {
        #[cfg(feature = "wasm")]
        if let Some(module) = &mut self.module {
            module.node = Some((node_id.clone(), Told::Answer(answer.clone())));
        }
        self.facts.node_id = Some(node_id);
        self.facts.enrollment = match answer {
            Answer::Enrolled { enrollment, observed_at_ms } => {
                EnrollmentFact::Enrolled { enrollment, validity: self.freshness.validity(observed_at_ms) }
            }
            Answer::NotEnrolled { observed_at_ms } => {
                EnrollmentFact::NotEnrolled { validity: self.freshness.validity(observed_at_ms) }
            }
            Answer::Unavailable { why } => EnrollmentFact::Unavailable { why },
        };
    }

    /// The node that the next verdicts are about, and what it has of its orchestrator: an envelope. One that does not hold fails the
    /// node, as it does in a gate.
    pub fn set_leased_node(&mut self, node_id: NodeId, lease: &[u8], keys: &TrustedKeys) {
        let mut gate = Gate::new(Config {
            mode: Mode::Off,
            node_id: Some(node_id.clone()),
            bundle_keys: None,
            lease_keys: Some(keys.clone()),
            freshness: self.freshness,
        });
        // What does not hold is in the facts.
        let _ = gate.set_lease(lease);
        self.facts.enrollment = gate.facts().enrollment.clone();
        self.facts.node_id = Some(node_id.clone());
        #[cfg(feature = "wasm")]
        if let Some(module) = &mut self.module {
            module.node = Some((node_id, Told::Lease(lease.to_vec(), keys.clone())));
        }
    }

    /// Shows the verdict on each bundle for this node, in the order they were added. Allocates nothing, but for a module.
    ///
    /// # Errors
    /// A module judges, and it failed.
    pub fn verdicts(&mut self, mut visit: impl FnMut(usize, &Facts, Verdict)) -> Result<(), NoDecision> {
        #[cfg(feature = "wasm")]
        if let Some(module) = &self.module {
            return Ok(module.verdicts(self.freshness, self.now_ms, visit)?);
        }
        for (at, bundle) in self.bundles.iter_mut().enumerate() {
            mem::swap(&mut self.facts.bundle, bundle);
            visit(at, &self.facts, self.facts.verdict(self.now_ms));
            mem::swap(&mut self.facts.bundle, bundle);
        }
        Ok(())
    }

    /// The time that it judges at, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }
}

#[cfg(feature = "wasm")]
impl Module {
    fn verdicts(
        &self,
        freshness: Freshness,
        now_ms: u64,
        mut visit: impl FnMut(usize, &Facts, Verdict),
    ) -> Result<(), wasm::WasmError> {
        let Some((node_id, told)) = &self.node else { return Ok(()) };
        let lease_keys = match told {
            Told::Answer(_) => None,
            Told::Lease(_, keys) => Some(keys.clone()),
        };
        for (at, (tar, keys)) in self.bundles.iter().enumerate() {
            let config = Config {
                mode: Mode::Enforce,
                node_id: Some(node_id.clone()),
                bundle_keys: Some(keys.clone()),
                lease_keys: lease_keys.clone(),
                freshness,
            };
            let mut gate = wasm::Gate::new(Arc::clone(&self.engine), &config)?;
            shown_in_the_verdict(gate.load_bundle(tar))?;
            match told {
                Told::Answer(answer) => gate.set_enrollment(answer)?,
                Told::Lease(lease, _) => shown_in_the_verdict(gate.set_lease(lease))?,
            }
            let wasm::Explanation { verdict, facts, .. } = gate.explain(now_ms)?;
            visit(at, &facts, verdict);
        }
        Ok(())
    }
}

/// What is refused fails the node, with why.
#[cfg(feature = "wasm")]
fn shown_in_the_verdict(told: Result<(), wasm::WasmError>) -> Result<(), wasm::WasmError> {
    match told {
        Err(wasm::WasmError::Refused(_)) => Ok(()),
        told => told,
    }
}

#[cfg(feature = "wasm")]
impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("bundles", &self.bundles.len()).field("node", &self.node).finish_non_exhaustive()
    }
}

/// Whether a fleet is ready for a mode: what stands in the way, node by node.
///
/// A node is taken to run the one of the bundles that fits it best: where none passes, the one that gets furthest through the
/// sub-checks. A revoked node is denied because somebody wants that, so it stands in nobody's way.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Nodes that may run.
    pub ready: u64,
    /// Nodes that somebody revoked.
    pub revoked: u64,
    /// Nodes that `enforce` would deny.
    pub denied: u64,
    /// Why, and which.
    pub obstacles: BTreeMap<Reason, Obstacle>,
}

/// The nodes that fail for one reason.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// How many.
    pub nodes: u64,
    /// The first of them, as many as were asked for.
    pub first: Vec<NodeId>,
}

impl Readiness {
    /// Adds an enrolled node, which the matrix is then at. Of each obstacle at most `shown` nodes are kept by name.
    ///
    /// # Errors
    /// A module judges, and it failed.
    pub fn add(&mut self, matrix: &mut Matrix, enrollment: Enrollment, shown: usize) -> Result<(), NoDecision> {
        let (node_id, is_revoked) = (enrollment.node_id.clone(), enrollment.status == Status::Revoked);
        let observed_at_ms = matrix.now_ms();
        matrix.set_node(node_id.clone(), Answer::Enrolled { enrollment, observed_at_ms });
        let mut best = Verdict::Fail(Attestation::BundleUnverified);
        matrix.verdicts(|_, _, verdict| {
            if reached(verdict) > reached(best) {
                best = verdict;
            }
        })?;
        match best {
            Verdict::Pass => self.ready += 1,
            Verdict::Fail(_) if is_revoked => self.revoked += 1,
            Verdict::Fail(reason) => {
                self.denied += 1;
                let obstacle = self.obstacles.entry(reason.into()).or_default();
                obstacle.nodes += 1;
                if obstacle.first.len() < shown {
                    obstacle.first.push(node_id);
                }
            }
        }
        Ok(())
    }

    /// Whether turning a mode on would stop no node that nobody revoked. Never true of a fleet without a node that may run.
    pub fn is_safe(&self, mode: Mode) -> bool {
        match mode {
            Mode::Off => true,
            Mode::Advisory => self.ready > 0,
            Mode::Enforce => self.ready > 0 && self.denied == 0,
        }
    }
}

/// How far a verdict got through the sub-checks, whose reasons are numbered in their order.
fn reached(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => u8::MAX,
        Verdict::Fail(reason) => reason.number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bundle::{self, Description, Files},
        key::PrivateKey,
    };
    use gate_core::{
        EnrollmentRef, RolloutState, Status,
        manifest::{Channel, Provenance},
        reason::Attestation,
    };

    fn signed(enrollment_ref: Option<&str>, key: &PrivateKey) -> Vec<u8> {
        let enrollment_ref = enrollment_ref.map(|name| EnrollmentRef::parse(name).unwrap());
        let description = Description {
            name: "fleet/policies".into(),
            version: "1.0.0".into(),
            channel: Channel::Dev,
            policy_version: "1".into(),
            provenance: Provenance { enrollment_ref, ..Provenance::default() },
        };
        let files: Files = [("policies/main.rego".to_owned(), b"package autonomy\n".to_vec())].into();
        bundle::sign(&bundle::build(description, &files).unwrap(), key).unwrap()
    }

    fn row(node_id: &str, enrollment_ref: &str, status: &str, rollout_state: &str) -> Enrollment {
        Enrollment {
            node_id: NodeId::parse(node_id).unwrap(),
            enrollment_ref: EnrollmentRef::parse(enrollment_ref).unwrap(),
            status: Status::from_word(status),
            rollout_state: RolloutState::from_word(rollout_state),
            serial: 1,
        }
    }

    const NOT_ENROLLED: Answer = Answer::NotEnrolled { observed_at_ms: 1_000 };

    fn enrolled(node_id: &str, enrollment_ref: &str, status: &str, rollout_state: &str) -> Answer {
        Answer::Enrolled { enrollment: row(node_id, enrollment_ref, status, rollout_state), observed_at_ms: 1_000 }
    }

    /// Every cell is what a gate of that node with that bundle says.
    #[test]
    fn the_matrix_and_a_gate_say_the_same_of_every_pair() {
        let (trusted, stranger) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let keys = TrustedKeys::new([trusted.public().clone()], 1).unwrap();
        let tars = [
            signed(Some("fleet-a"), &trusted),
            signed(Some("fleet-b"), &trusted),
            signed(None, &trusted),
            signed(Some("fleet-a"), &stranger),
            b"no tar".to_vec(),
        ];
        let freshness = Freshness { max_staleness_ms: 5, max_skew_ms: 2 };
        let mut answers = vec![NOT_ENROLLED, Answer::Unavailable { why: "the disk is gone".into() }];
        for enrollment_ref in ["fleet-a", "fleet-b", "Fleet-a"] {
            for status in ["active", "revoked", "paused"] {
                for state in ["<none>", "pending", "acknowledged", "active", "rolled_back", "failed", "odd"] {
                    answers.push(enrolled("robot-7", enrollment_ref, status, state));
                }
            }
        }
        let mut matrix = Matrix::new(freshness, 1_000);
        for tar in &tars {
            let _ = matrix.add_bundle(tar, &keys);
        }
        let (mut pairs, mut passed) = (0, 0);
        for answer in answers {
            matrix.set_node(NodeId::parse("robot-7").unwrap(), answer.clone());
            matrix
                .verdicts(|at, facts, verdict| {
                    let mut gate = Gate::new(Config {
                        mode: Mode::Enforce,
                        node_id: Some(NodeId::parse("robot-7").unwrap()),
                        bundle_keys: Some(keys.clone()),
                        lease_keys: None,
                        freshness,
                    });
                    let _ = gate.load_bundle(&tars[at]);
                    gate.set_enrollment(answer.clone());
                    assert_eq!((facts, verdict), (gate.facts(), gate.verdict(1_000)));
                    pairs += 1;
                    passed += usize::from(verdict == Verdict::Pass);
                })
                .unwrap();
        }
        assert_eq!((pairs, passed), (65 * 5, 8), "each ref fits its one bundle in four rollout states");
        assert_eq!(matrix.bundles().len(), tars.len());
    }

    /// Facts, verdict and explanation, of every answer and bundle.
    #[cfg(feature = "wasm")]
    #[test]
    fn the_module_says_the_same_of_every_pair() {
        let (trusted, stranger) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let keys = TrustedKeys::new([trusted.public().clone()], 1).unwrap();
        let engine = Arc::new(wasm::Wasmtime::new(wasm::MODULE, None).unwrap());
        let freshness = Freshness { max_staleness_ms: 5, max_skew_ms: 2 };
        let (mut native, mut module) = (Matrix::new(freshness, 1_000), Matrix::in_module(engine, freshness, 1_000));
        for tar in [signed(Some("fleet-a"), &trusted), signed(None, &trusted), signed(Some("fleet-a"), &stranger)] {
            for matrix in [&mut native, &mut module] {
                let _ = matrix.add_bundle(&tar, &keys);
            }
        }
        for answer in [
            NOT_ENROLLED,
            Answer::Unavailable { why: "the disk is gone".into() },
            enrolled("robot-7", "fleet-a", "active", "<none>"),
            enrolled("robot-7", "Fleet-a", "active", "<none>"),
            enrolled("robot-7", "fleet-a", "active", "failed"),
            enrolled("robot-8", "fleet-a", "active", "<none>"),
        ] {
            let [native, module] = [&mut native, &mut module].map(|matrix| {
                let mut pairs = Vec::new();
                matrix.set_node(NodeId::parse("robot-7").unwrap(), answer.clone());
                matrix.verdicts(|at, facts, verdict| pairs.push((at, facts.explain(1_000), verdict))).unwrap();
                pairs
            });
            assert_eq!(native.len(), 3);
            if !matches!(&answer, Answer::Enrolled { enrollment, .. } if enrollment.node_id.as_str() == "robot-8") {
                assert_eq!(native, module);
            } else {
                // A store is asked for a node by its id; a gate also looks that the answer is about it.
                let reasons: Vec<_> = module.iter().map(|(_, _, verdict)| *verdict).collect();
                assert_eq!(reasons[0], Verdict::Fail(Attestation::EnrollmentUnavailable));
            }
        }
    }

    #[test]
    fn a_fleet_is_ready_when_each_node_fits_one_of_its_bundles_and_a_revoked_node_is_no_obstacle() {
        let key = PrivateKey::generate().unwrap();
        let keys = TrustedKeys::new([key.public().clone()], 1).unwrap();
        let mut matrix = Matrix::new(Freshness::default(), 1_000);
        for name in ["fleet-a", "fleet-b"] {
            matrix.add_bundle(&signed(Some(name), &key), &keys).unwrap();
        }
        let mut readiness = Readiness::default();
        let safe =
            |readiness: &Readiness| [Mode::Off, Mode::Advisory, Mode::Enforce].map(|mode| readiness.is_safe(mode));
        assert_eq!(safe(&readiness), [true, false, false], "of no node nothing is known");
        let mut add = |readiness: &mut Readiness, row| readiness.add(&mut matrix, row, 2).unwrap();
        add(&mut readiness, row("robot-1", "fleet-a", "active", "active"));
        add(&mut readiness, row("robot-2", "fleet-b", "active", "<none>"));
        add(&mut readiness, row("robot-3", "fleet-c", "revoked", "<none>"));
        assert_eq!((readiness.ready, readiness.revoked, readiness.denied), (2, 1, 0));
        assert_eq!(safe(&readiness), [true, true, true]);
        for node_id in ["robot-4", "robot-5", "robot-6"] {
            add(&mut readiness, row(node_id, "fleet-c", "active", "<none>"));
        }
        add(&mut readiness, row("robot-7", "fleet-a", "active", "failed"));
        add(&mut readiness, row("robot-8", "fleet-a", "paused", "<none>"));
        assert_eq!(safe(&readiness), [true, true, false]);
        let obstacles: Vec<_> = readiness
            .obstacles
            .iter()
            .map(|(reason, Obstacle { nodes, first })| {
                let first: Vec<_> = first.iter().map(NodeId::as_str).collect();
                (reason.as_str(), *nodes, first.join(" "))
            })
            .collect();
        assert_eq!(
            obstacles,
            [
                ("attestation: enrollment_revoked", 1, "robot-8".to_owned()),
                ("attestation: enrollment_ref_mismatch", 3, "robot-4 robot-5".to_owned()),
                ("attestation: rollout_incoherent", 1, "robot-7".to_owned()),
            ]
        );
    }

    #[test]
    fn a_refused_bundle_fails_every_node_and_says_why() {
        let mut matrix = Matrix::new(Freshness::default(), 1_000);
        let keys = TrustedKeys::new([PrivateKey::generate().unwrap().public().clone()], 1).unwrap();
        assert!(matrix.add_bundle(b"", &keys).is_err());
        matrix.set_node(NodeId::parse("robot-7").unwrap(), NOT_ENROLLED);
        matrix
            .verdicts(|_, facts, verdict| {
                assert_eq!(verdict, Verdict::Fail(Attestation::BundleUnverified));
                assert!(
                    facts.detail(Attestation::BundleUnverified, 1_000).starts_with("expected a bundle that verifies")
                );
            })
            .unwrap();
    }
}
