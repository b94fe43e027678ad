//! What every [`RolloutStore`] must do. Each store's tests run the whole of it, on stores that are new and empty.

use std::slice;

use gate_core::{NodeId, RolloutState};

use super::{Command, Counts, Directive, Order, Phase, Report, Rollout, RolloutId, RolloutStore, Selector, Wave};
use crate::{
    enrollment::{
        Action, IfActive, Store,
        conformance::{enrollment_ref, history_replays_to_the_row, node},
    },
    oci::Pinned,
};

pub(in crate::enrollment) fn bundle() -> Pinned {
    Pinned::parse(&format!("registry.example/fleet/policies@sha256:{}", "0".repeat(64))).unwrap()
}

/// Whether a command, or what nodes do, brings a rollout from one phase to the other.
pub(in crate::enrollment) fn may_follow(from: Phase, to: Phase) -> bool {
    let asked_for = [Command::Pause, Command::Resume, Command::Rollback];
    let by_itself = match from {
        Phase::Running => matches!(to, Phase::Stopped | Phase::Finished),
        Phase::Paused => to == Phase::Stopped,
        Phase::Stopped | Phase::Finished | Phase::RolledBack => false,
    };
    by_itself || asked_for.iter().any(|command| command.applied_to(from) == Some(Some(to)))
}

/// Runs the suite. `new` gives an empty store each time.
pub(in crate::enrollment) fn check(new: &dyn Fn() -> Box<dyn Store>) {
    for part in [
        starts_without_rollouts,
        rolls_out_to_all_at_once,
        holds_the_rest_back_until_every_canary_is_active,
        stops_when_a_canary_fails,
        refuses_what_does_not_follow,
        pauses_and_resumes,
        takes_a_rollout_back,
        takes_back_whoever_may_run_the_bundle,
        lifts_what_was_taken_back_by_another_bundle_alone,
        chooses_active_nodes_alone,
        lets_the_latest_rollout_count,
        lets_an_enrollment_end_a_directive,
        lists_in_pages,
    ] {
        let store = new();
        for id in ["a", "b", "c", "d", "e"] {
            store.enroll(&node(id), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 1).unwrap();
        }
        part(&*store, store.rollouts());
        for id in ["a", "b", "c", "d", "e"] {
            history_replays_to_the_row(&*store, &node(id));
            is_what_the_gate_sees(&*store, &node(id));
        }
    }
}

/// The node's rollout state is that of its current directive, once it has one that was handed out; or the node was taken back,
/// and has not come to run another bundle.
fn is_what_the_gate_sees(store: &dyn Store, node_id: &NodeId) {
    let directive = store.rollouts().directive(node_id).unwrap();
    if let Some(Directive { state, .. }) = directive.filter(|directive| directive.state != RolloutState::None) {
        let (seen, back) = (state_of(store, node_id), RolloutState::RolledBack);
        assert!(seen == state || seen == back && state != RolloutState::Active, "{node_id}: {seen} and {state}");
    }
}

fn state_of(store: &dyn Store, node_id: &NodeId) -> RolloutState {
    store.get(node_id).unwrap().unwrap().enrollment.rollout_state
}

fn order(selector: &str, canary_percent: Option<u64>) -> Order {
    Order { bundle: bundle(), selector: Selector::parse(selector).unwrap(), canary_percent }
}

fn report(rollout_id: &RolloutId, state: RolloutState) -> Report {
    let detail = (state == RolloutState::Failed).then(|| "it does not\ncompile".to_owned());
    Report { rollout_id: rollout_id.clone(), state, detail }
}

/// Brings a node's directive to `active`.
fn activate(rollouts: &dyn RolloutStore, id: &RolloutId, node_id: &NodeId) {
    for state in [RolloutState::Acknowledged, RolloutState::Active] {
        rollouts.report(node_id, &report(id, state), node_id.as_str(), 50).unwrap();
    }
    go_on(rollouts);
}

