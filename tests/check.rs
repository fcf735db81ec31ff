//! Every kind of damage, made by hand, is found under its own code; whole stores are clean; what crashes leave is
//! collected and nothing else.

use std::fs::{File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    CheckLevel, CheckOptions, ContainerOptions, Damage, Error, Finding, LayerOptions, MountOptions, Progress,
    UnmountMode,
};
use layerstore_schema::record::{ContainerRecord, ItemRecord, LayerRecord, LeaseRecord, Record, Time};
use layerstore_schema::table;
use redb::{ReadableTable, WriteTransaction};

use crate::support::damage::{CASES, Fixture, findings, image, load, open, quietly};
use crate::support::oci::{Image, Layer};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine};

#[test]
fn a_store_is_clean_through_its_whole_life() {
    let fixture = Fixture::new();
    let Fixture { dir, store, image, container } = &fixture;
    fixture.finds(&[], &[], &[]);
    let report = store.check(&CheckOptions::default()).unwrap();
    assert!(report.is_clean() && report.checked.directories == 3 && report.checked.files > 8);
    assert!(report.checked.records > 10 && report.checked.bytes == 0);

    // An ordinary user may have a program that mounts, and yet not be allowed to unmount.
    let mounted = machine::is_root().then(|| store.mount(container, &MountOptions::default()));
    match mounted {
        None => machine::note_skip("mounting in a clean store: it needs root or a user namespace"),
        Some(Ok(mount)) => {
            std::fs::write(mount.path().join("etc/passwd"), "changed").unwrap();
            std::fs::remove_file(mount.path().join("large")).unwrap();
            fixture.finds(&[], &[], &[]);
            assert!(store.gc(false).unwrap().removed.is_empty());
            assert_eq!(std::fs::read(mount.path().join("etc/passwd")).unwrap(), b"changed");
            store.unmount(container, UnmountMode::Plain).unwrap();
        }
        Some(Err(Error::Mount(error))) => machine::note_skip(&format!("mounting in a clean store: {error}")),
        Some(Err(error)) => panic!("{error}"),
    }
    let committed = store.commit(&container.id, &CommitOptions::named("committed")).unwrap();
    load(dir, store, &Image::new([Layer::new([Member::file("other", "x")])]), "other");
    fixture.finds(&[], &[], &[]);

    store.remove_container(&container.id).unwrap();
    store.remove_image(&committed.id).unwrap();
    store.remove_image(&image.id).unwrap();
    fixture.finds(&[], &[], &[]);
    store.remove_image(&store.image("other").unwrap().id).unwrap();
    fixture.finds(&[], &[], &[]);
    for which in ["diffs", "blobs", "work", "locks", "trash"] {
        assert!(fixture.below(which).is_empty(), "{which}");
    }
    let report = store.gc(false).unwrap();
    assert!(report.removed.is_empty() && report.left.is_empty());
}

#[test]
fn a_check_beside_writers_is_clean() {
    let dir = Dir::new("check");
    let store = open(&dir);
    let made = image();
    load(&dir, &store, &made, "stays");
    let written = Image::new([Layer::new([Member::file("file", "x")])]).write(dir.join("churn"), "churn");
    let source = Source::open(&written.reference().parse().unwrap(), dir.path()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let image = store.load(&source, &LoadOptions::named("churn")).unwrap();
                let container = store.create_container(&image.id, &ContainerOptions::default()).unwrap();
                store.remove_container(&container.id).unwrap();
                store.remove_image(&image.id).unwrap();
            }
        });
        let checked: Vec<_> = (0..15)
            .map(|round| {
                if round % 3 == 0 {
                    store.gc(false).unwrap();
                }
                findings(&store, CheckLevel::Deep)
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(checked.concat(), []);
    });
}

