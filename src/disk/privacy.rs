//! The roots of a store are their owner's alone: what is in them is mounted by paths, and has set-id files.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::error::LayoutError;
use crate::sys::{exposure, stat};

/// Looks whether other users could change what is in an open root, which the store is to write to.
///
/// Modes that only let others read are the owner's decision, such as for a store that others read images of, and are told in the
/// log; so is a directory above in which others could give the root's name to something else.
///
/// Returns [`LayoutError::Exposed`] if it belongs to another user than this one and root, or others may write in it.
pub(super) fn check(root: BorrowedFd<'_>, path: &Path) -> Result<(), LayoutError> {
    let found = stat::stat(root).map_err(|source| LayoutError::Io {
        path: path.to_owned(),
        action: "examine",
        source,
    })?;
    if let Some(reason) = exposure::of(&found) {
        return Err(LayoutError::Exposed { path: path.to_owned(), reason });
    }
    if found.mode & 0o077 != 0 {
        let mode = format!("{:04o}", found.mode);
        tracing::warn!(root = %path.display(), mode, "other users can reach the files of layers, set-id programs too: chmod 0700");
    }
    if let Ok(Some(exposed)) = exposure::on_the_way_to(path) {
        let (above, reason) = (exposed.path.display(), exposed.reason);
        tracing::warn!(root = %path.display(), %above, reason, "other users could replace the directory");
    }
    Ok(())
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
        let checked = |mode| {
            fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
            check(beneath::open_directory(dir.path()).unwrap().as_fd(), dir.path())
        };
        for good in [0o700, 0o711, 0o755, 0o2755] {
            checked(good).unwrap();
        }
        for bad in [0o777, 0o703, 0o1777] {
            let error = checked(bad).unwrap_err().to_string();
            assert!(error.contains("can be written by everybody"), "{error}");
        }
        if std::os::unix::fs::chown(dir.path(), Some(1), Some(1)).is_ok() {
            let error = checked(0o700).unwrap_err().to_string();
            assert!(error.contains("belongs to user 1,") && error.contains("chown"), "{error}");
        }
    }
}
