//! A diff directory as a manifest: the changes it stands for, whatever form they take on this disk.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use layerstore_schema::manifest::{Entry, Kind, Manifest, Room, path_order};
use rustix::fs::FileType;

use super::looks::Written;
use super::overlay_form::{Meaning, OPAQUE, XattrNamespace, more_links, origin_handle};
use super::program_marks::{self, PASSING_MARKS, ProgramMark};
use super::usage::{Tally, Usage};
use super::walk::{Access, Life, Step, Walker, failed, is_gone, path_buf};
use super::{hash_files, masked};
use crate::error::{ScanError, TreeError, is_denied};
use crate::sys::handle::{Handle, handle_at};
use crate::sys::stat::{FileId, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, node, stat};
use crate::types::{ContentHash, Metadata, Timestamp};

/// One path of a diff directory, its content not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ScannedEntry {
    /// The path below the root; empty for the root.
    pub(crate) path: Vec<u8>,
    /// What stands there.
    pub(crate) kind: ScannedKind,
    /// Its metadata; the default for whiteouts and hard links.
    pub(crate) metadata: Metadata,
    /// Its inode. A tree may have several with one number: a subvolume of btrfs has numbers of its own.
    pub(crate) id: FileId,
    /// Bytes it takes on the disk; 0 for hard links.
    pub(crate) allocated: u64,
    /// What overlayfs has left of it in the layers below, if that is so.
    pub(crate) left_below: Option<LeftBelow>,
    /// Of the first name of a file: the file below that it was copied from, if a mount with `index=on` keeps other names of
    /// that for names of this.
    pub(crate) linked_below: Option<Handle>,
}

impl ScannedEntry {
    /// Whether the directory alone does not say what stands here.
    pub(crate) fn is_left_below(&self) -> bool {
        self.left_below.is_some() || self.linked_below.is_some()
    }
}

/// What overlayfs leaves in the layers below instead of copying it, where a mount allows that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LeftBelow {
    /// What is in the directory, which was renamed (`redirect_dir=on`).
    Tree {
        /// Where it is: a name in what the directory above is merged with, or a path from the root with a slash.
        redirect: Vec<u8>,
    },
    /// The bytes of the file, of which only owner, mode or attributes were changed (`metacopy=on`).
    Content {
        /// The same, if it is not at its own name any more.
        redirect: Option<Vec<u8>>,
    },
}

/// What stands at a path, its content not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ScannedKind {
    /// A regular file, with its length.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// Anything else, and never [`Kind::File`].
    Other(Kind),
}

impl ScannedKind {
    /// Whether it has an owner, and a mode: a deleted name, or a further name of a file, has none of its own.
    pub(crate) fn has_owner(&self) -> bool {
        match self {
            ScannedKind::File { .. } => true,
            ScannedKind::Other(kind) => has_owner(kind),
        }
    }
}

/// As [`ScannedKind::has_owner`], of what stands in a manifest.
pub(crate) fn has_owner(kind: &Kind) -> bool {
    !matches!(kind, Kind::Whiteout | Kind::HardLink { .. })
}

/// Something of a diff directory that this process may not read, which says nothing of what it is.
#[derive(Debug)]
pub(crate) struct Withheld {
    /// The path below the root.
    pub(crate) path: Vec<u8>,
    /// What of it.
    pub(crate) part: WithheldPart,
    /// The kernel's answer.
    pub(crate) reason: io::Error,
}

/// What may not be read of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WithheldPart {
    /// Everything that is in a directory.
    Names,
    /// Its attributes, and so whether it is an opaque directory.
    Attributes,
    /// The content of a file.
    Content,
}

/// Lists a diff directory in manifest order, without reading file content.
///
/// Returns [`ScanError::Redirected`] if overlayfs left an entry whose content lies in another layer.
pub(crate) fn list(root: BorrowedFd<'_>, namespace: XattrNamespace) -> Result<Vec<ScannedEntry>, ScanError> {
    let entries = list_as_left(root, namespace, Life::Still)?;
    refuse_left_below(&entries, namespace).map(|()| entries)
}

