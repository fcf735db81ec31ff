//! POSIX access lists, as the kernel keeps them in an attribute.
//!
//! With a list, the group bits of a mode are no longer those of the group: they are the most that the group and everybody on the list
//! can have.

/// The attribute of the list by which access is decided.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";

const VERSION: [u8; 4] = 2u32.to_le_bytes();
const WRITE: u16 = 2;

/// Whom a list lets write, besides the owner and everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writer {
    /// A user.
    User(u32),
    /// The group of the file.
    OwnGroup,
    /// Another group.
    Group(u32),
}

/// Whom the list lets write; `None` if it is no list that the kernel writes.
pub(crate) fn writers(list: &[u8]) -> Option<Vec<Writer>> {
    let entries = list.strip_prefix(&VERSION)?;
    let (entries, []) = entries.as_chunks::<8>() else { return None };
    let (mut writers, mut mask, mut last) = (Vec::new(), None, 0);
    for &[tag_low, tag_high, low, high, id @ ..] in entries {
        let (tag, permissions) = (u16::from_le_bytes([tag_low, tag_high]), u16::from_le_bytes([low, high]));
        let id = u32::from_le_bytes(id);
        // They stand in this order, and only users and groups that are named may be several.
        let is_named = matches!(tag, 0x02 | 0x08);
        if permissions > 7 || tag < last || tag == last && !is_named {
            return None;
        }
        last = tag;
        let writer = match tag {
            0x01 | 0x20 => None,
            0x02 => Some(Writer::User(id)),
            0x04 => Some(Writer::OwnGroup),
            0x08 => Some(Writer::Group(id)),
            0x10 => {
                mask = Some(permissions);
                None
            }
            _ => return None,
        };
        writers.extend(writer.filter(|_| permissions & WRITE != 0));
    }
    // The last of each list is what everybody has.
    let is_complete = last == 0x20;
    let is_masked_out = mask.is_some_and(|mask| mask & WRITE == 0);
    is_complete.then(|| if is_masked_out { Vec::new() } else { writers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_list_says_who_writes() {
        let none = u32::MAX;
        let long = |mask| {
            list(&[
                (0x01, 7, none),
                (0x02, 7, 7),
                (0x02, 5, 8),
                (0x04, 7, none),
                (0x08, 6, 9),
                (0x10, mask, none),
                (0x20, 0, none),
            ])
        };
        assert_eq!(writers(&long(7)).unwrap(), [Writer::User(7), Writer::OwnGroup, Writer::Group(9)]);
        assert_eq!(writers(&long(5)).unwrap(), []);
        let short = list(&[(0x01, 7, none), (0x04, 5, none), (0x20, 5, none)]);
        assert_eq!(writers(&short).unwrap(), []);
    }

    #[test]
    fn what_is_no_list_says_nothing() {
        let whole = list(&[(0x01, 7, 0), (0x04, 7, 0), (0x20, 5, 0)]);
        for cut in 0..whole.len() {
            assert_eq!(writers(&whole[..cut]), None, "{cut}");
        }
        for bad in [
            list(&[(0x04, 7, 0), (0x01, 7, 0), (0x20, 5, 0)]),
            list(&[(0x01, 7, 0), (0x04, 7, 0), (0x04, 7, 0), (0x20, 5, 0)]),
            list(&[(0x01, 8, 0), (0x04, 7, 0), (0x20, 5, 0)]),
            list(&[(0x01, 7, 0), (0x04, 7, 0), (0x40, 5, 0)]),
            list(&[(0x01, 7, 0), (0x04, 7, 0)]),
        ] {
            assert_eq!(writers(&bad), None);
        }
        let other_version = [&3u32.to_le_bytes(), &whole[4..]].concat();
        assert_eq!(writers(&other_version), None);
    }
}
