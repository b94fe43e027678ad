//! Opening a log: what is found is classified, and a table says what to do.

use std::{iter, sync::Arc};

use super::{
    WalError,
    codec::{Encoder, FIRST_LINK, Link, MAX_SEQ},
    dir::{Dir, SafeSeq, Zeros},
    fs::File,
    own::Own,
    retention::Past,
    scan::{Crossing, Fault, Place, Scanner, Tail},
    segment::Segment,
};

/// What `telemetry.safe_seq` says, as far as recovery cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Absent,
    Malformed,
    Zero,
    Positive,
}

/// What the log looks like after its last good frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    /// There is no segment at all.
    Absent,
    /// Every sealed segment holds, and there is no live file.
    Sealed,
    /// Every sealed segment holds, and the live file looks like this.
    Present(Tail),
    /// A sealed segment does not hold, or one is missing between two.
    Broken,
}

/// Whether the log begins where it should: with frame 1, or where a frame says that what came before was pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Known,
    Unknown,
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
    pub(super) start: Start,
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
    StartLost,
    CommittedLost,
    Damaged,
    Misplaced,
    Stray,
}

/// One row: it fires when every condition is among those it lists.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) mark: &'static [Mark],
    pub(super) log: &'static [Log],
    pub(super) later: &'static [Later],
    pub(super) reach: &'static [Reach],
    pub(super) start: &'static [Start],
    pub(super) action: Action,
    pub(super) why: &'static str,
}

const UNFINISHED: &[Log] =
    &[Log::Present(Tail::Torn), Log::Present(Tail::Short), Log::Present(Tail::Zeros), Log::Present(Tail::Bad)];
const IN_PLACE: &[Log] = &[
    Log::Sealed,
    Log::Present(Tail::Clean),
    Log::Present(Tail::Torn),
    Log::Present(Tail::Short),
    Log::Present(Tail::Zeros),
    Log::Present(Tail::Bad),
];
const PRESENT: &[Log] = &[
    Log::Sealed,
    Log::Present(Tail::Clean),
    Log::Present(Tail::Torn),
    Log::Present(Tail::Short),
    Log::Present(Tail::Zeros),
    Log::Present(Tail::Bad),
    Log::Present(Tail::Misplaced),
    Log::Broken,
];
const ANY_LATER: &[Later] = &[Later::None, Later::Valid];
const ANY_REACH: &[Reach] = &[Reach::Below, Reach::Enough];
const ANY_START: &[Start] = &[Start::Known, Start::Unknown];
const A_NUMBER: &[Mark] = &[Mark::Zero, Mark::Positive];

