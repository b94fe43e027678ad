//! Looks for inputs on which the module and gate-core differ, guided by coverage.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

use crate::{Result, ci};

/// The version that is installed where there is none; it is run by a nightly compiler, which it needs.
const CARGO_FUZZ: &str = "0.13.1";

/// Where the crate is.
const FUZZ: &str = "tests/fuzz";

/// Runs the target for so many seconds, from seeds that are made of the corpora.
pub fn run(root: &Path, seconds: &str) -> Result<()> {
    let seconds: u32 = seconds.parse().map_err(|_| format!("`{seconds}` is no number of seconds"))?;
    if !ci::succeeds("cargo fuzz --version") {
        ci::step("cargo-fuzz", ci::cargo(root).args(["install", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]))?;
    }
    let seeds = root.join("target/fuzz/seeds");
    write_seeds(root, &seeds)?;
    let corpus = root.join("target/fuzz/corpus");
    fs::create_dir_all(&corpus)?;
    let mut fuzz = Command::new("cargo");
    fuzz.args(["+nightly", "fuzz", "run", "--fuzz-dir", ".", "--target-dir"]).arg(root.join("target/fuzz/build"));
    fuzz.args(["--sanitizer", "none", "native_against_wasm"]).arg(corpus).arg(seeds);
    fuzz.args(["--", "-max_len=65536", &format!("-max_total_time={seconds}")]).current_dir(root.join(FUZZ));
    // The toolchain of the workspace is set for this program and what it starts.
    fuzz.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    ci::step("native_against_wasm", &mut fuzz)
}

/// A call as the target reads it.
fn call(which: u8, input: &[u8]) -> Vec<u8> {
    let length = u16::try_from(input.len()).unwrap_or(u16::MAX);
    [[which].as_slice(), &length.to_le_bytes(), input].concat()
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
    let decide = json!({"now_ms": now_ms, "audit_id": "a-1", "tool": "tool.echo", "policy": "policy: allowed"});
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
        let mut tar = Vec::new();
        for segment in bundle["tar"].as_array().cloned().unwrap_or_default() {
            match (segment.as_u64(), segment.as_str()) {
                (Some(zeros), _) => tar.resize(tar.len() + usize::try_from(zeros)?, 0),
                (None, text) => {
                    tar.extend(STANDARD.decode(text.unwrap_or_default()).map_err(|error| error.to_string())?)
                }
            }
        }
        for (t, telling) in tellings.iter().enumerate() {
            let now = now_ms.as_f64().unwrap_or_default().to_le_bytes();
            let seed = [
                call(0, configure.to_string().as_bytes()),
                call(1, &tar),
                telling.clone(),
                call(4, decide.to_string().as_bytes()),
                call(7, &now),
                call(8, &now),
            ];
            fs::write(seeds.join(format!("{b}-{t}")), seed.concat())?;
        }
    }
    Ok(())
}
