//! A fleet: a real orchestrator, real runtimes and the real command, over loopback and over TLS.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant},
};

use crate::{
    service::{Connection, PATIENCE, Service},
    support::{Home, free_address, open_as_many_files_as_may_be, succeeded},
};

const ECHO: &str = r#"{"kind":"tool.echo","params":{"text":"hello"}}"#;

/// A home with a bundle for `fleet-a`, a key that signs leases, and a token for each role.
pub(crate) fn fleet() -> Home {
    let home = Home::ready();
    home.ok("key generate --out lease.pem");
    for role in ["operator", "reader"] {
        home.ok(&format!("orchestrator token --role {role} --name {role} --out {role}.token"));
    }
    for node in ["robot-7", "robot-8"] {
        home.ok(&format!("orchestrator token --role node --node-id {node} --out {node}.token"));
    }
    home
}

/// An orchestrator over a store of its own.
pub(crate) fn orchestrator(home: &Home, flags: &str) -> Service {
    Service::start(home, &format!("orchestrator serve --store fleet.sqlite --signing-key lease.pem {flags}"))
}

pub(crate) fn authorization(home: &Home, token: &str) -> String {
    format!("authorization: Bearer {}\r\n", fs::read_to_string(home.path(token)).unwrap().trim_end())
}

/// Changes what is known of a node.
pub(crate) fn put(orchestrator: &Service, operator: &str, path: &str, body: Value) {
    let path = format!("/v1/enrollments/{path}");
    assert_eq!(orchestrator.connect().exchange("PUT", &path, operator, &body.to_string()).unwrap().0, 200);
}

/// What the runtime answers to a call: `allow`, or the reason.
pub(crate) fn call(runtime: &mut Connection) -> String {
    let (status, answer) = runtime.exchange("POST", "/v1/tool", "", ECHO).unwrap();
    match status {
        200 => "allow".to_owned(),
        _ => answer["reason"].as_str().unwrap().to_owned(),
    }
}

