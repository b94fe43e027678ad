//! Rollouts: a real orchestrator, a real registry, real runtimes and the real command.

use gate_core::{
    EnrollmentRef,
    manifest::{Channel, Provenance},
};
use host_native::{
    bundle::{self, Description, Files, IfExists},
    enrollment::{SqliteStore, Store as _, rollout::RolloutId},
    key::PrivateKey,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    registry::Registry,
    service::{Connection, PATIENCE, Service},
    support::{Home, free_address},
};

const ECHO: &str = r#"{"kind":"tool.echo","params":{"text":"hello"}}"#;
const POLICY: &str = "package autonomy\n\nallow if input.kind == \"tool.echo\"\n";
const NODES: [&str; 3] = ["robot-1", "robot-2", "robot-3"];

/// An orchestrator with three nodes enrolled, and a registry.
struct Fleet {
    // Dropped first to last: what runs, then where it ran.
    orchestrator: Service,
    registry: Registry,
    home: Home,
}

impl Fleet {
    fn start() -> Self {
        let home = Home::ready();
        home.ok("key generate --out lease.pem");
        home.ok("orchestrator token --role operator --name operator --out operator.token");
        home.ok("orchestrator token --role reader --name reader --out reader.token");
        let serve = "orchestrator serve --store fleet.sqlite --signing-key lease.pem --listen 127.0.0.1:0";
        let orchestrator = Service::start(&home, serve);
        let registry = Registry::start(&home, free_address(), json!({}));
        let fleet = Self { orchestrator, registry, home };
        for node in NODES {
            fleet.home.ok(&format!("orchestrator token --role node --node-id {node} --out {node}.token"));
            fleet.ok(&format!("node enroll --node-id {node} --enrollment-ref fleet-a"));
        }
        fleet
    }

    fn operator(&self) -> String {
        format!("--orchestrator-url http://{} --orchestrator-token-file operator.token", self.orchestrator.address)
    }

    /// Runs a line as an operator.
    fn ok(&self, line: &str) -> String {
        self.home.ok(&format!("{line} {}", self.operator()))
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --output json"))).unwrap()
    }

    fn run(&self, node: &str, flags: &str) -> Service {
        let line = format!(
            "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id {node} --wal-dir wal-{node} \
             --lease-key lease.pem.pub --orchestrator-url http://{} --orchestrator-token-file {node}.token \
             --allow-insecure-registry {flags}",
            self.orchestrator.address
        );
        Service::start(&self.home, &line)
    }

    /// A bundle in the registry, signed by whom the nodes trust, whatever is in it.
    ///
    /// Its digest.
    fn push(&self, version: &str, enrollment_ref: &str, policy: &str) -> String {
        let description = Description {
            name: "fleet/policies".into(),
            version: version.into(),
            channel: Channel::Stable,
            policy_version: version.into(),
            provenance: Provenance {
                enrollment_ref: Some(EnrollmentRef::parse(enrollment_ref).unwrap()),
                ..Provenance::default()
            },
        };
        let files = Files::from([("policies/main.rego".to_owned(), policy.as_bytes().to_vec())]);
        let key = PrivateKey::read(&self.home.path("keys/bundle.pem")).unwrap();
        let tar = bundle::sign(&bundle::build(description, &files).unwrap(), &key).unwrap();
        bundle::write(&self.home.path("pushed.tar"), &tar, IfExists::Replace).unwrap();
        let to = format!("{}/fleet/policies:{version} --allow-insecure-registry", self.registry.address);
        let pushed = self.home.ok(&format!("bundle push pushed.tar {to} --output json"));
        let pushed: Value = serde_json::from_str(&pushed).unwrap();
        pushed["manifest_digest"].as_str().unwrap().to_owned()
    }

