//! The steps of a rollout in any store: transactions of a bounded number of nodes, each of which leaves what the next goes on
//! from.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice, thread,
};

use gate_core::{NodeId, RolloutState, enrollment::Status, identity::EnrollmentRef};

use super::{
    BETWEEN, Command, Directive, Next, Order, Phase, Report, Rollout, RolloutError, RolloutId, Selector, Wave,
    canaries, may_become,
};
use crate::enrollment::{
    StoreError,
    ledger::Ledger,
    request::{By, Found, Request},
};

/// Nodes of one transaction. Few where it is tested, so that every step has more of them.
pub(super) const TOGETHER: usize = if cfg!(test) { 2 } else { 1000 };

/// How many of the rollouts that were taken back, the last ones, are looked at for what is left to do.
pub(super) const TAKEN_BACK: usize = 10;

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

    /// Gives each node that has none a current directive, which waits.
    async fn direct(&mut self, id: &RolloutId, wave: Wave, nodes: &[NodeId], by: By<'_>) -> Result<(), Self::Fault>;

    /// Takes their current directives from these nodes, those of later rollouts than this one excepted.
    async fn take(&mut self, nodes: &[NodeId], by_rollout: Option<&RolloutId>) -> Result<(), Self::Fault>;

    /// Up to [`TOGETHER`] nodes of a wave whose current directive is this rollout's and in this state.
    async fn nodes(&mut self, id: &RolloutId, wave: Wave, state: &RolloutState) -> Result<Vec<NodeId>, Self::Fault>;

    /// Up to [`TOGETHER`] nodes that have come so far that they may run this rollout's bundle, and have another directive now, or none; and
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

    /// The rollouts from which something may follow: those that run, and the [`TAKEN_BACK`] that were taken back last.
    async fn under_way(&mut self) -> Result<Vec<RolloutId>, Self::Fault>;

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

/// A store, as the steps of a rollout know it.
pub(super) trait Steps {
    type Fault: From<StoreError>;
    type Ledger<'a>: RolloutLedger<Fault = Self::Fault>;

    /// One transaction, which is committed when the call returns. Nobody else changes anything meanwhile, so it has a thousand
    /// nodes at most: a revoke waits no longer than for those.
    fn step<T>(&self, work: impl AsyncFnOnce(&mut Self::Ledger<'_>) -> Result<T, Self::Fault>)
    -> Result<T, StoreError>;
}

/// Until all nodes are chosen the rollout is paused: where that breaks off, nobody was asked for anything.
pub(super) fn create(store: &impl Steps, order: &Order, by: By<'_>) -> Result<RolloutId, StoreError> {
    let (id, more) = store.step(async |ledger| begin(ledger, order, by).await)?;
    for nodes in more.chunks(TOGETHER) {
        thread::sleep(BETWEEN);
        if !store.step(async |ledger| choose_more(ledger, &id, nodes, by).await)? {
            // Somebody took it back.
            return Ok(id);
        }
    }
    if !more.is_empty() {
        store.step(async |ledger| start(ledger, &id, by).await)?;
    }
    advance_all(store, &id, by)?;
    Ok(id)
}

pub(super) fn command(store: &impl Steps, id: &RolloutId, asked: Command, by: By<'_>) -> Result<(), StoreError> {
    store.step(async |ledger| set_command(ledger, id, asked, by).await)?;
    advance_all(store, id, by)
}

pub(super) fn report(
    store: &impl Steps,
    node_id: &NodeId,
    report: &Report,
    by: By<'_>,
) -> Result<Directive, StoreError> {
    store.step(async |ledger| take_report(ledger, node_id, report, by).await)
}

/// Does what is left to do of any rollout, in a transaction that does something for nodes; says whether there was one. What is
/// wrong with a rollout is said once the others were looked at.
pub(super) fn go_on(store: &impl Steps, by: By<'_>) -> Result<bool, StoreError> {
    let mut wrong = None;
    for id in store.step(async |ledger| ledger.under_way().await)? {
        match store.step(async |ledger| advance(ledger, &id, by).await) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => wrong = Some(error),
        }
    }
    wrong.map_or(Ok(false), Err)
}

/// Does what follows, as long as something does. The orchestrator goes on where this breaks off.
fn advance_all(store: &impl Steps, id: &RolloutId, by: By<'_>) -> Result<(), StoreError> {
    while store.step(async |ledger| advance(ledger, id, by).await)? {
        thread::sleep(BETWEEN);
    }
    Ok(())
}

/// A rollout with the first of its nodes, and the nodes that are still to be chosen.
async fn begin<L: RolloutLedger>(
    ledger: &mut L,
    order: &Order,
    by: By<'_>,
) -> Result<(RolloutId, Vec<(Wave, NodeId)>), L::Fault> {
    let nodes = selected(ledger, &order.selector).await?;
    let id = RolloutId::generate();
    let canaries = order.canary_percent.map(|percent| canaries(&id, &nodes, percent)).unwrap_or_default();
    let (first, rest) = nodes.into_iter().partition::<Vec<_>, _>(|node_id| canaries.contains(node_id));
    let of = |wave| move |node_id| (wave, node_id);
    let mut nodes: Vec<_> =
        first.into_iter().map(of(Wave::Canary)).chain(rest.into_iter().map(of(Wave::Rest))).collect();
    let more = nodes.split_off(nodes.len().min(TOGETHER));
    ledger.begin(&id, order).await?;
    match more.is_empty() {
        true => ledger.set_phase(&id, Phase::Running, None, by).await?,
        false => ledger.set_phase(&id, Phase::Paused, Some("its nodes are being chosen"), by).await?,
    }
    choose(ledger, &id, &nodes, by).await?;
    if more.is_empty() {
        advance(ledger, &id, by).await?;
    }
    Ok((id, more))
}

/// Chooses nodes for a rollout that has not ended; whether it has not.
async fn choose_more<L: RolloutLedger>(
    ledger: &mut L,
    id: &RolloutId,
    nodes: &[(Wave, NodeId)],
    by: By<'_>,
) -> Result<bool, L::Fault> {
    match load(ledger, id, Counting::Any).await?.phase {
        Phase::Running | Phase::Paused => choose(ledger, id, nodes, by).await.map(|()| true),
        Phase::Stopped | Phase::Finished | Phase::RolledBack => Ok(false),
    }
}

/// Gives the nodes that are active still a directive. What follows for the rollouts that they were taken from is left to do.
async fn choose<L: RolloutLedger>(
    ledger: &mut L,
    id: &RolloutId,
    nodes: &[(Wave, NodeId)],
    by: By<'_>,
) -> Result<(), L::Fault> {
    let ids: Vec<_> = nodes.iter().map(|(_, node_id)| node_id.clone()).collect();
    let rows = ledger.rows(&ids).await?.into_iter().map(|row| row.enrollment);
    let active: BTreeSet<_> = rows.filter(|row| row.status == Status::Active).map(|row| row.node_id).collect();
    ledger.take(&ids, Some(id)).await?;
    for &wave in Wave::ALL {
        let of_wave = nodes.iter().filter(|(of, node_id)| *of == wave && active.contains(node_id));
        let of_wave: Vec<_> = of_wave.map(|(_, node_id)| node_id.clone()).collect();
        if !of_wave.is_empty() {
            ledger.direct(id, wave, &of_wave, by).await?;
        }
    }
    Ok(())
}

/// All nodes are chosen.
async fn start<L: RolloutLedger>(ledger: &mut L, id: &RolloutId, by: By<'_>) -> Result<(), L::Fault> {
    match load(ledger, id, Counting::Any).await?.phase {
        Phase::Paused => ledger.set_phase(id, Phase::Running, None, by).await,
        Phase::Running | Phase::Stopped | Phase::Finished | Phase::RolledBack => Ok(()),
    }
}

async fn set_command<L: RolloutLedger>(
    ledger: &mut L,
    id: &RolloutId,
    command: Command,
    by: By<'_>,
) -> Result<(), L::Fault> {
    let Rollout { phase, .. } = load(ledger, id, Counting::Any).await?;
    match command.applied_to(phase) {
        Some(Some(phase)) => ledger.set_phase(id, phase, None, by).await,
        Some(None) => Ok(()),
        None => refuse(RolloutError::Phase { rollout_id: id.clone(), phase, command }),
    }
}

/// What follows from it for more nodes than a thousand is left to do.
async fn take_report<L: RolloutLedger>(
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

/// Does what follows from how far the rollout has come, for a thousand nodes at most; says whether there are more.
async fn advance<L: RolloutLedger>(ledger: &mut L, id: &RolloutId, by: By<'_>) -> Result<bool, L::Fault> {
    loop {
        match load(ledger, id, Counting::Any).await?.next() {
            Next::Wait => return Ok(false),
            Next::GoOn(wave) => {
                let nodes = ledger.nodes(id, wave, &RolloutState::None).await?;
                set_state(ledger, id, &nodes, &RolloutState::Pending, None, by).await?;
                return Ok(nodes.len() == TOGETHER);
            }
            Next::TakeBack => return take_back(ledger, id, by).await,
            Next::Stop(why) => ledger.set_phase(id, Phase::Stopped, Some(why), by).await?,
            Next::Finish => ledger.set_phase(id, Phase::Finished, None, by).await?,
        }
    }
}

/// Takes some nodes back that are not yet, and says whether there were any.
async fn take_back<L: RolloutLedger>(ledger: &mut L, id: &RolloutId, by: By<'_>) -> Result<bool, L::Fault> {
    let back = RolloutState::RolledBack;
    for &wave in Wave::ALL {
        for state in [RolloutState::Pending, RolloutState::Acknowledged, RolloutState::Active] {
            let nodes = ledger.nodes(id, wave, &state).await?;
            if !nodes.is_empty() {
                set_state(ledger, id, &nodes, &back, None, by).await?;
                return Ok(true);
            }
        }
    }
    let left = ledger.left(id).await?;
    if left.is_empty() {
        return Ok(false);
    }
    let of =
        |may_run| left.iter().filter(move |(_, may)| *may == may_run).map(|(node_id, _)| node_id.clone()).collect();
    let (may_run, beyond): (Vec<_>, Vec<_>) = (of(true), of(false));
    set_state(ledger, id, &may_run, &back, None, by).await?;
    // What they run is another's. What they must not go back to is said here.
    ledger.mark(id, &beyond, &back, None, by).await?;
    Ok(true)
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
    if nodes.is_empty() {
        return Ok(());
    }
    ledger.mark(id, nodes, state, detail, by).await?;
    let mut changes = Vec::new();
    for row in ledger.rows(nodes).await? {
        let node_id = row.enrollment.node_id.clone();
        changes.extend(Request::Step(state).on(&node_id, Found::Row(row), by)?.change);
    }
    ledger.write(&changes).await
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
