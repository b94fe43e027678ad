//! How long one policy evaluation takes: alone, and with two threads sharing the policy.
//! `cargo bench -p host-native --bench policy`

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark stops where it fails")]

use divan::Bencher;
use gate_core::identity::{PolicyRef, ToolName};
use host_native::policy::{Outcome, Policy};

const MODULE: &str = r#"package autonomy
default allow := false
allow if input.kind == "tool.echo"
allow if { input.kind == "tool.http_get"; startswith(input.params.url, "http://127.0.0.1:") }
"#;

fn main() {
    divan::main();
}

#[divan::bench(threads = [1, 2])]
fn evaluate(bencher: Bencher<'_, '_>) {
    let policy_ref = PolicyRef::parse("bench@1").unwrap();
    let policy = Policy::compile(policy_ref, [("autonomy.rego", MODULE)], None).unwrap();
    let kind = ToolName::parse("tool.http_get").unwrap();
    let params = serde_json::json!({"url": "http://127.0.0.1:8080/status"});
    bencher.bench(|| assert_eq!(policy.evaluate(&kind, &params), Outcome::Allowed));
}
