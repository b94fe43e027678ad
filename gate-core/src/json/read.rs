//! From bytes to what stands where to a typed value.

use alloc::{
    borrow::{Cow, ToOwned},
    format,
    string::String,
    vec::Vec,
};
use core::{cell::Cell, fmt::Display, iter};

use super::Error;
use crate::limits;

/// A type that has one form in JSON.
///
/// serde's derived readers are five times as large, and the module must be small.
pub trait Read: Sized {
    /// Takes the value apart. A type that has a meaning for a member that an object does not have
    /// ([`Value::is_absent`]) gives it.
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
    let document = parse(bytes)?;
    T::read(Value { document: &document, at: Some(0) })
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

/// A value in a text that is JSON, or a member that an object does not have.
#[derive(Debug)]
pub struct Value<'a> {
    document: &'a Document<'a>,
    at: Option<usize>,
}

/// An object that is being taken apart.
#[derive(Debug)]
pub struct Object<'a> {
    members: Siblings<'a>,
    /// Those behind what was taken last: members mostly come in the order in which they are taken.
    rest: Siblings<'a>,
    /// What was taken last: the place of an error.
    taken: &'static str,
}

/// A whole text: every value before those that it holds, in their order; a member is its key and its value.
type Document<'a> = [Node<'a>];

#[derive(Debug)]
struct Node<'a> {
    kind: Kind<'a>,
    /// The node after this one and all that it holds.
    next: usize,
    /// Of a key: whether its member was taken.
    taken: Cell<bool>,
}

#[derive(Debug)]
enum Kind<'a> {
    Null,
    Bool(bool),
    /// A whole number that is not negative.
    Integer(u64),
    /// Any other number: read over.
    OtherNumber,
    /// A copy only where it has escapes.
    Text(Cow<'a, str>),
    List,
    Object,
}

impl<'a> Value<'a> {
    /// Whether it is a member that an object does not have.
    pub fn is_absent(&self) -> bool {
        self.at.is_none()
    }

    /// An object of which `read` takes every member.
    ///
    /// # Errors
    /// What it is instead, what `read` says, or the first member that it did not take.
    pub fn object<T>(self, read: impl FnOnce(&mut Object<'a>) -> Result<T, Error>) -> Result<T, Error> {
        let mut object = self.open()?;
        let mut whole = read(&mut object);
        // The value stays where it is, and what is the same for every type is not here: there are twenty of them.
        if let Some(error) = object.fault(whole.as_ref().err()) {
            whole = Err(error);
        }
        whole
    }

    /// An object of which `read` takes what it knows, and the key of the first member that is left. An error of `read` is
    /// placed in the member that it took last.
    ///
    /// # Errors
    /// What it is instead, or what `read` says.
    pub fn open_object<T>(
        self,
        read: impl FnOnce(&mut Object<'a>) -> Result<T, Error>,
    ) -> Result<(T, Option<&'a str>), Error> {
        let mut object = self.open()?;
        match read(&mut object) {
            Ok(whole) => Ok((whole, object.left())),
            Err(error) => Err(error.within(object.taken)),
        }
    }

    /// The members of an object, in their order; no two have the same key.
    ///
    /// # Errors
    /// What it is instead.
    pub fn members(&self) -> Result<impl Iterator<Item = (&'a str, Self)>, Error> {
        let mut siblings = self.children(true)?;
        Ok(iter::from_fn(move || Some((siblings.next()?.as_str()?, siblings.next()?))))
    }

    /// The items of a list.
    ///
    /// # Errors
    /// What it is instead.
    pub fn items(&self) -> Result<impl Iterator<Item = Self>, Error> {
        self.children(false)
    }

    /// The text of a string.
    ///
    /// # Errors
    /// What it is instead.
    pub fn text(&self) -> Result<&'a str, Error> {
        self.as_str().ok_or_else(|| self.instead_of("a string"))
    }

    /// A string, parsed.
    ///
    /// # Errors
    /// What it is instead, or what the parser says.
    pub fn parsed<T, E: Display>(self, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Error> {
        parse(self.text()?).map_err(|error| Error::new(format!("{error}")))
    }

    fn open(self) -> Result<Object<'a>, Error> {
        let members = self.children(true)?;
        Ok(Object { members, rest: members, taken: "" })
    }

    fn as_str(&self) -> Option<&'a str> {
        if let Some(Kind::Text(text)) = self.kind() { Some(text) } else { None }
    }

