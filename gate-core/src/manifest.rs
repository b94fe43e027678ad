//! `manifest.json`: what a bundle says of itself.

use alloc::{string::String, vec::Vec};
use core::str::FromStr;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    digest::Digest,
    identity::{EnrollmentRef, PolicyRef},
    json, limits,
    text::{cut, decimal, display_text, fill, line, shown},
    ustar,
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

impl SchemaVersion {
    /// `<major>.<minor>`.
    pub fn text(self) -> String {
        fill("{}.{}", &[&decimal(self.major.into()), &decimal(self.minor.into())])
    }
}

display_text!(SchemaVersion, ManifestError);

impl FromStr for SchemaVersion {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let add = |number: u16, digit: &u8| number.checked_mul(10)?.checked_add(digit.wrapping_sub(b'0').into());
        let number = |digits: &[u8]| digits.iter().try_fold(0, add);
        let (major, minor) = cut_at(text.as_bytes(), b'.');
        let version = number(major).zip(number(minor.unwrap_or_default())).map(|(major, minor)| Self { major, minor });
        match version {
            // Printing it back refuses `01.2`, `+1.2`, `a.b` and the like.
            Some(version) if version.text() == text => Ok(version),
            _ => Err(fill("schema version `{}` is not `<major>.<minor>`", &[&shown(cut(text, 40))])),
        }
    }
}

impl TryFrom<String> for SchemaVersion {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl json::Read for SchemaVersion {
    fn read(value: json::Value<'_>) -> Self {
        value.parsed(|text| text.parse().map_err(json::Error::new)).unwrap_or(SCHEMA_VERSION)
    }
}

impl From<SchemaVersion> for String {
    fn from(version: SchemaVersion) -> Self {
        version.text()
    }
}

/// How far a bundle has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

impl json::Read for Channel {
    fn read(value: json::Value<'_>) -> Self {
        let word = value.text();
        let channel = Self::ALL.into_iter().find(|channel| channel.as_str() == word);
        channel.unwrap_or_else(|| {
            value.fail(json::Error::unknown_word(word, "`dev`, `canary` or `stable`"));
            Self::Dev
        })
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
    /// Every file with the digest of its bytes.
    pub files: Files,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Bundle,
}

impl json::Read for Kind {
    fn read(value: json::Value<'_>) -> Self {
        let word = value.text();
        if word != "bundle" {
            value.fail(json::Error::unknown_word(word, "`bundle`"));
        }
        Self::Bundle
    }
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

impl ManifestError {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        match self {
            Self::Malformed(why) => fill("manifest: {}", &[why]),
            Self::SchemaMajor(version) => fill(
                "manifest: schema version `{}` is not read: this version reads `1.x`; upgrade, or rebuild the bundle",
                &[&version.text()],
            ),
            Self::UnknownField { field, schema } => {
                let (field, schema) = (shown(cut(field, 80)), schema.text());
                fill("manifest: field `{}` is not known in schema {}: remove it", &[&field, &schema])
            }
            Self::Field { field, value, rule } => fill("manifest: {} `{}`: {}", &[field, &shown(value), rule]),
        }
    }
}

impl core::error::Error for ManifestError {}

/// A field is a string or absent; `null` is neither.
struct Field(Option<String>);

impl json::Read for Field {
    fn read(value: json::Value<'_>) -> Self {
        Self(if value.is_absent() { None } else { Some(String::read(value)) })
    }
}

/// The provenance, its ref not yet parsed, and the first field that the schema does not have.
#[derive(Default)]
struct WireProvenance {
    provenance: Provenance,
    enrollment_ref: Option<String>,
    unknown: Option<String>,
}

impl json::Read for WireProvenance {
    fn read(value: json::Value<'_>) -> Self {
        if value.is_absent() {
            return Self::default();
        }
        let (mut whole, unknown) = value.open_object(|object| {
            let mut field = |key| object.take::<Field>(key).0;
            Self {
                enrollment_ref: field("enrollment_ref"),
                provenance: Provenance {
                    enrollment_ref: None,
                    source: field("source"),
                    revision: field("revision"),
                    built_at: field("built_at"),
                    builder: field("builder"),
                },
                unknown: None,
            }
        });
        whole.unknown = unknown.map(|key| fill("provenance.{}", &[key]));
        whole
    }
}

/// The manifest without its ref, the text of that, and the first field that the schema does not have.
struct WireManifest {
    manifest: Manifest,
    enrollment_ref: Option<String>,
    unknown: Option<String>,
}

impl json::Read for WireManifest {
    fn read(value: json::Value<'_>) -> Self {
        let (mut whole, unknown) = value.open_object(|object| {
            let kind = object.take("kind");
            let schema_version = object.take("schema_version");
            let name = object.take("name");
            let version = object.take("version");
            let channel = object.take("channel");
            let policy_version = object.take("policy_version");
            let WireProvenance { provenance, enrollment_ref, unknown } = object.take("provenance");
            let files = object.take("files");
            let manifest = Manifest { kind, schema_version, name, version, channel, policy_version, provenance, files };
            Self { manifest, enrollment_ref, unknown }
        });
        if let Some(key) = unknown {
            whole.unknown = Some(key.into());
        }
        whole
    }
}

/// Files by path, each with the digest of its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(Vec<(String, Digest)>);

impl Files {
    /// In the order of the paths.
    pub fn iter(&self) -> core::slice::Iter<'_, (String, Digest)> {
        self.0.iter()
    }

