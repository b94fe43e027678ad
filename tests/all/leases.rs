//! Leases: what counts as one, however it comes, and who lives by it.

use serde_json::{Value, json};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    contract::Contract,
    nginx::Nginx,
    orchestrator::{authorization, call, fleet, orchestrator, put, until},
    service::{Connection, PATIENCE, Service},
    support::free_address,
};

#[test]
fn a_lease_counts_however_it_comes_and_each_forgery_has_its_own_reason() {
    let home = fleet();
    let service = orchestrator(&home, "--listen 127.0.0.1:0 --lease-ttl-ms 6000");
    let operator = authorization(&home, "operator.token");
    let put = |path: &str, body| put(&service, &operator, path, body);
    put("robot-7", json!({"enrollment_ref": "fleet-a"}));
    put("robot-8", json!({"enrollment_ref": "fleet-a"}));
    // Its members are in the order of their names, and so are those of a JSON value: these are the very bytes.
    let lease = |node: &str| {
        let mut connection = service.connect();
        connection.exchange("GET", &format!("/v1/leases/{node}"), &operator, "").unwrap().1.to_string()
    };
    let nginx = Nginx::start(&home, &service.address);
    let published = home.path("nginx/www/v1/leases");
    fs::create_dir_all(&published).unwrap();
    let publish = |lease: String| {
        fs::write(published.join("new"), lease).unwrap();
        fs::rename(published.join("new"), published.join("robot-7")).unwrap();
    };

    let old = lease("robot-7");
    for (engine, state) in [("native", "pending"), ("wasm", "active")] {
        let runtime = Service::start(
            &home,
            &format!(
                "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id robot-7 --engine {engine} \
                 --wal-dir wal-{engine} --lease-key lease.pem.pub --orchestrator-url http://{}",
                nginx.files
            ),
        );
        // Compiling the module may take longer than a lease counts.
        publish(lease("robot-7"));
        let mut runtime = runtime.connect();
        until(&mut runtime, "allow");
        put("robot-7/rollout", json!({"rollout_state": state}));
        publish(lease("robot-7"));
        // The log has it, so the gate has it: an older one is a replay from here on.
        let (renewed, end) = (format!("\"rollout_state\":\"{state}\""), Instant::now() + PATIENCE);
        while !home.ok(&format!("wal inspect --wal-dir wal-{engine}")).contains(&renewed) {
            assert!(Instant::now() < end, "the renewed lease does not come");
            call(&mut runtime);
        }
        for (what, forged) in [
            ("already seen", old.clone()),
            ("lease is for node `robot-8`, this node is `robot-7`", lease("robot-8")),
            (
                "does not hold: the payload or the signature was changed",
                lease("robot-7").replacen("\"payload\":\"eyJ", "\"payload\":\"fyJ", 1),
            ),
            ("envelope is not DSSE JSON", "<html>hello</html>".to_owned()),
        ] {
            publish(forged);
            until(&mut runtime, "attestation: enrollment_untrusted");
            let log = home.ok(&format!("wal inspect --wal-dir wal-{engine}"));
            assert!(log.contains(what), "{what}: {log}");
            publish(lease("robot-7"));
            until(&mut runtime, "allow");
        }
    }
}

