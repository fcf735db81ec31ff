//! Mounts, and where things are.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::driver::{Driver, is_missing, is_read_write};
use super::options::{Dialect, GetOptions};
use crate::error::{Error, MountError};
use crate::store::{MountOptions, UnmountMode};
use crate::sys::userns::{IdExtent, IdMaps};
use crate::types::LayerId;

/// A variable that says that no layer is to be shown with other ids.
const DISABLE_ID_MAPS: &str = "_CONTAINERS_OVERLAY_DISABLE_IDMAP";

/// Where the directories of a layer are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// What each layer below it has, topmost first.
    pub lower_dirs: Vec<PathBuf>,
    /// What it has itself.
    pub upper_dir: PathBuf,
    /// The workdir of a mount that writes; `None` for a layer that came from an archive.
    pub work_dir: Option<PathBuf>,
    /// Where it is, or would be, mounted.
    pub merged_dir: PathBuf,
}

impl Metadata {
    /// The same under the names `LowerDir`, `MergedDir`, `UpperDir` and `WorkDir`; what there is not has no name. Lower
    /// directories have colons between them.
    pub fn pairs(&self) -> BTreeMap<&'static str, OsString> {
        let mut pairs = BTreeMap::from([
            ("MergedDir", self.merged_dir.clone().into_os_string()),
            ("UpperDir", self.upper_dir.clone().into_os_string()),
        ]);
        pairs.extend(self.work_dir.clone().map(|work| ("WorkDir", work.into_os_string())));
        if !self.lower_dirs.is_empty() {
            let lowers: Vec<&OsStr> = self.lower_dirs.iter().map(|lower| lower.as_os_str()).collect();
            pairs.insert("LowerDir", lowers.join(OsStr::new(":")));
        }
        pairs
    }
}

impl Driver {
    /// Mounts a layer, or counts a mount that is there once more, and returns where it is. What is mounted keeps the options
    /// that it was mounted with; but who may write to the layer, and does not ask for `ro`, is never given a mount for reading.
    ///
    /// It is mounted for writing if it may be written to: not if it came from an archive and is none of
    /// [`create_read_write`](Self::create_read_write), it is in another store, others stand on it, or an option says `ro`. A layer that stands on nothing is
    /// mounted too, so that deleted files are not seen as devices, and no count is missed.
    ///
    /// With ids of its own, a layer that is mounted for writing has a root directory that belongs to somebody of the container:
    /// see [`MountOptions::id_maps`].
    ///
    /// Returns [`Error::Lookup`] if the layer is not there, [`Error::InUse`] with
    /// [`MountedForReading`](crate::InUseError::MountedForReading) if it is to be written to and was mounted with `ro`, and what [`Store::mount`](crate::Store::mount) does.
    pub fn get(&self, id: &LayerId, options: &GetOptions) -> Result<PathBuf, Error> {
        let layer = self.layer(id)?;
        let mut mount = MountOptions {
            read_only: options.options.iter().any(|option| option == "ro"),
            // What another store has stays as it is.
            unseal: is_read_write(&layer) && layer.image_store.is_none(),
            options: options.options.clone(),
            label: options.mount_label.clone(),
            for_writing: true,
            ..MountOptions::default()
        };
        if options.volatile {
            mount.options.push("volatile".to_owned());
        }
        if let Some(maps) = options.id_maps.as_ref().filter(|_| !options.disable_shifting)
            && self.supports_shifting(Some(maps))?
        {
            mount.id_maps = Some(maps.clone());
        }
        let mounted = match self.store().mount(id, &mount) {
            Err(Error::InUse(used)) if used.is_below_others() => {
                mount.read_only = true;
                self.store().mount(id, &mount)
            }
            mounted => mounted,
        };
        Ok(mounted?.path().to_owned())
    }

    /// Gives one mount back, and unmounts with the last, even while processes use it. A layer that is not mounted is no error,
    /// and in moby's dialect one that is not there is none either.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there, in the dialect of containers/storage.
    pub fn put(&self, id: &LayerId) -> Result<(), Error> {
        match self.store().unmount(id, UnmountMode::Detach) {
            Err(Error::Mount(MountError::NotMounted { .. })) => Ok(()),
            Err(error) if self.dialect() == Dialect::Moby && is_missing(&error) => Ok(()),
            unmounted => unmounted.map(drop),
        }
    }