fn go_on(rollouts: &dyn RolloutStore) {
    while rollouts.go_on("orchestrator", 51).unwrap() {}
}

fn of_wave(rollouts: &dyn RolloutStore, id: &RolloutId, wave: Wave) -> Vec<NodeId> {
    let directives = rollouts.directives(id, None, 100).unwrap().into_iter();
    directives.filter(|directive| directive.wave == wave).map(|directive| directive.node_id).collect()
}

fn phase(rollouts: &dyn RolloutStore, id: &RolloutId) -> Phase {
    rollouts.rollout(id).unwrap().phase
}

fn starts_without_rollouts(_: &dyn Store, rollouts: &dyn RolloutStore) {
    assert_eq!(rollouts.latest(None, 10).unwrap(), []);
    assert_eq!(rollouts.directive(&node("a")).unwrap(), None);
    assert_eq!(rollouts.directive(&node("nobody")).unwrap(), None);
    let id = RolloutId::parse("0196a3b2-7c1d-7e4f-8a9b-0c1d2e3f4a5b").unwrap();
    let unknown = format!("there is no rollout `{id}`: see `autonomy rollout list`");
    assert_eq!(rollouts.rollout(&id).unwrap_err().to_string(), unknown);
    assert_eq!(rollouts.command(&id, Command::Pause, "ana", 2).unwrap_err().to_string(), unknown);
    let nothing = rollouts.report(&node("a"), &report(&id, RolloutState::Active), "a", 2).unwrap_err();
    assert_eq!(nothing.to_string(), "node `a` has no directive: create a rollout for it");
}

fn rolls_out_to_all_at_once(store: &dyn Store, rollouts: &dyn RolloutStore) {
    let before = store.revision().unwrap();
    let begun = rollouts.create(&order("all", None), "ana", 10).unwrap();
    let Rollout { rollout_id: id, bundle: what, selector, canary_percent, phase: Phase::Running, history, .. } = &begun
    else {
        panic!("{begun:?}")
    };
    assert_eq!((what, selector, canary_percent), (&bundle(), &Selector::All, &None));
    assert_eq!(begun.rest, Counts { pending: 5, ..Counts::default() });
    // As many as are chosen in several transactions.
    let phases: Vec<_> = history.iter().map(|change| (change.phase, change.detail.as_deref())).collect();
    assert_eq!(phases, [(Phase::Paused, Some("its nodes are being chosen")), (Phase::Running, None)]);
    assert_eq!((history[0].who.as_str(), history[0].at_ms), ("ana", 10));
    assert_eq!(store.revision().unwrap(), before + 5, "each node's change is a change");

    for id_of in ["a", "b", "c", "d", "e"].map(node) {
        let directive = rollouts.directive(&id_of).unwrap().unwrap();
        assert_eq!((&directive.rollout_id, &directive.bundle, &directive.state), (id, what, &RolloutState::Pending));
        assert_eq!((directive.wave, directive.enrollment_ref), (Wave::Rest, enrollment_ref("fleet/a")));
        activate(rollouts, id, &id_of);
        let history = store.history(&id_of, 0, 10).unwrap();
        assert!(history[1..].iter().all(|change| change.action == Action::SetRollout));
        let states: Vec<_> = history[1..].iter().map(|change| change.after.rollout_state.as_str()).collect();
        assert_eq!(states, ["pending", "acknowledged", "active"]);
        assert_eq!(
            history.iter().map(|change| change.who.as_str()).collect::<Vec<_>>(),
            ["ana", "ana", id_of.as_str(), id_of.as_str()]
        );
    }
    let ended = rollouts.rollout(id).unwrap();
    assert_eq!((ended.phase, ended.rest), (Phase::Finished, Counts { active: 5, ..Counts::default() }));
    assert_eq!(ended.history.len(), 3);
    assert_eq!(
        (ended.history.last().unwrap().who.as_str(), ended.history.last().unwrap().phase),
        ("e", Phase::Finished)
    );
}

