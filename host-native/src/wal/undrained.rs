//! What was not yet acknowledged elsewhere: the frames after `telemetry.pos`.

use serde::Serialize;

use super::{
    Reader, Record, WalError, Walk, codec,
    dir::{Dir, Lock},
    fs,
    position::Position,
    unix_ns,
};

const PARKED: &str = "telemetry.parked";

/// The frames of a log that nobody has acknowledged yet, in order; the only one on its directory.
///
/// Each has an id that no other frame has, `<wal_id>:<seq>`. What was handed out is handed out again by the next
/// process, until [`advance`](Self::advance) says that it was acknowledged.
#[derive(Debug)]
pub struct Undrained {
    dir: Dir,
    lock: Lock,
    reader: Reader,
    /// The last frame that was handed out or passed over.
    at: Option<Position>,
    /// What `telemetry.pos` says.
    acknowledged: Option<Position>,
    /// Read, and to be handed out next.
    next: Option<Record>,
}

/// Frames that the other end did not take, and that are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// What it said.
    pub why: String,
    /// How many of the frames.
    pub rejected: u64,
    /// The frames; where there are more than were rejected, it did not say which.
    pub ids: Vec<String>,
}

/// A line of `telemetry.parked`.
#[derive(Serialize)]
struct Parked<'a> {
    at: String,
    #[serde(flatten)]
    refused: &'a Refused,
}

impl Undrained {
    /// The frames after those that were acknowledged. Takes the right to drain; makes nothing where there is no log.
    ///
    /// # Errors
    /// [`WalError::DrainLocked`]; [`WalError::Position`] where `telemetry.pos` is damaged or not of this log; a log that
    /// cannot be read.
    pub fn open(walk: impl Into<Walk>) -> Result<Self, WalError> {
        Self::open_on(walk.into().dir)
    }

    pub(super) fn open_on(dir: Dir) -> Result<Self, WalError> {
        let reader = Reader::open_on(dir.clone())?;
        let lock = dir.lock_drain()?;
        let acknowledged = Position::read(&dir)?;
        let mut undrained = Self { dir, lock, reader, at: None, acknowledged: None, next: None };
        undrained.pass_over(acknowledged.as_ref())?;
        undrained.acknowledged = acknowledged;
        Ok(undrained)
    }

    /// The next durable frame with its id; `None` when there is none yet.
    ///
    /// # Errors
    /// A durable frame does not hold; or the doctor has put another log in the place of this one, and what was read is
    /// not in it.
    pub fn next_frame(&mut self) -> Result<Option<(String, Record)>, WalError> {
        if self.next.is_none() {
            self.next = self.reader.next_record()?;
        }
        if self.next.is_none() && !self.reader.is_in_place()? {
            self.reader = Reader::open_on(self.dir.clone())?;
            let read = self.at.take();
            self.pass_over(read.as_ref())?;
            if self.next.is_none() {
                self.next = self.reader.next_record()?;
            }
        }
        let Some(record) = self.next.take() else { return Ok(None) };
        self.at = Some(Position::of(&record));
        Ok(Some((format!("{}:{}", record.wal_id, record.seq), record)))
    }

    /// Says, durably, that every frame that was handed out is acknowledged or parked.
    ///
    /// # Errors
    /// It could not be written: the frames will be handed out again.
    pub fn advance(&mut self) -> Result<(), WalError> {
        match &self.at {
            Some(at) if self.acknowledged.as_ref() != Some(at) => {
                self.check_in_place()?;
                at.publish(&self.dir)?;
                self.acknowledged = Some(at.clone());
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Writes down, durably, what is passed over.
    ///
    /// # Errors
    /// It could not be written.
    pub fn park(&self, refused: &Refused) -> Result<(), WalError> {
        self.check_in_place()?;
        let path = self.dir.file(PARKED);
        let parked = Parked { at: codec::time_of(unix_ns()), refused };
        let line = gate_core::json::write(&parked) + "\n";
        fs::append_line(&*self.dir.fs, &path, line.as_bytes()).map_err(WalError::io("append to", &path))
    }

    /// The last frame that was acknowledged or parked.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.as_ref().map_or(0, |position| position.seq)
    }

    /// How many durable frames nobody has acknowledged.
    ///
    /// # Errors
    /// The marks cannot be read.
    pub fn lag(&self) -> Result<u64, WalError> {
        let durable = self.dir.live_mark()?.max(self.dir.safe_seq()?.value());
        Ok(durable.saturating_sub(self.acknowledged()))
    }

    /// Another log may be in the place of this one: what was drained of that is not this one's to say.
    fn check_in_place(&self) -> Result<(), WalError> {
        let what = "`drain.lock`, or the directory, was removed or replaced";
        match self.lock.is_in_place().map_err(WalError::io("read", self.lock.path()))? {
            true => Ok(()),
            false => Err(WalError::Disturbed { dir: self.dir.path.clone(), what }),
        }
    }

    /// Reads up to and with `passed`, or to the first frame after it where that one was pruned. Where the doctor has cut
    /// the log before it, what follows the cut was never passed.
    fn pass_over(&mut self, passed: Option<&Position>) -> Result<(), WalError> {
        let Some(passed) = passed else { return Ok(()) };
        // After a power cut the marks may be behind it, until a writer opens the log.
        self.reader.trust(passed.seq);
        let unknown = |why: String| WalError::Position { dir: self.dir.path.clone(), why };
        while let Some(record) = self.reader.next_record()? {
            let is_renamed = |before: &Position| before.wal_id == passed.wal_id && record.wal_id != passed.wal_id;
            if self.at.as_ref().is_some_and(is_renamed) {
                self.next = Some(record);
                return Ok(());
            }
            if self.at.is_none() && record.seq > 1 && Position::before(&record) == *passed {
                (self.at, self.next) = (Some(passed.clone()), Some(record));
                return Ok(());
            }
            if record.seq - 1 == passed.seq {
                return Err(unknown(format!("frame {} follows another frame than was drained", record.seq)));
            }
            if record.seq > passed.seq {
                return Err(unknown(format!("the frames between {} and {} were pruned", passed.seq, record.seq)));
            }
            let at = Position::of(&record);
            if at.seq == passed.seq && at != *passed {
                return Err(unknown(format!("frame {} is not the one that was drained", at.seq)));
            }
            let is_passed = at.seq == passed.seq;
            self.at = Some(at);
            if is_passed {
                return Ok(());
            }
        }
        Err(unknown(format!("frame {} was drained, and the log ends before it", passed.seq)))
    }
}
