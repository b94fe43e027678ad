//! The names that decide: parsed once at the door, compared byte for byte, never normalised.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

use crate::{
    json, limits,
    text::{cut, decimal, display_text, fill, hexadecimal, shown, shown_char},
};

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseNameError {
    kind: &'static str,
    value: String,
    rule: &'static str,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Empty,
    TooLong { bytes: usize },
    OuterSpace,
    LookAlikeDash(char),
    Forbidden(char),
    First(char),
}

impl ParseNameError {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        let Self { kind, value, rule, fault } = self;
        let value = &shown(value);
        match fault {
            Fault::Empty => fill("{} is empty: {}", &[kind, rule]),
            Fault::TooLong { bytes } => fill("{} has {} bytes: {}", &[kind, &decimal(*bytes as u64), rule]),
            Fault::OuterSpace => fill("{} `{}` starts or ends with a space: remove it", &[kind, value]),
            Fault::LookAlikeDash(c) => {
                let (number, looks) = (hexadecimal(*c, 4), "), which only looks like `-`: type a plain `-`");
                fill("{} `{}` holds `{}` (U+{}{}", &[kind, value, &shown_char(*c), &number.to_ascii_uppercase(), looks])
            }
            Fault::Forbidden(c) => fill("{} `{}` holds `{}`: {}", &[kind, value, &shown_char(*c), rule]),
            Fault::First(c) => fill("{} `{}` starts with `{}`: {}", &[kind, value, &shown_char(*c), rule]),
        }
    }
}

display_text!(ParseNameError);

impl From<ParseNameError> for json::Error {
    fn from(error: ParseNameError) -> Self {
        Self::new(error.text())
    }
}

impl core::error::Error for ParseNameError {}

