use std::{cell::Cell, fs};

use rusqlite::Connection;

use super::{
    conformance::{self, bundle},
    steps::Steps,
    *,
};
use crate::enrollment::{
    IfActive, SqliteStore, Store,
    conformance::{enrollment_ref, node},
    request::By,
};

#[test]
fn a_directive_goes_from_each_state_to_those_that_follow_and_to_no_other() {
    use RolloutState::{Acknowledged, Active, Failed, None, Pending, RolledBack};
    let unknown = RolloutState::from_word("lost");
    let states = [None, Pending, Acknowledged, Active, RolledBack, Failed, unknown];
    assert!(RolloutState::KNOWN.iter().all(|state| states.contains(state)));
    // A row for each state, a column for what it would become, in the order above.
    #[rustfmt::skip]
    let table = [
        //             none pending ack active back failed unknown
        /* none    */ [ 0,   1,     0,   0,    0,   0,     0],
        /* pending */ [ 0,   0,     1,   0,    1,   1,     0],
        /* ack     */ [ 0,   0,     0,   1,    1,   1,     0],
        /* active  */ [ 0,   0,     0,   0,    1,   0,     0],
        /* back    */ [ 0,   0,     0,   0,    0,   0,     0],
        /* failed  */ [ 0,   0,     0,   0,    0,   0,     0],
        /* unknown */ [ 0,   0,     0,   0,    0,   0,     0],
    ];
    for (from, row) in states.iter().zip(table) {
        for (to, legal) in states.iter().zip(row) {
            assert_eq!(may_become(from, to), legal == 1, "{from} to {to}");
        }
    }
}

