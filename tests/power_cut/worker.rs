//! What is done to a store while its disk is recorded, and what must be there afterwards.
//!
//! Some threads work side by side, each on things of its own, known by a prefix of their names. Before and after each
//! operation a mark goes into the record: of what is marked as done nothing may be missing after a cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::snapshotter::{self, SnapshotError, Snapshotter, SnapshotterOptions};
use layerstore::{
    ApplyOptions, ContainerOptions, Error, ImageId, ImageOptions, ImportError, LayerOptions, MountOptions,
    NewItem, Store, UnmountMode,
};

use crate::support::oci::{Compression, Image, Layer};
use crate::support::random::Random;
use crate::support::tar::{Member, archive};

/// How many work at a time.
pub const THREADS: usize = 2;
/// The file that containers have in their directories.
const FILE: &str = "kept/file";
/// The file that processes of containers sync.
const SYNCED: &str = "synced";
/// Mode and owners of the root of all images, and so of the containers on them.
pub const ROOT: (u32, u32, u32) = (0o1751, 3, 4);
/// How many images each can load.
const IMAGES: usize = 3;

/// What a thread's part of a store shows.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Part {
    /// Ids by name.
    pub images: BTreeMap<String, String>,
    pub containers: BTreeMap<String, Container>,
    /// Layers of the thread's own making, by id.
    pub layers: BTreeMap<String, OwnLayer>,
    /// Snapshots, by key or name.
    pub snapshots: BTreeMap<String, Snapshot>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub parent: Option<String>,
    /// Those of a committed one. Who writes to another one says himself what is on the disk.
    pub files: Option<BTreeSet<String>>,
}

/// A layer above nothing.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct OwnLayer {
    pub writable: bool,
    pub files: BTreeSet<String>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Container {
    pub metadata: String,
    pub image: Option<String>,
    pub items: BTreeMap<String, Vec<u8>>,
    /// The file in its directory.
    pub file: Option<Vec<u8>>,
    /// The file that a process of its own has synced.
    pub synced: Option<Vec<u8>>,
}

impl Part {
    /// A thread's part as the store shows it.
    pub fn observe(store: &Store, thread: usize) -> Result<Self, Error> {
        let mut part = Part::default();
        let own = prefix(thread);
        for image in store.images()? {
            for name in image.names.iter().filter(|name| name.as_str().starts_with(&own)) {
                part.images.insert(name.to_string(), image.id.to_string());
            }
        }
        for layer in store.layers()?.into_iter().filter(|layer| layer.id.as_str().starts_with(&own)) {
            let files = files_of(store, layer.id.as_str())?;
            part.layers.insert(layer.id.to_string(), OwnLayer { writable: layer.is_writable(), files });
        }
        snapshots(store)
            .walk(&[], |info| {
                if info.name.starts_with(&own) {
                    let files = match info.kind {
                        snapshotter::Kind::Committed => Some(files_of(store, &info.name)?),
                        _ => None,
                    };
                    part.snapshots.insert(info.name, Snapshot { parent: info.parent, files });
                }
                Ok(())
            })
            .map_err(of_store)?;
        for container in store.containers()? {
            if !container.id.as_str().starts_with(&own) {
                continue;
            }
            let mut row = Container { metadata: container.metadata.clone(), ..Container::default() };
            row.image = container.image.as_ref().map(ToString::to_string);
            for item in store.items(&container)? {
                row.items.insert(item.key.clone(), store.item(&container, &item.key)?);
            }
            row.file = match store.read_container_file(&container.id, FILE) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
                read => Some(read?),
            };
            row.synced = match store.layer_places(&container.layer) {
                // Its directory was not on the disk, and neither is what it stands on.
                Err(Error::Unsynced(_)) => None,
                places => std::fs::read(places?.upper.join(SYNCED)).ok(),
            };
            part.containers.insert(container.id.to_string(), row);
        }
        Ok(part)
    }
}

