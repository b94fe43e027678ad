//! A home of its own for each test, and the command in it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

#[cfg(target_os = "linux")]
use std::{
    fs::File,
    os::fd::OwnedFd,
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, kill_process};
#[cfg(target_os = "linux")]
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_autonomy");

pub(crate) struct Home(TempDir);

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().expect("an exit code, not a signal");
        let run = Self { code, stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!run.stderr.contains("panicked"), "{run:?}");
        run
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A trusted key; `bundle.tar` for `fleet-a`; `robot-7` enrolled there, `robot-8` in `fleet-b`.
    pub(crate) fn ready() -> Self {
        let home = Self::with_bundle();
        home.ok("node enroll --node-id robot-7 --enrollment-ref fleet-a --by test");
        home.ok("node enroll --node-id robot-8 --enrollment-ref fleet-b --by test");
        home
    }

    /// A trusted key and `bundle.tar` for `fleet-a`.
    pub(crate) fn with_bundle() -> Self {
        let home = Self::with_source();
        home.ok("key generate --trust");
        home.ok("bundle build --source src --name fleet/policies --version 1.0.0 --enrollment-ref fleet-a --key keys/bundle.pem --out bundle.tar");
        home
    }

    /// Policies in `src`.
    pub(crate) fn with_source() -> Self {
        let home = Self::new();
        fs::create_dir_all(home.path("src/policies")).unwrap();
        let rego = "package autonomy\n\ndefault allow := false\n\nallow if input.kind == \"tool.echo\"\n";
        fs::write(home.path("src/policies/main.rego"), rego).unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command with nothing of the environment but what it needs.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.0.path()).env_clear().stdin(Stdio::null());
        command.env("AUTONOMY_HOME", self.0.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    pub(crate) fn run_words(&self, arguments: &[&str]) -> Run {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a line of words without quoting.
    pub(crate) fn run(&self, line: &str) -> Run {
        self.run_words(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The standard output of a run that exits with 0.
    pub(crate) fn ok(&self, line: &str) -> String {
        let run = self.run(line);
        assert_eq!(run.code, 0, "{line}: {run:?}");
        run.stdout
    }

    /// The document of a run with `--output json`, and its exit code.
    pub(crate) fn json(&self, line: &str) -> (i32, Value) {
        let run = self.run(&format!("{line} --output json"));
        assert_eq!(run.stderr, "", "{line}");
        (run.code, serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {run:?}")))
    }

    /// A run that fails with this code and one line, which is given back without its `error: `.
    pub(crate) fn fails(&self, code: i32, line: &str) -> String {
        let run = self.run(line);
        assert_eq!(run.code, code, "{line}: {run:?}");
        one_error(&run)
    }

    /// A runtime on a free port.
    pub(crate) fn start(&self, line: &str) -> Runtime {
        let line = format!("runtime start --listen 127.0.0.1:0 --output json {line}");
        let mut command = self.command(&line.split_whitespace().collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        if first.is_empty() {
            panic!("{line}: {:?}", Run::from(child.wait_with_output().unwrap()));
        }
        Runtime { child, stdout, started: serde_json::from_str(&first).unwrap() }
    }
}

/// The one line of an error.
pub(crate) fn one_error(run: &Run) -> String {
    let line = run.stderr.strip_prefix("error: ").and_then(|line| line.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("no error line: {run:?}"));
    assert!(!line.contains('\n'), "more than one line: {run:?}");
    line.to_owned()
}

/// A `runtime start` that serves.
pub(crate) struct Runtime {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) started: Value,
}

impl Runtime {
    /// Posts a tool call; gives the status and the answer.
    pub(crate) fn call(&self, body: &str) -> (u16, Value) {
        self.post("/v1/tool", body)
    }

    /// Posts to any path.
    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.started["address"].as_str().unwrap()).unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json");
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    pub(crate) fn echo(&self) -> (u16, Value) {
        self.call(r#"{"kind":"tool.echo","params":{"text":"hello"}}"#)
    }

    /// Asks it to stop, as an init system does; it answers what is in flight and exits with 0. Gives what it said beside.
    pub(crate) fn stop(self) -> String {
        self.stop_by(Signal::TERM)
    }

    /// The same, asked by another signal.
    pub(crate) fn stop_by(mut self, signal: Signal) -> String {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "{\"event\":\"stopped\"}\n");
        let mut beside = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut beside).unwrap();
        beside
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Already gone where the test stopped it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal to print on, and all that is printed there once nobody has it open any more.
#[cfg(target_os = "linux")]
pub(crate) fn on_terminal() -> (OwnedFd, JoinHandle<String>) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let screen = ioctl_tiocgptpeer(&terminal, flags).unwrap();
    let reader = thread::spawn(move || {
        let (mut bytes, mut terminal) = (Vec::new(), File::from(terminal));
        // Linux ends a terminal that nobody writes to any more with an error.
        let _ = terminal.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
    });
    (screen, reader)
}
