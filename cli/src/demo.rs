//! `autonomy demo`: the runbook, played for real on this machine.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use gate_core::Mode;
use host_native::ErrorClass;
use serde::Deserialize;

use crate::{
    context::Context,
    error::{CliError, Exit},
    output::{Cell, Format, Output},
    service,
};

/// Play the runbook for real: three nodes, two bundles, off to advisory to enforce, a revoke and its audit.
///
/// Everything is real: signed bundles, a SQLite file, a synced log, runtimes on loopback sockets. It takes seconds, and
/// cleans up after itself unless `--keep` is given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  autonomy demo
  autonomy demo --keep ./demo    # then look around with AUTONOMY_HOME=./demo")]
pub(crate) struct Demo {
    /// Play in this new directory, and leave everything there.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

const NODES: [&str; 3] = ["robot-1", "robot-2", "robot-3"];
const POLICY: &str = "package autonomy

default allow := false

allow if input.kind == \"tool.echo\"
";
const CALL: &str = r#"{"kind":"tool.echo","params":{"text":"hello"}}"#;
/// How long a runtime may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(20);

impl Demo {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        if context.out.format() == Format::Json {
            return Err(CliError::usage("the demo is for people to watch: leave out `--output json`"));
        }
        let begun = Instant::now();
        // Before there is anything to clean up.
        let interrupted = interrupted();
        let (home, temporary) = match &self.keep {
            Some(home) => {
                fs::create_dir(home).map_err(|error| CliError::Failed {
                    class: ErrorClass::of(&error),
                    message: format!("cannot make `{}`: {error}; name a new directory", home.display()),
                })?;
                (fs::canonicalize(home).map_err(|error| failed(error.to_string()))?, None)
            }
            None => {
                let home = tempfile::Builder::new().prefix("autonomy-demo-").tempdir();
                let home = home.map_err(|error| failed(format!("cannot make a directory: {error}; set `TMPDIR`")))?;
                (home.path().to_owned(), Some(home))
            }
        };
        let autonomy = env::current_exe().map_err(|error| failed(format!("cannot find this program: {error}")))?;
        let mut stage = Stage { out: context.out, home, autonomy, running: Vec::new(), interrupted };
        stage.play()?;
        let Stage { home, .. } = &stage;
        let (home, out) = (home.clone(), &mut *stage.out);
        out.line("")?;
        match temporary {
            None => {
                out.line(format_args!("everything is kept in `{}`: look around with", home.display()))?;
                out.line(format_args!("  export AUTONOMY_HOME='{}'", home.display()))?;
                out.line("  autonomy node list")?;
                out.line("  autonomy audit list --wal-dir \"$AUTONOMY_HOME/robot-2\"")?;
            }
            Some(_) => {
                out.line("everything is cleaned up; `autonomy demo --keep DIR` leaves it there to look around")?
            }
        }
        out.line("the runbook, step by step: docs/src/runbook.md; every reason: `autonomy attestation explain`")?;
        out.line(format_args!("played in {:.1} s", begun.elapsed().as_secs_f64()))?;
        Ok(Exit::Success)
    }
}

fn failed(message: impl Into<String>) -> CliError {
    CliError::Failed { class: ErrorClass::Unavailable, message: message.into() }
}

fn stopped() -> CliError {
    failed("interrupted before its end: what it started is stopped; play it again")
}

/// Is set once somebody asks this process to stop, so that it can clean up.
fn interrupted() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&interrupted);
    let (listens, heard) = mpsc::channel::<()>();
    thread::spawn(move || {
        service::block_on(async {
            let asked = service::interrupted();
            drop(listens);
            asked?.await;
            told.store(true, Ordering::Relaxed);
            Ok(Exit::Success)
        })
    });
    // Nothing is ever sent: it ends once a signal is heard.
    let _ = heard.recv();
    interrupted
}

/// A directory in which commands run, and the runtimes that are up. They end with it.
struct Stage<'a> {
    out: &'a mut Output,
    home: PathBuf,
    autonomy: PathBuf,
    running: Vec<Runtime>,
    interrupted: Arc<AtomicBool>,
}

struct Runtime {
    node_id: &'static str,
    /// Once it has said where it listens.
    address: Option<SocketAddr>,
    process: Child,
}

/// What a runtime answers.
#[derive(Deserialize)]
struct Answer {
    reason: Option<String>,
    audit_id: String,
}

