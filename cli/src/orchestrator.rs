//! `autonomy orchestrator`

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use gate_core::NodeId;
use host_native::{
    config::{self, Config},
    enrollment::{PostgresStore, SqliteStore, Store},
    key::PrivateKey,
    orchestrator::{self, Access, Caller, Orchestrator, Role},
    serve::{Listener, Metrics, Report, Tls},
};
use serde::Serialize;

use crate::{
    context::{Context, Flags},
    error::{CliError, Exit},
    output::Format,
    service, time,
};

/// Files that it has open at most beside its connections: those of the store and its readers, or the sockets to it.
const STORE_FILES: usize = 1_024;

/// Keep the enrollments of a fleet, and sign leases.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve enrollments, leases and changes until interrupted.
    ///
    /// Operators and runtimes ask it where `AUTONOMY_ORCHESTRATOR_URL` or `--orchestrator-url` leads to it. Whoever has a
    /// token is let in, for what the token's role may do; `autonomy orchestrator token` makes one.
    #[command(after_help = "Examples:
  autonomy orchestrator serve --signing-key keys/lease.pem
  autonomy orchestrator serve --listen 0.0.0.0:7779 \\
    --tls-cert fleet.pem --tls-key fleet.key
  autonomy orchestrator serve --lease-ttl-ms 30000
  autonomy orchestrator serve \\
    --database postgres://autonomy@db-1,db-2/autonomy \\
    --database-password-file db.password

Before:
  autonomy key generate --out keys/lease.pem
  autonomy orchestrator token --name ops --role operator --out ops.token")]
    Serve(Serve),
    /// Make a token that lets somebody in.
    ///
    /// The token goes to a new file that its owner alone can read; the orchestrator keeps its hash in `--tokens`, a line
    /// each. It counts from the next request on. Whoever removes its line takes it back.
    #[command(after_help = "Examples:
  autonomy orchestrator token --name ops --role operator --out ops.token
  autonomy orchestrator token --name wall --role reader --out wall.token
  autonomy orchestrator token --role node --node-id robot-7 \\
    --expires-in 90d --out robot-7.token")]
    Token(MakeToken),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:7779].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The SQLite file of enrollments (else `AUTONOMY_STORE_PATH`, else `store.path`).
    #[arg(long, value_name = "FILE")]
    store: Option<String>,
    /// The PostgreSQL database of enrollments, in the place of the file: `postgres://user@host/database`, with hosts joined
    /// by commas where any may be the primary (else `AUTONOMY_ORCHESTRATOR_DATABASE`, else `orchestrator.database`).
    #[arg(long, value_name = "URL", conflicts_with = "store")]
    database: Option<String>,
    /// The file of the database's password, which its owner alone can read.
    #[arg(long, value_name = "FILE")]
    database_password_file: Option<String>,
    /// PEM file of the only roots to trust for the database.
    #[arg(long, value_name = "FILE")]
    database_ca: Option<String>,
    /// The file of the tokens' hashes (else `AUTONOMY_ORCHESTRATOR_TOKENS`, else `orchestrator.tokens`).
    #[arg(long, value_name = "FILE")]
    tokens: Option<String>,
    /// The private key that signs leases [default: keys/lease.pem among the data].
    #[arg(long, value_name = "FILE")]
    signing_key: Option<String>,
    /// How long a lease counts [default: 60000].
    #[arg(long, value_name = "MS")]
    lease_ttl_ms: Option<String>,
    /// How often each token may ask; as many requests may come at once [default: 1000].
    #[arg(long, value_name = "N")]
    requests_per_second: Option<String>,
    /// PEM file of the certificate to show, with those that lead to a root. Only with one may others be listened to.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// PEM file of that certificate's private key.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// PEM file of roots: every client must show a certificate that leads to one, besides its token.
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MakeToken {
    /// What it is for.
    #[arg(long, value_enum)]
    role: RoleWord,
    /// The node that a token with role `node` is for.
    #[arg(long, value_name = "ID", required_if_eq("role", "node"))]
    node_id: Option<NodeId>,
    /// Its name, for the history and the log [default: the node id].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long it lets in, such as `12h` or `90d` [default: until its line is removed].
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration)]
    expires_in: Option<Duration>,
    /// Where the token is written.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The file of the tokens' hashes (else `AUTONOMY_ORCHESTRATOR_TOKENS`, else `orchestrator.tokens`).
    #[arg(long, value_name = "FILE")]
    tokens: Option<String>,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleWord {
    /// May read everything.
    Reader,
    /// May read and change everything.
    Operator,
    /// May read what concerns its node, and report for it in a rollout.
    Node,
}

