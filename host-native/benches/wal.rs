//! Acknowledged appends a second, beside a loop that only groups, writes and syncs the same bytes.
//!
//! `cargo bench -p host-native --bench wal -- [seconds a round] [directory]`
//!
//! Both sides run in turn in one process, on one file system, with the same number of callers that each append one frame
//! and wait for it. The bare loop does what a group commit must do (gather, `write`, `fdatasync`, wake the callers) and
//! nothing else: no JSON, no checksum, no hash, no durable mark. The ratio is the median of the rounds' ratios.
//!
//! No harness does this: an append is timed for its percentiles while others are in flight, and a disk's times drift by more
//! than the two sides differ, so that they must take turns. divan and criterion time one side to its end, then the other; a
//! ratio would need these loops all the same, and measure everything twice.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops where it fails")]

use std::{
    fs::File,
    future::Future,
    io::Write,
    mem,
    path::Path,
    pin::Pin,
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use gate_core::{
    frame::{Frame, Kind},
    identity::{AuditId, NodeId},
};
use host_native::wal::{Options, Wal};

/// A frame of about this size, everything included.
const FRAME_BYTES: usize = 600;
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];
const ROUNDS: usize = 15;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let seconds: f64 = args.next().map_or(0.25, |arg| arg.parse().unwrap());
    let round = Duration::from_secs_f64(seconds);
    let parent = args.next().unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());

    println!("{} B frames, {ROUNDS} rounds of {seconds} s, in {parent}", encoded_frame_bytes(&parent));
    println!("| callers | in flight | log acks/s | p50 | p99 | bare acks/s | p50 | p99 | log / bare |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for callers in [Callers::Tasks, Callers::Threads] {
        for in_flight in IN_FLIGHT {
            let (mut log, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for turn in 0..ROUNDS {
                let dir = tempfile::tempdir_in(&parent).unwrap();
                let run_log = || callers.run(Arc::new(Logged::new(&dir.path().join("wal"))), in_flight, round);
                let run_bare = || callers.run(Arc::new(Bare::new(dir.path())), in_flight, round);
                // Neither side always has the first turn.
                let (mut one, mut other);
                if turn % 2 == 0 {
                    one = run_log();
                    other = run_bare();
                } else {
                    other = run_bare();
                    one = run_log();
                }
                ratios.push(one.len() as f64 / other.len() as f64);
                log.append(&mut one);
                bare.append(&mut other);
            }
            ratios.sort_by(f64::total_cmp);
            let total = seconds * ROUNDS as f64;
            println!(
                "| {callers:?} | {in_flight} | {} | {} | {:.2} |",
                summary(&mut log, total),
                summary(&mut bare, total),
                ratios[ratios.len() / 2],
            );
        }
    }
}

fn summary(latencies: &mut [Duration], seconds: f64) -> String {
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_micros();
    format!("{:.0} | {} µs | {} µs", latencies.len() as f64 / seconds, at(50), at(99))
}

fn frame() -> Frame {
    let members = "\"layer\":\"policy\",\"tool\":\"tool.http_get\",\"outcome\":\"allow\",\"reason\":\"policy: allowed\",\"mode\":\"enforce\",\"enforced\":true";
    let padding = "d".repeat(FRAME_BYTES - 373);
    Frame {
        kind: Kind::Decision,
        audit_id: AuditId::parse("01942f3e-7c1a-7b7e-8a54-0d2f6a1c9e77").unwrap(),
        node_id: Some(NodeId::parse("robot-0007").unwrap()),
        attrs: format!("{{{members},\"detail\":\"{padding}\"}}"),
    }
}

fn encoded_frame_bytes(parent: &str) -> usize {
    let dir = tempfile::tempdir_in(parent).unwrap();
    let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
    wal.append(vec![frame()]).wait().unwrap();
    usize::try_from(std::fs::metadata(dir.path().join("telemetry.wal")).unwrap().len()).unwrap()
}

/// One side of the comparison.
trait Side: Send + Sync + 'static {
    fn append_and_block(&self);
    fn append(&self) -> impl Future<Output = ()> + Send;
}

#[derive(Debug, Clone, Copy)]
enum Callers {
    Tasks,
    Threads,
}

