//! A directory with a small store and image layouts, cheap to copy; and what such a store is seen to hold.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare};
use nix::unistd::Pid;

use layerstore_schema::record::LayerContent;

use crate::meta::Query;
use crate::oci::{CommitOptions, LoadOptions, SaveOptions, Selection, Source};
use crate::sys::{mount, node};
use crate::{
    Compression, Container, ContainerOptions, MountOptions, Store, StoreOptions, SyncMode, UnmountMode,
};

/// Where the store, its run root and the layouts are.
pub(super) struct Place(tempfile::TempDir, Variant);

/// How the store is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Variant {
    /// Images have a store of their own.
    pub(super) separate: bool,
    /// The next boot drops containers.
    pub(super) transient: bool,
    /// What is synced.
    pub(super) sync: SyncMode,
    /// Images are mounted by composefs images.
    pub(super) composefs: bool,
    /// Files that come in share their space with equal ones, where the filesystem can.
    pub(super) dedup: bool,
}

impl Variant {
    pub(super) const PLAIN: Variant =
        Variant { separate: false, transient: false, sync: SyncMode::Full, composefs: false, dedup: false };
    pub(super) const SEPARATE: Variant = Variant { separate: true, ..Variant::PLAIN };
    pub(super) const TRANSIENT: Variant = Variant { transient: true, ..Variant::PLAIN };

    /// `LAYERSTORE_FAULTS_SYNC` gives all operations another mode: `records` or `off`.
    pub(super) fn or_as_told(self) -> Self {
        let sync = match std::env::var("LAYERSTORE_FAULTS_SYNC").as_deref() {
            Ok("records") => SyncMode::Records,
            Ok("off") => SyncMode::Off,
            _ => self.sync,
        };
        Variant { sync, ..self }
    }
}

/// On one processor the library uses as few threads as it can, so the calls come in the same order each time; and
/// mounts end with this thread.
pub(super) fn settle_down() {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        mount::make_private(Path::new("/"), true).unwrap();
    }
}

pub(super) fn can_mount(variant: Variant) -> bool {
    let mut place = Place::new();
    place.1 = variant;
    let store = place.open();
    let container = store.create_container(None, &ContainerOptions::default()).unwrap();
    let mounted = store.mount(&container, &MountOptions::default());
    mounted.is_ok() && store.unmount(&container, UnmountMode::Plain).is_ok()
}

pub(super) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

