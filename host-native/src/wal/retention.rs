//! Deleting sealed segments: written down in the log, durably, before it is done.

use serde::{Deserialize, Serialize};

use super::{
    WalError, codec,
    dir::Dir,
    own::Own,
    position::Position,
    scan::{Place, Scanner},
};

const DAY_NS: u64 = 86_400_000_000_000;

/// Which sealed segments may be deleted, oldest first: those past either bound. Without a bound, none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// So many bytes of the log are kept.
    pub bytes: Option<u64>,
    /// A segment is kept for so many days after it was sealed.
    pub days: Option<u64>,
    /// Whether it must have been drained, too.
    pub prune: Prune,
}

impl Retention {
    /// Whether anything is ever deleted.
    pub const fn is_bounded(&self) -> bool {
        self.bytes.is_some() || self.days.is_some()
    }
}

/// What may be deleted once it is past a bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prune {
    /// What was drained: every frame of it was acknowledged elsewhere, or parked.
    #[default]
    Drained,
    /// Anything: a frame may be gone that nobody has a copy of.
    Any,
}

impl std::fmt::Display for Prune {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Drained => "drained",
            Self::Any => "any",
        })
    }
}

/// Why a segment is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Past {
    /// The log has more bytes than are kept.
    RetainBytes,
    /// It was sealed longer ago than is kept.
    RetainDays,
    /// It was gone, and the doctor was told to accept that.
    Gone,
}

/// A segment that is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Its first frame.
    pub first: u64,
    /// Its last.
    pub last: u64,
    /// How large it is.
    pub bytes: u64,
    /// When it was sealed: RFC 3339, UTC.
    pub sealed_at: String,
    /// Why it goes.
    pub past: Past,
    /// Whether all of it was drained.
    pub drained: bool,
    #[serde(skip)]
    hash: String,
}

/// What a retention comes to now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// What is deleted, oldest first.
    pub pruned: Vec<Pruned>,
    /// Segments that are past a bound, and kept because they were not drained.
    pub undrained: usize,
}

impl Plan {
    pub(super) fn of(dir: &Dir, retention: &Retention, unix_ns: u64) -> Result<Self, WalError> {
        let mut plan = Self::default();
        if !retention.is_bounded() {
            return Ok(plan);
        }
        let position = match Position::read(dir) {
            Ok(position) => position,
            Err(_) if retention.prune == Prune::Any => None,
            Err(error) => return Err(error),
        };
        let sealed = dir.sealed()?;
        let ends = sealed.iter().skip(1).copied().map(Some).chain([None]);
        let mut kept = dir.bytes(None)?;
        for first in &sealed {
            kept += dir.bytes(Some(*first))?;
        }
        for (first, next) in sealed.iter().copied().zip(ends) {
            let Some(end) = End::of(dir, next)? else { break };
            if next.is_none() && dir.sealed()?.last() != Some(&first) {
                // The live segment is another one by now.
                break;
            }
            let past = if retention.bytes.is_some_and(|bytes| kept > bytes) {
                Past::RetainBytes
            } else if retention
                .days
                .is_some_and(|days| unix_ns > end.unix_ns.saturating_add(days.saturating_mul(DAY_NS)))
            {
                Past::RetainDays
            } else {
                break;
            };
            let drained = position
                .as_ref()
                .is_some_and(|position| position.wal_id == end.position.wal_id && position.seq >= end.position.seq);
            if plan.undrained > 0 || (!drained && retention.prune == Prune::Drained) {
                plan.undrained += 1;
                continue;
            }
            let bytes = dir.bytes(Some(first))?;
            kept -= bytes;
            let Position { seq: last, hash, .. } = end.position;
            plan.pruned.push(Pruned { first, last, bytes, sealed_at: end.ts, past, drained, hash });
        }
        Ok(plan)
    }
}

impl Pruned {
    /// What the log says of it before it is deleted.
    pub(super) fn own(&self, by: &str) -> Own {
        let Self { first, last, bytes, past, drained, ref hash, .. } = *self;
        Own::Pruned { first, last, hash: hash.clone(), bytes, why: past, drained, by: by.to_owned() }
    }
}

/// Where a sealed segment ends, as the first frame of the next one has it.
struct End {
    position: Position,
    ts: String,
    unix_ns: u64,
}

impl End {
    /// None where the next one has not been begun.
    fn of(dir: &Dir, next: Option<u64>) -> Result<Option<Self>, WalError> {
        let Some(mut scanner) = Scanner::from(dir, Place { segment: next, ..Place::default() })? else {
            return Ok(None);
        };
        if scanner.is_at_end() {
            return Ok(None);
        }
        match scanner.next()? {
            Ok(None) => Ok(None),
            // The live one may be written right now.
            Err(_) if next.is_none() => Ok(None),
            Ok(Some(good)) => {
                let frame = &good.envelope;
                let hash = String::from_utf8_lossy(&frame.prev).into_owned();
                let position = Position { wal_id: good.wal_id.to_owned(), seq: frame.seq - 1, hash };
                Ok(Some(Self { position, ts: frame.ts.to_owned(), unix_ns: codec::unix_ns_of(frame.ts) }))
            }
            Err(fault) => {
                Err(WalError::Damaged { dir: dir.path.clone(), last_good: fault.seq - 1, fault: fault.to_string() })
            }
        }
    }
}
