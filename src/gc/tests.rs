use std::path::Path;

use super::*;
use crate::disk::{EntryLock, StagedBlob, Staging};
use crate::store::{StoreOptions, SyncMode};

fn store(dir: &Path) -> Store {
    let options = StoreOptions::at(dir.join("root")).run_root(dir.join("run")).sync(SyncMode::Off).reserve(0);
    Store::open(&options).unwrap()
}

#[test]
fn what_is_being_filled_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let lock = EntryLock::create(store.layout()).unwrap();
    let staging = Staging::create(&lock, 1).unwrap();
    let blob = StagedBlob::create(&lock, 2).unwrap();
    // A workdir made together with a directory that is being filled.
    store.layout().ensure_workdir(1).unwrap();
    for dry_run in [true, false] {
        assert_eq!(store.gc(dry_run).unwrap().removed, []);
    }
    let root = dir.path().join("root");
    for path in ["diffs/1", "diffs/1.aside", "diffs/1.lock", "blobs/2", "blobs/2.lock", "work/1"] {
        assert!(root.join(path).exists(), "{path}");
    }
    // Kept without a row: nobody holds them any more, and nothing names them.
    staging.keep();
    blob.filled().keep();
    assert_eq!(store.gc(true).unwrap().removed.len(), 3);
    assert_eq!(store.gc(false).unwrap().removed.len(), 3);
    for path in ["diffs/1", "blobs/2", "work/1"] {
        assert!(!root.join(path).exists(), "{path}");
    }
}

#[test]
fn mount_points_in_use_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let run = store.run_layout().unwrap();
    let [stale, counted, full] = ["stale", "counted", "full"].map(|id| id.parse::<LayerId>().unwrap());
    for layer in [&stale, &counted, &full] {
        run.ensure_mount_point(layer).unwrap();
    }
    std::fs::write(run.mount_point(&full).join("file"), b"x").unwrap();
    let record = layerstore_schema::record::MountRecord { count: 1, target: String::new(), read_only: false };
    store
        .run()
        .unwrap()
        .update_mount::<_, Error>("counted", |slot| {
            *slot = Some(record);
            Ok(())
        })
        .unwrap();
    let report = store.gc(false).unwrap();
    assert_eq!(report.removed, [Garbage { path: run.mount_point(&stale), bytes: 0 }]);
    assert!(run.mount_point(&counted).is_dir() && run.mount_point(&full).join("file").exists());
}

#[test]
fn a_mount_in_the_trash_is_reported_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mounted = dir.path().join("root/trash/5/mounted");
    std::fs::create_dir_all(&mounted).unwrap();
    let flags = nix::mount::MsFlags::empty();
    if nix::mount::mount(Some("none"), &mounted, Some("tmpfs"), flags, None::<&Path>).is_err() {
        eprintln!("skipped: this process may not mount");
        return;
    }
    let report = store.gc(false);
    nix::mount::umount(&mounted).unwrap();
    let report = report.unwrap();
    assert!(report.removed.is_empty());
    assert_eq!(report.left[0].path, dir.path().join("root/trash/5"));
    assert_eq!(store.gc(false).unwrap().removed.len(), 1);
}
