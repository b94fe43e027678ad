use std::{error::Error, io, path::PathBuf};

use gate_core::{
    enrollment::RolloutState,
    identity::{EnrollmentRef, NodeId},
};

#[cfg(feature = "postgres")]
use super::PostgresError;
use super::{RemoteError, rollout::RolloutError};
use crate::{ErrorClass, file};

/// Why a store refused or could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Two ids that people would read as one.
    #[error(
        "node id `{node_id}` differs only in case from the enrolled `{existing}`: use `{existing}`, or choose another id"
    )]
    CaseConflict {
        /// The id that was asked for.
        node_id: NodeId,
        /// The id that is there.
        existing: NodeId,
    },
    /// The node is active with another ref.
    #[error(
        "node `{node_id}` is active with enrollment ref `{existing}`, not `{requested}`: revoke it first, or replace the ref with `--replace`"
    )]
    RefConflict {
        /// The node.
        node_id: NodeId,
        /// The ref it is enrolled with.
        existing: EnrollmentRef,
        /// The ref that was asked for.
        requested: EnrollmentRef,
    },
    /// No such node.
    #[error("node `{node_id}` is not enrolled: {}", not_enrolled_remedy(.close.as_ref()))]
    NotEnrolled {
        /// The id that was asked for.
        node_id: NodeId,
        /// An enrolled id that differs only in case.
        close: Option<NodeId>,
    },
    /// A word that is not a rollout state.
    #[error("rollout state `{}` is not known: use one of {}", .word.escape_debug(), known_rollout_states())]
    UnknownRolloutState {
        /// The word.
        word: String,
    },
    /// A change without an author whom the history could name.
    #[error("who makes the change, `{}`, is not a name: use 1 to 256 bytes without control characters", .who.escape_debug())]
    Author {
        /// What was given.
        who: String,
    },
    /// A time that no clock tells.
    #[error("time {now_ms} is out of range: give milliseconds since the Unix epoch")]
    Time {
        /// What was given.
        now_ms: u64,
    },
    /// There is no file.
    #[error("no enrollment database at `{}`: correct the path, or enroll a node to create it", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A pipe, a device or a directory, which could keep its reader waiting for ever.
    #[error("`{}` is not a regular file: correct the path, or put the database there", .path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// A file of another program.
    #[error("`{}` is not an enrollment database (application id {application_id:#010x}): correct the path", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose file it says it is.
        application_id: i32,
    },
    /// Written by a later version.
    #[error("`{}` has schema version {found} and this version knows {known}: use a newer `autonomy`", .path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i32,
        /// The latest version known here.
        known: i32,
    },
    /// Written by an earlier version, and opened for reading only.
    #[error("`{}` has schema version {found} and this version reads {known}: open it once for writing, as any change does", .path.display())]
    OlderSchema {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i32,
        /// The version read here.
        known: i32,
    },
    /// A change to a store that was opened for reading only.
    #[error("`{}` was opened for reading only: open it for writing to change it", .path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// A value on disk that no version of this program wrote.
    #[error(
        "`{column}` of node `{}` is `{}` on disk ({why}): correct it there, or restore the database from a backup",
        .node_id.escape_debug(),
        .value.escape_debug()
    )]
    Damaged {
        /// The node id as it is on disk.
        node_id: String,
        /// The column.
        column: &'static str,
        /// The value as it is on disk.
        value: String,
        /// The rule that it breaks.
        why: String,
    },
    /// A file that the database engine did not write.
    #[error("`{}` is not a database: correct the path, or restore it from a backup", .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The database engine found the file damaged.
    #[error("`{}` is damaged ({source}): restore it from a backup", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the engine says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file, its log or its index is no longer the one that was opened.
    #[error("`{}` was deleted, replaced or emptied while in use: restart what uses it", .path.display())]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// A row that was read before is an older one now, or gone: the file was restored, or is another.
    #[error("`{}` went back: node `{node_id}` has serial {found} and had {seen}; put the newer database back, or restart the runtime to accept the older one", .path.display())]
    WentBack {
        /// The file.
        path: PathBuf,
        /// The node that was asked for.
        node_id: NodeId,
        /// The serial that was seen.
        seen: u64,
        /// The serial now; 0 when there is no row.
        found: u64,
    },
    /// Another process holds the file.
    #[error("`{}` is locked by another process: try again, or find the holder with `fuser`", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} `{}` ({source}): {}", .path.display(), file::remedy(source, "check that the directory is there and may be written"))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A rollout is not had, or not changed.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// The orchestrator refused, or could not be asked.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The PostgreSQL database did not do it.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The database engine refused.
    #[error("cannot use `{}` ({source}): check the disk and who may read and write it", .path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// What the engine says.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether to correct the request or the thing it needs.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::CaseConflict { .. }
            | Self::RefConflict { .. }
            | Self::NotEnrolled { .. }
            | Self::UnknownRolloutState { .. }
            | Self::Author { .. }
            | Self::NotAFile { .. }
            | Self::ReadOnly { .. }
            | Self::Rollout(_)
            | Self::Time { .. } => ErrorClass::Usage,
            Self::Remote(error) => error.class(),
            #[cfg(feature = "postgres")]
            Self::Postgres(error) => error.class(),
            Self::Missing { .. }
            | Self::Foreign { .. }
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::Damaged { .. }
            | Self::NotADatabase { .. }
            | Self::Corrupt { .. }
            | Self::Moved { .. }
            | Self::WentBack { .. }
            | Self::Locked { .. }
            | Self::Io { .. }
            | Self::Engine { .. } => ErrorClass::Unavailable,
        }
    }
}

fn not_enrolled_remedy(close: Option<&NodeId>) -> String {
    match close {
        Some(close) => format!("`{close}` is, did you mean that?"),
        None => "see `autonomy node list` for those that are".to_owned(),
    }
}

fn known_rollout_states() -> String {
    let words: Vec<String> = RolloutState::KNOWN.iter().map(|state| format!("`{state}`")).collect();
    words.join(", ")
}
