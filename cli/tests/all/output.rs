//! How the output reaches people, programs and readers that go away.

use std::{io, process::Stdio};

#[cfg(target_os = "linux")]
use crate::harness::on_terminal;
use crate::harness::{Home, Run, one_error};

const ESCAPE: char = '\u{1b}';

#[test]
fn colours_come_only_when_they_are_wanted() {
    let home = Home::ready();
    let run = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = home.command(arguments);
        Run::from(command.envs(variable).output().unwrap()).stdout
    };
    let list = ["node", "list"];
    let always = ["node", "list", "--color", "always"];
    assert!(!run(&list, None).contains(ESCAPE), "a pipe");
    assert!(!run(&list, Some(("NO_COLOR", "1"))).contains(ESCAPE));
    assert!(run(&list, Some(("CLICOLOR_FORCE", "1"))).contains(ESCAPE));
    assert!(!run(&["node", "list", "--color=never"], Some(("CLICOLOR_FORCE", "1"))).contains(ESCAPE));
    let coloured = run(&always, None);
    assert!(coloured.contains(ESCAPE));
    assert!(!run(&["node", "list", "--color", "always", "--output", "json"], None).contains(ESCAPE));
    // Colours do not move a column.
    let plain = anstream::adapter::strip_str(&coloured).to_string();
    assert_eq!(plain.lines().next(), run(&list, None).lines().next());
    let error = home.run("--color always node list --store gone");
    assert!(error.stderr.contains(ESCAPE), "{error:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::ready();
    for line in ["attestation explain", "attestation explain --output json", "node list", "completions bash", "--help"]
    {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = home.command(&line.split_whitespace().collect::<Vec<_>>());
        let run = Run::from(command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{line}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_an_error_of_help_too() {
    let home = Home::ready();
    for line in ["--help", "node list --help", "--version", "node list", "completions bash"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = home.command(&line.split_whitespace().collect::<Vec<_>>());
        let run = Run::from(command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap());
        let message = "cannot write the output (No space left on device (os error 28)): check where it goes";
        assert_eq!((run.code, one_error(&run)), (3, message.to_owned()), "{line}");
    }
}

#[test]
fn what_a_terminal_would_obey_is_shown_escaped() {
    let home = Home::with_source();
    let mut build: Vec<_> =
        "bundle build --source src --name a --version 1.0.0 --out a.tar --builder".split(' ').collect();
    build.push("\u{1b}[2Jgone\u{7}");
    let run = home.run_words(&build);
    if run.code == 0 {
        assert!(!run.stdout.contains(ESCAPE), "{run:?}");
        assert!(run.stdout.contains("\\u{1b}[2Jgone\\u{7}"), "{run:?}");
    } else {
        assert!(!run.stderr.contains(ESCAPE), "{run:?}");
    }
    let unknown = home.run_words(&["node", "show", "--store", "\u{1b}[31mred", "--node-id", "a"]);
    assert_eq!(unknown.code, 3);
    assert!(!unknown.stderr.contains(ESCAPE), "{unknown:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn frames_are_escaped_on_a_terminal_and_as_they_are_in_a_pipe() {
    use gate_core::{AuditId, Frame, frame::Kind};
    use host_native::wal::{Options, Wal};

    let home = Home::new();
    let id = "0196f0c2-7d3e-7a41-9f55-0c5d8e1b2a34";
    let evil = "a\u{7f}\u{9b}2Jb\u{202e}c\u{2066}\u{200f}\u{61c}\u{2028}é";
    let (wal, _) = Wal::open(home.path("wal"), Options::default()).unwrap();
    let frame = Frame {
        kind: Kind::Action,
        audit_id: AuditId::parse(id).unwrap(),
        node_id: None,
        attrs: format!(r#"{{"tool":"tool.echo","outcome":"{evil}","took_ms":0}}"#),
    };
    drop(wal.append(vec![frame]));
    wal.close().unwrap();

    let commands: [&[&str]; 3] = [
        &["wal", "inspect", "--wal-dir", "wal"],
        &["audit", "get", id, "--wal-dir", "wal"],
        &["audit", "get", id, "--wal-dir", "wal", "--output", "json"],
    ];
    for arguments in commands {
        let piped = home.run_words(arguments).stdout;
        assert!(piped.contains(evil), "{arguments:?}: {piped:?}");
        let (terminal, shown) = on_terminal();
        let status = home.command(arguments).stdout(terminal).status().unwrap();
        assert!(status.success(), "{arguments:?}");
        let shown = shown.join().unwrap();
        assert!(!shown.contains(|c| c != '\n' && gate_core::text::is_obeyed(c)), "{arguments:?}: {shown:?}");
        let line = |text: &str| text.lines().find(|line| line.contains("took_ms")).unwrap().to_owned();
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(&line(text)).unwrap();
        assert_eq!(parsed(&shown), parsed(&piped));
    }
}

#[test]
fn refusals_show_no_c1_controls_and_no_text_direction() {
    let home = Home::new();
    let run = home.run_words(&["node", "show", "--store", "\u{9b}31m\u{202e}\u{2069}red", "--node-id", "a"]);
    assert_eq!(run.code, 3);
    assert!(!run.stderr.trim_end().contains(gate_core::text::is_obeyed), "{run:?}");
    assert!(run.stderr.contains("\\u{9b}31m\\u{202e}\\u{2069}red"), "{run:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_long_log_is_read_with_a_bar_that_goes_away_and_only_on_a_terminal() {
    let home = Home::new();
    let id = "0196f0c2-7d3e-7a41-9f55-0c5d8e1b2a34";
    log_of(&home, "long", id, 9);
    log_of(&home, "short", id, 1);
    let on_stderr = |line: &str| {
        let (terminal, shown) = on_terminal();
        let mut command = home.command(&line.split_whitespace().collect::<Vec<_>>());
        command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(terminal);
        let run = command.spawn().unwrap().wait_with_output().unwrap();
        drop(command);
        (run.status.code(), shown.join().unwrap())
    };
    let get = format!("audit get {id}");
    // A log without calls is not safe to enforce on.
    let commands = [
        ("wal verify", 0),
        ("wal doctor", 0),
        ("attestation preview", 1),
        ("attestation replay", 0),
        ("audit list", 0),
        (&get, 0),
    ];
    for (line, code) in commands {
        let (exit, shown) = on_stderr(&format!("{line} --wal-dir long"));
        assert_eq!(exit, Some(code), "{line}: {shown:?}");
        assert!(shown.contains("/4.5"), "{line}: no bar: {shown:?}");
        let (_, after) = shown.rsplit_once("MiB").unwrap();
        assert!(after.contains("\u{1b}[2K"), "{line}: the bar stays: {shown:?}");
        let (_, shown) = on_stderr(&format!("{line} --wal-dir short"));
        assert!(!shown.contains("MiB"), "{line}: a bar for nothing: {shown:?}");
        let piped = home.run(&format!("{line} --wal-dir long"));
        assert!(!piped.stderr.contains("MiB") && !piped.stderr.contains(ESCAPE), "{line}: {piped:?}");
    }
}

/// A log with so many frames of half a MiB.
#[cfg(target_os = "linux")]
fn log_of(home: &Home, name: &str, id: &str, frames: usize) {
    use gate_core::{AuditId, Frame, frame::Kind};
    use host_native::wal::{Options, Wal};

    let (wal, _) = Wal::open(home.path(name), Options::default()).unwrap();
    for _ in 0..frames {
        drop(wal.append(vec![Frame {
            kind: Kind::Action,
            audit_id: AuditId::parse(id).unwrap(),
            node_id: None,
            attrs: format!(r#"{{"tool":"tool.echo","outcome":"{}","took_ms":0}}"#, "x".repeat(512 * 1024)),
        }]));
    }
    wal.close().unwrap();
}
