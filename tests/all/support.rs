//! What several topics need: the real command, a place of its own, blocks of a page.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
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

fn newest_source() -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut places: Vec<_> = ["gate-core", "host-native", "cli"]
        .iter()
        .flat_map(|package| ["src", "Cargo.toml", "reasons.toml"].map(|part| root().join(package).join(part)))
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

/// `PATH` with the built command first.
pub(crate) fn path() -> std::ffi::OsString {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let places = [autonomy().parent().unwrap().to_owned()].into_iter().chain(env::split_paths(&inherited));
    env::join_paths(places).unwrap()
}
