//! A plan as text: the option string of `mount(2)`, and the mount entries of callers that mount by themselves.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use super::request::{Method, MountPlan, Upper};
use crate::error::MountError;
use crate::sys::mount::MOUNT_DATA_MAX;
use crate::sys::userns::IdExtent;

/// A mount for a caller that makes it, as containerd describes mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The filesystem type.
    pub kind: String,
    /// The source.
    pub source: OsString,
    /// The options, each complete. Who makes the entry says how paths are written in them: [`Store::mount_entry`](crate::Store::mount_entry)
    /// with the escapes of `mount(2)`, the [`snapshotter`](crate::snapshotter) without any, as containerd reads them.
    pub options: Vec<OsString>,
    /// The directory that relative paths in the options start at; `None` if all are absolute.
    pub directory: Option<PathBuf>,
}

/// What an overlay mount is made of, for a caller that has a way of its own to write it down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountParts {
    /// The filesystem type: `overlay`, or `fuse3.` and the name of the program that makes the mount.
    pub kind: String,
    /// The options besides the directories. A mount without them may leave something in the upper directory that is no plain
    /// changeset, or that another mount reads in another way.
    pub options: Vec<String>,
    /// The directory that is written to; `None` for a view.
    pub upper: Option<PathBuf>,
    /// Its workdir.
    pub work: Option<PathBuf>,
    /// The directories below, topmost first, each once, and no further than to one that hides all below.
    pub lowers: Vec<PathBuf>,
    /// An empty directory, to be stacked below where there is no other, or only one and none to be written to.
    pub empty: PathBuf,
}

/// How [`MountPlan::entry`] writes paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryPaths {
    /// From the root.
    Absolute,
    /// Those below the request's base from there, so that many layers fit into one page.
    Relative,
}

impl MountPlan {
    /// The plan for a caller that mounts by itself.
    ///
    /// Returns [`MountError::OptionsTooLong`] if `mount(2)` does not take the options, and [`MountError::Option`] if
    /// something else than overlayfs would find one of its own in a path. Ids are mapped as containerd
    /// says it: `uidmap=0:100000:65536`.
    pub(crate) fn entry(&self, paths: EntryPaths) -> Result<MountEntry, MountError> {
        let directory = (paths == EntryPaths::Relative).then(|| self.base.clone());
        if let (Method::Bind | Method::BindCall, Some(empty)) = (&self.method, self.lowers.first()) {
            let options = ["ro", "rbind"].map(OsString::from).to_vec();
            return Ok(MountEntry {
                kind: "bind".to_owned(),
                source: empty.into(),
                options,
                directory: None,
            });
        }
        self.refuse_misread(paths)?;
        let length = self.option_string(paths).len();
        if length > MOUNT_DATA_MAX {
            return Err(MountError::OptionsTooLong { length, limit: MOUNT_DATA_MAX });
        }
        let mut options = self.attribute_words().map(OsString::from).collect::<Vec<_>>();
        options.append(&mut self.option_words(paths));
        if let Some((maps, _)) = &self.id_map {
            for (key, extents) in [("uidmap=", &maps.uids), ("gidmap=", &maps.gids)] {
                options.push(format!("{key}{}", extent_words(extents, ",")).into());
            }
        }
        Ok(MountEntry { kind: self.kind(), source: "overlay".into(), options, directory })
    }

    /// The plan in parts.
    pub(crate) fn parts(&self, empty: &Path) -> MountParts {
        let mut options: Vec<String> = self.attribute_words().map(str::to_owned).collect();
        // A view is one without them, or one that a bind mount shows: whoever writes it down says so.
        options.retain(|word| word != "ro");
        for (key, value) in &self.settings {
            options.push(value.map_or_else(|| (*key).to_owned(), |value| format!("{key}={value}")));
        }
        if let Some(label) = &self.context {
            options.push(format!("context=\"{label}\""));
        }
        let (upper, work) = self.upper.clone().map(|Upper { upper, work }| (upper, work)).unzip();
        let lowers = self.lowers.iter().filter(|lower| *lower != empty).cloned().collect();
        MountParts { kind: self.kind(), options, upper, work, lowers, empty: empty.to_owned() }
    }

    /// The filesystem type, as callers know it that mount by themselves.
    fn kind(&self) -> String {
        match &self.method {
            Method::Program(program) => {
                let name = program.file_name().unwrap_or_default().to_string_lossy();
                format!("fuse3.{name}")
            }
            _ => "overlay".to_owned(),
        }
    }

    /// The option string of `mount(2)`.
    pub(super) fn option_string(&self, paths: EntryPaths) -> OsString {
        self.option_words(paths).join(OsStr::new(","))
    }

