//! How much a layer may take that is written to.

use layerstore_schema::record::LayerContent;

use crate::disk::{Limits, Staging};
use crate::error::{Error, QuotaError};

use super::{Store, ThingId};

/// How much a layer that is written to may take on the disk: its files, and what overlayfs keeps beside them. Who writes more gets
/// the error "disk quota exceeded" or "no space left on device". Layers below it do not count, and neither do those above.
///
/// # Examples
///
/// ```
/// use layerstore::{ContainerOptions, Quota};
///
/// let mut options = ContainerOptions::named("web");
/// options.quota = Quota { size: Some(10 << 30), ..Quota::default() };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many bytes; 0 is no limit, and `None` the default of the [store](super::StoreOptions::quota).
    pub size: Option<u64>,
    /// How many inodes: files, directories and all else. 0 is no limit, and `None` the default of the store.
    pub inodes: Option<u64>,
}

impl Quota {
    /// What counts where a default is given for what this one does not say.
    pub(super) fn or(self, default: Quota) -> Limits {
        Limits {
            bytes: self.size.or(default.size).unwrap_or_default(),
            inodes: self.inodes.or(default.inodes).unwrap_or_default(),
        }
    }

    /// Whether it asks for a limit.
    pub(super) fn is_asked_for(self) -> bool {
        !self.or(Quota::default()).is_none()
    }
}

/// How much a layer may take, and takes, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct QuotaUsage {
    /// How many bytes it may take; `None` if as many as there are.
    pub size: Option<u64>,
    /// How many inodes it may take; `None` if as many as there are.
    pub inodes: Option<u64>,
    /// The bytes it takes, in whole blocks of the filesystem.
    pub used_bytes: u64,
    /// The inodes it takes: at least one for its root directory, and some for the workdir of overlayfs.
    pub used_inodes: u64,
}

impl Store {
    /// Whether layers and containers that are created here can have a [`Quota`], and why they cannot.
    ///
    /// Returns [`QuotaError::Unsupported`] if the filesystem has no project quotas in force, [`QuotaError::NotPermitted`] if
    /// this process is not the machine's root, and [`QuotaError::Nested`] if the store's directory has a project quota itself.
    pub fn can_limit(&self) -> Result<(), QuotaError> {
        self.layout().can_limit()
    }

    /// What the layer of a container, or a layer that is written to, may take and takes; `None` if it has no limit and never
    /// had one, or is sealed.
    ///
    /// Returns [`Error::Quota`] if the kernel does not tell, as to others than the machine's root, and [`Error::Lookup`] if
    /// the thing is not there or has no layer.
    pub fn quota(&self, of: impl Into<ThingId>) -> Result<Option<QuotaUsage>, Error> {
        let txn = self.begin_read()?;
        let layer = self.layer_of(&txn, &of.into())?;
        let LayerContent::Writable(number) = layer.content else { return Ok(None) };
        let found = txn.directory(&layer)?.layout().limits_of(number)?;
        let limit = |limit: u64| (limit > 0).then_some(limit);
        Ok(found.map(|found| QuotaUsage {
            size: limit(found.limits.bytes),
            inodes: limit(found.limits.inodes),
            used_bytes: found.bytes,
            used_inodes: found.inodes,
        }))
    }

    /// Limits an empty directory that is going to be written to.
    pub(super) fn limit(&self, staging: &Staging, limits: Limits) -> Result<(), Error> {
        Ok(self.layout().limit(staging.directory(), staging.number(), limits)?)
    }

    /// The limits of what is written to, if nobody has said others for it.
    pub(super) fn default_limits(&self) -> Limits {
        Quota::default().or(self.options().quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_that_is_not_said_is_the_default() {
        let default = Quota { size: Some(5), inodes: Some(6) };
        let limits = |size, inodes| {
            let Limits { bytes, inodes } = Quota { size, inodes }.or(default);
            (bytes, inodes)
        };
        assert_eq!(limits(None, None), (5, 6));
        assert_eq!((limits(Some(1), None), limits(None, Some(1))), ((1, 6), (5, 1)));
        assert_eq!(limits(Some(0), Some(0)), (0, 0), "none is a limit too");
        assert!(!Quota::default().is_asked_for() && Quota { inodes: Some(1), size: None }.is_asked_for());
    }
}
