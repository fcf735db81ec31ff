//! Carries a plan out, and takes mounts away.
//!
//! With the descriptor-based calls the mount is made attached to nothing, and put in place by one call at the end:
//! a failure, or the death of the process, leaves nothing behind.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use rustix::mount::MountAttrFlags;

use super::entry::EntryPaths;
use super::erofs;
use super::probe::IdMapSupport;
use super::program;
use super::request::{Method, MountPlan, Upper};
use crate::disk::remove_tree;
use crate::error::{MountError, TreeError};
#[cfg(test)]
use crate::sys::mount::info::{self, MountPoint};
use crate::sys::mount::{self as sys, FSCONFIG_VALUE_MAX, FsContext, MOUNT_DATA_MAX, Refusal, Target};
use crate::sys::{beneath, path, stat, userns};

mod holders;
#[cfg(test)]
mod tests;

/// The source that the mount table shows for our mounts.
pub(super) const SOURCE: &str = "layerstore";

/// Mounts `plan` at the directory `target`. The mount outlives this process, and mounts made inside it later
/// propagate nowhere.
///
/// Returns [`MountError::AlreadyMounted`] if something is mounted at `target`, and for what the kernel refuses the
/// variant that says what to do.
pub(crate) fn mount(plan: &MountPlan, target: &Path) -> Result<(), MountError> {
    if !target.is_absolute() {
        return Err(MountError::NotAbsolute { path: target.to_owned() });
    }
    if is_mounted(target)? {
        return Err(MountError::AlreadyMounted { target: target.to_owned() });
    }
    if let Method::Program(path) = &plan.method {
        return program::mount(plan, path, target);
    }
    if plan.method == Method::OptionString {
        plan.refuse_misread(EntryPaths::Relative)?;
    }
    let made = match (&plan.method, &plan.id_map) {
        (Method::Bind, _) => bind(plan).and_then(|tree| put(&tree, target)),
        (Method::BindCall, _) => sys::bind_call(only_lower(plan), target).map_err(Refusal::from),
        (Method::OptionString, None) => sys::with_own_directory(&plan.base, || option_string(plan, target)),
        _ => detached(plan, target).and_then(|tree| put(&tree, target)),
    };
    made.map_err(|refusal| explain(refusal, plan, target))
}

/// Makes the plan's mount, attached to nothing. `target` is where a mount namespace of its own may use `mount(2)`.
pub(super) fn detached(plan: &MountPlan, target: &Path) -> Result<OwnedFd, Refusal> {
    // A detached mount ends with the descriptor it came as, and the kernel looks at it again in the end.
    let mut trees = Vec::new();
    let Some((maps, support)) = &plan.id_map else {
        return configure(plan, &mut |path| open_layer(plan, path, None, &mut trees));
    };
    let namespace =
        userns::namespace_with(maps).map_err(|error| Refusal::new("user namespace for the id map", error))?;
    let mapped = |path: &Path| -> io::Result<OwnedFd> {
        let tree = sys::clone_tree(path)?;
        sys::set_id_map(tree.as_fd(), namespace.as_fd())?;
        Ok(tree)
    };
    match support {
        IdMapSupport::Detached => {
            configure(plan, &mut |path| open_layer(plan, path, Some(namespace.as_fd()), &mut trees))
        }
        // Kernels before 6.15 take no layer from a detached mount. In a mount namespace of its own each mapped mount
        // covers the layer it maps, so every way to name a layer works; only the finished overlay leaves it.
        _ => sys::with_own_mounts(&plan.base, || {
            for lower in plan.lowers.iter().filter(|lower| plan.unmapped.as_ref() != Some(lower)) {
                let tree = mapped(lower).map_err(|error| {
                    Refusal::new(format!("id-mapped mount of {}", lower.display()), error)
                })?;
                sys::attach(tree.as_fd(), sys::open_target(lower)?.as_fd())?;
            }
            if plan.method != Method::OptionString {
                return configure(plan, &mut open_plain);
            }
            sys::with_own_directory(&plan.base, || option_string(plan, target))?;
            Ok(sys::clone_tree(target)?)
        }),
    }
}

