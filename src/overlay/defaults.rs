//! What the kernel does for mounts that do not say otherwise.

use std::path::Path;

use crate::sys::path;

/// The overlay features that are on by this kernel's defaults. The store's own mounts say no to each that would leave
/// something in the layers below, so only mounts that others make go by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverlayDefaults {
    /// Renamed directories of lower layers are not copied.
    pub redirect_dir: bool,
    /// Changes of owner, mode and attributes copy no content.
    pub metacopy: bool,
    /// Names of one file stay names of one file when it is written to.
    pub index: bool,
    /// Mounts can be exported by NFS, which needs `index`.
    pub nfs_export: bool,
    /// Inode numbers say which layer a file is from.
    pub xino: bool,
}

/// Where the module's parameters are.
const PARAMETERS: &str = "/sys/module/overlay/parameters";

impl OverlayDefaults {
    /// Those of the running kernel. What it does not tell, as before the module is loaded, is off.
    pub(crate) fn read() -> Self {
        Self::read_in(Path::new(PARAMETERS))
    }

    fn read_in(parameters: &Path) -> Self {
        let is_on = |name| path::read_to_string(&parameters.join(name)).is_ok_and(|text| text.trim() == "Y");
        OverlayDefaults {
            redirect_dir: is_on("redirect_dir"),
            metacopy: is_on("metacopy"),
            index: is_on("index"),
            nfs_export: is_on("nfs_export"),
            xino: is_on("xino_auto"),
        }
    }

    /// Whether a mount that goes by them leaves something in the layers below.
    pub fn leave_below(&self) -> bool {
        self.redirect_dir || self.metacopy || self.index
    }
}

impl std::fmt::Display for OverlayDefaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [
            ("redirect_dir", self.redirect_dir),
            ("metacopy", self.metacopy),
            ("index", self.index),
            ("nfs_export", self.nfs_export),
            ("xino", self.xino),
        ];
        let on: Vec<_> = all.into_iter().filter_map(|(name, on)| on.then_some(name)).collect();
        f.write_str(if on.is_empty() { "none" } else { "" })?;
        f.write_str(&on.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(OverlayDefaults::read_in(dir.path()), OverlayDefaults::default());
        assert_eq!(OverlayDefaults::default().to_string(), "none");
        for (name, value) in [("metacopy", "Y\n"), ("redirect_dir", "N\n"), ("xino_auto", "Y\n")] {
            std::fs::write(dir.path().join(name), value).unwrap();
        }
        let found = OverlayDefaults::read_in(dir.path());
        assert_eq!(found, OverlayDefaults { metacopy: true, xino: true, ..OverlayDefaults::default() });
        assert_eq!(found.to_string(), "metacopy, xino");
        assert!(found.leave_below() && !OverlayDefaults { xino: true, ..Default::default() }.leave_below());
    }
}