/// The check has its records from the beginning, and looks at directories that are gone since.
#[test]
fn what_is_removed_during_the_check_is_no_damage() {
    let fixture = Fixture::new();
    let removed = AtomicBool::new(false);
    let progress = |_: &Progress<'_>| {
        if !removed.swap(true, Ordering::Relaxed) {
            fixture.store.remove_container(&fixture.container.id).unwrap();
            fixture.store.remove_image(&fixture.image.id).unwrap();
        }
    };
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    options.progress = Some(&progress);
    let report = fixture.store.check(&options).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.checked.directories, 3);
    assert!(fixture.below("diffs").is_empty());
}

#[test]
fn a_missing_directory_is_found() {
    let fixture = Fixture::new();
    let base = fixture.base();
    std::fs::remove_dir_all(&base).unwrap();
    fixture.finds(&["directory-missing"], &["directory-missing"], &["directory-missing"]);
    let found = findings(&fixture.store, CheckLevel::Quick);
    assert_eq!(found[0].thing(), format!("layer {}", fixture.base_layer()));
    assert!(found[0].to_string().contains(base.to_str().unwrap()));
    std::fs::write(&base, "a file").unwrap();
    assert_eq!(fixture.codes(CheckLevel::Quick), ["directory-unreadable"]);
}

#[test]
fn the_missing_directory_of_a_container_is_found() {
    let fixture = Fixture::new();
    let writable =
        fixture.below("diffs").into_iter().find(|path| std::fs::read_dir(path).unwrap().next().is_none());
    std::fs::remove_dir(writable.unwrap()).unwrap();
    fixture.finds(&["directory-missing"], &["directory-missing"], &["directory-missing"]);
}

/// Each change, in a store of its own, with what the default and the deep check find.
#[test]
fn changed_paths_are_found() {
    type Changed = (&'static str, &'static str, fn(&Path), &'static [&'static str], &'static [&'static str]);
    let changes: [Changed; 8] = [
        (
            "content",
            "etc/passwd",
            |path| std::fs::write(path, "ROOT:x:0:0\n").unwrap(),
            &[],
            &["content-changed"],
        ),
        (
            "size",
            "etc/passwd",
            |path| std::fs::write(path, "x").unwrap(),
            &["path-changed"],
            &["path-changed"],
        ),
        (
            "mode",
            "etc/passwd",
            |path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap(),
            &["path-changed"],
            &["path-changed"],
        ),
        (
            "kind",
            "etc/passwd",
            |path| {
                std::fs::remove_file(path).unwrap();
                symlink("shadow", path).unwrap();
            },
            &["path-changed"],
            &["path-changed"],
        ),
        (
            "target",
            "etc/link",
            |path| {
                std::fs::remove_file(path).unwrap();
                symlink("shadow", path).unwrap();
            },
            &["path-changed"],
            &["path-changed"],
        ),
        ("missing", "pipe", |path| std::fs::remove_file(path).unwrap(), &["path-missing"], &["path-missing"]),
        ("extra", "etc/new", |path| std::fs::write(path, "x").unwrap(), &["path-extra"], &["path-extra"]),
        (
            "separated links",
            "etc/twin",
            |path| {
                std::fs::remove_file(path).unwrap();
                std::fs::write(path, "secret\n").unwrap();
            },
            &["path-changed"],
            &["path-changed"],
        ),
    ];
    for (name, path, change, default, deep) in changes {
        let fixture = Fixture::new();
        quietly(&fixture.base().join(path), change);
        assert_eq!(fixture.codes(CheckLevel::Quick), [""; 0], "{name}");
        assert_eq!(fixture.codes(CheckLevel::Default), default, "{name}");
        assert_eq!(fixture.codes(CheckLevel::Deep), deep, "{name}");
        let text = findings(&fixture.store, CheckLevel::Deep)[0].to_string();
        assert!(text.contains(&format!("/{path}")), "{text}");
    }
}

