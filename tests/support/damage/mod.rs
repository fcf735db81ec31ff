//! A small store, ways to damage it past everything that keeps it right, and a table of all kinds of damage.

mod cases;

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};

use layerstore::oci::{LoadOptions, Source};
use layerstore::{CheckLevel, CheckOptions, ContainerOptions, Finding, Store, StoreOptions, SyncMode};
use layerstore_schema::record::{BlobRecord, DiffRecord, ItemRecord, LayerContent, LayerRecord, Record};
use layerstore_schema::table;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::oci::{Image, Layer};
use super::tar::Member;
use super::{Dir, database};

pub use cases::CASES;

/// What a repair needs to mend a damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// The rest of the store.
    Nothing,
    /// The blobs that the layers came as, kept or in an image outside.
    Blobs,
    /// An image outside.
    Source,
    /// Leave to remove what cannot be had again.
    Force,
    /// It is not the store's to mend.
    Somebody,
}

/// One kind of damage.
pub struct Case {
    pub name: &'static str,
    /// Does it.
    pub make: fn(&Fixture),
    /// The codes that a deep check finds, each once, in alphabetical order.
    pub codes: &'static [&'static str],
    pub needs: Needs,
}

/// A store with one image of two layers and one container.
pub struct Fixture {
    pub dir: Dir,
    pub store: Store,
    pub image: layerstore::Image,
    pub container: layerstore::Container,
}

pub fn image() -> Image {
    let base = [
        Member::directory("etc"),
        Member::file("etc/passwd", "root:x:0:0\n").mode(0o640).mtime(1_600_000_000, 123),
        Member::file("etc/shadow", "secret\n").mode(0o600),
        Member::symlink("etc/link", "passwd"),
        Member::hard_link("etc/twin", "etc/shadow"),
        Member::fifo("pipe"),
        Member::file("large", vec![7; 600_000]),
    ];
    let top = [
        Member::file("app", "v1"),
        Member::directory("etc"),
        Member::whiteout("etc/link"),
        Member::file("lib/deep/tool", "a file in directories that the archive does not name"),
        Member::directory("solid"),
        Member::opaque("solid"),
    ];
    Image::new([Layer::new(base), Layer::new(top)])
}

pub fn open(dir: &Dir) -> Store {
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    Store::open(&options).unwrap()
}

pub fn load(dir: &Dir, store: &Store, image: &Image, name: &str) -> layerstore::Image {
    let written = image.write(dir.join(format!("layout-{name}")), name);
    let source = Source::open(&written.reference().parse().unwrap(), dir.path()).unwrap();
    store.load(&source, &LoadOptions::named(name)).unwrap()
}

impl Fixture {
    pub fn new() -> Self {
        let dir = Dir::new("check");
        let store = open(&dir);
        let image = load(&dir, &store, &image(), "demo");
        let container = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
        Fixture { dir, store, image, container }
    }

