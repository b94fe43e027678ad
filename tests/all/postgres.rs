//! Orchestrators over a real PostgreSQL, and what becomes of them when it dies, hangs, slows down or moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, PASSWORD},
    contract::Contract,
    orchestrator::{authorization, call, certificates, fleet, until},
    service::{Connection, PATIENCE, Service},
    support::{Home, autonomy, free_address},
};

/// Longer than any answer may take while the database is not well: its calls take five seconds, and this machine is busy.
const BOUND: Duration = Duration::from_secs(25);

/// How long a runtime that nobody answers still goes by what it knew.
const LEASE_TTL: Duration = Duration::from_secs(3);

/// A fleet's home with the database's password in a file, and the port of a server that is to be.
fn home() -> (Home, u16) {
    let home = fleet();
    fs::write(home.path("db.password"), format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(home.path("db.password"), fs::Permissions::from_mode(0o600)).unwrap();
    (home, free_port())
}

fn free_port() -> u16 {
    free_address().rsplit(':').next().unwrap().parse().unwrap()
}

/// What starts an orchestrator over a database.
fn serve(url: &str) -> String {
    format!(
        "orchestrator serve --listen 127.0.0.1:0 --signing-key lease.pem --lease-ttl-ms {} --database {url} \
         --database-password-file db.password",
        LEASE_TTL.as_millis()
    )
}

fn orchestrator(home: &Home, url: &str) -> Service {
    Service::start(home, &serve(url))
}

/// The URL of the database at these addresses.
fn tcp(addresses: &str) -> String {
    format!("postgres://postgres@{addresses}/postgres")
}

fn ask(service: &Service, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
    service.connect().exchange(method, path, token, body).unwrap()
}

/// How long it takes until `/readyz` answers so.
fn ready(service: &Service, status: u16) -> Duration {
    let begun = Instant::now();
    while ask(service, "GET", "/readyz", "", "").0 != status {
        assert!(begun.elapsed() < BOUND, "not {status}: {:?}", ask(service, "GET", "/readyz", "", ""));
        thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

#[test]
fn replicas_over_one_database_are_one_orchestrator_and_nobody_is_shown_the_password() {
    let (home, port) = home();
    let cluster = Cluster::start(Some(port), &[]);
    let [one, other] = [(); 2].map(|()| orchestrator(&home, &tcp(&cluster.address())));
    let to = |service: &Service| {
        format!("--orchestrator-url http://{} --orchestrator-token-file operator.token", service.address)
    };
    let runtime = Service::start(
        &home,
        &format!(
            "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id robot-7 --lease-key lease.pem.pub \
             --orchestrator-url http://{} --orchestrator-token-file robot-7.token",
            other.address
        ),
    );
    let mut runtime = runtime.connect();
    assert_eq!(call(&mut runtime), "attestation: not_enrolled");
    home.ok(&format!("node enroll --node-id robot-7 --enrollment-ref fleet-a {}", to(&one)));
    until(&mut runtime, "allow");
    assert_eq!(home.ok(&format!("node list {}", to(&one))), home.ok(&format!("node list {}", to(&other))));

    // Whoever waits at one is told what is changed at another.
    let operator = authorization(&home, "operator.token");
    let (_, begin) = ask(&other, "GET", "/v1/changes", &operator, "");
    let begun = Instant::now();
    thread::scope(|scope| {
        let path = format!("/v1/changes?after={}&wait_ms=30000", begin["cursor"]);
        let (operator, other) = (&operator, &other);
        let waits = scope.spawn(move || ask(other, "GET", &path, operator, ""));
        thread::sleep(Duration::from_millis(200));
        home.ok(&format!("node revoke --node-id robot-7 {}", to(&one)));
        let (status, told) = waits.join().unwrap();
        assert_eq!((status, &told["changes"][0]["change"]["action"]), (200, &json!("revoke")));
    });
    println!("a change at one replica was told by the other {:?} after its wait began", begun.elapsed());
    let took = until(&mut runtime, "attestation: enrollment_revoked");
    println!("a revoke at one replica was the runtime's first denied call at another {took:?} later");
    let leases = [&one, &other].map(|service| ask(service, "GET", "/v1/leases/robot-7", &operator, "").1);
    let rows = leases.map(|lease| said_by(&lease)["status"].clone());
    assert_eq!(rows, ["revoked", "revoked"]);

    // The password is nowhere, and a setting that would show it is refused without showing it.
    fs::write(home.path("wrong.password"), "not-the-password").unwrap();
    fs::set_permissions(home.path("wrong.password"), fs::Permissions::from_mode(0o600)).unwrap();
    let serve = serve(&tcp(&cluster.address()));
    let with = tcp(&cluster.address()).replace("postgres@", &format!("postgres:{PASSWORD}@"));
    fs::write(home.path("secret.toml"), format!("[orchestrator]\ndatabase = \"{with}\"\n")).unwrap();
    fs::write(home.path("broken.toml"), format!("[orchestrator]\ndatabase = {with}\n")).unwrap();
    for (line, code, message) in [
        (serve.replace("db.password", "wrong.password"), 3, "password authentication failed for user \"postgres\""),
        (
            serve.replace("--database-password-file db.password", ""),
            3,
            "password missing): check that its primary runs, `orchestrator.database` and `orchestrator.database_password_file`",
        ),
        (
            serve.replace("postgres@", &format!("postgres:{PASSWORD}@")),
            2,
            "flag `--database`: the url holds a password",
        ),
        (format!("config set orchestrator.database {with}"), 2, "the url holds a password"),
        ("config show --config secret.toml".to_owned(), 2, "the url holds a password"),
        ("config show --config broken.toml".to_owned(), 2, "TOML parse error at line 2"),
        (format!("{serve} --store fleet.sqlite"), 2, "--store"),
        (
            serve.replace(&format!("--database {}", tcp(&cluster.address())), ""),
            2,
            "`orchestrator.database_password_file` is set, and no database: name the database with `--database URL`, or leave \
             it out",
        ),
    ] {
        let refused = home.run(&line);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(code), "{line}: {error}");
        assert!(error.contains(message) && error.lines().count() == 1, "{line}: {error}");
        assert!(!error.contains(PASSWORD) && refused.stdout.is_empty(), "{error}");
    }
    for format in ["text", "json"] {
        let mut show = home.program(autonomy());
        show.env("AUTONOMY_ORCHESTRATOR_DATABASE", tcp(&cluster.address()));
        show.env("AUTONOMY_ORCHESTRATOR_DATABASE_PASSWORD_FILE", home.path("db.password"));
        let shown = show.args(["config", "show", "--output", format]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("postgres://postgres@127.0.0.1") && !shown.contains(PASSWORD), "{shown}");
    }
    one.signal(rustix::process::Signal::TERM);
    let (code, log) = one.ended();
    assert!(code == 0 && !log.contains(PASSWORD), "{log}");
}

/// What a lease says.
fn said_by(lease: &Value) -> Value {
    let payload = STANDARD.decode(lease["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[test]
fn tls_is_spoken_to_who_has_the_right_name_and_root_and_to_nobody_else() {
    let (home, port) = home();
    certificates(&home);
    let plain = Cluster::start(Some(port), &[]);
    let secure = over_tls(&home);
    let verified = |address: &str, ca: &str| {
        format!("{} --database-ca {ca}", serve(&format!("{}?sslmode=verify-full", tcp(address))))
    };
    let other_name = secure.address().replace("127.0.0.1", "localhost");
    for (line, message) in [
        (verified(&secure.address(), "client.pem"), "invalid peer certificate"),
        (verified(&other_name, "ca.pem"), "not valid for name"),
        (verified(&plain.address(), "ca.pem"), "it does not speak tls"),
    ] {
        let refused = home.run(&line);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(3) && error.contains(message), "{line}: {error}");
    }
    let service = Service::start(&home, &verified(&secure.address(), "ca.pem"));
    ready(&service, 200);
    let encrypted =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'autonomy'";
    assert_eq!(secure.psql("postgres", encrypted), "t");
}

/// A server that speaks TLS, with the certificate of the home.
pub(crate) fn over_tls(home: &Home) -> Cluster {
    let cluster = Cluster::start(Some(free_port()), &[]);
    let files =
        ["server.pem", "server.key"].map(|name| cluster.write(name, &fs::read_to_string(home.path(name)).unwrap()));
    for (setting, file) in ["ssl_cert_file", "ssl_key_file"].iter().zip(&files) {
        cluster.psql("postgres", &format!("ALTER SYSTEM SET {setting} = '{}'", file.display()));
    }
    cluster.psql("postgres", "ALTER SYSTEM SET ssl = on");
    cluster.psql("postgres", "SELECT pg_reload_conf()");
    cluster
}

/// Clients that enroll and revoke at every replica, each a node after the other, and look at each replica whether a revoke
/// that was acknowledged is kept.
struct Load {
    /// Changes that were acknowledged.
    acknowledged: Mutex<BTreeSet<String>>,
    answers: AtomicUsize,
    refused: AtomicUsize,
    /// Leases that were asked for after a revoke, and said so.
    denied: AtomicUsize,
    /// Calls of a runtime that were allowed, and those that were denied after a revoke.
    calls: [AtomicUsize; 2],
    longest_ms: AtomicU64,
    is_over: AtomicBool,
}

impl Load {
    const CLIENTS: usize = 4;

    /// Plays `faults` to the database while the clients go on, then holds every replica to what was acknowledged.
    fn during(home: &Home, replicas: &[&Service], faults: impl FnOnce(&Self)) {
        let load = Self {
            acknowledged: Mutex::default(),
            answers: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            denied: AtomicUsize::new(0),
            calls: Default::default(),
            longest_ms: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        };
        let operator = authorization(home, "operator.token");
        let runtime = Service::start(
            home,
            &format!(
                "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id robot-7 \
                 --lease-key lease.pem.pub --orchestrator-url http://{} --orchestrator-token-file robot-7.token",
                replicas[0].address
            ),
        );
        thread::scope(|scope| {
            let (load, caller, by) = (&load, runtime.connect(), &operator);
            scope.spawn(move || load.call(caller, replicas[0], by));
            for client in 0..Self::CLIENTS {
                scope.spawn(move || load.client(client, replicas, by));
            }
            let over = Over(&load.is_over);
            faults(load);
            for replica in replicas {
                ready(replica, 200);
            }
            load.goes_on();
            more(&load.calls[1], 2, "no call is denied any more");
            drop(over);
        });
        let (answers, refused) = (load.answers.into_inner(), load.refused.into_inner());
        let (denied, longest_ms) = (load.denied.into_inner(), load.longest_ms.into_inner());
        println!(
            "{answers} answers, {refused} of them 503; {denied} looks after a revoke; the longest took {longest_ms} ms"
        );
        let [allowed, denied_calls] = load.calls.map(AtomicUsize::into_inner);
        println!("{allowed} calls were allowed, {denied_calls} were denied after a revoke");
        assert!(answers > 40 && denied > 10 && allowed > 0 && denied_calls > 1, "too little happened");
        assert!(u128::from(longest_ms) < BOUND.as_millis(), "{longest_ms} ms");
        let acknowledged = load.acknowledged.into_inner().unwrap();
        let histories = replicas.iter().map(|replica| history(replica, &operator)).collect::<Vec<_>>();
        assert!(histories.iter().all(|history| *history == histories[0]), "all replicas tell the same");
        let lost: Vec<_> = acknowledged.difference(&histories[0]).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }

    fn client(&self, client: usize, replicas: &[&Service], operator: &str) {
        for round in 0.. {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let (node, at) = (format!("client-{client}-{}", round % 5), (client + round) % replicas.len());
            let body = json!({"enrollment_ref": format!("fleet/{round}"), "replace": true}).to_string();
            let enrolled = self.ask(replicas[at], "PUT", &format!("/v1/enrollments/{node}"), operator, &body);
            let Some(enrolled) = enrolled else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            self.acknowledge(&enrolled);
            let Some(revoked) = self.ask(replicas[at], "POST", &format!("/v1/enrollments/{node}/revoke"), operator, "")
            else {
                continue;
            };
            self.acknowledge(&revoked);
            for replica in replicas {
                if let Some(lease) = self.ask(replica, "GET", &format!("/v1/leases/{node}"), operator, "") {
                    assert_eq!(said_by(&lease)["status"], "revoked", "{node}: an allow after an acknowledged revoke");
                    self.denied.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    /// Enrolls and revokes the node of a runtime again and again, and calls it meanwhile: no call is allowed that started when
    /// a lease from before an acknowledged revoke was over, and none once the revoke is known.
    fn call(&self, mut runtime: Connection, replica: &Service, operator: &str) {
        let [allowed, denied] = &self.calls;
        let body = json!({"enrollment_ref": "fleet-a", "replace": true}).to_string();
        let change = |method: &str, path: &str, body: &str| {
            while !self.is_over.load(Ordering::SeqCst) {
                if let Some(changed) = self.ask(replica, method, path, operator, body) {
                    self.acknowledge(&changed);
                    return true;
                }
                thread::sleep(Duration::from_millis(20));
            }
            false
        };
        while change("PUT", "/v1/enrollments/robot-7", &body) {
            let enrolled = Instant::now();
            while enrolled.elapsed() < LEASE_TTL {
                if call(&mut runtime) == "allow" {
                    allowed.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            if !change("POST", "/v1/enrollments/robot-7/revoke", "") {
                return;
            }
            let (revoked, mut is_known) = (Instant::now(), false);
            while !is_known || revoked.elapsed() < Duration::from_millis(500) {
                let started = revoked.elapsed();
                match call(&mut runtime).as_str() {
                    "allow" => {
                        assert!(!is_known && started < LEASE_TTL, "allowed {started:?} after a revoke");
                    }
                    "attestation: enrollment_revoked" => {
                        denied.fetch_add(1, Ordering::SeqCst);
                        is_known = true;
                    }
                    // Its lease is over, and the next one has not come.
                    other => assert!(other.starts_with("attestation: "), "{other}"),
                }
                assert!(started < PATIENCE, "the revoke does not come");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// The answer, unless the database could not be asked. Nothing else is an answer.
    fn ask(&self, replica: &Service, method: &str, path: &str, operator: &str, body: &str) -> Option<Value> {
        let begun = Instant::now();
        let (status, answer) = ask(replica, method, path, operator, body);
        self.longest_ms.fetch_max(begun.elapsed().as_millis().try_into().unwrap(), Ordering::SeqCst);
        self.answers.fetch_add(1, Ordering::SeqCst);
        match status {
            200 => Some(answer),
            503 => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                None
            }
            other => panic!("{method} {path}: {other} {answer}"),
        }
    }

    fn acknowledge(&self, mutation: &Value) {
        // Nothing where a change that nobody acknowledged was made after all.
        if !mutation["change"].is_null() {
            self.acknowledged.lock().unwrap().insert(mutation["change"].to_string());
        }
    }

    /// Waits until some more was acknowledged.
    fn goes_on(&self) {
        more(&self.denied, 8, "nothing is acknowledged any more");
    }

    /// Waits until some more were told that the database cannot be asked.
    fn is_refused(&self) {
        more(&self.refused, 1, "nobody is refused");
    }
}

/// Waits until a count is so much higher.
fn more(count: &AtomicUsize, by: usize, otherwise: &str) {
    let (begun, wanted) = (Instant::now(), count.load(Ordering::SeqCst) + by);
    while count.load(Ordering::SeqCst) < wanted {
        assert!(begun.elapsed() < BOUND * 2, "{otherwise}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the clients, also where a test fails: their scope waits for them.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// All changes: revisions and serials without a gap, each change from where the last one ended, the row being what the last
/// one left. So nothing is half there.
fn history(replica: &Service, operator: &str) -> BTreeSet<String> {
    let (mut rows, mut all) = (BTreeMap::<String, Value>::new(), BTreeSet::new());
    let (mut cursor, mut connection) = (0, replica.connect());
    loop {
        let path = format!("/v1/changes?after={cursor}&limit=1000");
        let (status, page) = connection.exchange("GET", &path, operator, "").unwrap();
        assert_eq!(status, 200, "{page}");
        let changes = page["changes"].as_array().unwrap();
        for revised in changes {
            cursor += 1;
            assert_eq!(revised["revision"], cursor);
            let change = &revised["change"];
            let after = &change["after"];
            let before = rows.insert(after["node_id"].as_str().unwrap().to_owned(), after.clone()).unwrap_or_default();
            assert_eq!(change["before"], before);
            assert_eq!(after["serial"].as_u64(), Some(before["serial"].as_u64().unwrap_or(0) + 1));
            all.insert(change.to_string());
        }
        if changes.is_empty() {
            break;
        }
    }
    for (node, row) in rows {
        let (_, found) = connection.exchange("GET", &format!("/v1/enrollments/{node}"), operator, "").unwrap();
        assert_eq!(found["row"]["enrollment"], row);
    }
    all
}

#[test]
fn a_database_that_dies_takes_nothing_with_it_that_was_acknowledged() {
    let (home, port) = home();
    let mut cluster = Cluster::start(Some(port), &[]);
    let [one, other] = [tcp(&cluster.address()), cluster.url("postgres")].map(|url| orchestrator(&home, &url));
    Load::during(&home, &[&one, &other], |load| {
        for _ in 0..3 {
            load.goes_on();
            cluster.kill();
            println!("not ready {:?} after it died", ready(&one, 503).max(ready(&other, 503)));
            load.is_refused();
            cluster.run();
            println!("ready {:?} after it was back", ready(&one, 200).max(ready(&other, 200)));
        }
    });
}

#[test]
fn a_database_that_hangs_makes_nobody_wait_without_end() {
    let (home, port) = home();
    let cluster = Cluster::start(Some(port), &[]);
    let [one, other] = [tcp(&cluster.address()), cluster.url("postgres")].map(|url| orchestrator(&home, &url));
    Load::during(&home, &[&one, &other], |load| {
        for _ in 0..2 {
            load.goes_on();
            cluster.signal("STOP");
            println!("not ready {:?} after it hung", ready(&one, 503).max(ready(&other, 503)));
            load.is_refused();
            cluster.signal("CONT");
            println!("ready {:?} after it went on", ready(&one, 200).max(ready(&other, 200)));
        }
    });
}

#[test]
fn reading_goes_on_however_many_wait_for_what_somebody_else_holds() {
    let (home, port) = home();
    let cluster = Cluster::start(Some(port), &[]);
    let service = orchestrator(&home, &tcp(&cluster.address()));
    let operator = authorization(&home, "operator.token");
    let enroll = |node: &str| {
        ask(&service, "PUT", &format!("/v1/enrollments/{node}"), &operator, r#"{"enrollment_ref":"fleet-a"}"#)
    };
    assert_eq!(enroll("robot-7").0, 200);
    cluster.while_held("SELECT FROM autonomy.state FOR UPDATE", || {
        thread::scope(|scope| {
            let enroll = &enroll;
            let waiting: Vec<_> =
                (0..32).map(|at| scope.spawn(move || enroll(&format!("robot-{}", 100 + at)))).collect();
            let mut read = 0;
            while !waiting.iter().all(|waits| waits.is_finished()) {
                for path in ["/v1/leases/robot-7", "/v1/enrollments"] {
                    let begun = Instant::now();
                    let (status, answer) = ask(&service, "GET", path, &operator, "");
                    assert_eq!(status, 200, "{path}: {answer}");
                    assert!(begun.elapsed() < Duration::from_secs(10), "{path} took {:?}", begun.elapsed());
                    read += 1;
                }
                let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'autonomy'";
                let sessions: usize = cluster.psql("postgres", sessions).parse().unwrap();
                assert!(
                    sessions <= 14,
                    "{sessions} connections of one orchestrator, which has 8, and 6 that it gave up"
                );
            }
            for waits in waiting {
                assert_eq!(waits.join().unwrap().0, 503);
            }
            println!("{read} questions were answered while 32 changes waited");
        });
    });
}

#[test]
fn a_password_that_changes_is_read_from_its_file_without_a_restart() {
    let (home, port) = home();
    let cluster = Cluster::start(Some(port), &[]);
    let service = orchestrator(&home, &tcp(&cluster.address()));
    ready(&service, 200);
    cluster.psql("postgres", "ALTER USER postgres PASSWORD 'another'");
    cluster
        .psql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'autonomy'");
    let begun = Instant::now();
    loop {
        // At first it may be said that the session ended.
        let (_, said) = ask(&service, "GET", "/readyz", "", "");
        if said["error"].as_str().is_some_and(|why| why.contains("password authentication failed")) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{said}");
        thread::sleep(Duration::from_millis(20));
    }
    fs::write(home.path("db.password"), "another\n").unwrap();
    println!("ready {:?} after the file had the new password", ready(&service, 200));
}

#[test]
fn a_slow_network_and_one_that_breaks_are_survived() {
    let (home, port) = home();
    let cluster = Cluster::start(Some(port), &[]);
    let proxy = Proxy::start(cluster.address());
    let (near, far) = (orchestrator(&home, &tcp(&cluster.address())), orchestrator(&home, &tcp(&proxy.address)));
    Load::during(&home, &[&near, &far], |load| {
        load.goes_on();
        proxy.delay_ms.store(40, Ordering::SeqCst);
        load.goes_on();
        proxy.delay_ms.store(4000, Ordering::SeqCst);
        println!("not ready {:?} after it became slow", ready(&far, 503));
        load.is_refused();
        assert_eq!(ask(&near, "GET", "/readyz", "", "").0, 200, "who is near holds no lock of who is far");
        proxy.delay_ms.store(0, Ordering::SeqCst);
        println!("ready {:?} after it was fast again", ready(&far, 200));
        for _ in 0..10 {
            load.goes_on();
            proxy.cut();
        }
    });
}

/// A row may be read before a revoke and answered long after it.
#[test]
fn a_lease_counts_from_the_request_however_long_the_database_takes() {
    let (home, port) = home();
    let cluster = Cluster::start(Some(port), &[]);
    let proxy = Proxy::start(cluster.address());
    let service = orchestrator(&home, &tcp(&proxy.address));
    let operator = authorization(&home, "operator.token");
    let body = json!({"enrollment_ref": "fleet-a"}).to_string();
    assert_eq!(ask(&service, "PUT", "/v1/enrollments/robot-7", &operator, &body).0, 200);
    let begun = Instant::now();
    loop {
        // To make a new connection takes longer than there is where each step of it takes two seconds.
        proxy.delay_ms.store(0, Ordering::SeqCst);
        ready(&service, 200);
        proxy.delay_ms.store(1000, Ordering::SeqCst);
        let (asked, asked_ms) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis());
        let (status, lease) = ask(&service, "GET", "/v1/leases/robot-7", &operator, "");
        if status == 200 {
            assert!(asked.elapsed() > LEASE_TTL / 2, "the database was fast");
            let issued_at_ms = said_by(&lease)["issued_at_ms"].as_u64().unwrap();
            // The request takes its time, too, and a lease begins with a step of 750 ms: less than the database takes.
            let latest_ms = asked_ms + 1200;
            assert!(u128::from(issued_at_ms) <= latest_ms, "{} ms too late", u128::from(issued_at_ms) - latest_ms);
            return;
        }
        // The connections that there were did not stand it.
        assert!(status == 503 && begun.elapsed() < PATIENCE, "{status} {lease}");
    }
}

/// Passes bytes on, after a while.
struct Proxy {
    address: String,
    delay_ms: Arc<AtomicU64>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            delay_ms: Arc::default(),
            open: Arc::default(),
        };
        let (delay_ms, open) = (Arc::clone(&proxy.delay_ms), Arc::clone(&proxy.open));
        // They end with the process: each only waits for bytes.
        thread::spawn(move || {
            for near in listener.incoming() {
                let (near, Ok(far)) = (near.unwrap(), TcpStream::connect(&to)) else { continue };
                for stream in [&near, &far] {
                    open.lock().unwrap().push(stream.try_clone().unwrap());
                }
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    let delay_ms = Arc::clone(&delay_ms);
                    thread::spawn(move || {
                        let mut bytes = [0; 64 * 1024];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            thread::sleep(Duration::from_millis(delay_ms.load(Ordering::SeqCst)));
                            if to.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                        let _ = from.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        proxy
    }

    /// Ends every connection, wherever it is.
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_standby_that_is_promoted_has_all_that_was_acknowledged_and_the_old_primary_is_not_believed() {
    let (home, port) = home();
    let mut primary = Cluster::start(Some(port), &["synchronous_standby_names=*"]);
    let standby = primary.standby(free_port());
    let is_synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    let begun = Instant::now();
    while primary.psql("postgres", is_synchronous) != "1" {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(50));
    }
    let addresses = format!("{},{}", primary.address(), standby.address());
    let backwards = format!("{},{}", standby.address(), primary.address());
    let [one, other] = [addresses, backwards].map(|addresses| orchestrator(&home, &tcp(&addresses)));
    Load::during(&home, &[&one, &other], |load| {
        load.goes_on();
        primary.kill();
        println!("not ready {:?} after the primary died", ready(&one, 503).max(ready(&other, 503)));
        load.is_refused();
        assert_eq!(standby.psql("postgres", "SELECT pg_promote()"), "t");
        println!("ready {:?} after the standby was promoted", ready(&one, 200).max(ready(&other, 200)));
        load.goes_on();
        // It does not know that it was replaced, and may be written to.
        primary.run();
        load.goes_on();
        for _ in 0..5 {
            standby.psql(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'autonomy'",
            );
            load.goes_on();
        }
        standby.signal("STOP");
        ready(&one, 503);
        let why = |service: &Service| ask(service, "GET", "/readyz", "", "").1.to_string();
        let begun = Instant::now();
        while !why(&one).contains("was seen; put the newer database back") {
            assert!(begun.elapsed() < BOUND, "{}", why(&one));
            thread::sleep(Duration::from_millis(100));
        }
        standby.signal("CONT");
    });
}

const NODES: [&str; 6] = ["n-1", "n-2", "n-3", "n-4", "n-5", "n-6"];

#[test]
fn a_replica_that_is_killed_in_the_midst_of_a_rollout_leaves_nothing_half_written() {
    let (home, port) = home();
    let cluster = Cluster::start(Some(port), &[]);
    let stays = orchestrator(&home, &tcp(&cluster.address()));
    let operator = authorization(&home, "operator.token");
    for node in NODES {
        let body = json!({"enrollment_ref": "fleet-a"}).to_string();
        assert_eq!(ask(&stays, "PUT", &format!("/v1/enrollments/{node}"), &operator, &body).0, 200);
    }
    let (mut orders, mut reports, mut in_between) = (0, 0, 0);
    for round in 0..8 {
        let dies = orchestrator(&home, &tcp(&cluster.address()));
        let (address, operator, answers) = (&dies.address.clone(), &operator, &AtomicUsize::new(0));
        let (created, reported) = thread::scope(|scope| {
            let creator = scope.spawn(move || create(address, operator, answers));
            let pairs = NODES.chunks(2).map(|nodes| scope.spawn(move || follow(nodes, address, operator, answers)));
            let followers: Vec<_> = pairs.collect();
            let begun = Instant::now();
            while answers.load(Ordering::SeqCst) < 10 && begun.elapsed() < BOUND * 2 {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(7 * round));
            dies.kill();
            let reported: Vec<_> = followers.into_iter().flat_map(|follower| follower.join().unwrap()).collect();
            (creator.join().unwrap(), reported)
        });
        let rollouts = whole_rollouts(&stays, operator);
        history(&stays, operator);
        for id in &created {
            assert!(rollouts.contains_key(id), "{id} was acknowledged");
        }
        for (id, node, state) in &reported {
            let found = &rollouts[id][node];
            assert!(found == state || (state == "acknowledged" && found == "active"), "{node}: {state}, then {found}");
        }
        in_between += rollouts.values().flat_map(BTreeMap::values).filter(|state| *state == "acknowledged").count();
        (orders, reports) = (orders + created.len(), reports + reported.len());
    }
    println!("{orders} orders and {reports} reports acknowledged, {in_between} directives found under way");
    assert!(orders >= 8 && reports >= 24 && in_between > 0, "too little happened");
}

#[test]
fn a_revoke_is_taken_while_a_rollout_to_many_nodes_is_made_and_taken_back() {
    const MANY: usize = 20_000;
    let (home, port) = home();
    let cluster = Cluster::start(Some(port), &[]);
    let service = orchestrator(&home, &tcp(&cluster.address()));
    let operator = authorization(&home, "operator.token");
    let many = format!(
        "INSERT INTO autonomy.enrollment SELECT 'many-' || n, 'fleet-a', 'active', '<none>', 1, 1, 1
         FROM generate_series(1, {MANY}) AS n"
    );
    cluster.psql("postgres", &many);
    let is_over = AtomicBool::new(false);
    let bundle = format!("registry.example/fleet/policies@sha256:{}", "0".repeat(64));
    let order = json!({"bundle": bundle, "selector": "enrollment_ref=fleet-a"}).to_string();
    thread::scope(|scope| {
        let revokes = scope.spawn(|| {
            let (mut longest, mut count, mut connection) = (Duration::ZERO, 0, service.connect());
            while !is_over.load(Ordering::SeqCst) {
                let (node, begun) = (format!("extra-{count}"), Instant::now());
                let body = json!({"enrollment_ref": "fleet-b"}).to_string();
                for (method, path, body) in [
                    ("PUT", format!("/v1/enrollments/{node}"), body.as_str()),
                    ("POST", format!("/v1/enrollments/{node}/revoke"), ""),
                ] {
                    let (status, answer) = connection.exchange(method, &path, &operator, body).unwrap();
                    assert_eq!(status, 200, "{answer}");
                }
                longest = longest.max(begun.elapsed());
                count += 1;
            }
            (longest, count)
        });
        let over = Over(&is_over);
        let (mut connection, begun) = (service.connect(), Instant::now());
        let (status, created) = connection.exchange("POST", "/v1/rollouts", &operator, &order).unwrap();
        let made = begun.elapsed();
        assert_eq!((status, &created["rest"]["pending"]), (200, &json!(MANY)), "{created}");
        let back = format!("/v1/rollouts/{}/rollback", created["rollout_id"].as_str().unwrap());
        let (status, back) = connection.exchange("POST", &back, &operator, "").unwrap();
        assert_eq!((status, &back["rest"]["rolled_back"]), (200, &json!(MANY)), "{back}");
        let taken_back = begun.elapsed() - made;
        drop(over);
        let (longest, count) = revokes.join().unwrap();
        println!(
            "a rollout to {MANY} nodes was made in {made:?} and taken back in {taken_back:?}; meanwhile {count} nodes were \
             enrolled and revoked, in {longest:?} at the longest"
        );
        assert!(count > 20, "too little happened: {count}");
    });
}

/// The ids of the rollouts that were created until nobody answered.
fn create(address: &str, operator: &str, answers: &AtomicUsize) -> Vec<String> {
    let (mut connection, mut created) = (Contract::Orchestrator.over(Connection::open(address).unwrap()), Vec::new());
    let bundle = format!("registry.example/fleet/policies@sha256:{}", "0".repeat(64));
    let order = json!({"bundle": bundle, "selector": "all", "canary_percent": 50}).to_string();
    while let Ok((status, rollout)) = connection.exchange("POST", "/v1/rollouts", operator, &order) {
        match status {
            200 => {
                answers.fetch_add(1, Ordering::SeqCst);
                created.push(rollout["rollout_id"].as_str().unwrap().to_owned());
            }
            // Others had the lock for too long.
            503 => {}
            _ => panic!("{status} {rollout}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
    created
}

/// What was reported for these nodes, of which rollout, until nobody answered.
fn follow(nodes: &[&str], address: &str, operator: &str, answers: &AtomicUsize) -> Vec<(String, String, String)> {
    let (mut connection, mut reported) = (Contract::Orchestrator.over(Connection::open(address).unwrap()), Vec::new());
    for node in nodes.iter().cycle() {
        let path = format!("/v1/directives/{node}");
        let Ok((_, current)) = connection.exchange("GET", &path, operator, "") else { break };
        let directive = &current["directive"];
        let state = match directive["state"].as_str() {
            Some("pending") => "acknowledged",
            Some("acknowledged") => "active",
            _ => {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
        };
        let report = json!({"rollout_id": directive["rollout_id"], "state": state}).to_string();
        let Ok((status, answer)) = connection.exchange("PUT", &path, operator, &report) else { break };
        match status {
            200 => {
                let id = directive["rollout_id"].as_str().unwrap();
                answers.fetch_add(1, Ordering::SeqCst);
                reported.push((id.to_owned(), (*node).to_owned(), state.to_owned()));
            }
            // Another rollout came in between, or others had the lock for too long.
            409 | 503 => {}
            _ => panic!("{status} {answer}"),
        }
    }
    reported
}

/// The states of each rollout's directives: every node has one, and its row says what its current one does.
fn whole_rollouts(replica: &Service, operator: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let (mut connection, mut before, mut all) = (replica.connect(), String::new(), BTreeMap::new());
    loop {
        let (_, page) = connection.exchange("GET", &format!("/v1/rollouts?limit=10{before}"), operator, "").unwrap();
        for rollout in page["rollouts"].as_array().unwrap() {
            let id = rollout["rollout_id"].as_str().unwrap();
            let (_, shown) = connection.exchange("GET", &format!("/v1/rollouts/{id}"), operator, "").unwrap();
            assert_eq!(rollout["history"][0]["phase"], "running");
            let directives: BTreeMap<_, _> = shown["directives"].as_array().unwrap().iter().map(word_of).collect();
            assert!(directives.keys().eq(NODES), "{shown}");
            all.insert(id.to_owned(), directives);
        }
        let Some(next) = page["next_before"].as_str() else { break };
        before = format!("&before={next}");
    }
    for node in NODES {
        let (_, current) = connection.exchange("GET", &format!("/v1/directives/{node}"), operator, "").unwrap();
        let (_, found) = connection.exchange("GET", &format!("/v1/enrollments/{node}"), operator, "").unwrap();
        let (_, state) = word_of(&current["directive"]);
        let row = &found["row"]["enrollment"]["rollout_state"];
        assert!(state == "<none>" || *row == state, "{node} is {row}, and its directive {state}");
    }
    all
}

fn word_of(directive: &Value) -> (String, String) {
    let [node, state] = ["node_id", "state"].map(|key| directive[key].as_str().unwrap().to_owned());
    (node, state)
}
