//! The gate: what it keeps, what it answers, what it writes down, and that it can be decided again from that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it counted"
)]

mod support;

use gate_core::{
    Answer, AuditId, Call, Config, Decision, Digest, Effect, Enrollment, EnrollmentRef, Facts, Freshness, Gate, Mode,
    NodeId, PolicyAnswer, PolicyRef, Reason, RolloutState, Status, ToolName, Verdict,
    decision::{DecisionAttrs, FactsAttrs, Layer, Outcome},
    facts::SubCheckOutcome,
    frame::{Frame, Kind, Received},
    json,
    lease::Lease,
    limits,
    reason::{Attestation, Policy},
};
use proptest::{collection, option, prelude::*};
use serde_json::{Value, value::RawValue};
use std::collections::{BTreeMap, BTreeSet};
use support::{bundle, envelope, lease, signed_lease, small_bundle, trusted};

fn gate(mode: Mode) -> Gate {
    Gate::new(Config {
        mode,
        node_id: Some(NodeId::parse("robot-7").unwrap()),
        bundle_keys: Some(trusted(&[1], 1)),
        lease_keys: Some(trusted(&[2], 1)),
        freshness: Freshness { max_staleness_ms: 100, max_skew_ms: 0 },
    })
}

fn row(enrollment_ref: &str) -> Enrollment {
    Enrollment {
        node_id: NodeId::parse("robot-7").unwrap(),
        enrollment_ref: EnrollmentRef::parse(enrollment_ref).unwrap(),
        status: Status::Active,
        rollout_state: RolloutState::None,
        serial: 1,
    }
}

/// A gate that passes from 1,000 to 1,100 ms.
fn passing(mode: Mode) -> Gate {
    let mut gate = gate(mode);
    gate.load_bundle(&small_bundle(Some("fleet-a"))).unwrap();
    gate.set_enrollment(Answer::Enrolled { enrollment: row("fleet-a"), observed_at_ms: 1_000 });
    assert_eq!(gate.verdict(1_000), Verdict::Pass);
    gate
}

fn call(reason: Policy) -> Call {
    Call {
        audit_id: AuditId::parse("a-1").unwrap(),
        tool: ToolName::parse("tool.echo").unwrap(),
        policy: PolicyAnswer { policy_ref: Some(PolicyRef::parse("fleet@1.0.0").unwrap()), reason, detail: None },
    }
}

/// The detail of the frame with which the gate denies.
fn detail(gate: &Gate, now_ms: u64) -> (Attestation, String) {
    let Verdict::Fail(reason) = gate.verdict(now_ms) else { panic!("the gate passes") };
    (reason, gate.facts().detail(reason, now_ms))
}

fn attrs(decision: &Decision) -> Vec<DecisionAttrs> {
    decision.frames.iter().map(|frame| serde_json::from_str(&frame.attrs).unwrap()).collect()
}

#[test]
fn a_bundle_that_is_refused_leaves_the_active_one_active() {
    let mut gate = passing(Mode::Enforce);
    let (id, facts) = (gate.facts_id(), gate.facts().clone());
    let mut broken = small_bundle(Some("fleet-b"));
    broken[2_000] ^= 1;
    let error = gate.load_bundle(&broken).unwrap_err().to_string();
    assert!(error.starts_with("`manifest.dsse.json` signs another manifest") || error.contains("envelope"), "{error}");
    gate.set_unverified("somebody says so");
    assert_eq!((gate.facts_id(), gate.facts(), gate.verdict(1_000)), (id, &facts, Verdict::Pass));
}

#[test]
fn a_bundle_that_is_refused_first_is_why_there_is_none() {
    let mut gate = gate(Mode::Enforce);
    assert_eq!(
        detail(&gate, 0),
        (Attestation::BundleUnverified, "expected a bundle that verifies, found no bundle is loaded".to_owned())
    );
    let unsigned = bundle(Some("fleet-a"), &[], &[]);
    gate.load_bundle(&unsigned).unwrap_err();
    assert_eq!(
        detail(&gate, 0).1,
        "expected a bundle that verifies, found 0 of 1 needed trusted keys have signed: sign with `autonomy bundle sign`"
    );
    gate.set_unverified("the registry is away");
    assert_eq!(detail(&gate, 0).1, "expected a bundle that verifies, found the registry is away");
    gate.load_bundle(&small_bundle(None)).unwrap();
    assert_eq!(
        detail(&gate, 0),
        (
            Attestation::EnrollmentRefUndeclared,
            "expected schema 1.2 or later with `provenance.enrollment_ref`, found none in schema 1.2".to_owned()
        )
    );
}