fn holds_the_rest_back_until_every_canary_is_active(store: &dyn Store, rollouts: &dyn RolloutStore) {
    let begun = rollouts.create(&order("all", Some(40)), "ana", 10).unwrap();
    let id = begun.rollout_id;
    let (canaries, rest) = (of_wave(rollouts, &id, Wave::Canary), of_wave(rollouts, &id, Wave::Rest));
    assert_eq!((canaries.len(), rest.len()), (2, 3));
    let waiting = |count| assert_eq!(rollouts.rollout(&id).unwrap().rest.waiting, count);
    waiting(3);
    activate(rollouts, &id, &canaries[0]);
    waiting(3);
    assert!(rest.iter().all(|node| state_of(store, node) == RolloutState::None));
    for state in [RolloutState::Pending, RolloutState::Acknowledged] {
        let early = rollouts.report(&rest[0], &report(&id, state.clone()), "x", 11).unwrap_err();
        assert!(early.to_string().contains(&format!("is `<none>` and cannot become `{state}`")), "{early}");
    }
    activate(rollouts, &id, &canaries[1]);
    waiting(0);
    assert!(rest.iter().all(|node| state_of(store, node) == RolloutState::Pending));
    rest.iter().for_each(|node| activate(rollouts, &id, node));
    assert_eq!(phase(rollouts, &id), Phase::Finished);
}

fn stops_when_a_canary_fails(store: &dyn Store, rollouts: &dyn RolloutStore) {
    let id = rollouts.create(&order("all", Some(40)), "ana", 10).unwrap().rollout_id;
    let (canaries, rest) = (of_wave(rollouts, &id, Wave::Canary), of_wave(rollouts, &id, Wave::Rest));
    let failed = rollouts.report(&canaries[0], &report(&id, RolloutState::Failed), "x", 11).unwrap();
    assert_eq!((failed.phase, failed.detail.as_deref()), (Phase::Stopped, Some("it does not compile")));
    // A canary that was nearly done says so, and nothing comes of it.
    activate(rollouts, &id, &canaries[1]);
    let ended = rollouts.rollout(&id).unwrap();
    assert_eq!((ended.phase, ended.rest.waiting), (Phase::Stopped, 3));
    assert_eq!(ended.history.last().unwrap().detail.as_deref(), Some("a canary failed"));
    assert!(rest.iter().all(|node| state_of(store, node) == RolloutState::None));
    for command in [Command::Pause, Command::Resume] {
        let refused = rollouts.command(&id, command, "ana", 12).unwrap_err().to_string();
        assert!(refused.ends_with(&format!(
            "is `stopped`, so `{command}` is refused: create another with `autonomy rollout create`"
        )));
    }
    // Without canaries the others go on.
    let id = rollouts.create(&order("all", None), "ana", 20).unwrap().rollout_id;
    rollouts.report(&node("a"), &report(&id, RolloutState::Failed), "a", 21).unwrap();
    ["b", "c", "d", "e"].map(node).iter().for_each(|node| activate(rollouts, &id, node));
    let ended = rollouts.rollout(&id).unwrap();
    assert_eq!((ended.phase, ended.rest.active, ended.rest.failed), (Phase::Finished, 4, 1));
}

