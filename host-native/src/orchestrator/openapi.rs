//! The orchestrator's contract for programs: OpenAPI 3.1, from the types and the paths that serve it.

use gate_core::NodeId;
use serde_json::{Value, json};

use super::{
    CHANGES, COMMAND, COUNT, DIRECTIVE, ENROLLMENT, ENROLLMENTS, HISTORY, LEASE, ONE_DIRECTIVE, ONE_ROLLOUT, REVOKE,
    ROLLOUT, ROLLOUTS,
};
use crate::{
    enrollment::{
        Changes, Mutation,
        rollout::{Command, Directive, Order, Report, Rollout, RolloutId},
        wire::{self, Count, Current, Directives, Enroll, Found, History, PAGE, Page, Rollouts, SetRollout, WAIT_MS},
    },
    openapi::{self, content, schema},
    serve::ErrorBody,
};

/// What each status means, wherever it is answered.
const MEANINGS: [(u16, &str); 16] = [
    (200, "done; where something was to be changed, the change is on disk"),
    (304, "the lease is the one whose tag was sent"),
    (400, "a malformed node id, query or body; nothing was changed"),
    (401, "the token is missing or wrong, or has expired"),
    (403, "the token's role may not do this, or the request comes from a web page"),
    (404, "the node was never enrolled or has no directive, or there is no such rollout or path"),
    (405, "another method"),
    (408, "the body took too long; nothing was changed"),
    (
        409,
        "what is there does not allow it: the node's enrollment, the rollout's phase or the directive's state; nothing was changed",
    ),
    (410, "the revision is not yet there: the store was replaced; begin again without `after`"),
    (413, "the body is too large; nothing was changed"),
    (429, "the token asks too often; nothing was changed; `retry-after` says in how many seconds to ask again"),
    (431, "the head is too large"),
    (500, "a defect of the orchestrator"),
    (
        503,
        "the store or the tokens cannot be used, or there are too many connections; where it says so, the change may have been made",
    ),
    (504, "no answer in time: the change may have been made"),
];

/// The statuses of every route.
const ALWAYS: [u16; 10] = [200, 400, 401, 403, 405, 429, 431, 500, 503, 504];

