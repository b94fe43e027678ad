use std::{ops::ControlFlow, slice};

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
};
use serde::{Deserialize, Serialize};

use super::{StoreError, rollout::RolloutStore};

/// Keeps enrollments and every change ever made to them.
///
/// Each change takes who makes it and when, is one transaction with its entry in the history, and is on disk when the
/// call returns. No row is ever deleted: a serial never starts over.
pub trait Store: Send + Sync {
    /// Enrolls a node. A revoked node may be enrolled again; its rollout state is then `<none>`, as it is after a
    /// replacement. Enrolling an active node with the ref it has changes nothing.
    ///
    /// # Errors
    /// An enrolled id differs only in case; the node is active with another ref and `if_active` does not say to
    /// replace it; the store cannot be used.
    fn enroll(
        &self,
        node_id: &NodeId,
        enrollment_ref: &EnrollmentRef,
        if_active: IfActive,
        who: &str,
        now_ms: u64,
    ) -> Result<Mutation, StoreError>;

    /// Withdraws an enrollment. Revoking a revoked node changes nothing.
    ///
    /// # Errors
    /// The node was never enrolled; the store cannot be used.
    fn revoke(&self, node_id: &NodeId, who: &str, now_ms: u64) -> Result<Mutation, StoreError>;

    /// Says where a node's rollout stands, whether or not the node is revoked. The state it has changes nothing.
    ///
    /// # Errors
    /// The state is not one of [`RolloutState::KNOWN`]; the node was never enrolled; the store cannot be used.
    fn set_rollout(
        &self,
        node_id: &NodeId,
        rollout_state: &RolloutState,
        who: &str,
        now_ms: u64,
    ) -> Result<Mutation, StoreError>;

    /// The rows of these nodes, in any order, as they stood at one instant; none for a node that was never enrolled. (Over a
    /// network: one after the other.)
    ///
    /// # Errors
    /// A row on disk does not parse; the store cannot be used.
    fn rows(&self, nodes: &[NodeId]) -> Result<Vec<Row>, StoreError>;

    /// The node's row, or nothing when it was never enrolled.
    ///
    /// # Errors
    /// The row on disk does not parse; the store cannot be used.
    fn get(&self, node_id: &NodeId) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(slice::from_ref(node_id))?.pop())
    }

    /// A page of rows, in the byte order of their node ids.
    ///
    /// # Errors
    /// A row on disk does not parse; the store cannot be used.
    fn list(&self, query: &Query) -> Result<Vec<Row>, StoreError>;

    /// How many rows have the status; all rows without one.
    ///
    /// # Errors
    /// The store cannot be used.
    fn count(&self, status: Option<&Status>) -> Result<u64, StoreError>;

    /// Shows every enrollment to `visit`, in the byte order of their node ids, as they stood at one instant, until it
    /// breaks. Holds one row at a time. (Over a network: one page at a time, each as it then stood.)
    ///
    /// # Errors
    /// A row on disk does not parse; the store cannot be used.
    fn for_each(&self, visit: &mut dyn FnMut(Enrollment) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// Up to `limit` changes of the node whose serial is above `after_serial`, oldest first.
    ///
    /// # Errors
    /// A change on disk does not parse; the store cannot be used.
    fn history(&self, node_id: &NodeId, after_serial: u64, limit: usize) -> Result<Vec<Change>, StoreError>;

    /// The revision of the latest change; 0 when there never was one.
    ///
    /// Each change has the next number, given to it in the order in which changes become visible: whoever has seen a
    /// revision has seen every one before it.
    ///
    /// # Errors
    /// The store cannot be used.
    fn revision(&self) -> Result<u64, StoreError>;

    /// Up to `limit` changes after a revision, oldest first: of one node, or of all.
    ///
    /// # Errors
    /// A change on disk does not parse; the store cannot be used.
    fn changes(&self, after: u64, node_id: Option<&NodeId>, limit: usize) -> Result<Changes, StoreError>;

    /// The rollouts of these nodes.
    fn rollouts(&self) -> &dyn RolloutStore;
}

/// What enrolling does with a node that is active with another ref.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfActive {
    /// Refuses, and shows both refs.
    Refuse,
    /// Replaces the ref.
    Replace,
}

/// Which rows to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only those with this status.
    pub status: Option<Status>,
    /// Only those whose node id comes after this one.
    pub after: Option<NodeId>,
    /// At most so many.
    pub limit: usize,
}

/// An enrollment and its dates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What decides.
    pub enrollment: Enrollment,
    /// When the node was first enrolled.
    pub created_at_ms: u64,
    /// When the row last changed.
    pub updated_at_ms: u64,
}

/// What a mutation left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// The row as it is now.
    pub row: Row,
    /// What changed; nothing when the row already was as asked.
    pub change: Option<Change>,
}

/// Changes in the order in which they were made, and how far they reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// The changes.
    pub changes: Vec<Revised>,
    /// The revision to go on after.
    pub cursor: u64,
}

/// A change and its place among all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Revised {
    /// Its place.
    pub revision: u64,
    /// The change.
    pub change: Change,
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// Who did it.
    pub who: String,
    /// When, by the clock of whoever did it.
    pub at_ms: u64,
    /// The enrollment before; nothing when the node was new.
    pub before: Option<Enrollment>,
    /// The enrollment after.
    pub after: Enrollment,
}

/// A closed set of words: in the store, on the wire, on the command line.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// What a word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().find(|this| this.as_str() == word).copied()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(super) use words;

words! {
    /// What was done to an enrollment.
    Action {
        /// A new node was enrolled.
        Enroll = "enroll",
        /// A node that was not active was enrolled again.
        Reenroll = "reenroll",
        /// An active node was given another ref.
        Replace = "replace",
        /// The enrollment was withdrawn.
        Revoke = "revoke",
        /// The rollout state was set.
        SetRollout = "set_rollout",
    }
}
