//! Enrollments, rollouts and the status of a node.

use crate::harness::Home;

#[test]
fn a_node_is_enrolled_revoked_and_enrolled_again() {
    let home = Home::new();
    let enroll = "node enroll --node-id robot-7 --enrollment-ref fleet-a --by ops@example.com";
    let (_, enrolled) = home.json(enroll);
    assert_eq!((&enrolled["changed"], &enrolled["action"]), (&true.into(), &"enroll".into()));
    assert_eq!(enrolled["node"]["enrollment_ref"], "fleet-a");
    assert_eq!(enrolled["by"], "ops@example.com");
    let (_, again) = home.json(enroll);
    assert_eq!((&again["changed"], &again["action"], &again["node"]["serial"]), (&false.into(), &().into(), &1.into()));
    assert_eq!(
        home.ok(enroll),
        "nothing to change: node `robot-7` has enrollment ref `fleet-a`, status `active`, rollout state `<none>`\n"
    );
    assert_eq!(
        home.fails(2, "node enroll --node-id robot-7 --enrollment-ref fleet-b"),
        "node `robot-7` is active with enrollment ref `fleet-a`, not `fleet-b`: revoke it first, or replace the ref with `--replace`"
    );
    assert_eq!(
        home.ok("node enroll --node-id robot-7 --enrollment-ref fleet-b --replace"),
        "replaced the ref of node `robot-7` by `fleet-b` (serial 2)\n"
    );
    let revoked = home.run("node revoke --node-id robot-7");
    assert_eq!((revoked.code, revoked.stdout.as_str()), (0, "revoked node `robot-7` (serial 3)\n"));
    assert_eq!(revoked.stderr, "note: its next call is denied where the mode is `enforce`\n");
    assert_eq!(home.json("node revoke --node-id robot-7").1["changed"], false);
    home.ok("rollout set --node-id robot-7 --state failed");
    let again = home.run(enroll);
    assert_eq!(again.stdout, "enrolled node `robot-7` again, with ref `fleet-a` (serial 5)\n");
    assert_eq!(
        again.stderr,
        "note: its ref was `fleet-b`, and is `fleet-a` now\nnote: its rollout state was `failed`, and is `<none>` now\n"
    );

    let (_, shown) = home.json("node show --node-id robot-7");
    let actions: Vec<_> = shown["history"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["enroll", "replace", "revoke", "set_rollout", "reenroll"]);
    assert_eq!(shown["history"][0]["by"], "ops@example.com");
    assert!(shown["node"]["created_at"].as_str().unwrap().ends_with('Z'));
    let text = home.ok("node show --node-id robot-7 --history 1");
    assert!(text.starts_with("NODE_ID         robot-7\nENROLLMENT_REF  fleet-a\nSTATUS          active\n"), "{text}");
    let table = text.split("\n\n").nth(1).unwrap();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.starts_with("SERIAL  AT ") && table.contains(" reenroll "), "{table}");
}

#[test]
fn who_makes_a_change_is_the_user_unless_said_otherwise() {
    let home = Home::new();
    let by = |user: Option<&str>| {
        let mut command = home.command(&["node", "revoke", "--node-id", "robot-7", "--output", "json"]);
        home.ok("node enroll --node-id robot-7 --enrollment-ref fleet-a");
        command.envs(user.map(|user| ("USER", user)));
        let answer: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        answer["by"].as_str().unwrap().to_owned()
    };
    assert_eq!(by(Some("ops")), "ops");
    assert!(by(None).starts_with("uid:"));
}

