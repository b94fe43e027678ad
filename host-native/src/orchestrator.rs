//! The orchestrator as a service: a fleet's enrollments behind HTTP. `docs/src/spec/orchestrator.md` is the contract.
//!
//! It keeps nothing in memory that another instance over the same store would miss: what counts is the [`Store`].

mod access;
mod lease;
mod lookups;
#[cfg(feature = "schema")]
mod openapi;
mod rollouts;
mod tags;
mod waiting;

use std::{
    convert::Infallible,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{
        MatchedPath, Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use gate_core::{NodeId, Status, json};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::timeout,
};

pub use access::{Access, AccessError, Caller, Role};
#[cfg(feature = "schema")]
pub use openapi::openapi;

use self::{lease::Signer, lookups::Lookups, tags::Held, waiting::Waiting};
use crate::{
    ErrorClass,
    enrollment::{
        Changes, IfActive, Query as Rows, Store, StoreError,
        rollout::BETWEEN,
        wire::{
            BODY_BYTES, ChangesQuery, Count, CountQuery, Enroll, Found, History, HistoryQuery, ListQuery, PAGE, Page,
            STEPS_TIMEOUT, SetRollout, WAIT_MS,
        },
    },
    gate::{new_audit_id, now_ms},
    key::PrivateKey,
    serve::{
        self, Limits, Listener, Metrics, Readiness, Report, Route, error_response, fallbacks, health_routes,
        json_response,
    },
};

/// Questions of clients that the store has at once, as many changes, and as many reports of nodes. Each waits on a thread, and most of those of the executor are
/// left for what everybody waits for, which is not behind a long queue in the store either: leases, readiness and rollouts.
const AT_ONCE: usize = 32;

/// Longest that a client waits for its turn: what the store takes then is within the time of a client, too.
const TURN: Duration = Duration::from_secs(3);

/// How often the store is asked for changes that others made.
const LOOK: Duration = Duration::from_millis(100);

/// How often rollouts are looked at for what is left to do.
const GO_ON: Duration = Duration::from_secs(1);

/// Shortest time that a lease may count, in milliseconds: what it takes to renew it and to try again.
pub const SHORTEST_LEASE_MS: u64 = 1_000;

const ENROLLMENTS: &str = "/v1/enrollments";
const ENROLLMENT: &str = "/v1/enrollments/{node_id}";
const REVOKE: &str = "/v1/enrollments/{node_id}/revoke";
const ROLLOUT: &str = "/v1/enrollments/{node_id}/rollout";
const HISTORY: &str = "/v1/enrollments/{node_id}/history";
const COUNT: &str = "/v1/count";
const LEASE: &str = "/v1/leases/{node_id}";
const CHANGES: &str = "/v1/changes";
const ROLLOUTS: &str = "/v1/rollouts";
const ONE_ROLLOUT: &str = "/v1/rollouts/{rollout_id}";
const COMMAND: &str = "/v1/rollouts/{rollout_id}/{command}";
const DIRECTIVE: &str = "/v1/directives/{node_id}";
const ONE_DIRECTIVE: &str = "/v1/directives/{node_id}/{rollout_id}";

/// Names a request in the answer and in the service's own log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all clients together may take: each runtime keeps a request for changes open. One that is gone must not keep its place until it
/// would be answered: a whole fleet may come again at once.
pub fn limits() -> Limits {
    let (max_connections, max_body_bytes) = (16 * 1024, BODY_BYTES);
    Limits { max_connections, max_body_bytes, handler_timeout: STEPS_TIMEOUT, half_close: false, ..Limits::default() }
}

/// Answers for a store.
pub struct Orchestrator {
    store: Arc<dyn Store>,
    signer: Signer,
    access: Access,
    metrics: Arc<Metrics>,
    /// A change was made here: look at once.
    changed: Notify,
    waiting: Waiting,
    lookups: Arc<Lookups>,
    questions: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    /// Of their own, so that no revoke waits behind what a fleet says of its rollout.
    reports: Arc<Semaphore>,
}

impl Orchestrator {
    /// Answers for `store` whoever has a token, and signs leases that count for `lease_ttl_ms`.
    pub fn new(
        store: Arc<dyn Store>,
        signing_key: PrivateKey,
        lease_ttl_ms: u64,
        access: Access,
        metrics: Arc<Metrics>,
    ) -> Self {
        let signer = Signer::new(signing_key, lease_ttl_ms);
        let (waiting, lookups) = (Waiting::default(), Arc::default());
        let [questions, changes, reports] = [(); 3].map(|()| Arc::new(Semaphore::new(AT_ONCE)));
        Self { store, signer, access, metrics, changed: Notify::new(), waiting, lookups, questions, changes, reports }
    }

    /// Asks the store for a client.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.ask_in_turn(&self.questions, question).await
    }

    async fn ask_in_turn<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let Ok(turn) = timeout(TURN, Arc::clone(turns).acquire_owned()).await else {
            let why = format!(
                "{AT_ONCE} others were asking the store for {TURN:?}: look what it is busy with, and ask again"
            );
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, why));
        };
        self.ask_at_once(move |store| {
            let _turn = turn;
            question(store)
        })
        .await
    }

    /// Asks the store, which may wait for a disk.
    async fn ask_at_once<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || question(&*store)).await {
            Ok(answer) => answer.map_err(|error| Refusal::of(&error)),
            Err(error) => {
                Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("the store failed ({error}): report it")))
            }
        }
    }

    /// A change, which those who wait for it shall see at once.
    async fn change<T: Serialize + Send + 'static>(
        &self,
        change: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer {
        self.change_in_turn(&self.changes, change).await
    }

    async fn change_in_turn<T: Serialize + Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        change: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer {
        let changed = self.ask_in_turn(turns, change).await?;
        self.changed.notify_one();
        Ok(found(&changed))
    }

    /// Looks for changes, whoever made them, and whether the store can be asked at all.
    async fn watch(&self, readiness: &Readiness) {
        let (mut seen, mut is_ready) = (None, true);
        loop {
            let looked = self.ask_at_once(move |store| match seen {
                Some(seen) => store.changes(seen, None, PAGE),
                None => Ok(Changes { changes: Vec::new(), cursor: store.revision()? }),
            });
            match looked.await {
                Ok(Changes { changes, cursor }) => {
                    match seen {
                        Some(seen) if seen <= cursor => self.waiting.wake(&changes, cursor),
                        // What was changed before is not known, or was taken back.
                        Some(_) | None => self.waiting.wake_all(cursor),
                    }
                    seen = Some(cursor);
                    self.metrics.revision(cursor);
                    readiness.set_ready();
                    is_ready = true;
                    if changes.len() == PAGE {
                        continue;
                    }
                }
                Err(Refusal(_, why)) => {
                    if is_ready {
                        tracing::error!("the store cannot be asked: {why}");
                    }
                    readiness.set_not_ready(why);
                    is_ready = false;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Does what is left to do of rollouts, for ever. What is wrong is said once.
    async fn go_on(&self) -> Infallible {
        let mut said = String::new();
        loop {
            let pause = match self.ask_at_once(|store| store.rollouts().go_on("orchestrator", now_ms())).await {
                Ok(true) => BETWEEN,
                Ok(false) => {
                    said.clear();
                    GO_ON
                }
                Err(Refusal(_, why)) => {
                    if said != why {
                        tracing::error!("what is left to do of rollouts is not done: {why}");
                        said = why;
                    }
                    GO_ON
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

impl std::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orchestrator").field("access", &self.access).finish_non_exhaustive()
    }
}

/// What is served to who has a token.
#[derive(Debug, Clone, Copy)]
enum Operation {
    List,
    LookUp,
    Enroll,
    Revoke,
    SetRollout,
    History,
    Count,
    Lease,
    Changes,
    Rollouts,
    CreateRollout,
    Rollout,
    CommandRollout,
    Directive,
    Report,
    DirectiveOf,
}

impl Operation {
    const ALL: [Self; 16] = [
        Self::List,
        Self::LookUp,
        Self::Enroll,
        Self::Revoke,
        Self::SetRollout,
        Self::History,
        Self::Count,
        Self::Lease,
        Self::Changes,
        Self::Rollouts,
        Self::CreateRollout,
        Self::Rollout,
        Self::CommandRollout,
        Self::Directive,
        Self::Report,
        Self::DirectiveOf,
    ];

    /// Whether [`tags::tag`] gives its answers their tags. Lists too: a console asks for its page again and again, and to digest
    /// a full one takes less than to read it.
    fn is_tagged(self) -> bool {
        match self {
            Self::List
            | Self::LookUp
            | Self::History
            | Self::Count
            | Self::Rollouts
            | Self::Rollout
            | Self::Directive
            | Self::DirectiveOf => true,
            // Has a tag of its own, so that who holds a lease costs no signature.
            Self::Lease => false,
            // A client has what came before its cursor, and asks for what it does not have.
            Self::Changes => false,
            // They change something.
            Self::Enroll
            | Self::Revoke
            | Self::SetRollout
            | Self::CreateRollout
            | Self::CommandRollout
            | Self::Report => false,
        }
    }

    fn route(self) -> Route<Arc<Orchestrator>> {
        match self {
            Self::List => Route::get(ENROLLMENTS, list),
            Self::LookUp => Route::get(ENROLLMENT, look_up),
            Self::Enroll => Route::put(ENROLLMENT, enroll),
            Self::Revoke => Route::post(REVOKE, revoke),
            Self::SetRollout => Route::put(ROLLOUT, set_rollout),
            Self::History => Route::get(HISTORY, history),
            Self::Count => Route::get(COUNT, count),
            Self::Lease => Route::get(LEASE, lease),
            Self::Changes => Route::get(CHANGES, changes),
            Self::Rollouts => Route::get(ROLLOUTS, rollouts::list),
            Self::CreateRollout => Route::post(ROLLOUTS, rollouts::create),
            Self::Rollout => Route::get(ONE_ROLLOUT, rollouts::show),
            Self::CommandRollout => Route::post(COMMAND, rollouts::command),
            Self::Directive => Route::get(DIRECTIVE, rollouts::directive),
            Self::Report => Route::put(DIRECTIVE, rollouts::report),
            Self::DirectiveOf => Route::get(ONE_DIRECTIVE, rollouts::directive_of),
        }
    }
}

/// The orchestrator's routes: `/v1/…` for who has a token; `/healthz`, `/readyz` and `/metrics` for everybody.
fn router(orchestrator: Arc<Orchestrator>, readiness: Readiness) -> Router {
    let metrics = Arc::clone(&orchestrator.metrics);
    let (tagged, others): (Vec<_>, Vec<_>) = Operation::ALL.into_iter().partition(|operation| operation.is_tagged());
    let api = Route::router(tagged.into_iter().map(Operation::route))
        .route_layer(middleware::from_fn(tags::tag))
        .merge(Route::router(others.into_iter().map(Operation::route)))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&orchestrator), admit))
        .route_layer(middleware::from_fn(see_through))
        .with_state(orchestrator);
    let serves = "an orchestrator serves `/v1/enrollments` and what else `docs/src/spec/orchestrator.md` has, and for monitoring `/healthz`, \
                  `/readyz` and `/metrics`";
    // Outermost: what the router answers by itself has an id as well.
    fallbacks(api.merge(health_routes(readiness, metrics)), serves).layer(middleware::from_fn(identify))
}

/// Serves until `shutdown` resolves, and lets requests in flight finish.
pub async fn run(
    listener: Listener,
    orchestrator: Arc<Orchestrator>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Report {
    let readiness = Readiness::default();
    let routes = router(Arc::clone(&orchestrator), readiness.clone());
    let metrics = Arc::clone(&orchestrator.metrics);
    let stop = async {
        tokio::select! {
            () = shutdown => {}
            () = orchestrator.watch(&readiness) => {}
        }
        readiness.set_not_ready("shutting down");
        // Those who wait for changes are answered now.
        orchestrator.waiting.stop();
    };
    let mut background = JoinSet::new();
    let app = Arc::clone(&orchestrator);
    background.spawn(async move { app.lookups.answer(&app).await });
    let app = Arc::clone(&orchestrator);
    background.spawn(async move { app.go_on().await });
    serve::serve(listener, routes, limits, metrics, stop).await
}

type App = State<Arc<Orchestrator>>;
type Answer = Result<Response, Refusal>;

/// Why a request has no other answer.
#[derive(Debug, Clone)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn of(error: &StoreError) -> Self {
        let status = match (error, error.class()) {
            (StoreError::NotEnrolled { .. }, _) => StatusCode::NOT_FOUND,
            (StoreError::CaseConflict { .. } | StoreError::RefConflict { .. }, _) => StatusCode::CONFLICT,
            (StoreError::Rollout(error), _) => rollouts::status(error),
            // What became of its file is not for who asks to correct.
            (StoreError::NotAFile { .. }, _) => StatusCode::SERVICE_UNAVAILABLE,
            (_, ErrorClass::Usage) => StatusCode::BAD_REQUEST,
            (_, ErrorClass::Unavailable | ErrorClass::Damaged) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }

    fn bad(why: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, why.into())
    }

    fn may_not(caller: &Caller, what: &str, who_may: &str) -> Self {
        let why = format!("token `{}` ({}) may not {what}: use one of {who_may}", caller.name, caller.role);
        Self(StatusCode::FORBIDDEN, why)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        error_response(self.0, self.1)
    }
}

impl Caller {
    fn to_read_all(&self) -> Result<(), Refusal> {
        if self.reads_all() { Ok(()) } else { Err(Refusal::may_not(self, "read about all nodes", "role `reader`")) }
    }

    fn to_read(&self, node_id: &NodeId) -> Result<(), Refusal> {
        if self.reads(node_id) {
            return Ok(());
        }
        Err(Refusal::may_not(self, &format!("read about node `{node_id}`"), "that node or of role `reader`"))
    }

    fn to_change(&self) -> Result<(), Refusal> {
        if self.changes() { Ok(()) } else { Err(Refusal::may_not(self, "change enrollments", "role `operator`")) }
    }

    fn to_report(&self, node_id: &NodeId) -> Result<(), Refusal> {
        if self.reports(node_id) {
            return Ok(());
        }
        Err(Refusal::may_not(self, &format!("report for node `{node_id}`"), "that node or of role `operator`"))
    }
}

/// The id of a request, its own or a new one.
#[derive(Clone)]
struct RequestId(HeaderValue);

/// Gives what is asked below `/v1` an id, and its answer the same.
async fn identify(mut request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with("/v1/") {
        return next.run(request).await;
    }
    let given = request.headers().get(&REQUEST_ID).filter(|id| id.to_str().is_ok_and(NodeId::is_one));
    let Some(id) = given.cloned().or_else(|| HeaderValue::from_str(new_audit_id().as_str()).ok()) else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Goes on with what may change something, and writes it down, when its client is gone: [`limits`] would end it with the connection.
async fn see_through(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    tokio::spawn(next.run(request)).await.unwrap_or_else(|error| {
        tracing::error!("a request failed: {error}");
        let why = "the orchestrator failed: look at its log, and report it";
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, why.to_owned()).into_response()
    })
}

/// Lets in who has a token, counts what was answered, and writes it down.
async fn admit(State(app): App, path: MatchedPath, mut request: Request, next: Next) -> Response {
    let (begun, method) = (Instant::now(), request.method().clone());
    let request_id = request.extensions().get::<RequestId>().cloned();
    let who = match app.access.caller(request.headers()) {
        _ if request.headers().contains_key(header::ORIGIN) => {
            // A browser adds it, and no page has a token by right.
            Err(Refusal(StatusCode::FORBIDDEN, "calls from web pages are refused: call from a program".to_owned()))
        }
        Ok(Some(caller)) if caller.has_expired(now_ms()) => {
            let why = format!("token `{}` has expired: make another with `autonomy orchestrator token`", caller.name);
            Err(Refusal(StatusCode::UNAUTHORIZED, why))
        }
        Ok(Some(caller)) => match app.access.take(&caller) {
            Ok(()) => Ok(caller),
            Err(wait) => Err(too_often(&caller, wait)),
        },
        Ok(None) => {
            let why =
                "the token is missing or wrong: send `authorization: Bearer <token>` with a token of the orchestrator";
            Err(Refusal(StatusCode::UNAUTHORIZED, why.to_owned()))
        }
        Err(error) => {
            tracing::error!("nobody is let in: {error}");
            let why = "the orchestrator cannot read its tokens: look at its log";
            Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, why.to_owned()))
        }
    };
    let name = who.as_ref().map(|caller| caller.name.clone()).unwrap_or_default();
    let mut response = match who {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    let request_id = request_id.as_ref().and_then(|RequestId(id)| id.to_str().ok());
    let (route, status, took) = (path.as_str(), response.status().as_u16(), begun.elapsed());
    app.metrics.requested(route, status);
    // What is read, and may be, is not written down: there is too much of it.
    if method == Method::GET && status < 400 {
        tracing::debug!(request_id, who = name, %method, route, status, ?took, "answered");
    } else {
        tracing::info!(request_id, who = name, %method, route, status, ?took, "answered");
    }
    response
}

fn too_often(caller: &Caller, wait: Duration) -> Refusal {
    let (name, ms) = (&caller.name, wait.as_millis());
    let why = format!("token `{name}` asks too often: wait {ms} ms, or raise `orchestrator.requests_per_second`");
    Refusal(StatusCode::TOO_MANY_REQUESTS, why)
}

fn node(path: Result<Path<String>, PathRejection>) -> Result<NodeId, Refusal> {
    let Path(text) = path.map_err(|_| Refusal::bad("node id is not UTF-8: escape its bytes again"))?;
    NodeId::parse(&text).map_err(|error| Refusal::bad(error.to_string()))
}

fn no_body(bytes: &Bytes, what: &str) -> Result<(), Refusal> {
    if bytes.is_empty() { Ok(()) } else { Err(Refusal::bad(format!("a {what} takes no body: send none"))) }
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    let Query(query) = query.map_err(|error| {
        let said = error.body_text();
        let why = said.strip_prefix("Failed to deserialize query string: ").unwrap_or(&said);
        Refusal::bad(format!("query: {why}; correct it"))
    })?;
    Ok(query)
}

fn body<T: json::Read>(bytes: &[u8]) -> Result<T, Refusal> {
    json::read(bytes).map_err(|error| Refusal::bad(format!("the body is not what this takes: {error}; correct it")))
}

/// A status to choose rows by: of a slip there are none, and that would read as an answer.
fn known_status(asked: Option<Status>) -> Result<Option<Status>, Refusal> {
    match asked {
        Some(Status::Unknown(word)) => {
            let words: Vec<_> = Status::KNOWN.iter().map(|status| format!("`{status}`")).collect();
            Err(Refusal::bad(format!("status {}", json::Error::unknown_word(&word, &words.join(" or ")))))
        }
        known @ (None | Some(Status::Active | Status::Revoked)) => Ok(known),
    }
}

fn limit(asked: Option<usize>) -> Result<usize, Refusal> {
    limit_to(PAGE, asked)
}

fn limit_to(most: usize, asked: Option<usize>) -> Result<usize, Refusal> {
    match asked.unwrap_or(most.min(100)) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        other => Err(Refusal::bad(format!("limit `{other}` is out of range: use 1 to {most}"))),
    }
}

