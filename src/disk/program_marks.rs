//! The marks of a mount program, which the kernel does not know.
//!
//! fuse-overlayfs marks an opaque directory by a file `.wh..wh..opq` in it and the attribute `user.fuseoverlayfs.opaque`, whatever else
//! it can write, and a name that is gone by a file `.wh.NAME` where it can make no device. It makes no files of these names for
//! those who use the mount. The kernel does, and there they are files like others; so are they in layers, where a directory may have
//! such a name. The attribute by which overlayfs of either class marks an opaque directory it takes for its own as well.
//!
//! So what a program would misread it does not mount: [`misread_in`] looks for that in a layer's manifest, and [`admit_program`] in a
//! directory that was written to. And a diff directory says itself who writes to it: before a program does, [`mark_for_program`] puts a mark on its root, among the attributes that are overlayfs' own. Only below this mark does anything mean
//! what the program says. [`settle_program_marks`] makes of it what the kernel would have written, and takes the mark away, last
//! of all: if it does not get that far, it is done again, and until then readers see the same layer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use layerstore_schema::manifest::{Entry, Kind, Manifest};
use rustix::fs::FileType;

use super::masked;
use super::overlay_form::{OPAQUE, XattrNamespace, is_whiteout};
use super::walk::{Access, Item, Step, Walker, failed, path_buf};
use crate::error::TreeError;
use crate::sys::node::{self, NodeKind};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};

/// What the name of a mark begins with.
const MARK: &[u8] = b".wh.";
/// The mark of an opaque directory.
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// Names of which fuse-overlayfs makes whiteouts while it removes a directory, as of all that it finds there, and leaves some. They
/// delete nothing: no layer brings files of these names.
pub(super) const PASSING_MARKS: [&[u8]; 2] = [OPAQUE_MARK, b".wh..opq"];

/// What the names of a program's attributes begin with; nobody can set the first through it. The second is what it reads as root, of a
/// layer's top before all others: there it says that the whole layer's modes and owners stand in such attributes.
const OF_PROGRAM: [&[u8]; 2] = [b"user.fuseoverlayfs.", b"security.fuseoverlayfs."];
/// The one that makes a directory opaque.
const OPAQUE_OF_PROGRAM: &[u8] = b"user.fuseoverlayfs.opaque";

/// Whether an attribute has a name by which a program keeps something for itself.
pub(super) fn is_of_program(name: &[u8]) -> bool {
    OF_PROGRAM.iter().any(|prefix| name.starts_with(prefix))
}

/// What a file says in a directory that a program writes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProgramMark<'n> {
    /// The directory that it is in hides everything below.
    Opaque,
    /// What the layers below have of this name is gone.
    Gone(&'n [u8]),
}

/// What the file says; `None` if it is a file like others.
pub(super) fn mark_of<'n>(name: &'n [u8], found: &Stat) -> Option<ProgramMark<'n>> {
    if found.kind != FileType::RegularFile || found.size != 0 {
        return None;
    }
    if name == OPAQUE_MARK {
        return Some(ProgramMark::Opaque);
    }
    let gone = name.strip_prefix(MARK)?;
    (!matches!(gone, b"" | b"." | b"..") && !gone.starts_with(MARK)).then_some(ProgramMark::Gone(gone))
}

/// Whether a program says that a directory is opaque.
pub(super) fn is_opaque_by_program(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let named = match stat::stat_at(directory, OPAQUE_MARK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        found => mark_of(OPAQUE_MARK, &found?).is_some(),
    };
    Ok(named || xattr::get(Target::File(directory), OPAQUE_OF_PROGRAM)?.as_deref() == Some(OPAQUE))
}

/// What a mount program would take for a mark and is none: lower files would be hidden by it, or it would be lost itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Misread {
    /// A file or directory, by its name.
    Name(PathBuf),
    /// A directory, by an attribute of this name.
    Attribute(PathBuf, &'static str),
}

