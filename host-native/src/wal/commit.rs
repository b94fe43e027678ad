//! Group commit: one thread that takes what is queued, writes it once, syncs once, and tells everybody.
//!
//! Appenders number, chain and encode their frames themselves, under the queue's lock: that work goes on while the
//! thread waits for the disk, and the thread has nothing left to do between two syncs but one write.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gate_core::frame::Frame;

use super::{
    Options, WalError,
    ack::{Ack, Cohort},
    codec::Encoder,
    dir::{Dir, Lock},
    fs::{File, How},
    own::Own,
    position::Position,
    recovery::Ready,
    segment::Segment,
    unix_ns,
};

/// Most bytes of frames that one write takes.
pub(super) const WRITE_BYTES: usize = 4 * 1024 * 1024;
/// Most frames of one append.
pub(super) const BATCH_FRAMES: usize = 4096;
/// Written buffers that are kept for the next ones.
const SPARE_CHUNKS: usize = 2;

/// What appenders and the log thread share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    pub(super) end: Arc<Cohort>,
    max_frames: usize,
    max_bytes: usize,
    segment_bytes: u64,
}

#[derive(Debug)]
struct Queue {
    phase: Phase,
    /// Whether the log thread sleeps and must be woken.
    asleep: bool,
    encoder: Encoder,
    /// The last durable frame.
    durable: u64,
    segment: Current,
    /// The newest frame that is worth a checkpoint: the last when the log was opened, or of a segment that was sealed.
    milestone: Position,
    /// The last frame that says what is about to be deleted.
    notice: Option<Position>,
    frames: usize,
    bytes: usize,
    chunks: VecDeque<Chunk>,
    spare: Vec<Chunk>,
}

/// What becomes a frame.
pub(super) trait Encode {
    /// Whether it says what is about to be deleted.
    const IS_NOTICE: bool;

    /// Appends the frame, with its place in the log.
    fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>, unix_ns: u64, left: u32, durable: u64);
}

impl Encode for Frame {
    const IS_NOTICE: bool = false;

    fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>, unix_ns: u64, left: u32, durable: u64) {
        encoder.push(out, unix_ns, |out| self.write_members(out), left, durable);
    }
}

impl Encode for Own {
    const IS_NOTICE: bool = true;

    fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>, unix_ns: u64, left: u32, durable: u64) {
        self.push(encoder, out, unix_ns, left, durable);
    }
}

/// The segment that the next frame goes to.
#[derive(Debug, Clone, Copy)]
struct Current {
    /// Its first frame.
    first: u64,
    /// How much it has.
    bytes: u64,
}

#[derive(Debug)]
enum Phase {
    Open,
    Closing,
    Ended(WalError),
}

/// What one write takes: whole appends, in order.
#[derive(Debug, Default)]
struct Chunk {
    /// The frames as they go to the log.
    encoded: Vec<u8>,
    /// The frame that it begins a segment with: the live file is sealed before it is written.
    begins: Option<u64>,
    frames: usize,
    last_seq: u64,
    cohort: Arc<Cohort>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Only a panic leaves anybody waiting here.
        self.cohort.complete(Err(WalError::Closed));
    }
}

enum Next {
    Chunk(Chunk),
    Idle,
    Close,
}

impl Shared {
    /// A queue whose first frame comes after the last that `encoder` knows, which is durable.
    fn new(encoder: Encoder, segment: Current, options: &Options) -> Self {
        Self {
            queue: Mutex::new(Queue {
                phase: Phase::Open,
                asleep: false,
                durable: encoder.next_seq - 1,
                milestone: head_of(&encoder),
                notice: None,
                encoder,
                segment,
                frames: 0,
                bytes: 0,
                chunks: VecDeque::new(),
                spare: Vec::new(),
            }),
            ready: Condvar::new(),
            end: Arc::default(),
            max_frames: options.queue_frames,
            max_bytes: options.queue_bytes,
            segment_bytes: options.segment_bytes,
        }
    }

