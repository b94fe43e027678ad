//! Who waits for changes: of all nodes, or of one.

use std::{
    hash::{BuildHasher as _, RandomState},
    iter,
};

use gate_core::NodeId;
use tokio::sync::watch;

use crate::enrollment::Revised;

/// So many groups have those who wait for one node. A change wakes its node's group: at the most connections that there may
/// be, some ten others.
const GROUPS: usize = 1024;

/// Each channel says whether the service goes on, and is told again what it says when there is something to look at.
pub(super) struct Waiting {
    for_all: watch::Sender<bool>,
    for_one: Vec<watch::Sender<bool>>,
    /// Nobody can choose ids that share a group.
    hasher: RandomState,
}

impl Default for Waiting {
    fn default() -> Self {
        let for_one = iter::repeat_with(|| watch::Sender::new(true)).take(GROUPS).collect();
        Self { for_all: watch::Sender::new(true), for_one, hasher: RandomState::new() }
    }
}

impl Waiting {
    /// Changes with each change of the node, of any without one, and at times for nothing.
    pub(super) fn subscribe(&self, node_id: Option<&NodeId>) -> watch::Receiver<bool> {
        node_id.and_then(|node_id| self.group(node_id)).unwrap_or(&self.for_all).subscribe()
    }

    pub(super) fn wake(&self, changes: &[Revised]) {
        let nodes = changes.iter().filter_map(|revised| self.group(&revised.change.after.node_id));
        let all = (!changes.is_empty()).then_some(&self.for_all);
        nodes.chain(all).for_each(|group| group.send_modify(|_| {}));
    }

    pub(super) fn wake_all(&self) {
        self.everybody().for_each(|group| group.send_modify(|_| {}));
    }

    /// Those who wait are answered now, and nobody waits from here on.
    pub(super) fn stop(&self) {
        self.everybody().for_each(|group| group.send_modify(|goes_on| *goes_on = false));
    }

    fn everybody(&self) -> impl Iterator<Item = &watch::Sender<bool>> {
        iter::once(&self.for_all).chain(&self.for_one)
    }

    fn group(&self, node_id: &NodeId) -> Option<&watch::Sender<bool>> {
        let hash = usize::try_from(self.hasher.hash_one(node_id.as_str())).unwrap_or_default();
        self.for_one.get(hash % GROUPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::{Action, Change};
    use gate_core::{Enrollment, EnrollmentRef, RolloutState, Status};

    fn change_of(node_id: &NodeId) -> Revised {
        let after = Enrollment {
            node_id: node_id.clone(),
            enrollment_ref: EnrollmentRef::parse("fleet-a").unwrap(),
            status: Status::Active,
            rollout_state: RolloutState::None,
            serial: 1,
        };
        Revised {
            revision: 1,
            change: Change { action: Action::Enroll, who: "ops".into(), at_ms: 1, before: None, after },
        }
    }

    #[test]
    fn a_change_wakes_who_waits_for_its_node_or_for_all_and_hardly_anybody_else() {
        let nodes: Vec<_> = (0..10_000).map(|at| NodeId::parse(&format!("robot-{at}")).unwrap()).collect();
        let waiting = Waiting::default();
        let mut receivers: Vec<_> = nodes.iter().map(|node| waiting.subscribe(Some(node))).collect();
        let mut for_all = waiting.subscribe(None);
        waiting.wake(&[]);
        assert!(!for_all.has_changed().unwrap());
        for (at, node) in nodes.iter().enumerate().step_by(1_000) {
            waiting.wake(&[change_of(node)]);
            assert!(receivers[at].has_changed().unwrap() && for_all.has_changed().unwrap());
            let woken = receivers.iter().filter(|receiver| receiver.has_changed().unwrap()).count();
            assert!(woken < 100, "{woken} of 10,000 were woken by one change");
            receivers.iter_mut().chain([&mut for_all]).for_each(watch::Receiver::mark_unchanged);
        }
        waiting.wake_all();
        assert!(
            receivers.iter().chain([&for_all]).all(|receiver| receiver.has_changed().unwrap() && *receiver.borrow())
        );
        waiting.stop();
        assert!(receivers.iter().chain([&for_all]).all(|receiver| !*receiver.borrow()));
        assert!(!*waiting.subscribe(None).borrow(), "who comes later does not wait either");
    }
}
