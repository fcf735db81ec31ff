//! What other operations and commands leave alone: layers that containerd may have mounted, where the store cannot see it.

use layerstore::snapshotter::{CommitOptions, Kind};
use layerstore::{
    ApplyOptions, Error, ImageOptions, InUseError, Layer, LayerId, LayerOptions, MountOptions, RepairOptions,
    SealOptions, UnmountMode, WipeOptions,
};

use super::{Snapshots, none};
use crate::support::store::assert_whole;
use crate::support::tar::{Member, archive};
use crate::support::{TestCommand, machine};

/// A committed snapshot, one that is written to above it, and one that looks at it.
fn three(name: &str) -> Snapshots {
    let snapshots = Snapshots::new(name);
    let source = snapshots.prepare("key", None, &none()).unwrap()[0].source.clone();
    std::fs::write(std::path::Path::new(&source).join("file"), "content").unwrap();
    snapshots.commit("base", "key", &CommitOptions::default()).unwrap();
    snapshots.prepare("active", Some("base"), &none()).unwrap();
    snapshots.view("view", Some("base"), &none()).unwrap();
    snapshots
}

/// Whether nothing of them has changed.
#[track_caller]
fn assert_there(snapshots: &Snapshots) {
    for (key, kind) in [("base", Kind::Committed), ("active", Kind::Active), ("view", Kind::View)] {
        assert_eq!(snapshots.stat(key).unwrap().kind, kind, "{key}");
        assert!(snapshots.store.layer_places(&layer(snapshots, key).id).unwrap().upper.is_dir());
    }
    assert_whole(&snapshots.store);
}

fn layer(snapshots: &Snapshots, key: &str) -> Layer {
    snapshots.store.layer(&format!("snapshot:{key}")).unwrap()
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, wanted: &str) {
    match result {
        Err(error @ Error::InUse(InUseError::Snapshot { .. })) => {
            assert!(error.to_string().contains(&format!("{wanted:?}")), "{error}");
            assert!(error.hint().unwrap().contains("ctr "), "{error}");
        }
        other => panic!("{wanted}: {other:?}"),
    }
}

#[test]
fn what_containerd_may_have_mounted_is_neither_changed_nor_removed() {
    let snapshots = three("snapshot-guards");
    let store = &snapshots.store;
    let active = layer(&snapshots, "active").id;
    for key in ["active", "view"] {
        let id = layer(&snapshots, key).id;
        assert_refused(store.remove_layer(&id), key);
        assert_refused(store.check_removable(&id), key);
        assert_refused(store.begin_removing_layer(&id).map(drop), key);
        assert_refused(store.create_layer(&id, &LayerOptions::default()), key);
        let mut image = ImageOptions::named("image");
        image.top_layer = Some(id);
        assert_refused(store.create_image(&image), key);
    }
    let tar = archive(&[Member::file("other", "other")]);
    for key in ["active", "view", "base"] {
        let id = layer(&snapshots, key).id;
        assert_refused(store.remove_regardless(&id), key);
        let mut apply = ApplyOptions::default();
        apply.change_under_others = true;
        assert_refused(store.apply_diff(&id, &*tar, &apply), key);
        // Without its name, or its kind, it would be no snapshot.
        let name = format!("snapshot:{key}").parse().unwrap();
        assert_refused(store.set_names(&id, &[]), key);
        assert_refused(store.remove_names(&id, &[name]), key);
        assert_refused(store.clear_flag(&id, "snapshot.kind"), key);
        assert_refused(store.set_flag(&id, "snapshot.kind", "\"else\""), key);
    }
    let other = store.create_layer(None, &LayerOptions::named("other")).unwrap();
    assert_refused(store.move_names(&other.id, &["snapshot:active".parse().unwrap()]), "active");
    assert_refused(store.seal(&active), "active");
    assert_refused(store.settle(&active), "active");
    assert_refused(store.seal_with(&layer(&snapshots, "base").id, &renaming()), "base");
    assert!(matches!(store.wipe(), Err(Error::InUse(InUseError::Snapshot { .. }))));
    assert!(store.layer("other").is_ok(), "something was wiped");
    assert!(store.gc(false).unwrap().removed.is_empty());
    assert_there(&snapshots);

    // Something else on a committed one keeps it, as for containerd.
    let above = store.create_layer(&layer(&snapshots, "base").id, &LayerOptions::default()).unwrap();
    store.remove_layer(&above.id).unwrap();
    // What containerd asks for is done.
    snapshots.commit("next", "active", &CommitOptions::default()).unwrap();
    for key in ["next", "view", "base"] {
        snapshots.remove(key).unwrap();
    }
    assert_eq!(store.layers().unwrap().len(), 1);
}

fn renaming() -> SealOptions {
    let mut options = SealOptions::default();
    options.names = Some(vec!["mine".to_owned()]);
    options
}