    /// Queues a batch whose frames and size were checked; `bytes` is the most that it takes when written. None where it
    /// is to be in the segment of an earlier frame, and would not be.
    pub(super) fn push<E: Encode>(&self, batch: &[E], bytes: usize, beside: Option<u64>) -> Option<Ack> {
        let Ok(mut left) = u32::try_from(batch.len()) else { return Some(Ack::refused(WalError::EmptyBatch)) };
        let unix_ns = unix_ns();
        let mut guard = self.queue();
        let queue = &mut *guard;
        match &queue.phase {
            Phase::Open => {}
            Phase::Closing => return Some(Ack::refused(WalError::Closed)),
            Phase::Ended(error) => return Some(Ack::refused(error.clone())),
        }
        if queue.frames + batch.len() > self.max_frames || queue.bytes + bytes > self.max_bytes {
            return Some(Ack::refused(WalError::Overloaded { frames: queue.frames, bytes: queue.bytes }));
        }
        let is_full = queue.segment.bytes >= self.segment_bytes.max(1);
        if beside.is_some_and(|seq| is_full || seq < queue.segment.first) {
            return None;
        }
        let mut chunk = queue.chunk_for(bytes, is_full);
        let before = chunk.encoded.len();
        if queue.segment.bytes == 0 && queue.encoder.next_seq > 1 {
            let rotated = Own::Rotated { wal_id: queue.encoder.wal_id.clone() };
            rotated.push(&mut queue.encoder, &mut chunk.encoded, unix_ns, 0, queue.durable);
        }
        let first = queue.encoder.next_seq;
        for frame in batch {
            left -= 1;
            frame.encode(&mut queue.encoder, &mut chunk.encoded, unix_ns, left, queue.durable);
        }
        if E::IS_NOTICE {
            queue.notice = Some(head_of(&queue.encoder));
        }
        chunk.frames += batch.len();
        chunk.last_seq = queue.encoder.next_seq - 1;
        let encoded = chunk.encoded.len() - before;
        queue.frames += batch.len();
        queue.bytes += encoded;
        queue.segment.bytes += encoded as u64;
        let ack = Ack::queued(first..=chunk.last_seq, Arc::clone(&chunk.cohort));
        queue.chunks.push_back(chunk);
        let wake = mem::take(&mut queue.asleep);
        drop(guard);
        if wake {
            self.ready.notify_one();
        }
        Some(ack)
    }

    /// The newest frame that is worth a checkpoint, once it is durable.
    pub(super) fn milestone(&self) -> Option<Position> {
        let queue = self.queue();
        Some(queue.milestone.clone()).filter(|at| (1..=queue.durable).contains(&at.seq))
    }

    /// The last frame that says what is about to be deleted: durable, once its append was acknowledged.
    pub(super) fn notice(&self) -> Option<Position> {
        self.queue().notice.clone()
    }

    /// Makes the last frame that was appended a milestone.
    pub(super) fn set_milestone(&self) {
        let mut queue = self.queue();
        queue.milestone = head_of(&queue.encoder);
    }

    /// Accepts nothing more; what is queued is still written.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        if let Phase::Open = queue.phase {
            queue.phase = Phase::Closing;
        }
        drop(queue);
        self.ready.notify_one();
    }

    /// Fails everything that waits, now and from now on.
    fn end_with(&self, error: &WalError) {
        let mut queue = self.queue();
        if let Phase::Ended(_) = queue.phase {
            return;
        }
        queue.phase = Phase::Ended(error.clone());
        let chunks = mem::take(&mut queue.chunks);
        (queue.frames, queue.bytes) = (0, 0);
        drop(queue);
        for chunk in &chunks {
            chunk.cohort.complete(Err(error.clone()));
        }
    }

    /// What to do next, everything up to `durable` being so; `patience` is how long to sleep at most.
    fn next(&self, written: Option<Chunk>, durable: u64, patience: Option<Duration>) -> Next {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut queue = self.queue();
        queue.durable = durable;
        if let Some(written) = written.filter(|_| queue.spare.len() < SPARE_CHUNKS) {
            queue.spare.push(written);
        }
        loop {
            if let Some(chunk) = queue.chunks.pop_front() {
                queue.frames -= chunk.frames;
                queue.bytes -= chunk.encoded.len();
                return Next::Chunk(chunk);
            }
            if let Phase::Closing = queue.phase {
                return Next::Close;
            }
            queue.asleep = true;
            queue = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    queue.asleep = false;
                    return Next::Idle;
                }
                Some(rest) => self.ready.wait_timeout(queue, rest).unwrap_or_else(PoisonError::into_inner).0,
            };
            queue.asleep = false;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// The chunk that takes `bytes` more: the last one, or a new one where it would grow beyond one write, or where a segment
    /// begins. It goes back to the end of the queue.
    fn chunk_for(&mut self, bytes: usize, begins_segment: bool) -> Chunk {
        if begins_segment {
            self.segment = Current { first: self.encoder.next_seq, bytes: 0 };
            self.milestone = head_of(&self.encoder);
        }
        let begins = begins_segment.then_some(self.segment.first);
        match self.chunks.pop_back() {
            Some(last) if begins.is_none() && last.encoded.len() + bytes <= WRITE_BYTES => last,
            full => {
                self.chunks.extend(full);
                let mut chunk = self.spare.pop().unwrap_or_default();
                chunk.begins = begins;
                chunk
            }
        }
    }
}

