//! The native host as a service: enrollment look-ups and durable frames for the runtimes of this node that are written in
//! another language. `docs/src/spec/host.md` is the contract.
//!
//! It decides nothing: a runtime decides with `gate.wasm`, and runs a tool once its frames are durable here.

#[cfg(feature = "schema")]
mod openapi;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, MatchedPath, Path, Request, State, rejection::PathRejection},
    middleware::{self, Next},
    response::Response,
};
use gate_core::{
    Answer, Digest, Frame, NodeId,
    decision::{DecisionAttrs, Layer},
    frame::{Attrs, Kind, Received},
    json, read_object,
    reason::Policy,
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub use crate::token::{TakenBy, Token, TokenError};
#[cfg(feature = "schema")]
pub use openapi::openapi;

use crate::{
    ErrorClass,
    enrollment::{LeaseLookup, Lookup},
    gate::{frame, new_audit_id, now_ms},
    serve::{
        self, Limits, Listener, Metrics, Readiness, Report, Route, error_response, fallbacks, health_routes,
        json_response,
    },
    wal::{Wal, WalError},
};

/// Facts that are remembered as written. A runtime whose facts were forgotten is asked for them again.
const KNOWN_FACTS: usize = 65_536;

/// How long an answer is given again as it was observed, in milliseconds, while nothing has changed: less than the staleness
/// that any gate allows, and long enough that a busy runtime has the same facts for a while.
pub const REFRESH_MS: u64 = 200;

/// What one client may take: room for the largest batch that the log takes.
pub fn limits() -> Limits {
    Limits { max_body_bytes: 4 * 1024 * 1024, ..Limits::default() }
}

/// Answers look-ups and writes frames.
#[derive(Debug)]
pub struct Host {
    enrollments: Enrollments,
    wal: Arc<Wal>,
    /// The facts that this process has put into the log, and where: no decision goes in before its facts, or into another
    /// segment.
    known: Mutex<BTreeMap<Digest, u64>>,
    token: Token,
    metrics: Arc<Metrics>,
}

/// Where it looks who is enrolled.
#[derive(Debug)]
pub enum Enrollments {
    /// In the store of this machine.
    Local(Box<Mutex<Lookup>>),
    /// With an orchestrator.
    Remote(LeaseLookup),
}

impl From<Lookup> for Enrollments {
    fn from(lookup: Lookup) -> Self {
        Self::Local(Box::new(Mutex::new(lookup)))
    }
}

impl Enrollments {
    async fn answer(&self, node_id: &NodeId) -> Answer {
        match self {
            Self::Local(lookup) => lookup.lock().unwrap_or_else(PoisonError::into_inner).answer(node_id, now_ms()),
            Self::Remote(leases) => leases.answer(node_id, now_ms(), REFRESH_MS).await,
        }
    }
}

const HEALTH: &str = "/v1/health";
const ENROLLMENT: &str = "/v1/enrollments/{node_id}";
const FRAMES: &str = "/v1/frames";

/// In: `POST /v1/frames`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct Batch {
    /// What a gate gave; durable whole or not at all.
    frames: Vec<Received>,
}

read_object!(Batch { frames });

/// Out: `POST /v1/frames`, where it is durable.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Appended {
    /// The number of the batch's first frame in the log.
    first_seq: u64,
    /// The number of its last.
    last_seq: u64,
}

/// Out: `GET /v1/health`.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Health {
    /// `ok`.
    status: &'static str,
    /// The host's version.
    version: &'static str,
}

#[derive(Serialize)]
struct LifecycleAttrs {
    event: &'static str,
    version: &'static str,
}

impl Host {
    /// A host that writes to `wal`, and lets in who has the token. Writes down that it started.
    ///
    /// # Errors
    /// The log did not take the first frame.
    pub async fn open(
        enrollments: impl Into<Enrollments>,
        wal: Arc<Wal>,
        token: Token,
        metrics: Arc<Metrics>,
    ) -> Result<Self, WalError> {
        let host = Self { enrollments: enrollments.into(), wal, known: Mutex::default(), token, metrics };
        host.record("host_started").await?;
        Ok(host)
    }

