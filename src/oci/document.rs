//! JSON documents as bytes: read strictly, kept as they came.
//!
//! A document's digest is over its bytes, so these are kept beside every parsed form and never written anew
//! from it. Reading is strict where readers of other languages differ: a key that appears twice is an error,
//! since one reader takes the first and another the last. Size, depth and number of values are bounded, so
//! that 4 MiB of `[0,0,0,...]` do not grow to hundreds of megabytes in memory.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Limit, OciError};
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
    /// Returns [`OciError::Malformed`] if it is no JSON, or has more values than any document.
    pub fn value(&self) -> Result<Value, OciError> {
        parse_value(&self.bytes, &self.digest.to_string())
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

/// Reads JSON strictly; `what` names the document in errors.
pub(super) fn parse_value(bytes: &[u8], what: &str) -> Result<Value, OciError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let left = Cell::new(MAX_VALUES.max(bytes.len() / 16));
    let value = Strict(&left).deserialize(&mut json).map_err(|source| malformed(what, source))?;
    json.end().map_err(|source| malformed(what, source))?;
    Ok(value)
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
struct Strict<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.0.set(left);
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
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                let shown: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format_args!("the key {shown:?} appears twice")));
            }
            object.insert(key, map.next_value_seed(self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn cause(json: &str) -> String {
        parse_value(json.as_bytes(), "x").unwrap_err().source().unwrap().to_string()
    }

    #[test]
    fn json_keeps_its_order_and_numbers() {
        let text = r#"{"z":1,"a":[null,true,-1,1.5,18446744073709551615,"\u00e9"],"m":{}}"#;
        let document = Document::from_value(&parse_value(text.as_bytes(), "x").unwrap(), "t");
        assert_eq!(String::from_utf8(document.bytes).unwrap(), text.replace("\\u00e9", "\u{e9}"));
    }

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        assert!(cause(r#"{"a":1,"a":2}"#).contains("\"a\" appears twice"));
        assert!(cause(r#"[{"b":{"c":1,"\u0063":2}}]"#).contains("\"c\" appears twice"));
    }

    #[test]
    fn depth_width_and_size_are_bounded() {
        assert!(cause(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(cause(&format!("[{}0]", "0,".repeat(MAX_VALUES))).contains("too many values"));
        assert!(cause("{} {}").contains("trailing"));
        let most = Limits::DEFAULT.manifest_bytes;
        assert!(check_size(most, "x", &Limits::DEFAULT).is_ok());
        let refused = check_size(most + 1, "x", &Limits::DEFAULT);
        assert!(matches!(refused, Err(OciError::Limit(limit)) if limit.limit == Limit::ManifestBytes));
    }
}
