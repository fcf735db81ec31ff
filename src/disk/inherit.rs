//! The root directory of a new layer: an overlay mount shows the topmost layer's, so it starts as that of the layer below.

use std::io;
use std::os::fd::BorrowedFd;

use super::masked::{self, Override};
use super::overlay_form::{Meaning, XattrNamespace};
use crate::sys::node;
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};

/// Gives the root of one diff directory the owner, mode, time and attributes of another's; what overlayfs keeps there
/// for itself stays behind. Each may have the form with masked modes.
pub(crate) fn inherit_root(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> io::Result<()> {
    let found = stat_of_root(from, namespace)?;
    let (masked, mask) = (masked::mask_of(from, namespace)?.is_some(), masked::mask_of(to, namespace)?);
    match mask {
        Some(_) => Override::of(&found).write(Target::File(to))?,
        None => node::set_owner(to, found.uid, found.gid)?,
    }
    for (name, meaning) in masked::attributes(Target::File(from), namespace, masked)? {
        if let Meaning::Own(own) = meaning
            && let Some(stored) = masked::stored_name(namespace, &own, mask.is_some())
            && let Some(value) = xattr::get(Target::File(from), &name)?
        {
            xattr::set(Target::File(to), &stored, &value)?;
        }
    }
    node::set_mode(to, mask.unwrap_or(found.mode))?;
    node::set_mtime(to, found.mtime)
}

/// What the root of a diff directory is in its layer, in either form.
pub(crate) fn stat_of_root(root: BorrowedFd<'_>, namespace: XattrNamespace) -> io::Result<Stat> {
    let found = stat::stat(root)?;
    match masked::mask_of(root, namespace)? {
        Some(_) => masked::reveal(Target::File(root), &found),
        None => Ok(found),
    }
}

/// Gives the root of a diff directory another owner, where its form has that.
pub(crate) fn set_root_owner(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
    (uid, gid): (u32, u32),
) -> io::Result<()> {
    match masked::mask_of(root, namespace)? {
        Some(_) => {
            let told = Override::of(&stat_of_root(root, namespace)?);
            Override { uid, gid, ..told }.write(Target::File(root))
        }
        None => node::set_owner(root, uid, gid),
    }
}

/// Gives the root of a diff directory another mode, where its form has that: on the disk, a masked one's is that of all files.
pub(crate) fn set_root_mode(root: BorrowedFd<'_>, namespace: XattrNamespace, mode: u16) -> io::Result<()> {
    let mode = mode & 0o7777;
    match masked::mask_of(root, namespace)? {
        Some(_) => {
            let told = Override::of(&stat_of_root(root, namespace)?);
            Override { mode, ..told }.write(Target::File(root))
        }
        None => node::set_mode(root, mode),
    }
}
