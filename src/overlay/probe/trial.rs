//! The scratch layers of a probe, and one small experiment for each feature.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use layerstore_schema::manifest::{Entry, Kind, Manifest};
use rustix::io::Errno;

use super::{ErofsSupport, IdMapSupport, Probe};
use crate::composefs::{Built, Stack, image};
use crate::disk::{XattrNamespace, remove_tree};
use crate::overlay::erofs;
use crate::overlay::mount::detached;
use crate::overlay::options::plan;
use crate::overlay::request::{Method, MountPlan, MountRequest, Upper, XattrClass};
use crate::sys::file::File;
use crate::sys::mount::{Refusal, clone_tree, open_file_at, with_own_mounts};
use crate::sys::node::{self, NodeKind};
use crate::sys::pinned::Pinned;
use crate::sys::userns::{IdExtent, IdMaps};
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, directory};
use crate::sys::{path, stat};
use crate::types::{ContentHash, Metadata};

/// Two scratch layers and room for writable directories; removed when dropped.
pub(super) struct Trial {
    scratch: OwnedFd,
    name: String,
    root: PathBuf,
    directory: OwnedFd,
    certain: Cell<bool>,
    /// What is being tried, by its key in the probe's text.
    trying: Cell<&'static str>,
    /// The first thing that was in the way of each.
    reasons: RefCell<BTreeMap<&'static str, String>>,
}

impl Trial {
    pub(super) fn new(scratch: &Path) -> io::Result<Trial> {
        // The process id keeps two probes in one directory apart.
        let name = format!("probe-{}-{:?}", std::process::id(), std::thread::current().id());
        let root = path::resolve(scratch)?.join(&name);
        let scratch = beneath::open_directory(scratch)?;
        path::make_directory(&root, 0o755)?;
        let trial = Trial {
            scratch,
            name,
            directory: beneath::open_directory(&root)?,
            root,
            certain: Cell::new(true),
            trying: Cell::new("overlay"),
            reasons: RefCell::default(),
        };
        for directory in ["top", "bottom/replaced", "bottom/attributes", "empty", "target"] {
            path::make_directories(&trial.root.join(directory), 0o755)?;
        }
        for file in ["bottom/hidden-by-device", "bottom/replaced/below", "bottom/attributes/hidden-by-xattr"]
        {
            trial.make_file(file)?;
        }
        Ok(trial)
    }

    /// Whether nothing failed that says little about the kernel.
    pub(super) fn is_certain(&self) -> bool {
        self.certain.get()
    }

    /// The outcome of an experiment: what fails does not work.
    fn works(&self, tried: io::Result<bool>) -> bool {
        tried.inspect_err(|error| self.note(error)).unwrap_or(false)
    }

    /// Says what is tried next. What was in its way before does not count.
    fn begin(&self, key: &'static str) {
        self.reasons.borrow_mut().remove(key);
        self.trying.set(key);
    }

    /// Notes what is in the way, unless something was before.
    fn blame(&self, reason: impl ToString) {
        self.reasons.borrow_mut().entry(self.trying.get()).or_insert_with(|| reason.to_string());
    }

    /// What was in the way of something.
    fn reason(&self, key: &str) -> Option<String> {
        self.reasons.borrow().get(key).cloned()
    }

    /// Notes an error, and looks whether it may be over soon.
    fn note(&self, error: &io::Error) {
        self.blame(error);
        let passing = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        if Errno::from_io_error(error).is_some_and(|number| passing.contains(&number)) {
            self.certain.set(false);
        }
    }

    /// Runs every experiment, the ones first that others build on.
    pub(super) fn run(&self, probe: &mut Probe) {
        probe.kinds_of_names = self.works(directory::tells_kinds(self.directory()));
        if !probe.kinds_of_names {
            // The kernel would only warn.
            return;
        }
        let class = self.find_method_and_class(probe);
        tracing::debug!(overlay = probe.overlay, ?class, "probed for overlay mounts");
        if let Some(class) = class {
            probe.overlay = true;
            self.try_features(probe, class);
        }
        let mut reasons = self.reasons.borrow_mut();
        for (key, works) in probe.switches() {
            if *works {
                reasons.remove(key);
            }
        }
        if probe.id_maps != IdMapSupport::None {
            reasons.remove("id_maps");
        }
        probe.reasons = reasons.iter().map(|(key, reason)| ((*key).to_owned(), reason.clone())).collect();
    }

