//! From a typed value to compact bytes: no white space, members in the order of the type.

use alloc::{string::String, vec::Vec};
use core::fmt;
use serde::{
    Serialize, Serializer,
    ser::{Impossible, SerializeMap, SerializeSeq, SerializeStruct},
};

/// `value` as compact JSON.
///
/// Values hold text, whole numbers, truth values, lists, objects and words; anything else comes out empty.
pub fn write(value: &(impl Serialize + ?Sized)) -> String {
    // Room for a decision's attributes, so that they are not moved while they grow.
    let mut out = Vec::with_capacity(512);
    write_to(&mut out, value);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends what [`write()`] gives.
pub fn write_to(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let from = out.len();
    if value.serialize(Writer(out)).is_err() {
        out.truncate(from);
    }
}

/// Appends texts as they are: names and words that need no escaping, with what stands between them.
pub fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends `start`, then a text that needs no escaping, or `null`.
pub fn put_optional(out: &mut Vec<u8>, start: &str, text: Option<&str>) {
    match text {
        Some(text) => put(out, &[start, "\"", text, "\""]),
        None => put(out, &[start, "null"]),
    }
}

/// Appends `text` with its quotes, escaped where JSON asks for it and nowhere else.
fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at_checked(super::plain(rest)).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else {
            break;
        };
        out.push(b'\\');
        match byte {
            b'"' | b'\\' => out.push(*byte),
            0x8 => out.push(b'b'),
            0xc => out.push(b'f'),
            b'\n' => out.push(b'n'),
            b'\r' => out.push(b'r'),
            b'\t' => out.push(b't'),
            _ => {
                out.extend_from_slice(b"u00");
                out.extend_from_slice(&crate::digest::hex(*byte));
            }
        }
        rest = after;
    }
    out.push(b'"');
}

/// Begins a member. Names of fields need no escaping.
fn write_name(out: &mut Vec<u8>, name: &str) {
    part(out);
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_integer(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (value % 10).to_le_bytes()[0];
        value /= 10;
        from = at;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

struct Writer<'a>(&'a mut Vec<u8>);

/// A list that is being written.
struct Items<'a>(&'a mut Vec<u8>);

/// An object that is being written.
struct Members<'a>(&'a mut Vec<u8>);

/// Puts a comma between what is written and the next of a list or an object. What begins one is never the end of an item.
fn part(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'[' | b'{')) {
        out.push(b',');
    }
}

/// A value that the gate does not write. It holds nothing: an error that does would be carried along with every value.
#[derive(Debug)]
struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that the gate does not write")
    }
}

impl core::error::Error for Unsupported {}

impl serde::ser::Error for Unsupported {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

fn unsupported<T>() -> Result<T, Unsupported> {
    Err(Unsupported)
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unsupported;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Impossible<(), Unsupported>;
    type SerializeTupleStruct = Impossible<(), Unsupported>;
    type SerializeTupleVariant = Impossible<(), Unsupported>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Impossible<(), Unsupported>;

    fn serialize_bool(self, value: bool) -> Result<(), Unsupported> {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Unsupported> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Unsupported> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Unsupported> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Unsupported> {
        write_integer(self.0, value);
        Ok(())
    }

    fn serialize_str(self, text: &str) -> Result<(), Unsupported> {
        write_text(self.0, text);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Unsupported> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unsupported> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, word: &'static str) -> Result<(), Unsupported> {
        self.serialize_str(word)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unsupported> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Unsupported> {
        self.0.push(b'[');
        Ok(Items(self.0))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Unsupported> {
        self.0.push(b'{');
        Ok(Members(self.0))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Unsupported> {
        self.0.push(b'{');
        Ok(Members(self.0))
    }

    fn serialize_i8(self, _: i8) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_i16(self, _: i16) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_i32(self, _: i32) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_i64(self, _: i64) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_f32(self, _: f32) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_f64(self, _: f64) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_char(self, _: char) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_unit(self) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unsupported> {
        unsupported()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Unsupported> {
        unsupported()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Unsupported> {
        unsupported()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unsupported> {
        unsupported()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unsupported> {
        unsupported()
    }
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Unsupported;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsupported> {
        part(self.0);
        value.serialize(Writer(self.0))
    }

    fn end(self) -> Result<(), Unsupported> {
        self.0.push(b']');
        Ok(())
    }
}

impl SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Unsupported;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unsupported> {
        part(self.0);
        key.serialize(Writer(self.0))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsupported> {
        self.0.push(b':');
        value.serialize(Writer(self.0))
    }

    fn end(self) -> Result<(), Unsupported> {
        self.0.push(b'}');
        Ok(())
    }
}

impl SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Unsupported;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unsupported> {
        write_name(self.0, name);
        value.serialize(Writer(self.0))
    }

    fn end(self) -> Result<(), Unsupported> {
        self.0.push(b'}');
        Ok(())
    }
}
