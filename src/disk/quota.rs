//! How much a layer may take that is written to: its diff directory and its workdir count for a project of their own, and the
//! filesystem refuses what is over the project's limits.
//!
//! Who has which project is written down nowhere but in the filesystem: a directory says for what it counts, and the kernel knows
//! each project's limits and what counts for it. That is the one table that all processes and all stores of a filesystem share,
//! and other programs with them, and it cannot say anything else than what is so. The number of a project comes from the
//! number of the directory, which is random, so that no two that look for one at a time begin at the same place; one that has a
//! limit, or files, is passed over. The limits are there before the directory counts for the project and go before its first file
//! is deleted; so nothing is left of a project in the end, whoever died meanwhile, and as long as anything is, it is in use.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use super::layout::Layout;
use super::names::{DiffName, Subdirectory};
use crate::error::QuotaError;
use crate::sys::quota::{self, Project, State};
use crate::sys::{beneath, mount, path};

/// The projects of layers: numbers that people do not give, and that programs with signed ones understand.
const FIRST: u32 = 1 << 30;
const COUNT: u32 = 1 << 30;

/// How many projects are looked at before it is given up to find one.
const TRIES: u64 = 64;

/// How much may be taken; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Limits {
    /// Whether there is none.
    pub(crate) fn is_none(self) -> bool {
        self == Limits::default()
    }
}

