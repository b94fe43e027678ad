//! `POST /v1/tool`: a call comes in, the gate decides, the tool runs. `docs/src/spec/http.md` is the contract.

mod params;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use gate_core::{AuditId, PolicyRef, Reason, ToolName, reason::Audit};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{future::Future, sync::Arc};

use crate::{
    gate::{Denial, Gate, ToolOutcome},
    serve::{
        self, Call, Limits, Listener, Metrics, Readiness, Report, error_response, fallbacks, health_routes,
        json_response,
    },
    tool::Tools,
    wal::WalError,
};

/// A tool call, as a caller sends it. Fields that a caller may not set are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolCall {
    kind: ToolName,
    #[serde(default, deserialize_with = "params::read")]
    params: Value,
}

/// The answer to a call that may run.
#[derive(Serialize)]
struct Allowed<'a> {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    policy_ref: Option<&'a PolicyRef>,
    audit_id: &'a AuditId,
}

/// The answer to a call that may not run: 403, or 503 when it could not be written down.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    decision: &'static str,
    reason: Reason,
    policy_ref: Option<PolicyRef>,
    audit_id: AuditId,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let Denial { reason, policy_ref, audit_id } = denial;
        Self { decision: "deny", reason, policy_ref, audit_id }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.reason {
            Reason::Audit(Audit::WalUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Reason::Attestation(_) | Reason::Policy(_) => StatusCode::FORBIDDEN,
        };
        json_response(status, &self)
    }
}

/// How a tool went whose answer has this status.
pub(crate) fn outcome_of(status: StatusCode) -> ToolOutcome {
    if status.as_u16() < 400 { ToolOutcome::Completed } else { ToolOutcome::Failed }
}

struct App {
    gate: Arc<Gate>,
    tools: Tools,
    metrics: Arc<Metrics>,
}

/// The runtime's routes: `POST /v1/tool`, `/healthz`, `/readyz`, `/metrics`.
pub fn router(gate: Arc<Gate>, tools: Tools, metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    let app = Arc::new(App { gate, tools, metrics: Arc::clone(&metrics) });
    let tool = Router::new().route("/v1/tool", post(call)).with_state(app);
    let serves = "a runtime serves `POST /v1/tool` with `{\"kind\": \"…\", \"params\": …}`, and `GET` of `/healthz`, `/readyz` and \
                  `/metrics`: see `docs/src/spec/http.md`";
    fallbacks(tool.merge(health_routes(readiness, metrics)), serves)
}

async fn call(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let response = answer(&app, &headers, &body).await;
    app.metrics.answered(&Call { status: response.status().as_u16() });
    response
}

async fn answer(app: &App, headers: &HeaderMap, body: &[u8]) -> Response {
    // A browser adds `Origin` to every POST, so no page that somebody on this machine opens can call a tool.
    if headers.contains_key(header::ORIGIN) {
        return error_response(StatusCode::FORBIDDEN, "calls from web pages are refused: call from a program");
    }
    let ToolCall { kind, params } = match read_call(body) {
        Ok(call) => call,
        Err(why) => {
            let what = format!("the body is not a tool call: {why}; send {{\"kind\": \"…\", \"params\": …}}");
            return error_response(StatusCode::BAD_REQUEST, what);
        }
    };
    let permit = match app.gate.ask(&kind, &params).await {
        Ok(permit) => permit,
        Err(denial) => return Refusal::from(denial).into_response(),
    };
    let (audit_id, policy_ref) = (permit.audit_id.clone(), permit.policy_ref.clone());
    let result = app.tools.run(&kind, params).await;
    permit.finish(&result);
    let (status, output, error) = match &result {
        Ok(output) => (StatusCode::OK, Some(output), None),
        Err(error) => (StatusCode::BAD_REQUEST, None, Some(error.to_string())),
    };
    let policy_ref = policy_ref.as_ref();
    json_response(status, &Allowed { decision: "allow", output, error, policy_ref, audit_id: &audit_id })
}

fn read_call(body: &[u8]) -> Result<ToolCall, String> {
    // A struct also reads from a list of its fields, which is not the contract.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("it is not a JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Serves until `shutdown` resolves or the log fails, lets calls in flight finish, and closes the log.
///
/// # Errors
/// The log failed: that ends the runtime, which could only deny.
pub async fn run(
    listener: Listener,
    gate: Arc<Gate>,
    tools: Tools,
    metrics: Arc<Metrics>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<Report, WalError> {
    let readiness = Readiness::default();
    let routes = router(Arc::clone(&gate), tools, Arc::clone(&metrics), readiness.clone());
    readiness.set_ready();
    let stop = readiness.until(shutdown, gate.wal().end());
    let report = serve::serve(listener, routes, limits, metrics, stop).await;
    gate.record("runtime_stopped").await?;
    gate.wal().close()?;
    Ok(report)
}
