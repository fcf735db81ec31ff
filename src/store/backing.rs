//! What overlay mounts find here, and how what they wrote is read.

use std::os::unix::ffi::OsStrExt;

use layerstore_schema::record::LayerContent;

use crate::error::Error;
use crate::overlay::{Backing, OverlayDefaults, Probe};

use super::capability::Capability;
use super::{Store, ThingId};

/// How the changes of a layer are read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NativeDiff {
    /// Straight from the layer's own directory or manifest; else together with the layers below.
    pub native: bool,
    /// Why not straight; or what others have to know who write to the layer. Empty if there is nothing to say.
    pub reason: String,
}

/// What the defaults of some kernels mean for layers.
const LEFT_BY_OTHERS: &str = "mounts that others make go by the kernel's defaults, and what these leave in the layers below is \
                              brought back when the layer is read";

impl Store {
    /// The filesystem that the store lies on, and what overlay mounts have against it.
    ///
    /// Returns [`Error::ReadOnly`] if the run root cannot be written, where what was tried out is kept, and [`Error::Mount`]
    /// if the directory for trying it cannot be used.
    pub fn backing(&self) -> Result<Backing, Error> {
        let found = Backing::of(self.root(), &self.probe()?);
        found.map_err(|source| Error::Io { action: "examine", path: self.root().to_owned(), source })
    }

    /// What the kernel does for mounts that others make of layers, and that do not say otherwise.
    pub fn overlay_defaults(&self) -> OverlayDefaults {
        OverlayDefaults::read()
    }

    /// What lies below the store, and how what mounts wrote there is read.
    pub(super) fn disk_capabilities(&self, probe: &Probe) -> Vec<Capability> {
        let backing = match Backing::of(self.root(), probe) {
            Ok(Backing { filesystem, objection }) => {
                Capability::by("backing filesystem", filesystem).because(objection.unwrap_or_default())
            }
            Err(error) => Capability::by("backing filesystem", "unknown").because(error.to_string()),
        };
        let kinds = || {
            "directories do not tell what kind a name is of, so whiteouts would be seen as files".to_owned()
        };
        let defaults = self.overlay_defaults();
        let told = match defaults.leave_below() {
            true => LEFT_BY_OTHERS,
            false => "",
        };
        vec![
            backing,
            Capability::new("d_type", probe.kinds_of_names, kinds),
            Capability::by("kernel defaults", defaults.to_string()),
            // Whatever the defaults are: the store's mounts do not go by them.
            Capability::new("native diff", true, String::new).because(told),
        ]
    }

    /// How [`changes`](Self::changes) and [`diff`](Self::diff) read a layer, a container's layer or an image's top layer: from
    /// its own directory, or with the layers below it too, as mounts of others left something there (see
    /// [`settle`](Self::settle)).
    ///
    /// Returns [`Error::Lookup`] if the thing is not there or has no layer, and [`Error::Scan`] if the layer's directory cannot
    /// be read.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ContainerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let web = store.create_container(None, &ContainerOptions::named("web"))?;
    /// assert!(store.native_diff(&web)?.native);
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn native_diff(&self, of: impl Into<ThingId>) -> Result<NativeDiff, Error> {
        let txn = self.begin_read()?;
        let layer = self.layer_of(&txn, &of.into())?;
        let LayerContent::Writable(_) = layer.content else {
            return Ok(NativeDiff { native: true, reason: String::new() });
        };
        let left = txn.written(&layer)?.left_below().to_vec();
        if let [first, others @ ..] = left.as_slice() {
            let path = std::ffi::OsStr::from_bytes(first).display();
            let more = match others.len() {
                0 => String::new(),
                count => format!(", as of {count} more"),
            };
            let reason = format!(
                "a mount that was not the store's left the content of /{path}{more} in the layers below"
            );
            return Ok(NativeDiff { native: false, reason });
        }
        let defaults = self.overlay_defaults();
        let reason = match defaults.leave_below() {
            true => format!("{LEFT_BY_OTHERS}: {defaults}"),
            false => String::new(),
        };
        Ok(NativeDiff { native: true, reason })
    }
}
