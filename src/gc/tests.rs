mod deaths;
mod leases;
mod rot;
mod support;

use std::os::fd::AsRawFd;
use std::path::Path;

use super::*;
use crate::disk::{Stage, StagedBlob, Staging};
use crate::store::{StoreOptions, SyncMode};
use crate::types::LayerId;

fn store(dir: &Path) -> Store {
    let options = StoreOptions::at(dir.join("root")).run_root(dir.join("run")).sync(SyncMode::Off).reserve(0);
    Store::open(&options).unwrap()
}

#[test]
fn what_is_being_filled_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let stage = Stage::create(store.layout()).unwrap();
    let staging = Staging::create(&stage, 1).unwrap();
    staging.aside().unwrap();
    let blob = StagedBlob::create(&stage, 2).unwrap();
    // A workdir made together with a directory that is being filled.
    store.layout().ensure_workdir(1).unwrap();
    for dry_run in [true, false] {
        assert_eq!(store.gc(dry_run).unwrap().removed, []);
    }
    let root = dir.path().join("root");
    for path in ["diffs/1", "diffs/1.aside", "locks/1", "blobs/2", "locks/2", "work/1"] {
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
    std::fs::write(store.mount_point(full.as_str()).unwrap().join("file"), b"x").unwrap();
    let record = layerstore_schema::record::MountRecord { count: 1, target: String::new(), read_only: false };
    store
        .run()
        .unwrap()
        .update_mount::<_, Error>("counted", 1, |slot| {
            slot.record = Some(record);
            Ok(())
        })
        .unwrap();
    let report = store.gc(false).unwrap();
    assert_eq!(
        report.removed,
        [Garbage {
            kind: GarbageKind::MountPoint,
            path: store.mount_point(stale.as_str()).unwrap(),
            id: Some("stale".to_owned()),
            bytes: 0
        }]
    );
    assert!(
        store.mount_point(counted.as_str()).unwrap().is_dir()
            && store.mount_point(full.as_str()).unwrap().join("file").exists()
    );
}

/// A count belongs to a mount namespace; in this one there is no such mount.
#[test]
fn a_count_of_this_namespace_goes_and_one_of_another_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let here = store.mount_namespace().unwrap();
    let record = layerstore_schema::record::MountRecord { count: 1, target: String::new(), read_only: false };
    for (layer, namespace) in [("here", here), ("both", here), ("both", here + 1)] {
        store.run_layout().unwrap().ensure_mount_point(&layer.parse().unwrap()).unwrap();
        let run = store.run().unwrap();
        let put = run.update_mount::<_, Error>(layer, namespace, |slot| {
            slot.record = Some(record.clone());
            Ok(())
        });
        put.unwrap();
    }
    let dry = store.gc(true).unwrap().removed;
    assert_eq!(store.run().unwrap().mounts().unwrap().len(), 3);
    assert_eq!(store.gc(false).unwrap().removed, dry);
    let told: Vec<_> = dry.iter().map(|one| (one.kind, one.id.as_deref().unwrap())).collect();
    let count = |layer| (GarbageKind::MountCount, layer);
    assert_eq!(told, [count("both"), count("here"), (GarbageKind::MountPoint, "here")]);
    let left = store.run().unwrap().mounts().unwrap();
    assert!(left.len() == 1 && left[0].layer == "both" && left[0].namespace == here + 1);
    assert!(store.mount_point("both").unwrap().is_dir());
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
    let kinds: Vec<_> = store.gc(false).unwrap().removed.iter().map(|garbage| garbage.kind).collect();
    assert_eq!(kinds, [GarbageKind::Trash, GarbageKind::Lock], "it is announced since");
}

/// As when fuse-overlayfs has died: the mount cannot be looked at, and is there.
#[test]
fn a_mount_whose_server_died_stays_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let path = store.run_layout().unwrap().ensure_mount_point(&"dead".parse().unwrap()).unwrap();
    let Ok(server) = std::fs::File::options().read(true).write(true).open("/dev/fuse") else {
        eprintln!("skipped: there is no /dev/fuse");
        return;
    };
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let flags = nix::mount::MsFlags::empty();
    if nix::mount::mount(Some("dead"), &path, Some("fuse"), flags, Some(options.as_str())).is_err() {
        eprintln!("skipped: this process may not mount");
        return;
    }
    drop(server);
    let record = layerstore_schema::record::MountRecord { count: 1, target: String::new(), read_only: false };
    let here = store.mount_namespace().unwrap();
    let put = store.run().unwrap().update_mount::<_, Error>("dead", here, |slot| {
        slot.record = Some(record);
        Ok(())
    });
    put.unwrap();
    let reports = [true, false].map(|dry_run| store.gc(dry_run));
    nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    for report in reports {
        assert_eq!(report.unwrap().removed, []);
    }
    assert_eq!(store.run().unwrap().mounts().unwrap().len(), 1);
}