/// The last frame that was appended.
fn head_of(Encoder { next_seq, prev, wal_id, .. }: &Encoder) -> Position {
    Position { wal_id: wal_id.clone(), seq: next_seq - 1, hash: String::from_utf8_lossy(prev).into_owned() }
}

/// The log thread.
#[derive(Debug)]
pub(super) struct Committer {
    shared: Arc<Shared>,
    dir: Dir,
    lock: Lock,
    /// The live file.
    file: Arc<dyn File>,
    /// Its first frame.
    first: u64,
    /// Where the next frame goes.
    end: u64,
    /// The last durable frame.
    durable: u64,
    /// What `telemetry.safe_seq` says.
    safe_seq: u64,
    publish_every: u64,
    publish_idle: Duration,
}

impl Committer {
    /// The writer of a log that recovery has made ready; everything in it is durable.
    pub(super) fn new(dir: Dir, lock: Lock, log: Ready, options: &Options) -> Self {
        let durable = log.encoder.next_seq - 1;
        let segment = Current { first: log.first, bytes: log.end };
        Self {
            shared: Arc::new(Shared::new(log.encoder, segment, options)),
            dir,
            lock,
            file: log.file,
            first: log.first,
            end: log.end,
            durable,
            safe_seq: durable,
            publish_every: options.publish_every,
            publish_idle: options.publish_idle,
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Runs until the log is closed or a write fails.
    pub(super) fn run(mut self) {
        let fate = Fate { shared: Arc::clone(&self.shared), dir: self.dir.clone(), outcome: None };
        let outcome = self.commit_all();
        // The lock goes before anybody hears of the end, so that the log can be opened again at once.
        drop(self);
        fate.settle(outcome);
    }

    fn commit_all(&mut self) -> Result<(), WalError> {
        let mut written = None;
        loop {
            let lag = self.durable - self.safe_seq;
            let patience = (lag > 0).then_some(self.publish_idle);
            match self.shared.next(written.take(), self.durable, patience) {
                Next::Chunk(mut chunk) => {
                    if let Err(error) = self.commit(&chunk) {
                        self.shared.end_with(&error);
                        chunk.cohort.complete(Err(error.clone()));
                        return Err(error);
                    }
                    mem::take(&mut chunk.cohort).complete(Ok(()));
                    chunk.encoded.clear();
                    chunk.frames = 0;
                    written = Some(chunk);
                    if self.durable - self.safe_seq >= self.publish_every {
                        self.publish()?;
                    }
                }
                Next::Idle => self.publish()?,
                Next::Close => return if lag > 0 { self.publish() } else { Ok(()) },
            }
        }
    }

    /// One write, one sync, one mark: after it every frame of the chunk is durable.
    fn commit(&mut self, chunk: &Chunk) -> Result<(), WalError> {
        // Somebody else may write where this log thinks it ends, or take its files away: nothing of that is answered.
        self.check_lock()?;
        if self.file.len().map_err(|error| self.poisoned("look at its files", error))? != self.end {
            return Err(self.disturbed("`telemetry.wal` was changed by somebody else"));
        }
        if let Some(first) = chunk.begins {
            self.rotate(first)?;
        }
        self.file.write_at(self.end, &chunk.encoded).map_err(|e| self.poisoned("write", e))?;
        self.file.sync().map_err(|e| self.poisoned("sync", e))?;
        self.check_in_place()?;
        let is_first = self.end == 0;
        self.end += chunk.encoded.len() as u64;
        self.durable = chunk.last_seq;
        self.lock.mark(self.durable).map_err(|e| self.poisoned("write of the durable mark", e))?;
        if is_first {
            // From now on a live file that is not there is one that was lost, not one that was not begun.
            self.publish_now()?;
        }
        Ok(())
    }

    /// Seals the live file, every byte of which is durable, and begins the next one, with frame `first`. A crash leaves
    /// the old one, a sealed one alone, or a sealed and an empty one: the log goes on from each.
    fn rotate(&mut self, first: u64) -> Result<(), WalError> {
        self.check_in_place()?;
        // What is sealed is not counted as lost where the next segment is not there: it is where this one is cut.
        self.publish_now()?;
        let failed = |error| self.poisoned("rotation", error);
        let (live, sealed) = (self.dir.file(Segment::Live), self.dir.file(Segment::Sealed(self.first)));
        if self.dir.sealed().map_err(|error| self.ended_by(error))?.contains(&self.first) {
            let what = format!("`{}` is in the way", sealed.display());
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, what)));
        }
        self.dir.fs.rename(&live, &sealed).map_err(failed)?;
        let file = self.dir.fs.open(&live, How::New).map_err(failed)?;
        self.dir.fs.sync_dir(&self.dir.path).map_err(failed)?;
        (self.file, self.first, self.end) = (file, first, 0);
        Ok(())
    }

    fn check_lock(&self) -> Result<(), WalError> {
        match self.lock.is_in_place() {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.disturbed("`wal.lock` was removed or replaced")),
            Err(error) => Err(self.poisoned("look at its files", error)),
        }
    }

    fn check_in_place(&self) -> Result<(), WalError> {
        match self.file.is_at(&self.dir.file(Segment::Live)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.disturbed("`telemetry.wal` was removed or replaced")),
            Err(error) => Err(self.poisoned("look at its files", error)),
        }
    }

    fn publish(&mut self) -> Result<(), WalError> {
        match self.publish_now() {
            // It may lag: it is tried again when files or memory are free.
            Err(WalError::Poisoned { source, .. }) if is_exhaustion(&source) => Ok(()),
            published => published,
        }
    }

    fn publish_now(&mut self) -> Result<(), WalError> {
        if self.safe_seq < self.durable {
            // Another log may be in the place of this one: what is committed to that is not this one's to say.
            self.check_lock()?;
            self.dir.publish_safe_seq(self.durable).map_err(|error| self.ended_by(error))?;
            self.safe_seq = self.durable;
        }
        Ok(())
    }

    fn ended_by(&self, error: WalError) -> WalError {
        let WalError::Io { op, path, source } = error else { return error };
        self.poisoned(format!("attempt to {op} `{}`", path.display()), source)
    }

    fn poisoned(&self, op: impl Into<String>, source: impl Into<Arc<io::Error>>) -> WalError {
        let poisoned = |dir| WalError::Poisoned { dir, op: op.into(), source: source.into() };
        self.away().unwrap_or_else(|| poisoned(self.dir.path.clone()))
    }

    fn disturbed(&self, what: &'static str) -> WalError {
        self.away().unwrap_or_else(|| WalError::Disturbed { dir: self.dir.path.clone(), what })
    }

    /// Where neither the lock nor the live file is in its place, all of the log is not.
    fn away(&self) -> Option<WalError> {
        let files = (self.lock.is_in_place(), self.file.is_at(&self.dir.file(Segment::Live)));
        matches!(files, (Ok(false), Ok(false))).then(|| WalError::Away { dir: self.dir.path.clone() })
    }
}

/// Whether the process or the machine has run out of file descriptors or memory: EMFILE, ENFILE, ENOMEM.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 12))
}

/// Tells everybody how the log thread ended, even if it panicked.
struct Fate {
    shared: Arc<Shared>,
    dir: Dir,
    outcome: Option<Result<(), WalError>>,
}

impl Fate {
    fn settle(mut self, outcome: Result<(), WalError>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let source = Arc::new(io::Error::other("the log thread panicked"));
            Err(WalError::Poisoned { dir: self.dir.path.clone(), op: "commit".to_owned(), source })
        });
        let error = outcome.as_ref().err().cloned().unwrap_or(WalError::Closed);
        self.shared.end_with(&error);
        self.shared.end.complete(outcome);
    }
}
