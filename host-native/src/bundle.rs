//! Makes and signs bundles. Reading one is gate-core's business, for every language the same.

use gate_core::{
    Bundle, BundleError, Digest,
    dsse::{self, Envelope, EnvelopeError},
    limits,
    manifest::{Channel, ENVELOPE_PATH, MANIFEST_PATH, Manifest, ManifestError, PAYLOAD_TYPE, Provenance},
    ustar::{self, Entry, TarFault},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

pub use crate::file::IfExists;
use crate::{ErrorClass, file, key::PrivateKey};

/// Why a bundle cannot be made, signed, read or written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file or directory cannot be read.
    #[error("cannot read `{}` ({source}): correct the path, or who may read it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or certificate in the place of a bundle: its content is nothing to put into a message.
    #[error("`{}` is a PEM file, not a bundle: give the tar that `autonomy bundle build` wrote", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// There is a file where the bundle would be written.
    #[error("`{}` exists: choose another name, or replace it with `--force`", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The bundle cannot be written.
    #[error("cannot write `{}` ({source}): {}", path.display(), file::remedy(source, "check that the directory is there and may be written"))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that is neither a regular file nor a directory.
    #[error("`{}` is neither a file nor a directory: replace it by a regular file, or remove it", path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// A path that may not stand in a bundle.
    #[error("`{path}` cannot stand in a bundle: {fault}; rename it")]
    Path {
        /// The path inside the bundle.
        path: String,
        /// The rule it breaks.
        fault: TarFault,
    },
    /// A source directory without policies.
    #[error("`{}` holds no `policies/*.rego`: add a policy, without one every call is denied", path.display())]
    NoPolicies {
        /// The source directory.
        path: PathBuf,
    },
    /// The manifest's fields.
    #[error("{0}")]
    Manifest(ManifestError),
    /// What was to be signed is no bundle.
    #[error("{}", refusal(_0))]
    Bundle(BundleError),
    /// What would be written is no bundle.
    #[error("{0}; change that in the source, and build again")]
    Content(BundleError),
    /// The key has signed this bundle before.
    #[error("key `{0}` has already signed this bundle: sign with another key")]
    AlreadySigned(gate_core::key::KeyId),
    /// An envelope is full.
    #[error(
        "the bundle has {} signatures already, no more fit: build it again and sign with fewer keys",
        limits::SIGNATURES
    )]
    TooManySignatures,
}

impl BuildError {
    /// Whether to correct the request or the thing it needs.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => ErrorClass::of(source),
            Self::Exists { .. }
            | Self::NotAFile { .. }
            | Self::Path { .. }
            | Self::NoPolicies { .. }
            | Self::Pem { .. }
            | Self::Manifest(_)
            | Self::Bundle(_)
            | Self::Content(_)
            | Self::AlreadySigned(_)
            | Self::TooManySignatures => ErrorClass::Usage,
        }
    }
}

/// Why a bundle is refused, and what to do about it.
pub fn refusal(error: &BundleError) -> String {
    match error {
        BundleError::Tar(_)
        | BundleError::Order { .. }
        | BundleError::TooLarge { .. }
        | BundleError::ExtraFile(_)
        | BundleError::MissingFile(_)
        | BundleError::FileDigest { .. } => {
            format!("{error}; rebuild it with `autonomy bundle build`, or fetch it again")
        }
        // A path is no field that somebody writes: the rule alone does not help.
        BundleError::Manifest(ManifestError::Malformed(_) | ManifestError::Field { field: "files", .. }) => {
            format!("{error}; rebuild it with `autonomy bundle build`, or fetch it again")
        }
        BundleError::Envelope(
            EnvelopeError::Malformed(_)
            | EnvelopeError::NotCanonical
            | EnvelopeError::PayloadType { .. }
            | EnvelopeError::KeyId(_)
            | EnvelopeError::Signature(_)
            | EnvelopeError::TooMany(_)
            | EnvelopeError::Duplicate(_)
            | EnvelopeError::Forged(_),
        ) => format!("{error}; build and sign it again, or fetch it again"),
        // These say so themselves.
        BundleError::Envelope(EnvelopeError::Threshold { .. })
        | BundleError::PayloadDiffers
        | BundleError::Manifest(
            ManifestError::SchemaMajor(_) | ManifestError::UnknownField { .. } | ManifestError::Field { .. },
        )
        | BundleError::NoTrustedKeys => error.to_string(),
    }
}

