//! Acknowledged appends a second, beside a loop that only groups, writes and syncs the same bytes.
//! `cargo bench -p host-native --bench wal`
//!
//! Both sides run in turn in one process, on one file system, with the same number of callers that each append one frame
//! and wait for it. The bare loop does what a group commit must do (gather, `write`, `fdatasync`, wake the callers) and
//! nothing else: no JSON, no checksum, no hash, no durable mark. `AUTONOMY_BENCH_DIR` chooses the file system.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops where it fails")]

mod load;
#[path = "../../gate-core/benches/ratio/mod.rs"]
mod ratio;

use std::{
    env,
    fs::File,
    future::Future,
    io::Write,
    mem,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use gate_core::{
    frame::{Frame, Kind},
    identity::{AuditId, NodeId},
};
use host_native::wal::{Options, Wal};

/// A frame of about this size, everything included.
const FRAME_BYTES: usize = 600;
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];

fn main() {
    let ratios = Criterion::default().with_measurement(ratio::Ratio).sample_size(30);
    let ratios = ratios.warm_up_time(Duration::from_secs(2)).measurement_time(Duration::from_secs(16));
    let mut ratios = ratios.configure_from_args();
    let mut group = ratios.benchmark_group("log");
    group.throughput(Throughput::Elements(1));

    let parent = env::var("AUTONOMY_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let mut table = vec![load::heading("callers | in flight", "log", "bare", "acks/s")];
    for callers in [Callers::Tasks, Callers::Threads] {
        for in_flight in IN_FLIGHT {
            // A directory a turn: no log grows without end.
            let dir = || tempfile::tempdir_in(&parent).unwrap();
            let log = |iters| {
                let dir = dir();
                callers.run(Logged::new(dir.path()), in_flight, iters)
            };
            let bare = |iters| {
                let dir = dir();
                callers.run(Bare::new(dir.path()), in_flight, iters)
            };
            let name = format!("{callers:?}, {in_flight} in flight, beside bare");
            let turns = ratio::compare(&mut group, &name, log, bare);
            table.extend(load::row(&format!("{callers:?} | {in_flight}"), &turns));
        }
    }
    println!("{}", table.join("\n"));
    println!("\n{} B frames in {parent}", encoded_frame_bytes(parent.as_ref()));
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

fn encoded_frame_bytes(parent: &Path) -> usize {
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
    /// Every caller appends and waits until there are so many appends.
    fn run<S: Side>(self, side: S, in_flight: usize, appends: u64) -> load::Latencies {
        match self {
            Self::Threads => load::threads(in_flight, appends, || || side.append_and_block()),
            Self::Tasks => {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
                let (shared, begun) = (Arc::new((side, AtomicU64::new(0))), Instant::now());
                let start = |_| {
                    let shared = Arc::clone(&shared);
                    runtime.spawn(async move {
                        let ((side, next), mut latencies, mut now) = (&*shared, Vec::new(), Instant::now());
                        while next.fetch_add(1, Ordering::Relaxed) < appends {
                            side.append().await;
                            let then = mem::replace(&mut now, Instant::now());
                            latencies.push(now - then);
                        }
                        latencies
                    })
                };
                let callers: Vec<_> = (0..in_flight).map(start).collect();
                let latencies = callers.into_iter().flat_map(|caller| runtime.block_on(caller).unwrap()).collect();
                (begun.elapsed(), latencies)
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
        let bytes = vec![b'x'; encoded_frame_bytes(dir)];
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
