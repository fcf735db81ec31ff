//! Images and containers, from their import to their removal.

use layerstore::{CheckOptions, Store};

use crate::support::containerd::{Containerd, obstacle, obstacle_to_containers, write_image};
use crate::support::store;

/// Nothing is damaged, and there is no garbage after a collection.
#[track_caller]
pub fn assert_whole(store: &Store) {
    store.gc(false).unwrap();
    let report = store.check(&CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    store::assert_whole(store);
}

#[test]
fn an_image_is_imported_and_goes_with_its_snapshots() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let world = Containerd::start("cd-image");
    let archive = write_image(world.dir(), "1", 3);
    world.import(&archive).assert_success();

    // A chain of four, the lowest without a parent.
    let listed = world.listed();
    assert_eq!(listed.len(), 4, "{listed:?}");
    assert!(listed.iter().all(|[_, _, kind]| kind == "Committed"), "{listed:?}");
    let mut top =
        listed.iter().map(|[key, ..]| key).find(|key| listed.iter().all(|[_, parent, _]| parent != *key));
    let [lowest, ..] = listed.iter().find(|[_, parent, _]| parent.is_empty()).unwrap();
    for _ in 0..3 {
        top = listed.iter().find(|[key, ..]| Some(key) == top).map(|[_, parent, _]| parent);
    }
    assert_eq!(top, Some(lowest));
    let top =
        listed.iter().map(|[key, ..]| key).find(|key| listed.iter().all(|[_, parent, _]| parent != *key));
    let top = top.unwrap().as_str();

    let info = world.snapshots(["info", top]).json();
    assert_eq!((info["Kind"].as_str(), info["Name"].as_str()), (Some("Committed"), Some(top)), "{info}");
    let usage = world.snapshots(["usage"]).stdout();
    assert_eq!(usage.lines().count(), 5, "{usage}");
    world.snapshots(["label", top, "containerd.io/test=yes"]).assert_success();
    let info = world.snapshots(["info", top]).json();
    assert_eq!(info["Labels"]["containerd.io/test"], "yes", "{info}");

    // The same store, by the command line and by the library, while the plugin serves.
    let store = store::open(world.dir());
    assert_eq!(world.dir().layerstore(["layers", "--quiet"]).stdout().lines().count(), 4);
    world.dir().layerstore(["create-layer", "--name", "mine"]).assert_success();
    assert_eq!(world.listed(), listed, "a layer that is no snapshot was shown");
    world.dir().layerstore(["rm", "--layer", "mine"]).assert_success();
    assert_whole(&store);

    // A view shows all layers, and what the top one removed is not there.
    world.snapshots(["view", "look", top]).assert_success();
    let at = world.dir().create_dir("at");
    let mount = world.snapshots(["mounts", at.to_str().unwrap(), "look"]).stdout();
    crate::support::TestCommand::new("sh").args(["-c", &mount]).assert_success();
    assert_eq!(std::fs::read_to_string(at.join("etc/top")).unwrap(), "3");
    assert_eq!(std::fs::read_to_string(at.join("data/1/7")).unwrap(), "1.7\n");
    assert!(!at.join("etc/removed").exists());
    assert!(std::fs::write(at.join("etc/new"), "").is_err());
    crate::support::TestCommand::new("umount").arg(&at).assert_success();
    world.snapshots(["rm", "look"]).assert_success();

    // What stands below others stays; containerd's collector takes all of it, from the top.
    world.snapshots(["rm", lowest]).assert_failure();
    world.ctr(["images", "rm", "--sync", "test:1"]).assert_success();
    assert_eq!(world.listed(), Vec::<[String; 3]>::new());
    assert_eq!(world.dir().layerstore(["layers", "--quiet"]).stdout(), "");
    assert_whole(&store);
}

#[test]
fn a_container_runs_and_is_committed() {
    if let Some(why) = obstacle().or_else(obstacle_to_containers) {
        skip!("{why}");
    }
    let world = Containerd::start("cd-run");
    let archive = write_image(world.dir(), "1", 2);
    world.import(&archive).assert_success();
    let before = world.listed();

    let once = format!("once-{}", std::process::id());
    let script =
        "cat /etc/top /data/2/3; test ! -e /etc/removed; echo of a container >/data/new; rm -r /data/1";
    let mut run = world.run(["--rm", "test:1", &once, "/bin/sh", "-ec", script]);
    assert_eq!(run.stdout(), "22.3\n");
    assert_eq!(world.listed(), before, "a container left its snapshot");

    let kept = format!("kept-{}", std::process::id());
    world.run(["test:1", &kept, "/bin/sh", "-ec", script]).assert_success();
    assert!(
        world.listed().iter().any(|[key, _, kind]| *key == kept && kind == "Active"),
        "{:?}",
        world.listed()
    );
    let diff = world.dir().write("diff.tar", world.snapshots(["diff", &kept]).stdout_bytes());
    // containerd writes it compressed.
    let names = crate::support::TestCommand::new("tar").arg("-tzf").arg(&diff).stdout();
    assert!(
        names.contains("data/new\n") && names.contains("data/.wh.1\n") && !names.contains("bin/"),
        "{names}"
    );

    world.snapshots(["commit", "saved", &kept]).assert_success();
    assert_eq!(world.snapshots(["info", "saved"]).json()["Kind"], "Committed");
    world.snapshots(["info", &kept]).assert_failure();
    // No view: `ctr` gives it no label that keeps it from the collector, which the container's end has woken.
    world.snapshots(["prepare", "more", "saved"]).assert_success();
    world.snapshots(["rm", "saved"]).assert_failure();
    for key in ["more", "saved"] {
        world.snapshots(["rm", key]).assert_success();
    }
    world.ctr(["containers", "rm", &kept]).assert_success();
    assert_eq!(world.listed(), before);
    assert_whole(&store::open(world.dir()));
}
