//! How overlayfs marks whiteouts and opaque directories, and what else it keeps in xattrs.
//!
//! A mount reads the xattrs of one namespace: `trusted.overlay.*`, or `user.overlay.*` with the option
//! `userxattr`. What a layer brings under those names is stored with a second `overlay.` in it, which
//! overlayfs shows to users without, and takes for nothing (kernel documentation of overlayfs, "Nesting
//! overlayfs mounts").

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use super::masked::is_override;
use super::program_marks::is_of_program;
use crate::error::ScanError;
use crate::error::is_denied;
use crate::sys::handle::Handle;
use crate::sys::stat::Stat;
use crate::sys::xattr::{self, Target};

/// The xattrs that overlay mounts of a store use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum XattrNamespace {
    /// `trusted.overlay.*`: needs `CAP_SYS_ADMIN` on the machine.
    Trusted,
    /// `user.overlay.*`: in user namespaces.
    User,
}

/// Whether a diff directory's root hides all layers below.
pub(crate) fn is_opaque(root: BorrowedFd<'_>, namespace: XattrNamespace) -> Result<bool, ScanError> {
    let value = xattr::get(Target::File(root), namespace.opaque());
    let value = value.map_err(super::walk::failed(b".", "read the opaque mark of"))?;
    Ok(value.as_deref() == Some(OPAQUE))
}

/// The value of the opaque xattr on an opaque directory.
pub(super) const OPAQUE: &[u8] = b"y";
/// The value of the opaque xattr on a directory with whiteouts in xattr form.
pub(super) const HAS_XATTR_WHITEOUTS: &[u8] = b"x";

/// Inherited by everything made in the directory, so it is set when nothing more is.
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Attributes that the host's security modules put on every file of their own accord. They say something of
/// the machine, not of the layer: they are neither taken from layers nor found in directories.
const OF_THE_HOST: [&[u8]; 4] = [b"security.selinux", b"security.ima", b"security.evm", b"security.SMACK64"];

/// What a name means that an xattr of a diff directory has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// An attribute of the layer, with its name unescaped.
    Own(Vec<u8>),
    /// Whether the directory is opaque, or has whiteouts in xattr form.
    Opaque,
    /// The file is a whiteout.
    Whiteout,
    /// What the directory, or the file's content, is merged with lies at another path below.
    Redirect,
    /// The file's content lies below.
    Metacopy,
    /// Which inode below it was copied from.
    Origin,
    /// How many names the file has in the mount, told by how many it has here.
    Links,
    /// Overlayfs', a mount program's or the host's own affair.
    Private,
}

impl XattrNamespace {
    /// The prefix of what overlayfs reads.
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => b"trusted.overlay.",
            XattrNamespace::User => b"user.overlay.",
        }
    }

    pub(super) fn opaque(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => b"trusted.overlay.opaque",
            XattrNamespace::User => b"user.overlay.opaque",
        }
    }

    /// On the root of a diff directory whose modes and owners stand in an attribute; no name that overlayfs knows.
    pub(super) fn masked(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => b"trusted.overlay.layerstore.masked",
            XattrNamespace::User => b"user.overlay.layerstore.masked",
        }
    }

    /// The mark of a diff directory that a mount program writes to; no name that overlayfs knows.
    pub(super) fn by_program(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => b"trusted.overlay.layerstore.program",
            XattrNamespace::User => b"user.overlay.layerstore.program",
        }
    }

    /// What says the same to mounts of the other class. In this store it is an attribute like others, and the kernel reads it so; a mount
    /// program knows both.
    pub(super) fn opaque_elsewhere(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => XattrNamespace::User.opaque(),
            XattrNamespace::User => XattrNamespace::Trusted.opaque(),
        }
    }

    pub(super) fn whiteout(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => b"trusted.overlay.whiteout",
            XattrNamespace::User => b"user.overlay.whiteout",
        }
    }

    pub(crate) fn redirect(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => b"trusted.overlay.redirect",
            XattrNamespace::User => b"user.overlay.redirect",
        }
    }

    pub(super) fn metacopy(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => b"trusted.overlay.metacopy",
            XattrNamespace::User => b"user.overlay.metacopy",
        }
    }

    pub(super) fn links(self) -> &'static [u8] {
        match self {
            XattrNamespace::Trusted => b"trusted.overlay.nlink",
            XattrNamespace::User => b"user.overlay.nlink",
        }
    }

    /// The name under which a layer's attribute is stored; `None` if it is not.
    pub(crate) fn stored_name(self, name: &[u8]) -> Option<Vec<u8>> {
        if is_no_layers(name) {
            return None;
        }
        Some(match name.strip_prefix(self.prefix()) {
            Some(rest) => [self.prefix(), b"overlay.", rest].concat(),
            None => name.to_vec(),
        })
    }

    /// The reverse of [`stored_name`](Self::stored_name).
    pub(super) fn meaning(self, name: &[u8]) -> Meaning {
        let Some(rest) = name.strip_prefix(self.prefix()) else {
            return if is_no_layers(name) { Meaning::Private } else { Meaning::Own(name.to_vec()) };
        };
        match rest {
            b"opaque" => Meaning::Opaque,
            b"whiteout" => Meaning::Whiteout,
            b"redirect" => Meaning::Redirect,
            b"metacopy" => Meaning::Metacopy,
            b"origin" => Meaning::Origin,
            b"nlink" => Meaning::Links,
            _ => match rest.strip_prefix(b"overlay.") {
                Some(own) => Meaning::Own([self.prefix(), own].concat()),
                None => Meaning::Private,
            },
        }
    }
}

