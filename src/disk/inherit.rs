//! The root directory of a new layer: an overlay mount shows the topmost layer's, so it starts as that of the layer below.

use std::io;
use std::os::fd::BorrowedFd;

use super::masked::{self, Override};
use super::overlay_form::{Meaning, XattrNamespace};
use crate::sys::xattr::{self, Target};
use crate::sys::{node, stat};

/// Gives the root of one diff directory the owner, mode, time and attributes of another's; what overlayfs keeps there
/// for itself stays behind. Each may have the form with masked modes.
pub(crate) fn inherit_root(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> io::Result<()> {
    let mut found = stat::stat(from)?;
    if masked::mask_of(from, namespace)?.is_some() {
        found = masked::reveal(Target::File(from), &found)?;
    }
    let mask = masked::mask_of(to, namespace)?;
    match mask {
        Some(_) => Override::of(&found).write(Target::File(to))?,
        None => node::set_owner(to, found.uid, found.gid)?,
    }
    for name in xattr::list(Target::File(from))? {
        if let Meaning::Own(_) = namespace.meaning(&name)
            && let Some(value) = xattr::get(Target::File(from), &name)?
        {
            xattr::set(Target::File(to), &name, &value)?;
        }
    }
    node::set_mode(to, mask.unwrap_or(found.mode))?;
    node::set_mtime(to, found.mtime)
}
