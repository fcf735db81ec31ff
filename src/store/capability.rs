//! What a store can do on this machine, and why it cannot do the rest: one table.

use crate::disk::XattrNamespace;
use crate::error::Error;
use crate::overlay::{ErofsSupport, IdMapSupport, Probe};
use crate::sys::machine;

use super::Store;

/// Something that a store can do here, or cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// What it is, such as `volatile mounts`. It stays the same in all releases.
    pub name: &'static str,
    /// Whether, or how, it is done.
    pub value: CapabilityValue,
    /// Why it is not, or not in the best way; empty if there is nothing to say.
    pub reason: String,
}

/// Whether, or how, something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapabilityValue {
    /// It works.
    Yes,
    /// It does not.
    No,
    /// It works in this way.
    By(String),
}

impl std::fmt::Display for CapabilityValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            CapabilityValue::Yes => "yes",
            CapabilityValue::No => "no",
            CapabilityValue::By(way) => way,
        })
    }
}

impl Capability {
    /// What works, or does not for a reason.
    pub(super) fn new(name: &'static str, works: bool, reason: impl FnOnce() -> String) -> Self {
        match works {
            true => Capability { name, value: CapabilityValue::Yes, reason: String::new() },
            false => Capability { name, value: CapabilityValue::No, reason: reason() },
        }
    }

    /// What works in some way.
    pub(super) fn by(name: &'static str, way: impl Into<String>) -> Self {
        Capability { name, value: CapabilityValue::By(way.into()), reason: String::new() }
    }

    /// Adds why it is done so.
    #[must_use]
    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }
}

impl Store {
    /// What this store can do here, and why it cannot do the rest: kernel, filesystem, rights and options together. What the
    /// kernel can do was tried out, once in this boot.
    ///
    /// Returns [`Error::ReadOnly`] if the run root cannot be written, where what was tried out is kept, and [`Error::Mount`]
    /// if the directory for trying it cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{CapabilityValue, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// for capability in store.capabilities()? {
    ///     if capability.value == CapabilityValue::No {
    ///         println!("no {}: {}", capability.name, capability.reason);
    ///     }
    /// }
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn capabilities(&self) -> Result<Vec<Capability>, Error> {
        let probe = self.probe()?;
        // One list for each part of the store that has something to tell.
        Ok([
            self.mount_capabilities(&probe),
            self.id_capabilities(&probe),
            self.disk_capabilities(&probe),
            self.keeping_capabilities(),
        ]
        .concat())
    }

    /// How layers are mounted.
    fn mount_capabilities(&self, probe: &Probe) -> Vec<Capability> {
        let program = probe.program.as_ref().map(|program| program.display().to_string());
        let why = |key| reason(probe, key);
        let by_program = !probe.overlay || self.options().prefer_mount_program;
        let mounts = match &program {
            Some(program) if by_program => {
                let asked = || "the mount program is preferred to the kernel".to_owned();
                let reason = if probe.overlay { asked() } else { why("overlay") };
                Capability::by("mounts", program.clone()).because(reason)
            }
            _ if probe.overlay => Capability::by("mounts", "kernel"),
            _ => Capability::new("mounts", false, || why("overlay")),
        };
        let lowers = match probe {
            Probe { overlay: false, .. } => Capability::new("lower layers", false, || why("overlay")),
            Probe { lower_descriptors: true, .. } => Capability::by("lower layers", "descriptors"),
            Probe { lower_paths: true, .. } => {
                Capability::by("lower layers", "paths").because(why("lower_descriptors"))
            }
            _ => Capability::by("lower layers", "mount(2)").because(why("lower_paths")),
        };
        let (class, kept, key) = match self.layout().xattrs() {
            XattrNamespace::Trusted => ("trusted.overlay.*", probe.trusted_xattrs, "trusted_xattrs"),
            XattrNamespace::User => ("user.overlay.*", probe.user_xattrs, "user_xattrs"),
        };
        let marks = match kept {
            true => Capability::by("overlay attributes", class),
            false => Capability::new("overlay attributes", false, || format!("{class}: {}", why(key))),
        };
        let volatile = match self.options().volatile {
            true => Capability::new("volatile mounts", probe.volatile, || why("volatile")),
            false => Capability::new("volatile mounts", false, || OFF.to_owned()),
        };
        let found = match program {
            Some(program) => Capability::by("mount program", program),
            None => Capability::new("mount program", false, || {
                "fuse-overlayfs is not installed, or /dev/fuse cannot be opened".to_owned()
            }),
        };
        let images = match (probe.against_images(), probe.erofs) {
            (Some(reason), _) => Capability::new("composefs images", false, || reason.to_owned()),
            (None, ErofsSupport::File) => Capability::by("composefs images", "files"),
            (None, _) => Capability::by("composefs images", "loop devices")
                .because("this kernel mounts no files of this filesystem"),
        };
        vec![
            mounts,
            lowers,
            marks,
            Capability::new("device whiteouts", probe.device_whiteouts, || why("device_whiteouts")),
            Capability::new("attribute whiteouts", probe.xattr_whiteouts, || why("xattr_whiteouts")),
            Capability::new("escaped attributes", probe.xattr_escape, || why("xattr_escape")),
            volatile,
            images,
            found,
        ]
    }

