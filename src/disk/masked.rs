//! Modes and owners that are kept in an attribute, because what is on the disk has others: the form that diff directories have
//! with `force_mask`.
//!
//! A file or directory has the same mode as all others then, and the owner of who made it; what it is in its layer stands in the
//! attributes [`OVERRIDE`] and [`OVERRIDE_OF_PROGRAM`], as `uid:gid:mode`, the mode in octal with a zero before it. A device, pipe or socket is an empty file
//! whose attribute has a fourth part. Programs such as fuse-overlayfs show what the attribute says (of files and directories: a device,
//! pipe or socket is an empty file in a mount of fuse-overlayfs 1.10); overlayfs of the kernel does not know it. A symbolic link can have no such attribute, and is as ever.
//!
//! A diff directory says itself which form it has: in this one its root has a mark among the attributes that are overlayfs' own, which
//! nobody can set through a mount. So the form is no part of what a layer is,
//! equal trees have one digest in both, and who reads a diff directory gets the same of both.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use super::overlay_form::XattrNamespace;
use crate::sys::node;
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};

/// The attribute, under the name by which programs for containers know it.
const OVERRIDE: &[u8] = b"user.containers.override_stat";

/// The same, under the name by which fuse-overlayfs writes it. Where a root has both, it reads this one alone, for all of the
/// directory; what it has changed is in this one.
const OVERRIDE_OF_PROGRAM: &[u8] = b"user.fuseoverlayfs.override_stat";

/// Whether an attribute has one of these names, which no layer brings or takes.
pub(super) fn is_override(name: &[u8]) -> bool {
    [OVERRIDE, OVERRIDE_OF_PROGRAM].contains(&name)
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
    (kind, device).ne(&(FileType::CharacterDevice, (0, 0))).then_some((kind, device))
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
    use super::*;

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
    }
}
