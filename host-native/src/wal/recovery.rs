//! Opening a log: what is found is classified, and a table says what to do.

use std::{io, sync::Arc};

use super::{
    WalError,
    codec::{Encoder, Envelope, Link},
    dir::{Dir, SafeSeq, Zeros},
    fs::File,
    scan::{Fault, Place, Scanner, Tail},
};

/// What `telemetry.safe_seq` says, as far as recovery cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Absent,
    Malformed,
    Zero,
    Positive,
}

/// What `telemetry.wal` looks like after its last good frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    Absent,
    Present(Tail),
}

/// Whether a frame that holds comes after the damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    None,
    Valid,
}

/// Whether the last good frame L reaches the committed bound C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Below,
    Enough,
}

/// What recovery decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) mark: Mark,
    pub(super) log: Log,
    pub(super) later: Later,
    pub(super) reach: Reach,
}

/// What opening does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Begin a log.
    Init,
    /// Go on after the last frame.
    Open,
    /// Set the unfinished tail aside and go on before it.
    Repair,
    /// Fail: nothing is touched, an operator must look.
    Fail(Failure),
}

/// Why opening fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    LogLost,
    MarkLost,
    CommittedLost,
    Damaged,
    Misplaced,
}

/// One row: it fires when every condition is among those it lists.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) mark: &'static [Mark],
    pub(super) log: &'static [Log],
    pub(super) later: &'static [Later],
    pub(super) reach: &'static [Reach],
    pub(super) action: Action,
    pub(super) why: &'static str,
}

const UNFINISHED: &[Log] =
    &[Log::Present(Tail::Torn), Log::Present(Tail::Short), Log::Present(Tail::Zeros), Log::Present(Tail::Bad)];
const IN_PLACE: &[Log] = &[
    Log::Present(Tail::Clean),
    Log::Present(Tail::Torn),
    Log::Present(Tail::Short),
    Log::Present(Tail::Zeros),
    Log::Present(Tail::Bad),
];
const PRESENT: &[Log] = &[
    Log::Present(Tail::Clean),
    Log::Present(Tail::Torn),
    Log::Present(Tail::Short),
    Log::Present(Tail::Zeros),
    Log::Present(Tail::Bad),
    Log::Present(Tail::Misplaced),
];
const ANY_LATER: &[Later] = &[Later::None, Later::Valid];
const ANY_REACH: &[Reach] = &[Reach::Below, Reach::Enough];
const A_NUMBER: &[Mark] = &[Mark::Zero, Mark::Positive];

/// The table of `docs/src/spec/wal.md`; a test walks every combination and finds exactly one row for each.
pub(super) const TABLE: &[Row] = &[
    Row {
        name: "init",
        mark: &[Mark::Absent, Mark::Zero],
        log: &[Log::Absent],
        later: ANY_LATER,
        reach: ANY_REACH,
        action: Action::Init,
        why: "there is no log and none was ever committed to",
    },
    Row {
        name: "log_lost",
        mark: &[Mark::Positive],
        log: &[Log::Absent],
        later: ANY_LATER,
        reach: ANY_REACH,
        action: Action::Fail(Failure::LogLost),
        why: "`telemetry.wal` is gone, yet frames were committed to it",
    },
    Row {
        name: "safe_seq_malformed",
        mark: &[Mark::Malformed],
        log: &[Log::Absent],
        later: ANY_LATER,
        reach: ANY_REACH,
        action: Action::Fail(Failure::MarkLost),
        why: "`telemetry.safe_seq` has not 8 bytes: it cannot be told what was committed",
    },
    Row {
        name: "safe_seq_lost",
        mark: &[Mark::Absent, Mark::Malformed],
        log: PRESENT,
        later: ANY_LATER,
        reach: ANY_REACH,
        action: Action::Fail(Failure::MarkLost),
        why: "there is a log and no usable `telemetry.safe_seq`: it cannot be told what was committed",
    },
    Row {
        name: "committed_lost",
        mark: A_NUMBER,
        log: IN_PLACE,
        later: ANY_LATER,
        reach: &[Reach::Below],
        action: Action::Fail(Failure::CommittedLost),
        why: "frames that were committed are missing or damaged",
    },
    Row {
        name: "open",
        mark: A_NUMBER,
        log: &[Log::Present(Tail::Clean)],
        later: ANY_LATER,
        reach: &[Reach::Enough],
        action: Action::Open,
        why: "every byte of the log holds",
    },
    Row {
        name: "repair",
        mark: A_NUMBER,
        log: UNFINISHED,
        later: &[Later::None],
        reach: &[Reach::Enough],
        action: Action::Repair,
        why: "the log ends in a write that was never finished or acknowledged",
    },
    Row {
        name: "damaged",
        mark: A_NUMBER,
        log: UNFINISHED,
        later: &[Later::Valid],
        reach: &[Reach::Enough],
        action: Action::Fail(Failure::Damaged),
        why: "whole frames come after the damage: it is not the end of an unfinished write",
    },
    Row {
        name: "misplaced",
        mark: A_NUMBER,
        log: &[Log::Present(Tail::Misplaced)],
        later: ANY_LATER,
        reach: ANY_REACH,
        action: Action::Fail(Failure::Misplaced),
        why: "a whole frame stands where it does not belong",
    },
];

