//! Who waits for changes: of all nodes, or of one.

use std::{
    hash::{BuildHasher as _, RandomState},
    iter,
    sync::{Mutex, MutexGuard, PoisonError},
};

use gate_core::NodeId;
use tokio::sync::watch;

use crate::enrollment::Revised;

/// So many groups have those who wait for one node. A change wakes its node's group: at the most connections that there may
/// be, some ten others.
const GROUPS: usize = 1024;

/// Each channel is told again what it says when there is something to look at.
pub(super) struct Waiting {
    for_all: watch::Sender<Told>,
    for_one: Vec<watch::Sender<Told>>,
    /// Nobody can choose ids that share a group.
    hasher: RandomState,
    seen: Mutex<Seen>,
}

/// What those are told who wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// Whether the service goes on.
    pub(super) goes_on: bool,
    /// The latest change of a node of the group that was seen.
    latest: u64,
}

/// Each change after one revision and up to another was seen, and its group told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    after: u64,
    up_to: u64,
}

impl Seen {
    /// The latest revision that is known; nothing before the first look. What is changed meanwhile is told to whoever asks for what comes
    /// after it.
    pub(super) fn cursor(self) -> Option<u64> {
        (self.after <= self.up_to).then_some(self.up_to)
    }

    /// Up to which revision a group is known to have no change after `after`; nothing where that is not known. What it was told must
    /// have been read after this.
    pub(super) fn none_after(self, after: u64, told: Told) -> Option<u64> {
        ((self.after..=self.up_to).contains(&after) && told.latest <= after).then_some(self.up_to)
    }
}

impl Default for Waiting {
    fn default() -> Self {
        let sender = || watch::Sender::new(Told { goes_on: true, latest: 0 });
        let for_one = iter::repeat_with(sender).take(GROUPS).collect();
        let nothing = Seen { after: u64::MAX, up_to: 0 };
        Self { for_all: sender(), for_one, hasher: RandomState::new(), seen: Mutex::new(nothing) }
    }
}

impl Waiting {
    /// Changes with each change of the node, of any without one, and at times for nothing.
    pub(super) fn subscribe(&self, node_id: Option<&NodeId>) -> watch::Receiver<Told> {
        node_id.and_then(|node_id| self.group(node_id)).unwrap_or(&self.for_all).subscribe()
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Seen {
        *self.lock()
    }

    /// These are all changes since the last call, up to this revision.
    pub(super) fn wake(&self, changes: &[Revised], up_to: u64) {
        for Revised { revision, change } in changes {
            for group in self.group(&change.after.node_id).into_iter().chain([&self.for_all]) {
                group.send_modify(|told| told.latest = *revision);
            }
        }
        // Now that the groups know of them.
        self.lock().up_to = up_to;
    }

    /// What was changed before this revision is not known.
    pub(super) fn wake_all(&self, revision: u64) {
        *self.lock() = Seen { after: revision, up_to: revision };
        self.everybody().for_each(|group| group.send_modify(|_| {}));
    }

    /// Those who wait are answered now, and nobody waits from here on.
    pub(super) fn stop(&self) {
        self.everybody().for_each(|group| group.send_modify(|told| told.goes_on = false));
    }

    fn everybody(&self) -> impl Iterator<Item = &watch::Sender<Told>> {
        iter::once(&self.for_all).chain(&self.for_one)
    }

    fn group(&self, node_id: &NodeId) -> Option<&watch::Sender<Told>> {
        let hash = usize::try_from(self.hasher.hash_one(node_id.as_str())).unwrap_or_default();
        self.for_one.get(hash % GROUPS)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::{Action, Change};
    use gate_core::{Enrollment, EnrollmentRef, RolloutState, Status};

    fn change_of(node_id: &NodeId, revision: u64) -> Revised {
        let after = Enrollment {
            node_id: node_id.clone(),
            enrollment_ref: EnrollmentRef::parse("fleet-a").unwrap(),
            status: Status::Active,
            rollout_state: RolloutState::None,
            serial: 1,
        };
        Revised {
            revision,
            change: Change { action: Action::Enroll, who: "ops".into(), at_ms: 1, before: None, after },
        }
    }

    #[test]
    fn a_change_wakes_who_waits_for_its_node_or_for_all_and_hardly_anybody_else() {
        let nodes: Vec<_> = (0..10_000).map(|at| NodeId::parse(&format!("robot-{at}")).unwrap()).collect();
        let waiting = Waiting::default();
        let mut receivers: Vec<_> = nodes.iter().map(|node| waiting.subscribe(Some(node))).collect();
        let mut for_all = waiting.subscribe(None);
        waiting.wake(&[], 0);
        assert!(!for_all.has_changed().unwrap());
        for (at, node) in nodes.iter().enumerate().step_by(1_000) {
            waiting.wake(&[change_of(node, 1)], 1);
            assert!(receivers[at].has_changed().unwrap() && for_all.has_changed().unwrap());
            let woken = receivers.iter().filter(|receiver| receiver.has_changed().unwrap()).count();
            assert!(woken < 100, "{woken} of 10,000 were woken by one change");
            receivers.iter_mut().chain([&mut for_all]).for_each(watch::Receiver::mark_unchanged);
        }
        waiting.wake_all(1);
        let mut all = receivers.iter().chain([&for_all]);
        assert!(all.all(|receiver| receiver.has_changed().unwrap() && receiver.borrow().goes_on));
        waiting.stop();
        assert!(receivers.iter().chain([&for_all]).all(|receiver| !receiver.borrow().goes_on));
        assert!(!waiting.subscribe(None).borrow().goes_on, "who comes later does not wait either");
    }

    /// Every history of three changes of two nodes, looked at after each of them from each revision.
    #[test]
    fn a_node_is_never_said_to_have_no_change_where_it_has_one() {
        let nodes = ["robot-7", "robot-8"].map(|id| NodeId::parse(id).unwrap());
        for history in (0..8).map(|bits| [0, 1, 2].map(|at| bits >> at & 1)) {
            let waiting = Waiting::default();
            let ask = |node: Option<&NodeId>, after| {
                let seen = waiting.seen();
                seen.none_after(after, *waiting.subscribe(node).borrow())
            };
            assert_eq!((ask(None, 0), waiting.seen().cursor()), (None, None), "nothing is known yet");
            // The first change was before anybody looked.
            waiting.wake_all(1);
            assert_eq!(waiting.seen().cursor(), Some(1));
            for (up_to, changed) in (2..).zip(&history[1..]) {
                waiting.wake(&[change_of(&nodes[*changed], up_to)], up_to);
                for after in 0..up_to + 2 {
                    let known = (1..=up_to).contains(&after);
                    let changes = |of: &dyn Fn(usize) -> bool| {
                        (1..).zip(history).any(|(revision, node)| (after + 1..=up_to).contains(&revision) && of(node))
                    };
                    assert_eq!(ask(None, after), (known && !changes(&|_| true)).then_some(up_to));
                    for (at, node) in nodes.iter().enumerate() {
                        let said = ask(Some(node), after);
                        assert!(said.is_none() || known && !changes(&|of| of == at), "{history:?} {node} {after}");
                        let alone = !changes(&|_| true);
                        assert!(said == Some(up_to) || !known || !alone, "{history:?} {node} {after}");
                    }
                }
            }
            waiting.wake_all(1);
            assert_eq!([ask(None, 0), ask(None, 2), ask(None, 3)], [None; 3], "the store was taken back");
        }
    }
}
