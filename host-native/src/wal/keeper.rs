//! What a service does for its log beside it: prunes it, and signs what it holds.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Checkpoint, Plan, Retention, Wal, position::Position};
use crate::key::PrivateKey;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// Signed checkpoints, an envelope a line.
pub struct Signing {
    /// The key that signs them.
    pub key: PrivateKey,
    /// The file that they are appended to.
    pub file: PathBuf,
}

/// Prunes a log, and signs a checkpoint of each segment that is sealed and, when it is dropped, of the log's end: on a thread of
/// its own, so that no decision waits for it. What goes wrong is told to `tracing`, and tried again.
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
        let mut work = Work { wal, retention, signing, by, signed: 0, told: String::new() };
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
    /// The last frame of the last checkpoint.
    signed: u64,
    /// What went wrong last: it is said once.
    told: String,
}

impl Work {
    fn look(&mut self) {
        let signed = self.wal.shared.sealed().map_or(Ok(()), |sealed| self.sign(sealed));
        // A checkpoint of what is pruned comes before that.
        let done = match (signed, self.wal.prune(&self.retention, self.by)) {
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => Err(error.to_string()),
            (Ok(()), Ok(Plan { pruned, .. })) => {
                if let (Some(first), Some(last)) = (pruned.first(), pruned.last()) {
                    tracing::info!("pruned frames {} to {} of the log", first.first, last.last);
                }
                Ok(())
            }
        };
        self.tell(done);
    }

    fn finish(&mut self) {
        let signed = self.wal.shared.head().map_or(Ok(()), |head| self.sign(head));
        self.tell(signed);
    }

    fn tell(&mut self, done: Result<(), String>) {
        let wrong = done.err().unwrap_or_default();
        if wrong != self.told && !wrong.is_empty() && self.wal.failure().is_none() {
            tracing::error!("{wrong}");
        }
        self.told = wrong;
    }

    fn sign(&mut self, at: Position) -> Result<(), String> {
        let Some(Signing { key, file }) = self.signing.as_ref().filter(|_| at.seq > self.signed) else { return Ok(()) };
        let seq = at.seq;
        let line = [&Checkpoint::at(at).sign(key)[..], b"\n"].concat();
        append(file, &line).map_err(|error| {
            format!(
                "cannot append a checkpoint to `{}` ({error}): free the disk, or correct `wal.checkpoints`",
                file.display()
            )
        })?;
        self.signed = seq;
        Ok(())
    }
}

/// Appends a line, durably; one that a crash cut short stays one of its own.
fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    let len = file.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(at) = len.checked_sub(1) {
        std::os::unix::fs::FileExt::read_at(&file, &mut last, at)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    file.write_all(line)?;
    file.sync_data()?;
    fs::File::open(crate::file::directory_of(path))?.sync_all()
}
