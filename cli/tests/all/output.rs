//! How the output reaches people, programs and readers that go away.

use std::{io, process::Stdio};

use crate::harness::{Home, Run};

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
