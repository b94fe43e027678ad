//! Deleting sealed segments: written down in the log, durably, before it is done.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{
    WalError, codec,
    dir::Dir,
    own::Own,
    position::Position,
    recovery::Survey,
    scan::{Place, Scanner},
    segment::Segment,
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
        // The last frame that was drained, once it must be known.
        let mut drained_to = None;
        let ends = sealed.iter().skip(1).copied().map(Segment::Sealed).chain([Segment::Live]);
        let mut kept = dir.bytes(Segment::Live)?;
        for first in &sealed {
            kept += dir.bytes(Segment::Sealed(*first))?;
        }
        for (first, next) in sealed.iter().copied().zip(ends) {
            let Some(end) = End::of(dir, next)? else { break };
            if next == Segment::Live && dir.sealed()?.last() != Some(&first) {
                // The live segment is another one by now.
                break;
            }
            // A time that does not fit is 0: nothing is known to be old by it.
            let is_old =
                |days: u64| end.unix_ns > 0 && unix_ns > end.unix_ns.saturating_add(days.saturating_mul(DAY_NS));
            let past = if retention.bytes.is_some_and(|bytes| kept > bytes) {
                Past::RetainBytes
            } else if retention.days.is_some_and(is_old) {
                Past::RetainDays
            } else {
                break;
            };
            let drained = match (&position, drained_to) {
                (Some(position), None) if position.seq >= end.last => {
                    *drained_to.insert(if holds(dir, &sealed, position)? { position.seq } else { 0 }) >= end.last
                }
                (_, drained_to) => drained_to.is_some_and(|seq: u64| seq >= end.last),
            };
            let bytes = dir.bytes(Segment::Sealed(first))?;
            kept -= bytes;
            if plan.undrained > 0 || (!drained && retention.prune == Prune::Drained) {
                plan.undrained += 1;
                continue;
            }
            let End { last, hash, ts: sealed_at, .. } = end;
            plan.pruned.push(Pruned { first, last, bytes, sealed_at, past, drained, hash });
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

/// Whether the log holds this frame: one that it does not hold was drained of another log, or of another copy of this one.
fn holds(dir: &Dir, sealed: &[u64], position: &Position) -> Result<bool, WalError> {
    // In the newest that begins with it or before: that may be the live one, which does not have it in its name.
    let before = sealed.iter().rfind(|first| **first <= position.seq).copied().map(Segment::Sealed);
    for segment in [Some(Segment::Live), before].into_iter().flatten() {
        let Some(mut scanner) = Scanner::from(dir, Place { segment, ..Place::default() })? else { continue };
        while let Ok(Some(good)) = scanner.next()? {
            match good.envelope.seq.cmp(&position.seq) {
                Ordering::Less => {}
                Ordering::Equal => {
                    let hash = codec::link_to(good.payload);
                    return Ok(good.wal_id == position.wal_id && hash == *position.hash.as_bytes());
                }
                Ordering::Greater => break,
            }
        }
    }
    Ok(false)
}

/// Where a sealed segment ends, as the first frame of the next one has it.
struct End {
    last: u64,
    hash: String,
    ts: String,
    unix_ns: u64,
}

impl End {
    /// None where the next one has not been begun.
    fn of(dir: &Dir, next: Segment) -> Result<Option<Self>, WalError> {
        let Some(mut scanner) = Scanner::from(dir, Place { segment: next, ..Place::default() })? else {
            return Ok(None);
        };
        match scanner.next()? {
            // The live one may be written right now.
            Ok(None) | Err(_) if next == Segment::Live => Ok(None),
            Ok(Some(good)) => {
                let frame = &good.envelope;
                let hash = String::from_utf8_lossy(&frame.prev).into_owned();
                Ok(Some(Self {
                    last: frame.seq - 1,
                    hash,
                    ts: frame.ts.to_owned(),
                    unix_ns: codec::unix_ns_of(frame.ts),
                }))
            }
            // Damage, or no segment at all: what opening would say. Or it was pruned meanwhile.
            Ok(None) | Err(_) => Survey::of(dir)?.failure(dir).map_or(Ok(None), Err),
        }
    }
}
