use std::{
    collections::BTreeSet,
    fs,
    future::pending,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gate_core::enrollment::{RolloutState, Status};
use tokio::sync::Notify;

use super::{PostgresStore, server::CALL};
use crate::{
    ErrorClass,
    enrollment::{
        IfActive, Query, Store, StoreError,
        conformance::{self, enrollment_ref, history_replays_to_the_row, node},
        rollout::{
            self, Command, Order, Phase, Report, Rollout, RolloutError, RolloutId, RolloutStore as _, Selector,
            may_become,
        },
    },
};

#[allow(dead_code, reason = "its other half is for the tests of the whole")]
#[path = "../../../../tests/all/cluster.rs"]
mod cluster;

use cluster::Cluster;

fn open(cluster: &Cluster) -> PostgresStore {
    PostgresStore::open(&cluster.url("postgres"), None, None).unwrap()
}

fn enroll(store: &PostgresStore, id: &str) -> Result<u64, StoreError> {
    let made = store.enroll(&node(id), &enrollment_ref("r"), IfActive::Refuse, "ana", 1)?;
    Ok(made.row.enrollment.serial)
}

#[test]
fn postgres_conforms_and_another_instance_finds_what_was_written() {
    let cluster = Cluster::start(None, &[]);
    // Whoever comes first makes the schema; the others wait.
    let stores: Vec<_> = thread::scope(|scope| {
        let openers: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&cluster))).collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).collect()
    });
    conformance::check(&stores[0]);
    let rows = conformance::all(&stores[1]);
    assert!(rows.len() > 5);
    for store in [&stores[1], &open(&cluster)] {
        assert_eq!(conformance::all(store), rows);
        assert_eq!(store.changes(0, None, usize::MAX).unwrap(), stores[0].changes(0, None, usize::MAX).unwrap());
        for row in &rows {
            history_replays_to_the_row(store, &row.enrollment.node_id);
        }
    }
    // More than a page of them.
    let many = "INSERT INTO autonomy.enrollment SELECT 'many-' || n, 'r', 'active', '<none>', 1, 1, 1
                FROM generate_series(1, 2500) AS n";
    cluster.psql("postgres", many);
    let mut seen = Vec::new();
    let mut visit = |enrollment| {
        seen.push(enrollment);
        ControlFlow::Continue(())
    };
    stores[0].for_each(&mut visit).unwrap();
    let all: Vec<_> = conformance::all(&stores[0]).into_iter().map(|row| row.enrollment).collect();
    assert_eq!(seen.len(), rows.len() + 2500);
    assert_eq!(seen, all);
}

