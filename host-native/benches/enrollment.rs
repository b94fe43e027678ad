//! What a decision pays to know that its enrollment still stands, and what a scan of a fleet costs.
//!
//! `cargo bench -p host-native --bench enrollment`

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::{error::Error, hint::black_box, ops::ControlFlow, time::Instant};

use gate_core::identity::{EnrollmentRef, NodeId};
use host_native::enrollment::{IfActive, LocalSource, Observation, Source, SqliteStore, Store};

const NODES: u32 = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("enrollment.db");
    let store = SqliteStore::open(&path)?;
    let node_id = NodeId::parse("robot-7")?;
    let enrollment_ref = EnrollmentRef::parse("fleet/a")?;
    store.enroll(&node_id, &enrollment_ref, IfActive::Refuse, "bench", 1)?;

    let mut source = LocalSource::new(&path, node_id.clone(), u64::MAX)?;
    source.observe(0);
    per_call("observe, nothing changed", 200_000, || {
        black_box(source.observe(black_box(1)));
        Ok(())
    })?;
    let mut source = LocalSource::new(&path, node_id.clone(), 0)?;
    per_call("observe, the row read each time", 100_000, || {
        black_box(source.observe(black_box(1)));
        Ok(())
    })?;

    let mut source = LocalSource::new(&path, node_id.clone(), u64::MAX)?;
    source.observe(0);
    let mut seen = 0_u32;
    per_call("revoke or enroll, then observe", 300, || {
        match seen % 2 {
            0 => store.revoke(&node_id, "bench", 1)?,
            _ => store.enroll(&node_id, &enrollment_ref, IfActive::Refuse, "bench", 1)?,
        };
        seen += u32::from(matches!(source.observe(1), Observation::Changed(_)));
        Ok(())
    })?;
    println!("{:<40} {seen} of 300", "  seen by the next call");

    fill(&path)?;
    per_call("get, one of a million", 20_000, || {
        black_box(store.get(&node_id)?);
        Ok(())
    })?;
    let start = Instant::now();
    let mut nodes = 0_u32;
    store.for_each(&mut |enrollment| {
        black_box(&enrollment);
        nodes += 1;
        ControlFlow::Continue(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{:<40} {:>12.0} rows/s", "for_each, a million rows", f64::from(nodes) / seconds);
    Ok(())
}

fn per_call(
    what: &str,
    calls: u32,
    mut call: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        for _ in 0..calls / 3 {
            call()?;
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls / 3));
    }
    println!("{what:<40} {best:>12.0} ns/call");
    Ok(())
}

/// Writes the rows directly: a million synced transactions would measure the disk.
fn fill(path: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {NODES})
         INSERT INTO enrollment
         SELECT printf('node-%07d', i), printf('fleet/%d', i % 1000), 'active', '<none>', 1, 1, 1 FROM n"
    ))?;
    Ok(())
}
