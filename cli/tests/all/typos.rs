//! What people mistype, and what they are told.

use std::fs;

use crate::harness::{Home, Run, one_error};

#[test]
fn each_mistyped_word_is_refused_in_one_line_with_its_remedy() {
    let home = Home::ready();
    let rule = "use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`";
    let modes = "use `off`, `advisory` or `enforce`";
    let cases: &[(&[&str], String)] = &[
        (&["runtime", "start", "--mode", "enforced"], format!("flag `--mode`: mode `enforced` is not known: {modes}")),
        (&["runtime", "start", "--mode", "Enforce"], format!("flag `--mode`: mode `Enforce` is not known: {modes}")),
        (&["runtime", "start", "--mode", ""], format!("flag `--mode`: mode `` is not known: {modes}")),
        (&["config", "set", "attestation.mode", "on"], format!("setting `attestation.mode`: mode `on` is not known: {modes}")),
        (&["attestation", "status", "--node-id", "robot 7"], format!("flag `--node-id`: node id `robot 7` holds ` `: {rule}")),
        (&["attestation", "status", "--node-id", ""], format!("flag `--node-id`: node id is empty: {rule}")),
        (
            &["attestation", "status", "--node-id", "robot\u{2013}7"],
            "flag `--node-id`: node id `robot\u{2013}7` holds `\u{2013}` (U+2013), which only looks like `-`: type a plain `-`".into(),
        ),
        (
            &["attestation", "status"],
            "no node id: give `--node-id ID`, or set `AUTONOMY_NODE_ID` or `identity.node_id`".into(),
        ),
        (&["node", "show", "--node-id", "Robot-7"], "node `Robot-7` is not enrolled: `robot-7` is, did you mean that?".into()),
        (&["node", "show", "--node-id", "robot-77"], "node `robot-77` is not enrolled: see `autonomy node list` for those that are".into()),
        (
            &["node", "enroll", "--node-id", "Robot-7", "--enrollment-ref", "fleet-a"],
            "node id `Robot-7` differs only in case from the enrolled `robot-7`: use `robot-7`, or choose another id".into(),
        ),
        (&["node", "revoke", "--node-id", "ROBOT-7"], "node `ROBOT-7` is not enrolled: `robot-7` is, did you mean that?".into()),
        (
            &["node", "revoke", "--node-id", "robot-7", "--by", ""],
            "who makes the change, ``, is not a name: use 1 to 256 bytes without control characters".into(),
        ),
        (&["bundle", "verify", "bundle.tar", "--threshold", "0"], "flag `--threshold`: `0` is too small: give a whole number from 1".into()),
        (&["bundle", "verify", "bundle.tar", "--threshold", "two"], "flag `--threshold`: `two` is not a whole number from 1 to 9223372036854775807: give one".into()),
        (
            &["bundle", "verify", "bundle.tar", "--threshold", "2"],
            "trusted keys: threshold `2` does not fit 1 trusted keys: use 1 to 1".into(),
        ),
        (
            &["bundle", "verify", "bundle.tar", "--trusted-key", "keys/bundle.pem"],
            "trusted key `keys/bundle.pem`: PEM of a `PRIVATE KEY`, not of a public key: give its public half".into(),
        ),
        (
            &["bundle", "verify", "bundle.tar", "--trusted-key", "a:b.pub"],
            "flag `--trusted-key`: a path may not hold the character that separates paths: rename it".into(),
        ),
        (&["runtime", "start", "--listen", "localhost:80"], "flag `--listen`: address `localhost:80` is not known: use `<ip>:<port>`, such as `127.0.0.1:7777`".into()),
        (&["node", "list", "--store", ""], "flag `--store`: is empty: give a value, or leave it out".into()),
    ];
    for (arguments, message) in cases {
        let run = home.run_words(arguments);
        assert_eq!((run.code, one_error(&run)), (2, message.clone()), "{arguments:?}");
        assert_eq!(run.stdout, "");
        let mut arguments = arguments.to_vec();
        arguments.extend(["--output", "json"]);
        let error: serde_json::Value = serde_json::from_str(&home.run_words(&arguments).stderr).unwrap();
        assert_eq!(error, serde_json::json!({ "error": message, "class": "usage" }));
    }
}

