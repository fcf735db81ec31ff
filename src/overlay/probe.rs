//! What this kernel, with these rights and on this filesystem, can do: tried out, never guessed from a version.
//!
//! Distributions carry features back and security modules take them away, so each is tried in a scratch directory.
//! The mounts for it are attached nowhere and gone when the probe is.

mod trial;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[cfg(test)]
mod tests;

use super::request::XattrClass;
use crate::error::{MountError, ProbeTextError, shown};
use crate::sys::userns::{in_user_namespace, is_privileged};
use crate::sys::{machine, path};
use trial::Trial;

/// How layers can be shown with other ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdMapSupport {
    /// Not at all.
    None,
    /// By mapped mounts that are attached while the overlay is made (Linux 5.19).
    Attached,
    /// By mapped mounts that are attached nowhere (Linux 6.15).
    Detached,
}

/// How an EROFS image can be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErofsSupport {
    /// Not at all.
    None,
    /// By a loop device.
    Loop,
    /// As a file (Linux 6.12).
    File,
}

/// What overlay mounts can do here. A plain value: its text, one `key=value` a line, can be remembered for as long
/// as [`Probe::is_current`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The boot that this was found in; another kernel may run after the next.
    pub(crate) boot_id: String,
    /// The filesystem's device number.
    pub(crate) device: u64,
    /// Whether this was found in a user namespace.
    pub(crate) user_namespace: bool,
    /// Whether this was found with the right to mount.
    pub(crate) privileged: bool,
    /// Directories tell what kind each name is of (`d_type`), without which whiteouts are seen.
    pub(crate) kinds_of_names: bool,
    /// The kernel makes overlay mounts.
    pub(crate) overlay: bool,
    /// Attributes can live in `trusted.overlay.*`.
    pub(crate) trusted_xattrs: bool,
    /// Attributes can live in `user.overlay.*`. Where the line above does not hold they must.
    pub(crate) user_xattrs: bool,
    /// Layers can be given as open directories.
    pub(crate) lower_descriptors: bool,
    /// Layers can be given one by one as paths.
    pub(crate) lower_paths: bool,
    /// Whiteouts can be made as character devices.
    pub(crate) device_whiteouts: bool,
    /// Whiteouts can be made as files with an attribute.
    pub(crate) xattr_whiteouts: bool,
    /// Escaped attributes of a layer (`overlay.overlay.*`) come out unescaped.
    pub(crate) xattr_escape: bool,
    /// Syncs can be skipped.
    pub(crate) volatile: bool,
    /// How ids can be mapped.
    pub(crate) id_maps: IdMapSupport,
    /// How images can be mounted.
    pub(crate) erofs: ErofsSupport,
    /// Files of an image can have their content in a directory that is no layer of its own, and changed ones are copied
    /// whole: without `metacopy=on` (Linux 6.16).
    pub(crate) data_lowers: bool,
    /// A program that mounts where the kernel cannot. It can come and go within a boot, so it is no part of the text and
    /// looked for at each use.
    pub(crate) program: Option<PathBuf>,
    /// What was in the way of what does not work, by the keys of the text. What the kernel takes and then does not do has
    /// no entry.
    pub(crate) reasons: BTreeMap<String, String>,
}

/// Finds out what overlay mounts can do with layers on the filesystem of `scratch`, an empty directory that is
/// empty again afterwards.
///
/// What does not work is `false` in the answer, not an error. With it comes whether that is certain: not so if something
/// failed that may go well another time, and then the answer is not to be remembered. Returns [`MountError::Directory`] if `scratch` itself
/// cannot be used.
pub(crate) fn probe(scratch: &Path) -> Result<(Probe, bool), MountError> {
    let failed = |action| move |source| MountError::Directory { action, path: scratch.to_owned(), source };
    let device = path::stat(scratch).map_err(failed("probe in"))?.id.device();
    let mut probe = Probe {
        boot_id: boot_id(),
        device,
        user_namespace: in_user_namespace(),
        privileged: is_privileged(),
        ..Probe::nothing()
    };
    let trial = Trial::new(scratch).map_err(failed("probe in"))?;
    trial.run(&mut probe);
    Ok((probe, trial.is_certain()))
}

/// Changes with each start of the machine; empty if the kernel does not tell.
fn boot_id() -> String {
    machine::boot_id().unwrap_or_default()
}

impl Probe {
    /// A kernel that can do nothing.
    pub(crate) fn nothing() -> Probe {
        Probe {
            boot_id: String::new(),
            device: 0,
            user_namespace: false,
            privileged: false,
            kinds_of_names: false,
            overlay: false,
            trusted_xattrs: false,
            user_xattrs: false,
            lower_descriptors: false,
            lower_paths: false,
            device_whiteouts: false,
            xattr_whiteouts: false,
            xattr_escape: false,
            volatile: false,
            id_maps: IdMapSupport::None,
            erofs: ErofsSupport::None,
            data_lowers: false,
            program: None,
            reasons: BTreeMap::new(),
        }
    }

    /// Whether this was found in this boot, which has the id `boot`, on the filesystem of `directory`, with the rights that this
    /// process has. If not, it says nothing about the mounts this process can make.
    pub(crate) fn is_current(&self, boot: &str, directory: &Path) -> bool {
        let same_boot = !self.boot_id.is_empty() && self.boot_id == boot;
        let same_rights = self.user_namespace == in_user_namespace() && self.privileged == is_privileged();
        same_boot && same_rights && path::stat(directory).is_ok_and(|found| found.id.device() == self.device)
    }

