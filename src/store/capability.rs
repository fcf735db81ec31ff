//! What a store can do on this machine, and why it cannot do the rest: one table.

use crate::disk::XattrNamespace;
use crate::error::{Error, MountError};
use crate::overlay::{ErofsSupport, IdMapSupport, Probe, against_found_program};
use crate::sys::{landlock, machine};

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
    /// kernel can do was tried out, once in this boot; a mount program, which may come and go, is tried out by each call, with a
    /// little mount that is taken away again.
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
        let program = self.try_program(&probe)?.map(|tried| tried.map_err(|error| told(&error)));
        // One list for each part of the store that has something to tell.
        Ok([
            self.mount_capabilities(&probe, program),
            self.id_capabilities(&probe),
            self.disk_capabilities(&probe),
            self.keeping_capabilities(),
        ]
        .concat())
    }

    /// How layers are mounted. `tried` is what came of it when the mount program was, if there is one.
    fn mount_capabilities(&self, probe: &Probe, tried: Option<Result<(), String>>) -> Vec<Capability> {
        let program = probe.program.as_ref().map(|program| program.display().to_string()).unwrap_or_default();
        let why = |key| reason(probe, key);
        let by_program = !probe.overlay || self.options().prefer_mount_program;
        let mounts = match &tried {
            Some(Ok(())) if by_program => {
                let asked = || "the mount program is preferred to the kernel by an option".to_owned();
                let reason = if probe.overlay { asked() } else { why("overlay") };
                Capability::by("mounts", program.clone()).because(reason)
            }
            Some(Err(_)) if by_program => Capability::new("mounts", false, || match probe.overlay {
                true => "the mount program, which an option prefers to the kernel, does not work: see below"
                    .to_owned(),
                false => format!("{}; and the mount program does not work: see below", why("overlay")),
            }),
            _ if probe.overlay => Capability::by("mounts", "kernel"),
            _ => Capability::new("mounts", false, || why("overlay")),
        };
        let found = match tried {
            Some(Ok(())) => Capability::by("mount program", program),
            Some(Err(error)) => Capability::new("mount program", false, || format!("{program}: {error}")),
            None => Capability::new("mount program", false, against_found_program),
        };
        vec![
            mounts,
            lower_layers(probe),
            self.overlay_attributes(probe),
            Capability::new("device whiteouts", probe.device_whiteouts, || {
                instead(probe, "device_whiteouts", "whiteouts are files with an attribute instead")
            }),
            Capability::new("attribute whiteouts", probe.xattr_whiteouts, || {
                instead(probe, "xattr_whiteouts", "Linux 6.7 has them; whiteouts are device nodes instead")
            }),
            Capability::new("escaped attributes", probe.xattr_escape, || {
                instead(probe, "xattr_escape", "Linux 6.7 has them; layers that hold layers need them")
            }),
            match self.options().volatile {
                true => Capability::new("volatile mounts", probe.volatile, || {
                    instead(probe, "volatile", "containers that ask for it are mounted with syncs")
                }),
                false => Capability::new("volatile mounts", false, || off("volatile_mounts")),
            },
            images(probe),
            found,
        ]
    }

    /// Where overlayfs keeps its own marks.
    fn overlay_attributes(&self, probe: &Probe) -> Capability {
        let (class, kept, key) = match self.layout().xattrs() {
            XattrNamespace::Trusted => ("trusted.overlay.*", probe.trusted_xattrs, "trusted_xattrs"),
            XattrNamespace::User => ("user.overlay.*", probe.user_xattrs, "user_xattrs"),
        };
        match kept {
            true => Capability::by("overlay attributes", class),
            false => Capability::new("overlay attributes", false, || match probe.privileged {
                true => format!("{class}: {}", reason(probe, key)),
                false => reason(probe, key),
            }),
        }
    }

    /// How containers get ids of their own.
    fn id_capabilities(&self, probe: &Probe) -> Vec<Capability> {
        let name = "id-mapped mounts";
        const COPIES: &str = "a container with ids of its own gets a copy of its image with these owners";
        let mapped = match probe.id_maps {
            _ if !self.options().id_mapped_mounts => {
                Capability::new(name, false, || format!("{}: {COPIES}", off("id_mapped_mounts")))
            }
            _ if self.options().prefer_mount_program => {
                Capability::new(name, false, || format!("a program makes all mounts: {COPIES}"))
            }
            IdMapSupport::Detached if probe.lower_descriptors => Capability::by(name, "detached"),
            IdMapSupport::Detached | IdMapSupport::Attached => Capability::by(name, "attached")
                .because("each mount goes by a mount namespace for a moment; Linux 6.15 needs none"),
            IdMapSupport::None => Capability::new(name, false, || instead(probe, "id_maps", COPIES)),
        };
        let ids = if probe.user_namespace { "of a user namespace" } else { "of the machine" };
        vec![Capability::by("ids", ids), mapped]
    }
}

impl Store {
    /// What the filesystem keeps, and the kernel's security modules.
    fn keeping_capabilities(&self) -> Vec<Capability> {
        let quotas = self.can_limit().map_err(|error| error.to_string());
        let labels = machine::has_selinux();
        let unconfined = landlock::against();
        vec![
            Capability::new("project quotas", quotas.is_ok(), || quotas.err().unwrap_or_default()),
            Capability::new("confined unpacking", unconfined.is_none(), || unconfined.unwrap_or_default()),
            Capability::new("SELinux labels", labels, || {
                "SELinux is off, or has no policy: labels are kept, and mounts made without".to_owned()
            }),
        ]
    }
}