#[test]
fn the_command_judges_a_node_by_its_lease_as_the_gate_does_and_asks_nobody() {
    let home = fleet();
    let service = orchestrator(&home, "--listen 127.0.0.1:0 --lease-ttl-ms 60000");
    let operator = authorization(&home, "operator.token");
    put(&service, &operator, "robot-7", json!({"enrollment_ref": "fleet-a"}));
    let lease = |name: &str| {
        let mut connection = service.connect();
        let (status, lease) = connection.exchange("GET", "/v1/leases/robot-7", &operator, "").unwrap();
        assert_eq!(status, 200);
        fs::write(home.path(name), lease.to_string()).unwrap();
    };
    lease("active.lease");
    let (status, _) = service.connect().exchange("POST", "/v1/enrollments/robot-7/revoke", &operator, "").unwrap();
    assert_eq!(status, 200);
    lease("revoked.lease");
    let active = fs::read_to_string(home.path("active.lease")).unwrap();
    fs::write(home.path("changed.lease"), active.replacen("\"payload\":\"eyJ", "\"payload\":\"fyJ", 1)).unwrap();
    fs::write(home.path("large.lease"), vec![b' '; 3 << 20]).unwrap();
    drop(service);
    let untrusted = "attestation: enrollment_untrusted";
    for engine in ["native", "wasm"] {
        for (lease, node, code, said) in [
            ("active.lease", "robot-7", 0, "\"effect\":\"allow\""),
            ("revoked.lease", "robot-7", 1, "attestation: enrollment_revoked"),
            ("active.lease", "robot-8", 1, untrusted),
            ("active.lease", "robot-8", 1, "lease is for node `robot-7`, this node is `robot-8`"),
            ("changed.lease", "robot-7", 1, untrusted),
            ("large.lease", "robot-7", 1, "it is too large to be one"),
            ("bundle.tar", "robot-7", 1, "envelope is not DSSE JSON"),
        ] {
            let line = format!(
                "attestation eval --bundle bundle.tar --node-id {node} --lease {lease} --lease-key lease.pem.pub \
                 --engine {engine} --output json"
            );
            let judged = home.run(&line);
            let printed = String::from_utf8(judged.stdout).unwrap();
            assert!(printed.contains(said), "{line}: {printed}");
            assert_eq!(judged.status.code(), Some(code), "{line}: {printed}");
        }
    }
    for (line, code, message) in [
        ("--lease none.lease --lease-key lease.pem.pub", 3, "cannot read the lease `none.lease`"),
        ("--lease active.lease", 2, "no lease keys are trusted"),
        ("--lease active.lease --store fleet.sqlite", 2, "--store"),
    ] {
        let refused = home.run(&format!("attestation eval --bundle bundle.tar --node-id robot-7 {line}"));
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains(message) && error.lines().count() == 1, "{line}: {error}");
        assert_eq!(refused.status.code(), Some(code), "{line}: {error}");
    }
}

#[test]
fn a_revoke_comes_through_a_cache_that_answers_again_what_it_keeps() {
    let home = fleet();
    let service = orchestrator(&home, "--listen 127.0.0.1:0 --lease-ttl-ms 8000");
    let nginx = Nginx::start(&home, &service.address);
    let operator = format!("--orchestrator-url http://{} --orchestrator-token-file operator.token", nginx.cache);
    home.ok(&format!("node enroll --node-id robot-7 --enrollment-ref fleet-a {operator}"));
    let runtime = Service::start(
        &home,
        &format!(
            "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id robot-7 \
             --lease-key lease.pem.pub --orchestrator-url http://{} --orchestrator-token-file robot-7.token",
            nginx.cache
        ),
    );
    let mut client = runtime.connect();
    until(&mut client, "allow");
    // Answered again to who has the same token, and to nobody else.
    // Over a connection each: nginx ends one after a thousand requests.
    let ask = |token: &str| {
        let mut cache = Contract::Orchestrator.over(Connection::open(&nginx.cache).unwrap());
        cache.exchange("GET", "/v1/leases/robot-7", &authorization(&home, token), "").unwrap()
    };
    let (begun, lease) = (Instant::now(), ask("robot-7.token"));
    assert_eq!(lease.0, 200);
    while !fs::read_to_string(home.path("nginx/access.log")).unwrap().contains("HIT /v1/leases/robot-7") {
        assert!(begun.elapsed() < PATIENCE, "nothing is kept");
        ask("robot-7.token");
    }
    assert_eq!(ask("robot-8.token").0, 403);
    home.ok(&format!("node revoke --node-id robot-7 {operator}"));
    println!("a revoke came through the cache after {:?}", until(&mut client, "attestation: enrollment_revoked"));
}

#[test]
fn the_signing_key_is_changed_without_a_denied_call_and_the_old_one_counts_for_nothing_afterwards() {
    for engine in ["native", "wasm"] {
        change_the_signing_key(engine);
    }
}

fn change_the_signing_key(engine: &str) {
    let home = fleet();
    home.ok("key generate --out next.pem");
    let address = free_address();
    let serve = |key: &str| {
        let line = format!("orchestrator serve --store fleet.sqlite --signing-key {key} --listen {address}");
        Service::start(&home, &line)
    };
    let start = |keys: &str| {
        let line = format!(
            "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id robot-7 {keys} \
             --engine {engine} --orchestrator-url http://{address} --orchestrator-token-file robot-7.token"
        );
        Service::start(&home, &line)
    };
    let operator = format!("--orchestrator-url http://{address} --orchestrator-token-file operator.token");
    let old = serve("lease.pem");
    home.ok(&format!("node enroll --node-id robot-7 --enrollment-ref fleet-a {operator}"));
    // Once what has changed is in the log, the gate has a lease of whoever signs now.
    let set_rollout = |state: &str, runtime: &mut Connection| {
        home.ok(&format!("rollout set --node-id robot-7 --state {state} {operator}"));
        let (renewed, end) = (format!("\"rollout_state\":\"{state}\""), Instant::now() + PATIENCE);
        while !home.ok("wal inspect").contains(&renewed) {
            assert!(Instant::now() < end, "the renewed lease does not come");
            assert_eq!(call(runtime), "allow");
        }
    };

    let runtime = start("--lease-key lease.pem.pub --lease-key next.pem.pub");
    let mut client = runtime.connect();
    set_rollout("pending", &mut client);
    old.kill();
    assert_eq!(call(&mut client), "allow");
    let new = serve("next.pem");
    set_rollout("active", &mut client);
    runtime.kill();

    let runtime = start("--lease-key next.pem.pub");
    let mut client = runtime.connect();
    until(&mut client, "allow");
    new.kill();
    let _old = serve("lease.pem");
    home.ok(&format!("rollout set --node-id robot-7 --state pending {operator}"));
    until(&mut client, "attestation: enrollment_untrusted");
}