/// What a layer may take, and takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limited {
    pub(crate) limits: Limits,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Layout {
    /// Whether layers can have limits here.
    ///
    /// Returns [`QuotaError::Unsupported`], [`QuotaError::NotPermitted`] or [`QuotaError::Nested`] if they cannot, and
    /// [`QuotaError::Io`] if that is not to be found out.
    pub(crate) fn can_limit(&self) -> Result<(), QuotaError> {
        match self.existing_subdirectory(Subdirectory::Diffs) {
            Ok(diffs) => can_limit_in(diffs.as_fd(), self.path(), self.path()),
            Err(_) => can_limit_in(self.root(), self.path(), self.path()),
        }
    }

    /// Lets an empty directory count for a project of its own, and everything that is made in it, and sets the project's
    /// limits. `number` is that of the directory.
    ///
    /// Returns what [`can_limit`](Self::can_limit) does, [`QuotaError::NoProject`] if there are too many, and
    /// [`QuotaError::Io`] if the kernel refuses.
    pub(crate) fn limit(
        &self,
        directory: BorrowedFd<'_>,
        number: u64,
        limits: Limits,
    ) -> Result<(), QuotaError> {
        if limits.is_none() {
            return Ok(());
        }
        self.can_limit()?;
        let failed = |source| QuotaError::Io {
            action: "set the quota of",
            path: self.entry_path(Subdirectory::Diffs, DiffName::Entry(number)),
            source,
        };
        for candidate in (0..TRIES).map(|next| number.wrapping_add(next)) {
            let project = u32::try_from(candidate & u64::from(COUNT.saturating_sub(1)))
                .unwrap_or_default()
                .saturating_add(FIRST);
            if quota::account(directory, project).map_err(failed)? != quota::Account::default() {
                continue;
            }
            quota::set_limits(directory, project, limits.bytes, limits.inodes).map_err(failed)?;
            return quota::set_project(directory, project).map_err(|error| {
                forget(directory, project);
                failed(error)
            });
        }
        Err(QuotaError::NoProject { path: self.path().join(Subdirectory::Diffs.name()) })
    }

    /// Sets other limits for a directory that has a project of its own, or none any more. Returns whether it has one.
    pub(crate) fn change_limits(&self, number: u64, limits: Limits) -> Result<bool, QuotaError> {
        let path = self.entry_path(Subdirectory::Diffs, DiffName::Entry(number));
        let failed = |source| QuotaError::Io { action: "set the quota of", path: path.clone(), source };
        let Some((directory, project)) = self.limited(number).map_err(failed)? else { return Ok(false) };
        quota::set_limits(directory.as_fd(), project, limits.bytes, limits.inodes).map_err(failed)?;
        Ok(true)
    }

    /// Refuses a directory with more in it than it may take: on ext4 the kernel lets root fill it, though not by way of overlayfs.
    pub(crate) fn refuse_over_limit(&self, number: u64) -> Result<(), QuotaError> {
        let Some(Limited { limits, bytes, inodes }) = self.limits_of(number)? else { return Ok(()) };
        let is_over = |limit: u64, used: u64| limit > 0 && used > limit;
        if is_over(limits.bytes, bytes) || is_over(limits.inodes, inodes) {
            let path = self.entry_path(Subdirectory::Diffs, DiffName::Entry(number));
            return Err(QuotaError::Io { action: "fill", path, source: io::ErrorKind::QuotaExceeded.into() });
        }
        Ok(())
    }

    /// What a directory may take that has a project of its own, and takes; `None` if it has none.
    pub(crate) fn limits_of(&self, number: u64) -> Result<Option<Limited>, QuotaError> {
        let path = self.entry_path(Subdirectory::Diffs, DiffName::Entry(number));
        let failed = |source| QuotaError::Io { action: "query the quota of", path, source };
        let found = self.limited(number).and_then(|found| {
            let account = found.map(|(directory, project)| quota::account(directory.as_fd(), project));
            account.transpose()
        });
        let found = match found {
            // The filesystem was mounted without quotas this time.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => None,
            found => found.map_err(failed)?,
        };
        Ok(found.map(|found| Limited {
            limits: Limits { bytes: found.most_bytes, inodes: found.most_inodes },
            bytes: found.bytes,
            inodes: found.inodes,
        }))
    }

    /// Lets a workdir count for the project of its diff directory: what overlayfs makes it makes in the one and moves to the
    /// other, and files do not move between projects. Nothing is in the workdir yet, or it counts for that already.
    pub(super) fn join_project(&self, number: u64, work: BorrowedFd<'_>) -> io::Result<()> {
        let Some((_, project)) = self.limited(number)? else { return Ok(()) };
        match quota::project(work) {
            Ok(found) if found.id == project && found.is_inherited => Ok(()),
            _ => quota::set_project(work, project),
        }
    }

    /// The open diff directory, and the project that is its own. One that has gone meanwhile has none: whoever needs the
    /// directory itself says so.
    fn limited(&self, number: u64) -> io::Result<Option<(OwnedFd, u32)>> {
        let diffs = Subdirectory::Diffs.name();
        let open = |name: &str| beneath::open_directory_beneath(self.root(), name.as_bytes());
        let directory = match open(&format!("{diffs}/{number}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => directory?,
        };
        let project = own_project(directory.as_fd(), || project_of(open(diffs)?.as_fd()))?;
        Ok(project.map(|project| (directory, project)))
    }
}

/// Whether layers could have limits in a directory that a store may be made in, with what is missing above it: given by its full
/// path.
///
/// Returns what [`Layout::can_limit`] does.
pub(crate) fn can_limit_at(root: &Path) -> Result<(), QuotaError> {
    let existing = root.ancestors().find(|above| path::is_directory(above)).unwrap_or(Path::new("/"));
    let failed = |source| QuotaError::Io { action: "query the quotas of", path: root.to_owned(), source };
    let directory = beneath::open_directory(existing).map_err(failed)?;
    can_limit_in(directory.as_fd(), existing, root)
}

/// Whether what is made in a directory could have limits. `told`: the store, for messages.
fn can_limit_in(directory: BorrowedFd<'_>, path: &Path, told: &Path) -> Result<(), QuotaError> {
    let failed = |source| QuotaError::Io { action: "query the quotas of", path: told.to_owned(), source };
    let found = || mount::info::filesystem_of(path).ok().flatten();
    if quota::state(directory).map_err(failed)? != State::Enforcing {
        return Err(unsupported(found(), told));
    }
    // Everybody may ask what is kept, and only who may set it how much that is.
    match quota::account(directory, FIRST) {
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            let filesystem = found().unwrap_or_else(|| UNKNOWN.to_owned());
            return Err(QuotaError::NotPermitted { path: told.to_owned(), filesystem, source });
        }
        account => account.map_err(failed)?,
    };
    match project_of(directory).map_err(failed)? {
        Some(found) if found.is_inherited => {
            Err(QuotaError::Nested { path: told.to_owned(), project: found.id })
        }
        _ => Ok(()),
    }
}

/// A filesystem that the mount table does not name.
const UNKNOWN: &str = "the filesystem";

fn unsupported(found: Option<String>, told: &Path) -> QuotaError {
    let advice = match found.as_deref() {
        Some("ext4") => {
            "it has them if it is made with `-O project,quota` (or changed so by tune2fs) and mounted with the option \
                 prjquota"
        }
        Some("xfs" | "f2fs") => "it has them if it is mounted with the option prjquota",
        Some("btrfs") => "only XFS and ext4 have them, and the qgroups of Btrfs are not used here",
        _ => "only XFS and ext4 have them",
    };
    let filesystem = found.unwrap_or_else(|| UNKNOWN.to_owned());
    QuotaError::Unsupported { path: told.to_owned(), filesystem, advice }
}

