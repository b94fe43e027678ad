//! An orchestrator, as those know it who ask it: a store for operators, a source for a runtime.

mod lookup;
mod renewal;
mod store;

use std::{io, path::Path, time::Duration};

use axum::body::Bytes;
use gate_core::identity::NodeId;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Changes, one_line, wire::BODY_BYTES};
use crate::{
    ErrorClass,
    client::{Client, Identity, Kept, SetUpError},
    serve::ErrorBody,
    token::{self, TakenBy, TokenError},
    tool::{ParseUrlError, url::Url},
};

pub use lookup::LeaseLookup;
pub use renewal::LeaseSource;
pub use store::RemoteStore;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// From the look-up of the name to the end of an answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A page of the longest rows has less than a megabyte.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Why an orchestrator did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not a URL.
    #[error("orchestrator {0}")]
    Url(#[from] ParseUrlError),
    /// The token would be there for everybody between to read.
    #[error(
        "orchestrator url `{url}` is neither https nor on this machine: use https, so that nobody between reads the token"
    )]
    Cleartext {
        /// The URL.
        url: String,
    },
    /// The token cannot be used.
    #[error("orchestrator {0}")]
    Token(#[from] TokenError),
    /// TLS cannot be set up.
    #[error("orchestrator: {0}")]
    Tls(#[from] SetUpError),
    /// The system has no threads or files to spare.
    #[error("cannot ask the orchestrator ({0}): free some memory, processes or files")]
    Resources(io::Error),
    /// No answer.
    #[error(
        "cannot ask the orchestrator at `{url}`: {cause}; check that it runs, `orchestrator.url`, `orchestrator.ca` and `orchestrator.client_cert`"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        cause: String,
    },
    /// The orchestrator does not know who asks.
    #[error(
        "the orchestrator at `{url}` does not take the token: make one with `autonomy orchestrator token`, and name its file with `--orchestrator-token-file`"
    )]
    Unauthorized {
        /// Where.
        url: String,
    },
    /// The orchestrator would close the connection before it has read it.
    #[error(
        "the request has {bytes} bytes and an orchestrator takes {BODY_BYTES}: name fewer nodes, or choose them with `--selector`"
    )]
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// The orchestrator refused.
    #[error("{error}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// Why: cause, then remedy.
        error: String,
    },
    /// The answer is none of an orchestrator.
    #[error("`{url}` answers as no orchestrator does ({why}): correct `orchestrator.url`")]
    Nonsense {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl RemoteError {
    /// Whether nothing was done because the token asked too often.
    fn is_too_often(&self) -> bool {
        matches!(self, Self::Refused { status: 429, .. })
    }

    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Url(_) | Self::Cleartext { .. } | Self::Unauthorized { .. } | Self::TooLarge { .. } => {
                ErrorClass::Usage
            }
            Self::Token(error) => error.class(),
            Self::Tls(error) => error.class(),
            Self::Refused { status, .. } if *status < 500 && !self.is_too_often() => ErrorClass::Usage,
            Self::Resources(_) | Self::Unreachable { .. } | Self::Refused { .. } | Self::Nonsense { .. } => {
                ErrorClass::Unavailable
            }
        }
    }
}

/// How an orchestrator is asked.
#[derive(Clone)]
pub struct OrchestratorClient {
    /// Without a slash at its end.
    base: String,
    client: Client,
    authorization: Option<HeaderValue>,
}

impl OrchestratorClient {
    /// Asks at `url`, with the token of a file, which leases from a plain file server need not have. `ca` has the only roots
    /// to trust, where the machine's are not meant; `identity` has a certificate to show, and its key.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(
        url: &str,
        token_file: Option<&Path>,
        ca: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, RemoteError> {
        let base = url.trim_end_matches('/').to_owned();
        let origin = Url::parse(&format!("{base}/"))?.origin;
        let identity = identity.map(|(cert, key)| Identity { cert, key });
        let client = Client::to(&origin, ca, identity, CONNECT_TIMEOUT)?
            .ok_or_else(|| RemoteError::Cleartext { url: base.clone() })?;
        let authorization =
            token_file.map(|path| token::read_authorization(path, TakenBy::Orchestrator)).transpose()?;
        Ok(Self { base, client, authorization })
    }

