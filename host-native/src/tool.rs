//! The built-in tools. Each has typed parameters, refuses what it does not know, and has an upper bound in time and size.
//!
//! Nothing here decides whether a call may be made: that is over before [`Tools::run`] is called.

mod http_get;
pub(crate) mod url;

use gate_core::identity::ToolName;
use serde::Deserialize;
use serde_json::Value;

use self::http_get::HttpGet;
pub use self::{
    http_get::HttpGetConfig,
    url::{AllowedPrefix, ParseUrlError},
};
pub use crate::client::SetUpError;

/// Why a tool has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No tool of this name.
    #[error("unknown tool `{0}`: use `tool.echo`, `tool.http_get` or `tool.shell`")]
    Unknown(ToolName),
    /// The parameters are not what the tool takes.
    #[error("bad params for `{tool}`: {cause}")]
    BadParams {
        /// The tool.
        tool: &'static str,
        /// What is wrong with them.
        cause: String,
    },
    /// The tool does not do this, whatever the policy says.
    #[error("`{tool}` refused: {cause}")]
    Refused {
        /// The tool.
        tool: &'static str,
        /// Why, and what would be done instead.
        cause: String,
    },
    /// The tool tried and could not.
    #[error("`{tool}` failed: {cause}")]
    Failed {
        /// The tool.
        tool: &'static str,
        /// What happened.
        cause: String,
    },
}

/// The built-in tools, set up once and shared.
#[derive(Debug)]
pub struct Tools {
    http_get: HttpGet,
}

impl Tools {
    /// Sets the tools up.
    ///
    /// # Errors
    /// The roots for `https` cannot be read, or there are none.
    pub fn new(http_get: HttpGetConfig) -> Result<Self, SetUpError> {
        Ok(Self { http_get: HttpGet::new(http_get)? })
    }

    /// Runs a tool. `params` is handed over: `tool.echo` gives it back.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(&self, kind: &ToolName, params: Value) -> Result<Value, Error> {
        match kind.as_str() {
            "tool.echo" => Ok(params),
            http_get::NAME => self.http_get.run(parse(http_get::NAME, params)?).await,
            "tool.shell" => {
                let _: ShellParams = parse("tool.shell", params)?;
                Err(Error::Refused {
                    tool: "tool.shell",
                    cause: "a shell can do anything, so no policy can say what it was allowed to do: \
                            offer the one thing needed as a tool of its own"
                        .to_owned(),
                })
            }
            _ => Err(Error::Unknown(kind.clone())),
        }
    }
}

/// Parsed although always refused: a caller learns of a mistake in either case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShellParams {
    #[serde(rename = "command")]
    _command: String,
}

fn parse<'de, T: Deserialize<'de>>(tool: &'static str, params: Value) -> Result<T, Error> {
    T::deserialize(params).map_err(|e| Error::BadParams { tool, cause: e.to_string() })
}

#[cfg(test)]
mod tests;
