//! The log arrives, whatever the collector answers and whenever the drain is killed.

pub(crate) mod collector;
mod otelcol;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use gate_core::{
    frame::{Frame, Kind},
    identity::{AuditId, NodeId},
};
use host_native::wal::{Options, Reader, Record, Wal};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::{
    collector::{Collector, answer, in_part, ok, seq},
    otelcol::{Otelcol, named},
};
use crate::{
    service::{PATIENCE, Service},
    support::{Home, autonomy, built_by_go, free_address},
};

fn frame(kind: Kind, attrs: &str) -> Frame {
    let node_id = (kind != Kind::Lifecycle).then(|| NodeId::parse("robot-7").unwrap());
    Frame { kind, audit_id: AuditId::parse("018f-test").unwrap(), node_id, attrs: attrs.to_owned() }
}

/// A log of so many decisions, closed.
pub(crate) fn log(home: &Home, frames: usize) -> Vec<Record> {
    let (wal, _) = Wal::open(home.path("wal"), Options::default()).unwrap();
    for at in 0..frames {
        wal.append(vec![frame(
            Kind::Decision,
            &format!("{{\"outcome\":\"allow\",\"reason\":\"policy: allowed\",\"n\":{at}}}"),
        )])
        .wait()
        .unwrap();
    }
    wal.close().unwrap();
    records(&home.path("wal"))
}

fn records(dir: &Path) -> Vec<Record> {
    Reader::open(dir).unwrap().map(Result::unwrap).collect()
}

/// What a drain printed, and how it exited.
pub(crate) fn done(output: &Output) -> (i32, Value, String) {
    let printed = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), printed, String::from_utf8(output.stderr.clone()).unwrap())
}

fn position(home: &Home) -> Option<u64> {
    let position: Value = serde_json::from_slice(&fs::read(home.path("wal/telemetry.pos")).ok()?).unwrap();
    position["seq"].as_u64()
}

