//! Ids inside extended attributes: those of access control lists, and the root that a file capability is for.

use crate::sys::userns::{self, IdMaps};

const CAPABILITY: &[u8] = b"security.capability";
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// The revision in a capability's first word, and its mask.
const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
/// How long a capability without and with a root id is.
const LENGTH_2: usize = 20;
const LENGTH_3: usize = 24;

/// The tags of list entries that have an id.
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// Turns the host's ids into the container's. What is not mapped, or has not the form that the kernel writes, stays.
pub(crate) fn to_container(xattrs: &mut [(Vec<u8>, Vec<u8>)], maps: &IdMaps) {
    for (name, value) in xattrs {
        if name == CAPABILITY {
            map_capability(value, maps);
        } else if ACLS.contains(&name.as_slice()) {
            let ids = |map| move |id| userns::to_container(map, id);
            map_acl(value, ids(&maps.uids), ids(&maps.gids));
        }
    }
}

/// An attribute with the host's ids in place of the container's, as an id-mapped mount shows it; `None` if it has none, or
/// is not mapped.
pub(super) fn to_host(name: &[u8], value: &[u8], maps: &IdMaps) -> Option<Vec<u8>> {
    let mut mapped = value.to_vec();
    if name == CAPABILITY {
        let magic = word(value, 0)?;
        let root = match (magic & REVISION_MASK, value.len()) {
            (REVISION_2, LENGTH_2) => 0,
            (REVISION_3, LENGTH_3) => word(value, LENGTH_2)?,
            _ => return None,
        };
        mapped.resize(LENGTH_3, 0);
        put(&mut mapped, 0, magic & !REVISION_MASK | REVISION_3);
        put(&mut mapped, LENGTH_2, userns::to_host(&maps.uids, root)?);
    } else if ACLS.contains(&name) {
        map_acl(&mut mapped, |uid| userns::to_host(&maps.uids, uid), |gid| userns::to_host(&maps.gids, gid));
    }
    Some(mapped).filter(|mapped| mapped != value)
}

/// A capability that root of a user namespace sets has that root's id. For the container it is root, and that is said
/// in the older form, without an id.
fn map_capability(value: &mut Vec<u8>, maps: &IdMaps) {
    let Some(magic) = word(value, 0) else { return };
    let Some(root) = word(value, LENGTH_2).filter(|_| magic & REVISION_MASK == REVISION_3) else { return };
    if value.len() != LENGTH_3 {
        return;
    }
    match userns::to_container(&maps.uids, root) {
        Some(0) => {
            value.truncate(LENGTH_2);
            put(value, 0, magic & !REVISION_MASK | REVISION_2);
        }
        Some(root) => put(value, LENGTH_2, root),
        None => {}
    }
}

fn map_acl(value: &mut [u8], user: impl Fn(u32) -> Option<u32>, group: impl Fn(u32) -> Option<u32>) {
    const HEADER: usize = 4;
    const ENTRY: usize = 8;
    for at in (HEADER..value.len()).step_by(ENTRY) {
        let (Some(head), Some(id)) = (word(value, at), word(value, at.saturating_add(4))) else { return };
        // The tag is the lower half of the first word.
        let mapped = match u16::try_from(head & 0xffff) {
            Ok(ACL_USER) => user(id),
            Ok(ACL_GROUP) => group(id),
            _ => None,
        };
        if let Some(mapped) = mapped {
            put(value, at.saturating_add(4), mapped);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.saturating_add(4))?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(4)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn mapped(name: &[u8], value: Vec<u8>) -> Vec<u8> {
        let maps =
            IdMaps { uids: vec!["0:1000:10".parse().unwrap()], gids: vec!["0:2000:10".parse().unwrap()] };
        let mut xattrs = [(name.to_vec(), value)];
        to_container(&mut xattrs, &maps);
        let [(_, value)] = xattrs;
        value
    }

    #[test]
    fn a_capability_of_the_containers_root_loses_the_hosts_id() {
        let of = |revision, rest: &[u32]| words(&[&[revision | 1, 1, 2, 3, 4], rest].concat());
        for (before, after) in [
            (of(REVISION_3, &[1000]), of(REVISION_2, &[])),
            (of(REVISION_3, &[1003]), of(REVISION_3, &[3])),
            (of(REVISION_3, &[7]), of(REVISION_3, &[7])),
            (of(REVISION_2, &[]), of(REVISION_2, &[])),
            (of(REVISION_3, &[1000, 1]), of(REVISION_3, &[1000, 1])),
            (vec![1, 2], vec![1, 2]),
        ] {
            assert_eq!(mapped(CAPABILITY, before), after);
        }
    }

    #[test]
    fn what_the_host_is_told_comes_back() {
        let maps = IdMaps::both(["0:1000:10".parse().unwrap()]);
        let of = |revision, rest: &[u32]| words(&[&[revision | 1, 1, 2, 3, 4], rest].concat());
        let entry = |tag: u16, id: u32| words(&[u32::from(tag) | 6 << 16, id]);
        let list = [words(&[2]), entry(1, u32::MAX), entry(2, 5), entry(8, 1), entry(2, 77)].concat();
        for (name, inside, outside) in [
            (CAPABILITY, of(REVISION_2, &[]), Some(of(REVISION_3, &[1000]))),
            (CAPABILITY, of(REVISION_3, &[3]), Some(of(REVISION_3, &[1003]))),
            (CAPABILITY, of(REVISION_3, &[77]), None),
            (CAPABILITY, vec![1, 2], None),
            (
                ACLS[1],
                list.clone(),
                Some(
                    [words(&[2]), entry(1, u32::MAX), entry(2, 1005), entry(8, 1001), entry(2, 77)].concat(),
                ),
            ),
            (b"user.note", list, None),
        ] {
            let told = to_host(name, &inside, &maps);
            assert_eq!(told, outside);
            if let Some(told) = told {
                let mut back = [(name.to_vec(), told)];
                to_container(&mut back, &maps);
                assert_eq!(back[0].1, inside);
            }
        }
    }

    #[test]
    fn lists_name_the_containers_ids() {
        let entry = |tag: u16, id: u32| words(&[u32::from(tag) | 6 << 16, id]);
        let list = |entries: &[Vec<u8>]| [words(&[2]), entries.concat()].concat();
        let none = u32::MAX;
        let before = list(&[entry(1, none), entry(2, 1005), entry(2, 5), entry(8, 2001), entry(0x20, none)]);
        let after = list(&[entry(1, none), entry(2, 5), entry(2, 5), entry(8, 1), entry(0x20, none)]);
        for name in ACLS {
            assert_eq!(mapped(name, before.clone()), after);
        }
        assert_eq!(mapped(b"user.note", before.clone()), before);
        assert_eq!(mapped(ACLS[0], vec![2, 0, 0, 0, 2, 0]), [2, 0, 0, 0, 2, 0], "cut short");
    }
}
