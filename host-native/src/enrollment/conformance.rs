//! What every [`Store`] must do. Each store's tests run the whole of it on an empty store.

use std::ops::ControlFlow;

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
};

use super::{Action, Change, Changes, IfActive, Query, Row, Store};

pub(super) fn node(id: &str) -> NodeId {
    NodeId::parse(id).unwrap()
}

pub(super) fn enrollment_ref(text: &str) -> EnrollmentRef {
    EnrollmentRef::parse(text).unwrap()
}

/// Runs the suite. The store must be empty.
pub(super) fn check(store: &dyn Store) {
    starts_empty(store);
    enrolls_once(store);
    looks_up_several(store);
    replaces_only_when_told(store);
    revokes_and_enrolls_again(store);
    refuses_ids_that_differ_only_in_case(store);
    sets_only_known_rollout_states(store);
    refuses_changes_without_author_or_time(store);
    lists_in_pages(store);
    numbers_changes_without_a_gap(store);
    for row in all(store) {
        history_replays_to_the_row(store, &row.enrollment.node_id);
    }
}

/// The history is whole: serials without a gap, each change from where the last one ended, the last one being the row.
pub(super) fn history_replays_to_the_row(store: &dyn Store, node_id: &NodeId) {
    let changes = store.history(node_id, 0, usize::MAX).unwrap();
    let mut state: Option<Enrollment> = None;
    for (index, change) in changes.iter().enumerate() {
        assert_eq!(change.before, state, "{node_id}: {change:?}");
        assert_eq!(change.after.serial, index as u64 + 1, "{node_id}: {change:?}");
        let unchanged = Enrollment { serial: change.after.serial - 1, ..change.after.clone() };
        // A node that was taken back is told of its next directive.
        let tells = change.action == Action::SetRollout && change.after.rollout_state == RolloutState::RolledBack;
        assert!(tells || change.before != Some(unchanged), "{node_id}: a change that changes nothing: {change:?}");
        state = Some(change.after.clone());
    }
    let row = store.get(node_id).unwrap();
    assert_eq!(row.as_ref().map(|row| &row.enrollment), state.as_ref());
    if let Some(row) = row {
        assert_eq!(row.created_at_ms, changes.first().unwrap().at_ms);
        assert_eq!(row.updated_at_ms, changes.last().unwrap().at_ms);
    }
}

pub(super) fn all(store: &dyn Store) -> Vec<Row> {
    store.list(&Query { status: None, after: None, limit: usize::MAX }).unwrap()
}

fn starts_empty(store: &dyn Store) {
    assert_eq!(all(store), []);
    assert_eq!(store.count(None).unwrap(), 0);
    assert_eq!(store.get(&node("a")).unwrap(), None);
    assert_eq!(store.history(&node("a"), 0, 10).unwrap(), []);
    assert_eq!(store.revision().unwrap(), 0);
    assert_eq!(store.changes(0, None, 10).unwrap(), Changes { changes: Vec::new(), cursor: 0 });
}