impl Misread {
    fn name(path: &[u8]) -> Self {
        Misread::Name(path_buf(path))
    }

    fn attribute(path: &[u8], namespace: XattrNamespace) -> Self {
        let name = std::str::from_utf8(namespace.opaque_elsewhere()).unwrap_or_default();
        Misread::Attribute(path_buf(path), name)
    }
}

/// What a program would misread of a layer, the first in the manifest's order.
pub(crate) fn misread_in(manifest: &Manifest, namespace: XattrNamespace) -> Option<Misread> {
    manifest.entries().iter().find_map(|Entry { path, kind, metadata }| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        match kind {
            Kind::Whiteout => None,
            _ if name.starts_with(MARK) => Some(Misread::name(path)),
            Kind::Directory { .. }
                if metadata.xattrs.iter().any(|(name, _)| name == namespace.opaque_elsewhere()) =>
            {
                Some(Misread::attribute(path, namespace))
            }
            _ => None,
        }
    })
}

/// Whether a program has mounted a diff directory for writing, and its marks have not been settled since.
pub(crate) fn is_by_program(root: BorrowedFd<'_>, namespace: XattrNamespace) -> io::Result<bool> {
    Ok(xattr::get(Target::File(root), namespace.by_program())?.is_some())
}

/// Says of a diff directory that a program is going to write to it.
pub(crate) fn mark_for_program(root: BorrowedFd<'_>, namespace: XattrNamespace) -> io::Result<()> {
    match xattr::set(Target::File(root), namespace.by_program(), b"y") {
        // Where no attributes are kept a mount is better than none: the marks are files like others then, which no layer takes.
        Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => Ok(()),
        set => set,
    }
}

fn is_opaque_elsewhere(directory: Target<'_>, namespace: XattrNamespace) -> io::Result<bool> {
    Ok(xattr::get(directory, namespace.opaque_elsewhere())?.is_some())
}

