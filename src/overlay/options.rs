//! From a request to a plan: a pure function, so that every rule of a mount can be tested without one.
//!
//! # What a plan forces
//!
//! An upper directory must always be a plain changeset: whatever is in it can be sealed, exported, and stacked
//! below other mounts. So each plan says
//!
//! - `redirect_dir=nofollow`: renaming a directory of a lower layer fails with `EXDEV` and programs copy, instead
//!   of leaving a pointer to a lower path that means nothing in an archive; and no pointer that a layer brought
//!   is followed;
//! - `metacopy=off`: a change of owner or mode copies the file, instead of leaving a file without content;
//! - `index=off`: no second set of links in the work directory, and no tie of the upper directory to the
//!   inode numbers of its lower layers, which would not survive a copy of the store.
//!
//! With `userxattr` the kernel refuses any other `redirect_dir` and `metacopy=on`; these values it takes.
//!
//! # Fewer than two layers
//!
//! The kernel makes no overlay of one directory alone. A bind mount of it would do for a look, but shows whiteouts
//! as device files and escaped attributes with their escapes. So an empty directory is stacked below: a single
//! layer is seen through an overlay like any other stack. A view of nothing at all is a read-only bind mount of the
//! empty directory itself, since there is nothing in it to be misread.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::mount::MountAttrFlags;

use super::probe::{IdMapSupport, Probe};
use super::request::{Method, MountPlan, MountRequest, Upper, XattrClass};
use crate::composefs::Built;
use crate::error::MountError;
use crate::sys::userns::IdMaps;

#[cfg(test)]
mod tests;

/// The most lower directories that the kernel stacks (`OVL_MAX_STACK`).
pub(crate) const MAX_LOWERS: usize = 500;

/// The option of fuse-overlayfs that says which attribute has modes and owners.
pub(super) const PERMISSIONS: &str = "xattr_permissions";

/// Decides how to mount `request` on a kernel that can do what `probe` says.
///
/// Extra options may be `ro`, `rw`, `nodev`, `dev`, `nosuid`, `suid`, `noexec`, `exec`, `noatime`, `relatime`,
/// `strictatime`, `nodiratime`, `volatile`, `xino=..`, `uuid=off` and `uuid=null`, and what the plan forces anyway.
///
/// Returns [`MountError::Option`] for any other, [`MountError::TooManyLayers`], [`MountError::NotAbsolute`],
/// [`MountError::XattrClass`], [`MountError::IdMap`], and [`MountError::NoMethod`].
pub(crate) fn plan(probe: &Probe, request: &MountRequest) -> Result<MountPlan, MountError> {
    let mut extra = Extra {
        read_only: request.read_only,
        volatile: request.volatile,
        settings: Vec::new(),
        attributes: MountAttrFlags::empty(),
    };
    for option in &request.options {
        extra.take(option)?;
    }
    let (lowers, upper) = stack(request, extra.read_only)?;
    let nothing = upper.is_none() && lowers.len() == 1 && request.images.is_empty();
    let method = match nothing {
        true if probe.lower_descriptors || probe.lower_paths => Method::Bind,
        true => Method::BindCall,
        false => match choose_method(probe, request) {
            // The kernel's overlayfs does not know the attribute, so without a program nothing else matters.
            Ok(method @ Method::Program(_)) => method,
            _ if request.masked.any => {
                let reason = "none is found that could be used here; install fuse-overlayfs, or name one as mount program";
                return Err(MountError::Masked { reason });
            }
            method => method?,
        },
    };
    let mut settings =
        vec![("redirect_dir", Some("nofollow")), ("metacopy", Some("off")), ("index", Some("off"))];
    if request.xattrs == XattrClass::User {
        settings.push(("userxattr", None));
    }
    if request.masked.upper && upper.is_some() {
        // It writes the attribute, too.
        settings.push((PERMISSIONS, Some("2")));
    }
    let images = images(probe, request, &method, &lowers)?;
    settings.extend(verity(&images));
    // A kernel that cannot skip syncs does them: slower, and as safe as it gets.
    if extra.volatile && upper.is_some() && probe.volatile {
        settings.push(("volatile", None));
    }
    settings.append(&mut extra.settings);
    if upper.is_none() {
        extra.attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let id_map = if nothing { None } else { id_map(probe, request, &method, lowers.len())? };
    let context = request.context.clone();
    if let Some(label) =
        context.as_ref().filter(|label| label.contains(['"', '\\']) || label.contains(char::is_control))
    {
        let reason = "a label has no quote, backslash or control character";
        return Err(MountError::Option { option: format!("context={label}"), reason });
    }
    let context = context.filter(|_| request.has_labels);
    let base = request.base.clone();
    let unmapped = request.upper.as_ref().filter(|_| upper.is_none()).map(|upper| upper.upper.clone());
    let attributes = extra.attributes;
    let erofs = probe.erofs;
    Ok(MountPlan {
        method,
        lowers,
        upper,
        base,
        settings,
        attributes,
        context,
        id_map,
        unmapped,
        images,
        erofs,
    })
}

/// Checks options as [`plan`] does, without a mount to be made.
///
/// Returns [`MountError::Option`] if it does not take one.
pub(crate) fn check(options: &[String]) -> Result<(), MountError> {
    options.iter().try_for_each(|option| match objection(option) {
        Some(reason) => Err(MountError::Option { option: option.clone(), reason }),
        None => Ok(()),
    })
}

/// Why [`plan`] takes no such option; `None` if it does.
pub(crate) fn objection(option: &str) -> Option<&'static str> {
    let mut extra = Extra {
        read_only: false,
        volatile: false,
        settings: Vec::new(),
        attributes: MountAttrFlags::empty(),
    };
    match extra.take(option) {
        Err(MountError::Option { reason, .. }) => Some(reason),
        _ => None,
    }
}

