//! Questions to the log: which calls there were, what came of each, what another mode would have answered, and whether
//! every decision still follows from its facts.

use gate_core::{
    AuditId, Call as CoreCall, Digest, Effect, Frame, Mode, NodeId, PolicyAnswer, PolicyRef, Reason, ToolName, Verdict,
    decision::{self, DecisionAttrs, Layer, Outcome},
    facts::Known,
    frame::Kind,
    reason::Policy,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

use crate::{
    ErrorClass,
    wal::{Reader, Record, WalError, Walk},
};

/// Why the log cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be read.
    #[error("{0}")]
    Wal(#[from] WalError),
    /// A frame holds together and its members are not what its kind has.
    #[error("frame {seq} is no `{kind}` frame: {why}; read it with the version or the program that wrote it")]
    Attrs {
        /// The frame.
        seq: u64,
        /// Its kind.
        kind: Kind,
        /// What is wrong.
        why: String,
    },
    /// No frame has this audit id.
    #[error("no frame has audit id `{audit_id}`: check the id, and that this is the log of its node")]
    NotFound {
        /// The id.
        audit_id: AuditId,
    },
}

impl AuditError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Wal(error) => error.class(),
            Self::Attrs { .. } => ErrorClass::Damaged,
            Self::NotFound { .. } => ErrorClass::Usage,
        }
    }
}

/// One call, as its decision frames tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// When it was decided: RFC 3339, UTC.
    pub ts: String,
    /// Joins its frames.
    pub audit_id: AuditId,
    /// The node.
    pub node_id: Option<NodeId>,
    /// The tool.
    pub tool: ToolName,
    /// What the caller got.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// What the gate found and `advisory` did not enforce.
    pub would_deny: Option<Reason>,
    /// What was expected and found, where there was a deny.
    pub detail: Option<String>,
    /// Which policies answered.
    pub policy_ref: Option<PolicyRef>,
    /// The mode then.
    pub mode: Mode,
    /// The facts it was decided on.
    pub facts: Digest,
    /// The time it was decided at, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Walks the calls of a log, oldest first, and keeps the facts they were decided on.
pub struct Calls {
    reader: Reader,
    /// Those of the segment: a decision stands in one with its facts, and after them.
    facts: BTreeMap<Digest, Known>,
    /// The calls of the last batch that are still to be told.
    told_next: VecDeque<Decided>,
}

/// Differences that a replay shows; the rest are counted.
const SHOWN_DIFFERENCES: usize = 100;

/// A call with its decision frames.
struct Decided {
    call: Call,
    frames: Vec<(Record, DecisionAttrs)>,
}

/// The id of a facts frame, and the text that it is the hash of: the members stand as gate-core writes them.
fn facts_of(attrs: &str) -> Option<(Digest, &str)> {
    let (id, facts) = attrs.strip_prefix("{\"id\":\"")?.split_once("\",\"facts\":")?;
    Some((id.parse().ok()?, facts.strip_suffix('}')?))
}

impl Calls {
    /// Starts at the first frame of the log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn open(log: impl Into<Walk>) -> Result<Self, AuditError> {
        Ok(Self { reader: Reader::open(log)?, facts: BTreeMap::new(), told_next: VecDeque::new() })
    }

    /// The next call; `None` when nothing more is durable now.
    ///
    /// # Errors
    /// A frame that does not hold.
    pub fn next_call(&mut self) -> Result<Option<Call>, AuditError> {
        Ok(self.next_decided()?.map(|decided| decided.call))
    }

    fn next_decided(&mut self) -> Result<Option<Decided>, AuditError> {
        let mut frames: Vec<(Record, DecisionAttrs)> = Vec::new();
        while self.told_next.is_empty()
            && let Some(record) = self.reader.next_record()?
        {
            match record.kind {
                Kind::Facts => self.keep_facts(&record)?,
                Kind::Decision => frames.push((record.clone(), attrs(&record, &record.attrs)?)),
                Kind::Lifecycle if record.begins_segment() => self.facts.clear(),
                Kind::Action | Kind::Lifecycle | Kind::Error => {}
            }
            // A batch can hold more calls than one.
            while record.left == 0
                && let Some(audit_id) = frames.first().map(|(first, _)| first.audit_id.clone())
            {
                let of_call: Vec<_> = frames.extract_if(.., |(frame, _)| frame.audit_id == audit_id).collect();
                self.told_next.extend(summary(&of_call).map(|call| Decided { call, frames: of_call }));
            }
        }
        Ok(self.told_next.pop_front())
    }

    fn keep_facts(&mut self, record: &Record) -> Result<(), AuditError> {
        let wrong = |why: String| AuditError::Attrs { seq: record.seq, kind: record.kind, why };
        let (id, facts) = facts_of(&record.attrs).ok_or_else(|| wrong("it has other members".to_owned()))?;
        if Digest::of(facts.as_bytes()) != id {
            return Err(wrong(format!("its facts are not those of id `{id}`")));
        }
        self.facts.insert(id, Known::new(attrs(record, facts)?));
        Ok(())
    }
}

