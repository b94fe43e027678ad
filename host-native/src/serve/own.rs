//! What the listener answers by itself, before a route is known or in the place of its answer: any path has it.

use http::StatusCode;

/// One such answer.
#[derive(Debug)]
pub(crate) struct OwnAnswer {
    pub(crate) status: StatusCode,
    /// What it means, for the contracts.
    #[cfg_attr(not(feature = "schema"), expect(dead_code, reason = "the contracts are of that feature"))]
    pub(crate) means: &'static str,
}

impl OwnAnswer {
    const fn new(status: StatusCode, means: &'static str) -> Self {
        Self { status, means }
    }
}

pub(super) const MALFORMED: OwnAnswer = OwnAnswer::new(
    StatusCode::BAD_REQUEST,
    "what came is no whole request of HTTP/1.1; without a body, where it is none at all; nothing was done",
);
pub(super) const BODY_LATE: OwnAnswer =
    OwnAnswer::new(StatusCode::REQUEST_TIMEOUT, "the body took too long; nothing was done");
pub(super) const BODY_TOO_LARGE: OwnAnswer =
    OwnAnswer::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large; nothing was done");
/// hyper gives it, without a body.
#[cfg(feature = "schema")]
const HEAD_TOO_LARGE: OwnAnswer =
    OwnAnswer::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large; nothing was done");
pub(super) const UNREAD_CODING: OwnAnswer =
    OwnAnswer::new(StatusCode::NOT_IMPLEMENTED, "the body has a transfer coding that is not read; nothing was done");
pub(super) const TOO_MANY: OwnAnswer =
    OwnAnswer::new(StatusCode::SERVICE_UNAVAILABLE, "there are too many connections; nothing was done");
pub(super) const NO_ANSWER: OwnAnswer =
    OwnAnswer::new(StatusCode::GATEWAY_TIMEOUT, "no answer in time; what was asked may have been done");

/// All of them.
#[cfg(feature = "schema")]
pub(crate) const OWN_ANSWERS: [OwnAnswer; 7] =
    [MALFORMED, BODY_LATE, BODY_TOO_LARGE, HEAD_TOO_LARGE, UNREAD_CODING, TOO_MANY, NO_ANSWER];
