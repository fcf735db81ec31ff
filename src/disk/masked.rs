//! Modes and owners that are kept in an attribute, because what is on the disk has others: the form that diff directories have
//! with `force_mask`.
//!
//! A file or directory has the same mode as all others then, and the owner of who made it; what it is in its layer stands in the
//! attributes [`OVERRIDE`] and [`OVERRIDE_OF_PROGRAM`], as `uid:gid:mode`, the mode in octal with a zero before it. A device, pipe or socket is an empty file
//! whose attribute has a fourth part. Programs such as fuse-overlayfs show what the attribute says (of files and directories: a device,
//! pipe or socket is an empty file in a mount of fuse-overlayfs 1.10); overlayfs of the kernel does not know it. A symbolic link can have no such attribute, and is as ever.
//!
//! The kernel makes the mode of a file and its access control list agree, so a list on the disk would become another one with the
//! mask, and the mask another mode. It is kept in an attribute, too ([`KEPT_ACLS`]), which programs do not show as a list.
//!
//! A diff directory says itself which form it has: in this one its root has a mark among the attributes that are overlayfs' own, which
//! nobody can set through a mount. So the form is no part of what a layer is,
//! equal trees have one digest in both, and who reads a diff directory gets the same of both.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use super::overlay_form::{DEFAULT_ACL, Meaning, XattrNamespace};
use crate::sys::node;
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};

/// The attribute, under the name by which programs for containers know it.
const OVERRIDE: &[u8] = b"user.containers.override_stat";

/// The same, under the name by which fuse-overlayfs writes it. Where a root has both, it reads this one alone, for all of the
/// directory; what it has changed is in this one.
const OVERRIDE_OF_PROGRAM: &[u8] = b"user.fuseoverlayfs.override_stat";

/// Access control lists, and what they are kept as. These are attributes of users, so that a program that copies a file to another
/// layer takes them along.
const KEPT_ACLS: [(&[u8], &[u8]); 2] = [
    (b"system.posix_acl_access", b"user.layerstore.acl_access"),
    (DEFAULT_ACL, b"user.layerstore.acl_default"),
];

/// Whether an attribute has one of these names, which no layer brings or takes.
pub(super) fn is_override(name: &[u8]) -> bool {
    [OVERRIDE, OVERRIDE_OF_PROGRAM].contains(&name) || KEPT_ACLS.iter().any(|(_, kept)| *kept == name)
}

/// The names of a file's attributes, and what they mean; `masked` tells the form of the directory that it is in.
pub(super) fn attributes(
    target: Target<'_>,
    namespace: XattrNamespace,
    masked: bool,
) -> io::Result<Vec<(Vec<u8>, Meaning)>> {
    let names = xattr::list(target)?;
    let mut found = Vec::with_capacity(names.len());
    for name in &names {
        let list = KEPT_ACLS.iter().find(|(_, kept)| masked && kept == name).map(|(list, _)| *list);
        let meaning = match list {
            // One that was set through a mount is newer. A container can write anything into the attribute.
            Some(list)
                if !names.iter().any(|name| name == list)
                    && xattr::get(target, name)?.is_some_and(|value| is_access_list(&value)) =>
            {
                Meaning::Own(list.to_vec())
            }
            _ => namespace.meaning(name),
        };
        found.push((name.clone(), meaning));
    }
    Ok(found)
}

/// The name under which a layer's attribute is stored in a directory of this form; `None` if it is not.
pub(super) fn stored_name(namespace: XattrNamespace, name: &[u8], masked: bool) -> Option<Vec<u8>> {
    match KEPT_ACLS.iter().find(|(list, _)| masked && *list == name) {
        Some((_, kept)) => Some(kept.to_vec()),
        None => namespace.stored_name(name),
    }
}