    /// Where the directories of a layer are now. They are to be told, and not to be written to.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn metadata(&self, id: &LayerId) -> Result<Metadata, Error> {
        let places = self.store().layer_places(id)?;
        Ok(Metadata {
            lower_dirs: places.lowers,
            upper_dir: places.upper,
            work_dir: places.work,
            merged_dir: places.mount_point,
        })
    }

    /// The directory with what a layer itself has: see [`metadata`](Self::metadata).
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn differ_target(&self, id: &LayerId) -> Result<PathBuf, Error> {
        Ok(self.store().layer_places(id)?.upper)
    }

    /// Gives all that a layer shows other owners: ids of the host that are those of a container by `to_container` become the
    /// host's by `to_host`. It is for callers that make copies of layers, because [`get`](Self::get) cannot show layers with other
    /// ids. The owners that change are [changes](Self::changes) of the layer.
    ///
    /// Returns what [`Store::change_owners`](crate::Store::change_owners) does.
    pub fn update_layer_id_map(
        &self,
        id: &LayerId,
        to_container: Option<&IdMaps>,
        to_host: Option<&IdMaps>,
    ) -> Result<(), Error> {
        self.store().change_owners(id, to_container, to_host)
    }

    /// Whether [`get`](Self::get) can show layers with these ids; without maps, whether it can show any. The kernel can for any
    /// map or for none; a mount program can if each run of ids begins where the one before it ends.
    ///
    /// `_CONTAINERS_OVERLAY_DISABLE_IDMAP=yes` in the environment says no, and so does a store with a `force_mask`.
    ///
    /// Returns what [`Store::capabilities`](crate::Store::capabilities) does.
    pub fn supports_shifting(&self, maps: Option<&IdMaps>) -> Result<bool, Error> {
        if std::env::var_os(DISABLE_ID_MAPS).is_some_and(|value| value == "yes") {
            return Ok(false);
        }
        // Owners that stand in an attribute are shown by no map.
        if self.store().layout().mask().is_some() {
            return Ok(false);
        }
        let works = self.capabilities()?;
        Ok(match works.by_program {
            true => maps.is_none_or(|maps| is_contiguous(&maps.uids) && is_contiguous(&maps.gids)),
            false => works.id_maps,
        })
    }
}

/// Whether each run begins where the one before it ends, on both sides.
fn is_contiguous(map: &[IdExtent]) -> bool {
    let follows = |(before, after): (&IdExtent, &IdExtent)| {
        before.inside.checked_add(before.count) == Some(after.inside)
            && before.outside.checked_add(before.count) == Some(after.outside)
    };
    map.iter().zip(map.iter().skip(1)).all(follows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_follow_each_other_are_contiguous() {
        let extents = |text: &str| -> Vec<IdExtent> {
            text.split_whitespace().map(|extent| extent.parse().unwrap()).collect()
        };
        for good in ["", "0:1000:1", "0:1000:5 5:1005:10", "0:4294967290:5"] {
            assert!(is_contiguous(&extents(good)), "{good}");
        }
        for bad in ["0:1000:1 1:100000:5", "0:1000:5 6:1005:10", "0:4294967290:6 6:0:1"] {
            assert!(!is_contiguous(&extents(bad)), "{bad}");
        }
    }

    #[test]
    fn what_there_is_not_has_no_name() {
        let mut metadata = Metadata {
            lower_dirs: Vec::new(),
            upper_dir: "/u".into(),
            work_dir: None,
            merged_dir: "/m".into(),
        };
        assert_eq!(metadata.pairs().into_keys().collect::<Vec<_>>(), ["MergedDir", "UpperDir"]);
        metadata.lower_dirs = vec!["/b".into(), "/a".into()];
        assert_eq!(metadata.pairs()["LowerDir"], "/b:/a");
    }
}
