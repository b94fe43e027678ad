//! No token and no password is in what a program says or keeps, though whoever is asked refuses it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::Output,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    orchestrator::{authorization, call, fleet},
    service::{PATIENCE, Service},
    support::{Home, autonomy},
};

const PASSWORD: &str = "hunter2-of-the-registry";

/// Answers everything 401, and keeps the heads of what it was asked.
struct Refusing {
    address: String,
    heads: Arc<Mutex<String>>,
}

impl Refusing {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads: Arc<Mutex<String>> = Arc::default();
        let all = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).is_ok_and(|bytes| bytes > 0) {}
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
                let _ = stream.read_exact(&mut vec![0; length.parse().unwrap()]);
                all.lock().unwrap().push_str(&head);
                let refused = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"\r\n\
                               content-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.get_mut().write_all(refused.as_bytes());
            }
        });
        Self { address, heads }
    }

    /// Waits until it was sent this, which it refused.
    fn was_sent(&self, secret: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.heads.lock().unwrap().contains(secret) {
            assert!(Instant::now() < end, "it is not sent");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Fails where a text has one of the secrets.
fn hold_none(secrets: &[&str], what: &str, text: &str) {
    for secret in secrets {
        assert!(secret.len() > 16 && !text.contains(secret), "{what}: {text}");
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn token(home: &Home, name: &str) -> String {
    fs::read_to_string(home.path(name)).unwrap().trim_end().to_owned()
}

/// What a runtime leaves behind: its log, its last words and all that it counted.
fn end(home: &Home, runtime: Service, wal_dir: &str) -> String {
    let (_, metrics) = runtime.connect().exchange("GET", "/metrics", "", "").unwrap();
    runtime.signal(Signal::TERM);
    let (code, log) = runtime.ended();
    assert_eq!(code, 0, "{log}");
    let wal = home.ok(&format!("wal inspect --output json --wal-dir {wal_dir}"));
    assert!(wal.contains("runtime_stopped"), "{wal}");
    format!("{metrics}\n{log}\n{wal}")
}

#[test]
fn a_token_that_is_refused_is_not_in_what_a_runtime_a_drain_or_a_command_says() {
    let home = fleet();
    home.ok("host token --out collector.token");
    let pair = BASE64_STANDARD.encode(format!("ops:{PASSWORD}"));
    let refusing = Refusing::start();
    let at = &refusing.address;
    fs::write(home.path("auth.json"), json!({"auths": {at: {"auth": pair}}}).to_string()).unwrap();
    let (node, collector) = (token(&home, "robot-7.token"), token(&home, "collector.token"));
    let secrets = [node.as_str(), &collector, &pair, PASSWORD];
    let runtime = |flags: &str| {
        let line = "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --mode enforce --node-id robot-7 \
                    --lease-key lease.pem.pub --orchestrator-token-file robot-7.token";
        Service::start(&home, &format!("{line} {flags}"))
    };

    // By the orchestrator and by the collector.
    let drain = format!("--drain-to http://{at} --drain-token-file collector.token");
    let refused = runtime(&format!("{drain} --orchestrator-url http://{at} --wal-dir wal-a"));
    refusing.was_sent(&format!("Bearer {node}"));
    refusing.was_sent(&format!("Bearer {collector}"));
    assert_eq!(call(&mut refused.connect()), "attestation: enrollment_unavailable");
    let left = end(&home, refused, "wal-a");
    assert!(left.contains("does not take the token") && left.contains("401"), "{left}");
    hold_none(&secrets, "a runtime", &left);

    // By the registry of a bundle that it is asked to run.
    let orchestrator =
        Service::start(&home, "orchestrator serve --listen 127.0.0.1:0 --store fleet.sqlite --signing-key lease.pem");
    let operator = authorization(&home, "operator.token");
    let ask = |method: &str, path: &str, body: &str| {
        let (status, answer) = orchestrator.connect().exchange(method, path, &operator, body).unwrap();
        assert_eq!(status, 200, "{answer}");
        answer.to_string()
    };
    ask("PUT", "/v1/enrollments/robot-7", r#"{"enrollment_ref":"fleet-a"}"#);
    let bundle = format!("{at}/fleet/policies@sha256:{}", "0".repeat(64));
    ask("POST", "/v1/rollouts", &json!({"bundle": bundle, "selector": "all", "canary_percent": null}).to_string());
    let follows = runtime(&format!(
        "--orchestrator-url http://{} --wal-dir wal-b --auth-file auth.json --allow-insecure-registry",
        orchestrator.address
    ));
    refusing.was_sent(&format!("Basic {pair}"));
    let end_of_wait = Instant::now() + PATIENCE;
    let directive = loop {
        let directive = ask("GET", "/v1/directives/robot-7", "");
        if directive.contains("401") {
            break directive;
        }
        assert!(Instant::now() < end_of_wait, "{directive}");
        thread::sleep(Duration::from_millis(20));
    };
    hold_none(&secrets, "a directive", &directive);
    hold_none(&secrets, "a runtime that follows rollouts", &end(&home, follows, "wal-b"));

    // What people run.
    for (line, why) in [
        (format!("wal drain --wal-dir wal-a --to http://{at} --token-file collector.token"), "401"),
        (format!("node list --orchestrator-url http://{at} --orchestrator-token-file robot-7.token"), "the token"),
        (format!("bundle pull {at}/p:1 x.tar --auth-file auth.json --allow-insecure-registry"), "401"),
    ] {
        for format in ["text", "json"] {
            let run = home.run(&format!("{line} --output {format}"));
            let said = said(&run);
            assert!(!run.status.success() && said.contains(why), "{line}: {said}");
            hold_none(&secrets, &line, &said);
        }
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_not_said_again_wherever_the_url_stands() {
    let home = fleet();
    let url = format!("https://ops:{PASSWORD}@fleet.example");
    let hold = |what: &str, run: &Output| {
        let said = said(run);
        assert_eq!(run.status.code(), Some(2), "{what}: {said}");
        assert!(said.contains("***@fleet.example"), "{what}: {said}");
        hold_none(&[PASSWORD], what, &said);
    };
    let start = "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --node-id robot-7";
    for line in [
        format!("{start} --lease-key lease.pem.pub --orchestrator-url {url}"),
        format!("{start} --drain-to {url}"),
        format!("{start} --http-allow {url}"),
        format!("wal drain --to {url}"),
        format!("node list --orchestrator-url {url}"),
        format!("bundle pull {url}/p:1 x.tar"),
        format!("bundle pull ops:{PASSWORD}@fleet.example/p:1 x.tar"),
        format!("bundle push bundle.tar ops:{PASSWORD}@fleet.example/p:1"),
        format!("config set drain.to {url}"),
    ] {
        hold(&line, &home.run(&line));
    }
    for (variable, key) in [("AUTONOMY_DRAIN_TO", "drain.to"), ("AUTONOMY_ORCHESTRATOR_URL", "orchestrator.url")] {
        let words = start.split(' ');
        hold(variable, &home.program(autonomy()).args(words).env(variable, &url).output().unwrap());
        fs::write(home.path("config.toml"), format!("{key} = \"{url}\"\n")).unwrap();
        hold(key, &home.run(start));
        hold(key, &home.run("config show"));
        fs::remove_file(home.path("config.toml")).unwrap();
    }
}
