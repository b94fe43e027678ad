//! What the gate would say: eval and explain.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use crate::harness::{BINARY, Home, Run};

#[test]
fn one_pair_is_explained_sub_check_by_sub_check() {
    let home = Home::ready();
    let eval = "attestation eval --bundle bundle.tar --node-id";
    let allowed = home.ok(&format!("{eval} robot-7"));
    assert!(
        allowed.starts_with("NODE_ID  robot-7\nBUNDLE   bundle.tar\nEFFECT   allow\nREASON   <none>\n"),
        "{allowed}"
    );
    assert_eq!(allowed.matches("  pass  ").count(), 10, "{allowed}");
    assert!(!allowed.contains("differ"), "{allowed}");

    let (code, denied) = home.json(&format!("{eval} robot-8"));
    let result = &denied["results"][0];
    assert_eq!((code, &result["effect"]), (1, &"deny".into()));
    assert_eq!(result["reason"], "attestation: enrollment_ref_mismatch");
    assert_eq!(result["detail"], "expected `fleet-a`, as the bundle declares, found `fleet-b`");
    assert_eq!(result["sub_checks"].as_array().unwrap().len(), 10);
    assert!(result["remedy"].as_str().unwrap().contains("enroll it with the bundle's ref"));
    let denied = home.run(&format!("{eval} robot-8"));
    assert_eq!(denied.code, 1);
    assert!(denied.stdout.contains("REASON   attestation: enrollment_ref_mismatch\n"), "{denied:?}");

    assert_eq!(home.json(&format!("{eval} robot-9")).1["results"][0]["reason"], "attestation: not_enrolled");
    let mistyped = home.run(&format!("{eval} Robot-7 --node-id robot-9"));
    assert_eq!(mistyped.stderr, "note: node `Robot-7` is not enrolled: `robot-7` is, did you mean that?\n");
    home.ok("rollout set --node-id robot-7 --state rolled_back");
    assert_eq!(home.json(&format!("{eval} robot-7")).1["results"][0]["reason"], "attestation: rollout_incoherent");
    home.ok("node revoke --node-id robot-7");
    assert_eq!(home.json(&format!("{eval} robot-7")).1["results"][0]["reason"], "attestation: enrollment_revoked");
}

#[test]
fn every_exit_code_of_eval() {
    let home = Home::ready();
    for (code, line) in [
        (0, "--bundle bundle.tar --node-id robot-7"),
        (1, "--bundle bundle.tar --node-id robot-8"),
        (1, "--bundle bundle.tar --node-id robot-7 --node-id robot-8"),
        (1, "--bundle bundle.tar --all-nodes"),
        (2, "--bundle bundle.tar"),
        (2, "--bundle bundle.tar --all-nodes --node-id robot-7"),
        (2, "--node-id robot-7"),
        (3, "--bundle gone.tar --node-id robot-7"),
        (3, "--bundle bundle.tar --node-id robot-7 --store gone.sqlite"),
        (3, "--bundle bundle.tar --all-nodes --store gone.sqlite"),
    ] {
        let run = home.run(&format!("attestation eval {line}"));
        assert_eq!(run.code, code, "{line}: {run:?}");
    }
    assert_eq!(
        home.fails(2, "attestation eval --bundle bundle.tar"),
        "no node id: give `--node-id ID`, or set `AUTONOMY_NODE_ID` or `identity.node_id`"
    );
    let (code, unavailable) = home.json("attestation eval --bundle bundle.tar --node-id robot-7 --store gone.sqlite");
    assert_eq!((code, &unavailable["results"][0]["reason"]), (3, &"attestation: enrollment_unavailable".into()));
    fs::remove_dir_all(home.path("trusted-keys")).unwrap();
    let untrusting = home.fails(2, "attestation eval --bundle bundle.tar --node-id robot-7");
    assert!(untrusting.starts_with("no keys are trusted: "), "{untrusting}");
}

#[test]
fn the_whole_matrix_is_judged_and_summed_up() {
    let home = Home::ready();
    home.ok("bundle build --source src --name fleet/policies --version 2.0.0 --enrollment-ref fleet-b --key keys/bundle.pem --out b.tar");
    home.ok("bundle build --source src --name fleet/policies --version 2.0.0 --out unsigned.tar");
    for node in 0..30 {
        home.ok(&format!("node enroll --node-id extra-{node:02} --enrollment-ref fleet-b"));
    }
    let line = "attestation eval --all-nodes --bundle bundle.tar --bundle b.tar --bundle unsigned.tar";
    let (code, matrix) = home.json(line);
    assert_eq!(code, 1);
    assert_eq!(matrix["results"].as_array().unwrap().len(), 32 * 3);
    assert_eq!((&matrix["summary"]["allow"], &matrix["summary"]["deny"]), (&32.into(), &64.into()));
    assert_eq!(matrix["summary"]["by_reason"]["attestation: bundle_unverified"], 32);
    assert_eq!(matrix["bundles"][2]["state"], "unverified");
    assert!(matrix["results"][0]["sub_checks"].is_null());
    let text = home.run(line).stdout;
    assert_eq!(text.lines().filter(|line| line.starts_with("extra-")).count(), 90);
    assert!(text.ends_with("deny    attestation: enrollment_ref_mismatch  32\n"), "{text}");
    let empty = home.run("attestation eval --all-nodes --bundle b.tar --store empty.sqlite");
    assert_eq!(empty.code, 3);
}

