//! The gate as a JavaScript class: objects in and out, through wasm-bindgen.
//!
//! npm's `autonomy-gate/bindgen` wraps it. A call and its decision are typed by serde-wasm-bindgen, which does not see
//! unknown members: the wrapper refuses them. What is told once is JSON underneath, so that it is refused in the words of
//! the plain module. Answers of a source and frames stay text: they hold integers that a JavaScript number does not.

use alloc::{
    format,
    string::{String, ToString},
};
use gate_core::{Digest, Effect, PolicyAnswer, Reason};
use serde::Serialize;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

use crate::{
    document,
    instance::{self, Instance},
};

/// One gate. There are many in an instance of the module; a trap ends them all.
#[wasm_bindgen(js_name = BindgenGate)]
#[derive(Debug)]
pub struct JsGate {
    instance: Instance,
}

/// A decision. Its frames are the text of a JSON array: they go to the log as they are.
#[derive(Serialize)]
struct Decision {
    effect: document::Effect,
    reason: Option<Reason>,
    verdict: Option<document::Verdict>,
    facts: Digest,
    frames: String,
}

#[wasm_bindgen(js_class = BindgenGate)]
impl JsGate {
    /// A gate with this configuration, a [`document::Configuration`]. It knows no bundle and no enrollment.
    #[wasm_bindgen(constructor)]
    pub fn new(configuration: &JsValue) -> Result<Self, JsValue> {
        let json = String::from(js_sys::JSON::stringify(configuration)?);
        let mut instance = Instance::new();
        match instance.configure(json.as_bytes()) {
            0 => Ok(Self { instance }),
            _ => Err(refusal(&instance)),
        }
    }

    /// What the module is, a [`document::Info`].
    pub fn info(&mut self) -> Result<JsValue, JsValue> {
        let number = self.instance.info();
        self.said(number)
    }

    /// Makes a tar the active bundle; gives a [`document::Bundle`].
    #[wasm_bindgen(js_name = loadBundle)]
    pub fn load_bundle(&mut self, tar: &[u8]) -> Result<JsValue, JsValue> {
        let number = self.instance.load_bundle(tar);
        self.said(number)
    }

    /// Takes a source's answer, as JSON. A malformed one makes the enrollment unavailable.
    #[wasm_bindgen(js_name = setEnrollment)]
    pub fn set_enrollment(&mut self, json: &str) -> Result<(), JsValue> {
        let number = self.instance.set_enrollment(json.as_bytes());
        self.done(number)
    }

    /// Takes a lease, the envelope's own bytes. One that does not hold makes the enrollment untrusted.
    #[wasm_bindgen(js_name = setLease)]
    pub fn set_lease(&mut self, envelope: &[u8]) -> Result<(), JsValue> {
        let number = self.instance.set_lease(envelope);
        self.done(number)
    }

    /// 0, the number of the first sub-check that fails, or below 0 for what is no time.
    pub fn verdict(&self, now_ms: f64) -> i32 {
        self.instance.verdict(now_ms)
    }

    /// Every sub-check, a [`document::Explanation`].
    pub fn explain(&mut self, now_ms: f64) -> Result<JsValue, JsValue> {
        let number = self.instance.explain(now_ms);
        self.said(number)
    }

    /// Decides a [`document::Call`].
    pub fn decide(&self, call: JsValue) -> Result<JsValue, JsError> {
        let malformed = |error: String| JsError::new(&format!("the call is malformed: {error}"));
        let call: document::Call =
            serde_wasm_bindgen::from_value(call).map_err(|error| malformed(instance::line(error)))?;
        let Reason::Policy(reason) = call.policy else {
            return Err(malformed(format!("`{}` is no policy reason: only a policy's answer is", call.policy)));
        };
        #[cfg(feature = "inject-trap")]
        assert!(call.tool.as_str() != "gate.trap", "a trap was asked for");
        let gate = &self.instance.gate;
        let facts = gate.facts_id();
        let facts_frame = (call.facts_logged != Some(facts)).then(|| gate.facts_frame(call.audit_id.clone()));
        let policy = PolicyAnswer { policy_ref: call.policy_ref, reason, detail: call.policy_detail };
        let decision = gate.decide(gate_core::Call { audit_id: call.audit_id, tool: call.tool, policy }, call.now_ms);
        let mut frames = b"[".to_vec();
        instance::write_frames(&mut frames, facts_frame.iter().chain(&decision.frames));
        frames.push(b']');
        let (effect, reason) = match decision.effect {
            Effect::Allow => (document::Effect::Allow, None),
            Effect::Deny(reason) => (document::Effect::Deny, Some(reason)),
        };
        let decision = Decision {
            effect,
            reason,
            verdict: decision.verdict.map(document::Verdict),
            facts,
            frames: String::from_utf8_lossy(&frames).into_owned(),
        };
        let serializer = serde_wasm_bindgen::Serializer::json_compatible();
        decision.serialize(&serializer).map_err(|error| JsError::new(&error.to_string()))
    }
}

impl JsGate {
    /// The output as an object.
    fn said(&self, number: i32) -> Result<JsValue, JsValue> {
        self.done(number)?;
        js_sys::JSON::parse(&String::from_utf8_lossy(self.instance.output()))
    }

    fn done(&self, number: i32) -> Result<(), JsValue> {
        if number == 0 { Ok(()) } else { Err(refusal(&self.instance)) }
    }
}

/// The output of a call that gave an error, as what is thrown.
fn refusal(instance: &Instance) -> JsValue {
    let error = js_sys::JSON::parse(&String::from_utf8_lossy(instance.output()))
        .and_then(|output| js_sys::Reflect::get(&output, &"error".into()));
    match error {
        Ok(error) => js_sys::Error::new(&error.as_string().unwrap_or_default()).into(),
        Err(error) => error,
    }
}