/// The table of `docs/src/spec/wal.md`; a test walks every combination and finds exactly one row for each.
pub(super) const TABLE: &[Row] = &[
    Row {
        name: "init",
        mark: &[Mark::Absent, Mark::Zero],
        log: &[Log::Absent],
        later: ANY_LATER,
        reach: ANY_REACH,
        start: ANY_START,
        action: Action::Init,
        why: "there is no log and none was ever committed to",
    },
    Row {
        name: "log_lost",
        mark: &[Mark::Positive],
        log: &[Log::Absent],
        later: ANY_LATER,
        reach: ANY_REACH,
        start: ANY_START,
        action: Action::Fail(Failure::LogLost),
        why: "its segments are gone, yet frames were committed to it",
    },
    Row {
        name: "safe_seq_malformed",
        mark: &[Mark::Malformed],
        log: &[Log::Absent],
        later: ANY_LATER,
        reach: ANY_REACH,
        start: ANY_START,
        action: Action::Fail(Failure::MarkLost),
        why: "`telemetry.safe_seq` has not 8 bytes: it cannot be told what was committed",
    },
    Row {
        name: "safe_seq_lost",
        mark: &[Mark::Absent, Mark::Malformed],
        log: PRESENT,
        later: ANY_LATER,
        reach: ANY_REACH,
        start: ANY_START,
        action: Action::Fail(Failure::MarkLost),
        why: "there is a log and no usable `telemetry.safe_seq`: it cannot be told what was committed",
    },
    Row {
        name: "segment_lost",
        mark: A_NUMBER,
        log: &[Log::Broken],
        later: ANY_LATER,
        reach: ANY_REACH,
        start: ANY_START,
        action: Action::Fail(Failure::Damaged),
        why: "a sealed segment is missing or damaged",
    },
    Row {
        name: "committed_lost",
        mark: A_NUMBER,
        log: IN_PLACE,
        later: ANY_LATER,
        reach: &[Reach::Below],
        start: ANY_START,
        action: Action::Fail(Failure::CommittedLost),
        why: "frames that were committed are missing or damaged",
    },
    Row {
        name: "damaged",
        mark: A_NUMBER,
        log: IN_PLACE,
        later: &[Later::Valid],
        reach: &[Reach::Enough],
        start: ANY_START,
        action: Action::Fail(Failure::Damaged),
        why: "whole frames come after the damage: it is not the end of an unfinished write",
    },
    Row {
        name: "start_lost",
        mark: A_NUMBER,
        log: IN_PLACE,
        later: &[Later::None],
        reach: &[Reach::Enough],
        start: &[Start::Unknown],
        action: Action::Fail(Failure::StartLost),
        why: "the log does not begin with its first frame, and no frame says that what came before was pruned",
    },
    Row {
        name: "open",
        mark: A_NUMBER,
        log: &[Log::Present(Tail::Clean)],
        later: &[Later::None],
        reach: &[Reach::Enough],
        start: &[Start::Known],
        action: Action::Open,
        why: "every byte of the log holds",
    },
    Row {
        name: "rotation",
        mark: A_NUMBER,
        log: &[Log::Sealed],
        later: &[Later::None],
        reach: &[Reach::Enough],
        start: &[Start::Known],
        action: Action::Open,
        why: "every sealed segment holds, and the next was not begun",
    },
    Row {
        name: "repair",
        mark: A_NUMBER,
        log: UNFINISHED,
        later: &[Later::None],
        reach: &[Reach::Enough],
        start: &[Start::Known],
        action: Action::Repair,
        why: "the log ends in a write that was never finished or acknowledged",
    },
    Row {
        name: "misplaced",
        mark: A_NUMBER,
        log: &[Log::Present(Tail::Misplaced)],
        later: ANY_LATER,
        reach: ANY_REACH,
        start: ANY_START,
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
            && self.start.contains(&found.start)
    }

    /// In the place of a row that goes on, where a file is named as a sealed segment that the log does not have.
    const STRAY: Self = Self {
        name: "stray",
        action: Action::Fail(Failure::Stray),
        why: "a file is named as a sealed segment, and none begins with that frame",
        ..Self::NONE
    };

    /// The table covers every combination, by test; were one missing, failing is the safe answer.
    const NONE: Self = Self {
        name: "none",
        mark: &[],
        log: &[],
        later: &[],
        reach: &[],
        start: &[],
        action: Action::Fail(Failure::Damaged),
        why: "no rule covers this state",
    };
}

/// Everything that is known about a log without changing it.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) safe_seq: SafeSeq,
    /// Bytes of all segments; None where there is none.
    pub(super) len: Option<u64>,
    /// Bytes of the good frames.
    pub(super) good_bytes: u64,
    /// Where the walk ended: in which segment, and what is to come next.
    pub(super) end: Place,
    /// The first frame of the segment that the walk ended in, or of the next one.
    pub(super) segment_first: u64,
    /// Complete batches.
    pub(super) batches: u64,
    /// C: the highest frame known to have been durable.
    pub(super) committed: u64,
    pub(super) fault: Option<Fault>,
    /// Where the first whole frame after the fault starts.
    pub(super) later: Option<u64>,
    /// End in the live file of the frame that `safe_seq` names, 0 where that is sealed: what comes after may never have
    /// reached the disk.
    pub(super) safe_end: u64,
    /// The highest tail file that a `wal_repaired` frame names.
    pub(super) tails_noted: u64,
    /// Sealed segments that were walked.
    pub(super) sealed: usize,
    /// The first frames of all segments that were walked.
    firsts: Vec<u64>,
    /// Files that are named as sealed segments between them.
    strays: Vec<u64>,
    /// The frame that says that what came before the first one was pruned, and why.
    pub(super) said: Option<(u64, Past)>,
    /// What the log looks like.
    log: Log,
    start: Start,
    pub(super) row: &'static Row,
}

impl Survey {
    pub(super) fn of(dir: &Dir) -> Result<Self, WalError> {
        loop {
            let begins = dir.segment_from(0)?;
            let survey = Self::walk(dir, Scanner::first(dir)?)?;
            // Beside a writer that prunes, a segment may be gone before it is reached.
            if survey.fault.is_none() || dir.segment_from(0)? == begins {
                return survey.or_stray(dir);
            }
        }
    }

