//! Bundles as OCI artifacts.
//!
//! A bundle travels as an image manifest with `artifactType` [`BUNDLE_MEDIA_TYPE`] and one layer: the tar, byte for
//! byte. Where it lives is a [`Reference`]; this version knows the image layout on disk, in the notation of `skopeo`:
//! `oci:<directory>[:<tag>|@sha256:<digest>]`. `skopeo` and `oras` carry a layout to and from any registry.
//!
//! ```
//! use host_native::oci::{self, IfPresent, Reference};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let reference = Reference::parse(&format!("oci:{}:1.4.0", dir.path().join("layout").display()))?;
//! let pushed = oci::push(b"the bytes of a bundle", &reference)?;
//! let pulled = oci::pull(&reference, &dir.path().join("bundle.tar"), IfPresent::Refuse)?;
//! assert_eq!(pulled, pushed);
//! # Ok(())
//! # }
//! ```

mod document;
mod error;
mod layout;
mod reference;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use error::OciError;
pub use reference::{Digest, Reference};

/// What a bundle is, in an OCI manifest: its `artifactType` and the media type of its layer.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.autonomy.bundle.v1+tar";

/// A bundle in an OCI store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The manifest's digest: `oci:<directory>@<digest>` names this bundle for ever.
    pub manifest: Digest,
    /// The digest of the bundle's own bytes.
    pub bundle: Digest,
    /// How many bytes the bundle has.
    pub bundle_bytes: u64,
}

/// What to do with a file that is already at the output path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfPresent {
    /// Leaves it, and fails.
    Refuse,
    /// Replaces it, all at once.
    Replace,
}

/// Stores a bundle. The same bytes make the same digests. A tag that is there moves to the new bundle; other tags stay.
///
/// # Errors
/// The bundle is too large; the reference names a digest; the layout is damaged or cannot be written.
pub fn push(bundle: &[u8], reference: &Reference) -> Result<Artifact, OciError> {
    layout::push(bundle, reference)
}

/// Fetches a bundle to `output`. Nothing is at that path before every digest, size and media type was checked and the
/// bytes are on disk.
///
/// Says that the bytes are the ones that were pushed, not that they may be trusted: that is the bundle's signature.
///
/// # Errors
/// There is no such bundle; anything about it does not hold; there is a file at `output` and `if_present` refuses.
pub fn pull(reference: &Reference, output: &Path, if_present: IfPresent) -> Result<Artifact, OciError> {
    layout::pull(reference, output, if_present)
}
