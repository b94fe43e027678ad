//! The runtime over a real socket, with a real bundle, a real SQLite file and a real log.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

use gate_core::{
    AuditId, Config, EnrollmentRef, Freshness, Mode, NodeId, RolloutState, ToolName,
    decision::Outcome,
    frame::Kind,
    manifest::{Channel, Provenance},
};
use host_native::{
    AttestationLayer, Gate, Policies, audit,
    bundle::{self, Description, Files},
    enrollment::{IfActive, LocalSource, SqliteStore, Store},
    key::{self, PrivateKey},
    runtime,
    serve::{Limits, Listener, Metrics},
    tool::{HttpGetConfig, Tools},
    wal::{self, Reader, Wal},
};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

const POLICY: &str = "package autonomy\ndefault allow := false\nallow if input.kind != \"tool.shell\"\n";

/// A node with its bundle, its enrollments and its log, all in one directory.
struct Node {
    home: tempfile::TempDir,
    store: SqliteStore,
    bundle: Vec<u8>,
    trusted: std::path::PathBuf,
    id: NodeId,
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Node {
    fn new(declared: &str) -> Self {
        Self::with_policy(declared, POLICY.as_bytes())
    }

    fn with_policy(declared: &str, policy: &[u8]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        let trusted = key.write(&home.path().join("release")).unwrap();
        let files = Files::from([("policies/main.rego".to_owned(), policy.to_vec())]);
        let description = Description {
            name: "fleet".into(),
            version: "1.0.0".into(),
            channel: Channel::Stable,
            policy_version: "1".into(),
            provenance: Provenance {
                enrollment_ref: Some(EnrollmentRef::parse(declared).unwrap()),
                ..Provenance::default()
            },
        };
        let bundle = bundle::sign(&bundle::build(description, &files).unwrap(), &key).unwrap();
        let store = SqliteStore::open(home.path().join("enrollment.sqlite")).unwrap();
        Self { home, store, bundle, trusted, id: NodeId::parse("robot-1").unwrap() }
    }

    fn enroll(&self, enrollment_ref: &str) {
        let enrollment_ref = EnrollmentRef::parse(enrollment_ref).unwrap();
        self.store.enroll(&self.id, &enrollment_ref, IfActive::Replace, "test", host_native::gate::now_ms()).unwrap();
    }

    fn wal_dir(&self) -> std::path::PathBuf {
        self.home.path().join("wal")
    }

    async fn gate(&self, mode: Mode) -> Gate {
        self.gate_on(mode, wal::Options::default()).await
    }

    async fn gate_on(&self, mode: Mode, options: wal::Options) -> Gate {
        let source = LocalSource::new(self.home.path().join("enrollment.sqlite"), self.id.clone(), 15_000).unwrap();
        let config = Config {
            mode,
            node_id: Some(self.id.clone()),
            bundle_keys: Some(key::read_trusted(std::slice::from_ref(&self.trusted), 1).unwrap()),
            lease_keys: None,
            freshness: Freshness::default(),
        };
        let (wal, _) = Wal::open(self.wal_dir(), options).unwrap();
        let policies = Policies::Bundle(self.bundle.clone());
        Gate::open(config, policies, Some(Box::new(source)), Arc::new(wal)).await.unwrap()
    }

    async fn start(&self, mode: Mode) -> Running {
        let metrics = Arc::new(Metrics::new("runtime", "test"));
        let gate = Arc::new(self.gate(mode).await.with_metrics(Arc::clone(&metrics)));
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let tools = Tools::new(HttpGetConfig::default()).unwrap();
            let shutdown = async { drop(stopped.await) };
            runtime::run(listener, gate, tools, metrics, Limits::default(), shutdown).await.unwrap();
        });
        Running { address, stop, server }
    }
}