/// Opens a layer's directory, as itself or id-mapped.
type OpenLayer<'a> = &'a mut dyn FnMut(&Path) -> Result<OwnedFd, Refusal>;

/// Opens a layer as it is, or a mount of it that `trees` gets: of its image, or with the ids that `namespace` maps.
fn open_layer(
    plan: &MountPlan,
    path: &Path,
    namespace: Option<BorrowedFd<'_>>,
    trees: &mut Vec<OwnedFd>,
) -> Result<OwnedFd, Refusal> {
    let opened = |error: io::Error| Refusal::new(format!("open {}", path.display()), error);
    let namespace = namespace.filter(|_| plan.unmapped.as_deref() != Some(path));
    let tree = match plan.images.get(path) {
        Some(image) => erofs::mount(&image.image, plan.erofs)?,
        None if namespace.is_none() => return sys::open_directory(path).map_err(opened),
        None => sys::clone_tree(path).map_err(opened)?,
    };
    if let Some(namespace) = namespace {
        // Some filesystems, such as those of FUSE programs, know no such mounts.
        let refused = |error| Refusal::new(format!("id-mapped mount of {}", path.display()), error);
        sys::set_id_map(tree.as_fd(), namespace).map_err(refused)?;
    }
    let root = sys::open_root(tree.as_fd()).map_err(opened)?;
    trees.push(tree);
    Ok(root)
}

fn open_plain(path: &Path) -> Result<OwnedFd, Refusal> {
    sys::open_directory(path).map_err(|error| Refusal::new(format!("open {}", path.display()), error))
}

/// Makes the overlay with one call per option.
fn configure(plan: &MountPlan, open: OpenLayer<'_>) -> Result<OwnedFd, Refusal> {
    let context = FsContext::open("overlay")?;
    context.string("source", SOURCE)?;
    for (key, value) in &plan.settings {
        match value {
            Some(value) => context.string(key, value)?,
            None => context.flag(key)?,
        }
    }
    if let Some(label) = &plan.context {
        context.string("context", label)?;
    }
    // The kernel takes a reference with each call, so one open directory at a time is enough for 500 layers.
    for lower in &plan.lowers {
        match plan.method {
            Method::Descriptors => context.descriptor("lowerdir+", open(lower)?.as_fd())?,
            _ => set_path(&context, "lowerdir+", lower, false)?,
        }
    }
    // Where the content of its files is: below all layers, and seen by way of the image alone.
    for data in plan.images.values().flat_map(|image| &image.data) {
        context.descriptor("datadir+", open_plain(data)?.as_fd())?;
    }
    if let Some(Upper { upper, work }) = &plan.upper {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            match plan.method {
                Method::Descriptors => context.descriptor(key, open_plain(path)?.as_fd())?,
                // Unlike `lowerdir+`, these take backslashes for escapes.
                _ => set_path(&context, key, path, true)?,
            }
        }
    }
    context.create(plan.attributes)
}

