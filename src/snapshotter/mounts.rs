//! How a snapshot is mounted, as containerd writes mounts down.
//!
//! | snapshot | mount |
//! | --- | --- |
//! | active, nothing below | bind of its directory, `rw` |
//! | view, nothing below | bind of its directory, `ro` |
//! | active above others | overlay with `workdir=`, `upperdir=` and `lowerdir=` |
//! | view of one | bind of that one's directory, `ro` |
//! | view of more | overlay with `lowerdir=` |
//!
//! Paths are absolute, as containerd itself begins them at the directory that they have in common if they would be too long
//! for a page otherwise: so some 230 layers fit, and [`mounted_length`] is what does. They stand in the options without escapes,
//! as it reads them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::idmap::{self, Maps};
use super::record::Record;
use super::{Kind, Snapshotter, failed, words};
use crate::error::SnapshotError;
use crate::store::{MountEntry, MountOptions, MountParts};
use crate::sys::mount::MOUNT_DATA_MAX;

/// The filesystem type of mounts by the kernel.
const OVERLAY: &str = "overlay";

impl Snapshotter {
    pub(super) fn mounts_of(&self, record: &Record) -> Result<Vec<MountEntry>, SnapshotError> {
        let Record { layer, parent, info, .. } = record;
        let parts = |layer| {
            let parts = self.store.mount_parts(layer, &MountOptions::default());
            parts.map_err(|error| failed(error, &info.name))
        };
        let precondition = |reason: &str| SnapshotError::FailedPrecondition {
            key: info.name.clone(),
            reason: reason.to_owned(),
        };
        let mut options = Vec::new();
        if self.options.remap_ids
            && let Some(maps) = Maps::of(&info.labels)?
        {
            options.extend(maps.options().map(OsString::from));
        }
        let entry = match (info.kind, parent) {
            (Kind::Committed, _) => {
                return Err(precondition("is committed, and is not mounted itself: make a view of it"));
            }
            (Kind::Active, _) if record.is_sealed => {
                return Err(precondition(
                    "was sealed by another program, and cannot be written to: unseal its layer",
                ));
            }
            (Kind::Active, None) => bind(&self.directory(record)?, options, "rw"),
            (Kind::View, None) => bind(&self.directory(record)?, options, "ro"),
            (Kind::Active, Some(_)) => self.overlay(&parts(layer)?, options, &info.name)?,
            (Kind::View, Some(below)) => {
                let parts = parts(below)?;
                let alone = self.store.layer(below.as_str()).map_err(|error| failed(error, &info.name))?;
                match parts.lowers.as_slice() {
                    // One that hides others below may have whiteouts, which only an overlay takes for what they are.
                    [lower] if alone.parent.is_none() => bind(lower, options, "ro"),
                    _ => self.overlay(&parts, options, &info.name)?,
                }
            }
        };
        if record.info.kind == Kind::Active && entry.options.iter().any(|word| word == "volatile") {
            // The client mounts it, and the kernel's mark stays: that is no crash.
            let places = self.store.layer_places(layer).map_err(|error| failed(error, &info.name))?;
            let noted = places.work.map_or(Ok(()), |work| self.store.note_lent(layer.as_str(), &work));
            noted.map_err(|error| failed(error, &info.name))?;
        }
        Ok(vec![entry])
    }

    /// The directory that has a snapshot's own changes.
    pub(super) fn directory(&self, record: &Record) -> Result<PathBuf, SnapshotError> {
        self.store.layer_directory(&record.layer).map_err(|error| failed(error, &record.info.name))
    }