    fn children(&self, of_object: bool) -> Result<Siblings<'a>, Error> {
        match (of_object, self.node()) {
            (true, Some(Node { kind: Kind::Object, next, .. }))
            | (false, Some(Node { kind: Kind::List, next, .. })) => {
                Ok(Siblings { document: self.document, at: self.at.map_or(0, |at| at + 1), end: *next })
            }
            (true, _) => Err(self.instead_of("an object")),
            (false, _) => Err(self.instead_of("a list")),
        }
    }

    #[inline(always)]
    fn kind(&self) -> Option<&'a Kind<'a>> {
        self.node().map(|node| &node.kind)
    }

    #[inline(always)]
    fn node(&self) -> Option<&'a Node<'a>> {
        self.document.get(self.at?)
    }

    fn instead_of(&self, expected: &str) -> Error {
        let found = match self.kind() {
            None => return Error::new(format!("is missing, expected {expected}")),
            Some(Kind::Null) => "`null`",
            Some(Kind::Bool(_)) => "a truth value",
            Some(Kind::Integer(_) | Kind::OtherNumber) => "a number",
            Some(Kind::Text(_)) => "a string",
            Some(Kind::List) => "a list",
            Some(Kind::Object) => "an object",
        };
        Error::new(format!("found {found}, expected {expected}"))
    }
}

impl<'a> Object<'a> {
    /// Takes a member out.
    ///
    /// # Errors
    /// It is missing, or of another kind.
    pub fn take<T: Read>(&mut self, key: &'static str) -> Result<T, Error> {
        T::read(self.member(key))
    }

    fn member(&mut self, key: &'static str) -> Value<'a> {
        self.taken = key;
        for members in &[self.rest, self.members] {
            let mut members = *members;
            while let (Some(name), Some(value)) = (members.next(), members.next()) {
                if name.as_str() == Some(key) {
                    self.rest = members;
                    if let Some(node) = name.node() {
                        node.taken.set(true);
                    }
                    return value;
                }
            }
        }
        Value { document: self.members.document, at: None }
    }

    /// What is wrong with it, when its reader said `error`, or nothing.
    fn fault(&self, error: Option<&Error>) -> Option<Error> {
        match error {
            Some(error) => Some(error.within(self.taken)),
            None => self.left().map(|key| Error::new(format!("member `{}` is not known", crate::text::shown(key)))),
        }
    }

    /// The key of the first member that was not taken.
    fn left(&self) -> Option<&'a str> {
        let mut members = self.members;
        while let (Some(key), Some(_)) = (members.next(), members.next()) {
            if key.node().is_some_and(|node| !node.taken.get()) {
                return key.as_str();
            }
        }
        None
    }
}

/// Values side by side.
#[derive(Debug, Clone, Copy)]
struct Siblings<'a> {
    document: &'a Document<'a>,
    at: usize,
    end: usize,
}

impl<'a> Iterator for Siblings<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.at >= self.end {
            return None;
        }
        let value = Value { document: self.document, at: Some(self.at) };
        self.at = value.node()?.next;
        Some(value)
    }
}

impl Read for String {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        value.text().map(ToOwned::to_owned)
    }
}

impl Read for bool {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        let Some(&Kind::Bool(truth)) = value.kind() else {
            return Err(value.instead_of("a truth value"));
        };
        Ok(truth)
    }
}

impl Read for u64 {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        let Some(&Kind::Integer(number)) = value.kind() else {
            return Err(value.instead_of("a whole number below 2^64"));
        };
        Ok(number)
    }
}

impl<T: Read> Read for Option<T> {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        if matches!(value.kind(), None | Some(Kind::Null)) {
            return Ok(None);
        }
        T::read(value).map(Some)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: Value<'_>) -> Result<Self, Error> {
        let mut items = Self::new();
        for item in value.items()? {
            items.push(T::read(item)?);
        }
        Ok(items)
    }
}

/// What stands where in a text.
fn parse(bytes: &[u8]) -> Result<Vec<Node<'_>>, Error> {
    let text = core::str::from_utf8(bytes).map_err(|error| fault("not UTF-8", error.valid_up_to(), ""))?;
    // Room for a call, so that nothing is moved while they grow.
    let mut parser = Parser { text, at: 0, nodes: Vec::with_capacity(16), keys: Vec::with_capacity(8) };
    parser.value(limits::JSON_DEPTH)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(parser.nodes),
        Some(_) => Err(fault("more text", parser.at, ", after the value")),
    }
}

