//! Whether users other than this one and root could change what a path leads to.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::stat::{Stat, stat_path};
use super::{path, privileges, userns};

/// The id by which files of owners that are not mapped are seen in a user namespace: the machine's root there is one of them.
const UNMAPPED: u32 = 65534;
/// How many links may stand on the way, as for the kernel.
const LINKS: u32 = 40;

/// Something that other users could change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Exposed {
    /// The file or directory.
    pub(crate) path: PathBuf,
    /// Why, as the end of a sentence.
    pub(crate) reason: String,
}

/// The first thing on the way to `path`, or the thing itself, that other users could change. Every link on the way is followed
/// as the kernel follows it.
pub(crate) fn on_the_way_to(path: &Path) -> io::Result<Option<Exposed>> {
    let mut at = PathBuf::from("/");
    let mut rest = parts(&std::path::absolute(path)?);
    let mut links: u32 = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        // In a directory with the sticky bit everyone has names of their own, and changes no others.
        let above = path::stat(&at)?;
        let reason = if above.mode & 0o1000 == 0 { of(&above) } else { of_owner(above.uid) };
        if let Some(reason) = reason {
            return Ok(Some(Exposed { path: at, reason }));
        }
        let next = at.join(&part);
        let found = stat_path(&next, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.kind != FileType::Symlink {
            at = next;
            continue;
        }
        if let Some(reason) = of_owner(found.uid) {
            return Ok(Some(Exposed { path: next, reason }));
        }
        links = links.saturating_add(1);
        if links > LINKS {
            return Err(rustix::io::Errno::LOOP.into());
        }
        let target = path::read_link(&next)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        rest.extend(parts(&target));
    }
    Ok(of(&path::stat(&at)?).map(|reason| Exposed { path: at, reason }))
}

/// Why other users could change a file, or the names in a directory; `None` if they cannot.
pub(crate) fn of(found: &Stat) -> Option<String> {
    if found.mode & 0o002 != 0 {
        return Some("can be written by everybody".to_owned());
    }
    // Where each user has a group of the same number, nobody else is in it.
    let private = [0, found.uid].contains(&found.gid);
    if found.mode & 0o020 != 0 && !private {
        return Some(format!("can be written by group {}", found.gid));
    }
    of_owner(found.uid)
}

/// As [`of`], by the owner alone, who can change the mode.
fn of_owner(uid: u32) -> Option<String> {
    let trusted = [0, privileges::effective_user()].contains(&uid) || is_unmapped(uid);
    (!trusted).then(|| format!("belongs to user {uid}"))
}

fn is_unmapped(id: u32) -> bool {
    id == UNMAPPED && userns::in_user_namespace()
}

/// The names of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn exposed(path: &Path) -> Option<(PathBuf, String)> {
        on_the_way_to(path).unwrap().map(|exposed| (exposed.path, exposed.reason))
    }

    #[test]
    fn the_weakest_thing_on_the_way_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |name: &str, mode| fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), "").unwrap();
        symlink("b/file", at("a/link")).unwrap();
        symlink(at("a/../a/link"), at("far")).unwrap();
        for way in ["a/b/file", "a/link", "far"] {
            assert_eq!(exposed(&at(way)), None);
        }
        mode("a/b/file", 0o666);
        for way in ["a/b/file", "a/link", "far"] {
            assert_eq!(exposed(&at(way)), Some((at("a/b/file"), "can be written by everybody".to_owned())));
        }
        mode("a/b/file", 0o644);
        mode("a/b", 0o777);
        assert_eq!(exposed(&at("far")).map(|exposed| exposed.0), Some(at("a/b")));
        // Others may have names there, but not take these away.
        mode("a/b", 0o1777);
        assert_eq!(exposed(&at("far")), None);
        // A file in it of somebody else's is that one's.
        if std::os::unix::fs::lchown(at("a/b/file"), Some(1), Some(1)).is_ok() {
            assert_eq!(exposed(&at("far")).unwrap().1, "belongs to user 1");
        }
        symlink("loop", at("loop")).unwrap();
        assert!(on_the_way_to(&at("loop")).is_err() && on_the_way_to(&at("missing")).is_err());
    }

    #[test]
    fn a_group_of_ones_own_is_nobody_else() {
        let stat = |mode, uid, gid| {
            let dir = tempfile::tempdir().unwrap();
            Stat { mode, uid, gid, ..path::stat(dir.path()).unwrap() }
        };
        let own = privileges::effective_user();
        assert_eq!(of(&stat(0o775, own, own)), None);
        assert_eq!(of(&stat(0o775, own, 0)), None);
        assert_eq!(of(&stat(0o755, own, 7777)), None);
        assert_eq!(of(&stat(0o775, own, 7777)).unwrap(), "can be written by group 7777");
        assert_eq!(of(&stat(0o700, 7777, 0)).unwrap(), "belongs to user 7777");
    }
}
