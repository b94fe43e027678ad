//! The help of every command, its examples, completions and manual pages.

use std::{collections::BTreeSet, fs, process::Command};

use host_native::config::KEYS;

use crate::harness::{BINARY, Home, Run};

/// Every command, by its words; a manual page for each is how they are found.
fn commands(home: &Home) -> Vec<Vec<String>> {
    home.ok("man --out man");
    let mut pages: Vec<_> = fs::read_dir(home.path("man"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.trim_end_matches(".1").split('-').skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    pages.sort();
    assert!(pages.len() > 35, "{pages:?}");
    pages
}

/// A line that is indented further goes on with the one before.
fn examples(help: &str) -> Vec<String> {
    let after = help.split("Examples:\n").nth(1).unwrap_or_default();
    let mut examples: Vec<String> = Vec::new();
    for line in after.lines().take_while(|line| line.starts_with("  ")) {
        assert!(line.len() <= 78, "wrapped on a small terminal: {line}");
        match examples.last_mut() {
            Some(example) if line.starts_with("    ") => example.push_str(&format!("\n{line}")),
            _ => examples.push(line.trim_start().to_owned()),
        }
    }
    examples
}

#[test]
fn every_command_has_help_and_an_example() {
    let home = Home::new();
    let commands = commands(&home);
    for words in &commands {
        let mut arguments: Vec<_> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let run = home.run_words(&arguments);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{words:?}");
        assert!(!examples(&run.stdout).is_empty(), "{words:?} has no example: {}", run.stdout);
        let page = fs::read_to_string(
            home.path("man").join([&["autonomy".to_owned()], words.as_slice()].concat().join("-") + ".1"),
        );
        assert!(page.unwrap().contains(".TH"), "{words:?}");
    }
}

#[test]
fn every_setting_that_help_names_is_one() {
    let home = Home::new();
    let mut named = BTreeSet::new();
    for words in commands(&home) {
        let mut arguments: Vec<_> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = home.run_words(&arguments).stdout;
        for name in help.split('`').skip(1).step_by(2) {
            let table = name.split_once('.').map(|(table, _)| format!("{table}."));
            let is_setting = table.is_some_and(|table| KEYS.iter().any(|key| key.name.starts_with(&table)));
            if is_setting || (name.starts_with("AUTONOMY_") && !["AUTONOMY_HOME", "AUTONOMY_CONFIG"].contains(&name)) {
                assert!(KEYS.iter().any(|key| [key.name, key.env].contains(&name)), "{words:?} names `{name}`");
                named.insert(name.to_owned());
            }
        }
    }
    assert!(named.len() > 20, "{named:?}");
}

/// Where an example needs what a test does not have.
const NOT_RUN: [&str; 14] = [
    "runtime start",
    "wal drain",
    "host serve",
    "orchestrator serve",
    "fleet.example.com",
    "--follow",
    "audit get 0196",
    "logs/robot-7",
    "> /etc/",
    "> ~/",
    "/run/",
    "/usr/local/",
    "registry.example",
    "localhost:5000",
];

/// The order in which examples can be run one after the other.
const ORDER: [&str; 9] =
    ["key", "bundle build", "bundle sign", "bundle push", "bundle", "node enroll", "rollout", "attestation", ""];

#[test]
fn every_example_works_as_it_stands() {
    let home = Home::with_source();
    let mut lines = Vec::new();
    for words in commands(&home) {
        let mut arguments: Vec<_> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        lines.extend(examples(&home.run_words(&arguments).stdout));
    }
    lines.retain(|line| !NOT_RUN.iter().any(|part| line.contains(part)));
    // A group shows what its commands show.
    let mut seen = BTreeSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    lines.sort_by_key(|line| ORDER.iter().position(|part| line.contains(&format!("autonomy {part}"))));
    assert!(lines.len() > 40, "{lines:?}");
    // A log for the commands that read one.
    home.ok("key generate --out for-log.pem");
    home.ok("bundle build --source src --name a --version 1.0.0 --enrollment-ref fleet-a --key for-log.pem --out for-log.tar");
    let runtime = home.start("--bundle for-log.tar --trusted-key for-log.pem.pub --node-id robot-7 --mode advisory");
    assert_eq!(runtime.echo().0, 200);
    runtime.stop();
    // And a lease, which need not hold.
    fs::write(home.path("lease.json"), "{}").unwrap();
    let bin = std::path::Path::new(BINARY).parent().unwrap();
    let path = std::env::join_paths([bin, "/usr/local/bin".as_ref(), "/usr/bin".as_ref(), "/bin".as_ref()]).unwrap();
    for line in lines {
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(home.path("")).env_clear();
        let run = Run::from(shell.env("PATH", &path).env("AUTONOMY_HOME", home.path("")).output().unwrap());
        // The gate would deny.
        assert!(run.code <= 1, "{line}: {run:?}");
    }
}

#[test]
fn completions_come_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = home.ok(&format!("completions {shell}"));
        assert!(script.contains("--enrollment-ref") || script.contains("-l enrollment-ref"), "{shell}");
    }
    for shell in ["bash", "fish", "zsh"] {
        assert!(home.ok(&format!("completions {shell}")).contains("not_enrolled"), "{shell} completes values");
    }
}

#[test]
fn asking_for_nothing_shows_the_commands() {
    let home = Home::new();
    let run = home.run("");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("\nCommands:\n") && run.stderr.contains("Exit codes: 0 done, 1 the gate would deny"));
    assert!(home.ok("--version").starts_with("autonomy "));
}
