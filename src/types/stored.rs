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
    text.parse().map_err(|error| damaged(kind, key, error))
}

/// As [`stored`], of text that becomes the value and is not copied: a list has thousands.
pub(crate) fn stored_own<T>(kind: &'static str, key: &str, text: String) -> Result<T, MetaError>
where
    T: TryFrom<String>,
    T::Error: Display,
{
    text.try_into().map_err(|error| damaged(kind, key, error))
}

/// Takes every text of a list, as [`stored_own`].
pub(crate) fn stored_list<T>(kind: &'static str, key: &str, texts: Vec<String>) -> Result<Vec<T>, MetaError>
where
    T: TryFrom<String>,
    T::Error: Display,
{
    texts.into_iter().map(|text| stored_own(kind, key, text)).collect()
}

fn damaged(kind: &'static str, key: &str, error: impl Display) -> MetaError {
    MetaError::Record { kind, key: key.to_owned(), source: RecordError { kind, reason: error.to_string() } }
}