#[test]
fn each_mistake_on_the_command_line_is_one_line_with_its_remedy() {
    let home = Home::new();
    let long = "x".repeat(200);
    let cut = format!("argument `{}…` is not known: leave it out, or see `autonomy node list --help`", "x".repeat(80));
    let cases: &[(&[&str], &str)] = &[
        // Words that are not known.
        (&["nod", "list"], "command `autonomy nod` is not known: did you mean `autonomy node`?"),
        (&["node", "enrol"], "command `autonomy node enrol` is not known: did you mean `autonomy node enroll`?"),
        (&["frobnicate"], "command `autonomy frobnicate` is not known: see `autonomy --help`"),
        (&["node", "list", "--limt", "3"], "flag `--limt` is not known: did you mean `--limit`?"),
        (&["node", "list", "--limt=3"], "flag `--limt` is not known: did you mean `--limit`?"),
        (&["node", "list", "-x"], "flag `-x` is not known: leave it out, or see `autonomy node list --help`"),
        (
            &["audit", "get", "-z"],
            "flag `-z` is not known: to pass `-z` as a value, use `-- -z`, or see `autonomy audit get --help`",
        ),
        (&["node", "list", "all"], "argument `all` is not known: leave it out, or see `autonomy node list --help`"),
        (&["node", "list", &long], &cut),
        // Choices.
        (
            &["attestation", "explain", "not_enroled"],
            "argument `[REASON]`: `not_enroled` is not known: did you mean `not_enrolled`?",
        ),
        (
            &["rollout", "set", "--node-id", "a", "--state", "faild"],
            "flag `--state`: `faild` is not known: did you mean `failed`?",
        ),
        (
            &["rollout", "set", "--node-id", "a", "--state", "done"],
            "flag `--state`: `done` is not known: use `none`, `pending`, `acknowledged`, `active`, `rolled_back` or `failed`",
        ),
        (
            &["bundle", "build", "--channel", "stabel"],
            "flag `--channel`: `stabel` is not known: did you mean `stable`?",
        ),
        (
            &["config", "get", "attestation.mdoe"],
            "argument `<KEY>`: `attestation.mdoe` is not known: did you mean `attestation.mode`?",
        ),
        (
            &["attestation", "preview", "--mode", "off"],
            "flag `--mode`: `off` is not known: use `advisory` or `enforce`",
        ),
        (
            &["wal", "inspect", "--kind", "autonomy.decisions"],
            "flag `--kind`: `autonomy.decisions` is not known: did you mean `autonomy.decision`?",
        ),
        (&["node", "list", "--output", "jsn"], "flag `--output`: `jsn` is not known: did you mean `json`?"),
        (&["node", "list", "--output", "yaml"], "flag `--output`: `yaml` is not known: use `text` or `json`"),
        (&["completions", "tcsh"], "argument `<SHELL>`: `tcsh` is not known: did you mean `zsh`?"),
        // Values with a rule.
        (
            &["wal", "inspect", "--since", "yesterday"],
            "flag `--since`: time `yesterday` is not known: use one such as `2026-01-31T08:00:00Z`, or an age such as `15m`, `2h` or `7d`",
        ),
        (
            &["node", "enroll", "--node-id", "a b"],
            "flag `--node-id`: node id `a b` holds ` `: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`",
        ),
        (&["wal", "prune", "--prune", "all"], "flag `--prune`: `all` is not known: use `drained` or `any`"),
        (&["node", "list", "--limit", "0"], "flag `--limit`: `0` is not a whole number from 1 to 4294967295: give one"),
        (
            &["audit", "list", "--limit", "many"],
            "flag `--limit`: `many` is not a whole number from 1 to 4294967295: give one",
        ),
        (
            &["wal", "drain", "--patience-ms", "soon"],
            "flag `--patience-ms`: `soon` is not a whole number from 0 to 4294967295: give one",
        ),
        (
            &["node", "show", "--history=-1"],
            "flag `--history`: `-1` is not a whole number from 0 to 4294967295: give one",
        ),
        (
            &["wal", "inspect", "--since", "-5m"],
            "flag `-5` is not known: where it is a flag's value, put `=` between the two",
        ),
        // A number is a value, also where it is below zero.
        (
            &["config", "set", "attestation.threshold", "-5"],
            "setting `attestation.threshold`: `-5` is too small: give a whole number from 1",
        ),
        (
            &["config", "set", "attestation.mode", "-5", "--output", "text"],
            "setting `attestation.mode`: mode `-5` is not known: use `off`, `advisory` or `enforce`",
        ),
        // A setting by the flag that it was given with.
        (&["wal", "drain", "--to", ""], "flag `--to`: is empty: give a value, or leave it out"),
        (
            &["wal", "drain", "--to", "ftp://x"],
            "flag `--to`: url `ftp://x` does not start with `http://` or `https://`: put that, in lower case, before it",
        ),
        (&["wal", "drain", "--drain-to", ""], "flag `--to`: is empty: give a value, or leave it out"),
        (&["wal", "drain", "--token-file", ""], "flag `--token-file`: is empty: give a value, or leave it out"),
        (&["wal", "drain", "--ca-file", ""], "flag `--ca-file`: is empty: give a value, or leave it out"),
        (&["host", "token", "--out", ""], "flag `--out`: is empty: give a value, or leave it out"),
        (&["runtime", "start", "--drain-to", ""], "flag `--drain-to`: is empty: give a value, or leave it out"),
        // What would not be looked at.
        (
            &["attestation", "eval", "--bundle", "a", "--node-id", "a", "--lease-key", "k"],
            "`--lease <FILE>` is missing: give it, or see `autonomy attestation eval --help`",
        ),
        (
            &["attestation", "eval", "--bundle", "a", "--node-id", "a", "--lease-threshold", "2"],
            "`--lease <FILE>` is missing: give it, or see `autonomy attestation eval --help`",
        ),
        (
            &["wal", "drain", "--to", "http://127.0.0.1:4318", "--ca-file", "ca.pem"],
            "collector: `ca.pem` is for tls, and `http://127.0.0.1:4318` is asked without: use https, or leave it out",
        ),
        (
            &["runtime", "start", "--drain-to", "http://localhost", "--drain-ca", "ca.pem"],
            "collector: `ca.pem` is for tls, and `http://localhost` is asked without: use https, or leave it out",
        ),
        (
            &["node", "list", "--orchestrator-url", "http://127.0.0.1:1", "--orchestrator-ca", "ca.pem"],
            "orchestrator: `ca.pem` is for tls, and `http://127.0.0.1:1` is asked without: use https, or leave it out",
        ),
        (
            &[
                "node",
                "list",
                "--orchestrator-url",
                "http://127.0.0.1:1",
                "--orchestrator-client-cert",
                "c.pem",
                "--orchestrator-client-key",
                "k.pem",
            ],
            "orchestrator: `c.pem` is for tls, and `http://127.0.0.1:1` is asked without: use https, or leave it out",
        ),
        // Something is missing.
        (&["node", "list", "--status"], "flag `--status` has no value: use `active` or `revoked`"),
        (&["runtime", "start", "--bundle"], "flag `--bundle` has no value: write `--bundle <FILE>`"),
        (
            &["node", "enroll", "--node-id", "--enrollment-ref", "a"],
            "flag `--node-id` has no value: write `--node-id <ID>`",
        ),
        (&["bundle", "verify", ""], "argument `<BUNDLE>` has no value: write `<BUNDLE>`"),
        (&["bundle", "verify"], "`<BUNDLE>` is missing: give it, or see `autonomy bundle verify --help`"),
        (
            &["node", "enroll"],
            "`--node-id <ID>` and `--enrollment-ref <REF>` are missing: give them, or see `autonomy node enroll --help`",
        ),
        (
            &["bundle", "build", "--name", "a"],
            "`--source <DIR>`, `--version <VERSION>` and `--out <FILE>` are missing: give them, or see `autonomy bundle build --help`",
        ),
        (
            &["bundle", "sign", "a.tar", "--key", "k", "--force"],
            "`--out <FILE>` is missing: give it, or see `autonomy bundle sign --help`",
        ),
        (&["config", "--home", "a"], "`autonomy config` is no command by itself: add `get`, `set`, `unset` or `show`"),
        // Too much of it.
        (
            &["runtime", "start", "--bundle", "a", "--policy-dir", "b"],
            "`--bundle <FILE>` does not go with `--policy-dir <DIR>`: leave one of them out",
        ),
        (
            &["attestation", "eval", "--bundle", "a", "--node-id", "a", "--all-nodes"],
            "`--node-id <ID>` does not go with `--all-nodes`: leave one of them out",
        ),
        (&["node", "list", "--limit", "1", "--limit", "2"], "`--limit <N>` is given more than once: give it once"),
        (
            &["attestation", "eval", "--bundle", "a", "--all-nodes=yes"],
            "flag `--all-nodes`: `yes` is one value too many: leave it out, or see `autonomy attestation eval --help`",
        ),
    ];
    for (arguments, message) in cases {
        let run = home.run_words(arguments);
        assert_eq!((run.code, one_error(&run), run.stdout.as_str()), (2, (*message).to_owned(), ""), "{arguments:?}");
    }
    let run = home.run("node list --limt 3 --output json");
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"], "flag `--limt` is not known: did you mean `--limit`?");
}

