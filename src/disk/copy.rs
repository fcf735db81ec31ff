//! Copying a diff directory, or what another one leaves visible of it.
//!
//! The copy is of the changeset: whiteouts, opaque directories, hard links, owners, attributes, times and holes come
//! along; what overlayfs keeps for itself about one upper directory does not. File content is shared by reflink where
//! the filesystem can.

use std::collections::HashMap;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;

use super::confine::Confinement;
use super::dir_stack::{DirStack, Popped};
use super::masked::{self, Override};
use super::overlay_form::{DEFAULT_ACL, HAS_XATTR_WHITEOUTS, Meaning, OPAQUE, XattrNamespace, is_whiteout};
use super::staging::Staging;
use super::walk::{Access, Item, Step, Walker, failed, path_buf};
use crate::error::TreeError;
use crate::sys::file::{File, duplicate};
use crate::sys::node::{self, NodeKind};
use crate::sys::pinned::Pinned;
use crate::sys::stat::{FileId, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, directory, extent, moment, stat};

/// As [`copy_below`], into a staged directory, on a thread that can write there alone: a container may write to `from` meanwhile.
pub(crate) fn copy_into(
    from: BorrowedFd<'_>,
    staging: &Staging,
    namespace: XattrNamespace,
) -> Result<(), TreeError> {
    let copy = || copy_below(from, staging.directory(), namespace);
    Confinement::to(staging).and_read(from).run(copy).map_err(failed(b".", "start a thread to copy"))?
}

/// Adds to the diff directory `to` what it leaves visible of the diff directory `from`, as if `to` were mounted above
/// it: the two become one changeset. An empty `to` gets everything. Nobody else may change `to` meanwhile.
///
/// The metadata of `to` itself stays. What is in `from` is read as it is found: a name that vanishes meanwhile is left
/// out.
pub(crate) fn copy_below(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> Result<(), TreeError> {
    let here = || failed(b".", "copy into");
    if is_marked_opaque(Target::File(to), namespace).map_err(here())? {
        return Ok(());
    }
    let kept = Kept::of(to).map_err(here())?;
    let targets = duplicate(to).and_then(DirStack::new).map_err(here())?;
    let (masked, mask) = masked::mask_of(from, namespace)
        .and_then(|masked| Ok((masked.is_some(), masked::mask_of(to, namespace)?)))
        .map_err(here())?;
    let (frames, names) = (Vec::new(), HashMap::new());
    let mut copy = Copy { root: to, namespace, masked, mask, targets, frames, hidden: 0, names };
    let mut walker = Walker::new(from, Access::AsIs)?;
    while let Some(step) = walker.next_step()? {
        let path = walker.path();
        match step {
            Step::Enter(item) => copy.enter(path, &item)?,
            Step::Leaf(item) => copy.leaf(path, &item)?,
            Step::Leave(item) => copy.leave(path, &item)?,
        }
    }
    let finish = || {
        if is_marked_opaque(Target::File(from), namespace)? {
            make_opaque(to, namespace)?;
        }
        kept.give_back(to)
    };
    finish().map_err(here())
}

struct Copy<'a> {
    root: BorrowedFd<'a>,
    namespace: XattrNamespace,
    /// Whether modes and owners stand in an attribute in what is copied.
    masked: bool,
    /// The mode of everything in the copy, if they stand in one there.
    mask: Option<u16>,
    /// The directories in the copy, from its root down to where the walk is.
    targets: DirStack,
    /// What is to be done with each of them when the walk leaves it, without the root.
    frames: Vec<Frame>,
    /// How many directories above the walk are hidden, and not copied.
    hidden: usize,
    /// Where inodes with several names have their first one in the copy.
    names: HashMap<FileId, Vec<u8>>,
}

/// A directory of the copy.
enum Frame {
    /// It is new, and gets everything from the one that is copied.
    New,
    /// It was there, and keeps what it had.
    Merged(Kept),
}

