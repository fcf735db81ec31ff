//! From what stands on the disk to what it means: whiteouts, opaque directories, further names of a file, and what is left below.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;

use layerstore_schema::manifest::{Kind, Room, path_order};
use rustix::fs::FileType;

use super::super::masked;
use super::super::overlay_form::{Meaning, OPAQUE, XattrNamespace, more_links, origin_handle};
use super::super::program_marks::{self, PASSING_MARKS};
use super::super::walk::{Access, failed};
use super::entry::{LeftBelow, ScannedEntry, ScannedKind, Withheld, WithheldPart};
use crate::error::{ScanError, TreeError, is_denied};
use crate::sys::handle::Handle;
use crate::sys::node;
use crate::sys::stat::{FileId, Stat};
use crate::sys::xattr::{self, Target};
use crate::types::{Metadata, Timestamp};

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a walk has found so far.
pub(super) struct Scan {
    namespace: XattrNamespace,
    /// Whether modes and owners stand in an attribute.
    masked: bool,
    access: Access,
    pub(super) withheld: Vec<Withheld>,
    /// In the order of a manifest.
    pub(super) entries: Vec<ScannedEntry>,
    /// What is left for the manifest: each of a million links may repeat a long name, and takes nothing on the disk.
    room: Room,
    /// The first path of each inode that has several names.
    first_names: HashMap<FileId, Vec<u8>>,
    /// Files of which a mount shows more names than are here, perhaps.
    linked: HashMap<FileId, Linked>,
}

/// Names of a file.
struct Linked {
    /// The position of its first name's entry.
    first: usize,
    /// How many names a mount shows.
    shown: i64,
    /// How many are here.
    here: i64,
    origin: Handle,
}

impl Scan {
    pub(super) fn new(namespace: XattrNamespace, masked: bool, access: Access) -> Self {
        Scan {
            namespace,
            masked,
            access,
            withheld: Vec::new(),
            entries: Vec::new(),
            room: Room::default(),
            first_names: HashMap::new(),
            linked: HashMap::new(),
        }
    }

    /// Adds what stands at `path`, which is not asked for attributes if it is `bare`; `within_opaque` for what is no directory. Returns
    /// whether it is an opaque directory.
    pub(super) fn add(
        &mut self,
        path: &[u8],
        found: &Stat,
        target: Target<'_>,
        bare: bool,
        within_opaque: Option<bool>,
    ) -> Result<bool, ScanError> {
        let deletes = found.kind == FileType::CharacterDevice && found.device == (0, 0);
        let (marks, xattrs) = if deletes {
            (Marks { whiteout: true, ..Marks::default() }, Vec::new())
        } else if bare {
            Default::default()
        } else {
            match self.read_xattrs(path, target) {
                Err(ScanError::Tree(TreeError::Io { source, .. }))
                    if self.access == Access::PassBy && is_denied(&source) =>
                {
                    self.withhold(path, WithheldPart::Attributes, source);
                    Default::default()
                }
                read => read?,
            }
        };
        let whiteout = deletes || (marks.whiteout && found.kind == FileType::RegularFile && found.size == 0);
        if whiteout {
            // An opaque directory hides the name already; that no form of whiteout counts there makes the
            // digest the same for all.
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            if within_opaque != Some(true) && !PASSING_MARKS.contains(&name) {
                self.push(path, found, ScannedKind::Other(Kind::Whiteout), Metadata::default(), None)?;
            }
            return Ok(false);
        }
        let several =
            (found.kind != FileType::Directory && found.links > 1).then_some((found.id, found.links));
        if let Some((id, _)) = several
            && let Some(first) = self.first_names.get(&id)
        {
            if let Some(linked) = self.linked.get_mut(&id) {
                linked.here = linked.here.saturating_add(1);
            }
            let kind = ScannedKind::Other(Kind::HardLink { target: first.clone() });
            self.push(path, found, kind, Metadata::default(), None)?;
            return Ok(false);
        }
        let revealed;
        let found = if self.masked {
            revealed = masked::reveal(target, found).map_err(failed(path, "read the xattrs of"))?;
            &revealed
        } else {
            found
        };
        let kind = scanned_kind(path, found, target, marks.opaque)?;
        let (seconds, nanoseconds) = found.mtime;
        let metadata = Metadata {
            // A symbolic link has no mode that anyone could set.
            mode: if found.kind == FileType::Symlink { 0o777 } else { found.mode },
            uid: found.uid,
            gid: found.gid,
            mtime: Timestamp { seconds, nanoseconds },
            xattrs,
        };
        let is_opaque = marks.opaque && found.kind == FileType::Directory;
        let left_below = match (found.kind, marks.redirect) {
            // Nothing below is merged with what is opaque.
            (FileType::Directory, Some(redirect)) if !is_opaque => Some(LeftBelow::Tree { redirect }),
            // Once it has its content, where that came from means nothing.
            (FileType::RegularFile, redirect) if marks.metacopy => Some(LeftBelow::Content { redirect }),
            _ => None,
        };
        // Nothing can be in the way of this name any more.
        if let Some((id, links)) = several {
            self.first_names.insert(id, path.to_vec());
            if let (Some(more), Some(origin)) = (marks.more_links, marks.origin) {
                let shown = i64::from(links).saturating_add(more);
                let first = self.entries.len();
                self.linked.insert(id, Linked { first, shown, here: 1, origin });
            }
        }
        self.push(path, found, kind, metadata, left_below)?;
        Ok(is_opaque)
    }