/// Sets an option to a path. One that is too long, or has a backslash where the kernel takes it for an escape, goes
/// by the name of an open descriptor.
fn set_path(context: &FsContext, key: &str, path: &Path, escapes: bool) -> Result<(), Refusal> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.len() <= FSCONFIG_VALUE_MAX && !(escapes && bytes.contains(&b'\\')) {
        return context.string(key, path);
    }
    let directory = open_plain(path)?;
    context.string(key, format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Makes the overlay with `mount(2)`, at `target` at once. The working directory must be the plan's base.
pub(super) fn option_string(plan: &MountPlan, target: &Path) -> Result<(), Refusal> {
    let options = plan.option_string(EntryPaths::Relative);
    if options.len() > MOUNT_DATA_MAX {
        return by_numbers(plan, target);
    }
    call(plan, target, &options)
}

/// Calls `mount(2)`, which gives nothing but a number for what it refuses: it is looked up which directory cannot be opened.
fn call(plan: &MountPlan, target: &Path, options: &OsStr) -> Result<(), Refusal> {
    let made = sys::mount_call(SOURCE, target, "overlay", mount_flags(plan.attributes), options);
    made.map_err(|error| {
        let upper = plan.upper.iter().flat_map(|upper| [&upper.upper, &upper.work]);
        let closed = plan.lowers.iter().chain(upper).find_map(|path| open_plain(path).err());
        closed.unwrap_or_else(|| Refusal::new(format!("mount with {}", plan.settings_text()), error))
    })?;
    Ok(sys::make_private(target, false)?)
}

/// As [`option_string`], where the names of the layers do not fit into a page: the numbers of open directories do, seen from
/// the directory of the process's descriptors. The mount table shows these numbers, and the kernel keeps the directories.
fn by_numbers(plan: &MountPlan, target: &Path) -> Result<(), Refusal> {
    let opened = plan.lowers.iter().map(|lower| open_plain(lower)).collect::<Result<Vec<_>, _>>()?;
    let lowers = opened.iter().map(|lower| lower.as_raw_fd().to_string().into()).collect();
    let options = MountPlan { lowers, ..plan.clone() }.option_string(EntryPaths::Absolute);
    if options.len() > MOUNT_DATA_MAX {
        return Err(Refusal::new(TOO_LONG, io::Error::from_raw_os_error(nix::libc::E2BIG)));
    }
    sys::enter(Path::new("/proc/self/fd"))?;
    call(plan, target, &options)
}

/// Marks the refusal of options that this crate knows to be too long for a page.
const TOO_LONG: &str = "options too long";

/// The attributes as flags of `mount(2)`.
fn mount_flags(attributes: MountAttrFlags) -> MsFlags {
    let atime = attributes & MountAttrFlags::MOUNT_ATTR__ATIME;
    let pairs = [
        (attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY), MsFlags::MS_RDONLY),
        (attributes.contains(MountAttrFlags::MOUNT_ATTR_NODEV), MsFlags::MS_NODEV),
        (attributes.contains(MountAttrFlags::MOUNT_ATTR_NOSUID), MsFlags::MS_NOSUID),
        (attributes.contains(MountAttrFlags::MOUNT_ATTR_NOEXEC), MsFlags::MS_NOEXEC),
        (attributes.contains(MountAttrFlags::MOUNT_ATTR_NODIRATIME), MsFlags::MS_NODIRATIME),
        (atime == MountAttrFlags::MOUNT_ATTR_NOATIME, MsFlags::MS_NOATIME),
        (atime == MountAttrFlags::MOUNT_ATTR_STRICTATIME, MsFlags::MS_STRICTATIME),
    ];
    pairs.into_iter().filter(|(set, _)| *set).fold(MsFlags::empty(), |flags, (_, flag)| flags | flag)
}

/// A read-only copy of the mount at the only lower directory.
fn bind(plan: &MountPlan) -> Result<OwnedFd, Refusal> {
    let tree = sys::clone_tree(only_lower(plan)).map_err(|error| Refusal::new("open_tree", error))?;
    sys::set_read_only(tree.as_fd()).map_err(|error| Refusal::new("mount_setattr", error))?;
    Ok(tree)
}

fn only_lower(plan: &MountPlan) -> &Path {
    plan.lowers.first().map_or(plan.base.as_path(), PathBuf::as_path)
}