    /// How containers get ids of their own.
    fn id_capabilities(&self, probe: &Probe) -> Vec<Capability> {
        let name = "id-mapped mounts";
        let mapped = match probe.id_maps {
            _ if !self.options().id_mapped_mounts => Capability::new(name, false, || {
                format!("{OFF}: layers are copied with the owners of each map")
            }),
            IdMapSupport::Detached if probe.lower_descriptors => Capability::by(name, "detached"),
            IdMapSupport::Detached | IdMapSupport::Attached => {
                Capability::by(name, "attached").because("this kernel takes no detached mount as a layer")
            }
            IdMapSupport::None => Capability::new(name, false, || {
                format!("{}: layers are copied with the owners of each map", reason(probe, "id_maps"))
            }),
        };
        let ids = if probe.user_namespace { "of a user namespace" } else { "of the machine" };
        vec![Capability::by("ids", ids), mapped]
    }
}

impl Store {
    /// What the filesystem keeps, and the kernel's security module.
    fn keeping_capabilities(&self) -> Vec<Capability> {
        let quotas = self.can_limit().map_err(|error| error.to_string());
        let labels = machine::has_selinux();
        vec![
            Capability::new("project quotas", quotas.is_ok(), || quotas.err().unwrap_or_default()),
            Capability::new("SELinux labels", labels, || {
                "SELinux is off, or has no policy: labels are kept, and mounts made without".to_owned()
            }),
        ]
    }
}

/// What is said of what the options forbid.
const OFF: &str = "switched off by an option";

/// What was in the way when it was tried.
fn reason(probe: &Probe, key: &str) -> String {
    match probe.reasons.get(key) {
        Some(reason) => reason.clone(),
        None if !probe.privileged => "only root mounts: enter a user namespace first".to_owned(),
        None if !probe.overlay => "the kernel makes no overlay mounts here".to_owned(),
        None => "the kernel takes it and does nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    fn value(rows: &[Capability], name: &str) -> (String, String) {
        let row = rows.iter().find(|row| row.name == name).unwrap();
        (row.value.to_string(), row.reason.clone())
    }

    #[test]
    fn rows_say_what_was_probed_and_why_the_rest_is_off() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("store"));
        let store = Store::open(&options).unwrap();
        let mut probe = Probe { overlay: true, lower_paths: true, ..Probe::nothing() };
        probe.reasons.insert("lower_descriptors".to_owned(), "no such option".to_owned());
        probe.id_maps = IdMapSupport::Attached;
        probe.privileged = true;
        let rows = [store.mount_capabilities(&probe), store.id_capabilities(&probe)].concat();
        assert_eq!(value(&rows, "lower layers"), ("paths".to_owned(), "no such option".to_owned()));
        assert_eq!(value(&rows, "mounts"), ("kernel".to_owned(), String::new()));
        assert_eq!(value(&rows, "id-mapped mounts").0, "attached");
        assert_eq!(value(&rows, "volatile mounts").0, "no");
        assert!(!value(&rows, "volatile mounts").1.is_empty());

        drop(store);
        let off = Store::open(&options.volatile_mounts(false).id_mapped_mounts(false)).unwrap();
        probe.volatile = true;
        let rows = [off.mount_capabilities(&probe), off.id_capabilities(&probe)].concat();
        assert_eq!(value(&rows, "volatile mounts"), ("no".to_owned(), OFF.to_owned()));
        assert!(value(&rows, "id-mapped mounts").1.starts_with(OFF));
        let nothing = off.mount_capabilities(&Probe::nothing());
        assert!(value(&nothing, "mounts").1.contains("user namespace"));
    }

    #[test]
    fn every_row_that_is_off_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreOptions::at(dir.path().join("store"))).unwrap();
        for row in store.capabilities().unwrap() {
            assert!(row.value != CapabilityValue::No || !row.reason.is_empty(), "{row:?}");
        }
    }
}