/// What the builder says of a bundle.
#[derive(Debug, Clone)]
pub struct Description {
    /// The bundle's name.
    pub name: String,
    /// Its version (SemVer 2.0).
    pub version: String,
    /// How far it has come.
    pub channel: Channel,
    /// The version of its policies.
    pub policy_version: String,
    /// Where it comes from, and the enrollment it is for.
    pub provenance: Provenance,
}

/// The files of a bundle: path inside it, and bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Reads every file below `source`, which holds `policies/` and whatever else the bundle carries.
///
/// # Errors
/// What cannot be read, or may not stand in a bundle.
pub fn read_files(source: &Path) -> Result<Files, BuildError> {
    let mut files = Files::new();
    read_directory(source, "", &mut files)?;
    if !files.keys().any(|path| path.starts_with("policies/") && path.ends_with(".rego")) {
        return Err(BuildError::NoPolicies { path: source.to_owned() });
    }
    Ok(files)
}

fn read_directory(directory: &Path, prefix: &str, files: &mut Files) -> Result<(), BuildError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Read { path, source }
    };
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed(directory))?);
        let inside = format!("{prefix}{}", entry.file_name().to_string_lossy());
        ustar::check_path(&inside).map_err(|fault| BuildError::Path { path: inside.clone(), fault })?;
        if kind.is_dir() {
            read_directory(&path, &format!("{inside}/"), files)?;
        } else if kind.is_file() {
            files.insert(inside, fs::read(&path).map_err(failed(&path))?);
        } else {
            return Err(BuildError::NotAFile { path });
        }
    }
    Ok(())
}

/// An unsigned bundle: the same description and files give the same bytes.
///
/// # Errors
/// The first rule that it would break.
pub fn build(description: Description, files: &Files) -> Result<Vec<u8>, BuildError> {
    let Description { name, version, channel, policy_version, provenance } = description;
    let digests = files.iter().map(|(path, bytes)| (path.clone(), Digest::of(bytes))).collect();
    let manifest =
        Manifest::new(name, version, channel, policy_version, provenance, digests).map_err(BuildError::Manifest)?;
    // Strings, enums and a map with string keys: there is nothing in them that JSON cannot hold.
    let manifest = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    let envelope = Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload: manifest, signatures: Vec::new() };
    let entries: Vec<_> = files.iter().map(|(path, data)| Entry { path, data }).collect();
    pack(&envelope, &entries)
}

/// The bundle with one more signature.
///
/// # Errors
/// Why it is no bundle, or cannot take the signature.
pub fn sign(tar: &[u8], key: &PrivateKey) -> Result<Vec<u8>, BuildError> {
    let (bundle, _) = Bundle::inspect(tar).map_err(BuildError::Bundle)?;
    let entries = ustar::read(tar).map_err(|error| BuildError::Bundle(BundleError::Tar(error)))?;
    let envelope = entries.iter().find(|entry| entry.path == ENVELOPE_PATH).map_or(&[][..], |entry| entry.data);
    let mut envelope = Envelope::parse(envelope).map_err(|error| BuildError::Bundle(BundleError::Envelope(error)))?;
    if envelope.signatures.iter().any(|signature| signature.0 == key.id()) {
        return Err(BuildError::AlreadySigned(key.id()));
    }
    if envelope.signatures.len() == limits::SIGNATURES {
        return Err(BuildError::TooManySignatures);
    }
    let message = dsse::pre_authentication_encoding(PAYLOAD_TYPE, &envelope.payload);
    envelope.signatures.push((key.id(), key.sign(&message)));
    pack(&envelope, &bundle.files)
}

