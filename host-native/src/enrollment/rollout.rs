//! Rollouts: a bundle is ordered for nodes, a directive each, and every node says how far it has come.
//!
//! Here is what is legal and what comes next, without I/O; `steps` are the transactions of any store, `sqlite` and
//! `postgres` what they are made of.

#[cfg(test)]
pub(super) mod conformance;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
mod remote;
mod sqlite;
pub(super) mod steps;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, time::Duration};

use gate_core::{Digest, NodeId, RolloutState, identity::EnrollmentRef, json, read_object};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{StoreError, one_line, store::words};
use crate::{gate::new_audit_id, oci::Pinned};

/// Between two transactions for a rollout, for whoever waits to have the turn.
pub(crate) const BETWEEN: Duration = Duration::from_millis(5);

/// Keeps rollouts and the directives of their nodes.
///
/// A directive's state is its node's rollout state: each step is one transaction with the node's row and history, so that
/// the gate, leases and the change feed have it. A node that was taken back alone stays `rolled_back` until it runs another
/// bundle. What is not legal is refused in that transaction. A node's current
/// directive is that of the latest rollout that chose it, for as long as the enrollment lasts that it was chosen under.
pub trait RolloutStore: Send + Sync {
    /// Chooses nodes and orders the bundle for them; with canaries, for those first. Others change what they will in between: it
    /// is several transactions where there are many nodes. Where it breaks off, the rollout is there with a part of them, paused
    /// until all are chosen.
    ///
    /// # Errors
    /// There is no such active node; the store cannot be used.
    fn create(&self, order: &Order, who: &str, now_ms: u64) -> Result<Rollout, StoreError>;

    /// Pauses, resumes or rolls back. What already is so changes nothing, and goes on where something broke off.
    ///
    /// # Errors
    /// There is no such rollout, or its phase does not allow it; the store cannot be used.
    fn command(&self, id: &RolloutId, command: Command, who: &str, now_ms: u64) -> Result<Rollout, StoreError>;

    /// Takes down how far a node has come, and what follows from it. The state it has changes nothing but what it waits for.
    ///
    /// # Errors
    /// The directive is not the node's current one, or the state does not follow from the one it has; the store cannot be
    /// used.
    fn report(&self, node_id: &NodeId, report: &Report, who: &str, now_ms: u64) -> Result<Directive, StoreError>;

    /// Does what is left to do, for a thousand nodes at most: what follows from a report or a revoke for more nodes than those, and
    /// what broke off. Says whether there may be more. An orchestrator asks for it again and again.
    ///
    /// # Errors
    /// The store cannot be used.
    fn go_on(&self, who: &str, now_ms: u64) -> Result<bool, StoreError>;

    /// One rollout.
    ///
    /// # Errors
    /// There is none; the store cannot be used.
    fn rollout(&self, id: &RolloutId) -> Result<Rollout, StoreError>;

    /// Up to `limit` rollouts, the latest first, in the order in which the store came to have them; those before one.
    ///
    /// # Errors
    /// The store cannot be used.
    fn latest(&self, before: Option<&RolloutId>, limit: usize) -> Result<Vec<Rollout>, StoreError>;

    /// Up to `limit` directives of a rollout, in the byte order of their nodes; those after one.
    ///
    /// # Errors
    /// The store cannot be used.
    fn directives(&self, id: &RolloutId, after: Option<&NodeId>, limit: usize) -> Result<Vec<Directive>, StoreError>;

    /// A node's current directive.
    ///
    /// # Errors
    /// The store cannot be used.
    fn directive(&self, node_id: &NodeId) -> Result<Option<Directive>, StoreError>;

    /// A node's directive of a rollout, whether or not it is the current one.
    ///
    /// # Errors
    /// The store cannot be used.
    fn directive_of(&self, node_id: &NodeId, id: &RolloutId) -> Result<Option<Directive>, StoreError>;
}

