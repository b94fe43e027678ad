//! What a fleet costs its orchestrator: a real one, over SQLite and over PostgreSQL, asked over loopback.
//!
//! `cargo bench -p autonomy-tests --bench fleet -- [--nodes N] [--enrolled N] [--runtimes N] [--seconds S]`
//!
//! The machine is the clients' as well, so each rate stands beside the orchestrator's own processor time: what it does in a
//! second of one core. Only the first nodes are enrolled over HTTP, for a million synced transactions measure the disk; the rest
//! are put into the tables as they would have been. `docs/src/scale.md` reckons with what is printed here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints, and stops where it fails"
)]

#[path = "../all/cluster.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod cluster;
#[path = "../all/service.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod service;
#[path = "../all/support.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{
    fs,
    hint::black_box,
    io::Write as _,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gate_core::{
    Answer, Digest, Enrollment, EnrollmentRef, Freshness, NodeId, RolloutState, Status, Verdict, dsse, json,
    lease::{Lease, PAYLOAD_TYPE},
};
use host_native::{
    bundle,
    enrollment::{PostgresStore, SqliteStore, Store},
    evaluate::Matrix,
    key::{self, PrivateKey},
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{Instant as Then, sleep},
};

use cluster::Cluster;
use service::Service;
use support::Home;

/// Requests in flight where there are some.
const IN_FLIGHT: usize = 16;

/// Requests in flight where a fleet asks: each runtime has a connection of its own.
const MANY: usize = 256;

/// How long a lease counts, by default.
const LEASE_TTL: Duration = Duration::from_secs(60);

/// A runtime asks for its directive each minute: as often as it renews its lease so many times.
const RENEWALS_A_DIRECTIVE: u64 = 3;

/// When those were enrolled who are put into the tables.
const ENROLLED: u64 = 1_767_225_600_000;

/// How large a fleet, and how long each rate is measured.
#[derive(Clone, Copy)]
struct Size {
    nodes: u64,
    /// Over HTTP.
    enrolled: u64,
    runtimes: u64,
    seconds: u64,
}

impl Size {
    fn from_args() -> Self {
        let mut size = Self { nodes: 1_000_000, enrolled: 20_000, runtimes: 10_000, seconds: 10 };
        let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
        while let Some(flag) = args.next() {
            let value = args.next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{flag} <number>"));
            match flag.as_str() {
                "--nodes" => size.nodes = value,
                "--enrolled" => size.enrolled = value,
                "--runtimes" => size.runtimes = value,
                "--seconds" => size.seconds = value,
                other => panic!("`{other}` is none of --nodes, --enrolled, --runtimes, --seconds"),
            }
        }
        let (enrolled, runtimes) = (size.enrolled.min(size.nodes), size.runtimes.min(size.nodes));
        Self { enrolled, runtimes, ..size }
    }

    fn span(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[derive(Clone, Copy)]
enum Database {
    Sqlite,
    Postgres,
}

fn main() {
    let size = Size::from_args();
    // Two sockets for each runtime: one here, one in the orchestrator, which inherits the limit.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    println!("{} nodes, {} runtimes, {} s for each rate", size.nodes, size.runtimes, size.seconds);
    signing(size);
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for database in [Database::Sqlite, Database::Postgres] {
        let mut fleet = Fleet::new(database, size);
        println!("\n## {}\n", fleet.name());
        executor.block_on(fleet.measure());
        // It waits on the thread that calls, as the command does.
        fleet.evaluate();
    }
}

/// What the orchestrator does for each lease besides asking its store: one thread, nothing else.
fn signing(size: Size) {
    let key = PrivateKey::generate().unwrap();
    let sign = || {
        let Enrollment { node_id, enrollment_ref, status, rollout_state, serial } = enrollment(1);
        let lease =
            Lease { node_id, enrollment_ref, status, rollout_state, serial, issued_at_ms: 1, expires_at_ms: 60_001 };
        let payload = json::write(&lease).into_bytes();
        let signature = key.sign(&dsse::pre_authentication_encoding(PAYLOAD_TYPE, &payload));
        dsse::Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload, signatures: vec![(key.id(), signature)] }
            .to_bytes()
    };
    let (mut signed, begun) = (0, Instant::now());
    while begun.elapsed() < size.span() {
        black_box(sign());
        signed += 1;
    }
    row("leases signed, a core", &[format!("{:.0} /s", f64::from(signed) / begun.elapsed().as_secs_f64())]);
}

fn enrollment(at: u64) -> Enrollment {
    Enrollment {
        node_id: NodeId::parse(&node_id(at)).unwrap(),
        enrollment_ref: EnrollmentRef::parse(enrollment_ref(at)).unwrap(),
        status: Status::Active,
        rollout_state: RolloutState::None,
        serial: 1,
    }
}

fn node_id(at: u64) -> String {
    format!("node-{at:07}")
}

/// A quarter of the nodes has each.
const REFS: [&str; 4] = ["fleet-a", "fleet-b", "fleet-c", "fleet-d"];

fn enrollment_ref(at: u64) -> &'static str {
    REFS[at as usize % REFS.len()]
}

