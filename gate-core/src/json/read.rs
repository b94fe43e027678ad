//! From bytes to what stands where to a typed value.

use alloc::{
    borrow::{Cow, ToOwned},
    string::String,
    vec::Vec,
};
use core::{cell::Cell, fmt};

use super::Error;
use crate::{
    limits,
    text::{decimal, fill, shown},
};

/// A type that has one form in JSON.
///
/// serde's derived readers are five times as large, and the module must be small.
pub trait Read: Sized {
    /// Takes the value apart. A type that has a meaning for a member that an object does not have
    /// ([`Value::is_absent`]) gives it.
    ///
    /// What is of another kind is said by [`Value::fail`]. Then anything may be given: nobody sees it.
    fn read(value: Value<'_>) -> Self;
}

/// Reads `bytes` as a `T`.
///
/// # Errors
/// What is not JSON, or not a `T`.
pub fn read<T: Read>(bytes: &[u8]) -> Result<T, Error> {
    let document = Document::new(parse(bytes)?);
    let whole = T::read(Value { document: &document, node: document.nodes.first(), at: 0 });
    match document.error.take() {
        None => Ok(whole),
        Some(error) => Err(error),
    }
}

/// Reads an object with exactly the named members into a struct with fields of these names.
#[macro_export]
macro_rules! read_object {
    ($type:ident { $($field:ident $(= $key:literal)?),+ $(,)? }) => {
        impl $crate::json::Read for $type {
            fn read(value: $crate::json::Value<'_>) -> Self {
                value.object(|object| Self { $($field: object.take($crate::read_object!(@key $field $($key)?))),+ })
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
    node: Option<&'a Node<'a>>,
    /// Its place in the document: what it holds comes next.
    at: usize,
}

/// An object that is being taken apart.
#[derive(Debug)]
pub struct Object<'a> {
    members: Siblings<'a>,
    /// Those behind what was taken last: members mostly come in the order in which they are taken.
    rest: Siblings<'a>,
    /// What was taken last before anything was wrong: the place of an error.
    taken: &'static str,
    /// Whether something was wrong before it was opened.
    failed: bool,
}

/// A whole text, and the first thing that is wrong with it.
struct Document<'a> {
    /// Every value before those that it holds, in their order; a member is its key and its value.
    nodes: Vec<Node<'a>>,
    failed: Cell<bool>,
    error: Cell<Option<Error>>,
}

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

impl Node<'_> {
    fn text(&self) -> Option<&str> {
        if let Kind::Text(text) = &self.kind { Some(text) } else { None }
    }
}

impl<'a> Document<'a> {
    fn new(nodes: Vec<Node<'a>>) -> Self {
        Self { nodes, failed: Cell::new(false), error: Cell::new(None) }
    }

    /// Says what is wrong, unless something was before.
    fn fail(&self, error: Error) {
        if !self.failed.replace(true) {
            self.error.set(Some(error));
        }
    }

    /// Says in which member it is that something is wrong, where that came up in it.
    fn place(&self, failed_before: bool, key: &str) {
        if self.failed.get() && !failed_before {
            self.error.set(self.error.take().map(|error| error.within(key)));
        }
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nodes.fmt(f)
    }
}

impl<'a> Value<'a> {
    /// Whether it is a member that an object does not have.
    pub fn is_absent(&self) -> bool {
        self.node.is_none()
    }

    /// Says why it is not what is wanted: the whole text is refused for the first such reason.
    pub fn fail(&self, error: impl Into<Error>) {
        // Only the first is made.
        if !self.document.failed.get() {
            self.document.fail(error.into());
        }
    }

    /// Says that it is of another kind.
    fn fail_expecting(&self, expected: &str) {
        if !self.document.failed.get() {
            self.document.fail(self.instead_of(expected));
        }
    }