    async fn record(&self, event: &'static str) -> Result<(), WalError> {
        let attrs = LifecycleAttrs { event, version: env!("CARGO_PKG_VERSION") };
        self.wal.append(vec![frame(Kind::Lifecycle, new_audit_id(), None, &attrs)]).await.map(drop)
    }

    /// Queues a batch unless a decision in it comes before its facts; the facts that are missing then.
    fn queue(&self, frames: Vec<Received>) -> Result<crate::wal::Ack, Digest> {
        // Held until the batch is queued, so that no other comes between.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut told, mut oldest) = (BTreeSet::new(), None::<(u64, Digest)>);
        for received in &frames {
            match &received.attrs {
                Attrs::Facts(facts) => drop(told.insert(facts.id)),
                Attrs::Decision(attrs) if told.contains(&attrs.facts) => {}
                Attrs::Decision(attrs) => {
                    let seq = *known.get(&attrs.facts).ok_or(attrs.facts)?;
                    oldest = Some(oldest.map_or((seq, attrs.facts), |before| before.min((seq, attrs.facts))));
                }
                Attrs::Action(_) => {}
            }
        }
        let frames = frames.into_iter().map(Frame::from).collect();
        let ack = match oldest {
            None => self.wal.append(frames),
            Some((seq, facts)) => self.wal.append_beside(seq, frames).map_err(|_| {
                // Their segment is sealed, with all facts up to them.
                known.retain(|_, known| *known > seq);
                facts
            })?,
        };
        if let Some(first_seq) = ack.first_seq() {
            if known.len().saturating_add(told.len()) > KNOWN_FACTS {
                known.clear();
            }
            known.extend(told.into_iter().map(|facts| (facts, first_seq)));
        }
        Ok(ack)
    }
}

/// What is served to who has the token.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Health,
    LookUp,
    Append,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Health, Self::LookUp, Self::Append];

    fn route(self) -> Route<Arc<Host>> {
        match self {
            Self::Health => Route::get(HEALTH, health),
            Self::LookUp => Route::get(ENROLLMENT, look_up),
            Self::Append => Route::post(FRAMES, append),
        }
    }
}

/// The host's routes: `/v1/health`, `/v1/enrollments/{node_id}` and `/v1/frames` for who has the token; `/healthz`,
/// `/readyz` and `/metrics` for everybody.
pub fn router(host: Arc<Host>, readiness: Readiness) -> Router {
    let metrics = Arc::clone(&host.metrics);
    let api = Route::router(Operation::ALL.map(Operation::route))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&host), admit))
        // The listener's own limit holds; this one is of the library.
        .layer(DefaultBodyLimit::disable())
        .with_state(host);
    let serves = "a host serves `/v1/enrollments/<node id>`, `/v1/frames` and `/v1/health`, and for monitoring `/healthz`, `/readyz` and \
                  `/metrics`: see `docs/src/spec/host.md`";
    fallbacks(api.merge(health_routes(readiness, metrics)), serves)
}

/// Lets in who has the token, and counts what was answered.
async fn admit(State(host): State<Arc<Host>>, path: MatchedPath, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let response = if headers.contains_key(header::ORIGIN) {
        // A browser adds it, and no page has the token by right.
        error_response(StatusCode::FORBIDDEN, "calls from web pages are refused: call from a program")
    } else if host.token.admits(headers) {
        next.run(request).await
    } else {
        let what =
            "the token is missing or wrong: send `authorization: Bearer <token>` with the token of the host's file";
        let mut response = error_response(StatusCode::UNAUTHORIZED, what);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    };
    host.metrics.requested(path.as_str(), response.status().as_u16());
    response
}

async fn health(State(host): State<Arc<Host>>) -> Response {
    match host.wal.failure() {
        None => json_response(StatusCode::OK, &Health { status: "ok", version: env!("CARGO_PKG_VERSION") }),
        Some(error) => refused(&error),
    }
}

