//! What services count: each number moves with what it counts, and no other does; the table of the book and the output have the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    drain::collector::{Collector, answer, ok},
    orchestrator::{authorization, call, fleet},
    service::{Connection, PATIENCE, Service},
    support::{Home, page},
};

/// A metric of the table in `http.md`.
#[derive(Debug)]
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
}

fn documented() -> BTreeMap<String, Documented> {
    let in_ticks = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let http = page("docs/src/spec/http.md");
    let rows = http.lines().filter(|line| line.starts_with("| `autonomy_")).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, ..] = cells[..] else { panic!("{line}") };
        let kind = kind.split(',').next().unwrap().to_owned();
        (in_ticks(name).remove(0), Documented { kind, labels: in_ticks(labels).into_iter().collect() })
    });
    rows.collect()
}

/// A page of `/metrics`: every sample by its name and labels, every metric by the name that the table gives it.
#[derive(Debug, Clone)]
struct Scraped {
    samples: BTreeMap<String, f64>,
    names: BTreeSet<String>,
}

impl Scraped {
    /// Reads it, and holds it to the table.
    fn of(connection: &mut Connection) -> Self {
        let (status, text) = connection.exchange("GET", "/metrics", "", "").unwrap();
        let text = text.as_str().unwrap();
        assert!(status == 200 && text.ends_with("# EOF\n"), "{status} {text}");
        let (documented, mut names) = (documented(), BTreeSet::new());
        for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = family.split_once(' ').unwrap();
            let name = match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            };
            let row = documented.get(&name).unwrap_or_else(|| panic!("`{name}` is not in the table"));
            assert_eq!(row.kind, kind, "{name}");
            names.insert(name);
        }
        let samples: BTreeMap<String, f64> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(sample, number)| (sample.to_owned(), number.parse().unwrap()))
            .collect();
        for sample in samples.keys() {
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let of = |suffix| name.strip_suffix(suffix).filter(|name| names.contains(*name));
            let name = of("_bucket").or_else(|| of("_sum")).or_else(|| of("_count")).unwrap_or(name);
            // A value may hold anything but a quote here.
            let labels: BTreeSet<_> = labels
                .split('"')
                .step_by(2)
                .filter_map(|name| name.trim_start_matches(',').strip_suffix('='))
                .filter(|label| *label != "le")
                .map(str::to_owned)
                .collect();
            assert_eq!(documented[name].labels, labels, "{sample}");
        }
        Self { samples, names }
    }

    fn number(&self, sample: &str) -> u64 {
        let number = self.samples.get(sample).copied().unwrap_or_default();
        assert!(number >= 0.0 && number.fract() == 0.0, "{sample} {number}");
        format!("{number}").parse().unwrap()
    }

    /// What is not 0, but for times and what they are sorted into.
    fn counted(&self) -> BTreeMap<String, u64> {
        let is_time = |sample: &str| sample.contains("_bucket{") || sample.ends_with("_sum");
        let samples = self.samples.keys().filter(|sample| !is_time(sample));
        samples.map(|sample| (sample.clone(), self.number(sample))).filter(|(_, number)| *number != 0).collect()
    }
}

/// Waits until a page has these numbers, and gives it.
fn until(connection: &mut Connection, wanted: &[(&str, u64)]) -> Scraped {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = Scraped::of(connection);
        if wanted.iter().all(|(sample, number)| found.number(sample) == *number) {
            return found;
        }
        assert!(Instant::now() < end, "{wanted:?} do not come: {:?}", found.counted());
        thread::sleep(Duration::from_millis(20));
    }
}

fn build(service: &str) -> String {
    format!("autonomy_build_info{{service=\"autonomy-{service}\",version=\"{}\"}}", env!("CARGO_PKG_VERSION"))
}

