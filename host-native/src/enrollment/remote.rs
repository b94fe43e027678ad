//! An orchestrator, as those know it who ask it: a store for operators, a source for a runtime.

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use gate_core::{
    Answer, TrustedKeys,
    dsse::Envelope,
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
    json,
    lease::Lease,
};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    Change, Changes, IfActive, Mutation, Observation, Query, Row, Source, Store, StoreError,
    lease::VerifiedLease,
    rollout::RolloutStore,
    wire::{BODY_BYTES, Count, Enroll, Found, History, PAGE, Page, SetRollout, WAIT_MS},
};
use crate::{
    ErrorClass,
    client::{Client, Identity, Kept, SetUpError},
    file::{self, IfExists},
    gate::now_ms,
    serve::ErrorBody,
    token::{self, TokenError},
    tool::{ParseUrlError, url::Url},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// From the look-up of the name to the end of an answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A page of the longest rows has less than a megabyte.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Longest error of an orchestrator that is shown, in bytes.
const SHOWN: usize = 1024;

/// Why an orchestrator did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not a URL.
    #[error("orchestrator {0}")]
    Url(#[from] ParseUrlError),
    /// The token would be there for everybody between to read.
    #[error(
        "orchestrator url `{url}` is neither https nor on this machine: use https, so that nobody between reads the token"
    )]
    Cleartext {
        /// The URL.
        url: String,
    },
    /// The token cannot be used.
    #[error("orchestrator {0}")]
    Token(#[from] TokenError),
    /// TLS cannot be set up.
    #[error("orchestrator: {0}")]
    Tls(#[from] SetUpError),
    /// The system has no threads or files to spare.
    #[error("cannot ask the orchestrator ({0}): free some memory, processes or files")]
    Resources(io::Error),
    /// No answer.
    #[error(
        "cannot ask the orchestrator at `{url}`: {cause}; check that it runs, and `orchestrator.url` and `orchestrator.ca`"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        cause: String,
    },
    /// The orchestrator does not know who asks.
    #[error(
        "the orchestrator at `{url}` does not take the token: make one with `autonomy orchestrator token`, and name its file with `--orchestrator-token-file`"
    )]
    Unauthorized {
        /// Where.
        url: String,
    },
    /// The orchestrator would close the connection before it has read it.
    #[error(
        "the request has {bytes} bytes and an orchestrator takes {BODY_BYTES}: name fewer nodes, or choose them with `--selector`"
    )]
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// The orchestrator refused.
    #[error("{error}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// Why: cause, then remedy.
        error: String,
    },
    /// The answer is none of an orchestrator.
    #[error("`{url}` answers as no orchestrator does ({why}): correct `orchestrator.url`")]
    Nonsense {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl RemoteError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Url(_) | Self::Cleartext { .. } | Self::Unauthorized { .. } | Self::TooLarge { .. } => {
                ErrorClass::Usage
            }
            Self::Token(error) => error.class(),
            Self::Refused { status, .. } if *status < 500 && *status != 429 => ErrorClass::Usage,
            Self::Tls(_)
            | Self::Resources(_)
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Nonsense { .. } => ErrorClass::Unavailable,
        }
    }
}

/// How an orchestrator is asked.
#[derive(Clone)]
pub struct OrchestratorClient {
    /// Without a slash at its end.
    base: String,
    client: Client,
    authorization: Option<HeaderValue>,
}

impl OrchestratorClient {
    /// Asks at `url`, with the token of a file, which leases from a plain file server need not have. `ca` has the only roots
    /// to trust, where the machine's are not meant; `identity` has a certificate to show, and its key.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(
        url: &str,
        token_file: Option<&Path>,
        ca: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, RemoteError> {
        let base = url.trim_end_matches('/').to_owned();
        let origin = Url::parse(&format!("{base}/"))?.origin;
        let identity = identity.map(|(cert, key)| Identity { cert, key });
        let client = Client::to(&origin, ca, identity, CONNECT_TIMEOUT)?
            .ok_or_else(|| RemoteError::Cleartext { url: base.clone() })?;
        let authorization = token_file.map(token::read_authorization).transpose()?;
        Ok(Self { base, client, authorization })
    }

