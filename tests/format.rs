//! Stores of every format that was ever released open with this build, and say what they said.
//!
//! `schema/golden/v<format>/store.tar.zst` is a store, `expected.json` beside it all that it says. Neither is ever
//! changed; a new format adds a directory. [`make`] made them, and says what is in them.

mod describe;
mod make;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use layerstore::oci::{LoadOptions, Reference, Source, Transport};
use layerstore::{
    CheckLevel, CheckOptions, ContainerOptions, Error, Finding, LayoutError, MetaError, Store, StoreOptions,
    SyncMode,
};
use layerstore_schema::header::{HEADER_KEY, Header, HeaderError};
use layerstore_schema::table;
use redb::{Builder, ConcurrencyMode, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use serde_json::Value;

use self::describe::describe;
use crate::support::oci::{self, Layer};
use crate::support::tar::Member;
use crate::support::{Dir, machine};

/// The directory with the golden store of a format.
fn golden(format: u32) -> PathBuf {
    machine::repository().join(format!("schema/golden/v{format}"))
}

fn options(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0)
}

/// Unpacks a golden store.
fn unpacked(format: u32) -> Dir {
    let dir = Dir::new("golden");
    let path = golden(format).join("store.tar.zst");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    unpack(&zstd::decode_all(&bytes[..]).unwrap(), dir.path());
    dir
}

/// Unpacks with everything that a layer's directory has; no tar program does that in every environment.
fn unpack(bytes: &[u8], top: &Path) {
    let mut archive = tar::Archive::new(bytes);
    let mut times = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = top.join(entry.path().unwrap());
        let mode = Mode::from_raw_mode(entry.header().mode().unwrap());
        let records: BTreeMap<String, Vec<u8>> =
            entry.pax_extensions().unwrap().map_or_else(BTreeMap::new, |list| {
                list.map(|record| record.unwrap())
                    .map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec()))
                    .collect()
            });
        let kind = entry.header().entry_type();
        if kind.is_hard_link() {
            std::fs::hard_link(top.join(entry.link_name().unwrap().unwrap()), &path).unwrap();
            continue;
        } else if kind.is_dir() {
            std::fs::create_dir_all(&path).unwrap();
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(entry.link_name().unwrap().unwrap(), &path).unwrap();
        } else if kind.is_fifo() {
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
        } else if kind.is_character_special() {
            // A whiteout, which everybody may make.
            rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, 0).unwrap();
        } else {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            std::fs::write(&path, content).unwrap();
        }
        for (key, value) in &records {
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty()).unwrap();
            }
        }
        if !kind.is_symlink() {
            rustix::fs::chmod(&path, mode).unwrap();
        }
        let mtime = records.get("mtime").map_or_else(
            || entry.header().mtime().unwrap().to_string(),
            |text| String::from_utf8(text.clone()).unwrap(),
        );
        times.push((path, mtime));
    }
    for (path, mtime) in times.iter().rev() {
        let time = timespec(mtime);
        let both = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// A time as an archive has it: decimal seconds, before 1970 with a sign.
fn timespec(text: &str) -> Timespec {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (seconds, nanoseconds): (i64, i64) =
        (seconds.parse().unwrap(), format!("{fraction:0<9}").parse().unwrap());
    match nanoseconds {
        // A fraction counts away from zero, and the kernel's always forwards.
        1.. if text.starts_with('-') => {
            Timespec { tv_sec: seconds - 1, tv_nsec: 1_000_000_000 - nanoseconds }
        }
        _ => Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    }
}

#[test]
fn the_store_of_format_1_says_what_it_said() {
    let dir = unpacked(1);
    let store = Store::open(&options(&dir).create(false)).unwrap();
    let expected: Value =
        serde_json::from_slice(&std::fs::read(golden(1).join("expected.json")).unwrap()).unwrap();
    let found = describe(&store);
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key}");
    }
    let mut deep = CheckOptions::default();
    deep.level = CheckLevel::Deep;
    let report = store.check(&deep).unwrap();
    let codes: Vec<_> = report.findings.iter().map(Finding::code).collect();
    assert_eq!(
        codes,
        ["additional-missing"],
        "the additional layer store is not here: {:?}",
        report.findings
    );
    // It is as alive as any other.
    let (containers, images) = (store.containers().unwrap().len(), store.images().unwrap().len());
    let web = store.container("web").unwrap();
    store.write(|txn| txn.put_item(&web, "new", b"item")).unwrap();
    let image = store.image("golden").unwrap();
    store.create_container(&image.id, &ContainerOptions::named("second")).unwrap();
    assert_eq!(store.containers().unwrap().len(), containers + 1);
    let other = oci::Image::new([Layer::new([Member::file("other", b"other")])]);
    load(&store, &other, &dir.join("other"), "other");
    assert_eq!(store.images().unwrap().len(), images + 1);
}