/// Whether a directive in one state may come to be in another.
///
/// `<none>` is a directive that waits for the canaries: its node is not asked for anything yet.
pub(crate) fn may_become(from: &RolloutState, to: &RolloutState) -> bool {
    use RolloutState::{Acknowledged, Active, Failed, None, Pending, RolledBack, Unknown};
    match (from, to) {
        (None, Pending)
        | (Pending, Acknowledged | Failed | RolledBack)
        | (Acknowledged, Active | Failed | RolledBack)
        | (Active, RolledBack) => true,
        (None | Pending | Acknowledged | Active | Failed | RolledBack | Unknown(_), _) => false,
    }
}

/// Names a rollout: a UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(into = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct RolloutId(String);

impl RolloutId {
    pub(super) fn generate() -> Self {
        Self(new_audit_id().to_string())
    }

    /// Reads one as it is written.
    ///
    /// # Errors
    /// [`RolloutError::Id`].
    pub fn parse(text: &str) -> Result<Self, RolloutError> {
        match Uuid::try_parse(text) {
            Ok(id) if id.hyphenated().to_string() == text => Ok(Self(text.to_owned())),
            Ok(_) | Err(_) => Err(RolloutError::Id { text: shown(text) }),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Order {
    /// The bundle, by the digest of its manifest.
    pub bundle: Pinned,
    /// The nodes.
    pub selector: Selector,
    /// How many of a hundred nodes go first, at least one; left out, all go at once.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100)))]
    pub canary_percent: Option<u64>,
}

read_object!(Order { bundle, selector, canary_percent });

impl Order {
    /// What can be refused without looking at the store.
    fn check(&self) -> Result<(), RolloutError> {
        match self.canary_percent {
            None | Some(1..=100) => Ok(()),
            Some(percent) => Err(RolloutError::Canary { percent }),
        }
    }
}

/// Which nodes, of those that are active.
///
/// As text: `all`, `node_id=<id>,…`, `enrollment_ref=<ref>` or `rollout_state=<state>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(into = "String"))]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// All of them.
    All,
    /// These, each of which must be active.
    Nodes(BTreeSet<NodeId>),
    /// Those with this enrollment ref.
    EnrollmentRef(EnrollmentRef),
    /// Those with this rollout state.
    RolloutState(RolloutState),
}

impl Selector {
    /// Reads one as it is written.
    ///
    /// # Errors
    /// [`RolloutError::Selector`].
    pub fn parse(text: &str) -> Result<Self, RolloutError> {
        let refused = |why: String| RolloutError::Selector { text: shown(text), why };
        if text == "all" {
            return Ok(Self::All);
        }
        match text.split_once('=') {
            Some(("node_id", ids)) => {
                let ids: Result<_, _> = ids.split(',').map(NodeId::parse).collect();
                ids.map(Self::Nodes).map_err(|error| refused(error.to_string()))
            }
            Some(("enrollment_ref", text)) => {
                EnrollmentRef::parse(text).map(Self::EnrollmentRef).map_err(|error| refused(error.to_string()))
            }
            Some(("rollout_state", word)) => {
                let known = RolloutState::KNOWN.iter().find(|state| state.as_str() == word);
                known.cloned().map(Self::RolloutState).ok_or_else(|| refused("no such rollout state".to_owned()))
            }
            Some(_) | None => Err(refused("it selects by nothing that nodes have".to_owned())),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Nodes(ids) => {
                let ids: Vec<&str> = ids.iter().map(NodeId::as_str).collect();
                write!(f, "node_id={}", ids.join(","))
            }
            Self::EnrollmentRef(enrollment_ref) => write!(f, "enrollment_ref={enrollment_ref}"),
            Self::RolloutState(state) => write!(f, "rollout_state={state}"),
        }
    }
}

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! as_text {
    // The last is what nobody sees: what is read where the whole text is refused.
    ($($name:ident or $unseen:expr),+) => {$(
        impl std::str::FromStr for $name {
            type Err = RolloutError;
            fn from_str(text: &str) -> Result<Self, RolloutError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = RolloutError;
            fn try_from(text: String) -> Result<Self, RolloutError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl json::Read for $name {
            fn read(value: json::Value<'_>) -> Self {
                let parsed = value.parsed(|text| Self::parse(text).map_err(|error| json::Error::new(error.to_string())));
                parsed.unwrap_or($unseen)
            }
        }
    )+};
}

as_text!(RolloutId or Self(String::new()), Selector or Self::All);

words! {
    /// How a rollout stands.
    Phase {
        /// Its directives are to be followed.
        Running = "running",
        /// No node goes on until it is resumed.
        Paused = "paused",
        /// A canary failed: no node goes on.
        Stopped = "stopped",
        /// Every node has done or failed what it was asked for.
        Finished = "finished",
        /// Taken back.
        RolledBack = "rolled_back",
    }
}

words! {
    /// When a node has its turn.
    Wave {
        /// First.
        Canary = "canary",
        /// When every canary is active; where there are none, at once.
        Rest = "rest",
    }
}

words! {
    /// What may be done to a rollout.
    Command {
        /// No node goes on.
        Pause = "pause",
        /// Nodes go on.
        Resume = "resume",
        /// Nodes that may run it go back to the bundle before; the gate fails them until they run that of another rollout.
        Rollback = "rollback",
    }
}

impl Command {
    /// The phase that follows; nothing where the rollout is in it already.
    fn applied_to(self, phase: Phase) -> Option<Option<Phase>> {
        match (self, phase) {
            (Self::Pause, Phase::Paused) | (Self::Resume, Phase::Running) | (Self::Rollback, Phase::RolledBack) => {
                Some(None)
            }
            (Self::Pause, Phase::Running) => Some(Some(Phase::Paused)),
            (Self::Resume, Phase::Paused) => Some(Some(Phase::Running)),
            (Self::Rollback, Phase::Running | Phase::Paused | Phase::Stopped | Phase::Finished) => {
                Some(Some(Phase::RolledBack))
            }
            (Self::Pause | Self::Resume, Phase::Stopped | Phase::Finished | Phase::RolledBack) => None,
        }
    }
}

/// What a node says of its directive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Report {
    /// The rollout that the directive is of.
    pub rollout_id: RolloutId,
    /// `acknowledged`, `active` or `failed`; or the state that it has, to say what is waited for.
    pub state: RolloutState,
    /// Why it failed, or what is waited for, in a line.
    pub detail: Option<String>,
}

read_object!(Report { rollout_id, state, detail });

impl Report {
    /// What can be refused without looking at the store.
    fn check(&self) -> Result<(), RolloutError> {
        match &self.state {
            RolloutState::Pending | RolloutState::Acknowledged | RolloutState::Active | RolloutState::Failed => Ok(()),
            RolloutState::None | RolloutState::RolledBack | RolloutState::Unknown(_) => {
                Err(RolloutError::NotReported { word: shown(self.state.as_str()) })
            }
        }
    }

    fn detail(&self) -> Option<String> {
        self.detail.as_deref().map(one_line)
    }
}

/// A rollout, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Its name.
    pub rollout_id: RolloutId,
    /// What is rolled out.
    pub bundle: Pinned,
    /// For whom.
    pub selector: Selector,
    /// How many of a hundred nodes go first.
    pub canary_percent: Option<u64>,
    /// How it stands.
    pub phase: Phase,
    /// Those that go first.
    pub canary: Counts,
    /// Those that come after them.
    pub rest: Counts,
    /// Who brought it to which phase, and when; the first entry is its beginning.
    pub history: Vec<PhaseChange>,
}

/// One entry of a rollout's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PhaseChange {
    /// The phase from then on.
    pub phase: Phase,
    /// Why, where nobody asked for it.
    pub detail: Option<String>,
    /// Who did it, or whose report brought it about.
    pub who: String,
    /// When, by the clock of whoever wrote it down.
    pub at_ms: u64,
}