    /// Adds a directory, to which a program has written or not. Returns whether it is opaque.
    pub(super) fn directory(
        &mut self,
        path: &[u8],
        found: &Stat,
        directory: BorrowedFd<'_>,
        by_program: bool,
    ) -> Result<bool, ScanError> {
        let opaque = self.add(path, found, Target::File(directory), false, None)?;
        if opaque || !by_program {
            return Ok(opaque);
        }
        let opaque = program_marks::is_opaque_by_program(directory);
        let opaque = opaque.map_err(failed(path, "read the marks of"))?;
        if let Some(entry) = self.entries.last_mut().filter(|_| opaque) {
            entry.kind = ScannedKind::Other(Kind::Directory { opaque: true });
            entry.left_below = None;
        }
        Ok(opaque)
    }

    pub(super) fn withhold(&mut self, path: &[u8], part: WithheldPart, reason: io::Error) {
        self.withheld.push(Withheld { path: path.to_vec(), part, reason });
    }

    /// Adds whiteouts for names that a program says are gone, but for those that are there.
    pub(super) fn add_gone(&mut self, mut gone: Vec<(Vec<u8>, Stat)>) -> Result<(), ScanError> {
        if gone.is_empty() {
            return Ok(());
        }
        let there: HashSet<&[u8]> = self.entries.iter().map(|entry| entry.path.as_slice()).collect();
        gone.retain(|(path, _)| !there.contains(path.as_slice()));
        for (path, found) in gone {
            self.push(&path, &found, ScannedKind::Other(Kind::Whiteout), Metadata::default(), None)?;
        }
        self.entries.sort_by(|one, other| path_order(&one.path, &other.path));
        Ok(())
    }

    fn push(
        &mut self,
        path: &[u8],
        found: &Stat,
        kind: ScannedKind,
        metadata: Metadata,
        left_below: Option<LeftBelow>,
    ) -> Result<(), ScanError> {
        let link = matches!(kind, ScannedKind::Other(Kind::HardLink { .. }));
        let target: &[u8] = match &kind {
            ScannedKind::Other(Kind::HardLink { target } | Kind::Symlink { target }) => target,
            _ => &[],
        };
        self.room.take_entry(path, target, &metadata.xattrs)?;
        self.entries.push(ScannedEntry {
            path: path.to_vec(),
            kind,
            metadata,
            id: found.id,
            allocated: if link { 0 } else { found.allocated },
            left_below,
            linked_below: None,
        });
        Ok(())
    }

    /// Marks the files of which a mount shows names that are not here.
    pub(super) fn finish_links(&mut self) {
        for linked in
            std::mem::take(&mut self.linked).into_values().filter(|linked| linked.shown > linked.here)
        {
            if let Some(entry) = self.entries.get_mut(linked.first) {
                entry.linked_below = Some(linked.origin);
            }
        }
    }

    /// Reads the layer's own attributes, sorted, and what overlayfs' say.
    fn read_xattrs(&self, path: &[u8], target: Target<'_>) -> Result<(Marks, Xattrs), ScanError> {
        let mut marks = Marks::default();
        let mut own = Vec::new();
        let names = masked::attributes(target, self.namespace, self.masked);
        for (stored, meaning) in names.map_err(failed(path, "list the xattrs of"))? {
            let value = || xattr::get(target, &stored).map_err(failed(path, "read the xattrs of"));
            match meaning {
                Meaning::Own(name) => own.extend(value()?.map(|value| (name, value))),
                Meaning::Opaque => marks.opaque = value()?.as_deref() == Some(OPAQUE),
                Meaning::Whiteout => marks.whiteout = true,
                Meaning::Redirect => marks.redirect = value()?,
                Meaning::Metacopy => marks.metacopy = true,
                Meaning::Origin => marks.origin = value()?.as_deref().and_then(origin_handle),
                Meaning::Links => marks.more_links = value()?.as_deref().and_then(more_links),
                Meaning::Private => {}
            }
        }
        own.sort_unstable();
        Ok((marks, own))
    }
}

/// What overlayfs' own attributes say.
#[derive(Default)]
struct Marks {
    opaque: bool,
    whiteout: bool,
    redirect: Option<Vec<u8>>,
    metacopy: bool,
    origin: Option<Handle>,
    more_links: Option<i64>,
}

fn scanned_kind(
    path: &[u8],
    found: &Stat,
    target: Target<'_>,
    opaque: bool,
) -> Result<ScannedKind, ScanError> {
    let (major, minor) = found.device;
    let kind = match (found.kind, target) {
        (FileType::RegularFile, _) => return Ok(ScannedKind::File { size: found.size }),
        (FileType::Directory, _) => Kind::Directory { opaque },
        (FileType::Symlink, Target::Name(dir, name)) => {
            Kind::Symlink { target: node::read_symlink(dir, name).map_err(failed(path, "read the link"))? }
        }
        (FileType::CharacterDevice, _) => Kind::CharDevice { major, minor },
        (FileType::BlockDevice, _) => Kind::BlockDevice { major, minor },
        (FileType::Fifo, _) => Kind::Fifo,
        (FileType::Socket, _) => Kind::Socket,
        _ => {
            let source = io::ErrorKind::Unsupported.into();
            return Err(failed(path, "tell the kind of")(source).into());
        }
    };
    Ok(ScannedKind::Other(kind))
}
