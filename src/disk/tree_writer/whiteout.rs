//! Whiteouts and opaque directories.
//!
//! Both hide what *lower* layers have, and nothing of this layer, in whatever order the archive brings them.
//! So a whiteout for a name that this layer has too means: a directory is opaque, anything else hides the name
//! by itself already. And inside an opaque directory nothing of a lower layer is left for a whiteout to hide:
//! it is dropped, which the xattr form depends on, as the kernel looks for such whiteouts only in directories
//! that are marked for having them and not opaque.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::FileType;

use super::{TreeWriter, failed};
use crate::disk::overlay_form::{HAS_XATTR_WHITEOUTS, OPAQUE, is_whiteout};
use crate::error::UnpackError;
use crate::sys::node::{self, NodeKind};
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, directory, stat};
use crate::types::RelPath;

/// How whiteouts are made here.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// As character device 0:0, which every kernel since 5.8 lets everyone make.
    #[default]
    Device,
    /// As an empty file with an xattr: where a filesystem or a seccomp filter refuses the device.
    Xattr,
}

impl TreeWriter {
    /// Notes that `path` is deleted from the layers below.
    pub(crate) fn whiteout(&mut self, path: &RelPath) -> Result<(), UnpackError> {
        let (parent, name) = self.place(path, "whiteout")?;
        let above = path.parent().unwrap_or_default();
        if self.directories.contains_key(path) {
            let handle = self.open_directory(path, path)?;
            return self.set_opaque(path, &handle);
        }
        if self.directories.get(&above).is_some_and(|state| state.opaque) {
            return Ok(());
        }
        match self.make_whiteout(&parent, name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return self.whiteout_over(path, &parent, name);
            }
            Err(error) => return Err(failed(path, "make the whiteout")(error)),
        }
        let state = self.directories.entry(above).or_default();
        let first = !std::mem::replace(&mut state.has_whiteouts, true);
        if first && self.whiteouts == Form::Xattr {
            // The directory's mark is what the listing of a merged directory goes by; for the root's, the
            // kernel looks when it mounts the layer.
            for marked in [&parent, &self.root] {
                let attribute = self.shared.options.xattr_namespace.opaque();
                xattr::set(Target::File(marked.as_fd()), attribute, HAS_XATTR_WHITEOUTS)
                    .map_err(failed(path, "mark the directory for its whiteouts"))?;
            }
        }
        Ok(())
    }

    /// Notes that `path` hides all that lower layers have below it.
    pub(crate) fn opaque(&mut self, path: &RelPath) -> Result<(), UnpackError> {
        if !self.directories.contains_key(path) {
            // As if for something in it, so that it is made if it is missing.
            let inside = path.join(b"opaque").map_err(|_| UnpackError::RootNotDirectory { kind: "file" })?;
            self.parent(&inside)?;
        }
        let handle = self.open_directory(path, path)?;
        self.set_opaque(path, &handle)
    }

    /// Marks a directory of this layer opaque. Costs nothing the second time.
    pub(super) fn set_opaque(&mut self, path: &RelPath, handle: &Arc<OwnedFd>) -> Result<(), UnpackError> {
        let state = self.directories.entry(path.clone()).or_default();
        if std::mem::replace(&mut state.opaque, true) {
            return Ok(());
        }
        let attribute = self.shared.options.xattr_namespace.opaque();
        xattr::set(Target::File(handle.as_fd()), attribute, OPAQUE)
            .map_err(failed(path, "make the directory opaque"))?;
        if std::mem::take(&mut state.has_whiteouts) {
            self.remove_whiteouts(handle).map_err(failed(path, "remove what is hidden anyway"))?;
        }
        Ok(())
    }

    /// A whiteout for a name that this layer has already.
    fn whiteout_over(
        &mut self,
        path: &RelPath,
        parent: &Arc<OwnedFd>,
        name: &[u8],
    ) -> Result<(), UnpackError> {
        let examined = stat::stat_at(parent.as_fd(), name).and_then(|found| {
            let target = Target::Name(parent.as_fd(), name);
            is_whiteout(&found, target, self.shared.options.xattr_namespace)
        });
        if !examined.map_err(failed(path, "examine what stands there"))? {
            self.hidden.insert(path.clone());
        }
        Ok(())
    }

    /// Makes whiteouts as if devices were refused.
    #[cfg(test)]
    pub(in crate::disk) fn refuse_devices(&mut self) {
        self.whiteouts = Form::Xattr;
    }

    fn make_whiteout(&mut self, parent: &Arc<OwnedFd>, name: &[u8]) -> io::Result<()> {
        if self.whiteouts == Form::Device {
            match node::make_node(parent.as_fd(), name, NodeKind::CharDevice, 0, (0, 0)) {
                Err(error) if super::is_refusal(&error) => self.whiteouts = Form::Xattr,
                made => return made,
            }
        }
        let file = beneath::create_file(parent.as_fd(), name, 0o600)?;
        xattr::set(Target::File(file.as_fd()), self.shared.options.xattr_namespace.whiteout(), b"y")
    }

    fn remove_whiteouts(&self, handle: &Arc<OwnedFd>) -> io::Result<()> {
        for entry in directory::list(handle.as_fd())? {
            let found = stat::stat_at(handle.as_fd(), &entry.name)?;
            let target = Target::Name(handle.as_fd(), &entry.name);
            let possible = matches!(found.kind, FileType::CharacterDevice | FileType::RegularFile);
            if possible && is_whiteout(&found, target, self.shared.options.xattr_namespace)? {
                node::remove_file(handle.as_fd(), &entry.name)?;
            }
        }
        Ok(())
    }
}