/// An orchestrator, and the store that it serves.
struct Fleet {
    size: Size,
    home: Home,
    cluster: Option<Cluster>,
    service: Option<Service>,
    operator: String,
}

impl Fleet {
    fn new(database: Database, size: Size) -> Self {
        let home = Home::ready();
        home.ok("key generate --out lease.pem");
        home.ok("orchestrator token --role operator --name operator --tokens tokens --out operator.token");
        let mut tokens = fs::OpenOptions::new().append(true).open(home.path("tokens")).unwrap();
        for at in 1..=size.runtimes {
            let (node_id, hash) = (node_id(at), Digest::of(token(at).as_bytes()));
            let line = format!(
                r#"{{"name":"{node_id}","role":"node","node_id":"{node_id}","hash":"{hash}","expires_at_ms":null}}"#
            );
            writeln!(tokens, "{line}").unwrap();
        }
        let operator = fs::read_to_string(home.path("operator.token")).unwrap().trim_end().to_owned();
        let cluster = match database {
            Database::Sqlite => None,
            // A change is on disk when it is answered, as with SQLite.
            Database::Postgres => Some(Cluster::start(None, &["fsync=on", "max_wal_size=4GB"])),
        };
        Self { size, home, cluster, service: None, operator }
    }

    fn name(&self) -> &'static str {
        if self.cluster.is_some() { "PostgreSQL" } else { "SQLite" }
    }

    fn start(&mut self) {
        let store = match &self.cluster {
            Some(cluster) => format!("--database {}", cluster.url("postgres")),
            None => "--store fleet.sqlite".to_owned(),
        };
        let line = format!(
            "orchestrator serve --listen 127.0.0.1:0 --tokens tokens --signing-key lease.pem --requests-per-second 1000000 {store}"
        );
        self.service = Some(Service::start(&self.home, &line));
    }

    fn stop(&mut self) {
        let service = self.service.take().unwrap();
        service.signal(Signal::TERM);
        service.ended();
    }

    fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    async fn client(&self) -> Client {
        Client::connect(&self.service().address, &self.operator).await
    }

    async fn measure(&mut self) {
        let Size { nodes, enrolled, runtimes, .. } = self.size;
        self.start();
        self.enroll().await;
        self.sync(&format!("of {enrolled} nodes")).await;
        self.stop();
        let begun = Instant::now();
        self.fill();
        row("nodes put into the tables", &[format!("{} in {:.0?}", nodes - enrolled, begun.elapsed())]);
        let bytes = self.bytes();
        row("store", &[format!("{:.0} MB", bytes as f64 / 1e6), format!("{} B a node", bytes / nodes)]);
        let begun = Instant::now();
        self.start();
        row("start over it", &[format!("{:.0?}", begun.elapsed())]);
        self.sync(&format!("of {nodes} nodes")).await;
        for in_flight in [1, IN_FLIGHT] {
            let what = format!("status, {in_flight} in flight");
            self.load(&what, in_flight, Keep::Alive, self.reads("enrollments")).await;
        }
        let kinds =
            [(IN_FLIGHT, "", Keep::Alive), (MANY, "", Keep::Alive), (IN_FLIGHT, ", a connection each", Keep::Closed)];
        for (in_flight, how, keep) in kinds {
            self.load(&format!("lease, {in_flight} in flight{how}"), in_flight, keep, self.reads("leases")).await;
        }
        let mut client = self.client().await;
        let lease = client.ask("GET", &format!("/v1/leases/{}", node_id(1)), "").await.len();
        row("lease", &[format!("{lease} B"), format!("{} B with its head", lease + client.head_bytes)]);
        if runtimes > 0 {
            self.runtimes().await;
        }
        self.stop();
    }

    async fn enroll(&self) {
        let Size { enrolled, nodes, .. } = self.size;
        let begun = Instant::now();
        let ask = move |at| {
            let body = format!(r#"{{"enrollment_ref":"{}"}}"#, enrollment_ref(at));
            (at <= enrolled).then(|| ("PUT", format!("/v1/enrollments/{}", node_id(at)), body))
        };
        self.load(&format!("enroll, {IN_FLIGHT} in flight"), IN_FLIGHT, Keep::Alive, ask).await;
        let seconds = begun.elapsed().as_secs_f64() * nodes as f64 / enrolled as f64;
        row(&format!("{nodes} nodes at that rate"), &[format!("{seconds:.0} s")]);
    }

    /// Puts in the other nodes, and the history of each, as enrolling does.
    fn fill(&self) {
        let (from, to) = (self.size.enrolled + 1, self.size.nodes);
        let first = node_id(from);
        let Some(cluster) = &self.cluster else {
            let connection = rusqlite::Connection::open(self.home.path("fleet.sqlite")).unwrap();
            let sql = format!(
                "BEGIN;
                 WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to})
                 INSERT INTO enrollment
                 SELECT printf('node-%07d', i), 'fleet-' || substr('abcd', i % 4 + 1, 1), 'active', '<none>', 1, {ENROLLED}, {ENROLLED}
                 FROM n WHERE i <= {to};
                 INSERT INTO history (node_id, serial, action, who, at_ms, after_ref, after_status, after_rollout_state)
                 SELECT node_id, 1, 'enroll', 'operator', {ENROLLED}, enrollment_ref, status, rollout_state
                 FROM enrollment WHERE node_id >= '{first}' ORDER BY node_id;
                 COMMIT;
                 PRAGMA wal_checkpoint(TRUNCATE)"
            );
            return connection.execute_batch(&sql).unwrap();
        };
        for sql in [
            format!(
                "INSERT INTO autonomy.enrollment
                 SELECT 'node-' || lpad(i::text, 7, '0'), 'fleet-' || substr('abcd', (i % 4 + 1)::int, 1), 'active', '<none>', 1, {ENROLLED}, {ENROLLED}
                 FROM generate_series({from}, {to}) i;
                 INSERT INTO autonomy.history
                     (revision, node_id, serial, action, who, at_ms, after_ref, after_status, after_rollout_state)
                 SELECT substr(node_id, 6)::bigint, node_id, 1, 'enroll', 'operator', {ENROLLED}, enrollment_ref, status, rollout_state
                 FROM autonomy.enrollment WHERE node_id >= '{first}' ORDER BY node_id;
                 UPDATE autonomy.state SET revision = {to}"
            ),
            "VACUUM ANALYZE".to_owned(),
            "CHECKPOINT".to_owned(),
        ] {
            cluster.psql("postgres", &sql);
        }
    }

    fn bytes(&self) -> u64 {
        match &self.cluster {
            Some(cluster) => cluster.psql("postgres", "SELECT pg_database_size('postgres')").parse().unwrap(),
            None => fs::metadata(self.home.path("fleet.sqlite")).unwrap().len(),
        }
    }

    /// Reads the last changes, as somebody does who has seen all before them.
    async fn sync(&self, of: &str) {
        let mut client = self.client().await;
        let begin = changes(&mut client, "").await.0;
        for missed in [1, 100, 10_000].into_iter().filter(|missed| *missed <= begin) {
            let mut taken = Vec::new();
            let mut read = (0, 0);
            for _ in 0..9 {
                let (mut after, begun) = (begin - missed, Instant::now());
                read = (0, 0);
                while after < begin {
                    let (cursor, bytes) = changes(&mut client, &format!("?limit=1000&after={after}")).await;
                    read = (read.0 + 1, read.1 + bytes);
                    after = cursor;
                }
                taken.push(begun.elapsed());
            }
            let [p50, _] = percentiles(&mut taken);
            let (requests, bytes) = read;
            row(
                &format!("{missed} changes {of}"),
                &[format!("{p50:.1?}"), format!("{requests} requests"), format!("{bytes} B")],
            );
        }
    }

    /// So many callers that each ask, wait for the answer, and end when there is nothing more to ask.
    async fn load(
        &self,
        what: &str,
        callers: usize,
        keep: Keep,
        ask: impl Fn(u64) -> Option<(&'static str, String, String)> + Send + Sync + 'static,
    ) {
        let (begun, cpu) = (Instant::now(), self.cpu());
        let shared = Arc::new((AtomicU64::new(1), ask));
        let caller = || {
            let (shared, address, operator) =
                (Arc::clone(&shared), self.service().address.clone(), self.operator.clone());
            async move {
                let (mut client, mut taken) = (Client::connect(&address, &operator).await, Vec::new());
                while let Some((method, path, body)) = shared.1(shared.0.fetch_add(1, Ordering::Relaxed)) {
                    let asked = Instant::now();
                    if keep == Keep::Closed {
                        client = Client::connect(&address, &operator).await;
                    }
                    client.ask(method, &path, &body).await;
                    taken.push(asked.elapsed());
                }
                taken
            }
        };
        let callers: JoinSet<_> = (0..callers).map(|_| caller()).collect();
        self.rate(what, callers.join_all().await.concat(), begun.elapsed(), cpu);
    }

    /// Reads about one node after the other, all over the fleet, until the time is over.
    fn reads(&self, of: &'static str) -> impl Fn(u64) -> Option<(&'static str, String, String)> + use<> {
        let (nodes, end) = (self.size.nodes, Instant::now() + self.size.span());
        move |at| {
            // Those that follow each other are far from each other.
            let node_id = node_id(1 + at.wrapping_mul(2_654_435_761) % nodes);
            (Instant::now() < end).then(|| ("GET", format!("/v1/{of}/{node_id}"), String::new()))
        }
    }

    fn rate(&self, what: &str, mut taken: Vec<Duration>, span: Duration, cpu: Duration) {
        let (count, used) = (taken.len() as f64, self.cpu() - cpu);
        let [p50, p99] = percentiles(&mut taken);
        row(
            what,
            &[
                format!("{:.0} /s", count / span.as_secs_f64()),
                format!("p50 {p50:.1?}"),
                format!("p99 {p99:.1?}"),
                format!("{:.0} /s a core", count / used.as_secs_f64()),
                format!("{:.0} % of a core", 100.0 * used.as_secs_f64() / span.as_secs_f64()),
            ],
        );
    }

    /// What each runtime does, many times over: it waits for changes of its node, fetches its lease each third of a lease's time
    /// and when its node has changed, and asks for its directive each minute and then.
    async fn runtimes(&self) {
        let Size { runtimes, .. } = self.size;
        let shared = Arc::new(Runtimes::new(self.service().address.clone(), runtimes));
        let (idle, idle_memory) = (Instant::now(), self.memory());
        let mut tasks = JoinSet::new();
        for at in 1..=runtimes {
            tasks.spawn(Arc::clone(&shared).follow(at));
            if at % 100 == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        while shared.started.load(Ordering::Relaxed) < runtimes {
            assert!(idle.elapsed() < Duration::from_secs(120), "they do not start");
            sleep(Duration::from_millis(50)).await;
        }
        let memory = self.memory();
        row(
            "runtimes that follow",
            &[
                format!("{runtimes} connected in {:.1?}", idle.elapsed()),
                format!("{} MB", memory / 1024),
                format!("{} B each", (memory - idle_memory) * 1024 / runtimes),
            ],
        );

        shared.taken.lock().unwrap().clear();
        let (begun, cpu) = (Instant::now(), self.cpu());
        sleep(self.size.span()).await;
        let asked = std::mem::take(&mut *shared.taken.lock().unwrap());
        self.rate("leases renewed", asked, begun.elapsed(), cpu);

        let (mut operator, mut revoked, mut answers) = (self.client().await, 0, Vec::new());
        let (begun, cpu) = (Instant::now(), self.cpu());
        let end = begun + self.size.span();
        while Instant::now() < end && revoked < runtimes {
            revoked += 1;
            let asked = Instant::now();
            shared.revoked[revoked as usize].set(asked).unwrap();
            operator.ask("POST", &format!("/v1/enrollments/{}/revoke", node_id(revoked)), "").await;
            answers.push(asked.elapsed());
            sleep(Duration::from_millis(20)).await;
        }
        self.rate("revokes, one after the other", answers, begun.elapsed(), cpu);
        let patience = Instant::now() + Duration::from_secs(60);
        while (shared.seen.lock().unwrap().len() as u64) < revoked {
            assert!(Instant::now() < patience, "a revoke is not seen");
            sleep(Duration::from_millis(10)).await;
        }
        let mut seen = std::mem::take(&mut *shared.seen.lock().unwrap());
        let [p50, p99] = percentiles(&mut seen);
        let max = seen.last().copied().unwrap_or_default();
        let of = format!("{revoked} of {runtimes}");
        row(
            "revoke to its runtime's new lease",
            &[of, format!("p50 {p50:.1?}"), format!("p99 {p99:.1?}"), format!("max {max:.1?}")],
        );
        tasks.shutdown().await;

        let mut tasks = JoinSet::new();
        let polls = Arc::new(Runtimes::new(self.service().address.clone(), runtimes));
        for at in 1..=runtimes {
            tasks.spawn(Arc::clone(&polls).poll(at));
        }
        while polls.started.load(Ordering::Relaxed) < runtimes {
            sleep(Duration::from_millis(50)).await;
        }
        polls.taken.lock().unwrap().clear();
        let (begun, cpu) = (Instant::now(), self.cpu());
        sleep(self.size.span()).await;
        let taken = std::mem::take(&mut *polls.taken.lock().unwrap());
        self.rate(&format!("polls of {runtimes} at once"), taken, begun.elapsed(), cpu);
        tasks.shutdown().await;
    }

    /// `attestation eval --all-nodes`, on one thread: the rows from the store, then each against each bundle.
    fn evaluate(&self) {
        let store: Box<dyn Store> = match &self.cluster {
            Some(cluster) => Box::new(PostgresStore::open(&cluster.url("postgres"), None, None).unwrap()),
            None => Box::new(SqliteStore::open_read_only(self.home.path("fleet.sqlite")).unwrap()),
        };
        let (mut rows, begun) = (Vec::new(), Instant::now());
        store
            .for_each(&mut |enrollment| {
                rows.push(enrollment);
                ControlFlow::Continue(())
            })
            .unwrap();
        row("rows read", &[format!("{:.0} /s", rows.len() as f64 / begun.elapsed().as_secs_f64())]);
        if self.cluster.is_some() {
            return;
        }
        let keys = key::read_trusted(&self.trusted(), 1).unwrap();
        let tars = REFS.map(|enrollment_ref| {
            let out = format!("{enrollment_ref}.tar");
            self.home.ok(&format!(
                "bundle build --source src --name fleet --version 1.0.0 --enrollment-ref {enrollment_ref} --key keys/bundle.pem --out {out}"
            ));
            bundle::read(&self.home.path(&out)).unwrap()
        });
        for bundles in [1, 4, 16] {
            let mut matrix = Matrix::new(Freshness::default(), 1);
            for tar in tars.iter().cycle().take(bundles) {
                matrix.add_bundle(tar, &keys).unwrap();
            }
            let (mut pairs, mut passed, mut rows, begun) = (0_u32, 0_u32, rows.clone().into_iter(), Instant::now());
            for enrollment in &mut rows {
                matrix.set_node(enrollment.node_id.clone(), Answer::Enrolled { enrollment, observed_at_ms: 1 });
                matrix
                    .verdicts(|_, _, verdict| {
                        pairs += 1;
                        passed += u32::from(verdict == Verdict::Pass);
                    })
                    .unwrap();
            }
            let rate = f64::from(pairs) / begun.elapsed().as_secs_f64();
            assert!(passed > 0 && passed < pairs, "{passed} of {pairs}");
            row(&format!("eval, {bundles} bundles"), &[format!("{:.1} M pairs/s a core", rate / 1e6)]);
        }
    }

    fn trusted(&self) -> Vec<PathBuf> {
        let keys = fs::read_dir(self.home.path("keys")).unwrap().map(|entry| entry.unwrap().path());
        keys.filter(|path| path.extension().is_some_and(|extension| extension == "pub")).collect()
    }

    /// What the orchestrator has used of its cores. (The database's own processes are not in it.)
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.service().id())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// What the orchestrator holds, in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.service().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Alive,
    Closed,
}