/// A row of each kind, in each form: whoever changes how one is read sees it fail here.
#[test]
fn the_store_of_format_1_has_rows_of_every_table() {
    let dir = unpacked(1);
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    let database = builder.create(dir.root().join("store.redb")).unwrap();
    let txn = database.begin_read().unwrap();
    struct Rows<'t>(&'t redb::ReadTransaction);
    impl table::TableVisitor for Rows<'_> {
        type Error = redb::Error;

        fn visit<K: redb::Key + 'static, V: redb::Value + 'static>(
            &mut self,
            table: redb::TableDefinition<'static, K, V>,
        ) -> Result<(), redb::Error> {
            let name = table.to_string();
            assert!(!self.0.open_table(table)?.is_empty()?, "{name}");
            Ok(())
        }
    }
    table::visit_all(&mut Rows(&txn)).unwrap();
}

/// Changes the header of an unpacked store.
fn with_header(change: impl FnOnce(Header) -> Option<Vec<u8>>) -> Dir {
    let dir = unpacked(1);
    let path = dir.root().join("store.redb");
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    let database = builder.create(path).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let mut meta = txn.open_table(table::META).unwrap();
        let bytes = meta.get(HEADER_KEY).unwrap().unwrap().value().to_vec();
        match change(Header::decode(&bytes).unwrap()) {
            Some(bytes) => drop(meta.insert(HEADER_KEY, bytes.as_slice()).unwrap()),
            None => drop(meta.remove(HEADER_KEY).unwrap()),
        };
    }
    txn.commit().unwrap();
    dir
}

fn refusal(dir: &Dir) -> Error {
    Store::open(&options(dir)).expect_err("the store was opened")
}

#[test]
fn what_this_build_does_not_know_is_refused() {
    let flag = 1 << 40;
    let dir = with_header(|header| {
        Some(Header { incompatible: header.incompatible | flag, ..header }.encode().to_vec())
    });
    let error = refusal(&dir);
    assert!(
        matches!(&error, Error::Meta(MetaError::Format { source: HeaderError::Features(found), .. }) if *found == flag),
        "{error:?}"
    );
    let dir = with_header(|header| Some(Header { format: 2, ..header }.encode().to_vec()));
    let error = refusal(&dir);
    let newer = HeaderError::Newer { found: 2 };
    assert!(matches!(&error, Error::Meta(MetaError::Format { source, .. }) if *source == newer), "{error:?}");
    let dir = unpacked(1);
    let marker = dir.root().join("LAYERSTORE");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replacen("layerstore 1", "layerstore 2", 1)).unwrap();
    let error = refusal(&dir);
    assert!(matches!(error, Error::Layout(LayoutError::NewerFormat { found: 2, .. })), "{error:?}");
}

#[test]
fn a_damaged_header_is_named() {
    let error = refusal(&with_header(|header| Some(header.encode()[..40].to_vec())));
    let length = HeaderError::Length(40);
    assert!(
        matches!(&error, Error::Meta(MetaError::Format { source, .. }) if *source == length),
        "{error:?}"
    );
    let error = refusal(&with_header(|_| None));
    assert!(matches!(error, Error::Meta(MetaError::NoHeader { .. })), "{error:?}");
    let dir = unpacked(1);
    std::fs::write(dir.root().join("LAYERSTORE"), "not a marker\n").unwrap();
    let error = refusal(&dir);
    assert!(matches!(error, Error::Marker { .. }), "{error:?}");
}

#[test]
fn unknown_flags_that_do_no_harm_are_borne() {
    let dir = with_header(|header| Some(Header { compatible: 1 << 40, ..header }.encode().to_vec()));
    let store = Store::open(&options(&dir)).unwrap();
    store.create_container(None, &ContainerOptions::named("new")).unwrap();

    let dir =
        with_header(|header| Some(Header { read_only_compatible: 1 << 40, ..header }.encode().to_vec()));
    let store = Store::open(&options(&dir)).unwrap();
    let containers = store.containers().unwrap().len();
    let before = diff_directories(&store).len();
    let error = store.create_container(None, &ContainerOptions::named("new")).unwrap_err();
    assert!(matches!(error, Error::Meta(MetaError::ReadOnly { .. })), "{error:?}");
    assert_eq!(store.containers().unwrap().len(), containers);
    assert_eq!(diff_directories(&store).len(), before, "nothing is left of it");
}

fn load(store: &Store, image: &oci::Image, layout: &Path, tag: &str) -> layerstore::Image {
    let written = image.write(layout, tag);
    let reference = Reference::new(Transport::Layout, &written.layout, Some(tag)).unwrap();
    let source = Source::open(&reference, store.root()).unwrap();
    store.load(&source, &LoadOptions::named(tag)).unwrap()
}

fn diff_directories(store: &Store) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.root().join("diffs")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}