    /// Where the log would hold without the sealed segment of the fault (the newest, where it is in the live one), or without all
    /// before that, or all after it too, these are not of it. Then it is the rest that is surveyed.
    fn or_stray(self, dir: &Dir) -> Result<Self, WalError> {
        let (Action::Fail(failure), Some(fault)) = (self.row.action, &self.fault) else { return Ok(self) };
        if failure == Failure::Stray {
            return Ok(self);
        }
        let sealed = dir.sealed()?;
        let at = match fault.segment {
            Segment::Sealed(first) => Some(first),
            Segment::Live => sealed.last().copied(),
        };
        let Some(at) = at else { return Ok(self) };
        let (before, from): (Vec<_>, Vec<_>) = sealed.into_iter().partition(|first| *first < at);
        let more = [before, from].into_iter().filter(|strays| !strays.is_empty() && *strays != [at]);
        for mut strays in iter::once(vec![at]).chain(more) {
            let without = dir.without(&strays);
            let survey = Self::walk(&without, Scanner::first(&without)?)?;
            if let Action::Open | Action::Repair | Action::Fail(Failure::Stray) = survey.row.action {
                strays.extend(&survey.strays);
                strays.sort_unstable();
                return Ok(Self { row: &Row::STRAY, strays, fault: self.fault, later: None, ..survey });
            }
        }
        Ok(self)
    }

    /// A survey that takes the frames before `place` as read.
    #[cfg(test)]
    pub(super) fn from(dir: &Dir, place: Place) -> Result<Self, WalError> {
        Self::walk(dir, Scanner::from(dir, place)?)
    }

    /// Walks the log to its end or its first fault.
    fn walk(dir: &Dir, scanner: Option<Scanner>) -> Result<Self, WalError> {
        let safe_seq = dir.safe_seq()?;
        let mut survey = Self {
            safe_seq,
            len: None,
            good_bytes: 0,
            end: Place::default(),
            segment_first: 1,
            batches: 0,
            committed: 0,
            fault: None,
            later: None,
            safe_end: 0,
            tails_noted: 0,
            sealed: 0,
            firsts: Vec::new(),
            strays: Vec::new(),
            said: None,
            log: Log::Absent,
            start: Start::Known,
            row: &Row::NONE,
        };
        if let Some(mut scanner) = scanner {
            survey.log = survey.walk_segments(&mut scanner)?;
            survey.end = scanner.place;
            survey.strays = survey.strays(&dir.sealed()?);
        }
        Ok(survey.judged(safe_seq))
    }