fn attrs<'a, T: Deserialize<'a>>(record: &Record, text: &'a str) -> Result<T, AuditError> {
    let failed =
        |error: serde_json::Error| AuditError::Attrs { seq: record.seq, kind: record.kind, why: error.to_string() };
    serde_json::from_str(text).map_err(failed)
}

/// What the decision frames of one batch say together.
fn summary(frames: &[(Record, DecisionAttrs)]) -> Option<Call> {
    let (record, policy) = frames.first()?;
    let found = frames.iter().map(|(_, attrs)| attrs).find(|attrs| attrs.layer == Layer::Attestation);
    let enforced = found.filter(|attrs| attrs.enforced);
    let decisive = enforced.unwrap_or(policy);
    Some(Call {
        ts: record.ts.clone(),
        audit_id: record.audit_id.clone(),
        node_id: record.node_id.clone(),
        tool: policy.tool.clone(),
        outcome: decisive.outcome,
        reason: decisive.reason,
        would_deny: found.filter(|attrs| !attrs.enforced).map(|attrs| attrs.reason),
        detail: found.unwrap_or(policy).detail.clone(),
        policy_ref: policy.policy_ref.clone(),
        mode: policy.mode,
        facts: policy.facts,
        now_ms: policy.now_ms,
    })
}

/// One call with every frame that has its audit id: facts, decisions, and what the tool did.
#[derive(Debug, Clone)]
pub struct Trail {
    /// The call; `None` for an id that only lifecycle frames have.
    pub call: Option<Call>,
    /// The frames, oldest first.
    pub frames: Vec<Record>,
    /// Why there may be more: the log cannot be read further.
    pub broken: Option<WalError>,
}

/// Everything the log holds of one audit id, up to what of it cannot be read.
///
/// # Errors
/// Nothing that can be read has this id.
pub fn get(log: impl Into<Walk>, audit_id: &AuditId) -> Result<Trail, AuditError> {
    let mut reader = Reader::open(log)?;
    let (mut frames, mut decisions, mut whole) = (Vec::new(), Vec::new(), 0);
    let broken = loop {
        let record = match reader.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        if record.left == 0 {
            whole = record.seq;
        }
        if record.audit_id == *audit_id {
            if record.kind == Kind::Decision {
                decisions.push((record.clone(), attrs(&record, &record.attrs)?));
            }
            frames.push(record);
        }
    };
    // What the policy allowed the gate may have denied, in a later frame of the same batch.
    decisions.retain(|(record, _)| record.seq <= whole);
    match broken {
        Some(error) if frames.is_empty() => Err(error.into()),
        None if frames.is_empty() => Err(AuditError::NotFound { audit_id: audit_id.clone() }),
        broken => Ok(Trail { call: summary(&decisions), frames, broken }),
    }
}

/// What a mode would have answered to the calls in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The mode.
    pub mode: Mode,
    /// Calls that were looked at: those that the policy allowed.
    pub calls: u64,
    /// Calls that fail the gate: `enforce` would have denied them, `advisory` would have written that down.
    pub failing: u64,
    /// Calls whose facts the log does not hold, so that nothing can be said of them.
    pub unjudged: u64,
    /// Whether turning the mode on would have denied nothing. Never true of an empty log.
    pub safe: bool,
    /// The failing calls by reason and node, most frequent first.
    pub findings: Vec<Finding>,
}