    /// The filesystem's options but for its directories, as text for people.
    pub(super) fn settings_text(&self) -> String {
        self.setting_words().join(OsStr::new(",")).to_string_lossy().into_owned()
    }

    /// The filesystem's options but for its directories.
    fn setting_words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        for (key, value) in &self.settings {
            words.push(value.map_or_else(|| (*key).into(), |value| format!("{key}={value}").into()));
        }
        if let Some(label) = &self.context {
            // A label has commas of its own: the quotes are for SELinux, which takes them off.
            words.push(format!("context=\"{label}\"").into());
        }
        words
    }

    /// The filesystem's options, paths last. Each word is complete and has its escapes.
    fn option_words(&self, paths: EntryPaths) -> Vec<OsString> {
        let mut words = self.setting_words();
        let word = |key: &str, value: OsString| {
            let mut word = OsString::from(key);
            word.push(value);
            word
        };
        let path = |path: &Path| escaped(self.shortened(path, paths).as_os_str(), SPECIAL);
        if let Some(Upper { upper, work }) = &self.upper {
            words.push(word("upperdir=", path(upper)));
            words.push(word("workdir=", path(work)));
        }
        let lowers: Vec<OsString> = self.lowers.iter().map(|lower| path(lower)).collect();
        words.push(word("lowerdir=", lowers.join(OsStr::new(":"))));
        words
    }

    /// Security modules of the kernel look for their options in the text before overlayfs does. They split it at commas, and
    /// a backslash before one means nothing to them: so behind a comma in a path could stand the label of the mount.
    ///
    /// Returns [`MountError::Option`] if it does.
    pub(super) fn refuse_misread(&self, paths: EntryPaths) -> Result<(), MountError> {
        let upper = self.upper.iter().flat_map(|upper| [&upper.upper, &upper.work]);
        let is_misread = |path: &&PathBuf| {
            let bytes = self.shortened(path, paths).as_os_str().as_bytes();
            let mut words = bytes.split(|byte| *byte == b',').skip(1);
            words.any(|word| OF_MODULES.iter().any(|key| word.starts_with(key)))
        };
        match self.lowers.iter().chain(upper).find(is_misread) {
            Some(path) => Err(MountError::Option {
                option: path.display().to_string(),
                reason: "a security module would take what follows the comma in this directory for an option of its own; \
                         move the store",
            }),
            None => Ok(()),
        }
    }

    /// `path` from the base, where the plan's paths are relative and it is below.
    pub(super) fn shortened<'a>(&self, path: &'a Path, paths: EntryPaths) -> &'a Path {
        match path.strip_prefix(&self.base) {
            Ok(short) if paths == EntryPaths::Relative && !short.as_os_str().is_empty() => short,
            _ => path,
        }
    }

    /// The attributes of the mount as words of an option string.
    pub(super) fn attribute_words(&self) -> impl Iterator<Item = &'static str> {
        let atime = self.attributes & MountAttrFlags::MOUNT_ATTR__ATIME;
        let words = [
            (self.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY), "ro"),
            (self.attributes.contains(MountAttrFlags::MOUNT_ATTR_NODEV), "nodev"),
            (self.attributes.contains(MountAttrFlags::MOUNT_ATTR_NOSUID), "nosuid"),
            (self.attributes.contains(MountAttrFlags::MOUNT_ATTR_NOEXEC), "noexec"),
            (self.attributes.contains(MountAttrFlags::MOUNT_ATTR_NODIRATIME), "nodiratime"),
            (atime == MountAttrFlags::MOUNT_ATTR_NOATIME, "noatime"),
            (atime == MountAttrFlags::MOUNT_ATTR_STRICTATIME, "strictatime"),
        ];
        words.into_iter().filter_map(|(set, word)| set.then_some(word))
    }
}

/// Extents as `inside:outside:count`.
pub(super) fn extent_words(extents: &[IdExtent], between: &str) -> String {
    let words: Vec<String> = extents
        .iter()
        .map(|extent| format!("{}:{}:{}", extent.inside, extent.outside, extent.count))
        .collect();
    words.join(between)
}

/// The bytes that mean something in an option string of `mount(2)`.
const SPECIAL: &[u8] = b"\\,:";

/// How the options of security modules begin: those of SELinux, and Smack's.
const OF_MODULES: [&[u8]; 6] =
    [b"context=", b"fscontext=", b"defcontext=", b"rootcontext=", b"seclabel", b"smackfs"];

/// Text with a backslash before each of the `special` bytes.
pub(super) fn escaped(text: &OsStr, special: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if special.contains(&byte) {
            bytes.push(b'\\');
        }
        bytes.push(byte);
    }
    OsString::from_vec(bytes)
}