/// The paths that a layer changes.
fn files_of(store: &Store, key: &str) -> Result<BTreeSet<String>, Error> {
    let layer = store.layer(key).or_else(|_| store.layer(&format!("snapshot:{key}")))?;
    Ok(store.changes(&layer)?.iter().map(|change| change.path.to_string()).collect())
}

fn snapshots(store: &Store) -> Snapshotter {
    Snapshotter::new(store.clone(), SnapshotterOptions::default()).unwrap()
}

fn of_store(error: SnapshotError) -> Error {
    match error {
        SnapshotError::Store(error) => error,
        error => panic!("{error}"),
    }
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Load,
    CreateContainer,
    Commit,
    Write,
    WriteFile,
    SyncInContainer,
    CreateImage,
    RemoveContainer,
    RemoveImage,
    DropBlobs,
    Gc,
    PutLayer,
    CopyLayer,
    ApplyDiff,
    Unseal,
    Seal,
    RemoveLayer,
    PrepareSnapshot,
    CommitSnapshot,
    RemoveSnapshot,
}

/// What a thread did: its part before the first operation and after each.
#[derive(Default, Debug)]
pub struct History {
    pub kinds: Vec<Kind>,
    pub parts: Vec<Part>,
}

/// A mark in the record: a thread begins or has done an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub thread: usize,
    pub operation: usize,
    pub done: bool,
}

impl Mark {
    fn write(self, mut to: &File) {
        let line = format!("{} {} {}", self.thread, self.operation, u8::from(self.done));
        to.write_all(line.as_bytes()).unwrap();
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let numbers: Vec<usize> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        Mark { thread: numbers[0], operation: numbers[1], done: numbers[2] == 1 }
    }
}

fn prefix(thread: usize) -> String {
    format!("t{thread}-")
}

/// The images that threads load: many small files and a large one, above a layer that all have.
pub fn write_images(directory: &Path, random: &mut Random) {
    let tree = |name: &str, files: usize, large: usize, random: &mut Random| {
        let root = Member::directory(".").mode(ROOT.0).owner(ROOT.1.into(), ROOT.2.into());
        let mut members = vec![root, Member::directory(name)];
        for number in 0..files {
            let length = 10 + random.below(6000);
            members.push(Member::file(format!("{name}/{number}"), random.bytes(length)));
        }
        members.push(Member::file(format!("{name}/large"), random.bytes(large)));
        members.push(Member::symlink(format!("{name}/link"), "large"));
        Layer::new(members)
    };
    let base = tree("base", 100, 200_000, random);
    for (thread, number) in all_images() {
        let own = tree(&format!("own{thread}{number}"), 120, 1_500_000, random);
        let compression = if number == 0 { Compression::Zstd } else { Compression::Gzip };
        let image = Image::new([base.clone(), own.compression(compression)]);
        image.write(layout(directory, thread, number), "image");
    }
}

/// The name that a thread gives to one of its images.
pub fn image_name(thread: usize, number: usize) -> String {
    format!("{}image{number}", prefix(thread))
}

/// Every image that can be loaded, by thread and number.
pub fn all_images() -> impl Iterator<Item = (usize, usize)> {
    (0..THREADS).flat_map(|thread| (0..IMAGES).map(move |number| (thread, number)))
}

fn layout(directory: &Path, thread: usize, number: usize) -> PathBuf {
    directory.join(format!("{thread}-{number}"))
}

/// One thread's work.
pub struct Worker<'a> {
    pub store: &'a Store,
    pub images: &'a Path,
    pub thread: usize,
    pub random: Random,
    pub marks: File,
}

