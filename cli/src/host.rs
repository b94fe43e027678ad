//! `autonomy host`

use std::{path::PathBuf, sync::Arc};

use clap::{Args, Subcommand};
use host_native::{
    config::Config,
    drain,
    enrollment::{LeaseLookup, Lookup, StoreError},
    host::{self, Enrollments, Host, Token},
    serve::{Listener, Metrics},
    wal::Wal,
};
use serde::Serialize;

use crate::{
    args::{DrainFlags, KeepFlags, LeaseFlags, StoreFlag, WalFlag},
    context::{self, Context, Flags},
    error::{CliError, Exit},
    node,
    output::Format,
    service,
};

/// Serve the runtimes of this node that are written in another language.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer enrollment look-ups and write frames, durably, until interrupted.
    ///
    /// Runtimes decide with `gate.wasm`; this is where they ask who is enrolled and where their decisions are written
    /// down. Whoever has the token is let in; `autonomy host token` makes one.
    #[command(after_help = "Examples:
  autonomy host serve
  autonomy host serve --socket /run/autonomy/host.sock
  autonomy host serve --listen 127.0.0.1:7778 --token-file host.token

Then, with the token of that file:
  curl -s 127.0.0.1:7778/v1/enrollments/robot-7 \\
    -H \"authorization: Bearer $(cat host.token)\"")]
    Serve(Box<Serve>),
    /// Make the token that lets runtimes in.
    #[command(after_help = "Examples:
  autonomy host token
  autonomy host token --out /run/autonomy/host.token")]
    Token(MakeToken),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:7778, nothing with `--socket`].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A Unix socket to listen on, which this user alone can open.
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// The file of the token (else `AUTONOMY_HOST_TOKEN_FILE`, else `host.token_file`).
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    #[command(flatten)]
    store: StoreFlag,
    #[command(flatten)]
    leases: LeaseFlags,
    /// How far the orchestrator's clock may be ahead.
    #[arg(long, value_name = "MS")]
    max_skew_ms: Option<String>,
    #[command(flatten)]
    wal: WalFlag,
    #[command(flatten)]
    keep: KeepFlags,
    #[command(flatten)]
    drain: DrainFlags,
}

#[derive(Debug, Args)]
pub(crate) struct MakeToken {
    /// Where to write it (else `AUTONOMY_HOST_TOKEN_FILE`, else `host.token_file`).
    #[arg(long, value_name = "FILE")]
    out: Option<String>,
}

/// What a host says when it is ready.
#[derive(Debug, Serialize)]
struct Started {
    event: &'static str,
    address: Option<String>,
    socket: Option<String>,
    token_file: String,
    store: String,
    wal_dir: String,
    wal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_to: Option<String>,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    token_file: PathBuf,
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
        let config = context.config(&Flags::default().set_by("--out", "host.token_file", self.out.as_ref()))?;
        let token_file = config.token_file();
        Token::generate(&token_file)?;
        match context.out.format() {
            Format::Json => context.out.json(&Made { token_file })?,
            Format::Text => context.out.line(format_args!("wrote {}, mode 600", token_file.display()))?,
        }
        Ok(Exit::Success)
    }
}

impl Serve {
    fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        let flags = Flags::default()
            .set("host.listen", self.listen.as_ref())
            .set("host.socket", self.socket.as_ref())
            .set("host.token_file", self.token_file.as_ref())
            .set("attestation.max_skew_ms", self.max_skew_ms.as_ref());
        let flags = self.drain.add_to(self.keep.add_to(self.wal.add_to(self.store.add_to(flags))));
        let config = context.config(&self.leases.add_to(flags)?)?;
        service::block_on(serve(context, &config))
    }
}

async fn serve(context: &mut Context<'_>, config: &Config) -> Result<Exit, CliError> {
    let token = Token::read(&config.token_file())?;
    let enrollments = match (context::orchestrator(config)?, context::lease_keys(config)?) {
        (Some(client), Some(keys)) => {
            Enrollments::Remote(LeaseLookup::new(client, keys, config.freshness().max_skew_ms, config.leases_dir()))
        }
        _ => Lookup::new(config.store_path(), host::REFRESH_MS)?.into(),
    };
    let exporter = context::exporter(config)?;
    let signing = context::signing(config)?;
    // Taken before anything is written: a second host on the address leaves no trace in the log.
    let shutdown = service::interrupted()?;
    let mut listener = Listener::default();
    if let Some(address) = config.host_listen() {
        listener = Listener::tcp(address).await?;
    }
    if let Some(socket) = config.host_socket() {
        listener = listener.and_unix(socket)?;
    }
    let (wal, opened) = Wal::open(config.wal_dir(), config.wal_options())?;
    let metrics = Arc::new(Metrics::new("autonomy-host", env!("CARGO_PKG_VERSION")));
    let wal = Arc::new(wal);
    let host = Arc::new(Host::open(enrollments, Arc::clone(&wal), token, Arc::clone(&metrics)).await?);
    let _keeper = service::keep(wal, config, signing, "host")?;
    let _drain = exporter.map(|to| drain::Task::start(config.wal_dir(), to, metrics)).transpose()?;
    let started = Started {
        event: "started",
        address: listener.address().map(|address| address.to_string()),
        socket: config.host_socket().map(|path| path.display().to_string()),
        token_file: config.token_file().display().to_string(),
        store: context::enrollments(config),
        wal_dir: config.wal_dir().display().to_string(),
        wal: service::how_opened(&opened),
        drain_to: config.drain().to.clone(),
    };
    let out = &mut context.out;
    if out.format() == Format::Json {
        out.json(&started)?;
    } else {
        let Started { token_file, store, wal_dir, wal, drain_to, .. } = &started;
        out.line(format_args!("token {token_file}"))?;
        out.line(format_args!("enrollments {store}"))?;
        out.line(format_args!("log {wal_dir} ({wal})"))?;
        if let Some(drain_to) = drain_to {
            out.line(format_args!("drained to {drain_to}"))?;
        }
        out.line(format_args!("listening on {listener}"))?;
    }
    out.flush()?;
    let path = config.store_path();
    if config.orchestrator_url().is_none() && node::is_absent(&path) {
        let missing = StoreError::Missing { path };
        context.out.warning(format_args!("every look-up is answered 503: {missing}"))?;
    }
    service::warn_of_retention(context, config)?;
    let limits = service::within_open_files(context, host::limits(), None)?;
    host::run(listener, host, limits, shutdown).await?;
    service::stopped(context)
}
