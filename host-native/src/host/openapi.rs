//! The host's contract for programs: OpenAPI 3.1, from the types and the paths that serve it.

use gate_core::{Answer, NodeId};
use serde_json::{Value, json};

use super::{Appended, Batch, ENROLLMENT, FRAMES, HEALTH, Health};
use crate::{
    openapi::{self, content, schema},
    serve::ErrorBody,
};

/// What each status means, wherever it is answered.
const MEANINGS: [(u16, &str); 11] = [
    (200, "done"),
    (400, "a malformed node id or batch; nothing is in the log"),
    (401, "the token is missing or wrong"),
    (403, "the request comes from a web page"),
    (405, "another method"),
    (408, "the body took too long; nothing is in the log"),
    (409, "a decision's facts are not in the log, nor is anything of the batch: send it again with them in front"),
    (413, "more than one batch may hold; nothing is in the log"),
    (431, "the head is too large"),
    (503, "the store or the log cannot be used: deny"),
    (504, "no answer in time: the batch may be in the log; deny"),
];

/// The document that `docs/src/spec/host.openapi.json` is.
pub fn openapi() -> Value {
    let mut types = openapi::types();
    types.subschema_for::<Answer>();
    types.subschema_for::<NodeId>();
    types.subschema_for::<Batch>();
    types.subschema_for::<Appended>();
    types.subschema_for::<Health>();
    types.subschema_for::<ErrorBody>();
    let answers = |good: &str, statuses: &[u16]| openapi::answers(&MEANINGS, good, statuses);
    let health = answers("Health", &[200, 401, 403, 405, 431, 503, 504]);
    let look_up = answers("Answer", &[200, 400, 401, 403, 405, 431, 503, 504]);
    let append = answers("Appended", &[200, 400, 401, 403, 405, 408, 409, 413, 431, 503, 504]);
    let batch = content("Batch");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The native host of Autonomy Gate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Enrollment look-ups and durable frames for the runtimes of a node: `autonomy host serve`.",
        },
        "servers": [{"url": "http://127.0.0.1:7778"}],
        "security": [{"token": []}],
        "paths": openapi::with_health(json!({
            HEALTH: {"get": {"summary": "whether frames are taken", "operationId": "health", "responses": health}},
            ENROLLMENT: {"get": {
                "summary": "what is known of a node now",
                "operationId": "look_up",
                "parameters": [{"name": "node_id", "in": "path", "required": true, "schema": schema("NodeId")}],
                "responses": look_up,
            }},
            FRAMES: {"post": {
                "summary": "writes frames; 200 once they are durable",
                "operationId": "append",
                "requestBody": {"required": true, "content": batch},
                "responses": append,
            }},
        })),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": types.take_definitions(true),
        },
    })
}