#[test]
fn logged_facts_with_a_ref_below_schema_1_2_declare_none() {
    let facts = serde_json::to_string(passing(Mode::Enforce).facts()).unwrap();
    let below = facts.replace(r#""schema_version":"1.2""#, r#""schema_version":"1.1""#);
    assert_ne!(facts, below);
    let [sound, below] = [facts, below].map(|json| serde_json::from_str::<Facts>(&json).unwrap().verdict(1_000));
    assert_eq!((sound, below), (Verdict::Pass, Verdict::Fail(Attestation::EnrollmentRefUndeclared)));
}

#[test]
fn a_gate_that_trusts_no_keys_refuses_every_bundle() {
    let mut gate = Gate::new(Config { bundle_keys: None, ..gate(Mode::Enforce).config().clone() });
    let error = gate.load_bundle(&small_bundle(None)).unwrap_err().to_string();
    assert_eq!(error, "no keys are trusted: give the public keys that sign bundles");
    assert_eq!(gate.verdict(0), Verdict::Fail(Attestation::BundleUnverified));
}

#[test]
fn a_row_of_another_node_is_no_answer() {
    let mut gate = passing(Mode::Enforce);
    let other = Enrollment { node_id: NodeId::parse("robot-8").unwrap(), ..row("fleet-a") };
    gate.set_enrollment(Answer::Enrolled { enrollment: other, observed_at_ms: 1_000 });
    assert_eq!(
        detail(&gate, 1_000),
        (
            Attestation::EnrollmentUnavailable,
            "expected an answer from the enrollment source, \
             found the source answered for node `robot-8`, this node is `robot-7`"
                .to_owned()
        )
    );
}

#[test]
fn a_gate_without_a_node_id_denies_and_writes_null() {
    let mut gate = Gate::new(Config { node_id: None, ..gate(Mode::Enforce).config().clone() });
    gate.load_bundle(&small_bundle(Some("fleet-a"))).unwrap();
    gate.set_enrollment(Answer::Enrolled { enrollment: row("fleet-a"), observed_at_ms: 1_000 });
    assert_eq!(gate.verdict(1_000), Verdict::Fail(Attestation::NodeIdUnset));
    let mut frames = gate.decide(call(Policy::Allowed), 1_000).frames;
    frames.push(gate.facts_frame(AuditId::parse("a-2").unwrap()));
    for frame in frames {
        let mut members = b"{".to_vec();
        frame.write_members(&mut members);
        members.push(b'}');
        let parsed: BTreeMap<String, Value> = serde_json::from_slice(&members).unwrap();
        assert_eq!(parsed["node_id"], Value::Null);
        assert_eq!(parsed["kind"], frame.kind.as_str());
        assert_eq!(parsed.len(), 4);
    }
}

#[test]
fn a_row_counts_from_its_observation_to_the_last_allowed_millisecond() {
    let gate = passing(Mode::Enforce);
    for (now, expected) in [
        (0, Verdict::Fail(Attestation::EnrollmentStale)),
        (999, Verdict::Fail(Attestation::EnrollmentStale)),
        (1_000, Verdict::Pass),
        (1_100, Verdict::Pass),
        (1_101, Verdict::Fail(Attestation::EnrollmentStale)),
        (u64::MAX, Verdict::Fail(Attestation::EnrollmentStale)),
    ] {
        assert_eq!(gate.verdict(now), expected, "at {now}");
    }
    let freshness = Freshness { max_staleness_ms: u64::MAX, max_skew_ms: u64::MAX };
    let mut forever = Gate::new(Config { freshness, ..gate.config().clone() });
    forever.load_bundle(&small_bundle(Some("fleet-a"))).unwrap();
    forever.set_enrollment(Answer::Enrolled { enrollment: row("fleet-a"), observed_at_ms: 1_000 });
    assert_eq!((forever.verdict(0), forever.verdict(u64::MAX)), (Verdict::Pass, Verdict::Pass));
}

#[test]
fn a_lease_counts_from_its_issue_less_the_skew_to_its_expiry() {
    let mut gate = Gate::new(Config {
        freshness: Freshness { max_staleness_ms: 0, max_skew_ms: 10 },
        ..gate(Mode::Enforce).config().clone()
    });
    gate.load_bundle(&small_bundle(Some("fleet-a"))).unwrap();
    gate.set_lease(&signed_lease(&lease("robot-7", 1), 2)).unwrap();
    let stale = Verdict::Fail(Attestation::EnrollmentStale);
    for (now, expected) in
        [(989, stale), (990, Verdict::Pass), (1_000, Verdict::Pass), (2_000, Verdict::Pass), (2_001, stale)]
    {
        assert_eq!(gate.verdict(now), expected, "at {now}");
    }
    let backwards = Lease { issued_at_ms: 2_000, expires_at_ms: 1_000, ..lease("robot-7", 1) };
    gate.set_lease(&signed_lease(&backwards, 2)).unwrap();
    assert!((900..2_100).all(|now| gate.verdict(now) == stale));
}

#[test]
fn a_lease_that_does_not_hold_denies_and_says_why() {
    let sound = lease("robot-7", 5);
    let json = serde_json::to_string(&sound).unwrap();
    let signed = |payload: &str| envelope(gate_core::lease::PAYLOAD_TYPE, payload.as_bytes(), &[2]);
    let key = |name| support::public(name).id();
    let another = "get another lease from the orchestrator";
    let two = envelope(gate_core::lease::PAYLOAD_TYPE, json.as_bytes(), &[2, 2]);
    let table = [
        (
            "another node's",
            signed_lease(&lease("robot-8", 5), 2),
            format!("lease is for node `robot-8`, this node is `robot-7`: correct the node id, or {another}"),
        ),
        (
            "a case twin's",
            signed_lease(&lease("Robot-7", 5), 2),
            format!("lease is for node `Robot-7`, this node is `robot-7`: correct the node id, or {another}"),
        ),
        (
            "older",
            signed_lease(&lease("robot-7", 3), 2),
            format!("lease has serial 3, one with 4 was already seen: {another}"),
        ),
        (
            "by the key of bundles",
            signed_lease(&sound, 1),
            format!(
                "0 of 1 needed trusted keys have signed; `{}` signed and is not trusted: add its public key, or sign with a trusted one",
                key(1)
            ),
        ),
        (
            "unsigned",
            envelope(gate_core::lease::PAYLOAD_TYPE, json.as_bytes(), &[]),
            format!("0 of 1 needed trusted keys have signed; {another}"),
        ),
        (
            "signed twice by one key",
            two,
            format!("key `{}` has signed twice: a threshold counts distinct keys; {another}", key(2)),
        ),
        (
            "a signed manifest",
            envelope(gate_core::manifest::PAYLOAD_TYPE, json.as_bytes(), &[2]),
            format!(
                "envelope holds a `{}`, not a `{}`; {another}",
                gate_core::manifest::PAYLOAD_TYPE,
                gate_core::lease::PAYLOAD_TYPE
            ),
        ),
        ("no lease", signed("{}"), format!("lease: `node_id`: is missing, expected a string; {another}")),
        (
            "with an unknown member",
            signed(&json.replacen('{', "{\"x\":1,", 1)),
            format!("lease: member `x` is not known; {another}"),
        ),
        (
            "with a member twice",
            signed(&json.replacen('{', "{\"serial\":9,", 1)),
            format!("lease: key `serial` stands twice; {another}"),
        ),
        (
            "with a negative time",
            signed(&json.replace("2000", "-1")),
            format!("lease: `expires_at_ms`: found a number, expected a whole number below 2^64; {another}"),
        ),
        (
            "as a list",
            signed(r#"["robot-7","fleet-a","active","active",5,1000,2000]"#),
            format!("lease: found a list, expected an object; {another}"),
        ),
        ("garbage", b"lease".to_vec(), format!("envelope is not DSSE JSON: no value at byte 0; {another}")),
        (
            "empty",
            Vec::new(),
            format!("envelope is not DSSE JSON: the text ends at byte 0, where a value is wanted; {another}"),
        ),
    ];
    let mut sealed = passing(Mode::Enforce);
    sealed.set_lease(&signed_lease(&lease("robot-7", 4), 2)).unwrap();
    assert_eq!(sealed.verdict(1_000), Verdict::Pass);
    for (name, bytes, message) in table {
        let mut gate = sealed.clone();
        assert_eq!(gate.set_lease(&bytes).unwrap_err().to_string(), message, "{name}");
        let (reason, detail) = detail(&gate, 1_000);
        assert_eq!(reason, Attestation::EnrollmentUntrusted, "{name}");
        assert_eq!(
            detail,
            format!("expected a lease whose signature, node id and serial hold, or a row, found {message}"),
            "{name}"
        );
        gate.set_lease(&signed_lease(&sound, 2)).unwrap();
        assert_eq!(gate.verdict(1_000), Verdict::Pass, "after {name}, a good one");
    }
    let without_keys = Config { lease_keys: None, ..sealed.config().clone() };
    let without_node = Config { node_id: None, ..sealed.config().clone() };
    for (config, message) in [
        (without_keys, "no lease keys are trusted: give the orchestrator's public keys"),
        (without_node, "this runtime has no node id that a lease could be for: set its node id"),
    ] {
        assert_eq!(Gate::new(config).set_lease(&signed_lease(&sound, 2)).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_lease_serial_only_grows_and_may_be_renewed() {
    let mut gate = passing(Mode::Enforce);
    let mut take = |serial, expires_at_ms| {
        gate.set_lease(&signed_lease(&Lease { expires_at_ms, ..lease("robot-7", serial) }, 2)).is_ok()
    };
    assert!(take(5, 2_000), "the first");
    assert!(take(5, 3_000), "renewed, the row has not changed");
    assert!(take(6, 3_000), "a newer row");
    assert!(!take(5, 9_000), "a replay, even with a later expiry");
    assert!(take(6, 3_000), "the newest again");
    assert!(take(u64::MAX, 3_000));
    assert!(!take(u64::MAX - 1, 3_000));
}

#[test]
fn a_refused_lease_does_not_raise_the_serial() {
    let mut gate = passing(Mode::Enforce);
    gate.set_lease(&signed_lease(&lease("robot-8", 100), 2)).unwrap_err();
    gate.set_lease(&signed_lease(&lease("robot-7", 100), 1)).unwrap_err();
    gate.set_lease(&signed_lease(&lease("robot-7", 1), 2)).unwrap();
    assert_eq!(gate.verdict(1_000), Verdict::Pass);
}

#[test]
fn a_lease_with_any_bit_flipped_is_refused() {
    let mut sound = signed_lease(&lease("robot-7", 5), 2);
    let fresh = passing(Mode::Enforce);
    fresh.clone().set_lease(&sound).unwrap();
    for at in 0..sound.len() {
        for bit in 0..8 {
            sound[at] ^= 1 << bit;
            let mut gate = fresh.clone();
            assert!(gate.set_lease(&sound).is_err(), "bit {bit} of byte {at}");
            assert_eq!(gate.verdict(1_000), Verdict::Fail(Attestation::EnrollmentUntrusted));
            sound[at] ^= 1 << bit;
        }
    }
    println!("{} flips refused", sound.len() * 8);
}

#[test]
fn a_word_is_kept_as_the_log_reads_it_back() {
    let mut gate = passing(Mode::Enforce);
    let by_hand = Enrollment { status: Status::Unknown("active".into()), ..row("fleet-a") };
    gate.set_enrollment(Answer::Enrolled { enrollment: by_hand, observed_at_ms: 1_000 });
    assert_eq!(gate.facts().enrolled().unwrap().status, Status::Active);
    // Two mebibytes of a word would not fit a frame, and a frame that cannot be written stops every call.
    let endless = Enrollment { rollout_state: "x".repeat(2 << 20).into(), ..row("fleet-a") };
    gate.set_enrollment(Answer::Enrolled { enrollment: endless.clone(), observed_at_ms: 1_000 });
    assert!(gate.facts_frame(AuditId::parse("a-1").unwrap()).attrs.len() < 2_000);
    assert_eq!(gate.verdict(1_000), Verdict::Fail(Attestation::RolloutIncoherent));
    let Enrollment { node_id, enrollment_ref, status, serial, .. } = endless;
    let mut leased = Lease {
        node_id,
        enrollment_ref,
        status,
        rollout_state: "x".repeat(1 << 20).into(),
        serial,
        issued_at_ms: 0,
        expires_at_ms: 9_000,
    };
    gate.set_lease(&signed_lease(&leased, 2)).unwrap();
    leased.rollout_state = "x".repeat(2 << 20).into();
    let error = gate.set_lease(&signed_lease(&leased, 2)).unwrap_err();
    assert!(error.to_string().contains("it is too large to be one"), "{error}");
    assert!(gate.facts_frame(AuditId::parse("a-1").unwrap()).attrs.len() < 2_000);
}

#[test]
fn telling_the_same_again_keeps_the_facts_id() {
    let mut gate = passing(Mode::Enforce);
    let id = gate.facts_id();
    gate.set_enrollment(Answer::Enrolled { enrollment: row("fleet-a"), observed_at_ms: 1_000 });
    gate.load_bundle(&small_bundle(Some("fleet-a"))).unwrap();
    assert_eq!(gate.facts_id(), id);
    gate.set_enrollment(Answer::Enrolled { enrollment: row("fleet-a"), observed_at_ms: 1_001 });
    assert_ne!(gate.facts_id(), id);
    assert_eq!(passing(Mode::Off).facts_id(), id, "the mode is not a fact");
}

#[test]
fn frames_with_members_that_are_not_known_do_not_parse() {
    let gate = passing(Mode::Enforce);
    let decision = gate.decide(call(Policy::Allowed), 2_000);
    let facts = gate.facts_frame(AuditId::parse("a-1").unwrap());
    let spoil = |attrs: &str, after: &str| attrs.replacen(after, &format!("{after}\"x\":1,"), 1);
    for frame in &decision.frames {
        serde_json::from_str::<DecisionAttrs>(&frame.attrs).unwrap();
        serde_json::from_str::<DecisionAttrs>(&spoil(&frame.attrs, "{")).unwrap_err();
    }
    serde_json::from_str::<FactsAttrs>(&facts.attrs).unwrap();
    for after in ["{", "\"facts\":{", "\"bundle\":{", "\"enrollment\":{", "\"validity\":{"] {
        let spoilt = spoil(&facts.attrs, after);
        assert_ne!(spoilt, facts.attrs);
        serde_json::from_str::<FactsAttrs>(&spoilt).unwrap_err();
    }
}

#[test]
fn the_frames_of_a_denied_call_are_these_bytes() {
    let gate = passing(Mode::Advisory);
    let [policy, attestation] = &gate.decide(call(Policy::Allowed), 2_000).frames[..] else { panic!("two frames") };
    let tar = small_bundle(Some("fleet-a"));
    let bundle = Digest::of(gate_core::ustar::read(&tar).unwrap()[0].data);
    let id = gate.facts_id();
    assert_eq!(
        policy.attrs,
        format!(
            r#"{{"layer":"policy","tool":"tool.echo","outcome":"allow","reason":"policy: allowed","policy_ref":"fleet@1.0.0","bundle_digest":"{bundle}","mode":"advisory","enforced":true,"facts":"{id}","now_ms":2000}}"#
        )
    );
    assert_eq!(
        attestation.attrs,
        format!(
            r#"{{"layer":"attestation","tool":"tool.echo","outcome":"deny","reason":"attestation: enrollment_stale","policy_ref":"fleet@1.0.0","bundle_digest":"{bundle}","mode":"advisory","enforced":false,"facts":"{id}","now_ms":2000,"detail":"expected an answer that counts from 1000 to 1100, found one of 1000 ms ago"}}"#
        )
    );
}

#[test]
fn every_reason_has_its_own_number_text_and_page() {
    let distinct = |of: fn(&Reason) -> String| Reason::ALL.iter().map(of).collect::<BTreeSet<_>>().len();
    let count = Reason::ALL.len();
    for of in
        [|r: &Reason| r.number().to_string(), |r: &Reason| r.as_str().to_owned(), |r: &Reason| r.anchor().to_owned()]
    {
        assert_eq!(distinct(of), count);
    }
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(reason.number()), Some(*reason));
        assert_eq!(reason.as_str().parse(), Ok(*reason));
        assert!(!reason.remedy().is_empty() && !reason.meaning().is_empty() && !reason.since().is_empty());
    }
    assert_eq!(Reason::from_number(0), None);
}

/// What a gate is told of its enrollment.
#[derive(Debug, Clone)]
enum Told {
    Nothing,
    Answer(Answer),
    Lease(Lease, u8),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone)]
struct World {
    node_id: Option<NodeId>,
    freshness: Freshness,
    bundle: usize,
    why: Option<String>,
    told: Told,
    policy: Policy,
    policy_ref: Option<PolicyRef>,
    policy_detail: Option<String>,
    now_ms: u64,
}

impl World {
    fn gate(&self, mode: Mode) -> Gate {
        let Self { node_id, freshness, .. } = self.clone();
        let mut gate = Gate::new(Config { node_id, freshness, ..gate(mode).config().clone() });
        match self.bundle {
            0 => {}
            1 => drop(gate.load_bundle(b"no tar")),
            2 => drop(gate.load_bundle(&small_bundle(None))),
            _ => drop(gate.load_bundle(&small_bundle(Some("fleet-a")))),
        }
        if let Some(why) = &self.why {
            gate.set_unverified(why);
        }
        match self.told.clone() {
            Told::Nothing => {}
            Told::Answer(answer) => gate.set_enrollment(answer),
            Told::Lease(lease, signer) => drop(gate.set_lease(&signed_lease(&lease, signer))),
            Told::Bytes(bytes) => drop(gate.set_lease(&bytes)),
        }
        gate
    }

    fn call(&self) -> Call {
        let mut call = call(self.policy);
        call.policy.policy_ref.clone_from(&self.policy_ref);
        call.policy.detail.clone_from(&self.policy_detail);
        call
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => any::<String>(), 1 => ("[a-z\\n\"\u{e9}\u{1F916}]", 1_usize..3_000).prop_map(|(c, n)| c.repeat(n))]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 900_u64..1_300, 1 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)]
}