/// Keeps an access control list that a layer brings for a file whose mode stands in the attribute already: what the kernel makes of
/// the two where they are on the disk. Returns whether it is one.
pub(super) fn keep_access_list(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<bool> {
    let Some((_, kept)) = KEPT_ACLS.iter().find(|(list, _)| *list == name) else { return Ok(false) };
    let target = Target::File(file);
    let found = stat::stat(file)?;
    let mode = reveal(target, &found)?.mode & 0o777;
    xattr::set(target, name, value)?;
    node::set_mode(file, mode)?;
    let list = xattr::get(target, name)?;
    xattr::remove(target, name)?;
    node::set_mode(file, found.mode)?;
    match list {
        Some(list) => xattr::set(target, kept, &list)?,
        // One that says no more than the mode is none.
        None => xattr::remove(target, kept)?,
    }
    Ok(true)
}

/// Whether the kernel would take a value for an access control list.
fn is_access_list(value: &[u8]) -> bool {
    let [owner, user, owning_group, group, mask, other] = [1, 2, 4, 8, 16, 32];
    let Some(entries) = value.strip_prefix(&2_u32.to_le_bytes()) else { return false };
    let entries = entries.chunks(8).map(|entry| match *entry {
        [tag, 0, rights @ 0..=7, 0, a, b, c, d] => {
            Some((u16::from(tag), rights, u32::from_le_bytes([a, b, c, d])))
        }
        _ => None,
    });
    let Some(entries) = entries.collect::<Option<Vec<_>>>() else { return false };
    let count = |wanted: u16| entries.iter().filter(|(tag, ..)| *tag == wanted).count();
    let is_named = |tag: u16| tag == user || tag == group;
    let named = count(user).saturating_add(count(group));
    let known = [owner, owning_group, mask, other].map(count);
    entries.is_sorted_by_key(|(tag, ..)| *tag)
        && entries.iter().all(|(tag, _, id)| !is_named(*tag) || *id != u32::MAX)
        && matches!(known, [1, 1, 0..=1, 1])
        && (named == 0 || count(mask) == 1)
        && known.iter().sum::<usize>().saturating_add(named) == entries.len()
}

/// What a file is in its layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Override {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u16,
    /// For what is an empty file on the disk.
    pub(super) special: Option<Special>,
}

/// A kind of file, with its numbers if it is a device.
pub(super) type Special = (FileType, (u32, u32));

impl Override {
    /// What `found` is in a layer that has it as it is on the disk.
    pub(super) fn of(found: &Stat) -> Self {
        let special = match found.kind {
            FileType::RegularFile | FileType::Directory | FileType::Symlink => None,
            kind => Some((kind, found.device)),
        };
        Override { uid: found.uid, gid: found.gid, mode: found.mode, special }
    }

    fn text(self) -> String {
        let Override { uid, gid, mode, special } = self;
        let kind = match special {
            None => String::new(),
            Some((FileType::CharacterDevice, (major, minor))) => format!(":char-{major}-{minor}"),
            Some((FileType::BlockDevice, (major, minor))) => format!(":block-{major}-{minor}"),
            Some((FileType::Fifo, _)) => ":pipe".to_owned(),
            Some(_) => ":socket".to_owned(),
        };
        format!("{uid}:{gid}:0{mode:o}{kind}")
    }

    /// Reads a value. A container can write anything there: what is none is `None`.
    fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.trim_end_matches('\0').split(':');
        let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        // Other programs write the kind of the file into the mode.
        let mode = u32::from_str_radix(parts.next()?, 8).ok()? & 0o7777;
        let special = match parts.next() {
            None | Some("file" | "dir" | "symlink") => None,
            Some("pipe") => Some((FileType::Fifo, (0, 0))),
            Some("socket") => Some((FileType::Socket, (0, 0))),
            Some(device) => Some(parse_device(device)?),
        };
        Some(Override { uid, gid, mode: u16::try_from(mode).ok()?, special })
    }

    /// Says of a file what it is in its layer. Its mode on the disk is set by itself.
    pub(super) fn write(self, target: Target<'_>) -> io::Result<()> {
        let text = self.text();
        xattr::set(target, OVERRIDE, text.as_bytes())?;
        xattr::set(target, OVERRIDE_OF_PROGRAM, text.as_bytes())
    }
}

fn parse_device(text: &str) -> Option<Special> {
    let mut parts = text.split('-');
    let kind = match parts.next()? {
        "char" => FileType::CharacterDevice,
        "block" => FileType::BlockDevice,
        _ => return None,
    };
    let device = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    // Such a device would be a whiteout.
    let is_whiteout = (kind, device) == (FileType::CharacterDevice, (0, 0));
    (!is_whiteout && node::is_device_number(device)).then_some((kind, device))
}

/// The mode that everything in a diff directory has on the disk; `None` if all have their own.
pub(crate) fn mask_of(root: BorrowedFd<'_>, namespace: XattrNamespace) -> io::Result<Option<u16>> {
    Ok(match xattr::get(Target::File(root), namespace.masked())? {
        Some(_) => Some(stat::stat(root)?.mode & 0o777),
        None => None,
    })
}

