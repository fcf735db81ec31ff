//! Text that a record holds. It was checked when it was stored; if it no longer passes, the record is damaged.

use std::fmt::Display;
use std::str::FromStr;

use layerstore_schema::record::RecordError;

use crate::error::MetaError;

/// Parses text of the record `key`.
///
/// Returns [`MetaError::Record`] if it is not of the type.
pub(crate) fn stored<T>(kind: &'static str, key: &str, text: &str) -> Result<T, MetaError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| MetaError::Record {
        kind,
        key: key.to_owned(),
        source: RecordError { kind, reason: error.to_string() },
    })
}

/// Parses every text of a list.
///
/// Returns [`MetaError::Record`] if one is not of the type.
pub(crate) fn stored_list<T>(kind: &'static str, key: &str, texts: &[String]) -> Result<Vec<T>, MetaError>
where
    T: FromStr,
    T::Err: Display,
{
    texts.iter().map(|text| stored(kind, key, text)).collect()
}
