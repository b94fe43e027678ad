//! What a decision pays to know that its enrollment still stands. `cargo bench -p host-native --bench enrollment`
//!
//! What a fleet costs is measured by `tests/benches/fleet.rs`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark stops where it fails")]

use divan::{Bencher, black_box};
use gate_core::identity::{EnrollmentRef, NodeId};
use host_native::enrollment::{IfActive, LocalSource, Observation, Source, SqliteStore, Store};

fn main() {
    divan::main();
}

/// A store with one node.
struct Home {
    dir: tempfile::TempDir,
    store: SqliteStore,
    node_id: NodeId,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let store = SqliteStore::open(dir.path().join("enrollment.db")).unwrap();
        let home = Self { dir, store, node_id: NodeId::parse("robot-7").unwrap() };
        home.enroll();
        home
    }

    fn enroll(&self) {
        let enrollment_ref = EnrollmentRef::parse("fleet/a").unwrap();
        self.store.enroll(&self.node_id, &enrollment_ref, IfActive::Refuse, "bench", 1).unwrap();
    }

    /// A source that reads the row again after so long, and has read it.
    fn source(&self, refresh_ms: u64) -> LocalSource {
        let path = self.dir.path().join("enrollment.db");
        let mut source = LocalSource::new(&path, self.node_id.clone(), refresh_ms).unwrap();
        source.observe(0);
        source
    }
}

#[divan::bench]
fn observe_nothing_changed(bencher: Bencher<'_, '_>) {
    let home = Home::new();
    let mut source = home.source(u64::MAX);
    bencher.bench_local(|| source.observe(black_box(1)));
}

#[divan::bench]
fn observe_the_row_read_each_time(bencher: Bencher<'_, '_>) {
    let home = Home::new();
    let mut source = home.source(0);
    bencher.bench_local(|| source.observe(black_box(1)));
}

/// Each change is seen by the next call.
#[divan::bench(sample_count = 100, sample_size = 2)]
fn revoke_or_enroll_then_observe(bencher: Bencher<'_, '_>) {
    let home = Home::new();
    let (mut source, mut is_enrolled) = (home.source(u64::MAX), true);
    bencher.bench_local(|| {
        if is_enrolled {
            home.store.revoke(&home.node_id, "bench", 1).unwrap();
        } else {
            home.enroll();
        }
        is_enrolled = !is_enrolled;
        assert!(matches!(source.observe(1), Observation::Changed(_)));
    });
}