/// Lets an empty diff directory have this form.
pub(super) fn begin(root: BorrowedFd<'_>, namespace: XattrNamespace, mask: u16) -> io::Result<()> {
    xattr::set(Target::File(root), namespace.masked(), b"y")?;
    let of_root = Override { uid: 0, gid: 0, mode: 0o755, special: None };
    of_root.write(Target::File(root))?;
    node::set_mode(root, mask)
}

/// What a file of a directory in this form is in its layer.
pub(super) fn reveal(target: Target<'_>, found: &Stat) -> io::Result<Stat> {
    if !matches!(found.kind, FileType::RegularFile | FileType::Directory) {
        return Ok(*found);
    }
    let told = |name| Ok::<_, io::Error>(xattr::get(target, name)?.as_deref().and_then(Override::parse));
    let told = match told(OVERRIDE_OF_PROGRAM)? {
        None => told(OVERRIDE)?,
        told => told,
    };
    let Some(told) = told else { return Ok(*found) };
    let mut revealed = Stat { uid: told.uid, gid: told.gid, mode: told.mode, ..*found };
    if let Some((kind, device)) =
        told.special.filter(|_| found.kind == FileType::RegularFile && found.size == 0)
    {
        (revealed.kind, revealed.device) = (kind, device);
    }
    Ok(revealed)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    use super::super::fixture::{
        Place, access_list, metadata, namespace, path, raw_xattrs, with_xattrs, write_file,
    };
    use super::super::tree_writer::UnpackOptions;
    use super::*;
    use crate::types::RelPath;

    #[test]
    fn what_stands_in_the_attribute_comes_back() {
        let plain = Override { uid: 0, gid: 7, mode: 0o4755, special: None };
        assert_eq!(plain.text(), "0:7:04755");
        let kinds = [
            (FileType::CharacterDevice, (1, 3)),
            (FileType::BlockDevice, (8, 0)),
            (FileType::Fifo, (0, 0)),
            (FileType::Socket, (0, 0)),
        ];
        for special in kinds.map(Some).into_iter().chain([None]) {
            let told = Override { special, ..plain };
            assert_eq!(Override::parse(told.text().as_bytes()), Some(told));
        }
    }

    /// What an archive says of lists and modes is the same in both forms, and in copies from one to the other.
    #[test]
    fn access_lists_are_those_of_the_layer() {
        let list = access_list(rustix::process::geteuid().as_raw());
        let probe = Place::new();
        if let Err(why) = xattr::set(Target::File(probe.open("diff").as_fd()), DEFAULT_ACL, &list)
            .and_then(|()| xattr::set(Target::File(probe.open("diff").as_fd()), OVERRIDE, b"0:0:0755"))
        {
            return eprintln!("skipped: no access lists, or no attributes of users: {why}");
        }
        let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
        let no_more_than_the_mode = [&list[..12], &list[20..28], &list[36..]].concat();
        let unpack = |mask: Option<u16>| {
            let place = Place::new();
            let root = place.open("diff");
            mask.iter().for_each(|mask| begin(root.as_fd(), namespace(), *mask).unwrap());
            let mut tree = place.writer(UnpackOptions { mask, ..UnpackOptions::strict(namespace()) });
            tree.directory(&RelPath::root(), &with_xattrs(0o755, &[(default, &list)])).unwrap();
            tree.directory(&path("dir"), &with_xattrs(0o2731, &[(access, &list), (default, &list)])).unwrap();
            tree.directory(&path("twice"), &with_xattrs(0o755, &[(default, &list)])).unwrap();
            tree.directory(&path("twice"), &metadata(0o755)).unwrap();
            write_file(&mut tree, "dir/file", b"x", &with_xattrs(0o674, &[(access, &list)])).unwrap();
            let bare = with_xattrs(0o674, &[(access, &no_more_than_the_mode)]);
            write_file(&mut tree, "dir/bare", b"x", &bare).unwrap();
            tree.finish().unwrap();
            place
        };
        let (plain, masked) = (unpack(None), unpack(Some(0o751)));
        let expected = plain.manifest("diff");
        assert_eq!(expected.get(b"dir/file").unwrap().metadata.xattrs.len(), 1);
        assert_eq!(masked.manifest("diff"), expected);
        let assert_masked = |at: &std::path::Path| {
            assert_eq!(std::fs::metadata(at).unwrap().permissions().mode() & 0o777, 0o751);
            assert!(raw_xattrs(at).into_keys().all(|name| !name.starts_with("system.")));
        };
        ["diff", "diff/dir", "diff/dir/file"].iter().for_each(|name| assert_masked(&masked.path(name)));
        for (from, mask) in [(&plain, None), (&plain, Some(0o751)), (&masked, None), (&masked, Some(0o751))] {
            let copy = Place::new();
            let (from, to) = (from.open("diff"), copy.open("diff"));
            mask.iter().for_each(|mask| begin(to.as_fd(), namespace(), *mask).unwrap());
            crate::disk::inherit_root(from.as_fd(), to.as_fd(), namespace()).unwrap();
            crate::disk::copy_below(from.as_fd(), to.as_fd(), namespace()).unwrap();
            assert_eq!(copy.manifest("diff"), expected, "{mask:?}");
            mask.iter().for_each(|_| assert_masked(&copy.path("diff/dir/file")));
        }
    }

    /// A list that was set through a mount counts, and what is none does not.
    #[test]
    fn what_a_container_does_to_a_list_is_read() {
        let place = Place::new();
        let (root, list) = (place.open("diff"), access_list(rustix::process::geteuid().as_raw()));
        let kept = KEPT_ACLS[0].1;
        if let Err(why) = begin(root.as_fd(), namespace(), 0o755)
            .and_then(|()| xattr::set(Target::File(root.as_fd()), KEPT_ACLS[0].0, &list))
        {
            return eprintln!("skipped: no access lists, or no attributes of users: {why}");
        }
        let shown = || {
            let attributes = attributes(Target::File(root.as_fd()), namespace(), true).unwrap();
            let own = attributes.into_iter().filter(|(_, meaning)| matches!(meaning, Meaning::Own(_)));
            own.map(|(name, _)| name).collect::<Vec<_>>()
        };
        xattr::set(Target::File(root.as_fd()), kept, &list).unwrap();
        assert_eq!(shown(), [KEPT_ACLS[0].0]);
        xattr::remove(Target::File(root.as_fd()), KEPT_ACLS[0].0).unwrap();
        assert_eq!(shown(), [kept]);
        xattr::set(Target::File(root.as_fd()), kept, b"garbage").unwrap();
        assert_eq!(shown(), [b""; 0]);
    }

    #[test]
    fn a_list_is_one_that_the_kernel_takes() {
        let list = access_list(5);
        assert!(is_access_list(&list));
        let without = |at: usize| [&list[..at], &list[at + 8..]].concat();
        // The named user, and with that the mask.
        assert!(is_access_list(&[&list[..12], &list[20..28], &list[36..]].concat()));
        let changed = |at: usize, byte: u8| {
            let mut list = list.clone();
            list[at] = byte;
            list
        };
        let swapped = [&list[..4], &list[12..20], &list[4..12], &list[20..]].concat();
        for bad in [
            without(4),
            without(20),
            without(28),
            without(36),
            changed(0, 1),
            changed(6, 8),
            changed(12, 3),
            changed(5, 1),
            swapped,
            access_list(u32::MAX),
            list[..43].to_vec(),
            [&list[..], &list[36..]].concat(),
            b"y".to_vec(),
            Vec::new(),
        ] {
            assert!(!is_access_list(&bad), "{bad:?}");
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let of = |text: &str| Override::parse(text.as_bytes());
        let expected = Override { uid: 1, gid: 2, mode: 0o755, special: None };
        for text in ["1:2:0755", "1:2:755", "1:2:0040755", "1:2:0100755:file", "1:2:0755:dir"] {
            assert_eq!(of(text), Some(expected), "{text}");
        }
        for text in ["", "1:2", "a:2:0755", "1:2:9", "1:2:0755:char-0-0", "1:2:0755:tape", "-1:2:0755"] {
            assert_eq!(of(text), None, "{text}");
        }
        // The kernel would make others of them, of the first a whiteout.
        for text in ["char-4096-0", "char-0-1048576", "block-4096-0", "char-4294967295-4294967295"] {
            assert_eq!(of(&format!("1:2:0755:{text}")), None, "{text}");
        }
        let largest = Some((FileType::CharacterDevice, (4095, 1_048_575)));
        assert_eq!(of("1:2:0755:char-4095-1048575"), Some(Override { special: largest, ..expected }));
    }
}
