//! What stands at a name, held fast by a descriptor that opens nothing: a link, a device, a pipe.
//!
//! A name can be given to something else between two calls, by whoever may write in the directory: a hard link to a file of
//! anybody, for example. So what cannot be opened without effect gets its owner, mode and time on such a descriptor, after a
//! look at what it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};

use super::beneath::{open_name, open_path};
use super::call::{Call, call};
use super::stat::{self, FileId, Stat};

/// A handle of what stood at a name.
#[derive(Debug)]
pub(crate) struct Pinned(OwnedFd);

impl Pinned {
    /// Of what stands at `name` in `dir`; of a symbolic link itself.
    pub(crate) fn at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Self> {
        open_name(dir, name, OFlag::O_PATH).map(Pinned)
    }

    /// Of what stands at `name` in `dir`, if it is what was looked at before; an error if something else has the name by now.
    pub(crate) fn known(dir: BorrowedFd<'_>, name: &[u8], id: FileId) -> io::Result<Self> {
        let pinned = Self::at(dir, name)?;
        match pinned.stat()?.id == id {
            true => Ok(pinned),
            false => Err(io::Error::other("something else took its place meanwhile")),
        }
    }

    /// Of the directory at `name` in `dir`, whatever its mode; ENOTDIR if it is none.
    pub(crate) fn directory_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Self> {
        open_name(dir, name, OFlag::O_PATH | OFlag::O_DIRECTORY).map(Pinned)
    }

    /// Its state.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        stat::stat(self.0.as_fd())
    }

    /// Sets owner and group.
    pub(crate) fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        call(Call::SetOwner, || nix::unistd::fchownat(&self.0, c"", uid, gid, AtFlags::AT_EMPTY_PATH))
    }

    /// Sets the permission bits; EOPNOTSUPP for a symbolic link, which has none.
    pub(crate) fn set_mode(&self, mode: u16) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(u32::from(mode) & 0o7777);
        // The call for such a descriptor is of Linux 6.6.
        let path = open_path(self.0.as_fd());
        call(Call::SetMode, || {
            nix::sys::stat::fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink)
        })
    }

    /// Sets the modification time, and leaves the access time alone.
    pub(crate) fn set_mtime(&self, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
        let mtime = TimeSpec::new(seconds, nanoseconds.into());
        let path = open_path(self.0.as_fd());
        let flag = UtimensatFlags::FollowSymlink;
        call(Call::SetTime, || {
            nix::sys::stat::utimensat(AT_FDCWD, path.as_str(), &TimeSpec::UTIME_OMIT, &mtime, flag)
        })
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::sys::beneath;
    use crate::sys::xattr::{self, Target};

    /// What is done to a link that was pinned is done to the link, not to what it points at, nor to what has its name since.
    #[test]
    fn what_was_pinned_is_meant_whatever_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let state = |name: &str| {
            let found = std::fs::symlink_metadata(at(name)).unwrap();
            (found.mode(), found.uid(), found.mtime())
        };
        std::fs::write(at("victim"), "x").unwrap();
        symlink("victim", at("link")).unwrap();
        let before = state("victim");
        let root = beneath::open_directory(dir.path()).unwrap();
        let link = Pinned::at(root.as_fd(), b"link").unwrap();
        std::fs::rename(at("link"), at("moved")).unwrap();
        std::fs::hard_link(at("victim"), at("link")).unwrap();
        link.set_mtime((77, 0)).unwrap();
        assert!(link.set_mode(0o4755).is_err());
        if before.1 == 0 && !crate::sys::userns::in_user_namespace() {
            link.set_owner(5, 6).unwrap();
            assert_eq!(std::fs::symlink_metadata(at("moved")).unwrap().uid(), 5);
            xattr::set(Target::Pinned(link.as_fd()), b"trusted.note", b"n").unwrap();
            let victim = beneath::open_file_beneath(root.as_fd(), b"victim").unwrap();
            assert_eq!(xattr::list(Target::File(victim.as_fd())).unwrap(), Vec::<Vec<u8>>::new());
            let moved = xattr::get(Target::Name(root.as_fd(), b"moved"), b"trusted.note").unwrap();
            assert_eq!(moved.as_deref(), Some(&b"n"[..]));
        }
        assert_eq!(std::fs::symlink_metadata(at("moved")).unwrap().mtime(), 77);
        assert_eq!(state("victim"), before);
        assert_eq!(
            Pinned::directory_at(root.as_fd(), b"link").unwrap_err().raw_os_error(),
            Some(libc::ENOTDIR)
        );
        let file = Pinned::at(root.as_fd(), b"victim").unwrap();
        file.set_mode(0o640).unwrap();
        assert_eq!(at("victim").metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    }
}