/// Takes away the one more than asked for, which tells that there is a next page.
fn cut<T>(items: &mut Vec<T>, limit: usize) -> bool {
    let more = items.len() > limit;
    items.truncate(limit);
    more
}

fn found(body: &impl Serialize) -> Response {
    json_response(StatusCode::OK, body)
}

async fn list(
    State(app): App,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    caller.to_read_all()?;
    let ListQuery { status, after, limit: asked } = query(asked)?;
    let limit = limit(asked)?;
    let rows = Rows { status: known_status(status)?, after, limit: limit.saturating_add(1) };
    let mut rows = app.ask(move |store| store.list(&rows)).await?;
    let more = cut(&mut rows, limit);
    let next_after = rows.last().filter(|_| more).map(|row| row.enrollment.node_id.clone());
    Ok(found(&Page { rows, next_after }))
}

async fn look_up(
    State(app): App,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
) -> Answer {
    let node_id = node(path)?;
    caller.to_read(&node_id)?;
    let row = app.lookups.row(node_id).await?;
    Ok(found(&Found { row }))
}

async fn enroll(
    State(app): App,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    bytes: Bytes,
) -> Answer {
    caller.to_change()?;
    let (node_id, Enroll { enrollment_ref, replace }) = (node(path)?, body(&bytes)?);
    let if_active = if replace == Some(true) { IfActive::Replace } else { IfActive::Refuse };
    app.change(move |store| store.enroll(&node_id, &enrollment_ref, if_active, &caller.name, now_ms())).await
}