#[test]
fn the_schema_lets_a_directive_go_on_as_the_store_does() {
    let (dir, states) = (tempfile::tempdir().unwrap(), RolloutState::KNOWN);
    for from in states {
        for to in states.iter().filter(|to| *to != from) {
            let path = dir.path().join("enrollment.db");
            let store = SqliteStore::open(&path).unwrap();
            store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
            store.create(&Order { bundle: bundle(), selector: Selector::All, canary_percent: None }, "ana", 2).unwrap();
            let shell = Connection::open(&path).unwrap();
            let set = |state: &RolloutState| shell.execute("UPDATE directive SET state = ?1", [state.as_str()]);
            shell.execute_batch("DROP TRIGGER directive_goes_on").unwrap();
            set(from).unwrap();
            let schema = include_str!("../schema/2.sql");
            let trigger = schema.split("CREATE TRIGGER ").find(|text| text.starts_with("directive_goes_on")).unwrap();
            shell.execute_batch(&format!("CREATE TRIGGER {trigger}")).unwrap();
            assert_eq!(set(to).is_ok(), may_become(from, to), "{from} to {to}");
            drop((shell, store));
            fs::read_dir(dir.path()).unwrap().for_each(|file| fs::remove_file(file.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn the_schema_lets_a_rollout_go_on_as_the_store_does_and_its_directives_begin_by_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enrollment.db");
    let store = SqliteStore::open(&path).unwrap();
    for id in ["n", "m"] {
        store.enroll(&node(id), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
    }
    let selector = Selector::Nodes([node("n")].into());
    store.create(&Order { bundle: bundle(), selector, canary_percent: None }, "ana", 2).unwrap();
    let shell = Connection::open(&path).unwrap();
    let schema = include_str!("../schema/4.sql");
    let trigger = schema.split("CREATE TRIGGER ").find(|text| text.starts_with("rollout_goes_on")).unwrap();
    let set = |phase: Phase| shell.execute("UPDATE rollout SET phase = ?1", [phase.as_str()]);
    for &from in Phase::ALL {
        for &to in Phase::ALL.iter().filter(|to| **to != from) {
            shell.execute_batch("DROP TRIGGER rollout_goes_on").unwrap();
            set(from).unwrap();
            shell.execute_batch(&format!("CREATE TRIGGER {trigger}")).unwrap();
            assert_eq!(set(to).is_ok(), conformance::may_follow(from, to), "{from} to {to}");
        }
    }
    for state in RolloutState::KNOWN {
        shell.execute_batch("BEGIN").unwrap();
        let sql = "INSERT INTO directive SELECT rollout_id, 'm', 'rest', ?1, NULL, 1, 1 FROM rollout";
        assert_eq!(shell.execute(sql, [state.as_str()]).is_ok(), *state == RolloutState::None, "{state}");
        shell.execute_batch("ROLLBACK").unwrap();
    }
}

#[test]
fn the_schema_keeps_what_was_ordered_and_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enrollment.db");
    let store = SqliteStore::open(&path).unwrap();
    store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
    store.revoke(&node("n"), "ana", 2).unwrap();
    store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 3).unwrap();
    let order = Order { bundle: bundle(), selector: Selector::All, canary_percent: None };
    store.create(&order, "ana", 4).unwrap();
    let shell = Connection::open(&path).unwrap();
    let dump = || -> Vec<String> {
        let tables = ["enrollment", "history", "rollout", "rollout_history", "directive"];
        let rows = tables.map(|table| {
            let columns: Vec<String> = shell
                .prepare("SELECT name FROM pragma_table_info(?1)")
                .unwrap()
                .query_map([table], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let sql = format!("SELECT coalesce(group_concat(json_array({})), '') FROM {table}", columns.join(", "));
            shell.query_row(&sql, [], |row| row.get(0)).unwrap()
        });
        rows.into()
    };
    let before = dump();
    let another = RolloutId::generate();
    for sql in [
        "UPDATE enrollment SET node_id = 'm', serial = 9",
        "UPDATE rollout SET bundle = 'x@sha256:y'",
        "UPDATE rollout SET selector = 'node_id=x'",
        "UPDATE rollout SET canary_percent = 1",
        &format!("UPDATE rollout SET rollout_id = '{another}'"),
        &format!("UPDATE directive SET rollout_id = '{another}'"),
        "UPDATE directive SET node_id = 'm'",
        "UPDATE directive SET wave = 'canary'",
        "REPLACE INTO enrollment VALUES ('n', 'f', 'active', 'pending', 1, 1, 1)",
        "REPLACE INTO enrollment VALUES ('n', 'f', 'active', 'pending', 9, 1, 1)",
        "REPLACE INTO enrollment VALUES ('N', 'f', 'active', 'pending', 9, 1, 1)",
        "REPLACE INTO history SELECT change_id, node_id, serial, action, 'nobody', at_ms, before_ref, before_status, \
             before_rollout_state, after_ref, after_status, after_rollout_state FROM history",
        "REPLACE INTO history SELECT 99, node_id, serial, action, 'nobody', at_ms, before_ref, before_status, \
             before_rollout_state, after_ref, after_status, after_rollout_state FROM history",
        "REPLACE INTO rollout SELECT rollout_id, 'x@sha256:y', selector, canary_percent, phase FROM rollout",
        "REPLACE INTO rollout_history SELECT change_id, rollout_id, phase, detail, 'nobody', at_ms FROM rollout_history",
        "REPLACE INTO directive SELECT rollout_id, node_id, wave, '<none>', NULL, 1, 1 FROM directive",
        &format!("REPLACE INTO directive VALUES ('{another}', 'n', 'rest', '<none>', NULL, 1, 1)"),
    ] {
        shell.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        shell.execute_batch(sql).expect_err(sql);
        assert_eq!(dump(), before, "{sql}");
    }
    // What the store does itself goes on.
    store.revoke(&node("n"), "ana", 5).unwrap();
    store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 6).unwrap();
    assert_eq!(store.create(&order, "ana", 7).unwrap().rest.pending, 1);
}

#[test]
fn a_command_is_taken_in_the_phases_that_allow_it() {
    use Command::{Pause, Resume, Rollback};
    use Phase::{Finished, Paused, RolledBack, Running, Stopped};
    for (command, phases) in [
        (Pause, [Some(Some(Paused)), Some(None), None, None, None]),
        (Resume, [Some(None), Some(Some(Running)), None, None, None]),
        (
            Rollback,
            [
                Some(Some(RolledBack)),
                Some(Some(RolledBack)),
                Some(Some(RolledBack)),
                Some(Some(RolledBack)),
                Some(None),
            ],
        ),
    ] {
        for (phase, wanted) in [Running, Paused, Stopped, Finished, RolledBack].into_iter().zip(phases) {
            assert_eq!(command.applied_to(phase), wanted, "{command} when {phase}");
        }
    }
}

#[test]
fn what_comes_next_follows_from_the_counts() {
    // waiting, pending, acknowledged, active, failed
    let counts = |[waiting, pending, acknowledged, active, failed]: [u64; 5]| Counts {
        waiting,
        pending,
        acknowledged,
        active,
        failed,
        ..Counts::default()
    };
    let next = |phase, canary_percent, canary, rest| {
        let rollout = Rollout {
            rollout_id: RolloutId::generate(),
            bundle: bundle(),
            selector: Selector::All,
            canary_percent,
            phase,
            canary: counts(canary),
            rest: counts(rest),
            history: Vec::new(),
        };
        rollout.next()
    };
    let (failed, none_left) = (Next::Stop("a canary failed"), Next::Stop("no canary is left"));
    let rest_goes_on = Next::GoOn(Wave::Rest);
    for (percent, canary, rest, running, paused) in [
        // Without canaries.
        (None, [0, 0, 0, 0, 0], [9, 0, 0, 0, 0], rest_goes_on, Next::Wait),
        (None, [0, 0, 0, 0, 0], [5, 3, 0, 1, 0], rest_goes_on, Next::Wait),
        (None, [0, 0, 0, 0, 0], [0, 9, 0, 0, 0], Next::Wait, Next::Wait),
        (None, [0, 0, 0, 0, 0], [0, 0, 1, 7, 1], Next::Wait, Next::Wait),
        (None, [0, 0, 0, 0, 0], [0, 0, 0, 8, 1], Next::Finish, Next::Wait),
        (None, [0, 0, 0, 0, 0], [0, 0, 0, 0, 9], Next::Finish, Next::Wait),
        // Canaries that were not asked yet, some of them or all.
        (Some(10), [2, 0, 0, 0, 0], [9, 0, 0, 0, 0], Next::GoOn(Wave::Canary), Next::Wait),
        (Some(10), [1, 0, 1, 1, 0], [9, 0, 0, 0, 0], Next::GoOn(Wave::Canary), Next::Wait),
        (Some(10), [1, 0, 0, 0, 1], [9, 0, 0, 0, 0], failed, failed),
        // Canaries under way.
        (Some(10), [0, 2, 0, 0, 0], [9, 0, 0, 0, 0], Next::Wait, Next::Wait),
        (Some(10), [0, 0, 1, 1, 0], [9, 0, 0, 0, 0], Next::Wait, Next::Wait),
        // One of them failed: at once, whatever the others do.
        (Some(10), [0, 1, 0, 0, 1], [9, 0, 0, 0, 0], failed, failed),
        (Some(10), [0, 0, 0, 1, 1], [9, 0, 0, 0, 0], failed, failed),
        (Some(100), [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], failed, failed),
        // All of them active.
        (Some(10), [0, 0, 0, 2, 0], [9, 0, 0, 0, 0], rest_goes_on, Next::Wait),
        (Some(10), [0, 0, 0, 2, 0], [0, 9, 0, 0, 0], Next::Wait, Next::Wait),
        (Some(10), [0, 0, 0, 2, 0], [0, 0, 0, 8, 1], Next::Finish, Next::Wait),
        (Some(100), [0, 0, 0, 2, 0], [0, 0, 0, 0, 0], Next::Finish, Next::Wait),
        // All of them were withdrawn: nobody has shown that it works.
        (Some(10), [0, 0, 0, 0, 0], [9, 0, 0, 0, 0], none_left, Next::Wait),
        (Some(10), [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], Next::Finish, Next::Wait),
    ] {
        assert_eq!(next(Phase::Running, percent, canary, rest), running, "running: {percent:?} {canary:?} {rest:?}");
        assert_eq!(next(Phase::Paused, percent, canary, rest), paused, "paused: {percent:?} {canary:?} {rest:?}");
        for (ended, wanted) in
            [(Phase::Stopped, Next::Wait), (Phase::Finished, Next::Wait), (Phase::RolledBack, Next::TakeBack)]
        {
            assert_eq!(next(ended, percent, canary, rest), wanted, "{ended}: {percent:?} {canary:?} {rest:?}");
        }
    }
}

#[test]
fn canaries_are_drawn_anew_for_each_rollout_and_are_at_least_one() {
    let nodes: Vec<_> = (0..40).map(|n| node(&format!("n{n}"))).collect();
    let id = RolloutId::generate();
    for (percent, count) in [(1, 1), (2, 1), (3, 2), (10, 4), (50, 20), (99, 40), (100, 40)] {
        let drawn = canaries(&id, &nodes, percent);
        assert_eq!(drawn.len(), count, "{percent} %");
        assert_eq!(drawn, canaries(&id, &nodes, percent));
        assert!(canaries(&id, &nodes, 1).is_subset(&drawn), "more are the same ones and others");
    }
    assert_eq!(canaries(&id, &nodes[..1], 1).len(), 1);
    let firsts: BTreeSet<_> = (0..20).map(|_| canaries(&RolloutId::generate(), &nodes, 1)).collect();
    assert!(firsts.len() > 5, "not always the same node: {firsts:?}");
}

#[test]
fn ids_and_selectors_are_read_as_they_are_written() {
    let id = RolloutId::generate();
    assert_eq!(RolloutId::parse(id.as_str()).unwrap(), id);
    for text in ["", "x", &id.as_str().to_uppercase(), &id.as_str().replace('-', ""), &format!("{id} ")] {
        let error = RolloutId::parse(text).unwrap_err().to_string();
        assert_eq!(error, format!("rollout id `{text}` is no UUID: see `autonomy rollout list`"));
    }
    for text in ["all", "node_id=a,b", "enrollment_ref=a=b,c", "rollout_state=<none>", "rollout_state=failed"] {
        assert_eq!(Selector::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Selector::parse("node_id=b,a,b").unwrap().to_string(), "node_id=a,b");
    for (text, why) in [
        ("", "it selects by nothing that nodes have"),
        ("All", "it selects by nothing that nodes have"),
        ("label=a", "it selects by nothing that nodes have"),
        ("rollout_state=Failed", "no such rollout state"),
        ("node_id=", "node id"),
        ("node_id=a,", "node id"),
        ("enrollment_ref=a b", "enrollment ref"),
    ] {
        let error = Selector::parse(text).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(": use `all`, `node_id=<id>,…`"), "{text}: {error}");
    }
}

/// A store before each transaction of which something happens.
struct Before<'a> {
    store: &'a SqliteStore,
    each: &'a dyn Fn() -> Result<(), StoreError>,
}

impl Steps for Before<'_> {
    type Fault = <SqliteStore as Steps>::Fault;
    type Ledger<'a> = <SqliteStore as Steps>::Ledger<'a>;

    fn step<T>(
        &self,
        work: impl AsyncFnOnce(&mut Self::Ledger<'_>) -> Result<T, Self::Fault>,
    ) -> Result<T, StoreError> {
        (self.each)()?;
        self.store.step(work)
    }
}

/// Whoever does something breaks off after each of its transactions in turn, and somebody else goes on.
#[test]
fn wherever_a_step_for_many_nodes_breaks_off_another_goes_on() {
    use RolloutState::{Acknowledged, Active, None, RolledBack};
    let by = By::new("ana", 10).unwrap();
    let (dir, nodes) = (tempfile::tempdir().unwrap(), ["a", "b", "c", "d", "e", "f", "g"].map(node));
    let new = || {
        let store = SqliteStore::open(dir.path().join(format!("{}.db", RolloutId::generate()))).unwrap();
        for node in &nodes {
            store.enroll(node, &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
        }
        store
    };
    // So many transactions are left, and each after them fails.
    let left = Cell::new(0_usize);
    let each = || {
        left.set(left.get().checked_sub(1).ok_or_else(|| StoreError::Locked { path: "a test".into() })?);
        Ok(())
    };
    let states =
        |store: &SqliteStore| nodes.each_ref().map(|node| store.get(node).unwrap().unwrap().enrollment.rollout_state);
    let order = |canary_percent| Order { bundle: bundle(), selector: Selector::All, canary_percent };
    let reports = |store: &SqliteStore, id: &RolloutId, node: &NodeId| {
        for state in [Acknowledged, Active] {
            let report = Report { rollout_id: id.clone(), state, detail: Option::None };
            store.report(node, &report, "x", 11).unwrap();
        }
    };
    let phase = |store: &SqliteStore, id: &RolloutId| store.rollout(id).unwrap().phase;

    // A rollout is created.
    for nth in 0.. {
        let store = &new();
        left.set(nth);
        let created = steps::create(&Before { store, each: &each }, &order(Option::None), by);
        let Some(begun) = store.latest(Option::None, 1).unwrap().pop() else {
            assert_eq!((nth, states(store)), (0, nodes.each_ref().map(|_| None)));
            continue;
        };
        let id = begun.rollout_id;
        if begun.phase == Phase::Paused {
            assert_eq!(states(store), nodes.each_ref().map(|_| None), "{nth}: nobody is asked for anything");
        }
        // Those that were chosen go on, or all of them with another.
        store.command(&id, Command::Resume, "bo", 12).unwrap();
        let chosen = store.rollout(&id).unwrap().rest;
        assert_eq!(chosen, Counts { pending: chosen.total(), ..Counts::default() }, "{nth}");
        assert_eq!(chosen.total(), 7.min(2 * nth as u64));
        let again = store.create(&order(Option::None), "bo", 13).unwrap();
        while store.go_on("orchestrator", 14).unwrap() {}
        assert_eq!((again.rest.pending, phase(store, &id)), (7, Phase::Finished));
        if created.is_ok() {
            assert!(nth > 8, "{nth}");
            break;
        }
    }

    // The last canary is active, and the rest has its turn; a rollout is taken back.
    let mut before = 8;
    for nth in 1.. {
        let store = &new();
        let failing = Before { store, each: &each };
        let id = store.create(&order(Some(1)), "ana", 10).unwrap().rollout_id;
        let canary = nodes.iter().find(|node| store.directive(node).unwrap().unwrap().wave == Wave::Canary).unwrap();
        reports(store, &id, canary);
        assert_eq!(store.rollout(&id).unwrap().rest.waiting, 4, "those of the transaction in which it was said");
        // Whom others have to wait for is not kept waiting.
        left.set(nth);
        while steps::go_on(&failing, by).unwrap_or(false) {}
        assert_eq!(store.rollout(&id).unwrap().rest.waiting, 4u64.saturating_sub(2 * (nth as u64 / 2)), "{nth}");
        while store.go_on("orchestrator", 12).unwrap() {}
        assert_eq!(store.rollout(&id).unwrap().rest.waiting, 0, "{nth}");

        left.set(nth);
        let back = steps::command(&failing, &id, Command::Rollback, by);
        assert_eq!(phase(store, &id), Phase::RolledBack, "{nth}");
        let left = states(store).iter().filter(|state| **state != RolledBack).count();
        assert!(left < before || left == 0, "{nth}: {left}");
        before = left;
        while store.go_on("orchestrator", 14).unwrap() {}
        assert_eq!(states(store), nodes.each_ref().map(|_| RolledBack), "{nth}");
        if back.is_ok() {
            assert!(nth > 4, "{nth}");
            break;
        }
    }
}

#[test]
fn the_rest_goes_on_when_the_last_canary_is_revoked_and_waits_while_it_is_paused() {
    let (dir, nodes) = (tempfile::tempdir().unwrap(), ["a", "b", "c", "d", "e", "f", "g"].map(node));
    let store = SqliteStore::open(dir.path().join("enrollment.db")).unwrap();
    for node in &nodes {
        store.enroll(node, &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
    }
    let order = Order { bundle: bundle(), selector: Selector::All, canary_percent: Some(20) };
    let id = store.create(&order, "ana", 10).unwrap().rollout_id;
    let mut canaries = nodes.iter().filter(|node| store.directive(node).unwrap().unwrap().wave == Wave::Canary);
    let (first, last) = (canaries.next().unwrap(), canaries.next().unwrap());
    for state in [RolloutState::Acknowledged, RolloutState::Active] {
        store.report(first, &Report { rollout_id: id.clone(), state, detail: None }, "x", 11).unwrap();
    }
    assert!(!store.go_on("orchestrator", 12).unwrap(), "one canary is still waited for");
    store.revoke(last, "bo", 13).unwrap();
    let waiting = || store.rollout(&id).unwrap().rest.waiting;
    assert_eq!(waiting(), 5, "a revoke waits for nothing else");
    store.command(&id, Command::Pause, "bo", 14).unwrap();
    assert!(!store.go_on("orchestrator", 15).unwrap());
    assert_eq!(waiting(), 5);
    store.command(&id, Command::Resume, "bo", 16).unwrap();
    while store.go_on("orchestrator", 17).unwrap() {}
    assert_eq!((waiting(), store.rollout(&id).unwrap().rest.pending), (0, 5));
}

#[test]
fn a_rollout_that_is_damaged_keeps_no_revoke_and_no_other_rollout_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enrollment.db");
    let store = SqliteStore::open(&path).unwrap();
    for node in ["a", "b", "c", "d"].map(node) {
        store.enroll(&node, &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
    }
    let create = |selector: &str| {
        let selector = Selector::parse(selector).unwrap();
        store.create(&Order { bundle: bundle(), selector, canary_percent: None }, "ana", 10).unwrap().rollout_id
    };
    let (damaged, other) = (create("node_id=a,b"), create("node_id=c,d"));
    let sql = format!(
        "DROP TRIGGER rollout_stays_as_ordered; UPDATE rollout SET bundle = 'x@sha256:y' WHERE rollout_id = '{damaged}'"
    );
    Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
    let both = create("node_id=b,c");
    assert_eq!(store.rollout(&both).unwrap().rest.pending, 2, "nor is it in the way of one that takes its nodes");
    for node in ["a", "c", "d"].map(node) {
        store.revoke(&node, "bo", 11).unwrap();
        assert_eq!(store.directive(&node).unwrap(), None);
    }
    let error = store.go_on("orchestrator", 12).unwrap_err().to_string();
    assert!(error.contains("bundle"), "{error}");
    assert_eq!(store.rollout(&other).unwrap().phase, Phase::Finished);
}

#[test]
fn what_others_do_while_nodes_are_chosen_counts() {
    let (dir, nodes) = (tempfile::tempdir().unwrap(), ["a", "b", "c", "d", "e"].map(node));
    let order = Order { bundle: bundle(), selector: Selector::All, canary_percent: None };
    for nth in 2_usize..6 {
        let store = SqliteStore::open(dir.path().join(format!("{nth}.db"))).unwrap();
        for node in &nodes {
            store.enroll(node, &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
        }
        let create = |between: &dyn Fn(&SqliteStore)| {
            let left = Cell::new(nth);
            let each = || {
                if left.replace(left.get().saturating_sub(1)) == 1 {
                    between(&store);
                }
                Ok(())
            };
            let id =
                steps::create(&Before { store: &store, each: &each }, &order, By::new("ana", 10).unwrap()).unwrap();
            while store.go_on("orchestrator", 15).unwrap() {}
            store.rollout(&id).unwrap()
        };
        // Another is created: it is the later one, and has every node.
        let other = Cell::new(None);
        let first = create(&|store| other.set(Some(store.create(&order, "bo", 11).unwrap().rollout_id)));
        let other = store.rollout(&other.take().unwrap()).unwrap();
        assert_eq!((other.phase, other.rest.pending), (Phase::Running, 5), "{nth}");
        let chosen = 5.min(2 * (nth as u64 - 1));
        assert_eq!((first.phase, first.rest.withdrawn, first.rest.total()), (Phase::Finished, chosen, chosen), "{nth}");
        // The last node is revoked: it is not asked, or not any more.
        let revoked = create(&|store| drop(store.revoke(&nodes[4], "bo", 12).unwrap()));
        assert_eq!(revoked.rest.pending, 4, "{nth}");
        assert_eq!(store.directive(&nodes[4]).unwrap(), None, "{nth}");
        store.enroll(&nodes[4], &enrollment_ref("r"), IfActive::Refuse, "ana", 13).unwrap();
        // It is taken back.
        let taken_back = create(&|store| {
            let id = store.latest(None, 1).unwrap().remove(0).rollout_id;
            store.command(&id, Command::Rollback, "bo", 14).unwrap();
        });
        let Counts { pending, acknowledged, active, .. } = taken_back.rest;
        assert_eq!((taken_back.phase, pending + acknowledged + active), (Phase::RolledBack, 0), "{nth}");
    }
}

#[test]
fn sqlite_keeps_rollouts() {
    let dir = tempfile::tempdir().unwrap();
    conformance::check(&|| {
        let path = dir.path().join(format!("{}.db", RolloutId::generate()));
        Box::new(SqliteStore::open(path).unwrap())
    });
}

#[test]
fn the_latest_rollout_is_the_one_that_began_last_whatever_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enrollment.db");
    let store = SqliteStore::open(&path).unwrap();
    store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
    conformance::lists_in_the_order_of_their_beginning(&store, || {
        let sql = format!(
            "INSERT INTO rollout VALUES ('{0}', '{1}', 'all', NULL, 'finished');
             INSERT INTO rollout_history (rollout_id, phase, who, at_ms) VALUES ('{0}', 'finished', 'bo', 1)",
            conformance::AHEAD,
            bundle()
        );
        Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
    });
}

#[test]
fn a_store_opened_for_reading_rolls_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enrollment.db");
    SqliteStore::open(&path).unwrap().enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
    let reader = SqliteStore::open_read_only(&path).unwrap();
    let order = Order { bundle: bundle(), selector: Selector::All, canary_percent: None };
    assert!(matches!(reader.create(&order, "ana", 2).unwrap_err(), StoreError::ReadOnly { .. }));
    assert_eq!(reader.latest(None, 10).unwrap(), []);
}
