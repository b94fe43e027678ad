//! What decides behind a gate: gate-core itself, or the same as a module.

use gate_core::{Answer, Call, Digest, Effect, Frame, Verdict, facts::SubCheck};

use super::OpenError;

/// What decides: gate-core itself, or the same as a module.
pub(crate) trait Core: Send {
    /// Makes a bundle the active one. Where it is refused, the one that was active stays so.
    fn load_bundle(&mut self, tar: &[u8]) -> Result<(), OpenError>;

    fn set_enrollment(&mut self, answer: Answer);

    /// Takes a lease. One that does not hold makes the enrollment untrusted.
    fn set_lease(&mut self, envelope: &[u8]);

    /// Decides a call. The frame of the facts comes first where they are not those that are logged.
    ///
    /// # Errors
    /// There is no decision, so there is nothing to write down.
    fn decide(&mut self, call: Call, now_ms: u64, facts_logged: Option<Digest>) -> Result<Decided, NoDecision>;

    fn facts_id(&mut self) -> Result<Digest, NoDecision>;

    fn explain(&mut self, now_ms: u64) -> Result<Vec<SubCheck>, NoDecision>;
}

/// Why nothing could decide. gate-core always can.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoDecision(pub(crate) String);

/// What came of a call.
pub(crate) struct Decided {
    pub(crate) effect: Effect,
    pub(crate) verdict: Option<Verdict>,
    /// The id of the facts that it was decided on.
    pub(crate) facts: Digest,
    pub(crate) frames: Vec<Frame>,
}

impl Core for gate_core::Gate {
    fn load_bundle(&mut self, tar: &[u8]) -> Result<(), OpenError> {
        Self::load_bundle(self, tar).map(drop).map_err(OpenError::Bundle)
    }

    fn set_enrollment(&mut self, answer: Answer) {
        Self::set_enrollment(self, answer);
    }

    fn set_lease(&mut self, envelope: &[u8]) {
        if let Err(error) = Self::set_lease(self, envelope) {
            tracing::warn!("a lease is not trusted: {error}");
        }
    }

    fn decide(&mut self, call: Call, now_ms: u64, facts_logged: Option<Digest>) -> Result<Decided, NoDecision> {
        let facts = Self::facts_id(self);
        let facts_frame = (facts_logged != Some(facts)).then(|| self.facts_frame(call.audit_id.clone()));
        let gate_core::Decision { effect, verdict, mut frames } = Self::decide(self, call, now_ms);
        frames.splice(0..0, facts_frame);
        Ok(Decided { effect, verdict, facts, frames })
    }

    fn facts_id(&mut self) -> Result<Digest, NoDecision> {
        Ok(Self::facts_id(self))
    }

    fn explain(&mut self, now_ms: u64) -> Result<Vec<SubCheck>, NoDecision> {
        Ok(Self::explain(self, now_ms))
    }
}
