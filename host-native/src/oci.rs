//! Bundles as OCI artifacts.
//!
//! A bundle travels as an image manifest with `artifactType` [`BUNDLE_MEDIA_TYPE`] and one layer: the tar, byte for
//! byte. Where it lives is a [`Reference`]: a registry, or an image layout on disk in the notation of `skopeo`. `skopeo`
//! and `oras` read and write the same.
//!
//! ```
//! use host_native::oci::{self, Access, Reference};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let reference = Reference::parse(&format!("oci:{}:1.4.0", dir.path().join("layout").display()))?;
//! let pushed = oci::push(b"the bytes of a bundle", &reference, &Access::default())?;
//! let (pulled, bundle) = oci::pull(&reference, &Access::default())?;
//! assert_eq!((pulled, bundle.as_slice()), (pushed, &b"the bytes of a bundle"[..]));
//! # Ok(())
//! # }
//! ```

mod access;
mod challenge;
mod document;
mod error;
mod layout;
mod reference;
mod registry;
#[cfg(test)]
mod tests;

use gate_core::{Digest, limits};

pub use access::{Access, PlainHttp};
pub use error::{Fault, OciError};
use reference::{Name, Place};
pub use reference::{Pinned, Reference};

/// What a bundle is, in an OCI manifest: its `artifactType` and the media type of its layer.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.autonomy.bundle.v1+tar";

/// Largest manifest, as registries have it, and largest `index.json` and `oci-layout`.
const DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;
const BUNDLE_BYTES: u64 = limits::BUNDLE_BYTES as u64;

/// A bundle in an OCI store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The manifest's digest: it names this bundle for ever.
    pub manifest: Digest,
    /// The digest of the bundle's own bytes.
    pub bundle: Digest,
    /// How many bytes the bundle has.
    pub bundle_bytes: u64,
}

impl Artifact {
    fn new(manifest: Digest, bundle: &[u8]) -> Self {
        Self { manifest, bundle: Digest::of(bundle), bundle_bytes: len(bundle) }
    }
}

/// Stores a bundle. The same bytes make the same digests. A tag that is there moves to the new bundle; other tags stay.
///
/// Blocks its thread until the end, and at most as long as `access` allows where it goes to a registry.
///
/// # Errors
/// The bundle is too large; the reference names a digest; the layout is damaged or cannot be written; the registry does
/// not take it.
pub fn push(bundle: &[u8], reference: &Reference, access: &Access) -> Result<Artifact, OciError> {
    check_bundle_bytes(len(bundle))?;
    let tag = |name: &Name| match name {
        Name::Tag(tag) => Ok(tag.clone()),
        Name::Digest(digest) => Err(OciError::PushToDigest { digest: *digest }),
    };
    match &reference.0 {
        Place::Layout(directory, name) => {
            layout::push(bundle, directory, name.as_ref().map(tag).transpose()?.as_deref())
        }
        Place::Registry(repository, name) => registry::push(bundle, repository, &tag(name)?, access),
    }
}

/// Fetches a bundle. Every digest, size and media type was checked: the bytes are those that were pushed. Whether they may
/// be trusted is the business of the bundle's signatures.
///
/// Blocks its thread as [`push`] does, and writes nothing.
///
/// # Errors
/// There is no such bundle, or it may not be had, or anything about it does not hold.
pub fn pull(reference: &Reference, access: &Access) -> Result<(Artifact, Vec<u8>), OciError> {
    match &reference.0 {
        Place::Layout(directory, name) => layout::pull(directory, name.as_ref()),
        Place::Registry(repository, name) => registry::pull(repository, name, access),
    }
}

fn check_bundle_bytes(bytes: u64) -> Result<(), OciError> {
    if bytes > BUNDLE_BYTES {
        return Err(OciError::BundleTooLarge { bytes, limit: BUNDLE_BYTES });
    }
    Ok(())
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