    /// The rollout's id, once it has begun.
    fn create(&self, version: &str, flags: &str) -> String {
        let digest = self.push(version, "fleet-a", POLICY);
        let repository = format!("{}/fleet/policies", self.registry.address);
        let line = format!("rollout create --bundle {repository}:{version} --allow-insecure-registry {flags}");
        let created = self.json(&line);
        assert_eq!(created["bundle"], format!("{repository}@{digest}"), "a tag may move, a digest does not");
        created["rollout_id"].as_str().unwrap().to_owned()
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
        let token = fs::read_to_string(self.home.path(token)).unwrap();
        let authorization = format!("authorization: Bearer {}\r\n", token.trim_end());
        self.orchestrator.connect().exchange(method, path, &authorization, body).unwrap()
    }

    /// What the orchestrator knows of the rollout, once `is_there`.
    fn until(&self, id: &str, is_there: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let (status, shown) = self.ask("GET", &format!("/v1/rollouts/{id}"), "reader.token", "");
            assert_eq!(status, 200, "{shown}");
            if is_there(&shown) {
                return shown;
            }
            assert!(begun.elapsed() < PATIENCE, "{shown:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_phase(&self, id: &str, phase: &str) -> Value {
        self.until(id, |shown| shown["rollout"]["phase"] == phase)
    }
}

/// Which policies answer a call, and what they or the gate say.
fn call(runtime: &mut Connection) -> (String, String) {
    let (status, answer) = runtime.exchange("POST", "/v1/tool", "", ECHO).unwrap();
    let policy_ref = answer["policy_ref"].as_str().unwrap_or_default().to_owned();
    let said = if status == 200 { "allow" } else { answer["reason"].as_str().unwrap() };
    (policy_ref, said.to_owned())
}

fn until(runtime: &mut Connection, policy_ref: &str, said: &str) {
    let begun = Instant::now();
    loop {
        let answer = call(runtime);
        if answer == (policy_ref.to_owned(), said.to_owned()) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:?} and never {policy_ref} {said}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_bundle_is_rolled_out_to_a_fleet_that_goes_on_answering() {
    let fleet = Fleet::start();
    let engine = |node| if node == "robot-3" { "--engine wasm" } else { "" };
    let running = NODES.map(|node| fleet.run(node, engine(node)));
    let mut clients: Vec<_> = running.iter().map(Service::connect).collect();
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.0.0", "allow"));

    // Somebody calls all the time: no call is denied by any of it.
    let mut caller = running[0].connect();
    let calls = thread::spawn(move || {
        let (begun, mut answers) = (Instant::now(), Vec::new());
        while answers.last().is_none_or(|(policy_ref, _)| policy_ref != "fleet/policies@1.2.0") {
            assert!(begun.elapsed() < PATIENCE * 3, "{answers:?}");
            let answer = call(&mut caller);
            if answers.last() != Some(&answer) {
                answers.push(answer);
            }
        }
        answers
    });
    fleet.push("1.1.0", "fleet-a", POLICY);
    let bundle = format!("{}/fleet/policies:1.1.0", fleet.registry.address);
    let said = fleet.ok(&format!("rollout create --bundle {bundle} --allow-insecure-registry --all --wait"));
    assert!(said.contains(" to 3 nodes\n") && said.ends_with("finished: 3 active\n"), "{said}");
    clients.iter_mut().for_each(|client| assert_eq!(call(client), ("fleet/policies@1.1.0".into(), "allow".into())));
    let id = fleet.create("1.2.0", "--all --canary 30% --wait");
    clients.iter_mut().for_each(|client| assert_eq!(call(client), ("fleet/policies@1.2.0".into(), "allow".into())));
    let versions = ["fleet/policies@1.0.0", "fleet/policies@1.1.0", "fleet/policies@1.2.0"];
    let answers = calls.join().unwrap();
    assert_eq!(answers, versions.map(|version| (version.to_owned(), "allow".to_owned())));

    let shown = fleet.json(&format!("rollout show {id}"));
    assert_eq!((&shown["rollout"]["canary"]["active"], &shown["rollout"]["rest"]["active"]), (&json!(1), &json!(2)));
    let node = fleet.json("node show --node-id robot-2");
    assert_eq!((&node["node"]["rollout_state"], &node["history"][6]["by"]), (&json!("active"), &json!("robot-2")));
    let listed = fleet.ok("rollout list");
    assert_eq!(listed.matches("finished").count(), 2, "{listed}");
    let log = fleet.home.ok("wal inspect --wal-dir wal-robot-1 --kind autonomy.lifecycle");
    assert_eq!(log.matches("\"bundle_activated\"").count(), 2, "{log}");
    assert_eq!(fleet.home.run("attestation replay --wal-dir wal-robot-1").status.code(), Some(0));

    // The one that was activated is the one that a restart runs.
    let [one, ..] = running;
    one.kill();
    let one = fleet.run("robot-1", "");
    assert_eq!(call(&mut one.connect()).0, "fleet/policies@1.2.0");
    let kept = fs::read_dir(fleet.home.path("rollout/robot-1")).unwrap().count();
    assert_eq!(kept, 3, "the current one, the one before, and which is which");
}

#[test]
fn a_bundle_that_does_not_work_stops_at_its_canary() {
    let fleet = Fleet::start();
    let running = NODES.map(|node| fleet.run(node, ""));
    let mut clients: Vec<_> = running.iter().map(Service::connect).collect();
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.0.0", "allow"));
    let create = |version: &str, flags: &str| {
        let bundle = format!("{}/fleet/policies:{version}", fleet.registry.address);
        let line = format!("rollout create --bundle {bundle} --allow-insecure-registry --all {flags}");
        let ran = fleet.home.run(&format!("{line} {}", fleet.operator()));
        (ran.status.code().unwrap(), String::from_utf8(ran.stderr).unwrap())
    };
    fleet.push("1.1.0", "fleet-a", POLICY);
    for (version, enrollment_ref, policy, why) in [
        (
            "2.0.0",
            "fleet-b",
            POLICY,
            "the bundle declares enrollment ref `fleet-b` and the node is enrolled with `fleet-a`",
        ),
        ("2.1.0", "fleet-a", "package autonomy\nallow if {", "policy does not compile"),
    ] {
        let digest = fleet.push(version, enrollment_ref, policy);
        let (code, error) = create(version, "--canary 1 --wait");
        if code == 2 {
            // The command does not even begin; other programs may.
            let none = "declares enrollment ref `fleet-b`, and no node of `all` is enrolled with it";
            assert!(error.contains(why) || error.contains(none), "{error}");
            let bundle = format!("{}/fleet/policies@{digest}", fleet.registry.address);
            let order = json!({"bundle": bundle, "selector": "all", "canary_percent": 1}).to_string();
            let (status, created) = fleet.ask("POST", "/v1/rollouts", "operator.token", &order);
            assert_eq!(status, 200, "{created}");
            fleet.until_phase(created["rollout_id"].as_str().unwrap(), "stopped");
        } else {
            assert!(code == 3 && error.contains("is `stopped` and not active everywhere: see `autonomy"), "{error}");
        }
        let shown = fleet.json("rollout show --failed");
        let rollout = &shown["rollout"];
        assert_eq!((&rollout["phase"], &rollout["rest"]["waiting"]), (&json!("stopped"), &json!(2)), "{shown}");
        assert_eq!(shown["directives"].as_array().unwrap().len(), 1);
        let failed = &shown["directives"][0];
        assert!(failed["detail"].as_str().unwrap().contains(why), "{failed}");
        for (node, client) in NODES.iter().zip(&mut clients) {
            let is_canary = failed["node_id"] == *node;
            let running = call(client).0;
            until(client, &running, if is_canary { "attestation: rollout_incoherent" } else { "allow" });
        }
        // Another rollout is the way out.
        assert_eq!(create("1.1.0", "--wait").0, 0);
        clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.1.0", "allow"));
    }
}

#[test]
fn a_runtime_that_is_killed_at_any_moment_goes_on_with_its_directive() {
    let fleet = Fleet::start();
    let (mut killed_under_way, mut version) = (0, 0);
    for after_ms in [0, 5, 10, 15, 20, 30, 40, 60, 90, 130, 200] {
        version += 1;
        let running = fleet.run("robot-1", "");
        let before = call(&mut running.connect()).0;
        let id = fleet.create(&format!("1.{version}.0"), "--node-id robot-1");
        thread::sleep(Duration::from_millis(after_ms));
        running.kill();
        let (_, shown) = fleet.ask("GET", &format!("/v1/rollouts/{id}"), "reader.token", "");
        let state = shown["directives"][0]["state"].as_str().unwrap().to_owned();
        killed_under_way += usize::from(state != "active");

        let running = fleet.run("robot-1", "");
        let mut client = running.connect();
        let now = call(&mut client).0;
        let new = format!("fleet/policies@1.{version}.0");
        assert!(now == before || now == new, "{now} is neither {before} nor {new}");
        assert!(state != "active" || now == new, "what was said to be active is what runs");
        until(&mut client, &new, "allow");
        fleet.until_phase(&id, "finished");
        running.kill();
    }
    println!("{killed_under_way} of {version} were killed before they had said `active`");
    assert!(killed_under_way > 0, "no runtime was killed in time");
}

/// `strace` ends it at a call on its files, once the rollout is there: the n-th of a thread, or the n-th on the index of its bundles.
#[test]
fn a_runtime_that_dies_at_any_operation_on_its_files_goes_on_with_its_directive() {
    const RENAME: &str = "rename,renameat,renameat2";
    let fleet = Fleet::start();
    let index = fleet.home.path("rollout/robot-1/current.json");
    let mut died = 0;
    let mut cases = vec![(RENAME, 1, Some(&index)), ("unlink,unlinkat", 1, None)];
    cases.extend((1..=4).flat_map(|nth| [("fsync", nth, None), (RENAME, nth, None)]));
    for (version, (calls, nth, only)) in (1..).zip(&cases) {
        let mut running = fleet.run("robot-1", "");
        let before = call(&mut running.connect()).0;
        let mut strace = fleet.home.program("strace");
        strace.args(["--quiet=all", "--follow-forks", "--output=/dev/null", &format!("--trace={calls}")]);
        strace.arg(format!("--inject={calls}:signal=KILL:when={nth}"));
        strace.args(only.iter().map(|path| format!("--trace-path={}", path.display())));
        let mut strace = strace.arg(format!("--attach={}", running.id())).spawn().unwrap();
        let is_traced = || {
            let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
            !status.contains("TracerPid:\t0")
        };
        let begun = Instant::now();
        while !is_traced() {
            assert_eq!(
                strace.try_wait().unwrap(),
                None,
                "strace may not trace it: run this as root, or set `ptrace_scope` to 0"
            );
            assert!(begun.elapsed() < PATIENCE, "it is not traced");
            thread::sleep(Duration::from_millis(5));
        }
        let id = fleet.create(&format!("1.{version}.0"), "--node-id robot-1");
        let new = format!("fleet/policies@1.{version}.0");
        let begun = Instant::now();
        let is_dead = loop {
            let (_, shown) = fleet.ask("GET", &format!("/v1/rollouts/{id}"), "reader.token", "");
            if running.is_gone() {
                println!("died at {calls} {nth} {}", shown["directives"][0]["state"]);
                break true;
            }
            if shown["rollout"]["phase"] == "finished" {
                break false;
            }
            assert!(begun.elapsed() < PATIENCE, "{shown:#}");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(is_dead || only.is_none(), "the index of its bundles is not written by {calls}");
        let _ = strace.kill();
        strace.wait().unwrap();
        match is_dead {
            true => died += 1,
            false => running.kill(),
        }

        let running = fleet.run("robot-1", "");
        let mut client = running.connect();
        let now = call(&mut client).0;
        assert!(now == before || now == new, "{calls} {nth}: {now} is neither {before} nor {new}");
        until(&mut client, &new, "allow");
        fleet.until_phase(&id, "finished");
        running.kill();
    }
    println!("{died} of {} died at an operation on a file", cases.len());
    assert!(died >= 6, "only {died} died at an operation on a file");
}

#[test]
fn a_rollout_is_paused_resumed_and_taken_back() {
    let fleet = Fleet::start();
    let running = NODES.map(|node| fleet.run(node, ""));
    let mut clients: Vec<_> = running.iter().map(Service::connect).collect();
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.0.0", "allow"));
    // Nobody follows a rollout that is paused before its nodes have seen it.
    running.iter().for_each(|service| service.signal(Signal::STOP));
    let id = fleet.create("1.1.0", "--all --canary 30");
    let paused = fleet.ok(&format!("rollout pause {id}"));
    assert_eq!(paused, format!("rollout {id} is paused: 2 waiting, 1 pending\n"));
    running.iter().for_each(|service| service.signal(Signal::CONT));
    thread::sleep(Duration::from_secs(2));
    clients.iter_mut().for_each(|client| assert_eq!(call(client).0, "fleet/policies@1.0.0"));
    assert_eq!(fleet.json("rollout show")["rollout"]["canary"]["pending"], 1);
    fleet.ok(&format!("rollout resume {id}"));
    fleet.until_phase(&id, "finished");
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.1.0", "allow"));

    let back = fleet.home.run(&format!("rollout rollback {id} {}", fleet.operator()));
    let (said, warned) = (String::from_utf8(back.stdout).unwrap(), String::from_utf8(back.stderr).unwrap());
    assert_eq!(said, format!("rollout {id} is rolled_back: 3 rolled_back\n"));
    assert!(warned.contains("are denied in `enforce` until they do: `autonomy rollout create`"), "{warned}");
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.0.0", "attestation: rollout_incoherent"));
    let id = fleet.create("1.2.0", "--selector rollout_state=rolled_back --wait");
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.2.0", "allow"));
    let refused = fleet.home.run(&format!("rollout pause {id} {}", fleet.operator()));
    assert_eq!(refused.status.code(), Some(2));
    let who: Vec<_> = fleet.json("rollout show")["rollout"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["phase"].clone())
        .collect();
    assert_eq!(who, ["running", "finished"]);

    // Nobody who runs a later bundle is denied.
    fleet.create("1.3.0", "--all --wait");
    let back = fleet.ok(&format!("rollout rollback {id}"));
    assert_eq!(back, format!("rollout {id} is rolled_back: 3 rolled_back\n"));
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.3.0", "allow"));
    // Whoever only waits in a later rollout runs the bundle no more, and that rollout goes on.
    let bad = fleet.create("1.4.0", "--all --wait");
    running.iter().for_each(|service| service.signal(Signal::STOP));
    let next = fleet.create("1.5.0", "--all --canary 30");
    fleet.ok(&format!("rollout pause {next}"));
    running.iter().for_each(|service| service.signal(Signal::CONT));
    fleet.ok(&format!("rollout rollback {bad}"));
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.3.0", "attestation: rollout_incoherent"));
    fleet.ok(&format!("rollout resume {next}"));
    clients.iter_mut().for_each(|client| until(client, "fleet/policies@1.5.0", "allow"));
    fleet.until_phase(&next, "finished");

    // Whoever waits for a rollout that another one took the nodes from is not told that all is well.
    fleet.ok("node enroll --node-id robot-9 --enrollment-ref fleet-a");
    let bundle = format!("{}/fleet/policies:1.3.0 --allow-insecure-registry", fleet.registry.address);
    let create = format!("rollout create --bundle {bundle} --node-id robot-9 {}", fleet.operator());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| fleet.home.run(&format!("{create} --wait")));
        let begun = Instant::now();
        while fleet.json("node show --node-id robot-9")["node"]["rollout_state"] != "pending" {
            assert!(begun.elapsed() < PATIENCE);
        }
        assert_eq!(fleet.home.run(&create).status.code(), Some(0));
        assert_eq!(waiting.join().unwrap().status.code(), Some(3));
    });
}

