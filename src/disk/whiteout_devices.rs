//! Whiteouts of a directory that is going to be written to.
//!
//! Where devices are refused, whiteouts are made as files with an attribute. The kernel takes those for whiteouts in lower layers alone:
//! an upper directory would list them, as names that nobody can open or remove.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::overlay_form::{HAS_XATTR_WHITEOUTS, XattrNamespace, is_whiteout};
use super::tree_writer::is_refusal;
use super::walk::{Access, Item, Step, Walker, failed, path_buf};
use crate::error::TreeError;
use crate::sys::node::{self, NodeKind};
use crate::sys::stat;
use crate::sys::xattr::{self, Target};

/// Whether a diff directory may have whiteouts that are no devices: its root is marked then, for that or as opaque.
///
/// Returns [`TreeError`] if that cannot be read.
pub(crate) fn may_have_xattr_whiteouts(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> Result<bool, TreeError> {
    let mark = xattr::get(Target::File(root), namespace.opaque());
    Ok(mark.map_err(failed(b".", "read the opaque mark of"))?.is_some())
}

/// Turns all whiteouts of a staged diff directory into devices. Costs nothing where none is to be turned.
///
/// Returns [`TreeError::Whiteout`] if the process may not make such a device.
pub(crate) fn make_whiteouts_devices(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> Result<(), TreeError> {
    if !may_have_xattr_whiteouts(root, namespace)? {
        return Ok(());
    }
    unmark(root, namespace).map_err(failed(b".", "remove the mark of"))?;
    let mut walker = Walker::new(root, Access::AsIs)?;
    while let Some(step) = walker.next_step()? {
        match step {
            Step::Enter(_) => unmark(walker.directory().as_fd(), namespace)
                .map_err(failed(walker.path(), "remove the mark of"))?,
            Step::Leaf(item) if item.stat.kind == FileType::RegularFile => {
                turn(&item, namespace).map_err(|error| match is_refusal(&error) {
                    true => TreeError::Whiteout { path: path_buf(walker.path()), source: error },
                    false => failed(walker.path(), "make a device of the whiteout")(error),
                })?;
            }
            Step::Leaf(_) | Step::Leave(_) => {}
        }
    }
    Ok(())
}

/// Takes away the mark by which the kernel looks for such whiteouts in a directory.
fn unmark(directory: BorrowedFd<'_>, namespace: XattrNamespace) -> io::Result<()> {
    let directory = Target::File(directory);
    match xattr::get(directory, namespace.opaque())?.as_deref() {
        Some(HAS_XATTR_WHITEOUTS) => xattr::remove(directory, namespace.opaque()),
        _ => Ok(()),
    }
}

fn turn(item: &Item, namespace: XattrNamespace) -> io::Result<()> {
    let (dir, name) = (item.dir.as_fd(), item.name.as_slice());
    if !is_whiteout(&item.stat, Target::Name(dir, name), namespace)? {
        return Ok(());
    }
    let before = stat::stat(dir)?;
    node::remove_file(dir, name)?;
    node::make_node(dir, name, NodeKind::CharDevice, 0, (0, 0))?;
    node::set_mtime(dir, before.mtime)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::super::fixture::Member::{D, F, Opaque, Whiteout};
    use super::super::fixture::{Place, namespace, raw_xattrs, shape};
    use super::*;

    #[test]
    fn whiteouts_of_an_upper_directory_are_devices() {
        let place = Place::new();
        let mut tree = place.strict_writer();
        tree.refuse_devices();
        let members = [D("a"), F("a/kept"), Whiteout("a/gone"), Whiteout("b/c/gone"), Opaque("d"), F("d/x")];
        members.iter().for_each(|member| member.write(&mut tree, &place.path("victim")).unwrap());
        tree.finish().unwrap();
        assert!(place.path("diff/a/gone").metadata().unwrap().is_file());
        let (root, before) = (place.open("diff"), place.manifest("diff"));
        assert!(may_have_xattr_whiteouts(root.as_fd(), namespace()).unwrap());
        make_whiteouts_devices(root.as_fd(), namespace()).unwrap();
        assert_eq!(place.manifest("diff"), before, "the changes are the same, times included");
        assert_eq!(shape(&before).iter().filter(|line| line.starts_with('w')).count(), 2);
        for whiteout in ["diff/a/gone", "diff/b/c/gone"] {
            let found = place.path(whiteout).symlink_metadata().unwrap();
            assert!(found.file_type().is_char_device(), "{whiteout}");
        }
        for directory in ["diff", "diff/a", "diff/b/c"] {
            assert_eq!(
                raw_xattrs(&place.path(directory)).into_keys().collect::<Vec<_>>(),
                [""; 0],
                "{directory}"
            );
        }
        assert!(!may_have_xattr_whiteouts(root.as_fd(), namespace()).unwrap());
    }
}
