//! Settings of a store and of a snapshotter: each holds for what containerd mounts and writes, or is refused at the start.

use layerstore::snapshotter::{Code, SnapshotError, Snapshotter, SnapshotterOptions};
use layerstore::{Quota, Store, StoreOptions, SyncMode};

use super::{assert_code, none};
use crate::support::{Dir, machine};

fn at(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0)
}

#[test]
fn settings_that_cannot_hold_are_refused() {
    let dir = Dir::new("snapshot-settings");
    for (options, wanted) in [
        (at(&dir).mount_program("/bin/true").prefer_mount_program(true), "mount_program"),
        (at(&dir).mount_program("/bin/true").force_mask(0o700), "force_mask"),
        (at(&dir).use_composefs(true), "use_composefs"),
    ] {
        let refused =
            Snapshotter::new(Store::open(&options).unwrap(), SnapshotterOptions::default()).unwrap_err();
        assert!(
            matches!(&refused, SnapshotError::Setting { setting, .. } if *setting == wanted),
            "{refused}"
        );
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.to_string().contains(wanted), "{refused}");
    }
    // One that is there for where the kernel cannot changes nothing where it can.
    let options = at(&dir).mount_program("/bin/true");
    Snapshotter::new(Store::open(&options).unwrap(), SnapshotterOptions::default()).unwrap();
}

#[test]
fn a_refused_setting_is_told_with_its_place() {
    let dir = Dir::new("snapshot-config");
    for (lines, option) in [
        ("mount_program = '/bin/true'", "mount_program"),
        ("use_composefs = 'true'", "use_composefs"),
        ("mount_program = '/bin/true'\nforce_mask = '700'", "mount_program"),
    ] {
        let file = dir.write("storage.conf", format!("[storage]\n[storage.options.overlay]\n{lines}\n"));
        let command = dir.layerstore(["--config"]).arg(&file).args(["snapshotter", "--address"]);
        let told = command.arg(dir.join("s")).assert_exit(2);
        assert!(told.contains(&format!("storage.conf:3: the storage option \"{option}\"")), "{told}");
        assert!(told.contains("without it"), "{told}");
        assert!(!dir.join("s").exists());
    }
}

#[test]
fn a_default_limit_is_not_one_of_snapshots() {
    let dir = Dir::new("snapshot-limits");
    // A store whose limits cannot be kept is not made, but opened.
    drop(Store::open(&at(&dir)).unwrap());
    let options = at(&dir).quota(Quota { size: Some(1 << 20), inodes: Some(10) });
    let store = Store::open(&options).unwrap();
    let snapshots = Snapshotter::new(store.clone(), SnapshotterOptions::default()).unwrap();
    // Where there can be no limits, what is limited is not made.
    let source = snapshots.prepare("key", None, &none()).unwrap()[0].source.clone();
    let content = vec![1; 2 << 20];
    std::fs::write(std::path::Path::new(&source).join("big"), content).unwrap();
    snapshots.commit("base", "key", &Default::default()).unwrap();
    snapshots.view("view", Some("base"), &none()).unwrap();
    assert!(snapshots.usage("base").unwrap().size >= 2 << 20);
}

#[test]
fn mount_options_are_checked_before_anything_is_made() {
    let dir = Dir::new("snapshot-words");
    let given = |words: &[&str]| {
        let mut options = SnapshotterOptions::default();
        options.mount_options = words.iter().map(|word| (*word).to_owned()).collect();
        options
    };
    let store = Store::open(&at(&dir)).unwrap();
    for words in [&["lowerdir=/etc"][..], &["upperdir="], &["index=on,workdir=/w"], &["frobnicate"]] {
        assert_code(given(words).check(), Code::InvalidArgument);
        assert_code(Snapshotter::new(store.clone(), given(words)).map(drop), Code::InvalidArgument);
    }
    // Attributes that the layers do not have hide deleted files from nobody.
    let other = if machine::is_real_root() { "userxattr" } else { "redirect_dir=on" };
    given(&[other]).check().unwrap();
    assert_code(Snapshotter::new(store, given(&[other])).map(drop), Code::InvalidArgument);

    let empty = Dir::new("snapshot-words-empty");
    let command = empty.layerstore(["snapshotter", "--mount-option", "lowerdir=/etc", "--address"]);
    let told = command.arg(empty.join("s")).assert_exit(2);
    assert!(told.contains("--mount-option \"lowerdir=/etc\" is not valid"), "{told}");
    assert!(!empty.root().exists() && !empty.join("s").exists());
}