#[test]
fn whoever_waits_for_a_rollout_rides_over_an_orchestrator_that_is_away_and_does_not_wait_for_ever() {
    let mut fleet = Fleet::start();
    fleet.push("1.1.0", "fleet-a", POLICY);
    let bundle = format!("{}/fleet/policies:1.1.0 --allow-insecure-registry", fleet.registry.address);
    let create = format!("rollout create --bundle {bundle} --node-id robot-1 {}", fleet.operator());
    let waited = fleet.home.run(&format!("{create} --wait=2s"));
    let error = String::from_utf8(waited.stderr).unwrap();
    assert_eq!(waited.status.code(), Some(3), "{error}");
    let line = "is not done within 2s, and goes on: 1 pending; see `autonomy rollout show ";
    assert!(error.contains(line) && !error.trim_end().contains('\n'), "{error}");

    let (address, begun) = (fleet.orchestrator.address.clone(), Instant::now());
    let is_there = |fleet: &Fleet| fleet.json("rollout list")["rollouts"].as_array().unwrap().len() == 2;
    let list = format!("rollout list {} --output json", fleet.operator());
    let home = &fleet.home;
    thread::scope(|scope| {
        let waits = scope.spawn(|| home.run(&format!("{create} --wait")));
        while home.ok(&list).matches("\"selector\"").count() < 2 {
            assert!(begun.elapsed() < PATIENCE);
        }
        fleet.orchestrator.signal(Signal::KILL);
        thread::sleep(Duration::from_secs(2));
        let serve = format!("orchestrator serve --store fleet.sqlite --signing-key lease.pem --listen {address}");
        fleet.orchestrator = Service::start(home, &serve);
        let token = fs::read_to_string(home.path("operator.token")).unwrap();
        let authorization = format!("authorization: Bearer {}\r\n", token.trim_end());
        let mut connection = fleet.orchestrator.connect();
        let (_, current) = connection.exchange("GET", "/v1/directives/robot-1", &authorization, "").unwrap();
        for state in ["acknowledged", "active"] {
            let report = json!({"rollout_id": current["directive"]["rollout_id"], "state": state}).to_string();
            let (status, answer) =
                connection.exchange("PUT", "/v1/directives/robot-1", &authorization, &report).unwrap();
            assert_eq!(status, 200, "{answer}");
        }
        let waited = waits.join().unwrap();
        let error = String::from_utf8(waited.stderr).unwrap();
        assert_eq!(waited.status.code(), Some(0), "{error}");
        assert!(error.contains("asking again: cannot ask the orchestrator at `"), "{error}");
    });
    assert!(is_there(&fleet));

    // What is asked for in vain is said before anything is done.
    let id = fleet.json("rollout list")["rollouts"][0]["rollout_id"].as_str().unwrap().to_owned();
    let nodes: String = (0..3000).map(|n| format!(" --node-id robot-of-the-third-hall-{n}")).collect();
    for (line, message) in [
        ("rollout rollback".to_owned(), format!("say which rollout is taken back: the latest are `{id}` (finished, ")),
        (
            format!("rollout create --bundle {bundle} --node-id robot-1{nodes}"),
            " bytes and an orchestrator takes 65536: name fewer nodes, or choose them with `--selector`".to_owned(),
        ),
    ] {
        let refused = fleet.home.run(&format!("{line} {}", fleet.operator()));
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && error.contains(&message), "{error}");
    }
    assert!(is_there(&fleet));
}