#[test]
fn a_word_that_is_not_utf_8_is_refused_in_one_line() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let home = Home::new();
    let mut command = home.command(&["node", "list", "--after"]);
    let run = Run::from(command.arg(OsStr::from_bytes(b"robot-\xff")).output().unwrap());
    let message = r"`robot-\xFF` is not UTF-8: write it in UTF-8, or see `autonomy node list --help`";
    assert_eq!((run.code, one_error(&run)), (2, message.to_owned()));
    // A path may be of any bytes: which of the two it is cannot be told.
    let mut command = home.command(&["--config"]);
    command.arg(OsStr::from_bytes(b"\xfe.toml")).args(["node", "list", "--after"]);
    let run = Run::from(command.arg(OsStr::from_bytes(b"robot-\xff")).output().unwrap());
    let message = r"`\xFE.toml` or `robot-\xFF` is not UTF-8: write it in UTF-8, or see `autonomy node list --help`";
    assert_eq!((run.code, one_error(&run)), (2, message.to_owned()));
}

#[test]
fn a_group_of_commands_alone_shows_what_is_in_it() {
    let home = Home::new();
    for group in ["bundle", "node", "attestation", "wal"] {
        let run = home.run(group);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains("\nCommands:\n"), "{run:?}");
    }
}

#[test]
fn each_mistyped_variable_or_key_of_the_config_file_is_refused_before_anything_is_done() {
    let home = Home::ready();
    let with = |name: &str, value: &str| {
        let run = Run::from(home.command(&["node", "list"]).env(name, value).output().unwrap());
        assert_eq!(run.code, 2, "{name}: {run:?}");
        one_error(&run)
    };
    for name in ["AUTONOMY_ATESTATION_MODE", "AUTONOMY_MODE", "AUTONOMY_ATTESTATION_MODES"] {
        let meant = "did you mean `AUTONOMY_ATTESTATION_MODE`: set that, or unset it";
        assert_eq!(with(name, "off"), format!("environment variable `{name}` is not known, {meant}"));
    }
    let unknown = with("AUTONOMY_ATTESTATION_MOTIVE", "off");
    assert!(
        unknown.starts_with(
            "environment variable `AUTONOMY_ATTESTATION_MOTIVE` is not known: use one of `AUTONOMY_ATTESTATION_MODE`"
        ),
        "{unknown}"
    );
    assert_eq!(
        with("AUTONOMY_ATTESTATION_MODE", ""),
        "environment variable `AUTONOMY_ATTESTATION_MODE`: mode `` is not known: use `off`, `advisory` or `enforce`"
    );
    assert!(with("AUTONOMY_CONFIG", "").ends_with("`AUTONOMY_CONFIG`: is empty: name a file, or unset it"));
    let nowhere = home.fails(3, "bundle verify bundle.tar --trust-dir nowhere");
    assert!(nowhere.starts_with("trust directory `nowhere` ("), "{nowhere}");
    fs::write(home.path("taken"), "").unwrap();
    let untrusted = home.fails(2, "key generate --out new.pem --trust --trust-dir taken");
    assert!(
        untrusted.starts_with("cannot trust the key as `taken/") && untrusted.ends_with("`--trust-dir`"),
        "{untrusted}"
    );
    assert!(
        !home.path("new.pem").exists() && !home.path("new.pem.pub").exists(),
        "the next try may have the same name"
    );
    let no_directory = home.fails(2, "runtime start --bundle bundle.tar --wal-dir taken --listen 127.0.0.1:0");
    assert!(no_directory.ends_with("give a directory, or move what is there away"), "{no_directory}");
    let when = home.fails(2, "bundle build --source src --name a --version 1.0.0 --out b.tar --built-at yesterday");
    assert!(when.contains("write RFC 3339"), "{when}");
    home.ok("rollout set --node-id robot-7 --state none");
    assert!(with("AUTONOMY_HOME", "").ends_with("`AUTONOMY_HOME`: is empty: name a directory, or unset it"));
    assert_eq!(
        with("AUTONOMY_ORCHESTRATOR_URL", "http://x"),
        "environment variable `AUTONOMY_ORCHESTRATOR_URL`: url `http://x` is neither https nor on this machine: use https, so that nobody between reads the token"
    );
    for (file, part) in [
        ("[attestation]\nmodus = \"off\"", "unknown field `modus`"),
        ("[atestation]\nmode = \"off\"", "unknown field `atestation`"),
        ("[attestation]\nmode = \"on\"", "mode `on` is not known: use `off`, `advisory` or `enforce`"),
        ("[attestation", "TOML parse error at line 1"),
    ] {
        fs::write(home.path("config.toml"), file).unwrap();
        let error = home.fails(2, "node list");
        assert!(error.starts_with("config file `") && error.contains(part), "{error}");
    }
}

