//! What a decision is made on, and the verdict.
//!
//! `docs/src/spec/decision.md` is the contract; [`Facts::verdict`] is the whole of it.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use crate::{
    decision::Parts,
    digest::Digest,
    enrollment::{Enrollment, Status},
    identity::{EnrollmentRef, NodeId},
    json,
    manifest::{SCHEMA_VERSION, SchemaVersion},
    read_object,
    reason::Attestation,
    text::{cut, decimal, fill, shown},
};

/// Everything that the verdict looks at, but for the time. Not the mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Which node this is.
    pub node_id: Option<NodeId>,
    /// The bundle it runs.
    pub bundle: BundleFact,
    /// What is known of its enrollment.
    pub enrollment: EnrollmentFact,
}

/// What is known of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum BundleFact {
    /// There is none that verifies.
    Unverified {
        /// Why not.
        why: String,
    },
    /// It verifies.
    Verified {
        /// Its identity.
        digest: Digest,
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// The schema of its manifest.
        schema_version: SchemaVersion,
        /// The enrollment it declares; none below schema 1.2.
        enrollment_ref: Option<EnrollmentRef>,
    },
}

/// What is known of the node's enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum EnrollmentFact {
    /// The source failed, timed out, or answered nonsense.
    Unavailable {
        /// What went wrong.
        why: String,
    },
    /// A lease that does not hold.
    Untrusted {
        /// What does not hold.
        why: String,
    },
    /// The source answered: no such node.
    NotEnrolled {
        /// When the answer counts.
        validity: Validity,
    },
    /// The source answered with a row.
    Enrolled {
        /// The row.
        enrollment: Enrollment,
        /// When the answer counts.
        validity: Validity,
    },
}

/// When an answer counts: from `not_before_ms` to `not_after_ms`, both included, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Validity {
    /// When the source gave it, by the observer's clock, or when the lease was issued.
    pub observed_at_ms: u64,
    /// Before this it is from the future.
    pub not_before_ms: u64,
    /// After this it is stale.
    pub not_after_ms: u64,
}

impl Validity {
    /// Whether the answer counts at `now_ms`.
    pub fn holds(&self, now_ms: u64) -> bool {
        (self.not_before_ms..=self.not_after_ms).contains(&now_ms)
    }
}

/// Facts with all that follows from them, worked out once.
#[derive(Debug, Clone)]
pub struct Known {
    facts: Facts,
    follows: Follows,
}

#[derive(Debug, Clone)]
struct Follows {
    id: Digest,
    /// While the answer counts.
    verdict: Verdict,
    /// While it does not.
    stale: Verdict,
    parts: Parts,
}

impl Known {
    /// Works out what follows from `facts`.
    pub fn new(facts: Facts) -> Self {
        Self { follows: Follows::from(&facts), facts }
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts);
        self.follows = Follows::from(&self.facts);
    }

    /// The facts.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// As [`Facts::id`].
    pub fn id(&self) -> Digest {
        self.follows.id
    }

    /// As [`Facts::verdict`].
    pub fn verdict(&self, now_ms: u64) -> Verdict {
        if self.facts.counts(now_ms) { self.follows.verdict } else { self.follows.stale }
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.follows.parts
    }
}

impl From<&Facts> for Follows {
    fn from(facts: &Facts) -> Self {
        let id = facts.id();
        Self {
            id,
            verdict: facts.verdict_when(true),
            stale: facts.verdict_when(false),
            parts: Parts::new(facts.node_id.as_ref(), facts.bundle_digest(), id),
        }
    }
}

/// What the gate found. The same in every mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Every sub-check holds.
    Pass,
    /// The first sub-check that does not.
    Fail(Attestation),
}

impl Facts {
    /// The facts of a node of which nothing is known yet.
    pub fn unknown(node_id: Option<NodeId>) -> Self {
        Self {
            node_id,
            bundle: BundleFact::Unverified { why: "no bundle is loaded".to_owned() },
            enrollment: EnrollmentFact::Unavailable { why: "the enrollment source was not asked yet".to_owned() },
        }
    }

