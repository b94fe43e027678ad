//! From a typed value to compact bytes: no white space, members in the order of the type.

use alloc::string::String;
use serde::{
    Serialize, Serializer,
    ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct},
};

use super::Error;

/// `value` as compact JSON.
///
/// Values hold text, whole numbers, truth values, lists, objects and words; anything else comes out empty.
pub fn write(value: &(impl Serialize + ?Sized)) -> String {
    // Room for a decision's attributes, so that they are not moved while they grow.
    let mut out = String::with_capacity(512);
    match value.serialize(Writer(&mut out)) {
        Ok(()) => out,
        Err(_) => String::new(),
    }
}

/// Appends `text` with its quotes, escaped where JSON asks for it and nowhere else.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    loop {
        // What is escaped is ASCII, so both sides of it begin and end at characters.
        let (plain, special) = rest.split_at_checked(super::plain(rest.as_bytes())).unwrap_or((rest, ""));
        out.push_str(plain);
        let Some(c) = special.chars().next() else {
            break;
        };
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => {
                out.push_str("\\u00");
                // Below U+0020: the cast keeps it whole.
                out.extend(crate::digest::hex(c as u8).map(char::from));
            }
        }
        rest = special.get(1..).unwrap_or_default();
    }
    out.push('"');
}

fn write_integer(out: &mut String, mut value: u64) {
    let mut digits = [0; 20];
    let mut count = 0;
    for digit in &mut digits {
        *digit = b'0' + (value % 10).to_le_bytes()[0];
        value /= 10;
        count += 1;
        if value == 0 {
            break;
        }
    }
    out.extend(digits.iter().take(count).rev().copied().map(char::from));
}

struct Writer<'a>(&'a mut String);

/// A list or an object that is being written.
struct Compound<'a> {
    out: &'a mut String,
    first: bool,
    end: char,
}

impl<'a> Compound<'a> {
    fn new(out: &'a mut String, start: char, end: char) -> Self {
        out.push(start);
        Self { out, first: true, end }
    }

    fn item(&mut self) -> &mut String {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        self.out
    }
}

fn unsupported<T>() -> Result<T, Error> {
    Err(Error::custom("a value that the gate does not write"))
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        write_integer(self.0, value);
        Ok(())
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        write_text(self.0, text);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.0.push_str("null");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, word: &'static str) -> Result<(), Error> {
        self.serialize_str(word)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a>, Error> {
        Ok(Compound::new(self.0, '[', ']'))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a>, Error> {
        Ok(Compound::new(self.0, '{', '}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, Error> {
        Ok(Compound::new(self.0, '{', '}'))
    }

    fn serialize_i8(self, _: i8) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_i16(self, _: i16) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_i32(self, _: i32) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_i64(self, _: i64) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_f32(self, _: f32) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_f64(self, _: f64) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_char(self, _: char) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_unit(self) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        unsupported()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        unsupported()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Error> {
        unsupported()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        unsupported()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        unsupported()
    }
}

impl SerializeSeq for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Writer(self.item()))
    }

    fn end(self) -> Result<(), Error> {
        self.out.push(self.end);
        Ok(())
    }
}

impl SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        key.serialize(Writer(self.item()))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.out.push(':');
        value.serialize(Writer(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.out.push(self.end);
        Ok(())
    }
}

impl SerializeStruct for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        let out = self.item();
        // Names of fields need no escaping.
        out.push('"');
        out.push_str(name);
        out.push_str("\":");
        value.serialize(Writer(out))
    }

    fn end(self) -> Result<(), Error> {
        self.out.push(self.end);
        Ok(())
    }
}
