//! Reading what is durable, beside a live writer too.

use gate_core::{
    frame::Kind,
    identity::{AuditId, NodeId},
};

use super::{
    WalError, Walk,
    codec::{self, Link},
    dir::Dir,
    own::Own,
    recovery::Survey,
    scan::{Crossing, Good, Scanner},
};
use crate::ErrorClass;

/// One frame as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1 without gaps.
    pub seq: u64,
    /// When it was appended: RFC 3339, UTC, nanoseconds.
    pub ts: String,
    /// What it is about.
    pub kind: Kind,
    /// Joins the frames of one call.
    pub audit_id: AuditId,
    /// The node, where it has an id.
    pub node_id: Option<NodeId>,
    /// The frame's own members: a JSON object, byte for byte as it was appended.
    pub attrs: String,
    /// Frames of the same batch that follow.
    pub left: u32,
    /// The highest frame known to be durable when this one was written.
    pub durable: u64,
    /// The hash of the payload before: base64url of SHA-256.
    pub prev: String,
    /// CRC-32C of everything before the `crc` member.
    pub crc: u32,
    /// The whole payload, a JSON object.
    pub payload: String,
    /// What the log is called here: with `seq` it names the frame among those of all logs.
    pub wal_id: String,
}

impl Record {
    /// The hash of its payload, as the frame after it has it in `prev`.
    pub fn hash(&self) -> String {
        String::from_utf8_lossy(&codec::link_to(self.payload.as_bytes())).into_owned()
    }

    /// Whether a segment begins with it, and with that the facts of its decisions.
    pub(crate) fn begins_segment(&self) -> bool {
        matches!(Own::of_record(self), Some(Own::Rotated { .. }))
    }

    /// When it was appended, in nanoseconds since 1970; 0 where that does not fit.
    pub fn unix_ns(&self) -> u64 {
        codec::unix_ns_of(&self.ts)
    }

    fn of(good: &Good<'_>) -> Self {
        let frame = &good.envelope;
        Self {
            seq: frame.seq,
            ts: frame.ts.to_owned(),
            kind: frame.kind,
            audit_id: frame.audit_id.clone(),
            node_id: frame.node_id.clone(),
            attrs: frame.attrs.to_owned(),
            left: frame.left,
            durable: frame.durable,
            prev: String::from_utf8_lossy(&frame.prev).into_owned(),
            crc: good.crc,
            payload: String::from_utf8_lossy(good.payload).into_owned(),
            wal_id: good.wal_id.to_owned(),
        }
    }
}

/// Walks a log from the first frame that it holds to the last durable one, over all its segments, checking every
/// checksum, number, batch and link.
///
/// `None` means that nothing more is durable *now*: to follow a live log, ask again later. Memory stays within a few
/// MiB whatever the log holds.
#[derive(Debug)]
pub struct Reader {
    dir: Dir,
    scanner: Scanner,
    /// Frames up to this one are known to be durable.
    bound: u64,
    /// Whether a frame said that what came before the first one was pruned.
    start_is_said: bool,
    failed: bool,
}

impl Reader {
    /// A reader of the log, at its first frame. It takes no lock and changes nothing.
    ///
    /// # Errors
    /// [`WalError::NoLog`] when there is none.
    pub fn open(walk: impl Into<Walk>) -> Result<Self, WalError> {
        Self::open_on(walk.into().dir)
    }

    pub(super) fn open_on(dir: Dir) -> Result<Self, WalError> {
        match Scanner::first(&dir)? {
            Some(scanner) => Ok(Self { dir, scanner, bound: 0, start_is_said: false, failed: false }),
            None => Err(Survey::of(&dir)?.failure(&dir).unwrap_or(WalError::NoLog { dir: dir.path })),
        }
    }

    /// Takes frames up to `seq` as durable: whoever says so has read them from this log before.
    pub(super) fn trust(&mut self, seq: u64) {
        self.bound = self.bound.max(seq);
    }

    /// Whether what is read is still a segment of the log: the doctor puts another in its place.
    pub(super) fn is_in_place(&self) -> Result<bool, WalError> {
        self.scanner.is_in_place()
    }