/// Reads a bundle's bytes, and of a file that is too large to be one only as many as show that it is.
///
/// # Errors
/// The file cannot be read, or holds a key or a certificate.
pub fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    let read = file::read_beyond(path, limits::BUNDLE_BYTES as u64);
    let bytes = read.map_err(|error| BuildError::Read { path: path.to_owned(), source: error.into() })?;
    match bytes.starts_with(b"-----BEGIN ") {
        true => Err(BuildError::Pem { path: path.to_owned() }),
        false => Ok(bytes),
    }
}

/// Writes a bundle's bytes. The file is there whole and on disk, or not at all.
///
/// # Errors
/// There is such a file and `if_exists` refuses, or it cannot be written.
pub fn write(path: &Path, bytes: &[u8], if_exists: IfExists) -> Result<(), BuildError> {
    file::publish(path, bytes, if_exists).map_err(|source| {
        let path = path.to_owned();
        match (source.kind(), if_exists) {
            (io::ErrorKind::AlreadyExists, IfExists::Refuse) => BuildError::Exists { path },
            _ => BuildError::Write { path, source },
        }
    })
}

fn pack(envelope: &Envelope, files: &[Entry<'_>]) -> Result<Vec<u8>, BuildError> {
    let sealed = envelope.to_bytes();
    let head = [Entry { path: MANIFEST_PATH, data: &envelope.payload }, Entry { path: ENVELOPE_PATH, data: &sealed }];
    let mut tar = tar::Builder::new(Vec::new());
    let mut append = |entry: &Entry<'_>| -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(entry.path)?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(entry.data.len() as u64);
        header.set_cksum();
        tar.append(&header, entry.data)
    };
    let in_memory = |source| BuildError::Read { path: PathBuf::from("<memory>"), source };
    head.iter().chain(files).try_for_each(&mut append).map_err(in_memory)?;
    let bytes = tar.into_inner().map_err(in_memory)?;
    // What the reader would refuse is never written.
    Bundle::inspect(&bytes).map_err(BuildError::Content)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gate_core::{EnrollmentRef, TrustedKeys};

    fn description() -> Description {
        Description {
            name: "fleet/policies".into(),
            version: "1.4.0".into(),
            channel: Channel::Stable,
            policy_version: "7".into(),
            provenance: Provenance {
                enrollment_ref: Some(EnrollmentRef::parse("fleet-a").unwrap()),
                ..Provenance::default()
            },
        }
    }

    fn files() -> Files {
        let rego = b"package autonomy\nallow := true\n".to_vec();
        [("policies/main.rego".to_owned(), rego), ("data/limits.json".to_owned(), b"{}".to_vec())].into()
    }

    #[test]
    fn a_built_bundle_verifies_once_enough_keys_have_signed() {
        let (a, b) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let keys = TrustedKeys::new([a.public().clone(), b.public().clone()], 2).unwrap();
        let unsigned = build(description(), &files()).unwrap();
        assert_eq!(unsigned, build(description(), &files()).unwrap(), "the same bytes each time");
        let once = sign(&unsigned, &a).unwrap();
        assert_eq!(
            Bundle::verify(&once, &keys).unwrap_err().to_string(),
            "1 of 2 needed trusted keys have signed: sign with `autonomy bundle sign`"
        );
        assert!(matches!(sign(&once, &a), Err(BuildError::AlreadySigned(_))));
        let twice = sign(&once, &b).unwrap();
        let bundle = Bundle::verify(&twice, &keys).unwrap();
        assert_eq!(bundle.signers, [a.id(), b.id()]);
        assert_eq!(bundle.manifest.declared_ref().unwrap().as_str(), "fleet-a");
        assert_eq!(bundle.policies().count(), 1);
        assert_eq!(bundle.digest, Bundle::inspect(&unsigned).unwrap().0.digest, "signing is not part of the identity");
    }

    #[test]
    fn every_refusal_of_a_bundle_ends_with_what_to_do() {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/corpus/bundles.json");
        let corpus: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let remedies = [
            "or fetch it again",
            "sign the bundle again",
            "sign with `autonomy bundle sign`",
            "or sign with a trusted one",
            "upgrade, or rebuild the bundle",
            ": remove it",
            ": use ",
            "type a plain `-`",
        ];
        let mut refused = 0;
        for case in corpus["bundles"].as_array().unwrap().iter().filter(|case| case.get("refused").is_some()) {
            let mut tar = Vec::new();
            for segment in case["tar"].as_array().unwrap() {
                match segment.as_u64() {
                    Some(zeros) => tar.resize(tar.len() + usize::try_from(zeros).unwrap(), 0),
                    None => tar.extend(STANDARD.decode(segment.as_str().unwrap()).unwrap()),
                }
            }
            let names = case["keys"].as_array().unwrap().iter();
            let keys = names.map(|name| corpus["keys"][name.as_str().unwrap()].as_str().unwrap());
            let keys = keys.map(|pem| gate_core::PublicKey::from_pem(pem).unwrap());
            let threshold = usize::try_from(case["threshold"].as_u64().unwrap()).unwrap();
            let error = Bundle::verify(&tar, &TrustedKeys::new(keys, threshold).unwrap()).unwrap_err();
            let text = refusal(&error);
            assert!(text.starts_with(&error.to_string()) && !text.contains('\n'), "{text}");
            assert!(remedies.iter().any(|remedy| text.contains(remedy)), "{}: {text}", case["name"]);
            refused += 1;
        }
        assert!(refused > 150, "only {refused} cases were refused");
    }

    #[test]
    fn a_bundle_file_is_replaced_only_when_asked_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.tar");
        assert!(matches!(read(&path), Err(BuildError::Read { .. })));
        write(&path, b"one", IfExists::Refuse).unwrap();
        let refused = write(&path, b"two", IfExists::Refuse).unwrap_err();
        assert_eq!((refused.class(), read(&path).unwrap().as_slice()), (ErrorClass::Usage, &b"one"[..]));
        write(&path, b"two", IfExists::Replace).unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        // A link there is neither followed nor replaced.
        let (victim, link) = (directory.path().join("victim"), directory.path().join("link"));
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        write(&link, b"two", IfExists::Refuse).unwrap_err();
        write(&link, b"two", IfExists::Replace).unwrap_err();
        assert!(!victim.exists() && fs::symlink_metadata(&link).unwrap().is_symlink());
        let lost = write(&directory.path().join("no/such/bundle.tar"), b"", IfExists::Replace).unwrap_err();
        assert_eq!(lost.class(), ErrorClass::Unavailable);
    }

    #[test]
    fn of_many_that_write_one_file_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..8 {
            let path = directory.path().join(format!("bundle-{round}.tar"));
            let start = std::sync::Barrier::new(8);
            let wins = std::thread::scope(|scope| {
                let write = || {
                    start.wait();
                    match write(&path, b"one", IfExists::Refuse) {
                        Ok(()) => 1,
                        Err(error) => {
                            assert!(matches!(error, BuildError::Exists { .. }), "{error}");
                            0
                        }
                    }
                };
                let writers: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
                writers.into_iter().map(|writer| writer.join().unwrap()).sum::<usize>()
            });
            assert_eq!(wins, 1);
        }
    }

    #[test]
    fn a_key_is_trusted_once_and_its_directories_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        key.write(&directory.path().join("keys/bundle.pem")).unwrap();
        let trust_dir = directory.path().join("trusted");
        let path = crate::key::trust(key.public(), &trust_dir).unwrap();
        assert_eq!(crate::key::trust(key.public(), &trust_dir).unwrap(), path);
        assert_eq!(crate::key::read_trusted(&[path], 1).unwrap().find(key.id()), Some(key.public()));
    }

    #[test]
    fn key_files_read_back_and_refuse_to_be_overwritten_or_exposed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("release");
        let key = PrivateKey::generate().unwrap();
        let public = key.write(&path).unwrap();
        assert_eq!(PrivateKey::read(&path).unwrap().id(), key.id());
        assert!(crate::key::read_trusted(std::slice::from_ref(&public), 1).is_ok());
        assert!(key.write(&path).is_err());
        assert!(PrivateKey::read(&public).is_err());
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(PrivateKey::read(&path), Err(crate::key::KeyFileError::Exposed { mode: 0o644, .. })));
    }
}
