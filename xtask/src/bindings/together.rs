//! A runtime in each language on one node, with one `autonomy host serve`: what their callers were told is what the log says,
//! whatever happens meanwhile.

use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{Language, autonomy};
use crate::Result;

/// What is kept of each scenario.
const PLACE: &str = "target/together";

/// The nodes that every runtime calls for; the first half of them is revoked.
const NODES: usize = 10;

/// Calls of a runtime that are under way at once.
const TASKS: usize = 16;

/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(300);

type Scenario = fn(&mut Fleet) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 2] = [("revoked", revoked), ("killed", killed)];

const ALLOW: &str = "allow";
const ALLOWED: &str = "policy: allowed";
const REVOKED: &str = "attestation: enrollment_revoked";
const UNAVAILABLE: &str = "attestation: enrollment_unavailable";
const UNRECORDED: &str = "audit: wal_unavailable";

/// Runs every scenario with a runtime in each of these languages, which must be built; gives a table.
pub fn test(root: &Path, languages: &[&Language]) -> Result<String> {
    let address = free_address()?;
    let mut drivers = Vec::new();
    for language in languages {
        let mut driver = (language.driver)(root)?;
        // Files of the home that it is started in.
        driver.args([&format!("http://{address}"), "host.token", "bundle.tar", "keys/bundle.pem.pub"]);
        driver.arg(TASKS.to_string()).args(nodes());
        drivers.push((language.name, driver));
    }
    let mut table = vec![format!(
        "{:<9} {:<8} {:>7} {:>8} {:>7} {:>8}",
        "scenario", "language", "calls", "allowed", "denied", "calls/s"
    )];
    for (name, scenario) in SCENARIOS {
        println!("== together, {name}");
        let started = Instant::now();
        let home = Home::new(root.join(PLACE).join(name), autonomy(root)?)?;
        let mut fleet = Fleet::start(home, &address, &mut drivers)?;
        scenario(&mut fleet)?;
        println!("== together, {name}: {:.1} s", started.elapsed().as_secs_f64());
        for runtime in &fleet.runtimes {
            let (calls, allowed) = (runtime.told.len(), runtime.count(ALLOW));
            let rate = calls as f64 / runtime.busy.as_secs_f64();
            let (language, denied) = (runtime.language, calls - allowed);
            table.push(format!("{name:<9} {language:<8} {calls:>7} {allowed:>8} {denied:>7} {rate:>8.0}"));
        }
    }
    Ok(table.join("\n"))
}

/// Half of the nodes are revoked midway. No call that began after a revoke was acknowledged is allowed, no other node is
/// denied, and the log holds each answer, and nothing else.
fn revoked(fleet: &mut Fleet) -> Result<()> {
    fleet.order(4_000)?;
    fleet.answered()?;
    // Under way while the revokes are; what is ordered after them begins after all of them.
    fleet.order(2_000)?;
    let mut acknowledged_us = BTreeMap::new();
    for node in nodes().take(NODES / 2) {
        fleet.home.run(&format!("node revoke --node-id {node}"))?;
        acknowledged_us.insert(node, now_us()?);
    }
    fleet.order(4_000)?;
    let log = fleet.end()?;
    for runtime in &fleet.runtimes {
        let language = runtime.language;
        let mut after = 0;
        for (number, told) in runtime.told.iter().enumerate() {
            let acknowledged = acknowledged_us.get(&told.node).is_some_and(|at_us| *at_us < told.began_us);
            after += usize::from(acknowledged);
            let right = match told.answer.as_str() {
                ALLOW => !acknowledged,
                REVOKED => number >= 4_000 && acknowledged_us.contains_key(&told.node),
                _ => false,
            };
            if !right || !log.get(&told.audit_id).is_some_and(|call| call.is(&told.answer, &["completed"])) {
                let call = log.get(&told.audit_id);
                return Err(format!("{language}, call {number}: {told:?}, in the log {call:?}").into());
            }
        }
        if runtime.told.len() != 10_000 || after < 2_000 {
            let calls = runtime.told.len();
            return Err(format!("{language}: {calls} calls, {after} of them after a revoke: too few to count").into());
        }
    }
    Ok(())
}