    /// The next durable frame, or `None` when there is none yet.
    ///
    /// # Errors
    /// What [`verify`](super::verify) says, when a durable frame does not hold, and at the end of a log that begins in the middle
    /// and does not say why. After an error there is nothing more to read.
    pub fn next_record(&mut self) -> Result<Option<Record>, WalError> {
        if self.failed {
            return Ok(None);
        }
        let next = match self.read() {
            Ok(None) => self.check_start().map(|()| None),
            Ok(some) => Ok(some),
            Err(error) => Err(self.judged(error)),
        };
        self.failed = next.is_err();
        next
    }

    /// What `verify` says, which sees more than where this reader stopped: all that is wrong may be a file that is not of the log.
    fn judged(&self, error: WalError) -> WalError {
        if error.class() != ErrorClass::Damaged {
            return error;
        }
        Survey::of(&self.dir).ok().and_then(|survey| survey.failure(&self.dir)).unwrap_or(error)
    }

    /// Where the log begins in the middle, a frame must say that what came before was pruned. After a power cut the marks may be
    /// behind that frame, until a writer opens the log.
    fn check_start(&mut self) -> Result<(), WalError> {
        if self.scanner.place.start.is_some() && !self.start_is_said {
            Survey::of(&self.dir)?.failure(&self.dir).map_or(Ok(()), Err)?;
            self.start_is_said = true;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Record>, WalError> {
        let next_seq = self.scanner.place.next_seq;
        if self.bound < next_seq {
            self.bound = self.bound.max(self.dir.safe_seq()?.value()).max(self.dir.live_mark()?);
            self.scanner.refresh()?;
            if self.bound < next_seq {
                self.look_ahead()?;
                // The look ahead may have seen more of the file: what the bound promises must be within reach.
                self.scanner.refresh()?;
            }
            if self.bound < next_seq {
                return Ok(None);
            }
        }
        if self.scanner.is_at_end() && !self.has_grown(next_seq)? {
            return Ok(None);
        }
        let (dir, last_good) = (&self.dir, self.scanner.place.whole.1);
        match self.scanner.next()? {
            Ok(None) => Ok(None),
            Ok(Some(good)) => {
                let says = |(first, prev): (u64, Link)| {
                    Own::of(&good.envelope).is_some_and(|own| own.says_why_it_begins(first, &prev))
                };
                self.start_is_said |= good.start.is_some_and(says);
                Ok(Some(Record::of(&good)))
            }
            Err(fault) => Err(WalError::Damaged { dir: dir.path.clone(), last_good, fault: fault.to_string() }),
        }
    }

    /// Looks again at a segment that, as it was last looked at, ends before the durable frame `next_seq`: whether it has
    /// grown, or another follows. A log that was cut below what was committed is not to be believed.
    fn has_grown(&mut self, next_seq: u64) -> Result<bool, WalError> {
        let committed = self.dir.safe_seq()?.value();
        self.scanner.refresh()?;
        if !self.scanner.is_at_end() {
            return Ok(true);
        }
        match self.scanner.cross()? {
            Crossing::More if !self.scanner.is_at_end() => return Ok(true),
            Crossing::More | Crossing::End => {}
            Crossing::Gap(first) => {
                let dir = self.dir.path.clone();
                return Err(match self.is_in_place()? {
                    false => WalError::Pruned { dir, seq: next_seq, first },
                    true => WalError::Damaged {
                        dir,
                        last_good: next_seq - 1,
                        fault: format!("the segment that begins with frame {next_seq} is missing"),
                    },
                });
            }
        }
        self.bound = next_seq - 1;
        if committed >= next_seq {
            let (dir, last_good) = (self.dir.path.clone(), self.scanner.place.whole.1);
            let fault = "the log ends there".to_owned();
            return Err(WalError::CommittedLost { dir, last_good, committed, fault });
        }
        Ok(false)
    }

    /// A frame further on may say that the next one is durable. What does not hold there is not durable yet.
    fn look_ahead(&mut self) -> Result<(), WalError> {
        let next_seq = self.scanner.place.next_seq;
        let mut ahead = self.scanner.ahead()?;
        while self.bound < next_seq
            && let Ok(Some(good)) = ahead.next()?
        {
            self.bound = self.bound.max(good.envelope.durable);
        }
        Ok(())
    }
}

impl Iterator for Reader {
    type Item = Result<Record, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}
