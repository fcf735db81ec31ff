//! Whether users other than this one and root could change what a path leads to.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::acl::{self, Writer};
use super::stat::{Stat, stat, stat_path};
use super::xattr::{self, Target};
use super::{path, privileges, userns};

/// How many links may stand on the way, as for the kernel.
const LINKS: u32 = 40;

/// Something that other users could change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Exposed {
    /// The file or directory.
    pub(crate) path: PathBuf,
    /// Who could.
    pub(crate) by: By,
}

/// Who else could change something: as the end of a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// Anybody.
    Everybody,
    /// The members of its group.
    Group(u32),
    /// A user whom its access list names.
    ListedUser(u32),
    /// The members of a group that its access list names.
    ListedGroup(u32),
    /// Whoever an access list means that is not understood.
    Unknown,
    /// The user whom it belongs to, who can also change its mode.
    Owner(u32),
    /// The user whom it belongs to, and who has no id in this user namespace, where it is shown as this one.
    Stranger(u32),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Everybody => f.write_str("can be written by everybody"),
            By::Group(group) => write!(f, "can be written by group {group}"),
            By::ListedUser(user) => write!(f, "can be written by user {user}, as its access list says"),
            By::ListedGroup(group) => write!(f, "can be written by group {group}, as its access list says"),
            By::Unknown => f.write_str("has an access list that cannot be read"),
            By::Owner(user) => write!(f, "belongs to user {user}"),
            By::Stranger(user) => {
                write!(
                    f,
                    "belongs to user {user}, whom this user namespace shows for all who have no id in it"
                )
            }
        }
    }
}

/// The first thing on the way to `path`, or the thing itself, that other users could change. Every link on the way is followed
/// as the kernel follows it.
pub(crate) fn on_the_way_to(path: &Path) -> io::Result<Option<Exposed>> {
    let mut at = PathBuf::from("/");
    let mut above = path::stat(&at)?;
    let mut rest = parts(&std::path::absolute(path)?);
    let mut links: u32 = 0;
    let unmapped = Unmapped::default();
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            above = path::stat(&at)?;
            continue;
        }
        // In a directory with the sticky bit everyone has names of their own, and changes no others.
        let by = if above.mode & 0o1000 == 0 {
            at_path(&at, &above, &unmapped)?
        } else {
            of_owner(above.uid, &unmapped)
        };
        if let Some(by) = by {
            return Ok(Some(Exposed { path: at, by }));
        }
        let next = at.join(&part);
        let found = stat_path(&next, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.kind != FileType::Symlink {
            (at, above) = (next, found);
            continue;
        }
        if let Some(by) = of_owner(found.uid, &unmapped) {
            return Ok(Some(Exposed { path: next, by }));
        }
        links = links.saturating_add(1);
        if links > LINKS {
            return Err(rustix::io::Errno::LOOP.into());
        }
        let target = path::read_link(&next)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
            above = path::stat(&at)?;
        }
        rest.extend(parts(&target));
    }
    Ok(at_path(&at, &above, &unmapped)?.map(|by| Exposed { path: at, by }))
}

/// Who else could change an open file, or the names in a directory; `None` if nobody.
///
/// On the way to something, an owner who is not mapped in this user namespace may well be the machine's root. What is somebody's own
/// to write to is not root's: there it is whoever made it first.
pub(crate) fn of(file: BorrowedFd<'_>) -> io::Result<Option<By>> {
    let (found, unmapped) = (stat(file)?, Unmapped::default());
    let others = by(&found, &unmapped, || xattr::get(Target::File(file), acl::ACCESS))?;
    Ok(others.or_else(|| of_stranger(found.uid, &unmapped)))
}

/// The same of what stands at a path without links.
fn at_path(path: &Path, found: &Stat, unmapped: &Unmapped) -> io::Result<Option<By>> {
    by(found, unmapped, || xattr::get_at(path, acl::ACCESS))
}