/// Whether no layer brings or takes an attribute of this name: it is the host's, or a mount program's.
fn is_no_layers(name: &[u8]) -> bool {
    OF_THE_HOST.contains(&name) || is_override(name) || is_of_program(name)
}

/// The handle in the value of an `origin`: a header of 5 bytes (version, magic, length, flags, kind), the UUID of the
/// filesystem, and the handle's own bytes.
pub(super) fn origin_handle(value: &[u8]) -> Option<Handle> {
    const MAGIC: u8 = 0xfb;
    const HEADER: usize = 5 + 16;
    let [0, MAGIC, length, _, kind, ..] = *value else { return None };
    let bytes = value.get(HEADER..usize::from(length))?.to_vec();
    Some(Handle { kind: kind.into(), bytes })
}

/// How many names more than on the disk the value of an `nlink` says that a mount shows; negative if fewer.
pub(super) fn more_links(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value.strip_prefix(b"U")?).ok()?.parse().ok()
}

/// Whether this is a whiteout in either form.
pub(super) fn is_whiteout(stat: &Stat, target: Target<'_>, namespace: XattrNamespace) -> io::Result<bool> {
    match stat.kind {
        FileType::CharacterDevice => Ok(stat.device == (0, 0)),
        FileType::RegularFile if stat.size == 0 => match xattr::get(target, namespace.whiteout()) {
            // Names of attributes are told whatever the mode.
            Err(error) if is_denied(&error) => {
                Ok(xattr::list(target)?.iter().any(|name| name == namespace.whiteout()))
            }
            mark => Ok(mark?.is_some()),
        },
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_own_overlay_xattrs_come_back() {
        for namespace in [XattrNamespace::Trusted, XattrNamespace::User] {
            for name in [
                &b"trusted.overlay.opaque"[..],
                b"user.overlay.opaque",
                b"user.overlay.overlay.redirect",
                b"trusted.overlay.",
                b"user.note",
                b"security.capability",
            ] {
                let stored = namespace.stored_name(name).unwrap();
                assert_eq!(namespace.meaning(&stored), Meaning::Own(name.to_vec()));
            }
            for name in [
                &b"security.selinux"[..],
                b"user.containers.override_stat",
                b"user.fuseoverlayfs.opaque",
                b"security.fuseoverlayfs.override_stat",
                b"user.layerstore.acl_access",
                b"user.fuseoverlayfs.origin",
            ] {
                assert_eq!(namespace.stored_name(name), None);
                assert_eq!(namespace.meaning(name), Meaning::Private);
            }
        }
    }

    #[test]
    fn what_overlayfs_notes_of_links_is_understood() {
        for (value, more) in
            [("U+0", Some(0)), ("U-12", Some(-12)), ("U+3", Some(3)), ("L+1", None), ("", None), ("U", None)]
        {
            assert_eq!(more_links(value.as_bytes()), more, "{value}");
        }
        let mut value = vec![0, 0xfb, 24, 1, 7];
        value.extend([9; 16]);
        value.extend([1, 2, 3]);
        assert_eq!(origin_handle(&value), Some(Handle { kind: 7, bytes: vec![1, 2, 3] }));
        for bad in [&value[..20], &value[..23], &value[1..], &[]] {
            assert_eq!(origin_handle(bad), None);
        }
    }

    #[test]
    fn only_the_mounts_own_namespace_means_something() {
        assert_eq!(XattrNamespace::User.meaning(b"user.overlay.redirect"), Meaning::Redirect);
        assert_eq!(XattrNamespace::User.meaning(b"user.overlay.impure"), Meaning::Private);
        let other = b"trusted.overlay.redirect".to_vec();
        assert_eq!(XattrNamespace::User.meaning(&other), Meaning::Own(other.clone()));
    }
}
