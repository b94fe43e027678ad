//! What a service does for its log beside it: prunes it, and signs what it holds.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Checkpoint, Retention, Wal, WalError, fs::append_line, position::Position};
use crate::key::PrivateKey;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long it prunes nothing where nothing was sealed: segments get old and are drained, and one that could not be deleted still
/// cannot.
const AGAIN: Duration = Duration::from_secs(60);

/// Signed checkpoints, an envelope a line.
pub struct Signing {
    /// The key that signs them.
    pub key: PrivateKey,
    /// The file that they are appended to.
    pub file: PathBuf,
}

/// Prunes a log, and signs checkpoints of it: where it ends at the start and when this is dropped, of the newest segment that is
/// sealed, and of what says that some were deleted. On a thread of its own, so that no decision waits for it. What goes wrong is
/// told to `tracing`, and tried again.
pub struct Keeper {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Keeps `wal`; `by` is who the log says prunes it. Drop it once the log is closed.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(wal: Arc<Wal>, retention: Retention, signing: Option<Signing>, by: &'static str) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut work =
            Work { wal, retention, signing, by, signed: 0, looked: 0, pruned: Instant::now(), told: String::new() };
        let run = move || {
            while stopped.recv_timeout(EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                work.look();
            }
            work.finish();
        };
        let thread = thread::Builder::new().name("wal keeper".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A panic there has been printed, and the log is closed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

struct Work {
    wal: Arc<Wal>,
    retention: Retention,
    signing: Option<Signing>,
    by: &'static str,
    /// The last milestone, signed where there is a key.
    signed: u64,
    /// What that was, and when, the last time that it pruned.
    looked: u64,
    pruned: Instant,
    /// What went wrong last: it is said once.
    told: String,
}

impl Work {
    fn look(&mut self) {
        let done = self.keep();
        self.tell(done);
    }

    /// Signs what is new, and prunes where that is: a checkpoint of what is deleted comes before.
    fn keep(&mut self) -> Result<(), String> {
        let milestone = self.sign()?;
        if milestone == self.looked && self.pruned.elapsed() < AGAIN {
            return Ok(());
        }
        (self.looked, self.pruned) = (milestone, Instant::now());
        let most = if self.signing.is_some() { milestone } else { u64::MAX };
        let failed = |error: WalError| error.to_string();
        let plan = self.wal.announce(most, &self.retention, self.by).map_err(failed)?;
        if let Some(notice) = self.wal.shared.notice() {
            // Before they are gone: the log then never begins where no checkpoint covers why.
            self.sign_at(notice)?;
        }
        self.wal.delete(&plan).map_err(failed)?;
        if let (Some(first), Some(last)) = (plan.pruned.first(), plan.pruned.last()) {
            tracing::info!("pruned frames {} to {} of the log", first.first, last.last);
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.wal.shared.set_milestone();
        let done = self.sign().map(drop);
        self.tell(done);
    }

    fn tell(&mut self, done: Result<(), String>) {
        let wrong = done.err().unwrap_or_default();
        if wrong != self.told && !wrong.is_empty() && self.wal.failure().is_none() {
            tracing::error!("{wrong}");
        }
        self.told = wrong;
    }

    /// Signs the newest milestone, where that is not done, and says which is the last that was.
    fn sign(&mut self) -> Result<u64, String> {
        self.wal.shared.milestone().map_or(Ok(()), |at| self.sign_at(at))?;
        Ok(self.signed)
    }

    fn sign_at(&mut self, at: Position) -> Result<(), String> {
        let seq = at.seq;
        if seq <= self.signed {
            return Ok(());
        }
        if let Some(Signing { key, file }) = &self.signing {
            let line = [&Checkpoint::at(at).sign(key)[..], b"\n"].concat();
            append_line(&*self.wal.dir.fs, file, &line).map_err(|error| {
                format!(
                    "cannot append a checkpoint to `{}` ({error}): free the disk, or correct `wal.checkpoints`",
                    file.display()
                )
            })?;
        }
        self.signed = seq;
        Ok(())
    }
}
