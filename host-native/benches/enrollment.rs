//! What a decision pays to know that its enrollment still stands. `cargo bench -p host-native --bench enrollment`
//!
//! What a fleet costs is measured by `tests/benches/fleet.rs`.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

use std::hint::black_box;

use criterion::Criterion;
use gate_core::identity::{EnrollmentRef, NodeId};
use host_native::enrollment::{IfActive, LocalSource, Observation, Source, SqliteStore, Store};

fn main() {
    let mut times = Criterion::default().configure_from_args();
    let home = Home::new();
    for (name, refresh_ms) in [("nothing changed", u64::MAX), ("the row read each time", 0)] {
        let mut source = home.source(refresh_ms);
        times.bench_function(&format!("observe, {name}"), |bencher| bencher.iter(|| source.observe(black_box(1))));
    }
    let (mut source, mut is_enrolled) = (home.source(u64::MAX), true);
    times.bench_function("revoke or enroll, then observe", |bencher| {
        bencher.iter(|| {
            if is_enrolled {
                home.store.revoke(&home.node_id, "bench", 1).unwrap();
            } else {
                home.enroll();
            }
            is_enrolled = !is_enrolled;
            // Each change is seen by the next call.
            assert!(matches!(source.observe(1), Observation::Changed(_)));
        });
    });
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
