//! The steps of a rollout in any store, each with what follows from it, in one transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
};

use gate_core::{NodeId, RolloutState, enrollment::Status, identity::EnrollmentRef};

use super::{
    Command, Directive, Next, Order, Phase, Report, Rollout, RolloutError, RolloutId, Selector, Wave, canaries,
    may_become,
};
use crate::enrollment::{
    StoreError,
    ledger::Ledger,
    request::{By, Found, Request},
};

/// Nodes whose rows are held at once. Few where it is tested, so that every step has more of them.
const TOGETHER: usize = if cfg!(test) { 2 } else { 1000 };

/// What a transaction can do to rollouts.
pub(in crate::enrollment) trait RolloutLedger: Ledger {
    /// Writes a rollout down that has no directives yet.
    async fn begin(&mut self, id: &RolloutId, order: &Order) -> Result<(), Self::Fault>;

    /// The phase, and its entry in the history.
    async fn set_phase(
        &mut self,
        id: &RolloutId,
        phase: Phase,
        detail: Option<&str>,
        by: By<'_>,
    ) -> Result<(), Self::Fault>;

    /// The active nodes, in the order of their ids; of those, the ones with this ref and the ones in this state.
    async fn active(
        &mut self,
        enrollment_ref: Option<&EnrollmentRef>,
        rollout_state: Option<&RolloutState>,
    ) -> Result<Vec<NodeId>, Self::Fault>;

