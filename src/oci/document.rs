//! JSON documents as bytes: read strictly, kept as they came.
//!
//! A document's digest is over its bytes, so these are kept beside every parsed form and never written anew
//! from it. Reading is strict where readers of other languages differ: a key that appears twice is an error,
//! since one reader takes the first and another the last, and so is one that some take for another. Size, depth and number of values are bounded, so
//! that 4 MiB of `[0,0,0,...]` do not grow to hundreds of megabytes in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::shape::Shape;
use crate::error::{Limit, OciError, shown};
use crate::types::keys::{alike, folded, mislead};
use crate::types::{Algorithm, Digest, Hasher, Limits};

/// The most JSON values in one document: so many, or one for each sixteen bytes. In memory they take more than in it.
const MAX_VALUES: usize = 1 << 18;

/// A document as it was delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// The bytes, which the digest is over.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// What they are.
    pub media_type: String,
}

impl Document {
    /// A document of `bytes`, with their SHA-256 digest.
    pub fn new(bytes: Vec<u8>, media_type: impl Into<String>) -> Self {
        let digest = Digest::sha256(&bytes);
        Document { bytes, digest, media_type: media_type.into() }
    }

    /// A new document with the JSON text of `value`, its keys in the order they have there.
    pub fn from_value(value: &Value, media_type: impl Into<String>) -> Self {
        Document::new(value.to_string().into_bytes(), media_type)
    }

    /// The JSON in it.
    ///
    /// Returns [`OciError::Malformed`] if it is no JSON, and [`OciError::Values`] if it has more values than any document.
    pub fn value(&self) -> Result<Value, OciError> {
        parse_value(&self.bytes, &self.digest.to_string(), &Shape::Any)
    }
}

/// The digest of `bytes` in a given algorithm.
pub(super) fn digest_of(bytes: &[u8], algorithm: Algorithm) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// Refuses a size that no document has; to be asked before anything is read.
pub(super) fn check_size(size: u64, what: &str, limits: &Limits) -> Result<(), OciError> {
    Ok(limits.check(Limit::ManifestBytes, size, || what)?)
}

/// Refuses more layers than an image may have; to be asked before anything is done for them.
pub(super) fn check_layers(layers: usize, what: &str, limits: &Limits) -> Result<(), OciError> {
    Ok(limits.check(Limit::Layers, u64::try_from(layers).unwrap_or(u64::MAX), || what)?)
}

/// Reads JSON strictly; `what` names the document in errors.
///
/// Returns [`OciError::Ambiguous`] if a key of the `shape` is there in other letters, and [`OciError::Values`] if there are more values
/// than any document has.
pub(super) fn parse_value(bytes: &[u8], what: &str, shape: &'static Shape) -> Result<Value, OciError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let left = Cell::new(MAX_VALUES.max(bytes.len() / 16));
    let most = left.get();
    let refused = RefCell::default();
    let strict = Strict { left: &left, refused: &refused, shape };
    let parsed = strict.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    match refused.take() {
        Some(Refused::Misleading(reason)) => Err(OciError::Ambiguous { what: what.to_owned(), reason }),
        Some(Refused::Values) => Err(OciError::Values { what: what.to_owned(), most }),
        None => parsed.map_err(|source| malformed(what, source)),
    }
}

/// Gives JSON a type.
pub(super) fn parse_typed<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T, OciError> {
    T::deserialize(value).map_err(|source| malformed(what, source))
}

pub(super) fn malformed(what: &str, source: serde_json::Error) -> OciError {
    OciError::Malformed { what: what.to_owned(), source: source.into() }
}

/// Reads a [`Value`] without duplicate keys, counting down the values that are still allowed.
#[derive(Clone, Copy)]
struct Strict<'a> {
    left: &'a Cell<usize>,
    /// Why the document is refused, where that is no matter of JSON.
    refused: &'a RefCell<Option<Refused>>,
    shape: &'static Shape,
}

/// Why a document is refused that is JSON.
enum Refused {
    /// What is wrong with the key that others take for another.
    Misleading(String),
    /// There are more values than are granted.
    Values,
}

