//! Owners, modes, times and extended attributes.
//!
//! The order is the kernel's: a change of owner clears set-id bits and file capabilities, so the owner comes
//! first, then the attributes, then the mode. So set-id bits come when the content is there and the owner
//! is right, and until then nothing has more permissions than in the end.
//!
//! All of it is set on descriptors: what is open keeps what was meant, whatever becomes of its name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::FileType;

use super::file::BLOCK;
use super::{LeftOutWhat, Shared, TreeWriter, UnpackOptions, failed, is_refusal, member};
use crate::disk::masked::{self, Override, Special};
use crate::disk::overlay_form::{DEFAULT_ACL, Meaning};
use crate::disk::writeback::Writeback;
use crate::error::{UnpackError, shown};
use crate::sys::pinned::Pinned;
use crate::sys::stat::Stat;
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, node, stat};
use crate::types::{Budget, Metadata, RelPath, Timestamp};

/// How long the names of a file's attributes may be together. The rest of what Linux lists is for what the store, overlayfs and
/// security modules add.
const NAME_BYTES: usize = xattr::LIMIT - 1024;

/// Gives the existing directory `path` below a diff's root new metadata: for those that the layer had no
/// entry for. Attributes are added, none removed.
pub(crate) fn apply_metadata(
    root: BorrowedFd<'_>,
    path: &RelPath,
    metadata: &Metadata,
    options: &UnpackOptions,
) -> Result<(), UnpackError> {
    let handle =
        beneath::open_directory_beneath(root, path.as_bytes()).map_err(failed(path, "open the directory"))?;
    let (budget, left_out) = (Budget::new(&options.limits), Mutex::default());
    let shared = Shared { options: options.clone(), budget, left_out, writeback: Writeback::default() };
    let found = stat::stat(handle.as_fd()).map_err(failed(path, "examine"))?;
    shared.describe_file(path, handle.as_fd(), &found, metadata)
}

impl TreeWriter {
    /// Gives a directory its metadata, as far as that does not hinder what is made in it, and notes the rest.
    pub(super) fn describe_directory(
        &mut self,
        path: &RelPath,
        handle: &Arc<OwnedFd>,
        metadata: &Metadata,
        fresh: bool,
    ) -> Result<(), UnpackError> {
        self.shared.refuse_names(path, metadata)?;
        let found = stat::stat(handle.as_fd()).map_err(failed(path, "examine"))?;
        let target = Target::File(handle.as_fd());
        let on_disk = self.shared.set_owner(path, handle.as_fd(), &found, metadata, None)?;
        if !fresh {
            self.remove_other_xattrs(target, metadata).map_err(failed(path, "replace xattrs"))?;
        }
        let is_default_acl = |name: &[u8]| name == DEFAULT_ACL;
        for (name, value) in metadata.xattrs.iter().filter(|(name, _)| !is_default_acl(name)) {
            self.shared.set_xattr(path, target, name, value)?;
        }
        let default_acl = metadata.xattrs.iter().find(|(name, _)| is_default_acl(name));
        let (mode, usable) = (on_disk, on_disk | 0o700);
        if usable != found.mode || !metadata.xattrs.is_empty() {
            node::set_mode(handle.as_fd(), usable).map_err(failed(path, "set the mode"))?;
        }
        let state = self.directories.entry(path.clone()).or_default();
        state.mtime = metadata.mtime;
        state.mode = (mode != usable).then_some(mode);
        state.default_acl = default_acl.map(|(_, value)| value.clone().into_boxed_slice());
        state.implicit = false;
        Ok(())
    }

