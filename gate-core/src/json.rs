//! JSON (RFC 8259) in one strict form: every key stands once, nesting is bounded, an object is an object.
//!
//! Two readers that keep different twins of a key would decide differently, so twins are refused. It holds what the gate
//! reads and writes: text, whole numbers, truth values, lists, objects. Other numbers are read over and never taken for a
//! value.

mod read;
mod write;

use alloc::string::String;

pub use read::{Object, Read, Value, read};
pub use write::{put, put_optional, write, write_to};

use crate::text::{cut, display_text, fill, shown};

/// Why a text is not the JSON that is wanted. One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

display_text!(Error);

impl core::error::Error for Error {}

impl Error {
    /// What does not hold between members that are each as they should be.
    pub fn new(why: String) -> Self {
        Self(why)
    }

    /// What is wrong.
    pub fn text(&self) -> String {
        self.0.clone()
    }

    /// A word that is none of those expected.
    pub fn unknown_word(word: &str, expected: &str) -> Self {
        Self::new(fill("`{}` is not known: use {}", &[&shown(cut(word, 80)), expected]))
    }

    /// Says in which member it is.
    #[must_use]
    pub fn within(&self, key: &str) -> Self {
        Self::new(fill("`{}`: {}", &[&shown(cut(key, crate::limits::BUNDLE_PATH_BYTES)), &self.0]))
    }
}

/// How many bytes at the beginning stand for themselves in a string: no quote, no backslash, no control character.
///
/// Eight at a time: a decision reads and writes a thousand of them.
fn plain(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut plain = 0;
    for chunk in words {
        let word = u64::from_le_bytes(*chunk);
        let special = below(word, b' ') | is(word, b'"') | is(word, b'\\');
        if special != 0 {
            return plain + (special.trailing_zeros() / 8) as usize;
        }
        plain += 8;
    }
    for byte in rest {
        if *byte < b' ' || matches!(*byte, b'"' | b'\\') {
            break;
        }
        plain += 1;
    }
    plain
}

const ONES: u64 = u64::MAX / 255;

/// The high bit of each byte that is below `limit`; right up to the first such byte, which is all that counts.
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * limit as u64) & !word & (ONES << 7)
}

/// The high bit of each byte that is this one; right up to the first.
const fn is(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_object;
    use alloc::{format, string::ToString, vec, vec::Vec};
    use serde::Serialize;

    #[derive(Debug, PartialEq, Serialize)]
    struct Sample {
        text: String,
        number: u64,
        list: Vec<Option<String>>,
    }

    read_object!(Sample { text, number, list });

    /// Any JSON.
    struct Anything;

    impl Read for Anything {
        fn read(_: Value<'_>) -> Self {
            Self
        }
    }

    fn fault(text: &str) -> String {
        read::<Anything>(text.as_bytes()).err().unwrap().to_string()
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth() {
        assert_eq!(fault(r#"{"a":1,"a":1}"#), "key `a` stands twice");
        assert_eq!(fault(r#"[{"b":{"a":1,"\u0061":2}}]"#), "key `a` stands twice");
        let many: Vec<_> = (0..40).map(|n| format!("\"{n}\":0")).collect();
        assert!(read::<Anything>(format!("{{{}}}", many.join(",")).as_bytes()).is_ok());
        assert_eq!(fault(&format!("{{{},\"39\":0}}", many.join(","))), "key `39` stands twice");
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for (text, message) in [
            ("", "the text ends at byte 0, where a value is wanted"),
            ("{} {}", "more text at byte 3, after the value"),
            ("nul", "no value at byte 0"),
            ("[1,]", "no value at byte 3"),
            ("{\"a\" 1}", "no `:` at byte 5"),
            ("{1:2}", "no key at byte 1"),
            ("{\"a\":1,}", "no key at byte 7"),
            ("[1 2]", "no `,` or `]` at byte 3"),
            ("{\"a\":1;", "no `,` or `}` at byte 6"),
            ("01", "more text at byte 1, after the value"),
            ("-", "no value at byte 0"),
            ("1.", "no value at byte 0"),
            ("1e", "no value at byte 0"),
            ("\"a", "the string at byte 0 has no end"),
            ("\"\n\"", "a control character at byte 1, in a string"),
            ("\"\\x\"", "no escape at byte 1"),
            ("\"\\u12g4\"", "no escape at byte 1"),
            ("\"\\ud800\"", "no escape at byte 1"),
            ("\"\\ud800\\u0041\"", "no escape at byte 1"),
            ("\"\\udc00\"", "no escape at byte 1"),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
        assert_eq!(fault(&"[".repeat(33)), "nested deeper than 32 levels at byte 32");
        assert_eq!(read::<Anything>(b"\"\xff\"").err().unwrap().to_string(), "not UTF-8 at byte 1");
    }

    #[test]
    fn what_is_json_is_read() {
        assert!(read::<Anything>(br#" {"a":[null,true,-1,2,3.5e-7,"x",{"a":{}}],"b":[]} "#).is_ok());
        let text: String = read(r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#.as_bytes()).unwrap();
        assert_eq!(text, "a\"\\/\u{8}\u{c}\n\r\té😀é");
        assert_eq!(read::<u64>(b"18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn what_is_of_another_kind_is_refused() {
        let sample = r#"{"text":"a","number":1,"list":["true",null]}"#;
        let read = |from: &str, to: &str| read::<Sample>(sample.replace(from, to).as_bytes());
        assert_eq!(
            read("x", "x").unwrap(),
            Sample { text: "a".into(), number: 1, list: vec![Some("true".into()), None] }
        );
        for (from, to, message) in [
            ("1", "-1", "`number`: found a number, expected a whole number below 2^64"),
            ("1", "1.0", "`number`: found a number, expected a whole number below 2^64"),
            ("1", "18446744073709551616", "`number`: found a number, expected a whole number below 2^64"),
            ("1", "\"1\"", "`number`: found a string, expected a whole number below 2^64"),
            ("\"a\"", "1", "`text`: found a number, expected a string"),
            ("\"a\"", "null", "`text`: found `null`, expected a string"),
            ("\"true\"", "{}", "`list`: found an object, expected a string"),
            ("[\"true\",null]", "{}", "`list`: found an object, expected a list"),
            ("\"a\"", "true", "`text`: found a truth value, expected a string"),
            ("\"text\":\"a\",", "", "`text`: is missing, expected a string"),
            ("text", "texts", "`text`: is missing, expected a string"),
            ("{", "{\"x\":0,", "member `x` is not known"),
            (sample, "[\"a\",1,[]]", "found a list, expected an object"),
            (sample, "null", "found `null`, expected an object"),
        ] {
            assert_eq!(read(from, to).unwrap_err().to_string(), message, "{from} -> {to}");
        }
    }

    #[test]
    fn the_plain_beginning_ends_at_the_first_special_byte() {
        for length in 0..40 {
            let mut bytes = vec![0xff; length];
            assert_eq!(plain(&bytes), length);
            for at in (0..length).rev() {
                for byte in 0..=u8::MAX {
                    bytes[at] = byte;
                    let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    assert_eq!(plain(&bytes), if special { at } else { length }, "{byte} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_what_serde_json_writes() {
        let text: String = (0..0x250).filter_map(char::from_u32).chain(['\u{2028}', '😀']).collect();
        let sample = Sample { text, number: u64::MAX, list: vec![None, Some("\u{7f}".into())] };
        assert_eq!(write(&sample), serde_json::to_string(&sample).unwrap());
        assert_eq!(read::<Sample>(write(&sample).as_bytes()).unwrap(), sample);
    }
}