/// Directives by their state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// `<none>`: not handed out yet.
    pub waiting: u64,
    /// Handed out.
    pub pending: u64,
    /// The node has the bundle, and it verifies.
    pub acknowledged: u64,
    /// The node runs it.
    pub active: u64,
    /// The node could not.
    pub failed: u64,
    /// Taken back.
    pub rolled_back: u64,
    /// Not followed to an end: another rollout chose the node, or its enrollment was withdrawn.
    pub withdrawn: u64,
}

impl Counts {
    fn count(&mut self, state: &RolloutState, is_current: bool, count: u64) {
        let of_state = match state {
            RolloutState::None | RolloutState::Pending | RolloutState::Acknowledged if !is_current => {
                &mut self.withdrawn
            }
            RolloutState::None => &mut self.waiting,
            RolloutState::Pending => &mut self.pending,
            RolloutState::Acknowledged => &mut self.acknowledged,
            RolloutState::Active => &mut self.active,
            RolloutState::RolledBack => &mut self.rolled_back,
            RolloutState::Failed | RolloutState::Unknown(_) => &mut self.failed,
        };
        *of_state = of_state.saturating_add(count);
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.by_name().iter().fold(0, |total, (_, count)| total.saturating_add(*count))
    }

    /// Each with its name.
    pub fn by_name(&self) -> [(&'static str, u64); 7] {
        let Self { waiting, pending, acknowledged, active, failed, rolled_back, withdrawn } = *self;
        [
            ("waiting", waiting),
            ("pending", pending),
            ("acknowledged", acknowledged),
            ("active", active),
            ("failed", failed),
            ("rolled_back", rolled_back),
            ("withdrawn", withdrawn),
        ]
    }

    fn is_under_way(&self) -> bool {
        self.pending > 0 || self.acknowledged > 0
    }
}

impl std::ops::Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            waiting: self.waiting.saturating_add(other.waiting),
            pending: self.pending.saturating_add(other.pending),
            acknowledged: self.acknowledged.saturating_add(other.acknowledged),
            active: self.active.saturating_add(other.active),
            failed: self.failed.saturating_add(other.failed),
            rolled_back: self.rolled_back.saturating_add(other.rolled_back),
            withdrawn: self.withdrawn.saturating_add(other.withdrawn),
        }
    }
}

