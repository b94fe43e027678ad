//! How long one policy evaluation takes: alone, and with two threads sharing the policy.

use std::time::Instant;

use gate_core::identity::{PolicyRef, ToolName};
use host_native::policy::{Outcome, Policy};

const MODULE: &str = r#"package autonomy
default allow := false
allow if input.kind == "tool.echo"
allow if { input.kind == "tool.http_get"; startswith(input.params.url, "http://127.0.0.1:") }
"#;

#[allow(clippy::print_stdout, clippy::expect_used, reason = "a bench prints, and stops when something is wrong")]
fn main() {
    let policy_ref = PolicyRef::parse("bench@1").expect("a policy ref");
    let policy = Policy::compile(policy_ref, [("autonomy.rego", MODULE)], None).expect("a policy");
    let kind = ToolName::parse("tool.http_get").expect("a tool name");
    let params = serde_json::json!({"url": "http://127.0.0.1:8080/status"});
    for threads in [1_u32, 2] {
        let calls = 200_000_u32;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..calls {
                        assert_eq!(policy.evaluate(&kind, &params), Outcome::Allowed);
                    }
                });
            }
        });
        let each = begun.elapsed() / calls;
        println!("policy: {threads} thread(s), {each:?} a call in each");
    }
}