#[test]
fn nodes_are_listed_page_by_page() {
    let home = Home::new();
    for node in ["robot-1", "robot-2", "robot-3"] {
        home.ok(&format!("node enroll --node-id {node} --enrollment-ref fleet-a"));
    }
    home.ok("node revoke --node-id robot-2");
    let text = home.ok("node list");
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["NODE_ID", "ENROLLMENT_REF", "STATUS", "ROLLOUT_STATE", "UPDATED"]
    );
    assert!(lines.next().unwrap().starts_with("robot-1  fleet-a         active   <none>         20"), "{text}");
    let (_, page) = home.json("node list --limit 2");
    assert_eq!((page["nodes"].as_array().unwrap().len(), &page["next_after"]), (2, &"robot-2".into()));
    let (_, rest) = home.json("node list --limit 2 --after robot-2");
    assert_eq!((&rest["nodes"][0]["node_id"], &rest["next_after"]), (&"robot-3".into(), &().into()));
    let more = home.run("node list --limit 2");
    assert_eq!(more.stderr, "note: there are more: continue with `--after robot-2`\n");
    assert_eq!(home.json("node list --status revoked").1["nodes"][0]["node_id"], "robot-2");
    let none = home.run("node list --after robot-9");
    assert_eq!((none.code, none.stderr.as_str()), (0, "note: no such node: `autonomy node enroll` adds one\n"));
}

#[test]
fn status_shows_three_columns_and_none_where_there_is_nothing() {
    let home = Home::ready();
    let status = "ENROLLMENT_REF  STATUS  ROLLOUT_STATE\nfleet-a         active  <none>\n";
    assert_eq!(home.ok("attestation status --node-id robot-7"), status);
    let mut from_environment = home.command(&["attestation", "status"]);
    let output = from_environment.env("AUTONOMY_NODE_ID", "robot-7").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), status);

    let unknown = home.run("attestation status --node-id robot-9");
    assert_eq!(unknown.code, 0);
    assert_eq!(unknown.stdout, "ENROLLMENT_REF  STATUS  ROLLOUT_STATE\n<none>          <none>  <none>\n");
    assert!(
        unknown.stderr.contains("run `autonomy node enroll --node-id robot-9 --enrollment-ref REF`"),
        "{unknown:?}"
    );
    let close = home.run("attestation status --node-id ROBOT-7").stderr;
    assert_eq!(close, "note: node `ROBOT-7` is not enrolled: `robot-7` is, did you mean that?\n");
    let (_, unknown) = home.json("attestation status --node-id robot-9");
    assert_eq!(unknown["status"], serde_json::Value::Null);

    assert_eq!(
        home.ok("rollout set --node-id robot-7 --state failed"),
        "rollout of node `robot-7` is `failed` (serial 2)\n"
    );
    let (_, failed) = home.json("attestation status --node-id robot-7");
    assert_eq!((&failed["enrollment_ref"], &failed["rollout_state"]), (&"fleet-a".into(), &"failed".into()));
    assert_eq!(home.json("rollout set --node-id robot-7 --state pending").1["node"]["rollout_state"], "pending");
}

#[test]
fn a_missing_store_names_the_next_step() {
    let home = Home::with_bundle();
    let path = home.path("enrollment.sqlite");
    let missing = format!(
        "no enrollment store at `{}`: run `autonomy node enroll` first, or name the store with `--store`",
        path.display()
    );
    for line in [
        "node list",
        "node show --node-id robot-7",
        "node revoke --node-id robot-7",
        "rollout set --node-id robot-7 --state active",
        "attestation status --node-id robot-7",
        "attestation eval --bundle bundle.tar --all-nodes",
    ] {
        assert_eq!(home.fails(3, line), missing, "{line}");
    }
    assert!(!path.exists());
    std::fs::write(home.path("other.db"), "not a database, but long enough to be looked at as one").unwrap();
    let foreign = home.fails(3, "node list --store other.db");
    assert!(foreign.contains("other.db"), "{foreign}");
}

/// What a full disk leaves of a store that was being made.
#[test]
fn an_empty_file_is_no_store_until_somebody_enrolls() {
    let home = Home::new();
    std::fs::write(home.path("enrollment.sqlite"), "").unwrap();
    for line in ["node list", "node revoke --node-id robot-7", "rollout set --node-id robot-7 --state failed"] {
        let error = home.fails(3, line);
        assert!(error.starts_with("no enrollment store at `"), "{line}: {error}");
    }
    assert_eq!(std::fs::metadata(home.path("enrollment.sqlite")).unwrap().len(), 0);
    let made = home.run("node enroll --node-id robot-7 --enrollment-ref fleet-a");
    assert!(made.code == 0 && made.stderr.starts_with("note: made a new store, "), "{made:?}");
}