impl Running {
    async fn call(&self, body: &Value) -> (u16, Value) {
        self.send("POST", "/v1/tool", &body.to_string()).await
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.send_raw(method, path, body).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    async fn send_raw(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
    }
}

fn frames_of(wal_dir: &Path, audit_id: &str) -> Vec<(Kind, Value)> {
    let trail = audit::get(wal_dir, &AuditId::parse(audit_id).unwrap()).unwrap();
    trail.frames.iter().map(|frame| (frame.kind, serde_json::from_str(&frame.attrs).unwrap())).collect()
}

fn echo() -> Value {
    json!({"kind": "tool.echo", "params": {"text": "hi"}})
}

#[tokio::test]
async fn each_mode_answers_as_the_table_of_effects_says() {
    let node = Node::new("fleet-a");
    node.enroll("fleet-b");
    for (mode, status) in [(Mode::Off, 200), (Mode::Advisory, 200), (Mode::Enforce, 403)] {
        let runtime = node.start(mode).await;
        let (found, answer) = runtime.call(&echo()).await;
        assert_eq!(found, status, "{mode}: {answer}");
        assert_eq!(answer["policy_ref"], "fleet@1.0.0");
        if mode == Mode::Enforce {
            assert_eq!(answer["reason"], "attestation: enrollment_ref_mismatch");
            assert!(answer.get("output").is_none() && answer.get("detail").is_none(), "{answer}");
        } else {
            assert_eq!(answer["output"], json!({"text": "hi"}));
        }
        runtime.stop().await;

        let frames = frames_of(&node.wal_dir(), answer["audit_id"].as_str().unwrap());
        let decisions: Vec<_> = frames.iter().filter(|frame| frame.0 == Kind::Decision).map(|frame| &frame.1).collect();
        assert_eq!(decisions[0]["reason"], "policy: allowed");
        assert_eq!(decisions.len(), if mode == Mode::Off { 1 } else { 2 });
        if let Some(attestation) = decisions.get(1) {
            assert_eq!(attestation["enforced"], mode == Mode::Enforce);
            assert_eq!(attestation["reason"], "attestation: enrollment_ref_mismatch");
            assert_eq!(attestation["detail"], "expected `fleet-a`, as the bundle declares, found `fleet-b`");
        }
        let ran = frames.iter().any(|frame| frame.0 == Kind::Action);
        assert_eq!(ran, mode != Mode::Enforce, "the tool runs exactly when the answer is allow");
    }
}

#[tokio::test]
async fn a_revoke_is_seen_by_the_next_call() {
    let node = Node::new("fleet-a");
    node.enroll("fleet-a");
    let runtime = node.start(Mode::Enforce).await;
    for _ in 0..20 {
        assert_eq!(runtime.call(&echo()).await.0, 200);
        node.store.revoke(&node.id, "test", host_native::gate::now_ms()).unwrap();
        let (status, answer) = runtime.call(&echo()).await;
        assert_eq!((status, answer["reason"].as_str()), (403, Some("attestation: enrollment_revoked")));
        node.enroll("fleet-a");
    }
    let failed = RolloutState::Failed;
    node.store.set_rollout(&node.id, &failed, "test", host_native::gate::now_ms()).unwrap();
    assert_eq!(runtime.call(&echo()).await.1["reason"], "attestation: rollout_incoherent");
    runtime.stop().await;
}

#[tokio::test]
async fn a_caller_gets_a_clear_answer_to_everything_else() {
    let node = Node::new("fleet-a");
    node.enroll("fleet-a");
    let runtime = node.start(Mode::Enforce).await;
    let (status, answer) = runtime.call(&json!({"kind": "tool.shell", "params": {"command": "ls"}})).await;
    assert_eq!((status, answer["reason"].as_str()), (403, Some("policy: denied")));
    let (status, answer) = runtime.call(&json!({"kind": "tool.unknown"})).await;
    assert_eq!((status, answer["decision"].as_str()), (400, Some("allow")));
    assert!(answer["error"].as_str().unwrap().starts_with("unknown tool `tool.unknown`"), "{answer}");
    for body in [
        "",
        "{",
        "[]",
        "[\"tool.echo\",{}]",
        "{\"kind\":\"tool.echo\",\"node_id\":\"x\"}",
        "{\"kind\":\"a b\"}",
        "{\"kind\":1}",
    ] {
        let (status, answer) = runtime.send("POST", "/v1/tool", body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["error"].as_str().unwrap().starts_with("the body is not a tool call"), "{answer}");
    }
    let raw = (0..8).fold("1".to_owned(), |inner, _| json!({"$serde_json::private::RawValue": inner}).to_string());
    for (params, why) in [
        (raw, "nested deeper than 32 levels"),
        ("[".repeat(33) + &"]".repeat(33), "nested deeper than 32 levels"),
        (format!("[{}0]", "0,".repeat(10_000)), "more than 10000 values"),
        (r#"{"a":1,"\u0061":2}"#.to_owned(), "key `a` stands twice"),
    ] {
        let body = format!(r#"{{"kind":"tool.echo","params":{params}}}"#);
        let (status, answer) = runtime.send("POST", "/v1/tool", &body).await;
        // A text that only looks like JSON of its own is a text.
        let is_text = params.starts_with(r#"{"$serde_json"#);
        assert_eq!(status, if is_text { 200 } else { 400 }, "{why}: {answer}");
        assert!(is_text || answer["error"].as_str().unwrap().contains(why), "{answer}");
    }
    assert_eq!(runtime.send("GET", "/v1/tool", "").await.0, 405);
    assert_eq!(runtime.send("GET", "/v2/tool", "").await.0, 404);
    assert_eq!(runtime.send("POST", "/v1/tool", &"x".repeat(2 << 20)).await.0, 413);
    assert_eq!(runtime.send_raw("GET", "/healthz", "").await.0, 200);
    assert_eq!(runtime.send_raw("GET", "/readyz", "").await.0, 200);
    let from_a_page = runtime.send_raw("POST", "/v1/tool HTTP/1.1\r\norigin: http://evil.example\r\nx:", "{}").await;
    assert_eq!(from_a_page, (403, r#"{"error":"calls from web pages are refused: call from a program"}"#.to_owned()));
    let metrics = runtime.send_raw("GET", "/metrics", "").await.1;
    assert!(
        metrics.contains(r#"autonomy_decisions_total{effect="deny",reason="policy: denied",mode="enforce"} 1"#),
        "{metrics}"
    );
    runtime.stop().await;
}

#[test]
fn what_is_compiled_is_what_was_signed() {
    let changed = [POLICY.as_bytes(), b"# \xff\n"].concat();
    let node = Node::with_policy("fleet-a", &changed);
    let (bundle, _) = gate_core::Bundle::inspect(&node.bundle).unwrap();
    let error = host_native::gate::compile(&bundle).unwrap_err().to_string();
    assert_eq!(error, "`policies/main.rego` is not utf-8: save it as utf-8");
}

#[tokio::test]
async fn a_log_that_ends_denies_every_call_and_stops_the_runtime() {
    let node = Node::new("fleet-a");
    node.enroll("fleet-a");
    let gate = Arc::new(node.gate(Mode::Off).await);
    let tool = ToolName::parse("tool.echo").unwrap();
    gate.ask(&tool, &json!({})).await.unwrap().finish(host_native::ToolOutcome::Completed);
    gate.wal().close().unwrap();
    let denial = gate.ask(&tool, &json!({})).await.unwrap_err();
    assert_eq!(denial.reason.as_str(), "audit: wal_unavailable");
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let metrics = Arc::new(Metrics::new("runtime", "test"));
    let tools = Tools::new(HttpGetConfig::default()).unwrap();
    let ended = runtime::run(listener, gate, tools, metrics, Limits::default(), std::future::pending()).await;
    assert!(ended.is_err(), "it ends by itself, and says why: {ended:?}");
}

#[tokio::test]
async fn facts_that_an_overloaded_log_refused_come_with_the_next_decision() {
    let node = Node::new("fleet-a");
    node.enroll("fleet-b");
    let options = wal::Options { queue_frames: 2, ..wal::Options::default() };
    let gate = node.gate_on(Mode::Enforce, options).await;
    let ask =
        async |tool: &str| gate.ask(&ToolName::parse(tool).unwrap(), &json!({})).await.unwrap_err().reason.as_str();
    // Facts and two decisions are one frame too many; facts and one decision are not.
    assert_eq!(ask("tool.echo").await, "audit: wal_unavailable");
    assert_eq!(ask("tool.shell").await, "policy: denied");
    assert_eq!(ask("tool.echo").await, "attestation: enrollment_ref_mismatch");
    gate.wal().close().unwrap();
    let replay = audit::replay(node.wal_dir(), None).unwrap();
    assert_eq!((replay.calls, replay.same), (2, 2), "{:?}", replay.differences);
}

#[tokio::test]
async fn a_server_of_its_own_is_gated_by_the_layer() {
    use axum::{Router, body::Body, routing::post};
    use tower_service::Service as _;

    let node = Node::new("fleet-a");
    node.enroll("fleet-a");
    let gate = Arc::new(node.gate(Mode::Enforce).await);
    let layer = AttestationLayer::new(Arc::clone(&gate), ToolName::parse("arm.move").unwrap());
    let mut app = Router::new().route("/arm", post(async || "moved")).layer(layer);
    let request = || http::Request::post("/arm").body(Body::empty()).unwrap();
    assert_eq!(app.call(request()).await.unwrap().status(), 200);
    node.store.revoke(&node.id, "test", host_native::gate::now_ms()).unwrap();
    let denied = app.call(request()).await.unwrap();
    assert_eq!(denied.status(), 403);
    let body = axum::body::to_bytes(denied.into_body(), 4096).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["reason"], "attestation: enrollment_revoked");
    gate.wal().close().unwrap();
    let actions = Reader::open(node.wal_dir()).unwrap().filter(|frame| frame.as_ref().unwrap().kind == Kind::Action);
    assert_eq!(actions.count(), 1);
}

#[tokio::test]
async fn the_log_answers_what_happened_what_would_happen_and_whether_it_follows() {
    let node = Node::new("fleet-a");
    node.enroll("fleet-b");
    let runtime = node.start(Mode::Off).await;
    for _ in 0..3 {
        assert_eq!(runtime.call(&echo()).await.0, 200);
    }
    node.enroll("fleet-a");
    assert_eq!(runtime.call(&echo()).await.0, 200);
    runtime.call(&json!({"kind": "tool.shell", "params": {"command": "ls"}})).await;
    runtime.stop().await;

    let wal_dir = node.wal_dir();
    let preview = audit::preview(&wal_dir, Mode::Enforce, None).unwrap();
    assert_eq!((preview.calls, preview.failing, preview.unjudged, preview.safe), (4, 3, 0, false));
    assert_eq!(preview.findings[0].reason.as_str(), "attestation: enrollment_ref_mismatch");
    assert_eq!(preview.findings[0].calls, 3);
    let advisory = audit::preview(&wal_dir, Mode::Advisory, None).unwrap();
    assert_eq!((advisory.failing, advisory.safe), (3, true), "advisory denies nothing");
    let later = audit::preview(&wal_dir, Mode::Enforce, Some(u64::MAX)).unwrap();
    assert_eq!((later.calls, later.safe), (0, false), "an empty log proves nothing");

    let replay = audit::replay(&wal_dir, None).unwrap();
    assert_eq!((replay.calls, replay.same), (5, 5), "{:?}", replay.differences);

    let mut calls = audit::Calls::open(&wal_dir).unwrap();
    let mut outcomes = Vec::new();
    while let Some(call) = calls.next_call().unwrap() {
        outcomes.push((call.outcome, call.reason.as_str()));
    }
    assert_eq!(outcomes[0], (Outcome::Allow, "policy: allowed"));
    assert_eq!(outcomes[4], (Outcome::Deny, "policy: denied"));
    let missing = audit::get(&wal_dir, &AuditId::parse("nope").unwrap()).unwrap_err();
    assert_eq!(missing.to_string(), "no frame has audit id `nope`: check the id, and that this is the log of its node");
}
