//! The xattrs of an entry, in the form in which they are in a table of contents.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::archive::base64;
use crate::types::Limits;

/// The longest name and the largest value of an xattr that Linux knows.
const XATTR_NAME_MAX: usize = 255;
const XATTR_VALUE_MAX: usize = 65536;

/// What the xattrs of one entry may cost whatever is granted to an archive.
pub(super) const COST_MAX: u64 = Limits::DEFAULT.pax_bytes;

/// What the record of an xattr in an archive takes besides name and value, at the least: `18 SCHILY.xattr.=` and a line feed.
const RECORD: u64 = 18;

/// Names and values, these in base64.
#[derive(Default)]
pub(super) struct RawXattrs {
    /// Not all of them, if they cost more than is granted.
    map: BTreeMap<String, String>,
    /// How many bytes an archive would have for them at the least.
    cost: u64,
}

/// Names and values, in the order of the names.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

impl RawXattrs {
    /// Those of a table being written; names that are not UTF-8 have no place.
    pub(super) fn from_map(map: BTreeMap<String, String>) -> Self {
        let cost = map.iter().map(|(name, value)| cost(name, value)).sum();
        RawXattrs { map, cost }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// How many bytes an archive would have for them at the least; none are left out if an archive may have as many.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    pub(super) fn decoded(&self) -> Result<Xattrs, &'static str> {
        let one = |(name, value): (&String, &String)| {
            let value =
                base64::decoded(value.as_bytes()).map_err(|_| "the value of an xattr is no base64")?;
            let fits = !name.is_empty() && name.len() <= XATTR_NAME_MAX && !name.contains('\0');
            if !fits || value.len() > XATTR_VALUE_MAX {
                return Err("it has an xattr that no file can have");
            }
            Ok((name.clone().into_bytes(), value))
        };
        self.map.iter().map(one).collect()
    }
}

fn cost(name: &str, value: &str) -> u64 {
    let decoded = (value.len() / 4).saturating_mul(3).saturating_sub(2);
    RECORD.saturating_add(name.len() as u64).saturating_add(decoded as u64)
}

impl Serialize for RawXattrs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.map.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawXattrs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Go writes a map without items as `null`.
        deserializer.deserialize_option(Reading)
    }
}

/// Reads a map, and keeps of it what an archive may have.
struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = RawXattrs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of xattrs")
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<RawXattrs, E> {
        Ok(RawXattrs::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawXattrs, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawXattrs, A::Error> {
        let limit = COST_MAX;
        let mut xattrs = RawXattrs::default();
        while xattrs.cost <= limit {
            let Some((name, value)) = entries.next_entry::<String, String>()? else { return Ok(xattrs) };
            xattrs.cost = xattrs.cost.saturating_add(cost(&name, &value));
            xattrs.map.insert(name, value);
        }
        // The entry is refused by who reads the table: the rest is passed over.
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(xattrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_xattrs_are_kept_than_an_archive_may_have() {
        let limit = COST_MAX;
        let many: Vec<String> = (0..200_000).map(|at| format!("\"{at:06}\":\"\"")).collect();
        let xattrs: RawXattrs = serde_json::from_str(&format!("{{{}}}", many.join(","))).unwrap();
        assert!(xattrs.cost() > limit && xattrs.cost() <= limit + 24, "{}", xattrs.cost());
        assert_eq!(xattrs.map.len() as u64, xattrs.cost() / 24, "the others are nowhere");
        let value = base64::encoded(&vec![b'v'; XATTR_VALUE_MAX]);
        let most: BTreeMap<String, String> =
            (0..15).map(|at| (format!("{at:0255}"), value.clone())).collect();
        let json = serde_json::to_string(&most).unwrap();
        let xattrs: RawXattrs = serde_json::from_str(&json).unwrap();
        assert!(xattrs.cost() <= limit && xattrs.decoded().unwrap().len() == 15);
        assert_eq!(serde_json::to_string(&RawXattrs::from_map(most)).unwrap(), json);
        assert!(serde_json::from_str::<RawXattrs>("null").unwrap().is_empty());
    }
}
