//! backup and compact.

use layerstore::{ContainerOptions, Store, StoreOptions};

use super::{can_mount, lists, load_base, mount};
use crate::support::Dir;

#[test]
fn a_copy_takes_the_place_of_the_database() {
    let dir = Dir::new("backup");
    load_base(&dir);
    let before = lists(&dir);
    let copy = dir.join("copy");
    let copy = copy.to_str().unwrap();
    let report = dir.layerstore(["backup", copy, "--json"]).json();
    assert_eq!(report["bytes"], std::fs::metadata(copy).unwrap().len());
    dir.layerstore(["backup", copy]).assert_exit(1);
    dir.layerstore(["backup", "--force", copy]).assert_success();
    dir.layerstore(["backup", "-"]).assert_exit(2);

    dir.layerstore(["create-container", "base", "--name", "since"]).assert_success();
    assert_ne!(lists(&dir), before);
    std::fs::rename(copy, dir.root().join("store.redb")).unwrap();
    assert_eq!(lists(&dir), before);
    // The container's directory is garbage, and nothing else is out of order.
    let removed = dir.layerstore(["gc", "--json"]).json();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 1, "{removed}");
    dir.layerstore(["check", "--deep"]).assert_success();
}

/// A store with an image, beside which `link` and `hard` are its database too, and `door` its root.
fn with_ways_in(name: &str) -> Dir {
    let dir = Dir::new(name);
    load_base(&dir);
    let database = dir.root().join("store.redb");
    std::os::unix::fs::symlink(&database, dir.join("link")).unwrap();
    std::fs::hard_link(&database, dir.join("hard")).unwrap();
    std::os::unix::fs::symlink(dir.root(), dir.join("door")).unwrap();
    dir
}

#[test]
fn a_copy_is_never_written_over_the_store() {
    let dir = with_ways_in("backup-own");
    let before = lists(&dir);
    for own in
        ["root/store.redb", "link", "hard", "door/store.redb", "root/copy", "root/diffs/copy", "run/copy"]
    {
        let refused = dir.layerstore(["backup", "--force", own]).assert_exit(1);
        assert!(refused.contains("choose a path outside of it"), "{own}: {refused}");
    }
    // What is committed after is seen by all: it is the same file.
    dir.layerstore(["create-container", "base", "--name", "since"]).assert_success();
    assert_ne!(lists(&dir), before);
    assert!(!dir.root().join("copy").exists());
}

#[test]
fn no_output_goes_over_the_store() {
    let dir = with_ways_in("output-own");
    let before = lists(&dir);
    for own in ["root/store.redb", "link", "hard", "door/store.redb", "root/diffs/new", "run/new/deeper"] {
        for command in [
            vec!["diff", "base", "-o", own],
            vec!["item", "get", "base", "manifest", "-o", own],
            vec!["save", "base", &format!("oci-archive:{own}")],
            vec!["save", "base", &format!("oci:{own}")],
        ] {
            let refused = dir.layerstore(&command).assert_exit(1);
            assert!(refused.contains("choose a path outside of it"), "{command:?}: {refused}");
        }
    }
    assert_eq!(lists(&dir), before);
    dir.layerstore(["diff", "base", "-o", "outside"]).assert_success();
    // What a container shows is its own, wherever it is mounted.
    if can_mount() {
        dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
        let inside = mount(&dir, "web").join("etc/manifest");
        dir.layerstore(["item", "get", "base", "manifest", "-o", inside.to_str().unwrap()]).assert_success();
        assert!(inside.exists());
        dir.layerstore(["unmount", "web"]).assert_success();
    }
    dir.layerstore(["check", "--deep"]).assert_success();
}

#[test]
fn a_copy_is_written_to_files_alone() {
    let dir = Dir::new("backup-kinds");
    load_base(&dir);
    dir.create_dir("there");
    dir.write("taken", "");
    let taken = dir.layerstore(["backup", "taken"]).assert_exit(1);
    assert!(taken.contains("--force"), "{taken}");
    for force in [&[][..], &["--force"]] {
        let refused = dir.layerstore(["backup", "there"]).args(force).assert_exit(1);
        assert!(refused.contains("there is a directory"), "{refused}");
        let refused = dir.layerstore(["backup", "/dev/null"]).args(force).assert_exit(1);
        assert!(refused.contains("a device"), "{refused}");
    }
}

#[test]
fn a_copy_of_a_store_that_did_not_change_is_clean() {
    let dir = Dir::new("backup-clean");
    load_base(&dir);
    let copy = dir.join("copy");
    dir.layerstore(["backup", copy.to_str().unwrap()]).assert_success();
    std::fs::rename(copy, dir.root().join("store.redb")).unwrap();
    dir.layerstore(["check", "--deep"]).assert_success();
    assert_eq!(dir.layerstore(["gc"]).stdout(), "nothing to remove\n");
}

#[test]
fn a_process_that_has_the_store_open_goes_on_after_a_compaction() {
    let dir = Dir::new("compact");
    load_base(&dir);
    let noise: Vec<u8> =
        (0..4_000_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let large = dir.write("large", noise);
    dir.layerstore(["item", "put", "base", "large"]).arg(large).assert_success();
    let store = Store::open(&StoreOptions::at(dir.root()).run_root(dir.run_root())).unwrap();
    let image = store.image("base").unwrap();
    store.write(|txn| txn.remove_item(&image, "large").map(drop)).unwrap();

    let locked =
        store.write(|_| Ok(dir.layerstore(["--lock-timeout", "0", "compact"]).assert_exit(1))).unwrap();
    assert!(
        locked.contains("is being written by process") && locked.contains("; gave up at once"),
        "{locked}"
    );
    let report = dir.layerstore(["compact", "--json"]).json();
    let bytes = |name: &str| report[name].as_u64().unwrap();
    assert!(bytes("bytes_after") < bytes("bytes_before") / 2, "{report}");

    assert_eq!(store.image("base").unwrap(), image);
    store.create_container(&image.id, &ContainerOptions::named("after")).unwrap();
    dir.layerstore(["check", "--deep"]).assert_success();
}
