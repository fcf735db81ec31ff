//! A diff directory made from another, as overlayfs would see it: whiteouts and opaque marks included, what
//! ties an upper directory to its old place left out.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::FileType;

use super::dir_stack::{DirStack, Popped};
use super::overlay_form::{DEFAULT_ACL, Meaning, XattrNamespace};
use super::walk::{Access, Item, Step, Walker, failed, path_buf};
use crate::error::TreeError;
use crate::sys::node::{self, NodeKind};
use crate::sys::stat::{self, FileId, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, extent};

/// Copies everything in `from`, and the metadata of `from` itself, into the empty directory `to`.
///
/// Content is shared by reflink where the filesystem can; else it is copied, holes staying holes. Hard links
/// within the tree stay hard links.
pub(crate) fn copy_tree(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> Result<(), TreeError> {
    let root = beneath::open_directory_beneath(to, b"").map_err(failed(b".", "open"))?;
    let dirs = DirStack::new(root).map_err(failed(b".", "open"))?;
    let mut copy = Copy { dirs, links: HashMap::new(), reflink: true, namespace, root: to };
    let mut walker = Walker::new(from, Access::AsIs)?;
    let found = stat::stat(from).map_err(failed(b".", "examine"))?;
    set_owner(to, &found).map_err(failed(b".", "copy"))?;
    copy.xattrs(Target::File(walker.directory().as_fd()), Target::File(to)).map_err(failed(b".", "copy"))?;
    while let Some(step) = walker.next_step()? {
        let done = match &step {
            Step::Enter(item) => copy.enter(item, walker.directory()),
            Step::Leave(item) => copy.leave(item),
            Step::Leaf(item) => copy.leaf(item, walker.path()),
        };
        if !done.map_err(failed(walker.path(), "copy"))? {
            return Err(TreeError::Moved { path: path_buf(walker.path()) });
        }
    }
    finish_directory(Target::File(from), to, &found).map_err(failed(b".", "copy"))
}

struct Copy<'a> {
    /// Where the copy is made.
    dirs: DirStack,
    root: BorrowedFd<'a>,
    /// Where in the copy the inodes with several names are.
    links: HashMap<FileId, Vec<u8>>,
    /// Whether the filesystem has not refused a reflink yet.
    reflink: bool,
    namespace: XattrNamespace,
}

