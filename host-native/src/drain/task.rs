//! A drain beside a service: on a thread of its own, so that no decision waits for it.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};

use super::{Drain, DrainError, Exporter, Progress, SetUpError, Until};
use crate::{serve::Metrics, wal::Undrained};

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a stop waits: what it cuts short is sent again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Drains a log until it is dropped. What goes wrong is told to `tracing` and counted, and tried again: a service that
/// decides does not stop for it.
#[derive(Debug)]
pub struct Task {
    stop: Option<oneshot::Sender<()>>,
    stopped: mpsc::Receiver<()>,
}

impl Task {
    /// Drains the log in `dir`, which is there.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(dir: impl AsRef<Path>, exporter: Exporter, metrics: Arc<Metrics>) -> Result<Self, SetUpError> {
        let executor =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SetUpError::Thread)?;
        let ((stop, when_stopped), (says_stopped, stopped)) = (oneshot::channel(), mpsc::channel());
        let dir = dir.as_ref().to_owned();
        let work = move || {
            executor.block_on(async {
                tokio::select! {
                    _ = when_stopped => {}
                    () = drain(&dir, &exporter, &metrics) => {}
                }
            });
            drop(says_stopped);
        };
        thread::Builder::new().name("drain".to_owned()).spawn(work).map_err(SetUpError::Thread)?;
        Ok(Self { stop: Some(stop), stopped })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // It ends at its next wait. A thread that reads a large log for the first time has none.
        drop(self.stop.take());
        let _ = self.stopped.recv_timeout(PATIENCE);
    }
}

async fn drain(dir: &Path, exporter: &Exporter, metrics: &Metrics) {
    loop {
        let failed: DrainError = match Undrained::open(dir) {
            Err(error) => error.into(),
            Ok(undrained) => match follow(undrained, exporter, metrics).await {
                Ok(()) => return,
                Err(error) => error,
            },
        };
        metrics.drain_failed(1);
        tracing::error!("{failed}");
        sleep(PAUSE).await;
    }
}

async fn follow(undrained: Undrained, exporter: &Exporter, metrics: &Metrics) -> Result<(), DrainError> {
    let mut drain = Drain::new(undrained, exporter.clone());
    let mut last = drain.progress();
    metrics.drained(last);
    let told = |progress: Progress| {
        metrics.drained(progress);
        metrics.drain_failed(progress.waits - last.waits);
        metrics.parked(progress.parked - last.parked);
        last = progress;
    };
    drain.run(Until::Dropped, told).await.map(drop)
}