fn choose_method(probe: &Probe, request: &MountRequest) -> Result<Method, MountError> {
    let program = || probe.program.clone().map(Method::Program).ok_or(MountError::NoMethod);
    if request.prefer_program || !probe.overlay {
        return program();
    }
    match (probe.mounts(request.xattrs), request.xattrs) {
        (true, _) if probe.lower_descriptors => Ok(Method::Descriptors),
        (true, _) if probe.lower_paths => Ok(Method::Paths),
        (true, _) => Ok(Method::OptionString),
        (false, XattrClass::User) => program().map_err(|_| MountError::XattrClass {
            class: XattrClass::User.prefix(),
            reason: "the filesystem keeps no user attributes (tmpfs does from Linux 6.6), or the kernel is older \
                     than 5.11; move the store or install fuse-overlayfs",
        }),
        // No program sees trusted attributes inside a user namespace either.
        (false, XattrClass::Trusted) => Err(MountError::XattrClass {
            class: XattrClass::Trusted.prefix(),
            reason: "only root outside every user namespace sees them; mount as root, or make a store of your own",
        }),
    }
}

/// The lower directories and the upper one.
///
/// A directory that comes again further down is left out: it is the same changeset, so the upper occurrence has
/// settled every path it names. The kernel would refuse it (`ELOOP`), and layers of equal content do share one
/// directory.
fn stack(request: &MountRequest, read_only: bool) -> Result<(Vec<PathBuf>, Option<Upper>), MountError> {
    let (top, upper) = match &request.upper {
        Some(upper) if read_only => (Some(&upper.upper), None),
        upper => (None, upper.clone()),
    };
    let mut lowers: Vec<PathBuf> = Vec::with_capacity(request.lowers.len().saturating_add(2));
    let mut seen = std::collections::HashSet::new();
    for lower in top.into_iter().chain(&request.lowers) {
        if *lower != request.empty && seen.insert(lower.as_path()) {
            lowers.push(lower.clone());
        }
    }
    // The directories of an image's files count for the kernel, and the image has to be the lowest.
    let has_image = lowers.last().is_some_and(|lower| request.images.contains_key(lower));
    let needed = if upper.is_some() || has_image { 1 } else { 2 };
    if lowers.len() < needed {
        lowers.push(request.empty.clone());
    }
    if lowers.len() > MAX_LOWERS {
        return Err(MountError::TooManyLayers { count: lowers.len(), limit: MAX_LOWERS });
    }
    let upper_paths = upper.iter().flat_map(|upper| [&upper.upper, &upper.work]);
    if let Some(path) =
        lowers.iter().chain(upper_paths).chain([&request.base]).find(|path| !path.is_absolute())
    {
        return Err(MountError::NotAbsolute { path: path.clone() });
    }
    Ok((lowers, upper))
}

/// Why a mount program mounts no images.
pub(crate) const BY_PROGRAM: &str =
    "the mount program, which is to mount in the kernel's place, shows directories only";

/// The image, if the lowest layer is one. The content of its files is in directories that count as lower ones too.
fn images(
    probe: &Probe,
    request: &MountRequest,
    method: &Method,
    lowers: &[PathBuf],
) -> Result<BTreeMap<PathBuf, Built>, MountError> {
    let mut images = request.images.clone();
    images.retain(|lower, _| lowers.contains(lower));
    if images.is_empty() {
        return Ok(images);
    }
    if let Some(reason) = probe.against_images() {
        return Err(MountError::Composefs { reason });
    }
    if *method != Method::Descriptors {
        return Err(MountError::Composefs { reason: BY_PROGRAM });
    }
    if request.id_map.is_some() && probe.id_maps == IdMapSupport::Attached {
        let reason = "this kernel shows no detached mount with other ids as a layer; Linux 6.15 does";
        return Err(MountError::Composefs { reason });
    }
    let count = images.values().fold(lowers.len(), |count, image| count.saturating_add(image.data.len()));
    if count > MAX_LOWERS {
        return Err(MountError::TooManyLayers { count, limit: MAX_LOWERS });
    }
    Ok(images)
}

