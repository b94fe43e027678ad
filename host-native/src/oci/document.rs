//! The OCI documents, as far as they decide. The specification allows members that a reader does not know: a manifest's
//! are ignored, and an index's are kept for those who do know them.

use std::collections::BTreeMap;

use gate_core::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::BUNDLE_MEDIA_TYPE;

pub(super) const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The content of the empty descriptor.
pub(super) const EMPTY: &[u8] = b"{}";
pub(super) const LAYOUT_VERSION: &str = "1.0.0";
/// Where a layout keeps a tag.
pub(super) const TAG: &str = "org.opencontainers.image.ref.name";
/// What `oras pull` names the file it writes.
const TITLE: &str = "org.opencontainers.image.title";

/// `oci-layout`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayoutFile {
    pub(super) image_layout_version: String,
}

/// `index.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub(super) schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    pub(super) manifests: Vec<Descriptor>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What a blob is, how long, and its digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// An image manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    pub(super) config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Index {
    pub(super) fn empty() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(INDEX_MEDIA_TYPE.to_owned()),
            manifests: Vec::new(),
            others: Map::new(),
        }
    }

    /// Puts the manifest under the tag; without a tag it is only there.
    pub(super) fn put(&mut self, mut manifest: Descriptor, tag: Option<&str>) {
        match tag {
            Some(tag) => {
                self.manifests.retain(|there| there.tag() != Some(tag));
                manifest.annotations.insert(TAG.to_owned(), tag.to_owned());
            }
            None if self.manifests.iter().any(|there| there.digest == manifest.digest) => return,
            None => {}
        }
        self.manifests.push(manifest);
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.schema_version != 2 {
            return Err(format!("schemaVersion is {}, not 2", self.schema_version));
        }
        check_word("mediaType", self.media_type.as_deref().unwrap_or(INDEX_MEDIA_TYPE), INDEX_MEDIA_TYPE)
    }

    pub(super) fn tags(&self) -> Vec<String> {
        self.manifests.iter().filter_map(Descriptor::tag).map(str::to_owned).collect()
    }
}

impl Descriptor {
    pub(super) fn new(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(content),
            size: u64::try_from(content.len()).unwrap_or(u64::MAX),
            annotations: BTreeMap::new(),
            others: Map::new(),
        }
    }

    /// Says in the index what the manifest is an artifact of, as the specification asks.
    pub(super) fn with_artifact_type(mut self, artifact_type: &str) -> Self {
        self.others.insert("artifactType".to_owned(), artifact_type.into());
        self
    }

    pub(super) fn tag(&self) -> Option<&str> {
        self.annotations.get(TAG).map(String::as_str)
    }
}

impl Manifest {
    /// No time in it: the same bundle makes the same manifest.
    pub(super) fn of(bundle: &[u8]) -> Self {
        let mut layer = Descriptor::new(BUNDLE_MEDIA_TYPE, bundle);
        layer.annotations.insert(TITLE.to_owned(), "bundle.tar".to_owned());
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST_MEDIA_TYPE.to_owned()),
            artifact_type: Some(BUNDLE_MEDIA_TYPE.to_owned()),
            config: Descriptor::new(EMPTY_MEDIA_TYPE, EMPTY),
            layers: vec![layer],
        }
    }

    /// The bundle's descriptor, when this is the manifest of a bundle.
    pub(super) fn bundle(&self) -> Result<&Descriptor, String> {
        if self.schema_version != 2 {
            return Err(format!("schemaVersion is {}, not 2", self.schema_version));
        }
        check_word("mediaType", self.media_type.as_deref().unwrap_or(MANIFEST_MEDIA_TYPE), MANIFEST_MEDIA_TYPE)?;
        check_word("artifactType", self.artifact_type.as_deref().unwrap_or_default(), BUNDLE_MEDIA_TYPE)?;
        check_word("config.mediaType", &self.config.media_type, EMPTY_MEDIA_TYPE)?;
        let empty = Descriptor::new(EMPTY_MEDIA_TYPE, EMPTY);
        if (self.config.size, &self.config.digest) != (empty.size, &empty.digest) {
            return Err("config is not the empty descriptor".to_owned());
        }
        let [layer] = self.layers.as_slice() else {
            return Err(format!("it has {} layers, not 1", self.layers.len()));
        };
        check_word("layers[0].mediaType", &layer.media_type, BUNDLE_MEDIA_TYPE)?;
        Ok(layer)
    }
}

/// Whether a blob is the one of this digest and, where it is known, size.
pub(super) fn check_content(content: &[u8], digest: &Digest, size: Option<u64>) -> Result<(), String> {
    let found = Descriptor::new("", content);
    match size {
        Some(size) if found.size > size => Err(format!("it has more bytes, not {size}")),
        Some(size) if found.size < size => Err(format!("it has {} bytes, not {size}", found.size)),
        _ if found.digest != *digest => Err(format!("its digest is `{}`, not `{digest}`", found.digest)),
        _ => Ok(()),
    }
}

pub(super) fn check_word(member: &str, found: &str, expected: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{member} is `{}`, not `{expected}`", found.escape_debug()))
}