/// How long it takes until calls are answered so.
pub(crate) fn until(runtime: &mut Connection, wanted: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let answer = call(runtime);
        if answer == wanted {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "`{answer}` and never `{wanted}`");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A private CA, a certificate of `127.0.0.1` and one of a client: PEM files in the home.
pub(crate) fn certificates(home: &Home) {
    let write = |name: &str, text: String| {
        fs::write(home.path(name), text).unwrap();
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Another name than those that it signs have: OpenSSL would take them for their own issuers.
    params.distinguished_name.push(DnType::CommonName, "fleet ca");
    write("ca.pem", params.self_signed(&ca_key).unwrap().pem());
    let ca = Issuer::new(params, ca_key);
    for (name, host) in [("server", "127.0.0.1"), ("client", "robot-7")] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        write(&format!("{name}.pem"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// The limit that a shell begins with is a soft one.
#[test]
fn an_orchestrator_takes_as_many_files_as_it_may_have() {
    open_as_many_files_as_may_be();
    let home = fleet();
    let line = "orchestrator serve --listen 127.0.0.1:0 --store fleet.sqlite --signing-key lease.pem";
    // Of 1,600 files it keeps 1,024 for itself.
    for (limit, connections) in [("-S -n 64", 200), ("-n 1600", 560)] {
        let running = Service::start_with_limit(&home, limit, line);
        let mut clients: Vec<_> = (0..connections).map(|_| running.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.exchange("GET", "/healthz", "", "").unwrap().0, 200, "{limit}");
        }
    }
}

/// They are more than the service has threads that wait for the store.
#[test]
fn reading_goes_on_however_many_wait_for_who_holds_the_file_and_none_waits_for_the_others_as_well() {
    const WAITING: usize = 600;
    open_as_many_files_as_may_be();
    let home = fleet();
    let running = orchestrator(&home, "--listen 127.0.0.1:0");
    let operator = authorization(&home, "operator.token");
    put(&running, &operator, "robot-7", json!({"enrollment_ref": "fleet-a"}));
    let holder = rusqlite::Connection::open(home.path("fleet.sqlite")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let (running, operator) = (&running, &operator);
        let change = move |at: usize| {
            let (mut client, begun) = (running.connect(), Instant::now());
            let path = format!("/v1/enrollments/robot-{}", 100 + at);
            let (status, _) = client.exchange("PUT", &path, operator, r#"{"enrollment_ref":"fleet-a"}"#).unwrap();
            (status, begun.elapsed())
        };
        let waiting: Vec<_> = (0..WAITING).map(|at| scope.spawn(move || change(at))).collect();
        let mut client = running.connect();
        while !waiting.iter().all(|waits| waits.is_finished()) {
            for path in ["/v1/leases/robot-7", "/v1/enrollments"] {
                let begun = Instant::now();
                let (status, answer) = client.exchange("GET", path, operator, "").unwrap();
                assert_eq!(status, 200, "{path}: {answer}");
                assert!(begun.elapsed() < Duration::from_secs(4), "{path} took {:?}", begun.elapsed());
            }
            thread::sleep(Duration::from_millis(20));
        }
        for waits in waiting {
            let (status, took) = waits.join().unwrap();
            // Three seconds for a turn, and five for the file; and the machine is busy.
            assert!(status == 503 && took < Duration::from_secs(25), "{status} after {took:?}");
        }
    });
    holder.execute_batch("ROLLBACK").unwrap();
    put(&running, &operator, "robot-8", json!({"enrollment_ref": "fleet-a"}));
}

/// A fleet whose network was away comes again, all of it, while its old connections wait for changes.
#[test]
fn who_is_gone_leaves_the_place_of_a_read_at_once_and_a_change_is_made_and_counted() {
    let home = fleet();
    let running = orchestrator(&home, "--listen 127.0.0.1:0");
    let operator = authorization(&home, "operator.token");
    let mut scraper = running.connect();
    let mut until = |what: &str, wanted: u64, within: Duration| {
        let begun = Instant::now();
        while scraper.counted(what) != wanted {
            assert!(begun.elapsed() < within, "{what} is {} and not {wanted}", scraper.counted(what));
            thread::sleep(Duration::from_millis(20));
        }
    };
    let send = |request: &str, body: &str| {
        let mut client = TcpStream::connect(&running.address).unwrap();
        let length = body.len();
        write!(client, "{request} HTTP/1.1\r\nhost: t\r\n{operator}content-length: {length}\r\n\r\n{body}").unwrap();
        client
    };
    let open = "autonomy_connections_open ";
    let clients: Vec<_> = (0..50).map(|_| send("GET /v1/changes?after=0&wait_ms=30000", "")).collect();
    until(open, 51, PATIENCE);
    // Their requests are there, too.
    thread::sleep(Duration::from_millis(200));
    drop(clients);
    until(open, 1, Duration::from_secs(20));

    let holder = rusqlite::Connection::open(home.path("fleet.sqlite")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let client = send("PUT /v1/enrollments/robot-7", r#"{"enrollment_ref":"fleet-a"}"#);
    until(open, 2, PATIENCE);
    thread::sleep(Duration::from_millis(200));
    drop(client);
    until(open, 1, PATIENCE);
    holder.execute_batch("ROLLBACK").unwrap();
    // On a busy machine, that it was not made in time.
    until(r#"autonomy_requests_total{route="/v1/enrollments/{node_id}""#, 1, PATIENCE);
}

#[test]
fn a_fleet_over_tls_is_enrolled_and_revoked_and_outlives_its_orchestrator_until_its_leases_expire() {
    let home = fleet();
    certificates(&home);
    let address = free_address();
    let serve = format!(
        "--listen {address} --lease-ttl-ms 6000 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem"
    );
    let running = orchestrator(&home, &serve);
    assert!(Connection::open(&address).unwrap().exchange("GET", "/healthz", "", "").is_err(), "nothing without tls");
    let tls = format!(
        "--orchestrator-url https://{address} --orchestrator-ca ca.pem \
         --orchestrator-client-cert client.pem --orchestrator-client-key client.key"
    );
    let operator = format!("{tls} --orchestrator-token-file operator.token");
    let start = |node: &str| {
        Service::start(
            &home,
            &format!(
                "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id {node} --wal-dir wal-{node} \
                 --lease-key lease.pem.pub {tls} --orchestrator-token-file {node}.token"
            ),
        )
    };
    let (seven, eight) = (start("robot-7"), start("robot-8"));
    let (mut seven, mut eight) = (seven.connect(), eight.connect());
    assert_eq!(call(&mut seven), "attestation: not_enrolled", "the local store, where it is, is not asked");

    let enrolled = home.ok(&format!("node enroll --node-id robot-7 --enrollment-ref fleet-a {operator}"));
    assert_eq!(enrolled, "enrolled node `robot-7` with ref `fleet-a` (serial 1)\n");
    home.ok(&format!("node enroll --node-id robot-8 --enrollment-ref fleet-a {operator}"));
    until(&mut seven, "allow");
    until(&mut eight, "allow");
    home.ok(&format!("attestation eval --all-nodes --bundle bundle.tar {operator}"));

    let mut fastest = Duration::MAX;
    for round in 1..4 {
        home.ok(&format!("node revoke --node-id robot-7 {operator}"));
        let took = until(&mut seven, "attestation: enrollment_revoked");
        println!("the first denied call came {took:?} after the command");
        fastest = fastest.min(took);
        assert_eq!(call(&mut eight), "allow");
        let again = home.ok(&format!("node enroll --node-id robot-7 --enrollment-ref fleet-a {operator}"));
        assert_eq!(again, format!("enrolled node `robot-7` again, with ref `fleet-a` (serial {})\n", 2 * round + 1));
        until(&mut seven, "allow");
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}: what a machine does meanwhile, it does not three times");

    running.kill();
    let began = Instant::now();
    let mut allowed = Duration::ZERO;
    assert_eq!(call(&mut seven), "allow", "a lease outlives who signed it");
    loop {
        let asked = began.elapsed();
        match &*call(&mut seven) {
            "allow" => allowed = asked,
            "attestation: enrollment_stale" => break,
            other => panic!("`{other}` after {asked:?}"),
        }
        assert!(asked < PATIENCE);
        thread::sleep(Duration::from_millis(2));
    }
    println!("without an orchestrator, the last call that a lease of 6 s allowed came after {allowed:?}");
    assert!(allowed <= Duration::from_secs(6), "{allowed:?}: nobody who was cut off may go on for longer");
    until(&mut eight, "attestation: enrollment_stale");
    let gone = home.run(&format!("node list {operator}"));
    assert_eq!(gone.status.code(), Some(3));
    let eval = home.run(&format!("attestation eval --bundle bundle.tar --node-id robot-7 {operator}"));
    assert_eq!(eval.status.code(), Some(3), "{eval:?}");

    let _running = orchestrator(&home, &serve);
    until(&mut seven, "allow");
    until(&mut eight, "allow");
    for (flags, what) in [
        (operator.replace("ca.pem", "client.pem"), "tls handshake"),
        (
            operator.replace("--orchestrator-client-cert client.pem --orchestrator-client-key client.key", ""),
            "cannot ask",
        ),
        (operator.replace("operator.token", "ca.pem"), "is not 32 to 512 printable characters"),
        (format!("{tls} --orchestrator-token-file reader.token --by ana"), "`--by` is for a local store"),
        (format!("{tls} --orchestrator-token-file reader.token"), "token `reader` (reader) may not change enrollments"),
        (tls.clone(), "does not take the token"),
    ] {
        let refused = home.run(&format!("node revoke --node-id robot-7 {flags}"));
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains(what) && error.lines().count() == 1, "{flags}: {error}");
    }
    assert_eq!(call(&mut seven), "allow");
}

#[test]
fn the_command_prints_the_same_of_an_orchestrator_as_of_a_file() {
    let home = fleet();
    let service = orchestrator(&home, "--listen 127.0.0.1:0");
    let remote = format!("--orchestrator-url http://{} --orchestrator-token-file operator.token", service.address);
    let lines = [
        "node enroll --node-id robot-7 --enrollment-ref fleet-a",
        "node enroll --node-id robot-7 --enrollment-ref fleet-a",
        "node enroll --node-id robot-7 --enrollment-ref fleet-b",
        "node enroll --node-id robot-7 --enrollment-ref fleet-b --replace",
        "node enroll --node-id Robot-7 --enrollment-ref fleet-b",
        "node enroll --node-id robot-8 --enrollment-ref fleet-a",
        "rollout set --node-id robot-8 --state pending",
        "node revoke --node-id robot-8",
        "node revoke --node-id robot-8",
        "node revoke --node-id robot-9",
        "node list --limit 1",
        "node list --status revoked",
        "node show --node-id robot-7",
        "node show --node-id robot-9",
        "attestation status --node-id robot-7",
        "attestation status --node-id robot-9",
        "attestation eval --all-nodes --bundle bundle.tar",
        "attestation eval --node-id robot-9 --bundle bundle.tar",
    ];
    for line in lines {
        let run = |flags: &str| {
            let ran = home.run(&format!("{line} {flags}"));
            let text = |bytes| -> Vec<String> {
                // Times and who did it differ.
                let is_time = |word: &str| word.bytes().filter(u8::is_ascii_digit).count() >= 13;
                let plain = |word: &&str| !is_time(word) && !["ago)", "operator", "ana"].contains(word);
                let said = String::from_utf8(bytes).unwrap();
                let lines = said.lines().filter(|line| !line.starts_with("note: made a new store"));
                let words = lines.flat_map(str::split_whitespace).filter(plain);
                words.filter(|word| !word.starts_with('(') && *word != "s").map(str::to_owned).collect()
            };
            (ran.status.code(), text(ran.stdout), text(ran.stderr))
        };
        let changes = ["node enroll", "node revoke", "rollout set"].iter().any(|words| line.starts_with(words));
        let by = if changes { "--by ana" } else { "" };
        assert_eq!(run(&remote), run(&format!("--store local.sqlite {by}")), "{line}");
    }
    let shown: Value =
        serde_json::from_str(&home.ok(&format!("node show --node-id robot-8 --output json {remote}"))).unwrap();
    assert!(shown["history"].as_array().unwrap().iter().all(|entry| entry["by"] == "operator"), "{shown}");
}

#[test]
fn each_role_may_do_on_each_route_what_it_may() {
    let home = fleet();
    let service = orchestrator(&home, "--listen 127.0.0.1:0");
    let enroll = json!({"enrollment_ref": "fleet-a"}).to_string();
    let rollout = json!({"rollout_state": "pending"}).to_string();
    // Method, path, body; the status for an operator, a reader, `robot-7`, `robot-8`.
    let routes = [
        ("PUT", "/v1/enrollments/robot-7", enroll.as_str(), [200, 403, 403, 403]),
        ("PUT", "/v1/enrollments/robot-7/rollout", &rollout, [200, 403, 403, 403]),
        ("GET", "/v1/enrollments/robot-7", "", [200, 200, 200, 403]),
        ("GET", "/v1/enrollments/robot-7/history", "", [200, 200, 200, 403]),
        ("GET", "/v1/leases/robot-7", "", [200, 200, 200, 403]),
        ("GET", "/v1/changes?node_id=robot-7", "", [200, 200, 200, 403]),
        ("GET", "/v1/changes", "", [200, 200, 403, 403]),
        ("GET", "/v1/enrollments", "", [200, 200, 403, 403]),
        ("GET", "/v1/count", "", [200, 200, 403, 403]),
        ("POST", "/v1/enrollments/robot-7/revoke", "", [200, 403, 403, 403]),
    ];
    let tokens =
        ["operator", "reader", "robot-7", "robot-8"].map(|name| authorization(&home, &format!("{name}.token")));
    let wrong = "authorization: Bearer 0123456789012345678901234567890123456789\r\n";
    for (method, path, body, statuses) in routes {
        let ask = |headers: &str| service.connect().exchange(method, path, headers, body).unwrap();
        for (token, status) in tokens.iter().zip(statuses) {
            let (found, answer) = ask(token);
            assert_eq!(found, status, "{method} {path}: {answer}");
            let web = ask(&format!("{token}origin: https://example.com\r\n"));
            assert_eq!(web.0, 403, "{method} {path} from a page");
        }
        for none in ["", wrong, "authorization: Basic b3BlcmF0b3I6eA==\r\n", &format!("{0}{0}", tokens[0])] {
            assert_eq!(ask(none).0, 401, "{method} {path} {none}");
        }
    }
    // A token that is taken back lets nobody in from the next request on, and one that is added lets in.
    let lines = fs::read_to_string(home.path("orchestrator.tokens")).unwrap();
    for secret in tokens.iter().map(|token| token.trim_end().rsplit(' ').next().unwrap()) {
        assert!(!lines.contains(secret), "a token is kept as its hash alone");
    }
    let left: String = lines.lines().filter(|line| !line.contains("reader")).map(|line| format!("{line}\n")).collect();
    fs::write(home.path("orchestrator.tokens"), left).unwrap();
    let mut connection = service.connect();
    assert_eq!(connection.exchange("GET", "/v1/count", &tokens[1], "").unwrap().0, 401);
    home.ok("orchestrator token --role reader --name wall --out wall.token");
    assert_eq!(connection.exchange("GET", "/v1/count", &authorization(&home, "wall.token"), "").unwrap().0, 200);
    fs::write(home.path("orchestrator.tokens"), "{}\n").unwrap();
    assert_eq!(
        connection.exchange("GET", "/v1/count", &tokens[0], "").unwrap().0,
        503,
        "what cannot be read lets nobody in"
    );
}

#[test]
fn what_is_malformed_is_refused_with_its_remedy() {
    let home = fleet();
    let service = orchestrator(&home, "--listen 127.0.0.1:0");
    let operator = authorization(&home, "operator.token");
    let name = "x".repeat(129);
    let long = format!("/v1/enrollments/{name}");
    for (method, path, body, status, message) in [
        ("GET", "/v1/enrollments/a%20b", "", 400, "node id `a b` holds ` `"),
        ("GET", "/v1/enrollments/%ff", "", 400, "is not UTF-8"),
        ("GET", "/v1/enrollments/.a", "", 400, "node id `.a`"),
        ("GET", &long, "", 400, "node id"),
        ("GET", "/v1/count?status=asleep", "", 400, "status `asleep` is not known: use `active` or `revoked`"),
        ("GET", "/v1/enrollments?status=Active", "", 400, "status `Active` is not known: use `active` or `revoked`"),
        ("GET", "/v1/enrollments?limit=0", "", 400, "limit `0` is out of range: use 1 to 1000"),
        ("GET", "/v1/enrollments?limit=1001", "", 400, "limit `1001` is out of range"),
        ("GET", "/v1/enrollments?limit=x", "", 400, "query: "),
        ("GET", "/v1/enrollments?afer=a", "", 400, "unknown field `afer`"),
        ("GET", "/v1/enrollments?after=a%20b", "", 400, "query: "),
        ("GET", "/v1/changes?after=0&wait_ms=30001", "", 400, "wait_ms `30001` is out of range: use 0 to 30000"),
        ("GET", "/v1/changes?after=-1", "", 400, "query: "),
        ("GET", "/v1/changes?after=99", "", 410, "begin again without `after`"),
        ("GET", "/v1/leases/nobody", "", 404, "node `nobody` is not enrolled"),
        ("PUT", "/v1/enrollments/a", "", 400, "the body is not what this takes"),
        ("PUT", "/v1/enrollments/a", "[]", 400, "the body is not what this takes"),
        ("PUT", "/v1/enrollments/a", r#"{"enrollment_ref":"a b"}"#, 400, "enrollment ref"),
        ("PUT", "/v1/enrollments/a", r#"{"enrollment_ref":"a","who":"root"}"#, 400, "`who`"),
        ("PUT", "/v1/enrollments/a", r#"{"enrollment_ref":"a","enrollment_ref":"b"}"#, 400, "stands twice"),
        ("PUT", "/v1/enrollments/a/rollout", r#"{"rollout_state":"active"}"#, 404, "node `a` is not enrolled"),
        (
            "PUT",
            "/v1/enrollments/a/rollout",
            r#"{"rollout_state":"Active"}"#,
            400,
            "rollout state `Active` is not known",
        ),
        ("POST", "/v1/enrollments/a/revoke", "", 404, "node `a` is not enrolled"),
        ("POST", "/v1/enrollments/a/revoke", "{}", 400, "a revoke takes no body: send none"),
        ("DELETE", "/v1/enrollments/a", "", 405, "method not allowed"),
        ("GET", "/v1/nodes", "", 404, "no such path"),
    ] {
        let (found, answer) = service.connect().exchange(method, path, &operator, body).unwrap();
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(found == status && error.contains(message), "{method} {path} {body}: {found} {answer}");
        assert!(!error.contains('\n'), "{error}");
    }
    let count = service.connect().exchange("GET", "/v1/count", &operator, "").unwrap();
    assert_eq!(count, (200, json!({"count": 0})));
}

#[test]
fn what_a_client_has_is_not_sent_again_until_it_is_another() {
    let home = fleet();
    // A quarter of a day lies between a lease's tag and the next.
    let service = orchestrator(&home, "--listen 127.0.0.1:0 --lease-ttl-ms 86400000");
    let operator = authorization(&home, "operator.token");
    let mut connection = service.connect();
    let mut ask = |method: &str, path: &str, headers: &str, body: &str| {
        let headers = format!("{operator}{headers}");
        let (status, head, answer) = connection.exchange_with_head(method, path, &headers, body).unwrap();
        let of = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        assert_eq!(of("content-length: ").is_some(), status != 304, "{method} {path} {headers} {head:?}");
        (status, of("etag: "), of("cache-control: "), answer)
    };
    assert_eq!(ask("PUT", "/v1/enrollments/robot-7", "if-none-match: *\r\n", r#"{"enrollment_ref":"fleet-a"}"#).0, 200);
    let bundle = format!("registry.example/fleet/policies@sha256:{}", "0".repeat(64));
    let order = json!({"bundle": bundle, "selector": "all", "canary_percent": null}).to_string();
    let (_, no_tag, _, rollout) = ask("POST", "/v1/rollouts", "if-none-match: *\r\n", &order);
    assert_eq!(no_tag, None, "what was changed was not read");
    let id = rollout["rollout_id"].as_str().unwrap();
    let paths = [
        "/v1/enrollments/robot-7",
        "/v1/enrollments?limit=10",
        "/v1/enrollments/robot-7/history",
        "/v1/count?status=active",
        "/v1/rollouts",
        &format!("/v1/rollouts/{id}"),
        "/v1/directives/robot-7",
        &format!("/v1/directives/robot-7/{id}"),
        "/v1/leases/robot-7",
    ];
    let read = paths.map(|path| {
        let (status, tag, keep, body) = ask("GET", path, "", "");
        let tag = tag.unwrap_or_else(|| panic!("{path} has no tag"));
        assert_eq!(status, 200, "{path}: {body}");
        if path.starts_with("/v1/leases/") {
            assert!(keep.as_deref().unwrap().starts_with("public, max-age="), "{keep:?}");
        } else {
            assert_eq!(keep.as_deref(), Some("private, no-cache"), "{path}");
        }
        for held in [
            format!("if-none-match: {tag}\r\n"),
            format!("if-none-match: W/{tag}\r\n"),
            format!("if-none-match: \"a\", W/\"b,c\",{tag} , \"d\"\r\n"),
            format!("if-none-match: \"a\"\r\nif-none-match: {tag}\r\n"),
            "if-none-match: *\r\n".to_owned(),
        ] {
            let again = ask("GET", path, &held, "");
            assert_eq!((again.0, again.1.as_ref(), again.3), (304, Some(&tag), json!("")), "{path} {held}");
            assert_eq!(again.2.is_some(), keep.is_some(), "{path} {held}");
        }
        let digits = tag.trim_matches('"');
        for other in ["\"a\"", "", digits, &format!("w/{tag}"), &format!("\"{digits}x\""), "\"*\""] {
            let again = ask("GET", path, &format!("if-none-match: {other}\r\n"), "");
            assert_eq!((again.0, again.1.as_ref(), &again.3), (200, Some(&tag), &body), "{path} {other}");
        }
        (path, tag, body)
    });
    let texts: BTreeSet<_> = read.iter().map(|(_, _, body)| body.to_string()).collect();
    let tags: BTreeSet<_> = read.iter().map(|(_, tag, _)| tag).collect();
    assert_eq!(tags.len(), texts.len(), "another answer, another tag: {tags:?}");

    assert_eq!(ask("POST", "/v1/enrollments/robot-7/revoke", "", "").0, 200);
    for (path, tag, body) in &read {
        let (held, end) = (format!("if-none-match: {tag}\r\n"), Instant::now() + PATIENCE);
        // What follows from a revoke is done within a second or so.
        let (status, new, _, answer) = loop {
            let answer = ask("GET", path, &held, "");
            if answer.0 != 304 {
                break answer;
            }
            assert!(Instant::now() < end, "{path} stays what it was");
            thread::sleep(Duration::from_millis(20));
        };
        let new = new.unwrap();
        assert!(status == 200 && new != *tag && answer != *body, "{path}: {status} {new} {answer}");
        assert_eq!(ask("GET", path, &format!("if-none-match: {tag}, {new}\r\n"), "").0, 304, "{path}");
    }

    // A tag opens nothing, and hides nothing.
    for (token, path, status) in [
        ("operator", "/v1/leases/nobody", 404),
        ("operator", "/v1/enrollments?limit=0", 400),
        ("operator", "/v1/changes?after=0", 200),
        ("robot-8", "/v1/enrollments/robot-7", 403),
        ("robot-8", "/v1/leases/robot-7", 403),
    ] {
        let headers = format!("{}if-none-match: *\r\n", authorization(&home, &format!("{token}.token")));
        let (found, head, answer) = service.connect().exchange_with_head("GET", path, &headers, "").unwrap();
        assert_eq!(found, status, "{path}: {answer}");
        assert!(!head.iter().any(|line| line.starts_with("etag: ")), "{path}: {head:?}");
    }
    // A head is that of the same answer, of which no contract speaks.
    let mut connection = Connection::open(&service.address).unwrap();
    let (_, head, _) = connection.exchange_with_head("GET", paths[0], &operator, "").unwrap();
    let tag = head.iter().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    for (held, status) in [("\"a\"", 200), (&*tag, 304), ("*", 304)] {
        let headers = format!("{operator}if-none-match: {held}\r\n");
        let (found, head, _) = connection.exchange_with_head("HEAD", paths[0], &headers, "").unwrap();
        assert_eq!(found, status);
        assert_eq!(head.iter().any(|line| line.starts_with("content-length: ")), status == 200, "{head:?}");
        assert!(head.contains(&format!("etag: {tag}")), "{head:?}");
    }
}

#[test]
fn an_orchestrator_that_others_could_read_or_nobody_may_ask_does_not_start() {
    let home = fleet();
    certificates(&home);
    home.ok("host token");
    let serve = "orchestrator serve --signing-key lease.pem";
    for (line, code, message) in [
        (format!("{serve} --listen 0.0.0.0:0"), 2, "is not a loopback address"),
        (format!("{serve} --listen 0.0.0.0:0 --tls-cert server.pem"), 2, "tls is half there"),
        (format!("{serve} --tls-client-ca ca.pem"), 2, "tls is half there"),
        (format!("{serve} --tls-cert server.pem --tls-key client.key"), 2, "cannot use certificate"),
        (format!("{serve} --tls-cert none.pem --tls-key server.key"), 3, "cannot use certificate"),
        (format!("{serve} --tokens none.tokens"), 3, "cannot use tokens `none.tokens`"),
        (format!("{serve} --tokens bundle.tar"), 2, "can be read by others"),
        (format!("{serve} --lease-ttl-ms 999"), 2, "is too short to be renewed in time: give 1000 or more"),
        ("orchestrator serve --signing-key none.pem".to_owned(), 3, "make a key with `autonomy key generate`"),
        ("orchestrator token --role node --out x.token".to_owned(), 2, "--node-id"),
        (
            "orchestrator token --role reader --name reader --out x.token".to_owned(),
            2,
            "a token named `reader` is there already",
        ),
        (
            "orchestrator token --role reader --name a --node-id a --out x.token".to_owned(),
            2,
            "`--node-id` is for role `node` alone",
        ),
        ("runtime start --node-id robot-7 --orchestrator-url https://x".to_owned(), 2, "no lease keys are trusted"),
        (
            "host serve --orchestrator-url http://10.0.0.1:1 --lease-key lease.pem.pub".to_owned(),
            2,
            "is neither https nor on this machine",
        ),
    ] {
        let ran = home.run(&line);
        let error = String::from_utf8(ran.stderr).unwrap();
        assert!(error.contains(message) && error.lines().count() == 1, "{line}: {error}");
        assert_eq!(ran.status.code(), Some(code), "{line}: {error}");
        assert!(!home.path("x.token").exists(), "{line}");
    }
}

/// The address by which others reach this machine, where it has one.
fn own_address() -> IpAddr {
    // Nothing is sent: a route is looked up.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    match socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()) {
        Ok(address) => address.ip(),
        Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

#[test]
fn an_orchestrator_with_tls_and_tokens_answers_on_every_address_of_its_machine_and_by_tls_alone() {
    let home = fleet();
    certificates(&home);
    let service = orchestrator(&home, "--listen 0.0.0.0:0 --tls-cert server.pem --tls-key server.key");
    let port = service.address.strip_prefix("0.0.0.0:").unwrap();
    let host = own_address();
    println!("it is asked by way of {host}");
    // The certificate is of another address, by which it is asked for.
    let ask = |url: &str, headers: &[&str]| {
        let mut curl = home.program("curl");
        curl.args(["--silent", "--show-error", "--write-out", " %{http_code} %{remote_ip}", "--cacert", "ca.pem"]);
        curl.args(["--connect-to", &format!("127.0.0.1:{port}:{host}:{port}")]);
        curl.args(headers.iter().flat_map(|header| ["--header", header.trim_end()]));
        curl.arg(format!("{url}://127.0.0.1:{port}/v1/count")).output().unwrap()
    };
    let reader = authorization(&home, "reader.token");
    let answer = succeeded("with a token", ask("https", &[&reader]));
    assert_eq!(answer, format!("{{\"count\":0}} 200 {host}"));
    let refused = succeeded("without one", ask("https", &[]));
    assert!(
        refused.starts_with("{\"error\":\"the token is missing or wrong: ") && refused.contains(" 401 "),
        "{refused}"
    );
    let plain = ask("http", &[&reader]);
    assert!(!plain.status.success(), "{plain:?}");
    let mut stream = TcpStream::connect(format!("{host}:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET /v1/count HTTP/1.1\r\nhost: a\r\n{reader}\r\n").as_bytes()).unwrap();
    let mut said = Vec::new();
    // It may be cut, too.
    let _ = stream.read_to_end(&mut said);
    assert!(said.len() < 16 && !said.windows(4).any(|bytes| bytes == b"HTTP"), "an alert at most: {said:?}");
}

#[test]
fn changes_come_in_order_without_a_gap_while_they_are_made() {
    const WRITERS: usize = 4;
    const EACH: usize = 15;
    let home = fleet();
    let service = orchestrator(&home, "--listen 127.0.0.1:0");
    let (operator, reader) = (authorization(&home, "operator.token"), authorization(&home, "reader.token"));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (mut connection, operator) = (service.connect(), operator.clone());
            thread::spawn(move || {
                for at in 0..EACH {
                    let path = format!("/v1/enrollments/w{writer}-{at}");
                    let body = r#"{"enrollment_ref":"fleet-a"}"#;
                    assert_eq!(connection.exchange("PUT", &path, &operator, body).unwrap().0, 200);
                }
            })
        })
        .collect();
    // Written to the file by another process: it comes as well.
    home.ok("node enroll --node-id aside --enrollment-ref fleet-a --store fleet.sqlite");
    let (mut seen, mut cursor, mut answers) = (Vec::new(), 0, 0);
    let mut connection = service.connect();
    let end = Instant::now() + PATIENCE;
    while seen.len() < WRITERS * EACH + 1 {
        assert!(Instant::now() < end, "{seen:?}");
        let path = format!("/v1/changes?after={cursor}&wait_ms=10000&limit=7");
        let (status, answer) = connection.exchange("GET", &path, &reader, "").unwrap();
        assert_eq!(status, 200, "{answer}");
        seen.extend(answer["changes"].as_array().unwrap().iter().map(|change| change["revision"].as_u64().unwrap()));
        cursor = answer["cursor"].as_u64().unwrap();
        answers += 1;
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    println!("{} changes in {answers} answers", seen.len());
    assert!(seen.iter().copied().eq(1..=seen.len() as u64), "{seen:?}");

    // Whoever waits for one node is not woken with another's change, and is answered when the service stops.
    let path = format!("/v1/changes?after={cursor}&wait_ms=30000&node_id=w0-0");
    let waiting = thread::spawn(move || connection.exchange("GET", &path, &reader, "").unwrap());
    home.ok("node revoke --node-id w1-1 --store fleet.sqlite");
    thread::sleep(Duration::from_millis(500));
    assert!(!waiting.is_finished());
    service.signal(Signal::TERM);
    let (status, answer) = waiting.join().unwrap();
    assert_eq!((status, answer["changes"].as_array().unwrap().len()), (200, 0), "{answer}");
    assert_eq!(service.ended().0, 0);
}

#[test]
fn a_token_that_asks_too_often_waits_and_one_that_has_expired_is_let_in_no_more() {
    let home = fleet();
    let begun = Instant::now();
    home.ok("orchestrator token --role reader --name guest --expires-in 2s --out guest.token");
    let running = orchestrator(&home, "--listen 127.0.0.1:0 --requests-per-second 5");
    let mut connection = running.connect();
    let guest = authorization(&home, "guest.token");
    let mut count = |headers: &str| connection.exchange("GET", "/v1/count", headers, "").unwrap();
    if begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(count(&guest).0, 200);
    }
    let reader = authorization(&home, "reader.token");
    let (status, refused) = (0..100).map(|_| count(&reader)).find(|(status, _)| *status != 200).unwrap();
    assert_eq!(status, 429);
    let why = refused["error"].as_str().unwrap();
    assert!(why.starts_with("token `reader` asks too often: wait ") && why.contains("requests_per_second"), "{why}");
    assert_eq!(count(&authorization(&home, "operator.token")).0, 200, "each token has its own pace");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(count(&reader).0, 200);
    let (status, refused) = count(&guest);
    let why = "token `guest` has expired: make another with `autonomy orchestrator token`";
    assert_eq!((status, refused["error"].as_str()), (401, Some(why)));
}

#[test]
fn every_answer_below_v1_has_an_id_its_own_or_that_of_its_request() {
    let home = fleet();
    let running = orchestrator(&home, "--listen 127.0.0.1:0");
    let operator = authorization(&home, "operator.token");
    let mut connection = running.connect();
    for (method, path, status) in [
        ("GET", "/v1/count", 200),
        ("GET", "/v1/leases/robot-7", 404),
        ("GET", "/v1/nodes", 404),
        ("DELETE", "/v1/enrollments/robot-7", 405),
        ("POST", "/v1/count", 405),
        ("GET", "/v1/", 404),
    ] {
        let mut id = |headers: &str| {
            let headers = format!("{operator}{headers}");
            let (found, head, answer) = connection.exchange_with_head(method, path, &headers, "").unwrap();
            assert_eq!(found, status, "{method} {path}: {answer}");
            let ids: Vec<_> = head.iter().filter_map(|line| line.strip_prefix("x-request-id: ")).collect();
            let [id] = ids[..] else { panic!("{method} {path}: {head:?}") };
            id.to_owned()
        };
        assert_eq!(id("x-request-id: mine-1\r\n"), "mine-1");
        let (none, other, not_a_name) = (id(""), id(""), id("x-request-id: a b\r\n"));
        assert!(none != other && other != not_a_name && not_a_name.len() == 36, "{none} {other} {not_a_name}");
    }
}

#[test]
fn each_change_and_each_refusal_is_in_the_log_under_the_id_of_its_answer_and_no_token_is() {
    let home = fleet();
    let running = orchestrator(&home, "--listen 127.0.0.1:0");
    let token = |name: &str| fs::read_to_string(home.path(&format!("{name}.token"))).unwrap().trim_end().to_owned();
    let (operator, reader, node) = (token("operator"), token("reader"), token("robot-8"));
    let stranger = operator.chars().rev().collect::<String>();
    let ask = |method: &str, path: &str, token: &str, id: &str, body: &str| {
        let mut curl = home.program("curl");
        curl.args(["--silent", "--include", "--request", method, "--data", body, "--header"]);
        curl.args([format!("authorization: Bearer {token}"), "--header".to_owned(), format!("x-request-id: {id}")]);
        let answer = curl.arg(format!("http://{}{path}", running.address)).output().unwrap().stdout;
        let answer = String::from_utf8(answer).unwrap();
        let status: u64 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
        (status, id)
    };
    let (one, all) = ("/v1/enrollments/robot-7", "/v1/enrollments");
    let ref_ = r#"{"enrollment_ref":"fleet-a"}"#;
    let asked = [
        ("PUT", one, &operator, "change-1", ref_, 200, "operator"),
        ("GET", one, &reader, "read-1", "", 200, ""),
        ("PUT", one, &reader, "refused-1", ref_, 403, "reader"),
        ("GET", all, &node, "refused-2", "", 403, "robot-8"),
        ("GET", all, &stranger, "refused-3", "", 401, ""),
        ("GET", all, &node, "no name", "", 403, "robot-8"),
    ];
    let answers: Vec<_> =
        asked.iter().map(|(method, path, token, id, body, ..)| ask(method, path, token, id, body)).collect();
    running.signal(Signal::TERM);
    let (code, log) = running.ended();
    assert_eq!(code, 0, "{log}");
    for secret in [&operator, &reader, &node, &stranger] {
        assert!(!log.contains(secret.as_str()), "{log}");
    }
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for ((method, _, _, sent, _, wanted, who), (status, id)) in asked.into_iter().zip(answers) {
        assert_eq!((status, id == sent), (wanted, sent != "no name"), "{sent}");
        let said: Vec<_> = lines.iter().filter(|line| line["request_id"] == *id).collect();
        if (method, wanted) == ("GET", 200) {
            assert!(said.is_empty(), "{said:?}");
            continue;
        }
        let [line] = said[..] else { panic!("{sent}: {said:?}") };
        assert_eq!((&line["who"], &line["method"], &line["status"]), (&json!(who), &json!(method), &json!(wanted)));
        assert!(line["route"].as_str().unwrap().starts_with(all), "{line}");
    }
}