    fn overlay(
        &self,
        parts: &MountParts,
        mut options: Vec<OsString>,
        key: &str,
    ) -> Result<MountEntry, SnapshotError> {
        if parts.kind != OVERLAY {
            return Err(SnapshotError::FailedPrecondition {
                key: key.to_owned(),
                reason: format!(
                    "could be mounted by a {} alone, as the kernel's overlayfs cannot, or a layer was made with a force_mask; containerd \
                     has no such mounts",
                    parts.kind
                ),
            });
        }
        let mut lowers: Vec<&Path> = parts.lowers.iter().map(|lower| lower.as_path()).collect();
        if lowers.len() < if parts.upper.is_some() { 1 } else { 2 } {
            lowers.push(&parts.empty);
        }
        let directories = parts.work.iter().chain(&parts.upper).map(|directory| directory.as_path());
        if let Some(path) = directories.chain(lowers.iter().copied()).find(|path| is_special(path)) {
            return Err(SnapshotError::FailedPrecondition {
                key: key.to_owned(),
                reason: format!(
                    "lies in {}, and a path with a comma, colon or backslash cannot be said in mount options; move the store",
                    path.display()
                ),
            });
        }
        let mut option = |key: &str, value: OsString| {
            let mut word = OsString::from(key);
            word.push(value);
            options.push(word);
        };
        if let (Some(work), Some(upper)) = (&parts.work, &parts.upper) {
            option("workdir=", work.into());
            option("upperdir=", upper.into());
        }
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.as_os_str()).collect();
        option("lowerdir=", lowers.join(":".as_ref()));
        let configured = &self.options.mount_options;
        let is_configured = |word: &&String| {
            let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
            configured.iter().any(|configured| key(configured) == key(word))
        };
        options.extend(parts.options.iter().filter(|word| !is_configured(word)).map(OsString::from));
        // Nothing is written through a view that could be in doubt, and the kernel refuses the word without an upper directory.
        let is_view = parts.upper.is_none();
        options
            .extend(configured.iter().filter(|word| !(is_view && *word == "volatile")).map(OsString::from));
        let length = mounted_length(&options, &lowers);
        if length > MOUNT_DATA_MAX {
            return Err(SnapshotError::FailedPrecondition {
                key: key.to_owned(),
                reason: format!(
                    "stands on {} layers, and containerd cannot mount so many: the options would be {length} bytes long, and the kernel \
                     takes {MOUNT_DATA_MAX}; build the image with fewer layers",
                    lowers.len()
                ),
            });
        }
        Ok(MountEntry { kind: OVERLAY.to_owned(), source: OVERLAY.into(), options, directory: None })
    }
}

/// How long the options of an overlay are when containerd mounts it: with `mount(2)`, which gets neither attributes of the mount nor
/// id maps as text, and, since they would be too long otherwise, with the `lowers` seen from the deepest directory that all of
/// them are in, unless that is the root.
fn mounted_length(options: &[OsString], lowers: &[&OsStr]) -> usize {
    let is_text = |word: &&OsString| {
        !word.to_str().is_some_and(|word| words::is_attribute(word) || idmap::is_option(word))
    };
    let lengths = options.iter().filter(is_text).map(|word| word.len().saturating_add(",".len()));
    let length = lengths.fold(0, usize::saturating_add);
    let whole = length.saturating_sub(",".len());
    let ([first, others @ ..], true) = (lowers, lowers.len() > 1) else { return whole };
    let first = first.as_encoded_bytes();
    let same = |other: &&OsStr| {
        let pairs = first.iter().zip(other.as_encoded_bytes());
        pairs.take_while(|(one, other)| one == other).count()
    };
    let common = others.iter().map(same).min().unwrap_or_default();
    let slash = first.iter().take(common).rposition(|byte| *byte == b'/').unwrap_or_default();
    if slash == 0 {
        return whole;
    }
    whole.saturating_sub(slash.saturating_add("/".len()).saturating_mul(lowers.len()))
}

/// Whether a path has bytes that mean something in mount options.
fn is_special(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| b",:\\".contains(byte))
}

fn bind(source: &Path, mut options: Vec<OsString>, access: &str) -> MountEntry {
    options.extend([access, "rbind"].map(OsString::from));
    MountEntry { kind: "bind".to_owned(), source: source.into(), options, directory: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(others: &[&str], lowers: &[&str]) -> usize {
        let lowerdir = format!("lowerdir={}", lowers.join(":"));
        let options = others.iter().copied().chain([lowerdir.as_str()]).map(OsString::from);
        let lowers: Vec<&OsStr> = lowers.iter().map(OsStr::new).collect();
        mounted_length(&options.collect::<Vec<_>>(), &lowers)
    }

    #[test]
    fn lengths_are_those_of_what_containerd_mounts() {
        let short = |text: &str| text.len();
        for (lowers, mounted) in [
            (&["/s/diffs/12", "/s/diffs/1", "/s/diffs/13"][..], "lowerdir=12:1:13"),
            (&["/s/diffs/12", "/t/diffs/1"], "lowerdir=/s/diffs/12:/t/diffs/1"),
            (&["/s/one/diffs/1", "/s/other/diffs/1"], "lowerdir=one/diffs/1:other/diffs/1"),
            (&["/s/diffs/12"], "lowerdir=/s/diffs/12"),
        ] {
            assert_eq!(length(&[], lowers), short(mounted), "{lowers:?}");
        }
        let lowers = &["/s/1", "/s/2"][..];
        assert_eq!(length(&["index=off", "volatile"], lowers), short("index=off,volatile,lowerdir=1:2"));
        let no_text = ["nodev", "relatime", "uidmap=0:1:2", "gidmap=0:1:2"];
        assert_eq!(length(&no_text, lowers), short("lowerdir=1:2"));
    }
}
