use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::OciError;

/// Longest tag, in bytes, as in a registry.
const TAG_BYTES: usize = 128;

/// Where a bundle is: `oci:<directory>[:<tag>|@sha256:<digest>]`.
///
/// The directory ends at the first `:`. Without a tag or digest it is the layout's only bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub(super) layout: PathBuf,
    pub(super) which: Which,
}

/// Which of a layout's bundles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    Only,
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// The only way to have one.
    ///
    /// # Errors
    /// The notation is not that of an OCI layout, or a part of it is malformed.
    pub fn parse(text: &str) -> Result<Self, OciError> {
        let Some(rest) = text.strip_prefix("oci:") else {
            return Err(OciError::NoTransport { reference: text.to_owned() });
        };
        let malformed = |rule| OciError::Reference { reference: text.to_owned(), rule };
        let (layout, which) = match (rest.split_once("@sha256:"), rest.split_once(':')) {
            (Some((layout, hex)), _) => {
                let digest =
                    Digest::from_hex(hex).ok_or_else(|| malformed("has a digest without 64 digits `0-9a-f`"))?;
                (layout, Which::Digest(digest))
            }
            (None, Some((layout, tag))) if is_tag(tag) => (layout, Which::Tag(tag.to_owned())),
            (None, Some(_)) => {
                return Err(malformed(
                    "has a tag that is not 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.` or `-`",
                ));
            }
            (None, None) => (rest, Which::Only),
        };
        if layout.is_empty() {
            return Err(malformed("has no directory"));
        }
        if layout.contains(['\0', ':']) {
            return Err(malformed("has a directory with `:` or a NUL in it"));
        }
        Ok(Self { layout: PathBuf::from(layout), which })
    }
}

impl FromStr for Reference {
    type Err = OciError;
    fn from_str(text: &str) -> Result<Self, OciError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.layout.display())?;
        match &self.which {
            Which::Only => Ok(()),
            Which::Tag(tag) => write!(f, ":{tag}"),
            Which::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

fn is_tag(text: &str) -> bool {
    text.len() <= TAG_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// `sha256:` and 64 digits of lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

const PREFIX: &str = "sha256:";

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    pub(super) fn finish(hasher: Sha256) -> Self {
        use fmt::Write as _;
        let mut text = PREFIX.to_owned();
        for byte in hasher.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    fn from_hex(hex: &str) -> Option<Self> {
        let fits = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self(format!("{PREFIX}{hex}")))
    }

    /// With its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn hex(&self) -> &str {
        self.0.strip_prefix(PREFIX).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.strip_prefix(PREFIX)
            .and_then(Self::from_hex)
            .ok_or_else(|| format!("digest `{}` is not `sha256:` and 64 digits `0-9a-f`", text.escape_debug()))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}