/// What a directory that was there has again when everything is in it.
struct Kept {
    mtime: (i64, u32),
    /// Taken away meanwhile: what is made in the directory would inherit it.
    default_acl: Option<Vec<u8>>,
}

impl Kept {
    fn of(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let mtime = stat::stat(directory)?.mtime;
        let default_acl = xattr::get(Target::File(directory), DEFAULT_ACL)?;
        if default_acl.is_some() {
            xattr::remove(Target::File(directory), DEFAULT_ACL)?;
        }
        Ok(Kept { mtime, default_acl })
    }

    fn give_back(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(acl) = &self.default_acl {
            xattr::set(Target::File(directory), DEFAULT_ACL, acl)?;
        }
        node::set_mtime(directory, self.mtime)
    }
}

impl Copy<'_> {
    fn target(&self) -> BorrowedFd<'_> {
        self.targets.current().as_fd()
    }

    fn found(&self, path: &[u8], name: &[u8]) -> Result<Option<Stat>, TreeError> {
        match stat::stat_at(self.target(), name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some).map_err(failed(path, "examine the copy of")),
        }
    }

    fn enter(&mut self, path: &[u8], item: &Item) -> Result<(), TreeError> {
        if self.hidden > 0 {
            self.hidden = self.hidden.saturating_add(1);
            return Ok(());
        }
        let name = &item.name;
        let is_new = match self.found(path, name)? {
            None => {
                node::make_directory(self.target(), name, 0o700).map_err(failed(path, "make the copy of"))?;
                true
            }
            Some(there) if there.kind == FileType::Directory => false,
            // Whatever it is, it stands in the directory's place.
            Some(_) => {
                self.hidden = 1;
                return Ok(());
            }
        };
        let opened = beneath::open_directory_beneath(self.target(), name);
        let opened = opened.map_err(failed(path, "open the copy of"))?;
        let frame = if is_new {
            Frame::New
        } else {
            let examine = || failed(path, "examine the copy of");
            if is_marked_opaque(Target::File(opened.as_fd()), self.namespace).map_err(examine())? {
                self.hidden = 1;
                return Ok(());
            }
            Frame::Merged(Kept::of(opened.as_fd()).map_err(examine())?)
        };
        self.frames.push(frame);
        self.targets.push(opened).map_err(failed(path, "open the copy of"))
    }

    fn leave(&mut self, path: &[u8], item: &Item) -> Result<(), TreeError> {
        if let Some(hidden) = self.hidden.checked_sub(1) {
            self.hidden = hidden;
            return Ok(());
        }
        let directory = self.targets.current().clone();
        if self.targets.pop().map_err(failed(path, "leave the copy of"))? == Popped::Moved {
            return Err(TreeError::Moved { path: path_buf(path) });
        }
        let source = Target::Name(item.dir.as_fd(), &item.name);
        let target = directory.as_fd();
        let finish = || match self.frames.last() {
            Some(Frame::Merged(kept)) => {
                if is_marked_opaque(source, self.namespace)? {
                    make_opaque(target, self.namespace)?;
                }
                kept.give_back(target)
            }
            // Last of all, since what is made in a directory inherits from it and changes its time.
            _ => self.describe(source, target, &self.revealed(source, &item.stat)?),
        };
        finish().map_err(failed(path, "describe the copy of"))?;
        self.frames.pop();
        Ok(())
    }

    fn leaf(&mut self, path: &[u8], item: &Item) -> Result<(), TreeError> {
        if self.hidden > 0 {
            return Ok(());
        }
        let (source, name) = (Target::Name(item.dir.as_fd(), &item.name), item.name.as_slice());
        match self.found(path, name)? {
            Some(there) if there.kind == FileType::Directory => {
                // It hides what is below it, and so does what stands above it.
                return beneath::open_directory_beneath(self.target(), name)
                    .and_then(|directory| {
                        make_opaque(directory.as_fd(), self.namespace)?;
                        node::set_mtime(directory.as_fd(), there.mtime)
                    })
                    .map_err(failed(path, "make opaque the copy of"));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let whiteout = is_whiteout(&item.stat, source, self.namespace).map_err(failed(path, "examine"))?;
        if item.stat.links > 1 && !whiteout {
            if let Some(first) = self.names.get(&item.stat.id) {
                return self.link(first, name).map_err(failed(path, "link the copy of"));
            }
            self.names.insert(item.stat.id, path.to_vec());
        }
        if whiteout && item.stat.kind == FileType::RegularFile {
            // The kernel looks for such whiteouts only where it is told of them.
            self.mark_for_whiteouts().map_err(failed(path, "mark the directory of the copy of"))?;
        }
        match self.make(item, source, whiteout) {
            // It vanished since the walk came by.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            made => made.map_err(failed(path, "copy")),
        }
    }

    fn link(&self, first: &[u8], name: &[u8]) -> io::Result<()> {
        let (above, old) = beneath::open_parent_beneath(self.root, first)?;
        node::make_hard_link(above.as_fd(), old, self.target(), name)
    }

    fn mark_for_whiteouts(&self) -> io::Result<()> {
        for directory in [self.target(), self.root] {
            if xattr::get(Target::File(directory), self.namespace.opaque())?.is_none() {
                xattr::set(Target::File(directory), self.namespace.opaque(), HAS_XATTR_WHITEOUTS)?;
            }
        }
        Ok(())
    }

    /// Makes the copy of anything but a directory.
    fn make(&self, item: &Item, source: Target<'_>, whiteout: bool) -> io::Result<()> {
        let (dir, name) = (item.dir.as_fd(), item.name.as_slice());
        let found = &if whiteout { item.stat } else { self.revealed(source, &item.stat)? };
        let stands_for_itself =
            matches!(found.kind, FileType::RegularFile | FileType::Symlink | FileType::Directory);
        if self.mask.is_some() && !whiteout && !stands_for_itself {
            let to = beneath::create_file(self.target(), name, 0o600)?;
            return self.describe(source, to.as_fd(), found);
        }
        let kind = match found.kind {
            FileType::RegularFile => {
                let from = File::from(beneath::open_file_beneath(dir, name)?);
                let to = beneath::create_file(self.target(), name, 0o600)?;
                copy_content(&from, to.as_fd())?;
                moment::pass("file copied");
                return self.describe(source, to.as_fd(), found);
            }
            FileType::Symlink => {
                node::make_symlink(self.target(), name, &node::read_symlink(dir, name)?)?;
                return self.describe_name(source, name, found);
            }
            FileType::CharacterDevice => NodeKind::CharDevice,
            FileType::BlockDevice => NodeKind::BlockDevice,
            FileType::Fifo => NodeKind::Fifo,
            FileType::Socket => NodeKind::Socket,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        node::make_node(self.target(), name, kind, found.mode, found.device)?;
        self.describe_name(source, name, found)
    }

    /// Gives an open copy the metadata of the original.
    fn describe(&self, source: Target<'_>, copy: BorrowedFd<'_>, found: &Stat) -> io::Result<()> {
        if let Some(mask) = self.mask {
            Override::of(found).write(Target::File(copy))?;
            self.copy_xattrs(source, Target::File(copy))?;
            node::set_mode(copy, mask)?;
            return node::set_mtime(copy, found.mtime);
        }
        // A change of the owner takes set-id bits and capabilities away.
        let made = stat::stat(copy)?;
        if (made.uid, made.gid) != (found.uid, found.gid) {
            node::set_owner(copy, found.uid, found.gid)?;
        }
        self.copy_xattrs(source, Target::File(copy))?;
        node::set_mode(copy, found.mode)?;
        node::set_mtime(copy, found.mtime)
    }

    /// What is copied, as it is in its layer.
    fn revealed(&self, source: Target<'_>, found: &Stat) -> io::Result<Stat> {
        if self.masked { masked::reveal(source, found) } else { Ok(*found) }
    }

    fn describe_name(&self, source: Target<'_>, name: &[u8], found: &Stat) -> io::Result<()> {
        let copy = Pinned::at(self.target(), name)?;
        let made = copy.stat()?;
        if (made.uid, made.gid) != (found.uid, found.gid) {
            copy.set_owner(found.uid, found.gid)?;
        }
        self.copy_xattrs(source, Target::Pinned(copy.as_fd()))?;
        if made.kind != FileType::Symlink {
            copy.set_mode(found.mode)?;
        }
        copy.set_mtime(found.mtime)
    }

    fn copy_xattrs(&self, from: Target<'_>, to: Target<'_>) -> io::Result<()> {
        for (name, meaning) in masked::attributes(from, self.namespace, self.masked)? {
            let stored = match meaning {
                Meaning::Private | Meaning::Origin | Meaning::Links => None,
                Meaning::Own(own) => masked::stored_name(self.namespace, &own, self.mask.is_some()),
                // What says that content lies elsewhere comes along: whoever reads the copy finds that, too.
                _ => Some(name.clone()),
            };
            if let Some(stored) = stored
                && let Some(value) = xattr::get(from, &name)?
            {
                xattr::set(to, &stored, &value)?;
            }
        }
        Ok(())
    }
}

fn is_marked_opaque(directory: Target<'_>, namespace: XattrNamespace) -> io::Result<bool> {
    Ok(xattr::get(directory, namespace.opaque())?.as_deref() == Some(OPAQUE))
}

/// Makes a directory hide everything below it. Its whiteouts hide nothing then, and those in xattr form would be seen.
fn make_opaque(directory: BorrowedFd<'_>, namespace: XattrNamespace) -> io::Result<()> {
    xattr::set(Target::File(directory), namespace.opaque(), OPAQUE)?;
    for entry in directory::list(directory)? {
        let found = stat::stat_at(directory, &entry.name)?;
        if is_whiteout(&found, Target::Name(directory, &entry.name), namespace)? {
            node::remove_file(directory, &entry.name)?;
        }
    }
    Ok(())
}

/// Copies a file's bytes and holes into an empty one.
fn copy_content(from: &File, to: BorrowedFd<'_>) -> io::Result<()> {
    let length = from.length()?;
    let mut at = 0;
    while at < length {
        let Some((start, end)) = extent::next_data(from.as_fd(), at)? else { break };
        let end = end.min(length);
        copy_bytes(from, start, to, start, end.saturating_sub(start))?;
        at = end;
    }
    extent::set_length(to, length)
}

/// Copies bytes from one file to another: by reflink where the filesystem can.
///
/// Returns [`io::ErrorKind::UnexpectedEof`] if there are fewer.
pub(super) fn copy_bytes(
    from: &File,
    read_at: u64,
    to: BorrowedFd<'_>,
    write_at: u64,
    length: u64,
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let (from_at, to_at) = (read_at.saturating_add(done), write_at.saturating_add(done));
        let rest = length.saturating_sub(done);
        match extent::copy_range(from.as_fd(), from_at, to, to_at, rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done = done.saturating_add(count),
            Err(error) if is_unsupported(&error) => {
                return copy_by_reading(from, from_at, duplicate(to)?, to_at, rest);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn copy_by_reading(from: &File, from_at: u64, to: OwnedFd, to_at: u64, length: u64) -> io::Result<()> {
    let (mut from, mut to) = (from.try_clone()?, File::from(to));
    from.seek(SeekFrom::Start(from_at))?;
    to.seek(SeekFrom::Start(to_at))?;
    let copied = io::copy(&mut io::Read::take(from, length), &mut to)?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Old kernels copy inside the kernel on some filesystems only.
fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unsupported = [Errno::XDEV, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|error| unsupported.contains(&error))
}

#[cfg(test)]
mod tests;