async fn revoke(
    State(app): App,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    bytes: Bytes,
) -> Answer {
    caller.to_change()?;
    let node_id = node(path)?;
    no_body(&bytes, "revoke")?;
    app.change(move |store| store.revoke(&node_id, &caller.name, now_ms())).await
}

async fn set_rollout(
    State(app): App,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    bytes: Bytes,
) -> Answer {
    caller.to_change()?;
    let (node_id, SetRollout { rollout_state }) = (node(path)?, body(&bytes)?);
    app.change(move |store| store.set_rollout(&node_id, &rollout_state, &caller.name, now_ms())).await
}

async fn history(
    State(app): App,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    asked: Result<Query<HistoryQuery>, QueryRejection>,
) -> Answer {
    let node_id = node(path)?;
    caller.to_read(&node_id)?;
    let HistoryQuery { after, limit: asked } = query(asked)?;
    let limit = limit(asked)?;
    let (after, one_more) = (after.unwrap_or(0), limit.saturating_add(1));
    let mut changes = app.ask(move |store| store.history(&node_id, after, one_more)).await?;
    let more = cut(&mut changes, limit);
    let next_after = changes.last().filter(|_| more).map(|change| change.after.serial);
    Ok(found(&History { changes, next_after }))
}

async fn count(
    State(app): App,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<CountQuery>, QueryRejection>,
) -> Answer {
    caller.to_read_all()?;
    let CountQuery { status } = query(asked)?;
    let status = known_status(status)?;
    let count = app.ask(move |store| store.count(status.as_ref())).await?;
    Ok(found(&Count { count }))
}