/// From each state that a report can bring about, each report.
fn refuses_what_does_not_follow(store: &dyn Store, rollouts: &dyn RolloutStore) {
    use RolloutState::{Acknowledged, Active, Failed, None, Pending, RolledBack};
    let a = node("a");
    for (path, from, legal) in [
        (&[][..], Pending, &[Pending, Acknowledged, Failed][..]),
        (&[Acknowledged], Acknowledged, &[Acknowledged, Active, Failed]),
        (&[Acknowledged, Active], Active, &[Active]),
        (&[Failed], Failed, &[Failed]),
    ] {
        for to in [Pending, Acknowledged, Active, Failed] {
            let id = rollouts.create(&order("node_id=a", Option::None), "ana", 10).unwrap().rollout_id;
            for state in path {
                rollouts.report(&a, &report(&id, state.clone()), "a", 11).unwrap();
            }
            let (before, revision) = (rollouts.directive(&a).unwrap(), store.revision().unwrap());
            match rollouts.report(&a, &report(&id, to.clone()), "a", 12) {
                Ok(directive) => assert!(legal.contains(&to) && directive.state == to, "{from} to {to}"),
                Err(error) => {
                    assert!(!legal.contains(&to), "{from} to {to}");
                    let why =
                        format!("the directive of node `a` is `{from}` and cannot become `{to}`: ask for it again");
                    assert_eq!(error.to_string(), why);
                    assert_eq!(
                        (rollouts.directive(&a).unwrap(), store.revision().unwrap()),
                        (before.clone(), revision)
                    );
                }
            }
            if from == to {
                let (said, twice) = (rollouts.directive(&a).unwrap(), (before, revision));
                assert_eq!((said.clone(), store.revision().unwrap()), twice, "said twice");
                // What it waits for alone is news, and of nobody else's concern.
                let waits = Report { detail: Some("waits\u{202e}for".to_owned()), ..report(&id, to.clone()) };
                let told = rollouts.report(&a, &waits, "a", 13).unwrap();
                let wanted = Directive { detail: Some("waits for".to_owned()), updated_at_ms: 13, ..said.unwrap() };
                assert_eq!((told, store.revision().unwrap()), (wanted, revision));
            }
        }
    }
    let id = rollouts.create(&order("node_id=a", Option::None), "ana", 10).unwrap().rollout_id;
    for state in [None, RolledBack, RolloutState::from_word("lost")] {
        let error = rollouts.report(&a, &report(&id, state.clone()), "a", 11).unwrap_err();
        let why = format!(
            "a node cannot report `{state}`: report `acknowledged`, `active` or `failed`, or `pending` while it waits"
        );
        assert_eq!(error.to_string(), why);
    }
    for percent in [0, 101] {
        let error = rollouts.create(&order("all", Some(percent)), "ana", 12).unwrap_err();
        assert_eq!(error.to_string(), format!("canary `{percent}` is out of range: use 1 to 100, in percent"));
    }
    rollouts.create(&order("all", Option::None), "", 12).unwrap_err();
    rollouts.command(&id, Command::Pause, "\n", 12).unwrap_err();
    rollouts.report(&a, &report(&id, Acknowledged), "", 12).unwrap_err();
    assert_eq!(phase(rollouts, &id), Phase::Running);
}

fn pauses_and_resumes(_: &dyn Store, rollouts: &dyn RolloutStore) {
    let id = rollouts.create(&order("all", Some(20)), "ana", 10).unwrap().rollout_id;
    let canary = of_wave(rollouts, &id, Wave::Canary).remove(0);
    for _ in 0..2 {
        assert_eq!(rollouts.command(&id, Command::Pause, "bo", 11).unwrap().phase, Phase::Paused);
    }
    assert_eq!(rollouts.directive(&canary).unwrap().unwrap().phase, Phase::Paused, "the node sees it");
    // What was under way is said all the same, and the rest waits.
    activate(rollouts, &id, &canary);
    let paused = rollouts.rollout(&id).unwrap();
    assert_eq!((paused.phase, paused.rest.waiting, paused.history.len()), (Phase::Paused, 4, 3));
    for _ in 0..2 {
        let resumed = rollouts.command(&id, Command::Resume, "cy", 12).unwrap();
        assert_eq!((resumed.phase, resumed.rest.pending), (Phase::Running, 4));
    }
    let who: Vec<_> = rollouts.rollout(&id).unwrap().history.into_iter().map(|change| change.who).collect();
    assert_eq!(who, ["ana", "ana", "bo", "cy"]);
    // A canary that fails stops a rollout that is paused as well.
    let id = rollouts.create(&order("all", Some(20)), "ana", 20).unwrap().rollout_id;
    rollouts.command(&id, Command::Pause, "bo", 21).unwrap();
    let canary = of_wave(rollouts, &id, Wave::Canary).remove(0);
    rollouts.report(&canary, &report(&id, RolloutState::Failed), "x", 22).unwrap();
    assert_eq!(phase(rollouts, &id), Phase::Stopped);
}

