//! JSON in which every key stands once: two readers that keep different twins of a key would decide differently.

use alloc::{collections::BTreeSet, format, string::String};
use core::fmt;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::limits;

/// Reads `bytes` as a `T`, refusing duplicate keys anywhere and nesting deeper than [`limits::JSON_DEPTH`].
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut scan = serde_json::Deserializer::from_slice(bytes);
    UniqueKeys { depth: limits::JSON_DEPTH }.deserialize(&mut scan)?;
    scan.end()?;
    serde_json::from_slice(bytes)
}

#[derive(Clone, Copy)]
struct UniqueKeys {
    depth: usize,
}

impl UniqueKeys {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom(format!("nested deeper than {} levels", limits::JSON_DEPTH))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut keys = BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(de::Error::custom(format!("key `{}` stands twice", key.escape_debug())));
            }
            keys.insert(key);
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use serde::de::IgnoredAny;

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth() {
        let fault = |text: &str| read::<IgnoredAny>(text.as_bytes()).unwrap_err().to_string();
        assert!(fault(r#"{"a":1,"a":1}"#).contains("key `a` stands twice"));
        assert!(fault(r#"[{"b":{"a":1,"\u0061":2}}]"#).contains("key `a` stands twice"));
        assert!(fault("{} {}").contains("trailing characters"));
        assert!(fault(&"[".repeat(33)).contains("nested deeper than 32 levels"));
        assert!(read::<IgnoredAny>(br#"{"a":[null,true,-1,2,3.5,"x",{"a":{}}]}"#).is_ok());
    }
}
