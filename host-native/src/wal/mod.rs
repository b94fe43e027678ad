//! The log: every decision is durable here before its answer leaves the host.
//!
//! [`Wal::append`] queues a batch of frames and hands back an [`Ack`]; the ack resolves once the batch is on the disk,
//! and a batch is there whole or not at all. One thread does all writing: it takes what is queued, writes it once,
//! syncs once, and tells everybody. One failed write or sync ends the log: nothing is retried, every waiter is told,
//! and [`Wal::end`] lets a server notice and exit.
//!
//! [`Reader`] walks what is durable, beside a live writer too; [`Undrained`] what of it was not yet acknowledged
//! elsewhere. [`verify`], [`diagnose`] and [`doctor`] are the
//! operator's tools. The format and the recovery table are in `docs/src/spec/wal.md`.
//!
//! The frames are in segments: `telemetry.wal`, the live one, and those that were sealed before it. Deliberately absent: any
//! way to change a frame, or to delete one that is not in a sealed segment.

mod ack;
mod checkpoint;
mod codec;
mod commit;
mod dir;
mod doctor;
mod error;
mod fs;
mod keeper;
mod own;
mod position;
mod reader;
mod recovery;
mod retention;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod undrained;
mod walk;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use gate_core::frame::Frame;

pub use ack::{Ack, End};
pub use checkpoint::{Checked, Checkpoint, CheckpointError};
pub use doctor::{Diagnosis, Doctored, Opening, Report, diagnose, doctor, verify};
pub use error::WalError;
pub use keeper::{Keeper, Signing};
pub use reader::{Reader, Record};
pub use recovery::Opened;
pub use retention::{Past, Plan, Prune, Pruned, Retention};
pub use scan::{Fault, Tail};
pub use segment::Segment;
pub use undrained::{Refused, Undrained};
pub use walk::Walk;

use commit::{Committer, Shared};
use dir::Dir;
use fs::RealFs;

/// What a log may hold in memory, and how far `telemetry.safe_seq` may lag.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most frames that wait for the disk; more are refused as overload.
    pub queue_frames: usize,
    /// Most bytes that wait for the disk; more are refused as overload.
    pub queue_bytes: usize,
    /// `telemetry.safe_seq` is updated at least once in so many frames.
    pub publish_every: u64,
    /// `telemetry.safe_seq` is updated when nothing was appended for so long.
    pub publish_idle: Duration,
    /// The live segment is sealed, and another begun, once it has so many bytes.
    pub segment_bytes: u64,
}

/// What a segment has, where nobody says otherwise.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_frames: 65_536,
            queue_bytes: 64 * 1024 * 1024,
            publish_every: 65_536,
            publish_idle: Duration::from_millis(100),
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

/// A log that is open for appending; the only one on its directory.
///
/// Share it behind an [`Arc`]. Dropping it writes what is queued and closes it.
#[derive(Debug)]
pub struct Wal {
    dir: Dir,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The last frame that the log says is deleted, or is about to: once is enough.
    pruned: Mutex<u64>,
}