fn parked(home: &Home) -> Vec<Value> {
    let lines = fs::read_to_string(home.path("wal/telemetry.parked")).unwrap_or_default();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_record_says_what_its_frame_says_and_errors_go_first() {
    let home = Home::new();
    let (wal, _) = Wal::open(home.path("wal"), Options::default()).unwrap();
    let long = "x".repeat(1025);
    let frames = vec![
        frame(Kind::Lifecycle, "{\"event\":\"runtime_started\"}"),
        frame(Kind::Facts, "{\"id\":\"sha256:00\",\"facts\":{\"schema\":1}}"),
        frame(
            Kind::Decision,
            &format!(
                "{{\"outcome\":\"deny\",\"reason\":\"policy: denied\",\"enforced\":true,\"now_ms\":-5,\"long\":\"{long}\"}}"
            ),
        ),
        frame(Kind::Action, "{\"tool\":\"tool.echo\",\"outcome\":\"failed\",\"took_ms\":3}"),
        frame(Kind::Error, "{\"what\":\"é\\u0001\"}"),
        frame(Kind::Decision, "{\"outcome\":\"allow\",\"nested\":[[[{}]]],\"no\":null}"),
    ];
    wal.append(frames).wait().unwrap();
    wal.close().unwrap();
    let collector = Collector::start(|_, _| ok());
    let (code, printed, stderr) = done(&collector.drain(&home, ""));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let wal_dir = home.path("wal").display().to_string();
    assert_eq!(printed, serde_json::json!({ "wal_dir": wal_dir, "sent": 6, "parked": 0, "acknowledged": 6, "lag": 0 }));

    let records = records(&home.path("wal"));
    let wal_id = records[1].prev[..22].to_owned();
    let [asked] = collector.asked().try_into().unwrap();
    assert!(asked.head.starts_with("post /v1/logs http/1.1\r\n"), "{}", asked.head);
    assert!(asked.head.contains("\r\ncontent-type: application/x-protobuf\r\n"), "{}", asked.head);
    // Resources are sorted: what has no node comes first.
    let seqs: Vec<_> = asked.records.iter().map(|record| seq(&record.id)).collect();
    assert_eq!(seqs, [1, 5, 3, 6, 2, 4]);
    for arrived in &asked.records {
        let record = &records[usize::try_from(seq(&arrived.id)).unwrap() - 1];
        assert_eq!(arrived.id, format!("{wal_id}:{}", record.seq));
        assert_eq!(arrived.body, record.payload, "byte for byte");
        assert_eq!(arrived.unix_ns, record.unix_ns());
        assert_eq!(arrived.event_name, record.kind.as_str());
        assert_eq!(arrived.attributes["autonomy.audit_id"], "018f-test");
        assert_eq!(arrived.resource["service.name"], "autonomy-gate");
        assert_eq!(
            arrived.resource.get("service.instance.id").map(String::as_str),
            record.node_id.as_ref().map(NodeId::as_str)
        );
        let severity = match (record.kind, record.seq) {
            (Kind::Error, _) => (17, "ERROR"),
            (Kind::Decision, 3) => (13, "WARN"),
            _ => (9, "INFO"),
        };
        assert_eq!((arrived.severity.0, arrived.severity.1.as_str()), severity);
    }
    let own = |at: usize| -> BTreeMap<&str, &str> {
        let attributes = asked.records[at].attributes.iter();
        attributes.filter_map(|(name, value)| Some((name.strip_prefix("autonomy.attrs.")?, value.as_str()))).collect()
    };
    let minus_five = (-5_i64).cast_unsigned().to_string();
    assert_eq!(own(1), [("what", "é\u{1}")].into());
    assert_eq!(
        own(2),
        [("outcome", "deny"), ("reason", "policy: denied"), ("enforced", "1"), ("now_ms", &minus_five)].into()
    );
    assert_eq!(own(3), [("outcome", "allow")].into());
    assert_eq!(own(4), [("id", "sha256:00")].into());
}

#[test]
fn what_the_specification_says_to_send_again_is_sent_again_and_is_the_same() {
    let body = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n";
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("429", answer("429 Too Many Requests", "retry-after: 0\r\n", b"")),
        ("502", answer("502 Bad Gateway", "", b"<html>")),
        ("503", answer("503 Service Unavailable", "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", b"")),
        ("504", answer("504 Gateway Timeout", "retry-after: soon\r\n", b"")),
        ("cut before the answer", Vec::new()),
        ("cut in the answer", body.as_bytes().to_vec()),
        ("no HTTP", b"220 mail.example.com ESMTP\r\n".to_vec()),
        ("an endless answer", answer("200 OK", "", &vec![0; 1 << 20])),
    ];
    for (name, bytes) in bad {
        let home = Home::new();
        log(&home, 3);
        let collector = Collector::start(move |nth, _| if nth == 0 { bytes.clone() } else { ok() });
        let (code, printed, stderr) = done(&collector.drain(&home, ""));
        assert_eq!((code, &printed["sent"], position(&home)), (0, &Value::from(3), Some(3)), "{name}: {stderr}");
        assert!(stderr.contains("takes nothing"), "{name}: {stderr}");
        let asked = collector.asked();
        assert_eq!((asked.len(), asked[0].ids()), (2, asked[1].ids()), "{name}");
        assert!(parked(&home).is_empty(), "{name}");
    }
}

#[test]
fn a_collector_that_asks_for_a_pause_gets_it() {
    let home = Home::new();
    log(&home, 1);
    let collector = Collector::start(|nth, _| match nth {
        0 => answer("429 Too Many Requests", "retry-after: 3\r\n", b""),
        _ => ok(),
    });
    assert_eq!(done(&collector.drain(&home, "")).0, 0);
    let asked = collector.asked();
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(3));
}