/// The host is killed midway, is away for a while, and comes back. No call is allowed that the log does not hold, and when the
/// host is back all are allowed again.
fn killed(fleet: &mut Fleet) -> Result<()> {
    fleet.order(500)?;
    fleet.answered()?;
    fleet.order(1_000)?;
    for runtime in &mut fleet.runtimes {
        runtime.hear(600)?;
    }
    fleet.host.kill()?;
    fleet.order(100)?;
    fleet.answered()?;
    fleet.host.start_again()?;
    fleet.order(500)?;
    let log = fleet.end()?;
    for runtime in &fleet.runtimes {
        for (number, told) in runtime.told.iter().enumerate() {
            let call = log.get(&told.audit_id);
            let expected: &[&str] = match number {
                0..500 | 1_600.. => &[ALLOW],
                500..1_500 => &[ALLOW, UNAVAILABLE, UNRECORDED],
                1_500..1_600 => &[UNRECORDED],
            };
            // What the tool did is not waited for: the kill may have been faster. What is not known to be recorded may be.
            let holds = told.answer == UNRECORDED
                || call.is_some_and(|call| call.is(&told.answer, &["completed"]) || call.is(&told.answer, &[]));
            if !expected.contains(&told.answer.as_str()) || !holds {
                return Err(format!("{}, call {number}: {told:?}, in the log {call:?}", runtime.language).into());
            }
        }
    }
    Ok(())
}

/// A node with its host, and the runtimes.
struct Fleet {
    home: Home,
    host: Host,
    runtimes: Vec<Runtime>,
}

impl Fleet {
    /// Starts everything, with every node enrolled.
    fn start(home: Home, address: &str, drivers: &mut [(&'static str, Command)]) -> Result<Self> {
        home.run("key generate")?;
        home.run(
            "bundle build --source source --name fleet/policies --version 1.0.0 --enrollment-ref fleet-a --key keys/bundle.pem \
             --out bundle.tar",
        )?;
        home.run("host token")?;
        for node in nodes() {
            home.run(&format!("node enroll --node-id {node} --enrollment-ref fleet-a"))?;
        }
        let host = Host::start(&home, address)?;
        let mut runtimes = Vec::new();
        for (language, driver) in drivers {
            runtimes.push(Runtime::start(language, driver.current_dir(&home.place))?);
        }
        for runtime in &mut runtimes {
            runtime.is_ready()?;
        }
        Ok(Self { home, host, runtimes })
    }

    /// Has each runtime make so many more calls.
    fn order(&mut self, calls: usize) -> Result<()> {
        self.runtimes.iter_mut().try_for_each(|runtime| runtime.order(calls))
    }

    /// Waits until each runtime has made all its calls.
    fn answered(&mut self) -> Result<()> {
        self.runtimes.iter_mut().try_for_each(Runtime::answered)
    }

    /// Ends the runtimes and the host once all calls are made, and gives the log: it holds, and nothing else is in it.
    fn end(&mut self) -> Result<BTreeMap<String, Call>> {
        self.answered()?;
        self.runtimes.iter_mut().try_for_each(Runtime::end)?;
        self.host.stop()?;
        self.home.run("wal verify")?;
        let log = read(&self.home.place.join("wal/telemetry.wal"))?;
        let told: Vec<_> = self.runtimes.iter().flat_map(|runtime| &runtime.told).map(|told| &told.audit_id).collect();
        let distinct: BTreeSet<_> = told.iter().copied().collect();
        match log.keys().find(|id| !distinct.contains(id)) {
            Some(id) => Err(format!("call {id} is in the log, and nobody was told of it").into()),
            None if distinct.len() < told.len() => Err("two calls have the same audit id".into()),
            None => Ok(log),
        }
    }
}

fn nodes() -> impl Iterator<Item = String> {
    (1..=NODES).map(|number| format!("robot-{number}"))
}

/// By the clock that the runtimes read.
fn now_us() -> Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())
}