impl Row {
    pub(super) fn fires(&self, found: &Conditions) -> bool {
        self.mark.contains(&found.mark)
            && self.log.contains(&found.log)
            && self.later.contains(&found.later)
            && self.reach.contains(&found.reach)
    }

    /// The table covers every combination, by test; were one missing, failing is the safe answer.
    const NONE: Self = Self {
        name: "none",
        mark: &[],
        log: &[],
        later: &[],
        reach: &[],
        action: Action::Fail(Failure::Damaged),
        why: "no rule covers this state",
    };
}

/// Everything that is known about a log without changing it.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) safe_seq: SafeSeq,
    /// Bytes of the log; None where there is none.
    pub(super) len: Option<u64>,
    /// End, last frame L and link of the last complete batch.
    pub(super) whole: (u64, u64, Link),
    /// Complete batches.
    pub(super) batches: u64,
    /// The highest `durable` of a frame that holds.
    pub(super) durable: u64,
    /// C: the highest frame known to have been durable.
    pub(super) committed: u64,
    pub(super) fault: Option<Fault>,
    /// Where the first whole frame after the fault starts.
    pub(super) later: Option<u64>,
    /// End of the frame that `safe_seq` names: what comes after may never have reached the disk.
    pub(super) safe_end: u64,
    /// The highest tail file that a `wal_repaired` frame names.
    pub(super) tails_noted: u64,
    pub(super) row: &'static Row,
}

impl Survey {
    pub(super) fn of(dir: &Dir) -> Result<Self, WalError> {
        Self::from(dir, Place::default())
    }

    /// A survey that takes the frames before `place` as read.
    pub(super) fn from(dir: &Dir, place: Place) -> Result<Self, WalError> {
        let safe_seq = dir.safe_seq()?;
        let mut survey = Self {
            safe_seq,
            len: None,
            whole: place.whole,
            batches: 0,
            durable: 0,
            committed: 0,
            fault: None,
            later: None,
            safe_end: 0,
            tails_noted: 0,
            row: &Row::NONE,
        };
        if let Some(file) = dir.log()? {
            survey.walk(file, place).map_err(WalError::io("read", &dir.log_path()))?;
        }
        Ok(survey.judged(safe_seq))
    }

    /// Walks the log to its end or its first fault.
    fn walk(&mut self, file: Arc<dyn File>, place: Place) -> io::Result<()> {
        let len = file.len()?;
        let mut scanner = Scanner::new(file, place)?;
        self.fault = loop {
            match scanner.next()? {
                Ok(Some(good)) => {
                    self.batches += u64::from(good.envelope.left == 0);
                    self.tails_noted = self.tails_noted.max(noted_tail(&good.envelope).unwrap_or(0));
                    if good.envelope.seq == self.safe_seq.value() {
                        self.safe_end = scanner.place.offset;
                    }
                }
                Ok(None) => break None,
                Err(fault) => break Some(fault),
            }
        };
        if let Some(fault) = self.fault.as_ref().filter(|fault| fault.offset < len) {
            self.later = scanner.valid_after(fault)?;
        }
        self.len = Some(len);
        self.whole = scanner.place.whole;
        self.durable = scanner.place.durable;
        Ok(())
    }