pub(super) fn refuse_left_below(
    entries: &[ScannedEntry],
    namespace: XattrNamespace,
) -> Result<(), ScanError> {
    match entries.iter().find(|entry| entry.is_left_below()) {
        None => Ok(()),
        Some(entry) => {
            let attribute = match entry.left_below {
                Some(LeftBelow::Tree { .. }) => namespace.redirect(),
                Some(LeftBelow::Content { .. }) => namespace.metacopy(),
                None => namespace.links(),
            };
            let xattr = String::from_utf8_lossy(attribute).into_owned();
            Err(ScanError::Redirected { path: path_buf(&entry.path), xattr })
        }
    }
}

/// Lists a directory that mounts have written to, with what they left in the layers below.
///
/// Returns [`ScanError`] if it cannot be read, or is more than a manifest may have.
pub(crate) fn list_as_left(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
    life: Life,
) -> Result<Vec<ScannedEntry>, ScanError> {
    walk(root, namespace, (Access::AsIs, life), None).map(|walked| walked.entries)
}

/// A directory as a walk found it.
pub(super) struct Walked {
    pub(super) entries: Vec<ScannedEntry>,
    pub(super) usage: Usage,
    /// With [`Access::PassBy`]: what may not be read.
    pub(super) withheld: Vec<Withheld>,
}

/// Lists a directory and measures it, each file with one look, but for those that are `written`.
pub(super) fn walk(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
    (access, life): (Access, Life),
    written: Option<Written<'_>>,
) -> Result<Walked, ScanError> {
    let found = stat::stat(root).map_err(failed(b".", "examine"))?;
    let masked = masked::mask_of(root, namespace).map_err(failed(b".", "read the xattrs of"))?.is_some();
    let by_program = program_marks::is_by_program(root, namespace);
    let by_program = by_program.map_err(failed(b".", "read the xattrs of"))?;
    let mut scan = Scan {
        namespace,
        masked,
        access,
        withheld: Vec::new(),
        entries: Vec::new(),
        room: Room::default(),
        first_names: HashMap::new(),
        linked: HashMap::new(),
    };
    let mut tally = Tally::default();
    tally.add(&found);
    let mut walker = Walker::with(root, access, life)?;
    if written.is_some() {
        walker.trust_listed_inodes();
    }
    let opaque = scan.directory(b"", &found, walker.directory().as_fd(), by_program)?;
    // Whether each directory above, the root first, is opaque.
    let mut opaque = vec![opaque];
    // The names that a program says are gone, with the files that say so.
    let mut gone: Vec<(Vec<u8>, Stat)> = Vec::new();
    while let Some(step) = walker.next_step_knowing(|id| written?.look(id))? {
        if let Step::Enter(item) | Step::Leaf(item) = &step {
            tally.add(&item.stat);
        }
        match step {
            Step::Enter(item) => {
                let directory = walker.directory().as_fd();
                opaque.push(scan.directory(walker.path(), &item.stat, directory, by_program)?);
            }
            Step::Leave(_) => drop(opaque.pop()),
            Step::Leaf(item) => {
                if let Some(reason) = walker.take_refusal() {
                    let target = Target::Name(item.dir.as_fd(), &item.name);
                    scan.add(walker.path(), &item.stat, target, false, None)?;
                    scan.withhold(walker.path(), WithheldPart::Names, reason);
                    continue;
                }
                // A program leaves whiteouts also where nothing is below.
                let hidden = by_program && opaque.contains(&true);
                match program_marks::mark_of(&item.name, &item.stat).filter(|_| by_program) {
                    Some(ProgramMark::Opaque) => {}
                    Some(ProgramMark::Gone(_)) if hidden => {}
                    Some(ProgramMark::Gone(name)) => {
                        let mut path = walker.path().to_vec();
                        path.truncate(path.len().saturating_sub(item.name.len()));
                        path.extend_from_slice(name);
                        gone.push((path, item.stat));
                    }
                    None => {
                        let within = if hidden { Some(true) } else { opaque.last().copied() };
                        let target = Target::Name(item.dir.as_fd(), &item.name);
                        let bare = written.is_some_and(|written| written.is_bare(&item.stat));
                        match scan.add(walker.path(), &item.stat, target, bare, within) {
                            Err(ScanError::Tree(TreeError::Io { source, .. }))
                                if life == Life::Changing && is_gone(&source) => {}
                            added => drop(added?),
                        }
                    }
                }
            }
        }
    }
    scan.finish_links();
    scan.add_gone(gone)?;
    Ok(Walked { entries: scan.entries, usage: tally.usage, withheld: scan.withheld })
}