#[test]
fn a_snapshot_is_mounted_by_the_store_for_reading_only() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let snapshots = three("snapshot-guards-mount");
    let store = &snapshots.store;
    let active = layer(&snapshots, "active");
    let mut options = MountOptions::default();
    options.change_under_others = true;
    options.unseal = true;
    assert_refused(store.mount(&active, &options), "active");
    assert_refused(store.change_owners(&active.id, None, None), "active");
    assert!(snapshots.dir.mounts().is_empty());
    options.unseal = false;
    options.read_only = true;
    for key in ["active", "base"] {
        let thing = layer(&snapshots, key);
        let mount = store.mount(&thing, &options).unwrap();
        assert_eq!(std::fs::read_to_string(mount.path().join("file")).unwrap(), "content");
        store.unmount(&thing, UnmountMode::Plain).unwrap();
    }
    assert_there(&snapshots);
}

#[test]
fn a_repair_takes_no_snapshot_away() {
    let snapshots = three("snapshot-guards-repair");
    let base = layer(&snapshots, "base");
    let file = snapshots.store.layer_places(&base.id).unwrap().upper.join("file");
    std::fs::write(file, "damaged").unwrap();
    let mut options = RepairOptions::default();
    options.force = true;
    let refused = |dry_run| {
        let mut options = options.clone();
        options.dry_run = dry_run;
        let report = snapshots.store.repair(&options).unwrap();
        assert!(report.repaired.is_empty(), "{:?}", report.repaired);
        let is_it = |error: &Error| matches!(error, Error::InUse(InUseError::Snapshot { .. }));
        assert!(!report.failed.is_empty() && report.failed.iter().all(|one| is_it(&one.error)), "{report:?}");
    };
    for dry_run in [true, false] {
        refused(dry_run);
    }
    // Also one that nothing stands on: containerd's own records name it.
    snapshots.remove("active").unwrap();
    snapshots.remove("view").unwrap();
    refused(false);
    assert_eq!(snapshots.stat("base").unwrap().kind, Kind::Committed);
}

#[test]
fn a_repair_gives_no_other_directory_to_what_may_be_mounted() {
    let snapshots = three("snapshot-guards-mend");
    // The same content in another layer, from which it can be mended.
    let base = layer(&snapshots, "base");
    let tar = archive(&[Member::file("elsewhere", "content")]);
    snapshots.store.put_layer(None, &LayerOptions::named("other"), &*tar).unwrap();
    let file = snapshots.store.layer_places(&base.id).unwrap().upper.join("file");
    std::fs::write(&file, "damaged").unwrap();
    let mend = || snapshots.store.repair(&RepairOptions::default()).unwrap();
    let report = mend();
    assert!(report.repaired.is_empty() && !report.failed.is_empty(), "{report:?}");
    for key in ["active", "view"] {
        snapshots.remove(key).unwrap();
    }
    let report = mend();
    assert!(report.failed.is_empty() && report.is_complete(), "{report:?}");
    assert_whole(&snapshots.store);
}

#[test]
fn a_wipe_takes_snapshots_if_it_is_said() {
    let snapshots = three("snapshot-guards-wipe");
    let mut options = WipeOptions::default();
    options.snapshots = true;
    snapshots.store.wipe_with(&options).unwrap();
    assert!(snapshots.store.layers().unwrap().is_empty());
    assert_eq!(snapshots.names(&[]), Vec::<String>::new());
    // containerd unpacks its images again.
    snapshots.prepare("key", None, &none()).unwrap();
}

#[test]
fn the_command_line_says_whose_a_layer_is() {
    let snapshots = three("snapshot-guards-commands");
    let dir = &snapshots.dir;
    let told = |words: &[&str]| {
        let told = dir.layerstore(words).assert_exit(1);
        assert!(told.contains("the snapshot \"") && told.contains("hint: `ctr "), "{words:?}: {told}");
    };
    told(&["rm", "--layer", "snapshot:active"]);
    told(&["seal", "snapshot:active"]);
    told(&["wipe", "--force"]);
    told(&["create-layer", "snapshot:active"]);
    assert_there(&snapshots);
    if machine::is_root() {
        told(&["mount", "snapshot:active"]);
    }
    let compat = |words: &[&str]| {
        let command = TestCommand::layerstore().arg("compat").arg("--graph").arg(dir.root());
        let told = command.arg("--run").arg(dir.run_root()).args(words).assert_exit(1);
        assert!(told.contains("the snapshot \""), "{words:?}: {told}");
    };
    let id = |key: &str| -> LayerId { layer(&snapshots, key).id };
    compat(&["delete", id("active").as_str()]);
    compat(&["delete-layer", id("active").as_str()]);
    compat(&["wipe"]);
    assert_there(&snapshots);
    dir.layerstore(["rm", "--layer", "--force", "snapshot:active"]).assert_success();
    dir.layerstore(["wipe", "--force", "--snapshots"]).assert_success();
    assert!(snapshots.store.layers().unwrap().is_empty());
}
