//! Base64 (RFC 4648, section 4) in its one form: padded, without white space, without stray bits.
//!
//! What is read is public, so its time may depend on it.

use alloc::{string::String, vec::Vec};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes; `None` for a text that [`encode`] does not write.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (groups, []) = text.as_chunks::<4>() else {
        return None;
    };
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for (at, group) in groups.iter().enumerate() {
        let digits = match group {
            [.., b'=', b'='] if at + 1 == groups.len() => 2,
            [.., b'='] if at + 1 == groups.len() => 3,
            _ => 4,
        };
        let mut word = 0;
        for digit in group.iter().take(digits) {
            word = word << 6 | value(*digit)?;
        }
        let [_, decoded @ ..] = (word << (6 * (4 - digits))).to_be_bytes();
        let (kept, stray) = decoded.split_at_checked(digits - 1)?;
        if stray.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

/// The one text for these bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = ALPHABET.get((word >> (18 - 6 * at)) as usize & 63).filter(|_| at <= group.len());
            text.push(digit.map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    #[test]
    fn only_the_one_form_is_read() {
        assert_eq!(decode(b"").as_deref(), Some(&b""[..]));
        for wrong in [
            "A", "AA", "AAA", "AA=", "A===", "====", "AB==", "AAB=", "AA==AAAA", "AA=A", "=AAA", "AA A", "AA-_",
            "AAAA\n", "é==",
        ] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn another_implementation_writes_and_reads_the_same(bytes in any::<Vec<u8>>(), text in "[A-Za-z0-9+/= ]{0,12}") {
            prop_assert_eq!(encode(&bytes), STANDARD.encode(&bytes));
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
            prop_assert_eq!(decode(text.as_bytes()), STANDARD.decode(text.as_bytes()).ok());
        }
    }
}
