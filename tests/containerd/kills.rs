//! The plugin is killed while it works, and while a container runs.

use std::fs;
use std::thread;

use super::images::assert_whole;
use crate::support::containerd::{Containerd, obstacle, obstacle_to_containers, wait_until, write_image};
use crate::support::store;

/// How many layers are above the lowest one.
const LAYERS: usize = 9;

#[test]
fn a_plugin_that_is_killed_during_imports_loses_nothing() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut world = Containerd::start("cd-import");
    let archive = write_image(world.dir(), "1", LAYERS);
    let diffs = world.dir().root().join("diffs");
    let mut interrupted = 0;
    for round in 1..=4 {
        let mut import = world.import(&archive);
        #[expect(clippy::disallowed_methods, reason = "a test has nothing to take along")]
        let importing = thread::spawn(move || import.output());
        wait_until("some layers are there, or all", || {
            importing.is_finished() || fs::read_dir(&diffs).is_ok_and(|names| names.count() >= round * 2)
        });
        world.kill_plugin();
        if round % 2 == 0 {
            world.start_plugin();
        }
        // It may well succeed: containerd calls again, if the plugin is back before it gives up.
        interrupted += u32::from(!importing.join().unwrap().status.success());
        if round % 2 != 0 {
            world.start_plugin();
        }
        world.wait_for_plugin();
        world.import(&archive).assert_success();
        let committed = world.listed().iter().filter(|[_, _, kind]| kind == "Committed").count();
        assert_eq!(committed, LAYERS + 1, "{:?}", world.listed());
        world.ctr(["images", "rm", "--sync", "test:1"]).assert_success();
        assert_eq!(world.listed(), Vec::<[String; 3]>::new(), "round {round}");
    }
    assert!(interrupted > 0, "no import was killed in the middle");
    assert_eq!(world.dir().layerstore(["layers", "--quiet"]).stdout(), "");
    assert_whole(&store::open(world.dir()));
}

#[test]
fn a_restart_writes_nothing_and_a_killed_plugin_may_stay_dead_for_a_while() {
    if let Some(why) = obstacle().or_else(obstacle_to_containers) {
        skip!("{why}");
    }
    let mut world = Containerd::start("cd-kill");
    let archive = write_image(world.dir(), "1", 2);
    world.import(&archive).assert_success();
    let name = format!("long-{}", std::process::id());
    let script =
        "echo one >/data/written; while ! test -e /data/stop; do sleep 0.1; done; echo three >>/data/written";
    world.run(["--detach", "--null-io", "test:1", &name, "/bin/sh", "-c", script]).assert_success();
    let listed = world.listed();
    let database = || fs::read(world.dir().root().join("store.redb")).unwrap();
    let recorded = database();

    world.kill_plugin();
    // The container has its mount from the kernel.
    let exec = [
        "task",
        "exec",
        "--exec-id",
        "two",
        &name,
        "/bin/sh",
        "-c",
        "echo two >>/data/written; cat /etc/top",
    ];
    assert_eq!(world.ctr(exec).stdout(), "2");
    world.snapshots(["ls"]).assert_failure();

    world.start_plugin();
    // Each of these snapshots is asked for.
    wait_until("containerd finds the plugin", || world.snapshots(["ls"]).output().status.success());
    assert_eq!(world.listed(), listed);
    let database = || fs::read(world.dir().root().join("store.redb")).unwrap();
    assert!(database() == recorded, "a restart wrote to the database");
    let exec = ["task", "exec", "--exec-id", "stop", &name, "/bin/sh", "-c", "touch /data/stop"];
    world.ctr(exec).assert_success();
    wait_until("the container ends", || world.ctr(["task", "ls"]).stdout().contains("STOPPED"));
    world.ctr(["task", "rm", &name]).assert_success();

    // What it wrote before, meanwhile and after is there, in a container that stands on its snapshot.
    world.snapshots(["commit", "saved", &name]).assert_success();
    world.snapshots(["prepare", "again", "saved"]).assert_success();
    let at = world.dir().create_dir("at");
    let mount = world.snapshots(["mounts", at.to_str().unwrap(), "again"]).stdout();
    crate::support::TestCommand::new("sh").args(["-c", &mount]).assert_success();
    assert_eq!(fs::read_to_string(at.join("data/written")).unwrap(), "one\ntwo\nthree\n");
    crate::support::TestCommand::new("umount").arg(&at).assert_success();
    for key in ["again", "saved"] {
        world.snapshots(["rm", key]).assert_success();
    }
    world.ctr(["containers", "rm", &name]).assert_success();
    world.ctr(["images", "rm", "--sync", "test:1"]).assert_success();
    assert_eq!(world.listed(), Vec::<[String; 3]>::new());
    assert_whole(&store::open(world.dir()));
}
