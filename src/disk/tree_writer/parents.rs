//! Directory handles for the entries of a layer, and directories that the layer only implies.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::{TreeWriter, failed, member};
use crate::disk::overlay_form::is_whiteout;
use crate::disk::walk::path_buf;
use crate::error::{Limit, UnpackError, quoted};
use crate::sys::xattr::Target;
use crate::sys::{beneath, node, stat};
use crate::types::{Metadata, RelPath};

/// How many directories stay open. Archives come depth first as a rule: a few serve nearly all entries.
const CAPACITY: usize = 48;

/// What a name of an implied directory's path counts for at least. The kernel looks at each directory above one that a confined thread
/// makes or opens, so that a path costs by its parts, however short they are.
const NAME_COUNTS: usize = 32;

/// The directories used last, open. Looked up from the most recent one.
#[derive(Debug, Default)]
pub(super) struct HandleCache {
    entries: Vec<(Vec<u8>, Arc<OwnedFd>)>,
}

impl HandleCache {
    fn get(&mut self, path: &[u8]) -> Option<Arc<OwnedFd>> {
        let at = self.entries.iter().rposition(|(cached, _)| cached == path)?;
        self.entries.get_mut(at..)?.rotate_left(1);
        self.entries.last().map(|(_, handle)| Arc::clone(handle))
    }

    pub(super) fn insert(&mut self, path: &[u8], handle: OwnedFd) -> Arc<OwnedFd> {
        if self.entries.len() == CAPACITY {
            self.entries.remove(0);
        }
        let handle = Arc::new(handle);
        self.entries.push((path.to_vec(), Arc::clone(&handle)));
        handle
    }

    /// Forgets the directory at `path` and all below it.
    pub(super) fn forget(&mut self, path: &RelPath) {
        self.entries.retain(|(cached, _)| !is_at_or_below(cached, path.as_bytes()));
    }
}

/// Whether `path` is `top` or lies below it.
pub(super) fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

impl TreeWriter {
    /// The directory that `path` lies in; it is made if the layer has no entry for it.
    pub(super) fn parent(&mut self, path: &RelPath) -> Result<Arc<OwnedFd>, UnpackError> {
        let dir = parent_bytes(path);
        if dir.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(handle) = self.handles.get(dir) {
            return Ok(handle);
        }
        match beneath::open_directory_beneath(self.root.as_fd(), dir) {
            Ok(handle) => Ok(self.handles.insert(dir, handle)),
            Err(error) if may_be_made(&error) => self.walk_down(path, dir),
            Err(error) => Err(failed(path, "open the directory above")(error)),
        }
    }

    /// Opens the directory `path`, which must exist.
    pub(super) fn open_directory(
        &mut self,
        named: &RelPath,
        path: &RelPath,
    ) -> Result<Arc<OwnedFd>, UnpackError> {
        if path.is_root() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(handle) = self.handles.get(path.as_bytes()) {
            return Ok(handle);
        }
        let opened = beneath::open_directory_beneath(self.root.as_fd(), path.as_bytes());
        Ok(self.handles.insert(path.as_bytes(), opened.map_err(failed(named, "open the directory"))?))
    }

    /// The directory, name and inode of what a hard link points at.
    pub(super) fn link_target(
        &mut self,
        path: &RelPath,
        target: &RelPath,
    ) -> Result<(Arc<OwnedFd>, Vec<u8>, u64), UnpackError> {
        let missing = || UnpackError::LinkTargetMissing { member: member(path), target: member(target) };
        let to_directory = || UnpackError::LinkToDirectory { member: member(path), target: member(target) };
        let name = target.file_name().ok_or_else(to_directory)?;
        if self.directories.contains_key(target) {
            return Err(to_directory());
        }
        let above = target.parent().unwrap_or_default();
        // Every real directory is known; through anything else nothing is reached.
        if !self.directories.contains_key(&above) {
            return Err(missing());
        }
        let parent = self.open_directory(path, &above)?;
        let found = match stat::stat_at(parent.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            found => found.map_err(failed(path, "examine the link's target"))?,
        };
        let namespace = self.shared.options.xattr_namespace;
        let deleted = is_whiteout(&found, Target::Name(parent.as_fd(), name), namespace);
        if deleted.map_err(failed(path, "examine the link's target"))? {
            return Err(missing());
        }
        Ok((parent, name.to_vec(), found.id.inode))
    }