#[test]
fn what_an_archive_deletes_is_checked_too() {
    let dir = Dir::new("check-markers");
    let store = open(&dir);
    let base =
        archive(&[Member::file("kept/a", "a"), Member::file("hidden/b", "b"), Member::file("gone", "c")]);
    let base = store.put_layer(None, &LayerOptions::default(), &*base).unwrap();
    let top = archive(&[
        Member::directory("kept"),
        Member::directory("plain"),
        Member::opaque("hidden"),
        Member::file("hidden/new", "d"),
        Member::whiteout("gone"),
        Member::whiteout("kept/a"),
    ]);
    store.put_layer(&base.id, &LayerOptions::default(), &*top).unwrap();
    let codes = || {
        let mut found: Vec<_> = findings(&store, CheckLevel::Default).iter().map(Finding::code).collect();
        found.dedup();
        found
    };
    assert_eq!(codes(), [""; 0]);
    let diffs: Vec<_> =
        std::fs::read_dir(dir.root().join("diffs")).unwrap().map(|it| it.unwrap().path()).collect();
    let top_directory = diffs.iter().find(|path| path.join("hidden/new").exists()).unwrap();
    let name = ["trusted", "user"].map(|class| format!("{class}.overlay.opaque"));
    let mark = |path: &str, class: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        quietly(&top_directory.join(path), |path| rustix::fs::setxattr(path, class, b"y", flags).unwrap());
    };
    let clear = |path: &str| -> String {
        let removed =
            |name: &&String| rustix::fs::removexattr(top_directory.join(path), name.as_str()).is_ok();
        name.iter().find(removed).unwrap().clone()
    };
    let class = clear("hidden");
    assert_eq!(codes(), ["path-changed"], "what lies below would show");
    mark("hidden", &class);
    assert_eq!(codes(), [""; 0]);
    mark("plain", &class);
    assert_eq!(codes(), ["path-changed"], "what lies below would not show");
    clear("plain");
    quietly(&top_directory.join("gone"), |path| std::fs::remove_file(path).unwrap());
    assert_eq!(codes(), ["path-missing"]);
}

