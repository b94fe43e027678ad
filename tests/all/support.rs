//! What several topics need: the real command, a place of its own, blocks of a page.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::SystemTime,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// For tests with many connections: those that run beside them have some, too.
pub(crate) fn open_as_many_files_as_may_be() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// Where cargo puts what is built in this profile.
pub(crate) fn build_dir() -> PathBuf {
    // …/target/<profile>/deps/all-<hash>
    env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// The `autonomy` command of this profile; built where it is missing or older than its sources.
pub(crate) fn autonomy() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let binary = build_dir().join("autonomy");
        let built = fs::metadata(&binary).and_then(|metadata| metadata.modified());
        if built.is_err() || built.unwrap() < newest_source() {
            let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            build.args(["build", "--quiet", "--package", "autonomy-cli"]).current_dir(root());
            if build_dir().ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "the command does not build");
        }
        binary
    })
}

/// What `cargo xtask test` builds where Go is: a path in `target`.
pub(crate) fn built_by_go(program: &str) -> Option<PathBuf> {
    let program = root().join("target").join(program);
    if program.exists() {
        return Some(program);
    }
    assert!(
        env::var_os("CI").is_none_or(|ci| ci != "true"),
        "no `{}`: `cargo xtask test` builds it",
        program.display()
    );
    println!("SKIPPED: no `{}`: `cargo xtask test` builds it where Go is", program.display());
    None
}

fn newest_source() -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut places: Vec<_> = ["gate-core", "host-native", "cli"]
        .iter()
        .flat_map(|package| ["src", "Cargo.toml", "reasons.toml"].map(|part| root().join(package).join(part)))
        .chain([root().join("gate-wasm/gate.wasm")])
        .collect();
    while let Some(path) = places.pop() {
        match fs::read_dir(&path) {
            Ok(entries) => places.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) => newest = newest.max(fs::metadata(path).and_then(|file| file.modified()).unwrap_or(newest)),
        }
    }
    newest
}

/// An address that nobody listens on, below the ports that the system hands out.
pub(crate) fn free_address() -> String {
    let start = u16::try_from(std::process::id() % 20_000).unwrap();
    let mut ports = (0..20_000).map(|step| 10_000 + (start + step) % 20_000);
    let port = ports.find(|port| NEXT.is_new(*port) && TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    format!("127.0.0.1:{port}")
}

/// Ports that a test of this process has.
static NEXT: Taken = Taken(std::sync::Mutex::new(Vec::new()));

struct Taken(std::sync::Mutex<Vec<u16>>);

impl Taken {
    fn is_new(&self, port: u16) -> bool {
        let mut taken = self.0.lock().unwrap();
        let is_new = !taken.contains(&port);
        taken.push(port);
        is_new
    }
}

/// A block of code of a page.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// The line of the page on which it begins.
    pub(crate) line: usize,
}

/// Every fenced block of a page, in order.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut open): (Vec<Block>, bool) = (Vec::new(), false);
    for (number, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                blocks.push(Block { language: language.to_owned(), text: String::new(), line: number + 1 });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => blocks.last_mut().unwrap().text.push_str(&format!("{line}\n")),
            (None, false) => {}
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

/// A page of the repository.
pub(crate) fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A directory of its own, and the command in it, with nothing of the environment but what it needs.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A trusted key, `bundle.tar` for `fleet-a` with a policy that allows `tool.echo`, and `robot-7` enrolled there.
    pub(crate) fn ready() -> Self {
        let home = Self::new();
        fs::create_dir_all(home.path("src/policies")).unwrap();
        let rego = "package autonomy\n\ndefault allow := false\n\nallow if input.kind == \"tool.echo\"\n";
        fs::write(home.path("src/policies/main.rego"), rego).unwrap();
        home.ok("key generate --trust");
        home.ok("bundle build --source src --name fleet/policies --version 1.0.0 --enrollment-ref fleet-a --key keys/bundle.pem --out bundle.tar");
        home.ok("node enroll --node-id robot-7 --enrollment-ref fleet-a");
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Any program in this place.
    pub(crate) fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env_clear().stdin(Stdio::null());
        command.env("AUTONOMY_HOME", self.0.path()).env("HOME", self.0.path()).env("PATH", path());
        command
    }

    /// Runs a line of words without quoting.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.program(autonomy()).args(line.split_whitespace()).output().unwrap()
    }

    /// The standard output of a run that exits with 0.
    pub(crate) fn ok(&self, line: &str) -> String {
        succeeded(line, self.run(line))
    }
}

/// The standard output of a run that exits with 0.
pub(crate) fn succeeded(what: &str, output: Output) -> String {
    assert!(output.status.success(), "{what}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `PATH` with the built command first.
pub(crate) fn path() -> std::ffi::OsString {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let places = [autonomy().parent().unwrap().to_owned()].into_iter().chain(env::split_paths(&inherited));
    env::join_paths(places).unwrap()
}
