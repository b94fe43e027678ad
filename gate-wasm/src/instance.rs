//! What the module does, without the ABI around it.

mod recent;

use alloc::{string::String, vec::Vec};
use gate_core::{
    Answer, Config, Digest, Effect, Freshness, Gate, Mode, PolicyAnswer, PublicKey, Reason, TrustedKeys, Verdict, json,
    key::KeyError,
    limits,
    manifest::SCHEMA_VERSION,
    reason::Attestation,
    text::{decimal, fill, line},
};
use serde::Serialize;

use self::recent::{Found, Parts, Recent};
use crate::document;

/// The input is not what the call takes; nothing was done. `set_enrollment` is the exception: see there.
pub const MALFORMED: i32 = -1;
/// The input was read, and does not hold: a bundle, a lease or a signature.
pub const REFUSED: i32 = -2;

/// The largest input, in bytes: room for a bundle that is too large, so that its reader says so.
pub const INPUT_BYTES: usize = limits::BUNDLE_BYTES + 64 * 1024;

/// Most calls of a batch.
const BATCH_CALLS: usize = 1024;

/// Times are whole numbers that a double holds exactly.
const MAX_TIME_MS: f64 = 9_007_199_254_740_991.0;

/// The version of the ABI: another major is another ABI, a higher minor has more.
pub(crate) const ABI: document::Abi = document::Abi { major: 1, minor: 0 };

/// One gate: documents in, a number and a document out.
///
/// A number below 0 is an error ([`MALFORMED`], [`REFUSED`]), and the output says why. Until it is configured it denies
/// every call.
#[derive(Debug)]
pub struct Instance {
    pub(crate) gate: Gate,
    output: Vec<u8>,
    /// Those of the last decision, and where what is the call's own ends in them: kept for their room.
    frames: Vec<u8>,
    ends: Vec<usize>,
    recent: Recent,
}

impl Default for Instance {
    fn default() -> Self {
        Self::new()
    }
}

impl Instance {
    /// A gate that denies every call: it is in `enforce` and knows nothing.
    pub fn new() -> Self {
        let config = Config {
            mode: Mode::Enforce,
            node_id: None,
            bundle_keys: None,
            lease_keys: None,
            freshness: Freshness::default(),
        };
        Self {
            gate: Gate::new(config),
            output: Vec::new(),
            frames: Vec::new(),
            ends: Vec::new(),
            recent: Recent::default(),
        }
    }

    /// What the last call but [`Self::verdict`] said.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// What this is: a [`document::Info`]. Gives 0.
    pub fn info(&mut self) -> i32 {
        let mut reasons = String::new();
        for reason in Reason::ALL {
            reasons.push_str(&fill("{} {}\n", &[&decimal(reason.number().into()), reason.as_str()]));
        }
        self.say(&document::Info {
            version: env!("CARGO_PKG_VERSION"),
            abi: ABI,
            schema_version: SCHEMA_VERSION,
            reasons: Digest::of(reasons.as_bytes()),
            limits: document::Limits {
                input_bytes: INPUT_BYTES,
                bundle_bytes: limits::BUNDLE_BYTES,
                bundle_entries: limits::BUNDLE_ENTRIES,
                batch_calls: BATCH_CALLS,
                trusted_keys: limits::TRUSTED_KEYS,
                frame_bytes: limits::FRAME_BYTES,
            },
        })
    }

    /// Starts the gate anew with a [`document::Configuration`]: it knows no bundle and no enrollment. Gives 0.
    pub fn configure(&mut self, input: &[u8]) -> i32 {
        match read::<document::Configuration>(input)
            .and_then(|configuration| config(configuration).map_err(|error| line(&error.text())))
        {
            Ok(config) => {
                self.gate = Gate::new(config);
                self.recent = Recent::default();
                self.done()
            }
            Err(error) => self.fail(MALFORMED, &fill("the configuration is refused: {}", &[&error])),
        }
    }

    /// Makes a tar the active bundle and describes it as a [`document::Bundle`]. Gives 0, or [`REFUSED`]: the bundle that
    /// was active then stays so.
    pub fn load_bundle(&mut self, tar: &[u8]) -> i32 {
        let bundle = match self.gate.load_bundle(tar) {
            Ok(bundle) => bundle,
            Err(error) => return self.fail(REFUSED, &error.text()),
        };
        let manifest = &bundle.manifest;
        let mut files = Vec::new();
        // Both are in the order of their paths, and have the same ones.
        for (file, (_, digest)) in bundle.files.iter().zip(manifest.files.iter()) {
            // It lies in the tar.
            let offset = file.data.as_ptr() as usize - tar.as_ptr() as usize;
            files.push(document::File { path: file.path, digest: *digest, offset, size: file.data.len() });
        }
        let description = document::Bundle {
            digest: bundle.digest,
            name: &manifest.name,
            version: &manifest.version,
            channel: manifest.channel,
            policy_version: &manifest.policy_version,
            schema_version: manifest.schema_version,
            policy_ref: manifest.policy_ref(),
            enrollment_ref: manifest.declared_ref(),
            files,
            signers: bundle.signers,
        };
        self.say(&description)
    }

