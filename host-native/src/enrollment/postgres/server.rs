//! The PostgreSQL server under a [`PostgresStore`](super::PostgresStore): how it is reached, whether it may be asked, and
//! how long anybody waits for it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    runtime::Runtime,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    Client, Config, NoTls,
    config::{Host, SslMode},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{Fault, PostgresError, SCHEMA_VERSION, State, why};
use crate::{
    client::{self, SetUpError, Stream},
    file,
};

/// Connections at most: what one instance takes of the server's `max_connections`.
const CONNECTIONS: usize = 8;

/// Of them, those that changes may have. They come one after the other in any case, and while they all wait for somebody else's lock,
/// reading goes on.
const CHANGES: usize = CONNECTIONS - 2;

/// Longest that a call waits: for its turn, for a connection and for all of the answers together.
pub(super) const CALL: Duration = Duration::from_secs(5);

/// Longest that one address is tried: within a call another has its turn.
const ADDRESS: Duration = Duration::from_secs(2);

/// How long a statement may take, as [`OPTIONS`] say. A server that runs has answered by then.
const STATEMENT: Duration = Duration::from_secs(4);

/// What each session asks of the server: to give up before the caller does, and to take the locks from who is cut off.
const OPTIONS: &str = "-c statement_timeout=4s -c lock_timeout=3s -c idle_in_transaction_session_timeout=5s";

/// Whether the server may be written to, and whether the schema is there. Who turned `synchronous_commit` off would have
/// changes acknowledged that a crash takes back; what it is otherwise is the operator's.
const HELLO: &str = "SELECT current_setting('transaction_read_only'), to_regclass('autonomy.state')::text,
                            set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)";

/// What the database's one row of state says.
pub(super) const STATE: &str = "SELECT schema_version::bigint, revision FROM autonomy.state";

/// The connections to the server, and the threads that they run on.
pub(super) struct Server {
    pool: Pool<Connector>,
    changes: Semaphore,
    /// Nothing only while it is dropped.
    runtime: Option<Runtime>,
}

/// Where the server is, and which connections to it are to be used.
pub(super) struct Connector {
    /// User, database and options.
    config: Config,
    password_file: Option<PathBuf>,
    addresses: Vec<Address>,
    tls: Option<TlsConnector>,
    /// The address to begin with: the last that answered, or the one after the last that did not.
    first: AtomicUsize,
    /// How often all connections were given up.
    epoch: AtomicU64,
    /// The highest revision that was seen. A server that has less is not the one that was written to.
    seen: AtomicU64,
}

/// A connection, for one call at a time.
pub(super) struct Session {
    pub(super) client: Client,
    /// When it was made. One of before is not kept: it may lead to a server that another has replaced.
    epoch: u64,
    /// Set before a commit is sent: what fails from then on may have been done.
    pub(super) commits: bool,
    /// Dropped with it, and the socket is closed with it, whatever the server still owes.
    _driver: JoinSet<()>,
}

