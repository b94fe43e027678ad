//! Key files: Ed25519 private keys as PKCS#8 PEM (RFC 5958, RFC 8410), public keys as SPKI PEM.

use ed25519_dalek::{
    Signer as _, SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes, spki::der::pem::LineEnding},
};
use gate_core::{
    PublicKey, TrustedKeys,
    dsse::{self, Envelope},
    key::{KeyError, KeyId},
};
use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{ErrorClass, file};

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "let this user read it"
    } else {
        "correct the path, or make a key with `autonomy key generate`"
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read key `{}` ({source}): {}", path.display(), remedy(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a file where the key would be written.
    #[error("`{}` exists, and keys are never overwritten: choose another `--out`", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write key `{}` ({source}): {}", path.display(), file::remedy(source, "choose another `--out`"))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory of trusted keys does not take one more.
    #[error("cannot trust the key as `{}` ({source}): {}", path.display(), file::remedy(source, "name another directory with `--trust-dir`"))]
    Trust {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no private key of the right kind.
    #[error("`{}` is not an Ed25519 private key in PKCS#8 PEM: make one with `autonomy key generate` or `openssl genpkey -algorithm ed25519`", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// A private key that a passphrase opens.
    #[error("private key `{}` is encrypted: write it without a passphrase, with `openssl pkey`, to a file that its owner alone can read", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The other half of a pair.
    #[error("`{}` is a public key: give the private one, which has the same name without `.pub`", path.display())]
    IsPublic {
        /// The file.
        path: PathBuf,
    },
    /// A private key that everybody on the machine can read.
    #[error("private key `{}` can be read by others (mode {mode:03o}): run `chmod 600 {}`", path.display(), file::shell_word(path))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no public key of the right kind.
    #[error("trusted key `{}`: {source}", path.display())]
    NotPublic {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The keys do not make a set that can be trusted.
    #[error("trusted keys: {0}")]
    Set(KeyError),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes ({0}): check that `/dev/urandom` can be read")]
    Random(getrandom::Error),
}

impl KeyFileError {
    /// Whether to correct the request or the thing it needs.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Trust { source, .. } => {
                ErrorClass::of(source)
            }
            Self::Random(_) => ErrorClass::Unavailable,
            Self::Exists { .. }
            | Self::NotPrivate { .. }
            | Self::IsPublic { .. }
            | Self::Encrypted { .. }
            | Self::Exposed { .. }
            | Self::NotPublic { .. }
            | Self::Set(_) => ErrorClass::Usage,
        }
    }
}

/// An Ed25519 private key. Its bytes are wiped from memory when it is dropped.
pub struct PrivateKey {
    signing: SigningKey,
    public: PublicKey,
}

impl PrivateKey {
    /// A new key from the system's random bytes.
    ///
    /// # Errors
    /// [`KeyFileError::Random`].
    pub fn generate() -> Result<Self, KeyFileError> {
        loop {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(KeyFileError::Random)?;
            // Every seed gives a fit key but for odds that nobody will meet; then the next seed does.
            if let Ok(key) = Self::from_signing(SigningKey::from_bytes(&seed)) {
                return Ok(key);
            }
        }
    }