#[test]
fn a_collector_that_stays_busy_or_away_is_given_up_and_nothing_is_lost() {
    let home = Home::new();
    log(&home, 3);
    let collector = Collector::start(|_, _| answer("503 Service Unavailable", "retry-after: 1\r\n", b""));
    let (code, printed, stderr) = done(&collector.drain(&home, "--patience-ms 1500"));
    assert_eq!((code, &printed["sent"], &printed["lag"]), (3, &Value::from(0), &Value::from(3)), "{stderr}");
    let message = format!(
        "the collector at `http://{}/v1/logs` takes nothing (status 503 Service Unavailable): check that it runs, then drain again",
        collector.address
    );
    assert!(stderr.contains(&message), "{stderr}");
    let (code, _, stderr) = done(&home.run(&format!("wal drain --to http://{} --patience-ms 0", free_address())));
    assert_eq!((code, position(&home)), (3, None), "{stderr}");
    let (code, _, stderr) = done(&home.run(&format!("wal drain --to https://{} --patience-ms 0", free_address())));
    assert!(code == 3 && stderr.contains("): check that it runs, and `drain.ca`, then drain again"), "{stderr}");
    assert_eq!(done(&Collector::start(|_, _| ok()).drain(&home, "--patience-ms 0")).1["sent"], 3);
}

#[test]
fn what_is_no_collector_for_us_gets_one_request_and_nothing_is_parked() {
    let error = |message: &str| [&[0x12, u8::try_from(message.len()).unwrap()], message.as_bytes()].concat();
    let wrong: Vec<(i32, &str, Vec<u8>)> = vec![
        (
            2,
            "status 301 Moved Permanently to \"https://elsewhere.example/\"",
            answer("301 Moved Permanently", "location: https://elsewhere.example/\r\n", b""),
        ),
        (
            2,
            "status 307 Temporary Redirect to \"/other\"",
            answer("307 Temporary Redirect", "location: /other\r\n", b""),
        ),
        (2, "status 401 Unauthorized: who are you\\u{1b}", answer("401 Unauthorized", "", &error("who are you\u{1b}"))),
        (2, "status 403 Forbidden", answer("403 Forbidden", "", b"<html>no</html>")),
        (2, "status 404 Not Found", answer("404 Not Found", "", b"")),
        (2, "status 405 Method Not Allowed", answer("405 Method Not Allowed", "", b"")),
        (2, "status 415 Unsupported Media Type", answer("415 Unsupported Media Type", "", b"")),
        (3, "status 501 Not Implemented", answer("501 Not Implemented", "", b"")),
        (
            3,
            "status 200 OK with a body that is not of OTLP",
            answer("200 OK", "", b"<html>Welcome to our hotel</html>"),
        ),
        (3, "status 200 OK with a body that is not of OTLP", answer("200 OK", "", b"{}")),
    ];
    for (code, why, bytes) in wrong {
        let home = Home::new();
        log(&home, 3);
        let collector = Collector::start(move |_, _| bytes.clone());
        let (found, _, stderr) = done(&collector.drain(&home, ""));
        assert_eq!(found, code, "{why}: {stderr}");
        let message = format!(
            "`http://{}/v1/logs` does not answer as a collector that takes logs from us ({why}): correct its url or the token",
            collector.address
        );
        let said: Value = serde_json::from_str(&stderr).unwrap();
        assert_eq!(said["error"], message);
        assert_eq!((collector.asked().len(), position(&home), parked(&home).len()), (1, None, 0), "{why}");
    }
}

#[test]
fn a_record_that_alone_is_refused_is_parked_and_passed_over() {
    for status in ["400 Bad Request", "413 Content Too Large", "422 Unprocessable Content", "500 Internal Server Error"]
    {
        for poison in [vec![1], vec![20], vec![7], vec![7, 8], vec![1, 20], (1..=15).collect()] {
            let home = Home::new();
            let records = log(&home, 20);
            let refused = poison.clone();
            let collector = Collector::start(move |_, asked| match asked.holds(&refused) {
                true => answer(status, "", b"\x12\x07too odd"),
                false => ok(),
            });
            let (code, printed, stderr) = done(&collector.drain(&home, ""));
            assert_eq!(code, 0, "{stderr}");
            let count = poison.len();
            assert_eq!((&printed["sent"], &printed["parked"]), (&Value::from(20 - count), &Value::from(count)));
            assert_eq!(position(&home), Some(20));
            let wal_id = &records[1].prev[..22];
            let parked = parked(&home);
            let ids: BTreeSet<_> = parked.iter().map(|line| line["ids"][0].as_str().unwrap().to_owned()).collect();
            assert_eq!(ids, poison.iter().map(|seq| format!("{wal_id}:{seq}")).collect());
            assert_eq!(parked[0]["why"], format!("status {}: too odd", canonical(status)));
            let taken = collector
                .asked()
                .iter()
                .filter(|asked| !asked.holds(&poison))
                .map(|asked| asked.records.len())
                .sum::<usize>();
            assert_eq!(taken, 20 - count, "each of the others was taken once");

            let (code, printed, _) = done(&Collector::start(|_, _| ok()).drain(&home, ""));
            assert_eq!((code, &printed["sent"], &printed["acknowledged"]), (0, &Value::from(0), &Value::from(20)));
        }
    }
}