    /// Looks up the row for what the walk found and this `safe_seq`.
    pub(super) fn judged(mut self, safe_seq: SafeSeq) -> Self {
        self.safe_seq = safe_seq;
        self.committed = safe_seq.value().max(self.durable);
        let found = Conditions {
            mark: match safe_seq {
                SafeSeq::Absent => Mark::Absent,
                SafeSeq::Malformed => Mark::Malformed,
                SafeSeq::Is(0) => Mark::Zero,
                SafeSeq::Is(_) => Mark::Positive,
            },
            log: match (self.len, &self.fault) {
                (None, _) => Log::Absent,
                (Some(_), None) => Log::Present(Tail::Clean),
                (Some(_), Some(fault)) => Log::Present(fault.tail),
            },
            later: if self.later.is_some() { Later::Valid } else { Later::None },
            reach: if self.whole.1 < self.committed { Reach::Below } else { Reach::Enough },
        };
        self.row = TABLE.iter().find(|row| row.fires(&found)).unwrap_or(&Row::NONE);
        self
    }

    /// The error of a failing row.
    pub(super) fn error(&self, dir: &Dir, failure: Failure) -> WalError {
        let dir = dir.path.clone();
        let (last_good, committed) = (self.whole.1, self.committed);
        match failure {
            Failure::LogLost => WalError::LogLost { dir, committed },
            Failure::MarkLost => {
                let found = if self.safe_seq == SafeSeq::Absent { "it is absent" } else { "it has not 8 bytes" };
                WalError::SafeSeqLost { dir, found }
            }
            Failure::CommittedLost => WalError::CommittedLost { dir, last_good, committed, fault: self.what() },
            Failure::Damaged | Failure::Misplaced => WalError::Damaged { dir, last_good, fault: self.what() },
        }
    }

