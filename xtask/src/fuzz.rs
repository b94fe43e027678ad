//! Looks for inputs on which the module and gate-core differ, guided by coverage.

use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

use crate::{Result, ci, corpus};

/// The version that is installed where there is none; it is run by a nightly compiler, which it needs.
const CARGO_FUZZ: &str = "0.13.1";

/// Where the crate is.
const FUZZ: &str = "tests/fuzz";

/// Runs the target for so many seconds, from seeds that are made of the corpora.
pub fn run(root: &Path, seconds: &str) -> Result<()> {
    let seconds: u32 = seconds.parse().map_err(|_| format!("`{seconds}` is no number of seconds"))?;
    let cargo_fuzz = ci::install_tool(root, "cargo-fuzz", CARGO_FUZZ)?;
    let seeds = root.join("target/fuzz/seeds");
    write_seeds(root, &seeds)?;
    let found = root.join("target/fuzz/corpus");
    fs::create_dir_all(&found)?;
    let mut fuzz = Command::new(cargo_fuzz);
    fuzz.args(["fuzz", "run", "--fuzz-dir", ".", "--target-dir"]).arg(root.join("target/fuzz/build"));
    fuzz.args(["--release", "--sanitizer", "none", "native_against_wasm"]).arg(found).arg(seeds);
    fuzz.args(["--", "-max_len=65536", &format!("-max_total_time={seconds}")]).current_dir(root.join(FUZZ));
    // Not the workspace's, which is set for this program and what it starts.
    fuzz.env("RUSTUP_TOOLCHAIN", "nightly").env_remove("CARGO");
    ci::step("native_against_wasm", &mut fuzz)
}

/// Runs the target for a little while, where there is the nightly compiler that it needs.
pub fn test(root: &Path) -> Result<()> {
    if ci::succeeds("rustup run nightly rustc --version") {
        return run(root, "20");
    }
    println!("SKIPPED the fuzz target: run `rustup toolchain install nightly`");
    Ok(())
}

/// Sees that the target compiles: a stable compiler can do that.
pub fn lint(root: &Path) -> Result<()> {
    let mut clippy = ci::cargo(root);
    clippy.args(["clippy", "--locked", "--quiet", "--manifest-path"]).arg(root.join(FUZZ).join("Cargo.toml"));
    ci::step("lints of the fuzz target", clippy.args(["--", "-D", "warnings"]))
}

/// A call as the target reads it. Of a longer input, what fits.
fn call(which: u8, input: &[u8]) -> Vec<u8> {
    let length = u16::try_from(input.len()).unwrap_or(u16::MAX);
    [[which].as_slice(), &length.to_le_bytes(), input.get(..usize::from(length)).unwrap_or(input)].concat()
}

fn write_seeds(root: &Path, seeds: &Path) -> Result<()> {
    fs::create_dir_all(seeds)?;
    let decisions: Value = serde_json::from_slice(&fs::read(root.join("tests/corpus/decision.json"))?)?;
    let (settings, now_ms) = (&decisions["settings"], &decisions["settings"]["now_ms"]);
    let values = |at: usize| decisions["dimensions"][at]["values"].as_array().cloned().unwrap_or_default();
    let configure = json!({
        "mode": "enforce", "node_id": "robot-7",
        "bundle_keys": settings["bundle_keys"], "bundle_threshold": settings["bundle_threshold"],
        "lease_keys": settings["lease_keys"], "lease_threshold": settings["lease_threshold"],
    });
    // As bindings write it; the target puts the facts of the decision before in.
    let decide = |audit_id: &str, logged: &str| {
        let start = format!(r#"{{"now_ms":{now_ms},"audit_id":"{audit_id}","tool":"tool.echo""#);
        format!(r#"{start},"policy":"policy: allowed"{logged}}}"#).into_bytes()
    };
    let logged = ",\"facts_logged\":\"\u{1}\"";
    let row = json!({
        "node_id": "robot-7", "enrollment_ref": "fleet-a", "status": "active", "rollout_state": "<none>", "serial": 1,
    });
    let mut tellings = vec![call(
        2,
        json!({"answer": "enrolled", "enrollment": row, "observed_at_ms": now_ms}).to_string().as_bytes(),
    )];
    for answer in values(4) {
        let leases = answer["leases"].as_array().cloned().unwrap_or_default();
        tellings.extend(leases.iter().take(3).filter_map(Value::as_str).map(|lease| call(3, lease.as_bytes())));
    }
    for (b, bundle) in values(2).iter().enumerate() {
        let tar = corpus::unpack(&bundle["tar"])?;
        for (t, telling) in tellings.iter().enumerate() {
            let now = now_ms.as_f64().unwrap_or_default().to_le_bytes();
            let seed = [
                call(0, configure.to_string().as_bytes()),
                call(1, &tar),
                telling.clone(),
                call(4, &decide("a-1", "")),
                call(4, &decide("a-2", logged)),
                call(4, &decide("a-3", logged)),
                call(7, &now),
                call(8, &now),
            ];
            fs::write(seeds.join(format!("{b}-{t}")), seed.concat())?;
        }
    }
    Ok(())
}
