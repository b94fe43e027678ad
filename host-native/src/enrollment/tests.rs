use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use gate_core::enrollment::{Answer, RolloutState, Status};
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{
    IfActive, LocalSource, Observation, Source, SqliteStore, Store, StoreError,
    conformance::{self, enrollment_ref, history_replays_to_the_row, node},
};
use crate::ErrorClass;

/// A directory with a path for a database in it.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enrollment.db");
    (dir, path)
}

/// A store with `robot-7` active, and a source for it that was asked at 1000.
fn asked() -> (TempDir, PathBuf, SqliteStore, LocalSource) {
    let (dir, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    store.enroll(&node("robot-7"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 1).unwrap();
    let mut source = LocalSource::new(&path, node("robot-7"), 500).unwrap();
    assert_eq!(status(source.observe(1000)), "active");
    assert_eq!(source.observe(1001), Observation::Unchanged);
    (dir, path, store, source)
}

/// What an answer comes down to.
fn status(observation: Observation) -> String {
    match observation {
        Observation::Unchanged => "unchanged".to_owned(),
        Observation::Leases(_) => "leases".to_owned(),
        Observation::Changed(Answer::Unavailable { why }) => {
            assert!(!why.contains('\n'), "{why}");
            format!("unavailable: {why}")
        }
        Observation::Changed(Answer::NotEnrolled { .. }) => "not enrolled".to_owned(),
        Observation::Changed(Answer::Enrolled { enrollment, .. }) => enrollment.status.to_string(),
    }
}

/// Changes the file as somebody with the `sqlite3` shell would.
fn edit(path: &Path, sql: &str) {
    let shell = Connection::open(path).unwrap();
    shell.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
    shell.execute_batch(sql).unwrap();
}

mod store {
    use super::*;

    #[test]
    fn sqlite_conforms() {
        let (_dir, path) = place();
        conformance::check(&SqliteStore::open(&path).unwrap());
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let (_dir, path) = place();
        conformance::check(&SqliteStore::open(&path).unwrap());
        let again = SqliteStore::open_existing(&path).unwrap();
        let rows = conformance::all(&again);
        assert!(rows.len() > 5);
        let reader = SqliteStore::open_read_only(&path).unwrap();
        assert_eq!(conformance::all(&reader), rows);
        for row in rows {
            history_replays_to_the_row(&reader, &row.enrollment.node_id);
        }
    }

    #[test]
    fn file_and_directory_are_private() {
        let (dir, _) = place();
        let path = dir.path().join("a/b/enrollment.db");
        let store = SqliteStore::open(&path).unwrap();
        store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("a/b/enrollment.db-wal")), 0o600);
        assert_eq!(mode(&dir.path().join("a/b/enrollment.db-shm")), 0o600);
        assert_eq!(mode(&dir.path().join("a/b")), 0o700);
        assert_eq!(mode(&dir.path().join("a")), 0o700);
    }

    #[test]
    fn the_file_says_what_it_is_and_is_durable() {
        let (_dir, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        let pragma = |name: &str| -> String {
            let keeper = store.keeper.lock().unwrap();
            keeper
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .map(|value| format!("{value:?}"))
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
        assert_eq!(pragma("synchronous"), "Integer(2)");
        assert_eq!(pragma("foreign_keys"), "Integer(1)");
        assert_eq!(pragma("trusted_schema"), "Integer(0)");
        assert_eq!(pragma("user_version"), "Integer(4)");
        assert_eq!(pragma("application_id"), format!("Integer({})", i32::from_be_bytes(*b"AGen")));
        assert_eq!(pragma("integrity_check"), "Text(\"ok\")");
    }

    #[test]
    fn an_empty_file_becomes_a_database() {
        let (_dir, path) = place();
        fs::write(&path, "").unwrap();
        conformance::check(&SqliteStore::open(&path).unwrap());
    }

    #[test]
    fn opening_what_is_not_there_creates_nothing() {
        let (dir, path) = place();
        for opened in [SqliteStore::open_existing(&path), SqliteStore::open_read_only(&path)] {
            let error = opened.unwrap_err();
            assert!(matches!(error, StoreError::Missing { .. }), "{error}");
            assert_eq!(error.class(), ErrorClass::Unavailable);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_later_schema_is_refused() {
        let (_dir, path) = place();
        drop(SqliteStore::open(&path).unwrap());
        edit(&path, "PRAGMA user_version = 5");
        for opened in [SqliteStore::open(&path), SqliteStore::open_read_only(&path)] {
            let message = opened.unwrap_err().to_string();
            assert!(
                message.ends_with("has schema version 5 and this version knows 4: use a newer `autonomy`"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_migrated_while_open_is_not_written_any_more() {
        let (_dir, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        edit(&path, "PRAGMA user_version = 5");
        let error = store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 5, known: 4, .. }), "{error}");
    }

    #[test]
    fn a_file_of_another_program_is_refused_and_left_as_it_was() {
        for sql in ["CREATE TABLE bookmarks (url)", "PRAGMA application_id = 7", "PRAGMA user_version = 5"] {
            let (_dir, path) = place();
            edit(&path, sql);
            let before = fs::read(&path).unwrap();
            let error = SqliteStore::open(&path).unwrap_err();
            assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), before);
        }
        let (_dir, path) = place();
        fs::write(&path, "this is not a database, but it is longer than nothing").unwrap();
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
    }

    #[test]
    fn a_store_opened_for_reading_changes_nothing() {
        let (_dir, path) = place();
        drop(SqliteStore::open(&path).unwrap());
        let reader = SqliteStore::open_read_only(&path).unwrap();
        let error = reader.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        assert_eq!(reader.count(None).unwrap(), 0);
    }

    #[test]
    fn the_schema_itself_keeps_the_rules() {
        let (_dir, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
        let shell = Connection::open(&path).unwrap();
        // A schema that is not strict would take it.
        let not_a_number = conformance::insert("", ["x", "r", "active", "<none>", "'one'"]);
        for sql in conformance::refused_by_the_schema("").into_iter().chain([not_a_number]) {
            shell.execute_batch(&sql).expect_err(&sql);
        }
        shell.execute_batch(&conformance::insert("", conformance::ODD)).unwrap();
    }

    #[test]
    fn a_row_that_does_not_parse_is_named() {
        let (_dir, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        let id = node("n");
        store.enroll(&id, &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
        edit(&path, "UPDATE enrollment SET enrollment_ref = 'a' || char(10) || 'b', serial = 2");
        let message = "`enrollment_ref` of node `n` is `a\\nb` on disk (enrollment ref `a\\nb` holds `\\n`: use 1 to 256 \
                       printable ASCII characters without spaces): correct it there, or restore the database from a \
                       backup";
        assert_eq!(store.get(&id).unwrap_err().to_string(), message);
        assert_eq!(store.revoke(&id, "ana", 2).unwrap_err().to_string(), message);
        assert_eq!(
            store.enroll(&id, &enrollment_ref("r"), IfActive::Replace, "a", 2).unwrap_err().to_string(),
            message
        );
        assert_eq!(store.for_each(&mut |_| std::ops::ControlFlow::Continue(())).unwrap_err().to_string(), message);
        let query = super::super::Query { status: None, after: None, limit: 5 };
        assert_eq!(store.list(&query).unwrap_err().to_string(), message);

        edit(&path, "UPDATE enrollment SET enrollment_ref = 'r', updated_at_ms = -1, serial = 3");
        let error = store.get(&id).unwrap_err();
        assert!(error.to_string().starts_with("`updated_at_ms` of node `n` is `-1` on disk"), "{error}");

        edit(
            &path,
            "UPDATE enrollment SET updated_at_ms = 1, enrollment_ref = printf('%.*c', 100000, 'r'), serial = 4",
        );
        assert!(store.get(&id).unwrap_err().to_string().len() < 1000);

        // An unknown word is kept: the gate denies it by name. Every change out of it is recorded.
        edit(&path, "UPDATE enrollment SET status = 'paused', enrollment_ref = 'r', serial = 5");
        assert_eq!(store.get(&id).unwrap().unwrap().enrollment.status, Status::Unknown("paused".into()));
        let revoked = store.revoke(&id, "ana", 2).unwrap().change.unwrap();
        assert_eq!(revoked.before.unwrap().status, Status::Unknown("paused".into()));
        assert_eq!(store.history(&id, 1, 10).unwrap().len(), 1);
    }

    #[test]
    fn a_serial_that_cannot_grow_is_an_error() {
        let (_dir, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
        edit(&path, &format!("UPDATE enrollment SET serial = {}", i64::MAX));
        let error = store.revoke(&node("n"), "ana", 2).unwrap_err();
        assert!(error.to_string().contains("(it cannot grow)"), "{error}");
    }

    #[test]
    fn a_file_that_was_emptied_takes_no_changes() {
        let (_dir, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
        let holder = Connection::open(&path).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| store.revoke(&node("n"), "ana", 2).unwrap_err());
            thread::sleep(std::time::Duration::from_millis(200));
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
            holder.execute_batch("ROLLBACK").unwrap();
            for error in [waits.join().unwrap(), store.revoke(&node("n"), "ana", 3).unwrap_err()] {
                assert!(matches!(error, StoreError::Moved { .. }), "{error}");
            }
        });
        let error = store.get(&node("n")).unwrap_err();
        assert!(matches!(error, StoreError::Moved { .. }), "{error}");
    }

    #[test]
    fn a_deleted_or_replaced_file_takes_no_changes() {
        for suffix in ["", "-wal", "-shm"] {
            let (dir, path) = place();
            let store = SqliteStore::open(&path).unwrap();
            store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
            let victim = dir.path().join(format!("enrollment.db{suffix}"));
            fs::remove_file(&victim).unwrap();
            let error = store.revoke(&node("n"), "ana", 2).unwrap_err();
            assert!(matches!(error, StoreError::Moved { .. }), "{error}");
            fs::write(&victim, "").unwrap();
            let error = store.get(&node("n")).unwrap_err();
            assert!(matches!(error, StoreError::Moved { .. }), "{error}");
        }
    }

    #[test]
    fn a_write_lock_held_too_long_is_an_error() {
        let (_dir, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        let holder = Connection::open(&path).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
        assert_eq!(store.get(&node("n")).unwrap(), None, "readers do not wait for writers");
        holder.execute_batch("ROLLBACK").unwrap();
        store.enroll(&node("n"), &enrollment_ref("r"), IfActive::Refuse, "ana", 1).unwrap();
    }

    #[test]
    fn concurrent_changes_keep_serials_and_history() {
        let (_dir, path) = place();
        let shared = SqliteStore::open(&path).unwrap();
        let changes: usize = thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|worker| {
                    let (path, shared) = (&path, &shared);
                    scope.spawn(move || {
                        // Half of them over one store, half over a store of their own, as another process would.
                        let own = (worker % 2 == 0).then(|| SqliteStore::open(path).unwrap());
                        let store: &dyn Store = own.as_ref().unwrap_or(shared);
                        let mut changes = 0;
                        for round in 0..12 {
                            let id = node(["a", "b", "c"][round % 3]);
                            let who = format!("worker-{worker}");
                            let to = enrollment_ref(["x", "y"][(worker + round) % 2]);
                            let made = match round % 4 {
                                0 | 1 => store.enroll(&id, &to, IfActive::Replace, &who, 5).map(Some),
                                2 => store.revoke(&id, &who, 6).map(Some).or_else(not_enrolled),
                                _ => store
                                    .set_rollout(&id, &RolloutState::KNOWN[worker % 6], &who, 7)
                                    .map(Some)
                                    .or_else(not_enrolled),
                            };
                            changes += usize::from(made.unwrap().is_some_and(|made| made.change.is_some()));
                        }
                        changes
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        let mut recorded = 0;
        for id in ["a", "b", "c"] {
            history_replays_to_the_row(&shared, &node(id));
            recorded += shared.history(&node(id), 0, usize::MAX).unwrap().len();
        }
        assert_eq!(recorded, changes);
        assert!(changes > 12, "too little happened: {changes}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_sequence_keeps_the_serial_growing_and_the_history_whole(
            steps in prop::collection::vec((0..4_u8, 0..3_usize, 0..3_usize, 0..6_usize), 1..40)
        ) {
            let (_dir, path) = place();
            let store = SqliteStore::open(&path).unwrap();
            // Nothing here is about power loss; thousands of syncs would only slow it down.
            store.keeper.lock().unwrap().pragma_update(None, "synchronous", "off").unwrap();
            let ids = ["robot", "Robot", "other"];
            for (now_ms, (what, id, to, state)) in (1..).zip(steps) {
                let (id, to) = (node(ids[id]), enrollment_ref(["x", "y", "z"][to]));
                let before = store.get(&id).unwrap();
                let made = match what {
                    0 => store.enroll(&id, &to, IfActive::Refuse, "ana", now_ms),
                    1 => store.enroll(&id, &to, IfActive::Replace, "ana", now_ms),
                    2 => store.revoke(&id, "ana", now_ms),
                    _ => store.set_rollout(&id, &RolloutState::KNOWN[state], "ana", now_ms),
                };
                let after = store.get(&id).unwrap();
                match made {
                    Ok(made) => {
                        prop_assert_eq!(Some(&made.row), after.as_ref());
                        let serial = before.as_ref().map_or(0, |row| row.enrollment.serial);
                        match made.change {
                            Some(change) => {
                                prop_assert_eq!(change.after.serial, serial + 1);
                                prop_assert_eq!(change.before, before.map(|row| row.enrollment));
                                prop_assert_eq!(change.after, made.row.enrollment);
                            }
                            None => prop_assert_eq!(before, after),
                        }
                    }
                    Err(error) => {
                        prop_assert_eq!(error.class(), ErrorClass::Usage);
                        prop_assert_eq!(before, after);
                    }
                }
            }
            for id in ids {
                history_replays_to_the_row(&store, &node(id));
            }
        }
    }

    fn not_enrolled(error: StoreError) -> Result<Option<super::super::Mutation>, StoreError> {
        if matches!(error, StoreError::NotEnrolled { .. }) { Ok(None) } else { Err(error) }
    }
}

mod source {
    use super::*;

    /// Not a test of its own: the other process of the tests below, which run this binary with the path set.
    #[test]
    fn another_process() {
        let Some(path) = std::env::var_os("ENROLLMENT_TEST_PATH") else { return };
        match std::env::var("ENROLLMENT_TEST_DOES").unwrap().as_str() {
            "revoke" => {
                SqliteStore::open_existing(path).unwrap().revoke(&node("robot-7"), "other", 2).unwrap();
            }
            "enroll" => {
                let store = SqliteStore::open_existing(path).unwrap();
                store.enroll(&node("robot-7"), &enrollment_ref("fleet/b"), IfActive::Replace, "other", 3).unwrap();
            }
            "enroll another" => {
                let store = SqliteStore::open_existing(path).unwrap();
                store.enroll(&node("robot-8"), &enrollment_ref("fleet/b"), IfActive::Replace, "other", 3).unwrap();
            }
            "enroll until killed" => {
                let store = SqliteStore::open_existing(path).unwrap();
                for serial in 2.. {
                    let to = enrollment_ref(&format!("fleet/{serial}"));
                    let made = store.enroll(&node("robot-7"), &to, IfActive::Replace, "other", serial).unwrap();
                    writeln!(std::io::stderr(), "acknowledged {}", made.row.enrollment.serial).unwrap();
                }
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_killed_writer_loses_nothing_that_it_acknowledged() {
        let (_dir, path, store, mut source) = asked();
        for round in 0..3 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "enrollment::tests::source::another_process", "--nocapture"])
                .env("ENROLLMENT_TEST_PATH", &path)
                .env("ENROLLMENT_TEST_DOES", "enroll until killed")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
            for _ in 0..20 + round * 7 {
                lines.next().unwrap().unwrap();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let acknowledged = lines
                .map_while(Result::ok)
                .filter_map(|line| line.strip_prefix("acknowledged ").and_then(|serial| serial.parse::<u64>().ok()))
                .last()
                .unwrap_or_default();
            let row = store.get(&node("robot-7")).unwrap().unwrap();
            assert!(row.enrollment.serial >= acknowledged.max(20), "{} {acknowledged}", row.enrollment.serial);
            history_replays_to_the_row(&store, &node("robot-7"));
            assert_eq!(status(source.observe(1002)), "active");
        }
    }

    fn in_another_process(path: &Path, does: &str) {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "enrollment::tests::source::another_process"])
            .env("ENROLLMENT_TEST_PATH", path)
            .env("ENROLLMENT_TEST_DOES", does)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn the_next_call_sees_what_another_process_did() {
        let (_dir, path, store, mut source) = asked();
        in_another_process(&path, "revoke");
        assert_eq!(status(source.observe(1002)), "revoked");
        assert_eq!(source.observe(1003), Observation::Unchanged);
        in_another_process(&path, "enroll");
        assert_eq!(status(source.observe(1004)), "active");
        in_another_process(&path, "enroll another");
        assert_eq!(source.observe(1005), Observation::Unchanged, "another node's row is nothing new for this one");
        // Also when nobody else keeps the file open: the other process then empties the log as it leaves.
        drop(store);
        in_another_process(&path, "revoke");
        assert_eq!(status(source.observe(1006)), "revoked");
    }

    #[test]
    fn a_revoke_over_another_connection_is_seen_every_time() {
        let (_dir, _path, store, mut source) = asked();
        for round in 0..50 {
            store.revoke(&node("robot-7"), "ana", 2).unwrap();
            assert_eq!(status(source.observe(1002)), "revoked", "{round}");
            store.enroll(&node("robot-7"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 3).unwrap();
            assert_eq!(status(source.observe(1002)), "active", "{round}");
        }
    }

    #[test]
    fn the_answer_is_told_again_after_the_refresh_and_when_the_clock_goes_back() {
        let (_dir, _path, _store, mut source) = asked();
        let observed_at = |observation| match observation {
            Observation::Changed(Answer::Enrolled { observed_at_ms, .. }) => Some(observed_at_ms),
            Observation::Changed(_) | Observation::Leases(_) | Observation::Unchanged => None,
        };
        assert_eq!(observed_at(source.observe(1499)), None);
        assert_eq!(observed_at(source.observe(1500)), Some(1500));
        assert_eq!(observed_at(source.observe(1501)), None);
        assert_eq!(observed_at(source.observe(900)), Some(900));
        assert_eq!(observed_at(source.observe(901)), None);
    }

    #[test]
    fn an_unknown_node_is_not_enrolled_until_it_is() {
        let (_dir, path, store, _) = asked();
        let mut source = LocalSource::new(&path, node("robot-8"), 500).unwrap();
        assert_eq!(source.observe(5), Observation::Changed(Answer::NotEnrolled { observed_at_ms: 5 }));
        assert_eq!(source.observe(6), Observation::Unchanged);
        store.enroll(&node("robot-8"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 7).unwrap();
        assert_eq!(status(source.observe(8)), "active");
    }

    #[test]
    fn no_file_is_unavailable_until_there_is_one() {
        let (_dir, path) = place();
        let mut source = LocalSource::new(&path, node("robot-7"), 500).unwrap();
        let why = status(source.observe(1));
        assert!(why.starts_with("unavailable: no enrollment database at `"), "{why}");
        assert_eq!(source.observe(2), Observation::Unchanged);
        fs::write(&path, "").unwrap();
        assert_eq!(source.observe(3), Observation::Unchanged, "an empty file says nothing about any node");
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(status(source.observe(4)), "not enrolled");
        store.enroll(&node("robot-7"), &enrollment_ref("fleet/a"), IfActive::Refuse, "ana", 1).unwrap();
        assert_eq!(status(source.observe(5)), "active");
    }

    #[test]
    fn a_deleted_file_is_unavailable_at_once_and_recovers() {
        let (dir, path, store, mut source) = asked();
        drop(store);
        let aside = dir.path().join("aside.db");
        fs::rename(&path, &aside).unwrap();
        assert!(status(source.observe(1002)).starts_with("unavailable: no enrollment database at `"));
        assert_eq!(source.observe(1003), Observation::Unchanged);
        fs::rename(&aside, &path).unwrap();
        assert_eq!(status(source.observe(1004)), "active");
    }

    #[test]
    fn a_deleted_log_does_not_hide_a_revoke() {
        // Soon after the directory changed its names are looked at on every call, later only its time.
        for (suffix, settled) in [("-wal", false), ("-wal", true), ("-shm", false), ("-shm", true)] {
            let (dir, path, store, mut source) = asked();
            drop(store);
            if settled {
                thread::sleep(std::time::Duration::from_millis(80));
                assert_eq!(source.observe(1001), Observation::Unchanged);
                assert_eq!(source.observe(1001), Observation::Unchanged);
            }
            fs::remove_file(dir.path().join(format!("enrollment.db{suffix}"))).unwrap();
            // Nothing is lost: a change is in the database itself.
            assert_eq!(status(source.observe(1002)), "unchanged", "{suffix}");
            // The source has let go of what was deleted: it sees what is written from now on.
            in_another_process(&path, "revoke");
            assert_eq!(status(source.observe(1003)), "revoked", "{suffix}");
        }
    }

    #[test]
    fn links_to_the_file_and_names_beside_it_change_nothing() {
        let (dir, path, store, _) = asked();
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut source = LocalSource::new(&link, node("robot-7"), 500).unwrap();
        assert_eq!(status(source.observe(1000)), "active");
        fs::write(dir.path().join("note"), "").unwrap();
        assert_eq!(source.observe(1001), Observation::Unchanged);
        store.revoke(&node("robot-7"), "ana", 2).unwrap();
        assert_eq!(status(source.observe(1002)), "revoked");
        // The link leads to another database now.
        let other = dir.path().join("other.db");
        drop(SqliteStore::open(&other).unwrap());
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let why = status(source.observe(1003));
        assert!(why.contains("node `robot-7` has serial 0 and had 2"), "{why}");
    }

    #[test]
    fn a_change_is_in_the_database_itself_and_no_missing_log_takes_it_back() {
        let (dir, path, store, source) = asked();
        store.revoke(&node("robot-7"), "ana", 2).unwrap();
        // As after a power cut: nobody closes the file, and the log is gone.
        std::mem::forget((store, source));
        fs::copy(&path, dir.path().join("copy.db")).unwrap();
        let mut source = LocalSource::new(dir.path().join("copy.db"), node("robot-7"), 500).unwrap();
        assert_eq!(status(source.observe(3)), "revoked");
    }

    #[test]
    fn a_database_that_went_back_is_unavailable_until_it_comes_forward() {
        let (dir, path, store, mut source) = asked();
        let (older, newer) = (dir.path().join("older.db"), dir.path().join("newer.db"));
        fs::copy(&path, &older).unwrap();
        store.revoke(&node("robot-7"), "ana", 2).unwrap();
        assert_eq!(status(source.observe(1002)), "revoked");
        drop(store);
        fs::rename(&path, &newer).unwrap();
        fs::rename(&older, &path).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("enrollment.db{suffix}")));
        }
        let why = status(source.observe(1003));
        assert!(why.contains("went back: node `robot-7` has serial 1 and had 2"), "{why}");
        fs::rename(&newer, &path).unwrap();
        assert_eq!(status(source.observe(1004)), "revoked");
    }

    #[test]
    fn a_replaced_file_is_read_anew() {
        let (dir, path, store, mut source) = asked();
        drop(store);
        let other = dir.path().join("other.db");
        {
            let store = SqliteStore::open(&other).unwrap();
            store.enroll(&node("robot-7"), &enrollment_ref("fleet/z"), IfActive::Refuse, "ana", 1).unwrap();
            store.revoke(&node("robot-7"), "ana", 1).unwrap();
        }
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("enrollment.db{suffix}")));
        }
        fs::rename(&other, &path).unwrap();
        assert_eq!(status(source.observe(1002)), "revoked");
        // Replaced by something that is no database at all.
        fs::write(&other, "garbage ".repeat(1000)).unwrap();
        fs::rename(&other, &path).unwrap();
        let why = status(source.observe(1003));
        assert!(why.starts_with("unavailable: `") && why.contains("is not a database: "), "{why}");
    }

    #[test]
    fn a_file_damaged_in_place_is_unavailable_and_recovers() {
        let (_dir, path, store, mut source) = asked();
        drop(store);
        edit(&path, "PRAGMA wal_checkpoint(TRUNCATE)");
        let good = fs::read(&path).unwrap();
        assert_eq!(source.observe(1002), Observation::Unchanged);
        let overwrite = |content: &[u8]| {
            // As `dd conv=notrunc` would: the same file, other bytes.
            fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(content).unwrap();
        };
        // The kernel's clock for files ticks every few milliseconds.
        thread::sleep(std::time::Duration::from_millis(20));
        overwrite(&vec![0xA5; good.len()]);
        let why = status(source.observe(1003));
        assert!(why.starts_with("unavailable: ") && why.contains("is not a database: "), "{why}");
        assert_eq!(source.observe(1004), Observation::Unchanged);
        thread::sleep(std::time::Duration::from_millis(20));
        overwrite(&good);
        assert_eq!(status(source.observe(1005)), "active");
        // Only the pages behind the header.
        thread::sleep(std::time::Duration::from_millis(20));
        let mut pages = good.clone();
        pages[4096..].fill(0xFF);
        overwrite(&pages);
        let why = status(source.observe(1006));
        assert!(why.starts_with("unavailable: ") && why.contains("is damaged ("), "{why}");
    }

    #[test]
    fn a_locked_file_is_unavailable_until_it_is_released() {
        let (_dir, path, store, source) = asked();
        drop((store, source));
        let holder = Connection::open(&path).unwrap();
        holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; SELECT * FROM enrollment").unwrap();
        let mut source = LocalSource::new(&path, node("robot-7"), 500).unwrap();
        let why = status(source.observe(1));
        assert!(why.ends_with("is locked by another process: try again, or find the holder with `fuser`"), "{why}");
        assert_eq!(source.observe(2), Observation::Unchanged);
        drop(holder);
        assert_eq!(status(source.observe(3)), "active");
    }

    #[test]
    fn a_writer_at_work_does_not_hold_up_decisions() {
        let (_dir, path, _store, mut source) = asked();
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE; UPDATE enrollment SET status = 'revoked', serial = 9").unwrap();
        assert_eq!(source.observe(1002), Observation::Unchanged);
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(status(source.observe(1003)), "revoked");
    }

    #[test]
    fn a_row_that_does_not_parse_is_unavailable_and_not_a_missing_node() {
        let (_dir, path, _store, mut source) = asked();
        edit(&path, "UPDATE enrollment SET enrollment_ref = 'fleet a', serial = 9");
        let why = status(source.observe(1002));
        assert!(why.starts_with("unavailable: `enrollment_ref` of node `robot-7` is `fleet a` on disk ("), "{why}");
        edit(&path, "UPDATE enrollment SET enrollment_ref = 'fleet/a', status = 'paused', serial = 10");
        assert_eq!(status(source.observe(1003)), "paused");
    }

    #[test]
    fn a_later_schema_is_unavailable() {
        let (_dir, path, _store, mut source) = asked();
        edit(&path, "PRAGMA user_version = 5");
        let why = status(source.observe(1002));
        assert!(why.ends_with("use a newer `autonomy`"), "{why}");
    }
}
