//! Id maps: which ids of a container are which of the host's. As text in the form of `/proc/<pid>/uid_map`.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use crate::error::{ValueError, shown};
use crate::sys::path;

/// A run of ids: `inside`, `inside + 1`, ... are known outside as `outside`, `outside + 1`, ...
///
/// As text `inside:outside:count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdExtent {
    /// The first id inside the namespace, or on disk for a mount.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

impl IdExtent {
    fn host_of(&self, id: u32) -> Option<u32> {
        shifted(id, self.inside, self.outside, self.count)
    }

    fn container_of(&self, id: u32) -> Option<u32> {
        shifted(id, self.outside, self.inside, self.count)
    }
}

fn shifted(id: u32, from: u32, to: u32, count: u32) -> Option<u32> {
    let offset = id.checked_sub(from).filter(|offset| *offset < count)?;
    to.checked_add(offset)
}

impl FromStr for IdExtent {
    type Err = ValueError;

    /// Returns [`ValueError::IdMap`] if `text` is not three numbers with colons between.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut parts = text.split(':');
        let mut next = || parts.next()?.parse().ok();
        let extent = (next(), next(), next());
        match extent {
            (Some(inside), Some(outside), Some(count)) if parts.next().is_none() => {
                Ok(IdExtent { inside, outside, count })
            }
            _ => Err(ValueError::IdMap {
                map: shown(text),
                reason: "it is not of the form CONTAINER-ID:HOST-ID:COUNT",
            }),
        }
    }
}

impl fmt::Display for IdExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.count)
    }
}

/// How users and groups are mapped. An id that no run has is not mapped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct IdMaps {
    /// The users.
    pub uids: Vec<IdExtent>,
    /// The groups.
    pub gids: Vec<IdExtent>,
}

impl IdMaps {
    /// The same runs for users and groups.
    pub fn both(extents: impl Into<Vec<IdExtent>>) -> Self {
        let uids = extents.into();
        IdMaps { gids: uids.clone(), uids }
    }

    /// The host's ids of an owner and a group of the container; `None` if one of them is not mapped.
    ///
    /// ```
    /// use layerstore::IdMaps;
    ///
    /// let maps = IdMaps::both(["0:100000:65536".parse()?]);
    /// assert_eq!(maps.to_host(7, 8), Some((100_007, 100_008)));
    /// assert_eq!(maps.to_container(100_007, 100_008), Some((7, 8)));
    /// assert_eq!(maps.to_container(7, 8), None);
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn to_host(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((to_host(&self.uids, uid)?, to_host(&self.gids, gid)?))
    }

    /// The container's ids of an owner and a group of the host; `None` if one of them is not mapped.
    pub fn to_container(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((to_container(&self.uids, uid)?, to_container(&self.gids, gid)?))
    }

    /// The host's ids for a root directory of this owner in the container: those of the container's root if it is nobody there.
    pub(crate) fn root_to_host(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        self.to_host(uid, gid).or_else(|| self.to_host(0, 0))
    }

    /// Proves that the kernel takes the maps, and that root of the container is somebody.
    ///
    /// Returns [`ValueError::IdMap`] if one of the two is empty, has more than 340 runs or more than 4095 bytes as text, a run is empty or passes the
    /// last id, two runs have an id in common on either side, or the id 0 is not mapped.
    pub fn check(&self) -> Result<(), ValueError> {
        check(&self.uids)?;
        check(&self.gids)
    }
}

/// The container's id of one of the host's; `None` if it is not mapped.
pub(crate) fn to_container(map: &[IdExtent], id: u32) -> Option<u32> {
    map.iter().find_map(|extent| extent.container_of(id))
}

/// The host's id of one of the container's; `None` if it is not mapped.
pub(crate) fn to_host(map: &[IdExtent], id: u32) -> Option<u32> {
    map.iter().find_map(|extent| extent.host_of(id))
}

/// The most runs that the kernel takes.
const MAX_EXTENTS: usize = 340;
/// The most bytes of text: less than a page, in one write.
const MAX_TEXT: usize = 4095;

