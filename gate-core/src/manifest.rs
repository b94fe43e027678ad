//! `manifest.json`: what a bundle says of itself.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use core::{fmt, str::FromStr};
use serde::{
    Deserialize, Serialize,
    de::{IgnoredAny, IntoDeserializer as _},
};

use crate::{
    digest::Digest,
    identity::{EnrollmentRef, PolicyRef},
    json, limits, ustar,
};

/// The manifest's file name in the tar.
pub const MANIFEST_PATH: &str = "manifest.json";
/// The envelope's file name in the tar.
pub const ENVELOPE_PATH: &str = "manifest.dsse.json";
/// What the envelope's payload is.
pub const PAYLOAD_TYPE: &str = "application/vnd.autonomy.bundle.manifest.v1+json";
/// The schema that this version writes.
pub const SCHEMA_VERSION: SchemaVersion = SchemaVersion { major: 1, minor: 2 };

/// `<major>.<minor>` of a manifest's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SchemaVersion {
    /// Another major is refused.
    pub major: u16,
    /// A higher minor is accepted, its unknown fields with it.
    pub minor: u16,
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for SchemaVersion {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let version = text
            .split_once('.')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }));
        match version {
            // Printing it back refuses `01.2`, `+1.2` and the like.
            Some(version) if format!("{version}") == text => Ok(version),
            _ => {
                Err(format!("schema version `{}` is not `<major>.<minor>`", crate::text::cut(text, 40).escape_debug()))
            }
        }
    }
}

impl TryFrom<String> for SchemaVersion {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SchemaVersion> for String {
    fn from(version: SchemaVersion) -> Self {
        format!("{version}")
    }
}

/// How far a bundle has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// For development.
    Dev,
    /// For a part of the fleet.
    Canary,
    /// For the fleet.
    Stable,
}

impl Channel {
    /// The three, from first to last.
    pub const ALL: [Self; 3] = [Self::Dev, Self::Canary, Self::Stable];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Canary => "canary",
            Self::Stable => "stable",
        }
    }
}

/// Where a bundle comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// The enrollment that the bundle is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrollment_ref: Option<EnrollmentRef>,
    /// The repository it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The revision in that repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// When, as the builder says it (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_at: Option<String>,
    /// By what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
}

/// A manifest that holds together. Whether it is trusted is the envelope's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    kind: Kind,
    /// The schema it is written in.
    pub schema_version: SchemaVersion,
    /// The bundle's name: lower-case words of `[a-z0-9._-]`, joined by `/`.
    pub name: String,
    /// The bundle's version (SemVer 2.0).
    pub version: String,
    /// How far it has come.
    pub channel: Channel,
    /// The version of its policies, as their authors count them.
    pub policy_version: String,
    /// Where it comes from.
    pub provenance: Provenance,
    /// Every file, by path, with the digest of its bytes.
    pub files: BTreeMap<String, Digest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Bundle,
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// Not the JSON of a manifest.
    Malformed(String),
    /// A major that this version does not read.
    SchemaMajor(SchemaVersion),
    /// A field that the schema does not have.
    UnknownField {
        /// The field, with its parents.
        field: String,
        /// The schema the manifest is written in.
        schema: SchemaVersion,
    },
    /// A field that breaks its rule.
    Field {
        /// The field, with its parents.
        field: &'static str,
        /// Its value.
        value: String,
        /// The rule.
        rule: String,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "manifest: {why}"),
            Self::SchemaMajor(version) => {
                write!(
                    f,
                    "manifest: schema version `{version}` is not read: this version reads `1.x`; upgrade, or rebuild the bundle"
                )
            }
            Self::UnknownField { field, schema } => {
                write!(
                    f,
                    "manifest: field `{}` is not known in schema {schema}: remove it",
                    crate::text::cut(field, 80).escape_debug()
                )
            }
            Self::Field { field, value, rule } => {
                write!(f, "manifest: {field} `{}`: {rule}", value.escape_debug())
            }
        }
    }
}

impl core::error::Error for ManifestError {}

#[derive(Deserialize)]
#[serde(expecting = "an object, the manifest")]
struct WireManifest {
    #[serde(deserialize_with = "word")]
    kind: Kind,
    schema_version: SchemaVersion,
    name: String,
    version: String,
    #[serde(deserialize_with = "word")]
    channel: Channel,
    policy_version: String,
    #[serde(default)]
    provenance: WireProvenance,
    files: BTreeMap<String, Digest>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "an object, the provenance")]