/// What an orchestrator says when it is ready.
#[derive(Debug, Serialize)]
struct Started {
    event: &'static str,
    address: Option<SocketAddr>,
    store: String,
    tokens: String,
    signing_key_id: String,
    lease_ttl_ms: u64,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    name: String,
    role: String,
    expires_at: Option<String>,
    token_file: PathBuf,
    tokens: PathBuf,
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Serve(serve) => serve.run(context),
            Self::Token(token) => token.run(context),
        }
    }
}

impl MakeToken {
    fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let Self { role, node_id, name, expires_in, out: token_file, tokens } = self;
        let config = context.config(&Flags::default().set("orchestrator.tokens", tokens.as_ref()))?;
        let name = name.or_else(|| node_id.as_ref().map(ToString::to_string));
        let name = name.ok_or_else(|| CliError::usage("a token needs a name for the history: give `--name NAME`"))?;
        let role = match (role, node_id) {
            (RoleWord::Reader, None) => Role::Reader,
            (RoleWord::Operator, None) => Role::Operator,
            (RoleWord::Node, Some(node_id)) => Role::Node(node_id),
            (RoleWord::Node, None) => return Err(CliError::usage("role `node` needs its node: give `--node-id ID`")),
            (RoleWord::Reader | RoleWord::Operator, Some(_)) => {
                return Err(CliError::usage(
                    "`--node-id` is for role `node` alone: leave it out, or give `--role node`",
                ));
            }
        };
        let (mut caller, tokens) = (Caller::new(&name, role)?, config.orchestrator_tokens());
        caller.expires_at_ms = expires_in.map(time::from_now);
        Access::add(&tokens, &caller, &token_file)?;
        let expires_at = caller.expires_at_ms.map(time::rfc3339);
        let made = Made { name, role: caller.role.to_string(), expires_at, token_file, tokens };
        let out = &mut context.out;
        if out.format() == Format::Json {
            out.json(&made)?;
            return Ok(Exit::Success);
        }
        let Made { name, role, expires_at, token_file, tokens } = made;
        let until = expires_at.map(|expires_at| format!(", until {expires_at}")).unwrap_or_default();
        out.line(format_args!("wrote {}, mode 600: token `{name}` ({role}){until}", token_file.display()))?;
        out.note(format_args!("its hash is in {}: whoever removes that line takes it back", tokens.display()))?;
        Ok(Exit::Success)
    }
}

impl Serve {
    fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let flags = Flags::default()
            .set("orchestrator.listen", self.listen.as_ref())
            .set("store.path", self.store.as_ref())
            .set("orchestrator.database", self.database.as_ref())
            .set("orchestrator.database_password_file", self.database_password_file.as_ref())
            .set("orchestrator.database_ca", self.database_ca.as_ref())
            .set("orchestrator.tokens", self.tokens.as_ref())
            .set("orchestrator.signing_key", self.signing_key.as_ref())
            .set("orchestrator.lease_ttl_ms", self.lease_ttl_ms.as_ref())
            .set("orchestrator.requests_per_second", self.requests_per_second.as_ref())
            .set("orchestrator.tls_cert", self.tls_cert.as_ref())
            .set("orchestrator.tls_key", self.tls_key.as_ref())
            .set("orchestrator.tls_client_ca", self.tls_client_ca.as_ref());
        let config = context.config(&flags)?;
        service::block_on(serve(context, &config))
    }
}

