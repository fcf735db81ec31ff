//! What a driver, a new layer and a mount are given.

use crate::config::{DriverOption, Origin, OverlayOptions};
use crate::error::ConfigError;
use crate::store::Quota;
use crate::sys::userns::IdMaps;

/// Whose conventions a driver follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// `overlay` of containers/storage.
    #[default]
    ContainersStorage,
    /// `overlay2` of moby.
    Moby,
}

impl Dialect {
    /// The driver's name.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::ContainersStorage => "overlay",
            Dialect::Moby => "overlay2",
        }
    }

    /// The mode of the root directory of a layer that stands on nothing.
    pub fn root_mode(self) -> u16 {
        match self {
            Dialect::ContainersStorage => 0o555,
            Dialect::Moby => 0o755,
        }
    }

    /// How many layers may be below one.
    pub fn max_depth(self) -> usize {
        match self {
            Dialect::ContainersStorage => 500,
            Dialect::Moby => 128,
        }
    }
}

/// The options of a driver.
#[derive(Clone, Debug, Default)]
pub struct DriverOptions {
    pub(super) dialect: Dialect,
    pub(super) given: Vec<DriverOption>,
    pub(super) id_maps: Option<IdMaps>,
    parsed: OverlayOptions,
}

/// What gives options that are handed to a driver.
const ORIGIN: Origin = Origin::Flag("the driver's options");

impl DriverOptions {
    /// Reads options, `key=value`: of two of a kind the later one counts. A key may begin with `overlay.`, `overlay2.` or a
    /// point; those of other drivers are passed over. What each does: [`StoreOptions::driver_options`](crate::StoreOptions::driver_options).
    ///
    /// Returns [`ConfigError::Option`] if one has no value, a key is unknown, or a value means nothing: such as a mount
    /// program or an image store that is not there.
    pub fn parse<O: Into<String>>(options: impl IntoIterator<Item = O>) -> Result<Self, ConfigError> {
        let given: Vec<_> = options.into_iter().map(|text| DriverOption::new(text, ORIGIN)).collect();
        Ok(DriverOptions { parsed: OverlayOptions::parse(&given)?, given, ..DriverOptions::default() })
    }

    /// Whose conventions the driver follows. The default is [`Dialect::ContainersStorage`].
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// The maps of a driver whose layers all have the host's ids in their files, as moby's `userns-remap` wants: they count
    /// wherever [`CreateOptions::id_maps`], [`ApplyDiffOptions::id_maps`] or [`Driver::diff`](super::Driver::diff) are given none. The
    /// default is that files have the owners that came in.
    #[must_use]
    pub fn id_maps(mut self, maps: IdMaps) -> Self {
        self.id_maps = Some(maps);
        self
    }

    /// What the options say.
    pub fn overlay(&self) -> &OverlayOptions {
        &self.parsed
    }
}

/// What a new layer is given.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CreateOptions {
    /// The SELinux label for every mount.
    pub mount_label: Option<String>,
    /// Limits, `size=VALUE` and `inodes=VALUE`: for a layer that is written to.
    pub storage_options: Vec<String>,
    /// How ids map to the host's: kept with the layer, for the caller. The root directory of a layer that stands on nothing
    /// belongs to the host's ids of root.
    pub id_maps: Option<IdMaps>,
}

impl CreateOptions {
    /// The limits that a layer is to have: none if nothing is written to it but archives.
    ///
    /// Returns [`ConfigError::Option`] if an option is no limit, a value means nothing, or the layer is none that is written
    /// to.
    pub(super) fn quota(&self, read_write: bool) -> Result<Quota, ConfigError> {
        let origin = Origin::Flag("the layer's options");
        let mut quota = Quota::default();
        for text in &self.storage_options {
            let refuse = |reason: &str| {
                let (option, origin) = (text.clone(), origin.to_string());
                Err(ConfigError::Option { option, origin, reason: reason.to_owned() })
            };
            let key = text.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            if key != "size" && key != "inodes" {
                return refuse(ConfigError::UNKNOWN);
            }
            if !read_write {
                return refuse("is for layers that are written to");
            }
            let parsed = OverlayOptions::parse(&[DriverOption::new(text.as_str(), origin.clone())])?;
            quota.size = parsed.size.map(|size| size.value).or(quota.size);
            quota.inodes = parsed.inodes.map(|inodes| inodes.value).or(quota.inodes);
        }
        Ok(if read_write { quota } else { Quota { size: Some(0), inodes: Some(0) } })
    }
}

/// How an archive is applied.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ApplyDiffOptions {
    /// Which ids of the host the archive's become in the files: for mounts that show no other ids. The layer gives back the
    /// archive's.
    pub id_maps: Option<IdMaps>,
    /// Leave out owners that this process may not give.
    pub ignore_chown_errors: bool,
}

/// How a layer is mounted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GetOptions {
    /// The SELinux label, in place of the layer's own.
    pub mount_label: Option<String>,
    /// Options besides those of the driver, such as `ro` or `nodev`.
    pub options: Vec<String>,
    /// Leave out syncs.
    pub volatile: bool,
    /// Show the layers below with these ids, if [`supports_shifting`](super::Driver::supports_shifting) says that this can
    /// be done; if not, with their own.
    pub id_maps: Option<IdMaps>,
    /// Show them with their own in any case.
    pub disable_shifting: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_for_layers_that_are_written_to() {
        let with = |text: &[&str]| CreateOptions {
            storage_options: text.iter().map(|text| (*text).to_owned()).collect(),
            ..CreateOptions::default()
        };
        let quota = with(&["size=1k", "INODES=5"]).quota(true).unwrap();
        assert_eq!(quota, Quota { size: Some(1024), inodes: Some(5) });
        assert_eq!(with(&[]).quota(true).unwrap(), Quota::default());
        assert_eq!(with(&[]).quota(false).unwrap(), Quota { size: Some(0), inodes: Some(0) });
        for (text, read_write, reason) in [
            ("size=0", false, "written to"),
            ("inodes=0", false, "written to"),
            ("size=much", true, "takes a size"),
            ("mountopt=nodev", true, "is unknown"),
            ("nosuch=1", true, "is unknown"),
        ] {
            let error = with(&[text]).quota(read_write).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("the layer's options"), "{text}: {error}");
        }
    }
}