    /// The verdict at `now_ms`, milliseconds since the Unix epoch: the first sub-check that fails, in their order.
    ///
    /// Allocates nothing.
    pub fn verdict(&self, now_ms: u64) -> Verdict {
        self.verdict_when(self.counts(now_ms))
    }

    /// Whether the enrollment answer counts at `now_ms`, as far as it has a time: all that a verdict asks of the clock.
    fn counts(&self, now_ms: u64) -> bool {
        self.validity().is_none_or(|validity| validity.holds(now_ms))
    }

    fn verdict_when(&self, counts: bool) -> Verdict {
        match Attestation::ALL.iter().find(|sub_check| self.fails(**sub_check, counts)) {
            Some(reason) => Verdict::Fail(*reason),
            None => Verdict::Pass,
        }
    }

    /// Whether a sub-check fails by what it looks at itself. One whose facts do not exist does not fail: an earlier
    /// one does.
    fn fails(&self, sub_check: Attestation, counts: bool) -> bool {
        match sub_check {
            Attestation::BundleUnverified => matches!(self.bundle, BundleFact::Unverified { .. }),
            Attestation::EnrollmentRefUndeclared => match &self.bundle {
                BundleFact::Unverified { .. } => false,
                BundleFact::Verified { schema_version, enrollment_ref, .. } => {
                    *schema_version < SCHEMA_VERSION || enrollment_ref.is_none()
                }
            },
            Attestation::NodeIdUnset => self.node_id.is_none(),
            Attestation::EnrollmentUnavailable => matches!(self.enrollment, EnrollmentFact::Unavailable { .. }),
            Attestation::EnrollmentUntrusted => matches!(self.enrollment, EnrollmentFact::Untrusted { .. }),
            Attestation::EnrollmentStale => !counts,
            Attestation::NotEnrolled => matches!(self.enrollment, EnrollmentFact::NotEnrolled { .. }),
            Attestation::EnrollmentRevoked => self.enrolled().is_some_and(|row| row.status != Status::Active),
            Attestation::EnrollmentRefMismatch => match (self.enrolled(), self.declared_ref()) {
                (Some(row), Some(declared)) => row.enrollment_ref != *declared,
                _ => false,
            },
            Attestation::RolloutIncoherent => self.enrolled().is_some_and(|row| !row.rollout_state.is_coherent()),
        }
    }

    /// The facts' id: the SHA-256 of their JSON.
    pub fn id(&self) -> Digest {
        Digest::of(self.to_json().as_bytes())
    }

    /// The facts as JSON, members in the order of the types above: what the facts frame holds and its id covers.
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// The row, where the source gave one.
    pub fn enrolled(&self) -> Option<&Enrollment> {
        match &self.enrollment {
            EnrollmentFact::Enrolled { enrollment, .. } => Some(enrollment),
            EnrollmentFact::Unavailable { .. }
            | EnrollmentFact::Untrusted { .. }
            | EnrollmentFact::NotEnrolled { .. } => None,
        }
    }

    /// The ref that the bundle declares, where it verifies and declares one.
    pub fn declared_ref(&self) -> Option<&EnrollmentRef> {
        match &self.bundle {
            BundleFact::Unverified { .. } => None,
            BundleFact::Verified { enrollment_ref, .. } => enrollment_ref.as_ref(),
        }
    }

    /// The bundle's identity, where it verifies.
    pub fn bundle_digest(&self) -> Option<Digest> {
        match &self.bundle {
            BundleFact::Unverified { .. } => None,
            BundleFact::Verified { digest, .. } => Some(*digest),
        }
    }

    fn validity(&self) -> Option<&Validity> {
        match &self.enrollment {
            EnrollmentFact::NotEnrolled { validity } | EnrollmentFact::Enrolled { validity, .. } => Some(validity),
            EnrollmentFact::Unavailable { .. } | EnrollmentFact::Untrusted { .. } => None,
        }
    }