async fn listen(config: &Config) -> Result<Listener, CliError> {
    let (address, config::Orchestrator { tls_cert, tls_key, tls_client_ca, .. }) =
        (config.orchestrator_listen(), config.orchestrator());
    match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => {
            let tls = Tls::read(cert, key, tls_client_ca.as_deref())?;
            Ok(Listener::tls(address, tls).await?)
        }
        (None, None) if tls_client_ca.is_none() => Ok(Listener::tcp(address).await?),
        _ => Err(CliError::usage(
            "tls is half there: set both `orchestrator.tls_cert` and `orchestrator.tls_key`, or neither, without `orchestrator.tls_client_ca`",
        )),
    }
}

/// The store to serve, and where it is.
fn store(config: &Config) -> Result<(Arc<dyn Store>, String), CliError> {
    let config::Orchestrator { database, database_password_file, database_ca, .. } = config.orchestrator();
    let Some(url) = config.orchestrator_database() else {
        let path = config.store_path();
        // Whoever set one of them means a database: a file that nobody looked at would be a fleet where nobody is enrolled.
        let of_a_database = [
            ("orchestrator.database_password_file", database_password_file),
            ("orchestrator.database_ca", database_ca),
        ];
        if database.is_none()
            && let Some((name, _)) = of_a_database.iter().find(|(_, file)| file.is_some())
        {
            return Err(CliError::usage(format!(
                "`{name}` is set, and no database: name the database with `--database URL`, or leave it out"
            )));
        }
        return Ok((Arc::new(SqliteStore::open(&path)?), path.display().to_string()));
    };
    let store = tokio::task::block_in_place(|| {
        PostgresStore::open(url, database_password_file.as_deref(), database_ca.as_deref())
    })?;
    Ok((Arc::new(store), url.to_owned()))
}

async fn serve(context: &mut Context<'_>, config: &Config) -> Result<Exit, CliError> {
    let lease_ttl_ms = config.lease_ttl_ms();
    if lease_ttl_ms < orchestrator::SHORTEST_LEASE_MS {
        return Err(CliError::usage(format!(
            "setting `orchestrator.lease_ttl_ms`: {lease_ttl_ms} is too short to be renewed in time: give {} or more",
            orchestrator::SHORTEST_LEASE_MS
        )));
    }
    let signing_key = PrivateKey::read(&config.orchestrator_signing_key())?;
    let signing_key_id = signing_key.id().to_string();
    let access = Access::open(config.orchestrator_tokens(), config.requests_per_second())?;
    let shutdown = service::interrupted()?;
    let listener = listen(config).await?;
    let (store, store_place) = store(config)?;
    let metrics = Arc::new(Metrics::new("autonomy-orchestrator", env!("CARGO_PKG_VERSION")));
    let orchestrator = Orchestrator::new(store, signing_key, lease_ttl_ms, access, metrics);
    let started = Started {
        event: "started",
        address: listener.address(),
        store: store_place,
        tokens: config.orchestrator_tokens().display().to_string(),
        signing_key_id,
        lease_ttl_ms,
    };
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.json(&started)?;
    } else {
        let Started { store, tokens, signing_key_id, .. } = &started;
        out.line(format_args!("enrollments {store}"))?;
        out.line(format_args!("tokens {tokens}"))?;
        out.line(format_args!("leases signed by key {signing_key_id}, for {lease_ttl_ms} ms"))?;
        out.line(format_args!("listening on {listener}"))?;
    }
    out.flush()?;
    let limits = service::within_open_files(context, orchestrator::limits(), Some(STORE_FILES))?;
    let Report { cut, .. } = orchestrator::run(listener, Arc::new(orchestrator), limits, shutdown).await;
    if context.out.format() == Format::Text {
        context.out.line(match cut {
            0 => "stopped: requests in flight were answered".to_owned(),
            cut => format!(
                "stopped: {cut} connections were cut before their answer: look whether what was asked there was done"
            ),
        })?;
    }
    Ok(Exit::Success)
}