fn takes_a_rollout_back(store: &dyn Store, rollouts: &dyn RolloutStore) {
    use RolloutState::{Acknowledged, Failed, None, RolledBack};
    let id = rollouts.create(&order("all", Some(80)), "ana", 10).unwrap().rollout_id;
    let canaries = of_wave(rollouts, &id, Wave::Canary);
    let rest = of_wave(rollouts, &id, Wave::Rest).remove(0);
    activate(rollouts, &id, &canaries[0]);
    rollouts.report(&canaries[1], &report(&id, Acknowledged), "x", 11).unwrap();
    rollouts.report(&canaries[2], &report(&id, Failed), "x", 11).unwrap();
    for _ in 0..2 {
        let back = rollouts.command(&id, Command::Rollback, "bo", 12).unwrap();
        assert_eq!((back.phase, back.canary.rolled_back, back.canary.failed), (Phase::RolledBack, 3, 1));
        assert_eq!((back.rest.waiting, back.history.len()), (1, 4));
    }
    for (node, state) in canaries.iter().chain([&rest]).zip([RolledBack, RolledBack, Failed, RolledBack, None]) {
        assert_eq!(state_of(store, node), state, "{node}");
    }
    let late = rollouts.report(&canaries[1], &report(&id, RolloutState::Active), "x", 13).unwrap_err();
    assert!(late.to_string().contains("is `rolled_back` and cannot become `active`"), "{late}");
    // Another rollout is the way out, and one that has ended can be taken back too.
    let id = rollouts.create(&order("rollout_state=rolled_back", Option::None), "ana", 20).unwrap();
    assert_eq!(id.rest.pending, 3);
    let id = id.rollout_id;
    for node in canaries.iter().filter(|node| **node != canaries[2]) {
        activate(rollouts, &id, node);
    }
    assert_eq!(phase(rollouts, &id), Phase::Finished);
    assert_eq!(rollouts.command(&id, Command::Rollback, "bo", 21).unwrap().rest.rolled_back, 3);
}