#[derive(Debug)]
enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Server {
    pub(super) fn new(url: &str, password_file: Option<&Path>, ca: Option<&Path>) -> Result<Self, PostgresError> {
        let refused = |why: String| PostgresError::Url { why };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(refused("does not start with `postgres://`".to_owned()));
        }
        // `require` is never less here than what libpq calls `verify-full`.
        let parsed = url.replace("sslmode=verify-full", "sslmode=require").parse::<Config>();
        let mut config = parsed.map_err(|error| refused(why(&error)))?;
        if config.get_password().is_some() {
            return Err(PostgresError::PasswordInUrl);
        }
        if !config.get_hostaddrs().is_empty() {
            return Err(refused("names a `hostaddr`, which is not taken".to_owned()));
        }
        let addresses =
            addresses(&config).ok_or_else(|| refused("names no host, or not a port for each".to_owned()))?;
        let elsewhere = addresses.iter().find(|address| !address.is_here());
        let needs_tls = match (config.get_ssl_mode(), elsewhere) {
            (SslMode::Disable, Some(address)) => {
                return Err(PostgresError::Cleartext { address: address.to_string() });
            }
            (SslMode::Disable, None) => false,
            (SslMode::Require, _) => true,
            (_, elsewhere) => elsewhere.is_some(),
        };
        if let (false, Some(path), Some(address)) = (needs_tls, ca, addresses.first()) {
            let (path, to) = (path.to_owned(), address.to_string());
            return Err(SetUpError::NoTls { path, to, remedy: "add `sslmode=require` to the url" }.into());
        }
        let tls = needs_tls.then(|| client::connector(ca, None, b"postgresql")).transpose()?;
        // It is read again for each connection, and what is wrong with it is said at the start.
        password_file.map(read_password).transpose()?;
        let password_file = password_file.map(Path::to_owned);
        if config.get_application_name().is_none() {
            config.application_name("autonomy");
        }
        let options = [config.get_options().unwrap_or_default(), OPTIONS].join(" ");
        // Whether TLS is spoken is settled before the library sees the connection.
        config.options(options).ssl_mode(SslMode::Disable);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (first, epoch, seen) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let pool = Pool::builder(Connector { config, password_file, addresses, tls, first, epoch, seen })
            .max_size(CONNECTIONS)
            .build();
        Ok(Self {
            pool: pool.map_err(|error| PostgresError::Resources(io::Error::other(error)))?,
            changes: Semaphore::new(CHANGES),
            runtime: Some(runtime.map_err(PostgresError::Resources)?),
        })
    }

    /// Waits on the thread that calls, which must not be one of an async runtime.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(PostgresError::Late { within: Duration::ZERO }.into()),
        }
    }

    /// Does `work` on a connection, all of it in [`CALL`].
    pub(super) async fn call<T>(&self, work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>) -> Result<T, Fault> {
        self.call_until(Instant::now() + CALL, work).await
    }

    /// The same for a change, which waits for its turn among changes first.
    pub(super) async fn change<T>(&self, work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let deadline = Instant::now() + CALL;
        let turn = timeout_at(deadline, self.changes.acquire()).await;
        let _turn = turn.map_err(|_| PostgresError::Late { within: CALL })?;
        self.call_until(deadline, work).await
    }

    async fn call_until<T>(
        &self,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut session = self.session(deadline).await?;
        let begun = Instant::now();
        let done = timeout_at(deadline, work(&mut session)).await;
        let done = done.unwrap_or_else(|_| Err(PostgresError::Late { within: CALL }.into()));
        let commits = std::mem::take(&mut session.commits);
        match &done {
            // A rule's refusal, too, is an answer.
            Ok(_) | Err(Fault::Rule(_)) => drop(session),
            // What the server says of a statement concerns this connection alone.
            Err(Fault::Postgres(PostgresError::Refused { .. } | PostgresError::Locked)) => drop(Object::take(session)),
            // Most of the time went by before its turn: that the server was slower than what was left says nothing of the others.
            Err(Fault::Postgres(PostgresError::Late { .. })) if begun.elapsed() < STATEMENT => {
                drop(Object::take(session))
            }
            // What takes one connection away takes all: those in use are of before when they come back.
            Err(Fault::Postgres(_)) => {
                self.connector().epoch.fetch_add(1, Ordering::Relaxed);
                drop(session);
                self.pool.retain(|_, _| false);
            }
        }
        done.map_err(|fault| if commits { fault.after_commit() } else { fault })
    }

    /// Does `work` on a connection that nobody has after it, for as long as it takes.
    pub(super) async fn once<T>(&self, work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut session = self.session(Instant::now() + CALL).await?;
        let done = work(&mut session).await;
        drop(Object::take(session));
        done
    }

    async fn session(&self, deadline: Instant) -> Result<Object<Connector>, Fault> {
        match timeout_at(deadline, self.pool.get()).await {
            Ok(Err(PoolError::Backend(error))) => Err(error.into()),
            // It fails in no other way: it has no times and no hooks of its own, and is never closed.
            pooled => pooled.ok().and_then(Result::ok).ok_or(PostgresError::Late { within: CALL }.into()),
        }
    }

    pub(super) fn connector(&self) -> &Connector {
        self.pool.manager()
    }
}

impl Manager for Connector {
    type Type = Session;
    type Error = PostgresError;

