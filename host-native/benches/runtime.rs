//! Calls a second of `POST /v1/tool` in `off`, `advisory` and `enforce`, every decision durable, and of the same listener
//! with a handler that only hands the body back.
//!
//! `cargo bench -p host-native --bench runtime -- [connections] [seconds a round]`
//!
//! All stand side by side, each runtime with a bundle, an enrolled node and a log of its own on one file system, and
//! are called in turns; a ratio is the median of the rounds' ratios. Callers share the machine, so the rates are floors.
//!
//! No harness does this: the disk's times drift by more than the sides differ, so they must take turns round by round, and
//! divan and criterion measure one side to its end before the next.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops where it fails")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::post};
use gate_core::{
    Config, EnrollmentRef, Freshness, Mode, NodeId,
    manifest::{Channel, Provenance},
};
use host_native::{
    Gate, Policies,
    bundle::{self, Description, Files},
    enrollment::{IfActive, LocalSource, SqliteStore, Store as _},
    gate::now_ms,
    key::{self, PrivateKey},
    runtime,
    serve::{Limits, Listener, Metrics, fallbacks, serve},
    tool::{HttpGetConfig, Tools},
    wal::{Options, Wal},
};

const POLICY: &str = "package autonomy\ndefault allow := false\nallow if input.kind == \"tool.echo\"\n";
const BODY: &str = r#"{"kind":"tool.echo","params":{"text":"hello"}}"#;
const ROUNDS: usize = 7;

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let (connections, seconds) = (numbers.next().unwrap_or(64), numbers.next().unwrap_or(2));
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let homes = Mode::ALL.map(|_| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let runtimes = Mode::ALL.into_iter().zip(&homes);
    let mut servers: Vec<_> =
        runtimes.map(|(mode, home)| (format!("`{mode}`"), tokio.block_on(start(mode, home.path())))).collect();
    servers.push(("no gate".to_owned(), tokio.block_on(start_without_gate())));

    let round = Duration::from_secs(seconds);
    let mut rates = vec![Vec::new(); servers.len()];
    for number in 0..=ROUNDS {
        for (at, (_, address)) in servers.iter().enumerate() {
            let rate = load(*address, usize::try_from(connections).unwrap(), round);
            // The first round warms up.
            if number > 0 {
                rates[at].push(rate);
            }
        }
    }
    println!("{connections} connections, {ROUNDS} rounds of {seconds} s");
    println!("| mode | calls/s | beside `off` |");
    println!("| --- | ---: | ---: |");
    for ((name, _), rate) in servers.iter().zip(&rates) {
        let ratio = median(rate.iter().zip(&rates[0]).map(|(one, off)| one / off).collect());
        println!("| {name} | {:.0} | {ratio:.3} |", median(rate.clone()));
    }
}

async fn start_without_gate() -> SocketAddr {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.address().unwrap();
    let router = fallbacks(Router::new().route("/v1/tool", post(|body: Bytes| async move { body })));
    let metrics = Arc::new(Metrics::new("bench", "0"));
    tokio::spawn(serve(listener, router, Limits::default(), metrics, std::future::pending()));
    address
}

async fn start(mode: Mode, home: &Path) -> SocketAddr {
    let key = PrivateKey::generate().unwrap();
    let trusted = key.write(&home.join("release")).unwrap();
    let enrollment_ref = EnrollmentRef::parse("fleet-a").unwrap();
    let description = Description {
        name: "fleet".into(),
        version: "1.0.0".into(),
        channel: Channel::Stable,
        policy_version: "1".into(),
        provenance: Provenance { enrollment_ref: Some(enrollment_ref.clone()), ..Provenance::default() },
    };
    let files = Files::from([("policies/main.rego".to_owned(), POLICY.as_bytes().to_vec())]);
    let bundle = bundle::sign(&bundle::build(description, &files).unwrap(), &key).unwrap();
    let (node_id, store) = (NodeId::parse("robot-1").unwrap(), home.join("enrollment.sqlite"));
    let enrolled = SqliteStore::open(&store).unwrap();
    enrolled.enroll(&node_id, &enrollment_ref, IfActive::Refuse, "bench", now_ms()).unwrap();

    let config = Config {
        mode,
        node_id: Some(node_id.clone()),
        bundle_keys: Some(key::read_trusted(&[trusted], 1).unwrap()),
        lease_keys: None,
        freshness: Freshness::default(),
    };
    let source = LocalSource::new(&store, node_id, 15_000).unwrap();
    let (wal, _) = Wal::open(home.join("wal"), Options::default()).unwrap();
    let metrics = Arc::new(Metrics::new("bench", "0"));
    let gate = Gate::open(config, Policies::Bundle(bundle), Some(Box::new(source)), Arc::new(wal)).await.unwrap();
    let gate = Arc::new(gate.with_metrics(Arc::clone(&metrics)));
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.address().unwrap();
    let tools = Tools::new(HttpGetConfig::default()).unwrap();
    tokio::spawn(runtime::run(listener, gate, tools, metrics, Limits::default(), std::future::pending()));
    address
}

/// Calls a second over so many kept-alive connections, one call in flight on each.
fn load(address: SocketAddr, connections: usize, round: Duration) -> f64 {
    let begun = Instant::now();
    let calls: u64 = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..connections).map(|_| scope.spawn(|| caller(address, begun + round))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    calls as f64 / begun.elapsed().as_secs_f64()
}

fn caller(address: SocketAddr, end: Instant) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("POST /v1/tool HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    let mut answer = vec![0; 4096];
    let mut calls = 0;
    while Instant::now() < end {
        stream.write_all(request.as_bytes()).unwrap();
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
        calls += 1;
    }
    calls
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