/// The status as it is shown, whatever the answer calls it.
fn canonical(status: &str) -> &str {
    match status {
        "413 Content Too Large" => "413 Payload Too Large",
        "422 Unprocessable Content" => "422 Unprocessable Entity",
        other => other,
    }
}

#[test]
fn a_collector_that_refuses_everything_makes_nothing_be_parked() {
    for frames in [1, 5, 300] {
        let home = Home::new();
        let records = log(&home, frames);
        let collector = Collector::start(|_, _| answer("500 Internal Server Error", "", b""));
        let (code, printed, stderr) = done(&collector.drain(&home, ""));
        assert_eq!((code, &printed["sent"], &printed["parked"]), (3, &Value::from(0), &Value::from(0)), "{stderr}");
        let first = &records[0].hash()[..22];
        let said: Value = serde_json::from_str(&stderr).unwrap();
        let message = said["error"].as_str().unwrap();
        assert!(message.contains(&format!("refuses every record (`{first}:")), "{message}");
        assert!(
            message.ends_with("status 500 Internal Server Error): look at its own log; nothing was parked"),
            "{message}"
        );
        assert_eq!((position(&home), parked(&home).len()), (None, 0));
        assert!(collector.asked().len() <= 600, "{} requests", collector.asked().len());
        assert_eq!(done(&Collector::start(|_, _| ok()).drain(&home, "")).1["sent"], frames);
    }
}

#[test]
fn a_partial_success_is_not_sent_again_and_says_what_may_be_missing() {
    let home = Home::new();
    log(&home, 5);
    let collector = Collector::start(|_, _| in_part(2, "quota\n"));
    let (code, printed, _) = done(&collector.drain(&home, ""));
    assert_eq!((code, &printed["sent"], &printed["parked"]), (0, &Value::from(3), &Value::from(2)));
    let [line] = parked(&home).try_into().unwrap();
    assert_eq!((&line["rejected"], &line["why"]), (&Value::from(2), &Value::from("quota\\n")));
    assert_eq!(line["ids"].as_array().unwrap().len(), 5);
    assert_eq!((collector.asked().len(), position(&home)), (1, Some(5)));

    let home = Home::new();
    log(&home, 5);
    let (code, printed, _) = done(&Collector::start(|_, _| in_part(0, "use gzip")).drain(&home, ""));
    assert_eq!(
        (code, &printed["sent"], &printed["parked"], parked(&home).len()),
        (0, &Value::from(5), &Value::from(0), 0)
    );
}

#[test]
fn a_large_log_goes_in_requests_of_bounded_size_each_frame_once() {
    let home = Home::new();
    let (wal, _) = Wal::open(home.path("wal"), Options::default()).unwrap();
    for at in 0..300 {
        let size = if at % 100 == 0 { 400_000 } else { 10 };
        wal.append(vec![frame(Kind::Decision, &format!("{{\"text\":\"{}\"}}", "x".repeat(size))); 10]).wait().unwrap();
    }
    wal.close().unwrap();
    let collector = Collector::start(|_, _| ok());
    assert_eq!(done(&collector.drain(&home, "")).1["sent"], 3000);
    let seqs: Vec<_> = collector.arrived().iter().map(|record| seq(&record.id)).collect();
    assert_eq!(seqs, (1..=3000).collect::<Vec<_>>());
    for asked in collector.asked() {
        let bytes: usize = asked.records.iter().map(|record| record.body.len()).sum();
        assert!(asked.records.len() <= 256 && (asked.records.len() == 1 || bytes <= 1 << 20), "{bytes}");
    }
}