#[test]
fn what_an_orchestrator_counts_is_what_was_asked_of_it() {
    let home = fleet();
    // A third of these files may be connections.
    let line = "orchestrator serve --listen 127.0.0.1:0 --store fleet.sqlite --signing-key lease.pem --requests-per-second 30 \
                --lease-ttl-ms 86400000";
    let service = Service::start_with_limit(&home, "-n 64", line);
    let [operator, reader, node] =
        ["operator", "reader", "robot-7"].map(|name| authorization(&home, &format!("{name}.token")));
    let wrong = "authorization: Bearer 0123456789012345678901234567890123456789\r\n";
    let (mut scraper, mut client) = (service.connect(), service.connect());
    let mut wanted = BTreeMap::from([
        (build("orchestrator"), 1),
        ("autonomy_connections_total".to_owned(), 2),
        ("autonomy_connections_open".to_owned(), 2),
    ]);
    let (open, refused) = ("autonomy_connections_open", "autonomy_connections_refused_total");
    assert_eq!(until(&mut scraper, &[(open, 2)]).counted(), wanted, "nothing was asked yet");

    let enroll = r#"{"enrollment_ref":"fleet-a"}"#;
    let bundle = format!("registry.example/fleet/policies@sha256:{}", "0".repeat(64));
    let order = json!({"bundle": bundle, "selector": "all", "canary_percent": null}).to_string();
    let mut ask = |method: &str, path: &str, headers: &str, body: &str| -> (u16, Value) {
        client.exchange(method, path, headers, body).unwrap()
    };
    // What is asked, and by what route and status that is counted; the changes that it makes.
    let asked: [(&str, &str, &str, &str, &str, u16, u64); 14] = [
        ("PUT", "/v1/enrollments/robot-7", &operator, enroll, "/v1/enrollments/{node_id}", 200, 1),
        ("PUT", "/v1/enrollments/robot-7", &operator, enroll, "/v1/enrollments/{node_id}", 200, 0),
        (
            "PUT",
            "/v1/enrollments/robot-7",
            &operator,
            r#"{"enrollment_ref":"fleet-b"}"#,
            "/v1/enrollments/{node_id}",
            409,
            0,
        ),
        ("PUT", "/v1/enrollments/robot-7", &reader, enroll, "/v1/enrollments/{node_id}", 403, 0),
        ("GET", "/v1/enrollments/robot-7", wrong, "", "/v1/enrollments/{node_id}", 401, 0),
        ("DELETE", "/v1/enrollments/robot-7", &operator, "", "", 405, 0),
        ("GET", "/v1/leases/robot-7", &node, "", "/v1/leases/{node_id}", 200, 0),
        ("GET", "/v1/leases/robot-7", &format!("{node}if-none-match: *\r\n"), "", "/v1/leases/{node_id}", 304, 0),
        ("GET", "/v1/leases/nobody", &operator, "", "/v1/leases/{node_id}", 404, 0),
        ("GET", "/v1/changes?after=99", &operator, "", "/v1/changes", 410, 0),
        ("GET", "/v1/rollouts?limit=0", &operator, "", "/v1/rollouts", 400, 0),
        ("POST", "/v1/rollouts", &operator, &order, "/v1/rollouts", 200, 1),
        ("GET", "/v1/nodes", &operator, "", "", 404, 0),
        ("GET", "/healthz", "", "", "", 200, 0),
    ];
    let mut count = |sample: String, more: u64| *wanted.entry(sample).or_default() += more;
    let route = |route: &str, status: u16| format!("autonomy_requests_total{{route=\"{route}\",status=\"{status}\"}}");
    let revision = "autonomy_revision";
    for (method, path, headers, body, of, status, changes) in asked {
        let (found, answer) = ask(method, path, headers, body);
        assert_eq!(found, status, "{method} {path}: {answer}");
        if !of.is_empty() {
            count(route(of, status), 1);
        }
        if changes > 0 {
            count(revision.to_owned(), changes);
        }
    }
    let (_, directive) = ask("GET", "/v1/directives/robot-7", &node, "");
    count(route("/v1/directives/{node_id}", 200), 1);
    for state in ["acknowledged", "active"] {
        let report = json!({"rollout_id": directive["directive"]["rollout_id"], "state": state}).to_string();
        let (status, answer) = ask("PUT", "/v1/directives/robot-7", &node, &report);
        assert_eq!(status, 200, "{answer}");
        count(route("/v1/directives/{node_id}", 200), 1);
        count(revision.to_owned(), 1);
    }
    assert_eq!(ask("POST", "/v1/enrollments/robot-7/revoke", &operator, "").0, 200);
    count(route("/v1/enrollments/{node_id}/revoke", 200), 1);
    count(revision.to_owned(), 1);
    loop {
        let (status, _) = ask("GET", "/v1/enrollments?limit=1", &reader, "");
        count(route("/v1/enrollments", status), 1);
        if status == 429 {
            break;
        }
    }
    // By another process: it is seen all the same.
    home.ok("node enroll --node-id robot-8 --enrollment-ref fleet-a --store fleet.sqlite");
    count(revision.to_owned(), 1);
    let latest = wanted[revision];
    assert_eq!(until(&mut scraper, &[(revision, latest)]).counted(), wanted);

    // As many as there may be, and three more.
    let held: Vec<_> = (2..21).map(|_| TcpStream::connect(&service.address).unwrap()).collect();
    until(&mut scraper, &[(open, 21), (refused, 0)]);
    for _ in 0..3 {
        assert_eq!(service.connect().exchange("GET", "/healthz", "", "").unwrap().0, 503);
    }
    until(&mut scraper, &[(open, 21), (refused, 3)]);
    drop(held);
    wanted.extend([("autonomy_connections_total".to_owned(), 21), (refused.to_owned(), 3)]);
    assert_eq!(until(&mut scraper, &[(open, 2)]).counted(), wanted);
}