/// The token of a runtime.
fn token(at: u64) -> String {
    format!("the-token-of-a-runtime-of-a-benchmark-{at}")
}

/// The runtimes of a fleet, and what they saw.
struct Runtimes {
    address: String,
    started: AtomicU64,
    taken: Mutex<Vec<Duration>>,
    /// When each was revoked.
    revoked: Vec<OnceLock<Instant>>,
    /// From the request to revoke to the lease that says so.
    seen: Mutex<Vec<Duration>>,
    runtimes: u64,
}

impl Runtimes {
    fn new(address: String, runtimes: u64) -> Self {
        let revoked = (0..=runtimes).map(|_| OnceLock::new()).collect();
        Self { address, started: AtomicU64::new(0), taken: Mutex::default(), revoked, seen: Mutex::default(), runtimes }
    }

    /// Its cursor, its lease, then changes. One connection does for them; a directive is asked for over one of its own.
    async fn follow(self: Arc<Self>, at: u64) {
        let mut client = Client::connect(&self.address, &token(at)).await;
        let [lease, directive] = ["leases", "directives"].map(|of| format!("/v1/{of}/{}", node_id(at)));
        let changes_of = format!("?node_id={}", node_id(at));
        let (mut cursor, _) = changes(&mut client, &changes_of).await;
        let third = LEASE_TTL / 3;
        // As if they had not all been started at once.
        let mut due = Then::now() + third.mul_f64(at as f64 / self.runtimes as f64);
        client.ask("GET", &lease, "").await;
        self.started.fetch_add(1, Ordering::Relaxed);
        for renewals in at.. {
            let wait_ms = due.saturating_duration_since(Then::now()).as_millis();
            let told = changes(&mut client, &format!("{changes_of}&after={cursor}&wait_ms={wait_ms}")).await;
            let has_changed = told.1 > NO_CHANGES;
            cursor = told.0;
            let asked = Instant::now();
            client.ask("GET", &lease, "").await;
            match self.revoked[at as usize].get() {
                Some(revoked) if has_changed => self.seen.lock().unwrap().push(revoked.elapsed()),
                Some(_) | None => self.taken.lock().unwrap().push(asked.elapsed()),
            }
            if has_changed || renewals % RENEWALS_A_DIRECTIVE == 0 {
                Client::connect(&self.address, &token(at)).await.ask("GET", &directive, "").await;
            }
            due = due.max(Then::now()) + if has_changed { Duration::ZERO } else { third };
        }
    }