#[test]
fn a_token_is_sent_and_is_not_sent_in_the_clear_to_another_machine() {
    let home = Home::new();
    log(&home, 1);
    home.ok("host token --out collector.token");
    let token = fs::read_to_string(home.path("collector.token")).unwrap();
    let collector = Collector::start(|_, _| ok());
    assert_eq!(done(&collector.drain(&home, "--token-file collector.token")).0, 0);
    let header = format!("\r\nauthorization: bearer {}\r\n", token.trim().to_lowercase());
    assert!(collector.asked()[0].head.contains(&header));

    for (line, message) in [
        (
            "--to http://collector.example:4318",
            "flag `--to`: url `http://collector.example:4318` is neither https nor on this machine: use https, so that nobody between reads the token",
        ),
        (
            "--to localhost:4318",
            "flag `--to`: url `localhost:4318` does not start with `http://` or `https://`: put that, in lower case, before it",
        ),
        ("", "no collector: give `--to URL`, or set `AUTONOMY_DRAIN_TO` or `drain.to`"),
    ] {
        let (code, _, stderr) = done(&home.run(&format!("wal drain {line}")));
        assert_eq!((code, stderr.trim_end()), (2, format!("error: {message}").as_str()));
    }
}

#[test]
fn a_damaged_position_and_a_missing_log_are_told_apart() {
    let home = Home::new();
    let collector = Collector::start(|_, _| ok());
    assert_eq!(done(&collector.drain(&home, "")).0, 3, "no log");
    assert!(!home.path("wal").exists());
    log(&home, 3);
    assert_eq!(done(&collector.drain(&home, "")).0, 0);
    let mut bytes = fs::read(home.path("wal/telemetry.pos")).unwrap();
    bytes[12] ^= 1;
    fs::write(home.path("wal/telemetry.pos"), bytes).unwrap();
    let (code, _, stderr) = done(&collector.drain(&home, ""));
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("remove it to send the log from its start, with the same ids"), "{stderr}");
    fs::remove_file(home.path("wal/telemetry.pos")).unwrap();
    assert_eq!(done(&collector.drain(&home, "")).1["sent"], 3);
    let ids: BTreeSet<_> = collector.arrived().into_iter().map(|record| record.id).collect();
    assert_eq!((collector.arrived().len(), ids.len()), (6, 3), "twice, under the same ids");
}

/// A drain that follows the log.
struct Following(Child);