/// Lists a directory that another program has made of an archive. The marks of overlayfs for what was left below came with the
/// archive there, and mean nothing.
///
/// Returns [`ScanError`] if it cannot be read.
pub(crate) fn list_of_another(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> Result<Vec<ScannedEntry>, ScanError> {
    let mut entries = list_as_left(root, namespace, Life::Still)?;
    for entry in &mut entries {
        (entry.left_below, entry.linked_below) = (None, None);
    }
    Ok(entries)
}

/// What the filesystem calls the file at a path, if it has names of that kind.
pub(crate) fn handle(root: BorrowedFd<'_>, path: &[u8]) -> Option<Handle> {
    let (above, name) = beneath::open_parent_beneath(root, path).ok()?;
    handle_at(above.as_fd(), name).ok()
}

/// Makes the manifest of a diff directory. Files whose inode is in `known` are not read again; the others
/// are, on all processors.
///
/// Returns what [`list`] does, and [`ScanError::Changed`] if a file is written to meanwhile.
pub(crate) fn scan(
    root: BorrowedFd<'_>,
    known: &HashMap<u64, ContentHash>,
    namespace: XattrNamespace,
) -> Result<Manifest, ScanError> {
    measured_scan(root, known, None, namespace).map(|(manifest, _)| manifest)
}

/// As [`scan`], and with what the directory takes on the disk. Those of the `known` files that were just `written` are not even looked at.
pub(crate) fn measured_scan(
    root: BorrowedFd<'_>,
    known: &HashMap<u64, ContentHash>,
    written: Option<Written<'_>>,
    namespace: XattrNamespace,
) -> Result<(Manifest, Usage), ScanError> {
    let Walked { entries: listed, usage, .. } = walk(root, namespace, (Access::AsIs, Life::Still), written)?;
    refuse_left_below(&listed, namespace)?;
    let is_unknown = |entry: &ScannedEntry| !known.contains_key(&entry.id.inode);
    let read = hash_files(root, listed.iter().filter(|entry| is_unknown(entry)), Life::Still)?;
    let mut entries = Vec::with_capacity(listed.len());
    for ScannedEntry { path, kind, metadata, id, .. } in listed {
        let kind = match kind {
            ScannedKind::Other(kind) => kind,
            ScannedKind::File { size } => match known.get(&id.inode).or_else(|| read.get(&id)) {
                Some(&content) => Kind::File { size, content },
                None => return Err(ScanError::Changed { path: path_buf(&path) }),
            },
        };
        entries.push(Entry { path, kind, metadata });
    }
    Ok((Manifest::new(entries)?, usage))
}

/// A listing without names that are gone by now. The next name of a file that has others becomes its first.
pub(crate) fn without(entries: Vec<ScannedEntry>, gone: &HashSet<Vec<u8>>) -> Vec<ScannedEntry> {
    // What each of these names was, and the first name that its file has now.
    let mut files: HashMap<Vec<u8>, (ScannedEntry, Option<Vec<u8>>)> = HashMap::new();
    let mut left = Vec::with_capacity(entries.len());
    for mut entry in entries {
        if gone.contains(&entry.path) {
            files.insert(entry.path.clone(), (entry, None));
            continue;
        }
        if let ScannedKind::Other(Kind::HardLink { target }) = &mut entry.kind
            && let Some((file, first)) = files.get_mut(target)
        {
            match first {
                Some(first) => target.clone_from(first),
                None => {
                    *first = Some(entry.path.clone());
                    entry = ScannedEntry { path: entry.path, ..file.clone() };
                }
            }
        }
        left.push(entry);
    }
    left
}

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

struct Scan {
    namespace: XattrNamespace,
    /// Whether modes and owners stand in an attribute.
    masked: bool,
    access: Access,
    withheld: Vec<Withheld>,
    entries: Vec<ScannedEntry>,
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
    /// Adds what stands at `path`, which is not asked for attributes if it is `bare`; `within_opaque` for what is no directory. Returns
    /// whether it is an opaque directory.
    fn add(
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
    fn directory(
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

    fn withhold(&mut self, path: &[u8], part: WithheldPart, reason: io::Error) {
        self.withheld.push(Withheld { path: path.to_vec(), part, reason });
    }

    /// Adds whiteouts for names that a program says are gone, but for those that are there.
    fn add_gone(&mut self, mut gone: Vec<(Vec<u8>, Stat)>) -> Result<(), ScanError> {
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
    fn finish_links(&mut self) {
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

#[cfg(test)]
mod tests;
