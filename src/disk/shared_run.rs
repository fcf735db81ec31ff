//! The directory of a user's run roots where everybody can make one: `/tmp/storage-run-UID`, for who has no better place.
//!
//! Everybody knows its name, so it may be somebody else's, or a link to somewhere. Whoever has it could put other mount points in the place of
//! those of the run roots in it, however these look. It is this user's alone, or not used.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::error::LayoutError;
use crate::sys::{beneath, exposure, path, stat};

const ADVICE: &str =
    "remove it, set XDG_RUNTIME_DIR to a directory of yours, or name another run root (--runroot)";

/// Makes sure that the directory is there, with mode 0700 if it is new.
///
/// Returns what [`refuse_of_others`] does.
pub(crate) fn ensure_shared_run_directory(path: &Path) -> Result<(), LayoutError> {
    let made = path::make_private_directories(path);
    made.map_err(|source| LayoutError::Io { path: path.to_owned(), action: "create", source })?;
    // Whoever was faster has made it.
    refuse_of_others(path)
}

/// Looks at the directory, if it is there.
///
/// Returns [`LayoutError::Exposed`] if it belongs to another user than this one and root or others may write in it, and
/// [`LayoutError::OtherKind`] if it is a link or no directory.
pub(crate) fn refuse_of_others(path: &Path) -> Result<(), LayoutError> {
    let failed = |source| LayoutError::Io { path: path.to_owned(), action: "examine", source };
    let open = match beneath::open_directory_itself(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(match path::stat_itself(path) {
                Ok(found) if found.kind != FileType::Directory => LayoutError::OtherKind {
                    path: path.into(),
                    found: stat::describe(found.kind),
                    is_directory: true,
                    advice: ADVICE,
                },
                // Nobody but its owner can be kept out by its mode.
                Ok(found) if error.kind() == io::ErrorKind::PermissionDenied => {
                    exposed(path, &format!("belongs to user {}", found.uid))
                }
                _ => failed(error),
            });
        }
        Ok(open) => open,
    };
    match exposure::of(open.as_fd()).map_err(failed)? {
        Some(by) => Err(exposed(path, &by.to_string())),
        None => Ok(()),
    }
}

fn exposed(path: &Path, reason: &str) -> LayoutError {
    LayoutError::Exposed { path: PathBuf::from(path), reason: reason.to_owned(), advice: ADVICE }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn it_is_this_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("storage-run-1000");
        refuse_of_others(&path).unwrap();
        assert!(!path.exists(), "looking makes nothing");
        ensure_shared_run_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        ensure_shared_run_directory(&path).unwrap();
        let refused = || {
            let [looked, ensured] = [refuse_of_others(&path), ensure_shared_run_directory(&path)];
            let (looked, ensured) = (looked.unwrap_err().to_string(), ensured.unwrap_err().to_string());
            assert_eq!(looked, ensured);
            assert!(
                looked.contains("storage-run-1000") && looked.contains("set XDG_RUNTIME_DIR"),
                "{looked}"
            );
            looked
        };
        for mode in [0o777, 0o1777] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert!(refused().contains("can be written by everybody"));
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        if chown(&path, Some(1001), None).is_ok() {
            assert!(refused().contains("belongs to user 1001"));
        }
        fs::remove_dir(&path).unwrap();
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(refused().contains("symbolic link"), "{}", refused());
        assert_eq!(fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 0);
    }
}