impl Following {
    fn start(home: &Home, collector: &str) -> Self {
        let mut command = home.program(autonomy());
        command.args(["wal", "drain", "--follow", "--output", "json", "--to", &format!("http://{collector}")]);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        let status = self.0.wait().unwrap();
        let mut printed = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (status.code(), printed)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_drain_that_is_killed_again_and_again_beside_a_live_writer_loses_nothing() {
    const KILLS: u64 = 40;
    const BATCHES: usize = 4000;
    let home = Home::new();
    let dir = home.path("wal");
    let (wal, _) = Wal::open(&dir, Options::default()).unwrap();
    wal.append(vec![frame(Kind::Lifecycle, "{}")]).wait().unwrap();
    // What the collector has answered 200 to, and what of it made it into an answer: it is slow, busy and cuts.
    let taken: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    let all = Arc::clone(&taken);
    let collector = Collector::start(move |nth, asked| match nth % 23 {
        3 | 14 => answer("503 Service Unavailable", "retry-after: 0\r\n", b""),
        7 => Vec::new(),
        _ => {
            all.lock().unwrap().extend(asked.records.iter().map(|record| seq(&record.id)));
            ok()
        }
    });
    let writer = thread::spawn(move || {
        for at in 0..BATCHES {
            let kind = [Kind::Decision, Kind::Action, Kind::Error][at % 3];
            wal.append(vec![frame(kind, &format!("{{\"n\":{at}}}")); 1 + at % 4]).wait().unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        wal.close().unwrap();
    });
    let mut positions = Vec::new();
    for kill in 0..KILLS {
        let drain = Following::start(&home, &collector.address);
        thread::sleep(Duration::from_millis(100 + kill * 137 % 500));
        assert_eq!(drain.end(Signal::KILL).0, None, "it was still at work");
        let position = position(&home).unwrap_or_default();
        let taken = taken.lock().unwrap();
        assert!((1..=position).all(|seq| taken.contains(&seq)), "the position is ahead of what was acknowledged");
        positions.push(position);
    }
    writer.join().unwrap();
    assert!(positions.is_sorted());
    let (code, printed, stderr) = done(&collector.drain(&home, ""));
    assert_eq!((code, &printed["lag"], &printed["parked"]), (0, &Value::from(0), &Value::from(0)), "{stderr}");

    let records = records(&dir);
    let wal_id = records[1].prev[..22].to_owned();
    let want: BTreeMap<_, _> =
        records.iter().map(|record| (format!("{wal_id}:{}", record.seq), record.payload.clone())).collect();
    let arrived = collector.arrived();
    let times = arrived.len();
    let found: BTreeMap<_, _> = arrived.into_iter().map(|record| (record.id, record.body)).collect();
    assert!(found == want, "{} of {} frames arrived as they are", found.len(), want.len());
    let moves = positions.windows(2).filter(|pair| pair[0] < pair[1]).count();
    println!(
        "{} frames arrived {times} times over {KILLS} kills, between which the position moved {moves} times",
        want.len()
    );
    assert!(moves > 3, "too little happened between the kills to mean anything");
}

#[test]
fn one_drain_at_a_time_follows_the_log_and_stops_when_it_is_asked_to() {
    let home = Home::new();
    let (wal, _) = Wal::open(home.path("wal"), Options::default()).unwrap();
    wal.append(vec![frame(Kind::Decision, "{}")]).wait().unwrap();
    let collector = Collector::start(|_, _| ok());
    let drain = Following::start(&home, &collector.address);
    until("the first frame arrives", || collector.arrived().len() == 1);
    let (code, _, stderr) = done(&collector.drain(&home, ""));
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains(&format!("is being drained by process {}: stop that process", drain.0.id())), "{stderr}");
    wal.append(vec![frame(Kind::Decision, "{}"); 2]).wait().unwrap();
    until("those that follow arrive", || collector.arrived().len() == 3 && position(&home) == Some(3));
    let (code, printed) = drain.end(Signal::TERM);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &printed["sent"], &printed["lag"]), (Some(0), &Value::from(3), &Value::from(0)));
}

#[test]
fn a_record_that_is_refused_while_nothing_else_comes_is_parked_once_something_does() {
    let home = Home::new();
    log(&home, 1);
    let (wal, _) = Wal::open(home.path("wal"), Options::default()).unwrap();
    let collector =
        Collector::start(|_, asked| if asked.holds(&[1]) { answer("400 Bad Request", "", b"") } else { ok() });
    assert_eq!(done(&collector.drain(&home, "")).0, 3, "it may be the collector's fault");
    wal.append(vec![frame(Kind::Decision, "{}")]).wait().unwrap();
    let (code, printed, _) = done(&collector.drain(&home, ""));
    assert_eq!((code, &printed["sent"], &printed["parked"]), (0, &Value::from(1), &Value::from(1)));
}

/// One number of `/metrics`.
fn metric(service: &Service, name: &str) -> u64 {
    let mut stream = TcpStream::connect(&service.address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("autonomy_{name} ")));
    line.unwrap_or_else(|| panic!("no {name}: {page}")).parse().unwrap()
}

