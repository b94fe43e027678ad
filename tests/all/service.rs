//! A service of the real command, and a client of it.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read, Result, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Home, autonomy};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A `runtime start` or a `host serve` that serves.
pub(crate) struct Service {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Read as it comes: a service that logs much would wait for a full pipe.
    stderr: Option<JoinHandle<String>>,
    pub(crate) address: String,
    /// What it was started by.
    pub(crate) line: String,
}

impl Service {
    pub(crate) fn start(home: &Home, line: &str) -> Self {
        let mut command = home.program(autonomy());
        Self::spawn(command.args(Self::words(line)), line)
    }

    /// A service under a limit of `ulimit`. With `-f` its files can grow to so many KiB, which ends like a full disk: a short
    /// write, then an error.
    pub(crate) fn start_with_limit(home: &Home, limit: &str, line: &str) -> Self {
        let mut bash = home.program("bash");
        let script = format!("ulimit {limit}; exec autonomy \"$@\"");
        Self::spawn(bash.args(["-c", &script, "bash"]).args(Self::words(line)), line)
    }

    fn words(line: &str) -> impl Iterator<Item = &str> {
        line.split_whitespace().chain(["--output", "json"])
    }

    fn spawn(command: &mut Command, line: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut errors = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        });
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        if first.is_empty() {
            panic!("it does not start: {:?}, {}", child.wait().unwrap(), stderr.join().unwrap());
        }
        let started: Value = serde_json::from_str(&first).unwrap();
        let address = started["address"].as_str().unwrap_or_default().to_owned();
        Self { child, stdout, stderr: Some(stderr), address, line: line.to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// A power cut, as far as a process can have one.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.child.wait().unwrap().code(), None);
    }

    /// Whether it has ended, as from a signal of somebody else.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its exit code and its last words, once it has ended by itself.
    pub(crate) fn ended(mut self) -> (i32, String) {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it goes on");
            thread::sleep(Duration::from_millis(5));
        }
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap(), self.stderr.take().unwrap().join().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Already gone where the test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A client's connection, kept from request to request.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    /// Sees each answer.
    witness: Option<Witness>,
}

/// Is given a request's method and target, and its answer's status and body.
pub(crate) type Witness = Box<dyn Fn(&str, &str, u16, &Value) + Send>;

impl Connection {
    pub(crate) fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(Box::new(stream)), witness: None })
    }

    pub(crate) fn open_socket(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)), witness: None })
    }

    pub(crate) fn seen_by(self, witness: Witness) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// Sends a request with these header lines, and gives the status and the answer, which is JSON but for what is text.
    pub(crate) fn exchange(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Result<(u16, Value)> {
        self.exchange_with_head(method, path, headers, body).map(|(status, _, answer)| (status, answer))
    }

    /// What `/metrics` says of the samples that begin so, together.
    pub(crate) fn counted(&mut self, sample: &str) -> u64 {
        let (_, page) = self.exchange("GET", "/metrics", "", "").unwrap();
        let lines = page.as_str().unwrap().lines().filter(|line| line.starts_with(sample));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// The same as [`Connection::exchange`], with the lines of the answer's head in lower case.
    pub(crate) fn exchange_with_head(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Result<(u16, Vec<String>, Value)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.exchange_raw(method, path, &request)
    }

    /// Sends these bytes for a request, and gives the same.
    pub(crate) fn exchange_raw(
        &mut self,
        method: &str,
        path: &str,
        request: &str,
    ) -> Result<(u16, Vec<String>, Value)> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_lowercase());
        }
        let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        let length = match (method, status) {
            ("HEAD", _) | (_, 304) => 0,
            _ => head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap(),
        };
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let text = |_| Value::from(String::from_utf8_lossy(&body));
        let answer = serde_json::from_slice(&body).unwrap_or_else(text);
        if let Some(witness) = &self.witness {
            witness(method, path, status, &answer);
        }
        Ok((status, head, answer))
    }
}
