use std::{fmt, path::PathBuf, str::FromStr};

use gate_core::{Digest, json};
use serde::{Deserialize, Serialize};

use super::OciError;

/// Longest tag, in bytes, as in a registry.
const TAG_BYTES: usize = 128;
/// Longest repository, in bytes: what most registries take.
const REPOSITORY_BYTES: usize = 255;

/// Longest reference that a store keeps, in bytes.
const PINNED_BYTES: usize = 1024;

/// Where a bundle is: in a registry, `<host>[:<port>]/<repository>:<tag>` or `…@sha256:<digest>`; or in an image layout on
/// disk, `oci:<directory>[:<tag>|@sha256:<digest>]`.
///
/// A layout's directory ends at the first `:`. Without a tag or digest it is the layout's only bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(pub(super) Place);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Layout(PathBuf, Option<Name>),
    Registry(Repository, Name),
}

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository {
    /// Lower case; an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) path: String,
}

/// Which bundle of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// The only way to have one.
    ///
    /// # Errors
    /// It is in neither notation, or a part of it is malformed.
    pub fn parse(text: &str) -> Result<Self, OciError> {
        let place = match text.strip_prefix("oci:") {
            Some(rest) => parse_layout(rest),
            None => parse_registry(text),
        };
        place.map(Self).map_err(|rule| OciError::Reference { reference: text.to_owned(), rule })
    }
}

/// A reference by digest: it names one bundle for ever, whatever becomes of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(into = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Pinned {
    reference: Reference,
    digest: Digest,
}

impl Pinned {
    /// What `reference` leads to, and where its manifest has this digest.
    pub fn new(reference: Reference, digest: Digest) -> Self {
        let name = Name::Digest(digest);
        let place = match reference.0 {
            Place::Layout(directory, _) => Place::Layout(directory, Some(name)),
            Place::Registry(repository, _) => Place::Registry(repository, name),
        };
        Self { reference: Reference(place), digest }
    }

    /// Reads a reference that has a digest.
    ///
    /// # Errors
    /// It has a tag or nothing in its place, is too long, or does not parse.
    pub fn parse(text: &str) -> Result<Self, OciError> {
        let refused = |rule| OciError::Reference { reference: text.chars().take(PINNED_BYTES).collect(), rule };
        if text.len() > PINNED_BYTES {
            return Err(refused("is too long to be kept"));
        }
        let reference = Reference::parse(text)?;
        let digest = match &reference.0 {
            Place::Layout(_, Some(Name::Digest(digest))) | Place::Registry(_, Name::Digest(digest)) => *digest,
            Place::Layout(_, Some(Name::Tag(_)) | None) | Place::Registry(_, Name::Tag(_)) => {
                return Err(refused("is not pinned by a digest"));
            }
        };
        Ok(Self { reference, digest })
    }

    /// As a pull takes it.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

impl TryFrom<String> for Pinned {
    type Error = OciError;
    fn try_from(text: String) -> Result<Self, OciError> {
        Self::parse(&text)
    }
}

impl From<Pinned> for String {
    fn from(pinned: Pinned) -> Self {
        pinned.to_string()
    }
}

impl json::Read for Pinned {
    fn read(value: json::Value<'_>) -> Self {
        let parsed = value.parsed(|text| Self::parse(text).map_err(|error| json::Error::new(error.to_string())));
        // What nobody sees, as the whole text is refused then.
        parsed.unwrap_or_else(|| Self::new(Reference(Place::Layout(PathBuf::new(), None)), Digest::of(b"")))
    }
}

fn parse_layout(text: &str) -> Result<Place, &'static str> {
    let (layout, name) = split_name(text)?;
    if layout.is_empty() {
        return Err("has no directory");
    }
    if layout.contains(['\0', ':']) {
        return Err("has a directory with `:` or a NUL in it");
    }
    Ok(Place::Layout(PathBuf::from(layout), name))
}

fn parse_registry(text: &str) -> Result<Place, &'static str> {
    if text.contains("://") {
        return Err("begins with a scheme: leave it out");
    }
    let Some((registry, rest)) = text.split_once('/') else {
        return Err("is neither in a registry nor an image layout");
    };
    let (host, port) =
        parse_authority(registry).ok_or("has no registry: begin with its host, as in `registry.example/`")?;
    let (path, name) = split_name(rest)?;
    if !is_repository(path) {
        return Err("has a repository that is not parts of `a-z 0-9`, joined by `.`, `_`, `__`, `-` or `/`");
    }
    let name = name.ok_or("has no tag and no digest")?;
    Ok(Place::Registry(Repository { host, port, path: path.to_owned() }, name))
}

/// What is before the tag or digest, and that.
fn split_name(text: &str) -> Result<(&str, Option<Name>), &'static str> {
    if let Some((before, hex)) = text.split_once("@sha256:") {
        let digest = Digest::from_hex(hex).ok_or("has a digest without 64 digits `0-9a-f`")?;
        return Ok((before, Some(Name::Digest(digest))));
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((before, tag)) if is_tag(tag) => Ok((before, Some(Name::Tag(tag.to_owned())))),
        Some(_) => Err("has a tag that is not 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.` or `-`"),
    }
}

/// A host that nobody takes for the first part of a repository: with a dot, a port, or `localhost`.
pub(super) fn parse_authority(text: &str) -> Option<(String, Option<u16>)> {
    let end =
        if text.starts_with('[') { text.find(']')?.saturating_add(1) } else { text.find(':').unwrap_or(text.len()) };
    let (host, rest) = text.split_at_checked(end)?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        // Digits alone: `+5000` parses as a number too.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0)?)
        }
        Some(_) => return None,
    };
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label) && (host == "localhost" || host.contains('.') || port.is_some()),
    };
    is_host.then(|| (host.to_ascii_lowercase(), port))
}

fn is_tag(text: &str) -> bool {
    text.len() <= TAG_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Words of `a-z 0-9`, joined by `.`, `_`, `__`, `/` or any number of `-`.
fn is_repository(text: &str) -> bool {
    let is_word = |c: char| matches!(c, 'a'..='z' | '0'..='9');
    let is_joint = |joint: &str| matches!(joint, "" | "." | "_" | "__" | "/") || joint.bytes().all(|byte| byte == b'-');
    text.len() <= REPOSITORY_BYTES
        && text.starts_with(is_word)
        && text.ends_with(is_word)
        && text.split(is_word).all(is_joint)
}

impl Repository {
    /// Its registry, as it is written.
    pub(super) fn registry(&self) -> String {
        match self.port {
            None => self.host.clone(),
            Some(port) => format!("{}:{port}", self.host),
        }
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
        let name = match &self.0 {
            Place::Layout(directory, name) => {
                write!(f, "oci:{}", directory.display())?;
                name.as_ref()
            }
            Place::Registry(repository, name) => {
                write!(f, "{}/{}", repository.registry(), repository.path)?;
                Some(name)
            }
        };
        match name {
            None => Ok(()),
            Some(Name::Tag(tag)) => write!(f, ":{tag}"),
            Some(Name::Digest(digest)) => write!(f, "@{digest}"),
        }
    }
}
