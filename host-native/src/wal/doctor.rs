//! The operator's tools: look, check, and, as a last resort, accept a loss.

use std::{path::Path, sync::Arc};

use super::{
    WalError, Walk,
    codec::Encoder,
    dir::{Dir, SafeSeq, Zeros},
    fs::{Fs, How},
    recovery::{Action, Opened, Ready, Survey, append_own},
    scan::Fault,
    unix_ns,
};

/// What opening a log would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Begin a log.
    Init,
    /// Go on after the last frame.
    Open,
    /// Set an unfinished write aside and go on before it.
    Repair,
    /// Refuse: something committed is missing or changed.
    Fail,
}

/// What recovery finds, without changing anything.
///
/// Beside a live writer the end of the log may be a write that is still under way.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Where that frame ends, in bytes.
    pub good_bytes: u64,
    /// C: the highest frame known to have been durable.
    pub committed: u64,
    /// What `telemetry.safe_seq` says; none where it is absent or unreadable.
    pub safe_seq: Option<u64>,
    /// Bytes of the log; none where there is none.
    pub bytes: Option<u64>,
    /// The first thing that does not hold.
    pub fault: Option<Fault>,
    /// Where the first whole frame after the fault starts.
    pub later: Option<u64>,
}

/// Says which row of the recovery table applies to the log, and why. Changes nothing.
///
/// # Errors
/// When the files cannot be read.
pub fn diagnose(walk: impl Into<Walk>) -> Result<Diagnosis, WalError> {
    let walk = walk.into();
    diagnose_on(&Dir::new(walk.fs(), &walk.dir))
}

pub(super) fn diagnose_on(dir: &Dir) -> Result<Diagnosis, WalError> {
    let survey = Survey::of(dir)?;
    let opening = match survey.row.action {
        Action::Init => Opening::Init,
        Action::Open => Opening::Open,
        Action::Repair => Opening::Repair,
        Action::Fail(_) => Opening::Fail,
    };
    Ok(Diagnosis {
        opening,
        row: survey.row.name,
        why: survey.row.why,
        last_good: survey.whole.1,
        good_bytes: survey.whole.0,
        committed: survey.committed,
        safe_seq: match survey.safe_seq {
            SafeSeq::Is(seq) => Some(seq),
            SafeSeq::Absent | SafeSeq::Malformed => None,
        },
        bytes: survey.len,
        fault: survey.fault,
        later: survey.later,
    })
}

/// What a whole walk over a log showed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
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
    let walk = walk.into();
    verify_on(&Dir::new(walk.fs(), &walk.dir))
}

pub(super) fn verify_on(dir: &Dir) -> Result<Report, WalError> {
    let survey = Survey::of(dir)?;
    let error = match survey.row.action {
        Action::Init => return Err(WalError::NoLog { dir: dir.path.clone() }),
        Action::Fail(failure) => Some(survey.error(dir, failure)),
        Action::Open | Action::Repair => None,
    };
    let (bytes, frames, head) = survey.whole;
    Ok(Report {
        frames,
        batches: survey.batches,
        bytes,
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
    /// The last frame that was kept; the `wal_doctored` frame follows it.
    pub kept: u64,
    /// The highest frame that was known to be durable before.
    pub committed: u64,
    /// Bytes after the last kept frame that were dropped.
    pub dropped_bytes: u64,
    /// The untouched originals, in the log's directory.
    pub copies: Vec<String>,
}

/// The only way out of a log that refuses to open: copies the files aside, keeps the longest prefix that holds, and
/// leaves a `wal_doctored` frame that says what was lost. [`diagnose`] tells beforehand what that will be.
///
/// # Errors
/// [`WalError::NoDoctorNeeded`] when the log would open; [`WalError::Locked`] when a writer has it.
pub fn doctor(walk: impl Into<Walk>) -> Result<Doctored, WalError> {
    let walk = walk.into();
    doctor_on(walk.fs(), &walk.dir)
}

pub(super) fn doctor_on(fs: Arc<dyn Fs>, dir: &Path) -> Result<Doctored, WalError> {
    let dir = &Dir::new(fs, dir);
    let lock = dir.lock()?;
    let survey = Survey::of(dir)?;
    if !matches!(survey.row.action, Action::Fail(_)) {
        return Err(WalError::NoDoctorNeeded { dir: dir.path.clone(), why: survey.row.why });
    }
    let (end, kept, link) = survey.whole;
    let dropped_bytes = survey.len.unwrap_or(0) - end;

    let mut number = 1;
    let names = |number| [format!("telemetry.wal.before.{number}"), format!("telemetry.safe_seq.before.{number}")];
    while names(number).iter().try_fold(false, |any, name| Ok::<_, WalError>(any || dir.holds(name)?))? {
        number += 1;
    }
    let mut copies = Vec::new();
    for (name, original) in names(number).into_iter().zip([dir.log_path(), dir.safe_seq_path()]) {
        let is_there = match name.starts_with("telemetry.wal") {
            true => survey.len.is_some(),
            false => survey.safe_seq != SafeSeq::Absent,
        };
        if is_there {
            dir.copy_aside(&original, 0, &name)?;
            copies.push(name);
        }
    }

    // The new log takes the old one's place in one step, its `wal_doctored` frame already in it; `safe_seq` follows. A
    // crash in between leaves the old state, a log that still fails, or one that already says what happened.
    let temp = dir.file("telemetry.wal.tmp");
    let file = dir.fs.open(&temp, How::Fresh).map_err(WalError::io("create", &temp))?;
    if let Some(log) = dir.log()? {
        dir.copy((&dir.log_path(), &*log), 0..end, (&temp, &*file), 0, Zeros::AreWritten)?;
    }
    let quoted: Vec<String> = copies.iter().map(|name| format!("\"{name}\"")).collect();
    let attrs = format!(
        "{{\"event\":\"wal_doctored\",\"row\":\"{}\",\"reason\":\"{}\",\"kept\":{kept},\"committed\":{},\"dropped_bytes\":{dropped_bytes},\"copies\":[{}]}}",
        survey.row.name,
        survey.what(),
        survey.committed,
        quoted.join(","),
    );
    let mut new = Ready { file, end, encoder: Encoder::new(kept, link), opened: Opened::Initialized };
    append_own(dir, &mut new, &attrs, kept, unix_ns())?;
    let log = dir.log_path();
    dir.fs.rename(&temp, &log).map_err(WalError::io("replace", &log))?;
    dir.sync()?;
    dir.publish_safe_seq(kept + 1)?;
    lock.mark(kept + 1).map_err(WalError::io("write", lock.path()))?;
    Ok(Doctored { kept, committed: survey.committed, dropped_bytes, copies })
}