/// Whatever became of a node that ran the bundle, each way once.
fn takes_back_whoever_may_run_the_bundle(store: &dyn Store, rollouts: &dyn RolloutStore) {
    use RolloutState::{Acknowledged, Active, Failed, None, Pending, RolledBack};
    let a = &node("a");
    // Where the next rollout has come with it, and the one after that; or another enrollment.
    let reaches = |states: &'static [RolloutState]| {
        move || {
            let id = rollouts.create(&order("node_id=a", Option::None), "ana", 20).unwrap().rollout_id;
            for state in states {
                rollouts.report(a, &report(&id, state.clone()), "a", 21).unwrap();
            }
            id
        }
    };
    let waits = || drop(rollouts.create(&order("all", Some(1)), "ana", 20).unwrap());
    let [pending, acknowledged, failed, active] =
        [&[][..], &[Acknowledged], &[Failed], &[Acknowledged, Active]].map(&reaches);
    let enroll = |to: &str| drop(store.enroll(a, &enrollment_ref(to), IfActive::Replace, "ana", 22).unwrap());
    let revoke = || drop(store.revoke(a, "ana", 22).unwrap());
    let back = |id: RolloutId| drop(rollouts.command(&id, Command::Rollback, "bo", 23).unwrap());
    let cases: [(&str, &dyn Fn(), RolloutState); 13] = [
        ("nothing", &|| {}, RolledBack),
        ("waits", &|| waits(), RolledBack),
        ("pending", &|| drop(pending()), RolledBack),
        ("acknowledged", &|| drop(acknowledged()), RolledBack),
        ("failed", &|| drop(failed()), RolledBack),
        ("active", &|| drop(active()), Active),
        ("active, then taken back", &|| back(active()), RolledBack),
        ("active, then pending", &|| [active(), pending()].into_iter().for_each(drop), Pending),
        ("active, then failed", &|| [active(), failed()].into_iter().for_each(drop), Failed),
        ("active, then enrolled again", &|| (drop(active()), revoke(), enroll("fleet/a")).0, None),
        ("revoked", &revoke, RolledBack),
        ("enrolled again", &|| (revoke(), enroll("fleet/a")).0, RolledBack),
        ("enrolled with another ref", &|| enroll("fleet/b"), RolledBack),
    ];
    for (what, then, wanted) in cases {
        for came_to in [&[Acknowledged][..], &[Acknowledged, Active]] {
            enroll("fleet/a");
            // Who was taken back is not what the next case begins with.
            drop(active());
            let first = reaches(came_to)();
            then();
            let before = state_of(store, a);
            for _ in 0..2 {
                rollouts.command(&first, Command::Rollback, "bo", 30).unwrap();
                assert_eq!(state_of(store, a), wanted, "{what}, which was {before}");
                assert_eq!(rollouts.directive_of(a, &first).unwrap().unwrap().state, RolledBack, "{what}");
            }
        }
    }
    // Who was asked and has not even begun has nothing to go back from.
    enroll("fleet/a");
    drop(active());
    let (first, second) = (pending(), pending());
    rollouts.command(&first, Command::Rollback, "bo", 30).unwrap();
    assert_eq!(state_of(store, a), Pending);
    assert_eq!(rollouts.rollout(&first).unwrap().rest.withdrawn, 1);
    assert_eq!(rollouts.directive_of(&node("b"), &second).unwrap(), Option::None);
    history_replays_to_the_row(store, a);
}

fn lifts_what_was_taken_back_by_another_bundle_alone(store: &dyn Store, rollouts: &dyn RolloutStore) {
    use RolloutState::{Acknowledged, Active, Failed, None, Pending, RolledBack};
    let a = node("a");
    let (is, revision) = (|| state_of(store, &a), || store.revision().unwrap());
    let first = rollouts.create(&order("all", Option::None), "ana", 10).unwrap().rollout_id;
    activate(rollouts, &first, &a);
    rollouts.command(&first, Command::Rollback, "bo", 11).unwrap();
    for came_to in [&[][..], &[Acknowledged], &[Failed], &[Acknowledged, Failed]] {
        let before = revision();
        let id = rollouts.create(&order("rollout_state=rolled_back", Option::None), "ana", 12).unwrap().rollout_id;
        assert!(revision() > before && is() == RolledBack, "it is told, and not let go");
        for state in came_to {
            rollouts.report(&a, &report(&id, state.clone()), "a", 13).unwrap();
            assert_eq!(is(), RolledBack);
        }
    }
    store.revoke(&a, "ana", 14).unwrap();
    for to in ["fleet/a", "fleet/b"] {
        store.enroll(&a, &enrollment_ref(to), IfActive::Replace, "ana", 15).unwrap();
        assert_eq!(is(), RolledBack);
    }
    // By hand it is lifted, and by a bundle that runs.
    store.set_rollout(&a, &None, "ana", 16).unwrap();
    let id = rollouts.create(&order("node_id=a", Option::None), "ana", 17).unwrap().rollout_id;
    assert_eq!(is(), Pending);
    rollouts.command(&id, Command::Rollback, "bo", 18).unwrap();
    let id = rollouts.create(&order("node_id=a", Option::None), "ana", 19).unwrap().rollout_id;
    activate(rollouts, &id, &a);
    assert_eq!(is(), Active);
}

