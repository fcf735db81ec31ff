//! Real deaths: this test binary runs again as a process that does one thing with a store and is killed at a named
//! moment of it.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use layerstore_schema::record::{LayerContent, LayerRecord};

use super::support::{is_clean, load, open};
use crate::error::{Error, InUseError, MountError};
use crate::gc::{GarbageKind, GcReport};
use crate::meta::Query;
use crate::store::{
    ApplyOptions, ContainerOptions, IdMapping, LayerOptions, MountOptions, SealOptions, Store, UnmountMode,
};
use crate::sys::userns::IdMaps;
use crate::types::LayerId;

const NAME: &str = "gc::tests::deaths::a_process_that_dies";

/// What the process that dies does. It is started by the other tests, and does nothing otherwise.
#[test]
fn a_process_that_dies() {
    let Ok(task) = std::env::var("LAYERSTORE_TASK") else { return };
    let dir = std::path::PathBuf::from(std::env::var_os("LAYERSTORE_DIR").unwrap());
    let store = open(&dir);
    match task.as_str() {
        "load" => load(&dir, &store, "new"),
        "create" => drop(store.create_container(None, &ContainerOptions::named("new")).unwrap()),
        "create-layer" => drop(store.create_layer(None, &LayerOptions::named("new")).unwrap()),
        "put-layer" => put(&store, "new"),
        "apply" => drop(store.apply_diff(&layer(&store), &*tar("more"), &ApplyOptions::default()).unwrap()),
        "seal" => drop(store.seal(&layer(&store)).unwrap()),
        "seal-with" => drop(store.seal_with(&layer(&store), &gift(&store)).unwrap()),
        "remove-layer" => store.begin_removing_layer(&layer(&store)).unwrap().leave(),
        "change-owners" => store.change_owners(&layer(&store), None, None).unwrap(),
        "unseal" => drop(store.unseal(&layer(&store)).unwrap()),
        "rm" => store.remove_container(&store.container("web").unwrap().id).unwrap(),
        "rmi" => drop(store.remove_image(&store.image("old").unwrap().id).unwrap()),
        "prune" => drop(store.drop_blobs(None).unwrap()),
        "gc" => drop(store.gc(false).unwrap()),
        "mount" => {
            drop(store.mount(&store.container("web").unwrap(), &MountOptions::default()).unwrap());
        }
        "map" => {
            let store = Store::open(&store.options().clone().id_mapped_mounts(false)).unwrap();
            drop(store.mount(&store.container("mapped").unwrap(), &MountOptions::default()));
        }
        "mount-volatile" => {
            drop(store.mount(&store.container("volatile").unwrap(), &MountOptions::default()).unwrap());
        }
        "unmount" => {
            store.unmount(&store.container("web").unwrap(), UnmountMode::Plain).unwrap();
        }
        other => panic!("{other}"),
    }
    panic!("it has not died");
}

fn tar(path: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, path, &b"file"[..]).unwrap();
    tar.into_inner().unwrap()
}

fn put(store: &Store, name: &str) {
    store.put_layer(None, &LayerOptions::named(name), &*tar("file")).unwrap();
}

/// What a layer gets when it is sealed.
fn gift(store: &Store) -> SealOptions {
    let below = store.layer("below").unwrap().id;
    SealOptions {
        names: Some(vec!["layer".to_owned(), "sealed".to_owned()]),
        parent: Some(below),
        ..SealOptions::default()
    }
}

fn layer(store: &Store) -> LayerId {
    store.layer("layer").unwrap().id
}

/// Runs a task up to the moment of its death.
fn die(dir: &Path, task: &str, moment: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env("LAYERSTORE_TASK", task)
        .env("LAYERSTORE_DIE_AT", moment)
        .env("LAYERSTORE_DIR", dir)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "{task} at {moment}: {told}");
}

/// A store with an image and a container, which has a run directory.
fn prepared() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    load(dir.path(), &store, "old");
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    std::fs::write(store.run_directory(&web.id).unwrap().join("pid"), b"1").unwrap();
    (dir, store)
}

fn count(dir: &Path, which: &str) -> usize {
    std::fs::read_dir(dir.join("root").join(which)).map_or(0, Iterator::count)
}

