//! A bundle: a tar with a manifest, the envelope that signs it, and the files that the manifest lists.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use crate::{
    digest::Digest,
    dsse::{Envelope, EnvelopeError},
    key::{KeyId, TrustedKeys},
    limits,
    manifest::{ENVELOPE_PATH, MANIFEST_PATH, Manifest, ManifestError, PAYLOAD_TYPE},
    text::{decimal, display_text, fill},
    ustar::{self, Entry, TarError},
};

/// A bundle whose every byte is accounted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The bundle's identity: the SHA-256 of its manifest's bytes, which name every other byte by digest.
    pub digest: Digest,
    /// The files, in the order of their paths.
    pub files: Vec<Entry<'a>>,
    /// The trusted keys that have signed; empty when only [`Bundle::inspect`]ed.
    pub signers: Vec<KeyId>,
}

/// Why a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleError {
    /// The tar.
    Tar(TarError),
    /// An entry that is not where it must be.
    Order {
        /// What stands there.
        found: Option<String>,
        /// What must.
        expected: String,
    },
    /// The manifest or its envelope is larger than may be.
    TooLarge {
        /// Which.
        path: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The envelope.
    Envelope(EnvelopeError),
    /// The signed manifest is not the one in the tar.
    PayloadDiffers,
    /// The manifest.
    Manifest(ManifestError),
    /// A file that the manifest does not list.
    ExtraFile(String),
    /// A file that only the manifest has.
    MissingFile(String),
    /// A file whose bytes are not those that the manifest names.
    FileDigest {
        /// The file.
        path: String,
        /// What the manifest says.
        expected: Digest,
        /// What the file has.
        found: Digest,
    },
    /// No keys are trusted, so nothing can be verified.
    NoTrustedKeys,
}

impl BundleError {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        match self {
            Self::Tar(error) => error.text(),
            Self::Order { found: Some(found), expected } => {
                fill("tar entry `{}` stands where {} must", &[found, expected])
            }
            Self::Order { found: None, expected } => fill("tar ends where {} must stand", &[expected]),
            Self::TooLarge { path, bytes, limit } => {
                let (bytes, limit) = (decimal(*bytes as u64), decimal(*limit as u64));
                fill("`{}` has {} bytes: at most {} are read", &[path, &bytes, &limit])
            }
            Self::Envelope(error) => error.text(),
            Self::PayloadDiffers => fill(
                "`{}` signs another manifest than the tar's `{}`: sign the bundle again",
                &[ENVELOPE_PATH, MANIFEST_PATH],
            ),
            Self::Manifest(error) => error.text(),
            Self::ExtraFile(path) => fill("file `{}` is not listed in the manifest", &[path]),
            Self::MissingFile(path) => fill("file `{}` is listed in the manifest and missing in the tar", &[path]),
            Self::FileDigest { path, expected, found } => {
                let (found, expected) = (found.text(), expected.text());
                fill("file `{}` has digest `{}`, the manifest says `{}`", &[path, &found, &expected])
            }
            Self::NoTrustedKeys => "no keys are trusted: give the public keys that sign bundles".into(),
        }
    }
}

display_text!(BundleError);

impl core::error::Error for BundleError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Tar(error) => Some(error),
            Self::Envelope(error) => Some(error),
            Self::Manifest(error) => Some(error),
            Self::Order { .. }
            | Self::TooLarge { .. }
            | Self::PayloadDiffers
            | Self::ExtraFile(_)
            | Self::MissingFile(_)
            | Self::FileDigest { .. }
            | Self::NoTrustedKeys => None,
        }
    }
}

impl<'a> Bundle<'a> {
    /// Reads a bundle that enough trusted keys have signed.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(tar: &'a [u8], keys: &TrustedKeys) -> Result<Self, BundleError> {
        let sealed = Sealed::read(tar)?;
        // The signature first: nothing of an unsigned manifest is looked at.
        let signers = sealed.envelope.verify(PAYLOAD_TYPE, keys).map_err(BundleError::Envelope)?;
        sealed.open(signers)
    }

    /// Reads a bundle without asking who signed it, and gives the ids of the keys that its envelope claims.
    ///
    /// For people to look at. Nothing it says may decide.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn inspect(tar: &'a [u8]) -> Result<(Self, Vec<KeyId>), BundleError> {
        let sealed = Sealed::read(tar)?;
        let claimed = sealed.envelope.signatures.iter().map(|signature| signature.0).collect();
        Ok((sealed.open(Vec::new())?, claimed))
    }

    /// The files below `policies/` whose names end in `.rego`.
    pub fn policies(&self) -> impl Iterator<Item = &Entry<'a>> {
        self.files.iter().filter(|file| file.path.starts_with("policies/") && file.path.ends_with(".rego"))
    }
}

/// A bundle's three parts, nothing of them believed.
struct Sealed<'a> {
    manifest: &'a [u8],
    envelope: Envelope,
    files: Vec<Entry<'a>>,
}

impl<'a> Sealed<'a> {
    fn read(tar: &'a [u8]) -> Result<Self, BundleError> {
        let mut entries = ustar::read(tar).map_err(BundleError::Tar)?.into_iter();
        let mut head = |path: &'static str, limit| match entries.next() {
            Some(entry) if entry.path != path => Err(misplaced(Some(entry.path), path)),
            None => Err(misplaced(None, path)),
            Some(entry) if entry.data.len() > limit => {
                Err(BundleError::TooLarge { path, bytes: entry.data.len(), limit })
            }
            Some(entry) => Ok(entry.data),
        };
        let manifest = head(MANIFEST_PATH, limits::MANIFEST_BYTES)?;
        let envelope = head(ENVELOPE_PATH, limits::ENVELOPE_BYTES)?;
        let files: Vec<_> = entries.collect();
        for pair in files.windows(2) {
            if let [a, b] = pair
                && a.path >= b.path
            {
                let expected = fill("a path after `{}`", &[a.path]);
                return Err(BundleError::Order { found: Some(b.path.to_owned()), expected });
            }
        }
        let envelope = Envelope::parse(envelope).map_err(BundleError::Envelope)?;
        if envelope.payload != manifest {
            return Err(BundleError::PayloadDiffers);
        }
        Ok(Self { manifest, envelope, files })
    }

    fn open(self, signers: Vec<KeyId>) -> Result<Bundle<'a>, BundleError> {
        let manifest = Manifest::parse(self.manifest).map_err(BundleError::Manifest)?;
        // Both sides are in the order of their paths, so they are walked together.
        let mut listed = manifest.files.iter();
        for file in &self.files {
            match listed.next() {
                Some((path, expected)) if *path == file.path => {
                    let found = Digest::of(file.data);
                    if found != *expected {
                        return Err(BundleError::FileDigest { path: path.clone(), expected: *expected, found });
                    }
                }
                Some((path, _)) if path.as_str() < file.path => return Err(BundleError::MissingFile(path.clone())),
                _ => return Err(BundleError::ExtraFile(file.path.to_owned())),
            }
        }
        if let Some((path, _)) = listed.next() {
            return Err(BundleError::MissingFile(path.clone()));
        }
        Ok(Bundle { digest: Digest::of(self.manifest), manifest, files: self.files, signers })
    }
}

fn misplaced(found: Option<&str>, expected: &str) -> BundleError {
    BundleError::Order { found: found.map(ToOwned::to_owned), expected: fill("`{}`", &[expected]) }
}
