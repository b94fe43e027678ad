//! One request to a collector, and what its answer means.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use axum::body::Bytes;
use gate_core::text;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message as _;
use tokio::time::timeout;

use super::{SetUpError, otlp};
use crate::{
    client::{Answer, Client, Target},
    token::{self, TakenBy},
    tool::url::Url,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// From the look-up of the name to the end of an answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Larger than any answer of a collector.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Where frames are sent: OTLP over HTTP.
#[derive(Clone)]
pub struct Exporter {
    target: Target,
    client: Client,
    authorization: Option<HeaderValue>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every record was taken.
    Taken,
    /// So many were not, and it does not say which. They must not be sent again.
    InPart { rejected: u64, why: String },
    /// Something in it is not to its liking. Not to be sent again as it is.
    Refused(String),
    /// It may take it later, and may have said when.
    Busy { pause: Option<Duration>, why: String },
    /// It is not a collector, or not for us: nothing that is sent will be taken.
    Wrong { status: Option<StatusCode>, why: String },
}

impl Exporter {
    /// Sends to `url`, where one without a path gets that of the specification, `/v1/logs`; with the bearer token of a
    /// file. `ca` has the only roots to trust, where the machine's are not meant.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(url: &str, token_file: Option<&Path>, ca: Option<&Path>) -> Result<Self, SetUpError> {
        let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
        let url = match after_scheme.contains('/') {
            true => Url::parse(url)?,
            false => Url::parse(&format!("{}/v1/logs", url.trim_end_matches('/')))?,
        };
        let target = url.target()?;
        let client = Client::to(&target.origin, ca, None, CONNECT_TIMEOUT)?
            .ok_or_else(|| SetUpError::Cleartext { url: target.to_string() })?;
        let authorization = token_file.map(|path| token::read_authorization(path, TakenBy::Collector)).transpose()?;
        Ok(Self { target, client, authorization })
    }

    /// Sends a request once, and waits for its answer for so long at most.
    pub(super) async fn send(&self, body: Bytes, patience: Duration) -> Outcome {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let exchange = async {
            let answer = self.client.send(&self.target, request).await.map_err(|error| error.to_string())?;
            Ok(outcome_of(answer).await)
        };
        let patience = patience.min(TOTAL_TIMEOUT);
        let outcome = timeout(patience, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no whole answer within {patience:?}")));
        outcome.unwrap_or_else(|why| Outcome::Busy { pause: None, why })
    }
}

impl std::fmt::Display for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.target.fmt(f)
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("target", &self.target).finish_non_exhaustive()
    }
}

/// What the specification says of an answer (OTLP 1.x, *OTLP/HTTP Response*).
async fn outcome_of(answer: Answer) -> Outcome {
    let status = answer.status();
    let location = answer.header(header::LOCATION).map(|location| text::line(&format!("{location:?}")));
    let pause = answer.header(header::RETRY_AFTER).and_then(pause_of);
    let body = match answer.read(MAX_BODY_BYTES, |_| {}).await {
        Ok(body) => body,
        // Whether it took the records is not known: they are sent again.
        Err(error) if status.is_success() => return Outcome::Busy { pause: None, why: error.to_string() },
        Err(_) => Vec::new(),
    };
    if status.is_success() {
        return acknowledgement(status, &body);
    }
    let said = otlp::Status::decode(body.as_slice()).unwrap_or_default().message;
    let why = match (said.as_str(), location) {
        ("", None) => format!("status {status}"),
        ("", Some(location)) => format!("status {status} to {location}"),
        (said, _) => format!("status {status}: {}", text::line(said)),
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Busy { pause, why },
        // A collector answers 500 to what fails for good behind it.
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::INTERNAL_SERVER_ERROR => Outcome::Refused(why),
        _ => Outcome::Wrong { status: Some(status), why },
    }
}

/// A page of a proxy that says 200 has taken nothing.
fn acknowledgement(status: StatusCode, body: &[u8]) -> Outcome {
    let Ok(ExportLogsServiceResponse { partial_success }) = ExportLogsServiceResponse::decode(body) else {
        return Outcome::Wrong { status: None, why: format!("status {status} with a body that is not of OTLP") };
    };
    let ExportLogsPartialSuccess { rejected_log_records, error_message } = partial_success.unwrap_or_default();
    match u64::try_from(rejected_log_records) {
        Ok(0) | Err(_) => Outcome::Taken,
        Ok(rejected) => Outcome::InPart { rejected, why: text::line(&error_message) },
    }
}

/// `Retry-After`: seconds, or a date.
fn pause_of(retry_after: &HeaderValue) -> Option<Duration> {
    let text = retry_after.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_gets_that_of_the_specification() {
        for (url, target) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/logs"),
            ("http://localhost/", "http://localhost/v1/logs"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/logs"),
            ("http://localhost:4318/otlp", "http://localhost:4318/otlp"),
            ("http://localhost:4318/otlp/v1/logs", "http://localhost:4318/otlp/v1/logs"),
        ] {
            assert_eq!(Exporter::new(url, None, None).unwrap().to_string(), target);
        }
        for url in [
            "",
            "http://",
            "http:///v1/logs",
            "ftp://localhost",
            "http://localhost?a=b",
            "http://10.0.0.1:4318",
            "http://user@localhost/",
        ] {
            Exporter::new(url, None, None).unwrap_err();
        }
    }

    #[test]
    fn a_pause_is_seconds_or_a_date_and_at_most_an_hour() {
        let second = Duration::from_secs(1);
        for (text, pause) in [
            ("0", Some(Duration::ZERO)),
            (" 7 ", Some(7 * second)),
            ("3600", Some(3600 * second)),
            ("18446744073709551615", Some(3600 * second)),
            ("18446744073709551616", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::ZERO)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3600 * second)),
        ] {
            assert_eq!(pause_of(&HeaderValue::from_static(text)), pause, "{text}");
        }
        let soon = httpdate::fmt_http_date(SystemTime::now() + 100 * second);
        let pause = pause_of(&HeaderValue::from_str(&soon).unwrap()).unwrap();
        assert!(pause > 30 * second && pause <= 100 * second, "{pause:?}");
    }

    #[test]
    fn no_body_is_taken_for_an_acknowledgement_that_is_none() {
        let taken = |body: &[u8]| acknowledgement(StatusCode::OK, body) == Outcome::Taken;
        assert!(taken(b"") && taken(b"\x0a\x00") && taken(b"\x0a\x02\x08\x00"));
        // A field that a later version may have.
        assert!(taken(b"\x12\x01x"));
        for body in
            [&b"<html></html>"[..], b"{}", b"{\"partialSuccess\":{}}", b"ok", b"OK\n", b"\x0a\xff", b"\x0a\x05\x08"]
        {
            assert!(matches!(acknowledgement(StatusCode::OK, body), Outcome::Wrong { .. }), "{body:?}");
        }
        let in_part = Outcome::InPart { rejected: 3, why: "a\\u{1b}b".to_owned() };
        assert_eq!(acknowledgement(StatusCode::OK, b"\x0a\x07\x08\x03\x12\x03a\x1bb"), in_part);
        let minus_one = b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert!(taken(minus_one));
    }
}