/// The failing calls of one reason and node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Why they fail.
    pub reason: Reason,
    /// The node.
    pub node_id: Option<NodeId>,
    /// How many.
    pub calls: u64,
    /// The first: RFC 3339, UTC.
    pub first: String,
    /// The last: RFC 3339, UTC.
    pub last: String,
    /// The audit id of the last, to look at.
    pub last_audit_id: AuditId,
}

/// Decides the calls of a log again as if `mode` had been on, from the facts that they were decided on.
///
/// # Errors
/// The log cannot be read.
pub fn preview(log: impl Into<Walk>, mode: Mode, since_ms: Option<u64>) -> Result<Preview, AuditError> {
    let mut calls = Calls::open(log)?;
    let mut preview = Preview { mode, calls: 0, failing: 0, unjudged: 0, safe: false, findings: Vec::new() };
    let mut findings: BTreeMap<(Reason, Option<NodeId>), Finding> = BTreeMap::new();
    while let Some(Decided { call, frames }) = calls.next_decided()? {
        let allowed = frames.first().is_some_and(|(_, policy)| policy.outcome == Outcome::Allow);
        if !allowed || since_ms.is_some_and(|since_ms| call.now_ms < since_ms) {
            continue;
        }
        preview.calls += 1;
        let Some(facts) = calls.facts.get(&call.facts) else {
            preview.unjudged += 1;
            continue;
        };
        let (_, verdict) = Effect::of(mode, Policy::Allowed, || facts.verdict(call.now_ms));
        if let Some(Verdict::Fail(reason)) = verdict {
            preview.failing += 1;
            let key = (Reason::from(reason), call.node_id.clone());
            let finding = findings.entry(key).or_insert_with(|| Finding {
                reason: reason.into(),
                node_id: call.node_id.clone(),
                calls: 0,
                first: call.ts.clone(),
                last: String::new(),
                last_audit_id: call.audit_id.clone(),
            });
            finding.calls += 1;
            finding.last = call.ts;
            finding.last_audit_id = call.audit_id;
        }
    }
    preview.findings = findings.into_values().collect();
    Ok(preview.judged())
}

impl Preview {
    /// Of the logs of several nodes, what they say together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.calls += other.calls;
        self.failing += other.failing;
        self.unjudged += other.unjudged;
        for finding in other.findings {
            let same = |known: &&mut Finding| (known.reason, &known.node_id) == (finding.reason, &finding.node_id);
            match self.findings.iter_mut().find(same) {
                Some(known) => known.add(finding),
                None => self.findings.push(finding),
            }
        }
        self.judged()
    }

    fn judged(mut self) -> Self {
        let denies_nothing = match self.mode {
            Mode::Off | Mode::Advisory => true,
            Mode::Enforce => self.failing == 0 && self.unjudged == 0,
        };
        self.safe = self.calls > 0 && denies_nothing;
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.calls));
        self
    }
}

impl Finding {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        // Of one form, so that they sort as text.
        if other.first < self.first {
            self.first = other.first;
        }
        if other.last > self.last {
            (self.last, self.last_audit_id) = (other.last, other.last_audit_id);
        }
    }
}

/// What came of deciding a whole log again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Calls that were decided again.
    pub calls: u64,
    /// Calls that came out as the log says, byte for byte.
    pub same: u64,
    /// Calls that did not.
    pub different: u64,
    /// Calls whose facts the log does not hold, so that they cannot be decided again.
    pub unjudged: u64,
    /// The first hundred that did not come out as the log says.
    pub differences: Vec<Difference>,
}

/// A call that does not follow from its facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The first decision frame of the call.
    pub seq: u64,
    /// The call.
    pub audit_id: AuditId,
    /// What the log says: the node and the frame's `attrs`.
    pub logged: Vec<String>,
    /// What the facts say.
    pub decided: Vec<String>,
}

