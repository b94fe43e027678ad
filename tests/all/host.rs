//! The native host: every answer of its contract, and that what it answered is in the log whatever happens to it.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gate_wasm::Instance;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    contract::Contract,
    crash::{decisions, the_log_holds},
    service::{Connection, PATIENCE, Service},
    support::Home,
};

const HOST: &str = "host serve --listen 127.0.0.1:0";

/// A place with a token.
fn home() -> Home {
    let home = Home::ready();
    home.ok("host token");
    home
}

fn bearer(home: &Home) -> String {
    format!("authorization: Bearer {}\r\n", fs::read_to_string(home.path("host.token")).unwrap().trim_end())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// A runtime in another language: it decides with the module's own documents, and asks the host for the rest.
struct Runtime {
    gate: Instance,
    connection: Connection,
    bearer: String,
    name: String,
    calls: usize,
    facts_logged: Option<String>,
}

/// One call, as its caller saw it.
#[derive(Debug)]
struct Told {
    audit_id: String,
    allowed: bool,
    /// Before the look-up.
    started: Instant,
    ended: Instant,
}

impl Runtime {
    fn new(home: &Home, host: &Service, name: String) -> Self {
        let mut gate = Instance::new();
        let keys: Vec<_> = fs::read_dir(home.path("trusted-keys"))
            .unwrap()
            .map(|key| fs::read_to_string(key.unwrap().path()).unwrap())
            .collect();
        let configuration = json!({"mode": "enforce", "node_id": "robot-7", "bundle_keys": keys});
        assert_eq!(gate.configure(configuration.to_string().as_bytes()), 0);
        assert_eq!(gate.load_bundle(&fs::read(home.path("bundle.tar")).unwrap()), 0);
        Self { gate, connection: host.connect(), bearer: bearer(home), name, calls: 0, facts_logged: None }
    }

    /// A call from look-up to durable frames; an error where the host does not answer.
    fn call(&mut self) -> std::io::Result<(u16, Told)> {
        let started = Instant::now();
        let (status, answer) = self.connection.exchange("GET", "/v1/enrollments/robot-7", &self.bearer, "")?;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(self.gate.set_enrollment(answer.to_string().as_bytes()), 0);
        self.calls += 1;
        let audit_id = format!("{}-{}", self.name, self.calls);
        let mut call =
            json!({"now_ms": now_ms(), "audit_id": audit_id, "tool": "tool.echo", "policy": "policy: allowed"});
        if let Some(facts) = &self.facts_logged {
            call["facts_logged"] = facts.as_str().into();
        }
        let reason = self.gate.decide(call.to_string().as_bytes());
        assert!(reason >= 0, "{}", String::from_utf8_lossy(self.gate.output()));
        let decision = String::from_utf8(self.gate.output().to_vec()).unwrap();
        let (head, frames) = decision.split_once(",\"frames\":").unwrap();
        let facts = serde_json::from_str::<Value>(&format!("{head}}}")).unwrap()["facts"].as_str().unwrap().to_owned();
        let (status, appended) =
            self.connection.exchange("POST", "/v1/frames", &self.bearer, &format!("{{\"frames\":{frames}"))?;
        if status == 409 && self.facts_logged.take().is_some() {
            // The log has begun another segment: nothing of it was written.
            return self.call();
        }
        if status == 200 {
            let frames = appended["last_seq"].as_u64().unwrap() - appended["first_seq"].as_u64().unwrap() + 1;
            assert!((1..=3).contains(&frames), "{appended}");
            self.facts_logged = Some(facts);
        }
        Ok((status, Told { audit_id, allowed: reason == 0, started, ended: Instant::now() }))
    }
}

#[test]
fn every_request_gets_the_answer_of_the_contract() {
    let home = home();
    let host = Service::start(&home, HOST);
    let token = bearer(&home);
    let action = r#"{"kind":"autonomy.action","audit_id":"a-1","node_id":null,"attrs":{"tool":"t","outcome":"completed","took_ms":1}}"#;
    let batch = |frame: &str| format!("{{\"frames\":[{frame}]}}");
    let mut runtime = Runtime::new(&home, &host, "first".into());
    runtime.call().unwrap();
    let logged: Value = serde_json::from_str(&home.ok("wal inspect --kind autonomy.decision")).unwrap();
    let decision = json!({"kind": logged["kind"], "audit_id": "a-2", "node_id": "robot-7", "attrs": logged["attrs"]});
    let decision = decision.to_string();
    let known = logged["attrs"]["facts"].as_str().unwrap();
    let strange = decision.replace(known, &format!("sha256:{}", "0".repeat(64)));
    let before = frames(&home);
    let large = format!("{{\"frames\":[{}]}}", vec![action; 4097].join(","));
    let long = batch(&action.replace("\"tool\":\"t\"", &format!("\"tool\":\"{}\"", "t".repeat(200))));
    let origin = format!("{token}origin: http://evil.example\r\n");
    let get = |path: &str, headers: &str| ("GET", path.to_owned(), headers.to_owned(), String::new());
    let post = |body: String| ("POST", "/v1/frames".to_owned(), token.clone(), body);
    let no_token =
        "the token is missing or wrong: send `authorization: Bearer <token>` with the token of the host's file";
    let cases = [
        (get("/v1/enrollments/robot-7", &token), 200, ""),
        (get("/v1/enrollments/nobody", &token), 200, ""),
        (get("/v1/health", &token), 200, ""),
        (get("/v1/enrollments/robot-7", ""), 401, no_token),
        (get("/v1/health", "authorization: Bearer wrong\r\n"), 401, no_token),
        (("POST", "/v1/frames".into(), String::new(), batch(action)), 401, no_token),
        (get("/v1/enrollments/.hidden", &token), 400, "node id `.hidden` starts with `.`"),
        (get("/v1/enrollments/a%20b", &token), 400, "node id `a b` holds ` `"),
        (get("/v1/enrollments/%ff", &token), 400, "node id is not UTF-8: escape its bytes again"),
        (get("/v1/enrollments/", &token), 404, "no such path"),
        (get("/v1/enrollments/a/b", &token), 404, "no such path"),
        (get("/v1/frames", &token), 405, "method not allowed here"),
        (("DELETE", "/v1/enrollments/robot-7".into(), token.clone(), String::new()), 405, "method not allowed here"),
        (get("/v1/health", &origin), 403, "calls from web pages are refused: call from a program"),
        (("POST", "/v1/frames".into(), origin, batch(action)), 403, "calls from web pages are refused"),
        (
            post(String::new()),
            400,
            "the body is not a batch of frames: the text ends at byte 0, where a value is wanted; send {\"frames\": […]}",
        ),
        (post("[]".into()), 400, "the body is not a batch of frames: found a list, expected an object"),
        (post("{\"frames\":[]}".into()), 400, "append holds no frame: give at least one"),
        (
            post("{\"frames\":{}}".into()),
            400,
            "the body is not a batch of frames: `frames`: found an object, expected a list",
        ),
        (
            post(format!("{{\"frames\":[{action}],\"frames\":[]}}")),
            400,
            "the body is not a batch of frames: key `frames` stands twice",
        ),
        (
            post(format!("{{\"frames\":[{action}],\"seq\":1}}")),
            400,
            "the body is not a batch of frames: member `seq` is not known",
        ),
        (
            post(format!("{{\"frames\":[{action},{{}}]}}")),
            400,
            "the body is not a batch of frames: `frames`: `kind`: is missing",
        ),
        (
            post(batch(&action.replace("action", "lifecycle"))),
            400,
            "the body is not a batch of frames: `frames`: `kind`: `autonomy.lifecycle` is not known",
        ),
        (post(long), 400, "the body is not a batch of frames: `frames`: `attrs`: `tool`: tool has 200 bytes"),
        (post(batch(&strange)), 409, "no facts `sha256:0000"),
        (post(format!("{{\"frames\":[{action},{strange}]}}")), 409, "no facts `sha256:0000"),
        (post(large), 413, "append holds 4097 frames"),
        (post(format!(" {{ \"frames\" : [ {} ] }} ", action.replace(',', " , "))), 200, ""),
        (post(batch(&decision)), 200, ""),
        // As much as the contract lets in, but for a byte.
        (post(format!("{}{}", " ".repeat(4 * 1024 * 1024 - 1 - batch(action).len()), batch(action))), 200, ""),
    ];
    for ((method, path, headers, body), status, message) in cases {
        let mut connection = host.connect();
        let (found, answer) = connection.exchange(method, &path, &headers, &body).unwrap();
        let shown = &body[..body.len().min(200)];
        assert_eq!(found, status, "{method} {path} {shown}: {answer}");
        if status != 200 {
            let error = answer["error"].as_str().unwrap();
            assert!(error.starts_with(message), "{method} {path} {shown}: {error}");
        }
    }
    // Refused by its announced length: not a byte of it is sent.
    let mut stream = TcpStream::connect(&host.address).unwrap();
    let announced =
        format!("POST /v1/frames HTTP/1.1\r\nhost: a\r\n{token}content-length: {}\r\n\r\n", 4 * 1024 * 1024 + 1);
    stream.write_all(announced.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("more than 4194304 bytes: send less"), "{answer}");
    let after = frames(&home);
    assert_eq!(after.len(), before.len() + 3, "what is refused leaves nothing");
    assert_eq!(&after[before.len()]["attrs"], &json!({"tool": "t", "outcome": "completed", "took_ms": 1}));
    let metrics = home.program("curl").args(["-s", &format!("http://{}/metrics", host.address)]).output().unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    for line in [
        r#"autonomy_requests_total{route="/v1/frames",status="409"} 2"#,
        r#"autonomy_decisions_total{effect="allow",reason="policy: allowed",mode="enforce"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    host.signal(Signal::TERM);
    assert_eq!(host.ended(), (0, String::new()));
    let events: Vec<_> =
        frames(&home).iter().filter_map(|frame| frame["attrs"]["event"].as_str().map(str::to_owned)).collect();
    assert_eq!(events, ["host_started", "host_stopped"]);
    let token = fs::read_to_string(home.path("host.token")).unwrap();
    assert!(!fs::read_to_string(home.path("wal/telemetry.wal")).unwrap_or_default().contains(token.trim_end()));
}

fn frames(home: &Home) -> Vec<Value> {
    home.ok("wal inspect").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_look_up_says_what_the_store_says_now_or_503() {
    let home = home();
    let host = Service::start(&home, HOST);
    let (mut connection, token) = (host.connect(), bearer(&home));
    let mut ask = |node: &str| connection.exchange("GET", &format!("/v1/enrollments/{node}"), &token, "").unwrap();
    let before = now_ms();
    let (_, answer) = ask("robot-7");
    assert!((before..=now_ms()).contains(&answer["observed_at_ms"].as_u64().unwrap()));
    let row = json!({"node_id": "robot-7", "enrollment_ref": "fleet-a", "status": "active", "rollout_state": "<none>", "serial": 1});
    assert_eq!((&answer["answer"], &answer["enrollment"]), (&json!("enrolled"), &row));
    assert_eq!(ask("robot-8").1["answer"], "not_enrolled");
    let observed = |answer: &Value| answer["observed_at_ms"].as_u64().unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        let (first, second) = (ask("robot-7").1, ask("robot-7").1);
        // What nothing has changed is the same answer, so that two calls have the same facts.
        if first == second {
            break;
        }
        assert!(Instant::now() < end && observed(&second) - observed(&first) >= 200, "{first} {second}");
    }
    home.ok("node revoke --node-id robot-7");
    assert_eq!(ask("robot-7").1["enrollment"]["status"], "revoked");
    // A store that went back to before the revoke is not believed.
    for file in ["enrollment.sqlite", "enrollment.sqlite-wal", "enrollment.sqlite-shm"] {
        let _ = fs::rename(home.path(file), home.path(&format!("{file}.away")));
    }
    let (status, answer) = ask("robot-7");
    assert_eq!(status, 503, "{answer}");
    home.ok("node enroll --node-id robot-7 --enrollment-ref fleet-a");
    let (status, answer) = ask("robot-7");
    assert_eq!(status, 503, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("serial"), "{answer}");
    assert_eq!(ask("robot-9").0, 200, "others are answered");
    host.kill();
}

#[test]
fn a_host_without_a_store_says_so_at_its_start() {
    let home = home();
    for (line, warns) in [(format!("{HOST} --store gone.sqlite"), true), (HOST.to_owned(), false)] {
        let host = Service::start(&home, &line);
        host.signal(Signal::TERM);
        let (code, said) = host.ended();
        let warning = "every look-up is answered 503: no enrollment database at `gone.sqlite`: correct the path";
        assert_eq!((code, said.contains(warning)), (0, warns), "{said}");
    }
}

#[test]
fn a_socket_serves_beside_an_address_or_alone() {
    let home = home();
    let (socket, token) = (home.path("host.sock"), bearer(&home));
    for line in ["host serve --socket host.sock", "host serve --listen 127.0.0.1:0 --socket host.sock"] {
        let host = Service::start(&home, line);
        assert_eq!(host.address.is_empty(), !line.contains("--listen"));
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let mut connection = Contract::Host.over(Connection::open_socket(&socket).unwrap());
        assert_eq!(connection.exchange("GET", "/v1/health", &token, "").unwrap().0, 200);
        assert_eq!(connection.exchange("GET", "/v1/health", "", "").unwrap().0, 401, "on a socket as well");
        host.signal(Signal::TERM);
        drop(connection);
        assert_eq!(host.ended(), (0, String::new()));
        assert!(!socket.exists());
    }
    // A host that was killed leaves its socket, and the next one takes it.
    let host = Service::start(&home, "host serve --socket host.sock");
    host.kill();
    assert!(socket.exists());
    let host = Service::start(&home, "host serve --socket host.sock");
    let second = home.run("host serve --socket host.sock --wal-dir other");
    assert_eq!(second.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&second.stderr).starts_with("error: another process listens on socket `host.sock`")
    );
    assert!(!home.path("other").exists(), "nothing was begun");
    host.kill();
}

#[test]
fn a_host_that_cannot_be_trusted_does_not_start() {
    let home = Home::ready();
    let refused = |line: &str, code: i32, part: &str| {
        let output = home.run(line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {error}");
        assert!(error.contains(part) && error.lines().count() == 1, "{line}: {error}");
        assert!(!home.path("wal").exists(), "{line}");
    };
    refused(HOST, 3, "or make one with `autonomy host token`");
    home.ok("host token");
    refused("host token", 2, "a token is never overwritten");
    refused("host serve --listen 0.0.0.0:7778", 2, "is not a loopback address");
    refused("host serve --listen localhost", 2, "address `localhost` is not known");
    refused("host serve --socket bundle.tar", 2, "is there and is no socket, so it is kept");
    refused("host serve --token-file bundle.tar", 2, "can be read by others");
    fs::set_permissions(home.path("host.token"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(HOST, 2, "can be read by others (mode 644): run `chmod 600 ");
}

#[test]
fn a_host_and_a_runtime_do_not_write_one_log() {
    let home = home();
    let host = Service::start(&home, HOST);
    for line in [HOST, "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --node-id robot-7"] {
        let second = home.run(line);
        assert_eq!(second.status.code(), Some(3));
        let error = String::from_utf8(second.stderr).unwrap();
        assert!(error.contains(&format!("is in use by process {}: stop that process", host.id())), "{error}");
    }
    Runtime::new(&home, &host, "still".into()).call().unwrap();
    host.kill();
    assert_eq!(the_log_holds(&home), 1);
}

const RUNTIMES: usize = 16;

/// Answers that a round must have before it counts: idling proves nothing.
const LEAST: usize = 10 * RUNTIMES;

/// Runtimes that call as fast as they are answered; each call that was durable.
fn load(home: &Home, host: &Service, round: usize, until: impl FnOnce(&dyn Fn(usize))) -> (Vec<Told>, usize) {
    let (stop, told, refused) = (AtomicBool::new(false), Mutex::new(Vec::new()), Mutex::new(0));
    let runtimes: Vec<_> = (0..RUNTIMES).map(|n| Runtime::new(home, host, format!("r{round}-{n}"))).collect();
    thread::scope(|scope| {
        for mut runtime in runtimes {
            let (stop, told, refused) = (&stop, &told, &refused);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match runtime.call() {
                        Ok((200, call)) => told.lock().unwrap().push(call),
                        Ok((503, _)) => *refused.lock().unwrap() += 1,
                        Ok((status, call)) => panic!("{status}: {call:?}"),
                        Err(_) => return,
                    }
                }
            });
        }
        let wait_for = |more: usize| {
            let (goal, end) = (told.lock().unwrap().len() + more, Instant::now() + PATIENCE);
            while told.lock().unwrap().len() < goal {
                assert!(Instant::now() < end, "too few calls are durable");
                thread::sleep(Duration::from_millis(2));
            }
        };
        until(&wait_for);
        stop.store(true, Ordering::Relaxed);
    });
    (told.into_inner().unwrap(), refused.into_inner().unwrap())
}

#[test]
fn what_was_answered_as_durable_is_in_the_log_when_the_host_is_killed_at_any_moment() {
    let home = home();
    let mut durable = Vec::new();
    for round in 0..6 {
        let host = Service::start(&home, &format!("{HOST} --segment-bytes 16384"));
        let (told, refused) = load(&home, &host, round, |wait_for| {
            wait_for(LEAST);
            home.ok(&format!("rollout set --node-id robot-7 --state {}", ["failed", "active"][round % 2]));
            wait_for(RUNTIMES);
            // In the last round as an init system stops it.
            host.signal(if round == 5 { Signal::TERM } else { Signal::KILL });
        });
        if round == 5 {
            assert_eq!(host.ended(), (0, String::new()));
        } else {
            drop(host);
        }
        assert_eq!(refused, 0);
        println!("round {round}: {} durable", told.len());
        durable.extend(told);
    }
    let ids: BTreeSet<_> = durable.iter().map(|call| call.audit_id.as_str()).collect();
    assert_eq!(ids.len(), durable.len());
    let logged = decisions(&home);
    for call in &durable {
        let Some(frames) = logged.get(&call.audit_id) else { panic!("durable and not in the log: {call:?}") };
        assert_eq!(frames.len(), if call.allowed { 1 } else { 2 }, "{call:?}: {frames:?}");
    }
    assert!(durable.iter().any(|call| call.allowed) && durable.iter().any(|call| !call.allowed));
    assert_eq!(the_log_holds(&home), logged.len());
    // What is left of a log has the facts of its decisions.
    home.ok("wal prune --retain-bytes 100000 --prune any");
    assert!((1..logged.len()).contains(&the_log_holds(&home)));
}

#[test]
fn no_call_that_looks_up_after_a_revoke_has_returned_is_allowed() {
    let home = home();
    let host = Service::start(&home, HOST);
    let (mut from, mut until) = (Instant::now(), Instant::now());
    let (told, refused) = load(&home, &host, 0, |wait_for| {
        wait_for(LEAST);
        home.ok("node revoke --node-id robot-7");
        from = Instant::now();
        wait_for(LEAST);
        until = Instant::now();
    });
    assert_eq!(refused, 0);
    let after: Vec<_> = told.iter().filter(|call| from <= call.started && call.ended <= until).collect();
    assert!(after.len() >= LEAST / 2, "idling does not count: {}", after.len());
    assert!(after.iter().all(|call| !call.allowed), "allowed after the revoke");
    assert!(told.iter().any(|call| call.allowed));
    println!("{} calls, {} of them begun after the revoke, each denied", told.len(), after.len());
    host.kill();
    the_log_holds(&home);
}

#[test]
fn on_a_full_disk_appends_get_503_and_the_host_ends_and_loses_nothing() {
    let home = home();
    let host = Service::start_with_limit(&home, "-f 512", HOST);
    let (told, refused) = load(&home, &host, 0, |wait_for| {
        wait_for(LEAST);
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(&host.address).is_ok() {
            assert!(Instant::now() < end, "it goes on");
            thread::sleep(Duration::from_millis(5));
        }
    });
    let (code, stderr) = host.ended();
    let error: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!((code, &error["class"]), (3, &json!("unavailable")), "{stderr}");
    let message = error["error"].as_str().unwrap();
    assert!(
        message.starts_with("log at `")
            && message.ends_with("; raise the limit on the size of files (`ulimit -f`), then restart"),
        "{message}"
    );
    assert!(refused > 0, "nobody was told");
    println!("{} durable before the disk was full, {refused} refused", told.len());
    let logged = decisions(&home);
    for call in &told {
        assert!(logged.contains_key(&call.audit_id), "durable and not in the log: {call:?}");
    }
    let host = Service::start(&home, HOST);
    let mut again = Runtime::new(&home, &host, "again".into());
    assert_eq!(again.call().unwrap().0, 200);
    host.kill();
    the_log_holds(&home);
}