    /// An object of which `read` takes every member: one that it does not take is not known.
    pub fn object<T>(&self, read: impl FnOnce(&mut Object<'a>) -> T) -> T {
        let (whole, left) = self.open_object(read);
        if let Some(key) = left {
            self.fail(Error::new(fill("member `{}` is not known", &[&shown(key)])));
        }
        whole
    }

    /// An object of which `read` takes what it knows, and the key of the first member that is left.
    pub fn open_object<T>(&self, read: impl FnOnce(&mut Object<'a>) -> T) -> (T, Option<&'a str>) {
        let mut object = self.open();
        let whole = read(&mut object);
        (whole, object.close())
    }

    /// The members of an object, each read as a `T`, in their order; no two have the same key.
    pub fn members<T: Read>(&self, mut each: impl FnMut(&'a str, T)) {
        let mut members = self.children(true);
        while let Some((name, value)) = members.next_member() {
            let (key, failed) = (name.text().unwrap_or_default(), self.document.failed.get());
            let value = T::read(value);
            self.document.place(failed, key);
            each(key, value);
        }
    }

    /// The items of a list.
    pub fn items(&self) -> impl Iterator<Item = Self> {
        self.children(false)
    }

    /// The text of a string.
    pub fn text(&self) -> &'a str {
        self.as_str().unwrap_or_else(|| {
            self.fail_expecting("a string");
            ""
        })
    }

    /// A string, parsed.
    pub fn parsed<T, E: Into<Error>>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        parse(self.text()).map_err(|error| self.fail(error)).ok()
    }

    fn open(&self) -> Object<'a> {
        let members = self.children(true);
        Object { members, rest: members, taken: "", failed: self.document.failed.get() }
    }

    fn as_str(&self) -> Option<&'a str> {
        self.node?.text()
    }

    fn children(&self, of_object: bool) -> Siblings<'a> {
        let mut siblings = Siblings { document: self.document, at: 0, end: 0 };
        match (of_object, self.node) {
            (true, Some(Node { kind: Kind::Object, next, .. }))
            | (false, Some(Node { kind: Kind::List, next, .. })) => {
                siblings.at = self.at + 1;
                siblings.end = *next;
            }
            (true, _) => self.fail_expecting("an object"),
            (false, _) => self.fail_expecting("a list"),
        }
        siblings
    }

    fn kind(&self) -> Option<&'a Kind<'a>> {
        self.node.map(|node| &node.kind)
    }

    fn instead_of(&self, expected: &str) -> Error {
        let found = match self.kind() {
            None => return Error::new(fill("is missing, expected {}", &[expected])),
            Some(Kind::Null) => "`null`",
            Some(Kind::Bool(_)) => "a truth value",
            Some(Kind::Integer(_) | Kind::OtherNumber) => "a number",
            Some(Kind::Text(_)) => "a string",
            Some(Kind::List) => "a list",
            Some(Kind::Object) => "an object",
        };
        Error::new(fill("found {}, expected {}", &[found, expected]))
    }
}

impl<'a> Object<'a> {
    /// Takes a member out.
    pub fn take<T: Read>(&mut self, key: &'static str) -> T {
        T::read(self.member(key))
    }

    /// Says what is wrong with the member that was taken last.
    pub fn fail(&self, error: impl Into<Error>) {
        self.members.document.fail(error.into());
    }