    fn try_features(&self, probe: &mut Probe, class: XattrClass) {
        self.begin("device_whiteouts");
        probe.device_whiteouts = self.device_whiteouts(probe, class);
        self.begin("xattr_whiteouts");
        probe.xattr_whiteouts = self.xattr_whiteouts(probe, class);
        self.begin("xattr_escape");
        probe.xattr_escape = self.xattr_escape(probe, class);
        self.begin("volatile");
        probe.volatile = self.volatile(probe, class);
        self.begin("data_lowers");
        self.images(probe, class);
        for support in [IdMapSupport::Detached, IdMapSupport::Attached] {
            self.begin("id_maps");
            if self.id_maps(probe, class, support) {
                probe.id_maps = support;
                break;
            }
        }
    }

    /// Shows a file whose name is in an image and whose content is in a directory, and changes its mode: what the upper
    /// directory gets must be the whole file.
    fn images(&self, probe: &mut Probe, class: XattrClass) {
        // Nothing else is worth the attempt, and a loop device least of all.
        if !probe.lower_descriptors || probe.user_namespace {
            return;
        }
        for support in [ErofsSupport::File, ErofsSupport::Loop] {
            let made = self.make_image(class).and_then(|image| {
                let mounted = match support {
                    ErofsSupport::File => erofs::as_file(&image.image, &File::open(&image.image)?),
                    _ => erofs::mount(&image.image, support),
                };
                mounted.map_err(|refusal| refusal.source).map(|_| image)
            });
            let Ok(image) = made.inspect_err(|error| self.note(error)) else { continue };
            probe.erofs = support;
            probe.data_lowers = self.works(self.data_lowers(probe, class, image));
            return;
        }
    }

    fn make_image(&self, class: XattrClass) -> io::Result<Built> {
        let namespace = match class {
            XattrClass::Trusted => XattrNamespace::Trusted,
            XattrClass::User => XattrNamespace::User,
        };
        let content = ContentHash(*blake3::hash(CONTENT).as_bytes());
        let size = u64::try_from(CONTENT.len()).unwrap_or_default();
        let entry = |path: &[u8], kind| Entry {
            path: path.to_vec(),
            kind,
            metadata: Metadata { mode: 0o755, ..Metadata::default() },
        };
        let entries = vec![
            entry(b"", Kind::Directory { opaque: false }),
            entry(b"of-an-image", Kind::File { size, content }),
        ];
        let manifest = Manifest::new(entries).map_err(io::Error::other)?;
        let stack = Stack { layers: vec![(manifest.digest(), Arc::new(manifest))], namespace };
        let bytes = image(&stack, None).map_err(|unfit| io::Error::other(unfit.reason))?;
        let (path, data) = (self.root.join("image"), self.root.join("data"));
        path::make_directories(&data, 0o755)?;
        path::write(&path, &bytes)?;
        path::write(&data.join(blake3::hash(CONTENT).to_hex().as_str()), CONTENT)?;
        Ok(Built { image: path, data: vec![data], verified: false })
    }

    fn data_lowers(&self, probe: &Probe, class: XattrClass, image: Built) -> io::Result<bool> {
        let (upper, work) = (self.root.join("images/upper"), self.root.join("images/work"));
        path::make_directories(&upper, 0o755)?;
        path::make_directories(&work, 0o755)?;
        let mut request = self.request(class);
        request.lowers = vec![self.root.join("top"), image.image.clone()];
        request.images.insert(image.image.clone(), image);
        request.upper = Some(Upper { upper: upper.clone(), work });
        let able = Probe { data_lowers: true, privileged: true, ..probe.clone() };
        let mount = self.make(&able, &request).map_err(|refusal| refusal.source)?;
        let read = |file: OwnedFd| {
            let mut bytes = Vec::new();
            File::from(file).read_to_end(&mut bytes).map(|_| bytes == CONTENT)
        };
        let shown = read(open_file_at(mount.as_fd(), Path::new("of-an-image"))?)?;
        Pinned::at(mount.as_fd(), b"of-an-image")?.set_mode(0o700)?;
        Ok(shown && path::read(&upper.join("of-an-image"))? == CONTENT)
    }

