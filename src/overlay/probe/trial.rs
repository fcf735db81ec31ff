//! The scratch layers of a probe, and one small experiment for each feature.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags};

use super::{IdMapSupport, Probe};
use crate::overlay::mount::detached;
use crate::overlay::options::{Method, MountPlan, MountRequest, Upper, XattrClass, plan};
use crate::sys::mount::{Refusal, clone_tree, with_own_mounts};
use crate::sys::userns::{IdExtent, IdMaps};

/// Two scratch layers and room for writable directories; removed when dropped.
pub(super) struct Trial {
    root: PathBuf,
}

impl Trial {
    pub(super) fn new(scratch: &Path) -> io::Result<Trial> {
        // The process id keeps two probes in one directory apart.
        let root = scratch.canonicalize()?.join(format!(
            "probe-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir(&root)?;
        let trial = Trial { root };
        for directory in ["top", "bottom/replaced", "bottom/attributes", "empty", "target"] {
            fs::create_dir_all(trial.root.join(directory))?;
        }
        for file in ["bottom/hidden-by-device", "bottom/replaced/below", "bottom/attributes/hidden-by-xattr"]
        {
            fs::write(trial.root.join(file), b"x")?;
        }
        Ok(trial)
    }

    /// Runs every experiment, the ones first that others build on.
    pub(super) fn run(&self, probe: &mut Probe) {
        let class = self.find_method_and_class(probe);
        tracing::debug!(overlay = probe.overlay, ?class, "probed for overlay mounts");
        let Some(class) = class else { return };
        probe.overlay = true;
        probe.device_whiteouts = self.device_whiteouts(probe, class);
        probe.xattr_whiteouts = self.xattr_whiteouts(probe, class);
        probe.xattr_escape = self.xattr_escape(probe, class);
        probe.volatile = self.volatile(probe, class);
        for support in [IdMapSupport::Detached, IdMapSupport::Attached] {
            if self.id_maps(probe, class, support) {
                probe.id_maps = support;
                break;
            }
        }
    }

    /// Finds the newest interface that makes a working writable mount, with each class of attributes, and gives the
    /// class to go on with.
    fn find_method_and_class(&self, probe: &mut Probe) -> Option<XattrClass> {
        for (descriptors, paths) in [(true, true), (false, true), (false, false)] {
            let attempt = Probe { lower_descriptors: descriptors, lower_paths: paths, ..probe.clone() };
            probe.trusted_xattrs = self.keeps_opaque(&attempt, XattrClass::Trusted);
            probe.user_xattrs = self.keeps_opaque(&attempt, XattrClass::User);
            if probe.trusted_xattrs || probe.user_xattrs {
                probe.lower_descriptors = descriptors;
                let class = if probe.trusted_xattrs { XattrClass::Trusted } else { XattrClass::User };
                let by_path = Probe { lower_descriptors: false, lower_paths: true, ..probe.clone() };
                probe.lower_paths = paths && (!descriptors || self.view(&by_path, class).is_ok());
                return Some(class);
            }
        }
        None
    }

    /// Replaces a directory of a lower layer through the mount and looks whether the kernel could keep that it is
    /// opaque. This is what fails where the attributes cannot be written, and nothing says so at mount time.
    fn keeps_opaque(&self, probe: &Probe, class: XattrClass) -> bool {
        let name = format!("opaque-{}-{}{}", class.prefix(), probe.lower_descriptors, probe.lower_paths);
        let replaced = || {
            let mount = self.writable(probe, class, &name, false)?;
            let upper = self.root.join(&name).join("upper");
            rustix::fs::unlinkat(&mount, "replaced/below", AtFlags::empty())?;
            rustix::fs::unlinkat(&mount, "replaced", AtFlags::REMOVEDIR)?;
            rustix::fs::mkdirat(&mount, "replaced", Mode::RWXU)?;
            let mut value = [0; 4];
            let length =
                rustix::fs::lgetxattr(upper.join("replaced"), class.attribute("opaque"), &mut value)?;
            Ok::<_, io::Error>(value.get(..length) == Some(b"y"))
        };
        replaced().unwrap_or(false)
    }

    fn device_whiteouts(&self, probe: &Probe, class: XattrClass) -> bool {
        let whiteout = self.root.join("top/hidden-by-device");
        let made = rustix::fs::mknodat(CWD, whiteout, FileType::CharacterDevice, Mode::empty(), 0);
        made.is_ok() && self.hides(probe, class, "hidden-by-device")
    }

    /// A file with the attribute `whiteout` counts in a directory that says so (`opaque` = `x`).
    fn xattr_whiteouts(&self, probe: &Probe, class: XattrClass) -> bool {
        let directory = self.root.join("top/attributes");
        let whiteout = directory.join("hidden-by-xattr");
        let make = || {
            fs::create_dir(&directory)?;
            fs::write(&whiteout, b"")?;
            let flags = XattrFlags::empty();
            rustix::fs::lsetxattr(&whiteout, class.attribute("whiteout"), b"y", flags)?;
            rustix::fs::lsetxattr(&directory, class.attribute("opaque"), b"x", flags)?;
            Ok::<_, io::Error>(())
        };
        make().is_ok() && self.hides(probe, class, "attributes/hidden-by-xattr")
    }

    fn xattr_escape(&self, probe: &Probe, class: XattrClass) -> bool {
        let file = self.root.join("top/escaped");
        let make = || {
            fs::write(&file, b"")?;
            rustix::fs::lsetxattr(&file, class.attribute("overlay.probe"), b"1", XattrFlags::empty())?;
            let mount = self.view(probe, class).map_err(|refusal| refusal.source)?;
            let merged = crate::sys::mount::open_file_at(mount.as_fd(), Path::new("escaped"))?;
            let mut value = [0; 4];
            let length = rustix::fs::fgetxattr(&merged, class.attribute("probe"), &mut value)?;
            Ok::<_, io::Error>(value.get(..length) == Some(b"1"))
        };
        make().unwrap_or(false)
    }

    fn volatile(&self, probe: &Probe, class: XattrClass) -> bool {
        let able = Probe { volatile: true, ..probe.clone() };
        let made = self.writable(&able, class, "volatile", true).is_ok();
        made && self.root.join("volatile/work/work/incompat/volatile").exists()
    }

    /// Shows a layer with its owner mapped to another id and looks at the owner.
    fn id_maps(&self, probe: &Probe, class: XattrClass, support: IdMapSupport) -> bool {
        let able = Probe { id_maps: support, ..probe.clone() };
        let owned = || {
            let owner = fs::metadata(self.root.join("bottom/hidden-by-device"))?;
            let extent = |inside| vec![IdExtent { inside, outside: PROBED_ID, count: 1 }];
            let mut request = self.request(class);
            request.id_map = Some(IdMaps { uids: extent(owner.uid()), gids: extent(owner.gid()) });
            let mount = self.make(&able, &request).map_err(|refusal| refusal.source)?;
            let seen = rustix::fs::statat(&mount, "replaced/below", AtFlags::SYMLINK_NOFOLLOW)?;
            Ok::<_, io::Error>((seen.st_uid, seen.st_gid) == (PROBED_ID, PROBED_ID))
        };
        owned().unwrap_or(false)
    }

    fn hides(&self, probe: &Probe, class: XattrClass, name: &str) -> bool {
        self.view(probe, class).is_ok_and(|mount| {
            let missing = rustix::fs::statat(&mount, name, AtFlags::SYMLINK_NOFOLLOW);
            missing.is_err_and(|errno| errno == rustix::io::Errno::NOENT)
        })
    }

    fn request(&self, class: XattrClass) -> MountRequest {
        let mut request = MountRequest::new(&self.root, self.root.join("empty"), class);
        request.lowers = vec![self.root.join("top"), self.root.join("bottom")];
        request
    }

    /// A read-only mount of the two layers.
    fn view(&self, probe: &Probe, class: XattrClass) -> Result<OwnedFd, Refusal> {
        self.make(probe, &self.request(class))
    }

    /// A writable mount with directories of its own, named `name`.
    fn writable(&self, probe: &Probe, class: XattrClass, name: &str, volatile: bool) -> io::Result<OwnedFd> {
        let (upper, work) = (self.root.join(name).join("upper"), self.root.join(name).join("work"));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let mut request = self.request(class);
        request.volatile = volatile;
        request.upper = Some(Upper { upper, work });
        self.make(probe, &request).map_err(|refusal| refusal.source)
    }

    /// Makes a mount attached to nothing, whatever the interface.
    fn make(&self, probe: &Probe, request: &MountRequest) -> Result<OwnedFd, Refusal> {
        let assumed = Probe { overlay: true, trusted_xattrs: true, user_xattrs: true, ..probe.clone() };
        let plan: MountPlan =
            plan(&assumed, request).map_err(|error| Refusal::new("plan", io::Error::other(error)))?;
        let target = self.root.join("target");
        if plan.method != Method::OptionString || plan.id_map.is_some() {
            return detached(&plan, &target);
        }
        with_own_mounts(&self.root, || {
            crate::overlay::mount::option_string(&plan, &target)?;
            Ok(clone_tree(&target)?)
        })
    }
}

/// An id that no file of the scratch directory has.
const PROBED_ID: u32 = 54_321;

impl XattrClass {
    /// The full name of an attribute of this class.
    fn attribute(self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            tracing::warn!(path = %self.root.display(), %error, "the scratch directory of a probe is left");
        }
    }
}