    /// Gives each node a current directive that waits. They have none.
    async fn direct(&mut self, id: &RolloutId, wave: Wave, nodes: &[NodeId], by: By<'_>) -> Result<(), Self::Fault>;

    /// Takes their current directives from these nodes: the rollouts that they were of.
    async fn take(&mut self, nodes: &[NodeId]) -> Result<Vec<RolloutId>, Self::Fault>;

    /// The nodes of a wave whose current directive is this rollout's and in this state, in the order of their ids.
    async fn nodes(&mut self, id: &RolloutId, wave: Wave, state: &RolloutState) -> Result<Vec<NodeId>, Self::Fault>;

    /// The nodes that have come so far that they may run this rollout's bundle, and have another directive now, or none; and
    /// whether they may run it still: none of a later rollout is active.
    async fn left(&mut self, id: &RolloutId) -> Result<Vec<(NodeId, bool)>, Self::Fault>;

    /// The state of these nodes' directives.
    async fn mark(
        &mut self,
        id: &RolloutId,
        nodes: &[NodeId],
        state: &RolloutState,
        detail: Option<&str>,
        by: By<'_>,
    ) -> Result<(), Self::Fault>;

    async fn rollout(&mut self, id: &RolloutId, counting: Counting) -> Result<Option<Rollout>, Self::Fault>;

    async fn directive(&mut self, node_id: &NodeId) -> Result<Option<Directive>, Self::Fault>;
}

/// How a rollout's directives are counted.
#[derive(Debug, Clone, Copy)]
pub(in crate::enrollment) enum Counting {
    /// All of them.
    Each,
    /// A count of 1 for any: what comes next asks for no more, and it takes as long for a million nodes as for one.
    Any,
}

pub(super) async fn create<L: RolloutLedger>(ledger: &mut L, order: &Order, by: By<'_>) -> Result<Rollout, L::Fault> {
    let nodes = selected(ledger, &order.selector).await?;
    let id = RolloutId::generate();
    ledger.begin(&id, order).await?;
    ledger.set_phase(&id, Phase::Running, None, by).await?;
    let canaries = order.canary_percent.map(|percent| canaries(&id, &nodes, percent)).unwrap_or_default();
    let (first, rest) = nodes.into_iter().partition::<Vec<_>, _>(|node_id| canaries.contains(node_id));
    let mut left = BTreeSet::new();
    for (wave, nodes) in [(Wave::Canary, first), (Wave::Rest, rest)] {
        for nodes in nodes.chunks(TOGETHER) {
            left.extend(ledger.take(nodes).await?);
            ledger.direct(&id, wave, nodes, by).await?;
        }
    }
    issue(ledger, &id, Wave::Canary, by).await?;
    // Whom these nodes were taken from has fewer to wait for.
    for id in &left {
        advance(ledger, id, by).await?;
    }
    advance(ledger, &id, by).await?;
    load(ledger, &id, Counting::Each).await
}

pub(super) async fn command<L: RolloutLedger>(
    ledger: &mut L,
    id: &RolloutId,
    command: Command,
    by: By<'_>,
) -> Result<Rollout, L::Fault> {
    let Rollout { phase, .. } = load(ledger, id, Counting::Any).await?;
    match command.applied_to(phase) {
        Some(Some(phase)) => ledger.set_phase(id, phase, None, by).await?,
        Some(None) => {}
        None => return refuse(RolloutError::Phase { rollout_id: id.clone(), phase, command }),
    }
    if command == Command::Rollback {
        for &wave in Wave::ALL {
            for state in [RolloutState::Pending, RolloutState::Acknowledged, RolloutState::Active] {
                let nodes = ledger.nodes(id, wave, &state).await?;
                set_state(ledger, id, &nodes, &RolloutState::RolledBack, None, by).await?;
            }
        }
        let (may_run, beyond): (Vec<_>, Vec<_>) = ledger.left(id).await?.into_iter().partition(|(_, may_run)| *may_run);
        let [may_run, beyond] =
            [may_run, beyond].map(|nodes| nodes.into_iter().map(|(node, _)| node).collect::<Vec<_>>());
        set_state(ledger, id, &may_run, &RolloutState::RolledBack, None, by).await?;
        // What they run is another's. What they must not go back to is said here.
        for nodes in beyond.chunks(TOGETHER) {
            ledger.mark(id, nodes, &RolloutState::RolledBack, None, by).await?;
        }
    }
    advance(ledger, id, by).await?;
    load(ledger, id, Counting::Each).await
}

pub(super) async fn report<L: RolloutLedger>(
    ledger: &mut L,
    node_id: &NodeId,
    report: &Report,
    by: By<'_>,
) -> Result<Directive, L::Fault> {
    let of = || node_id.clone();
    let current = current(ledger, node_id).await?;
    let Report { rollout_id: reported, state: to, .. } = report;
    if current.rollout_id != *reported {
        let (current, reported) = (current.rollout_id, reported.clone());
        return refuse(RolloutError::Superseded { node_id: of(), current, reported });
    }
    let detail = report.detail();
    if current.state == *to {
        if detail.is_none() || detail == current.detail {
            return Ok(current);
        }
        ledger.mark(reported, slice::from_ref(node_id), to, detail.as_deref(), by).await?;
        return self::current(ledger, node_id).await;
    }
    // Nobody takes a turn that was not given.
    if *to == RolloutState::Pending || !may_become(&current.state, to) {
        return refuse(RolloutError::Transition { node_id: of(), from: current.state, to: to.clone() });
    }
    set_state(ledger, reported, slice::from_ref(node_id), to, detail.as_deref(), by).await?;
    advance(ledger, reported, by).await?;
    self::current(ledger, node_id).await
}

/// Takes a node's directive from it: its enrollment is not the one any more that it was chosen under.
pub(in crate::enrollment) async fn withdraw<L: RolloutLedger>(
    ledger: &mut L,
    node_id: &NodeId,
    by: By<'_>,
) -> Result<(), L::Fault> {
    for id in ledger.take(slice::from_ref(node_id)).await? {
        advance(ledger, &id, by).await?;
    }
    Ok(())
}

/// The active nodes that are meant, at least one.
async fn selected<L: RolloutLedger>(ledger: &mut L, selector: &Selector) -> Result<Vec<NodeId>, L::Fault> {
    let nodes = match selector {
        Selector::All => ledger.active(None, None).await?,
        Selector::EnrollmentRef(enrollment_ref) => ledger.active(Some(enrollment_ref), None).await?,
        Selector::RolloutState(state) => ledger.active(None, Some(state)).await?,
        Selector::Nodes(ids) => {
            let ids: Vec<_> = ids.iter().cloned().collect();
            let rows = ledger.rows(&ids).await?.into_iter();
            let of: BTreeMap<_, _> = rows.map(|row| (row.enrollment.node_id, row.enrollment.status)).collect();
            for node_id in &ids {
                match of.get(node_id) {
                    Some(Status::Active) => {}
                    None => return Err(StoreError::NotEnrolled { node_id: node_id.clone(), close: None }.into()),
                    Some(Status::Revoked | Status::Unknown(_)) => {
                        return refuse(RolloutError::Revoked { node_id: node_id.clone() });
                    }
                }
            }
            ids
        }
    };
    if nodes.is_empty() {
        return refuse(RolloutError::NoNodes { selector: selector.to_string() });
    }
    Ok(nodes)
}

/// Does what follows from how far the rollout has come, until there is nothing to do.
async fn advance<L: RolloutLedger>(ledger: &mut L, id: &RolloutId, by: By<'_>) -> Result<(), L::Fault> {
    loop {
        match load(ledger, id, Counting::Any).await?.next() {
            Next::Wait => return Ok(()),
            Next::GoOn => issue(ledger, id, Wave::Rest, by).await?,
            Next::Stop(why) => ledger.set_phase(id, Phase::Stopped, Some(why), by).await?,
            Next::Finish => ledger.set_phase(id, Phase::Finished, None, by).await?,
        }
    }
}

/// Hands out the directives of a wave.
async fn issue<L: RolloutLedger>(ledger: &mut L, id: &RolloutId, wave: Wave, by: By<'_>) -> Result<(), L::Fault> {
    let nodes = ledger.nodes(id, wave, &RolloutState::None).await?;
    set_state(ledger, id, &nodes, &RolloutState::Pending, None, by).await
}

/// The directives' state, and what follows for the nodes.
async fn set_state<L: RolloutLedger>(
    ledger: &mut L,
    id: &RolloutId,
    nodes: &[NodeId],
    state: &RolloutState,
    detail: Option<&str>,
    by: By<'_>,
) -> Result<(), L::Fault> {
    for nodes in nodes.chunks(TOGETHER) {
        ledger.mark(id, nodes, state, detail, by).await?;
        let mut changes = Vec::new();
        for row in ledger.rows(nodes).await? {
            let node_id = row.enrollment.node_id.clone();
            changes.extend(Request::Step(state).on(&node_id, Found::Row(row), by)?.change);
        }
        ledger.write(&changes).await?;
    }
    Ok(())
}

async fn load<L: RolloutLedger>(ledger: &mut L, id: &RolloutId, counting: Counting) -> Result<Rollout, L::Fault> {
    match ledger.rollout(id, counting).await? {
        Some(rollout) => Ok(rollout),
        None => refuse(RolloutError::NotFound { rollout_id: id.clone() }),
    }
}

async fn current<L: RolloutLedger>(ledger: &mut L, node_id: &NodeId) -> Result<Directive, L::Fault> {
    match ledger.directive(node_id).await? {
        Some(directive) => Ok(directive),
        None => refuse(RolloutError::NoDirective { node_id: node_id.clone() }),
    }
}

fn refuse<T, F: From<StoreError>>(error: RolloutError) -> Result<T, F> {
    Err(StoreError::from(error).into())
}