/// What others commit between its question and its answer is nothing that the server has lost.
#[test]
fn a_connection_that_is_made_while_others_commit_is_not_refused() {
    let cluster = Cluster::start(None, &[]);
    let refused: Vec<_> = (0..20)
        .flat_map(|round| {
            let store = open(&cluster);
            let write = &|writer| enroll(&store, &format!("n-{round}-{writer}"));
            thread::scope(|scope| {
                let writers: Vec<_> = (0..8).map(|writer| scope.spawn(move || write(writer))).collect();
                writers.into_iter().filter_map(|writer| writer.join().unwrap().err()).collect::<Vec<_>>()
            })
        })
        .map(|error| error.to_string())
        // A busy machine may take longer than a call may.
        .filter(|error| error.contains("was seen"))
        .collect();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn postgres_keeps_rollouts() {
    let cluster = Cluster::start(None, &[]);
    rollout::conformance::check(&|| {
        let name = format!("fleet_{}", RolloutId::generate().as_str().replace('-', "_"));
        cluster.psql("postgres", &format!("CREATE DATABASE {name}"));
        Box::new(PostgresStore::open(&cluster.url(&name), None, None).unwrap())
    });
}

#[test]
fn the_latest_rollout_is_the_one_that_began_last_whatever_its_id() {
    let cluster = Cluster::start(None, &[]);
    let store = open(&cluster);
    enroll(&store, "n").unwrap();
    rollout::conformance::lists_in_the_order_of_their_beginning(&store, || {
        let sql = format!(
            "INSERT INTO autonomy.rollout VALUES ('{0}', '{1}', 'all', NULL, 'finished');
             INSERT INTO autonomy.rollout_history (rollout_id, phase, who, at_ms) VALUES ('{0}', 'finished', 'bo', 1)",
            rollout::conformance::AHEAD,
            rollout::conformance::bundle()
        );
        cluster.psql("postgres", &sql);
    });
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date() {
    let cluster = Cluster::start(None, &[]);
    cluster.psql("postgres", include_str!("../schema/postgres/1.sql"));
    let row = "INSERT INTO autonomy.enrollment VALUES ('a', 'r', 'active', 'failed', 7, 1, 1)";
    cluster.psql("postgres", row);
    let store = open(&cluster);
    assert_eq!(cluster.psql("postgres", "SELECT schema_version FROM autonomy.state"), "4");
    assert_eq!(store.create(&everybody(), "ana", 2).unwrap().rest.pending, 1);
    assert_eq!(store.get(&node("a")).unwrap().unwrap().enrollment.serial, 8);
}

fn everybody() -> Order {
    Order { bundle: rollout::conformance::bundle(), selector: Selector::All, canary_percent: None }
}

#[test]
fn the_schema_lets_a_directive_go_on_as_the_store_does_and_keeps_what_was() {
    let cluster = Cluster::start(None, &[]);
    let store = open(&cluster);
    enroll(&store, "n").unwrap();
    store.create(&everybody(), "ana", 2).unwrap();
    let trigger = |what| format!("ALTER TABLE autonomy.directive {what} TRIGGER directive_goes_on");
    let set = |state: &RolloutState| format!("UPDATE autonomy.directive SET state = '{state}'");
    for from in RolloutState::KNOWN {
        for to in RolloutState::KNOWN.iter().filter(|to| *to != from) {
            cluster.psql("postgres", &format!("{}; {}; {}", trigger("DISABLE"), set(from), trigger("ENABLE")));
            assert_eq!(cluster.try_psql("postgres", &set(to)).is_some(), may_become(from, to), "{from} to {to}");
        }
    }
    let trigger = |what| format!("ALTER TABLE autonomy.rollout {what} TRIGGER rollout_goes_on");
    let set = |phase: Phase| format!("UPDATE autonomy.rollout SET phase = '{phase}'");
    for &from in Phase::ALL {
        for &to in Phase::ALL.iter().filter(|to| **to != from) {
            cluster.psql("postgres", &format!("{}; {}; {}", trigger("DISABLE"), set(from), trigger("ENABLE")));
            assert_eq!(cluster.try_psql("postgres", &set(to)).is_some(), rollout::conformance::may_follow(from, to));
        }
    }
    let again = store.create(&everybody(), "ana", 3).unwrap().rollout_id;
    enroll(&store, "m").unwrap();
    for sql in [
        "UPDATE autonomy.directive SET is_current = true",
        "UPDATE autonomy.directive SET state = 'lost'",
        "UPDATE autonomy.directive SET wave = 'canary'",
        "UPDATE autonomy.directive SET node_id = 'm'",
        &format!("UPDATE autonomy.directive SET rollout_id = '{again}'"),
        "UPDATE autonomy.enrollment SET node_id = 'k', serial = 9 WHERE node_id = 'm'",
        "UPDATE autonomy.rollout SET phase = 'lost'",
        "UPDATE autonomy.rollout SET canary_percent = 1",
        "UPDATE autonomy.rollout SET selector = 'node_id=m'",
        &format!("UPDATE autonomy.rollout SET bundle = '{}'", rollout::conformance::bundle()),
        "UPDATE autonomy.rollout_history SET who = 'nobody'",
        "DELETE FROM autonomy.rollout_history",
        "DELETE FROM autonomy.directive",
        "DELETE FROM autonomy.rollout",
        "TRUNCATE autonomy.rollout, autonomy.rollout_history, autonomy.directive",
        &format!("INSERT INTO autonomy.directive VALUES ('{again}', 'x', 'rest', '<none>', NULL, true, 1)"),
        &format!("INSERT INTO autonomy.directive VALUES ('{again}', 'n', 'rest', '<none>', NULL, false, 1)"),
        &format!("INSERT INTO autonomy.directive VALUES ('{again}', 'm', 'rest', 'active', NULL, true, 1)"),
        "INSERT INTO autonomy.rollout_history (rollout_id, phase, who, at_ms) VALUES ('x', 'running', 'ana', 1)",
    ] {
        assert_eq!(cluster.try_psql("postgres", sql), None, "{sql}");
    }
    let into = format!("INSERT INTO autonomy.directive VALUES ('{again}', 'm', 'rest', '<none>', NULL, true, 1)");
    cluster.psql("postgres", &into);
    cluster.psql(
        "postgres",
        "ALTER TABLE autonomy.rollout DISABLE TRIGGER rollout_stays_as_ordered; UPDATE autonomy.rollout SET selector = 'some'",
    );
    let error = store.rollout(&again).unwrap_err().to_string();
    assert!(error.contains("`selector`") && error.contains("is `some` on disk"), "{error}");
}

/// Operators and nodes at two replicas, all at once: each step is made once or refused, and nothing is left in between.
#[test]
fn replicas_that_race_make_each_step_of_a_rollout_once() {
    use RolloutState::{Acknowledged, Active, Failed};
    const ROUNDS: u64 = 24;
    let cluster = Cluster::start(None, &[]);
    let stores = [open(&cluster), open(&cluster)];
    let nodes = ["a", "b", "c", "d"].map(node);
    for id in &nodes {
        enroll(&stores[0], id.as_str()).unwrap();
    }
    let (mut finished, mut rolled_back, mut refused) = (0, 0, 0);
    for round in 0..ROUNDS {
        let order = Order { canary_percent: Some(50), ..everybody() };
        let id = stores[0].create(&order, "ana", round).unwrap().rollout_id;
        let begin = Barrier::new(nodes.len() * 2 + 2);
        let report = |store: &PostgresStore, id_of, state| {
            let report = Report { rollout_id: id.clone(), state, detail: None };
            store.report(id_of, &report, "node", round).map(drop)
        };
        let outcomes: Vec<Result<(), StoreError>> = thread::scope(|scope| {
            // Each node at both replicas, as after an answer that was lost.
            let reports = nodes.iter().flat_map(|id_of| stores.iter().map(move |store| (id_of, store)));
            let reports: Vec<_> = reports
                .map(|(id_of, store)| {
                    let (begin, report) = (&begin, &report);
                    scope.spawn(move || {
                        begin.wait();
                        let last = if round % 8 == 7 { Failed } else { Active };
                        // Until its turn has come, or never does.
                        let mut tries = (0..200).map(|_| report(store, id_of, Acknowledged));
                        let first = tries.find(|tried| !is_early(tried)).unwrap_or(Ok(()));
                        [first, report(store, id_of, last)]
                    })
                })
                .collect();
            let last = if round % 2 == 0 { Command::Resume } else { Command::Rollback };
            let commands = [[Command::Pause, Command::Resume], [Command::Resume, last]];
            let commands: Vec<_> = stores
                .iter()
                .zip(commands)
                .map(|(store, commands)| {
                    let (begin, id) = (&begin, &id);
                    scope.spawn(move || {
                        begin.wait();
                        commands.map(|command| store.command(id, command, "bo", round).map(drop))
                    })
                })
                .collect();
            reports.into_iter().chain(commands).flat_map(|thread| thread.join().unwrap()).collect()
        });
        for outcome in outcomes {
            let Err(error) = outcome else { continue };
            refused += 1;
            let is_rule =
                matches!(&error, StoreError::Rollout(RolloutError::Transition { .. } | RolloutError::Phase { .. }));
            assert!(is_rule, "{error}");
        }
        let Rollout { phase, history, canary, rest, .. } = stores[1].rollout(&id).unwrap();
        finished += u64::from(phase == Phase::Finished);
        rolled_back += u64::from(phase == Phase::RolledBack);
        let phases: Vec<_> = history.iter().map(|change| change.phase).collect();
        assert!(phases.first() == Some(&Phase::Paused) && phases.last() == Some(&phase), "{phases:?}");
        assert!(phases.windows(2).all(|two| two[0] != two[1]), "a step twice: {phases:?}");
        let counts = canary + rest;
        assert_eq!(counts.total(), 4, "{counts:?}");
        if phase == Phase::RolledBack {
            assert_eq!(counts.pending + counts.acknowledged + counts.active, 0, "{counts:?}");
        }
        for directive in stores[0].directives(&id, None, 10).unwrap() {
            let row = stores[1].get(&directive.node_id).unwrap().unwrap();
            let (seen, state) = (row.enrollment.rollout_state, directive.state);
            let is_back = seen == RolloutState::RolledBack && state != Active;
            assert!(seen == state || is_back || state == RolloutState::None, "{}: {seen}, {state}", directive.node_id);
        }
    }
    assert!(finished > 0 && rolled_back > 0 && refused > 0, "{finished}, {rolled_back}, {refused}: nothing raced");
    nodes.iter().for_each(|id| history_replays_to_the_row(&stores[1], id));
    let changes = stores[0].changes(0, None, usize::MAX).unwrap().changes;
    assert!(changes.iter().map(|revised| revised.revision).eq(1..=stores[1].revision().unwrap()));
}

/// Whether a directive waits for the canaries.
fn is_early(reported: &Result<(), StoreError>) -> bool {
    let early = |error: &RolloutError| matches!(error, RolloutError::Transition { from: RolloutState::None, .. });
    matches!(reported, Err(StoreError::Rollout(error)) if early(error))
}

/// Numbers of a sequence would become visible out of order: a reader that goes on after the last it saw would skip some.
#[test]
fn a_reader_that_resumes_skips_no_change_of_concurrent_writers() {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 40;
    let cluster = Cluster::start(None, &[]);
    let stores = [open(&cluster), open(&cluster)];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let (store, is_over) = (&stores[reader % 2], &is_over);
                scope.spawn(move || {
                    let (mut cursor, mut pages) = (0, 0);
                    loop {
                        let was_over = is_over.load(Ordering::SeqCst);
                        let page = store.changes(cursor, None, 3).unwrap();
                        for revised in &page.changes {
                            assert_eq!(revised.revision, cursor + 1, "nothing is skipped");
                            cursor = revised.revision;
                        }
                        assert_eq!(page.cursor, cursor);
                        pages += usize::from(!page.changes.is_empty());
                        if was_over && page.changes.is_empty() {
                            return (cursor, pages);
                        }
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = &stores[writer % 2];
                scope.spawn(move || {
                    let mut revisions = 0;
                    for round in 0..ROUNDS {
                        // Half of the nodes are everybody's.
                        let id = node(&if round % 2 == 0 { format!("own-{writer}") } else { "shared".to_owned() });
                        let to = enrollment_ref(&format!("fleet/{writer}/{round}"));
                        let made = store.enroll(&id, &to, IfActive::Replace, "ana", 5).unwrap();
                        revisions += usize::from(made.change.is_some());
                    }
                    revisions
                })
            })
            .collect();
        let changes: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(changes, WRITERS * ROUNDS);
        for reader in readers {
            let (cursor, pages) = reader.join().unwrap();
            assert_eq!(cursor, changes as u64);
            assert!(pages > changes / 3, "each page holds three at most");
        }
    });
    for row in conformance::all(&stores[0]) {
        history_replays_to_the_row(&stores[1], &row.enrollment.node_id);
    }
}

#[test]
fn the_schema_itself_keeps_the_rules_and_what_breaks_them_is_named() {
    let cluster = Cluster::start(None, &[]);
    let store = open(&cluster);
    enroll(&store, "n").unwrap();
    let of_its_own = [
        "TRUNCATE autonomy.enrollment, autonomy.history",
        "TRUNCATE autonomy.history",
        "UPDATE autonomy.state SET revision = 0",
        "DELETE FROM autonomy.state",
        "INSERT INTO autonomy.state VALUES (false, 1, 9)",
    ];
    let refused = conformance::refused_by_the_schema("autonomy.").into_iter();
    for sql in refused.chain(of_its_own.map(str::to_owned)) {
        assert_eq!(cluster.try_psql("postgres", &sql), None, "{sql}");
    }
    cluster.psql("postgres", &conformance::insert("autonomy.", conformance::ODD));

    cluster.psql(
        "postgres",
        "ALTER TABLE autonomy.enrollment DROP CONSTRAINT enrollment_enrollment_ref_check, DROP CONSTRAINT enrollment_status_check;
         UPDATE autonomy.enrollment SET enrollment_ref = 'a b', serial = 2 WHERE node_id = 'n'",
    );
    let message = "`enrollment_ref` of node `n` is `a b` on disk (enrollment ref `a b` holds ` `: use 1 to 256 printable \
                   ASCII characters without spaces): correct it there, or restore the database from a backup";
    assert_eq!(store.get(&node("n")).unwrap_err().to_string(), message);
    assert_eq!(store.revoke(&node("n"), "ana", 2).unwrap_err().to_string(), message);
    let everything = Query { status: None, after: None, limit: 5 };
    assert_eq!(store.list(&everything).unwrap_err().to_string(), message);
    assert_eq!(store.for_each(&mut |_| ControlFlow::Continue(())).unwrap_err().to_string(), message);
    // An unknown word is kept: the gate denies it by name. Every change out of it is recorded.
    cluster.psql(
        "postgres",
        "UPDATE autonomy.enrollment SET enrollment_ref = 'r', status = 'paused', serial = 3 WHERE node_id = 'n'",
    );
    assert_eq!(store.get(&node("n")).unwrap().unwrap().enrollment.status, Status::Unknown("paused".into()));
    let revoked = store.revoke(&node("n"), "ana", 2).unwrap().change.unwrap();
    assert_eq!(revoked.before.unwrap().status, Status::Unknown("paused".into()));
    // A serial that cannot grow ends there.
    cluster.psql("postgres", &format!("UPDATE autonomy.enrollment SET serial = {} WHERE node_id = 'n'", i64::MAX));
    let error = store.set_rollout(&node("n"), &RolloutState::Failed, "ana", 3).unwrap_err();
    assert!(error.to_string().contains("(it cannot grow)"), "{error}");
}

#[test]
fn a_database_of_a_newer_version_or_an_older_state_is_refused() {
    let cluster = Cluster::start(None, &[]);
    let store = open(&cluster);
    enroll(&store, "n").unwrap();
    cluster.psql("postgres", "ALTER TABLE autonomy.state DISABLE TRIGGER state_grows");
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'autonomy'";

    cluster.psql("postgres", "UPDATE autonomy.state SET schema_version = 5");
    let newer = "the database has schema version 5, and this version uses 4: use a newer `autonomy`";
    for error in
        [enroll(&store, "m").unwrap_err(), PostgresStore::open(&cluster.url("postgres"), None, None).unwrap_err()]
    {
        assert_eq!((error.to_string().as_str(), error.class()), (newer, ErrorClass::Unavailable));
    }
    cluster.psql("postgres", end_sessions);
    until(|| store.revision().err().filter(|error| error.to_string() == newer));
    cluster.psql("postgres", "UPDATE autonomy.state SET schema_version = 4");
    assert_eq!(enroll(&store, "m").unwrap(), 1);

    // As after a restore, or where an old primary comes back: what was acknowledged is not there.
    cluster.psql("postgres", "UPDATE autonomy.state SET revision = 1");
    cluster.psql("postgres", end_sessions);
    let less = "its latest revision is 1 and 2 was seen; put the newer database back, or restart";
    until(|| store.revision().err().filter(|error| error.to_string().contains(less)));
    assert_eq!(open(&cluster).revision().unwrap(), 1, "whoever starts anew takes it");
    cluster.psql("postgres", "UPDATE autonomy.state SET revision = 2");
    assert_eq!(store.revision().unwrap(), 2);

    cluster.psql("postgres", "ALTER TABLE autonomy.state DISABLE TRIGGER state_stays; DELETE FROM autonomy.state");
    let error = store.revision().unwrap_err();
    assert_eq!(error.to_string(), "the database has no row in `autonomy.state`: restore it from a backup");
}

/// What `find` gives, once it gives something.
fn until<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn who_holds_a_lock_and_a_standby_that_is_silent_are_not_waited_for_without_end() {
    let cluster = Cluster::start(None, &[]);
    let store = open(&cluster);
    enroll(&store, "n").unwrap();

    let refused = "somebody else holds what is to be changed in the database, for more than three seconds: ask again, or find who \
                   it is in `pg_stat_activity`, such as a backup or a shell, and end that";
    cluster.while_held("SELECT FROM autonomy.state FOR UPDATE", || {
        let begun = Instant::now();
        let error = store.revoke(&node("n"), "ana", 2).unwrap_err();
        assert_eq!(error.to_string(), refused);
        assert!(begun.elapsed() < CALL * 4, "{:?}", begun.elapsed());
        let row = store.get(&node("n")).unwrap().unwrap();
        assert_eq!(row.enrollment.status, Status::Active, "readers do not wait for writers");
        // Those who wait for each other are told the same, whosever turn it came to be.
        let store = &store;
        thread::scope(|scope| {
            let late = |ms| {
                thread::sleep(Duration::from_millis(ms));
                store.revoke(&node("n"), "ana", 2).unwrap_err().to_string()
            };
            let waiting = [0, 500, 1000, 1500, 2000, 2500].map(|ms| scope.spawn(move || late(ms)));
            for waiting in waiting {
                assert_eq!(waiting.join().unwrap(), refused);
            }
        });
    });
    // A rollout that is given up when it is written down, and its directives are not.
    cluster.while_held("LOCK TABLE autonomy.directive IN SHARE MODE", || {
        assert_eq!(store.create(&everybody(), "ana", 2).unwrap_err().to_string(), refused);
        assert_eq!((store.rollouts().latest(None, 10).unwrap(), store.revision().unwrap()), (Vec::new(), 1));
    });
    store.revoke(&node("n"), "ana", 2).unwrap();

    // Whoever turned it off on the server does not turn it off here.
    cluster.psql("postgres", "ALTER SYSTEM SET synchronous_commit = off");
    cluster.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    cluster.psql("postgres", "SELECT pg_reload_conf()");
    let store = open(&cluster);
    let begun = Instant::now();
    let error = enroll(&store, "n").unwrap_err();
    let unknown = "the change may have been made or not (the database gave no answer within 5s: look what it is busy with, \
                   and ask again); look at the node or the rollout";
    assert_eq!((error.to_string().as_str(), error.class()), (unknown, ErrorClass::Unavailable));
    assert!(begun.elapsed() < CALL * 4, "{:?}", begun.elapsed());
    let row = store.get(&node("n")).unwrap().unwrap();
    assert_eq!(row.enrollment.status, Status::Revoked, "it is not seen before it is confirmed");
    enroll(&store, "n").unwrap_err();
    cluster.psql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
    cluster.psql("postgres", "SELECT pg_reload_conf()");
    until(|| Some(store.get(&node("n")).unwrap().unwrap()).filter(|row| row.enrollment.status == Status::Active));
    assert_eq!(store.revision().unwrap(), 3, "once, though it was asked for twice");
    assert_eq!(store.set_rollout(&node("n"), &RolloutState::Active, "ana", 3).unwrap().row.enrollment.serial, 4);
}

#[test]
fn who_is_refused_loses_one_connection_and_who_is_not_answered_all_of_them() {
    let cluster = Cluster::start(None, &[]);
    let store = open(&cluster);
    let pids = |that: &str| {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE application_name = 'autonomy' {that}");
        cluster.psql("postgres", &sql).lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    // What goes wrong with three calls at a time, where the connection of one of them meets with something.
    let three_calls = |meet: &dyn Fn(&str)| {
        thread::scope(|scope| {
            let mut calls = Vec::new();
            cluster.while_held("LOCK TABLE autonomy.enrollment", || {
                calls.extend((0..3).map(|_| scope.spawn(|| store.count(None))));
                let waiting = until(|| Some(pids("AND wait_event_type = 'Lock'")).filter(|waiting| waiting.len() == 3));
                meet(waiting.first().unwrap());
            });
            let errors = calls.into_iter().filter_map(|call| call.join().unwrap().err());
            errors.map(|error| error.to_string()).collect::<Vec<_>>()
        })
    };
    assert_eq!(three_calls(&|_| {}), Vec::<String>::new());
    // That of `open` may not have ended.
    let before = until(|| Some(pids("")).filter(|pids| pids.len() == 3));

    let given_up = Notify::new();
    thread::scope(|scope| {
        let silent = scope.spawn(|| store.ask(async |_| pending::<Result<(), _>>().await));
        thread::sleep(CALL / 2);
        let in_use = scope.spawn(|| {
            store.ask(async |_| {
                given_up.notified().await;
                Ok(())
            })
        });
        let error = silent.join().unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the database gave no answer within 5s: look what it is busy with, and ask again"
        );
        until(|| Some(pids("")).filter(|left| left.len() == 1 && left.is_subset(&before)));
        given_up.notify_one();
        in_use.join().unwrap().unwrap();
    });
    store.count(None).unwrap();
    let after = until(|| Some(pids("")).filter(|after| after.is_disjoint(&before)));
    assert_eq!(after.len(), 1, "what was in use meanwhile is not used again");

    let errors = three_calls(&|pid| {
        cluster.psql("postgres", &format!("SELECT pg_cancel_backend({pid})"));
    });
    assert!(errors.len() == 1 && errors[0].contains("canceling statement due to user request"), "{errors:?}");
    until(|| Some(pids("")).filter(|left| left.len() == 2));
}

#[test]
fn a_url_that_is_not_safe_or_not_understood_is_refused_and_no_password_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for (url, message) in [
        ("", "does not start with `postgres://`"),
        ("host=localhost user=me", "does not start with `postgres://`"),
        ("postgres:///db", "names no host"),
        ("postgres://localhost/db?sslmode=allow", "`sslmode`"),
        ("postgres://localhost/db?frobnicate=1", "`frobnicate`"),
        ("postgres://localhost:99999/db", "`port`"),
        ("postgres://db.example.com/db?hostaddr=10.0.0.1", "names a `hostaddr`"),
        ("postgres://me:secret@localhost/db", "holds a password"),
        ("postgres://me@localhost/db?password=secret", "holds a password"),
        ("postgres://me:sec@ret@localhost/db", "holds a password"),
        ("postgres://localhost,db.example.com/db?sslmode=disable", "`db.example.com:5432` is not on this machine"),
        ("postgres://10.0.0.1/db?sslmode=disable", "`10.0.0.1:5432` is not on this machine"),
    ] {
        let error = PostgresStore::open(url, None, None).unwrap_err();
        assert!(error.to_string().contains(message) && !error.to_string().contains("sec"), "{url}: {error}");
        assert_eq!(error.class(), ErrorClass::Usage, "{url}");
    }
    for (path, message) in [
        (dir.path().join("none"), "No such file"),
        (file("exposed", "secret\n", 0o644), "it can be read by others, mode 644"),
        (file("empty", "", 0o600), "it is not one line"),
        (file("two", "secret\nsecret\n", 0o600), "it is not one line"),
    ] {
        let error = PostgresStore::open("postgres://localhost/db", Some(&path), None).unwrap_err();
        assert!(error.to_string().contains(message) && !error.to_string().contains("secret"), "{error}");
    }
    let error = PostgresStore::open("postgres://db.example.com/db", None, Some(&file("ca", "", 0o600))).unwrap_err();
    assert!(error.to_string().starts_with("database: cannot read roots from"), "{error}");
    // Nobody is there: each address says why.
    let nobody = format!("postgres://{0},{0}:5433/db", dir.path().to_str().unwrap().replace('/', "%2F"));
    let error = PostgresStore::open(&nobody, None, None).unwrap_err();
    let causes: BTreeSet<_> = error.to_string().match_indices(".s.PGSQL.543").map(|(at, _)| at).collect();
    assert!(causes.len() == 2 && error.to_string().starts_with("cannot reach the database (`"), "{error}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
}
