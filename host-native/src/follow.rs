//! A runtime that follows its directives: it takes the bundle, checks it, activates it without a restart, and says so.
//!
//! What counts is on disk ([`Shelf`]) and with the orchestrator. A [`Follower`] that is killed at any moment is started
//! anew and goes on from there: whatever it does twice comes to the same.

mod shelf;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use gate_core::{NodeId, RolloutState};
use tokio::{runtime::Handle, sync::watch, time::timeout};

pub use shelf::{Entry, Shelf, ShelfError};

use crate::{
    enrollment::{
        StoreError,
        rollout::{Directive, Phase, Report, RolloutId, RolloutStore},
    },
    gate::{Gate, Prepared, now_ms},
    oci::{self, Access},
};

/// How long it waits for a change before it asks all the same, while something is under way: a rollout that goes on after a
/// pause changes no node.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same while nothing is: whatever comes next is a change of the node, and told. A fleet asks for this all the time.
const REST: Duration = Duration::from_secs(60);

/// How long a registry may be away before the directive has failed. Little where it is tested.
const LONGEST: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(15 * 60) };

/// Longest pause between two attempts meanwhile; the first one is [`PATIENCE`].
const PAUSE: Duration = Duration::from_secs(60);

/// Follows one node's directives.
pub struct Follower {
    orders: Box<dyn RolloutStore>,
    node_id: NodeId,
    gate: Arc<Gate>,
    shelf: Shelf,
    access: Access,
    /// What the gate began with, where that was not on the shelf.
    first: Option<Vec<u8>>,
    /// Whose bundle cannot be had for now, since when, and how long to wait until the next attempt.
    away: Option<(RolloutId, Instant, Duration)>,
    /// What was last said to be wrong.
    said: String,
}

impl Follower {
    /// Follows what `orders` has for the node. `first` is the bundle that the gate runs, where it is not the shelf's.
    pub fn new(
        orders: Box<dyn RolloutStore>,
        node_id: NodeId,
        gate: Arc<Gate>,
        shelf: Shelf,
        first: Option<Vec<u8>>,
        access: Access,
    ) -> Self {
        Self { orders, node_id, gate, shelf, access, first, away: None, said: String::new() }
    }

    /// Follows directives until the process ends, on the thread that calls. It looks each time that `changes` says so, and
    /// now and then.
    pub fn run(mut self, mut changes: watch::Receiver<()>, executor: &Handle) {
        loop {
            let patience = self.round();
            match executor.block_on(async { timeout(patience, changes.changed()).await }) {
                Ok(Ok(())) | Err(_) => {}
                // Whoever told of changes is gone.
                Ok(Err(_)) => thread::sleep(PATIENCE),
            }
        }
    }

    /// Looks once, and does what is to be done. What cannot be done now is said, and left to the next round, which is due after
    /// so long.
    fn round(&mut self) -> Duration {
        match self.step() {
            Ok(patience) => {
                self.said.clear();
                patience
            }
            Err(error) => {
                let error = error.to_string();
                // Once, and not in every round.
                if self.said != error {
                    tracing::warn!("node `{}` does not follow its directive: {error}", self.node_id);
                    self.said = error;
                }
                PATIENCE
            }
        }
    }

    fn step(&mut self) -> Result<Duration, FollowError> {
        let directive = self.orders.directive(&self.node_id)?;
        let runs = self.shelf.current().and_then(|entry| entry.rollout_id.clone());
        let is_run = runs.is_some() && runs.as_ref() == directive.as_ref().map(|directive| &directive.rollout_id);
        // Another rollout, or another enrollment, came before the node had gone back.
        if let Some(runs) = runs.filter(|_| !is_run)
            && self.is_taken_back(&runs)?
        {
            self.roll_back(&runs)?;
        }
        let Some(directive) = directive else { return Ok(REST) };
        match (&directive.state, directive.phase) {
            (RolloutState::Pending | RolloutState::Acknowledged, Phase::Running) => {
                return self.roll_out(&directive, is_run);
            }
            (RolloutState::Pending | RolloutState::Acknowledged, _) => return Ok(PATIENCE),
            (RolloutState::RolledBack, _) if is_run => self.roll_back(&directive.rollout_id)?,
            // The shelf was lost: what the node is known to run, it runs.
            (RolloutState::Active, _) if !is_run => {
                let prepared = self.take(&directive)?;
                self.activate(&directive, prepared)?;
            }
            (
                RolloutState::None
                | RolloutState::Active
                | RolloutState::RolledBack
                | RolloutState::Failed
                | RolloutState::Unknown(_),
                _,
            ) => {}
        }
        Ok(REST)
    }

    fn roll_out(&mut self, directive: &Directive, is_run: bool) -> Result<Duration, FollowError> {
        if !is_run {
            let prepared = match self.take(directive) {
                Ok(prepared) => prepared,
                Err(error) => match self.pause(directive, &error) {
                    Some(pause) => return self.wait(directive, error, pause),
                    None => return self.fail(directive, error),
                },
            };
            self.away = None;
            if directive.state == RolloutState::Pending {
                self.report(directive, RolloutState::Acknowledged, None)?;
            }
            if let Err(error) = self.activate(directive, prepared) {
                return self.fail(directive, error);
            }
            tracing::info!("rollout `{}` is active on node `{}`", directive.rollout_id, self.node_id);
        }
        self.report(directive, RolloutState::Active, None)?;
        Ok(REST)
    }

