//! The gate: one node's facts, and the decisions on them.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use crate::{
    bundle::{Bundle, BundleError},
    decision::{self, Call, Decision, Effect},
    digest::Digest,
    enrollment::{Answer, RolloutState, Status},
    facts::{BundleFact, EnrollmentFact, Facts, Known, SubCheck, Validity, Verdict},
    frame::{self, Frame, Kind},
    identity::{AuditId, NodeId},
    json,
    key::TrustedKeys,
    lease::{Lease, LeaseError},
    limits,
    mode::Mode,
    text::{cut, fill},
};

/// What a gate is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// How far it is turned on.
    pub mode: Mode,
    /// Which node this is. `None` denies every call that the gate is asked about.
    pub node_id: Option<NodeId>,
    /// Who may sign bundles. `None` refuses every bundle.
    pub bundle_keys: Option<TrustedKeys>,
    /// Who may sign leases. `None` refuses every lease.
    pub lease_keys: Option<TrustedKeys>,
    /// When an answer counts.
    pub freshness: Freshness,
}

/// How old an enrollment answer may be, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How long a row or a "no such node" counts after it was observed. A lease counts until it expires.
    pub max_staleness_ms: u64,
    /// How far the source's clock may be ahead of this one.
    pub max_skew_ms: u64,
}

impl Freshness {
    /// When a row, or a "no such node", counts that was observed at `observed_at_ms`.
    pub fn validity(self, observed_at_ms: u64) -> Validity {
        Validity {
            observed_at_ms,
            not_before_ms: observed_at_ms.saturating_sub(self.max_skew_ms),
            not_after_ms: observed_at_ms.saturating_add(self.max_staleness_ms),
        }
    }
}

impl Default for Freshness {
    /// A minute, and no skew: the source is on this machine.
    fn default() -> Self {
        Self { max_staleness_ms: 60_000, max_skew_ms: 0 }
    }
}

/// Decides whether a tool may run on this node now.
///
/// It does no I/O, reads no clock and draws no random numbers: bytes, answers and the time come in as arguments,
/// decisions and the frames to write go out. The host owns files, sockets and clocks.
#[derive(Debug, Clone)]
pub struct Gate {
    config: Config,
    known: Known,
    lease_serial: u64,
}

impl Gate {
    /// A gate of which only the configuration is known: every verdict fails until it is told more.
    pub fn new(config: Config) -> Self {
        let known = Known::new(Facts::unknown(config.node_id.clone()));
        Self { config, known, lease_serial: 0 }
    }

