//! How long one policy evaluation takes: alone, and with two threads sharing the policy.
//! `cargo bench -p host-native --bench policy`

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

use std::{thread, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use gate_core::identity::{PolicyRef, ToolName};
use host_native::policy::{Outcome, Policy};

const MODULE: &str = r#"package autonomy
default allow := false
allow if input.kind == "tool.echo"
allow if { input.kind == "tool.http_get"; startswith(input.params.url, "http://127.0.0.1:") }
"#;

fn main() {
    let policy_ref = PolicyRef::parse("bench@1").unwrap();
    let policy = Policy::compile(policy_ref, [("autonomy.rego", MODULE)], None).unwrap();
    let kind = ToolName::parse("tool.http_get").unwrap();
    let params = serde_json::json!({"url": "http://127.0.0.1:8080/status"});
    let evaluate = |iters| (0..iters).for_each(|_| assert_eq!(policy.evaluate(&kind, &params), Outcome::Allowed));

    let mut times = Criterion::default().configure_from_args();
    let mut group = times.benchmark_group("evaluate");
    for threads in [1, 2] {
        group.throughput(Throughput::Elements(threads));
        group.bench_function(BenchmarkId::new("threads", threads), |bencher| {
            bencher.iter_custom(|iters| {
                let begun = Instant::now();
                thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(|| evaluate(iters)))));
                begun.elapsed()
            });
        });
    }
}
