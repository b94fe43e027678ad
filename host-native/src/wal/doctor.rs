//! The operator's tools: look, check, and, as a last resort, accept a loss.

use super::{
    WalError, Walk,
    codec::Encoder,
    dir::{Dir, SAFE_SEQ, SafeSeq, Zeros},
    fs::How,
    own::Own,
    recovery::{Action, Opened, Ready, Survey, append_own},
    retention::Past,
    scan::Fault,
    segment::Segment,
    unix_ns,
};

/// What opening a log would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Go on after the last frame.
    Open,
    /// Set an unfinished write aside and go on before it.
    Repair,
    /// Refuse: something committed is missing or changed.
    Fail,
}

/// What recovery finds, without changing anything.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What opening would do.
    pub opening: Opening,
    /// The row of the recovery table that applies.
    pub row: &'static str,
    /// Why, in words.
    pub why: &'static str,
    /// L: the last frame that holds, at the end of its batch.
    pub last_good: u64,
    /// Bytes of the frames up to it.
    pub good_bytes: u64,
    /// C: the highest frame known to have been durable.
    pub committed: u64,
    /// How many committed frames are known to be lost, once the doctor is told to accept it.
    pub would_lose: u64,
    /// What `telemetry.safe_seq` says; none where it is absent or unreadable.
    pub safe_seq: Option<u64>,
    /// Bytes of the log, up to and with the segment of the fault; none where there is none.
    pub bytes: Option<u64>,
    /// The first thing that does not hold.
    pub fault: Option<Fault>,
    /// Where the first whole frame after the fault starts.
    pub later: Option<u64>,
    /// Why the log does not open, if it does not.
    pub error: Option<WalError>,
}

/// Says which row of the recovery table applies to the log, and why. Changes nothing.
///
/// # Errors
/// [`WalError::Locked`] when a writer has it: its end may be a write that is under way. When the files cannot be read, or there is
/// no log and none was ever committed to.
pub fn diagnose(walk: impl Into<Walk>) -> Result<Diagnosis, WalError> {
    diagnose_on(&walk.into().dir)
}

pub(super) fn diagnose_on(dir: &Dir) -> Result<Diagnosis, WalError> {
    let _lock = dir.lock_if_there()?;
    let survey = Survey::of(dir)?;
    let opening = match survey.row.action {
        Action::Init => return Err(WalError::NoLog { dir: dir.path.clone() }),
        Action::Open => Opening::Open,
        Action::Repair => Opening::Repair,
        Action::Fail(_) => Opening::Fail,
    };
    let error = survey.failure(dir);
    Ok(Diagnosis {
        opening,
        row: survey.row.name,
        why: survey.row.why,
        last_good: survey.last_good(),
        good_bytes: survey.good_bytes,
        committed: survey.committed,
        would_lose: survey.lost(),
        safe_seq: match survey.safe_seq {
            SafeSeq::Is(seq) => Some(seq),
            SafeSeq::Absent | SafeSeq::Malformed => None,
        },
        bytes: survey.len,
        fault: survey.fault,
        later: survey.later,
        error,
    })
}

/// What a whole walk over a log showed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The first frame: what came before was pruned, and a later frame says so.
    pub first: u64,
    /// Why there is nothing before the first frame, as the log says itself.
    pub pruned: Option<Past>,
    /// Sealed segments.
    pub sealed: usize,
    /// Frames that hold, in complete batches.
    pub frames: u64,
    /// Complete batches.
    pub batches: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// The hash of the last of them, base64url of SHA-256: whoever wrote it down earlier can compare.
    pub head: String,
    /// C: the highest frame known to have been durable.
    pub committed: u64,
    /// The first thing that does not hold, with its offset and number.
    pub fault: Option<Fault>,
    /// Whether that is the end of an unfinished write, as a live or killed writer leaves it: nothing is lost.
    pub unfinished: bool,
    /// Why the log does not open, if it does not.
    pub error: Option<WalError>,
}

impl Report {
    /// Whether everything that was committed is there and unchanged.
    pub fn holds(&self) -> bool {
        self.error.is_none()
    }
}

/// Walks the log and re-derives every number, checksum, batch and link. Changes nothing.
///
/// # Errors
/// When the files cannot be read, or there is no log and none was ever committed to.
pub fn verify(walk: impl Into<Walk>) -> Result<Report, WalError> {
    verify_on(&walk.into().dir)
}

pub(super) fn verify_on(dir: &Dir) -> Result<Report, WalError> {
    let survey = Survey::of(dir)?;
    if survey.row.action == Action::Init {
        return Err(WalError::NoLog { dir: dir.path.clone() });
    }
    let error = survey.failure(dir);
    let (_, _, head) = survey.end.whole;
    let (first, _) = survey.first();
    Ok(Report {
        first,
        pruned: survey.said.map(|(_, why)| why),
        sealed: survey.sealed,
        frames: survey.kept(),
        batches: survey.batches,
        bytes: survey.good_bytes,
        head: String::from_utf8_lossy(&head).into_owned(),
        committed: survey.committed,
        unfinished: survey.row.action == Action::Repair,
        fault: survey.fault,
        error,
    })
}