    /// What is wrong, in words.
    pub(super) fn what(&self) -> String {
        match (&self.fault, self.later) {
            (None, _) => "the log ends there".to_owned(),
            (Some(fault), None) => fault.to_string(),
            (Some(fault), Some(at)) if at == fault.offset => format!("{fault}, and only the length is wrong"),
            (Some(fault), Some(at)) => format!("{fault}, and a whole frame follows at byte {at}"),
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A log was begun.
    Initialized,
    /// The log was whole.
    Clean {
        /// Its last frame.
        last_seq: u64,
    },
    /// The log ended in an unfinished write, which was set aside; a `wal_repaired` frame says so.
    Repaired {
        /// The last frame that was kept.
        last_seq: u64,
        /// Where the unfinished write started.
        offset: u64,
        /// How many bytes were set aside.
        bytes: u64,
        /// The file that now holds them, in the log's directory.
        tail_file: String,
    },
}

/// A log that is ready to be appended to.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) file: Arc<dyn File>,
    /// Where the next frame goes.
    pub(super) end: u64,
    pub(super) encoder: Encoder,
    pub(super) opened: Opened,
}

/// Brings the log to a state that can be appended to, or fails without touching it. The caller holds the lock.
pub(super) fn recover(dir: &Dir, unix_ns: u64) -> Result<Ready, WalError> {
    let survey = Survey::of(dir)?;
    let (end, last_seq, link) = survey.whole;
    match survey.row.action {
        Action::Fail(failure) => return Err(survey.error(dir, failure)),
        Action::Init => {
            dir.publish_safe_seq(0)?;
            let file = dir.log_for_writing()?;
            file.sync().map_err(WalError::io("sync", &dir.log_path()))?;
            dir.sync()?;
            return Ok(Ready { file, end, encoder: Encoder::new(last_seq, link), opened: Opened::Initialized });
        }
        Action::Open | Action::Repair => {}
    }

    let path = dir.log_path();
    let tails = survey.tails_noted;
    if survey.row.action == Action::Repair {
        let mut next = tails + 1;
        while dir.holds(tail_file(next))? {
            next += 1;
        }
        dir.copy_aside(&path, end, tail_file(next))?;
    }
    let file = dir.log_for_writing()?;
    // After a failed sync the system may hold, and call clean, pages that the disk does not. Written again, they are
    // dirty again, and the sync below covers them.
    dir.copy((&path, &*file), survey.safe_end..end, (&path, &*file), survey.safe_end, Zeros::AreWritten)?;
    if survey.row.action == Action::Repair {
        file.truncate(end).map_err(WalError::io("truncate", &path))?;
    }
    file.sync().map_err(WalError::io("sync", &path))?;
    // Whoever created or replaced these files may have died before their names were durable.
    dir.sync()?;
    let mut ready = Ready { file, end, encoder: Encoder::new(last_seq, link), opened: Opened::Clean { last_seq } };
    note_tails(dir, &survey, &mut ready, unix_ns)?;
    Ok(ready)
}

/// Writes a `wal_repaired` frame for every tail file that no frame names yet: that of this repair, and those of repairs
/// that did not come this far.
fn note_tails(dir: &Dir, survey: &Survey, ready: &mut Ready, unix_ns: u64) -> Result<(), WalError> {
    let mut names = Vec::new();
    while dir.holds(tail_file(survey.tails_noted + 1 + names.len() as u64))? {
        names.push(tail_file(survey.tails_noted + 1 + names.len() as u64));
    }
    let Some(newest) = names.last().cloned() else { return Ok(()) };
    let newest_path = dir.file(&newest);
    let bytes = dir
        .fs
        .open(&newest_path, super::fs::How::Read)
        .and_then(|file| file.len())
        .map_err(WalError::io("read", &newest_path))?;
    let reason = survey.fault.as_ref().map_or("an earlier repair was interrupted", |fault| fault.what);
    let (offset, last_seq) = (ready.end, ready.encoder.next_seq - 1);
    let attrs = format!(
        "{{\"event\":\"wal_repaired\",\"tail_number\":{},\"tail_files\":[\"{}\"],\"offset\":{offset},\"bytes\":{bytes},\"reason\":\"{reason}\"}}",
        survey.tails_noted + names.len() as u64,
        names.join("\",\""),
    );
    append_own(dir, ready, &attrs, last_seq, unix_ns)?;
    ready.opened = Opened::Repaired { last_seq, offset, bytes, tail_file: newest };
    Ok(())
}

/// Appends one lifecycle frame of the log's own, durably.
pub(super) fn append_own(
    dir: &Dir,
    ready: &mut Ready,
    attrs: &str,
    durable: u64,
    unix_ns: u64,
) -> Result<(), WalError> {
    let path = dir.log_path();
    let seq = ready.encoder.next_seq;
    let members =
        format!("\"kind\":\"autonomy.lifecycle\",\"audit_id\":\"wal-{seq}\",\"node_id\":null,\"attrs\":{attrs}");
    let mut frame = Vec::new();
    ready.encoder.push(&mut frame, unix_ns, |out| out.extend_from_slice(members.as_bytes()), 0, durable);
    ready.file.write_at(ready.end, &frame).map_err(WalError::io("write", &path))?;
    ready.file.sync().map_err(WalError::io("sync", &path))?;
    ready.end += frame.len() as u64;
    Ok(())
}

fn tail_file(number: u64) -> String {
    format!("telemetry.tail.{number}")
}

/// The tail file that a frame accounts for, if it is a `wal_repaired` frame of the log's own.
fn noted_tail(frame: &Envelope<'_>) -> Option<u64> {
    let number = frame.attrs.strip_prefix("{\"event\":\"wal_repaired\",\"tail_number\":")?;
    let is_own = frame.audit_id.as_str() == format!("wal-{}", frame.seq);
    number.split(',').next()?.parse().ok().filter(|_| is_own)
}