/// Where the command keeps its state.
struct Home {
    place: PathBuf,
    autonomy: PathBuf,
}

impl Home {
    fn new(place: PathBuf, autonomy: PathBuf) -> Result<Self> {
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::create_dir_all(place.join("source/policies"))?;
        fs::write(place.join("source/policies/main.rego"), "package autonomy\n\ndefault allow := false\n")?;
        Ok(Self { place, autonomy })
    }

    /// The command, with a line of words.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.autonomy);
        command.args(line.split_whitespace()).current_dir(&self.place).env("AUTONOMY_HOME", &self.place);
        command
    }

    fn run(&self, line: &str) -> Result<()> {
        let output = self.command(line).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("`autonomy {line}` failed: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// `autonomy host serve`, always at the same address.
struct Host {
    command: Command,
    child: Child,
    /// Open as long as the process: it must not fail because nobody listens.
    stdout: BufReader<ChildStdout>,
}

impl Host {
    fn start(home: &Home, address: &str) -> Result<Self> {
        let mut command = home.command(&format!("host serve --listen {address}"));
        command.stdout(Stdio::piped());
        let (child, stdout) = Self::spawn(&mut command)?;
        Ok(Self { command, child, stdout })
    }

    /// Kills it, as a power cut would.
    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn start_again(&mut self) -> Result<()> {
        (self.child, self.stdout) = Self::spawn(&mut self.command)?;
        Ok(())
    }

    /// Stops it, as an init system would.
    fn stop(&mut self) -> Result<()> {
        Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status()?;
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("the host ended with {status}").into()),
        }
    }

    fn spawn(command: &mut Command) -> Result<(Child, BufReader<ChildStdout>)> {
        let mut child = command.spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("the host has no output")?);
        let mut line = String::new();
        while !line.starts_with("listening on ") {
            line.clear();
            if stdout.read_line(&mut line)? == 0 {
                return Err(format!("the host does not start: {}", child.wait()?).into());
            }
        }
        Ok((child, stdout))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Already gone where nothing failed.
        let _ = self.kill();
    }
}

/// Below the ports that the system hands out: a runtime that connects while the host is away must not take its port.
fn free_address() -> Result<String> {
    let free = (20_000..30_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    Ok(format!("127.0.0.1:{}", free.ok_or("no port is free")?))
}

/// What the caller of a call was told.
#[derive(Debug)]
struct Told {
    /// Before the guard was asked.
    began_us: u128,
    node: String,
    audit_id: String,
    /// `allow`, or the reason.
    answer: String,
}

impl Told {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t').map(str::to_owned);
        let told = Self {
            began_us: fields.next()?.parse().ok()?,
            node: fields.next()?,
            audit_id: fields.next()?,
            answer: fields.next()?,
        };
        fields.next().is_none().then_some(told)
    }
}

/// A program that makes calls: its contract is in `docs/src/spec/conformance.md`.
struct Runtime {
    language: &'static str,
    child: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
    told: Vec<Told>,
    ordered: usize,
    /// Since when it has had calls to make.
    since: Instant,
    /// When it said the last line.
    heard: Instant,
    /// How long it had calls to make.
    busy: Duration,
}

