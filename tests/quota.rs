//! How much may be written into layers, on filesystems of the test's own that have project quotas.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use layerstore::{
    ApplyOptions, ContainerOptions, Error, LayerOptions, MountOptions, Quota, QuotaError, Store,
    StoreOptions, UnmountMode,
};

use crate::support::store::assert_whole;
use crate::support::tar::{Member, archive};
use crate::support::{Dir, disk, machine};

const MIB: u64 = 1 << 20;

/// A filesystem with project quotas, mounted below `dir`; why not, if there can be none.
fn disk_with_quotas(dir: &Dir, kind: &str) -> Result<PathBuf, String> {
    let features: &[&str] = if kind == "ext4" { &["-O", "project,quota"] } else { &[] };
    disk::mount_with(dir, "disk", kind, features, "prjquota")
}

fn open(root: &Path, dir: &Dir, quota: Quota) -> Store {
    Store::open(&StoreOptions::at(root).run_root(dir.run_root()).reserve(0).quota(quota)).unwrap()
}

/// Writes a file until it has so many bytes, or until that is refused.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![7; 1 << 16];
    for _ in 0..bytes >> 16 {
        file.write_all(&block)?;
    }
    file.sync_all()
}

fn is_over_limit(result: &io::Result<()>) -> bool {
    let kind = result.as_ref().map_err(io::Error::kind);
    matches!(kind, Err(io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull))
}

fn size(size: u64) -> Quota {
    Quota { size: Some(size), inodes: None }
}

fn limits_are_kept(kind: &str) {
    let dir = Dir::new("quota");
    let disk = match disk_with_quotas(&dir, kind) {
        Ok(disk) => disk,
        Err(why) => skip!("{why}"),
    };
    let store = open(&disk.join("store"), &dir, size(8 * MIB));
    store.can_limit().unwrap();
    let image = archive(&[Member::file("big", vec![1; 12 << 20]), Member::directory("dir")]);
    let base = store.put_layer(None, &LayerOptions::named("base"), &*image).unwrap();
    let limited = store.create_layer(&base.id, &LayerOptions::named("limited")).unwrap();

    // What is below does not count, what is written does, and what is copied up.
    let at = store.mount(&limited, &MountOptions::default()).unwrap().path().to_owned();
    fill(&at.join("dir/small"), 2 * MIB).unwrap();
    assert!(is_over_limit(&fill(&at.join("dir/over"), 16 * MIB)));
    std::fs::remove_file(at.join("dir/over")).unwrap();
    assert!(is_over_limit(&File::options().append(true).open(at.join("big")).map(drop)));
    std::fs::rename(at.join("dir/small"), at.join("moved")).unwrap();
    std::os::unix::fs::symlink("moved", at.join("link")).unwrap();
    std::fs::rename(at.join("link"), at.join("dir2")).unwrap();
    std::fs::create_dir(at.join("new")).unwrap();
    std::fs::hard_link(at.join("moved"), at.join("new/hard")).unwrap();
    let used = store.quota(&limited).unwrap().unwrap();
    assert_eq!((used.size, used.inodes), (Some(8 * MIB), None));
    assert!((2 * MIB..8 * MIB).contains(&used.used_bytes) && used.used_inodes > 4, "{used:?}");
    store.unmount(&limited, UnmountMode::Plain).unwrap();

    // Others have limits of their own, and their own room.
    let mut few = ContainerOptions::named("few");
    few.quota = Quota { size: Some(0), inodes: Some(30) };
    let few = store.create_container(None, &few).unwrap();
    let mount = store.mount(&few, &MountOptions::default()).unwrap();
    fill(&mount.path().join("big"), 16 * MIB).unwrap();
    let made = (0..40).map(|number| File::create(mount.path().join(number.to_string())).map(drop));
    let refused = made.filter(is_over_limit).count();
    assert!((10..30).contains(&refused), "{refused} of 40 files are over the limit of 30 inodes");
    store.unmount(&few, UnmountMode::Plain).unwrap();
    let mut free = LayerOptions::named("free");
    free.quota = size(0);
    let free = store.create_layer(&limited.id, &free).unwrap();
    assert!(store.quota(&free).unwrap().is_none());
    let mount = store.mount(&free, &MountOptions::default()).unwrap();
    fill(&mount.path().join("big"), 16 * MIB).unwrap();
    store.unmount(&free, UnmountMode::Plain).unwrap();
    store.remove_layer(&free.id).unwrap();

    // An archive on top counts, and the layer keeps its limits.
    let more = archive(&[Member::file("more", vec![2; 1 << 20])]);
    let applied = store.apply_diff(&limited.id, &*more, &ApplyOptions::default()).unwrap();
    let after = store.quota(&applied).unwrap().unwrap();
    assert_eq!(after.size, Some(8 * MIB));
    assert!(after.used_bytes >= 3 * MIB, "{after:?}");
    let most = archive(&[Member::file("most", vec![2; 16 << 20])]);
    let refused = store.apply_diff(&limited.id, &*most, &ApplyOptions::default()).unwrap_err();
    assert!(refused.is_out_of_space(), "{refused:?}");

    // A sealed layer has none, and one that is unsealed those of the store, in its own directory and in a copy.
    store.seal(&limited.id).unwrap();
    assert!(store.quota(&limited).unwrap().is_none());
    let mut copy = LayerOptions::named("copy");
    copy.template = Some(limited.id.clone());
    let copy = store.create_layer(&base.id, &copy).unwrap();
    for layer in [&copy, &limited] {
        store.unseal(&layer.id).unwrap();
        assert_eq!(store.quota(layer).unwrap().unwrap().size, Some(8 * MIB));
        let mount = store.mount(layer, &MountOptions::default()).unwrap();
        assert!(is_over_limit(&fill(&mount.path().join("over"), 16 * MIB)));
        std::fs::rename(mount.path().join("dir2"), mount.path().join("link")).unwrap();
        store.unmount(layer, UnmountMode::Plain).unwrap();
    }
    assert_whole(&store);
    for layer in [&copy, &limited, &base] {
        store.remove_layer(&layer.id).unwrap();
    }
    store.remove_container(&few.id).unwrap();
    assert!(store.gc(true).unwrap().removed.is_empty());
}