/// Puts a detached mount in place.
fn put(tree: &OwnedFd, target: &Path) -> Result<(), Refusal> {
    let place = sys::open_target(target).map_err(|error| Refusal::new("open the mount point", error))?;
    sys::attach(tree.as_fd(), place.as_fd()).map_err(|error| Refusal::new("move_mount", error))?;
    // A mount below a shared one is shared as soon as it is attached, so this cannot come first.
    sys::set_private(tree.as_fd())
        .or_else(|_| sys::make_private(target, false))
        .map_err(|error| Refusal::new("make the mount private", error))
}

/// The first layer whose root directory nobody in the plan's map may enter, since it belongs to somebody outside of it: to the
/// kernel that is nobody at all, for whom no capability helps.
fn closed_root(plan: &MountPlan) -> Option<(PathBuf, u32, u32)> {
    let (maps, _) = plan.id_map.as_ref()?;
    plan.lowers.iter().filter(|lower| plan.unmapped.as_ref() != Some(lower)).find_map(|lower| {
        let root = stat::stat(open_plain(lower).ok()?.as_fd()).ok()?;
        let is_closed = root.mode & 0o5 != 0o5 && maps.to_host(root.uid, root.gid).is_none();
        is_closed.then(|| (lower.clone(), root.uid, root.gid))
    })
}

/// Turns an error number into the variant that says what to do.
fn explain(refusal: Refusal, plan: &MountPlan, target: &Path) -> MountError {
    if refusal.call == TOO_LONG {
        let length = plan.option_string(EntryPaths::Relative).len();
        return MountError::OptionsTooLong { length, limit: MOUNT_DATA_MAX };
    }
    // The kernel tells of this mark in its own log only.
    if let Some(Upper { work, .. }) = &plan.upper
        && refusal.source.raw_os_error() == Some(nix::libc::EINVAL)
        && has_volatile_mark(work)
    {
        return MountError::VolatileLeft { work: work.clone() };
    }
    if let Some(nix::libc::EPERM | nix::libc::EACCES) = refusal.source.raw_os_error()
        && let Some((layer, uid, gid)) = closed_root(plan)
    {
        return MountError::RootUnmapped { layer, uid, gid, source: refusal.source };
    }
    let (target, log, source) = (target.to_owned(), refusal.text(), refusal.source);
    match source.raw_os_error() {
        Some(nix::libc::EPERM | nix::libc::EACCES) => MountError::NotPermitted { target, log, source },
        Some(nix::libc::ENOSYS | nix::libc::ENODEV | nix::libc::EOPNOTSUPP) => {
            MountError::Unsupported { target, log, source }
        }
        Some(nix::libc::EINVAL) => MountError::Refused { target, log, source },
        Some(nix::libc::ENOSPC | nix::libc::EDQUOT) => MountError::NoSpace { target, log, source },
        Some(nix::libc::ELOOP) => MountError::Loop { target, log, source },
        Some(nix::libc::EBUSY) => {
            let holders = holders::named(&target);
            MountError::Busy { target, holders, source }
        }
        _ => MountError::Io { target, log, source },
    }
}

/// How [`Store::unmount`](crate::Store::unmount) treats a mount in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmountMode {
    /// Refuse, and say who uses it.
    Plain,
    /// Take it out of the tree at once; it ends with its last user.
    Detach,
}

/// How long an unmount waits for processes that another thread has just forked, and how long between two tries: until they become another
/// program, they hold whatever this process had open in the mount.
const FORK_PATIENCE: Duration = Duration::from_secs(1);
const FORK_WAIT: Duration = Duration::from_millis(5);