    async fn send(
        &self,
        kept: &mut Kept,
        method: Method,
        path: &str,
        body: String,
        fresh: bool,
        total_timeout: Duration,
    ) -> Result<Bytes, RemoteError> {
        if body.len() > BODY_BYTES {
            return Err(RemoteError::TooLarge { bytes: body.len() });
        }
        let text = format!("{}{path}", self.base);
        let unreachable = |cause: String| RemoteError::Unreachable { url: self.base.clone(), cause };
        let target = Url::parse(&text)?.target().map_err(|error| unreachable(error.to_string()))?;
        let mut request = Request::new(Full::<Bytes>::from(body));
        *request.method_mut() = method;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        if fresh {
            request.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let exchange = self.client.send_kept(kept, &target, request, MAX_BODY_BYTES);
        let answer = timeout(total_timeout, exchange).await;
        let answer = answer.map_err(|_| unreachable(format!("no whole answer within {total_timeout:?}")))?;
        let (status, body) = answer.map_err(|error| unreachable(error.to_string()))?;
        match status {
            StatusCode::OK => Ok(body.into()),
            StatusCode::UNAUTHORIZED => Err(RemoteError::Unauthorized { url: self.base.clone() }),
            status => Err(match serde_json::from_slice(&body) {
                Ok(ErrorBody { error }) => {
                    let error = error.get(..error.floor_char_boundary(SHOWN)).unwrap_or(&error);
                    let error = error.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                    RemoteError::Refused { status: status.as_u16(), error }
                }
                Err(_) if status == StatusCode::NOT_FOUND => RemoteError::Refused {
                    status: 404,
                    error: format!("nothing is at `{text}`: correct `orchestrator.url`"),
                },
                Err(_) => RemoteError::Nonsense { url: text, why: format!("status {status}") },
            }),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        kept: &mut Kept,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<T, RemoteError> {
        let answer = self.send(kept, method, path, body, false, TOTAL_TIMEOUT).await?;
        self.read(path, &answer)
    }

    fn read<T: DeserializeOwned>(&self, path: &str, answer: &[u8]) -> Result<T, RemoteError> {
        serde_json::from_slice(answer)
            .map_err(|error| RemoteError::Nonsense { url: format!("{}{path}", self.base), why: error.to_string() })
    }

    /// A node's lease; none when there is none.
    async fn lease(&self, kept: &mut Kept, node_id: &NodeId, fresh: bool) -> Result<Option<Bytes>, RemoteError> {
        let path = format!("/v1/leases/{node_id}");
        match self.send(kept, Method::GET, &path, String::new(), fresh, TOTAL_TIMEOUT).await {
            Ok(envelope) => Ok(Some(envelope)),
            Err(RemoteError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The changes of a node after a revision, once there are some or the wait is over, and at most `patience` after that; without
    /// a revision, the one to begin with.
    async fn changes_of(
        &self,
        kept: &mut Kept,
        node_id: &NodeId,
        after: Option<u64>,
        wait: Duration,
        patience: Duration,
    ) -> Result<Changes, RemoteError> {
        let mut path = format!("/v1/changes?node_id={node_id}");
        if let Some(after) = after {
            path.push_str(&format!("&after={after}&wait_ms={}", wait.as_millis()));
        }
        let answer = self.send(kept, Method::GET, &path, String::new(), true, wait.saturating_add(patience)).await?;
        self.read(&path, &answer)
    }
}

impl std::fmt::Debug for OrchestratorClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrchestratorClient").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The store that an orchestrator keeps. The history says the token's name for who made a change, and the orchestrator's time.
///
/// It waits for answers on the thread that calls, which must not be one of an async runtime.
#[derive(Debug)]
pub struct RemoteStore {
    client: OrchestratorClient,
    kept: Mutex<Kept>,
    executor: tokio::runtime::Runtime,
}

impl RemoteStore {
    /// Asks an orchestrator on each call.
    ///
    /// # Errors
    /// [`RemoteError::Resources`].
    pub fn new(client: OrchestratorClient) -> Result<Self, RemoteError> {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { client, kept: Mutex::default(), executor: executor.map_err(RemoteError::Resources)? })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, StoreError> {
        self.ask(Method::GET, path, String::new())
    }

    pub(super) fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: String) -> Result<T, StoreError> {
        // Who asks at the same time has a connection of their own.
        let mut kept = std::mem::take(&mut *lock(&self.kept));
        let answer = self.executor.block_on(self.client.ask(&mut kept, method, path, body));
        *lock(&self.kept) = kept;
        Ok(answer?)
    }

    /// Shows rows page by page.
    fn pages(&self, query: &Query, visit: &mut dyn FnMut(Row) -> ControlFlow<()>) -> Result<(), StoreError> {
        let (mut after, mut left) = (query.after.clone(), query.limit);
        while left > 0 {
            let mut path = format!("/v1/enrollments?limit={}", left.min(PAGE));
            for (name, value) in
                [("after", after.as_ref().map(NodeId::as_str)), ("status", query.status.as_ref().map(Status::as_str))]
            {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", escaped(value)));
                }
            }
            let Page { rows, next_after } = self.get(&path)?;
            left = left.saturating_sub(rows.len());
            for row in rows {
                if visit(row).is_break() {
                    return Ok(());
                }
            }
            // Each page must lead further, or there would be no end.
            match next_after {
                Some(next) if Some(&next) > after.as_ref() => after = Some(next),
                Some(_) | None => return Ok(()),
            }
        }
        Ok(())
    }
}

impl Store for RemoteStore {
    fn enroll(
        &self,
        node_id: &NodeId,
        enrollment_ref: &EnrollmentRef,
        if_active: IfActive,
        _who: &str,
        _now_ms: u64,
    ) -> Result<Mutation, StoreError> {
        let replace = Some(if_active == IfActive::Replace);
        let body = json::write(&Enroll { enrollment_ref: enrollment_ref.clone(), replace });
        self.ask(Method::PUT, &format!("/v1/enrollments/{node_id}"), body)
    }

    fn revoke(&self, node_id: &NodeId, _who: &str, _now_ms: u64) -> Result<Mutation, StoreError> {
        self.ask(Method::POST, &format!("/v1/enrollments/{node_id}/revoke"), String::new())
    }

    fn set_rollout(
        &self,
        node_id: &NodeId,
        rollout_state: &RolloutState,
        _who: &str,
        _now_ms: u64,
    ) -> Result<Mutation, StoreError> {
        let body = json::write(&SetRollout { rollout_state: rollout_state.clone() });
        self.ask(Method::PUT, &format!("/v1/enrollments/{node_id}/rollout"), body)
    }

    fn rows(&self, nodes: &[NodeId]) -> Result<Vec<Row>, StoreError> {
        let row = |node_id| self.get(&format!("/v1/enrollments/{node_id}")).map(|Found { row }| row);
        nodes.iter().filter_map(|node_id| row(node_id).transpose()).collect()
    }

    fn list(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.pages(query, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    fn count(&self, status: Option<&Status>) -> Result<u64, StoreError> {
        let status = status.map(|status| format!("?status={}", escaped(status.as_str()))).unwrap_or_default();
        let Count { count } = self.get(&format!("/v1/count{status}"))?;
        Ok(count)
    }

    fn for_each(&self, visit: &mut dyn FnMut(Enrollment) -> ControlFlow<()>) -> Result<(), StoreError> {
        let all = Query { status: None, after: None, limit: usize::MAX };
        self.pages(&all, &mut |row| visit(row.enrollment))
    }

    fn history(&self, node_id: &NodeId, after_serial: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
        let (mut after, mut left, mut all) = (after_serial, limit, Vec::new());
        while left > 0 {
            let History { changes, next_after } =
                self.get(&format!("/v1/enrollments/{node_id}/history?after={after}&limit={}", left.min(PAGE)))?;
            left = left.saturating_sub(changes.len());
            all.extend(changes);
            match next_after {
                Some(next) if next > after => after = next,
                Some(_) | None => break,
            }
        }
        Ok(all)
    }

    fn revision(&self) -> Result<u64, StoreError> {
        let Changes { cursor, .. } = self.get("/v1/changes")?;
        Ok(cursor)
    }

    fn changes(&self, after: u64, node_id: Option<&NodeId>, limit: usize) -> Result<Changes, StoreError> {
        let of = node_id.map(|node_id| format!("&node_id={node_id}")).unwrap_or_default();
        self.get(&format!("/v1/changes?after={after}&limit={}{of}", limit.clamp(1, PAGE)))
    }

    fn rollouts(&self) -> &dyn RolloutStore {
        self
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value of a query.
fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Shortest time between two requests for a lease, and after one that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Holds one node's lease, and has it renewed in the background: before it expires, and as soon as the orchestrator says
/// that the node's enrollment has changed.
///
/// While nobody answers, the lease that is held stands, and the gate stops taking it when it expires. It is kept in a file
/// too, so that a node that is started while nobody answers has it. One that does not hold, or is older, takes the place of
/// none: the gate is told both, the better one first, and says what is wrong with the other.
#[derive(Debug)]
pub struct LeaseSource {
    latest: watch::Receiver<Told>,
    changes: watch::Receiver<()>,
    /// Ends with the source.
    _task: JoinSet<()>,
}

/// What there is to tell of a node.
#[derive(Debug)]
struct Told {
    /// For a gate, which verifies leases itself.
    observation: Observation,
    /// For who takes them as they were verified here.
    lease: Result<VerifiedLease, Answer>,
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        Self { observation: Observation::Changed(answer.clone()), lease: Err(answer) }
    }
}

impl LeaseSource {
    /// Asks for the node's lease, and from then on in the background. An orchestrator that does not answer is no error: it
    /// may come back. The lease, signed by `keys` with a clock that may be so far ahead, is kept in the directory `leases`.
    pub async fn start(
        client: OrchestratorClient,
        node_id: NodeId,
        keys: Option<TrustedKeys>,
        max_skew_ms: u64,
        leases: &Path,
    ) -> Self {
        let nothing = Answer::Unavailable { why: "no lease was asked for yet".to_owned() };
        let (tell, mut latest) = watch::channel(Told::from(nothing));
        latest.mark_changed();
        let (wake, woken) = watch::channel(());
        let file = leases.join(format!("{node_id}.json"));
        let mut renewal = Renewal {
            client,
            kept: Kept::default(),
            node_id,
            keys,
            max_skew_ms,
            tell,
            wake,
            cursor: None,
            held: None,
            told: None,
            file,
            failing: false,
        };
        if let Some(lease) = kept(&renewal.file) {
            renewal.take(lease, now_ms());
        }
        let pause = renewal.fetch(true).await;
        let mut task = JoinSet::new();
        task.spawn(renewal.go_on(pause));
        Self { latest, changes: woken, _task: task }
    }

    /// Changes each time the node's enrollment has changed, or may have.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }
}

impl Source for LeaseSource {
    fn observe(&mut self, _now_ms: u64) -> Observation {
        match self.latest.has_changed() {
            Ok(true) => self.latest.borrow_and_update().observation.clone(),
            Ok(false) | Err(_) => Observation::Unchanged,
        }
    }
}

/// Nodes whose leases are held at once.
const NODES: usize = 1024;

/// Answers for any node from its lease, which is checked here, for those who ask this machine and not the orchestrator.
#[derive(Debug)]
pub struct LeaseLookup {
    client: OrchestratorClient,
    keys: TrustedKeys,
    max_skew_ms: u64,
    nodes: Mutex<BTreeMap<NodeId, LeaseSource>>,
    leases: PathBuf,
}

impl LeaseLookup {
    /// Takes leases that these keys have signed, from a clock that may be so far ahead, and keeps them in the directory
    /// `leases`.
    pub fn new(client: OrchestratorClient, keys: TrustedKeys, max_skew_ms: u64, leases: PathBuf) -> Self {
        Self { client, keys, max_skew_ms, nodes: Mutex::default(), leases }
    }

    /// What is known of a node now; observed, as far as whoever asked is concerned, at the last multiple of `refresh_ms`.
    /// The first question about a node waits for the orchestrator.
    pub async fn answer(&self, node_id: &NodeId, now_ms: u64, refresh_ms: u64) -> Answer {
        let answer = |source: &LeaseSource| match &source.latest.borrow().lease {
            Ok(lease) => lease.answer(self.max_skew_ms, now_ms, refresh_ms),
            Err(answer) => answer.clone(),
        };
        if let Some(source) = lock(&self.nodes).get(node_id) {
            return answer(source);
        }
        let keys = Some(self.keys.clone());
        let source =
            LeaseSource::start(self.client.clone(), node_id.clone(), keys, self.max_skew_ms, &self.leases).await;
        let mut nodes = lock(&self.nodes);
        if nodes.len() >= NODES {
            // Those that are enrolled stay: anybody can ask for strangers.
            nodes.retain(|_, source| source.latest.borrow().lease.is_ok());
        }
        if nodes.len() >= NODES {
            return Answer::Unavailable { why: format!("leases of {NODES} nodes are held: use another host for more") };
        }
        answer(nodes.entry(node_id.clone()).or_insert(source))
    }
}

/// Waits for changes of the node until its lease is due, then asks for that: over one connection, for there are many nodes.
struct Renewal {
    client: OrchestratorClient,
    kept: Kept,
    node_id: NodeId,
    keys: Option<TrustedKeys>,
    max_skew_ms: u64,
    tell: watch::Sender<Told>,
    /// Told each time that the node's enrollment has changed, or may have.
    wake: watch::Sender<()>,
    /// The revision up to which changes were seen. It may be another store's after something went wrong.
    cursor: Option<u64>,
    /// The last lease that held.
    held: Option<(Bytes, VerifiedLease)>,
    /// The last lease that the gate was told, if that was told last.
    told: Option<Bytes>,
    file: PathBuf,
    failing: bool,
}

impl Renewal {
    async fn go_on(mut self, mut pause: Duration) {
        let mut fresh = false;
        loop {
            let begun = Instant::now();
            while begun.elapsed() < pause {
                if self.has_changed(pause.saturating_sub(begun.elapsed()), pause).await {
                    fresh = true;
                    break;
                }
            }
            pause = self.fetch(fresh).await;
            fresh &= self.failing;
        }
    }

    /// Waits for a change of the node's enrollment, for so long at most; whether there is one, or may be. Who does not answer is
    /// given up `patience` later, in time to ask for the lease.
    async fn has_changed(&mut self, wait: Duration, patience: Duration) -> bool {
        let begun = Instant::now();
        // Whole milliseconds are asked for: not fewer than there are.
        let wait = wait.saturating_add(Duration::from_millis(1)).min(Duration::from_millis(WAIT_MS));
        let patience = patience.min(TOTAL_TIMEOUT);
        match self.client.changes_of(&mut self.kept, &self.node_id, self.cursor, wait, patience).await {
            Ok(Changes { changes, cursor }) => {
                // What changed before there was a cursor is in the lease that is asked for from here on.
                let has_changed = self.cursor.replace(cursor).is_none() || !changes.is_empty();
                if has_changed {
                    self.wake.send_replace(());
                } else {
                    // It should have waited: if it does not, this does.
                    tokio::time::sleep(wait.min(PAUSE).saturating_sub(begun.elapsed())).await;
                }
                has_changed
            }
            // The lease's renewal says what is wrong.
            Err(_) => {
                self.cursor = None;
                tokio::time::sleep(wait.saturating_sub(begun.elapsed()).min(PAUSE)).await;
                false
            }
        }
    }

    /// Asks once, and says how long to wait until the next time.
    async fn fetch(&mut self, fresh: bool) -> Duration {
        match self.client.lease(&mut self.kept, &self.node_id, fresh).await {
            Ok(Some(lease)) => {
                self.failing = false;
                // A third of its time, so that one renewal may fail.
                let pause = lifetime(&lease).map_or(PAUSE, |lifetime| (lifetime / 3).max(PAUSE / 10));
                if self.told.as_ref() != Some(&lease) && self.take(lease.clone(), now_ms()) {
                    self.keep(&lease).await;
                }
                pause
            }
            // Rows are never deleted: where there was a lease, whoever says that there is none is wrong.
            Ok(None) if self.held.is_some() => self.failed(&"there is no lease where there was one"),
            Ok(None) => {
                self.failing = false;
                self.tell_answer(Answer::NotEnrolled { observed_at_ms: now_ms() });
                PAUSE
            }
            Err(error) => {
                if self.held.is_none() {
                    self.tell_answer(Answer::Unavailable { why: error.to_string() });
                }
                self.failed(&error)
            }
        }
    }

    /// Tells the gate of a lease, and whether it holds. The gate looks when a call comes, and may not have seen the one before:
    /// it is told that again where it needs its serial to know an older one.
    fn take(&mut self, lease: Bytes, now_ms: u64) -> bool {
        let seen = self.held.as_ref().map_or(0, |(_, held)| held.serial());
        let verified = VerifiedLease::verify(&lease, self.keys.as_ref(), &self.node_id, seen);
        let holds = verified.is_ok();
        let envelopes = match &verified {
            Ok(next) if self.is_early(next, now_ms) => {
                // The next time it is asked for, it is there again.
                if self.told.as_ref() != self.held.as_ref().map(|(held, _)| held) {
                    self.tell_held();
                }
                return false;
            }
            Ok(next) => {
                self.held = Some((lease.clone(), next.clone()));
                vec![lease.to_vec()]
            }
            Err(_) => self.held.iter().map(|(held, _)| held).chain([&lease]).map(|it| it.to_vec()).collect(),
        };
        let verified = verified.map_err(|error| Answer::Unavailable { why: error.to_string() });
        self.tell.send_replace(Told { observation: Observation::Leases(envelopes), lease: verified });
        self.told = Some(lease);
        holds
    }

    /// Whether a lease does not count yet, of a clock that is ahead, and the one that is held counts and says the same of the node,
    /// its serial among it: there is no change that it could keep from the gate, and none that it could tell.
    fn is_early(&self, next: &VerifiedLease, now_ms: u64) -> bool {
        let skew = self.max_skew_ms;
        self.held.as_ref().is_some_and(|(_, held)| {
            held.counts(skew, now_ms) && next.is_from_the_future(skew, now_ms) && held.says_the_same(next)
        })
    }

    fn tell_held(&mut self) {
        if let Some((held, verified)) = &self.held {
            let observation = Observation::Leases(vec![held.to_vec()]);
            self.tell.send_replace(Told { observation, lease: Ok(verified.clone()) });
            self.told = Some(held.clone());
        }
    }

    fn tell_answer(&mut self, answer: Answer) {
        self.tell.send_replace(answer.into());
        self.told = None;
    }

    /// Without it only a start while nobody answers is worse off.
    async fn keep(&self, lease: &Bytes) {
        let (file, lease) = (self.file.clone(), lease.clone());
        let kept = tokio::task::spawn_blocking(move || {
            file::create_directory(file::directory_of(&file), 0o700)?;
            file::publish(&file, &lease, IfExists::Replace)
        });
        if let Ok(Err(error)) = kept.await {
            let (node_id, file) = (&self.node_id, self.file.display());
            tracing::warn!("the lease of node `{node_id}` cannot be kept in `{file}`: {error}");
        }
    }

    /// Said when it begins, not each time.
    fn failed(&mut self, why: &dyn std::fmt::Display) -> Duration {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!("the lease of node `{}` is not renewed: {why}", self.node_id);
        }
        PAUSE
    }
}

/// The lease that was last kept, where it may still count. One that does not would only keep an orchestrator that was
/// restored from a backup from being believed.
fn kept(file: &Path) -> Option<Bytes> {
    let envelope = file::read(file, MAX_BODY_BYTES as u64).ok()?;
    let Lease { expires_at_ms, .. } = json::read(&Envelope::parse(&envelope).ok()?.payload).ok()?;
    (expires_at_ms > now_ms()).then(|| envelope.into())
}

/// How long a lease says that it counts. Nothing is verified: at worst the next one is asked for too early or too late.
fn lifetime(envelope: &[u8]) -> Option<Duration> {
    let envelope = Envelope::parse(envelope).ok()?;
    let lease: Lease = json::read(&envelope.payload).ok()?;
    Some(Duration::from_millis(lease.expires_at_ms.checked_sub(lease.issued_at_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;
    use std::{
        fs,
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    #[test]
    fn a_url_that_would_show_the_token_is_refused() {
        let new = |url| OrchestratorClient::new(url, None, None, None);
        for url in
            ["http://127.0.0.1:7779", "http://localhost:7779/", "http://[::1]:7779", "http://127.0.0.1:1/at/a/path"]
        {
            assert!(new(url).is_ok(), "{url}");
        }
        for (url, message) in [
            ("http://fleet.example.com", "is neither https nor on this machine: use https"),
            ("http://10.0.0.1:7779", "is neither https nor on this machine: use https"),
            ("http://127.0.0.1.example.com", "is neither https nor on this machine: use https"),
            ("ftp://127.0.0.1", "does not start with `http://` or `https://`"),
            ("https://me:secret@fleet.example.com", "holds credentials"),
            ("", "does not start with"),
        ] {
            let error = new(url).unwrap_err();
            assert!(error.to_string().contains(message), "{url}: {error}");
            assert_eq!(error.class(), ErrorClass::Usage);
        }
    }

    /// What a server does with who asks for changes.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Feed {
        IsNotThere,
        Hangs,
    }

    /// A server of one lease, which anybody may put there, and how often it was asked for it.
    fn server(feed: Feed) -> (OrchestratorClient, Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>) {
        let (served, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = OrchestratorClient::new(&format!("http://{}", listener.local_addr().unwrap()), None, None, None);
        let (lease, count) = (Arc::clone(&served), Arc::clone(&asked));
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
                let is_lease = head.starts_with("GET /v1/leases/robot-7 ");
                count.fetch_add(usize::from(is_lease), Ordering::Relaxed);
                if !is_lease && feed == Feed::Hangs {
                    hanging.push(stream);
                    continue;
                }
                let body = if is_lease { lease.lock().unwrap().clone() } else { Vec::new() };
                let status = if is_lease { "200 OK" } else { "404 Not Found" };
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                drop(stream.get_mut().write_all(&[head.into_bytes(), body].concat()));
            }
        });
        (client.unwrap(), served, asked)
    }

    /// Renewed each 0.2 s, and good for longer than the test takes.
    fn lease(key: &PrivateKey, serial: u64, status: Status) -> Vec<u8> {
        let lease = Lease {
            node_id: NodeId::parse("robot-7").unwrap(),
            enrollment_ref: EnrollmentRef::parse("fleet-a").unwrap(),
            status,
            rollout_state: RolloutState::None,
            serial,
            issued_at_ms: now_ms() + 600_000,
            expires_at_ms: now_ms() + 600_600,
        };
        key.seal(gate_core::lease::PAYLOAD_TYPE, json::write(&lease).into_bytes())
    }

    #[tokio::test]
    async fn an_older_lease_that_is_served_again_is_known_by_who_was_asked_nothing_in_between() {
        let (client, served, asked) = server(Feed::IsNotThere);
        let (key, stranger) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let keys = TrustedKeys::new([key.public().clone()], 1).unwrap();
        let [old, new] = [(17, Status::Active), (18, Status::Revoked)].map(|(serial, is)| lease(&key, serial, is));
        let forged = lease(&stranger, 19, Status::Active);
        let dir = tempfile::tempdir().unwrap();
        let start = || {
            let node_id = NodeId::parse("robot-7").unwrap();
            LeaseSource::start(client.clone(), node_id, Some(keys.clone()), 5_000, dir.path())
        };
        let serve = async |lease: &Vec<u8>| {
            served.lock().unwrap().clone_from(lease);
            let before = asked.load(Ordering::Relaxed);
            // The one that was under way may have had the lease before.
            while asked.load(Ordering::Relaxed) < before + 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let told = |source: &mut LeaseSource| match source.observe(0) {
            Observation::Leases(envelopes) => envelopes,
            other @ (Observation::Unchanged | Observation::Changed(_)) => panic!("{other:?}"),
        };
        served.lock().unwrap().clone_from(&old);
        let mut source = start().await;
        assert_eq!(told(&mut source), std::slice::from_ref(&old));
        serve(&new).await;
        for other in [&old, &forged] {
            serve(other).await;
            assert_eq!(fs::read(dir.path().join("robot-7.json")).unwrap(), new, "the newest that holds is kept");
            assert_eq!(told(&mut source), [new.clone(), other.clone()]);
            // Nor by who begins again.
            let mut again = start().await;
            assert_eq!(told(&mut again), [new.clone(), other.clone()]);
        }
        serve(&new).await;
        assert_eq!(told(&mut source), [new]);
    }

    /// A lease of a clock that is ahead takes the place of one that counts, unless it says the very same.
    #[tokio::test]
    async fn a_lease_from_the_future_denies_unless_it_only_renews_one_that_counts() {
        const NOW: u64 = 1_767_225_600_000;
        const SKEW: u64 = 5_000;
        let key = PrivateKey::generate().unwrap();
        let node_id = NodeId::parse("robot-7").unwrap();
        let signed = |row: &(u64, Status, RolloutState, &str), issued_at_ms: u64| {
            let (serial, status, rollout_state, enrollment_ref) = row.clone();
            let enrollment_ref = EnrollmentRef::parse(enrollment_ref).unwrap();
            let expires_at_ms = issued_at_ms + 60_000;
            let node_id = node_id.clone();
            let lease = Lease { node_id, enrollment_ref, status, rollout_state, serial, issued_at_ms, expires_at_ms };
            Bytes::from(key.seal(gate_core::lease::PAYLOAD_TYPE, json::write(&lease).into_bytes()))
        };
        // An allow, and everything that may come after it: the same, revoked, taken back, another ref; with a newer serial, and
        // with the same, as of a store that was restored.
        let held = (7, Status::Active, RolloutState::None, "fleet-a");
        let mut rows = Vec::new();
        for serial in [7, 8] {
            for status in [Status::Active, Status::Revoked, Status::Unknown("paused".into())] {
                for state in [RolloutState::None, RolloutState::Active, RolloutState::RolledBack] {
                    rows.extend(["fleet-a", "fleet-b"].map(|to| (serial, status.clone(), state.clone(), to)));
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let (mut withheld, mut passed_on) = (0, 0);
        for row in &rows {
            // Over, at its end, in the middle, just issued, ahead by what may be.
            for held_at in [NOW - 60_001, NOW - 60_000, NOW - 30_000, NOW, NOW + SKEW, NOW + SKEW + 1] {
                for next_at in [NOW - 1, NOW, NOW + SKEW, NOW + SKEW + 1, NOW + 3_600_000] {
                    let (tell, latest) = watch::channel(Told::from(Answer::Unavailable { why: String::new() }));
                    let mut renewal = Renewal {
                        client: OrchestratorClient::new("http://127.0.0.1:1", None, None, None).unwrap(),
                        kept: Kept::default(),
                        node_id: node_id.clone(),
                        keys: Some(TrustedKeys::new([key.public().clone()], 1).unwrap()),
                        max_skew_ms: SKEW,
                        tell,
                        wake: watch::channel(()).0,
                        cursor: None,
                        held: None,
                        told: None,
                        file: dir.path().join("robot-7.json"),
                        failing: false,
                    };
                    let told = || latest.borrow().observation.clone();
                    let [first, next] = [signed(&held, held_at), signed(row, next_at)];
                    renewal.take(first.clone(), held_at);
                    renewal.take(next.clone(), NOW);
                    let Observation::Leases(envelopes) = told() else { panic!("{row:?}") };
                    let is_early = next_at > NOW + SKEW;
                    let held_counts = (NOW - 60_000..=NOW + SKEW).contains(&held_at);
                    let is_withheld = *row == held && is_early && held_counts;
                    let wanted = if is_withheld { &first } else { &next };
                    assert_eq!(envelopes, std::slice::from_ref(wanted), "{row:?} {held_at} {next_at}");
                    assert!(!is_withheld || envelopes[0] == first, "what is told is what was told");
                    if is_withheld {
                        withheld += 1
                    } else {
                        passed_on += 1
                    }
                    // Once it counts it is told, and what does not hold in between changes nothing of that.
                    if is_withheld {
                        renewal.take(Bytes::from_static(b"{}"), NOW);
                        renewal.take(next.clone(), NOW);
                        assert_eq!(told(), Observation::Leases(vec![first.to_vec()]));
                        assert!(renewal.take(next.clone(), next_at - SKEW));
                        assert_eq!(told(), Observation::Leases(vec![next.to_vec()]));
                    }
                }
            }
        }
        assert_eq!((withheld, passed_on), (8, rows.len() * 30 - 8));
    }

    #[tokio::test]
    async fn a_feed_that_hangs_is_given_up_in_time_to_renew_the_lease() {
        let (client, served, asked) = server(Feed::Hangs);
        let key = PrivateKey::generate().unwrap();
        *served.lock().unwrap() = lease(&key, 1, Status::Active);
        let (dir, node_id) = (tempfile::tempdir().unwrap(), NodeId::parse("robot-7").unwrap());
        let _source = LeaseSource::start(client, node_id, None, 5_000, dir.path()).await;
        let renewed = async {
            while asked.load(Ordering::Relaxed) < 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Less than the first answer would otherwise be waited for, and more than the five take.
        assert!(timeout(TOTAL_TIMEOUT, renewed).await.is_ok());
    }
}
