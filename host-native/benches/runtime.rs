//! Calls a second of `POST /v1/tool` in `enforce` and `advisory`, every decision durable, and of the same listener with a
//! handler that only hands the body back, each in turns with `off`. `cargo bench -p host-native --bench runtime`
//!
//! All stand side by side, each runtime with a bundle, an enrolled node and a log of its own on one file system. Callers
//! share the machine, so the rates are floors.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops where it fails")]

mod load;
#[path = "../../gate-core/benches/ratio/mod.rs"]
mod ratio;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Bytes, routing::post};
use criterion::{Criterion, Throughput};
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
/// Kept alive, with one call in flight on each.
const CONNECTIONS: usize = 64;

fn main() {
    let ratios = Criterion::default().with_measurement(ratio::Ratio).sample_size(20);
    let mut ratios = ratios.measurement_time(Duration::from_secs(25)).configure_from_args();
    let mut group = ratios.benchmark_group("runtime");
    group.throughput(Throughput::Elements(1));

    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let start = |mode| {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        (tokio.block_on(start(mode, home.path())), home)
    };
    let [(off, _off), (enforce, _enforce), (advisory, _advisory)] =
        [Mode::Off, Mode::Enforce, Mode::Advisory].map(start);
    let without_gate = tokio.block_on(start_without_gate());
    let mut table = vec![load::heading("mode", "mode", "`off`", "calls/s")];
    for (name, address) in [("enforce", enforce), ("advisory", advisory), ("no gate", without_gate)] {
        let call = |address| move |iters| load::threads(CONNECTIONS, iters, || caller(address));
        let turns = ratio::compare(&mut group, &format!("{name} beside off"), call(address), call(off));
        table.extend(load::row(name, &turns));
    }
    println!("{}", table.join("\n"));
}

async fn start_without_gate() -> SocketAddr {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.address().unwrap();
    let router = fallbacks(Router::new().route("/v1/tool", post(|body: Bytes| async move { body })), "`POST /v1/tool`");
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

/// One call after the other over one connection.
fn caller(address: SocketAddr) -> impl FnMut() {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("POST /v1/tool HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    let mut answer = vec![0; 4096];
    move || {
        stream.write_all(request.as_bytes()).unwrap();
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
    }
}