/// Decides every call of a log again, from the facts, the mode and the time that the log holds.
///
/// # Errors
/// The log cannot be read.
pub fn replay(log: impl Into<Walk>, since_ms: Option<u64>) -> Result<Replay, AuditError> {
    let mut calls = Calls::open(log)?;
    let mut replay = Replay { calls: 0, same: 0, different: 0, unjudged: 0, differences: Vec::new() };
    while let Some(Decided { call, frames }) = calls.next_decided()? {
        if since_ms.is_some_and(|since_ms| call.now_ms < since_ms) {
            continue;
        }
        replay.calls += 1;
        let Some(facts) = calls.facts.get(&call.facts) else {
            replay.unjudged += 1;
            continue;
        };
        let decided = redecide(&call, &frames, facts);
        let logged = frames.iter().map(|(record, _)| (record.node_id.as_ref(), record.attrs.as_str()));
        let again = decided.iter().map(|frame| (frame.node_id.as_ref(), frame.attrs.as_str()));
        if logged.clone().eq(again.clone()) {
            replay.same += 1;
            continue;
        }
        replay.different += 1;
        if replay.differences.len() == SHOWN_DIFFERENCES {
            continue;
        }
        replay.differences.push(Difference {
            seq: frames.first().map_or(0, |(record, _)| record.seq),
            audit_id: call.audit_id,
            logged: logged.map(said).collect(),
            decided: again.map(said).collect(),
        });
    }
    Ok(replay)
}

/// What a frame says, of which node.
fn said((node_id, attrs): (Option<&NodeId>, &str)) -> String {
    format!("{}: {attrs}", node_id.map_or("<none>", NodeId::as_str))
}

fn redecide(call: &Call, frames: &[(Record, DecisionAttrs)], facts: &Known) -> Vec<Frame> {
    let Some((_, policy)) = frames.first() else { return Vec::new() };
    let Reason::Policy(reason) = policy.reason else { return Vec::new() };
    let answer = PolicyAnswer { policy_ref: policy.policy_ref.clone(), reason, detail: policy.detail.clone() };
    let again = CoreCall { audit_id: call.audit_id.clone(), tool: call.tool.clone(), policy: answer };
    decision::decide(call.mode, facts, again, call.now_ms).frames
}

#[cfg(test)]
mod tests {
    use gate_core::{Config, Freshness, Gate};

    use super::*;
    use crate::wal::{Options, Wal};

    const CALL: &str = "0199aaaa-0000-7000-8000-000000000000";

    fn node(id: &str) -> NodeId {
        NodeId::parse(id).unwrap()
    }

    /// The facts and the two decisions of a call on robot-7 that the policy allows, and the gate does not.
    fn frames(mode: Mode) -> Vec<Frame> {
        frames_of("robot-7", mode)
    }

    fn frames_of(node_id: &str, mode: Mode) -> Vec<Frame> {
        let gate = Gate::new(Config {
            mode,
            node_id: Some(node(node_id)),
            bundle_keys: None,
            lease_keys: None,
            freshness: Freshness::default(),
        });
        let audit_id = AuditId::parse(CALL).unwrap();
        let policy = PolicyAnswer { policy_ref: None, reason: Policy::Allowed, detail: None };
        let call = CoreCall { audit_id: audit_id.clone(), tool: ToolName::parse("tool.echo").unwrap(), policy };
        let mut frames = vec![gate.facts_frame(audit_id)];
        frames.extend(gate.decide(call, 1_767_225_600_000).frames);
        assert_eq!(frames.len(), 3);
        frames
    }