fn check(map: &[IdExtent]) -> Result<(), ValueError> {
    let shown = || map.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let refuse = |reason| Err(ValueError::IdMap { map: shown(), reason });
    if map.is_empty() {
        return refuse("both users and groups need a map");
    }
    if map.len() > MAX_EXTENTS {
        return refuse("the kernel takes no more than 340 runs");
    }
    if text(map).len() > MAX_TEXT {
        return refuse("the kernel takes no more than 4095 bytes of text, a line for each run");
    }
    if map.iter().any(|extent| extent.count == 0) {
        return refuse("a run has no ids");
    }
    let sides: [fn(&IdExtent) -> u32; 2] = [|extent| extent.inside, |extent| extent.outside];
    for first in sides {
        let end = |extent: &IdExtent| u64::from(first(extent)).saturating_add(extent.count.into());
        if map.iter().any(|extent| end(extent) > u64::from(u32::MAX)) {
            return refuse("a run passes the last id, 4294967294");
        }
        let mut sorted: Vec<_> = map.iter().collect();
        sorted.sort_by_key(|extent| first(extent));
        let overlap = |(before, after): (&&IdExtent, &&IdExtent)| end(before) > first(after).into();
        if sorted.iter().zip(sorted.iter().skip(1)).any(overlap) {
            return refuse("two runs have an id in common");
        }
    }
    if !map.iter().any(|extent| extent.inside == 0) {
        return refuse("root of the container, the id 0, is not mapped");
    }
    Ok(())
}

/// The map in the text that the kernel takes.
pub(super) fn text(map: &[IdExtent]) -> String {
    map.iter().map(|extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count)).collect()
}

/// Reads a map of the kernel; empty if none has been written.
pub(super) fn read(file: &Path) -> io::Result<Vec<IdExtent>> {
    Ok(path::read_to_string(file)?.lines().filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<IdExtent> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(IdExtent { inside: next()?, outside: next()?, count: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(text: &str) -> Vec<IdExtent> {
        text.split_whitespace().map(|extent| extent.parse().unwrap()).collect()
    }

    #[test]
    fn extents_are_three_numbers() {
        assert_eq!("1:2:3".parse::<IdExtent>().unwrap(), IdExtent { inside: 1, outside: 2, count: 3 });
        for bad in ["", "1", "1:2", "1:2:3:4", "1:2:", "a:2:3", "-1:2:3", "1:2:4294967296", " 1:2:3", "1,2,3"]
        {
            assert!(bad.parse::<IdExtent>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_go_both_ways() {
        let maps = IdMaps { uids: extents("0:1000:1 1:100000:10"), gids: extents("0:500:20") };
        for (inside, outside) in [((0, 0), (1000, 500)), ((1, 19), (100_000, 519)), ((10, 3), (100_009, 503))]
        {
            assert_eq!(maps.to_host(inside.0, inside.1), Some(outside));
            assert_eq!(maps.to_container(outside.0, outside.1), Some(inside));
        }
        for unmapped in [(11, 0), (0, 20), (u32::MAX, 0)] {
            assert_eq!(maps.to_host(unmapped.0, unmapped.1), None);
        }
        assert_eq!(maps.to_container(0, 500), None);
        // What nobody has checked does not overflow either.
        let beyond = IdMaps::both(extents("0:4294967290:10 4294967290:0:10"));
        assert_eq!(beyond.to_host(5, 5), Some((u32::MAX, u32::MAX)));
        assert_eq!((beyond.to_host(6, 0), beyond.to_container(6, 0)), (None, None));
    }

    #[test]
    fn maps_that_the_kernel_refuses_are_refused() {
        for good in ["0:0:1", "0:100000:65536", "1:100000:10 0:5:1 11:6:4", "0:0:4294967295"] {
            IdMaps::both(extents(good)).check().unwrap();
        }
        for (bad, reason) in [
            ("", "both"),
            ("0:1:0", "no ids"),
            ("0:4294967295:1", "last id"),
            ("0:1:4294967295", "last id"),
            ("0:10:5 4:100:5", "in common"),
            ("0:10:5 5:14:5", "in common"),
            ("1:100:5", "root"),
        ] {
            let error = IdMaps::both(extents(bad)).check().unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
        let many: Vec<_> = (0..341).map(|id| IdExtent { inside: id, outside: id, count: 1 }).collect();
        assert!(IdMaps::both(many).check().is_err());
        // Fewer runs, with long numbers: 4095 bytes, and one more.
        let run = |id, count| IdExtent { inside: id, outside: id, count };
        let mut long = vec![run(0, 1_000_000_000)];
        long.extend((0..170).map(|number| run(1_000_000_000 + 10 * number, 1)));
        assert_eq!(text(&long).len(), MAX_TEXT);
        IdMaps::both(long.clone()).check().unwrap();
        long.last_mut().unwrap().count = 10;
        let error = IdMaps::both(long).check().unwrap_err().to_string();
        assert!(error.contains("4095 bytes"), "{error}");
        assert!(IdMaps { uids: extents("0:0:1"), gids: Vec::new() }.check().is_err());
    }
}
