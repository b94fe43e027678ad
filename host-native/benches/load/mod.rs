//! Callers that share out a turn's operations, and the table of what both sides took.
#![allow(unreachable_pub, reason = "a module of several benchmarks")]

use std::{
    mem,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::ratio::{Took, ratio};

/// All operations of a turn, and each.
pub type Latencies = Took<Vec<Duration>>;

/// Threads that do one operation after the other until there are so many.
pub fn threads<F: FnMut()>(callers: usize, iters: u64, caller: impl Fn() -> F + Sync) -> Latencies {
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let run = || {
        let (mut operation, mut latencies, mut now) = (caller(), Vec::new(), Instant::now());
        while next.fetch_add(1, Ordering::Relaxed) < iters {
            operation();
            let then = mem::replace(&mut now, Instant::now());
            latencies.push(now - then);
        }
        latencies
    };
    let latencies = thread::scope(|scope| {
        let callers: Vec<_> = (0..callers).map(|_| scope.spawn(run)).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    (begun.elapsed(), latencies)
}

/// The table's heading; each row begins with its `key`.
pub fn heading(key: &str, one: &str, other: &str, unit: &str) -> String {
    let columns = key.matches('|').count();
    format!(
        "\n| {key} | {one} {unit} | p50 | p99 | {other} {unit} | p50 | p99 | {one} / {other} |\n| --- |{}",
        " ---: |".repeat(columns + 7)
    )
}

/// A row of it. The ratio is the one of the rates that criterion printed.
pub fn row(key: &str, turns: &[[Latencies; 2]]) -> Option<String> {
    let side = |at: usize| {
        let total: Duration = turns.iter().map(|turn| turn[at].0).sum();
        let mut latencies: Vec<_> = turns.iter().flat_map(|turn| &turn[at].1).collect();
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_micros();
        let rate = latencies.len() as f64 / total.as_secs_f64();
        format!("{rate:.0} | {} µs | {} µs", percentile(50), percentile(99))
    };
    let ratio = turns.len() as f64 / turns.iter().map(ratio).sum::<f64>();
    (!turns.is_empty()).then(|| format!("| {key} | {} | {} | {ratio:.2} |", side(0), side(1)))
}
