//! A place in the history of a log: a frame, by its number, its hash, and what its log is called there.

use serde::Deserialize;

use super::{Record, WalError, dir::Dir};

const FILE: &str = "telemetry.pos";
/// More bytes than it has.
const FILE_BYTES: usize = 256;

/// A frame, and what its log is called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) wal_id: String,
    pub(super) seq: u64,
    pub(super) hash: String,
}

/// `telemetry.pos`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    wal_id: String,
    seq: u64,
    hash: String,
    #[serde(rename = "crc")]
    _crc: String,
}

impl Position {
    /// The place of `record`.
    pub(super) fn of(record: &Record) -> Self {
        Self { wal_id: record.wal_id.clone(), seq: record.seq, hash: record.hash() }
    }

    /// The place right before `record`, in a log that is called the same there.
    pub(super) fn before(record: &Record) -> Self {
        Self { wal_id: record.wal_id.clone(), seq: record.seq - 1, hash: record.prev.clone() }
    }

    /// What `telemetry.pos` says.
    pub(super) fn read(dir: &Dir) -> Result<Option<Self>, WalError> {
        let Some(bytes) = dir.read_small(&dir.file(FILE), FILE_BYTES)? else { return Ok(None) };
        let stored = serde_json::from_slice(&bytes).ok();
        let position = stored.map(|Stored { wal_id, seq, hash, .. }| Self { wal_id, seq, hash });
        // Only what would be written is read, its checksum too.
        match position.filter(|position| position.to_string().as_bytes() == bytes) {
            Some(position) => Ok(Some(position)),
            None => Err(WalError::Position { dir: dir.path.clone(), why: "`telemetry.pos` is damaged".to_owned() }),
        }
    }

    /// Replaces `telemetry.pos`, durably and atomically.
    pub(super) fn publish(&self, dir: &Dir) -> Result<(), WalError> {
        dir.publish(FILE, self.to_string().as_bytes())
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wal_id, seq, hash } = self;
        let body = format!("{{\"wal_id\":\"{wal_id}\",\"seq\":{seq},\"hash\":\"{hash}\"");
        write!(f, "{body},\"crc\":\"{:08x}\"}}", crc32c::crc32c(body.as_bytes()))
    }
}
