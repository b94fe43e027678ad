//! The gate as a JavaScript class: objects in and out, through wasm-bindgen.
//!
//! npm's `autonomy-gate/bindgen` wraps it. A call and its decision are typed by serde-wasm-bindgen, which does not see
//! unknown members: the wrapper refuses them. What is told once is JSON underneath, so that it is refused in the words of
//! the plain module. Answers of a source and frames stay text: they hold integers that a JavaScript number does not.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use gate_core::text::line;
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
    #[serde(flatten)]
    decision: document::Decision,
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

    /// Whether an Ed25519 signature holds: the key, the signature, then the message. For the published vectors; no part of
    /// a decision.
    #[wasm_bindgen(js_name = verifySignature)]
    pub fn verify_signature(&mut self, input: &[u8]) -> bool {
        self.instance.verify_signature(input) == 0
    }

    /// Decides a [`document::Call`].
    pub fn decide(&self, call: JsValue) -> Result<JsValue, JsError> {
        let call = serde_wasm_bindgen::from_value(call)
            .map_err(|error| JsError::new(&format!("the call is malformed: {}", line(&error.to_string()))))?;
        let mut json = Vec::new();
        let decision = instance::decide_call(&self.instance.gate, call, &mut json, |_| ())
            .map_err(|error| JsError::new(&error))?;
        let decision = Decision { decision, frames: String::from_utf8_lossy(&json).into_owned() };
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