/// What is wrong at a byte.
fn fault(what: &str, at: usize, how: &str) -> Error {
    Error::new(format!("{what} at byte {at}{how}"))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// What was read: see [`Document`].
    nodes: Vec<Node<'a>>,
    /// The keys of each object around this place, as nodes: those of the innermost last, each object's in their order.
    keys: Vec<usize>,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<(), Error> {
        self.skip_space();
        match self.peek() {
            None => Err(fault("the text ends", self.at, ", where a value is wanted")),
            Some(b'"') => self.string(),
            Some(b'{') => self.container(Kind::Object, depth, Self::object),
            Some(b'[') => self.container(Kind::List, depth, Self::list),
            Some(_) => self.scalar(),
        }
    }

    fn container(
        &mut self,
        kind: Kind<'a>,
        depth: usize,
        read: fn(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Error::new(format!("nested deeper than {} levels at byte {}", limits::JSON_DEPTH, self.at)));
        };
        let node = self.nodes.len();
        self.push(kind);
        self.at += 1;
        self.skip_space();
        read(self, depth)?;
        let next = self.nodes.len();
        if let Some(container) = self.nodes.get_mut(node) {
            container.next = next;
        }
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), Error> {
        let first_key = self.keys.len();
        if self.takes(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(fault("no key", self.at, ""));
            }
            self.string()?;
            self.key(first_key)?;
            self.skip_space();
            if !self.takes(b':') {
                return Err(fault("no `:`", self.at, ""));
            }
            self.value(depth)?;
            self.skip_space();
            if self.takes(b'}') {
                self.keys.truncate(first_key);
                return Ok(());
            }
            if !self.takes(b',') {
                return Err(fault("no `,` or `}`", self.at, ""));
            }
        }
    }

    /// Puts the last node, a key, in its place among those of its object.
    fn key(&mut self, first_key: usize) -> Result<(), Error> {
        let text = |node: usize| Value { document: &self.nodes, at: Some(node) }.as_str().unwrap_or_default();
        let node = self.nodes.len() - 1;
        let others = self.keys.get(first_key..).unwrap_or_default();
        if others.len() == limits::JSON_MEMBERS {
            return Err(Error::new(format!("an object has more than {} members", limits::JSON_MEMBERS)));
        }
        let key = text(node);
        // By length first: that tells most of them apart.
        let order = |other: &str| other.len().cmp(&key.len()).then_with(|| other.cmp(key));
        match others.binary_search_by(|other| order(text(*other))) {
            Ok(_) => Err(Error::new(format!("key `{}` stands twice", crate::text::shown(key)))),
            Err(place) => {
                self.keys.insert(first_key + place, node);
                Ok(())
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), Error> {
        if self.takes(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.skip_space();
            if self.takes(b']') {
                return Ok(());
            }
            if !self.takes(b',') {
                return Err(fault("no `,` or `]`", self.at, ""));
            }
        }
    }

    fn string(&mut self) -> Result<(), Error> {
        let start = self.at;
        let mut kept = String::new();
        self.at += 1;
        loop {
            let from = self.at;
            self.at += super::plain(self.text.as_bytes().get(from..).unwrap_or_default());
            // Both ends are at ASCII characters.
            let plain = self.text.get(from..self.at).unwrap_or_default();
            match self.peek() {
                None => return Err(fault("the string", start, " has no end")),
                Some(b'"') if kept.is_empty() => {
                    self.push(Kind::Text(Cow::Borrowed(plain)));
                    break;
                }
                Some(b'"') => {
                    kept.push_str(plain);
                    self.push(Kind::Text(Cow::Owned(kept)));
                    break;
                }
                Some(b'\\') => {
                    kept.push_str(plain);
                    let at = self.at;
                    kept.push(self.escape().ok_or_else(|| fault("no escape", at, ""))?);
                }
                Some(_) => return Err(fault("a control character", self.at, ", in a string")),
            }
        }
        self.at += 1;
        Ok(())
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

    fn scalar(&mut self) -> Result<(), Error> {
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or_default();
        let words = [("null", Kind::Null), ("true", Kind::Bool(true)), ("false", Kind::Bool(false))];
        let kind = match words.into_iter().find(|(word, _)| rest.starts_with(word)) {
            Some((word, kind)) => {
                self.at += word.len();
                kind
            }
            None => self.number().ok_or_else(|| fault("no value", start, ""))?,
        };
        self.push(kind);
        Ok(())
    }

    fn number(&mut self) -> Option<Kind<'a>> {
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
        Some(value.filter(|_| whole).map_or(Kind::OtherNumber, Kind::Integer))
    }

    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    fn push(&mut self, kind: Kind<'a>) {
        let next = self.nodes.len() + 1;
        self.nodes.push(Node { kind, next, taken: Cell::new(false) });
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn takes(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