/// Takes away the mount at `target`.
///
/// Returns [`MountError::NotMounted`] if there is none, and [`MountError::Busy`] if it is in use and `mode` is
/// [`UnmountMode::Plain`]. Returns [`MountError::MadeOutside`] if it is the copy of one that was made outside of this user namespace.
pub(crate) fn unmount(target: &Path, mode: UnmountMode) -> Result<(), MountError> {
    if !is_mounted(target)? {
        return Err(MountError::NotMounted { target: target.to_owned() });
    }
    let detach = mode == UnmountMode::Detach;
    let try_once = || match sys::unmount(target, detach) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) => {
            program::unmount(target, detach).unwrap_or(Err(error))
        }
        unmounted => unmounted,
    };
    let mut unmounted = try_once();
    let mut seen = Vec::new();
    // A look at all processes takes long where there are many.
    let begun = Instant::now();
    while begun.elapsed() < FORK_PATIENCE
        && unmounted.as_ref().is_err_and(|error| error.raw_os_error() == Some(nix::libc::EBUSY))
    {
        let found = holders::but_forks(target);
        if found.iter().any(|holder| seen.contains(holder)) {
            break;
        }
        seen = found;
        thread::sleep(FORK_WAIT);
        unmounted = try_once();
    }
    unmounted.map_err(|source| {
        let (target, log) = (target.to_owned(), "unmount".to_owned());
        match source.raw_os_error() {
            Some(nix::libc::EBUSY) => {
                let holders = holders::named(&target);
                MountError::Busy { target, holders, source }
            }
            Some(nix::libc::EPERM) => MountError::NotPermitted { target, log, source },
            // The kernel locks what a namespace has copies of.
            Some(nix::libc::EINVAL) if is_mounted(&target).unwrap_or(false) => {
                MountError::MadeOutside { target }
            }
            Some(nix::libc::EINVAL | nix::libc::ENOENT) => MountError::NotMounted { target },
            _ => MountError::Io { target, log, source },
        }
    })
}

/// Whether something is mounted at `target` itself.
pub(crate) fn is_mounted(target: &Path) -> Result<bool, MountError> {
    look_at(target).map(|found| found == Target::Mounted)
}

/// The same, and whether there is anything at all.
pub(crate) fn look_at(target: &Path) -> Result<Target, MountError> {
    sys::target(target).map_err(|source| MountError::Directory {
        action: "look for a mount at",
        path: target.to_owned(),
        source,
    })
}

/// Whether the program that served the mount at `target` is gone, so that nothing in it can be reached any more.
pub(crate) fn is_dead(target: &Path) -> bool {
    sys::is_disconnected(target)
}

/// The mounts at `directory` and below, the last made first: unmounted in this order none holds another.
#[cfg(test)]
pub(crate) fn mounts_below(directory: &Path) -> Result<Vec<MountPoint>, MountError> {
    let failed =
        |source| MountError::Directory { action: "list mounts below", path: directory.to_owned(), source };
    let directory = info::resolved(directory).map_err(failed)?;
    let mut mounts = info::read().map_err(failed)?;
    mounts.retain(|mount| mount.target.starts_with(&directory));
    mounts.reverse();
    Ok(mounts)
}

/// Says that a volatile mount has ended well: what it wrote is synced, and its directories may be mounted again.
/// Does nothing where there was no such mount.
///
/// The caller has unmounted it and synced the filesystem, in this order, and calls this last.
pub(crate) fn clear_volatile_mark(work: &Path) -> Result<(), MountError> {
    let removed = beneath::open_directory(work)
        .and_then(|work| beneath::open_directory_beneath(work.as_fd(), MARKS.as_bytes()))
        .and_then(|marks| remove_tree(marks.as_fd(), VOLATILE.as_bytes()).map_err(TreeError::into_io));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(MountError::Directory { action: "remove", path: volatile_mark(work), source: error })
        }
        _ => Ok(()),
    }
}

/// Whether a work directory was used by a volatile mount that nobody has vouched for.
pub(crate) fn has_volatile_mark(work: &Path) -> bool {
    path::exists(&volatile_mark(work)).unwrap_or(false)
}

/// Where the kernel leaves marks in a work directory.
const MARKS: &str = "work/incompat";

/// The name of the directory there that stays for as long as a volatile mount is not vouched for.
const VOLATILE: &str = "volatile";

fn volatile_mark(work: &Path) -> PathBuf {
    work.join(MARKS).join(VOLATILE)
}