#[test]
fn the_store_refuses_over_http_what_it_refuses() {
    let fleet = Fleet::start();
    let pinned = format!("registry.example/fleet/policies@sha256:{}", "0".repeat(64));
    let order = |selector: &str, bundle: &str| json!({"bundle": bundle, "selector": selector}).to_string();
    let (status, created) = fleet.ask("POST", "/v1/rollouts", "operator.token", &order("all", &pinned));
    assert_eq!((status, &created["phase"]), (200, &json!("running")), "{created}");
    let id = created["rollout_id"].as_str().unwrap();
    let report = |state: &str| json!({"rollout_id": id, "state": state}).to_string();
    let other = "0196a3b2-7c1d-7e4f-8a9b-0c1d2e3f4a5b";
    let (mine, rollouts, rollout) = ("/v1/directives/robot-1", "/v1/rollouts", format!("/v1/rollouts/{id}"));
    let of_other = json!({"rollout_id": other, "state": "active"}).to_string();
    let cases = [
        // Who may do what.
        ("GET", mine, "robot-1", String::new(), 200, "\"state\":\"pending\""),
        ("GET", mine, "reader", String::new(), 200, "\"state\":\"pending\""),
        ("GET", &format!("{mine}/{id}"), "robot-1", String::new(), 200, "\"state\":\"pending\""),
        ("GET", &format!("{mine}/{id}"), "robot-2", String::new(), 403, "may not read about node `robot-1`"),
        ("GET", &format!("{mine}/{other}"), "robot-1", String::new(), 200, "\"directive\":null"),
        ("GET", &format!("{mine}/x"), "robot-1", String::new(), 400, "rollout id `x` is no UUID"),
        ("GET", mine, "robot-2", String::new(), 403, "may not read about node `robot-1`"),
        (
            "PUT",
            mine,
            "robot-2",
            report("acknowledged"),
            403,
            "may not report for node `robot-1`: use one of that node",
        ),
        ("PUT", mine, "reader", report("acknowledged"), 403, "may not report for node `robot-1`"),
        ("POST", rollouts, "robot-1", order("all", &pinned), 403, "may not change enrollments"),
        ("POST", rollouts, "reader", order("all", &pinned), 403, "may not change enrollments"),
        ("GET", rollouts, "robot-1", String::new(), 403, "may not read about all nodes"),
        ("GET", &rollout, "robot-1", String::new(), 403, "may not read about all nodes"),
        ("POST", &format!("{rollout}/rollback"), "robot-1", String::new(), 403, "may not change enrollments"),
        // What follows from what.
        ("PUT", mine, "robot-1", report("active"), 409, "is `pending` and cannot become `active`: ask for it again"),
        ("PUT", mine, "robot-1", report("acknowledged"), 200, "\"state\":\"acknowledged\""),
        ("PUT", mine, "robot-1", report("acknowledged"), 200, "\"state\":\"acknowledged\""),
        ("PUT", mine, "robot-1", report("active"), 200, "\"state\":\"active\""),
        ("PUT", mine, "robot-1", report("failed"), 409, "is `active` and cannot become `failed`"),
        ("PUT", mine, "robot-1", report("rolled_back"), 400, "a node cannot report `rolled_back`"),
        ("PUT", mine, "robot-1", report("lost"), 400, "a node cannot report `lost`"),
        ("PUT", mine, "robot-1", of_other, 409, "not of `0196a3b2-7c1d-7e4f-8a9b-0c1d2e3f4a5b`"),
        ("PUT", "/v1/directives/nobody", "operator", report("active"), 404, "node `nobody` has no directive"),
        ("POST", &format!("{rollout}/resume"), "operator", String::new(), 200, "\"running\""),
        ("POST", &format!("{rollout}/pause"), "operator", "{}".to_owned(), 400, "a pause takes no body"),
        ("POST", &format!("{rollout}/stop"), "operator", String::new(), 404, "use `pause`, `resume` or `rollback`"),
        ("POST", &format!("{rollout}/rollback"), "operator", String::new(), 200, "\"rolled_back\":3"),
        (
            "POST",
            &format!("{rollout}/pause"),
            "operator",
            String::new(),
            409,
            "is `rolled_back`, so `pause` is refused",
        ),
        // What is malformed, or not there.
        ("GET", "/v1/rollouts/x", "reader", String::new(), 400, "rollout id `x` is no UUID"),
        ("GET", &format!("/v1/rollouts/{other}"), "reader", String::new(), 404, "there is no rollout"),
        ("GET", "/v1/rollouts?limit=51", "reader", String::new(), 400, "limit `51` is out of range: use 1 to 50"),
        ("POST", rollouts, "operator", order("all", "registry.example/p:1"), 400, "is not pinned by a digest"),
        ("POST", rollouts, "operator", order("label=a", &pinned), 400, "it selects by nothing that nodes have"),
        ("POST", rollouts, "operator", order("node_id=nobody", &pinned), 404, "node `nobody` is not enrolled"),
        ("POST", rollouts, "operator", order("enrollment_ref=x", &pinned), 409, "no active node is selected"),
        ("POST", rollouts, "operator", "{}".to_owned(), 400, "the body is not what this takes"),
    ];
    for (method, path, token, body, status, message) in cases {
        let (found, answer) = fleet.ask(method, path, &format!("{token}.token"), &body);
        assert!(found == status && answer.to_string().contains(message), "{method} {path} {body}: {found} {answer}");
    }
    let (_, changes) = fleet.ask("GET", "/v1/changes?after=0&node_id=robot-1", "robot-1.token", "");
    let states: Vec<_> =
        changes["changes"].as_array().unwrap().iter().map(|c| c["change"]["after"]["rollout_state"].clone()).collect();
    assert_eq!(states, ["<none>", "pending", "acknowledged", "active", "rolled_back"], "the change feed has each step");
}