/// Everything below a directory but the database's own files, with sizes and times.
fn snapshot(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut next = vec![dir.to_owned()];
    while let Some(path) = next.pop() {
        let meta = path.symlink_metadata().unwrap();
        found.push(format!("{} {} {} {}", path.display(), meta.ino(), meta.len(), meta.mtime_nsec()));
        if meta.is_dir() {
            next.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

/// After a death, whatever its moment: reading works, a dry run says what a collection does, and that leaves a clean
/// store. In a second store the same death is followed by a write, which collects all that was announced.
fn survives(task: &str, moment: &str, prepare: impl Fn(&Path, &Store)) {
    let (dir, store) = prepared();
    prepare(dir.path(), &store);
    die(dir.path(), task, moment);
    assert!(!store.images().unwrap().is_empty(), "{task} at {moment}");
    store.status().unwrap();
    let before = snapshot(dir.path());
    let dry = store.gc(true).unwrap();
    assert_eq!(snapshot(dir.path()), before, "{task} at {moment}: a dry run touches nothing");
    assert!(!dry.removed.is_empty(), "{task} at {moment}: nothing was left");
    let wet = store.gc(false).unwrap();
    let told = |report: &GcReport| {
        let mut all: Vec<_> = report.removed.iter().map(|garbage| format!("{garbage:?}")).collect();
        all.sort();
        all
    };
    assert_eq!(told(&wet), told(&dry), "{task} at {moment}");
    assert_eq!((wet.bytes, wet.left.len()), (dry.bytes, 0), "{task} at {moment}");
    assert_eq!(store.gc(false).unwrap().removed, [], "{task} at {moment}");
    is_clean(&store);

    let (dir, store) = prepared();
    prepare(dir.path(), &store);
    die(dir.path(), task, moment);
    let next = open(dir.path());
    next.create_container(None, &ContainerOptions::named("next")).unwrap();
    let announced = [count(dir.path(), "locks"), count(dir.path(), "trash")];
    assert_eq!(announced, [0, 0], "{task} at {moment}");
    let mut left = store.gc(true).unwrap().removed;
    left.retain(|garbage| garbage.path.starts_with(dir.path().join("root")));
    assert_eq!(left, [], "{task} at {moment}");
    is_clean(&store);
}

#[test]
fn a_load_can_die_at_any_moment() {
    for moment in
        ["locked", "locked:1", "staged", "staged:1", "before the commit", "after the commit", "settled:1"]
    {
        survives("load", moment, |_, _| ());
    }
}

#[test]
fn creating_a_container_can_die_at_any_moment() {
    for moment in ["locked", "staged", "before the commit", "after the commit", "settled"] {
        survives("create", moment, |_, _| ());
    }
}

#[test]
fn making_a_layer_can_die_at_any_moment() {
    for moment in ["locked", "staged", "before the commit", "after the commit", "settled"] {
        survives("create-layer", moment, |_, _| ());
        survives("put-layer", moment, |_, _| ());
    }
}

#[test]
fn copying_an_image_for_a_map_can_die_at_any_moment() {
    for moment in ["locked", "staged", "before the commit", "after the commit", "settled"] {
        survives("map", moment, |_, store| {
            // What the kernel can do is known, so the first directory that is made is that of the copy.
            store.capabilities().unwrap();
            let mut options = ContainerOptions::named("mapped");
            options.ids = IdMapping::Maps(IdMaps::both(["0:0:1".parse().unwrap()]));
            store.create_container(&store.image("old").unwrap().id, &options).unwrap();
        });
    }
}

#[test]
fn changing_a_layer_can_die_at_any_moment() {
    let sealed = |_: &Path, store: &Store| put(store, "layer");
    let shared = |_: &Path, store: &Store| ["layer", "equal"].iter().for_each(|name| put(store, name));
    let writable = |_: &Path, store: &Store| {
        put(store, "layer");
        store.unseal(&layer(store)).unwrap();
        // As a mount leaves it.
        let txn = store.database().begin_read().unwrap();
        let LayerContent::Writable(own) = txn.layer_ref(layer(store).as_str()).unwrap().content else {
            panic!()
        };
        std::fs::create_dir_all(store.root().join(format!("work/{own}/work"))).unwrap();
    };
    for moment in
        ["locked", "staged", "locked:1", "before the commit", "after the commit", "deleted", "settled"]
    {
        survives("apply", moment, sealed);
    }
    for moment in
        ["locked", "locked:1", "staged", "before the commit", "after the commit", "discarded", "settled"]
    {
        survives("apply", moment, writable);
    }
    for moment in ["locked", "before the commit", "after the commit"] {
        survives("seal", moment, writable);
        survives("unseal", moment, sealed);
    }
    // Its directory is needed no more, when there is an equal one.
    for moment in ["after the commit", "discarded", "discarded:1"] {
        survives("seal", moment, |dir, store| {
            writable(dir, store);
            put(store, "equal");
        });
    }
    for moment in ["locked", "staged", "before the commit", "after the commit", "settled"] {
        survives("unseal", moment, shared);
    }
}

#[test]
fn a_removal_can_die_at_any_moment() {
    for moment in ["locked", "before the commit", "after the commit", "discarded", "deleting", "deleted"] {
        survives("rmi", moment, |_, store| {
            // So that something is left to be listed.
            let id = store.image("old").unwrap().id;
            store.write(|txn| txn.add_name(&id, &"kept".parse()?)).unwrap();
            load(store.root().parent().unwrap(), store, "other");
        });
    }
    for moment in ["locked", "after the commit", "discarded:1", "deleted:1"] {
        survives("prune", moment, |_, _| ());
    }
    for moment in ["locked", "after the commit", "discarded", "deleted", "run directory discarded"] {
        survives("rm", moment, |_, _| ());
    }
}

#[test]
fn a_removal_that_leaves_the_files_can_die_at_any_moment() {
    for moment in ["locked", "before the commit", "after the commit"] {
        survives("remove-layer", moment, |_, store| put(store, "layer"));
    }
}

#[test]
fn a_layer_is_sealed_with_all_that_it_gets_or_not_at_all() {
    let prepare = |_: &Path, store: &Store| {
        put(store, "below");
        put(store, "layer");
        store.unseal(&layer(store)).unwrap();
    };
    for (moment, is_done) in [("locked", false), ("before the commit", false), ("after the commit", true)] {
        survives("seal-with", moment, prepare);
        let (dir, store) = prepared();
        prepare(dir.path(), &store);
        die(dir.path(), "seal-with", moment);
        let (found, gift) = (store.layer("layer").unwrap(), gift(&store));
        let names = if is_done { gift.names.unwrap() } else { vec!["layer".to_owned()] };
        let given: Vec<_> = found.names.iter().map(ToString::to_string).collect();
        assert_eq!((found.tree.is_some(), given), (is_done, names), "{moment}");
        assert_eq!(found.parent, gift.parent.filter(|_| is_done), "{moment}");
    }
}

#[test]
fn a_change_of_owners_that_died_is_unmounted_by_the_next() {
    let (dir, store) = prepared();
    if !can_mount(&store) {
        return;
    }
    let id = store.create_layer(None, &LayerOptions::named("layer")).unwrap().id;
    for moment in ["mounted", "owners changed"] {
        die(dir.path(), "change-owners", moment);
        assert_eq!(store.gc(false).unwrap().removed, [], "{moment}: it may be in use");
        let refused = store.change_owners(&id, None, None);
        assert!(matches!(refused, Err(Error::InUse(InUseError::Mounted { .. }))), "{moment}: {refused:?}");
        store.unmount_all(&id, UnmountMode::Plain).unwrap();
        store.change_owners(&id, None, None).unwrap();
        assert_eq!(store.gc(false).unwrap().removed, [], "{moment}");
    }
}

#[test]
fn a_collection_can_die_at_any_moment() {
    for moment in ["discarded", "discarded:1", "deleting", "deleting:1", "deleted"] {
        survives("gc", moment, |dir, _| die(dir, "load", "before the commit"));
    }
}

#[test]
fn what_a_full_collection_finds_unannounced_is_announced_before_it_goes() {
    for moment in ["locked", "discarded", "deleting", "deleted"] {
        survives("gc", moment, |dir, _| {
            // As after a power cut, which is followed by another boot.
            die(dir, "load", "before the commit");
            std::fs::write(dir.join("root/collected"), "another boot\n").unwrap();
            for entry in std::fs::read_dir(dir.join("root/locks")).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        });
    }
}

#[test]
fn a_write_removes_what_is_announced_where_the_note_of_a_collection_is_none() {
    let (dir, store) = prepared();
    store.gc(false).unwrap();
    let before = count(dir.path(), "diffs");
    die(dir.path(), "load", "before the commit");
    assert!(count(dir.path(), "diffs") > before && count(dir.path(), "locks") > 0);
    let note = dir.path().join("root/collected");
    std::fs::remove_file(&note).unwrap();
    std::fs::create_dir(&note).unwrap();
    open(dir.path()).create_layer(None, &LayerOptions::named("written")).unwrap();
    assert_eq!((count(dir.path(), "diffs"), count(dir.path(), "locks")), (before + 1, 0));
}

/// Whether this process may mount; says so if not.
fn can_mount(store: &Store) -> bool {
    let web = store.container("web").unwrap();
    match store.mount(&web, &MountOptions::default()) {
        Ok(_) => store.unmount(&web, UnmountMode::Plain).map(|_| true).unwrap(),
        Err(Error::Mount(error)) => {
            eprintln!("skipped: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_mount_that_nobody_counted_is_used_by_the_next() {
    let (dir, store) = prepared();
    if !can_mount(&store) {
        return;
    }
    die(dir.path(), "mount", "mounted");
    assert_eq!(store.gc(false).unwrap().removed, [], "it may be in use");
    let web = store.container("web").unwrap();
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    assert_eq!(mount.count, 1);
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_eq!(store.gc(false).unwrap().removed, []);
}

#[test]
fn a_volatile_mount_of_this_boot_is_made_again_and_none_of_another() {
    let (dir, store) = prepared();
    if !can_mount(&store) {
        return;
    }
    let mut options = ContainerOptions::named("volatile");
    options.volatile = true;
    let container = store.create_container(None, &options).unwrap();
    let path = store.mount_point(container.layer.as_str()).unwrap();
    let mount = || store.mount(&container, &MountOptions::default());
    let end = || crate::sys::mount::unmount(&path, false).unwrap();
    // Its maker died before it was counted, and it is gone: the mark of the kernel is left.
    die(dir.path(), "mount-volatile", "mounted");
    end();
    assert_eq!(mount().unwrap().count, 1);
    // Nothing is known of it, as after a reboot.
    end();
    let namespace = store.mount_namespace().unwrap();
    let run = store.run().unwrap();
    run.update_mount::<_, Error>(container.layer.as_str(), namespace, |slot| {
        slot.record = None;
        Ok(())
    })
    .unwrap();
    for _ in 0..2 {
        let refused = mount();
        assert!(matches!(refused, Err(Error::Mount(MountError::VolatileLeft { .. }))), "{refused:?}");
    }
    store.remove_container(&container.id).unwrap();
    assert_eq!(store.gc(false).unwrap().removed, []);
}

#[test]
fn a_layer_in_doubt_is_not_sealed() {
    let (_dir, store) = prepared();
    if !can_mount(&store) {
        return;
    }
    let options = LayerOptions { volatile: true, ..LayerOptions::named("volatile") };
    let layer = store.create_layer(None, &options).unwrap();
    let path = store.mount_point(layer.id.as_str()).unwrap();
    let mount = || store.mount(&layer, &MountOptions::default()).unwrap();
    let sealed = |result: Result<_, Error>| match result {
        Ok(_) => true,
        Err(Error::Mount(MountError::VolatileLeft { .. })) => false,
        Err(error) => panic!("{error}"),
    };
    mount();
    crate::sys::mount::unmount(&path, false).unwrap();
    // Of this boot: the kernel has what was written. Of another, nobody knows.
    let namespace = store.mount_namespace().unwrap();
    store.refuse_in_doubt(&store, &found(&store, &layer.id)).unwrap();
    let run = store.run().unwrap();
    run.update_mount::<_, Error>(layer.id.as_str(), namespace, |slot| {
        slot.record = None;
        Ok(())
    })
    .unwrap();
    assert!(!sealed(store.seal(&layer.id)));
    // A view shows it, and is never volatile itself.
    let view =
        MountOptions { read_only: true, options: vec!["volatile".to_owned()], ..MountOptions::default() };
    store.mount(&layer, &view).unwrap();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(path.to_str().unwrap())).unwrap();
    assert!(!line.contains("volatile"), "{line}");
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    assert!(!sealed(store.seal(&layer.id)), "a view vouches for nothing");
    store.remove_layer(&layer.id).unwrap();
    assert_eq!(store.gc(false).unwrap().removed, []);

    let layer = store.create_layer(None, &options).unwrap();
    store.mount(&layer, &MountOptions::default()).unwrap();
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    assert!(sealed(store.seal(&layer.id)), "the last unmount has brought it to the disk");
}

fn found(store: &Store, layer: &LayerId) -> LayerRecord {
    store.database().begin_read().unwrap().layer_ref(layer.as_str()).unwrap()
}

#[test]
fn a_count_that_nothing_is_mounted_for_is_collected() {
    let (dir, store) = prepared();
    if !can_mount(&store) {
        return;
    }
    let web = store.container("web").unwrap();
    store.mount(&web, &MountOptions::default()).unwrap();
    let kinds = |dry_run| {
        let report = store.gc(dry_run).unwrap();
        report.removed.iter().map(|garbage| garbage.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(false), [], "it is mounted");
    die(dir.path(), "unmount", "unmounted");
    let counts = || store.run().unwrap().mounts().unwrap().len();
    assert_eq!((counts(), store.status().unwrap().mounts), (1, Vec::new()));
    let both = [GarbageKind::MountCount, GarbageKind::MountPoint];
    assert_eq!((kinds(true), kinds(false)), (both.to_vec(), both.to_vec()));
    assert_eq!(counts(), 0);
    assert_eq!(kinds(false), []);
}
