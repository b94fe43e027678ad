//! What can go wrong with the log, and whose turn it is.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use super::segment::Segment;
use crate::{ErrorClass, file::shell_word};

/// Why the log refused. Every message is one line: the cause, then the remedy.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// A file operation failed while the log was being opened, read or repaired.
    #[error("cannot {op} `{}` ({source}): {}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process has the log open for writing.
    #[error("log at `{}` is in use{}: stop that process, or choose another directory with `--wal-dir`", dir.display(), by(*pid))]
    Locked {
        /// The log's directory.
        dir: PathBuf,
        /// The writer's process id, where it is known.
        pid: Option<u32>,
    },
    /// Another process drains the log.
    #[error("log at `{}` is being drained{}: stop that process, or let it do the work", dir.display(), by(*pid))]
    DrainLocked {
        /// The log's directory.
        dir: PathBuf,
        /// The other's process id, where it is known.
        pid: Option<u32>,
    },
    /// It cannot be told what was drained.
    #[error("cannot tell what was drained of the log at `{}`: {why}; restore `telemetry.pos`, or remove it to send the log from its start, with the same ids", dir.display())]
    Position {
        /// The log's directory.
        dir: PathBuf,
        /// What is wrong with `telemetry.pos`.
        why: String,
    },
    /// There is no log to read.
    #[error("no log at `{}`: start a runtime with this directory or name another one", dir.display())]
    NoLog {
        /// The directory that was named.
        dir: PathBuf,
    },
    /// Its segments are gone, yet frames were committed to them.
    #[error("log at `{}` is gone, {committed} frames were committed; restore its segments or run `autonomy wal doctor --wal-dir {}`", dir.display(), shell_word(dir))]
    LogLost {
        /// The log's directory.
        dir: PathBuf,
        /// What `telemetry.safe_seq` says.
        committed: u64,
    },
    /// The log begins in the middle, and does not say why.
    #[error("log at `{}` begins with frame {first}, and no frame in it says that what came before was pruned; restore the segments before it or run `autonomy wal doctor --wal-dir {}`", dir.display(), shell_word(dir))]
    StartLost {
        /// The log's directory.
        dir: PathBuf,
        /// The first frame that it holds.
        first: u64,
    },
    /// What was to be read next was pruned meanwhile.
    #[error("log at `{}` was pruned while it was read: frame {seq} is gone, the next is {first}; read it again", dir.display())]
    Pruned {
        /// The log's directory.
        dir: PathBuf,
        /// The frame that was to be read.
        seq: u64,
        /// The first that is there.
        first: u64,
    },
    /// `telemetry.safe_seq` is missing or unreadable.
    #[error("log at `{}` has no usable `telemetry.safe_seq` ({found}); restore it or run `autonomy wal doctor --wal-dir {}`", dir.display(), shell_word(dir))]
    SafeSeqLost {
        /// The log's directory.
        dir: PathBuf,
        /// What was found instead.
        found: &'static str,
    },
    /// Frames that were committed are missing or damaged.
    #[error("log at `{}` has lost committed frames: last good frame is {last_good}, {committed} were committed ({fault}); restore it or run `autonomy wal doctor --wal-dir {}`", dir.display(), shell_word(dir))]
    CommittedLost {
        /// The log's directory.
        dir: PathBuf,
        /// The last frame that holds, at the end of its batch.
        last_good: u64,
        /// The highest frame known to have been durable.
        committed: u64,
        /// What is wrong after the last good frame.
        fault: String,
    },
    /// The log is damaged, and what follows the damage shows that it is not an unfinished write.
    #[error("log at `{}` is damaged after frame {last_good}: {fault}; restore it or run `autonomy wal doctor --wal-dir {}`", dir.display(), shell_word(dir))]
    Damaged {
        /// The log's directory.
        dir: PathBuf,
        /// The last frame that holds, at the end of its batch.
        last_good: u64,
        /// What is wrong after it.
        fault: String,
    },
    /// A write or a sync failed: the log accepts nothing more.
    #[error("log at `{}` stopped after a failed {op}: {source}; {}, then restart", dir.display(), remedy(source))]
    Poisoned {
        /// The log's directory.
        dir: PathBuf,
        /// What failed.
        op: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Somebody else has removed, replaced or changed a file of the log: it accepts nothing more.
    #[error("log at `{}` stopped: {what}; end whoever else touches its files, then restart", dir.display())]
    Disturbed {
        /// The log's directory.
        dir: PathBuf,
        /// What was done to which file.
        what: &'static str,
    },
    /// Somebody else has taken the whole log away: it accepts nothing more.
    #[error("log at `{}` stopped: its directory was moved, removed or replaced; put it back before a restart, for a start without it begins a new log", dir.display())]
    Away {
        /// Where the log's directory was.
        dir: PathBuf,
    },
    /// More is queued than the log may hold.
    #[error("log is overloaded: {frames} frames, {bytes} bytes wait for the disk; call again later")]
    Overloaded {
        /// Frames that wait.
        frames: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The log was closed.
    #[error("log is closed: open it again")]
    Closed,
    /// An append of nothing.
    #[error("append holds no frame: give at least one")]
    EmptyBatch,
    /// An append of more than one write may hold.
    #[error("append holds {frames} frames, {bytes} bytes: split it at {max_frames} frames, {max_bytes} bytes")]
    BatchTooLarge {
        /// Its frames.
        frames: usize,
        /// Their bytes.
        bytes: usize,
        /// The most frames of one append.
        max_frames: usize,
        /// The most bytes of one append.
        max_bytes: usize,
    },
    /// A frame that no reader would accept.
    #[error("frame attrs have {bytes} bytes: keep them within {max}")]
    FrameTooLarge {
        /// Bytes of `attrs`.
        bytes: usize,
        /// The most allowed.
        max: usize,
    },
    /// A frame whose `attrs` would make the record unreadable.
    #[error("frame attrs are not a JSON object ({why}): give one object")]
    AttrsNotObject {
        /// The parser's words.
        why: String,
    },
    /// The log holds but for files that are named as sealed segments and are not of it.
    #[error("log at `{}` holds without `{files}`: move that away", dir.display())]
    Stray {
        /// The log's directory.
        dir: PathBuf,
        /// The files.
        files: String,
    },
    /// The doctor was called on a log that needs none.
    #[error("log at `{}` needs no doctor, {why}: start a runtime with it", dir.display())]
    NoDoctorNeeded {
        /// The log's directory.
        dir: PathBuf,
        /// What applies instead.
        why: &'static str,
    },
}

impl WalError {
    /// What the caller can do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { source, .. } if is_no_directory(source) => ErrorClass::Usage,
            Self::LogLost { .. }
            | Self::StartLost { .. }
            | Self::SafeSeqLost { .. }
            | Self::CommittedLost { .. }
            | Self::Damaged { .. }
            | Self::Stray { .. }
            | Self::Position { .. } => ErrorClass::Damaged,
            Self::Io { .. }
            | Self::Locked { .. }
            | Self::DrainLocked { .. }
            | Self::NoLog { .. }
            | Self::Pruned { .. }
            | Self::Poisoned { .. }
            | Self::Disturbed { .. }
            | Self::Away { .. }
            | Self::Overloaded { .. }
            | Self::Closed => ErrorClass::Unavailable,
            Self::EmptyBatch
            | Self::BatchTooLarge { .. }
            | Self::FrameTooLarge { .. }
            | Self::AttrsNotObject { .. }
            | Self::NoDoctorNeeded { .. } => ErrorClass::Usage,
        }
    }

    pub(super) fn stray(dir: PathBuf, firsts: &[u64]) -> Self {
        let files: Vec<_> = firsts.iter().map(|first| Segment::Sealed(*first).to_string()).collect();
        Self::Stray { dir, files: files.join("`, `") }
    }

    /// For `map_err`: what was tried, on what.
    pub(super) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// What helps against a failed file operation.
fn remedy(source: &io::Error) -> &'static str {
    use io::ErrorKind::{AlreadyExists, FileTooLarge, InvalidData, OutOfMemory, QuotaExceeded, StorageFull};
    match (source.kind(), source.raw_os_error()) {
        (StorageFull | QuotaExceeded, _) => "free space outside of the log",
        (FileTooLarge, _) => "raise the limit on the size of files (`ulimit -f`)",
        // EMFILE, ENFILE.
        (_, Some(24 | 23)) => "raise `ulimit -n`, or hold fewer connections",
        (OutOfMemory, _) => "free some memory",
        // As the log says itself of what is no file of its own.
        (InvalidData | AlreadyExists, None) => "move that away",
        _ if is_no_directory(source) => "give a directory, or move what is there away",
        _ => "check the disk, and who may read and write there",
    }
}

/// Whether the system found something else where a directory must be.
fn is_no_directory(source: &io::Error) -> bool {
    let is_taken = matches!(source.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory);
    is_taken && source.raw_os_error().is_some()
}

fn by(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" by process {pid}")).unwrap_or_default()
}