fn chooses_active_nodes_alone(store: &dyn Store, rollouts: &dyn RolloutStore) {
    store.revoke(&node("c"), "ana", 10).unwrap();
    store.enroll(&node("d"), &enrollment_ref("fleet/d"), IfActive::Replace, "ana", 10).unwrap();
    store.set_rollout(&node("e"), &RolloutState::Failed, "ana", 10).unwrap();
    for (selector, chosen) in [
        ("all", &["a", "b", "d", "e"][..]),
        ("node_id=b,a", &["a", "b"]),
        ("enrollment_ref=fleet/d", &["d"]),
        ("rollout_state=failed", &["e"]),
    ] {
        // Chosen and looked at, without a change of what is chosen next.
        let id = rollouts.create(&order(selector, None), "ana", 11).unwrap().rollout_id;
        let nodes = of_wave(rollouts, &id, Wave::Rest);
        assert_eq!(nodes, chosen.iter().map(|id| node(id)).collect::<Vec<_>>(), "{selector}");
        store.set_rollout(&node("e"), &RolloutState::Failed, "ana", 12).unwrap();
    }
    let latest = rollouts.latest(None, 1).unwrap();
    for (selector, why) in [
        ("node_id=a,c", "node `c` is revoked: enroll it again, or leave it out"),
        ("node_id=a,x", "node `x` is not enrolled: see `autonomy node list` for those that are"),
        ("enrollment_ref=fleet/x", "no active node is selected by `enrollment_ref=fleet/x`: see `autonomy node list`"),
    ] {
        assert_eq!(rollouts.create(&order(selector, None), "ana", 13).unwrap_err().to_string(), why);
    }
    assert_eq!(rollouts.latest(None, 1).unwrap(), latest, "nothing of them is there");
    store.set_rollout(&node("e"), &RolloutState::Pending, "ana", 14).unwrap();
}

fn lets_the_latest_rollout_count(_: &dyn Store, rollouts: &dyn RolloutStore) {
    let first = rollouts.create(&order("all", Some(40)), "ana", 10).unwrap().rollout_id;
    let (canaries, rest) = (of_wave(rollouts, &first, Wave::Canary), of_wave(rollouts, &first, Wave::Rest));
    activate(rollouts, &first, &canaries[0]);
    // One canary less to wait for, and the rest has its turn.
    let second = rollouts.create(&order(&format!("node_id={}", canaries[1]), None), "ana", 11).unwrap().rollout_id;
    go_on(rollouts);
    let left = rollouts.rollout(&first).unwrap();
    assert_eq!((left.canary.active, left.canary.withdrawn, left.rest.pending), (1, 1, 3));
    let current = rollouts.directive(&canaries[1]).unwrap().unwrap();
    assert_eq!((&current.rollout_id, current.is_current), (&second, true));
    let late = rollouts.report(&canaries[1], &report(&first, RolloutState::Acknowledged), "x", 12).unwrap_err();
    assert_eq!(
        late.to_string(),
        format!("the directive of node `{}` is of rollout `{second}`, not of `{first}`: ask for it again", canaries[1])
    );
    let old = rollouts.directives(&first, None, 100).unwrap();
    assert!(old.iter().all(|directive| directive.is_current == (directive.node_id != canaries[1])));
    // Taking the first one back leaves alone whom the second one has, and who never came to run it.
    rollouts.command(&first, Command::Rollback, "bo", 13).unwrap();
    assert_eq!(rollouts.directive(&canaries[1]).unwrap().unwrap().state, RolloutState::Pending);
    assert_eq!(rollouts.directive(&rest[0]).unwrap().unwrap().state, RolloutState::RolledBack);
    // A rollout whose nodes are all with another has nothing left to do.
    let third = rollouts.create(&order("all", None), "ana", 14).unwrap().rollout_id;
    go_on(rollouts);
    assert_eq!(phase(rollouts, &second), Phase::Finished);
    assert_eq!(phase(rollouts, &third), Phase::Running);
    // Where every canary went to another, nobody has shown that it works.
    let fourth = rollouts.create(&order("all", Some(20)), "ana", 15).unwrap().rollout_id;
    let canary = of_wave(rollouts, &fourth, Wave::Canary).remove(0);
    rollouts.create(&order(&format!("node_id={canary}"), None), "ana", 16).unwrap();
    go_on(rollouts);
    let stopped = rollouts.rollout(&fourth).unwrap();
    assert_eq!(stopped.history.last().unwrap().detail.as_deref(), Some("no canary is left"));
}