/// What is missing may come, and is waited for; what is something else than it must be is for who named it to correct.
#[test]
fn a_path_that_is_missing_ends_with_3_and_one_that_is_of_the_wrong_kind_with_2_whatever_it_is_for() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::ready();
    home.ok("orchestrator token --name ops --role operator --out ops.token");
    drop(home.start("--bundle bundle.tar --node-id robot-7 --mode off"));
    fs::create_dir(home.path("directory")).unwrap();
    fs::write(home.path("junk"), "junk\njunk\n").unwrap();
    fs::set_permissions(home.path("junk"), fs::Permissions::from_mode(0o600)).unwrap();
    let runtime = "runtime start --listen 127.0.0.1:0";
    let status = "attestation status --node-id robot-7 --orchestrator-url https://127.0.0.1:1";
    let orchestrator = "orchestrator serve --listen 127.0.0.1:0 --signing-key keys/bundle.pem";
    let drain = "--bundle bundle.tar --drain-to https://127.0.0.1:1";
    let eval = "attestation eval --node-id robot-7 --bundle bundle.tar";
    let database = "--database postgres://u@127.0.0.1:1/db?sslmode=require";
    let with = |line: &str, path: &str| home.run(&line.replace("PATH", path));
    // One that takes a directory takes one that is empty for what it may still become.
    let directories = [
        format!("{runtime} --policy-dir PATH"),
        "bundle build --source PATH --name a --version 1.0.0 --out b.tar".to_owned(),
        "bundle verify bundle.tar --trust-dir PATH".to_owned(),
        "wal inspect --wal-dir PATH".to_owned(),
        "wal verify --wal-dir PATH".to_owned(),
        "wal drain --wal-dir PATH --to http://127.0.0.1:1".to_owned(),
        "audit list --wal-dir PATH".to_owned(),
    ];
    // What a lease and a bundle hold is for the gate to judge.
    let judged = [format!("{eval} --lease PATH --lease-key keys/bundle.pem.pub"), eval.replace("bundle.tar", "PATH")];
    // As a database it may be a damaged one.
    let store = ["attestation status --node-id robot-7 --store PATH".to_owned()];
    let files = [
        "bundle verify PATH".to_owned(),
        "bundle verify bundle.tar --trusted-key PATH".to_owned(),
        "bundle sign bundle.tar --key PATH --out o.tar".to_owned(),
        "bundle push PATH localhost:1/x:1".to_owned(),
        "bundle pull localhost:1/x:1 out.tar --registry-ca PATH".to_owned(),
        "bundle pull localhost:1/x:1 out.tar --auth-file PATH".to_owned(),
        format!("{runtime} --bundle PATH"),
        format!("{runtime} --bundle bundle.tar --wal-signing-key PATH"),
        format!("{runtime} {drain} --drain-token-file PATH"),
        format!("{runtime} {drain} --drain-ca PATH"),
        format!("{eval} --lease bundle.tar --lease-key PATH"),
        format!("{status} --orchestrator-ca PATH"),
        format!("{status} --orchestrator-token-file PATH"),
        format!("{status} --orchestrator-client-cert PATH --orchestrator-client-key PATH"),
        "host serve --listen 127.0.0.1:0 --token-file PATH".to_owned(),
        "orchestrator serve --listen 127.0.0.1:0 --signing-key PATH".to_owned(),
        format!("{orchestrator} --tokens PATH"),
        format!("{orchestrator} --tls-cert PATH --tls-key PATH"),
        format!("{orchestrator} --tls-cert PATH --tls-key keys/bundle.pem"),
        format!("{orchestrator} {database} --database-password-file PATH"),
        format!("{orchestrator} {database} --database-ca PATH"),
        "wal verify --checkpoints PATH --checkpoint-key keys/bundle.pem.pub".to_owned(),
        "config show --config PATH".to_owned(),
    ];
    let all = directories.iter().chain(&judged).chain(&store).chain(&files);
    for line in all {
        let run = with(line, "gone");
        assert!(run.code == 3 && one_error(&run).contains("gone"), "{line}: {run:?}");
    }
    for line in files.iter().chain(&judged).chain(&store) {
        let run = with(line, "directory");
        assert!(run.code == 2 && one_error(&run).contains("directory"), "{line}: {run:?}");
    }
    for line in files.iter().chain(&directories) {
        let run = with(line, "junk");
        assert!(run.code == 2 && one_error(&run).contains("junk"), "{line}: {run:?}");
    }
}

#[test]
fn roots_for_a_database_that_is_asked_without_tls_are_refused() {
    let home = Home::with_bundle();
    home.ok("orchestrator token --name ops --role operator --out ops.token");
    let error = home.fails(
        2,
        "orchestrator serve --listen 127.0.0.1:0 --signing-key keys/bundle.pem --database postgres://u@127.0.0.1:1/db \
         --database-ca keys/bundle.pem.pub",
    );
    assert!(
        error.ends_with(
            "`keys/bundle.pem.pub` is for tls, and `127.0.0.1:1` is asked without: add `sslmode=require` to the url, or leave it out"
        ),
        "{error}"
    );
}