    /// Whether the kernel mounts layers with such attributes.
    pub(crate) fn mounts(&self, xattrs: XattrClass) -> bool {
        let usable = match xattrs {
            XattrClass::Trusted => self.trusted_xattrs,
            XattrClass::User => self.user_xattrs,
        };
        self.overlay && usable
    }

    /// Why images cannot be mounted instead of directories; `None` if they can.
    pub(crate) fn against_images(&self) -> Option<&'static str> {
        if self.user_namespace || !self.privileged {
            return Some("only root outside every user namespace may mount EROFS images");
        }
        // In the order of what is tried: without the first, nobody has asked for the others.
        if self.lower_descriptors && self.erofs == ErofsSupport::None {
            return Some(
                "the kernel mounts no EROFS image here: load its module (modprobe erofs), or take a kernel that has it",
            );
        }
        if !self.lower_descriptors || !self.data_lowers {
            return Some(
                "it needs Linux 6.16: older kernels show the files of images with `metacopy=on` only, which leaves files \
                 without content in what containers write",
            );
        }
        None
    }

    /// Every yes-or-no of the text, with its place in the value.
    fn switches(&mut self) -> [(&'static str, &mut bool); 13] {
        [
            ("user_namespace", &mut self.user_namespace),
            ("privileged", &mut self.privileged),
            ("kinds_of_names", &mut self.kinds_of_names),
            ("overlay", &mut self.overlay),
            ("trusted_xattrs", &mut self.trusted_xattrs),
            ("user_xattrs", &mut self.user_xattrs),
            ("lower_descriptors", &mut self.lower_descriptors),
            ("lower_paths", &mut self.lower_paths),
            ("device_whiteouts", &mut self.device_whiteouts),
            ("xattr_whiteouts", &mut self.xattr_whiteouts),
            ("xattr_escape", &mut self.xattr_escape),
            ("volatile", &mut self.volatile),
            ("data_lowers", &mut self.data_lowers),
        ]
    }
}

/// What the keys of reasons begin with.
const WHY: &str = "why.";

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "boot_id={}", self.boot_id)?;
        writeln!(f, "device={}", self.device)?;
        for (key, value) in self.clone().switches() {
            writeln!(f, "{key}={}", if *value { "yes" } else { "no" })?;
        }
        let id_maps = match self.id_maps {
            IdMapSupport::None => "no",
            IdMapSupport::Attached => "attached",
            IdMapSupport::Detached => "detached",
        };
        writeln!(f, "id_maps={id_maps}")?;
        let erofs = match self.erofs {
            ErofsSupport::None => "no",
            ErofsSupport::Loop => "loop",
            ErofsSupport::File => "file",
        };
        writeln!(f, "erofs={erofs}")?;
        // A reason may have any byte; the escape of Rust's literals keeps it on one line.
        self.reasons
            .iter()
            .try_for_each(|(key, reason)| writeln!(f, "{WHY}{key}={}", reason.as_bytes().escape_ascii()))
    }
}

impl FromStr for Probe {
    type Err = ProbeTextError;

    /// Returns [`ProbeTextError`] if `text` is not what this version writes; then probe again.
    fn from_str(text: &str) -> Result<Self, ProbeTextError> {
        let mut probe = Probe::nothing();
        let mut missing = vec!["boot_id", "device", "id_maps", "erofs"];
        missing.extend(probe.switches().map(|(key, _)| key));
        for line in text.lines() {
            let bad = || ProbeTextError::Line(shown(line));
            let (key, value) = line.split_once('=').ok_or_else(bad)?;
            match key {
                "boot_id" => value.clone_into(&mut probe.boot_id),
                "device" => probe.device = value.parse().map_err(|_| bad())?,
                "id_maps" => {
                    probe.id_maps = match value {
                        "no" => IdMapSupport::None,
                        "attached" => IdMapSupport::Attached,
                        "detached" => IdMapSupport::Detached,
                        _ => return Err(bad()),
                    }
                }
                "erofs" => {
                    probe.erofs = match value {
                        "no" => ErofsSupport::None,
                        "loop" => ErofsSupport::Loop,
                        "file" => ErofsSupport::File,
                        _ => return Err(bad()),
                    }
                }
                _ if key.starts_with(WHY) => {
                    let reason = String::from_utf8(unescape(value).ok_or_else(bad)?).map_err(|_| bad())?;
                    probe.reasons.insert(key.trim_start_matches(WHY).to_owned(), reason);
                }
                _ => {
                    let mut switches = probe.switches();
                    let switch = switches.iter_mut().find(|(known, _)| *known == key).ok_or_else(bad)?;
                    *switch.1 = match value {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(bad()),
                    };
                }
            }
            missing.retain(|known| *known != key);
        }
        missing.first().map_or(Ok(probe), |key| Err(ProbeTextError::Missing(key)))
    }
}

/// Takes back `escape_ascii`. `None` is text that it never writes.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let mut digit = || char::from(rest.next()?).to_digit(16)?.try_into().ok();
                    let (high, low): (u8, u8) = (digit()?, digit()?);
                    high << 4 | low
                }
                quoted @ (b'\\' | b'\'' | b'"') => quoted,
                _ => return None,
            },
            _ => byte,
        });
    }
    Some(bytes)
}