fn enrollment() -> impl Strategy<Value = Enrollment> {
    let status = prop_oneof![4 => Just("active".to_owned()), 1 => Just("revoked".to_owned()), 1 => text()];
    let state = prop_oneof![
        6 => proptest::sample::select(RolloutState::KNOWN).prop_map(|state| state.as_str().to_owned()),
        1 => text(),
    ];
    let node = prop_oneof![9 => Just("robot-7"), 1 => Just("robot-8")];
    let declared = prop_oneof![6 => Just("fleet-a"), 1 => Just("Fleet-a"), 1 => Just("fleet-b")];
    // A caller may make an `Unknown` of any word by hand, also of one that is known.
    (node, declared, status, state, any::<u64>(), prop::bool::weighted(0.1)).prop_map(
        |(node_id, enrollment_ref, status, state, serial, by_hand)| Enrollment {
            node_id: NodeId::parse(node_id).unwrap(),
            enrollment_ref: EnrollmentRef::parse(enrollment_ref).unwrap(),
            status: if by_hand { Status::Unknown(status) } else { Status::from_word(&status) },
            rollout_state: if by_hand { RolloutState::Unknown(state) } else { RolloutState::from_word(&state) },
            serial,
        },
    )
}

fn told() -> impl Strategy<Value = Told> {
    let row = (enrollment(), time())
        .prop_map(|(enrollment, observed_at_ms)| Told::Answer(Answer::Enrolled { enrollment, observed_at_ms }));
    let leased = (enrollment(), time(), time(), prop_oneof![9 => Just(2_u8), 1 => Just(1_u8)]).prop_map(
        |(enrollment, issued_at_ms, expires_at_ms, signer)| {
            let Enrollment { node_id, enrollment_ref, status, rollout_state, serial } = enrollment;
            Told::Lease(
                Lease { node_id, enrollment_ref, status, rollout_state, serial, issued_at_ms, expires_at_ms },
                signer,
            )
        },
    );
    prop_oneof![
        1 => Just(Told::Nothing),
        1 => text().prop_map(|why| Told::Answer(Answer::Unavailable { why })),
        2 => time().prop_map(|observed_at_ms| Told::Answer(Answer::NotEnrolled { observed_at_ms })),
        8 => row,
        6 => leased,
        1 => collection::vec(any::<u8>(), 0..200).prop_map(Told::Bytes),
    ]
}