fn by(
    found: &Stat,
    unmapped: &Unmapped,
    list: impl FnOnce() -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Option<By>> {
    if found.mode & 0o002 != 0 {
        return Ok(Some(By::Everybody));
    }
    if let Some(owner) = of_owner(found.uid, unmapped) {
        return Ok(Some(owner));
    }
    if found.mode & 0o020 == 0 {
        return Ok(None);
    }
    let Some(list) = list()? else { return Ok(of_group(found, found.gid)?.map(By::Group)) };
    let Some(writers) = acl::writers(&list) else { return Ok(Some(By::Unknown)) };
    for writer in writers {
        let other = match writer {
            Writer::OwnGroup => of_group(found, found.gid)?.map(By::Group),
            Writer::Group(group) => of_group(found, group)?.map(By::ListedGroup),
            // Whoever is not mapped in a namespace may be anybody.
            Writer::User(user) => (![0, found.uid].contains(&user)).then_some(By::ListedUser(user)),
        };
        if other.is_some() {
            return Ok(other);
        }
    }
    Ok(None)
}

/// A group that others are in. Where each user has a group of the same number, nobody else is in it.
///
/// The numbers are those of the machine: in a user namespace the user's group is 0, whoever else is in it.
fn of_group(found: &Stat, group: u32) -> io::Result<Option<u32>> {
    let (user, group) = outside(found.uid, group)?;
    Ok((![0, user].contains(&group)).then_some(group))
}

/// What an owner is called outside of this user namespace; one that is not mapped has its number here.
fn outside(uid: u32, gid: u32) -> io::Result<(u32, u32)> {
    let maps = userns::own_maps()?;
    let of = |map: &[userns::IdExtent], id| userns::to_host(map, id).unwrap_or(id);
    Ok((of(&maps.uids, uid), of(&maps.gids, gid)))
}

/// Who else could, by the owner alone, who can change the mode. Those who are not mapped in a user namespace are all seen as one, and the
/// machine's root is among them.
fn of_owner(uid: u32, unmapped: &Unmapped) -> Option<By> {
    let is_trusted = is_own_or_roots(uid) || unmapped.is(uid);
    (!is_trusted).then_some(By::Owner(uid))
}

/// The same, of those whom [`of_owner`] lets pass as the machine's root.
fn of_stranger(uid: u32, unmapped: &Unmapped) -> Option<By> {
    (!is_own_or_roots(uid) && unmapped.is(uid)).then_some(By::Stranger(uid))
}

fn is_own_or_roots(uid: u32) -> bool {
    uid == 0 || uid == privileges::effective_user()
}

/// The owner that this user namespace shows for all who are not mapped, once the kernel was asked.
#[derive(Default)]
struct Unmapped(OnceCell<Option<u32>>);

impl Unmapped {
    fn is(&self, uid: u32) -> bool {
        let shown = || userns::in_user_namespace().then(|| userns::shown_for_unmapped().0);
        *self.0.get_or_init(shown) == Some(uid)
    }
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
        on_the_way_to(path).unwrap().map(|exposed| (exposed.path, exposed.by.to_string()))
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
        let of = |mode, uid, gid| {
            let dir = tempfile::tempdir().unwrap();
            by(&Stat { mode, uid, gid, ..path::stat(dir.path()).unwrap() }, &Unmapped::default(), || Ok(None))
                .unwrap()
        };
        let own = privileges::effective_user();
        for group in [own, 0] {
            // In a namespace both are the user's group, which may have another number than the user.
            let (user, group_outside) = outside(own, group).unwrap();
            let told = (![0, user].contains(&group_outside)).then_some(By::Group(group_outside));
            assert!(told.is_none() || userns::in_user_namespace());
            assert_eq!(of(0o775, own, group), told);
        }
        assert_eq!(of(0o755, own, 7777), None);
        let other = format!("can be written by group {}", outside(own, 7777).unwrap().1);
        assert_eq!(of(0o775, own, 7777).unwrap().to_string(), other);
        assert_eq!(of(0o700, 7777, 0).unwrap().to_string(), "belongs to user 7777");
    }

    #[test]
    fn an_access_list_counts_where_the_mode_lets_it() {
        let own = privileges::effective_user();
        let of = |mode, user: u32, permissions: u8, tag: u8| {
            let dir = tempfile::tempdir().unwrap();
            let found = Stat { mode, uid: own, gid: own, ..path::stat(dir.path()).unwrap() };
            let entry =
                |tag, permissions, id: u32| [&[tag, 0, permissions, 0][..], &id.to_le_bytes()].concat();
            let mut entries =
                vec![entry(1, 7, u32::MAX), entry(tag, permissions, user), entry(4, 0, u32::MAX)];
            entries.sort_by_key(|entry| entry[0]);
            entries.extend([entry(0x10, 7, u32::MAX), entry(0x20, 0, u32::MAX)]);
            let list = [&[2, 0, 0, 0][..], &entries.concat()].concat();
            by(&found, &Unmapped::default(), || Ok(Some(list))).unwrap()
        };
        assert_eq!(of(0o770, 7777, 7, 2), Some(By::ListedUser(7777)));
        assert_eq!(of(0o770, 7777, 7, 8), Some(By::ListedGroup(outside(own, 7777).unwrap().1)));
        assert_eq!(of(0o770, 7777, 5, 2), None);
        assert_eq!(of(0o770, own, 7, 2), None);
        assert_eq!(of(0o750, 7777, 7, 2), None, "the mode is the most that a list can give");
        assert_eq!(of(0o770, 7777, 9, 2), Some(By::Unknown));
    }
}
