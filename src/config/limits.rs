//! Limits as text: `NAME=VALUE` of a flag, and the table of a file.

use super::document::Value;
use super::overlay::parse_size;
use super::settings::{Setting, Settings};
use crate::error::{ConfigError, Limit};
use crate::types::Limits;

/// The table of a file.
pub(super) const KEY: &str = "storage.options.layerstore.limits";

/// Reads `NAME=VALUE`: a [`Limit`], and how much is granted. Bytes have [units](parse_size); other things are counted.
///
/// Returns [`ConfigError::Limit`] if there is no limit of this name, or the value is no such number, or more than
/// [can be granted](Limit::maximum).
///
/// # Examples
///
/// ```
/// use layerstore::Limit;
/// use layerstore::config::parse_limit;
///
/// assert_eq!(parse_limit("unpacked_bytes=10GiB")?, (Limit::UnpackedBytes, 10 << 30));
/// assert_eq!(parse_limit("entries=100000")?, (Limit::Entries, 100_000));
/// assert!(parse_limit("entries=1k").is_err());
/// # Ok::<(), layerstore::ConfigError>(())
/// ```
pub fn parse_limit(text: &str) -> Result<(Limit, u64), ConfigError> {
    let refused = |reason: &str| ConfigError::Limit { text: text.to_owned(), reason: reason.to_owned() };
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| refused("it is not of the form NAME=VALUE, such as entries=100000"))?;
    let limit: Limit = name.trim().parse()?;
    let value = value.trim();
    // Of things that are no bytes there are no thousands that would be 1024.
    let value = match limit.is_bytes() {
        true => parse_size(value).ok_or_else(|| refused("it takes a size such as 512M or 10GiB"))?,
        false => {
            value.parse().map_err(|_| refused("it takes a whole number such as 100000, without a unit"))?
        }
    };
    match limit.refuses(value) {
        Some(reason) => Err(refused(&reason)),
        None => Ok((limit, value)),
    }
}

impl Settings {
    /// How much is granted to what comes in: the defaults, with what the table `limits` of `storage.options.layerstore` says.
    ///
    /// Returns [`ConfigError::Option`] if one is unknown, or has a value that is no such number.
    pub fn limits(&self) -> Result<Limits, ConfigError> {
        let mut limits = Limits::DEFAULT;
        if let Some(Setting { value: Value::Map(table), origin }) = self.get(KEY) {
            for (name, value) in table {
                let granted = parse_limit(&format!("{name}={value}"));
                granted.and_then(|(limit, value)| limits.set(limit, value)).map_err(|error| {
                    let reason = match error {
                        ConfigError::Limit { reason, .. } => format!("is not valid: {reason}"),
                        error => error.to_string(),
                    };
                    let option = format!("layerstore.limits {name} = {value}");
                    let origin = self.origin_of(KEY, name).unwrap_or(origin).to_string();
                    ConfigError::Option { option, origin, reason }
                })?;
            }
        }
        Ok(limits)
    }
}