    /// A connection to a server whose schema is known here.
    async fn create(&self) -> Result<Session, PostgresError> {
        match self.connect().await? {
            (session, SCHEMA_VERSION) => Ok(session),
            (_, version) => Err(PostgresError::Schema { version }),
        }
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<PostgresError> {
        let is_of_now = session.epoch == self.epoch.load(Ordering::Relaxed);
        // A call that panicked may have left it in the midst of a commit.
        let is_sound = is_of_now && !session.client.is_closed() && !session.commits;
        is_sound.then_some(()).ok_or(RecycleError::message("it is closed, of before, or in the midst of a commit"))
    }
}

impl Connector {
    /// A new connection to a server that may be written to, and the version of its schema; 0 when there is none.
    pub(super) async fn connect(&self) -> Result<(Session, u64), PostgresError> {
        let mut causes = Vec::new();
        let first = self.first.load(Ordering::Relaxed);
        for (index, address) in self.addresses.iter().enumerate().cycle().skip(first).take(self.addresses.len()) {
            // A call that gives up while this one hangs leaves the next one to those after it.
            self.first.store(index.saturating_add(1) % self.addresses.len(), Ordering::Relaxed);
            match timeout(ADDRESS, self.greet(address)).await {
                Ok(Ok(greeted)) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(greeted);
                }
                Ok(Err(cause)) => causes.push(format!("`{address}`: {cause}")),
                Err(_) => causes.push(format!("`{address}`: no answer within {ADDRESS:?}")),
            }
        }
        Err(PostgresError::Unreachable { why: causes.join(", ") })
    }

    async fn greet(&self, address: &Address) -> Result<(Session, u64), String> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        // Before the server is asked: what others commit meanwhile is no loss.
        let seen = self.seen.load(Ordering::Relaxed);
        let stream = self.open(address).await.map_err(|error| error.to_string())?;
        let mut config = self.config.clone();
        // Who changes the password writes a new one there.
        if let Some(path) = &self.password_file {
            config.password(read_password(path).map_err(|error| error.to_string())?);
        }
        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(|error| why(&error))?;
        let mut driver = JoinSet::new();
        // What ends it, the one who waits for an answer is told.
        driver.spawn(async move { drop(connection.await) });
        let hello = client.query_typed(HELLO, &[]).await.map_err(|error| why(&error))?;
        let column = |index| hello.first().and_then(|row| row.try_get::<_, Option<&str>>(index).ok().flatten());
        if column(0) != Some("off") {
            return Err("it may not be written to, as a standby".to_owned());
        }
        let State { version, revision } = match column(1) {
            Some(_) => State::read(&client.query_typed(STATE, &[]).await.map_err(|error| why(&error))?)
                .map_err(|error| error.to_string())?,
            None => State { version: 0, revision: 0 },
        };
        if revision < seen {
            return Err(format!(
                "its latest revision is {revision} and {seen} was seen; put the newer database back, or restart the \
                 orchestrator to accept the older one"
            ));
        }
        Ok((Session { client, epoch, commits: false, _driver: driver }, version))
    }

    async fn open(&self, address: &Address) -> io::Result<Box<dyn Stream>> {
        let (host, port) = match address {
            Address::Tcp { host, port } => (host, *port),
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        };
        let mut tcp = TcpStream::connect((host.as_str(), port)).await?;
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(&tcp);
        let keepalive = TcpKeepalive::new().with_time(CALL).with_interval(CALL).with_retries(3);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(CALL))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        // `SSLRequest`, and its answer of one byte: what else is sent in the clear goes into the handshake, and fails it.
        tcp.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
        if tcp.read_u8().await? != b'S' {
            return Err(io::Error::other("it does not speak tls"));
        }
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }

    pub(super) fn saw(&self, revision: u64) {
        self.seen.fetch_max(revision, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Waits for nothing: whoever drops it may be on an async runtime, where waiting is a panic.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Address {
    /// Whether nobody is between.
    fn is_here(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => client::is_loopback(host),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Each host with its port.
fn addresses(config: &Config) -> Option<Vec<Address>> {
    let (hosts, ports) = (config.get_hosts(), config.get_ports());
    let ports = match ports {
        [] => vec![5432; hosts.len()],
        [port] => vec![*port; hosts.len()],
        ports => ports.to_vec(),
    };
    let of = |(host, port): (&Host, u16)| match host {
        Host::Tcp(host) => Address::Tcp { host: host.clone(), port },
        Host::Unix(directory) => Address::Unix(directory.join(format!(".s.PGSQL.{port}"))),
    };
    (!hosts.is_empty() && hosts.len() == ports.len()).then(|| hosts.iter().zip(ports).map(of).collect())
}

fn read_password(path: &Path) -> Result<String, PostgresError> {
    let refused = |source| PostgresError::PasswordFile { path: path.to_owned(), source };
    if let Some(mode) = file::exposed(path).map_err(refused)? {
        return Err(refused(file::wrong(format!("it can be read by others, mode {mode:03o}"))));
    }
    let text = file::read_text(path, file::KEY_BYTES).map_err(refused)?;
    match text.lines().collect::<Vec<_>>().as_slice() {
        [password] if !password.is_empty() => Ok((*password).to_owned()),
        _ => Err(refused(file::wrong("it is not one line"))),
    }
}
