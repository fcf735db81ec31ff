//! A damaged database file through everything that is done with one: for the tests and the fuzzer.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use layerstore_schema::header::Header;
use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{
    ContainerRecord, DiffRecord, ImageRecord, KeptBlobRecord, LayerBlob, LayerContent, LayerRecord,
    LeaseRecord, Time,
};
use layerstore_schema::table::{LayerKey, Owner, TableVisitor, visit_all};
use redb::{Key, TableDefinition, Value};

use super::page::{Node, PageNumber, TableRow, Widths};
use super::{
    BlobKind, Database, DatabaseOptions, PreparedBlob, Query, ReadTxn, Records, Tables, Unused, WriteTxn,
    chain, journal_after, journal_bounds, made_empty, made_empty_in, read_blob, stored_rows, stores_beside,
    transient_note, unsynced,
};
use super::{page, system};
use crate::error::MetaError;
use crate::sys::file::File;
use crate::types::TreeDigest;

const PAGE: usize = 4096;

/// Whether a page of the file says the number of one that is larger than the file. No such page is there; redb takes memory for it
/// all the same, before it reads it. Bytes that are no page, or no longer one, may look so, too.
pub(crate) fn names_a_larger_page(file: &[u8]) -> bool {
    let length = u64::try_from(file.len()).unwrap_or(u64::MAX);
    let is_larger =
        |number: PageNumber| page::PAGE.checked_shl(number.order()).is_none_or(|size| size > length);
    (0..file.len())
        .step_by(PAGE)
        .filter_map(|at| file.get(at..))
        .any(|page| below(page).into_iter().any(is_larger))
}

/// The numbers of pages in a page, if it is a branch or has tables. They are read as redb reads them, which looks at little else.
fn below(bytes: &[u8]) -> Vec<PageNumber> {
    match *bytes {
        [page::BRANCH, _, low, high, ..] => {
            let children = usize::from(u16::from_le_bytes([low, high])) + 1;
            let numbers = bytes.get(8 + 16 * children..).unwrap_or_default().as_chunks().0;
            numbers.iter().take(children).map(|number| PageNumber(u64::from_le_bytes(*number))).collect()
        }
        [page::LEAF, ..] => {
            let Ok((Node::Leaf(leaf), _)) = Node::unchecked(bytes, Widths::TABLES) else { return Vec::new() };
            let tables = leaf.rows().filter_map(|(_, row)| TableRow::read(row));
            tables.filter(|table| table.is_plain).filter_map(|table| Some(table.root?.page)).collect()
        }
        _ => Vec::new(),
    }
}

/// The bytes of every row, by table.
pub(crate) type Rows = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// Reads every row of every table.
pub(crate) fn every_row(tables: &impl Tables) -> Result<Rows, MetaError> {
    struct Read<'t, T>(&'t T, Rows);
    impl<T: Tables> TableVisitor for Read<'_, T> {
        type Error = MetaError;
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
        ) -> Result<(), MetaError> {
            let mut rows = Vec::new();
            for row in self.0.open(table)?.iter()? {
                let (key, value) = row?;
                let key = K::as_bytes(&key.value()).as_ref().to_vec();
                rows.push((key, V::as_bytes(&value.value()).as_ref().to_vec()));
            }
            self.1.insert(redb::TableHandle::name(&table).to_owned(), rows);
            Ok(())
        }
    }
    let mut read = Read(tables, Rows::new());
    visit_all(&mut read)?;
    Ok(read.1)
}

/// A change of a file that nobody expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Other bytes at an offset.
    Write(usize, Vec<u8>),
    /// One bit is another: which byte, and which of its bits.
    Flip(usize, u8),
    /// A page of zeros.
    Zero(usize),
    /// One page has the bytes of another.
    Copy { from: usize, to: usize },
    /// Another length.
    Resize(usize),
}

impl Edit {
    /// Does it. What lies beyond the end is nowhere.
    pub(crate) fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Edit::Write(at, bytes) => {
                for (old, new) in file.iter_mut().skip(*at).zip(bytes) {
                    *old = *new;
                }
            }
            Edit::Flip(at, bit) => {
                if let Some(byte) = file.get_mut(*at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Edit::Zero(page) => file.iter_mut().skip(page * PAGE).take(PAGE).for_each(|byte| *byte = 0),
            Edit::Copy { from, to } => {
                let bytes: Vec<u8> = file.iter().skip(from * PAGE).take(PAGE).copied().collect();
                Edit::Write(to * PAGE, bytes).apply(file);
            }
            Edit::Resize(length) => file.resize(*length, 0),
        }
    }
}

/// A sound file, and what is in it.
pub(crate) struct Golden {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: Rows,
    /// Where the pages are that redb keeps for itself: their offsets in bytes.
    pub(crate) own: Vec<usize>,
}

