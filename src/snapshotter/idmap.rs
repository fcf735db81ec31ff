//! The id maps that labels say, in containerd's form: `0:100000:65536`, several with commas between.

use std::collections::BTreeMap;

use crate::error::SnapshotError;

const UIDS: &str = "containerd.io/snapshot/uidmapping";
const GIDS: &str = "containerd.io/snapshot/gidmapping";

/// The maps of a snapshot, for users and for groups, as text.
pub(super) struct Maps<'l> {
    uids: &'l str,
    gids: &'l str,
}

impl<'l> Maps<'l> {
    /// The maps that the labels say; `None` if there are none.
    ///
    /// Returns [`SnapshotError::InvalidArgument`] if one is none, or only one is there, or they give root no id.
    pub(super) fn of(labels: &'l BTreeMap<String, String>) -> Result<Option<Self>, SnapshotError> {
        let label = |key: &str| labels.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let maps = match (label(UIDS), label(GIDS)) {
            (None, None) => return Ok(None),
            (uids, gids) => Maps { uids: uids.unwrap_or_default(), gids: gids.unwrap_or_default() },
        };
        maps.root().map(|_| Some(maps))
    }

    /// The host's ids of the root user and group: of whom the root directory of the snapshot is.
    pub(super) fn root(&self) -> Result<(u32, u32), SnapshotError> {
        let root = |key: &'static str, map: &str| {
            root_of(map).map_err(|reason| SnapshotError::InvalidArgument {
                what: key,
                value: map.to_owned(),
                reason: reason.to_owned(),
            })
        };
        Ok((root(UIDS, self.uids)?, root(GIDS, self.gids)?))
    }

    /// The options that say the maps to who mounts.
    pub(super) fn options(&self) -> [String; 2] {
        [format!("uidmap={}", self.uids), format!("gidmap={}", self.gids)]
    }
}

/// Whether an option of a mount says a map.
pub(super) fn is_option(word: &str) -> bool {
    word.starts_with("uidmap=") || word.starts_with("gidmap=")
}

/// The id outside of the id 0 inside.
fn root_of(map: &str) -> Result<u32, &'static str> {
    let mut root = None;
    for extent in map.split(',') {
        let mut numbers = extent.split(':').map(str::parse::<u32>);
        let (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(
                "a map is inside:outside:count, several with commas between, and both labels are needed",
            );
        };
        let last = |first: u32| first.checked_add(count.checked_sub(1)?);
        let fits = |first: u32| last(first).is_some_and(|last| last < u32::MAX);
        if !fits(inside) || !fits(outside) {
            return Err("a map has to have ids, and ends before the last of all");
        }
        if inside == 0 {
            root = Some(outside);
        }
    }
    root.ok_or("root has no id outside")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(uids: &str, gids: &str) -> BTreeMap<String, String> {
        [(UIDS, uids), (GIDS, gids)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn root_is_found_in_any_extent() {
        let labels = labels("0:100000:65536", "1:300000:10,0:200000:1");
        let maps = Maps::of(&labels).unwrap().unwrap();
        assert_eq!(maps.root().unwrap(), (100_000, 200_000));
        assert_eq!(maps.options(), ["uidmap=0:100000:65536", "gidmap=1:300000:10,0:200000:1"]);
        assert!(Maps::of(&BTreeMap::new()).unwrap().is_none());
    }

    #[test]
    fn bad_maps_are_refused() {
        let good = "0:100000:65536";
        for bad in [
            "",
            "x",
            "0",
            "0:1",
            "0:1:2:3",
            "0:1:-1",
            "-1:0:1",
            "0:0:0",
            "1:100000:65536",
            "0:4294967295:1",
            "0:1:4294967295",
            "0:1:2,",
            "0:1:2, 5:6:7",
        ] {
            assert!(Maps::of(&labels(bad, good)).is_err(), "{bad:?}");
            assert!(Maps::of(&labels(good, bad)).is_err(), "{bad:?}");
        }
    }
}
