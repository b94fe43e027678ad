//! A hardened HTTP/1.1 accept loop for all services.
//!
//! A request reaches its handler only when it is whole: head and body are read here, against a deadline and a size, so a
//! handler never waits for a slow client and never sees half a call. What it withstands:
//!
//! | attack or accident | answer |
//! | --- | --- |
//! | TLS handshake or head sent slowly, or an idle connection | closed after [`Limits::head_timeout`] |
//! | body sent slowly | 408 after [`Limits::body_timeout`] |
//! | body too large, announced or not | 413 |
//! | head too large, too many headers | 431, closed |
//! | bytes that are not HTTP/1 | 400, closed |
//! | answer not read | closed after [`Limits::write_timeout`] without progress |
//! | handler does not answer | 504 after [`Limits::handler_timeout`] |
//! | handler panics | that connection is closed; no other notices |
//! | too many connections | 503 at once, with `retry-after`: a caller that is told can turn elsewhere, one that waits cannot |
//! | no file descriptors left | accepting pauses and is tried again; connections that are open go on |
//!
//! With [`Limits::half_close`], a client that closes its sending half still gets its answer, and one that goes away does not stop its
//! call: the handler is dropped early only by [`Limits::handler_timeout`], a failed write or the end of the drain. Without, it is dropped
//! where either closes.

mod connection;
mod error;
mod health;
mod listener;
mod metrics;
mod own;
mod route;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::ErrorClass;

pub(crate) use self::{error::json_response, listener::is_loopback, metrics::Recorded, route::Route};
pub use self::{
    error::{ErrorBody, error_response, fallbacks},
    health::{Readiness, health_routes},
    listener::{Listener, Tls},
    metrics::{Call, Decision, Metrics},
};
#[cfg(feature = "schema")]
pub(crate) use self::{
    health::{LIVE, METRICS, READY},
    own::OWN_ANSWERS,
};

/// What one client, and all clients together, may take.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Connections served at once; one more is answered 503.
    pub max_connections: usize,
    /// Headers in one request.
    pub max_headers: usize,
    /// Bytes of a request's head, and of the buffer it is read into. At least 8 KiB.
    pub max_head_bytes: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// From the accept, or from the answer before, to the end of a request's head. So it is the keep-alive idle time as well.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// From the whole request to the answer's head.
    pub handler_timeout: Duration,
    /// How long a write may make no progress.
    pub write_timeout: Duration,
    /// How long requests in flight may take after shutdown was asked for.
    pub drain_timeout: Duration,
    /// Whether a client may close its sending half and read on. Otherwise who closes it is gone, and so is their place.
    pub half_close: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_headers: 64,
            max_head_bytes: 16 * 1024,
            max_body_bytes: 1024 * 1024,
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(10),
            handler_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            half_close: true,
        }
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others on the network could reach it.
    #[error(
        "`{0}` is not a loopback address: listen on `127.0.0.1` or `[::1]`; anything else needs tls and authentication, \
         which `autonomy orchestrator serve` alone has, with `--tls-cert` and `--tls-key`"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`: {source}; {}", listen_remedy(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be listened on.
    #[error("cannot listen on socket `{}`: {source}; choose another `--socket`", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else has the socket's name.
    #[error("`{}` is there and is no socket, so it is kept: choose another `--socket`", _0.display())]
    NotSocket(PathBuf),
    /// Somebody listens on the socket.
    #[error("another process listens on socket `{}`: stop it, or choose another `--socket`", _0.display())]
    SocketTaken(PathBuf),
}

fn listen_remedy(source: &io::Error) -> &'static str {
    let kind = source.kind();
    if kind == io::ErrorKind::PermissionDenied {
        "choose a port from 1024 on in `--listen`, or run it as who may open lower ones"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "choose an address of this machine in `--listen`"
    } else {
        "stop what listens there, such as a runtime, or choose another `--listen`"
    }
}

impl Error {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotLoopback(_) | Self::NotSocket(_) => ErrorClass::Usage,
            Self::Listen { .. } | Self::Socket { .. } | Self::SocketTaken(_) => ErrorClass::Unavailable,
        }
    }
}

/// What was done, once it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Connections that were served.
    pub served: u64,
    /// Connections that were answered 503 because of [`Limits::max_connections`].
    pub refused: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Connections that were cut because they outlived [`Limits::drain_timeout`].
    pub cut: u64,
}

/// Longest pause after an accept that failed.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// The answer to one connection too many.
fn too_many() -> String {
    const BODY: &str = r#"{"error":"too many connections: try again later"}"#;
    format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{BODY}",
        own::TOO_MANY.status,
        BODY.len()
    )
}

/// Serves `router` until `shutdown` resolves, then lets requests in flight finish.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) -> Report {
    let mut report = Report::default();
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let (stopping, stop) = watch::channel(false);
    let mut connections = JoinSet::new();
    let limits = Arc::new(limits);
    let mut backoff = BACKOFF_MIN;
    tokio::pin!(shutdown);

    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue, // forget those that ended
            accepted = listener.accept() => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_clients(&error) => continue,
            Err(error) => {
                report.accept_errors = report.accept_errors.saturating_add(1);
                tracing::warn!(%listener, %error, pause = ?backoff, "accept failed: if files run out, raise `ulimit -n`");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = backoff.saturating_mul(2).min(BACKOFF_MAX);
                continue;
            }
        };
        backoff = BACKOFF_MIN;
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            report.refused = report.refused.saturating_add(1);
            metrics.connection_refused();
            accepted.refuse(too_many().as_bytes());
            continue;
        };
        report.served = report.served.saturating_add(1);
        let open = metrics.connection_opened();
        let (router, limits, stop) = (router.clone(), Arc::clone(&limits), stop.clone());
        connections.spawn(async move {
            match tokio::time::timeout(limits.head_timeout, accepted.into_stream()).await {
                Ok(Ok(stream)) => connection::run(stream, router, limits, stop, open).await,
                Ok(Err(error)) => tracing::debug!(%error, "tls handshake failed"),
                Err(_) => tracing::debug!("tls handshake took too long"),
            }
            drop(permit);
        });
    }

    let name = listener.to_string();
    drop(listener);
    stopping.send_replace(true);
    let deadline = Instant::now() + limits.drain_timeout;
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline.into(), drained).await.is_err() {
        report.cut = connections.len() as u64;
        tracing::warn!(listener = name, cut = report.cut, "requests in flight outlived the drain");
        connections.shutdown().await;
    }
    report
}

/// The client gave up before it was accepted: its error, not ours.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

#[cfg(test)]
mod tests;