    fn walk_segments(&mut self, scanner: &mut Scanner) -> Result<Log, WalError> {
        let (mut len, mut sealed_bytes) = (scanner.segment_bytes(), 0);
        self.segment_first = match scanner.place.segment {
            Segment::Sealed(first) => first,
            Segment::Live => 1,
        };
        let fault = loop {
            match scanner.next()? {
                Ok(Some(good)) => {
                    self.batches += u64::from(good.envelope.left == 0);
                    match Own::of(&good.envelope) {
                        Some(Own::Repaired { tail_number, .. }) => {
                            self.tails_noted = self.tails_noted.max(tail_number.min(MAX_SEQ));
                        }
                        Some(own @ Own::Pruned { why, .. }) if self.said.is_none() => {
                            let says = good.start.is_some_and(|(first, prev)| own.says_why_it_begins(first, &prev));
                            self.said = says.then_some((good.envelope.seq, why));
                        }
                        Some(Own::Pruned { .. } | Own::Doctored { .. } | Own::Rotated { .. }) | None => {}
                    }
                    if good.envelope.seq == self.safe_seq.value() {
                        self.safe_end = scanner.place.offset;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(fault) => break Some(fault),
            }
            let (segment, offset, seq) = (scanner.place.segment, scanner.place.offset, scanner.place.next_seq);
            match scanner.cross()? {
                // The same one, which has grown.
                Crossing::More if scanner.place.offset > 0 => len = sealed_bytes + scanner.segment_bytes(),
                Crossing::More => {
                    self.sealed += 1;
                    self.firsts.push(self.first_of_segment(&scanner.place));
                    sealed_bytes += offset;
                    len = sealed_bytes + scanner.segment_bytes();
                    (self.segment_first, self.safe_end) = (seq, 0);
                }
                Crossing::End if segment != Segment::Live && offset == 0 => {
                    let what = "its segment is sealed and empty";
                    break Some(Fault { segment, offset, seq, tail: Tail::Torn, what });
                }
                Crossing::End => break None,
                Crossing::Gap(later) => {
                    let what =
                        "nothing before leads to it; restore what is between, or move away what is not of this log";
                    break Some(Fault { segment: Segment::Sealed(later), offset: 0, seq, tail: Tail::Misplaced, what });
                }
            }
        };
        // A batch that is not whole says nothing.
        self.said = self.said.filter(|(seq, _)| *seq <= scanner.place.whole.1);
        self.sealed += usize::from(scanner.place.segment != Segment::Live);
        if scanner.place.start.is_some() {
            self.start = if self.said.is_some() { Start::Known } else { Start::Unknown };
        }
        self.segment_first = self.first_of_segment(&scanner.place);
        self.firsts.push(self.segment_first);
        self.len = Some(len);
        self.good_bytes = sealed_bytes + scanner.place.whole.0;
        let segment = scanner.place.segment;
        self.fault = fault;
        Ok(match (&self.fault, segment) {
            (Some(_), Segment::Sealed(_)) => Log::Broken,
            (Some(fault), Segment::Live) => {
                if fault.offset < scanner.segment_bytes() {
                    self.later = scanner.valid_after(fault)?;
                }
                Log::Present(fault.tail)
            }
            (None, Segment::Live) => Log::Present(Tail::Clean),
            (None, Segment::Sealed(_)) => {
                // The next one begins empty.
                self.segment_first = scanner.place.next_seq;
                (scanner.place.segment, scanner.place.offset, scanner.place.whole.0) = (Segment::Live, 0, 0);
                self.safe_end = 0;
                Log::Sealed
            }
        })
    }

    /// The first frame of the segment that is walked: a live file does not have it in its name.
    fn first_of_segment(&self, place: &Place) -> u64 {
        self.segment_first.max(place.start.map_or(1, |(first, _)| first))
    }

    /// Those of the sealed segments, as they are named after the walk, that would begin within one that was walked. What a writer
    /// seals or prunes meanwhile is none of them.
    fn strays(&self, sealed: &[u64]) -> Vec<u64> {
        let walked = self.firsts.first().copied().unwrap_or(1)..self.end.next_seq;
        sealed.iter().copied().filter(|first| walked.contains(first) && !self.firsts.contains(first)).collect()
    }

    /// Looks up the row for what the walk found and this `safe_seq`.
    pub(super) fn judged(mut self, safe_seq: SafeSeq) -> Self {
        self.safe_seq = safe_seq;
        self.committed = safe_seq.value().max(self.end.durable);
        let found = Conditions {
            mark: match safe_seq {
                SafeSeq::Absent => Mark::Absent,
                SafeSeq::Malformed => Mark::Malformed,
                SafeSeq::Is(0) => Mark::Zero,
                SafeSeq::Is(_) => Mark::Positive,
            },
            log: self.log,
            later: if self.later.is_some() { Later::Valid } else { Later::None },
            reach: if self.last_good() < self.committed { Reach::Below } else { Reach::Enough },
            start: self.start,
        };
        self.row = TABLE.iter().find(|row| row.fires(&found)).unwrap_or(&Row::NONE);
        if let (Action::Open | Action::Repair, Some(seq)) = (self.row.action, self.strays.first().copied()) {
            self.row = &Row::STRAY;
            let segment = Segment::Sealed(seq);
            self.fault = Some(Fault { segment, offset: 0, seq, tail: Tail::Misplaced, what: Row::STRAY.why });
        }
        self
    }

    /// L: the last frame that holds, at the end of its batch.
    pub(super) fn last_good(&self) -> u64 {
        self.end.whole.1
    }

    /// The first frame that is kept, and its link.
    pub(super) fn first(&self) -> (u64, Link) {
        self.end.start.unwrap_or((1, FIRST_LINK))
    }

    /// How many frames are kept: up to L.
    pub(super) fn kept(&self) -> u64 {
        self.last_good() + 1 - self.first().0
    }

    /// How many committed frames are known to be lost: those after L, or, where all that was committed after them is there and does not
    /// say that they were pruned, those before the first.
    pub(super) fn lost(&self) -> u64 {
        let after = self.committed.saturating_sub(self.last_good());
        let is_read_to_its_end = after == 0 && self.later.is_none() && IN_PLACE.contains(&self.log);
        if self.start == Start::Unknown && is_read_to_its_end { self.first().0 - 1 } else { after }
    }

    /// Why the log does not open, if it does not.
    pub(super) fn failure(&self, dir: &Dir) -> Option<WalError> {
        let Action::Fail(failure) = self.row.action else { return None };
        let dir = dir.path.clone();
        let (last_good, committed) = (self.last_good(), self.committed);
        Some(match failure {
            Failure::LogLost => WalError::LogLost { dir, committed },
            Failure::MarkLost => {
                let found = if self.safe_seq == SafeSeq::Absent { "it is absent" } else { "it has not 8 bytes" };
                WalError::SafeSeqLost { dir, found }
            }
            Failure::StartLost => WalError::StartLost { dir, first: self.first().0 },
            Failure::CommittedLost => WalError::CommittedLost { dir, last_good, committed, fault: self.what() },
            Failure::Stray => WalError::stray(dir, &self.strays),
            Failure::Damaged | Failure::Misplaced => WalError::Damaged { dir, last_good, fault: self.what() },
        })
    }

    /// What is wrong, in words.
    pub(super) fn what(&self) -> String {
        match (&self.fault, self.later) {
            _ if self.row.action == Action::Fail(Failure::StartLost) => self.row.why.to_owned(),
            (None, _) if self.last_good() < self.committed => "the log ends there".to_owned(),
            (None, _) => self.row.why.to_owned(),
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
    /// The live file.
    pub(super) file: Arc<dyn File>,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// The first frame of the live file, or the next one where it is empty.
    pub(super) first: u64,
    pub(super) encoder: Encoder,
    pub(super) opened: Opened,
}

/// Brings the log to a state that can be appended to, or fails without touching it. The caller holds the lock.
pub(super) fn recover(dir: &Dir, unix_ns: u64) -> Result<Ready, WalError> {
    let survey = Survey::of(dir)?;
    let (end, last_seq, link) = survey.end.whole;
    let path = dir.file(Segment::Live);
    let encoder = Encoder::new(last_seq, link, survey.end.wal_id.clone());
    if let Some(error) = survey.failure(dir) {
        return Err(error);
    }
    if survey.row.action == Action::Init {
        dir.publish_safe_seq(0)?;
        let file = dir.live_for_writing()?;
        file.sync().map_err(WalError::io("sync", &path))?;
        dir.sync()?;
        return Ok(Ready { file, end, first: 1, encoder, opened: Opened::Initialized });
    }

    let tails = survey.tails_noted;
    if survey.row.action == Action::Repair {
        let mut next = tails + 1;
        while dir.holds(tail_file(next))? {
            next += 1;
        }
        dir.copy_aside(&path, end, tail_file(next))?;
    }
    let file = dir.live_for_writing()?;
    // After a failed sync the system may hold, and call clean, pages that the disk does not. Written again, they are
    // dirty again, and the sync below covers them. What is sealed was synced before.
    dir.copy((&path, &*file), survey.safe_end..end, (&path, &*file), survey.safe_end, Zeros::AreWritten)?;
    if survey.row.action == Action::Repair {
        file.truncate(end).map_err(WalError::io("truncate", &path))?;
    }
    file.sync().map_err(WalError::io("sync", &path))?;
    // Whoever created or replaced these files may have died before their names were durable.
    dir.sync()?;
    let mut ready = Ready { file, end, first: survey.segment_first, encoder, opened: Opened::Clean { last_seq } };
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
    let repaired = Own::Repaired {
        tail_number: survey.tails_noted + names.len() as u64,
        tail_files: names,
        offset,
        bytes,
        reason: reason.to_owned(),
    };
    append_own(dir, ready, vec![repaired], last_seq, unix_ns)?;
    ready.opened = Opened::Repaired { last_seq, offset, bytes, tail_file: newest };
    Ok(())
}

/// Appends frames of the log's own as one batch, durably; a segment begins with its own one.
pub(super) fn append_own(
    dir: &Dir,
    ready: &mut Ready,
    mut own: Vec<Own>,
    durable: u64,
    unix_ns: u64,
) -> Result<(), WalError> {
    let path = dir.file(Segment::Live);
    if ready.end == 0 && ready.encoder.next_seq > 1 {
        own.insert(0, Own::Rotated { wal_id: ready.encoder.wal_id.clone() });
    }
    let mut frames = Vec::new();
    for (own, left) in own.iter().zip((0..own.len()).rev()) {
        own.push(&mut ready.encoder, &mut frames, unix_ns, u32::try_from(left).unwrap_or(0), durable);
    }
    ready.file.write_at(ready.end, &frames).map_err(WalError::io("write", &path))?;
    ready.file.sync().map_err(WalError::io("sync", &path))?;
    ready.end += frames.len() as u64;
    Ok(())
}

fn tail_file(number: u64) -> String {
    format!("telemetry.tail.{number}")
}
