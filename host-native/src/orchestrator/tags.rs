//! Entity tags: who asks for the same again is told so in place of being sent it (RFC 9110, sections 8.8.3 and 13.1.2).

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use gate_core::Digest;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;

/// Gives what was read a tag made from its bytes, and 304 in its place to who has those bytes.
///
/// The store is asked all the same: what is spared is the way to the client, and the client's work.
pub(super) async fn tag(request: Request, next: Next) -> Response {
    let held = Held::of(request.headers());
    let response = next.run(request).await;
    if response.status() != StatusCode::OK {
        return response;
    }
    let (head, body) = response.into_parts();
    // It is whole and in memory: reading it neither waits nor fails.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let etag = format!("\"{:.32}\"", Digest::of(&body).to_hex());
    let mut response = Response::from_parts(head, Body::empty());
    if held.has(&etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(body);
    }
    // It may have changed a moment later, and is for nobody but who may read it.
    describe(response.headers_mut(), &etag, "private, no-cache");
    response
}

/// Says which bytes an answer has, or would have, and how long they may be kept.
pub(super) fn describe(headers: &mut HeaderMap, etag: &str, cache_control: &str) {
    for (name, value) in [(header::ETAG, etag), (header::CACHE_CONTROL, cache_control)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// What a client has already: the tags in its `if-none-match`.
pub(super) struct Held(Vec<String>);

impl Held {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|field| field.to_str().ok());
        // A comma may stand within a tag, though in none of ours: its halves are equal to none.
        Self(fields.flat_map(|field| field.split(',')).map(|tag| tag.trim().to_owned()).collect())
    }

    /// Whether this is among them, by the weak comparison; `*` is whatever there is.
    pub(super) fn has(&self, etag: &str) -> bool {
        self.0.iter().any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }
}
