//! What works here, under the names that other drivers have for it.

use super::driver::Driver;
use super::options::Dialect;
use crate::error::Error;
use crate::store::CapabilityValue;
use crate::sys::mount::info;

/// What a driver asks of its store's capabilities.
pub(super) struct Works {
    /// A program mounts, and not the kernel.
    pub(super) by_program: bool,
    /// The kernel shows layers with other ids.
    pub(super) id_maps: bool,
    /// The kernel leaves out syncs if it is asked to.
    pub(super) volatile: bool,
    /// Overlay's marks are attributes that users may set.
    user_xattrs: bool,
}

impl Driver {
    /// Names and values, in the order in which the drivers of the dialect tell them: in moby's `Backing Filesystem`,
    /// `Supports d_type`, `Using metacopy`, `Native Overlay Diff`, `userxattr`; in that of containers/storage
    /// `Backing Filesystem`, `Supports d_type`, `Native Overlay Diff`, `Using metacopy`, `Supports shifting`,
    /// `Supports volatile`.
    ///
    /// Returns what [`Store::capabilities`](crate::Store::capabilities) does, and [`Error::Io`] if the mount table cannot be
    /// read.
    pub fn status(&self) -> Result<Vec<(&'static str, String)>, Error> {
        let works = self.capabilities()?;
        let root = self.store().root();
        let filesystem = info::filesystem_of(root).map_err(|source| Error::Io {
            action: "find the filesystem of",
            path: root.to_owned(),
            source,
        })?;
        let backing = ("Backing Filesystem", backing_filesystem(filesystem.as_deref()).to_owned());
        // No store is made where this is not so.
        let d_type = ("Supports d_type", true.to_string());
        let metacopy = ("Using metacopy", false.to_string());
        let native = ("Native Overlay Diff", (!works.by_program).to_string());
        Ok(match self.dialect() {
            Dialect::Moby => {
                vec![backing, d_type, metacopy, native, ("userxattr", works.user_xattrs.to_string())]
            }
            Dialect::ContainersStorage => {
                let shifting = ("Supports shifting", self.supports_shifting(None)?.to_string());
                let volatile = ("Supports volatile", works.volatile.to_string());
                vec![backing, d_type, native, metacopy, shifting, volatile]
            }
        })
    }

    pub(super) fn capabilities(&self) -> Result<Works, Error> {
        let capabilities = self.store().capabilities()?;
        let value = |name| {
            let found = capabilities.iter().find(|capability| capability.name == name);
            found.map_or(&CapabilityValue::No, |capability| &capability.value)
        };
        Ok(Works {
            by_program: matches!(value("mounts"), CapabilityValue::By(way) if way != "kernel"),
            id_maps: *value("id-mapped mounts") != CapabilityValue::No,
            volatile: *value("volatile mounts") != CapabilityValue::No,
            user_xattrs: matches!(value("overlay attributes"), CapabilityValue::By(class) if class.starts_with("user.")),
        })
    }
}

/// The name that other drivers have for a filesystem of the kernel's mount table.
fn backing_filesystem(kind: Option<&str>) -> &str {
    match kind {
        None => "<unknown>",
        Some("ext2" | "ext3" | "ext4") => "extfs",
        Some("overlay") => "overlayfs",
        Some("nfs4") => "nfs",
        Some(kind) => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_have_the_names_that_other_drivers_print() {
        for (kind, name) in [
            (Some("ext4"), "extfs"),
            (Some("xfs"), "xfs"),
            (Some("overlay"), "overlayfs"),
            (None, "<unknown>"),
        ] {
            assert_eq!(backing_filesystem(kind), name);
        }
    }
}