    #[test]
    fn a_call_in_a_damaged_log_is_shown_as_far_as_it_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
        wal.append(frames(Mode::Enforce)).wait().unwrap();
        let later = Frame { audit_id: AuditId::parse("later").unwrap(), ..frames(Mode::Enforce).remove(0) };
        wal.append(vec![later]).wait().unwrap();
        wal.close().unwrap();
        let path = dir.path().join("telemetry.wal");
        let log = std::fs::read(&path).unwrap();
        let starts: Vec<_> = memchr::memmem::find_iter(&log, b"{\"seq\":").collect();
        let asked = |id: &str| get(dir.path(), &AuditId::parse(id).unwrap());
        let shown = |damaged: usize| {
            let mut bytes = log.clone();
            bytes[starts[damaged] + 20] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(asked("later"), Err(AuditError::Wal(WalError::CommittedLost { .. }))));
            asked(CALL).map(|trail| (trail.call.map(|call| call.outcome), trail.frames.len(), trail.broken.is_some()))
        };
        assert_eq!(shown(3).unwrap(), (Some(Outcome::Deny), 3, true));
        assert_eq!(shown(2).unwrap(), (None, 2, true), "what came of it is not known without its last frame");
        assert_eq!(shown(1).unwrap(), (None, 1, true));
        assert!(matches!(shown(0), Err(AuditError::Wal(WalError::CommittedLost { .. }))));
        std::fs::write(&path, &log).unwrap();
        assert!(asked(CALL).unwrap().broken.is_none());
        assert!(matches!(asked("none"), Err(AuditError::NotFound { .. })));
    }

    #[test]
    fn a_decision_of_another_node_than_its_facts_does_not_follow_from_them() {
        let mut frames = frames(Mode::Advisory);
        let replayed = |frames: &[Frame]| {
            let dir = tempfile::tempdir().unwrap();
            let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
            wal.append(frames.to_vec()).wait().unwrap();
            wal.close().unwrap();
            replay(dir.path(), None).unwrap()
        };
        let Replay { same, different, .. } = replayed(&frames);
        assert_eq!((same, different), (1, 0));
        for frame in &mut frames {
            frame.node_id = Some(node("robot-8"));
        }
        let Replay { same, different, differences, .. } = replayed(&frames);
        assert_eq!((same, different), (0, 1));
        let [logged, decided] = [&differences[0].logged[0], &differences[0].decided[0]];
        assert!(logged.starts_with("robot-8: {") && decided.starts_with("robot-7: {"), "{differences:?}");
    }

    fn another_call(frames: &[Frame]) -> Vec<Frame> {
        let audit_id = AuditId::parse("another").unwrap();
        frames.iter().skip(1).map(|frame| Frame { audit_id: audit_id.clone(), ..frame.clone() }).collect()
    }

    #[test]
    fn each_call_of_a_batch_is_a_call() {
        let (denied, warned) = (frames(Mode::Enforce), frames(Mode::Advisory));
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
        let mixed = [&warned[..1], &denied, &another_call(&warned)].concat();
        wal.append(mixed).wait().unwrap();
        wal.close().unwrap();
        let mut calls = Calls::open(dir.path()).unwrap();
        let mut seen = Vec::new();
        while let Some(Call { audit_id, outcome, would_deny, .. }) = calls.next_call().unwrap() {
            seen.push((audit_id.to_string(), outcome, would_deny.is_some()));
        }
        assert_eq!(seen, [(CALL.to_owned(), Outcome::Deny, false), ("another".to_owned(), Outcome::Allow, true)]);
        let Preview { calls, failing, unjudged, .. } = preview(dir.path(), Mode::Enforce, None).unwrap();
        assert_eq!((calls, failing, unjudged), (2, 2, 0));
        let Replay { same, different, .. } = replay(dir.path(), None).unwrap();
        assert_eq!((same, different), (2, 0));
    }

    /// A runtime whose facts stay as they are shares the log with one whose facts change all the time.
    #[test]
    fn facts_count_to_the_end_of_their_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
        let constant = frames(Mode::Advisory);
        let facts = |at: u32| frames_of(&format!("other-{at}"), Mode::Advisory).remove(0);
        drop(wal.append(constant.clone()));
        for from in (0..3_000).step_by(500) {
            drop(wal.append((from..from + 500).map(facts).collect()));
        }
        wal.append(another_call(&constant)).wait().unwrap();
        wal.close().unwrap();
        let Replay { same, different, .. } = replay(dir.path(), None).unwrap();
        assert_eq!((same, different), (2, 0));
    }
}
