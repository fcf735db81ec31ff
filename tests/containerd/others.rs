//! What other commands of the store do to what containerd has there, and what containerd does after the worst of it.

use crate::support::containerd::{Containerd, obstacle, write_image};
use crate::support::store;

#[test]
fn other_commands_leave_snapshots_and_after_a_wipe_images_are_imported_again() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let world = Containerd::start("cd-others");
    let archive = write_image(world.dir(), "1", 2);
    world.import(&archive).assert_success();
    let store = store::open(world.dir());
    let listed = world.listed();
    let top =
        listed.iter().map(|[key, ..]| key).find(|key| listed.iter().all(|[_, parent, _]| parent != *key));
    let top = top.unwrap();
    world.snapshots(["prepare", "work", top]).assert_success();
    let listed = world.listed();

    // Whatever is tried, from the top.
    let mut layers = store.layers().unwrap();
    layers.sort_by_key(|layer| std::cmp::Reverse(store.layer_chain(&layer.id).unwrap().len()));
    for layer in &layers {
        world.dir().layerstore(["rm", "--layer"]).arg(layer.id.as_str()).assert_exit(1);
    }
    let told = world.dir().layerstore(["wipe", "--force"]).assert_exit(1);
    assert!(told.contains("hint: `ctr --namespace"), "{told}");
    world.dir().layerstore(["gc"]).assert_success();
    world.dir().layerstore(["repair", "--force"]).assert_success();
    assert_eq!(world.listed(), listed);
    super::images::assert_whole(&store);
    // The one that says what to do is right.
    world.snapshots(["rm", "work"]).assert_success();

    world.snapshots(["prepare", "lost", top]).assert_success();
    world.dir().layerstore(["wipe", "--force", "--snapshots"]).assert_success();
    world.snapshots(["mounts", "/none", "lost"]).assert_failure();
    world.snapshots(["rm", "lost"]).assert_success();
    world.ctr(["images", "rm", "--sync", "test:1"]).assert_success();
    for [key, ..] in world.listed() {
        world.snapshots(["rm", &key]).assert_success();
    }
    world.import(&archive).assert_success();
    assert_eq!(world.listed().len(), 3);
    world.snapshots(["view", "look", top]).assert_success();
    super::images::assert_whole(&store);
}