/// Takes the limits away from a directory that is about to be removed: when its last file is gone, nothing is left of the
/// project.
pub(super) fn release(parent: BorrowedFd<'_>, name: &[u8]) {
    // What cannot be opened cannot be removed either, and is told there.
    let Ok(directory) = beneath::open_directory_beneath(parent, name) else { return };
    match own_project(directory.as_fd(), || project_of(parent)) {
        Ok(Some(project)) => forget(directory.as_fd(), project),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "whether a directory has a project of its own is not known"),
    }
}

/// The project that a directory has been given by [`Layout::limit`]; not one that it has from the directory it stands in, as
/// somebody's who limits all of the store.
fn own_project(
    directory: BorrowedFd<'_>,
    above: impl FnOnce() -> io::Result<Option<Project>>,
) -> io::Result<Option<u32>> {
    let is_ours = |found: &Project| found.is_inherited && (FIRST..FIRST + COUNT).contains(&found.id);
    let Some(found) = project_of(directory)?.filter(is_ours) else { return Ok(None) };
    let is_from_above = above()?.is_some_and(|above| above.is_inherited && above.id == found.id);
    Ok((!is_from_above).then_some(found.id))
}

/// What a directory counts for; `None` on the many filesystems that have no projects.
fn project_of(directory: BorrowedFd<'_>) -> io::Result<Option<Project>> {
    match quota::project(directory) {
        Err(error) if quota::is_absent(&error) => Ok(None),
        found => found.map(Some),
    }
}

/// A project without limits is forgotten by the kernel with its last file.
fn forget(directory: BorrowedFd<'_>, project: u32) {
    if let Err(error) = quota::set_limits(directory, project, 0, 0) {
        tracing::warn!(project, %error, "the limits of a project stay that has no use any more");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Stage, Staging, XattrNamespace};
    use super::*;

    /// A store where the tests have their files, if project quotas can be set there.
    fn store_with_quotas() -> Option<(tempfile::TempDir, Layout)> {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::Trusted).unwrap();
        layout.subdirectory(Subdirectory::Diffs).unwrap();
        match layout.can_limit() {
            Ok(()) => Some((dir, layout)),
            Err(why) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    #[test]
    fn a_project_is_free_when_its_directory_is_gone() {
        let Some((_dir, layout)) = store_with_quotas() else { return };
        let stage = Stage::create(&layout).unwrap();
        let limits = Limits { bytes: 1 << 20, inodes: 10 };
        let staged = [5, 5 + u64::from(COUNT)].map(|number| Staging::create(&stage, number).unwrap());
        for staging in &staged {
            layout.limit(staging.directory(), staging.number(), limits).unwrap();
            let limited = layout.limits_of(staging.number()).unwrap().unwrap();
            assert_eq!((limited.limits, limited.inodes), (limits, 1));
            assert!(layout.change_limits(staging.number(), limits).unwrap());
        }
        // Both numbers would have the same.
        let projects = staged.each_ref().map(|staging| quota::project(staging.directory()).unwrap().id);
        assert_eq!(projects, [FIRST + 5, FIRST + 6]);
        layout.ensure_workdir(5).unwrap();
        let work = layout.open_entry(Subdirectory::Work, 5).unwrap();
        assert_eq!(quota::project(work.as_fd()).unwrap(), Project { id: projects[0], is_inherited: true });
        drop(work);
        std::fs::remove_dir(layout.entry_path(Subdirectory::Work, DiffName::Entry(5))).unwrap();
        drop(staged);
        for project in projects {
            // xfs takes what was removed out of the accounts a moment later.
            let account = || quota::account(layout.root(), project).unwrap();
            let is_free = (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                account() == quota::Account::default()
            });
            assert!(is_free, "{project}: {:?}", account());
        }
    }

    #[test]
    fn a_project_of_the_whole_store_is_nobody_elses() {
        let Some((_dir, layout)) = store_with_quotas() else { return };
        let diffs = layout.existing_subdirectory(Subdirectory::Diffs).unwrap();
        quota::set_project(diffs.as_fd(), FIRST + 1).unwrap();
        quota::set_limits(diffs.as_fd(), FIRST + 1, 1 << 30, 0).unwrap();
        let staging = Staging::create(&Stage::create(&layout).unwrap(), 7).unwrap();
        let refused = layout.limit(staging.directory(), 7, Limits { bytes: 1, inodes: 0 });
        assert!(matches!(refused, Err(QuotaError::Nested { project, .. }) if project == FIRST + 1));
        assert!(layout.limits_of(7).unwrap().is_none());
        drop(staging);
        assert_eq!(quota::account(layout.root(), FIRST + 1).unwrap().most_bytes, 1 << 30);
        quota::set_limits(diffs.as_fd(), FIRST + 1, 0, 0).unwrap();
    }
}
