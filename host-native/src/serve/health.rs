//! What an operator's tools ask: is it alive, is it ready, what has it done.

use std::sync::{Arc, PoisonError, RwLock};

use axum::{Router, body::Body, routing::get};
use http::{HeaderValue, Response, StatusCode, header};

use super::{Metrics, error_response};
use crate::wal::End;

pub(crate) const LIVE: &str = "/healthz";
pub(crate) const READY: &str = "/readyz";
pub(crate) const METRICS: &str = "/metrics";

/// Whether calls should be sent here, and why not. Shared; starts as not ready.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<RwLock<Result<(), String>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Err("starting".to_owned()))))
    }
}

impl Readiness {
    /// From now on calls are welcome.
    pub fn set_ready(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Ok(());
    }

    /// From now on calls should go elsewhere.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Err(reason.into());
    }

    /// Resolves when `shutdown` does or the log ends; calls are not welcome from then on.
    pub(crate) async fn until(&self, shutdown: impl Future<Output = ()>, log: End) {
        tokio::select! {
            () = shutdown => self.set_not_ready("shutting down"),
            ended = log => self.set_not_ready(match ended {
                Ok(()) => "the write-ahead log is closed".to_owned(),
                Err(error) => error.to_string(),
            }),
        }
    }

    /// `Err` says why not.
    ///
    /// # Errors
    /// The reason last given to [`Readiness::set_not_ready`].
    pub fn state(&self) -> Result<(), String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// `GET /healthz` (the process answers), `GET /readyz` (200, or 503 with the reason), `GET /metrics` (Prometheus text).
pub fn health_routes(readiness: Readiness, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route(LIVE, get(|| async { text("text/plain; charset=utf-8", "ok\n".to_owned()) }))
        .route(
            READY,
            get(move || async move {
                match readiness.state() {
                    Ok(()) => text("text/plain; charset=utf-8", "ok\n".to_owned()),
                    Err(reason) => error_response(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}")),
                }
            }),
        )
        .route(METRICS, get(move || async move { text(Metrics::CONTENT_TYPE, metrics.render()) }))
}

fn text(content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
