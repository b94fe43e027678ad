//! The documents of the ABI as one JSON Schema (draft 2020-12), from the types that read and write them.

use alloc::{borrow::Cow, vec::Vec};
use gate_core::{Answer, frame::Received, reason::Attestation};
use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
    json_schema,
};

use crate::document::{Bundle, Call, Configuration, Decision, Error, Explanation, Info, Verdict};

/// Every document under `$defs`, by its name in `docs/src/spec/abi.md`; what goes in is closed, what comes out may grow.
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12();
    let mut inward = SchemaGenerator::new(settings.clone().for_deserialize());
    inward.subschema_for::<Configuration>();
    inward.subschema_for::<Call>();
    inward.subschema_for::<Answer>();
    let mut outward = SchemaGenerator::new(settings.with(|settings| settings.contract = Contract::Serialize));
    outward.subschema_for::<Info>();
    outward.subschema_for::<Bundle<'_>>();
    outward.subschema_for::<WholeDecision>();
    outward.subschema_for::<Explanation<'_>>();
    outward.subschema_for::<Error<'_>>();
    // What is in both, a row of an enrollment say, is the same in both.
    let mut definitions = outward.take_definitions(true);
    definitions.extend(inward.take_definitions(true));
    let mut schema = json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The documents of gate.wasm",
    });
    schema.insert("$defs".into(), definitions.into());
    schema
}

/// Out: `gate_decide`.
#[derive(JsonSchema)]
#[schemars(rename = "Decision")]
#[expect(dead_code, reason = "its fields are read by the derive")]
struct WholeDecision {
    #[schemars(flatten)]
    decision: Decision,
    /// What to append as one, before the tool runs and before the caller is answered.
    frames: Vec<Received>,
}

impl JsonSchema for Verdict {
    fn schema_name() -> Cow<'static, str> {
        "Verdict".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<_> =
            core::iter::once("pass").chain(Attestation::ALL.iter().map(|reason| reason.as_str())).collect();
        json_schema!({"type": "string", "enum": words})
    }
}