/// Nobody asks for anything again: neither the operator nor a node.
#[test]
fn an_orchestrator_that_is_killed_while_it_takes_a_rollout_back_goes_on_when_it_is_started_again() {
    const MANY: u64 = 20_000;
    let mut fleet = Fleet::start();
    let store = SqliteStore::open(fleet.home.path("fleet.sqlite")).unwrap();
    let many = format!(
        "WITH RECURSIVE nth (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM nth WHERE n < {MANY})
         INSERT INTO enrollment SELECT 'many-' || n, 'many', 'active', '<none>', 1, 1, 1 FROM nth"
    );
    rusqlite::Connection::open(fleet.home.path("fleet.sqlite")).unwrap().execute_batch(&many).unwrap();
    let order = json!({
        "bundle": format!("registry.example/fleet/policies@sha256:{}", "0".repeat(64)),
        "selector": "enrollment_ref=many",
    });
    let (status, created) = fleet.ask("POST", "/v1/rollouts", "operator.token", &order.to_string());
    assert_eq!((status, &created["rest"]["pending"]), (200, &json!(MANY)), "{created}");
    let id = created["rollout_id"].as_str().unwrap();
    let taken_back = || store.rollouts().rollout(&RolloutId::parse(id).unwrap()).unwrap().rest.rolled_back;
    thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let token = fs::read_to_string(fleet.home.path("operator.token")).unwrap();
            let authorization = format!("authorization: Bearer {}\r\n", token.trim_end());
            let path = format!("/v1/rollouts/{id}/rollback");
            fleet.orchestrator.connect().exchange("POST", &path, &authorization, "")
        });
        let end = Instant::now() + PATIENCE;
        while taken_back() == 0 {
            assert!(Instant::now() < end, "nobody is taken back");
            thread::sleep(Duration::from_millis(1));
        }
        fleet.orchestrator.signal(Signal::KILL);
        assert!(asked.join().unwrap().is_err(), "it was killed before it answered");
    });
    let left = MANY - taken_back();
    assert!(left > 0, "it was killed in between");
    let serve = "orchestrator serve --store fleet.sqlite --signing-key lease.pem --listen 127.0.0.1:0";
    fleet.orchestrator = Service::start(&fleet.home, serve);
    fleet.until(id, |shown| shown["rollout"]["rest"]["rolled_back"] == MANY);
    println!("{left} of {MANY} nodes were left to be taken back");
}