fn enrolls_once(store: &dyn Store) {
    let made = store.enroll(&node("once"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 10).unwrap();
    let after = Enrollment {
        node_id: node("once"),
        enrollment_ref: enrollment_ref("fleet/a"),
        status: Status::Active,
        rollout_state: RolloutState::None,
        serial: 1,
    };
    assert_eq!(made.row, Row { enrollment: after.clone(), created_at_ms: 10, updated_at_ms: 10 });
    let change = Change { action: Action::Enroll, who: "ana".into(), at_ms: 10, before: None, after };
    assert_eq!(made.change, Some(change.clone()));
    assert_eq!(store.get(&node("once")).unwrap(), Some(made.row.clone()));

    for if_active in [IfActive::Refuse, IfActive::Replace] {
        let again = store.enroll(&node("once"), &enrollment_ref("fleet/a"), if_active, "bo", 20).unwrap();
        assert_eq!((again.row, again.change), (made.row.clone(), None));
    }
    assert_eq!(store.history(&node("once"), 0, 10).unwrap(), [change]);
}

fn looks_up_several(store: &dyn Store) {
    for id in ["several-2", "several-1"] {
        store.enroll(&node(id), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 10).unwrap();
    }
    let found = store.rows(&["several-1", "several-0", "several-2"].map(node)).unwrap();
    let mut found: Vec<_> = found.iter().map(|row| row.enrollment.node_id.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["several-1", "several-2"]);
    assert_eq!(store.rows(&[]).unwrap(), []);
}

fn replaces_only_when_told(store: &dyn Store) {
    let id = node("replaced");
    store.enroll(&id, &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 10).unwrap();
    store.set_rollout(&id, &RolloutState::Failed, "ana", 11).unwrap();
    let refused = store.enroll(&id, &enrollment_ref("fleet/b"), IfActive::Refuse, "ana", 12).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "node `replaced` is active with enrollment ref `fleet/a`, not `fleet/b`: \
         revoke it first, or replace the ref with `--replace`"
    );
    for almost in ["Fleet/a", "fleet/a/", "fleet-a"] {
        store.enroll(&id, &enrollment_ref(almost), IfActive::Refuse, "ana", 12).unwrap_err();
    }
    assert_eq!(store.get(&id).unwrap().unwrap().enrollment.serial, 2);
    let replaced = store.enroll(&id, &enrollment_ref("fleet/b"), IfActive::Replace, "ana", 13).unwrap();
    let change = replaced.change.unwrap();
    assert_eq!(change.action, Action::Replace);
    assert_eq!(change.before.unwrap().enrollment_ref, enrollment_ref("fleet/a"));
    assert_eq!(change.after.enrollment_ref, enrollment_ref("fleet/b"));
    assert_eq!(change.after.rollout_state, RolloutState::None);
    assert_eq!((change.after.serial, replaced.row.created_at_ms, replaced.row.updated_at_ms), (3, 10, 13));
}

fn revokes_and_enrolls_again(store: &dyn Store) {
    let id = node("Revoked.1");
    let unknown = store.revoke(&id, "ana", 10).unwrap_err();
    assert_eq!(unknown.to_string(), "node `Revoked.1` is not enrolled: see `autonomy node list` for those that are");
    store.enroll(&id, &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 10).unwrap();
    let close = store.revoke(&node("revoked.1"), "ana", 11).unwrap_err();
    assert_eq!(close.to_string(), "node `revoked.1` is not enrolled: `Revoked.1` is, did you mean that?");
    store.set_rollout(&id, &RolloutState::Failed, "ana", 12).unwrap();

    let revoked = store.revoke(&id, "bo", 13).unwrap();
    assert_eq!(revoked.change.as_ref().unwrap().action, Action::Revoke);
    assert_eq!((revoked.row.enrollment.status.as_str(), revoked.row.enrollment.serial), ("revoked", 3));
    assert_eq!(revoked.row.enrollment.rollout_state, RolloutState::Failed);
    let again = store.revoke(&id, "bo", 14).unwrap();
    assert_eq!((again.row, again.change), (revoked.row, None));

    let back = store.enroll(&id, &enrollment_ref("fleet/b"), IfActive::Refuse, "ana", 15).unwrap();
    assert_eq!(back.change.unwrap().action, Action::Reenroll);
    let Enrollment { status, rollout_state, serial, enrollment_ref: to, .. } = back.row.enrollment;
    assert_eq!((status, rollout_state, serial), (Status::Active, RolloutState::None, 4));
    assert_eq!(to, enrollment_ref("fleet/b"));
    assert_eq!((back.row.created_at_ms, back.row.updated_at_ms), (10, 15));

    let actions: Vec<Action> = store.history(&id, 0, 10).unwrap().iter().map(|change| change.action).collect();
    assert_eq!(actions, [Action::Enroll, Action::SetRollout, Action::Revoke, Action::Reenroll]);
    let page: Vec<u64> = store.history(&id, 1, 2).unwrap().iter().map(|change| change.after.serial).collect();
    assert_eq!(page, [2, 3]);
}

