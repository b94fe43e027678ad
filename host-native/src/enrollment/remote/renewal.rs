//! A node's lease, held and renewed in the background.

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use gate_core::{Answer, TrustedKeys, dsse::Envelope, identity::NodeId, json, lease::Lease};
use tokio::{sync::watch, task::JoinSet};

use super::{MAX_BODY_BYTES, OrchestratorClient, TOTAL_TIMEOUT};
use crate::{
    client::Kept,
    enrollment::{Changes, Observation, Source, lease::VerifiedLease, wire::WAIT_MS},
    file::{self, IfExists},
    gate::now_ms,
};

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

    /// The lease that was told last; or the answer, where none holds.
    pub(super) fn lease(&self) -> Result<VerifiedLease, Answer> {
        self.latest.borrow().lease.clone()
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