prop_compose! {
    fn world()(
        node_id in prop::bool::weighted(0.9),
        freshness in prop_oneof![
            4 => Just(Freshness { max_staleness_ms: 100, max_skew_ms: 10 }),
            1 => (time(), time()).prop_map(|(max_staleness_ms, max_skew_ms)| Freshness { max_staleness_ms, max_skew_ms }),
        ],
        bundle in prop_oneof![1 => 0_usize..3, 4 => Just(3_usize)],
        why in option::weighted(0.2, text()),
        told in told(),
        policy in prop_oneof![3 => Just(Policy::Allowed), 1 => proptest::sample::select(Policy::ALL)],
        // Quotes and backslashes may stand in it.
        policy_ref in option::of("[!-,.-~][!-~]{0,8}"),
        policy_detail in option::of(text()),
        now_ms in time(),
    ) -> World {
        let node_id = node_id.then(|| NodeId::parse("robot-7").unwrap());
        let policy_ref = policy_ref.map(|text| PolicyRef::parse(&text).unwrap());
        World { node_id, freshness, bundle, why, told, policy, policy_ref, policy_detail, now_ms }
    }
}

proptest! {
    #[test]
    fn the_verdict_is_the_same_in_every_mode_and_the_mode_alone_makes_the_effect(world in world()) {
        let gates = Mode::ALL.map(|mode| world.gate(mode));
        let verdict = gates[0].verdict(world.now_ms);
        for (gate, mode) in gates.iter().zip(Mode::ALL) {
            prop_assert_eq!(gate.verdict(world.now_ms), verdict);
            prop_assert_eq!(gate.facts().verdict(world.now_ms), verdict);
            prop_assert_eq!(gate.facts_id(), gates[0].facts_id());
            prop_assert_eq!(gate.explain(world.now_ms), gates[0].explain(world.now_ms));
            let Decision { effect, verdict: asked, frames } = gate.decide(world.call(), world.now_ms);
            let expected = match (world.policy, mode, verdict) {
                (Policy::Allowed, Mode::Enforce, Verdict::Fail(reason)) => Effect::Deny(reason.into()),
                (Policy::Allowed, Mode::Off | Mode::Advisory | Mode::Enforce, Verdict::Pass | Verdict::Fail(_)) => Effect::Allow,
                (denied, ..) => Effect::Deny(denied.into()),
            };
            prop_assert_eq!(effect, expected);
            let is_asked = world.policy == Policy::Allowed && mode != Mode::Off;
            prop_assert_eq!(asked, is_asked.then_some(verdict));
            prop_assert_eq!(frames.len(), if is_asked && verdict != Verdict::Pass { 2 } else { 1 });
        }
    }

    #[test]
    fn frames_parse_back_and_hold_what_was_decided(world in world(), mode in proptest::sample::select(Mode::ALL.to_vec())) {
        let gate = world.gate(mode);
        let decision = gate.decide(world.call(), world.now_ms);
        let parsed = attrs(&decision);
        for (attrs, frame) in parsed.iter().zip(&decision.frames) {
            prop_assert_eq!(&serde_json::to_string(attrs).unwrap(), &frame.attrs);
            prop_assert_eq!((attrs.mode, attrs.facts, attrs.now_ms), (mode, gate.facts_id(), world.now_ms));
            prop_assert_eq!((frame.kind, frame.audit_id.as_str(), &frame.node_id), (Kind::Decision, "a-1", &world.node_id));
            let detail = attrs.detail.as_deref().unwrap_or_default();
            prop_assert!(detail.len() <= limits::DETAIL_BYTES, "{} bytes of detail", detail.len());
        }
        let policy = &parsed[0];
        prop_assert_eq!((policy.layer, policy.reason, policy.enforced), (Layer::Policy, world.policy.into(), true));
        prop_assert_eq!(policy.outcome == Outcome::Allow, world.policy == Policy::Allowed);
        if let Some(attestation) = parsed.get(1) {
            prop_assert_eq!((attestation.layer, attestation.outcome), (Layer::Attestation, Outcome::Deny));
            prop_assert_eq!(Verdict::Fail(match attestation.reason {
                Reason::Attestation(reason) => reason,
                other @ (Reason::Policy(_) | Reason::Audit(_)) => panic!("{other}"),
            }), gate.verdict(world.now_ms));
            prop_assert_eq!(attestation.enforced, mode == Mode::Enforce);
        }
    }

    #[test]
    fn a_logged_decision_is_decided_again_from_its_frames(world in world()) {
        let gate = world.gate(Mode::Enforce);
        let decision = gate.decide(world.call(), world.now_ms);
        let frame = gate.facts_frame(AuditId::parse("a-1").unwrap());
        // However much a source talks, the frame fits the log.
        prop_assert!(frame.attrs.len() < limits::FRAME_BYTES / 16, "{} bytes", frame.attrs.len());
        let raw: BTreeMap<&str, &RawValue> = serde_json::from_str(&frame.attrs).unwrap();
        let logged: FactsAttrs = serde_json::from_str(&frame.attrs).unwrap();
        prop_assert_eq!(Digest::of(raw["facts"].get().as_bytes()), logged.id, "the id is of the bytes in the frame");
        prop_assert_eq!(logged.facts.id(), logged.id);
        prop_assert_eq!(&logged.facts, gate.facts());
        for attrs in attrs(&decision) {
            prop_assert_eq!(attrs.facts, logged.id);
            if attrs.layer == Layer::Attestation {
                let again = logged.facts.verdict(attrs.now_ms);
                prop_assert_eq!(again, gate.verdict(world.now_ms));
                let Verdict::Fail(reason) = again else { panic!("it passes now") };
                prop_assert_eq!(Reason::from(reason), attrs.reason);
                let detail = logged.facts.detail(reason, attrs.now_ms);
                if reason != Attestation::EnrollmentStale {
                    prop_assert_eq!(&detail, &logged.facts.detail(reason, 12_345), "it has the time in it");
                }
                prop_assert_eq!(Some(detail), attrs.detail);
            }
        }
    }

    #[test]
    fn a_frame_that_another_process_hands_over_is_read_as_it_was_made(world in world()) {
        let gate = world.gate(Mode::Enforce);
        let facts = gate.facts_frame(AuditId::parse("a-1").unwrap());
        for frame in gate.decide(world.call(), world.now_ms).frames.into_iter().chain([facts]) {
            let mut text = b"{".to_vec();
            frame.write_members(&mut text);
            text.push(b'}');
            prop_assert_eq!(Frame::from(json::read::<Received>(&text).unwrap()), frame);
        }
    }

    #[test]
    fn facts_have_the_same_id_exactly_when_they_are_the_same(a in world(), b in world(), same in any::<bool>()) {
        let b = if same { World { now_ms: b.now_ms, policy: b.policy, ..a.clone() } } else { b };
        let (a, b): (Facts, Facts) = (a.gate(Mode::Off).facts().clone(), b.gate(Mode::Enforce).facts().clone());
        prop_assert_eq!(a == b, a.id() == b.id());
        prop_assert!(!same || a == b);
    }

    #[test]
    fn an_explanation_is_the_verdict_with_all_ten_sub_checks(world in world()) {
        let gate = world.gate(Mode::Enforce);
        let explained = gate.explain(world.now_ms);
        prop_assert_eq!(explained.iter().map(|line| line.reason).collect::<Vec<_>>(), Attestation::ALL.to_vec());
        let first = explained.iter().find(|line| line.outcome == SubCheckOutcome::Fail);
        let verdict = first.map_or(Verdict::Pass, |line| Verdict::Fail(line.reason));
        prop_assert_eq!(verdict, gate.verdict(world.now_ms));
        for line in explained {
            prop_assert_eq!(line.found.is_none(), line.outcome == SubCheckOutcome::NotJudged, "{:?}", line);
            if line.outcome == SubCheckOutcome::NotJudged {
                prop_assert_ne!(verdict, Verdict::Pass, "every sub-check is judged before a call passes");
            }
        }
    }
}
