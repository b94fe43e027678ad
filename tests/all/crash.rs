//! A real runtime under load, killed, revoked, without disk, beside another, stopped: what was answered is in the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Result, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    service::{Connection, PATIENCE, Service},
    support::Home,
};

const CONNECTIONS: usize = 32;

/// Answers that a round must have before it counts: idling proves nothing.
const LEAST_ANSWERS: usize = 10 * CONNECTIONS;

const RUNTIME: &str = "runtime start --listen 127.0.0.1:0 --bundle bundle.tar --node-id robot-7";

fn start(home: &Home, line: &str) -> Service {
    Service::start(home, &format!("{RUNTIME} {line}"))
}

/// What a client was told.
#[derive(Debug)]
struct Answer {
    call: Value,
    started: Instant,
    ended: Instant,
    status: u16,
    body: Value,
}

impl Answer {
    fn audit_id(&self) -> &str {
        self.body["audit_id"].as_str().unwrap()
    }
}

fn call(connection: &mut Connection, call: Value) -> Result<Answer> {
    let started = Instant::now();
    let (status, body) = connection.exchange("POST", "/v1/tool", "", &call.to_string())?;
    Ok(Answer { call, started, ended: Instant::now(), status, body })
}

fn echo() -> Value {
    json!({"kind": "tool.echo", "params": {"text": "hello"}})
}