#[test]
fn a_runtime_drains_in_the_background_and_decides_while_the_collector_is_away() {
    let home = Home::ready();
    let address = free_address();
    let line = format!(
        "runtime start --bundle bundle.tar --node-id robot-7 --mode enforce --listen 127.0.0.1:0 --drain-to http://{address}"
    );
    let runtime = Service::start(&home, &line);
    let call = || {
        let mut connection = runtime.connect();
        let (status, _) = connection
            .exchange("POST", "/v1/tool", "", "{\"kind\":\"tool.echo\",\"params\":{\"text\":\"hi\"}}")
            .unwrap();
        assert_eq!(status, 200);
    };
    call();
    until("it is told that nobody is there", || metric(&runtime, "drain_failures_total") > 0);
    assert!(metric(&runtime, "drain_lag") > 0);
    call();
    let collector = Collector::listen(TcpListener::bind(&address).unwrap(), |_, _| ok());
    until("everything arrives", || {
        metric(&runtime, "drain_lag") == 0 && metric(&runtime, "drain_seq") >= metric(&runtime, "wal_seq")
    });
    call();
    let last = metric(&runtime, "wal_seq");
    until("what follows arrives", || metric(&runtime, "drain_seq") >= last);
    runtime.signal(Signal::TERM);
    let (code, stderr) = runtime.ended();
    assert_eq!(code, 0, "{stderr}");
    // What was written while it stopped goes next time.
    assert_eq!(done(&collector.drain(&home, "")).0, 0);
    let arrived: BTreeSet<_> = collector.arrived().into_iter().map(|record| record.body).collect();
    let records: BTreeSet<_> = records(&home.path("wal")).into_iter().map(|record| record.payload).collect();
    assert_eq!(arrived, records);
    assert!(records.iter().any(|payload| payload.contains("runtime_stopped")));
}

#[test]
fn a_real_collector_writes_down_what_the_log_says() {
    let Some(program) = built_by_go("collector/collector") else { return };
    let home = Home::new();
    let (wal, _) = Wal::open(home.path("wal"), Options::default()).unwrap();
    for at in 0..2000 {
        let kind = Kind::ALL[at % Kind::ALL.len()];
        let outcome = if at % 2 == 0 { "allow" } else { "deny" };
        wal.append(vec![frame(kind, &format!("{{\"outcome\":\"{outcome}\",\"n\":{at},\"text\":\"é\\u0000\"}}"))])
            .wait()
            .unwrap();
    }
    // Longer than what most collectors were made for.
    wal.append(vec![frame(Kind::Error, &format!("{{\"text\":\"{}\"}}", "x".repeat(1_000_000))); 2]).wait().unwrap();
    wal.close().unwrap();
    let address = free_address();
    let drain = Following::start(&home, &address);
    let collector = Otelcol::start(&program, &home, &address);
    until("everything is acknowledged", || position(&home) == Some(2002));
    assert_eq!(drain.end(Signal::TERM).0, Some(0));
    let collected = collector.collected();

    let records = records(&home.path("wal"));
    let wal_id = &records[1].prev[..22];
    let by_id: BTreeMap<_, _> = collected
        .iter()
        .map(|(resource, record)| {
            (named(record)["autonomy.id"]["stringValue"].as_str().unwrap().to_owned(), (resource, record))
        })
        .collect();
    assert_eq!((by_id.len(), records.len()), (2002, 2002));
    for record in &records {
        let (resource, found) = &by_id[&format!("{wal_id}:{}", record.seq)];
        assert_eq!(found["body"]["stringValue"], record.payload);
        assert_eq!(found["timeUnixNano"], record.unix_ns().to_string());
        assert_eq!(found["eventName"], record.kind.as_str());
        let is_deny = record.attrs.contains("\"deny\"");
        let (number, text) = match record.kind {
            Kind::Error => (17, "ERROR"),
            Kind::Decision if is_deny => (13, "WARN"),
            Kind::Decision | Kind::Facts | Kind::Action | Kind::Lifecycle => (9, "INFO"),
        };
        assert_eq!((&found["severityNumber"], &found["severityText"]), (&number.into(), &text.into()));
        assert_eq!(resource["service.name"]["stringValue"], "autonomy-gate");
        let node_id = record.node_id.as_ref().map(NodeId::as_str);
        assert_eq!(resource["service.instance.id"]["stringValue"].as_str(), node_id);
        if record.seq <= 2000 {
            let attributes = named(found);
            assert_eq!(attributes["autonomy.attrs.n"]["intValue"], (record.seq - 1).to_string());
            assert_eq!(attributes["autonomy.attrs.text"]["stringValue"], "é\0");
        }
    }
}
