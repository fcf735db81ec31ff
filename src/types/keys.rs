//! Keys of JSON that other programs take for another one.
//!
//! A key is found here by its exact text. Go's `encoding/json` folds letters: `Layers` is `layers` to it, and so is `layer` with
//! the long s of old print. The last one wins. A document with both would be one image here and another there, under one digest;
//! so whoever reads a document refuses keys that are [alike] and not the same.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::error::shown;

/// Whether some programs take one key for the other.
pub(crate) fn alike(one: &str, other: &str) -> bool {
    folded(one).eq(folded(other))
}

/// The letters of a key, all that are taken for one another as one. Only letters of ASCII are in the keys that anybody knows.
pub(crate) fn folded(key: &str) -> impl Iterator<Item = char> {
    key.chars().map(|letter| match letter {
        // What `encoding/json` folds into ASCII: the long s, and the sign for kelvin.
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        // What `strings.ToLower` makes one of ASCII besides: the capital I with a dot.
        '\u{130}' => 'i',
        other => other.to_ascii_lowercase(),
    })
}

/// Whether `key` is empty, at which some readers stop, or is taken for one of `known` and is another.
pub(crate) fn misleads(key: &str, known: &[&str]) -> bool {
    key.is_empty() || !known.contains(&key) && known.iter().any(|known| alike(key, known))
}

/// What is said of such a key.
pub(crate) fn mislead(key: &str) -> String {
    format!("other programs take the key {:?} for another", shown(key))
}

/// The same as an error of a reader.
pub(crate) fn misleading<E: Error>(key: &str) -> E {
    E::custom(mislead(key))
}

/// Reads a struct, whose fields no other key may be taken for. Those inside of them are not looked at.
pub(crate) struct Exact<T>(PhantomData<T>);

impl<T> Exact<T> {
    pub(crate) fn new() -> Self {
        Exact(PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Exact<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(OfStruct(deserializer))
    }
}

/// Knows the names of the fields when a struct is asked for.
struct OfStruct<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OfStruct<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Fields { visitor, fields })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Reads fields from an object alone: `serde_json` would take a list for one, too.
struct Fields<V> {
    visitor: V,
    fields: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Keys { map, fields: self.fields, key: String::new() })
    }
}

struct Keys<A> {
    map: A,
    fields: &'static [&'static str],
    /// The last one, whose memory the next one takes.
    key: String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Keys<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        if self.map.next_key_seed(Text(&mut self.key))?.is_none() {
            return Ok(None);
        }
        if misleads(&self.key, self.fields) {
            return Err(misleading(&self.key));
        }
        seed.deserialize(StrDeserializer::new(&self.key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a text into memory that is there.
struct Text<'s>(&'s mut String);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Pair {
        size: u32,
        #[serde(rename = "diskId", default)]
        disk: Option<String>,
    }

    fn read(json: &str) -> Result<Pair, serde_json::Error> {
        Exact::new().deserialize(&mut serde_json::Deserializer::from_str(json))
    }

    #[test]
    fn letters_are_folded_as_go_folds_them() {
        for (one, other) in [
            ("layers", "Layers"),
            ("layers", "layer\u{17f}"),
            ("disk", "DIS\u{212a}"),
            ("entries", "entr\u{130}es"),
        ] {
            assert!(alike(one, other) && alike(other, one), "{one} {other}");
        }
        // Each of these is another letter to everyone.
        for (one, other) in [("layers", "layer"), ("entries", "entr\u{131}es"), ("a-b", "a_b"), ("", "a")] {
            assert!(!alike(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_struct_has_its_own_keys_and_none_that_are_alike() {
        let both = Pair { size: 1, disk: Some("d".to_owned()) };
        assert_eq!(read(r#"{"size":1,"diskId":"d","other":{"SIZE":[]}}"#).unwrap(), both);
        assert_eq!(read(r#"{"\u0073ize":1}"#).unwrap(), Pair { size: 1, disk: None });
        for key in ["SIZE", "\u{17f}ize", "diskid", "dis\u{212a}Id", "d\u{130}skid", ""] {
            let error = read(&format!(r#"{{"size":1,"{key}":2}}"#)).unwrap_err().to_string();
            assert!(error.contains("for another"), "{key}: {error}");
        }
        assert!(read(r#"[1,"d"]"#).is_err(), "a list is no struct");
    }
}