impl Golden {
    /// Makes one in a directory: every kind of row, and tables of more than one page.
    pub(crate) fn make(dir: &Path) -> Result<Self, MetaError> {
        let first = Database::new(dir.join("first.redb"), options());
        first.create(|txn| txn.initialize(Header { format: 0, ..Header::new([1; 16], 0) }).map(drop))?;
        first.write::<_, MetaError>(fill)?;
        let path = dir.join("golden.redb");
        first.backup(&path, true)?;
        let golden = Database::new(path.clone(), options());
        // What a reader still sees stays on the lists of pages that are to be freed.
        let reader = golden.begin_read()?;
        golden.write::<_, MetaError>(change)?;
        // The commit before the last one is in the file as well, and says the same.
        for _ in 0..3 {
            golden.write::<_, MetaError>(|_| Ok(()))?;
        }
        let rows = every_row(&golden.begin_read()?)?;
        let bytes = fs::read(&path).map_err(MetaError::Input)?;
        drop((reader, golden));
        let own = system::verify(&File::open(&path).map_err(MetaError::Input)?);
        let own = own.map_err(|fault| MetaError::Input(io::Error::other(format!("{fault:?}"))))?;
        let offset = |page: u64| usize::try_from((page + 1) * page::PAGE).unwrap_or_default();
        Ok(Golden { bytes, rows, own: own.into_iter().flatten().map(offset).collect() })
    }
}

fn options() -> DatabaseOptions {
    // A lock that is left stays for ever. One that a process has which another thread has just forked passes.
    let lock_timeout = Duration::from_secs(10);
    DatabaseOptions { lock_timeout, cache_size: 1 << 20, sync: false, ..DatabaseOptions::default() }
}

fn fill(txn: &WriteTxn) -> Result<(), MetaError> {
    for number in 0..60u8 {
        let tree = TreeDigest([number / 2; 32]);
        if number % 2 == 0 {
            let manifest = PreparedBlob::from_bytes(format!("manifest {number}").as_bytes());
            let numbered = u64::from(number);
            let diff = DiffRecord {
                number: numbered,
                content_bytes: 3,
                disk_bytes: 4096,
                inodes: 2,
                manifest: [0; 32],
            };
            txn.put_diff(&tree, diff, &manifest)?;
            txn.mark_unsynced(numbered, "boot")?;
        }
        let digest = format!("sha256:{number:064}");
        txn.put_layer(&LayerRecord {
            parent: number.checked_sub(1).map(|parent| format!("layer-{parent:03}")),
            names: vec![format!("name of {number}")],
            diff_id: Some(digest.clone()),
            blobs: vec![LayerBlob { digest: digest.clone(), size: 1, media_type: "application/x".into() }],
            ..LayerRecord::new(format!("layer-{number:03}"), Time::default(), LayerContent::Sealed(tree.0))
        })?;
        txn.put_kept_blob(&digest, &KeptBlobRecord { number: 100 + u64::from(number), size: 9 })?;
    }
    txn.mark_made_empty(1000, "boot")?;
    txn.put_image(&ImageRecord {
        id: "image-0".into(),
        names: vec!["image".into()],
        names_history: vec!["image".into()],
        metadata: "of an image".into(),
        created: Time::default(),
        top_layer: Some("layer-059".into()),
        mapped_top_layers: vec!["layer-058".into()],
        digests: vec!["sha256:1".into()],
        given_digests: Vec::new(),
        manifests: Vec::new(),
        flags: Vec::new(),
        labels: vec![("a".into(), "b".into())],
        directory: Some(200),
    })?;
    txn.put_container(&ContainerRecord {
        id: "container-0".into(),
        names: vec!["web".into()],
        image: Some("image-0".into()),
        layer: "layer-059".into(),
        metadata: String::new(),
        created: Time::default(),
        flags: Vec::new(),
        labels: Vec::new(),
        mount_options: Vec::new(),
        mount_label: None,
        process_label: None,
        volatile: false,
        uid_map: Vec::new(),
        gid_map: Vec::new(),
        directory: Some(201),
    })?;
    // One that fills pages of its own, and some that share one.
    let noise: Vec<u8> = (0..20_000u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    for (key, bytes) in [("large", noise.as_slice()), ("small", b"{}"), ("manifest", b"[1]")] {
        let blob = PreparedBlob::from_bytes(bytes);
        txn.put_item(Owner::Image, "image-0", key, "sha256:x".into(), &blob)?;
    }
    txn.put_lease(&LeaseRecord {
        id: "lease-0".into(),
        things: vec![(Owner::Image.code(), "image-0".into())],
        created: Time::default(),
        expires: Time::default(),
    })
}

/// Writes other values into most pages.
fn change(txn: &WriteTxn) -> Result<(), MetaError> {
    for number in 0..60u8 {
        let digest = format!("sha256:{number:064}");
        txn.put_kept_blob(&digest, &KeptBlobRecord { number: 100 + u64::from(number), size: 10 })?;
    }
    let blob = PreparedBlob::from_bytes(&[9; 9000]);
    txn.put_item(Owner::Image, "image-0", "large", "sha256:x".into(), &blob)
}

/// What came out of a file.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Every row, if all of it could be read.
    pub(crate) rows: Option<Rows>,
    /// Whether every page was found to be as it was written.
    pub(crate) sound: bool,
    /// Whether that was so after everything was done with it.
    pub(crate) sound_after: bool,
    /// What went wrong, in the order in which it did.
    pub(crate) errors: Vec<MetaError>,
}