    /// Finds the newest interface that makes a working writable mount, with each class of attributes, and gives the
    /// class to go on with.
    fn find_method_and_class(&self, probe: &mut Probe) -> Option<XattrClass> {
        for (descriptors, paths) in [(true, true), (false, true), (false, false)] {
            let attempt = Probe { lower_descriptors: descriptors, lower_paths: paths, ..probe.clone() };
            self.begin("trusted_xattrs");
            probe.trusted_xattrs = self.keeps_opaque(&attempt, XattrClass::Trusted);
            self.begin("user_xattrs");
            probe.user_xattrs = self.keeps_opaque(&attempt, XattrClass::User);
            if probe.trusted_xattrs || probe.user_xattrs {
                probe.lower_descriptors = descriptors;
                let class = if probe.trusted_xattrs { XattrClass::Trusted } else { XattrClass::User };
                let by_path = Probe { lower_descriptors: false, lower_paths: true, ..probe.clone() };
                self.begin("lower_paths");
                probe.lower_paths = paths && (!descriptors || self.view(&by_path, class).is_ok());
                return Some(class);
            }
            let reason = self.reason("user_xattrs").or_else(|| self.reason("trusted_xattrs"));
            let tried = match (descriptors, paths) {
                (true, _) => "lower_descriptors",
                (_, true) => "lower_paths",
                _ => "overlay",
            };
            if let Some(reason) = reason {
                self.begin(tried);
                self.blame(reason);
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
            node::remove_file(mount.as_fd(), b"replaced/below")?;
            node::remove_directory(mount.as_fd(), b"replaced")?;
            node::make_directory(mount.as_fd(), b"replaced", 0o700)?;
            let value = xattr::get(self.at(&format!("{name}/upper/replaced")), &class.attribute("opaque"))?;
            Ok::<_, io::Error>(value.as_deref() == Some(b"y"))
        };
        match replaced() {
            // How overlayfs says that it may not write them: no disk failed.
            Err(error)
                if Errno::from_io_error(&error) == Some(Errno::IO)
                    && probe.user_namespace
                    && class == XattrClass::Trusted =>
            {
                false
            }
            tried => self.works(tried),
        }
    }

    fn device_whiteouts(&self, probe: &Probe, class: XattrClass) -> bool {
        let kind = NodeKind::CharDevice;
        let made = node::make_node(self.directory(), b"top/hidden-by-device", kind, 0, (0, 0));
        self.works(made.map(|()| self.hides(probe, class, "hidden-by-device")))
    }

    /// A file with the attribute `whiteout` counts in a directory that says so (`opaque` = `x`).
    fn xattr_whiteouts(&self, probe: &Probe, class: XattrClass) -> bool {
        let (directory, whiteout) = ("top/attributes", "top/attributes/hidden-by-xattr");
        let make = || {
            node::make_directory(self.directory(), directory.as_bytes(), 0o755)?;
            self.make_file(whiteout)?;
            xattr::set(self.at(whiteout), &class.attribute("whiteout"), b"y")?;
            xattr::set(self.at(directory), &class.attribute("opaque"), b"x")
        };
        self.works(make().map(|()| self.hides(probe, class, "attributes/hidden-by-xattr")))
    }

    fn xattr_escape(&self, probe: &Probe, class: XattrClass) -> bool {
        let make = || {
            self.make_file("top/escaped")?;
            xattr::set(self.at("top/escaped"), &class.attribute("overlay.probe"), b"1")?;
            let mount = self.view(probe, class).map_err(|refusal| refusal.source)?;
            let merged = open_file_at(mount.as_fd(), Path::new("escaped"))?;
            let value = xattr::get(Target::File(merged.as_fd()), &class.attribute("probe"))?;
            Ok::<_, io::Error>(value.as_deref() == Some(b"1"))
        };
        self.works(make())
    }

    fn volatile(&self, probe: &Probe, class: XattrClass) -> bool {
        let able = Probe { volatile: true, ..probe.clone() };
        let made = self.writable(&able, class, "volatile", true);
        self.works(made.map(|_| self.has("volatile/work/work/incompat/volatile")))
    }

    /// Shows a layer with its owner mapped to another id and looks at the owner.
    fn id_maps(&self, probe: &Probe, class: XattrClass, support: IdMapSupport) -> bool {
        let able = Probe { id_maps: support, ..probe.clone() };
        let owned = || {
            let owner = stat::stat_at(self.directory(), b"bottom/hidden-by-device")?;
            let extent = |inside| vec![IdExtent { inside, outside: PROBED_ID, count: 1 }];
            let mut request = self.request(class);
            request.id_map = Some(IdMaps { uids: extent(owner.uid), gids: extent(owner.gid) });
            let mount = self.make(&able, &request).map_err(|refusal| refusal.source)?;
            let seen = stat::stat_at(mount.as_fd(), b"replaced/below")?;
            Ok::<_, io::Error>((seen.uid, seen.gid) == (PROBED_ID, PROBED_ID))
        };
        self.works(owned())
    }

    fn hides(&self, probe: &Probe, class: XattrClass, name: &str) -> bool {
        self.view(probe, class).is_ok_and(|mount| match stat::stat_at(mount.as_fd(), name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            found => self.works(found.map(|_| false)),
        })
    }

    fn request(&self, class: XattrClass) -> MountRequest {
        let mut request = MountRequest::new(&self.root, self.root.join("empty"), class);
        request.lowers = vec![self.root.join("top"), self.root.join("bottom")];
        request
    }

    fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// What stands at a path in the scratch directory.
    fn at<'a>(&'a self, path: &'a str) -> Target<'a> {
        Target::Name(self.directory(), path.as_bytes())
    }

    fn has(&self, path: &str) -> bool {
        self.works(stat::stat_at(self.directory(), path.as_bytes()).map(|_| true))
    }

    fn make_file(&self, path: &str) -> io::Result<()> {
        beneath::create_file(self.directory(), path.as_bytes(), 0o644).map(drop)
    }

    /// A read-only mount of the two layers.
    fn view(&self, probe: &Probe, class: XattrClass) -> Result<OwnedFd, Refusal> {
        self.make(probe, &self.request(class))
    }

    /// A writable mount with directories of its own, named `name`.
    fn writable(&self, probe: &Probe, class: XattrClass, name: &str, volatile: bool) -> io::Result<OwnedFd> {
        let (upper, work) = (self.root.join(name).join("upper"), self.root.join(name).join("work"));
        path::make_directories(&upper, 0o755)?;
        path::make_directories(&work, 0o755)?;
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
        let made = if plan.method != Method::OptionString || plan.id_map.is_some() {
            detached(&plan, &target)
        } else {
            with_own_mounts(&self.root, || {
                crate::overlay::mount::option_string(&plan, &target)?;
                Ok(clone_tree(&target)?)
            })
        };
        made.inspect_err(|refusal| {
            self.blame(refusal);
            self.note(&refusal.source);
        })
    }
}

/// What a file of an image has.
const CONTENT: &[u8] = b"content\n";

/// An id that no file of the scratch directory has.
const PROBED_ID: u32 = 54_321;

impl XattrClass {
    /// The full name of an attribute of this class.
    fn attribute(self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.prefix()).into_bytes()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(self.scratch.as_fd(), self.name.as_bytes()) {
            tracing::warn!(path = %self.root.display(), %error, "the scratch directory of a probe is left");
        }
    }
}
