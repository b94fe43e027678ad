//! From bytes to a tree to a typed value.

use alloc::{borrow::Cow, format, string::String, vec::Vec};
use core::fmt::Display;

use super::Error;
use crate::limits;

/// Up to how many keys are compared with each other: for the few that a document has, faster than keeping an order.
const FEW_KEYS: usize = 16;

/// A type that has one form in JSON.
///
/// serde's derived readers are five times as large, and the module must be small.
pub trait Read: Sized {
    /// Takes the value apart. [`Value::Absent`] is a member that an object does not have: a type that has a meaning for that
    /// gives it.
    ///
    /// # Errors
    /// What of it is of another kind.
    fn read(value: Value<'_>) -> Result<Self, Error>;
}

/// Reads `bytes` as a `T`.
///
/// # Errors
/// What is not JSON, or not a `T`.
pub fn read<T: Read>(bytes: &[u8]) -> Result<T, Error> {
    T::read(Value::parse(bytes)?)
}

/// Reads an object with exactly the named members into a struct with fields of these names.
#[macro_export]
macro_rules! read_object {
    ($type:ident { $($field:ident $(= $key:literal)?),+ $(,)? }) => {
        impl $crate::json::Read for $type {
            fn read(value: $crate::json::Value<'_>) -> ::core::result::Result<Self, $crate::json::Error> {
                value.object(|object| Ok(Self { $($field: object.take($crate::read_object!(@key $field $($key)?))?),+ }))
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}

/// Any JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing: a member that an object does not have. No text reads as this.
    Absent,
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number that is not negative.
    Integer(u64),
    /// Any other number: read over.
    OtherNumber,
    /// A string.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Value<'a>>),
    /// An object: its members in their order; no two have the same key.
    Object(Vec<Member<'a>>),
}

/// A member of an object: its key and its value.
pub type Member<'a> = (Cow<'a, str>, Value<'a>);

/// An object that is being taken apart.
#[derive(Debug)]
pub struct Object<'a> {
    /// What was not taken yet, in its order.
    members: Vec<Member<'a>>,
    /// What was taken last: the place of an error.
    taken: &'static str,
}

impl<'a> Value<'a> {
    /// Reads a whole text.
    ///
    /// # Errors
    /// The first fault, with its place in bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let text =
            core::str::from_utf8(bytes).map_err(|error| Error(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(limits::JSON_DEPTH)?;
        parser.skip_space();
        match parser.peek() {
            None => Ok(value),
            Some(_) => Err(Error(format!("more text at byte {}, after the value", parser.at))),
        }
    }

    /// The members of an object.
    ///
    /// # Errors
    /// What it is instead.
    pub fn into_members(self) -> Result<Vec<Member<'a>>, Error> {
        let Self::Object(members) = self else {
            return Err(self.instead_of("an object"));
        };
        Ok(members)
    }

    /// An object of which `read` takes every member.
    ///
    /// # Errors
    /// What it is instead, what `read` says, or the first member that it did not take.
    pub fn object<T>(self, read: impl FnOnce(&mut Object<'a>) -> Result<T, Error>) -> Result<T, Error> {
        let (whole, rest) = self.open_object(read)?;
        match rest.first() {
            None => Ok(whole),
            Some((key, _)) => Err(Error(format!("member `{}` is not known", crate::text::shown(key)))),
        }
    }

    /// An object of which `read` takes what it knows, and the members that are left. An error of `read` is placed in the
    /// member that it took last.
    ///
    /// # Errors
    /// What it is instead, or what `read` says.
    pub fn open_object<T>(
        self,
        read: impl FnOnce(&mut Object<'a>) -> Result<T, Error>,
    ) -> Result<(T, Vec<Member<'a>>), Error> {
        let mut object = Object { members: self.into_members()?, taken: "" };
        match read(&mut object) {
            Ok(whole) => Ok((whole, object.members)),
            Err(error) => Err(error.within(object.taken)),
        }
    }

    /// The items of a list.
    ///
    /// # Errors
    /// What it is instead.
    pub fn into_list(self) -> Result<Vec<Value<'a>>, Error> {
        let Self::List(items) = self else {
            return Err(self.instead_of("a list"));
        };
        Ok(items)
    }

    /// The text of a string.
    ///
    /// # Errors
    /// What it is instead.
    pub fn into_text(self) -> Result<Cow<'a, str>, Error> {
        let Self::Text(text) = self else {
            return Err(self.instead_of("a string"));
        };
        Ok(text)
    }

    /// A string, parsed.
    ///
    /// # Errors
    /// What it is instead, or what the parser says.
    pub fn parsed<T, E: Display>(self, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Error> {
        parse(&self.into_text()?).map_err(|error| Error(format!("{error}")))
    }

    fn instead_of(&self, expected: &str) -> Error {
        let found = match self {
            Self::Absent => return Error(format!("is missing, expected {expected}")),
            Self::Null => "`null`",
            Self::Bool(_) => "a truth value",
            Self::Integer(_) | Self::OtherNumber => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        };
        Error(format!("found {found}, expected {expected}"))
    }
}

impl<'a> Object<'a> {
    /// Takes a member out.
    ///
    /// # Errors
    /// It is missing, or of another kind.
    pub fn take<T: Read>(&mut self, key: &'static str) -> Result<T, Error> {
        T::read(self.take_value(key))
    }

    fn take_value(&mut self, key: &'static str) -> Value<'a> {
        self.taken = key;
        match self.members.iter().position(|member| member.0 == key) {
            Some(at) => self.members.remove(at).1,
            None => Value::Absent,
        }
    }
}

impl Read for String {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        Ok(value.into_text()?.into_owned())
    }
}

impl Read for bool {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        let Value::Bool(truth) = value else {
            return Err(value.instead_of("a truth value"));
        };
        Ok(truth)
    }
}

impl Read for u64 {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        let Value::Integer(number) = value else {
            return Err(value.instead_of("a whole number below 2^64"));
        };
        Ok(number)
    }
}

impl<T: Read> Read for Option<T> {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        if matches!(value, Value::Absent | Value::Null) {
            return Ok(None);
        }
        T::read(value).map(Some)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        let mut items = Self::new();
        for item in value.into_list()? {
            items.push(T::read(item)?);
        }
        Ok(items)
    }
}

/// Puts a key in its place; false when it is there already.
fn insert<'a>(sorted: &mut Vec<Cow<'a, str>>, key: Cow<'a, str>) -> bool {
    match sorted.binary_search(&key) {
        Ok(_) => false,
        Err(at) => {
            sorted.insert(at, key);
            true
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        self.skip_space();
        match self.peek() {
            None => Err(Error(format!("the text ends at byte {}, where a value is wanted", self.at))),
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'{') => Ok(Value::Object(self.object(self.deeper(depth)?)?)),
            Some(b'[') => Ok(Value::List(self.list(self.deeper(depth)?)?)),
            Some(_) => self.scalar(),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, Error> {
        depth
            .checked_sub(1)
            .ok_or_else(|| Error(format!("nested deeper than {} levels at byte {}", limits::JSON_DEPTH, self.at)))
    }

    fn object(&mut self, depth: usize) -> Result<Vec<Member<'a>>, Error> {
        self.at += 1;
        let mut members: Vec<Member<'a>> = Vec::new();
        // The keys in order, once there are more than a few.
        let mut sorted: Vec<Cow<'a, str>> = Vec::new();
        self.skip_space();
        if self.takes(b'}') {
            return Ok(members);
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(Error(format!("no key at byte {}", self.at)));
            }
            let key = self.string()?;
            if members.len() == limits::JSON_MEMBERS {
                return Err(Error(format!("an object has more than {} members", limits::JSON_MEMBERS)));
            }
            let twice = if members.len() < FEW_KEYS {
                members.iter().any(|member| member.0 == key)
            } else {
                if sorted.is_empty() {
                    members.iter().for_each(|member| {
                        insert(&mut sorted, member.0.clone());
                    });
                }
                !insert(&mut sorted, key.clone())
            };
            if twice {
                return Err(Error(format!("key `{}` stands twice", crate::text::shown(&key))));
            }
            self.skip_space();
            if !self.takes(b':') {
                return Err(Error(format!("no `:` at byte {}", self.at)));
            }
            let value = self.value(depth)?;
            members.push((key, value));
            self.skip_space();
            if self.takes(b'}') {
                return Ok(members);
            }
            if !self.takes(b',') {
                return Err(Error(format!("no `,` or `}}` at byte {}", self.at)));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value<'a>>, Error> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.takes(b']') {
            return Ok(items);
        }
        loop {
            items.push(self.value(depth)?);
            self.skip_space();
            if self.takes(b']') {
                return Ok(items);
            }
            if !self.takes(b',') {
                return Err(Error(format!("no `,` or `]` at byte {}", self.at)));
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        let start = self.at;
        self.at += 1;
        let mut kept = String::new();
        loop {
            let from = self.at;
            self.at += super::plain(self.text.as_bytes().get(from..).unwrap_or_default());
            // Both ends are at ASCII characters.
            let plain = self.text.get(from..self.at).unwrap_or_default();
            match self.peek() {
                None => return Err(Error(format!("the string at byte {start} has no end"))),
                Some(b'"') => {
                    self.at += 1;
                    if kept.is_empty() {
                        return Ok(Cow::Borrowed(plain));
                    }
                    kept.push_str(plain);
                    return Ok(Cow::Owned(kept));
                }
                Some(b'\\') => {
                    kept.push_str(plain);
                    let at = self.at;
                    kept.push(self.escape().ok_or_else(|| Error(format!("no escape at byte {at}")))?);
                }
                Some(_) => return Err(Error(format!("a control character at byte {}, in a string", self.at))),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        self.at += 1;
        let letter = self.peek()?;
        self.at += 1;
        Some(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => match self.code_unit()? {
                // The first half of a character beyond U+FFFF: the second must follow.
                high @ 0xd800..=0xdbff => {
                    if !self.takes(b'\\') || !self.takes(b'u') {
                        return None;
                    }
                    let low = self.code_unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low)?
                }
                unit => char::from_u32(unit)?,
            },
            _ => return None,
        })
    }

    fn code_unit(&mut self) -> Option<u32> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit << 4 | char::from(self.peek()?).to_digit(16)?;
            self.at += 1;
        }
        Some(unit)
    }

    fn scalar(&mut self) -> Result<Value<'a>, Error> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        for (word, value) in [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        let start = self.at;
        self.number().ok_or_else(|| Error(format!("no value at byte {start}")))
    }

    fn number(&mut self) -> Option<Value<'a>> {
        let negative = self.takes(b'-');
        let mut value = Some(0_u64);
        if !self.takes(b'0') {
            let from = self.at;
            while let Some(digit @ b'0'..=b'9') = self.peek() {
                self.at += 1;
                value = value.and_then(|value| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
            }
            (self.at > from).then_some(())?;
        }
        let mut whole = !negative;
        if self.takes(b'.') {
            whole = false;
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            whole = false;
            let _sign = self.takes(b'+') || self.takes(b'-');
            self.digits()?;
        }
        Some(value.filter(|_| whole).map_or(Value::OtherNumber, Value::Integer))
    }

    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