    /// Goes back to what ran before. Without anything before it, or where that was taken back too, the gate, which fails the node,
    /// is all that there is.
    fn roll_back(&mut self, id: &RolloutId) -> Result<(), FollowError> {
        let Some((entry, tar)) = self.shelf.previous()? else { return Ok(()) };
        if let Some(before) = &entry.rollout_id
            && self.is_taken_back(before)?
        {
            return Ok(());
        }
        let prepared = self.gate.prepare(tar)?;
        self.shelf.put(entry, None, || Ok::<_, FollowError>(self.gate.activate(prepared)?))?;
        tracing::warn!("rollout `{id}` was taken back on node `{}`", self.node_id);
        Ok(())
    }

    fn is_taken_back(&self, id: &RolloutId) -> Result<bool, FollowError> {
        let directive = self.orders.directive_of(&self.node_id, id)?;
        Ok(directive.is_some_and(|directive| directive.state == RolloutState::RolledBack))
    }

    /// The bundle that the directive names, pulled and checked as far as it can be before it runs.
    fn take(&self, directive: &Directive) -> Result<Prepared, FollowError> {
        let (_, tar) = oci::pull(directive.bundle.reference(), &self.access)?;
        let prepared = self.gate.prepare(tar)?;
        match &prepared.enrollment_ref {
            Some(declared) if *declared == directive.enrollment_ref => Ok(prepared),
            declared => Err(FollowError::EnrollmentRef {
                declared: declared.as_ref().map_or("<none>", |declared| declared.as_str()).to_owned(),
                enrolled: directive.enrollment_ref.to_string(),
            }),
        }
    }

    /// Has the bundle run after a restart, and from now on. Where that cannot be kept, the one before runs on.
    fn activate(&mut self, directive: &Directive, prepared: Prepared) -> Result<(), FollowError> {
        let before = match &self.first {
            Some(tar) => Some(self.shelf.keep(None, tar)?),
            None => self.shelf.current().cloned(),
        };
        let entry = self.shelf.keep(Some(&directive.rollout_id), prepared.tar())?;
        self.shelf.put(entry, before, || Ok::<_, FollowError>(self.gate.activate(prepared)?))?;
        self.first = None;
        Ok(())
    }

    /// How long to wait before the bundle is asked for again; nothing where it would be in vain, or has been for too long.
    fn pause(&mut self, directive: &Directive, error: &FollowError) -> Option<Duration> {
        let (since, pause) = match &self.away {
            Some((id, since, pause)) if *id == directive.rollout_id => (*since, pause.saturating_mul(2).min(PAUSE)),
            Some(_) | None => (Instant::now(), PATIENCE),
        };
        self.away = Some((directive.rollout_id.clone(), since, pause));
        (error.may_pass() && since.elapsed() < LONGEST).then_some(pause)
    }

    /// The bundle before runs on, and operators see what is waited for.
    fn wait(&mut self, directive: &Directive, error: FollowError, pause: Duration) -> Result<Duration, FollowError> {
        let waits = format!("waits for the bundle: {error}");
        if directive.detail.as_ref() != Some(&waits) {
            tracing::warn!("rollout `{}` waits on node `{}`: {error}", directive.rollout_id, self.node_id);
            self.report(directive, directive.state.clone(), Some(waits))?;
        }
        Ok(pause)
    }

    fn fail(&self, directive: &Directive, error: FollowError) -> Result<Duration, FollowError> {
        tracing::error!("rollout `{}` failed on node `{}`: {error}", directive.rollout_id, self.node_id);
        self.report(directive, RolloutState::Failed, Some(error.to_string()))?;
        Ok(REST)
    }

    fn report(&self, directive: &Directive, state: RolloutState, detail: Option<String>) -> Result<(), FollowError> {
        let report = Report { rollout_id: directive.rollout_id.clone(), state, detail };
        self.orders.report(&self.node_id, &report, self.node_id.as_str(), now_ms())?;
        Ok(())
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("node_id", &self.node_id).field("shelf", &self.shelf).finish_non_exhaustive()
    }
}

/// Why a directive is not followed.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pull(#[from] oci::OciError),
    #[error(transparent)]
    Bundle(#[from] crate::gate::OpenError),
    #[error(
        "the bundle declares enrollment ref `{declared}` and the node is enrolled with `{enrolled}`: roll out the bundle of its ref"
    )]
    EnrollmentRef { declared: String, enrolled: String },
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

impl FollowError {
    /// Whether the same may go well a little later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Pull(error) => error.may_pass(),
            Self::Store(_) | Self::Bundle(_) | Self::EnrollmentRef { .. } | Self::Shelf(_) => false,
        }
    }
}
