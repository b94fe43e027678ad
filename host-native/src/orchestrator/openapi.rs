//! The orchestrator's contract for programs: OpenAPI 3.1, from the types and the paths that serve it.

use gate_core::{NodeId, Status};
use serde_json::{Value, json};

use super::Operation;
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
const MEANINGS: [(u16, &str); 12] = [
    (200, "done; where something was to be changed, the change is on disk"),
    (304, "there is what a tag of `if-none-match` stands for"),
    (400, "a malformed node id, query or body; nothing was changed"),
    (401, "the token is missing or wrong, or has expired"),
    (403, "the token's role may not do this, or the request comes from a web page"),
    (404, "the node was never enrolled or has no directive, or there is no such rollout or path"),
    (405, "another method"),
    (
        409,
        "what is there does not allow it: the node's enrollment, the rollout's phase or the directive's state; nothing was changed",
    ),
    (410, "the revision is not yet there: the store was replaced; begin again without `after`"),
    (429, "the token asks too often; nothing was changed; `retry-after` says in how many seconds to ask again"),
    (500, "a defect of the orchestrator"),
    (503, "the store or the tokens cannot be used; where it says so, the change may have been made"),
];

/// The statuses of every route.
const ALWAYS: [u16; 8] = [200, 400, 401, 403, 405, 429, 500, 503];

impl Operation {
    fn document(self) -> Value {
        let has_tag = self.is_tagged() || matches!(self, Self::Lease);
        let unchanged: &[u16] = if has_tag { &[304] } else { &[] };
        let answers =
            |good, others: &[u16]| openapi::answers(&MEANINGS, content(good), &[&ALWAYS, unchanged, others].concat());
        let node_id = || path("node_id", "NodeId");
        let rollout_id = || path("rollout_id", "RolloutId");
        let limit = || query("limit", json!({"type": "integer", "minimum": 1, "maximum": PAGE, "default": 100}));
        let status = || query("status", json!({"type": "string", "enum": Status::KNOWN}));
        let after = |schema| query("after", schema);
        let number = || json!({"type": "integer", "minimum": 0});
        let (id, summary, parameters, body, responses) = match self {
            Self::List => (
                "list",
                "rows, page by page",
                vec![after(schema("NodeId")), limit(), status()],
                None,
                answers("Page", &[]),
            ),
            Self::LookUp => ("look_up", "what is known of a node", vec![node_id()], None, answers("Found", &[])),
            Self::Enroll => ("enroll", "enrolls a node", vec![node_id()], Some("Enroll"), answers("Mutation", &[409])),
            Self::Revoke => {
                ("revoke", "withdraws a node's enrollment", vec![node_id()], None, answers("Mutation", &[404]))
            }
            Self::SetRollout => (
                "set_rollout",
                "says where a node's rollout stands",
                vec![node_id()],
                Some("SetRollout"),
                answers("Mutation", &[404]),
            ),
            Self::History => (
                "history",
                "a node's changes, oldest first",
                vec![node_id(), after(number()), limit()],
                None,
                answers("History", &[]),
            ),
            Self::Count => ("count", "how many rows there are", vec![status()], None, answers("Count", &[])),
            Self::Lease => {
                ("lease", "a node's row, signed for a while", vec![node_id()], None, answers("Envelope", &[404]))
            }
            Self::Changes => (
                "changes",
                "changes after a revision, or the revision to begin with",
                vec![
                    after(number()),
                    query("node_id", schema("NodeId")),
                    limit(),
                    query("wait_ms", json!({"type": "integer", "minimum": 0, "maximum": WAIT_MS, "default": 0})),
                ],
                None,
                answers("Changes", &[410]),
            ),
            Self::Rollouts => {
                let most = wire::ROLLOUTS;
                let limit = query("limit", json!({"type": "integer", "minimum": 1, "maximum": most, "default": most}));
                let before = query("before", schema("RolloutId"));
                ("rollouts", "rollouts, the latest first", vec![before, limit], None, answers("Rollouts", &[]))
            }
            Self::CreateRollout => {
                ("create_rollout", "orders a bundle for nodes", vec![], Some("Order"), answers("Rollout", &[404, 409]))
            }
            Self::Rollout => (
                "rollout",
                "a rollout, and its directives page by page",
                vec![rollout_id(), after(schema("NodeId")), limit()],
                None,
                answers("Directives", &[404]),
            ),
            Self::CommandRollout => (
                "command_rollout",
                "pauses, resumes or takes back a rollout",
                vec![rollout_id(), path("command", "Command")],
                None,
                answers("Rollout", &[404, 409]),
            ),
            Self::Directive => {
                ("directive", "what a node is asked to do", vec![node_id()], None, answers("Current", &[]))
            }
            Self::Report => (
                "report",
                "says how far a node has come",
                vec![node_id()],
                Some("Report"),
                answers("Directive", &[404, 409]),
            ),
            Self::DirectiveOf => (
                "directive_of",
                "what a node was asked to do by a rollout",
                vec![node_id(), rollout_id()],
                None,
                answers("Current", &[]),
            ),
        };
        let (parameters, responses) = if has_tag { tagged(parameters, responses) } else { (parameters, responses) };
        let mut operation =
            json!({"operationId": id, "summary": summary, "parameters": parameters, "responses": responses});
        if let (Some(name), Some(members)) = (body, operation.as_object_mut()) {
            members.insert("requestBody".to_owned(), json!({"required": true, "content": content(name)}));
        }
        operation
    }
}

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
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The orchestrator of Autonomy Gate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Enrollments, leases and changes of a fleet: `autonomy orchestrator serve`.",
        },
        "servers": [{"url": "http://127.0.0.1:7779"}],
        "security": [{"token": []}],
        "paths": openapi::with_health(openapi::paths(
            Operation::ALL.map(|operation| (operation.route(), operation.document())),
        )),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

fn path(name: &str, of: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": schema(of)})
}

fn query(name: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "schema": schema})
}

/// With the tag that an answer has, and the question whether it is still that.
fn tagged(mut parameters: Vec<Value>, mut answers: Value) -> (Vec<Value>, Value) {
    let tag = json!({"type": "string"});
    for status in ["200", "304"] {
        if let Some(answer) = answers.get_mut(status).and_then(Value::as_object_mut) {
            answer.insert("headers".to_owned(), json!({"etag": {"required": true, "schema": tag}}));
        }
    }
    parameters.push(json!({"name": "if-none-match", "in": "header", "required": false, "schema": tag}));
    (parameters, answers)
}