impl Place {
    fn new() -> Self {
        let told = std::env::var_os("LAYERSTORE_FAULTS_DIR").map(PathBuf::from);
        let memory = told.as_deref().unwrap_or(Path::new("/dev/shm"));
        let fits = told.is_some()
            || fs::metadata(memory).is_ok_and(|found| found.permissions().mode() & 0o1777 == 0o1777);
        let builder = tempfile::Builder::new().prefix("layerstore-faults-").to_owned();
        let dir = if fits { builder.tempdir_in(memory) } else { builder.tempdir() }.unwrap();
        Place(dir, Variant::PLAIN)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn options(&self) -> StoreOptions {
        let options = StoreOptions::at(self.path("store")).run_root(self.path("run")).reserve(64 << 10);
        let options = options.sync(self.1.sync).transient(self.1.transient);
        let options = options.use_composefs(self.1.composefs).dedup_at_import(self.1.dedup);
        if self.1.separate { options.image_store_root(self.path("images")) } else { options }
    }

    /// Opens the store, with every handle that it keeps.
    pub(super) fn open(&self) -> Store {
        let store = Store::open(&self.options()).unwrap();
        store.status().unwrap();
        store
    }

    pub(super) fn copy(&self) -> Place {
        let mut copy = Place::new();
        copy.1 = self.1;
        let from = self.0.path().join(".");
        let done = Command::new("cp").arg("-a").arg(from).arg(copy.0.path()).status().unwrap();
        assert!(done.success());
        copy
    }

    /// A store with an image of two layers that kept its blobs, a container on it with changes, and one without an
    /// image. Beside it are a layout and an archive, each with an image of two layers, of which the lower is in the store.
    pub(super) fn template(variant: Variant) -> Place {
        let mut place = Place::new();
        // Where transient containers are is told by a path, which a copy has not.
        place.1 = Variant { transient: false, ..variant };
        place.make_images();
        let store = place.open();
        let source = Source::open(&place.reference("oci", "in", "base"), store.root()).unwrap();
        let base = store.load(&source, &LoadOptions::named("base")).unwrap();
        let mut options = ContainerOptions::named("web");
        options.id = Some("web".parse().unwrap());
        let web = store.create_container(&base.id, &options).unwrap();
        let upper = Place::upper(&store, &web);
        fs::write(upper.join("new"), "new").unwrap();
        fs::create_dir(upper.join("etc")).unwrap();
        fs::write(upper.join("etc/motd"), "changed").unwrap();
        store.write(|txn| txn.put_item(&web, "spec", b"{}")).unwrap();
        options = ContainerOptions::named("bare");
        options.id = Some("bare".parse().unwrap());
        store.create_container(None, &options).unwrap();
        store.save(&base.id, &place.reference("oci", "out", "old"), &SaveOptions::default()).unwrap();
        // So that it is known what the kernel can do.
        if store.mount(&web, &MountOptions::default()).is_ok() {
            store.unmount(&web, UnmountMode::Plain).unwrap();
        }
        drop(store);
        place.1 = variant;
        place
    }

    fn make_images(&self) {
        let store =
            Store::open(&StoreOptions::at(self.path("maker")).run_root(self.path("maker-run"))).unwrap();
        let base = store.create_container(None, &ContainerOptions::named("base")).unwrap();
        let upper = Place::upper(&store, &base);
        for directory in ["etc", "bin"] {
            fs::create_dir(upper.join(directory)).unwrap();
        }
        fs::write(upper.join("etc/motd"), "hello").unwrap();
        fs::write(upper.join("bin/tool"), vec![7; 70_000]).unwrap();
        fs::hard_link(upper.join("bin/tool"), upper.join("bin/link")).unwrap();
        std::os::unix::fs::symlink("tool", upper.join("bin/soft")).unwrap();
        let base = store.commit(&base.id, &CommitOptions::named("base")).unwrap();
        let next = store.create_container(&base.id, &ContainerOptions::named("next")).unwrap();
        let upper = Place::upper(&store, &next);
        fs::create_dir(upper.join("etc")).unwrap();
        fs::write(upper.join("etc/more"), "more").unwrap();
        let big = fs::File::create(upper.join("sparse")).unwrap();
        big.set_len(1 << 20).unwrap();
        // A deletion, where this user may make one.
        let whiteout = fs::File::open(upper.join("etc")).unwrap();
        let kind = node::NodeKind::CharDevice;
        node::make_node(std::os::fd::AsFd::as_fd(&whiteout), b"motd", kind, 0, (0, 0)).ok();
        let next = store.commit(&next.id, &CommitOptions::named("next")).unwrap();
        let compressed = SaveOptions { compression: Some(Compression::Gzip), ..SaveOptions::default() };
        for (image, tag) in [(&base, "base"), (&next, "next")] {
            store.save(&image.id, &self.reference("oci", "in", tag), &compressed).unwrap();
        }
        let archive = self.reference("oci-archive", "in.tar", "next");
        store.save(&next.id, &archive, &compressed).unwrap();
        drop(store);
        fs::remove_dir_all(self.path("maker")).unwrap();
        fs::remove_dir_all(self.path("maker-run")).ok();
    }

    pub(super) fn reference(&self, transport: &str, name: &str, tag: &str) -> crate::oci::Reference {
        format!("{transport}:{}:{tag}", self.path(name).display()).parse().unwrap()
    }

    /// The directory that a container's changes are in.
    fn upper(store: &Store, container: &Container) -> PathBuf {
        let layer = store.database().begin_read().unwrap().layer_ref(container.layer.as_str()).unwrap();
        match layer.content {
            LayerContent::Writable(number) => store.diff_path(number),
            LayerContent::Sealed(_) | LayerContent::Additional(_) => {
                panic!("a container's layer is writable")
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A mount that a fault left, in this process's own mount namespace.
        for entry in fs::read_dir(self.path("run/mnt")).into_iter().flatten().flatten() {
            while mount::unmount(&entry.path(), true).is_ok() {}
        }
    }
}

/// All that a user sees of a store and of what was saved beside it, without what chance and time decide.
pub(super) fn describe(place: &Place, store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    for image in store.images().unwrap() {
        let trees: Vec<_> = (image.top_layer.iter())
            .flat_map(|top| store.layer_chain(top).unwrap())
            .map(|layer| format!("{:?} {:?}", layer.tree, layer.diff_id))
            .collect();
        let items = store.items(&image).unwrap();
        for item in &items {
            assert_eq!(store.item(&image, &item.key).unwrap().len() as u64, item.size);
        }
        lines.push(format!("image {:?} {trees:?} {} items", image.names, items.len()));
    }
    for layer in store.layers().unwrap().iter().filter(|layer| !layer.names.is_empty()) {
        let changes: Vec<_> = store.changes(layer).unwrap().iter().map(ToString::to_string).collect();
        let known = (layer.tree, &layer.diff_id, layer.blobs.len(), &layer.metadata);
        lines.push(format!("layer {:?} {known:?} {changes:?}", layer.names));
    }
    for container in store.containers().unwrap() {
        let items = store.items(&container).unwrap();
        let mount = store.mounted(&container).unwrap().map(|mount| (mount.count, mount.read_only));
        let changes: Vec<_> = store.changes(&container).unwrap().iter().map(ToString::to_string).collect();
        let directory = directory(store, &container);
        lines.push(format!(
            "container {} {:?} {items:?} {changes:?} {mount:?} {directory:?} {:?} {:?}",
            container.id, container.names, container.flags, container.id_maps
        ));
    }
    for lease in store.leases().unwrap() {
        lines.push(format!("lease {} of {} things", lease.id, lease.things.len()));
    }
    if fs::metadata(place.path("backup")).is_ok() {
        lines.push("a backup".to_owned());
    }
    let status = store.status().unwrap();
    lines.push(format!("{} layers, {} bytes of blobs", status.layers, status.kept_blob_bytes));
    for (transport, name, tags) in [("oci", "out", &["old", "new"][..]), ("oci-archive", "out.tar", &["new"])]
    {
        for tag in tags {
            lines.extend(saved(place, transport, name, tag));
        }
    }
    // Ids are random, and so is their order.
    lines.sort();
    lines
}

/// Whether a container has a directory for its caller, with a file in it.
fn directory(store: &Store, container: &Container) -> Option<Option<Vec<u8>>> {
    let record = store.begin_read().unwrap().container(container.id.as_str()).unwrap().unwrap();
    let path = record.directory.map(|_| store.container_directory(&container.id).unwrap())?;
    assert!(path.is_dir());
    Some(fs::read(path.join("a/b")).ok())
}

/// An image of a layout, read to its last byte.
fn saved(place: &Place, transport: &str, name: &str, tag: &str) -> Option<String> {
    fs::metadata(place.path(name)).ok()?;
    let reference = place.reference(transport, name, tag);
    let source = Source::open(&reference, place.0.path()).unwrap();
    if !source.tags().iter().any(|one| one == tag) {
        return None;
    }
    let image = source.resolve(&Selection::default()).unwrap();
    for layer in &image.layers {
        source.blob(&layer.descriptor).unwrap().finish().unwrap();
    }
    Some(format!("saved {tag} in {name}: {:?}", image.config.digest))
}
