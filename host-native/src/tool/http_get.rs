//! `tool.http_get`: one GET to an allowed URL.
//!
//! Follows no redirect, uses no proxy, sends no cookie and no credentials, keeps no connection. The allow-list names hosts,
//! not addresses: who answers for an allowed name is decided by the resolver of this machine.

use std::{path::PathBuf, time::Duration};

use axum::body::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Error,
    url::{AllowedPrefix, Url},
};
use crate::client::{self, Client, Scheme, SetUpError};

pub(super) const NAME: &str = "tool.http_get";

/// What `tool.http_get` may reach and take. The default reaches nothing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpGetConfig {
    /// What may be asked for. Empty: nothing.
    pub allow: Vec<AllowedPrefix>,
    /// PEM file of the only roots to trust for `https`; without it, those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// From the look-up of the name to the end of the TLS handshake.
    pub connect_timeout: Duration,
    /// From the look-up of the name to the end of the body.
    pub total_timeout: Duration,
    /// Bytes of a body.
    pub max_body_bytes: usize,
}

impl Default for HttpGetConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            ca_file: None,
            connect_timeout: Duration::from_secs(3),
            total_timeout: Duration::from_secs(10),
            max_body_bytes: 1024 * 1024,
        }
    }
}

pub(super) struct HttpGet {
    config: HttpGetConfig,
    client: Client,
}

impl std::fmt::Debug for HttpGet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpGet").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    url: String,
}

#[derive(Serialize)]
struct Output {
    status: u16,
    content_type: Option<String>,
    body: String,
    /// The body is not UTF-8: what does not fit was replaced by U+FFFD.
    lossy: bool,
}

impl HttpGet {
    pub(super) fn new(config: HttpGetConfig) -> Result<Self, SetUpError> {
        let needs_tls = config.allow.iter().any(|allowed| allowed.scheme() == Scheme::Https);
        let tls =
            if needs_tls { Some(client::connector(config.ca_file.as_deref(), None, client::HTTP)?) } else { None };
        Ok(Self { client: Client::new(tls, config.connect_timeout), config })
    }

    pub(super) async fn run(&self, params: Params) -> Result<Value, Error> {
        let url = Url::parse(&params.url).map_err(|e| Error::BadParams { tool: NAME, cause: e.to_string() })?;
        if !self.config.allow.iter().any(|allowed| allowed.allows(&url)) {
            // What is on the list is not the caller's to know.
            let cause = format!("`{}` is not on the allow-list: the operator adds it with `--http-allow`", params.url);
            return Err(Error::Refused { tool: NAME, cause });
        }
        let output = match timeout(self.config.total_timeout, self.get(&url)).await {
            Ok(output) => output,
            Err(_) => Err(format!("no whole answer within {:?}", self.config.total_timeout)),
        };
        output
            .and_then(|output| serde_json::to_value(output).map_err(|e| e.to_string()))
            .map_err(|cause| Error::Failed { tool: NAME, cause })
    }

    async fn get(&self, url: &Url) -> Result<Output, String> {
        let target = url.target().map_err(|e| format!("bad path: {e}"))?;
        let request = Request::new(Empty::<Bytes>::new());
        let answer = self.client.send(&target, request).await.map_err(|e| e.to_string())?;
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let (status, content_type) = (answer.status().as_u16(), answer.header(header::CONTENT_TYPE).map(text));
        let body = answer.read(self.config.max_body_bytes, |_| {}).await.map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&body);
        let lossy = matches!(text, std::borrow::Cow::Owned(_));
        Ok(Output { status, content_type, body: text.into_owned(), lossy })
    }
}
