//! The demo plays the runbook for real, and leaves nothing behind.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};

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
    assert_eq!(code, Some(2));
    assert!(stderr.contains("name a new directory"), "{stderr}");
}

#[test]
fn a_demo_that_is_interrupted_stops_what_it_started_and_cleans_up() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Command::new(BINARY);
    // As a terminal does: everything that runs there is told at once.
    demo.arg("demo").process_group(0).env("TMPDIR", temporary.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("autonomy runtime start")));
    kill_process_group(Pid::from_child(&demo), Signal::INT).unwrap();
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    let ended = demo.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{said}{rest:?}");
    assert!(said.contains("error: interrupted before its end"), "{said}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_is_for_people() {
    let temporary = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = demo(&["--output", "json"], temporary.path());
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("the demo is for people to watch: leave out `--output json`"), "{stderr}");
}