struct WireProvenance {
    #[serde(default, deserialize_with = "present")]
    enrollment_ref: Option<String>,
    #[serde(default, deserialize_with = "present")]
    source: Option<String>,
    #[serde(default, deserialize_with = "present")]
    revision: Option<String>,
    #[serde(default, deserialize_with = "present")]
    built_at: Option<String>,
    #[serde(default, deserialize_with = "present")]
    builder: Option<String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

/// A field is a string or absent; `null` is neither.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// A word is a string; `{"stable":null}`, which serde would take for one too, is not.
fn word<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

impl Manifest {
    /// Reads the bytes of a `manifest.json`.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let wire: WireManifest =
            json::read(bytes).map_err(|error| ManifestError::Malformed(crate::text::line(&error)))?;
        let schema = wire.schema_version;
        if schema.major != SCHEMA_VERSION.major {
            return Err(ManifestError::SchemaMajor(schema));
        }
        if schema.minor <= SCHEMA_VERSION.minor {
            let top = wire.unknown.keys().next().cloned();
            let nested = wire.provenance.unknown.keys().next().map(|field| format!("provenance.{field}"));
            if let Some(field) = top.or(nested) {
                return Err(ManifestError::UnknownField { field, schema });
            }
        }
        let enrollment_ref = match wire.provenance.enrollment_ref {
            None => None,
            Some(text) => Some(EnrollmentRef::parse(&text).map_err(|error| ManifestError::Field {
                field: "provenance.enrollment_ref",
                value: crate::text::cut(&text, limits::ENROLLMENT_REF_BYTES).into(),
                rule: format!("{error}"),
            })?),
        };
        let manifest = Self {
            kind: wire.kind,
            schema_version: schema,
            name: wire.name,
            version: wire.version,
            channel: wire.channel,
            policy_version: wire.policy_version,
            provenance: Provenance {
                enrollment_ref,
                source: wire.provenance.source,
                revision: wire.provenance.revision,
                built_at: wire.provenance.built_at,
                builder: wire.provenance.builder,
            },
            files: wire.files,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// A manifest in the schema that this version writes.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn new(
        name: String,
        version: String,
        channel: Channel,
        policy_version: String,
        provenance: Provenance,
        files: BTreeMap<String, Digest>,
    ) -> Result<Self, ManifestError> {
        let manifest = Self {
            kind: Kind::Bundle,
            schema_version: SCHEMA_VERSION,
            name,
            version,
            channel,
            policy_version,
            provenance,
            files,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// The JSON that a builder signs.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, enums and a map with string keys: there is nothing in them that JSON cannot hold.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The ref that the gate joins on: none below schema 1.2, whatever the manifest says.
    pub fn declared_ref(&self) -> Option<&EnrollmentRef> {
        self.provenance.enrollment_ref.as_ref().filter(|_| self.schema_version >= SCHEMA_VERSION)
    }

    /// `<name>@<version>`, as frames and answers name the policies.
    pub fn policy_ref(&self) -> Option<PolicyRef> {
        PolicyRef::parse(&format!("{}@{}", self.name, self.version)).ok()
    }

    fn check(&self) -> Result<(), ManifestError> {
        let fail = |field, value: &str, rule: &str| {
            Err(ManifestError::Field { field, value: crate::text::cut(value, 200).into(), rule: rule.into() })
        };
        let is_segment = |segment: &str| {
            segment.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
        };
        if self.name.len() > 128 || !self.name.split('/').all(is_segment) {
            return fail(
                "name",
                &self.name,
                "use 1 to 128 of `a-z 0-9 . _ - /`, each part starting with a letter or digit",
            );
        }
        if self.version.len() > 100 || semver::Version::parse(&self.version).is_err() {
            return fail("version", &self.version, "use a semantic version such as `1.4.0`");
        }
        let is_printable = |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_printable(&self.policy_version) {
            return fail(
                "policy_version",
                &self.policy_version,
                "use 1 to 64 printable ASCII characters without spaces",
            );
        }
        let Provenance { enrollment_ref: _, source, revision, built_at, builder } = &self.provenance;
        for text in [source, revision, built_at, builder].into_iter().flatten() {
            if text.len() > limits::DETAIL_BYTES || text.chars().any(crate::text::is_obeyed) {
                return fail(
                    "provenance",
                    text,
                    "use at most 1024 bytes without control and bidirectional formatting characters",
                );
            }
        }
        for path in self.files.keys() {
            if let Err(fault) = ustar::check_path(path) {
                return fail("files", path, &format!("{fault}"));
            }
            if path.eq_ignore_ascii_case(MANIFEST_PATH) || path.eq_ignore_ascii_case(ENVELOPE_PATH) {
                return fail("files", path, "the manifest and its envelope are not listed");
            }
        }
        Ok(())
    }
}