impl Callers {
    /// Every caller appends and waits until the time is over; hands back how long each append took.
    fn run<S: Side>(self, side: Arc<S>, in_flight: usize, round: Duration) -> Vec<Duration> {
        let end = Instant::now() + round;
        match self {
            Self::Threads => {
                let start = || {
                    let side = Arc::clone(&side);
                    thread::spawn(move || {
                        let mut taken = Vec::new();
                        let mut now = Instant::now();
                        while now < end {
                            side.append_and_block();
                            let then = mem::replace(&mut now, Instant::now());
                            taken.push(now - then);
                        }
                        taken
                    })
                };
                let callers: Vec<_> = (0..in_flight).map(|_| start()).collect();
                callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
            }
            Self::Tasks => {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
                let start = || {
                    let side = Arc::clone(&side);
                    runtime.spawn(async move {
                        let mut taken = Vec::new();
                        let mut now = Instant::now();
                        while now < end {
                            side.append().await;
                            let then = mem::replace(&mut now, Instant::now());
                            taken.push(now - then);
                        }
                        taken
                    })
                };
                let callers: Vec<_> = (0..in_flight).map(|_| start()).collect();
                runtime.block_on(async {
                    let mut all = Vec::new();
                    for caller in callers {
                        all.append(&mut caller.await.unwrap());
                    }
                    all
                })
            }
        }
    }
}

/// The log.
struct Logged {
    wal: Wal,
    frame: Frame,
}

impl Logged {
    fn new(dir: &Path) -> Self {
        Self { wal: Wal::open(dir, Options::default()).unwrap().0, frame: frame() }
    }
}

impl Side for Logged {
    fn append_and_block(&self) {
        self.wal.append(vec![self.frame.clone()]).wait().unwrap();
    }

    async fn append(&self) {
        self.wal.append(vec![self.frame.clone()]).await.unwrap();
    }
}

/// Gather, write, sync, wake.
struct Bare {
    shared: Arc<Gathered>,
    thread: Option<thread::JoinHandle<()>>,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Gathered {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    group: Arc<Group>,
    asleep: bool,
    closed: bool,
}

#[derive(Default)]
struct Group {
    state: Mutex<(bool, Vec<Waker>)>,
    done: Condvar,
}

impl Bare {
    fn new(dir: &Path) -> Self {
        let shared = Arc::<Gathered>::default();
        let mut file = File::create(dir.join("bare")).unwrap();
        let queue = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut bytes = Vec::new();
            loop {
                let mut queued = queue.queue.lock().unwrap();
                while queued.bytes.is_empty() && !queued.closed {
                    queued.asleep = true;
                    queued = queue.ready.wait(queued).unwrap();
                    queued.asleep = false;
                }
                if queued.bytes.is_empty() {
                    return;
                }
                mem::swap(&mut bytes, &mut queued.bytes);
                let group = mem::take(&mut queued.group);
                drop(queued);
                file.write_all(&bytes).unwrap();
                file.sync_data().unwrap();
                bytes.clear();
                let mut state = group.state.lock().unwrap();
                state.0 = true;
                let wakers = mem::take(&mut state.1);
                drop(state);
                group.done.notify_all();
                wakers.into_iter().for_each(Waker::wake);
            }
        });
        let bytes = vec![b'x'; encoded_frame_bytes(dir.to_str().unwrap())];
        Self { shared, thread: Some(thread), bytes }
    }

    fn push(&self) -> Arc<Group> {
        let mut queue = self.shared.queue.lock().unwrap();
        queue.bytes.extend_from_slice(&self.bytes);
        let group = Arc::clone(&queue.group);
        let wake = mem::take(&mut queue.asleep);
        drop(queue);
        if wake {
            self.shared.ready.notify_one();
        }
        group
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap().closed = true;
        self.shared.ready.notify_one();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Side for Bare {
    fn append_and_block(&self) {
        let group = self.push();
        let state = group.state.lock().unwrap();
        drop(group.done.wait_while(state, |state| !state.0).unwrap());
    }

    async fn append(&self) {
        Done(self.push()).await;
    }
}

struct Done(Arc<Group>);

impl Future for Done {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock().unwrap();
        if state.0 {
            return Poll::Ready(());
        }
        state.1.push(context.waker().clone());
        Poll::Pending
    }
}