/// Each step returns false if the copy itself was moved away meanwhile.
impl Copy<'_> {
    fn enter(&mut self, item: &Item, opened: &Arc<OwnedFd>) -> io::Result<bool> {
        let dir = Arc::clone(self.dirs.current());
        node::make_directory(dir.as_fd(), &item.name, 0o700)?;
        let made = beneath::open_directory_beneath(dir.as_fd(), &item.name)?;
        set_owner(made.as_fd(), &item.stat)?;
        self.xattrs(Target::File(opened.as_fd()), Target::File(made.as_fd()))?;
        self.dirs.push(made)?;
        Ok(true)
    }

    fn leave(&mut self, item: &Item) -> io::Result<bool> {
        let finished = Arc::clone(self.dirs.current());
        let source = Target::Name(item.dir.as_fd(), &item.name);
        finish_directory(source, finished.as_fd(), &item.stat)?;
        Ok(self.dirs.pop()? == Popped::Up)
    }

    fn leaf(&mut self, item: &Item, path: &[u8]) -> io::Result<bool> {
        let to = Arc::clone(self.dirs.current());
        let (from, to) = (item.dir.as_fd(), to.as_fd());
        if item.stat.links > 1 {
            if let Some(first) = self.links.get(&item.stat.id) {
                self.hard_link(first, to, &item.name)?;
                return Ok(true);
            }
            self.links.insert(item.stat.id, path.to_vec());
        }
        let kind = match item.stat.kind {
            FileType::RegularFile => return self.file(item, to).map(|()| true),
            FileType::Symlink => {
                let target = node::read_symlink(from, &item.name)?;
                node::make_symlink(to, &item.name, &target)?;
                None
            }
            FileType::CharacterDevice => Some(NodeKind::CharDevice),
            FileType::BlockDevice => Some(NodeKind::BlockDevice),
            FileType::Fifo => Some(NodeKind::Fifo),
            FileType::Socket => Some(NodeKind::Socket),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        if let Some(kind) = kind {
            node::make_node(to, &item.name, kind, item.stat.mode, item.stat.device)?;
        }
        if stat::stat_at(to, &item.name).map(|made| (made.uid, made.gid))? != (item.stat.uid, item.stat.gid) {
            node::set_owner_at(to, &item.name, item.stat.uid, item.stat.gid)?;
        }
        self.xattrs(Target::Name(from, &item.name), Target::Name(to, &item.name))?;
        if kind.is_some() {
            node::set_mode_at(to, &item.name, item.stat.mode)?;
        }
        node::set_mtime_at(to, &item.name, item.stat.mtime)?;
        Ok(true)
    }

    fn hard_link(&self, first: &[u8], to: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let cut = first.iter().rposition(|&byte| byte == b'/');
        let (above, old) = match cut.and_then(|at| Some((first.get(..at)?, first.get(at + 1..)?))) {
            Some((above, old)) => (above, old),
            None => (&b""[..], first),
        };
        let above = beneath::open_directory_beneath(self.root, above)?;
        node::make_hard_link(above.as_fd(), old, to, name)
    }

    fn file(&mut self, item: &Item, to: BorrowedFd<'_>) -> io::Result<()> {
        let source = beneath::open_file_beneath(item.dir.as_fd(), &item.name)?;
        let made = beneath::create_file(to, &item.name, 0o600)?;
        self.content(&source, &made, item.stat.size)?;
        set_owner(made.as_fd(), &item.stat)?;
        self.xattrs(Target::File(source.as_fd()), Target::File(made.as_fd()))?;
        node::set_mode(made.as_fd(), item.stat.mode)?;
        node::set_mtime(made.as_fd(), item.stat.mtime)
    }

    fn content(&mut self, from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        if self.reflink {
            match extent::reflink(from.as_fd(), to.as_fd()) {
                Ok(()) => return Ok(()),
                Err(error) if is_unsupported(&error) => self.reflink = false,
                Err(error) => return Err(error),
            }
        }
        let mut at = 0;
        while let Some((start, end)) = extent::next_data(from.as_fd(), at)? {
            copy_data(from, to, start, end)?;
            at = end;
        }
        extent::set_length(to.as_fd(), size)
    }

    /// Copies all attributes that mean the same in the new place.
    fn xattrs(&self, from: Target<'_>, to: Target<'_>) -> io::Result<()> {
        for name in xattr::list(from)? {
            if name == DEFAULT_ACL || self.namespace.meaning(&name) == Meaning::Private {
                continue;
            }
            if let Some(value) = xattr::get(from, &name)? {
                xattr::set(to, &name, &value)?;
            }
        }
        Ok(())
    }
}