#[test]
fn a_native_host_answers_from_leases_and_no_longer_than_they_count() {
    let home = fleet();
    let address = free_address();
    let serve = format!("--listen {address} --lease-ttl-ms 3000");
    let running = orchestrator(&home, &serve);
    home.ok("host token");
    let operator = format!("--orchestrator-url http://{address} --orchestrator-token-file operator.token");
    home.ok(&format!("node enroll --node-id robot-7 --enrollment-ref fleet-a {operator}"));
    let host = Service::start(&home, &format!("host serve --listen 127.0.0.1:0 --lease-key lease.pem.pub {operator}"));
    let token = authorization(&home, "host.token");
    let until = |node: &str, wanted: &dyn Fn(u16, &Value) -> bool| {
        let begun = Instant::now();
        loop {
            let (status, answer) =
                host.connect().exchange("GET", &format!("/v1/enrollments/{node}"), &token, "").unwrap();
            if wanted(status, &answer) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{status} {answer}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    let is =
        |word: &'static str| move |status: u16, answer: &Value| status == 200 && answer["enrollment"]["status"] == word;
    until("robot-7", &is("active"));
    until("robot-9", &|status, answer| status == 200 && answer["answer"] == "not_enrolled");
    home.ok(&format!("node revoke --node-id robot-7 {operator}"));
    until("robot-7", &is("revoked"));
    running.kill();
    until("robot-7", &|status, answer| {
        status == 503 && answer["error"].as_str().unwrap().contains("the lease counts from")
    });
    let _running = orchestrator(&home, &serve);
    until("robot-7", &is("revoked"));
}

#[test]
fn a_runtime_that_starts_while_nobody_answers_has_the_lease_that_it_held_last_until_that_expires() {
    let home = fleet();
    let running = orchestrator(&home, "--listen 127.0.0.1:0 --lease-ttl-ms 10000");
    let url = format!("--orchestrator-url http://{}", running.address);
    home.ok(&format!(
        "node enroll --node-id robot-7 --enrollment-ref fleet-a {url} --orchestrator-token-file operator.token"
    ));
    let start = || {
        Service::start(
            &home,
            &format!(
                "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id robot-7 \
                 --lease-key lease.pem.pub {url} --orchestrator-token-file robot-7.token"
            ),
        )
    };
    let runtime = start();
    until(&mut runtime.connect(), "allow");
    running.kill();
    runtime.kill();
    let runtime = start();
    assert_eq!(call(&mut runtime.connect()), "allow");
    until(&mut runtime.connect(), "attestation: enrollment_stale");
    runtime.kill();
    assert_eq!(
        call(&mut start().connect()),
        "attestation: enrollment_unavailable",
        "what counts no more is not taken up"
    );
}

#[test]
fn a_runtime_asks_for_its_lease_and_its_changes_over_one_connection() {
    let home = fleet();
    let running = orchestrator(&home, "--listen 127.0.0.1:0 --lease-ttl-ms 1000");
    let url = format!("--orchestrator-url http://{}", running.address);
    home.ok(&format!(
        "node enroll --node-id robot-7 --enrollment-ref fleet-a {url} --orchestrator-token-file operator.token"
    ));
    let runtime = Service::start(
        &home,
        &format!(
            "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id robot-7 \
             --lease-key lease.pem.pub {url} --orchestrator-token-file robot-7.token"
        ),
    );
    until(&mut runtime.connect(), "allow");
    let mut connection = running.connect();
    let begun = Instant::now();
    while connection.counted(r#"autonomy_requests_total{route="/v1/leases/{node_id}""#) < 20 {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(50));
    }
    // The command's, this one, the runtime's, and some that tell it of its directive.
    let connections = connection.counted("autonomy_connections_total");
    assert!(connections < 10, "{connections}");
}