#[test]
fn a_reason_is_explained_by_name_by_wire_text_and_by_number() {
    let home = Home::new();
    let explained = home.ok("attestation explain not_enrolled");
    assert!(explained.starts_with("REASON   attestation: not_enrolled\nNUMBER   7\nMEANING  "), "{explained}");
    assert_eq!(home.ok("attestation explain 7"), explained);
    assert_eq!(home.run_words(&["attestation", "explain", "attestation: not_enrolled"]).stdout, explained);
    let (_, one) = home.json("attestation explain 201");
    assert_eq!((&one["reason"], &one["since"]), (&"audit: wal_unavailable".into(), &"0.1.0".into()));
    let (_, all) = home.json("attestation explain");
    assert_eq!(all.as_array().unwrap().len(), gate_core::Reason::ALL.len());
    assert_eq!(home.ok("attestation explain").lines().count(), gate_core::Reason::ALL.len() + 1);
}

#[test]
fn readiness_says_in_a_line_whether_a_mode_is_safe_and_who_stands_in_the_way() {
    let home = Home::ready();
    let enforce = "attestation readiness --bundle bundle.tar";
    let run = home.run(enforce);
    assert_eq!(run.code, 1);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0], "enforce: not safe: 1 of 2 nodes would be denied, 0 revoked");
    assert!(run.stdout.contains("attestation: enrollment_ref_mismatch  1      robot-8"), "{}", run.stdout);
    assert!(run.stderr.starts_with("note: first, `attestation: enrollment_ref_mismatch`: "), "{}", run.stderr);
    let advisory = home.ok(&format!("{enforce} --mode advisory"));
    assert!(advisory.starts_with("advisory: safe: 1 of 2 nodes would be warned of, 0 revoked\n"), "{advisory}");
    home.ok("node revoke --node-id robot-8");
    assert_eq!(home.ok(enforce), "enforce: safe: 0 of 1 nodes would be denied, 1 revoked\n");
    home.ok("node revoke --node-id robot-7");
    let (code, none) = home.json(enforce);
    assert_eq!((code, &none["safe"], &none["ready"], &none["revoked"]), (1, &false.into(), &0.into(), &2.into()));
    for number in 0..3 {
        home.ok(&format!("node enroll --node-id other-{number} --enrollment-ref fleet-c"));
    }
    let (_, report) = home.json(&format!("{enforce} --limit 2"));
    let obstacle = &report["obstacles"]["attestation: enrollment_ref_mismatch"];
    assert_eq!(obstacle, &serde_json::json!({"nodes": 3, "first": ["other-0", "other-1"]}));
    let text = home.run(&format!("{enforce} --limit 2")).stdout;
    assert!(text.contains("other-0, other-1, and 1 more"), "{text}");
    home.fails(3, &format!("{enforce} --store nowhere.sqlite"));
    let whole = fs::read(home.path("bundle.tar")).unwrap();
    fs::write(home.path("cut.tar"), &whole[..whole.len() - 512]).unwrap();
    let refused = home.fails(2, "attestation readiness --bundle cut.tar");
    assert!(refused.starts_with("bundle `cut.tar` is refused: "), "{refused}");
}

/// The same file, the same node, the same words: what decides is not seen in the answer.
#[test]
fn the_module_says_what_gate_core_says() {
    let home = Home::ready();
    home.ok("rollout set --node-id robot-8 --state failed");
    for line in ["--node-id robot-7", "--node-id robot-8", "--node-id robot-9", "--all-nodes"] {
        let eval = format!("attestation eval --bundle bundle.tar {line}");
        let (native, module) = (home.run(&eval), home.run(&format!("{eval} --engine wasm")));
        // What is not the time of the question.
        let lines = |text: &str| -> Vec<_> {
            text.lines().filter(|line| !line.starts_with("enrollment_stale")).map(str::to_owned).collect()
        };
        assert_eq!(
            (native.code, lines(&native.stdout), native.stderr),
            (module.code, lines(&module.stdout), module.stderr),
            "{line}"
        );
    }
    assert!(home.path("cache/wasm").is_dir(), "the compiled module is kept");
    // Too few addresses for memories of 4 GiB: each access is checked instead.
    let scarce =
        r#"ulimit -v 200000000; exec "$0" attestation eval --bundle bundle.tar --node-id robot-7 --engine wasm"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", scarce.trim(), BINARY]).current_dir(home.path("")).env("AUTONOMY_HOME", home.path(""));
    assert_eq!(Run::from(shell.output().unwrap()).code, 0);
    let refused = home.fails(2, "attestation eval --bundle bundle.tar --node-id robot-7 --engine jvm");
    assert!(refused.contains("flag `--engine`") && refused.contains("`jvm`"), "{refused}");
}

/// Whoever comes last has written it whole, and nobody has read a part.
#[test]
fn processes_that_compile_the_module_at_once_leave_one_that_holds() {
    let home = Home::ready();
    let eval = ["attestation", "eval", "--bundle", "bundle.tar", "--node-id", "robot-7", "--engine", "wasm"];
    let kept = || {
        let entries: Vec<_> =
            fs::read_dir(home.path("cache/wasm")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [entry] = <[_; 1]>::try_from(entries).unwrap();
        entry
    };
    for damage in [false, true] {
        if damage {
            let bytes = fs::read(kept()).unwrap();
            fs::write(kept(), &bytes[..bytes.len() / 2]).unwrap();
        }
        let at_once =
            (0..6).map(|_| home.command(&eval).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        for child in at_once.collect::<Vec<_>>() {
            let run = Run::from(child.wait_with_output().unwrap());
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
        }
        let written = fs::metadata(kept()).unwrap().ino();
        assert_eq!(home.run_words(&eval).code, 0);
        assert_eq!(fs::metadata(kept()).unwrap().ino(), written, "it holds, so it is not made again");
    }
}