    /// Takes a source's [`Answer`]. Gives 0, or [`MALFORMED`]: the enrollment is then unavailable, for a source that answers
    /// nonsense has not answered.
    pub fn set_enrollment(&mut self, input: &[u8]) -> i32 {
        match read(input) {
            Ok(answer) => {
                self.gate.set_enrollment(answer);
                self.done()
            }
            Err(error) => {
                let why = fill("the enrollment answer is malformed: {}", &[&error]);
                self.fail(MALFORMED, &why);
                self.gate.set_enrollment(Answer::Unavailable { why });
                MALFORMED
            }
        }
    }

    /// Takes a lease: a DSSE envelope, byte for byte. Gives 0, or [`REFUSED`]: the enrollment is then untrusted.
    pub fn set_lease(&mut self, envelope: &[u8]) -> i32 {
        match self.gate.set_lease(envelope) {
            Ok(()) => self.done(),
            Err(error) => self.fail(REFUSED, &error.text()),
        }
    }

    /// The verdict at `now_ms`, milliseconds since the Unix epoch: 0, or the number of the reason. [`MALFORMED`] for what is
    /// no such time: negative, above 2⁵³ − 1, or not a number. Touches no memory.
    pub fn verdict(&self, now_ms: f64) -> i32 {
        match time(now_ms) {
            Some(now_ms) => number(self.gate.verdict(now_ms)),
            None => MALFORMED,
        }
    }

    /// Decides a [`document::Call`]: a [`document::Decision`] with its frames. Gives 0 where the call is allowed, the number
    /// of the reason where it is denied, or [`MALFORMED`].
    pub fn decide(&mut self, input: &[u8]) -> i32 {
        self.output.clear();
        self.decide_one(input).unwrap_or_else(|error| self.fail(MALFORMED, &error))
    }

    /// Decides a call that is a value already, and appends its frames to `frames` as a JSON list: for hosts in Rust, which
    /// have no use for the text around them. The output stays as it was. Not in the module: it would be dead weight there.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn decide_call(&self, call: document::Call, frames: &mut Vec<u8>) -> Result<document::Decision, String> {
        decide_call(&self.gate, call, frames, |_| ())
    }

    /// Decides calls, one a line: as many lines come out, each a decision or a [`document::Error`]. Gives how many, or
    /// [`MALFORMED`] when there are too many.
    pub fn decide_batch(&mut self, input: &[u8]) -> i32 {
        self.output.clear();
        let lines = input.strip_suffix(b"\n").unwrap_or(input);
        if lines.iter().filter(|byte| **byte == b'\n').count() >= BATCH_CALLS {
            return self.fail(
                MALFORMED,
                &fill("more than {} calls in a batch: send the others in another", &[&decimal(BATCH_CALLS as u64)]),
            );
        }
        let mut count = 0;
        for line in lines.split(|byte| *byte == b'\n') {
            if let Err(error) = self.decide_one(line) {
                json::write_to(&mut self.output, &document::Error { error: &error });
            }
            self.output.push(b'\n');
            count += 1;
        }
        count
    }

    /// Every sub-check at `now_ms`, a [`document::Explanation`]. Gives 0, or [`MALFORMED`] for what is no time.
    pub fn explain(&mut self, now_ms: f64) -> i32 {
        let Some(now_ms) = time(now_ms) else {
            return self.fail(MALFORMED, "not a time: give milliseconds since the Unix epoch, from 0 to 2^53 - 1");
        };
        self.output.clear();
        let explanation = document::Explanation {
            verdict: document::Verdict(self.gate.verdict(now_ms)),
            facts_id: self.gate.facts_id(),
            facts: self.gate.facts(),
            sub_checks: self.gate.explain(now_ms),
        };
        json::write_to(&mut self.output, &explanation);
        0
    }

    /// Whether an Ed25519 signature holds by the strict rules: the key's 32 bytes, the signature's 64, then the message. Gives
    /// 0, [`REFUSED`] or [`MALFORMED`].
    ///
    /// No part of a decision: so that published vectors can be run on the engine that runs the gate.
    pub fn verify_signature(&mut self, input: &[u8]) -> i32 {
        let parts =
            input.split_first_chunk::<32>().and_then(|(key, rest)| Some((key, rest.split_first_chunk::<64>()?)));
        let Some((key, (signature, message))) = parts else {
            return self.fail(MALFORMED, "a key of 32 bytes, a signature of 64 and a message are wanted");
        };
        match PublicKey::from_bytes(key) {
            Ok(key) if key.verifies(message, signature) => self.done(),
            Ok(_) => self.fail(REFUSED, "the signature does not hold"),
            Err(error) => self.fail(REFUSED, &error.text()),
        }
    }

    fn decide_one(&mut self, input: &[u8]) -> Result<i32, String> {
        let parts = Parts::of(input);
        if let Some(number) = parts.and_then(|call| self.recent.write_to(&mut self.output, &self.gate, call)) {
            return Ok(number);
        }
        let call: document::Call = read(input).map_err(|error| fill("the call is malformed: {}", &[&error]))?;
        let logged = call.facts_logged;
        self.frames.clear();
        self.ends.clear();
        let decision = decide_call(&self.gate, call, &mut self.frames, |end| self.ends.push(end))?;
        let number = decision.reason.map_or(0, |reason| reason.number().into());
        let from = self.output.len();
        decision.write_start(&mut self.output);
        // A frame of new facts comes once, and what is stale has a time in its detail.
        let verdict = decision.verdict.map(|verdict| verdict.0);
        if let (Some(call), Some(start)) = (parts, self.output.get(from..))
            && logged == Some(decision.facts)
            && verdict != Some(Verdict::Fail(Attestation::EnrollmentStale))
        {
            let found = Found { number, facts: decision.facts, verdict };
            self.recent.remember(call, found, start, &self.frames, &self.ends);
        }
        self.output.extend_from_slice(&self.frames);
        self.output.push(b'}');
        Ok(number)
    }

    fn done(&mut self) -> i32 {
        self.output.clear();
        0
    }

    fn say(&mut self, document: &impl Serialize) -> i32 {
        self.output.clear();
        json::write_to(&mut self.output, document);
        0
    }

    fn fail(&mut self, code: i32, error: &str) -> i32 {
        self.say(&document::Error { error });
        code
    }
}