    /// Every sub-check with what it expected and found, in their order.
    pub fn explain(&self, now_ms: u64) -> Vec<SubCheck> {
        Attestation::ALL.iter().map(|sub_check| self.explain_one(*sub_check, now_ms)).collect()
    }

    /// `expected …, found …` of one sub-check: a frame's `detail`. That of `enrollment_stale` alone has the time in it.
    pub fn detail(&self, sub_check: Attestation, now_ms: u64) -> String {
        let SubCheck { expected, found, .. } = self.explain_one(sub_check, now_ms);
        let detail = fill("expected {}, found {}", &[&expected, &found.unwrap_or_default()]);
        cut(&detail, crate::limits::DETAIL_BYTES).to_owned()
    }

    fn explain_one(&self, reason: Attestation, now_ms: u64) -> SubCheck {
        let row = self.enrolled();
        let (expected, found) = match reason {
            Attestation::BundleUnverified => (
                "a bundle that verifies".to_owned(),
                Some(match &self.bundle {
                    BundleFact::Unverified { why } => why.clone(),
                    BundleFact::Verified { name, version, digest, .. } => {
                        fill("`{}@{}` ({})", &[name, version, &digest.text()])
                    }
                }),
            ),
            Attestation::EnrollmentRefUndeclared => (
                fill("schema {} or later with `provenance.enrollment_ref`", &[&SCHEMA_VERSION.text()]),
                match &self.bundle {
                    BundleFact::Unverified { .. } => None,
                    BundleFact::Verified { schema_version, enrollment_ref: Some(declared), .. } => {
                        Some(fill("`{}` in schema {}", &[declared.as_str(), &schema_version.text()]))
                    }
                    BundleFact::Verified { schema_version, enrollment_ref: None, .. } => {
                        Some(fill("none in schema {}", &[&schema_version.text()]))
                    }
                },
            ),
            Attestation::NodeIdUnset => (
                "a node id".to_owned(),
                Some(self.node_id.as_ref().map_or_else(|| "none".to_owned(), |id| quoted(id.as_str()))),
            ),
            Attestation::EnrollmentUnavailable => (
                "an answer from the enrollment source".to_owned(),
                Some(match &self.enrollment {
                    EnrollmentFact::Unavailable { why } => why.clone(),
                    EnrollmentFact::Untrusted { .. } => "a lease".to_owned(),
                    EnrollmentFact::NotEnrolled { .. } => "no such node".to_owned(),
                    EnrollmentFact::Enrolled { .. } => "a row".to_owned(),
                }),
            ),
            Attestation::EnrollmentUntrusted => (
                "a lease whose signature, node id and serial hold, or a row".to_owned(),
                match &self.enrollment {
                    EnrollmentFact::Unavailable { .. } => None,
                    EnrollmentFact::Untrusted { why } => Some(why.clone()),
                    EnrollmentFact::NotEnrolled { .. } | EnrollmentFact::Enrolled { .. } => Some("that".to_owned()),
                },
            ),
            Attestation::EnrollmentStale => match self.validity() {
                None => ("an answer that counts now".to_owned(), None),
                Some(validity) => {
                    let Validity { observed_at_ms, not_before_ms, not_after_ms } = validity;
                    let found = if now_ms < *not_before_ms {
                        fill(
                            "one from the future: observed at {}, now is {}",
                            &[&decimal(*observed_at_ms), &decimal(now_ms)],
                        )
                    } else {
                        fill("one of {} ms ago", &[&decimal(now_ms.saturating_sub(*observed_at_ms))])
                    };
                    let (from, to) = (decimal(*not_before_ms), decimal(*not_after_ms));
                    (fill("an answer that counts from {} to {}", &[&from, &to]), Some(found))
                }
            },
            Attestation::NotEnrolled => (
                match &self.node_id {
                    Some(node_id) => fill("an enrollment of node {}", &[&quoted(node_id.as_str())]),
                    None => "an enrollment of the node".to_owned(),
                },
                match &self.enrollment {
                    EnrollmentFact::Unavailable { .. } | EnrollmentFact::Untrusted { .. } => None,
                    EnrollmentFact::NotEnrolled { .. } => Some("no such node".to_owned()),
                    EnrollmentFact::Enrolled { enrollment, .. } => {
                        Some(fill("serial {}", &[&decimal(enrollment.serial)]))
                    }
                },
            ),
            Attestation::EnrollmentRevoked => {
                ("status `active`".to_owned(), row.map(|row| quoted(&printable(row.status.as_str()))))
            }
            Attestation::EnrollmentRefMismatch => match (self.declared_ref(), row) {
                (None, _) => ("the ref that the bundle declares".to_owned(), None),
                (Some(declared), row) => {
                    let found = row.map(|row| match row.enrollment_ref.likely_mistake(declared) {
                        Some(mistake) => fill("`{}`: {}", &[row.enrollment_ref.as_str(), mistake]),
                        None => quoted(row.enrollment_ref.as_str()),
                    });
                    (fill("`{}`, as the bundle declares", &[declared.as_str()]), found)
                }
            },
            Attestation::RolloutIncoherent => (
                "rollout state `<none>`, `pending`, `acknowledged` or `active`".to_owned(),
                row.map(|row| quoted(&printable(row.rollout_state.as_str()))),
            ),
        };
        let outcome = match (self.fails(reason, self.counts(now_ms)), &found) {
            (true, _) => SubCheckOutcome::Fail,
            (false, Some(_)) => SubCheckOutcome::Pass,
            (false, None) => SubCheckOutcome::NotJudged,
        };
        SubCheck { reason, outcome, expected, found }
    }
}

