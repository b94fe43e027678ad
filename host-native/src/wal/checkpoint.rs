//! Signed checkpoints: what a log held at a time, for whoever keeps it elsewhere.

use std::{
    io,
    path::{Path, PathBuf},
};

use gate_core::{
    TrustedKeys,
    dsse::{Envelope, EnvelopeError},
    text,
};
use serde::{Deserialize, Serialize};

use super::{Reader, WalError, Walk, codec, own::Own, position::Position, unix_ns};
use crate::{ErrorClass, file, key::PrivateKey};

/// What a checkpoint's envelope holds.
const PAYLOAD_TYPE: &str = "application/vnd.autonomy.wal.checkpoint.v1+json";

/// Largest file of them: a few bytes more than half a kilobyte each.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Says that a log has this frame, and with its hash everything before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// What the log is called at the frame.
    pub wal_id: String,
    /// The frame.
    pub seq: u64,
    /// The hash of its payload, as the frame after it has it in `prev`.
    pub hash: String,
    /// When this was said: RFC 3339, UTC.
    pub at: String,
}

/// What a log showed of its checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// So many it holds.
    pub held: usize,
    /// So many are of frames that were pruned: nothing can be said of them.
    pub passed_over: usize,
}

/// Why a checkpoint shows nothing, or that the log is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The log cannot be read.
    #[error("{0}")]
    Wal(#[from] WalError),
    /// The file of checkpoints cannot be read.
    #[error("cannot read checkpoints `{}` ({source}): correct the path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds none.
    #[error("`{}` holds no checkpoint: name a file of them, as `autonomy wal checkpoint` and `wal.signing_key` write it", path.display())]
    NoCheckpoint {
        /// The file.
        path: PathBuf,
    },
    /// One of its lines does not count.
    #[error("line {line} of `{}`: {source}; give the key that signed it or another copy of the file, or take out a line that a crash cut short", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: Box<CheckpointError>,
    },
    /// There is nothing to sign.
    #[error("log holds no frame yet: sign it once a runtime has written to it")]
    Empty,
    /// The envelope, or who signed it.
    #[error("checkpoint does not count: {0}")]
    Envelope(#[from] EnvelopeError),
    /// What was signed is no checkpoint.
    #[error("checkpoint does not count: its payload is none ({0})")]
    Malformed(String),
    /// The log begins in the middle, and no checkpoint covers the frame that says why.
    #[error(
        "log begins with frame {first}, and no checkpoint shows that the frames before it were deleted in order: if they were, sign one now with `autonomy wal checkpoint`"
    )]
    Unsigned {
        /// The first frame that it holds.
        first: u64,
    },
    /// The log is not the one that was signed, or it was changed.
    #[error(
        "log does not hold frame {seq} as it was signed at {at}: it is another log, or was changed or cut since; compare it with a copy"
    )]
    NotHeld {
        /// The frame.
        seq: u64,
        /// When it was signed.
        at: String,
    },
}

impl CheckpointError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Wal(error) => error.class(),
            Self::Read { source, .. } => ErrorClass::of(source),
            Self::Empty => ErrorClass::Unavailable,
            Self::NoCheckpoint { .. } | Self::Line { .. } | Self::Envelope(_) | Self::Malformed(_) => ErrorClass::Usage,
            Self::Unsigned { .. } | Self::NotHeld { .. } => ErrorClass::Damaged,
        }
    }
}

impl Checkpoint {
    /// What the log holds now: its last durable frame. Checks everything up to it.
    ///
    /// # Errors
    /// [`CheckpointError::Empty`], or a frame that does not hold.
    pub fn of(log: impl Into<Walk>) -> Result<Self, CheckpointError> {
        let mut at: Option<Position> = None;
        for record in Reader::open(log)? {
            at = Some(Position::of(&record?));
        }
        at.map(Self::at).ok_or(CheckpointError::Empty)
    }

    /// That the log holds this frame, said now.
    pub(super) fn at(Position { wal_id, seq, hash }: Position) -> Self {
        Self { wal_id, seq, hash, at: codec::time_of(unix_ns()) }
    }

