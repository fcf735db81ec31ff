//! The directories from a tree's root down to where a walk is, as handles.
//!
//! A tree may be deeper than a process may have open files. So only the deepest few handles stay open; the
//! others are opened again, through `..`, when the walk comes back up, and must then be the same inode as
//! before.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::sys::stat::FileId;
use crate::sys::{beneath, stat};

/// How many handles above the current one stay open.
const OPEN: usize = 24;

/// A path of open directories. The last one pushed is the current one.
#[derive(Debug)]
pub(super) struct DirStack {
    current: Frame,
    above: Vec<Suspended>,
}

#[derive(Debug)]
struct Frame {
    id: FileId,
    handle: Arc<OwnedFd>,
}

#[derive(Debug)]
struct Suspended {
    id: FileId,
    handle: Option<Arc<OwnedFd>>,
}

/// How coming back up went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Popped {
    /// The directory above is the current one.
    Up,
    /// The current directory is the root; nothing changed.
    AtRoot,
    /// `..` is another directory than before: someone moved the tree. The stack is unusable.
    Moved,
}

impl DirStack {
    pub(super) fn new(root: OwnedFd) -> io::Result<Self> {
        Ok(DirStack { current: Frame::new(root)?, above: Vec::new() })
    }

    /// The deepest directory.
    pub(super) fn current(&self) -> &Arc<OwnedFd> {
        &self.current.handle
    }

    /// Which filesystem it is in.
    pub(super) fn filesystem(&self) -> (u32, u32) {
        self.current.id.filesystem
    }

    /// Goes down into `child`, which must lie in the current directory.
    pub(super) fn push(&mut self, child: OwnedFd) -> io::Result<()> {
        let parent = std::mem::replace(&mut self.current, Frame::new(child)?);
        self.above.push(Suspended { id: parent.id, handle: Some(parent.handle) });
        let stale = self.above.len().checked_sub(OPEN + 1);
        // The root's handle is the caller's way in and stays.
        if let Some(frame) = stale.filter(|&at| at > 0).and_then(|at| self.above.get_mut(at)) {
            frame.handle = None;
        }
        Ok(())
    }

    /// Goes up to the directory above.
    pub(super) fn pop(&mut self) -> io::Result<Popped> {
        let Some(parent) = self.above.pop() else { return Ok(Popped::AtRoot) };
        self.current = match parent.handle {
            Some(handle) => Frame { id: parent.id, handle },
            None => Frame::new(beneath::open_parent(self.current.handle.as_fd())?)?,
        };
        Ok(if self.current.id == parent.id { Popped::Up } else { Popped::Moved })
    }
}

impl Frame {
    fn new(directory: OwnedFd) -> io::Result<Self> {
        let id = stat::stat(directory.as_fd())?.id;
        Ok(Frame { id, handle: Arc::new(directory) })
    }
}