read_object!(Facts { node_id, bundle, enrollment });
read_object!(Validity { observed_at_ms, not_before_ms, not_after_ms });

impl json::Read for BundleFact {
    fn read(value: json::Value<'_>) -> Self {
        value.object(|object| {
            let state: String = object.take("state");
            if state == "verified" {
                return Self::Verified {
                    digest: object.take("digest"),
                    name: object.take("name"),
                    version: object.take("version"),
                    schema_version: object.take("schema_version"),
                    enrollment_ref: object.take("enrollment_ref"),
                };
            }
            if state != "unverified" {
                object.fail(json::Error::unknown_word(&state, "`unverified` or `verified`"));
            }
            Self::Unverified { why: object.take("why") }
        })
    }
}

impl json::Read for EnrollmentFact {
    fn read(value: json::Value<'_>) -> Self {
        value.object(|object| {
            let answer: String = object.take("answer");
            match answer.as_str() {
                "untrusted" => Self::Untrusted { why: object.take("why") },
                "not_enrolled" => Self::NotEnrolled { validity: object.take("validity") },
                "enrolled" => {
                    Self::Enrolled { enrollment: object.take("enrollment"), validity: object.take("validity") }
                }
                _ => {
                    if answer != "unavailable" {
                        let expected = "`unavailable`, `untrusted`, `not_enrolled` or `enrolled`";
                        object.fail(json::Error::unknown_word(&answer, expected));
                    }
                    Self::Unavailable { why: object.take("why") }
                }
            }
        })
    }
}

/// A word that somebody else chose, fit for a line.
fn printable(word: &str) -> String {
    shown(cut(word, 80))
}

fn quoted(text: &str) -> String {
    fill("`{}`", &[text])
}

/// One line of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SubCheck {
    /// The reason that it gives when it fails.
    #[serde(serialize_with = "as_reason")]
    #[cfg_attr(feature = "schema", schemars(with = "Attestation"))]
    pub reason: Attestation,
    /// What came of it.
    pub outcome: SubCheckOutcome,
    /// What it expected.
    pub expected: String,
    /// What it found; `None` when an earlier sub-check left nothing to look at.
    pub found: Option<String>,
}

fn as_reason<S: serde::Serializer>(reason: &Attestation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str())
}

/// What came of a sub-check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SubCheckOutcome {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// An earlier one left nothing to look at.
    NotJudged,
}