impl Worker<'_> {
    /// Does so many operations.
    pub fn run(mut self, operations: usize) -> History {
        let mut history = History { kinds: Vec::new(), parts: vec![Part::default()] };
        for operation in 0..operations {
            let mut part = history.parts[operation].clone();
            let kind = self.next_kind(&part);
            let mark = Mark { thread: self.thread, operation, done: false };
            mark.write(&self.marks);
            self.act(kind, &mut part, operation).unwrap_or_else(|error| panic!("{kind:?}: {error:?}"));
            Mark { done: true, ..mark }.write(&self.marks);
            history.kinds.push(kind);
            history.parts.push(part);
        }
        history
    }

    fn next_kind(&mut self, part: &Part) -> Kind {
        if part.images.is_empty() {
            return Kind::Load;
        }
        if part.containers.is_empty() {
            return Kind::CreateContainer;
        }
        let unused = unused_images(part);
        let own = usize::from(!part.layers.is_empty());
        let kinds = [
            (6, Kind::Load),
            (4, Kind::CreateContainer),
            (5, Kind::Commit),
            (5, Kind::Write),
            (3, Kind::WriteFile),
            (4, Kind::SyncInContainer),
            (2, Kind::CreateImage),
            (2, Kind::RemoveContainer),
            (if unused.is_empty() { 0 } else { 3 }, Kind::RemoveImage),
            (1, Kind::DropBlobs),
            (2, Kind::Gc),
            (3, Kind::PutLayer),
            (own, Kind::CopyLayer),
            (2 * own, Kind::ApplyDiff),
            (2 * own, Kind::Unseal),
            (2 * own, Kind::Seal),
            (own, Kind::RemoveLayer),
            (if self.choose_snapshot(part, true).is_some() { 4 } else { 3 }, Kind::PrepareSnapshot),
            (if self.choose_snapshot(part, false).is_some() { 5 } else { 0 }, Kind::CommitSnapshot),
            (usize::from(!part.snapshots.is_empty()), Kind::RemoveSnapshot),
        ];
        let mut choice = self.random.below(kinds.iter().map(|(weight, _)| weight).sum());
        for (weight, kind) in kinds {
            if choice < weight {
                return kind;
            }
            choice -= weight;
        }
        Kind::Gc
    }

    fn act(&mut self, kind: Kind, part: &mut Part, serial: usize) -> Result<(), Error> {
        match kind {
            Kind::Load => {
                let number = self.random.below(IMAGES);
                let name = image_name(self.thread, number);
                let image = loop {
                    match load(self.store, self.images, self.thread, number, &name) {
                        // Another thread has just removed the last image with the layer that all have.
                        Err(Error::Import(ImportError::Vanished { .. })) => {}
                        loaded => break loaded?,
                    }
                };
                part.images.insert(name, image.to_string());
            }
            Kind::CreateContainer => {
                let ids: Vec<_> = part.images.values().cloned().collect();
                let image: ImageId = self.random.choose(&ids).unwrap().parse()?;
                let id = format!("{}container{serial}", prefix(self.thread));
                let mut options = ContainerOptions::named(format!("{id}-name"));
                options.id = Some(id.parse()?);
                options.metadata = format!("container {serial}");
                self.store.create_container(&image, &options)?;
                let row = Container {
                    metadata: options.metadata,
                    image: Some(image.to_string()),
                    ..Container::default()
                };
                part.containers.insert(id, row);
            }
            Kind::Commit => {
                let container = self.container(part);
                let id = container.parse()?;
                let of = self.store.container(&container)?;
                let mount = self.store.mount(&of, &MountOptions::default())?;
                for number in 0..20 {
                    let bytes = self.random.bytes(3000);
                    std::fs::write(mount.path().join(format!("written{serial}-{number}")), bytes).unwrap();
                }
                self.store.unmount(&of, UnmountMode::Plain)?;
                let name = format!("{}commit{serial}", prefix(self.thread));
                let image = self.store.commit(&id, &CommitOptions::named(&name))?;
                part.images.insert(name, image.id.to_string());
            }
            Kind::Write => {
                let container = self.container(part);
                let row = part.containers.get_mut(&container).unwrap();
                let of = self.store.container(&container)?;
                row.metadata = format!("changed {serial}");
                let length = [0, 100, 10_000, 700_000][self.random.below(4)];
                let bytes = self.random.bytes(length);
                self.store.write(|txn| {
                    txn.set_metadata(&of, &row.metadata)?;
                    txn.put_item(&of, "first", &bytes)?;
                    txn.put_item(&of, "second", &bytes)
                })?;
                row.items.insert("first".to_owned(), bytes.clone());
                row.items.insert("second".to_owned(), bytes);
            }
            Kind::WriteFile => {
                let container = self.container(part);
                let length = [0, 100, 10_000, 700_000][self.random.below(4)];
                let bytes = self.random.bytes(length);
                self.store.write_container_file(&container.parse()?, FILE, &bytes)?;
                part.containers.get_mut(&container).unwrap().file = Some(bytes);
            }
            Kind::SyncInContainer => {
                // As overlayfs does it for a process which knows that nothing else is on the disk.
                let container = self.container(part);
                let layer = self.store.container(&container)?.layer;
                let upper = self.store.layer_places(&layer)?.upper;
                let length = [0, 100, 10_000, 700_000][self.random.below(4)];
                let bytes = self.random.bytes(length);
                let mut file = File::create(upper.join("draft")).unwrap();
                file.write_all(&bytes).unwrap();
                file.sync_all().unwrap();
                std::fs::rename(upper.join("draft"), upper.join(SYNCED)).unwrap();
                File::open(&upper).unwrap().sync_all().unwrap();
                part.containers.get_mut(&container).unwrap().synced = Some(bytes);
            }
            Kind::CreateImage => {
                let ids: Vec<_> = part.images.values().cloned().collect();
                let of: ImageId = self.random.choose(&ids).unwrap().parse()?;
                let name = format!("{}made{serial}", prefix(self.thread));
                let mut options = ImageOptions::named(&name);
                options.top_layer = self.store.image(of.as_str())?.top_layer;
                // With the documents of that one it can be used like it.
                for item in self.store.items(&of)? {
                    options.items.push(NewItem::new(item.key.clone(), self.store.item(&of, &item.key)?));
                }
                part.images.insert(name, self.store.create_image(&options)?.id.to_string());
            }
            Kind::RemoveContainer => {
                let container = self.container(part);
                self.store.remove_container(&container.parse()?)?;
                part.containers.remove(&container);
            }
            Kind::RemoveImage => {
                let id = self.random.choose(&unused_images(part)).unwrap().clone();
                self.store.remove_image(&id.parse()?)?;
                part.images.retain(|_, other| *other != id);
            }
            Kind::PutLayer => {
                let id = format!("{}layer{serial}", prefix(self.thread));
                let (tar, files) = self.tar(serial);
                self.store.put_layer(None, &LayerOptions::with_id(id.parse()?), &*tar)?;
                part.layers.insert(id, OwnLayer { writable: false, files });
            }
            Kind::CopyLayer => {
                let (from, id) = (self.layer(part), format!("{}layer{serial}", prefix(self.thread)));
                let mut options = LayerOptions::with_id(id.parse()?);
                options.template = Some(from.parse()?);
                self.store.create_layer(None, &options)?;
                let row = part.layers[&from].clone();
                part.layers.insert(id, row);
            }
            Kind::ApplyDiff => {
                let id = self.layer(part);
                let (tar, files) = self.tar(serial);
                self.store.apply_diff(&id.parse()?, &*tar, &ApplyOptions::default())?;
                part.layers.get_mut(&id).unwrap().files.extend(files);
            }
            Kind::Unseal => {
                let id = self.layer(part);
                self.store.unseal(&id.parse()?)?;
                part.layers.get_mut(&id).unwrap().writable = true;
            }
            Kind::Seal => {
                let id = self.layer(part);
                self.store.seal(&id.parse()?)?;
                part.layers.get_mut(&id).unwrap().writable = false;
            }
            Kind::RemoveLayer => {
                let id = self.layer(part);
                self.store.remove_layer(&id.parse()?)?;
                part.layers.remove(&id);
            }
            Kind::PrepareSnapshot => {
                let key = format!("{}snapshot{serial}", prefix(self.thread));
                let parent = self.choose_snapshot(part, true);
                let labels = BTreeMap::from([("serial".to_owned(), serial.to_string())]);
                snapshots(self.store).prepare(&key, parent.as_deref(), &labels).map_err(of_store)?;
                part.snapshots.insert(key, Snapshot { parent, files: None });
            }
            Kind::CommitSnapshot => {
                let key = self.choose_snapshot(part, false).unwrap();
                let name = format!("{}committed{serial}", prefix(self.thread));
                let layer = self.store.layer(&format!("snapshot:{key}"))?;
                let upper = self.store.layer_places(&layer.id)?.upper;
                let files: BTreeSet<String> = (0..20).map(|number| format!("by{serial}-{number}")).collect();
                for file in &files {
                    std::fs::write(upper.join(file), self.random.bytes(3000)).unwrap();
                }
                let mut options = snapshotter::CommitOptions::default();
                let mut row = part.snapshots.remove(&key).unwrap();
                // One above nothing is moved onto another, perhaps.
                if row.parent.is_none() && self.random.once_in(2) {
                    row.parent = self.choose_snapshot(part, true);
                    options.parent.clone_from(&row.parent);
                }
                snapshots(self.store).commit(&name, &key, &options).map_err(of_store)?;
                row.files = Some(files);
                part.snapshots.insert(name, row);
            }
            Kind::RemoveSnapshot => {
                let is_below =
                    |key: &String| part.snapshots.values().any(|row| row.parent.as_ref() == Some(key));
                let key = part.snapshots.keys().find(|key| !is_below(key)).unwrap().clone();
                snapshots(self.store).remove(&key).map_err(of_store)?;
                part.snapshots.remove(&key);
            }
            Kind::DropBlobs => drop(self.store.drop_blobs(None)?),
            Kind::Gc => drop(self.store.gc(false)?),
        }
        Ok(())
    }

    /// A tar of some files, and their names.
    fn tar(&mut self, serial: usize) -> (Vec<u8>, BTreeSet<String>) {
        let names: BTreeSet<_> = (0..20).map(|number| format!("file{serial}-{number}")).collect();
        let members: Vec<_> = names.iter().map(|name| Member::file(name, self.random.bytes(3000))).collect();
        (archive(&members), names)
    }

    /// A snapshot that is committed, or one that is not.
    fn choose_snapshot(&mut self, part: &Part, committed: bool) -> Option<String> {
        let rows = part.snapshots.iter().filter(|(_, row)| row.files.is_some() == committed);
        let keys: Vec<_> = rows.map(|(key, _)| key.clone()).collect();
        self.random.choose(&keys).cloned()
    }

    fn layer(&mut self, part: &Part) -> String {
        let ids: Vec<_> = part.layers.keys().cloned().collect();
        self.random.choose(&ids).unwrap().clone()
    }

    fn container(&mut self, part: &Part) -> String {
        let ids: Vec<_> = part.containers.keys().cloned().collect();
        self.random.choose(&ids).unwrap().clone()
    }
}

fn unused_images(part: &Part) -> Vec<String> {
    let used = |id: &String| part.containers.values().any(|container| container.image.as_ref() == Some(id));
    part.images.values().filter(|id| !used(id)).cloned().collect()
}

/// Loads one of the images.
pub fn load(
    store: &Store,
    images: &Path,
    thread: usize,
    number: usize,
    name: &str,
) -> Result<ImageId, Error> {
    let reference = format!("oci:{}:image", layout(images, thread, number).display());
    let source = Source::open(&reference.parse()?, store.root())?;
    Ok(store.load(&source, &LoadOptions::named(name))?.id)
}