    /// Signs it: a DSSE envelope.
    pub fn sign(&self, key: &PrivateKey) -> Vec<u8> {
        key.seal(PAYLOAD_TYPE, gate_core::json::write(self).into_bytes())
    }

    /// Reads one that enough of `keys` have signed.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(envelope: &[u8], keys: &TrustedKeys) -> Result<Self, CheckpointError> {
        let envelope = Envelope::parse(envelope)?;
        envelope.verify(PAYLOAD_TYPE, keys)?;
        serde_json::from_slice(&envelope.payload)
            .map_err(|error| CheckpointError::Malformed(text::line(&error.to_string())))
    }

    /// Reads a file of them, an envelope a line, each signed by enough of `keys`.
    ///
    /// # Errors
    /// The first line that does not count, a file without any, or why it cannot be read.
    pub fn read_all(path: &Path, keys: &TrustedKeys) -> Result<Vec<Self>, CheckpointError> {
        let read = file::read_text(path, FILE_BYTES);
        let text = read.map_err(|source| CheckpointError::Read { path: path.to_owned(), source })?;
        if text.is_empty() {
            return Err(CheckpointError::NoCheckpoint { path: path.to_owned() });
        }
        let verify = |(line, text): (usize, &str)| {
            let failed = |source| CheckpointError::Line { path: path.to_owned(), line, source: Box::new(source) };
            Self::verify(text.as_bytes(), keys).map_err(failed)
        };
        (1..).zip(text.lines()).map(verify).collect()
    }

    /// Whether the log holds the frames of all of them, and with these everything before. Those of frames that were pruned
    /// are passed over: the newest is not, and it covers the frame that says what was pruned.
    ///
    /// # Errors
    /// The first that it does not hold, or a frame that does not hold together; a beginning that none of them covers.
    pub fn check(checkpoints: &[Self], log: impl Into<Walk>) -> Result<Checked, CheckpointError> {
        let mut wanted: Vec<&Self> = checkpoints.iter().collect();
        wanted.sort_by_key(|checkpoint| checkpoint.seq);
        let newest = wanted.last().map_or(0, |checkpoint| checkpoint.seq);
        let mut wanted = wanted.into_iter().peekable();
        let (mut reader, mut before, mut checked) = (Reader::open(log)?, None, Checked::default());
        // Where the log begins, until a frame says that what came before was pruned.
        let mut unsaid: Option<(u64, String)> = None;
        while let Some(last) = wanted.peek() {
            reader.trust(last.seq);
            let Some(record) = reader.next_record()? else { return Err(last.not_held()) };
            if before.is_none() && record.seq > 1 {
                unsaid = Some((record.seq, record.prev.clone()));
                let is_gone = |checkpoint: &&Self| checkpoint.seq < newest && checkpoint.seq < record.seq - 1;
                while wanted.next_if(is_gone).is_some() {
                    checked.passed_over += 1;
                }
            }
            let says = |(first, prev): &(u64, String)| {
                Own::of_record(&record).is_some_and(|own| own.says_why_it_begins(*first, prev.as_bytes()))
            };
            unsaid = unsaid.filter(|start| !says(start));
            // The last that was pruned is still known: by its hash, and by what the log is called.
            let known = [before.unwrap_or_else(|| Position::before(&record)), Position::of(&record)];
            while let Some(checkpoint) = wanted.next_if(|checkpoint| checkpoint.seq <= record.seq) {
                if !known.contains(&checkpoint.position()) {
                    return Err(checkpoint.not_held());
                }
                checked.held += 1;
            }
            before = Some(Position::of(&record));
        }
        unsaid.map_or(Ok(checked), |(first, _)| Err(CheckpointError::Unsigned { first }))
    }

    fn position(&self) -> Position {
        Position { wal_id: self.wal_id.clone(), seq: self.seq, hash: self.hash.clone() }
    }

    fn not_held(&self) -> CheckpointError {
        CheckpointError::NotHeld { seq: self.seq, at: self.at.clone() }
    }
}