    /// The digest of a file.
    pub fn digest(&self, path: &str) -> Option<Digest> {
        let at = self.0.binary_search_by(|file| file.0.as_str().cmp(path)).ok()?;
        self.0.get(at).map(|file| file.1)
    }

    fn insert(&mut self, path: String, digest: Digest) {
        match self.0.binary_search_by(|file| file.0.cmp(&path)) {
            Ok(at) => {
                self.0.remove(at);
                self.0.insert(at, (path, digest));
            }
            Err(at) => self.0.insert(at, (path, digest)),
        }
    }
}

impl FromIterator<(String, Digest)> for Files {
    /// Of a path that comes twice, the last one counts.
    fn from_iter<T: IntoIterator<Item = (String, Digest)>>(files: T) -> Self {
        let mut sorted = Self::default();
        files.into_iter().for_each(|(path, digest)| sorted.insert(path, digest));
        sorted
    }
}

impl Serialize for Files {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(path, digest)| (path, digest)))
    }
}

impl json::Read for Files {
    fn read(value: json::Value<'_>) -> Self {
        let mut files = Self::default();
        value.members(|path, digest| files.insert(path.into(), digest));
        files
    }
}

/// Whether `text` is a semantic version (<https://semver.org>, 2.0.0).
fn is_semantic_version(text: &[u8]) -> bool {
    let (text, build) = cut_at(text, b'+');
    let (core, pre) = cut_at(text, b'-');
    let is_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let is_number = |part: &[u8]| is_digits(part) && matches!(part, [b'0'] | [b'1'..=b'9', ..]);
    let is_identifier =
        |part: &[u8]| !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let is_pre = |part: &[u8]| is_identifier(part) && (is_number(part) || !is_digits(part));
    parts(core, b'.').count() == 3
        && parts(core, b'.').all(is_number)
        && pre.is_none_or(|pre| parts(pre, b'.').all(is_pre))
        && build.is_none_or(|build| parts(build, b'.').all(is_identifier))
}

/// What is before the first `byte`, and what is after it, where there is one.
fn cut_at(text: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|other| *other == byte) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    }
}

fn parts(text: &[u8], between: u8) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| *byte == between)
}

impl Manifest {
    /// Reads the bytes of a `manifest.json`.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let malformed = |error: json::Error| ManifestError::Malformed(line(&error.text()));
        let WireManifest { mut manifest, enrollment_ref: declared, unknown } = json::read(bytes).map_err(malformed)?;
        let schema = manifest.schema_version;
        if schema.major != SCHEMA_VERSION.major {
            return Err(ManifestError::SchemaMajor(schema));
        }
        if let Some(field) = unknown.filter(|_| schema.minor <= SCHEMA_VERSION.minor) {
            return Err(ManifestError::UnknownField { field, schema });
        }
        if let Some(text) = declared {
            let parsed = EnrollmentRef::parse(&text).map_err(|error| ManifestError::Field {
                field: "provenance.enrollment_ref",
                value: cut(&text, limits::ENROLLMENT_REF_BYTES).into(),
                rule: error.text(),
            })?;
            manifest.provenance.enrollment_ref = Some(parsed);
        }
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
        files: Files,
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

    /// The ref that the gate joins on: none below schema 1.2, whatever the manifest says.
    pub fn declared_ref(&self) -> Option<&EnrollmentRef> {
        self.provenance.enrollment_ref.as_ref().filter(|_| self.schema_version >= SCHEMA_VERSION)
    }

    /// `<name>@<version>`, as frames and answers name the policies.
    pub fn policy_ref(&self) -> Option<PolicyRef> {
        PolicyRef::parse(&fill("{}@{}", &[&self.name, &self.version])).ok()
    }

    fn check(&self) -> Result<(), ManifestError> {
        let fail = |field, value: &str, rule: &str| {
            Err(ManifestError::Field { field, value: cut(value, 200).into(), rule: rule.into() })
        };
        let is_letter_or_digit = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_segment = |segment: &[u8]| {
            segment.first().is_some_and(is_letter_or_digit)
                && segment.iter().all(|byte| is_letter_or_digit(byte) || matches!(byte, b'.' | b'_' | b'-'))
        };
        if self.name.len() > 128 || !parts(self.name.as_bytes(), b'/').all(is_segment) {
            return fail(
                "name",
                &self.name,
                "use 1 to 128 of `a-z 0-9 . _ - /`, each part starting with a letter or digit",
            );
        }
        if self.version.len() > 100 || !is_semantic_version(self.version.as_bytes()) {
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
        for (path, _) in self.files.iter() {
            if let Err(fault) = ustar::check_path(path) {
                return fail("files", path, &fault.text());
            }
            if path.eq_ignore_ascii_case(MANIFEST_PATH) || path.eq_ignore_ascii_case(ENVELOPE_PATH) {
                return fail("files", path, "the manifest and its envelope are not listed");
            }
        }
        Ok(())
    }
}
