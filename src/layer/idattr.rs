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
            map_acl(value, maps);
        }
    }
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

fn map_acl(value: &mut [u8], maps: &IdMaps) {
    const HEADER: usize = 4;
    const ENTRY: usize = 8;
    for at in (HEADER..value.len()).step_by(ENTRY) {
        let (Some(head), Some(id)) = (word(value, at), word(value, at.saturating_add(4))) else { return };
        // The tag is the lower half of the first word.
        let mapped = match u16::try_from(head & 0xffff) {
            Ok(ACL_USER) => userns::to_container(&maps.uids, id),
            Ok(ACL_GROUP) => userns::to_container(&maps.gids, id),
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
