//! What is counted, in the Prometheus text format.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use gate_core::PolicyRef;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::drain::Progress;

/// One decision, as it is counted. Values come from small fixed lists: a label made from a caller's text would grow without end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Decision {
    /// `allow` or `deny`.
    pub effect: &'static str,
    /// The canonical reason.
    pub reason: &'static str,
    /// `off`, `advisory` or `enforce`.
    pub mode: &'static str,
}

/// A deny that `advisory` did not enforce, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WouldDeny {
    reason: &'static str,
}

/// A decision that another process made and had written down here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// What the caller was answered.
    pub(crate) decision: Decision,
    /// What `enforce` would have denied it for.
    pub(crate) would_deny: Option<&'static str>,
}

/// One request to the native host or the orchestrator, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    /// The route's pattern.
    route: String,
    status: u16,
}

/// What policies answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Runs {
    policy_ref: String,
}

/// One tool call, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// The status that was answered.
    pub status: u16,
}

/// Everything a service counts; shared by all its threads.
pub struct Metrics {
    registry: Registry,
    decisions: Family<Decision, Counter>,
    would_deny: Family<WouldDeny, Counter>,
    calls: Family<Call, Counter>,
    requests: Family<Request, Counter>,
    decide_seconds: Histogram,
    wal_append_seconds: Histogram,
    wal_seq: Gauge<u64, AtomicU64>,
    drain_seq: Gauge<u64, AtomicU64>,
    drain_lag: Gauge<u64, AtomicU64>,
    drain_failures: Counter,
    drain_parked: Counter,
    revision: Gauge<u64, AtomicU64>,
    policies: Family<Runs, Gauge>,
    connections_open: Gauge<i64, AtomicI64>,
    connections: Counter,
    connections_refused: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Upper bounds in seconds: a decision takes microseconds, an append a disk's flush.
const DECIDE_SECONDS: [f64; 10] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2, 1e-1];
const WAL_APPEND_SECONDS: [f64; 11] = [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 1.0];

impl Metrics {
    /// What `/metrics` answers as its content type.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All at zero; `version` and `service` become the labels of `autonomy_build_info`.
    pub fn new(service: &str, version: &str) -> Self {
        let mut registry = Registry::with_prefix("autonomy");
        let labels = [("service", service), ("version", version)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        registry.register("build", "which program this is", Info::new(labels.to_vec()));
        let metrics = Self {
            decisions: Family::default(),
            would_deny: Family::default(),
            calls: Family::default(),
            requests: Family::default(),
            decide_seconds: Histogram::new(DECIDE_SECONDS),
            wal_append_seconds: Histogram::new(WAL_APPEND_SECONDS),
            wal_seq: Gauge::default(),
            drain_seq: Gauge::default(),
            drain_lag: Gauge::default(),
            drain_failures: Counter::default(),
            drain_parked: Counter::default(),
            revision: Gauge::default(),
            policies: Family::default(),
            connections_open: Gauge::default(),
            connections: Counter::default(),
            connections_refused: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("decisions", "decisions by effect, reason and mode", metrics.decisions.clone());
        registry.register(
            "would_deny",
            "calls that `enforce` would have denied, by reason",
            metrics.would_deny.clone(),
        );
        registry.register("tool_calls", "tool calls by the status answered", metrics.calls.clone());
        registry.register("requests", "requests by route and the status answered", metrics.requests.clone());
        registry.register("decide_seconds", "time to decide", metrics.decide_seconds.clone());
        registry.register("wal_append_seconds", "time until an append is durable", metrics.wal_append_seconds.clone());
        registry.register("wal_seq", "sequence number of the last durable frame", metrics.wal_seq.clone());
        registry.register("drain_seq", "last frame that the collector has acknowledged", metrics.drain_seq.clone());
        registry.register("drain_lag", "durable frames that it has not acknowledged", metrics.drain_lag.clone());
        registry.register("drain_failures", "requests it did not take, and stops", metrics.drain_failures.clone());
        registry.register("drain_parked", "records it refused, passed over", metrics.drain_parked.clone());
        registry.register("revision", "latest change of an enrollment that was seen", metrics.revision.clone());
        registry.register("policies", "1 for the policies that answer", metrics.policies.clone());
        registry.register("connections_open", "connections being served", metrics.connections_open.clone());
        registry.register("connections", "connections served", metrics.connections.clone());
        registry.register("connections_refused", "connections answered 503", metrics.connections_refused.clone());
        Self { registry, ..metrics }
    }

    /// A decision was made, in this time.
    pub fn decided(&self, decision: &Decision, took: Duration) {
        self.decisions.get_or_create(decision).inc();
        self.decide_seconds.observe(took.as_secs_f64());
    }

    /// A call was allowed that `enforce` would have denied, for this canonical reason.
    pub fn would_deny(&self, reason: &'static str) {
        self.would_deny.get_or_create(&WouldDeny { reason }).inc();
    }

    /// A tool call was answered.
    pub fn answered(&self, call: &Call) {
        self.calls.get_or_create(call).inc();
    }

    /// A decision of another process was written down.
    pub(crate) fn recorded(&self, recorded: &Recorded) {
        self.decisions.get_or_create(&recorded.decision).inc();
        if let Some(reason) = recorded.would_deny {
            self.would_deny(reason);
        }
    }

    /// A request to one of the native host's or the orchestrator's routes was answered.
    pub(crate) fn requested(&self, route: &str, status: u16) {
        self.requests.get_or_create(&Request { route: route.to_owned(), status }).inc();
    }

    /// Changes up to this one were seen.
    pub(crate) fn revision(&self, revision: u64) {
        self.revision.set(revision);
    }

    /// These policies answer from now on.
    pub(crate) fn runs(&self, policy_ref: Option<&PolicyRef>) {
        self.policies.clear();
        if let Some(policy_ref) = policy_ref {
            self.policies.get_or_create(&Runs { policy_ref: policy_ref.to_string() }).set(1);
        }
    }

    /// An append became durable, in this time; `seq` is its last frame.
    pub fn appended(&self, seq: u64, took: Duration) {
        self.wal_seq.inner().fetch_max(seq, Ordering::Relaxed);
        self.wal_append_seconds.observe(took.as_secs_f64());
    }

    /// A drain has come so far.
    pub(crate) fn drained(&self, progress: Progress) {
        self.drain_seq.set(progress.seq);
        self.drain_lag.set(progress.lag);
    }

    /// The collector took nothing, so many times.
    pub(crate) fn drain_failed(&self, times: u64) {
        self.drain_failures.inc_by(times);
    }

    /// So many records were passed over.
    pub(crate) fn parked(&self, records: u64) {
        self.drain_parked.inc_by(records);
    }

    /// Counts a connection as open until the answer is dropped.
    pub(super) fn connection_opened(self: &Arc<Self>) -> OpenConnection {
        self.connections.inc();
        self.connections_open.inc();
        OpenConnection(Arc::clone(self))
    }

    pub(super) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// The text that a scraper reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a string does not fail; a scraper must not read half a page as a whole one.
            text.clear();
            let _ = writeln!(text, "# EOF");
        }
        text
    }
}

/// Held while a connection is served.
pub(super) struct OpenConnection(Arc<Metrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections_open.dec();
    }
}