async fn look_up(State(host): State<Arc<Host>>, node_id: Result<Path<String>, PathRejection>) -> Response {
    let parsed = node_id.map_err(|_| "node id is not UTF-8: escape its bytes again".to_owned());
    let node_id = match parsed.and_then(|Path(text)| NodeId::parse(&text).map_err(|error| error.to_string())) {
        Ok(node_id) => node_id,
        Err(why) => return error_response(StatusCode::BAD_REQUEST, why),
    };
    let answer = host.enrollments.answer(&node_id).await;
    match &answer {
        Answer::Unavailable { why } => error_response(StatusCode::SERVICE_UNAVAILABLE, why),
        Answer::NotEnrolled { .. } | Answer::Enrolled { .. } => json_response(StatusCode::OK, &answer),
    }
}

async fn append(State(host): State<Arc<Host>>, body: Bytes) -> Response {
    let begun = Instant::now();
    let frames = match json::read::<Batch>(&body) {
        Ok(Batch { frames }) => frames,
        Err(error) => {
            let what = format!(
                "the body is not a batch of frames: {error}; send {{\"frames\": […]}} with frames as a gate gave them"
            );
            return error_response(StatusCode::BAD_REQUEST, what);
        }
    };
    let decisions = decisions(&frames);
    let ack = match host.queue(frames) {
        Ok(ack) => ack,
        Err(facts) => {
            let what = format!("no facts `{facts}` in the log: send the batch again with their frame in front");
            return error_response(StatusCode::CONFLICT, what);
        }
    };
    match ack.await {
        Ok(seqs) => {
            host.metrics.appended(*seqs.end(), begun.elapsed());
            decisions.iter().for_each(|decision| host.metrics.recorded(decision));
            json_response(StatusCode::OK, &Appended { first_seq: *seqs.start(), last_seq: *seqs.end() })
        }
        Err(error) => refused(&error),
    }
}

/// Nothing of the batch is in the log, unless the log itself failed; then it may be, and counts for nothing.
fn refused(error: &WalError) -> Response {
    let status = match (error, error.class()) {
        (WalError::BatchTooLarge { .. } | WalError::FrameTooLarge { .. }, _) => StatusCode::PAYLOAD_TOO_LARGE,
        (_, ErrorClass::Usage) => StatusCode::BAD_REQUEST,
        (_, ErrorClass::Unavailable | ErrorClass::Damaged) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = error_response(status, error.to_string());
    if matches!(error, WalError::Overloaded { .. }) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What callers were answered, as it is counted.
fn decisions(frames: &[Received]) -> Vec<serve::Recorded> {
    let decision = |received: &Received| match &received.attrs {
        Attrs::Decision(attrs) => Some((received.audit_id.clone(), attrs.clone())),
        Attrs::Facts(_) | Attrs::Action(_) => None,
    };
    let frames: Vec<_> = frames.iter().filter_map(decision).collect();
    let policies = frames.iter().filter(|(_, attrs)| attrs.layer == Layer::Policy);
    policies
        .map(|(audit_id, policy)| {
            let found = frames.iter().find(|(id, attrs)| id == audit_id && attrs.layer == Layer::Attestation);
            recorded(policy, found.map(|(_, attrs)| attrs))
        })
        .collect()
}

fn recorded(policy: &DecisionAttrs, attestation: Option<&DecisionAttrs>) -> serve::Recorded {
    let enforced = attestation.filter(|attrs| attrs.enforced);
    let reason = enforced.unwrap_or(policy).reason.as_str();
    let effect = if reason == Policy::Allowed.as_str() { "allow" } else { "deny" };
    serve::Recorded {
        decision: serve::Decision { effect, reason, mode: policy.mode.as_str() },
        would_deny: attestation.filter(|attrs| !attrs.enforced).map(|attrs| attrs.reason.as_str()),
    }
}

/// Serves until `shutdown` resolves or the log fails, lets requests in flight finish, and closes the log.
///
/// # Errors
/// The log failed: that ends the host, which could only refuse.
pub async fn run(
    listener: Listener,
    host: Arc<Host>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<Report, WalError> {
    let readiness = Readiness::default();
    let routes = router(Arc::clone(&host), readiness.clone());
    readiness.set_ready();
    let stop = readiness.until(shutdown, host.wal.end());
    let report = serve::serve(listener, routes, limits, Arc::clone(&host.metrics), stop).await;
    host.record("host_stopped").await?;
    host.wal.close()?;
    Ok(report)
}
