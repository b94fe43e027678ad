//! The demo plays the runbook for real, and leaves nothing behind.

use std::{fs, process::Command};

use crate::harness::BINARY;

fn demo(arguments: &[&str], temporary: &std::path::Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    // Whatever the caller has set is not the demo's.
    command.args(["demo", "--color", "never"]).args(arguments).env("TMPDIR", temporary);
    let output = command.env("AUTONOMY_WAL_DIR", "/nowhere").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_demo_ends_with_a_denied_call_its_frames_and_the_remedy_and_cleans_up() {
    let temporary = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = demo(&[], temporary.path());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let last = stdout.rsplit("\n9. ").next().unwrap();
    for part in [
        "outcome=deny",
        "reason=attestation: enrollment_revoked",
        "remedy=enroll the node again",
        r#""layer":"policy","tool":"tool.echo","outcome":"allow""#,
        r#""layer":"attestation","tool":"tool.echo","outcome":"deny""#,
    ] {
        assert!(last.contains(part), "{part}: {last}");
    }
    let statuses: Vec<_> = stdout.lines().filter_map(|line| line.strip_prefix("         ")?.get(..3)).collect();
    let expected = "200 200 200 200 200 200 200 403 403 200 200 200 200 403 200";
    assert_eq!(statuses.join(" "), expected, "off, advisory, enforce, mended, revoked; three nodes each");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn what_is_kept_can_be_looked_at_and_is_never_overwritten() {
    let temporary = tempfile::tempdir().unwrap();
    let home = temporary.path().join("kept");
    let (code, stdout, stderr) = demo(&["--keep", home.to_str().unwrap()], temporary.path());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let listed = Command::new(BINARY).args(["node", "list", "--home"]).arg(&home).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("robot-2"));
    let (code, _, stderr) = demo(&["--keep", home.to_str().unwrap()], temporary.path());
    assert_eq!(code, Some(3));
    assert!(stderr.contains("name a new directory"), "{stderr}");
}