const RUNTIME: &str = "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --node-id robot-7";

#[test]
fn what_a_runtime_counts_is_what_it_decided_wrote_and_drained() {
    let home = Home::ready();
    // Busy once, then it takes all but one record.
    let collector = Collector::start(|nth, asked| match nth {
        0 => answer("503 Service Unavailable", "", b""),
        _ if asked.holds(&[2]) => answer("400 Bad Request", "", b""),
        _ => ok(),
    });
    let runtime = Service::start(&home, &format!("{RUNTIME} --mode enforce --drain-to http://{}", collector.address));
    let (mut scraper, mut client) = (runtime.connect(), runtime.connect());
    assert_eq!(call(&mut client), "allow");
    assert_eq!(call(&mut client), "allow");
    for (body, status) in [(r#"{"kind":"tool.clock","params":{}}"#, 403), ("{", 400)] {
        let (found, answer) = client.exchange("POST", "/v1/tool", "", body).unwrap();
        assert_eq!(found, status, "{answer}");
    }
    assert_eq!(client.exchange("GET", "/v1/tool", "", "").unwrap().0, 405);
    let wal_seq = Scraped::of(&mut scraper).number("autonomy_wal_seq");
    let last = u64::try_from(home.ok("wal inspect --kind decision --output json").lines().count()).unwrap();
    assert!(last == 3 && wal_seq > last, "{last} decisions, up to frame {wal_seq}");
    let drained = until(
        &mut scraper,
        &[("autonomy_drain_parked_total", 1), ("autonomy_drain_lag", 0), ("autonomy_drain_failures_total", 1)],
    );
    let mut counted = drained.counted();
    assert!(counted.remove("autonomy_drain_seq").unwrap() >= wal_seq, "an outcome may follow its decision");
    let policies: Vec<_> = counted.keys().filter(|sample| sample.starts_with("autonomy_policies{")).cloned().collect();
    let [policies] = &policies[..] else { panic!("{policies:?}") };
    assert!(policies.starts_with("autonomy_policies{policy_ref=\"fleet/policies@1.0.0"), "{policies}");
    let decided = |effect: &str, reason: &str| {
        format!("autonomy_decisions_total{{effect=\"{effect}\",reason=\"{reason}\",mode=\"enforce\"}}")
    };
    let wanted = BTreeMap::from([
        (build("runtime"), 1),
        (policies.clone(), 1),
        (decided("allow", "policy: allowed"), 2),
        (decided("deny", "policy: denied"), 1),
        ("autonomy_tool_calls_total{status=\"200\"}".to_owned(), 2),
        ("autonomy_tool_calls_total{status=\"400\"}".to_owned(), 1),
        ("autonomy_tool_calls_total{status=\"403\"}".to_owned(), 1),
        ("autonomy_decide_seconds_count".to_owned(), 3),
        ("autonomy_wal_append_seconds_count".to_owned(), 3),
        ("autonomy_wal_seq".to_owned(), wal_seq),
        ("autonomy_drain_failures_total".to_owned(), 1),
        ("autonomy_drain_parked_total".to_owned(), 1),
        ("autonomy_connections_total".to_owned(), 2),
        ("autonomy_connections_open".to_owned(), 2),
    ]);
    assert_eq!(counted, wanted);
}

#[test]
fn the_table_has_no_metric_that_no_service_has() {
    let home = fleet();
    home.ok("node revoke --node-id robot-7");
    let runtime = Service::start(&home, &format!("{RUNTIME} --mode advisory"));
    let mut client = runtime.connect();
    assert_eq!(call(&mut client), "allow");
    let runtime = Scraped::of(&mut client);
    assert_eq!(
        runtime.number("autonomy_would_deny_total{reason=\"attestation: enrollment_revoked\"}"),
        1,
        "{:?}",
        runtime.counted()
    );
    let line = "orchestrator serve --listen 127.0.0.1:0 --store fleet.sqlite --signing-key lease.pem";
    let orchestrator = Service::start(&home, line);
    let mut client = orchestrator.connect();
    client.exchange("GET", "/v1/count", &authorization(&home, "reader.token"), "").unwrap();
    let names = &runtime.names | &Scraped::of(&mut client).names;
    assert_eq!(names, documented().into_keys().collect());
}