    pub fn codes(&self, level: CheckLevel) -> Vec<&'static str> {
        codes(&self.store, level)
    }

    /// What each level finds, from the quickest to the deepest.
    #[track_caller]
    pub fn finds(&self, quick: &[&str], default: &[&str], deep: &[&str]) {
        assert_eq!(self.codes(CheckLevel::Quick), quick, "quick");
        assert_eq!(self.codes(CheckLevel::Default), default, "default");
        assert_eq!(self.codes(CheckLevel::Deep), deep, "deep");
    }

    /// The directory of the lower layer.
    pub fn base(&self) -> PathBuf {
        self.below("diffs").into_iter().find(|path| path.join("etc/passwd").exists()).unwrap()
    }

    pub fn below(&self, which: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.dir.root().join(which)) else { return Vec::new() };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// Changes the database past everything that keeps it right.
    pub fn edit(&self, change: impl FnOnce(&WriteTransaction)) {
        database::edit(&self.dir.root(), change);
    }

    pub fn edit_record<R: Record>(
        &self,
        definition: TableDefinition<'static, &'static str, &'static [u8]>,
        id: &str,
        change: impl FnOnce(&mut R),
    ) {
        self.edit(|txn| {
            let mut rows = txn.open_table(definition).unwrap();
            let mut record = R::decode(rows.get(id).unwrap().unwrap().value()).unwrap();
            change(&mut record);
            rows.insert(id, record.encode().unwrap().as_slice()).unwrap();
        });
    }

    pub fn base_layer(&self) -> String {
        let top = self.image.top_layer.clone().unwrap();
        self.store.layer_chain(&top).unwrap().last().unwrap().id.to_string()
    }

    /// The layout that the image came from.
    pub fn source(&self) -> Source {
        Source::open(
            &format!("oci:{}", self.dir.join("layout-demo").display()).parse().unwrap(),
            self.dir.path(),
        )
        .unwrap()
    }

    pub fn layer_record(&self, id: &str) -> LayerRecord {
        let mut found = None;
        self.edit_record(table::LAYERS, id, |record: &mut LayerRecord| found = Some(record.clone()));
        found.unwrap()
    }

    /// The row of the lower layer's directory.
    pub fn edit_diff(&self, change: impl FnOnce(&mut DiffRecord)) {
        let LayerContent::Sealed(tree) = self.layer_record(&self.base_layer()).content else { panic!() };
        self.edit(|txn| {
            let mut rows = txn.open_table(table::DIFFS).unwrap();
            let mut record = DiffRecord::decode(rows.get(&tree).unwrap().unwrap().value()).unwrap();
            change(&mut record);
            rows.insert(&tree, record.encode().unwrap().as_slice()).unwrap();
        });
    }

    pub fn manifest_hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        self.edit_diff(|diff| hash = diff.manifest);
        hash
    }

    pub fn edit_item(&self, kind: table::Owner, id: &str, key: &str, change: impl FnOnce(&mut ItemRecord)) {
        self.edit(|txn| {
            let mut items = txn.open_table(table::ITEMS).unwrap();
            let row = (kind.code(), id, key);
            let mut item = ItemRecord::decode(items.get(row).unwrap().unwrap().value()).unwrap();
            change(&mut item);
            items.insert(row, item.encode().unwrap().as_slice()).unwrap();
        });
    }

    /// The hash of an item's bytes.
    pub fn item_hash(&self, kind: table::Owner, id: &str, key: &str) -> [u8; 32] {
        let mut hash = [0; 32];
        self.edit_item(kind, id, key, |item| hash = item.blob);
        hash
    }

    pub fn edit_blob(&self, hash: &[u8; 32], change: impl FnOnce(&mut BlobRecord)) {
        self.edit(|txn| {
            let mut rows = txn.open_table(table::BLOBS).unwrap();
            let mut record = BlobRecord::decode(rows.get(hash).unwrap().unwrap().value()).unwrap();
            change(&mut record);
            rows.insert(hash, record.encode().unwrap().as_slice()).unwrap();
        });
    }

    /// Changes one bit of bytes in the database.
    pub fn flip(&self, hash: &[u8; 32]) {
        let mut number = 0;
        self.edit_blob(hash, |record| number = record.number);
        self.edit(|txn| {
            let mut chunks = txn.open_table(table::BLOB_CHUNKS).unwrap();
            let mut bytes = chunks.get((number, 0)).unwrap().unwrap().value().to_owned();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            chunks.insert((number, 0), bytes.as_slice()).unwrap();
        });
    }

    pub fn top_layer(&self) -> String {
        self.image.top_layer.as_ref().unwrap().to_string()
    }
}

pub fn findings(store: &Store, level: CheckLevel) -> Vec<Finding> {
    let mut options = CheckOptions::default();
    options.level = level;
    store.check(&options).unwrap().findings
}

pub fn codes(store: &Store, level: CheckLevel) -> Vec<&'static str> {
    findings(store, level).iter().map(Finding::code).collect()
}

/// Changes one byte, as a stray write does: the time of the file tells of it too.
pub fn overwrite(path: &Path) {
    std::os::unix::fs::FileExt::write_at(&File::options().write(true).open(path).unwrap(), b"!", 100)
        .unwrap();
}

/// Changes something in a directory, and takes back what that does to the times of the path and its directory.
pub fn quietly(path: &Path, change: impl FnOnce(&Path)) {
    let time = |path: &Path| path.symlink_metadata().ok().map(|found| found.modified().unwrap());
    let parent = path.parent().unwrap();
    let (own, above) = (time(path), time(parent).unwrap());
    change(path);
    let set = |path: &Path, time| {
        File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    if let Some(own) = own
        && path.symlink_metadata().is_ok_and(|found| found.is_file() || found.is_dir())
    {
        set(path, own);
    }
    set(parent, above);
}