impl Strict<'_> {
    /// Ends the reading: what the parser is told never comes to anybody.
    fn refuse<E: serde::de::Error>(self, reason: Refused) -> E {
        self.refused.replace(Some(reason));
        E::custom("it is refused")
    }

    fn mislead<E: serde::de::Error>(self, key: &str) -> E {
        self.refuse(Refused::Misleading(mislead(key)))
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| self.refuse::<D::Error>(Refused::Values))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let shape = match self.shape {
            Shape::List(shape) => shape,
            Shape::Any => &Shape::Any,
            Shape::Object { .. } => return Err(A::Error::custom("a list is where an object belongs")),
        };
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict { shape, ..self })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        // Also of those that nobody here knows: others may.
        let mut foldeds = HashSet::new();
        let is_open = matches!(self.shape, Shape::Any);
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {:?} appears twice", shown(key))));
            }
            let is_known = is_open || self.shape.keys().any(|known| known == key);
            if !is_known
                && (self.shape.keys().any(|known| alike(&key, known))
                    || !foldeds.insert(folded(&key).collect::<String>()))
            {
                return Err(self.mislead(&key));
            }
            let value = map.next_value_seed(Strict { shape: self.shape.of(&key), ..self })?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::oci::shape;

    fn cause(json: &str) -> String {
        parse_value(json.as_bytes(), "x", &Shape::Any).unwrap_err().source().unwrap().to_string()
    }

    #[test]
    fn json_keeps_its_order_and_numbers() {
        let text = r#"{"z":1,"a":[null,true,-1,1.5,18446744073709551615,"\u00e9"],"m":{}}"#;
        let document = Document::from_value(&parse_value(text.as_bytes(), "x", &Shape::Any).unwrap(), "t");
        assert_eq!(String::from_utf8(document.bytes).unwrap(), text.replace("\\u00e9", "\u{e9}"));
    }

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        assert!(cause(r#"{"a":1,"a":2}"#).contains("\"a\" appears twice"));
        assert!(cause(r#"[{"b":{"c":1,"\u0063":2}}]"#).contains("\"c\" appears twice"));
    }

    /// Go's readers would see another image.
    #[test]
    fn keys_that_others_take_for_another_are_refused_at_any_depth() {
        let refused = |json: &str, shape| match parse_value(json.as_bytes(), "x", shape) {
            Err(OciError::Ambiguous { reason, .. }) => reason,
            other => panic!("{json}: {other:?}"),
        };
        for (json, shape) in [
            (r#"{"layers":[],"layer\u017f":[]}"#, &shape::MANIFEST),
            (r#"{"Layers":[]}"#, &shape::MANIFEST),
            (r#"{"layers":[],"manife\u017fts":[]}"#, &shape::MANIFEST),
            (r#"{"layers":[{"digest":"a","dige\u017ft":"b"}]}"#, &shape::MANIFEST),
            (r#"{"config":{"URLS":[]}}"#, &shape::MANIFEST),
            (r#"{"subject":{"Digest":"b"}}"#, &shape::MANIFEST),
            (
                r#"{"manifests":[{"platform":{"architecture":"amd64","Architecture":"arm64"}}]}"#,
                &shape::MANIFEST,
            ),
            (r#"{"manifests":[{"platform":{"o\u017f":"linux"}}]}"#, &shape::MANIFEST),
            (r#"{"new":1,"New":2}"#, &shape::MANIFEST),
            (r#"{"rootfs":{"diff_ids":[],"diff_id\u017f":[]}}"#, &shape::CONFIG),
            (r#"{"config":{"Cmd":["a"],"cmd":["b"]}}"#, &shape::CONFIG),
            (r#"{"config":{"Healthcheck":{"test":[]}}}"#, &shape::CONFIG),
            (r#"{"history":[{"empty_layer":true,"Empty_Layer":false}]}"#, &shape::CONFIG),
            (r#"[{"Config":"a","config":"b"}]"#, &shape::LIST),
            (r#"[{"Layers":[]},{"layers":[]}]"#, &shape::LIST),
            (r#"{"imagelayoutversion":"1.0.0"}"#, &shape::LAYOUT),
        ] {
            let reason = refused(json, shape);
            assert!(reason.contains("other programs take the key"), "{json}: {reason}");
        }
        // Names that people choose are different ones.
        for (json, shape) in [
            (
                r#"{"annotations":{"a":"","A":""},"layers":[{"annotations":{"size":"","Size":""}}]}"#,
                &shape::MANIFEST,
            ),
            (
                r#"{"config":{"Labels":{"maintainer":"","Maintainer":""},"Volumes":{"/a":{},"/A":{}}}}"#,
                &shape::CONFIG,
            ),
        ] {
            parse_value(json.as_bytes(), "x", shape).unwrap();
        }
    }

    #[test]
    fn a_list_is_no_object() {
        for json in [r#"{"config":["a","b",1]}"#, "[]", r#"{"layers":[["a","b",1]]}"#] {
            let error = parse_value(json.as_bytes(), "x", &shape::MANIFEST).unwrap_err();
            assert!(matches!(error, OciError::Malformed { .. }), "{json}: {error}");
        }
    }

    #[test]
    fn depth_width_and_size_are_bounded() {
        assert!(cause(&"[".repeat(100_000)).contains("recursion limit"));
        let wide = |count| parse_value(format!("[{}0]", "0,".repeat(count)).as_bytes(), "x", &Shape::Any);
        wide(MAX_VALUES - 2).unwrap();
        let refused = wide(MAX_VALUES - 1).unwrap_err();
        assert!(matches!(refused, OciError::Values { most: MAX_VALUES, .. }), "{refused}");
        assert!(cause("{} {}").contains("trailing"));
        let most = Limits::DEFAULT.manifest_bytes;
        assert!(check_size(most, "x", &Limits::DEFAULT).is_ok());
        let refused = check_size(most + 1, "x", &Limits::DEFAULT);
        assert!(matches!(refused, Err(OciError::Limit(limit)) if limit.limit == Limit::ManifestBytes));
    }
}