    /// Asks again as soon as it was answered, and waits for no longer than it must to ask as a runtime does.
    async fn poll(self: Arc<Self>, at: u64) {
        sleep(Duration::from_micros(at * 50)).await;
        let mut client = Client::connect(&self.address, &token(at)).await;
        let changes_of = format!("?node_id={}", node_id(at));
        let (mut cursor, _) = changes(&mut client, &changes_of).await;
        self.started.fetch_add(1, Ordering::Relaxed);
        loop {
            let asked = Instant::now();
            cursor = changes(&mut client, &format!("{changes_of}&after={cursor}&wait_ms=1")).await.0;
            self.taken.lock().unwrap().push(asked.elapsed());
        }
    }
}

/// Longer than any answer without a change.
const NO_CHANGES: usize = 64;

/// The cursor of an answer, and how many bytes it had.
async fn changes(client: &mut Client, query: &str) -> (u64, usize) {
    let answer = client.ask("GET", &format!("/v1/changes{query}"), "").await;
    // It is the last member: the many changes before it are not to be parsed here.
    let cursor = answer.iter().rposition(|byte| *byte == b':').unwrap();
    let cursor = std::str::from_utf8(&answer[cursor + 1..answer.len() - 1]).unwrap();
    (cursor.parse().unwrap_or_else(|_| panic!("{:?}", serde_json::from_slice::<Value>(&answer))), answer.len())
}

/// A connection that is kept.
struct Client {
    stream: BufReader<TcpStream>,
    token: String,
    /// Of the last answer.
    head_bytes: usize,
}

impl Client {
    async fn connect(address: &str, token: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::with_capacity(2048, stream), token: token.to_owned(), head_bytes: 0 }
    }

    /// The body of the answer.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let begun = head.len();
            assert!(self.stream.read_line(&mut head).await.unwrap() > 0, "{method} {path}: no answer");
            let line = head[begun..].trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        self.head_bytes = head.len();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {head}{}", String::from_utf8_lossy(&body));
        body
    }
}

/// The median, and what all but one of a hundred do not exceed. Sorts.
fn percentiles(taken: &mut [Duration]) -> [Duration; 2] {
    taken.sort_unstable();
    [50, 99].map(|percent| taken.get(taken.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default())
}

fn row(what: &str, values: &[String]) {
    println!("{what:<44} {}", values.iter().map(|value| format!("{value:>16}")).collect::<Vec<_>>().join("  "));
}