/// The document that `docs/src/spec/orchestrator.openapi.json` is.
pub fn openapi() -> Value {
    let mut types = openapi::types();
    types.subschema_for::<NodeId>();
    types.subschema_for::<Enroll>();
    types.subschema_for::<SetRollout>();
    types.subschema_for::<Mutation>();
    types.subschema_for::<Found>();
    types.subschema_for::<Page>();
    types.subschema_for::<History>();
    types.subschema_for::<Count>();
    types.subschema_for::<Changes>();
    types.subschema_for::<RolloutId>();
    types.subschema_for::<Command>();
    types.subschema_for::<Order>();
    types.subschema_for::<Report>();
    types.subschema_for::<Rollout>();
    types.subschema_for::<Rollouts>();
    types.subschema_for::<Directive>();
    types.subschema_for::<Directives>();
    types.subschema_for::<Current>();
    types.subschema_for::<ErrorBody>();
    let mut schemas = types.take_definitions(true);
    // What is in it is the gate's contract, to the byte.
    let envelope = json!({"type": "object", "description": "a lease: a DSSE envelope, to be passed on as it is"});
    schemas.insert("Envelope".to_owned(), envelope);
    let node_id = json!({"name": "node_id", "in": "path", "required": true, "schema": schema("NodeId")});
    let rollout_id = json!({"name": "rollout_id", "in": "path", "required": true, "schema": schema("RolloutId")});
    let limit = query("limit", json!({"type": "integer", "minimum": 1, "maximum": PAGE, "default": 100}));
    let status = query("status", json!({"type": "string", "enum": ["active", "revoked"]}));
    let number = || json!({"type": "integer", "minimum": 0});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The orchestrator of Autonomy Gate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Enrollments, leases and changes of a fleet: `autonomy orchestrator serve`.",
        },
        "servers": [{"url": "http://127.0.0.1:7779"}],
        "security": [{"token": []}],
        "paths": openapi::with_health(json!({
            ENROLLMENTS: {"get": operation("list", "rows, page by page", answers("Page", &[]), vec![
                query("after", schema("NodeId")), limit.clone(), status.clone(),
            ], None)},
            ENROLLMENT: {
                "get": operation("look_up", "what is known of a node", answers("Found", &[]), vec![node_id.clone()], None),
                "put": operation("enroll", "enrolls a node", answers("Mutation", &[408, 409, 413]), vec![node_id.clone()], Some("Enroll")),
            },
            REVOKE: {"post": operation("revoke", "withdraws a node's enrollment", answers("Mutation", &[404, 408, 413]), vec![node_id.clone()], None)},
            ROLLOUT: {"put": operation("set_rollout", "says where a node's rollout stands", answers("Mutation", &[404, 408, 413]), vec![node_id.clone()], Some("SetRollout"))},
            ROLLOUTS: {
                "get": operation("rollouts", "rollouts, the latest first", answers("Rollouts", &[]), vec![
                    query("before", schema("RolloutId")),
                    query("limit", json!({"type": "integer", "minimum": 1, "maximum": wire::ROLLOUTS, "default": wire::ROLLOUTS})),
                ], None),
                "post": operation("create_rollout", "orders a bundle for nodes", answers("Rollout", &[404, 408, 409, 413]), vec![], Some("Order")),
            },
            ONE_ROLLOUT: {"get": operation("rollout", "a rollout, and its directives page by page", answers("Directives", &[404]), vec![
                rollout_id.clone(), query("after", schema("NodeId")), limit.clone(),
            ], None)},
            COMMAND: {"post": operation("command_rollout", "pauses, resumes or takes back a rollout", answers("Rollout", &[404, 408, 409, 413]), vec![
                rollout_id.clone(), json!({"name": "command", "in": "path", "required": true, "schema": schema("Command")}),
            ], None)},
            DIRECTIVE: {
                "get": operation("directive", "what a node is asked to do", answers("Current", &[]), vec![node_id.clone()], None),
                "put": operation("report", "says how far a node has come", answers("Directive", &[404, 408, 409, 413]), vec![node_id.clone()], Some("Report")),
            },
            ONE_DIRECTIVE: {"get": operation("directive_of", "what a node was asked to do by a rollout", answers("Current", &[]), vec![node_id.clone(), rollout_id], None)},
            HISTORY: {"get": operation("history", "a node's changes, oldest first", answers("History", &[]), vec![
                node_id.clone(), query("after", number()), limit.clone(),
            ], None)},
            COUNT: {"get": operation("count", "how many rows there are", answers("Count", &[]), vec![status], None)},
            LEASE: {"get": operation("lease", "a node's row, signed for a while", answers("Envelope", &[304, 404]), vec![node_id], None)},
            CHANGES: {"get": operation("changes", "changes after a revision, or the revision to begin with", answers("Changes", &[410]), vec![
                query("after", number()), query("node_id", schema("NodeId")), limit,
                query("wait_ms", json!({"type": "integer", "minimum": 0, "maximum": WAIT_MS, "default": 0})),
            ], None)},
        })),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

fn query(name: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "schema": schema})
}

fn answers(good: &str, others: &[u16]) -> Value {
    openapi::answers(&MEANINGS, good, &[&ALWAYS, others].concat())
}

fn operation(id: &str, summary: &str, answers: Value, parameters: Vec<Value>, body: Option<&str>) -> Value {
    let mut operation = json!({"operationId": id, "summary": summary, "parameters": parameters, "responses": answers});
    if let (Some(name), Some(members)) = (body, operation.as_object_mut()) {
        members.insert("requestBody".to_owned(), json!({"required": true, "content": content(name)}));
    }
    operation
}