    /// Opens `dir` part by part, and makes the parts that are missing.
    fn walk_down(&mut self, path: &RelPath, dir: &[u8]) -> Result<Arc<OwnedFd>, UnpackError> {
        let mut reached = Arc::clone(&self.root);
        let mut start = 0;
        for end in part_ends(dir).rev() {
            if let Some(handle) = dir.get(..end).and_then(|prefix| self.handles.get(prefix)) {
                reached = handle;
                start = end.saturating_add(1);
                break;
            }
        }
        let (mut counted, mut previous) = (0usize, 0);
        for end in part_ends(dir) {
            counted = counted.saturating_add(NAME_COUNTS.max(end.saturating_sub(previous)));
            previous = end.saturating_add(1);
            let (Some(prefix), Some(name)) = (dir.get(..end), dir.get(start..end)) else { continue };
            reached = match beneath::open_directory_beneath(reached.as_fd(), name) {
                Ok(handle) => self.handles.insert(prefix, handle),
                Err(error) if may_be_made(&error) => {
                    self.count_implied(path, prefix, counted)?;
                    self.make_implicit(path, prefix, &reached, name)?
                }
                Err(error) => return Err(failed(path, "open the directory above")(error)),
            };
            start = end.saturating_add(1);
        }
        Ok(reached)
    }

    /// Counts the directory `prefix` above `path`, which the layer has no entry for, and whose path counts for so much.
    fn count_implied(&mut self, path: &RelPath, prefix: &[u8], counted: usize) -> Result<(), UnpackError> {
        let bytes = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let subject = || quoted(path.as_bytes());
        self.implied_bytes = self.implied_bytes.saturating_add(bytes(counted));
        self.shared.options.limits.check(Limit::ImpliedPathBytes, self.implied_bytes, subject)?;
        // The manifest will have an entry for it, as for what the archive names.
        self.shared.budget.take_entry(subject)?;
        Ok(self.shared.budget.take_paths(bytes(prefix.len()), subject)?)
    }

    /// Makes a directory that the layer has no entry for.
    fn make_implicit(
        &mut self,
        path: &RelPath,
        prefix: &[u8],
        above: &Arc<OwnedFd>,
        name: &[u8],
    ) -> Result<Arc<OwnedFd>, UnpackError> {
        let blocked = || UnpackError::ParentNotDirectory { member: member(path), parent: path_buf(prefix) };
        let dir = path.first(prefix.len());
        let mut hides = self.hidden.remove(&dir);
        match stat::stat_at(above.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(path, "examine the directory above")(error)),
            // The layer deletes the name below, and has a directory of its own there.
            Ok(found) => {
                let namespace = self.shared.options.xattr_namespace;
                let target = Target::Name(above.as_fd(), name);
                if !is_whiteout(&found, target, namespace)
                    .map_err(failed(path, "examine the directory above"))?
                {
                    return Err(blocked());
                }
                node::remove_file(above.as_fd(), name).map_err(failed(path, "replace the whiteout above"))?;
                hides = true;
            }
        }
        let made = node::make_directory(above.as_fd(), name, 0o755)
            .and_then(|()| beneath::open_directory_beneath(above.as_fd(), name));
        let handle = self.handles.insert(prefix, made.map_err(failed(path, "make the directory above"))?);
        self.describe_directory(&dir, &handle, &Metadata { mode: 0o755, ..Metadata::default() }, true)?;
        self.directories.entry(dir.clone()).or_default().implicit = true;
        if hides {
            self.set_opaque(&dir, &handle)?;
        }
        Ok(handle)
    }
}

/// The bytes of the directory that `path` lies in.
fn parent_bytes(path: &RelPath) -> &[u8] {
    let bytes = path.as_bytes();
    let end = bytes.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    bytes.get(..end).unwrap_or_default()
}

/// Where the parts of a path end: at each slash and at its end.
fn part_ends(path: &[u8]) -> impl DoubleEndedIterator<Item = usize> {
    let slashes = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
    slashes.chain(std::iter::once(path.len()))
}

/// Whether a directory could not be opened because it is missing, or because something else stands there.
fn may_be_made(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}
