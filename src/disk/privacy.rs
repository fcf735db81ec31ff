//! The roots of a store are their owner's alone: what is in them is mounted by paths, and has set-id files.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::error::LayoutError;
use crate::sys::exposure::{self, By};
use crate::sys::{privileges, stat};

/// What a root is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Root {
    /// The store.
    Store,
    /// What a reboot drops.
    Run,
}

/// Looks whether other users could change what is in an open root, which the store is to write to.
///
/// Modes that only let others read are told by [`reach`]. What else is wrong is told in the log: a directory above in which others
/// could give the root's name to something else.
///
/// Returns [`LayoutError::Exposed`] if it belongs to another user than this one and root, or others may write in it.
pub(super) fn check(root: BorrowedFd<'_>, path: &Path, which: Root) -> Result<(), LayoutError> {
    refuse(root, path, which)?;
    // A look at each directory on the way, which is for nobody if nobody hears of it.
    if !tracing::enabled!(tracing::Level::WARN) {
        return Ok(());
    }
    if let Ok(Some(exposed)) = exposure::on_the_way_to(path) {
        let (above, by) = (exposed.path.display(), exposed.by);
        tracing::warn!(root = %path.display(), %above, %by, "other users could replace the directory");
    }
    Ok(())
}

/// The same without a look at what lies above.
pub(super) fn refuse(root: BorrowedFd<'_>, path: &Path, which: Root) -> Result<(), LayoutError> {
    let by = exposure::of(root).map_err(|source| LayoutError::Io {
        path: path.to_owned(),
        action: "examine",
        source,
    })?;
    if let Some(by) = by {
        let advice = match (which, by) {
            (Root::Store, By::Owner(_) | By::Stranger(_)) => {
                "be that user to change the store; to read it, open it with --no-write"
            }
            (Root::Run, By::Owner(_) | By::Stranger(_)) => {
                "name another run root (--runroot); to read the store, open it with --no-write"
            }
            _ => {
                "make it the owner's alone (setfacl --remove-all, chmod 0700); to read the store, open it with --no-write"
            }
        };
        return Err(LayoutError::Exposed { path: path.to_owned(), reason: by.to_string(), advice });
    }
    Ok(())
}

/// The mode of an open root that other users may enter or read; `None` if none may, or it is another user's to say.
pub(super) fn reach(root: BorrowedFd<'_>, path: &Path) -> Result<Option<u16>, LayoutError> {
    let found = stat::stat(root).map_err(|source| LayoutError::Io {
        path: path.to_owned(),
        action: "examine",
        source,
    })?;
    Ok(Some(found.mode).filter(|mode| mode & 0o077 != 0 && found.uid == privileges::effective_user()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::beneath;

    #[test]
    fn a_root_that_others_could_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = || beneath::open_directory(dir.path()).unwrap();
        let checked = |mode, which| {
            fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
            check(open().as_fd(), dir.path(), which)
        };
        for (good, told) in [(0o700, false), (0o711, true), (0o755, true), (0o750, true), (0o2755, true)] {
            checked(good, Root::Store).unwrap();
            let told = told.then_some(u16::try_from(good).unwrap());
            assert_eq!(reach(open().as_fd(), dir.path()).unwrap(), told);
        }
        for bad in [0o777, 0o703, 0o1777] {
            let error = checked(bad, Root::Run).unwrap_err().to_string();
            assert!(error.contains("can be written by everybody") && error.contains("chmod 0700"), "{error}");
        }
        if std::os::unix::fs::chown(dir.path(), Some(1), Some(1)).is_ok() {
            for (which, advice) in [(Root::Store, "--no-write"), (Root::Run, "--runroot")] {
                let error = checked(0o755, which).unwrap_err().to_string();
                assert!(error.contains("belongs to user 1,") && error.contains(advice), "{error}");
            }
            assert_eq!(reach(open().as_fd(), dir.path()).unwrap(), None, "it is not this user's");
        }
    }
}