    fn member(&mut self, key: &'static str) -> Value<'a> {
        let document = self.members.document;
        if !document.failed.get() {
            self.taken = key;
        }
        for mut members in [self.rest, self.members] {
            while let Some((name, value)) = members.next_member() {
                if name.text() == Some(key) {
                    self.rest = members;
                    name.taken.set(true);
                    return value;
                }
            }
        }
        Value { document, node: None, at: 0 }
    }

    /// Places an error that came up in it, and gives the key of the first member that was not taken.
    fn close(&self) -> Option<&'a str> {
        let mut members = self.members;
        members.document.place(self.failed, self.taken);
        while let Some((name, _)) = members.next_member() {
            if !name.taken.get() {
                return name.text();
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

impl<'a> Siblings<'a> {
    /// A key and its value.
    fn next_member(&mut self) -> Option<(&'a Node<'a>, Value<'a>)> {
        let name = self.next()?.node?;
        Some((name, self.next()?))
    }
}

impl<'a> Iterator for Siblings<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.at >= self.end {
            return None;
        }
        let node = self.document.nodes.get(self.at)?;
        let value = Value { document: self.document, node: Some(node), at: self.at };
        self.at = node.next;
        Some(value)
    }
}

impl Read for String {
    fn read(value: Value<'_>) -> Self {
        value.text().to_owned()
    }
}

impl Read for bool {
    fn read(value: Value<'_>) -> Self {
        let Some(&Kind::Bool(truth)) = value.kind() else {
            value.fail_expecting("a truth value");
            return false;
        };
        truth
    }
}

impl Read for u64 {
    fn read(value: Value<'_>) -> Self {
        let Some(&Kind::Integer(number)) = value.kind() else {
            value.fail_expecting("a whole number below 2^64");
            return 0;
        };
        number
    }
}

impl<T: Read> Read for Option<T> {
    fn read(value: Value<'_>) -> Self {
        if matches!(value.kind(), None | Some(Kind::Null)) { None } else { Some(T::read(value)) }
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: Value<'_>) -> Self {
        let mut all = Self::new();
        for item in value.items() {
            all.push(T::read(item));
        }
        all
    }
}

/// What stands where in a text.
fn parse(bytes: &[u8]) -> Result<Vec<Node<'_>>, Error> {
    let text = core::str::from_utf8(bytes).map_err(|error| fault("not UTF-8", error.valid_up_to(), ""))?;
    let mut parser = Parser::new(text);
    // Room for a call, so that nothing is moved while they grow.
    parser.nodes.reserve(16);
    parser.value(limits::JSON_DEPTH)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(parser.nodes),
        Some(_) => Err(fault("more text", parser.at, ", after the value")),
    }
}

/// What is wrong at a byte.
fn fault(what: &str, at: usize, how: &str) -> Error {
    Error::new(fill("{} at byte {}{}", &[what, &decimal(at as u64), how]))
}

#[derive(Debug)]
struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// What was read: see [`Document::nodes`].
    nodes: Vec<Node<'a>>,
    /// The keys of each object around this place, as nodes: those of the innermost last, each object's in their order.
    keys: Vec<usize>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, nodes: Vec::new(), keys: Vec::new() }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

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
            return Err(fault(
                &fill("nested deeper than {} levels", &[&decimal(limits::JSON_DEPTH as u64)]),
                self.at,
                "",
            ));
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
        let text = |node: usize| self.nodes.get(node).and_then(Node::text).unwrap_or_default();
        let node = self.nodes.len() - 1;
        let others = self.keys.get(first_key..).unwrap_or_default();
        if others.len() == limits::JSON_MEMBERS {
            return Err(Error::new(fill(
                "an object has more than {} members",
                &[&decimal(limits::JSON_MEMBERS as u64)],
            )));
        }
        let key = text(node);
        // By length first: that tells most of them apart.
        let order = |other: &str| other.len().cmp(&key.len()).then_with(|| other.cmp(key));
        match others.binary_search_by(|other| order(text(*other))) {
            Ok(_) => Err(Error::new(fill("key `{}` stands twice", &[&shown(key)]))),
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
            self.at += super::plain(self.rest());
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
        let rest = self.rest();
        // Not as `Kind`s: what may own a text has to be dropped, and that is code.
        let words = [("null", None), ("true", Some(true)), ("false", Some(false))];
        let kind = match words.iter().find(|(word, _)| rest.starts_with(word.as_bytes())) {
            Some((word, truth)) => {
                self.at += word.len();
                truth.map_or(Kind::Null, Kind::Bool)
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

    fn takes(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
