//! How the owners of files look from the other side: from outside for a process in a user namespace, from inside for
//! one that could enter one.

use std::path::Path;

use super::ranges::Ranges;
use super::{IdExtent, idmap, in_user_namespace};

/// Turns ids of this process into those that the other side has for the same owners.
#[derive(Debug)]
pub(crate) struct OtherSide {
    uids: Vec<IdExtent>,
    gids: Vec<IdExtent>,
}

impl OtherSide {
    /// What the other side of this process is. `None` for the machine's root, who needs no namespace, and if the id
    /// map cannot be read.
    pub(crate) fn of_this_process() -> Option<Self> {
        if in_user_namespace() {
            let read = |file| idmap::read(Path::new(file)).ok();
            return Some(OtherSide { uids: read("/proc/self/uid_map")?, gids: read("/proc/self/gid_map")? });
        }
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid == 0 {
            return None;
        }
        let single = |id| vec![IdExtent { inside: 0, outside: id, count: 1 }];
        let (uids, gids) = Ranges::of_caller(uid, gid)
            .map_or_else(|_| (single(uid), single(gid)), |ranges| ranges.into_maps());
        let turned = |map: Vec<IdExtent>| {
            let turn =
                |extent: IdExtent| IdExtent { inside: extent.outside, outside: extent.inside, ..extent };
            map.into_iter().map(turn).collect()
        };
        Some(OtherSide { uids: turned(uids), gids: turned(gids) })
    }

    /// The same user over there; the same number if it has none.
    pub(crate) fn user(&self, id: u32) -> u32 {
        translate(&self.uids, id)
    }

    /// The same group over there; the same number if it has none.
    pub(crate) fn group(&self, id: u32) -> u32 {
        translate(&self.gids, id)
    }
}

fn translate(map: &[IdExtent], id: u32) -> u32 {
    let found = map.iter().find_map(|extent| {
        let offset = id.checked_sub(extent.inside).filter(|offset| *offset < extent.count)?;
        extent.outside.checked_add(offset)
    });
    found.unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_translated_by_extents() {
        let map = [
            IdExtent { inside: 0, outside: 1000, count: 1 },
            IdExtent { inside: 1, outside: 100_000, count: 65536 },
        ];
        assert_eq!([0, 1, 65536, 70_000].map(|id| translate(&map, id)), [1000, 100_000, 165_535, 70_000]);
    }
}
