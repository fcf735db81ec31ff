//! The marks of a mount program, which the kernel does not know.
//!
//! fuse-overlayfs marks an opaque directory by a file `.wh..wh..opq` in it, whatever attributes it can write, and a name that is
//! gone by a file `.wh.NAME` where it can make no device. Nobody can make files of these names through it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::overlay_form::{OPAQUE, XattrNamespace};
use super::walk::{Access, Item, Step, Walker, failed};
use crate::error::TreeError;
use crate::sys::node::{self, NodeKind};
use crate::sys::stat;
use crate::sys::xattr::{self, Target};

const MARK: &[u8] = b".wh.";
/// What follows it in the mark of an opaque directory.
const OPAQUE_MARK: &[u8] = b".wh..opq";

/// Which marks in a diff directory are a program's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Marks {
    /// All: a program has made the mount that was written through.
    All,
    /// Those of opaque directories, as whoever reads the directory takes them. An empty file `.wh.NAME` may be somebody's if
    /// nobody knows what made the mount.
    Opaque,
}

/// Turns the marks that a mount program left in a diff directory into those of the kernel. Nobody else may change it meanwhile.
pub(crate) fn settle_program_marks(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
    marks: Marks,
) -> Result<(), TreeError> {
    let mut walker = Walker::new(root, Access::AsIs)?;
    while let Some(step) = walker.next_step()? {
        if let Step::Leaf(item) = step
            && item.stat.kind == FileType::RegularFile
            && item.stat.size == 0
            && let Some(what) = item.name.strip_prefix(MARK)
            && (what == OPAQUE_MARK || marks == Marks::All)
        {
            settle(&item, what, namespace).map_err(failed(walker.path(), "settle the mark"))?;
        }
    }
    Ok(())
}

fn settle(item: &Item, what: &[u8], namespace: XattrNamespace) -> io::Result<()> {
    let dir = item.dir.as_fd();
    let before = stat::stat(dir)?;
    if what == OPAQUE_MARK {
        xattr::set(Target::File(dir), namespace.opaque(), OPAQUE)?;
    } else if what.is_empty() || what.starts_with(MARK) {
        return Ok(());
    } else if let Err(error) = node::make_node(dir, what, NodeKind::CharDevice, 0, (0, 0))
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    node::remove_file(dir, &item.name)?;
    node::set_mtime(dir, before.mtime)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Member::{D, F};
    use super::super::fixture::{Place, namespace, shape};
    use super::*;

    #[test]
    fn marks_become_the_kernels() {
        let (place, unpacked) = Place::unpack(&[D("dir"), F("dir/made"), D("other"), F("other/kept")]);
        unpacked.unwrap();
        for name in ["dir/.wh..wh..opq", "other/.wh.gone", "other/.wh.kept"] {
            std::fs::write(place.path("diff").join(name), "").unwrap();
        }
        std::fs::write(place.path("diff/.wh.full"), "somebody's").unwrap();
        let times =
            |name: &str| std::fs::metadata(place.path("diff").join(name)).unwrap().modified().unwrap();
        let before = times("dir");
        settle_program_marks(place.open("diff").as_fd(), namespace(), Marks::Opaque).unwrap();
        let found = shape(&place.manifest("diff"));
        let files = ["f other/.wh.gone", "f other/.wh.kept"];
        assert!(files.iter().all(|file| found.iter().any(|line| line == file)), "{found:?}");
        assert!(!place.path("diff/dir/.wh..wh..opq").exists());
        settle_program_marks(place.open("diff").as_fd(), namespace(), Marks::All).unwrap();
        assert_eq!(times("dir"), before);
        let found = shape(&place.manifest("diff"));
        assert_eq!(found, ["f .wh.full", "o dir", "f dir/made", "d other", "w other/gone", "f other/kept"]);
    }
}