fn lets_an_enrollment_end_a_directive(store: &dyn Store, rollouts: &dyn RolloutStore) {
    let id = rollouts.create(&order("node_id=a,b,c", None), "ana", 10).unwrap().rollout_id;
    activate(rollouts, &id, &node("c"));
    store.revoke(&node("a"), "ana", 11).unwrap();
    assert_eq!(rollouts.directive(&node("a")).unwrap(), None);
    let refused = rollouts.report(&node("a"), &report(&id, RolloutState::Acknowledged), "a", 12).unwrap_err();
    assert_eq!(refused.to_string(), "node `a` has no directive: create a rollout for it");
    store.enroll(&node("a"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 13).unwrap();
    assert_eq!(rollouts.directive(&node("a")).unwrap(), None, "a new enrollment starts without one");
    assert_eq!(phase(rollouts, &id), Phase::Running);
    store.enroll(&node("b"), &enrollment_ref("fleet/b"), IfActive::Replace, "ana", 14).unwrap();
    go_on(rollouts);
    let ended = rollouts.rollout(&id).unwrap();
    assert_eq!((ended.phase, ended.rest.withdrawn, ended.rest.active), (Phase::Finished, 2, 1));
    let back = rollouts.command(&id, Command::Rollback, "ana", 15).unwrap();
    assert_eq!((back.rest.rolled_back, state_of(store, &node("a"))), (1, RolloutState::None));
}

/// A rollout of an orchestrator whose clock is ahead, as a shell writes it down.
pub(in crate::enrollment) const AHEAD: &str = "ffffffff-ffff-7fff-bfff-ffffffffffff";

/// `insert` writes [`AHEAD`] down.
pub(in crate::enrollment) fn lists_in_the_order_of_their_beginning(rollouts: &dyn RolloutStore, insert: impl FnOnce()) {
    let create = || rollouts.create(&order("all", None), "ana", 10).unwrap().rollout_id;
    let first = create();
    insert();
    let last = create();
    let ids = |before, limit| {
        let page = rollouts.latest(before, limit).unwrap().into_iter();
        page.map(|rollout| rollout.rollout_id).collect::<Vec<_>>()
    };
    let ahead = RolloutId::parse(AHEAD).unwrap();
    assert_eq!(ids(None, 1), slice::from_ref(&last));
    assert_eq!(ids(None, 9), [last.clone(), ahead.clone(), first.clone()]);
    assert_eq!(ids(Some(&last), 9), [ahead.clone(), first.clone()]);
    assert_eq!(ids(Some(&ahead), 9), slice::from_ref(&first));
    assert_eq!(ids(Some(&first), 9), []);
}

fn lists_in_pages(_: &dyn Store, rollouts: &dyn RolloutStore) {
    let ids: Vec<_> = (0..7).map(|n| rollouts.create(&order("all", None), "ana", 10 + n).unwrap().rollout_id).collect();
    assert!(ids.is_sorted());
    for limit in [1, 3, 10] {
        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = rollouts.latest(before.as_ref(), limit).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            before = Some(last.rollout_id.clone());
            paged.extend(page.into_iter().map(|rollout| rollout.rollout_id));
        }
        assert!(paged.iter().rev().eq(&ids), "{paged:?}");
        let (mut nodes, mut after) = (Vec::new(), None);
        loop {
            let page = rollouts.directives(&ids[6], after.as_ref(), limit).unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.node_id.clone());
            nodes.extend(page.into_iter().map(|directive| directive.node_id.to_string()));
        }
        assert_eq!(nodes, ["a", "b", "c", "d", "e"]);
    }
}
