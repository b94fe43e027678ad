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
        (&["bundle", "verify", "bundle.tar", "--threshold", "two"], "flag `--threshold`: `two` is not a whole number: give one from 0".into()),
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

/// The parser of the command line has its own words, with suggestions.
#[test]
fn each_mistyped_flag_or_choice_gets_a_suggestion() {
    let home = Home::new();
    let cases: &[(&[&str], &str)] = &[
        (&["nod", "list"], "a similar subcommand exists: 'node'"),
        (&["node", "enrol"], "a similar subcommand exists: 'enroll'"),
        (&["node", "list", "--limt", "3"], "a similar argument exists: '--limit'"),
        (&["attestation", "explain", "not_enroled"], "a similar value exists: 'not_enrolled'"),
        (&["rollout", "set", "--node-id", "a", "--state", "faild"], "a similar value exists: 'failed'"),
        (&["bundle", "build", "--channel", "stabel"], "a similar value exists: 'stable'"),
        (&["config", "get", "attestation.mdoe"], "a similar value exists: 'attestation.mode'"),
        (&["config", "set", "node_id", "x"], "identity.node_id, attestation.mode"),
        (&["attestation", "preview", "--mode", "off"], "[possible values: advisory, enforce]"),
        (&["wal", "inspect", "--kind", "autonomy.decisions"], "a similar value exists: 'autonomy.decision'"),
        (
            &["wal", "inspect", "--since", "yesterday"],
            "use a time such as `2026-01-31T08:00:00Z`, or an age such as `15m`",
        ),
        (&["audit", "get", "not an id"], "audit id `not an id` holds ` `"),
        (&["node", "list", "--limit", "0"], "0 is not in 1.."),
        (&["node", "list", "--output", "jsn"], "a similar value exists: 'json'"),
        (&["node", "enroll", "--node-id", "a b"], "node id `a b` holds ` `: use 1 to 128 of"),
        (&["runtime", "start", "--bundle", "a", "--policy-dir", "b"], "cannot be used with '--policy-dir <DIR>'"),
    ];
    for (arguments, part) in cases {
        let run = home.run_words(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {run:?}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains(part), "{arguments:?}: {run:?}");
    }
    let run = home.run("node list --limt 3 --output json");
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"], "unexpected argument '--limt' found; tip: a similar argument exists: '--limit'");
}

#[test]
fn each_mistyped_variable_or_key_of_the_config_file_is_refused_before_anything_is_done() {
    let home = Home::ready();
    let with = |name: &str, value: &str| {
        let run = Run::from(home.command(&["node", "list"]).env(name, value).output().unwrap());
        assert_eq!(run.code, 2, "{name}: {run:?}");
        one_error(&run)
    };
    let unknown = with("AUTONOMY_ATTESTATION_MODUS", "off");
    assert!(
        unknown.starts_with(
            "environment variable `AUTONOMY_ATTESTATION_MODUS` is not known: use one of `AUTONOMY_ATTESTATION_MODE`"
        ),
        "{unknown}"
    );
    assert_eq!(
        with("AUTONOMY_ATTESTATION_MODE", ""),
        "environment variable `AUTONOMY_ATTESTATION_MODE`: mode `` is not known: use `off`, `advisory` or `enforce`"
    );
    assert!(with("AUTONOMY_HOME", "").ends_with("`AUTONOMY_HOME`: is empty: name a directory, or unset it"));
    assert!(
        with("AUTONOMY_ORCHESTRATOR_URL", "http://x")
            .ends_with("reads enrollments only from the local store: unset it")
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