impl Wal {
    /// Opens the log in `dir`, beginning it where there is none, and says what was found.
    ///
    /// # Errors
    /// [`WalError::Locked`] when another process writes it; a [`Damaged`](crate::ErrorClass::Damaged) error, without a byte of the log
    /// changed, when something committed is missing or changed.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<(Self, Opened), WalError> {
        Self::open_on(Dir::new(Arc::new(RealFs), dir.as_ref()), &options)
    }

    fn open_on(dir: Dir, options: &Options) -> Result<(Self, Opened), WalError> {
        dir.fs.create_dir(&dir.path).map_err(WalError::io("create", &dir.path))?;
        let lock = dir.lock()?;
        let log = recovery::recover(&dir, unix_ns())?;
        let last_seq = log.encoder.next_seq - 1;
        // Recovery synced everything up to here.
        if dir.safe_seq()? != dir::SafeSeq::Is(last_seq) {
            dir.publish_safe_seq(last_seq)?;
        }
        lock.mark(last_seq).map_err(WalError::io("write", lock.path()))?;

        let opened = log.opened.clone();
        let committer = Committer::new(dir.clone(), lock, log, options);
        let shared = committer.shared();
        let thread = thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || committer.run())
            .map_err(WalError::io("start the thread of", &dir.path))?;
        Ok((Self { dir, shared, thread: Mutex::new(Some(thread)), pruned: Mutex::default() }, opened))
    }

    /// Queues `batch`, which becomes durable whole or not at all. Never waits for the disk.
    ///
    /// The ack fails at once when the batch is empty or too large, a frame's `attrs` are too large or not a JSON
    /// object, too much is queued, or the log has ended.
    pub fn append(&self, batch: Vec<Frame>) -> Ack {
        // Only a batch that must be beside a frame is given back.
        self.push(batch, None).unwrap_or_else(|_| Ack::refused(WalError::Closed))
    }

    /// The same for a batch that must be in one segment with the earlier frame `seq`, as decisions must be with their
    /// facts: segments are deleted one by one.
    ///
    /// # Errors
    /// The batch, where that segment is sealed or full: append the frame again together with it.
    pub(crate) fn append_beside(&self, seq: u64, batch: Vec<Frame>) -> Result<Ack, Vec<Frame>> {
        self.push(batch, Some(seq))
    }

    fn push(&self, batch: Vec<Frame>, beside: Option<u64>) -> Result<Ack, Vec<Frame>> {
        match check(&batch) {
            Ok(bytes) => self.shared.push(&batch, bytes, beside).ok_or(batch),
            Err(error) => Ok(Ack::refused(error)),
        }
    }

    /// Deletes the sealed segments that are past a bound of `retention`, after a frame of the log says so durably: its first and
    /// its last frame, its last hash, why, and `by` whom. Waits for the disk.
    ///
    /// # Errors
    /// The log cannot be read or written; a segment cannot be deleted. What was not deleted is, the next time.
    pub fn prune(&self, retention: &Retention, by: &str) -> Result<Plan, WalError> {
        let plan = self.announce(u64::MAX, retention, by)?;
        self.delete(&plan)?;
        Ok(plan)
    }

    /// Says, durably, which segments are about to be deleted: some that end with frame `most` or before it.
    fn announce(&self, most: u64, retention: &Retention, by: &str) -> Result<Plan, WalError> {
        let mut said = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plan = Plan::of(&self.dir, retention, unix_ns())?;
        plan.pruned.retain(|pruned| pruned.last <= most);
        plan.pruned.truncate(commit::BATCH_FRAMES);
        let own: Vec<_> =
            plan.pruned.iter().filter(|pruned| pruned.last > *said).map(|pruned| pruned.own(by)).collect();
        if !own.is_empty() {
            let bytes = own.len() * codec::AROUND_ATTRS * 2;
            self.shared.push(&own, bytes, None).unwrap_or_else(|| Ack::refused(WalError::Closed)).wait()?;
        }
        *said = plan.pruned.last().map_or(*said, |pruned| pruned.last.max(*said));
        Ok(plan)
    }

    /// Deletes what was announced.
    fn delete(&self, plan: &Plan) -> Result<(), WalError> {
        plan.pruned.iter().try_for_each(|pruned| self.dir.remove(pruned.first))
    }

    /// The end of the log: resolves when it was closed, or fails when a write or a sync did.
    pub fn end(&self) -> End {
        End::of(Arc::clone(&self.shared.end))
    }

    /// Why the log ended, if a failure ended it.
    pub fn failure(&self) -> Option<WalError> {
        self.shared.end.outcome().and_then(Result::err)
    }

    /// Writes what is queued, updates `telemetry.safe_seq` and gives the lock back. Later appends are refused.
    ///
    /// # Errors
    /// The failure that ended the log before.
    pub fn close(&self) -> Result<(), WalError> {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A waker that the log thread runs may drop the last handle: that thread cannot wait for itself.
        if let Some(thread) = thread.filter(|handle| handle.thread().id() != thread::current().id()) {
            // A panic of that thread has already been turned into the log's failure.
            let _ = thread.join();
        }
        self.failure().map_or(Ok(()), Err)
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // Whoever cares about the failure has had it from an ack or from `end`.
        let _ = self.close();
    }
}

/// What [`Wal::prune`] would delete now, beside a writer too. Changes nothing.
///
/// # Errors
/// The log would not open, or cannot be read; `telemetry.pos` is damaged.
pub fn plan(walk: impl Into<Walk>, retention: &Retention) -> Result<Plan, WalError> {
    plan_on(&walk.into().dir, retention)
}

fn plan_on(dir: &Dir, retention: &Retention) -> Result<Plan, WalError> {
    match doctor::verify_on(dir)?.error {
        Some(error) => Err(error),
        None => Plan::of(dir, retention, unix_ns()),
    }
}

/// The most that a batch takes when written.
fn check(batch: &[Frame]) -> Result<usize, WalError> {
    if batch.is_empty() {
        return Err(WalError::EmptyBatch);
    }
    for Frame { attrs, .. } in batch {
        if attrs.len() > codec::ATTRS_BYTES {
            return Err(WalError::FrameTooLarge { bytes: attrs.len(), max: codec::ATTRS_BYTES });
        }
        codec::check_attrs(attrs).map_err(|why| WalError::AttrsNotObject { why })?;
    }
    let bytes = batch.iter().map(|frame| codec::AROUND_ATTRS + frame.attrs.len()).sum();
    if batch.len() > commit::BATCH_FRAMES || bytes > commit::WRITE_BYTES {
        let (max_frames, max_bytes) = (commit::BATCH_FRAMES, commit::WRITE_BYTES);
        return Err(WalError::BatchTooLarge { frames: batch.len(), bytes, max_frames, max_bytes });
    }
    Ok(bytes)
}

/// Nanoseconds since 1970 by the machine's clock; 0 when it stands before that.
fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