/// What follows from how far a rollout has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing yet, or nothing any more.
    Wait,
    /// A wave has its turn.
    GoOn(Wave),
    /// Its nodes are to be taken back.
    TakeBack,
    /// A canary failed, or none is left.
    Stop(&'static str),
    /// There is nothing left to do.
    Finish,
}

impl Rollout {
    fn next(&self) -> Next {
        let Self { canary, rest, .. } = self;
        let has_canaries = self.canary_percent.is_some();
        match self.phase {
            Phase::Stopped | Phase::Finished => Next::Wait,
            Phase::RolledBack => Next::TakeBack,
            Phase::Running | Phase::Paused if canary.failed > 0 => Next::Stop("a canary failed"),
            Phase::Paused => Next::Wait,
            Phase::Running if canary.waiting > 0 => Next::GoOn(Wave::Canary),
            Phase::Running if canary.is_under_way() => Next::Wait,
            Phase::Running if rest.waiting > 0 && has_canaries && canary.active == 0 => Next::Stop("no canary is left"),
            Phase::Running if rest.waiting > 0 => Next::GoOn(Wave::Rest),
            Phase::Running if rest.is_under_way() => Next::Wait,
            Phase::Running => Next::Finish,
        }
    }
}

/// The nodes that go first: the same ones whoever asks, and others in each rollout.
fn canaries(id: &RolloutId, nodes: &[NodeId], percent: u64) -> BTreeSet<NodeId> {
    let count = u64::try_from(nodes.len()).unwrap_or(u64::MAX).saturating_mul(percent).div_ceil(100);
    let mut drawn: Vec<_> = nodes.iter().map(|node| (Digest::of(format!("{id} {node}").as_bytes()), node)).collect();
    drawn.sort();
    drawn.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)).map(|(_, node)| node.clone()).collect()
}