impl Stage<'_> {
    fn play(&mut self) -> Result<(), CliError> {
        self.title("1. a signing key, and two signed bundles that each name an enrollment")?;
        self.run("autonomy key generate --out release.pem --trust")?;
        for fleet in ["fleet-a", "fleet-b"] {
            let policies = self.home.join(fleet).join("policies");
            let written = fs::create_dir_all(&policies).and_then(|()| fs::write(policies.join("main.rego"), POLICY));
            written.map_err(|error| failed(format!("cannot write `{}`: {error}", policies.display())))?;
            self.run(&format!(
                "autonomy bundle build --source {fleet} --name {fleet} --version 1.0.0 --enrollment-ref {fleet} --key release.pem --out {fleet}.tar"
            ))?;
        }

        self.title("2. three nodes: one as it should be, one with a typo, one forgotten")?;
        self.run("autonomy node enroll --node-id robot-1 --enrollment-ref fleet-a")?;
        self.run("autonomy node enroll --node-id robot-2 --enrollment-ref Fleet-a")?;
        self.run("autonomy attestation status --node-id robot-1")?;
        self.run("autonomy attestation status --node-id robot-3")?;
        self.run("autonomy attestation eval --bundle fleet-a.tar --bundle fleet-b.tar --all-nodes")?;

        self.title("3. off: every call is answered as before, and the log already knows what `enforce` would do")?;
        self.start(Mode::Off)?;
        self.call_all()?;
        self.stop()?;
        self.run("autonomy attestation preview --mode enforce --wal-dir robot-1")?;
        self.run("autonomy attestation preview --mode enforce --wal-dir robot-2")?;

        self.title("4. advisory: still every call is answered, and every would-be deny is written down")?;
        self.start(Mode::Advisory)?;
        let answers = self.call_all()?;
        if let Some((_, warned)) = answers.get(1) {
            self.run(&format!("autonomy audit get {} --wal-dir robot-2", warned.audit_id))?;
        }
        self.stop()?;

        self.title("5. enforce: a node that is not what its bundle says runs no tool")?;
        self.start(Mode::Enforce)?;
        self.call_all()?;

        self.title(
            "6. the typo mended and the forgotten node enrolled: the very next call runs, nothing is restarted",
        )?;
        self.run("autonomy node enroll --node-id robot-2 --enrollment-ref fleet-a --replace")?;
        self.run("autonomy node enroll --node-id robot-3 --enrollment-ref fleet-a")?;
        self.call_all()?;

        self.title("7. a node is revoked: its very next call is denied")?;
        self.run("autonomy node revoke --node-id robot-2")?;
        let answers = self.call_all()?;
        self.stop()?;

        self.title("8. the proof: the log is whole, and every decision in it follows from its facts")?;
        self.run("autonomy wal verify --wal-dir robot-2")?;
        self.run("autonomy attestation replay --wal-dir robot-2")?;

        self.title("9. the denied call, its two decision frames, and how to mend it")?;
        let denied = answers.iter().find_map(|(_, answer)| answer.reason.as_ref().map(|reason| (reason, answer)));
        let Some((reason, answer)) = denied else {
            return Err(failed("no call was denied although `robot-2` is revoked: this is a defect"));
        };
        self.run(&format!("autonomy audit get {} --wal-dir robot-2", answer.audit_id))?;
        let word = reason.rsplit(": ").next().unwrap_or_default().to_owned();
        self.run(&format!("autonomy attestation explain {word}"))
    }

    /// The terminal tells everything that runs there to stop, and this process perhaps last.
    fn is_interrupted(&self) -> bool {
        thread::sleep(Duration::from_millis(50));
        self.interrupted.load(Ordering::Relaxed)
    }

    fn title(&mut self, title: &str) -> Result<(), CliError> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        self.out.line("")?;
        self.out.value(&Cell::new(title).strong())?;
        self.out.flush()
    }

    /// Runs a command line and shows it with its real output.
    fn run(&mut self, line: &str) -> Result<(), CliError> {
        self.out.line(format_args!("\n$ {line}"))?;
        let output = self.command(line).output();
        let output = output.map_err(|error| failed(format!("cannot run `{line}`: {error}")))?;
        self.out.raw(&output.stdout)?;
        self.out.raw(&output.stderr)?;
        match output.status.code() {
            Some(0) => {}
            // The gate's own answer: denied.
            Some(1) => self.out.line("[exit 1]")?,
            _ if self.is_interrupted() => return Err(stopped()),
            Some(3) => {
                return Err(failed(format!("`{line}` found something missing here, which it names above: mend that")));
            }
            _ => return Err(failed(format!("`{line}` failed: this is a defect"))),
        }
        self.out.flush()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.autonomy);
        command.args(line.split_whitespace().skip(1)).current_dir(&self.home).stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AUTONOMY_")) {
                command.env_remove(name);
            }
        }
        command.env("AUTONOMY_HOME", &self.home);
        command
    }

    /// Starts a runtime for each node, each with a log of its own.
    fn start(&mut self, mode: Mode) -> Result<(), CliError> {
        for node_id in NODES {
            let line = format!(
                "autonomy runtime start --node-id {node_id} --bundle fleet-a.tar --wal-dir {node_id} --listen 127.0.0.1:0"
            );
            self.out.line(format_args!("\n$ AUTONOMY_ATTESTATION_MODE={mode} {line} &"))?;
            let journal = fs::File::create(self.home.join(format!("{node_id}.out")));
            let journal = journal.map_err(|error| failed(format!("cannot write `{node_id}.out`: {error}")))?;
            let errors = journal.try_clone().map_err(|error| failed(error.to_string()))?;
            let mut command = self.command(&line);
            command.env("AUTONOMY_ATTESTATION_MODE", mode.as_str()).stdout(journal).stderr(errors);
            let process = command.spawn().map_err(|error| failed(format!("cannot run `{line}`: {error}")))?;
            self.running.push(Runtime { node_id, address: None, process });
        }
        let deadline = Instant::now() + PATIENCE;
        for at in 0..self.running.len() {
            while let Some(runtime) = self.running.get_mut(at)
                && runtime.address.is_none()
            {
                let said = fs::read_to_string(self.home.join(format!("{}.out", runtime.node_id))).unwrap_or_default();
                runtime.address = listening_on(&said);
                let ended = runtime.process.try_wait().is_ok_and(|ended| ended.is_some());
                let node_id = runtime.node_id;
                let is_over = runtime.address.is_none() && (ended || Instant::now() > deadline);
                if self.interrupted.load(Ordering::Relaxed) || is_over && self.is_interrupted() {
                    return Err(stopped());
                }
                if is_over {
                    return Err(failed(format!("the runtime of `{node_id}` does not come up: {}", said.trim())));
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Calls a tool on each node.
    fn call_all(&mut self) -> Result<Vec<(u16, Answer)>, CliError> {
        self.out.line("")?;
        let mut answers = Vec::new();
        for Runtime { node_id, address, .. } in &self.running {
            let answer = address.and_then(|address| Some((address, post(address, "/v1/tool", CALL)?)));
            let Some((address, (status, body))) = answer else {
                let defect = || failed(format!("the runtime of `{node_id}` does not answer"));
                return Err(if self.is_interrupted() { stopped() } else { defect() });
            };
            self.out.line(format_args!("{node_id}  POST http://{address}/v1/tool {CALL}"))?;
            self.out.line(format_args!("         {status} {body}"))?;
            let answer = serde_json::from_str(&body).map_err(|error| failed(format!("`{body}`: {error}")))?;
            answers.push((status, answer));
        }
        self.out.flush()?;
        Ok(answers)
    }

    /// Ends the runtimes as an operator would.
    fn stop(&mut self) -> Result<(), CliError> {
        for runtime in &self.running {
            terminate(&runtime.process);
        }
        let deadline = Instant::now() + PATIENCE;
        while let Some(mut runtime) = self.running.pop() {
            while runtime.process.try_wait().is_ok_and(|ended| ended.is_none()) {
                if Instant::now() > deadline {
                    self.running.push(runtime);
                    return Err(failed("a runtime does not end: this is a defect"));
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // Only a failure leaves any.
        for runtime in &mut self.running {
            let _ = runtime.process.kill();
            let _ = runtime.process.wait();
        }
    }
}

fn terminate(process: &Child) {
    // One that has ended already needs no signal.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(process), rustix::process::Signal::TERM);
}

/// Where a runtime says that it listens, once it does: a port that was free before may be somebody else's by then.
fn listening_on(said: &str) -> Option<SocketAddr> {
    // Whole lines alone.
    let lines = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    lines.filter_map(|line| line.strip_prefix("listening on http://")).find_map(|address| address.parse().ok())
}

/// One HTTP/1.1 request; `None` when there is no whole answer.
fn post(address: SocketAddr, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