#[test]
fn a_changed_time_is_found() {
    let fixture = Fixture::new();
    let file = File::open(fixture.base().join("etc/passwd")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap() + std::time::Duration::from_nanos(1);
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
    let found = findings(&fixture.store, CheckLevel::Default);
    let [Finding { damage: Damage::PathChanged { what, .. }, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(what, "mtime");
}

#[test]
fn a_directory_that_is_another_is_told_in_few_words() {
    let fixture = Fixture::new();
    for number in 0..150 {
        std::fs::write(fixture.base().join(format!("new-{number}")), "x").unwrap();
    }
    let found = findings(&fixture.store, CheckLevel::Default);
    assert_eq!(found.len(), 101);
    assert!(matches!(found.last().unwrap().damage, Damage::MorePaths { count: 51, .. }));
}

#[test]
fn damaged_kept_blobs_are_found() {
    let fixture = Fixture::new();
    let blobs = fixture.below("blobs");
    let mut bytes = std::fs::read(&blobs[0]).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&blobs[0], &bytes).unwrap();
    fixture.finds(&[], &[], &["kept-blob-damaged"]);
    bytes.pop();
    std::fs::write(&blobs[0], &bytes).unwrap();
    fixture.finds(&["kept-blob-damaged"], &["kept-blob-damaged"], &["kept-blob-damaged"]);
    std::fs::remove_file(&blobs[0]).unwrap();
    assert_eq!(fixture.codes(CheckLevel::Quick), ["kept-blob-missing"]);
}

#[test]
fn damaged_indexes_and_sums_are_found() {
    let fixture = Fixture::new();
    fixture.edit(|txn| {
        txn.open_table(table::NAMES).unwrap().remove((table::Owner::Image.code(), "demo")).unwrap();
    });
    assert_eq!(fixture.codes(CheckLevel::Quick), ["index-row-missing"]);
    fixture.edit(|txn| {
        let mut names = txn.open_table(table::NAMES).unwrap();
        names.insert((table::Owner::Image.code(), "demo"), &*fixture.image.id.to_string()).unwrap();
        txn.open_table(table::CHILDREN).unwrap().insert(("nobody", "nothing"), ()).unwrap();
    });
    assert_eq!(fixture.codes(CheckLevel::Quick), ["index-row-extra"]);
    fixture.edit(|txn| {
        txn.open_table(table::CHILDREN).unwrap().remove(("nobody", "nothing")).unwrap();
        txn.open_table(table::USAGE).unwrap().insert(table::usage::DIFF_INODES, 7).unwrap();
    });
    assert_eq!(fixture.codes(CheckLevel::Quick), ["usage-wrong"]);
}

#[test]
fn a_record_that_cannot_be_read_is_one_finding() {
    for definition in [table::LAYERS, table::IMAGES, table::CONTAINERS] {
        let fixture = Fixture::new();
        fixture.edit(|txn| {
            let mut rows = txn.open_table(definition).unwrap();
            let (key, value) = {
                let (key, value) = rows.first().unwrap().unwrap();
                (key.value().to_owned(), value.value().to_owned())
            };
            rows.insert(key.as_str(), &value[..value.len() / 2]).unwrap();
        });
        assert_eq!(fixture.codes(CheckLevel::Deep), ["record-damaged"], "{definition}");
        // What it named is unknown now, and stays.
        let before = fixture.below("diffs");
        assert!(fixture.store.gc(false).is_err() || definition.to_string() != table::LAYERS.to_string());
        assert_eq!(fixture.below("diffs"), before);
    }
}

#[test]
fn records_that_do_not_fit_together_are_found() {
    let fixture = Fixture::new();
    let (base, top) = (fixture.base_layer(), fixture.top_layer());
    fixture.edit_record(table::LAYERS, &base, |layer: &mut LayerRecord| layer.parent = Some(top.clone()));
    let found = fixture.codes(CheckLevel::Quick);
    assert_eq!(found, ["parent-cycle", "index-row-missing"]);

    let fixture = Fixture::new();
    fixture
        .edit_record(table::LAYERS, &top, |layer: &mut LayerRecord| layer.parent = Some("gone".to_owned()));
    assert_eq!(fixture.codes(CheckLevel::Quick), ["parent-missing", "index-row-missing", "index-row-extra"]);

    let fixture = Fixture::new();
    let id = fixture.container.id.to_string();
    fixture.edit_record(table::CONTAINERS, &id, |container: &mut ContainerRecord| {
        container.image = Some("gone".to_owned());
        container.layer = "gone".to_owned();
    });
    let found = fixture.codes(CheckLevel::Quick);
    assert_eq!(found[..2], ["container-layer-missing", "container-image-missing"]);

    let fixture = Fixture::new();
    let things = vec![(1, base.clone()), (2, "gone".to_owned()), (7, "gone".to_owned())];
    let lease =
        LeaseRecord { id: "odd".to_owned(), things, created: Time::default(), expires: Time::default() };
    let bytes = lease.encode().unwrap();
    fixture.edit(|txn| drop(txn.open_table(table::LEASES).unwrap().insert("odd", &*bytes).unwrap()));
    assert_eq!(fixture.codes(CheckLevel::Quick), ["record-damaged", "lease-dangling", "lease-dangling"]);

    let fixture = Fixture::new();
    fixture.edit(|txn| drop(txn.open_table(table::LAYERS).unwrap().remove(&*base).unwrap()));
    let found = fixture.codes(CheckLevel::Quick);
    for code in ["parent-missing", "tree-unused", "blob-users-wrong", "kept-blob-unused", "index-row-extra"] {
        assert!(found.contains(&code), "{code}: {found:?}");
    }
    fixture.edit(|txn| drop(txn.open_table(table::LAYERS).unwrap().remove(&*top).unwrap()));
    assert!(fixture.codes(CheckLevel::Quick).contains(&"image-layer-missing"));
}

#[test]
fn names_that_two_things_have_are_found() {
    let fixture = Fixture::new();
    let other = fixture.store.create_container(None, &ContainerOptions::default()).unwrap();
    fixture.edit_record(table::CONTAINERS, other.id.as_str(), |container: &mut ContainerRecord| {
        container.names.push("web".to_owned());
    });
    assert_eq!(fixture.codes(CheckLevel::Deep), ["name-shared"]);
}

#[test]
fn a_layer_without_its_tree_is_found() {
    let fixture = Fixture::new();
    fixture.edit(|txn| {
        let mut rows = txn.open_table(table::DIFFS).unwrap();
        rows.pop_first().unwrap();
    });
    let found = fixture.codes(CheckLevel::Default);
    for code in ["tree-missing", "blob-users-wrong", "usage-wrong"] {
        assert!(found.contains(&code), "{code}: {found:?}");
    }
}

/// The row in `blobs` of the image's manifest item.
fn manifest_item(txn: &WriteTransaction, fixture: &Fixture) -> ([u8; 32], u64) {
    let items = txn.open_table(table::ITEMS).unwrap();
    let key = (table::Owner::Image.code(), fixture.image.id.as_str(), "manifest");
    let item = ItemRecord::decode(items.get(key).unwrap().unwrap().value()).unwrap();
    let blobs = txn.open_table(table::BLOBS).unwrap();
    let row = blobs.get(&item.blob).unwrap().unwrap();
    (item.blob, layerstore_schema::record::BlobRecord::decode(row.value()).unwrap().number)
}

#[test]
fn damaged_bytes_in_the_database_are_found() {
    let fixture = Fixture::new();
    fixture.edit(|txn| {
        let (_, number) = manifest_item(txn, &fixture);
        let mut chunks = txn.open_table(table::BLOB_CHUNKS).unwrap();
        let mut bytes = chunks.get((number, 0)).unwrap().unwrap().value().to_owned();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        chunks.insert((number, 0), bytes.as_slice()).unwrap();
    });
    fixture.finds(&[], &[], &["blob-damaged"]);
    fixture.edit(|txn| {
        let (_, number) = manifest_item(txn, &fixture);
        txn.open_table(table::BLOB_CHUNKS).unwrap().remove((number, 0)).unwrap();
    });
    fixture.finds(&["blob-chunks-wrong"], &["blob-chunks-wrong"], &["blob-chunks-wrong", "blob-damaged"]);
    fixture.edit(|txn| {
        let (hash, _) = manifest_item(txn, &fixture);
        txn.open_table(table::BLOBS).unwrap().remove(&hash).unwrap();
    });
    let found = fixture.codes(CheckLevel::Deep);
    assert!(found.contains(&"blob-missing") && found.contains(&"usage-wrong"), "{found:?}");
}

#[test]
fn counts_and_items_that_are_wrong_are_found() {
    let fixture = Fixture::new();
    fixture.edit(|txn| {
        let (hash, _) = manifest_item(txn, &fixture);
        let mut blobs = txn.open_table(table::BLOBS).unwrap();
        let mut record =
            layerstore_schema::record::BlobRecord::decode(blobs.get(&hash).unwrap().unwrap().value())
                .unwrap();
        record.users += 1;
        blobs.insert(&hash, record.encode().unwrap().as_slice()).unwrap();
    });
    assert_eq!(fixture.codes(CheckLevel::Quick), ["blob-users-wrong"]);

    let fixture = Fixture::new();
    fixture.store.write(|txn| txn.put_item(&fixture.container, "spec", b"{}")).unwrap();
    let change_item = |change: fn(&mut ItemRecord)| {
        fixture.edit(|txn| {
            let mut items = txn.open_table(table::ITEMS).unwrap();
            let key = (table::Owner::Container.code(), fixture.container.id.as_str(), "spec");
            let mut item = ItemRecord::decode(items.get(key).unwrap().unwrap().value()).unwrap();
            change(&mut item);
            items.insert(key, item.encode().unwrap().as_slice()).unwrap();
        });
    };
    change_item(|item| item.size += 1);
    assert_eq!(fixture.codes(CheckLevel::Quick), ["item-damaged"]);
    change_item(|item| {
        item.size -= 1;
        item.digest.replace_range(7..8, if &item.digest[7..8] == "0" { "1" } else { "0" });
    });
    fixture.finds(&[], &[], &["item-damaged"]);
    fixture.edit(|txn| {
        let mut items = txn.open_table(table::ITEMS).unwrap();
        let key = (table::Owner::Container.code(), fixture.container.id.as_str(), "spec");
        let bytes = items.remove(key).unwrap().unwrap().value().to_owned();
        items.insert((table::Owner::Container.code(), "gone", "spec"), bytes.as_slice()).unwrap();
    });
    assert_eq!(fixture.codes(CheckLevel::Quick), ["item-unowned"]);
}

#[test]
fn an_archive_that_comes_out_otherwise_is_found() {
    let fixture = Fixture::new();
    let (base, top) = (fixture.base_layer(), fixture.top_layer());
    let wrong = format!("sha256:{}", "0".repeat(64));
    fixture.edit_record(table::LAYERS, &top, |layer: &mut LayerRecord| layer.diff_id = Some(wrong));
    let indexes = ["index-row-missing", "index-row-extra"];
    assert_eq!(fixture.codes(CheckLevel::Default), indexes);
    assert_eq!(fixture.codes(CheckLevel::Deep), [&indexes[..], &["diff-id-wrong"]].concat());

    let fixture = Fixture::new();
    let mut split = None;
    fixture.edit_record(table::LAYERS, &base, |layer: &mut LayerRecord| split = layer.split);
    fixture.edit_record(table::LAYERS, &top, |layer: &mut LayerRecord| layer.split = split);
    let found = fixture.codes(CheckLevel::Deep);
    assert_eq!(found, ["blob-users-wrong", "blob-users-wrong", "split-damaged"]);
}

#[test]
fn a_check_of_one_thing_looks_at_nothing_else() {
    let fixture = Fixture::new();
    quietly(&fixture.base().join("pipe"), |path| std::fs::remove_file(path).unwrap());
    std::fs::write(fixture.dir.root().join("diffs/stray"), "x").unwrap();
    let only = |layer: Option<String>, image: bool| {
        let mut options = CheckOptions::default();
        options.layer = layer.map(|layer| layer.parse().unwrap());
        options.image = image.then(|| fixture.image.id.clone());
        let report = fixture.store.check(&options).unwrap();
        report.findings.iter().map(Finding::code).collect::<Vec<_>>()
    };
    assert_eq!(only(Some(fixture.top_layer()), false), [""; 0]);
    assert_eq!(only(Some(fixture.base_layer()), false), ["path-missing"]);
    assert_eq!(only(None, true), ["path-missing"]);
    assert_eq!(only(None, false), ["path-missing", "stray"]);
    let mut options = CheckOptions::default();
    options.layer = Some("gone".parse().unwrap());
    assert!(matches!(fixture.store.check(&options), Err(Error::Lookup(_))));
}

/// The table of damages that a repair is tested with too.
#[test]
fn every_kind_of_damage_is_found_and_tells_its_remedy() {
    let (mut found_codes, mut wrong): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for case in CASES {
        let fixture = Fixture::new();
        (case.make)(&fixture);
        let found = findings(&fixture.store, CheckLevel::Deep);
        let mut codes: Vec<_> = found.iter().map(Finding::code).collect();
        found_codes.extend(&codes);
        codes.sort_unstable();
        codes.dedup();
        if codes != case.codes {
            wrong.push(format!("{}: {codes:?} and not {:?}", case.name, case.codes));
        }
        for finding in &found {
            let (text, remedy) = (finding.to_string(), finding.remedy.to_string());
            assert!(text.ends_with(&remedy) && !finding.thing().is_empty(), "{text}");
            // Who checks is not sent to check, and memory addresses tell nobody anything. The name of a temporary directory is random:
            // it may have those two characters in it.
            let told = text.replace(fixture.dir.path().to_str().unwrap(), "");
            assert!(!told.contains("run `layerstore") && !told.contains("0x"), "{text}");
        }
        assert!(findings(&fixture.store, CheckLevel::Deep) == found, "{}: the same again", case.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing is withheld from root (`withheld`).
    found_codes.extend(["not-examined", "mode-lost"]);
    let missing: Vec<_> = Damage::CODES.iter().filter(|code| !found_codes.contains(code)).collect();
    assert!(missing.is_empty(), "no case makes {missing:?}");
}

#[test]
fn codes_are_words_of_their_own() {
    let mut codes = Damage::CODES.to_vec();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Damage::CODES.len());
    let kebab = |code: &str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    assert!(codes.iter().all(|code| kebab(code)));
}

/// What a process leaves that dies while it imports, removes, and unmounts.
fn crash(fixture: &Fixture) -> Vec<PathBuf> {
    let dir = &fixture.dir;
    dir.create_dir("root/diffs/11/half/filled");
    dir.write("root/diffs/11/half/file", vec![1; 10_000]);
    dir.create_dir("root/diffs/11.aside");
    dir.write("root/locks/11", "");
    dir.create_dir("root/diffs/12");
    dir.write("root/locks/13", "");
    dir.write("root/blobs/21", vec![2; 5000]);
    dir.write("root/locks/21", "");
    dir.create_dir("root/work/31/work");
    dir.create_dir("root/trash/41/sub");
    dir.create_dir("root/trash/42.work/work");
    dir.write("root/locks/42", "");
    // The rows were committed, and the process died before it gave the locks up.
    let base = fixture.base();
    std::fs::create_dir(base.with_extension("aside")).unwrap();
    let lock = dir.write(Path::new("root/locks").join(base.file_name().unwrap()), "");
    let mut paths: Vec<_> = [
        "diffs/11",
        "diffs/11.aside",
        "locks/11",
        "diffs/12",
        "locks/13",
        "blobs/21",
        "locks/21",
        "work/31",
        "trash/41",
        "trash/42.work",
        "locks/42",
    ]
    .map(|path| dir.root().join(path))
    .into();
    paths.extend([base.with_extension("aside"), lock]);
    paths.sort();
    paths
}

#[test]
fn crashes_leave_garbage_and_a_collection_removes_exactly_that() {
    let fixture = Fixture::new();
    let before: Vec<_> =
        ["diffs", "blobs", "work", "locks", "trash"].map(|which| fixture.below(which)).into();
    let garbage = crash(&fixture);
    fixture.dir.write("root/diffs/notes.txt", "not ours");
    let mount_point = fixture.dir.create_dir("run/mnt/0123");

    let report = fixture.store.check(&CheckOptions::default()).unwrap();
    assert_eq!(report.garbage, garbage);
    let stray = Damage::Stray { path: fixture.dir.root().join("diffs/notes.txt") };
    assert_eq!(report.findings.iter().map(|finding| &finding.damage).collect::<Vec<_>>(), [&stray]);

    let removed = |report: &layerstore::GcReport| {
        let mut paths: Vec<_> = report.removed.iter().map(|garbage| garbage.path.clone()).collect();
        paths.sort();
        paths
    };
    let mut expected = garbage.clone();
    expected.push(mount_point.clone());
    expected.sort();
    let dry = fixture.store.gc(true).unwrap();
    assert_eq!(removed(&dry), expected);
    assert!(dry.bytes >= 15_000 && garbage.iter().all(|path| path.exists()));
    let wet = fixture.store.gc(false).unwrap();
    assert_eq!(removed(&wet), expected);
    assert!(wet.bytes == dry.bytes && wet.left.is_empty());

    std::fs::remove_file(fixture.dir.root().join("diffs/notes.txt")).unwrap();
    let after: Vec<_> = ["diffs", "blobs", "work", "locks", "trash"].map(|which| fixture.below(which)).into();
    assert_eq!(after, before);
    assert!(!mount_point.exists());
    fixture.finds(&[], &[], &[]);
    assert!(fixture.store.gc(false).unwrap().removed.is_empty());
}
