//! A runtime, and every question about the log that it writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Home, Run, Runtime, one_error};

fn frames(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_runtime_with_a_mistyped_node_id_says_at_its_start_which_one_is_enrolled() {
    let home = Home::ready();
    let runtime = home.start("--bundle bundle.tar --node-id Robot-7 --mode advisory");
    let warning: Value = serde_json::from_str(&runtime.stop()).unwrap();
    let warning = warning["warning"].as_str().unwrap();
    assert!(
        warning.starts_with("as things stand the gate fails every call with `attestation: not_enrolled`"),
        "{warning}"
    );
    assert!(warning.ends_with(": node `Robot-7` is not enrolled: `robot-7` is, did you mean that?"), "{warning}");
}

#[test]
fn every_signal_that_asks_a_runtime_to_end_lets_it_end_in_order() {
    let home = Home::ready();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let runtime = home.start("--bundle bundle.tar --node-id robot-7");
        assert_eq!(runtime.echo().0, 200);
        runtime.stop_by(signal);
    }
    assert_eq!(home.ok("wal inspect --kind autonomy.lifecycle").matches("runtime_stopped").count(), 3);
}

/// The runbook's second half: advisory, a look at the log, enforce, revoke, audit.
#[test]
fn a_rollout_from_advisory_to_enforce_can_be_followed_in_the_log() {
    let home = Home::ready();
    let start = "--bundle bundle.tar --node-id robot-8 --mode";
    let runtime = home.start(&format!("{start} advisory"));
    assert_eq!((&runtime.started["mode"], &runtime.started["mode_origin"]), (&"advisory".into(), &"flag".into()));
    let (status, answer) = runtime.echo();
    assert_eq!((status, &answer["decision"]), (200, &"allow".into()));
    let advisory_id = answer["audit_id"].as_str().unwrap().to_owned();
    // While it runs, too.
    let would = frames(&home.ok("wal inspect --kind autonomy.decision"));
    assert_eq!(would.len(), 2);
    assert_eq!(would[1]["attrs"]["reason"], "attestation: enrollment_ref_mismatch");
    assert_eq!(would[1]["attrs"]["enforced"], false);
    let preview = home.run("attestation preview --mode enforce");
    assert_eq!(preview.code, 1);
    assert!(preview.stdout.contains("SAFE      no\n") && preview.stdout.contains("robot-8"), "{preview:?}");
    let (code, preview) = home.json("attestation preview");
    assert_eq!((code, &preview["failing"], &preview["safe"]), (1, &1.into(), &false.into()));
    let twice = home.run("attestation preview --wal-dir wal --wal-dir ./wal/.");
    let message = "error: log `./wal/.` is named twice: its calls would be counted twice; name it once\n";
    assert_eq!((twice.code, twice.stderr.as_str()), (2, message));
    let copied = Command::new("cp").arg("-r").args([home.path("wal"), home.path("copy")]).status().unwrap();
    assert!(copied.success());
    let (_, both) = home.json("attestation preview --wal-dir wal --wal-dir copy");
    assert_eq!((&both["calls"], &both["failing"], &both["findings"][0]["calls"]), (&2.into(), &2.into(), &2.into()));
    assert_eq!(both["findings"][0]["last_audit_id"], preview["findings"][0]["last_audit_id"]);
    let warning: Value = serde_json::from_str(&runtime.stop()).unwrap();
    let expected =
        "as things stand the gate fails every call with `attestation: enrollment_ref_mismatch` (found `fleet-b`)";
    assert!(warning["warning"].as_str().unwrap().starts_with(expected), "{warning}");

    home.ok("node enroll --node-id robot-8 --enrollment-ref fleet-a --replace");
    let runtime = home.start(&format!("{start} enforce"));
    assert_eq!(runtime.echo().0, 200);
    assert_eq!(runtime.call(r#"{"kind":"tool.shell","params":{"command":"ls"}}"#).0, 403);
    home.ok("node revoke --node-id robot-8");
    let (status, denied) = runtime.echo();
    assert_eq!((status, &denied["reason"]), (403, &"attestation: enrollment_revoked".into()));
    let denied_id = denied["audit_id"].as_str().unwrap().to_owned();
    runtime.stop();

    let text = home.ok(&format!("audit get {denied_id}"));
    assert!(text.starts_with("outcome=deny\nreason=attestation: enrollment_revoked\ndetail=expected status `active`, found `revoked`\nremedy=enroll the node again"), "{text}");
    for line in ["tool=tool.echo", "policy_ref=fleet/policies@1.0.0", "mode=enforce", "node_id=robot-8"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let (_, got) = home.json(&format!("audit get {denied_id}"));
    assert_eq!(got["call"]["outcome"], "deny");
    let layers: Vec<_> =
        got["frames"].as_array().unwrap().iter().map(|frame| frame["attrs"]["layer"].clone()).collect();
    assert_eq!(layers.iter().filter(|layer| layer.is_string()).collect::<Vec<_>>(), ["policy", "attestation"]);
    let advisory = home.ok(&format!("audit get {advisory_id}"));
    assert!(
        advisory
            .starts_with("outcome=allow\nreason=policy: allowed\nwould_deny=attestation: enrollment_ref_mismatch\n"),
        "{advisory}"
    );
    assert!(advisory.contains("\nremedy=give the node the bundle"), "{advisory}");

    let outcomes = |line: &str| -> Vec<Value> {
        let (_, listed) = home.json(&format!("audit list {line}"));
        listed["calls"].as_array().unwrap().iter().map(|call| call["outcome"].clone()).collect()
    };
    assert_eq!(outcomes(""), ["allow", "allow", "deny", "deny"]);
    assert_eq!(outcomes("--outcome deny").len(), 2);
    assert_eq!(outcomes("--reason enrollment_revoked"), ["deny"]);
    assert_eq!(outcomes("--reason enrollment_ref_mismatch"), ["allow"], "what it would have been");
    assert_eq!(outcomes("--node-id robot-7").len(), 0);
    assert_eq!(outcomes("--since 1h").len(), 4);
    let (_, limited) = home.json("audit list --limit 1");
    assert_eq!((&limited["calls"][0]["audit_id"], &limited["more"]), (&denied_id.as_str().into(), &true.into()));
    let mistyped = home.run("audit list --node-id ROBOT-8");
    assert_eq!(mistyped.stderr, "note: no such call in this log: node `robot-8` has some, did you mean that?\n");
    let table = home.ok("audit list");
    assert_eq!(table.lines().count(), 5);
    assert!(table.starts_with("AT "), "{table}");

    let replay = home.ok("attestation replay");
    assert_eq!(replay, "CALLS      4\nSAME       4\nDIFFERENT  0\nUNJUDGED   0\n");
    assert_eq!(home.json("attestation replay").1["same"], 4);
    assert!(home.ok("wal verify").contains("VERDICT    every frame holds\n"));
    assert_eq!(home.json("wal verify").1["holds"], true);
    let doctor = home.run("wal doctor");
    assert_eq!((doctor.code, doctor.stderr.as_str()), (0, "note: it needs no doctor\n"));
    let lines = ["wal doctor", "wal doctor --accept-loss", "wal verify", "wal inspect", "audit list"];
    let refused = lines.map(|line| home.fails(3, &format!("{line} --wal-dir nowhere")));
    assert!(refused.iter().all(|one| *one == refused[0]), "{refused:?}");
}

#[test]
fn frames_are_printed_as_they_are_in_the_log_and_chosen_by_kind_call_and_time() {
    let home = Home::ready();
    let runtime = home.start("--bundle bundle.tar --node-id robot-7");
    let id = runtime.echo().1["audit_id"].as_str().unwrap().to_owned();
    runtime.echo();
    runtime.stop();
    let text = home.ok("wal inspect");
    assert_eq!(home.run("wal inspect --output json").stdout, text, "the same with either output");
    let log = fs::read(home.path("wal/telemetry.wal")).unwrap();
    let (mut at, mut payloads) = (0, String::new());
    while let Some(length) = log.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        payloads.push_str(std::str::from_utf8(&log[at + 4..at + 4 + length]).unwrap());
        payloads.push('\n');
        at += 4 + length;
    }
    assert_eq!(text, payloads);
    let kinds =
        |line: &str| -> Vec<Value> { frames(&home.ok(line)).into_iter().map(|frame| frame["kind"].clone()).collect() };
    assert!(kinds("wal inspect --kind facts").iter().all(|kind| kind == "autonomy.facts"));
    assert!(kinds("wal inspect --kind facts --kind autonomy.lifecycle").contains(&"autonomy.lifecycle".into()));
    assert!(
        frames(&home.ok(&format!("wal inspect --audit-id {id}"))).iter().all(|frame| frame["audit_id"] == id.as_str())
    );
    assert_eq!(home.ok("wal inspect --since 2100-01-01T00:00:00Z"), "");
    assert_eq!(home.ok("wal inspect --since 1h"), text);
}

#[test]
fn a_followed_log_shows_new_frames_as_they_come() {
    let home = Home::ready();
    let runtime = home.start("--bundle bundle.tar --node-id robot-7");
    let arguments = ["wal", "inspect", "--follow", "--kind", "autonomy.decision"];
    let mut follower = home.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let id = runtime.echo().1["audit_id"].clone();
        let frame: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(frame["audit_id"], id);
    }
    // As `| head` does: the next frame finds nobody reading.
    drop(lines);
    runtime.echo();
    let run = Run::from(follower.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    runtime.stop();
}

#[test]
fn a_runtime_says_what_it_runs_and_refuses_what_it_cannot() {
    let home = Home::ready();
    let runtime = home.start("--policy-dir src/policies --node-id robot-7");
    assert_eq!(runtime.started["mode_origin"], "default");
    assert_eq!(runtime.echo().0, 200);
    let taken = runtime.started["address"].as_str().unwrap().to_owned();
    let second = home.fails(3, &format!("runtime start --listen {taken} --wal-dir other"));
    assert!(second.starts_with(&format!("cannot listen on `{taken}`")), "{second}");
    assert!(!home.path("other").exists(), "no trace in a log");
    let locked = home.fails(3, "runtime start --listen 127.0.0.1:0");
    assert!(locked.contains("is in use by process"), "{locked}");
    runtime.stop();

    home.ok("bundle build --source src --name a --version 1.0.0 --out unsigned.tar");
    let unsigned = home.fails(2, "runtime start --listen 127.0.0.1:0 --bundle unsigned.tar");
    assert!(
        unsigned.starts_with("bundle `unsigned.tar` is refused: 0 of 1 needed trusted keys have signed"),
        "{unsigned}"
    );
    let open = home.fails(2, "runtime start --listen 0.0.0.0:0");
    assert!(open.contains("is not a loopback address"), "{open}");
    let gone = home.fails(3, "runtime start --listen 127.0.0.1:0 --bundle gone.tar");
    assert!(gone.starts_with("cannot read `gone.tar`"), "{gone}");
    let url = home.fails(2, "runtime start --listen 127.0.0.1:0 --http-allow ftp://a");
    assert!(url.starts_with("flag `--http-allow`: "), "{url}");

    let idle = home.start("");
    let (status, answer) = idle.echo();
    assert_eq!((status, &answer["reason"]), (403, &"policy: no_bundle".into()));
    idle.stop();
}

#[test]
fn a_damaged_log_exits_with_4_until_the_doctor_is_told_to_accept_the_loss() {
    let home = Home::ready();
    for line in ["wal inspect", "wal verify", "audit list", "attestation preview", "attestation replay"] {
        let missing = home.fails(3, line);
        assert!(missing.starts_with("no log at `") && missing.contains("start a runtime"), "{missing}");
    }
    let runtime = home.start("--bundle bundle.tar --node-id robot-7");
    let (_, first) = runtime.echo();
    runtime.echo();
    runtime.stop();
    let unknown = home.fails(2, "audit get 0196f0c2-7d3e-7a41-9f55-0c5d8e1b2a34");
    assert!(
        unknown.starts_with("no frame has audit id `0196f0c2-7d3e-7a41-9f55-0c5d8e1b2a34`: check the id"),
        "{unknown}"
    );

    let path = home.path("wal/telemetry.wal");
    let mut log = fs::read(&path).unwrap();
    // Damage after a call hides nothing of it.
    let get = format!("audit get {}", first["audit_id"].as_str().unwrap());
    let whole = home.ok(&format!("{get} --output json"));
    let end = log.len() - 30;
    log[end] ^= 1;
    fs::write(&path, &log).unwrap();
    let run = home.run(&format!("{get} --output json"));
    assert_eq!((run.code, run.stdout, run.stderr.lines().count()), (4, whole.clone(), 1), "{}", run.stderr);
    let whole = serde_json::from_str::<Value>(&whole).unwrap();
    let run = home.run("audit list --output json");
    let listed = serde_json::from_str::<Value>(&run.stdout).unwrap();
    assert_eq!((run.code, listed["calls"].as_array().unwrap().len()), (4, 2), "{run:?}");
    assert_eq!(listed["calls"][0]["audit_id"], whole["audit_id"]);
    let run = home.run("audit list");
    assert!(run.code == 4 && run.stdout.contains(first["audit_id"].as_str().unwrap()), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let run = home.run(&get);
    assert!(run.code == 4 && run.stdout.starts_with("outcome=") && run.stderr.starts_with("error: log at "), "{run:?}");
    log[end] ^= 1;
    let middle = log.len() / 2;
    log[middle] ^= 1;
    fs::write(&path, &log).unwrap();
    for line in ["wal inspect", "wal verify", "audit list", "attestation replay", "wal doctor"] {
        let run = home.run(line);
        assert_eq!(run.code, 4, "{line}: {run:?}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.lines().count() == 1, "{line}: {run:?}");
    }
    let error = home.run("wal verify --output json").stderr;
    assert_eq!(serde_json::from_str::<Value>(&error).unwrap()["class"], "damaged");
    let refused = home.fails(4, "runtime start --listen 127.0.0.1:0");
    assert!(refused.contains("autonomy wal doctor"), "{refused}");
    let look = home.run("wal doctor");
    assert!(look.stdout.contains("OPENING     fail\n") && look.stderr.contains("`--accept-loss`"), "{look:?}");
    assert_eq!(fs::read(&path).unwrap(), log, "a look changes nothing");

    let (code, doctored) = home.json("wal doctor --accept-loss");
    assert_eq!(code, 0);
    assert!(doctored["doctored"]["lost"].as_u64().unwrap() > 0, "{doctored}");
    for copy in doctored["doctored"]["copies"].as_array().unwrap() {
        assert!(home.path("wal").join(copy.as_str().unwrap()).exists(), "{copy}");
    }
    assert!(home.ok("wal verify").contains("every frame holds"));
    assert!(home.ok("wal inspect --kind lifecycle").contains("wal_doctored"));
    home.start("--bundle bundle.tar --node-id robot-7").stop();
}

/// What a runtime answered and wrote down, without what no two runs share: times, ids, and where it listens.
#[derive(Debug, PartialEq)]
struct Story {
    started: Value,
    beside: String,
    answers: Vec<(u16, Value)>,
    /// The frames of each call and of the runtime itself. In the place of the id of its facts, a decision has the facts.
    frames: Vec<Value>,
}

/// A story told by a runtime on a new log and a new store, in an engine.
fn story(home: &Home, engine: &str, line: &str, tell: impl FnOnce(&Home, &Runtime) -> Vec<(u16, Value)>) -> Story {
    let _ = fs::remove_dir_all(home.path("wal"));
    for file in ["enrollment.sqlite", "enrollment.sqlite-wal", "enrollment.sqlite-shm"] {
        let _ = fs::remove_file(home.path(file));
    }
    home.ok("node enroll --node-id robot-9 --enrollment-ref fleet-a");
    let runtime = home.start(&format!("{line} --node-id robot-7 --engine {engine}"));
    let mut started = runtime.started.clone();
    assert_eq!(started["engine"], engine);
    started["address"].take();
    started["engine"].take();
    let mut answers = tell(home, &runtime);
    let beside = runtime.stop();
    for (_, answer) in &mut answers {
        answer["audit_id"].take();
    }
    assert_eq!(home.ok("attestation replay").lines().nth(2), Some("DIFFERENT  0"));
    Story { started, beside, answers, frames: comparable(frames(&home.ok("wal inspect"))) }
}

fn comparable(frames: Vec<Value>) -> Vec<Value> {
    let mut told = BTreeMap::new();
    let mut comparable = Vec::new();
    for mut frame in frames {
        let (kind, node_id) = (frame["kind"].take(), frame["node_id"].take());
        let attrs = &mut frame["attrs"];
        if kind == "autonomy.facts" {
            without_times(&mut attrs["facts"]);
            // A row that is read again after a while has another time: whether it was depends on the machine.
            told.insert(attrs["id"].as_str().unwrap().to_owned(), attrs["facts"].take());
            continue;
        }
        if kind == "autonomy.decision" {
            attrs["facts"] = told[attrs["facts"].as_str().unwrap()].clone();
        }
        without_times(attrs);
        comparable.push(json!([kind, node_id, attrs]));
    }
    comparable
}

fn without_times(value: &mut Value) {
    let Some(members) = value.as_object_mut() else { return };
    // Of the runtime's own frames, the facts hold the time of the row.
    if members.contains_key("event") {
        members.remove("facts");
    }
    for time in ["now_ms", "took_ms", "observed_at_ms", "not_before_ms", "not_after_ms"] {
        members.remove(time);
    }
    members.values_mut().for_each(without_times);
}

/// Every change of an enrollment, with calls of each kind after it.
fn changes(home: &Home, runtime: &Runtime) -> Vec<(u16, Value)> {
    let mut answers = Vec::new();
    for change in [
        "",
        "node enroll --node-id robot-7 --enrollment-ref fleet-a",
        "rollout set --node-id robot-7 --state failed",
        "rollout set --node-id robot-7 --state active",
        "node enroll --node-id robot-7 --enrollment-ref fleet-b --replace",
        "node enroll --node-id robot-7 --enrollment-ref fleet-a --replace",
        "node revoke --node-id robot-7",
        "node enroll --node-id robot-7 --enrollment-ref fleet-a",
    ] {
        if !change.is_empty() {
            home.ok(change);
        }
        for body in [
            r#"{"kind":"tool.echo","params":{"text":"hello"}}"#,
            r#"{"kind":"tool.shell","params":{"command":"ls"}}"#,
            r#"{"kind":"no tool","params":{}}"#,
            r#"{"kind":"tool.echo"}"#,
        ] {
            answers.push(runtime.call(body));
        }
    }
    // A store that is away has not answered.
    fs::rename(home.path("enrollment.sqlite"), home.path("away.sqlite")).unwrap();
    answers.push(runtime.echo());
    fs::rename(home.path("away.sqlite"), home.path("enrollment.sqlite")).unwrap();
    answers.push(runtime.echo());
    answers
}

#[test]
fn a_runtime_that_decides_in_the_module_answers_and_logs_as_another() {
    let home = Home::with_bundle();
    home.ok(
        "bundle build --source src --name fleet/policies --version 1.0.0 --key keys/bundle.pem --out undeclared.tar",
    );
    let modes = ["off", "advisory", "enforce"];
    let lines = modes.iter().map(|mode| format!("--bundle bundle.tar --mode {mode}")).chain([
        "--bundle undeclared.tar --mode enforce".to_owned(),
        "--policy-dir src/policies --mode enforce".to_owned(),
        "--mode enforce".to_owned(),
    ]);
    let mut reasons = BTreeSet::new();
    for line in lines {
        let [native, module] = ["native", "wasm"].map(|engine| story(&home, engine, &line, changes));
        let Story { started, beside, answers, frames } = native;
        assert_eq!((module.started, module.beside), (started, beside), "{line}");
        assert_eq!(module.answers, answers, "{line}");
        assert_eq!(module.frames, frames, "{line}");
        reasons.extend(answers.iter().map(|(status, answer)| format!("{status} {}", answer["reason"])));
    }
    for reason in [
        "200 null",
        "400 null",
        "403 \"policy: no_bundle\"",
        "403 \"policy: denied\"",
        "403 \"attestation: bundle_unverified\"",
        "403 \"attestation: enrollment_ref_undeclared\"",
        "403 \"attestation: not_enrolled\"",
        "403 \"attestation: enrollment_revoked\"",
        "403 \"attestation: enrollment_ref_mismatch\"",
        "403 \"attestation: rollout_incoherent\"",
        "403 \"attestation: enrollment_unavailable\"",
    ] {
        assert!(reasons.contains(reason), "{reason} is not among {reasons:?}");
    }
}

#[test]
fn a_bundle_that_does_not_hold_is_refused_alike_by_a_runtime_in_the_module() {
    let home = Home::ready();
    let whole = fs::read(home.path("bundle.tar")).unwrap();
    fs::write(home.path("cut.tar"), &whole[..whole.len() - 512]).unwrap();
    fs::write(home.path("empty.tar"), "").unwrap();
    home.ok("bundle build --source src --name a --version 1.0.0 --out unsigned.tar");
    for bundle in ["cut", "empty", "unsigned", "gone"] {
        let line = format!("runtime start --listen 127.0.0.1:0 --node-id robot-7 --bundle {bundle}.tar");
        let [native, module] = ["native", "wasm"].map(|engine| home.run(&format!("{line} --engine {engine}")));
        assert_ne!(native.code, 0, "{bundle}");
        let found = (module.code, module.stdout, module.stderr);
        assert_eq!(found, (native.code, native.stdout, native.stderr), "{bundle}");
    }
}

#[test]
fn a_pipe_or_a_device_in_the_place_of_a_file_is_refused_at_once() {
    let home = Home::ready();
    home.start("--bundle bundle.tar --node-id robot-7").stop();
    let reads = ["wal verify", "wal inspect", "wal doctor"];
    for (name, refused) in [
        ("telemetry.wal", [reads.as_slice(), &["runtime start --listen 127.0.0.1:0"]].concat()),
        ("wal.lock", vec!["runtime start --listen 127.0.0.1:0"]),
        ("telemetry.safe_seq", vec![]),
    ] {
        let path = home.path("wal").join(name);
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        for line in refused {
            let error = home.fails(3, line);
            assert!(error.contains(name) && error.contains("it is not a regular file"), "{line}: {error}");
        }
        // What is not needed to read the log is read past, and nothing waits.
        for line in reads {
            assert!([0, 3].contains(&home.run(line).code), "{line}");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, kept).unwrap();
    }
    let error = home.fails(2, "node list --orchestrator-url https://127.0.0.1:1 --orchestrator-ca /dev/zero");
    assert!(error.contains("`/dev/zero`: it is not a regular file"), "{error}");
}

#[test]
fn a_bundle_that_is_refused_at_the_start_is_named() {
    let home = Home::ready();
    let whole = fs::read(home.path("bundle.tar")).unwrap();
    fs::write(home.path("cut.tar"), &whole[..whole.len() - 512]).unwrap();
    let error = home.fails(2, "runtime start --listen 127.0.0.1:0 --bundle cut.tar --node-id robot-7");
    assert!(error.starts_with("bundle `cut.tar` is refused: "), "{error}");
}

#[test]
fn a_path_that_is_no_path_of_a_runtime_is_told_which_ones_are() {
    let home = Home::ready();
    let runtime = home.start("--bundle bundle.tar --node-id robot-7");
    let (status, answer) = runtime.post("/v1/tools", "{}");
    let serves = "no such path: a runtime serves `POST /v1/tool` with `{\"kind\": \"…\", \"params\": …}`, and `GET` of `/healthz`, \
                  `/readyz` and `/metrics`: see `docs/src/spec/http.md`";
    assert_eq!((status, answer["error"].as_str()), (404, Some(serves)));
}

#[test]
fn a_service_that_does_not_get_its_address_leaves_nothing_behind() {
    let home = Home::ready();
    home.ok("host token");
    home.ok("orchestrator token --name ops --role operator --out ops.token");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let there = || {
        let entries = fs::read_dir(home.path("")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    // SQLite keeps what it needs beside a store that was opened once.
    home.ok("node list");
    let before = there();
    for line in [
        "runtime start --bundle bundle.tar --node-id robot-7",
        "host serve",
        "orchestrator serve --store new.sqlite --signing-key keys/bundle.pem",
    ] {
        let error = home.fails(3, &format!("{line} --listen {address}"));
        assert!(error.starts_with(&format!("cannot listen on `{address}`: ")), "{error}");
        assert_eq!(there(), before, "{line}");
    }
}

#[test]
fn a_command_in_a_remedy_can_be_run_as_it_stands() {
    let home = Home::ready();
    fs::create_dir(home.path("my log")).unwrap();
    fs::write(home.path("my log/telemetry.wal"), "").unwrap();
    let run = home.run_words(&["runtime", "start", "--listen", "127.0.0.1:0", "--wal-dir", "my log"]);
    let error = one_error(&run);
    assert!(run.code == 4 && error.ends_with("run `autonomy wal doctor --wal-dir 'my log'`"), "{error}");
}
