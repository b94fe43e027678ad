//! SHA-256 digests, printed as `sha256:<64 lower-case hex>`.

use alloc::{borrow::ToOwned, string::String};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize, Serializer};
use sha2::Digest as _;

use crate::{
    json,
    text::{cut, display_text, fill, shown},
};

const PREFIX: &str = "sha256:";

/// How long every digest's text is.
const TEXT_BYTES: usize = PREFIX.len() + 64;

/// A SHA-256 digest (FIPS 180-4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits, without the `sha256:` before them.
    pub fn to_hex(&self) -> String {
        self.text().split_off(PREFIX.len())
    }

    /// `sha256:` and 64 lower-case hexadecimal digits.
    pub fn text(&self) -> String {
        self.text_in(&mut [0; TEXT_BYTES]).to_owned()
    }

    /// Its text, without an allocation.
    fn text_in<'a>(&self, text: &'a mut [u8; TEXT_BYTES]) -> &'a str {
        let (prefix, digits) = text.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        let mut words = self.0.as_chunks::<4>().0.iter();
        for eight in digits.as_chunks_mut::<8>().0 {
            if let Some(word) = words.next() {
                *eight = hex_word(*word);
            }
        }
        core::str::from_utf8(text).unwrap_or_default()
    }

    /// Reads what [`Self::to_hex`] writes; `None` for anything else, upper case too.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digits: &[u8; 64] = hex.as_bytes().try_into().ok()?;
        let (pairs, _) = digits.as_chunks::<2>();
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = value_of(*high)? << 4 | value_of(*low)?;
        }
        Some(Self(bytes))
    }
}

fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Four bytes' eight lower-case hexadecimal digits, all at once.
fn hex_word(bytes: [u8; 4]) -> [u8; 8] {
    const ONES: u64 = u64::MAX / 255;
    // Each byte apart, then each half of a byte: the high half first.
    let word = u64::from(u32::from_le_bytes(bytes));
    let word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    let word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (word >> 4 | word << 8) & (ONES * 0xf);
    // What is above nine carries into the high half, and gets to `a` from `0`.
    let letters = (nibbles + ONES * 6) >> 4 & ONES;
    (nibbles + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)).to_le_bytes()
}

/// A byte's two lower-case hexadecimal digits.
pub(crate) const fn hex(byte: u8) -> [u8; 2] {
    const fn digit(nibble: u8) -> u8 {
        if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
    }
    [digit(byte >> 4), digit(byte & 15)]
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text_in(&mut [0; TEXT_BYTES]))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseDigestError(String);

impl ParseDigestError {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        fill("`{}` is not a digest: write `sha256:` and 64 lower-case hexadecimal digits", &[&self.0])
    }
}

display_text!(ParseDigestError);

impl From<ParseDigestError> for json::Error {
    fn from(error: ParseDigestError) -> Self {
        Self::new(error.text())
    }
}

impl core::error::Error for ParseDigestError {}

impl FromStr for Digest {
    type Err = ParseDigestError;
    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        text.strip_prefix(PREFIX).and_then(Self::from_hex).ok_or_else(|| ParseDigestError(shown(cut(text, 80))))
    }
}

impl json::Read for Digest {
    fn read(value: json::Value<'_>) -> Self {
        value.parsed(str::parse).unwrap_or(Self([0; 32]))
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;
    fn try_from(text: String) -> Result<Self, ParseDigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_digest_prints_and_reads_back() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        for wrong in ["", "sha256:", "sha512:00", &digest.to_string().to_uppercase(), &digest.to_hex()] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