async fn lease(
    State(app): App,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Answer {
    let node_id = node(path)?;
    caller.to_read(&node_id)?;
    // Before the store is asked: what is revoked while it thinks is over when a lease that was signed before would be.
    let asked_ms = now_ms();
    let Some(row) = app.lookups.row(node_id.clone()).await? else {
        return Err(Refusal::of(&StoreError::NotEnrolled { node_id, close: None }));
    };
    let offer = app.signer.offer(row.enrollment, asked_ms);
    let is_held = Held::of(&headers).has(&offer.etag);
    let mut response = Response::new(if is_held { Body::empty() } else { Body::from(app.signer.sign(&offer)) });
    if is_held {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A cache between gives it again, and only to who sends the same token.
    headers.insert(header::VARY, HeaderValue::from_static("authorization"));
    tags::describe(headers, &offer.etag, &format!("public, max-age={}", offer.max_age_s));
    Ok(response)
}

async fn changes(
    State(app): App,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<ChangesQuery>, QueryRejection>,
) -> Answer {
    let ChangesQuery { after, node_id, limit: asked, wait_ms } = query(asked)?;
    match &node_id {
        Some(node_id) => caller.to_read(node_id)?,
        None => caller.to_read_all()?,
    }
    let limit = limit(asked)?;
    let wait = match wait_ms.unwrap_or(0) {
        wait_ms @ 0..=WAIT_MS => Duration::from_millis(wait_ms),
        other => return Err(Refusal::bad(format!("wait_ms `{other}` is out of range: use 0 to {WAIT_MS}"))),
    };
    let Some(mut after) = after else {
        // Each runtime begins with this: a whole fleet that comes at once must not ask the store for it.
        let cursor = match node_id.and_then(|_| app.waiting.seen().cursor()) {
            Some(cursor) => cursor,
            None => app.ask(|store| store.revision()).await?,
        };
        return Ok(found(&Changes { changes: Vec::new(), cursor }));
    };
    let deadline = tokio::time::Instant::now() + wait;
    let mut waits = app.waiting.subscribe(node_id.as_ref());
    loop {
        // In this order, and marked as seen before the store is asked: a change in between ends the wait at once.
        let (seen, told) = (app.waiting.seen(), *waits.borrow_and_update());
        let changes = match seen.none_after(after, told).filter(|_| !wait.is_zero()) {
            Some(cursor) => Changes { changes: Vec::new(), cursor },
            None => {
                let of = node_id.clone();
                app.ask(move |store| store.changes(after, of.as_ref(), limit)).await?
            }
        };
        if changes.cursor < after {
            let why = format!("revision {after} is not yet there: the store was replaced; begin again without `after`");
            return Err(Refusal(StatusCode::GONE, why));
        }
        if !changes.changes.is_empty() || !told.goes_on {
            return Ok(found(&changes));
        }
        after = changes.cursor;
        let is_woken = tokio::time::timeout_at(deadline, waits.changed()).await.is_ok();
        // A service that stops does not have thousands who waited ask the store once more.
        if !is_woken || !waits.borrow().goes_on {
            return Ok(found(&changes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_query_is_said_in_our_words() {
        for (asked, said) in [
            ("limit=x", "query: limit: invalid digit found in string; correct it"),
            ("limit=1&limit=2", "query: duplicate field `limit`; correct it"),
            ("afer=a", "query: afer: unknown field `afer`, expected one of `status`, `after`, `limit`; correct it"),
        ] {
            let uri = format!("/v1/enrollments?{asked}").parse().unwrap();
            let Refusal(status, why) = query(Query::<ListQuery>::try_from_uri(&uri)).unwrap_err();
            assert_eq!((status, why.as_str()), (StatusCode::BAD_REQUEST, said));
        }
    }
}