/// Whether the kernel compares the digests of the image with those of the files.
fn verity(images: &BTreeMap<PathBuf, Built>) -> Option<(&'static str, Option<&'static str>)> {
    images.values().any(|image| image.verified).then_some(("verity", Some("require")))
}

/// The most detached mounts at once: each is an open descriptor, of which a process has 1024 as a rule.
const MAX_DETACHED: usize = 256;

/// How the ids are mapped: by detached mounts where the kernel takes them as layers, else in a mount namespace of
/// its own, or by the program.
fn id_map(
    probe: &Probe,
    request: &MountRequest,
    method: &Method,
    layers: usize,
) -> Result<Option<(IdMaps, IdMapSupport)>, MountError> {
    let Some(maps) = &request.id_map else { return Ok(None) };
    if maps.uids.is_empty() || maps.gids.is_empty() {
        return Err(MountError::IdMap { reason: "a map of users and one of groups are needed" });
    }
    let support = match (method, probe.id_maps) {
        (Method::Program(_), support) => support,
        (_, IdMapSupport::None) => {
            return Err(MountError::IdMap {
                reason: "id-mapped mounts need root outside every user namespace, Linux 5.19, and a filesystem \
                         that has them; copy the layers with changed owners, or use fuse-overlayfs",
            });
        }
        (Method::Descriptors, support) if layers <= MAX_DETACHED => support,
        (_, _) => IdMapSupport::Attached,
    };
    Ok(Some((maps.clone(), support)))
}

/// The extra options as they are read.
struct Extra {
    read_only: bool,
    volatile: bool,
    settings: Vec<(&'static str, Option<&'static str>)>,
    attributes: MountAttrFlags,
}

impl Extra {
    fn take(&mut self, option: &str) -> Result<(), MountError> {
        use MountAttrFlags as Attr;
        let refuse = |reason| Err(MountError::Option { option: option.to_owned(), reason });
        match option {
            "ro" => self.read_only = true,
            // What holds without these words too.
            "rw"
            | "dev"
            | "suid"
            | "exec"
            | "redirect_dir=nofollow"
            | "metacopy=off"
            | "index=off"
            | "nfs_export=off"
            | "verity=off" => {}
            "volatile" => self.volatile = true,
            "nodev" => self.attributes |= Attr::MOUNT_ATTR_NODEV,
            "nosuid" => self.attributes |= Attr::MOUNT_ATTR_NOSUID,
            "noexec" => self.attributes |= Attr::MOUNT_ATTR_NOEXEC,
            "nodiratime" => self.attributes |= Attr::MOUNT_ATTR_NODIRATIME,
            // One of three values: the last one said counts.
            "relatime" => self.attributes.remove(Attr::MOUNT_ATTR__ATIME),
            "noatime" | "strictatime" => {
                let value =
                    if option == "noatime" { Attr::MOUNT_ATTR_NOATIME } else { Attr::MOUNT_ATTR_STRICTATIME };
                self.attributes.remove(Attr::MOUNT_ATTR__ATIME);
                self.attributes |= value;
            }
            "xino=on" => self.set("xino", "on"),
            "xino=off" => self.set("xino", "off"),
            "xino=auto" => self.set("xino", "auto"),
            "uuid=off" => self.set("uuid", "off"),
            "uuid=null" => self.set("uuid", "null"),
            _ => return refuse(reason_against(option)),
        }
        Ok(())
    }

    fn set(&mut self, key: &'static str, value: &'static str) {
        self.settings.retain(|(known, _)| *known != key);
        self.settings.push((key, Some(value)));
    }
}

fn reason_against(option: &str) -> &'static str {
    match option.split('=').next().unwrap_or_default() {
        "redirect_dir" => "a renamed directory would point at a lower path instead of holding its files",
        "metacopy" => "a file changed in owner or mode only would have no content in its layer",
        "index" | "nfs_export" => "it ties the writable directory to the inode numbers of the layers below",
        "verity" => "it needs metacopy, and a file of the layer would have no content",
        "uuid" => "it writes an attribute into the writable directory; off and null do not",
        "userxattr" => "it follows from how the layers were written",
        "lowerdir" | "lowerdir+" | "datadir+" | "upperdir" | "workdir" => "the store chooses the directories",
        "context" | "fscontext" | "defcontext" | "rootcontext" => "the label is an option of its own",
        _ => "it is not one of those that the store knows to be safe",
    }
}
