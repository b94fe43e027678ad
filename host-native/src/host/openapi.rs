//! The host's contract for programs: OpenAPI 3.1, from the types and the paths that serve it.

use gate_core::{Answer, NodeId};
use serde_json::{Value, json};

use super::{Appended, Batch, Health, Operation};
use crate::{
    openapi::{self, content, schema},
    serve::ErrorBody,
};

/// What each status means, wherever it is answered.
const MEANINGS: [(u16, &str); 8] = [
    (200, "done"),
    (400, "a malformed node id or batch; nothing is in the log"),
    (401, "the token is missing or wrong"),
    (403, "the request comes from a web page"),
    (405, "another method"),
    (409, "a decision's facts are not in the log, nor is anything of the batch: send it again with them in front"),
    (413, "more than one batch may hold; nothing is in the log"),
    (503, "the store or the log cannot be used"),
];

impl Operation {
    fn document(self) -> Value {
        let answers = |good, statuses: &[u16]| openapi::answers(&MEANINGS, content(good), statuses);
        match self {
            Self::Health => json!({
                "summary": "whether frames are taken",
                "operationId": "health",
                "responses": answers("Health", &[200, 401, 403, 405, 503]),
            }),
            Self::LookUp => json!({
                "summary": "what is known of a node now",
                "operationId": "look_up",
                "parameters": [{"name": "node_id", "in": "path", "required": true, "schema": schema("NodeId")}],
                "responses": answers("Answer", &[200, 400, 401, 403, 405, 503]),
            }),
            Self::Append => json!({
                "summary": "writes frames; 200 once they are durable",
                "operationId": "append",
                "requestBody": {"required": true, "content": content("Batch")},
                "responses": answers("Appended", &[200, 400, 401, 403, 405, 409, 413, 503]),
            }),
        }
    }
}

/// The document that `docs/src/spec/host.openapi.json` is.
pub fn openapi() -> Value {
    let mut types = openapi::types();
    types.subschema_for::<Answer>();
    types.subschema_for::<NodeId>();
    types.subschema_for::<Batch>();
    types.subschema_for::<Appended>();
    types.subschema_for::<Health>();
    types.subschema_for::<ErrorBody>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The native host of Autonomy Gate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Enrollment look-ups and durable frames for the runtimes of a node: `autonomy host serve`. What is not answered with 200 is a deny.",
        },
        "servers": [{"url": "http://127.0.0.1:7778"}],
        "security": [{"token": []}],
        "paths": openapi::with_health(openapi::paths(
            Operation::ALL.map(|operation| (operation.route(), operation.document())),
        )),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": types.take_definitions(true),
        },
    })
}
