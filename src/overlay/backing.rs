//! The filesystem below: what it is called, and why overlay mounts on it are none, or not right.
//!
//! Whether it does is tried out (`probe`). What it is called only explains why not: the kernel says `EINVAL`.

use std::io;
use std::path::Path;

use super::probe::Probe;
use crate::error::MountError;
use crate::sys::path;

/// The filesystem that a store lies on, as far as overlay mounts mind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backing {
    /// Its name, such as `ext4`; for one that is not known here, its magic number in hexadecimal digits.
    pub filesystem: String,
    /// Why the kernel's overlayfs cannot have layers on it that are written to, or must not; `None` if it can.
    pub objection: Option<&'static str>,
}

/// Filesystems by their magic numbers (`linux/magic.h`), with what overlayfs has against them.
const KNOWN: [(u32, &str, Option<&str>); 30] = [
    (0xef53, "ext4", None),
    (0x5846_5342, "xfs", None),
    (0x9123_683e, "btrfs", None),
    (0x0102_1994, "tmpfs", None),
    (0xf2f5_2010, "f2fs", None),
    (0xca45_1a4e, "bcachefs", None),
    (0x8584_58f6, "ramfs", Some("it keeps no extended attributes")),
    (0x2fc1_2fc1, "zfs", Some("OpenZFS works with overlayfs from its release 2.2")),
    (0x794c_7630, "overlay", Some("it is an overlay mount itself, as the root of a container is")),
    (0x6175_6673, "aufs", Some("it is a union of directories itself")),
    (0xf15f, "ecryptfs", Some("it shows other names than it stores, and has no whiteouts")),
    (0x6969, "nfs", Some(REMOTE)),
    (0xff53_4d42, "cifs", Some(REMOTE)),
    (0xfe53_4d42, "smb2", Some(REMOTE)),
    (0x517b, "smbfs", Some(REMOTE)),
    (0x00c3_6400, "ceph", Some(REMOTE)),
    (0x0102_1997, "9p", Some(REMOTE)),
    (0x5346_414f, "afs", Some(REMOTE)),
    (0x0bd0_0bd0, "lustre", Some(REMOTE)),
    (0x4750_4653, "gpfs", Some(REMOTE)),
    (0x7461_636f, "ocfs2", Some(REMOTE)),
    (0xaad7_aaea, "panfs", Some(REMOTE)),
    (0x786f_4256, "vboxsf", Some(REMOTE)),
    (0x6163_6673, "acfs", Some(REMOTE)),
    (
        0x6573_5546,
        "fuse",
        Some("most filesystems in programs, virtiofs too, cannot replace a name by a whiteout"),
    ),
    (0x4d44, "vfat", Some(PLAIN)),
    (0x2011_bab0, "exfat", Some(PLAIN)),
    (0x7366_746e, "ntfs", Some(PLAIN)),
    (0x7371_7368, "squashfs", Some(READ_ONLY)),
    (0xe0f5_e1e2, "erofs", Some(READ_ONLY)),
];

const REMOTE: &str = "other machines change it without this kernel's knowledge";
const PLAIN: &str = "it has no owners, modes and extended attributes";
const READ_ONLY: &str = "it is only read";
const NO_KINDS: &str = "its directories do not tell what kind a name is of (d_type), so whiteouts would be seen as files; \
                        format it anew, XFS with -n ftype=1 and ext4 with -O filetype";
const REFUSED: &str = "the kernel refuses it, or does not keep that a directory is opaque";

impl Backing {
    /// The filesystem that `path` lies on, with what was tried out there.
    pub(crate) fn of(path: &Path, probe: &Probe) -> io::Result<Backing> {
        Ok(Backing::with_magic(path::filesystem(path)?, probe))
    }

    fn with_magic(magic: u32, probe: &Probe) -> Backing {
        let known = KNOWN.iter().find(|(known, ..)| *known == magic);
        let filesystem = known.map_or_else(|| format!("{magic:#x}"), |(_, name, _)| (*name).to_owned());
        let objection = match known.and_then(|(.., objection)| *objection) {
            // What works is right, whatever is said of others of the name.
            _ if probe.overlay => None,
            // Then nothing was tried.
            objection if !probe.privileged => objection,
            _ if !probe.kinds_of_names => Some(NO_KINDS),
            objection => objection.or(Some(REFUSED)),
        };
        Backing { filesystem, objection }
    }
}

/// Makes [`MountError::NoMethod`] say what is wrong with the filesystem, if that is the reason.
pub(crate) fn explain(error: MountError, path: &Path, probe: &Probe) -> MountError {
    match (error, Backing::of(path, probe)) {
        (MountError::NoMethod, Ok(Backing { filesystem, objection: Some(reason) })) if probe.privileged => {
            MountError::Backing { filesystem, path: path.to_owned(), reason }
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_counts_and_the_name_explains() {
        let works = Probe { overlay: true, privileged: true, kinds_of_names: true, ..Probe::nothing() };
        let refused = Probe { overlay: false, ..works.clone() };
        let no_kinds = Probe { kinds_of_names: false, ..refused.clone() };
        let untried = Probe { privileged: false, ..no_kinds.clone() };
        for (magic, probe, name, objection) in [
            (0xef53, &works, "ext4", None),
            (0x2fc1_2fc1, &works, "zfs", None),
            (0x2fc1_2fc1, &refused, "zfs", Some("2.2")),
            (0x6969, &refused, "nfs", Some("other machines")),
            (0x6969, &untried, "nfs", Some("other machines")),
            (0xf15f, &refused, "ecryptfs", Some("other names")),
            (0x794c_7630, &refused, "overlay", Some("container")),
            (0x5846_5342, &no_kinds, "xfs", Some("ftype=1")),
            (0x5846_5342, &refused, "xfs", Some("refuses")),
            (0x5846_5342, &untried, "xfs", None),
            (0x1234, &refused, "0x1234", Some("refuses")),
        ] {
            let backing = Backing::with_magic(magic, probe);
            assert_eq!(backing.filesystem, name);
            match (objection, backing.objection) {
                (None, None) => {}
                (Some(part), Some(found)) => assert!(found.contains(part), "{name}: {found}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn only_a_mount_that_fails_for_it_blames_the_filesystem() {
        let here = std::env::temp_dir();
        let refused = Probe { privileged: true, kinds_of_names: true, ..Probe::nothing() };
        let error = explain(MountError::NoMethod, &here, &refused).to_string();
        assert!(error.contains(here.to_str().unwrap()) && error.contains("fuse-overlayfs"), "{error}");
        assert!(matches!(explain(MountError::NoMethod, &here, &Probe::nothing()), MountError::NoMethod));
        let other = MountError::IdMap { reason: "another" };
        assert!(matches!(explain(other, &here, &refused), MountError::IdMap { .. }));
    }
}