    async fn send(
        &self,
        kept: &mut Kept,
        method: Method,
        path: &str,
        body: String,
        fresh: bool,
        total_timeout: Duration,
    ) -> Result<Bytes, RemoteError> {
        if body.len() > BODY_BYTES {
            return Err(RemoteError::TooLarge { bytes: body.len() });
        }
        let text = format!("{}{path}", self.base);
        let unreachable = |cause: String| RemoteError::Unreachable { url: self.base.clone(), cause };
        let target = Url::parse(&text)?.target().map_err(|error| unreachable(error.to_string()))?;
        let mut request = Request::new(Full::<Bytes>::from(body));
        *request.method_mut() = method;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        if fresh {
            request.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let exchange = self.client.send_kept(kept, &target, request, MAX_BODY_BYTES);
        let answer = timeout(total_timeout, exchange).await;
        let answer = answer.map_err(|_| unreachable(format!("no whole answer within {total_timeout:?}")))?;
        let (status, body) = answer.map_err(|error| unreachable(error.to_string()))?;
        match status {
            StatusCode::OK => Ok(body.into()),
            StatusCode::UNAUTHORIZED => Err(RemoteError::Unauthorized { url: self.base.clone() }),
            status => Err(match serde_json::from_slice(&body) {
                Ok(ErrorBody { error }) => RemoteError::Refused { status: status.as_u16(), error: one_line(&error) },
                Err(_) if status == StatusCode::NOT_FOUND => RemoteError::Refused {
                    status: 404,
                    error: format!("nothing is at `{text}`: correct `orchestrator.url`"),
                },
                Err(_) => RemoteError::Nonsense { url: text, why: format!("status {status}") },
            }),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        kept: &mut Kept,
        method: Method,
        path: &str,
        body: String,
        total_timeout: Duration,
    ) -> Result<T, RemoteError> {
        let answer = self.send(kept, method, path, body, false, total_timeout).await?;
        self.read(path, &answer)
    }

    fn read<T: DeserializeOwned>(&self, path: &str, answer: &[u8]) -> Result<T, RemoteError> {
        serde_json::from_slice(answer)
            .map_err(|error| RemoteError::Nonsense { url: format!("{}{path}", self.base), why: error.to_string() })
    }

    /// A node's lease; none when there is none.
    async fn lease(&self, kept: &mut Kept, node_id: &NodeId, fresh: bool) -> Result<Option<Bytes>, RemoteError> {
        let path = format!("/v1/leases/{node_id}");
        match self.send(kept, Method::GET, &path, String::new(), fresh, TOTAL_TIMEOUT).await {
            Ok(envelope) => Ok(Some(envelope)),
            Err(RemoteError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The changes of a node after a revision, once there are some or the wait is over, and at most `patience` after that; without
    /// a revision, the one to begin with.
    async fn changes_of(
        &self,
        kept: &mut Kept,
        node_id: &NodeId,
        after: Option<u64>,
        wait: Duration,
        patience: Duration,
    ) -> Result<Changes, RemoteError> {
        let mut path = format!("/v1/changes?node_id={node_id}");
        if let Some(after) = after {
            path.push_str(&format!("&after={after}&wait_ms={}", wait.as_millis()));
        }
        let answer = self.send(kept, Method::GET, &path, String::new(), true, wait.saturating_add(patience)).await?;
        self.read(&path, &answer)
    }
}

impl std::fmt::Debug for OrchestratorClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrchestratorClient").field("base", &self.base).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_would_show_the_token_is_refused() {
        let new = |url| OrchestratorClient::new(url, None, None, None);
        for url in
            ["http://127.0.0.1:7779", "http://localhost:7779/", "http://[::1]:7779", "http://127.0.0.1:1/at/a/path"]
        {
            assert!(new(url).is_ok(), "{url}");
        }
        for (url, message) in [
            ("http://fleet.example.com", "is neither https nor on this machine: use https"),
            ("http://10.0.0.1:7779", "is neither https nor on this machine: use https"),
            ("http://127.0.0.1.example.com", "is neither https nor on this machine: use https"),
            ("ftp://127.0.0.1", "does not start with `http://` or `https://`"),
            ("https://me:secret@fleet.example.com", "url `https://***@fleet.example.com/` holds credentials"),
            ("", "does not start with"),
        ] {
            let error = new(url).unwrap_err();
            assert!(error.to_string().contains(message), "{url}: {error}");
            assert_eq!(error.class(), ErrorClass::Usage);
        }
    }
}
