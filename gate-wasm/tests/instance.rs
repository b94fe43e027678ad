//! What `docs/src/spec/abi.md` promises of each call, asked of [`Instance`].
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gate_wasm::{INPUT_BYTES, Instance, MALFORMED, REFUSED};
use serde_json::{Value, json};
use std::{fs, path::Path};

const NOW_MS: u64 = 1_000_000;

/// A case of a corpus in the workspace's `tests` folder.
fn corpus(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn unpack(segments: &Value) -> Vec<u8> {
    let bytes = |segment: &Value| match segment.as_u64() {
        Some(zeros) => vec![0; zeros.try_into().unwrap()],
        None => STANDARD.decode(segment.as_str().unwrap()).unwrap(),
    };
    segments.as_array().unwrap().iter().flat_map(bytes).collect()
}

/// The first good bundle of the corpus, and the key that signed it.
fn good() -> (Vec<u8>, String) {
    let bundles = corpus("bundles.json");
    (unpack(&bundles["bundles"][0]["tar"]), bundles["keys"]["a"].as_str().unwrap().to_owned())
}

fn output(instance: &Instance) -> Value {
    serde_json::from_slice(instance.output()).unwrap()
}

fn error(instance: &Instance) -> String {
    let output = output(instance);
    assert_eq!(output.as_object().unwrap().len(), 1, "{output}");
    output["error"].as_str().unwrap().to_owned()
}

fn configure(instance: &mut Instance, mode: &str) {
    let (_, key) = good();
    let configuration = json!({"mode": mode, "node_id": "robot-7", "bundle_keys": [key]});
    assert_eq!(instance.configure(configuration.to_string().as_bytes()), 0);
    assert_eq!(instance.output(), b"");
}

fn enroll(instance: &mut Instance, status: &str) {
    let row = json!({"node_id": "robot-7", "enrollment_ref": "fleet-a", "status": status, "rollout_state": "<none>", "serial": 1});
    let answer = json!({"answer": "enrolled", "enrollment": row, "observed_at_ms": NOW_MS});
    assert_eq!(instance.set_enrollment(answer.to_string().as_bytes()), 0);
}

/// An instance whose gate passes.
fn passing(mode: &str) -> Instance {
    let mut instance = Instance::new();
    configure(&mut instance, mode);
    assert_eq!(instance.load_bundle(&good().0), 0);
    enroll(&mut instance, "active");
    instance
}

fn call() -> Value {
    json!({"now_ms": NOW_MS, "audit_id": "a-1", "tool": "tool.echo", "policy": "policy: allowed"})
}

fn decide(instance: &mut Instance, call: &Value) -> (i32, Value) {
    let number = instance.decide(call.to_string().as_bytes());
    (number, output(instance))
}

#[test]
fn an_instance_that_was_told_nothing_denies() {
    let mut instance = Instance::new();
    assert_eq!(instance.verdict(1.0), 1);
    let (number, decision) = decide(&mut instance, &call());
    assert_eq!((number, &decision["reason"]), (1, &json!("attestation: bundle_unverified")));
    assert_eq!(instance.load_bundle(&good().0), REFUSED);
    assert_eq!(error(&instance), "no keys are trusted: give the public keys that sign bundles");
}

#[test]
fn a_passing_gate_allows_in_every_mode_and_a_failing_one_denies_only_in_enforce() {
    for (mode, denied) in [("off", 0), ("advisory", 0), ("enforce", 8)] {
        let mut instance = passing(mode);
        let (number, decision) = decide(&mut instance, &call());
        assert_eq!((number, &decision["effect"], &decision["reason"]), (0, &json!("allow"), &Value::Null));
        enroll(&mut instance, "revoked");
        assert_eq!(instance.verdict(1_000_000.0), 8, "the mode never touches the verdict");
        let (number, decision) = decide(&mut instance, &call());
        assert_eq!(number, denied, "{mode}");
        assert_eq!(decision["effect"], if denied == 0 { "allow" } else { "deny" });
        let kinds: Vec<_> = decision["frames"].as_array().unwrap().iter().map(|frame| &frame["kind"]).collect();
        assert_eq!(kinds.len(), if mode == "off" { 2 } else { 3 }, "{mode}: {kinds:?}");
    }
}

#[test]
fn the_facts_come_first_until_the_host_says_that_its_log_has_them() {
    let mut instance = passing("enforce");
    let (_, decision) = decide(&mut instance, &call());
    let frames = decision["frames"].as_array().unwrap();
    assert_eq!((frames.len(), &frames[0]["kind"]), (2, &json!("autonomy.facts")));
    assert_eq!(frames[0]["attrs"]["id"], decision["facts"]);
    let mut logged = call();
    logged["facts_logged"] = decision["facts"].clone();
    let (_, again) = decide(&mut instance, &logged);
    assert_eq!(again["frames"].as_array().unwrap(), &frames[1..]);
    enroll(&mut instance, "revoked");
    let (_, changed) = decide(&mut instance, &logged);
    assert_ne!(changed["facts"], decision["facts"]);
    assert_eq!(changed["frames"][0]["attrs"]["id"], changed["facts"]);
}

/// What a source may say of the node, and when it was asked.
fn answers() -> Vec<Value> {
    let row = |status: &str, enrollment_ref: &str, rollout_state: &str| {
        let row = json!({"node_id": "robot-7", "enrollment_ref": enrollment_ref, "status": status, "rollout_state": rollout_state, "serial": 1});
        json!({"answer": "enrolled", "enrollment": row, "observed_at_ms": NOW_MS})
    };
    vec![
        row("active", "fleet-a", "active"),
        row("revoked", "fleet-a", "active"),
        row("active", "Fleet-a", "active"),
        row("active", "fleet-a", "failed"),
        json!({"answer": "not_enrolled", "observed_at_ms": NOW_MS}),
        json!({"answer": "unavailable", "why": "the \"host\" is away"}),
    ]
}

#[test]
fn a_call_like_one_before_is_decided_as_by_a_gate_that_saw_none() {
    let mut reasons = std::collections::BTreeSet::new();
    for mode in ["off", "advisory", "enforce"] {
        for (bundle, answer) in
            [false, true].into_iter().flat_map(|bundle| answers().into_iter().map(move |a| (bundle, a)))
        {
            let tar = if bundle { good().0 } else { Vec::new() };
            let new = || {
                let mut instance = Instance::new();
                configure(&mut instance, mode);
                assert_eq!(instance.load_bundle(&tar), if bundle { 0 } else { REFUSED });
                assert_eq!(instance.set_enrollment(answer.to_string().as_bytes()), 0);
                instance
            };
            let mut warm = new();
            let facts = decide(&mut warm, &call()).1["facts"].clone();
            for policy in [r#""policy: allowed""#, r#""policy: denied","policy_ref":"p@1","policy_detail":"\"no\"""#] {
                // Two at which it is stale, two at which it counts, and one before it was given.
                for (at, now_ms) in
                    [NOW_MS + 60_001, NOW_MS + 999_999, NOW_MS, NOW_MS + 1, NOW_MS - 1].iter().enumerate()
                {
                    let audit_id = "a".repeat(at + 1);
                    let call = format!(
                        r#"{{"now_ms":{now_ms},"audit_id":"{audit_id}","tool":"tool.{audit_id}","policy":{policy},"facts_logged":{facts}}}"#
                    );
                    let (mut alone, number) = (new(), warm.decide(call.as_bytes()));
                    assert_eq!(number, alone.decide(call.as_bytes()), "{call}");
                    assert_eq!(output(&warm), output(&alone), "{call}");
                    assert_eq!(warm.output(), alone.output());
                    reasons.insert(output(&warm)["verdict"].as_str().map(str::to_owned));
                }
            }
        }
    }
    // Untrusted leases, a node without an id and a bundle without a ref are not among them.
    assert_eq!(reasons.len(), 9, "{reasons:?}");
}

#[test]
fn a_bundle_is_described_so_that_a_host_needs_no_tar_reader() {
    let (tar, _) = good();
    let mut instance = passing("enforce");
    assert_eq!(instance.load_bundle(&tar), 0);
    let bundle = output(&instance);
    let expected = &corpus("bundles.json")["bundles"][0]["accepted"];
    for member in ["digest", "enrollment_ref", "policy_ref", "schema_version", "signers"] {
        assert_eq!(bundle[member], expected[member], "{member}");
    }
    let file = &bundle["files"][0];
    let [offset, size] = ["offset", "size"].map(|member| usize::try_from(file[member].as_u64().unwrap()).unwrap());
    assert_eq!(json!(gate_core::Digest::of(&tar[offset..offset + size])), file["digest"]);
    assert_eq!(json!([file["path"], file["digest"]]), expected["files"][0]);
}

#[test]
fn a_bundle_that_does_not_hold_leaves_the_active_one() {
    let mut instance = passing("enforce");
    let mut tar = good().0;
    tar[600] ^= 1;
    assert_eq!(instance.load_bundle(&tar), REFUSED);
    assert!(!error(&instance).is_empty());
    assert_eq!(instance.verdict(1_000_000.0), 0);
}

#[test]
fn a_refused_configuration_leaves_the_gate_as_it_was() {
    for (configuration, message) in [
        ("{", "no key at byte 1"),
        ("[]", "found a list, expected an object"),
        (r#"{"mode":"on"}"#, "`mode`: mode `on` is not known: use `off`, `advisory` or `enforce`"),
        (r#"{"mode":""}"#, "`mode`: mode `` is not known: use `off`, `advisory` or `enforce`"),
        (r#"{"node":"a"}"#, "member `node` is not known"),
        (r#"{"mode":"off","mode":"off"}"#, "key `mode` stands twice"),
        (r#"{"bundle_keys":["x"]}"#, "not the PEM of a public key"),
        (r#"{"max_skew_ms":-1}"#, "`max_skew_ms`: found a number, expected a whole number below 2^64"),
    ] {
        let mut instance = passing("enforce");
        assert_eq!(instance.configure(configuration.as_bytes()), MALFORMED, "{configuration}");
        let error = error(&instance);
        assert!(error.starts_with(&format!("the configuration is refused: {message}")), "{configuration}: {error}");
        assert_eq!(instance.verdict(1_000_000.0), 0, "{configuration}");
    }
    let mut instance = passing("enforce");
    configure(&mut instance, "enforce");
    assert_eq!(instance.verdict(1_000_000.0), 1, "a new configuration starts anew");
}

#[test]
fn an_answer_that_is_nonsense_is_no_answer() {
    for answer in [
        "",
        "null",
        r#"{"answer":"yes"}"#,
        r#"{"answer":"unavailable"}"#,
        r#"{"answer":"not_enrolled","observed_at_ms":1,"why":"x"}"#,
        r#"{"answer":"enrolled","enrollment":["robot-7","fleet-a","active","<none>",1],"observed_at_ms":1000000}"#,
        r#"{"answer":"enrolled","enrollment":{"node_id":"robot-7"},"observed_at_ms":1000000}"#,
    ] {
        let mut instance = passing("enforce");
        assert_eq!(instance.set_enrollment(answer.as_bytes()), MALFORMED, "{answer}");
        assert!(error(&instance).starts_with("the enrollment answer is malformed: "), "{answer}");
        assert_eq!(instance.verdict(1_000_000.0), 4, "{answer}");
    }
}

#[test]
fn a_lease_that_does_not_hold_is_untrusted() {
    let mut instance = passing("enforce");
    assert_eq!(instance.set_lease(b"lease"), REFUSED);
    assert_eq!(instance.verdict(1_000_000.0), 5);
}

#[test]
fn a_malformed_call_is_an_error_and_decides_nothing() {
    let mut instance = passing("enforce");
    for (from, to, message) in [
        ("\"now_ms\":1000000,", "", "`now_ms`: is missing"),
        ("1000000", "1e6", "`now_ms`: found a number"),
        ("a-1", "-a", "`audit_id`: audit id `-a` starts with `-`"),
        ("tool.echo", "", "`tool`: tool is empty"),
        ("policy: allowed", "allowed", "`policy`: not a reason"),
        ("policy: allowed", "attestation: not_enrolled", "`attestation: not_enrolled` is no policy reason"),
        ("{", "{\"mode\":\"off\",", "member `mode` is not known"),
    ] {
        let call = call().to_string().replacen(from, to, 1);
        assert_eq!(instance.decide(call.as_bytes()), MALFORMED, "{call}");
        let error = error(&instance);
        assert!(error.starts_with(&format!("the call is malformed: {message}")), "{call}: {error}");
    }
}

#[test]
fn a_batch_is_as_many_decisions() {
    let mut instance = passing("enforce");
    let mut late = call();
    late["now_ms"] = json!(NOW_MS + 60_001);
    let calls = [call().to_string(), "{}".to_owned(), late.to_string()];
    let alone: Vec<_> = calls
        .iter()
        .map(|call| {
            instance.decide(call.as_bytes());
            String::from_utf8(instance.output().to_owned()).unwrap()
        })
        .collect();
    for batch in [calls.join("\n"), calls.join("\n") + "\n"] {
        assert_eq!(instance.decide_batch(batch.as_bytes()), 3);
        assert_eq!(String::from_utf8(instance.output().to_owned()).unwrap(), alone.join("\n") + "\n");
    }
    assert_eq!(instance.decide_batch("{}\n".repeat(1024).as_bytes()), 1024);
    assert_eq!(instance.decide_batch("{}\n".repeat(1025).as_bytes()), MALFORMED);
}

#[test]
fn what_was_decided_before_makes_no_difference_to_a_call() {
    let rows = ["active", "revoked"];
    let mut random = 1_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % limit).unwrap()
    };
    for mode in ["off", "advisory", "enforce"] {
        let (mut long, mut row, mut logged) = (passing(mode), rows[0], Value::Null);
        let mut lengths = std::collections::BTreeMap::new();
        for at in 0..600_u64 {
            if below(20) == 0 {
                row = rows[below(2)];
                enroll(&mut long, row);
            }
            let mut call =
                json!({"now_ms": NOW_MS + [0, 25_000, 49_999, 75_000][below(4)], "audit_id": format!("a-{at}")});
            call["tool"] = json!(format!("tool.{}", below(3)));
            call["policy"] = json!(["policy: allowed", "policy: allowed", "policy: denied"][below(3)]);
            if below(2) == 0 {
                call["policy_ref"] = json!("fleet\"@1");
            }
            if below(6) == 0 {
                call["policy_detail"] = json!("\"now_ms\":1}}]");
            }
            call["facts_logged"] = logged.clone();
            let mut new = passing(mode);
            enroll(&mut new, row);
            let text = in_order(&call);
            let (number, expected) = (new.decide(text.as_bytes()), new.output().to_owned());
            assert_eq!(long.decide(text.as_bytes()), number, "{text}");
            assert_eq!(String::from_utf8_lossy(long.output()), String::from_utf8_lossy(&expected), "{text}");
            let frames = output(&long)["frames"].as_array().unwrap().len();
            *lengths.entry(frames).or_insert(0) += 1;
            logged = output(&long)["facts"].clone();
        }
        assert!(lengths[&1] > 100 && lengths[&2] > 10, "{mode}: {lengths:?}");
    }
}

/// A call as bindings write it.
fn in_order(call: &Value) -> String {
    let members = ["now_ms", "audit_id", "tool", "policy", "policy_ref", "policy_detail", "facts_logged"];
    let known = members.iter().filter(|name| call.get(name).is_some());
    let members: Vec<_> = known.map(|name| format!("\"{name}\":{}", call[name])).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn what_is_no_time_is_refused() {
    let mut instance = passing("enforce");
    for time in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9_007_199_254_740_992.0, -f64::MIN_POSITIVE] {
        assert_eq!(instance.verdict(time), MALFORMED, "{time}");
        assert_eq!(instance.explain(time), MALFORMED, "{time}");
    }
    assert_eq!(instance.verdict(1_000_000.9), 0, "a fraction is dropped");
    assert_eq!(instance.verdict(-0.0), 6, "zero is a time");
    assert_eq!(instance.verdict(9_007_199_254_740_991.0), 6);
}

#[test]
fn an_explanation_has_every_sub_check_and_the_facts() {
    let mut instance = passing("off");
    assert_eq!(instance.explain(1_060_001.0), 0);
    let explanation = output(&instance);
    assert_eq!(explanation["verdict"], "attestation: enrollment_stale");
    assert_eq!(explanation["sub_checks"].as_array().unwrap().len(), 10);
    let facts = &instance.output()[instance.output().windows(9).position(|w| w == b"{\"node_id").unwrap()..];
    let end = facts.windows(14).position(|w| w == b",\"sub_checks\":").unwrap();
    assert_eq!(json!(gate_core::Digest::of(&facts[..end])), explanation["facts_id"]);
}

#[test]
fn the_module_says_what_it_is() {
    let mut instance = Instance::new();
    assert_eq!(instance.info(), 0);
    let info = output(&instance);
    let reasons: String = gate_core::Reason::ALL.iter().map(|r| format!("{} {}\n", r.number(), r.as_str())).collect();
    assert_eq!(info["reasons"], json!(gate_core::Digest::of(reasons.as_bytes())));
    assert_eq!(info["limits"]["input_bytes"], json!(INPUT_BYTES));
    assert_eq!(info["abi"], json!({"major": 1, "minor": 0}));
}

#[test]
fn a_signature_is_checked_by_the_strict_rules() {
    let mut instance = Instance::new();
    assert_eq!(instance.verify_signature(&[0; 95]), MALFORMED);
    assert_eq!(instance.verify_signature(&[0; 96]), REFUSED, "a key of small order");
    // RFC 8032, section 7.1, test 1: the empty message.
    let hex = concat!(
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555",
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    );
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let mut input: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    assert_eq!((instance.verify_signature(&input), instance.output()), (0, &b""[..]));
    input[40] ^= 1;
    assert_eq!(instance.verify_signature(&input), REFUSED);
}