/// What a node is asked to do, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Directive {
    /// The rollout that it is of.
    pub rollout_id: RolloutId,
    /// Whose it is.
    pub node_id: NodeId,
    /// The ref that the node is enrolled with, which the bundle must declare.
    pub enrollment_ref: EnrollmentRef,
    /// What is to run.
    pub bundle: Pinned,
    /// How the rollout stands: only while it is `running` a node goes on.
    pub phase: Phase,
    /// When it has its turn.
    pub wave: Wave,
    /// How far it has come; `<none>` before its turn.
    pub state: RolloutState,
    /// Why it failed, or what it waits for.
    pub detail: Option<String>,
    /// Whether it is the node's latest, and its enrollment the one it was chosen under.
    pub is_current: bool,
    /// When it last changed.
    pub updated_at_ms: u64,
}

/// Why a rollout is not had, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// Not an id.
    #[error("rollout id `{text}` is no UUID: see `autonomy rollout list`")]
    Id {
        /// What was given.
        text: String,
    },
    /// No such rollout.
    #[error("there is no rollout `{rollout_id}`: see `autonomy rollout list`")]
    NotFound {
        /// What was asked for.
        rollout_id: RolloutId,
    },
    /// Not a selector.
    #[error(
        "selector `{text}` is refused ({why}): use `all`, `node_id=<id>,…`, `enrollment_ref=<ref>` or `rollout_state=<state>`"
    )]
    Selector {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a share of the nodes.
    #[error("canary `{percent}` is out of range: use 1 to 100, in percent")]
    Canary {
        /// What was given.
        percent: u64,
    },
    /// Nobody is chosen.
    #[error("no active node is selected by `{}`: see `autonomy node list`", shown(.selector))]
    NoNodes {
        /// The selector.
        selector: String,
    },
    /// A node that is named and must not run.
    #[error("node `{node_id}` is revoked: enroll it again, or leave it out")]
    Revoked {
        /// The node.
        node_id: NodeId,
    },
    /// A node that nobody has ordered anything for, since it was enrolled.
    #[error("node `{node_id}` has no directive: create a rollout for it")]
    NoDirective {
        /// The node.
        node_id: NodeId,
    },
    /// A report for another directive than the current one.
    #[error("the directive of node `{node_id}` is of rollout `{current}`, not of `{reported}`: ask for it again")]
    Superseded {
        /// The node.
        node_id: NodeId,
        /// The rollout of its current directive.
        current: RolloutId,
        /// The rollout of the report.
        reported: RolloutId,
    },
    /// A step that there is not.
    #[error("the directive of node `{node_id}` is `{from}` and cannot become `{to}`: ask for it again")]
    Transition {
        /// The node.
        node_id: NodeId,
        /// The state that it has.
        from: RolloutState,
        /// The state that was reported.
        to: RolloutState,
    },
    /// Not a node's to say.
    #[error("a node cannot report `{word}`: report `acknowledged`, `active` or `failed`, or `pending` while it waits")]
    NotReported {
        /// What was reported.
        word: String,
    },
    /// The rollout is past that.
    #[error(
        "rollout `{rollout_id}` is `{phase}`, so `{command}` is refused: create another with `autonomy rollout create`"
    )]
    Phase {
        /// The rollout.
        rollout_id: RolloutId,
        /// How it stands.
        phase: Phase,
        /// What was asked for.
        command: Command,
    },
}

/// Words of a stranger, as much of them as fits a line.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}