fn refuses_ids_that_differ_only_in_case(store: &dyn Store) {
    store.enroll(&node("Case-1"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 10).unwrap();
    for if_active in [IfActive::Refuse, IfActive::Replace] {
        let refused = store.enroll(&node("cASE-1"), &enrollment_ref("fleet/a"), if_active, "ana", 11).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "node id `cASE-1` differs only in case from the enrolled `Case-1`: use `Case-1`, or choose another id"
        );
    }
    assert_eq!(store.get(&node("case-1")).unwrap(), None);
    // Revoking does not free the name: its history is still there.
    store.revoke(&node("Case-1"), "ana", 12).unwrap();
    store.enroll(&node("case-1"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 13).unwrap_err();
}

fn sets_only_known_rollout_states(store: &dyn Store) {
    let id = node("rollout");
    let unknown = store.set_rollout(&id, &RolloutState::Pending, "ana", 10).unwrap_err();
    assert_eq!(unknown.class(), crate::ErrorClass::Usage);
    store.enroll(&id, &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 10).unwrap();
    // Backwards, so that each state is a change.
    for (serial, state) in (2..).zip(RolloutState::KNOWN.iter().rev()) {
        let set = store.set_rollout(&id, state, "ana", serial).unwrap();
        assert_eq!(set.change.unwrap().action, Action::SetRollout);
        assert_eq!((&set.row.enrollment.rollout_state, set.row.enrollment.serial), (state, serial));
        let again = store.set_rollout(&id, state, "ana", 99).unwrap();
        assert_eq!((again.row, again.change), (set.row, None));
    }
    for word in ["", "Active", "active ", "healthy", "\n"] {
        let refused = store.set_rollout(&id, &RolloutState::from_word(word), "ana", 20).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "rollout state `{}` is not known: use one of `<none>`, `pending`, `acknowledged`, `active`, \
                 `rolled_back`, `failed`",
                word.escape_debug()
            )
        );
    }
    // A late report about a revoked node is kept, and changes nothing that decides.
    store.revoke(&id, "ana", 21).unwrap();
    let late = store.set_rollout(&id, &RolloutState::Active, "ana", 22).unwrap();
    assert_eq!(late.row.enrollment.status, Status::Revoked);
}