fn config(configuration: document::Configuration) -> Result<Config, KeyError> {
    let keys = |pems: Option<Vec<String>>, threshold: Option<u64>| {
        let mut keys = Vec::new();
        for pem in pems.unwrap_or_default() {
            keys.push(PublicKey::from_pem(&pem)?);
        }
        if keys.is_empty() {
            return Ok(None);
        }
        // A threshold that is no `usize` here is out of reach as well.
        let threshold = threshold.map_or(1, |threshold| usize::try_from(threshold).unwrap_or(usize::MAX));
        TrustedKeys::new(keys, threshold).map(Some)
    };
    let default = Freshness::default();
    Ok(Config {
        mode: configuration.mode,
        node_id: configuration.node_id,
        bundle_keys: keys(configuration.bundle_keys, configuration.bundle_threshold)?,
        lease_keys: keys(configuration.lease_keys, configuration.lease_threshold)?,
        freshness: Freshness {
            max_staleness_ms: configuration.max_staleness_ms.unwrap_or(default.max_staleness_ms),
            max_skew_ms: configuration.max_skew_ms.unwrap_or(default.max_skew_ms),
        },
    })
}

/// The decision on a call; its frames are appended.
pub(crate) fn decide_call(
    gate: &Gate,
    call: document::Call,
    frames: &mut Vec<u8>,
    ends: impl FnMut(usize),
) -> Result<document::Decision, String> {
    let document::Call { now_ms, audit_id, tool, policy, policy_ref, policy_detail: detail, facts_logged } = call;
    let Reason::Policy(reason) = policy else {
        let policy = policy.as_str();
        return Err(fill("the call is malformed: `{}` is no policy reason: only a policy's answer is", &[policy]));
    };
    #[cfg(feature = "inject-trap")]
    assert!(tool.as_str() != "gate.trap", "a trap was asked for");
    let call = gate_core::Call { audit_id, tool, policy: PolicyAnswer { policy_ref, reason, detail } };
    let (effect, verdict) = gate.decide_to(frames, ends, call, facts_logged, now_ms);
    let (effect, reason) = match effect {
        Effect::Allow => (document::Effect::Allow, None),
        Effect::Deny(reason) => (document::Effect::Deny, Some(reason)),
    };
    let verdict = verdict.map(document::Verdict);
    Ok(document::Decision { effect, reason, verdict, facts: gate.facts_id() })
}

fn read<T: json::Read>(input: &[u8]) -> Result<T, String> {
    json::read(input).map_err(|error| line(&error.text()))
}

fn time(now_ms: f64) -> Option<u64> {
    // In this range the conversion is exact, but for the fraction that it drops.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range: looked at just before")]
    (0.0..=MAX_TIME_MS).contains(&now_ms).then_some(now_ms as u64)
}

fn number(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Fail(reason) => reason.number().into(),
    }
}