/// Clients that call as fast as they are answered, and keep what they are told.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Vec<Answer>>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// `make` makes the n-th call of a connection.
    fn start(runtime: &Service, make: impl Fn(usize, usize) -> Value + Send + Sync + 'static) -> Self {
        let (stop, make) = (Arc::new(AtomicBool::new(false)), Arc::new(make));
        let answers = Arc::new(Mutex::new((0..CONNECTIONS).map(|_| Vec::new()).collect::<Vec<_>>()));
        let clients = (0..CONNECTIONS).map(|client| {
            let mut connection = runtime.connect();
            let (stop, answers, make) = (Arc::clone(&stop), Arc::clone(&answers), Arc::clone(&make));
            thread::spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // A call without an answer is one that was told nothing.
                    let Ok(answer) = call(&mut connection, make(client, number)) else { return };
                    answers.lock().unwrap()[client].push(answer);
                }
            })
        });
        let clients = clients.collect();
        Self { stop, answers, clients }
    }

    /// Waits for so many more answers, at least one of them on each connection.
    fn wait_for(&self, more: usize) {
        let count = || self.answers.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>();
        let (before, end) = (count(), Instant::now() + PATIENCE);
        loop {
            let now = count();
            let each = now.iter().zip(&before).all(|(now, before)| now > before);
            if each && now.iter().sum::<usize>() >= before.iter().sum::<usize>() + more {
                return;
            }
            assert!(Instant::now() < end, "too few calls are answered: {before:?}, then {now:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Every answer, once no client is left.
    fn end(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        answers.into_iter().flatten().collect()
    }
}

/// What the log says of each call: the decisions of its layers, in order.
pub(crate) fn decisions(home: &Home) -> BTreeMap<String, Vec<Value>> {
    let mut calls = BTreeMap::<_, Vec<_>>::new();
    for line in home.ok("wal inspect --kind autonomy.decision").lines() {
        let frame: Value = serde_json::from_str(line).unwrap();
        calls.entry(frame["audit_id"].as_str().unwrap().to_owned()).or_default().push(frame["attrs"].clone());
    }
    calls
}

/// The log holds, and it can be decided again; how many calls are in it.
pub(crate) fn the_log_holds(home: &Home) -> usize {
    let verified: Value = serde_json::from_str(&home.ok("wal verify --output json")).unwrap();
    assert_eq!((&verified["holds"], &verified["fault"]), (&json!(true), &Value::Null));
    let replayed: Value = serde_json::from_str(&home.ok("attestation replay --output json")).unwrap();
    assert_eq!((&replayed["differences"], &replayed["unjudged"]), (&json!([]), &json!(0)));
    replayed["calls"].as_u64().unwrap().try_into().unwrap()
}

/// Every answer is in the log as it was given, the log holds, and it can be decided again.
fn all_is_in_the_log(home: &Home, answers: &[Answer]) {
    let logged = decisions(home);
    for answer in answers {
        let Some(frames) = logged.get(answer.audit_id()) else { panic!("answered and not in the log: {answer:?}") };
        let (policy, gate) = (&frames[0], frames.get(1));
        assert_eq!(policy["layer"], "policy");
        match answer.status {
            // In advisory a deny stands beside the answer.
            200 => {
                assert_eq!(policy["outcome"], "allow", "{answer:?} {frames:?}");
                assert!(gate.is_none_or(|gate| gate["enforced"] == false), "{answer:?} {frames:?}");
            }
            403 => {
                let last = gate.unwrap_or(policy);
                assert_eq!((&last["outcome"], &last["reason"]), (&json!("deny"), &answer.body["reason"]), "{answer:?}");
                assert!(gate.is_none_or(|gate| gate["enforced"] == true), "{answer:?} {frames:?}");
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert_eq!(the_log_holds(home), logged.len());
}

#[test]
fn nothing_that_was_answered_is_lost_when_the_runtime_is_killed_at_any_moment() {
    killed(&Home::ready(), 8, "");
}

#[test]
fn nothing_that_was_answered_is_lost_over_many_segments_and_what_is_left_of_them_can_be_decided_again() {
    let home = Home::ready();
    killed(&home, 4, "--segment-bytes 16384 --retain-bytes 1");
    let segments = || {
        let names = fs::read_dir(home.path("wal")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("telemetry-")).count()
    };
    assert!(segments() > 20, "{} segments: nothing was drained, so nothing is deleted", segments());
    let calls = the_log_holds(&home);
    let pruned: Value =
        serde_json::from_str(&home.ok("wal prune --retain-bytes 100000 --prune any --output json")).unwrap();
    let last = &pruned["pruned"].as_array().unwrap().last().unwrap()["last"];
    assert!(segments() < 8, "{pruned}");
    // Each segment has the facts of its decisions: nothing is left unjudged.
    let left = the_log_holds(&home);
    assert!(0 < left && left < calls, "{left} of {calls}");
    let text = home.ok("wal verify");
    let begins =
        format!("it begins with frame {}: those before were pruned, as it says itself", last.as_u64().unwrap() + 1);
    assert!(text.contains(&begins), "{text}");
    let runtime = start(&home, "--mode enforce");
    assert_eq!(call(&mut runtime.connect(), echo()).unwrap().status, 200);
    runtime.kill();
    the_log_holds(&home);
    let first = fs::read_dir(home.path("wal")).unwrap().map(|entry| entry.unwrap().path());
    fs::remove_file(first.filter(|path| path.to_string_lossy().contains("/telemetry-")).min().unwrap()).unwrap();
    let verified = home.run("wal verify");
    let stderr = String::from_utf8(verified.stderr).unwrap();
    assert_eq!(verified.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("no frame in it says that what came before was pruned"), "{stderr}");
}

/// Kills a runtime under load so many times; in the last round it is stopped in order.
fn killed(home: &Home, rounds: usize, flags: &str) {
    let (mut answers, mut repaired) = (Vec::new(), 0);
    for round in 0..rounds {
        let runtime = start(home, &format!("{} {flags}", ["--mode enforce", "--mode advisory"][round % 2]));
        let load = Load::start(&runtime, |client, number| match (client + number) % 8 {
            0 => json!({"kind": "tool.shell", "params": {"command": "ls"}}),
            _ => echo(),
        });
        load.wait_for(LEAST_ANSWERS);
        // The facts change under the load, too.
        home.ok(&format!("rollout set --node-id robot-7 --state {}", ["failed", "active"][round % 2]));
        load.wait_for(1);
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
        thread::sleep(Duration::from_micros(u64::from(nanos / 1000 % 50_000)));
        // In the last round as an init system stops it.
        if round == rounds - 1 {
            runtime.signal(Signal::TERM);
            assert_eq!(runtime.ended().0, 0);
        } else {
            runtime.kill();
        }
        let answered = load.end();
        assert!(answered.len() >= LEAST_ANSWERS, "idling does not count");
        println!("round {round}: {} answers", answered.len());
        answers.extend(answered);
        repaired = fs::read_dir(home.path("wal"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("telemetry.tail."))
            .count();
    }
    let ids: BTreeSet<_> = answers.iter().map(Answer::audit_id).collect();
    assert_eq!(ids.len(), answers.len(), "an audit id was given twice");
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    println!("{} allowed, {} denied, {repaired} unfinished writes set aside", count(200), count(403));
    assert!(count(200) > 0 && count(403) > 0);
    all_is_in_the_log(home, &answers);
}

#[test]
fn no_call_that_begins_after_a_revoke_has_returned_is_allowed() {
    let home = Home::ready();
    let runtime = start(&home, "--mode enforce");
    let (mut revokes, load) = (Vec::new(), Load::start(&runtime, |_, _| echo()));
    for _ in 0..5 {
        load.wait_for(LEAST_ANSWERS);
        // By another process.
        home.ok("node revoke --node-id robot-7");
        let from = Instant::now();
        load.wait_for(LEAST_ANSWERS);
        let until = Instant::now();
        home.ok("node enroll --node-id robot-7 --enrollment-ref fleet-a");
        revokes.push((from, until));
    }
    load.wait_for(LEAST_ANSWERS);
    let answers = load.end();
    let mut denied = 0;
    for (from, until) in revokes {
        // Until the next command begins: what ends after that may have been decided on the new enrollment.
        let within: Vec<_> = answers.iter().filter(|answer| from <= answer.started && answer.ended <= until).collect();
        assert!(within.len() >= LEAST_ANSWERS / 2, "idling does not count: {}", within.len());
        for answer in &within {
            let told = (answer.status, &answer.body["reason"]);
            assert_eq!(told, (403, &json!("attestation: enrollment_revoked")), "{answer:?}");
        }
        denied += within.len();
    }
    assert!(answers.iter().any(|answer| answer.status == 200));
    println!("{} answers, {denied} of them begun after a revoke, each denied", answers.len());
    runtime.kill();
    all_is_in_the_log(&home, &answers);
}

/// A web server that notes what it is asked, and answers when it is let.
struct Site {
    address: String,
    state: Arc<(Mutex<SiteState>, Condvar)>,
}

#[derive(Default)]
struct SiteState {
    asked: Vec<String>,
    open: bool,
}

impl Site {
    fn new(open: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new((Mutex::new(SiteState { open, ..SiteState::default() }), Condvar::new()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                // A client that goes away is the test's business.
                thread::spawn(move || stream.and_then(|stream| Self::serve(stream, &state)));
            }
        });
        Self { address, state }
    }

    fn serve(mut stream: TcpStream, (state, changed): &(Mutex<SiteState>, Condvar)) -> Result<()> {
        let mut request = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request)? > 0 {}
        let mut state = state.lock().unwrap();
        state.asked.push(request.split(' ').nth(1).unwrap_or_default().to_owned());
        changed.notify_all();
        drop(changed.wait_while(state, |state| !state.open).unwrap());
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    }

    fn call(&self, path: &str) -> Value {
        json!({"kind": "tool.http_get", "params": {"url": format!("http://{}{path}", self.address)}})
    }

    fn wait_until_asked(&self, times: usize) {
        let (state, changed) = &*self.state;
        let waited = changed.wait_timeout_while(state.lock().unwrap(), PATIENCE, |state| state.asked.len() < times);
        assert!(!waited.unwrap().1.timed_out(), "not asked {times} times");
    }

    fn open(&self) {
        self.state.0.lock().unwrap().open = true;
        self.state.1.notify_all();
    }

    fn asked(&self) -> Vec<String> {
        self.state.0.lock().unwrap().asked.clone()
    }
}

/// A place whose policies allow `tool.http_get`.
fn home_with_http_get() -> Home {
    let home = Home::ready();
    let rego = "package autonomy\n\ndefault allow := false\n\nallow if input.kind == \"tool.http_get\"\n";
    fs::write(home.path("src/policies/main.rego"), rego).unwrap();
    home.ok("bundle build --source src --name fleet/policies --version 1.1.0 --enrollment-ref fleet-a --key keys/bundle.pem --out bundle.tar --force");
    home
}

#[test]
fn on_a_full_disk_calls_get_503_no_tool_runs_and_a_restart_with_space_loses_nothing() {
    // What does not fit may be what tools have done, which nobody waits for: then no call is refused that time.
    assert!((0..5).any(|_| refused_on_a_full_disk() > 0));
}

/// Fills the disk; gives how many calls were refused.
fn refused_on_a_full_disk() -> usize {
    let (home, site) = (home_with_http_get(), Site::new(true));
    let line = format!("--mode enforce --http-allow http://{}", site.address);
    let runtime = Service::start_with_limit(&home, "-f 512", &format!("{RUNTIME} {line}"));
    let urls: Vec<_> = (0..CONNECTIONS).map(|client| site.call(&format!("/{client}"))).collect();
    let load = Load::start(&runtime, move |client, number| {
        let mut call = urls[client].clone();
        let url = format!("{}/{number}", call["params"]["url"].as_str().unwrap());
        call["params"]["url"] = url.into();
        call
    });
    let (code, stderr) = runtime.ended();
    let answers = load.end();
    let error: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!((code, &error["class"]), (3, &json!("unavailable")), "{stderr}");
    let message = error["error"].as_str().unwrap();
    assert!(
        message.starts_with("log at `")
            && message.ends_with("; raise the limit on the size of files (`ulimit -f`), then restart"),
        "{message}"
    );
    let (refused, given): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 503);
    assert!(given.len() >= LEAST_ANSWERS, "{}", given.len());
    for answer in &refused {
        assert_eq!(
            (&answer.body["decision"], &answer.body["reason"]),
            (&json!("deny"), &json!("audit: wal_unavailable"))
        );
    }
    // The tool of a call that was answered ran once; that of a call that was refused never did.
    let asked = site.asked();
    let times = |answer: &Answer| {
        let url = answer.call["params"]["url"].as_str().unwrap();
        asked
            .iter()
            .filter(|path| url.strip_suffix(path.as_str()).is_some_and(|origin| origin.ends_with(&site.address)))
            .count()
    };
    assert!(given.iter().all(|answer| answer.status == 200 && times(answer) == 1));
    assert!(refused.iter().all(|answer| times(answer) == 0), "a tool ran whose decision is not in the log");

    let runtime = start(&home, &line);
    let answer = call(&mut runtime.connect(), site.call("/again")).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    runtime.signal(Signal::TERM);
    assert_eq!(runtime.ended(), (0, String::new()));
    println!("{} answered before the disk was full, {} refused", given.len(), refused.len());
    let logged = decisions(&home);
    // A refused decision may have reached the disk: it allowed a call that then did not run.
    assert!(logged.len() <= given.len() + 1 + CONNECTIONS, "{} calls", logged.len());
    let given: Vec<_> = given.into_iter().chain([answer]).collect();
    all_is_in_the_log(&home, &given);
    refused.len()
}

#[test]
fn a_second_runtime_on_the_same_log_is_refused() {
    let home = Home::ready();
    let runtime = start(&home, "--mode enforce");
    let second = home.run("runtime start --listen 127.0.0.1:0 --bundle bundle.tar --node-id robot-7");
    assert_eq!(
        (second.status.code(), String::from_utf8(second.stderr).unwrap()),
        (
            Some(3),
            format!(
                "error: log at `{}` is in use by process {}: stop that process, or choose another directory with `--wal-dir`\n",
                home.path("wal").display(),
                runtime.id()
            )
        )
    );
    let answer = call(&mut runtime.connect(), echo()).unwrap();
    assert_eq!(answer.status, 200, "the first does not notice");
    runtime.kill();
    let runtime = start(&home, "--mode enforce");
    assert_eq!(call(&mut runtime.connect(), echo()).unwrap().status, 200, "a killed runtime holds no lock");
    runtime.kill();
    all_is_in_the_log(&home, &[answer]);
}

#[test]
fn a_runtime_that_is_asked_to_stop_answers_what_is_in_flight() {
    let (home, site) = (home_with_http_get(), Site::new(false));
    let runtime = start(&home, &format!("--mode enforce --http-allow http://{}", site.address));
    let calls: Vec<_> = (0..CONNECTIONS)
        .map(|client| {
            let (mut connection, waiting) = (runtime.connect(), site.call(&format!("/{client}")));
            thread::spawn(move || call(&mut connection, waiting).unwrap())
        })
        .collect();
    site.wait_until_asked(CONNECTIONS);
    runtime.signal(Signal::TERM);
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(&runtime.address).is_ok() {
        assert!(Instant::now() < end, "it takes new connections");
        thread::sleep(Duration::from_millis(5));
    }
    site.open();
    let answers: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    assert_eq!(runtime.ended(), (0, String::new()));
    for answer in &answers {
        assert_eq!((answer.status, &answer.body["output"]["body"]), (200, &json!("ok")));
    }
    let frames: Vec<Value> = home.ok("wal inspect").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(frames.last().unwrap()["attrs"]["event"], "runtime_stopped");
    let completed = frames.iter().filter(|frame| frame["attrs"]["outcome"] == "completed").count();
    assert_eq!(completed, CONNECTIONS);
    all_is_in_the_log(&home, &answers);
}