fn refuses_changes_without_author_or_time(store: &dyn Store) {
    let id = node("authored");
    for who in ["", "a\nb", &"x".repeat(257)] {
        let refused = store.enroll(&id, &enrollment_ref("fleet/a"), IfActive::Refuse, who, 10).unwrap_err();
        assert!(refused.to_string().starts_with("who makes the change, `"), "{refused}");
        assert!(!refused.to_string().contains('\n'), "{refused}");
    }
    let refused = store.enroll(&id, &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", u64::MAX).unwrap_err();
    assert!(refused.to_string().ends_with("is out of range: give milliseconds since the Unix epoch"), "{refused}");
    assert_eq!(store.get(&id).unwrap(), None);
}

fn lists_in_pages(store: &dyn Store) {
    for (index, id) in ["page-1", "page-10", "page-2", "Page-0", "_page", "-page"].iter().enumerate() {
        store.enroll(&node(id), &enrollment_ref("fleet/p"), IfActive::Refuse, "ana", 10).unwrap();
        if index % 2 == 0 {
            store.revoke(&node(id), "ana", 11).unwrap();
        }
    }
    let rows = all(store);
    assert!(rows.is_sorted_by(|a, b| a.enrollment.node_id < b.enrollment.node_id));
    for status in [None, Some(Status::Active), Some(Status::Revoked), Some(Status::from_word("lost"))] {
        let wanted: Vec<&Row> =
            rows.iter().filter(|row| status.as_ref().is_none_or(|status| row.enrollment.status == *status)).collect();
        assert_eq!(store.count(status.as_ref()).unwrap(), wanted.len() as u64);
        for limit in [1, 2, 3, 100] {
            let mut paged = Vec::new();
            let mut after = None;
            loop {
                let page = store.list(&Query { status: status.clone(), after: after.clone(), limit }).unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some(last.enrollment.node_id.clone());
                paged.extend(page);
            }
            assert_eq!(paged.iter().collect::<Vec<_>>(), wanted, "{status:?} {limit}");
        }
    }
    assert_eq!(store.list(&Query { status: None, after: None, limit: 0 }).unwrap(), []);

    let mut seen = Vec::new();
    store
        .for_each(&mut |enrollment| {
            seen.push(enrollment);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, rows.into_iter().map(|row| row.enrollment).collect::<Vec<_>>());
    let mut visits = 0;
    store
        .for_each(&mut |_| {
            visits += 1;
            if visits == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(visits, 3);
}

/// Every change of the suite, in pages, and each node's alone.
fn numbers_changes_without_a_gap(store: &dyn Store) {
    let latest = store.revision().unwrap();
    let nothing = store.enroll(&node("once"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 90).unwrap();
    assert_eq!((nothing.change, store.revision().unwrap()), (None, latest), "nothing changed");
    let whole = store.changes(0, None, usize::MAX).unwrap();
    assert_eq!(whole.cursor, latest);
    assert!(whole.changes.iter().map(|revised| revised.revision).eq(1..=latest));
    for limit in [1, 7] {
        let (mut paged, mut after) = (Vec::new(), 0);
        loop {
            let Changes { changes, cursor } = store.changes(after, None, limit).unwrap();
            assert!(changes.len() <= limit);
            if changes.is_empty() {
                assert_eq!(cursor, latest);
                break;
            }
            paged.extend(changes);
            after = cursor;
        }
        assert_eq!(paged, whole.changes);
    }
    for row in all(store) {
        let id = row.enrollment.node_id;
        let of_node = store.changes(0, Some(&id), usize::MAX).unwrap();
        assert_eq!(of_node.cursor, latest, "as far as anybody's");
        let changes: Vec<_> = of_node.changes.into_iter().map(|revised| revised.change).collect();
        assert_eq!(changes, store.history(&id, 0, usize::MAX).unwrap());
    }
    assert_eq!(store.changes(latest, None, 10).unwrap(), Changes { changes: Vec::new(), cursor: latest });
    store.revoke(&node("once"), "ana", 91).unwrap();
    let Changes { changes, cursor } = store.changes(latest, None, 10).unwrap();
    assert_eq!((changes.len(), cursor, store.revision().unwrap()), (1, latest + 1, latest + 1));
    assert_eq!(changes[0].change.action, Action::Revoke);
}

/// A row in SQL: node id, enrollment ref, status, rollout state, serial. `schema` stands before the table's name.
pub(super) fn insert(schema: &str, [id, to, status, state, serial]: [&str; 5]) -> String {
    format!("INSERT INTO {schema}enrollment VALUES ('{id}', '{to}', '{status}', '{state}', {serial}, 1, 1)")
}

/// As odd as a row may be.
pub(super) const ODD: [&str; 5] = ["a.B_c-9", "!~[]^-", "active", "<none>", "1"];

/// What every schema refuses itself, where node `n` is enrolled: whoever changes a database by hand keeps the rules, too.
pub(super) fn refused_by_the_schema(schema: &str) -> Vec<String> {
    let (long_id, long_ref) = ("x".repeat(129), "r".repeat(257));
    let rows = [
        ["", "r", "active", "<none>", "1"],
        [".x", "r", "active", "<none>", "1"],
        ["a b", "r", "active", "<none>", "1"],
        ["x\n", "r", "active", "<none>", "1"],
        ["é", "r", "active", "<none>", "1"],
        [&long_id, "r", "active", "<none>", "1"],
        ["N", "r", "active", "<none>", "1"],
        ["x", "", "active", "<none>", "1"],
        ["x", "a b", "active", "<none>", "1"],
        ["x", &long_ref, "active", "<none>", "1"],
        ["x", "r", "Active", "<none>", "1"],
        ["x", "r", "active", "none", "1"],
        ["x", "r", "active", "<none>", "0"],
    ];
    let changes = [
        format!("UPDATE {schema}enrollment SET status = 'revoked'"),
        format!("DELETE FROM {schema}enrollment"),
        format!("DELETE FROM {schema}history"),
        format!("UPDATE {schema}history SET who = 'nobody'"),
    ];
    rows.map(|row| insert(schema, row)).into_iter().chain(changes).collect()
}