    /// Reads a PKCS#8 PEM file that only its owner can read.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let read = |source| KeyFileError::Read { path: path.to_owned(), source };
        let pem = file::read_text(path, file::KEY_BYTES).map_err(read)?;
        if PublicKey::from_pem(&pem).is_ok() {
            return Err(KeyFileError::IsPublic { path: path.to_owned() });
        }
        if pem.contains("ENCRYPTED") {
            return Err(KeyFileError::Encrypted { path: path.to_owned() });
        }
        refuse_exposed(path)?;
        SigningKey::from_pkcs8_pem(&pem)
            .ok()
            .and_then(|signing| Self::from_signing(signing).ok())
            .ok_or_else(|| KeyFileError::NotPrivate { path: path.to_owned() })
    }

    fn from_signing(signing: SigningKey) -> Result<Self, KeyError> {
        let public = PublicKey::from_bytes(signing.verifying_key().as_bytes())?;
        Ok(Self { signing, public })
    }

    /// Writes `<path>` (PKCS#8, mode 0600) and `<path>.pub` (SPKI), and the directory if it is missing (mode 0700).
    /// Files that exist are kept and refuse the call.
    ///
    /// # Errors
    /// Why a file cannot be written.
    pub fn write(&self, path: &Path) -> Result<PathBuf, KeyFileError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| {
                if source.kind() == io::ErrorKind::AlreadyExists {
                    return KeyFileError::Exists { path };
                }
                KeyFileError::Write { path, source }
            }
        };
        // Version 1, without the public key in it: what every OpenSSL reads.
        let pair = KeypairBytes { secret_key: self.signing.to_bytes(), public_key: None };
        let pem = pair.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other).map_err(failed(path))?;
        let mut public_path = path.as_os_str().to_owned();
        public_path.push(".pub");
        let public_path = PathBuf::from(public_path);
        // Neither half is written where the other could not be.
        if let Some(there) = [path, &public_path].into_iter().find(|path| path.exists()) {
            return Err(KeyFileError::Exists { path: there.to_owned() });
        }
        if let Some(directory) = path.parent() {
            file::create_directory(directory, 0o700).map_err(failed(directory))?;
        }
        file::create_new(path, pem.as_bytes(), 0o600).map_err(failed(path))?;
        file::create_new(&public_path, self.public.to_pem().as_bytes(), 0o644).map_err(|error| {
            let _ = std::fs::remove_file(path);
            failed(&public_path)(error)
        })?;
        Ok(public_path)
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The public half's id.
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// Signs a message (RFC 8032, Ed25519).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// Puts a payload into a DSSE envelope that this key alone has signed.
    pub(crate) fn seal(&self, payload_type: &str, payload: Vec<u8>) -> Vec<u8> {
        let signature = self.sign(&dsse::pre_authentication_encoding(payload_type, &payload));
        let signatures = vec![(self.id(), signature)];
        Envelope { payload_type: payload_type.to_owned(), payload, signatures }.to_bytes()
    }
}

/// Reads public keys and how many of them must sign. A key in two files is one key.
///
/// # Errors
/// The first file that is no public key, or why they make no set.
pub fn read_trusted(paths: &[PathBuf], threshold: usize) -> Result<TrustedKeys, KeyFileError> {
    let mut keys = Vec::with_capacity(paths.len());
    for path in paths {
        let pem = file::read_text(path, file::KEY_BYTES)
            .map_err(|source| KeyFileError::Read { path: path.clone(), source })?;
        let key = PublicKey::from_pem(&pem).map_err(|source| KeyFileError::NotPublic { path: path.clone(), source })?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    TrustedKeys::new(keys, threshold).map_err(KeyFileError::Set)
}

/// Puts a public key among the trusted ones, under its id, and gives the file.
///
/// # Errors
/// Why the file cannot be written. A key that is there already is no error.
pub fn trust(key: &PublicKey, directory: &Path) -> Result<PathBuf, KeyFileError> {
    let path = directory.join(format!("{}.pub", key.id()));
    let written = file::create_directory(directory, 0o755).and_then(|()| {
        match file::create_new(&path, key.to_pem().as_bytes(), 0o644) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            written => written,
        }
    });
    written.map_err(|source| KeyFileError::Trust { path: path.clone(), source })?;
    Ok(path)
}

fn refuse_exposed(path: &Path) -> Result<(), KeyFileError> {
    match file::exposed(path).map_err(|source| KeyFileError::Read { path: path.to_owned(), source })? {
        Some(mode) => Err(KeyFileError::Exposed { path: path.to_owned(), mode }),
        None => Ok(()),
    }
}
