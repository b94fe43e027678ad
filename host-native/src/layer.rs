//! The gate as a tower layer, for a server that has its own endpoints.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use gate_core::ToolName;
use http::Request;
use serde_json::json;
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    gate::Gate,
    runtime::{Refusal, outcome_of},
};

/// Puts the gate in front of a service: a request reaches it only with a durable permit.
///
/// The policy is asked with the tool's name and `{"method", "path"}` as its params. A denied request is answered as
/// `POST /v1/tool` answers it, 403 or 503; a request that passes finds its [`AuditId`](gate_core::AuditId) in its
/// extensions, and its outcome is written down: completed below status 400, failed from there.
///
/// `host-native/examples/gated_server.rs` is a whole server.
#[derive(Debug, Clone)]
pub struct AttestationLayer {
    gate: Arc<Gate>,
    tool: ToolName,
}

impl AttestationLayer {
    /// Gates what lies behind it as one tool.
    pub fn new(gate: Arc<Gate>, tool: ToolName) -> Self {
        Self { gate, tool }
    }
}

impl<S> Layer<S> for AttestationLayer {
    type Service = Attested<S>;

    fn layer(&self, inner: S) -> Attested<S> {
        Attested { layer: self.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Attested<S> {
    layer: AttestationLayer,
    inner: S,
}

impl<S> Service<Request<Body>> for Attested<S>
where
    S: Service<Request<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let AttestationLayer { gate, tool } = self.layer.clone();
        Box::pin(async move {
            let params = json!({"method": request.method().as_str(), "path": request.uri().path()});
            let permit = match gate.ask(&tool, &params).await {
                Ok(permit) => permit,
                Err(denial) => return Ok(Refusal::from(denial).into_response()),
            };
            request.extensions_mut().insert(permit.audit_id.clone());
            let response = inner.call(request).await?.into_response();
            permit.finish(outcome_of(response.status()));
            Ok(response)
        })
    }
}