    /// Makes a bundle the active one and hands it back for its policies to be read.
    ///
    /// # Errors
    /// Why it is refused. The bundle that was active stays so; where there was none, the facts say why.
    pub fn load_bundle<'a>(&mut self, tar: &'a [u8]) -> Result<Bundle<'a>, BundleError> {
        let verified = match &self.config.bundle_keys {
            Some(keys) => Bundle::verify(tar, keys),
            None => Err(BundleError::NoTrustedKeys),
        };
        match &verified {
            Ok(bundle) => self.set_bundle(BundleFact::Verified {
                digest: bundle.digest,
                name: bundle.manifest.name.clone(),
                version: bundle.manifest.version.clone(),
                schema_version: bundle.manifest.schema_version,
                enrollment_ref: bundle.manifest.declared_ref().cloned(),
            }),
            Err(error) => self.set_unverified(&error.text()),
        }
        verified
    }

    /// Says why there is no bundle. One that is active stays so.
    pub fn set_unverified(&mut self, why: &str) {
        if matches!(self.facts().bundle, BundleFact::Unverified { .. }) {
            self.set_bundle(BundleFact::Unverified { why: bounded(why) });
        }
    }

    /// Takes a source's answer about this node.
    pub fn set_enrollment(&mut self, answer: Answer) {
        self.set_enrollment_fact(match answer {
            Answer::Unavailable { why } => EnrollmentFact::Unavailable { why: bounded(&why) },
            Answer::NotEnrolled { observed_at_ms } => {
                EnrollmentFact::NotEnrolled { validity: self.config.freshness.validity(observed_at_ms) }
            }
            Answer::Enrolled { enrollment, observed_at_ms } => match &self.config.node_id {
                Some(node_id) if *node_id != enrollment.node_id => EnrollmentFact::Unavailable {
                    why: fill(
                        "the source answered for node `{}`, this node is `{}`",
                        &[enrollment.node_id.as_str(), node_id.as_str()],
                    ),
                },
                _ => EnrollmentFact::Enrolled { enrollment, validity: self.config.freshness.validity(observed_at_ms) },
            },
        });
    }

    /// Takes a lease: a DSSE envelope in its canonical form.
    ///
    /// # Errors
    /// Why it is not trusted; the verdict then fails `enrollment_untrusted`.
    pub fn set_lease(&mut self, envelope: &[u8]) -> Result<(), LeaseError> {
        let keys = self.config.lease_keys.as_ref();
        match Lease::verify(envelope, keys, self.config.node_id.as_ref(), self.lease_serial) {
            Ok(lease) => {
                self.lease_serial = lease.serial;
                let validity = Validity {
                    observed_at_ms: lease.issued_at_ms,
                    not_before_ms: lease.issued_at_ms.saturating_sub(self.config.freshness.max_skew_ms),
                    not_after_ms: lease.expires_at_ms,
                };
                self.set_enrollment_fact(EnrollmentFact::Enrolled { enrollment: lease.into_enrollment(), validity });
                Ok(())
            }
            Err(error) => {
                self.set_enrollment_fact(EnrollmentFact::Untrusted { why: bounded(&error.text()) });
                Err(error)
            }
        }
    }

    /// The verdict at `now_ms`, milliseconds since the Unix epoch. Never looks at the mode; allocates nothing.
    pub fn verdict(&self, now_ms: u64) -> Verdict {
        self.known.verdict(now_ms)
    }

    /// Decides a call at `now_ms`, milliseconds since the Unix epoch.
    pub fn decide(&self, call: Call, now_ms: u64) -> Decision {
        decision::decide(self.config.mode, &self.known, call, now_ms)
    }

    /// Decides as [`Self::decide`] does, and appends the frames as a JSON list: for a host that hands them on as text. That of
    /// the facts comes first, unless `logged` is their id.
    ///
    /// `ends` is told where in `frames` the audit id, the tool and the time of each decision frame end, in this order: what else
    /// stands in it follows from the facts, the policy's answer and the verdict, and, where that is `enrollment_stale`, the time.
    pub fn decide_to(
        &self,
        frames: &mut Vec<u8>,
        mut ends: impl FnMut(usize),
        call: Call,
        logged: Option<Digest>,
        now_ms: u64,
    ) -> (Effect, Option<Verdict>) {
        let Call { audit_id, tool, policy } = call;
        let parts = self.known.parts();
        frames.push(b'[');
        if logged != Some(self.facts_id()) {
            frames.push(b'{');
            frame::write_head(frames, Kind::Facts, &audit_id);
            json::put(frames, &[&parts.node_id, &self.facts_attrs(), "},"]);
        }
        let decided = decision::decide_with(self.config.mode, &self.known, tool, policy, now_ms, |attrs| {
            frames.push(b'{');
            frame::write_head(frames, Kind::Decision, &audit_id);
            ends(frames.len());
            json::put(frames, &[&parts.node_id]);
            attrs.write_to(frames, parts, &mut ends);
            frames.extend_from_slice(b"},");
        });
        // The comma behind the last one.
        frames.pop();
        frames.push(b']');
        decided
    }

    /// Every sub-check at `now_ms` with what it expected and found, in their order.
    pub fn explain(&self, now_ms: u64) -> Vec<SubCheck> {
        self.facts().explain(now_ms)
    }

    /// What the gate decides on now.
    pub fn facts(&self) -> &Facts {
        self.known.facts()
    }

    /// The id of what the gate decides on now: it changes exactly when the facts do.
    pub fn facts_id(&self) -> Digest {
        self.known.id()
    }

    /// The frame that writes the facts down. It must be durable no later than the first decision on them.
    pub fn facts_frame(&self, audit_id: AuditId) -> Frame {
        Frame { kind: Kind::Facts, audit_id, node_id: self.facts().node_id.clone(), attrs: self.facts_attrs() }
    }

    fn facts_attrs(&self) -> String {
        let mut attrs = String::from("{\"id\":");
        attrs.push_str(&json::write(&self.facts_id()));
        attrs.push_str(",\"facts\":");
        attrs.push_str(&self.facts().to_json());
        attrs.push('}');
        attrs
    }

    /// What the gate was told once.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn set_bundle(&mut self, bundle: BundleFact) {
        self.known.change(|facts| facts.bundle = bundle);
    }

    fn set_enrollment_fact(&mut self, mut fact: EnrollmentFact) {
        if let EnrollmentFact::Enrolled { enrollment, .. } = &mut fact {
            // Words are kept as the log will read them back: bounded, and never `Unknown` of a known one.
            enrollment.status = Status::from(bounded(enrollment.status.as_str()));
            enrollment.rollout_state = RolloutState::from(bounded(enrollment.rollout_state.as_str()));
        }
        self.known.change(|facts| facts.enrollment = fact);
    }
}

fn bounded(why: &str) -> String {
    cut(why, limits::DETAIL_BYTES).to_owned()
}