    /// A second entry for a directory replaces the first one's attributes.
    fn remove_other_xattrs(&self, target: Target<'_>, metadata: &Metadata) -> io::Result<()> {
        let UnpackOptions { xattr_namespace, mask, .. } = self.shared.options;
        for (stored, meaning) in masked::attributes(target, xattr_namespace, mask.is_some())? {
            let Meaning::Own(name) = meaning else { continue };
            if !metadata.xattrs.iter().any(|(kept, _)| *kept == name) {
                xattr::remove(target, &stored)?;
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Gives an open file or directory all its metadata.
    pub(super) fn describe_file(
        &self,
        path: &RelPath,
        file: BorrowedFd<'_>,
        found: &Stat,
        metadata: &Metadata,
    ) -> Result<(), UnpackError> {
        self.describe(path, file, found, metadata, None)
    }

    /// The same; `special` is for an empty file that stands for something else.
    pub(super) fn describe(
        &self,
        path: &RelPath,
        file: BorrowedFd<'_>,
        found: &Stat,
        metadata: &Metadata,
        special: Option<Special>,
    ) -> Result<(), UnpackError> {
        self.amend(path, file, found, metadata, special)?;
        node::set_mtime(file, time(metadata.mtime)).map_err(failed(path, "set the time"))
    }

    /// Gives a file that nothing more is written to all its metadata. Returns its inode number; and how it is then, if it was given no attributes.
    pub(super) fn complete_file(
        &self,
        path: &RelPath,
        file: BorrowedFd<'_>,
        metadata: &Metadata,
    ) -> Result<(u64, Option<Stat>), UnpackError> {
        // First, so that most files are as they stay when they are looked at: nothing that may follow changes the time again.
        node::set_mtime(file, time(metadata.mtime)).map_err(failed(path, "set the time"))?;
        let look = || stat::stat(file).map_err(failed(path, "examine"));
        let found = look()?;
        let was_right = self.amend(path, file, &found, metadata, None)?;
        // What XFS has set aside for more, and gives back when the file is closed, is none of its size.
        let blocks = found.size.checked_next_multiple_of(BLOCK as u64);
        let keeps_its_size = blocks.is_some_and(|whole| found.allocated <= whole);
        if !metadata.xattrs.is_empty() || self.options.mask.is_some() || !keeps_its_size {
            return Ok((found.id.inode, None));
        }
        Ok((found.id.inode, Some(if was_right { found } else { look()? })))
    }

    /// Gives an open file or directory the owner, the attributes and the mode that it has not got. Returns whether it had all of them.
    fn amend(
        &self,
        path: &RelPath,
        file: BorrowedFd<'_>,
        found: &Stat,
        metadata: &Metadata,
        special: Option<Special>,
    ) -> Result<bool, UnpackError> {
        self.refuse_names(path, metadata)?;
        let mode = self.set_owner(path, file, found, metadata, special)?;
        for (name, value) in &metadata.xattrs {
            self.set_xattr(path, Target::File(file), name, value)?;
        }
        // Files are created without set-id bits, so a change of owner cannot have cleared any; an ACL among the
        // attributes has bits of the mode in it.
        let has_mode = mode == found.mode && metadata.xattrs.is_empty();
        if !has_mode {
            node::set_mode(file, mode).map_err(failed(path, "set the mode"))?;
        }
        Ok(has_mode && (found.uid, found.gid) == (metadata.uid, metadata.gid))
    }

    /// Gives a link, device or pipe that was just made its metadata.
    pub(super) fn describe_name(
        &self,
        path: &RelPath,
        dir: &Arc<OwnedFd>,
        name: &[u8],
        metadata: &Metadata,
        kind: FileType,
    ) -> Result<(), UnpackError> {
        self.refuse_names(path, metadata)?;
        let made = Pinned::at(dir.as_fd(), name).map_err(failed(path, "examine"))?;
        let found = made.stat().map_err(failed(path, "examine"))?;
        // Whoever may write here could have put another name of any file in its place.
        if found.kind != kind || found.links > 1 || found.is_mount {
            let source = io::Error::other("it was replaced just after it was made, by another process");
            return Err(failed(path, "describe")(source));
        }
        if (found.uid, found.gid) != (metadata.uid, metadata.gid) {
            match made.set_owner(metadata.uid, metadata.gid) {
                // Only a link comes here in that form, and it has no attribute.
                Err(error) if self.options.mask.is_some() && is_refusal(&error) => {}
                chowned => self.owner_result(path, metadata, chowned)?,
            }
        }
        for (attribute, value) in &metadata.xattrs {
            self.set_xattr(path, Target::Pinned(made.as_fd()), attribute, value)?;
        }
        if kind != FileType::Symlink {
            made.set_mode(metadata.mode).map_err(failed(path, "set the mode"))?;
        }
        made.set_mtime(time(metadata.mtime)).map_err(failed(path, "set the time"))
    }

    /// Sets the owner if it is another, and returns the mode to be set; or keeps owner and mode in an attribute.
    fn set_owner(
        &self,
        path: &RelPath,
        file: BorrowedFd<'_>,
        found: &Stat,
        metadata: &Metadata,
        special: Option<Special>,
    ) -> Result<u16, UnpackError> {
        let (uid, gid, mode) = (metadata.uid, metadata.gid, metadata.mode & 0o7777);
        if let Some(mask) = self.options.mask {
            let told = Override { uid, gid, mode, special };
            told.write(Target::File(file)).map_err(failed(path, "keep owner and mode of"))?;
            return Ok(mask);
        }
        if (found.uid, found.gid) == (metadata.uid, metadata.gid) {
            return Ok(mode);
        }
        self.owner_result(path, metadata, node::set_owner(file, metadata.uid, metadata.gid))?;
        Ok(mode)
    }

    fn owner_result(
        &self,
        path: &RelPath,
        metadata: &Metadata,
        chowned: io::Result<()>,
    ) -> Result<(), UnpackError> {
        match chowned {
            Err(error) if self.options.squash_owners && is_refusal(&error) => Ok(()),
            // The kernel reads this id as "leave it", and reports success.
            _ if !self.options.squash_owners && [metadata.uid, metadata.gid].contains(&u32::MAX) => {
                Err(UnpackError::OwnerOutOfRange { member: member(path) })
            }
            Err(error) if self.options.unprivileged && error.raw_os_error() == Some(libc::EINVAL) => {
                let Metadata { uid, gid, .. } = *metadata;
                Err(UnpackError::OwnerNotMapped { member: member(path), uid, gid })
            }
            chowned => chowned.map_err(failed(path, "set the owner")),
        }
    }

    /// Refuses more names of attributes than could be listed afterwards.
    fn refuse_names(&self, path: &RelPath, metadata: &Metadata) -> Result<(), UnpackError> {
        let names =
            metadata.xattrs.iter().filter_map(|(name, _)| self.options.xattr_namespace.stored_name(name));
        let found = names.fold(0_usize, |bytes, name| bytes.saturating_add(name.len()).saturating_add(1));
        if found <= NAME_BYTES {
            return Ok(());
        }
        let told = |bytes| u64::try_from(bytes).unwrap_or(u64::MAX);
        Err(UnpackError::XattrNames { member: member(path), found: told(found), most: told(NAME_BYTES) })
    }

    /// Sets one attribute of the layer under the name that it is stored by.
    pub(super) fn set_xattr(
        &self,
        path: &RelPath,
        target: Target<'_>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), UnpackError> {
        let Some(stored) = self.options.xattr_namespace.stored_name(name) else { return Ok(()) };
        let set = match target {
            Target::File(file) if self.options.mask.is_some() => masked::keep_access_list(file, name, value)
                .and_then(|kept| match kept {
                    true => Ok(()),
                    false => xattr::set(target, &stored, value),
                }),
            _ => xattr::set(target, &stored, value),
        };
        match set {
            // Anything else, such as a full disk, is no reason to lose what gives a program its rights.
            Err(error) if self.options.unprivileged && is_refusal(&error) => {
                self.leave_out(path, LeftOutWhat::Xattr(name.to_vec()), &error);
                Ok(())
            }
            Err(source) => Err(UnpackError::XattrRefused { member: member(path), name: shown(name), source }),
            Ok(()) => Ok(()),
        }
    }
}

fn time(time: Timestamp) -> (i64, u32) {
    (time.seconds, time.nanoseconds)
}