#[test]
fn limits_are_kept_on_ext4() {
    limits_are_kept("ext4");
}

#[test]
fn limits_are_kept_on_xfs() {
    limits_are_kept("xfs");
}

/// Containers of two stores at once, on one filesystem: each counts for itself.
fn nobody_shares_a_limit(kind: &str) {
    let dir = Dir::new("quota-many");
    let disk = match disk_with_quotas(&dir, kind) {
        Ok(disk) => disk,
        Err(why) => skip!("{why}"),
    };
    std::thread::scope(|scope| {
        for name in ["one", "two"] {
            let (dir, root) = (&dir, disk.join(name));
            scope.spawn(move || {
                let options = StoreOptions::at(root).run_root(dir.join(format!("run-{name}"))).reserve(0);
                let store = Store::open(&options.quota(size(MIB))).unwrap();
                for _ in 0..10 {
                    let container = store.create_container(None, &ContainerOptions::default()).unwrap();
                    let at = store.mount(&container, &MountOptions::default()).unwrap().path().to_owned();
                    fill(&at.join("most"), MIB / 2).unwrap();
                    store.unmount(&container, UnmountMode::Plain).unwrap();
                    let used = store.quota(&container).unwrap().unwrap().used_bytes;
                    assert!((MIB / 2..MIB).contains(&used), "{used}");
                }
            });
        }
    });
}

#[test]
fn nobody_shares_a_limit_on_ext4() {
    nobody_shares_a_limit("ext4");
}

#[test]
fn nobody_shares_a_limit_on_xfs() {
    nobody_shares_a_limit("xfs");
}

/// The commands, on whatever the tests have.
#[test]
fn limits_are_asked_for_by_flags() {
    let dir = Dir::new("quota-flags");
    let disk = match disk_with_quotas(&dir, "ext4") {
        Ok(disk) => disk,
        Err(why) => skip!("{why}"),
    };
    std::fs::create_dir(disk.join("store")).unwrap();
    std::os::unix::fs::symlink(disk.join("store"), dir.root()).unwrap();
    dir.layerstore(["create-layer", "--name", "layer", "--size", "1M", "--inodes", "50"]).assert_success();
    let id = dir.layerstore(["create-container", "--name", "web", "--size", "1.5MiB"]).stdout();
    let store = open(&dir.root(), &dir, Quota::default());
    let layer = store.quota(&store.layer("layer").unwrap()).unwrap().unwrap();
    assert_eq!((layer.size, layer.inodes), (Some(MIB), Some(50)));
    let inspected = &dir.layerstore(["inspect", "web"]).json()[0]["quota"];
    assert_eq!((&inspected["size"], &inspected["inodes"]), (&(3 * MIB / 2).into(), &serde_json::Value::Null));
    let web = store.quota(&store.container(id.trim()).unwrap()).unwrap().unwrap();
    assert_eq!((web.size, web.inodes), (Some(3 * MIB / 2), None));
    let refused = dir.layerstore(["create-container", "--size", "some"]).assert_exit(2);
    assert!(refused.contains("10G"), "{refused}");
}

/// Where limits cannot be set, whoever asks for one is told why, and nothing is made.
#[test]
fn limits_that_cannot_be_kept_are_refused() {
    let dir = Dir::new("quota-none");
    let root = match disk::mount(&dir, "disk", "ext4", &[]) {
        Ok(disk) => disk.join("store"),
        // A tmpfs has none for this, and an ordinary user may set none anywhere.
        Err(_) => dir.root(),
    };
    let store = open(&root, &dir, Quota::default());
    if store.can_limit().is_ok() {
        skip!("the place of the tests has project quotas");
    }
    let mut options = ContainerOptions::named("web");
    options.quota = size(MIB);
    let refused = store.create_container(None, &options).unwrap_err();
    let Error::Quota(QuotaError::Unsupported { .. } | QuotaError::NotPermitted { .. }) = refused else {
        panic!("{refused:?}");
    };
    if machine::is_real_root() {
        assert!(refused.to_string().contains("prjquota"), "{refused}");
    }
    let mut layer = LayerOptions::named("layer");
    layer.quota = Quota { size: None, inodes: Some(5) };
    assert!(matches!(store.create_layer(None, &layer), Err(Error::Quota(_))));
    let limited = open(&root, &dir, size(MIB));
    assert!(matches!(limited.create_layer(None, &LayerOptions::default()), Err(Error::Quota(_))));
    // What is never written to needs no limit, and cannot have one.
    layer.read_only = true;
    let sealed = store.create_layer(None, &layer);
    assert!(matches!(sealed, Err(Error::Quota(QuotaError::Sealed { .. }))), "{sealed:?}");
    let mut sealed = LayerOptions::named("sealed");
    sealed.read_only = true;
    limited.create_layer(None, &sealed).unwrap();
    options.quota = size(0);
    limited.create_container(None, &options).unwrap();
    assert_whole(&store);
    assert_eq!((store.layers().unwrap().len(), store.containers().unwrap().len()), (2, 1));
}