/// Copies the bytes from `start` to `end`, inside the kernel if it can.
fn copy_data(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let mut at = start;
    while at < end {
        match extent::copy_range(from.as_fd(), to.as_fd(), at, end - at) {
            // Nothing copied although there is data: some filesystems say so when they cannot.
            Ok(0) => return copy_by_reading(from, to, at, end),
            Ok(copied) => at += copied,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_unsupported(&error) => return copy_by_reading(from, to, at, end),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn copy_by_reading(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let (from, to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
    let mut buffer = vec![0; 256 * 1024];
    let mut at = start;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = from.read_at(buffer.get_mut(..length).unwrap_or_default(), at)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all_at(buffer.get(..count).unwrap_or_default(), at)?;
        at += u64::try_from(count).unwrap_or(0);
    }
    Ok(())
}

/// Sets the owner if it is another: not everyone may, not even to the same.
fn set_owner(made: BorrowedFd<'_>, source: &Stat) -> io::Result<()> {
    let found = stat::stat(made)?;
    if (found.uid, found.gid) == (source.uid, source.gid) {
        return Ok(());
    }
    node::set_owner(made, source.uid, source.gid)
}

/// Sets what could hinder, be inherited by, or be changed by what is made in the directory.
fn finish_directory(from: Target<'_>, to: BorrowedFd<'_>, source: &Stat) -> io::Result<()> {
    if let Some(acl) = xattr::get(from, DEFAULT_ACL)? {
        xattr::set(Target::File(to), DEFAULT_ACL, &acl)?;
    }
    node::set_mode(to, source.mode)?;
    node::set_mtime(to, source.mtime)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EXDEV | libc::EINVAL | libc::ENOTTY | libc::ENOSYS | libc::EPERM)
    )
}

/// Gives the root of one diff directory the owner, mode, time and attributes of another's; what overlayfs keeps there
/// for itself stays behind.
pub(crate) fn inherit_root(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> io::Result<()> {
    let found = stat::stat(from)?;
    node::set_owner(to, found.uid, found.gid)?;
    for name in xattr::list(Target::File(from))? {
        if let Meaning::Own(_) = namespace.meaning(&name)
            && let Some(value) = xattr::get(Target::File(from), &name)?
        {
            xattr::set(Target::File(to), &name, &value)?;
        }
    }
    node::set_mode(to, found.mode)?;
    node::set_mtime(to, found.mtime)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::disk::fixture::{
        Place, is_machine_root, metadata, namespace, path, raw_xattrs, with_xattrs, write_file,
    };
    use crate::disk::tree_writer::DeviceKind;
    use crate::types::Metadata;

    #[test]
    fn a_copy_has_the_same_manifest() {
        let place = Place::new();
        let mut tree = place.strict_writer();
        // An access ACL for everyone but one user, as the kernel stores it.
        let acl: Vec<u8> =
            [(1, 7, u32::MAX), (2, 0, 0), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 5, u32::MAX)]
                .iter()
                .flat_map(|&(tag, bits, id): &(u16, u16, u32)| {
                    [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
                })
                .collect();
        let acl = [&2_u32.to_le_bytes()[..], &acl].concat();
        let inherited = with_xattrs(0o2755, &[("system.posix_acl_default", &acl), ("user.a", b"1")]);
        tree.directory(&path("dir"), &inherited).unwrap();
        let owner = if is_machine_root() { 1234 } else { 0 };
        let owned = Metadata { uid: owner, gid: owner, ..with_xattrs(0o4711, &[("user.b", b"2")]) };
        write_file(&mut tree, "dir/file", &[7; 300_000], &owned).unwrap();
        tree.directory(&path("dir/sub"), &metadata(0)).unwrap();
        tree.hard_link(&path("dir/sub/link"), &path("dir/file")).unwrap();
        tree.symlink(&path("link"), b"../victim", &metadata(0o777)).unwrap();
        tree.fifo(&path("pipe"), &metadata(0o606)).unwrap();
        tree.whiteout(&path("gone")).unwrap();
        tree.opaque(&path("solid")).unwrap();
        if is_machine_root() {
            tree.device(&path("zero"), DeviceKind::Char, (1, 5), &metadata(0o666)).unwrap();
        }
        let mut sparse = tree.file(&path("sparse"), &metadata(0o600), 8 << 20).unwrap();
        sparse.skip(4 << 20).unwrap();
        sparse.write_all(b"x").unwrap();
        sparse.skip((4 << 20) - 1).unwrap();
        sparse.finish().unwrap();
        tree.finish().unwrap();
        let expected = place.manifest("diff");
        assert_eq!(expected.get(b"dir").unwrap().metadata, inherited);
        assert_eq!(expected.get(b"dir/file").unwrap().metadata, owned);

        let origin = [namespace().opaque().strip_suffix(b"opaque").unwrap(), b"origin"].concat();
        let diff = place.open("diff");
        xattr::set(Target::Name(diff.as_fd(), b"dir"), &origin, b"handle").unwrap();
        copy_tree(diff.as_fd(), place.open("copy").as_fd(), namespace()).unwrap();
        assert_eq!(place.manifest("copy"), expected);
        assert!(!raw_xattrs(&place.path("copy/dir")).contains_key(std::str::from_utf8(&origin).unwrap()));
        assert!(place.path("copy/sparse").metadata().unwrap().blocks() * 512 < 1 << 20);
        std::fs::set_permissions(place.path("copy/dir/sub"), PermissionsExt::from_mode(0o700)).unwrap();
        place.assert_victim_unchanged();
    }

    #[test]
    fn reading_and_writing_copies_the_same_bytes() {
        let place = Place::new();
        std::fs::write(place.path("diff/a"), vec![3; 700_000]).unwrap();
        let from = beneath::open_file_beneath(place.open("diff").as_fd(), b"a").unwrap();
        let to = beneath::create_file(place.open("copy").as_fd(), b"a", 0o600).unwrap();
        copy_by_reading(&from, &to, 0, 700_000).unwrap();
        assert_eq!(std::fs::read(place.path("copy/a")).unwrap(), vec![3; 700_000]);
    }
}