/// How the layers are told to the kernel.
fn lower_layers(probe: &Probe) -> Capability {
    let name = "lower layers";
    let older = |by, key, newer: &str| {
        Capability::by(name, by).because(format!("{newer}; here: {}", reason(probe, key)))
    };
    match probe {
        Probe { overlay: false, .. } => Capability::new(name, false, || reason(probe, "overlay")),
        Probe { lower_descriptors: true, .. } => Capability::by(name, "descriptors"),
        Probe { lower_paths: true, .. } => {
            older("paths", "lower_descriptors", "Linux 6.13 takes them as open directories")
        }
        _ => older("mount(2)", "lower_paths", "Linux 6.5 takes them one by one, and more of them"),
    }
}

/// Whether `use_composefs` could be used.
fn images(probe: &Probe) -> Capability {
    let name = "composefs images";
    match (probe.against_images(), probe.erofs) {
        (Some(_), _) if !probe.privileged => Capability::new(name, false, || reason(probe, "erofs")),
        (Some(reason), _) => Capability::new(name, false, || reason.to_owned()),
        (None, ErofsSupport::File) => Capability::by(name, "mounted as files"),
        (None, _) => Capability::by(name, "by loop devices").because(
            "Linux 6.12 can mount the file of an image as it is, on most filesystems; this one cannot here",
        ),
    }
}

/// What is said of what the options forbid.
fn off(option: &str) -> String {
    format!("switched off by the option {option}")
}

/// What is said of everything that only somebody with the right to mount can do, or find out.
const NOT_PRIVILEGED: &str = "not without the right to mount";

/// What was in the way when it was tried.
fn reason(probe: &Probe, key: &str) -> String {
    // Whatever the calls said, it is always the same.
    if !probe.privileged {
        return NOT_PRIVILEGED.to_owned();
    }
    match probe.reasons.get(key) {
        Some(reason) => reason.clone(),
        None if !probe.overlay => "the kernel makes no overlay mounts here".to_owned(),
        None => "the kernel takes it and does nothing".to_owned(),
    }
}

/// The same, and what is done instead or can be done about it.
fn instead(probe: &Probe, key: &str, instead: &str) -> String {
    match probe.privileged && probe.overlay {
        true => format!("{instead} ({})", reason(probe, key)),
        false => reason(probe, key),
    }
}

/// Why a mount program does not work, for who knows which it is.
fn told(error: &MountError) -> String {
    match error {
        MountError::Program { message, .. } => message.clone(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::off as off_by;
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
        let rows = [store.mount_capabilities(&probe, None), store.id_capabilities(&probe)].concat();
        let lowers = value(&rows, "lower layers");
        assert!(lowers.0 == "paths" && lowers.1.ends_with("no such option"), "{lowers:?}");
        assert_eq!(value(&rows, "mounts"), ("kernel".to_owned(), String::new()));
        assert_eq!(value(&rows, "id-mapped mounts").0, "attached");
        assert_eq!(value(&rows, "volatile mounts").0, "no");
        assert!(!value(&rows, "volatile mounts").1.is_empty());

        drop(store);
        let off = Store::open(&options.volatile_mounts(false).id_mapped_mounts(false)).unwrap();
        probe.volatile = true;
        let rows = [off.mount_capabilities(&probe, None), off.id_capabilities(&probe)].concat();
        assert_eq!(value(&rows, "volatile mounts"), ("no".to_owned(), off_by("volatile_mounts")));
        assert!(value(&rows, "id-mapped mounts").1.starts_with(&off_by("id_mapped_mounts")));
    }

    #[test]
    fn a_mount_program_counts_as_far_as_it_works() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("store"));
        let store = Store::open(&options.clone().mount_program("/no/such/program")).unwrap();
        let (found, why) = value(&store.capabilities().unwrap(), "mount program");
        assert!(found == "no" && why.starts_with("/no/such/program: it cannot be run"), "{why}");
        drop(store);
        let store = Store::open(&options.mount_program("/bin/true").prefer_mount_program(true)).unwrap();
        let rows = store.capabilities().unwrap();
        let (found, why) = value(&rows, "mount program");
        assert_eq!((found.as_str(), why.as_str()), ("no", "/bin/true: it ended without a mount"));
        assert_eq!(value(&rows, "mounts").0, "no");
        assert!(
            std::fs::read_dir(dir.path().join("store/diffs")).unwrap().next().is_none(),
            "the scratch is left"
        );
    }

    /// Who may not mount reads this once, and not ten numbers of errors.
    #[test]
    fn without_the_right_to_mount_each_row_says_so_shortly() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreOptions::at(dir.path().join("store"))).unwrap();
        let mut probe = Probe::nothing();
        probe
            .reasons
            .insert("overlay".to_owned(), "unshare: Operation not permitted (os error 1)".to_owned());
        let rows = [store.mount_capabilities(&probe, None), store.id_capabilities(&probe)].concat();
        for row in rows.iter().filter(|row| row.value == CapabilityValue::No && row.name != "mount program") {
            assert_eq!(row.reason, NOT_PRIVILEGED, "{row:?}");
        }
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