/// What the doctor did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Doctored {
    /// How many frames were kept.
    pub kept: u64,
    /// The last of them; the frame that says so follows it.
    pub last: u64,
    /// How many committed frames are known to be lost: those after the last, or those before the first that were not pruned.
    pub lost: u64,
    /// Bytes after the last kept frame that were dropped.
    pub dropped_bytes: u64,
    /// The untouched originals, in the log's directory.
    pub copies: Vec<String>,
}

/// So many of the copies are named in the log, which takes no frame of any size.
const COPIES_TOLD: usize = 64;

pub(super) fn told(copies: &[String]) -> Vec<String> {
    let more = copies.len().saturating_sub(COPIES_TOLD);
    let named = copies.iter().take(COPIES_TOLD).cloned();
    named.chain((more > 0).then(|| format!("and {more} more"))).collect()
}

/// The only way out of a log that refuses to open: copies the files aside, keeps the longest prefix that holds, and
/// leaves a `wal_doctored` frame that says what was lost. [`diagnose`] tells beforehand what that will be.
///
/// # Errors
/// [`WalError::NoDoctorNeeded`] when the log would open; [`WalError::Locked`] when a writer has it.
pub fn doctor(walk: impl Into<Walk>) -> Result<Doctored, WalError> {
    doctor_on(&walk.into().dir)
}

pub(super) fn doctor_on(dir: &Dir) -> Result<Doctored, WalError> {
    let lock = dir.lock()?;
    let survey = Survey::of(dir)?;
    match survey.failure(dir) {
        // A file that is not of this log is no reason to give up what is.
        Some(stray @ WalError::Stray { .. }) => return Err(stray),
        Some(_) => {}
        None => return Err(WalError::NoDoctorNeeded { dir: dir.path.clone(), why: survey.row.why }),
    }
    let sealed = dir.sealed()?;
    let (end, last_good, link) = survey.end.whole;
    let source = survey.end.segment;
    // Of the sealed segments from the damage on, only what is kept of the first remains: in the live file.
    let dropped: Vec<_> = sealed.into_iter().map(Segment::Sealed).filter(|segment| *segment >= source).collect();
    let mut bytes = dir.bytes(Segment::Live)?;
    for segment in &dropped {
        bytes += dir.bytes(*segment)?;
    }
    let dropped_bytes = bytes.saturating_sub(end);

    let live = Segment::Live.to_string();
    let sealed = dropped.iter().map(Segment::to_string);
    let names: Vec<_> = [live.clone()].into_iter().chain(sealed).chain([SAFE_SEQ.to_owned()]).collect();
    let mut number = 1;
    while names.iter().try_fold(false, |any, name| Ok::<_, WalError>(any || dir.holds(aside(name, number))?))? {
        number += 1;
    }
    let mut copies = Vec::new();
    for name in names {
        if dir.holds(&name)? {
            copies.push(aside(&name, number));
        }
    }
    for name in [&*live, SAFE_SEQ] {
        if copies.contains(&aside(name, number)) {
            dir.copy_aside(&dir.file(name), 0, aside(name, number))?;
        }
    }

    // The new live file takes the old one's place in one step, its `wal_doctored` frame already in it. Then what is dropped
    // goes, the damage last, and `safe_seq` follows. A crash in between leaves a log that still fails, or one that already
    // says what happened.
    let temp = dir.file("telemetry.wal.tmp");
    let file = dir.fs.open(&temp, How::Fresh).map_err(WalError::io("create", &temp))?;
    if let Some(log) = dir.segment(source)? {
        dir.copy((&dir.file(source), &*log), 0..end, (&temp, &*file), 0, Zeros::AreWritten)?;
    }
    let mut own = Vec::new();
    if let ((first @ 2.., prev), None) = (survey.first(), survey.said) {
        own.push(Own::Pruned {
            first: 1,
            last: first - 1,
            hash: String::from_utf8_lossy(&prev).into_owned(),
            bytes: 0,
            why: Past::Gone,
            drained: false,
            by: "doctor".to_owned(),
        });
    }
    own.push(Own::Doctored {
        row: survey.row.name.to_owned(),
        reason: survey.what(),
        kept: last_good,
        committed: survey.committed,
        dropped_bytes,
        copies: told(&copies),
    });
    let encoder = Encoder::new(last_good, link, survey.end.wal_id.clone());
    let mut new = Ready { file, end, first: survey.segment_first, encoder, opened: Opened::Initialized };
    append_own(dir, &mut new, own, last_good, unix_ns())?;
    let live = dir.file(live);
    dir.fs.rename(&temp, &live).map_err(WalError::io("replace", &live))?;
    dir.sync()?;
    for segment in dropped.into_iter().rev() {
        let path = dir.file(segment);
        let aside = dir.file(aside(&segment.to_string(), number));
        dir.fs.rename(&path, &aside).map_err(WalError::io("rename", &path))?;
        dir.sync()?;
    }
    let last = new.encoder.next_seq - 1;
    dir.publish_safe_seq(last)?;
    lock.mark(last).map_err(WalError::io("write", lock.path()))?;
    Ok(Doctored { kept: survey.kept(), last: last_good, lost: survey.lost(), dropped_bytes, copies })
}

/// What an original is called once the doctor has put it aside.
fn aside(name: &str, number: u64) -> String {
    format!("{name}.before.{number}")
}
