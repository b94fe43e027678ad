//! Answers in JSON; every error of every service has one shape.

use axum::{Router, body::Body};
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

/// `{"error": "…"}`: what went wrong and how to put it right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    /// One line: cause, then remedy.
    pub error: String,
}

/// An answer of this status whose body is an [`ErrorBody`].
pub fn error_response(status: StatusCode, error: impl Into<String>) -> Response<Body> {
    json_response(status, &ErrorBody { error: error.into() })
}

/// An answer in compact JSON.
pub(crate) fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Names, enums and JSON values: there is nothing in them that JSON cannot hold. The fallback keeps the status.
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds 404 and 405 in JSON; `serves` says what there is instead of a path that is not. Call it last, after every route is there.
pub fn fallbacks(router: Router, serves: &'static str) -> Router {
    router
        .fallback(move || async move { error_response(StatusCode::NOT_FOUND, format!("no such path: {serves}")) })
        .method_not_allowed_fallback(|| async {
            error_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed here: use one of the `allow` header")
        })
}
