//! A PostgreSQL server of its own: its data, socket and password in a directory that goes with it.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longer than a server takes to start, to recover or to copy.
const PATIENCE: Duration = Duration::from_secs(120);

/// What lets `postgres` in over TCP.
pub(crate) const PASSWORD: &str = "mustard-and-cress";

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    port: u16,
    /// Who it runs as, where it would be root, which it refuses.
    owner: Option<(u32, u32)>,
    settings: Vec<String>,
    server: Option<Child>,
}

impl Cluster {
    /// A new one that runs; its socket leads to it, and `127.0.0.1:<port>` where there is one.
    pub(crate) fn start(port: Option<u16>, settings: &[&str]) -> Self {
        let mut cluster = Self::empty(port, settings);
        let password = cluster.write("password", PASSWORD);
        let mut initdb = cluster.program("initdb");
        initdb.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8"]);
        initdb.args(["--no-locale", "--no-sync"]).arg("--pwfile").arg(password).arg("--pgdata").arg(cluster.data());
        succeeded(&mut initdb);
        cluster.run();
        cluster
    }

    /// A standby that follows this one.
    pub(crate) fn standby(&self, port: u16) -> Self {
        let mut standby = Self::empty(Some(port), &[]);
        let mut copy = standby.program("pg_basebackup");
        copy.args(["--username=postgres", "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--host"]);
        copy.arg(self.dir.path()).args(["--port", &self.port.to_string(), "--pgdata"]).arg(standby.data());
        succeeded(&mut copy);
        standby.run();
        standby
    }

    fn empty(port: Option<u16>, settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let is_root = fs::metadata(dir.path()).unwrap().uid() == 0;
        let owner = is_root.then(unprivileged);
        let listen = format!("listen_addresses={}", if port.is_some() { "127.0.0.1" } else { "" });
        // No test is about power loss. The last of a name counts.
        let defaults = [listen, "fsync=off".to_owned()];
        let settings = defaults.into_iter().chain(settings.iter().map(|setting| (*setting).to_owned())).collect();
        let cluster = Self { dir, port: port.unwrap_or(5432), owner, settings, server: None };
        cluster.give(cluster.dir.path());
        cluster
    }

    /// Starts it, again where it was killed.
    pub(crate) fn run(&mut self) {
        let begun = Instant::now();
        loop {
            let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
            let mut postgres = self.program("postgres");
            postgres.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path()).args(["-p", &self.port.to_string()]);
            for setting in &self.settings {
                postgres.args(["-c", setting]);
            }
            let mut server = postgres.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            // It ends at once while a process of the one that was killed is still there.
            while server.try_wait().unwrap().is_none() {
                if self.try_psql("postgres", "SELECT").is_some() {
                    self.server = Some(server);
                    return;
                }
                thread::sleep(Duration::from_millis(50));
                assert!(begun.elapsed() < PATIENCE, "{}", self.log());
            }
            assert!(begun.elapsed() < PATIENCE, "{}", self.log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// As when the machine is gone: nobody is told.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.server.take().unwrap().wait().unwrap();
    }

    /// Sends a signal to each process of it: `STOP` and it hangs, `CONT` and it goes on.
    pub(crate) fn signal(&self, signal: &str) {
        let Some(server) = &self.server else { return };
        let id = server.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let mut kill = Command::new("kill");
        // One that ends by itself in between is no matter.
        let kill = kill.arg("-s").arg(signal).arg(id.to_string()).args(children.split_whitespace());
        let _ = kill.stderr(Stdio::null()).status();
    }

    /// Where it listens, to who has the password.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of a database over the socket, without a password.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.dir.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{socket}:{}/{database}", self.port)
    }

    /// What a statement gives, columns separated by `|`.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|| panic!("{sql}: {}", self.log()))
    }

    /// Nothing where the statement fails.
    pub(crate) fn try_psql(&self, database: &str, sql: &str) -> Option<String> {
        let output = self.shell(database).args(["-c", sql]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    }

    /// `psql`, as `postgres` over the socket.
    pub(crate) fn shell(&self, database: &str) -> Command {
        let mut psql = self.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"]).arg(self.dir.path());
        psql.args(["-p", &self.port.to_string(), "-d", database]);
        psql
    }

    /// Does it while somebody else has a lock.
    pub(crate) fn while_held(&self, lock: &str, held: impl FnOnce()) {
        let mut holder = self.shell("postgres");
        holder.args(["-c", "BEGIN", "-c", lock, "-c", "SELECT pg_sleep(600)"]);
        let mut holder = holder.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let is_held = "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND state = 'active' AND pid <> pg_backend_pid()";
        let begun = Instant::now();
        while self.psql("postgres", &format!("SELECT count(*) FROM ({is_held}) AS held")) != "1" {
            assert!(begun.elapsed() < PATIENCE, "nobody holds it");
            thread::sleep(Duration::from_millis(20));
        }
        held();
        self.psql("postgres", &is_held.replace("SELECT FROM", "SELECT pg_terminate_backend(pid) FROM"));
        holder.wait().unwrap();
    }

    /// A file that the server can read, and nobody else.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.give(&path);
        path
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn program(&self, name: &str) -> Command {
        let mut program = Command::new(programs().join(name));
        program.current_dir(self.dir.path()).stdin(Stdio::null());
        if let Some((user, group)) = self.owner {
            program.uid(user).gid(group);
        }
        program
    }

    fn give(&self, path: &Path) {
        if let Some((user, group)) = self.owner {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signal("CONT");
        if let Some(mut server) = self.server.take() {
            // At once, and its children with it.
            let _ = Command::new("kill").args(["-s", "QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}

/// Where Debian has the programs of the latest version, outside of `PATH`.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let version = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let latest = versions.filter_map(|entry| version(entry.as_ref().ok()?)).max();
    latest.map(|version| Path::new("/usr/lib/postgresql").join(version.to_string()).join("bin")).unwrap_or_default()
}

/// The user and the group that a server runs as where the tests are root.
fn unprivileged() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let mut fields = users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody")).expect("a user `postgres` or `nobody`")
}

fn succeeded(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
