//! What is in a database of rollouts, whichever it is.

use gate_core::{NodeId, RolloutState, identity::EnrollmentRef};

use super::{Counts, Directive, Phase, PhaseChange, Rollout, RolloutId, Selector, Wave};
use crate::{
    enrollment::record::{OnDisk, Record},
    oci::Pinned,
};

/// Reads a rollout whose directives are still to be counted: id, bundle, selector, canary percent, phase.
pub(super) fn rollout<R: Record>(record: &R) -> Result<Rollout, R::Fault> {
    let on_disk = OnDisk { record, node_id: record.text(0)? };
    Ok(Rollout {
        rollout_id: on_disk.parse("rollout_id", 0, RolloutId::parse)?,
        bundle: on_disk.parse("bundle", 1, Pinned::parse)?,
        selector: on_disk.parse("selector", 2, Selector::parse)?,
        canary_percent: match record.optional(3)? {
            Some(_) => Some(on_disk.count("canary_percent", 3)?),
            None => None,
        },
        phase: phase(&on_disk, 4)?,
        canary: Counts::default(),
        rest: Counts::default(),
        history: Vec::new(),
    })
}

/// Adds directives of one kind to their rollout: its id, wave, state, whether they are current, how many there are.
pub(super) fn count<R: Record>(record: &R, rollouts: &mut [Rollout]) -> Result<(), R::Fault> {
    let Some((rollout, on_disk)) = find(record, rollouts)? else { return Ok(()) };
    let counts = match wave(&on_disk, 1)? {
        Wave::Canary => &mut rollout.canary,
        Wave::Rest => &mut rollout.rest,
    };
    counts.count(&RolloutState::from_word(&record.text(2)?), is_current(&on_disk, 3)?, on_disk.count("count", 4)?);
    Ok(())
}

/// Adds an entry to the history of its rollout: its id, phase, detail, who, when.
pub(super) fn phase_change<R: Record>(record: &R, rollouts: &mut [Rollout]) -> Result<(), R::Fault> {
    let Some((rollout, on_disk)) = find(record, rollouts)? else { return Ok(()) };
    rollout.history.push(PhaseChange {
        phase: phase(&on_disk, 1)?,
        detail: record.optional(2)?.map(Into::into),
        who: record.text(3)?.into_owned(),
        at_ms: on_disk.count("at_ms", 4)?,
    });
    Ok(())
}

/// Reads a directive: node id, rollout id, bundle, phase, wave, state, detail, whether it is current, when it changed,
/// enrollment ref.
pub(super) fn directive<R: Record>(record: &R) -> Result<Directive, R::Fault> {
    let on_disk = OnDisk { record, node_id: record.text(0)? };
    Ok(Directive {
        node_id: on_disk.parse("node_id", 0, NodeId::parse)?,
        rollout_id: on_disk.parse("rollout_id", 1, RolloutId::parse)?,
        bundle: on_disk.parse("bundle", 2, Pinned::parse)?,
        phase: phase(&on_disk, 3)?,
        wave: wave(&on_disk, 4)?,
        state: RolloutState::from_word(&record.text(5)?),
        detail: record.optional(6)?.map(Into::into),
        is_current: is_current(&on_disk, 7)?,
        updated_at_ms: on_disk.count("updated_at_ms", 8)?,
        enrollment_ref: on_disk.parse("enrollment_ref", 9, EnrollmentRef::parse)?,
    })
}

pub(super) fn node_id<R: Record>(record: &R) -> Result<NodeId, R::Fault> {
    OnDisk { record, node_id: record.text(0)? }.parse("node_id", 0, NodeId::parse)
}

/// Reads a node, and a 0 or 1 of it.
pub(super) fn left<R: Record>(record: &R) -> Result<(NodeId, bool), R::Fault> {
    let on_disk = OnDisk { record, node_id: record.text(0)? };
    Ok((node_id(record)?, on_disk.count("may_run", 1)? != 0))
}

pub(super) fn rollout_id<R: Record>(record: &R) -> Result<RolloutId, R::Fault> {
    OnDisk { record, node_id: record.text(0)? }.parse("rollout_id", 0, RolloutId::parse)
}

/// The rollout that a record is of.
fn find<'a, 'r, R: Record>(
    record: &'r R,
    rollouts: &'a mut [Rollout],
) -> Result<Option<(&'a mut Rollout, OnDisk<'r, R>)>, R::Fault> {
    let id = record.text(0)?;
    let rollout = rollouts.iter_mut().find(|rollout| rollout.rollout_id.as_str() == id);
    Ok(rollout.map(|rollout| (rollout, OnDisk { record, node_id: id })))
}

fn phase<R: Record>(on_disk: &OnDisk<'_, R>, index: usize) -> Result<Phase, R::Fault> {
    on_disk.parse("phase", index, |word| Phase::from_word(word).ok_or("no such phase"))
}

fn wave<R: Record>(on_disk: &OnDisk<'_, R>, index: usize) -> Result<Wave, R::Fault> {
    on_disk.parse("wave", index, |word| Wave::from_word(word).ok_or("no such wave"))
}

/// 0 or 1.
fn is_current<R: Record>(on_disk: &OnDisk<'_, R>, index: usize) -> Result<bool, R::Fault> {
    Ok(on_disk.count("is_current", index)? != 0)
}