/// Takes away what only a program would understand in a directory that none has written to. Returns what one would misread in it, if
/// there is something.
pub(crate) fn admit_program(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> Result<Option<Misread>, TreeError> {
    let settling = Settling::new(root, namespace)?;
    let mut walker = Walker::new(root, Access::AsIs)?;
    if is_opaque_elsewhere(Target::File(root), namespace).map_err(failed(b".", "examine"))? {
        return Ok(Some(Misread::attribute(b"", namespace)));
    }
    settling.clean(Target::File(root)).map_err(failed(b".", "clean"))?;
    while let Some(step) = walker.next_step()? {
        let (Step::Enter(item) | Step::Leaf(item)) = step else { continue };
        let path = walker.path();
        let target = Target::Name(item.dir.as_fd(), &item.name);
        if item.name.starts_with(MARK)
            && !is_whiteout(&item.stat, target, namespace).map_err(failed(path, "examine"))?
        {
            return Ok(Some(Misread::name(path)));
        }
        if item.stat.kind == FileType::Directory
            && is_opaque_elsewhere(target, namespace).map_err(failed(path, "examine"))?
        {
            return Ok(Some(Misread::attribute(path, namespace)));
        }
        settling.clean_item(&item).map_err(failed(path, "clean"))?;
    }
    Ok(None)
}

/// Turns the marks that a program left in a diff directory into those of the kernel, and takes away what only a program would
/// understand. Nobody else may change the directory meanwhile.
///
/// In one that no program has mounted, the names are left alone.
pub(crate) fn settle_program_marks(root: BorrowedFd<'_>, namespace: XattrNamespace) -> Result<(), TreeError> {
    let settling = Settling::new(root, namespace)?;
    let mut walker = Walker::new(root, Access::AsIs)?;
    const SETTLE: &str = "settle the marks of";
    // Whether each directory above, the root first, is opaque or below one that is.
    let mut hides = vec![settling.directory(root).map_err(failed(b".", SETTLE))?];
    while let Some(step) = walker.next_step()? {
        let above = hides.last().copied().unwrap_or_default();
        match step {
            Step::Enter(_) => {
                let opaque = settling.directory(walker.directory().as_fd());
                hides.push(opaque.map_err(failed(walker.path(), SETTLE))? || above);
            }
            Step::Leave(_) => drop(hides.pop()),
            Step::Leaf(item) => settling.leaf(&item, above).map_err(failed(walker.path(), SETTLE))?,
        }
    }
    if settling.by_program {
        xattr::remove(Target::File(root), namespace.by_program()).map_err(failed(b".", SETTLE))?;
    }
    Ok(())
}

struct Settling {
    namespace: XattrNamespace,
    by_program: bool,
    /// Whether modes and owners stand in an attribute.
    masked: bool,
}

impl Settling {
    fn new(root: BorrowedFd<'_>, namespace: XattrNamespace) -> Result<Self, TreeError> {
        let read = || {
            let by_program = is_by_program(root, namespace)?;
            let masked = masked::mask_of(root, namespace)?.is_some();
            Ok(Settling { namespace, by_program, masked })
        };
        read().map_err(failed(b".", "read the marks of"))
    }

    /// Returns whether the directory is opaque.
    fn directory(&self, directory: BorrowedFd<'_>) -> io::Result<bool> {
        let target = Target::File(directory);
        if self.by_program {
            // As root a program writes it in a store of users, too. It was nobody's before.
            let is_elsewhere = is_opaque_elsewhere(target, self.namespace)?;
            if is_elsewhere || is_opaque_by_program(directory)? {
                xattr::set(target, self.namespace.opaque(), OPAQUE)?;
            }
            if is_elsewhere {
                xattr::remove(target, self.namespace.opaque_elsewhere())?;
            }
        }
        self.clean(target)?;
        Ok(xattr::get(target, self.namespace.opaque())?.as_deref() == Some(OPAQUE))
    }

    /// `hidden` if nothing below is seen in the directory.
    fn leaf(&self, item: &Item, hidden: bool) -> io::Result<()> {
        let (dir, target) = (item.dir.as_fd(), Target::Name(item.dir.as_fd(), &item.name));
        let mark = mark_of(&item.name, &item.stat).filter(|_| self.by_program);
        // The kernel shows a whiteout where it has nothing to hide.
        let needless = hidden || PASSING_MARKS.contains(&item.name.as_slice());
        let needless = self.by_program && needless && is_whiteout(&item.stat, target, self.namespace)?;
        if mark.is_none() && !needless {
            return self.clean_item(item);
        }
        let before = stat::stat(dir)?;
        if let Some(ProgramMark::Gone(name)) = mark.filter(|_| !hidden)
            && let Err(error) = node::make_node(dir, name, NodeKind::CharDevice, 0, (0, 0))
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        node::remove_file(dir, &item.name)?;
        node::set_mtime(dir, before.mtime)
    }

    fn clean_item(&self, item: &Item) -> io::Result<()> {
        match item.stat.kind {
            // No other kind of file can have such attributes.
            FileType::RegularFile | FileType::Directory => {
                self.clean(Target::Name(item.dir.as_fd(), &item.name))
            }
            _ => Ok(()),
        }
    }

    fn clean(&self, target: Target<'_>) -> io::Result<()> {
        for name in xattr::list(target)? {
            let is_override = masked::is_override(&name);
            if (is_of_program(&name) || is_override) && !(is_override && self.masked) {
                xattr::remove(target, &name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Member::{D, F};
    use super::super::fixture::{Place, namespace, raw_xattrs, shape};
    use super::*;

    fn settle(place: &Place) {
        settle_program_marks(place.open("diff").as_fd(), namespace()).unwrap();
    }

    #[test]
    fn marks_become_the_kernels_where_a_program_has_mounted() {
        let (place, unpacked) =
            Place::unpack(&[D("dir"), F("dir/made"), D("dir/in"), D("other"), F("other/kept")]);
        unpacked.unwrap();
        for name in ["dir/.wh..wh..opq", "other/.wh.gone", "other/.wh.kept"] {
            std::fs::write(place.path("diff").join(name), "").unwrap();
        }
        std::fs::write(place.path("diff/.wh.full"), "somebody's").unwrap();
        for dir in ["diff/dir", "diff/dir/in"] {
            let whiteout = place.open(dir);
            node::make_node(whiteout.as_fd(), b".wh..opq", NodeKind::CharDevice, 0, (0, 0)).unwrap();
        }
        let times =
            |name: &str| std::fs::metadata(place.path("diff").join(name)).unwrap().modified().unwrap();
        let before = times("dir");
        settle(&place);
        assert_eq!(shape(&place.manifest("diff")).len(), 9, "a container's own files");

        let root = place.open("diff");
        mark_for_program(root.as_fd(), namespace()).unwrap();
        assert!(is_by_program(root.as_fd(), namespace()).unwrap());
        settle(&place);
        assert!(!is_by_program(root.as_fd(), namespace()).unwrap());
        assert_eq!(times("dir"), before);
        let found = shape(&place.manifest("diff"));
        let expected =
            ["f .wh.full", "o dir", "d dir/in", "f dir/made", "d other", "w other/gone", "f other/kept"];
        assert_eq!(found, expected);
        assert!(!place.path("diff/dir/in/.wh..opq").exists());
    }

    #[test]
    fn attributes_of_a_program_are_taken_away() {
        let (place, unpacked) = Place::unpack(&[D("dir"), F("file")]);
        unpacked.unwrap();
        let root = place.open("diff");
        for (name, attribute) in [
            (&b"dir"[..], OPAQUE_OF_PROGRAM),
            (b"file", b"user.fuseoverlayfs.origin"),
            (b"file", b"user.containers.override_stat"),
            (b"file", b"user.own"),
        ] {
            xattr::set(Target::Name(root.as_fd(), name), attribute, b"y").unwrap();
        }
        let names = |name: &str| raw_xattrs(&place.path("diff").join(name)).into_keys().collect::<Vec<_>>();
        settle(&place);
        assert_eq!((names("dir"), names("file")), (Vec::new(), vec!["user.own".to_owned()]));
        assert_eq!(shape(&place.manifest("diff")), ["d dir", "f file"], "nobody but a program says so");
    }

    #[test]
    fn a_program_mounts_nothing_that_it_would_misread() {
        let (place, unpacked) = Place::unpack(&[D("a"), D("b"), F("b/.who")]);
        unpacked.unwrap();
        let root = place.open("diff");
        let whiteout = place.open("diff/a");
        node::make_node(whiteout.as_fd(), b".wh.below", NodeKind::CharDevice, 0, (0, 0)).unwrap();
        let admitted = || admit_program(root.as_fd(), namespace()).unwrap();
        assert_eq!(admitted(), None);
        for name in ["b/.wh.x", "b/.wh..wh..opq", "b/.wh."] {
            std::fs::create_dir(place.path("diff").join(name)).unwrap();
            assert_eq!(admitted(), Some(Misread::Name(name.into())));
            std::fs::remove_dir(place.path("diff").join(name)).unwrap();
            std::fs::write(place.path("diff").join(name), "").unwrap();
            assert_eq!(admitted(), Some(Misread::Name(name.into())));
            std::fs::remove_file(place.path("diff").join(name)).unwrap();
        }
        let elsewhere = std::str::from_utf8(namespace().opaque_elsewhere()).unwrap();
        for path in ["", "b"] {
            let directory = place.open(&format!("diff/{path}"));
            if xattr::set(Target::File(directory.as_fd()), elsewhere.as_bytes(), OPAQUE).is_err() {
                continue;
            }
            assert_eq!(admitted(), Some(Misread::Attribute(path.into(), elsewhere)));
            xattr::remove(Target::File(directory.as_fd()), elsewhere.as_bytes()).unwrap();
        }
        assert_eq!(admitted(), None);
    }
}
