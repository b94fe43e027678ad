//! Ed25519 public keys (RFC 8032) as SPKI PEM (RFC 8410, RFC 7468), and the set of them that is trusted.

use alloc::{string::String, vec::Vec};
use core::fmt;
use ed25519_dalek::VerifyingKey;
use serde::{Serialize, Serializer};

use crate::{
    base64,
    digest::Digest,
    limits,
    text::{cut, decimal, display_text, fill, shown},
};

/// The DER of an Ed25519 SubjectPublicKeyInfo up to the key: RFC 8410, section 10.1.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const BEGIN: &[u8] = b"-----BEGIN ";
const PEM_BEGIN: &[u8] = b"-----BEGIN PUBLIC KEY-----";
const PEM_END: &[u8] = b"-----END PUBLIC KEY-----";

/// A key's id: the SHA-256 of its SPKI DER, as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Digest);

impl KeyId {
    /// Reads 64 lower-case hexadecimal digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        Digest::from_hex(hex).map(Self)
    }

    /// 64 lower-case hexadecimal digits.
    pub fn text(self) -> String {
        self.0.to_hex()
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

/// Why a public key, or a set of them, is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// Not the PEM of an Ed25519 public key.
    NotPem,
    /// PEM of something else, such as a private key.
    WrongLabel(String),
    /// More than one PEM block.
    Several,
    /// SPKI of another algorithm.
    NotEd25519,
    /// 32 bytes that are no point of the curve, or not its canonical encoding.
    NotAPoint,
    /// A key of small order, under which one signature fits many messages.
    Weak,
    /// The same key twice: a threshold counts distinct keys.
    Duplicate(KeyId),
    /// More keys than [`limits::TRUSTED_KEYS`].
    TooMany,
    /// A threshold that no set of signatures, or the empty one, could meet.
    Threshold {
        /// What was asked.
        threshold: usize,
        /// How many keys there are.
        keys: usize,
    },
}

impl KeyError {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        match self {
            Self::NotPem => {
                "not the PEM of a public key: `openssl pkey -in <private> -pubout` or `autonomy key generate` makes one"
                    .into()
            }
            Self::WrongLabel(label) => {
                fill("PEM of a `{}`, not of a public key: give its public half", &[&shown(label)])
            }
            Self::Several => "more than one key in one PEM: give each key on its own".into(),
            Self::NotEd25519 => "not an Ed25519 key: make one with `openssl genpkey -algorithm ed25519`".into(),
            Self::NotAPoint => {
                "not a point of the Ed25519 curve in its canonical form: make a key with `autonomy key generate`".into()
            }
            Self::Weak => {
                "a key of small order, under which anybody can sign: make one with `autonomy key generate`".into()
            }
            Self::Duplicate(id) => fill("key `{}` is given twice: give each key once", &[&id.text()]),
            Self::TooMany => fill("more than {} trusted keys: give fewer", &[&decimal(limits::TRUSTED_KEYS as u64)]),
            Self::Threshold { threshold, keys } => {
                let (threshold, most) = (decimal(*threshold as u64), decimal(*keys as u64));
                let remedy = if *keys == 0 { "give at least one key".into() } else { fill("use 1 to {}", &[&most]) };
                fill("threshold `{}` does not fit {} trusted keys: {}", &[&threshold, &most, &remedy])
            }
        }
    }
}

display_text!(KeyError);

impl core::error::Error for KeyError {}

/// An Ed25519 public key that is fit to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads the 32 bytes of RFC 8032, section 5.1.5.
    ///
    /// # Errors
    /// [`KeyError::NotAPoint`] or [`KeyError::Weak`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::NotAPoint);
        }
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(bytes);
        Ok(Self { id: KeyId(Digest::of(&spki)), key })
    }

    /// Reads what `openssl pkey -pubout` writes: one line of base64 between two of armour.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        // By bytes and in one pass: with what `str` and `Vec` have for lines, gate.wasm would be 2 % larger.
        let mut lines = pem.as_bytes().trim_ascii().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let first = lines.next().unwrap_or_default();
        if first != PEM_BEGIN {
            let label = first.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(b"-----"));
            let label = label.and_then(|label| core::str::from_utf8(label).ok());
            return Err(label.map_or(KeyError::NotPem, |label| KeyError::WrongLabel(cut(label, 40).into())));
        }
        let body = lines.next().unwrap_or_default();
        let (mut last, mut count) = (body, 0);
        for line in lines {
            if line.starts_with(BEGIN) {
                return Err(KeyError::Several);
            }
            (last, count) = (line, count + 1);
        }
        if last != PEM_END {
            return Err(KeyError::NotPem);
        }
        // Every Ed25519 key fits a line; a longer body is another algorithm's.
        if count != 1 {
            return Err(KeyError::NotEd25519);
        }
        let der = base64::decode(body).ok_or(KeyError::NotPem)?;
        let key: &[u8; 32] =
            der.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok()).ok_or(KeyError::NotEd25519)?;
        Self::from_bytes(key)
    }

    /// What [`Self::from_pem`] reads, with a line break at its end.
    pub fn to_pem(&self) -> String {
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(self.key.as_bytes());
        fill("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", &[&base64::encode(&spki)])
    }

    /// The key's id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether `signature` is this key's over `message`, by the strict rules: canonical `S` and `R`, no small order.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

/// The keys that are trusted, and how many distinct ones of them must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKeys {
    keys: Vec<PublicKey>,
    threshold: usize,
}

impl TrustedKeys {
    /// The only way to have a set: never empty, never with a key twice, never with a threshold out of reach.
    ///
    /// # Errors
    /// Which of these does not hold.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: usize) -> Result<Self, KeyError> {
        let mut distinct: Vec<PublicKey> = Vec::new();
        for key in keys {
            if distinct.iter().any(|known| known.id == key.id) {
                return Err(KeyError::Duplicate(key.id));
            }
            if distinct.len() == limits::TRUSTED_KEYS {
                return Err(KeyError::TooMany);
            }
            distinct.push(key);
        }
        if threshold == 0 || threshold > distinct.len() {
            return Err(KeyError::Threshold { threshold, keys: distinct.len() });
        }
        Ok(Self { keys: distinct, threshold })
    }

    /// Every trusted key.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter()
    }

    /// The trusted key with this id.
    pub fn find(&self, id: KeyId) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// How many distinct keys must have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }
}