impl Runtime {
    fn start(language: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("the runtime has no output")?);
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            // It ends where nobody listens any more.
            stdout.lines().map_while(std::io::Result::ok).try_for_each(|line| said.send((Instant::now(), line)))
        });
        let (orders, now) = (child.stdin.take(), Instant::now());
        let (told, ordered, busy) = (Vec::new(), 0, Duration::ZERO);
        Ok(Self { language, child, orders, lines, told, ordered, since: now, heard: now, busy })
    }

    fn is_ready(&mut self) -> Result<()> {
        match self.line()?.as_str() {
            "ready" => Ok(()),
            other => Err(format!("{} said `{other}`, not `ready`", self.language).into()),
        }
    }

    fn order(&mut self, calls: usize) -> Result<()> {
        if self.told.len() == self.ordered {
            self.since = Instant::now();
        }
        self.ordered += calls;
        Ok(writeln!(self.orders.as_mut().ok_or("the runtime has ended")?, "{calls}")?)
    }

    fn answered(&mut self) -> Result<()> {
        self.hear(self.ordered)?;
        self.busy += self.heard.saturating_duration_since(self.since);
        Ok(())
    }

    /// Waits until it has said what came of so many calls.
    fn hear(&mut self, calls: usize) -> Result<()> {
        while self.told.len() < calls {
            let line = self.line()?;
            self.told.push(Told::parse(&line).ok_or_else(|| format!("{} said `{line}`", self.language))?);
        }
        Ok(())
    }

    /// Lets it end: it has made all its calls, and says nothing more.
    fn end(&mut self) -> Result<()> {
        self.orders = None;
        match self.lines.recv_timeout(PATIENCE) {
            Ok((_, line)) => return Err(format!("{} made a call too many: `{line}`", self.language).into()),
            Err(RecvTimeoutError::Timeout) => return Err(format!("{} does not end", self.language).into()),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("{} ended with {status}", self.language).into()),
        }
    }

    fn line(&mut self) -> Result<String> {
        let received = self.lines.recv_timeout(PATIENCE);
        let (heard, line) = received.map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("{} has said nothing for {PATIENCE:?}", self.language),
            RecvTimeoutError::Disconnected => format!("{} ended before its calls were made", self.language),
        })?;
        self.heard = heard;
        Ok(line)
    }

    fn count(&self, answer: &str) -> usize {
        self.told.iter().filter(|told| told.answer == answer).count()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Already gone where nothing failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the log says of a call.
#[derive(Debug, Default)]
struct Call {
    /// The outcome and the reason of each decision.
    decisions: Vec<(String, String)>,
    /// The outcome of each action.
    actions: Vec<String>,
}

impl Call {
    /// Whether it was decided so, and the tool went so where it ran.
    fn is(&self, answer: &str, actions: &[&str]) -> bool {
        let allowed = answer == ALLOW;
        let expected = [(ALLOW, ALLOWED), ("deny", answer)];
        let expected = if allowed { &expected[..1] } else { &expected };
        let decided = self.decisions.iter().map(|(outcome, reason)| (outcome.as_str(), reason.as_str()));
        decided.eq(expected.iter().copied()) && self.actions == if allowed { actions } else { &[] }
    }
}

#[derive(Deserialize)]
struct Frame {
    kind: String,
    audit_id: String,
    attrs: Attrs,
}

#[derive(Deserialize)]
struct Attrs {
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    reason: String,
}

/// The calls of a log that was closed, read as `docs/src/spec/wal.md` says.
fn read(path: &Path) -> Result<BTreeMap<String, Call>> {
    let (log, mut at) = (fs::read(path)?, 0);
    let mut calls = BTreeMap::<String, Call>::new();
    while let Some(prefix) = log.get(at..at + 4) {
        let length = u32::from_be_bytes(prefix.try_into()?) as usize;
        let payload = log.get(at + 4..at + 4 + length).ok_or("the log ends within a frame")?;
        let Frame { kind, audit_id, attrs } = serde_json::from_slice(payload)?;
        match kind.as_str() {
            "autonomy.decision" => calls.entry(audit_id).or_default().decisions.push((attrs.outcome, attrs.reason)),
            "autonomy.action" => calls.entry(audit_id).or_default().actions.push(attrs.outcome),
            _ => {}
        }
        at += 4 + length;
    }
    Ok(calls)
}