/// The characters that people paste for `-`: hyphens, dashes and the minus sign.
fn is_look_alike_dash(c: char) -> bool {
    matches!(c, '\u{00AD}' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' | '\u{FF0D}')
}

/// What a kind of name allows.
struct Rule {
    kind: &'static str,
    text: &'static str,
    max_bytes: usize,
    /// What it may not start with.
    not_first: Option<char>,
    /// Whether all of a text may stand in it.
    allows: fn(&[u8]) -> bool,
}

impl Rule {
    fn read(&self, value: json::Value<'_>) -> String {
        value.parsed(|text| self.parse(text)).unwrap_or_default()
    }

    fn parse(&self, value: &str) -> Result<String, ParseNameError> {
        match self.fault(value) {
            None => Ok(value.to_owned()),
            Some(fault) => {
                let kept = cut(value, limits::ENROLLMENT_REF_BYTES);
                Err(ParseNameError { kind: self.kind, value: kept.to_owned(), rule: self.text, fault })
            }
        }
    }

    fn fault(&self, value: &str) -> Option<Fault> {
        // All that a name allows is ASCII, so a good one is told by its bytes.
        let fits = (1..=self.max_bytes).contains(&value.len()) && (self.allows)(value.as_bytes());
        if fits && !self.not_first.is_some_and(|first| value.starts_with(first)) {
            return None;
        }
        if value.is_empty() {
            return Some(Fault::Empty);
        }
        if value.len() > self.max_bytes {
            return Some(Fault::TooLong { bytes: value.len() });
        }
        if let Some(c) = value.chars().find(|c| !(self.allows)(c.encode_utf8(&mut [0; 4]).as_bytes())) {
            return Some(match c {
                c if c.is_whitespace() && (value.starts_with(c) || value.ends_with(c)) => Fault::OuterSpace,
                c if is_look_alike_dash(c) => Fault::LookAlikeDash(c),
                c => Fault::Forbidden(c),
            });
        }
        self.not_first.filter(|first| value.starts_with(*first)).map(Fault::First)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The only way to have one.
            ///
            /// # Errors
            /// The first rule that `value` breaks, with the value and the remedy.
            pub fn parse(value: &str) -> Result<Self, ParseNameError> {
                $rule.parse(value).map(Self)
            }

            /// Whether [`Self::parse`] takes it.
            pub fn is_one(value: &str) -> bool {
                $rule.fault(value).is_none()
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;
            fn from_str(value: &str) -> Result<Self, ParseNameError> {
                Self::parse(value)
            }
        }

        impl json::Read for $name {
            fn read(value: json::Value<'_>) -> Self {
                Self($rule.read(value))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseNameError;
            fn try_from(value: String) -> Result<Self, ParseNameError> {
                Self::parse(&value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

name! {
    /// Which node this is: `[A-Za-z0-9._-]{1,128}`, not starting with a dot.
    NodeId,
    Rule {
        kind: "node id",
        text: "use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`",
        max_bytes: limits::NODE_ID_BYTES,
        not_first: Some('.'),
        allows: |text| text.iter().all(|byte| is_word(*byte)),
    }
}

name! {
    /// The join key: the same bytes at enrollment and in the bundle. 1 to 256 bytes of `[!-~]`.
    EnrollmentRef,
    Rule {
        kind: "enrollment ref",
        text: "use 1 to 256 printable ASCII characters without spaces",
        max_bytes: limits::ENROLLMENT_REF_BYTES,
        not_first: None,
        allows: |text| text.iter().all(u8::is_ascii_graphic),
    }
}

name! {
    /// Which tool a call asks for: `[A-Za-z0-9._:/-]{1,128}`, not starting with a dash.
    ToolName,
    Rule {
        kind: "tool",
        text: "use 1 to 128 of `A-Z a-z 0-9 . _ : / -`, not starting with `-`",
        max_bytes: limits::TOOL_NAME_BYTES,
        not_first: Some('-'),
        allows: |text| text.iter().all(|byte| is_word(*byte) || matches!(byte, b':' | b'/')),
    }
}

name! {
    /// Joins the frames of one call: `[A-Za-z0-9-]{1,64}`. The host makes it (a UUID, version 7).
    AuditId,
    Rule {
        kind: "audit id",
        text: "use 1 to 64 of `A-Z a-z 0-9 -`, not starting with `-`",
        max_bytes: limits::AUDIT_ID_BYTES,
        not_first: Some('-'),
        allows: |text| text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-'),
    }
}

name! {
    /// Which policies answered: `<bundle name>@<version>`, or what the host runs instead. 1 to 256 bytes of `[!-~]`.
    PolicyRef,
    Rule {
        kind: "policy ref",
        text: "use 1 to 256 printable ASCII characters without spaces",
        max_bytes: limits::POLICY_REF_BYTES,
        not_first: Some('-'),
        allows: |text| text.iter().all(u8::is_ascii_graphic),
    }
}

impl AuditId {
    /// The text form of a UUID (RFC 9562, section 4).
    pub fn from_uuid(bytes: [u8; 16]) -> Self {
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.into_iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.extend(crate::digest::hex(byte).map(char::from));
        }
        Self(text)
    }
}

/// A ref up to the slashes at its end.
fn without_slashes(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = text {
        text = rest;
    }
    text
}

impl EnrollmentRef {
    /// Names the mistake people really make when two refs that should be equal are not.
    pub(crate) fn likely_mistake(&self, other: &Self) -> Option<&'static str> {
        let (a, b) = (self.as_str(), other.as_str());
        if a == b {
            return None;
        }
        if a.eq_ignore_ascii_case(b) {
            return Some("they differ only in upper and lower case");
        }
        // Not `str::replace`, nor by iterators: the module would be larger.
        let dashes = |text: &str| {
            let mut text = Vec::from(text);
            for byte in &mut text {
                if *byte == b'_' {
                    *byte = b'-';
                }
            }
            text
        };
        if dashes(a) == dashes(b) {
            return Some("they differ only in `-` and `_`");
        }
        if without_slashes(a.as_bytes()) == without_slashes(b.as_bytes()) {
            return Some("they differ only in a trailing `/`");
        }
        if a.starts_with(b) || b.starts_with(a) {
            return Some("one is the beginning of the other");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_name_is_kept_byte_for_byte() {
        for text in ["a", "robot-7", "A.b_c-9", "_x", "-x", &"n".repeat(128)] {
            assert_eq!(NodeId::parse(text).unwrap().as_str(), text);
        }
        for text in ["!", "~", "-x", "spiffe://fleet/a?b#c", &"r".repeat(256)] {
            assert_eq!(EnrollmentRef::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn each_broken_rule_has_its_own_message() {
        let cases = [
            ("", "node id is empty: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`"),
            (".a", "node id `.a` starts with `.`: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`"),
            ("a ", "node id `a ` starts or ends with a space: remove it"),
            ("a b", "node id `a b` holds ` `: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`"),
            ("a\u{2013}b", "node id `a–b` holds `–` (U+2013), which only looks like `-`: type a plain `-`"),
            ("\n\u{1b}[2J", "node id `\\n\\u{1b}[2J` starts or ends with a space: remove it"),
            (
                "a\u{2010}\u{7}",
                "node id `a\u{2010}\\u{7}` holds `\u{2010}` (U+2010), which only looks like `-`: type a plain `-`",
            ),
            ("a\\b", "node id `a\\\\b` holds `\\\\`: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`"),
            ("a\nb", "node id `a\\nb` holds `\\n`: use 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.`"),
        ];
        for (text, message) in cases {
            assert_eq!(NodeId::parse(text).unwrap_err().to_string(), message);
        }
        let long = NodeId::parse(&"n".repeat(129)).unwrap_err().to_string();
        assert!(long.starts_with("node id has 129 bytes"), "{long}");
        assert!(EnrollmentRef::parse(&"r".repeat(257)).is_err());
        assert!(EnrollmentRef::parse("é").is_err());
    }

    #[test]
    fn an_audit_id_is_made_from_a_uuid() {
        let bytes = core::array::from_fn(|at| u8::try_from(at).unwrap() * 17);
        let id = AuditId::from_uuid(bytes);
        assert_eq!(id.as_str(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(AuditId::parse(id.as_str()).unwrap(), id);
    }

    #[test]
    fn a_mismatch_names_the_usual_mistake() {
        let hint = |a, b| EnrollmentRef::parse(a).unwrap().likely_mistake(&EnrollmentRef::parse(b).unwrap());
        assert_eq!(hint("Fleet-a", "fleet-a"), Some("they differ only in upper and lower case"));
        assert_eq!(hint("fleet_a", "fleet-a"), Some("they differ only in `-` and `_`"));
        assert_eq!(hint("fleet/a/", "fleet/a"), Some("they differ only in a trailing `/`"));
        assert_eq!(hint("fleet-a", "fleet-a2"), Some("one is the beginning of the other"));
        assert_eq!(hint("fleet-a", "rollout-b"), None);
        assert_eq!(hint("fleet-a", "fleet-a"), None, "equal refs are no mistake");
    }
}
