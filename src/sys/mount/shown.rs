//! Whether a path shows something of a directory's tree, by whatever mount.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::info::{self, MountPoint};
use crate::sys::path;

/// Whether `path` leads below one of the `directories`, or to what is there by another mount: a bind mount of something there, or an
/// overlay that is mounted there or has its layers there. Returns the directory.
///
/// Directories that are not there have nothing below them. An overlay whose layers were given by relative paths is known as long as
/// this process sees it mounted below its directory.
pub(crate) fn is_shown<'d>(path: &Path, directories: &'d [PathBuf]) -> io::Result<Option<&'d Path>> {
    let path = path::resolve(path)?;
    let table = info::read()?;
    for directory in directories {
        // What cannot be looked at, such as what a dead program serves, is at least where it is said to be.
        let real = path::resolve(directory).or_else(|_| std::path::absolute(directory))?;
        if path.starts_with(&real) || is_elsewhere(&table, &path, &real) {
            return Ok(Some(directory));
        }
    }
    Ok(None)
}

/// The same of what stands at another place than in the directory. Both paths have no links.
fn is_elsewhere(table: &[MountPoint], path: &Path, directory: &Path) -> bool {
    let Some(mount) = info::mount_of(table, path) else { return false };
    let Some(home) = info::mount_of(table, directory) else { return false };
    let is_bound = mount.device == home.device && inside(mount, path).starts_with(inside(home, directory));
    // Not what is only lent to it by bind mounts, such as the machine's own programs.
    let is_merged = |other: &MountPoint| {
        other.root == Path::new("/")
            && (other.kind == "overlay" || other.kind.as_bytes().starts_with(b"fuse"))
    };
    let is_mounted_there = || {
        let mut there = table.iter().filter(|other| other.target.starts_with(directory) && is_merged(other));
        there.any(|other| other.device == mount.device)
    };
    let is_separator = |byte: &u8| b",:=".contains(byte);
    let has_layers_there = || {
        mount.kind == "overlay"
            && mount
                .options
                .as_bytes()
                .split(is_separator)
                .any(|word| Path::new(OsStr::from_bytes(word)).starts_with(directory))
    };
    is_bound || is_mounted_there() || has_layers_there()
}

/// Where something lies in the filesystem of the mount that shows it.
fn inside(mount: &MountPoint, path: &Path) -> PathBuf {
    mount.root.join(path.strip_prefix(&mount.target).unwrap_or(Path::new("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
        2 1 0:30 / /run rw - tmpfs tmpfs rw\n\
        3 2 0:50 / /run/store/mnt/a rw - overlay overlay rw,lowerdir=2:1\n\
        4 1 0:50 /etc /srv/etc rw - overlay overlay rw,lowerdir=2:1\n\
        5 1 8:1 /var/store/diffs/7 /srv/layer ro - ext4 /dev/sda1 rw\n\
        6 1 0:51 / /srv/rootfs rw - overlay overlay rw,lowerdir=/var/store/diffs/7:/x,upperdir=/y\n\
        7 1 0:52 / /srv/other rw - overlay overlay rw,lowerdir=/var/store2/diffs/7\n\
        8 1 8:1 /home /srv/home rw - ext4 /dev/sda1 rw\n\
        9 3 8:1 /usr /run/store/mnt/a/usr ro - ext4 /dev/sda1 rw\n";

    #[test]
    fn what_another_mount_shows_is_found_by_its_filesystem() {
        let table = info::parse(TABLE);
        let from = |path: &str, directory: &str| is_elsewhere(&table, Path::new(path), Path::new(directory));
        for (path, directory) in [
            ("/srv/layer/usr/bin/x", "/var/store"),
            ("/srv/rootfs/x", "/var/store"),
            ("/srv/etc/x", "/run/store"),
            ("/srv/home/x", "/home"),
        ] {
            assert!(from(path, directory), "{path} in {directory}");
        }
        for (path, directory) in [
            ("/srv/other/x", "/var/store"),
            ("/srv/home/x", "/var/store"),
            ("/srv/layer/x", "/run/store"),
            ("/etc/x", "/var/store"),
            ("/usr/bin/x", "/run/store"),
        ] {
            assert!(!from(path, directory), "{path} not in {directory}");
        }
    }

    #[test]
    fn links_are_followed_and_what_is_missing_has_nothing_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("store/diffs")).unwrap();
        std::fs::write(at("store/diffs/file"), "").unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("store/diffs/file", at("link")).unwrap();
        let directories = [at("missing"), at("store")];
        assert_eq!(is_shown(&at("link"), &directories).unwrap(), Some(at("store").as_path()));
        assert_eq!(is_shown(&at("file"), &directories).unwrap(), None);
        assert!(is_shown(&at("nothing"), &directories).is_err());
    }
}