impl Outcome {
    fn note<T>(&mut self, result: Result<T, MetaError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }
}

/// Opens the file with these bytes and does everything with it that a store does: reads all of it, writes, copies and
/// compacts it.
pub(crate) fn exercise(dir: &Path, bytes: &[u8], read_only: bool) -> io::Result<Outcome> {
    let path = dir.join("store.redb");
    put(&path, bytes)?;
    let mut outcome = Outcome::default();
    let database = Database::new(path.clone(), DatabaseOptions { read_only, ..options() });
    outcome.rows = outcome.note(database.begin_read().and_then(|txn| every_row(&txn)));
    for read in READS {
        outcome.note(database.begin_read().and_then(|txn| read(&txn)));
    }
    outcome.note(database.change_counter().map(|counter| counter.current()));
    let verified = outcome.note(database.verify());
    outcome.sound = verified.is_some();
    if read_only {
        return Ok(outcome);
    }
    for write in WRITES {
        outcome.note(database.write(write));
    }
    outcome.note(database.backup(&dir.join("copy.redb"), true));
    outcome.note(database.compact());
    outcome.note(database.begin_read().and_then(|txn| every_row(&txn)));
    outcome.sound_after = outcome.note(database.verify()).is_some();
    Ok(outcome)
}

/// Puts other bytes in the place of a file's, which stays the same file.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(bytes, 0)
}

/// Whether a writer that does not wait gets the lock of a file.
pub(crate) fn is_writable(path: &Path) -> Result<(), MetaError> {
    Database::new(path.to_owned(), options()).write(|_| Ok(()))
}

type Reading = fn(&ReadTxn) -> Result<(), MetaError>;

const READS: [Reading; 10] = [
    |txn| Records::read(txn).map(drop),
    |txn| stored_rows(txn).map(drop),
    |txn| unsynced(txn).and(made_empty(txn)).and(made_empty_in(txn, 1000)).map(drop),
    |txn| {
        txn.header()?;
        stores_beside(txn)?;
        transient_note(txn)?;
        txn.counts().map(drop)
    },
    |txn| {
        let first = journal_bounds(txn)?.map_or(0, |(first, _)| first);
        journal_after(txn, first, 100).map(drop)
    },
    |txn| {
        for layer in txn.layers()? {
            chain(&layer.id, |id| txn.layer_ref(id))?;
            txn.children(&layer.id)?;
        }
        Ok(())
    },
    |txn| {
        txn.diffs()?;
        txn.kept_blobs()?;
        txn.leases()?;
        txn.containers()?;
        txn.images().map(drop)
    },
    |txn| {
        txn.named(Owner::Layer, "name of 7")?;
        txn.by_prefix(Owner::Layer, "layer-01")?;
        txn.layers_by(LayerKey::Tree, "b3:0")?;
        txn.container_of_layer("layer-059").map(drop)
    },
    |txn| {
        for (_, item) in txn.items(Owner::Image, "image-0")? {
            // A hash says whether it is right.
            read_blob(txn, &item.blob, BlobKind::Item).ok();
        }
        Ok(())
    },
    |txn| {
        for (_, diff) in txn.diffs()? {
            drop(read_blob(txn, &diff.manifest, BlobKind::Manifest).map(|bytes| Manifest::decode(&bytes)));
        }
        Ok(())
    },
];

type Writing = fn(&WriteTxn) -> Result<(), MetaError>;

const WRITES: [Writing; 6] = [
    |txn| txn.put_layer(&LayerRecord::new("new", Time::default(), LayerContent::Writable(1000))),
    |txn| {
        let blob = PreparedBlob::from_bytes(&[7; 5000]);
        txn.put_item(Owner::Image, "image-0", "large", "sha256:y".into(), &blob)
    },
    |txn| txn.remove_layer("layer-059").map(drop),
    |txn| txn.remove_layer("layer-001").map(drop),
    |txn| txn.remove_image("image-0").map(drop),
    |txn| txn.normalize(Unused::Remove).map(drop),
];
