//! The filesystems that a store can lie on, and those on which it cannot be mounted.

use std::path::Path;

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    ContainerOptions, DiffOptions, Layer, LayerOptions, MountOptions, Store, StoreOptions, SyncMode,
    UnmountMode,
};

use crate::support::oci::{Image, Layer as ImageLayer};
use crate::support::store::{assert_whole, shown, shown_by_store};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, disk, machine};

/// What runs where the kernel cannot.
const PROGRAM: &str = "/usr/bin/fuse-overlayfs";

/// A filesystem of this kind, mounted in the directory.
fn filesystem(dir: &Dir, kind: &str) -> Result<std::path::PathBuf, String> {
    if kind != "tmpfs" {
        return disk::mount(dir, kind, kind, &[]);
    }
    let at = dir.create_dir(kind);
    let flags = rustix::mount::MountFlags::empty();
    let mounted = rustix::mount::mount("none", &at, "tmpfs", flags, None);
    mounted.map(|()| at).map_err(|error| format!("cannot mount a tmpfs: {error}"))
}

fn open(dir: &Dir, at: &Path) -> Store {
    let options = StoreOptions::at(at.join("store")).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    Store::open(&options).unwrap()
}

fn load(dir: &Dir, store: &Store, name: &str, layers: Vec<ImageLayer>) -> layerstore::Image {
    let written = Image::new(layers).write(dir.join(format!("{name}.oci")), name);
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named(name)).unwrap()
}

fn lines(changes: &[layerstore::Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

/// Images come in, are mounted, written to, committed and written out.
fn works_on(kind: &str) -> Result<(), String> {
    let dir = Dir::new(kind);
    let at = filesystem(&dir, kind)?;
    let store = open(&dir, &at);
    let backing = store.backing().unwrap();
    assert_eq!((backing.filesystem.as_str(), backing.objection), (kind, None));
    let bottom = ImageLayer::new([
        Member::directory("d"),
        Member::file("d/1", b"1").xattr("user.note", "kept"),
        Member::file("d/2", b"2"),
        Member::directory("solid"),
        Member::file("solid/below", b"below"),
        Member::file("gone", b"gone"),
        Member::hard_link("link", "gone"),
    ]);
    let top = ImageLayer::new([
        Member::whiteout("d/2"),
        Member::directory("solid"),
        Member::opaque("solid"),
        Member::file("solid/above", b"above"),
    ]);
    let image = load(&dir, &store, "image", vec![bottom, top]);
    let tree = shown_by_store(&store, &image);
    assert!(tree.get("d/2").is_none() && tree.get("solid/below").is_none() && tree.get("d/1").is_some());
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    let script = "set -eu; test -n \"$1\"; cd \"$1\"; rm gone; rm -r solid; mkdir solid; echo new > solid/new; echo 2 > d/2
        chmod 600 d/1; mv d moved; ln link linked";
    TestCommand::new("sh").args(["-c", script, "sh"]).arg(mount.path()).assert_success();
    let tree = shown(mount.path());
    let expected = [
        "D /d",
        "D /gone",
        "C /link",
        "A /linked",
        "A /moved",
        "A /moved/1",
        "A /moved/2",
        "C /solid",
        "D /solid/above",
        "A /solid/new",
    ];
    assert_eq!(lines(&store.changes(&web).unwrap()), expected, "while it is mounted");
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_eq!(lines(&store.changes(&web).unwrap()), expected);
    assert!(store.native_diff(&web).unwrap().native);
    let committed = store.commit(&web.id, &CommitOptions::named("next")).unwrap();
    tree.assert_same(&shown_by_store(&store, &committed));
    let mut tar = Vec::new();
    store.diff(&web, &mut tar).unwrap();
    let parent = image.top_layer.clone().unwrap();
    let applied = store.put_layer(&parent, &LayerOptions::default(), &*tar).unwrap();
    tree.assert_same(&shown_by_store(&store, &applied));

    let deep = (0..128).map(|number| {
        let (own, shared) = (format!("{number}"), format!("{}", number % 7));
        ImageLayer::new([
            Member::file(own, b"x"),
            Member::file("last", number.to_string()),
            Member::whiteout(shared),
        ])
    });
    let deep = load(&dir, &store, "deep", deep.collect());
    let tree = shown_by_store(&store, &deep);
    assert!(tree.get("127").is_some() && tree.get("0").is_none() && tree.get("7").is_some());
    assert_eq!(tree.nodes.len(), 128 - 7 + 1 + 1, "the root, and what is left");
    assert_whole(&store);
    Ok(())
}

#[test]
fn images_live_on_ext4() {
    if let Err(why) = works_on("ext4") {
        skip!("{why}");
    }
}

#[test]
fn images_live_on_xfs() {
    if let Err(why) = works_on("xfs") {
        skip!("{why}");
    }
}

#[test]
fn images_live_on_btrfs() {
    if let Err(why) = works_on("btrfs") {
        skip!("{why}");
    }
}

#[test]
fn images_live_on_tmpfs() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    if let Err(why) = works_on("tmpfs") {
        skip!("{why}");
    }
}

/// The kernel refuses the filesystem, or would only warn: the command says what is wrong and what to do. With the mount
/// program it works.
fn is_for_the_program(dir: &Dir, at: &Path, filesystem: &str, reason: &str) {
    let root = at.join("store");
    let run = |command: TestCommand, arguments: &[&str]| {
        let command = command.arg("--root").arg(&root).arg("--runroot").arg(dir.run_root());
        command.args(arguments).env("LAYERSTORE_SYNC", "off")
    };
    run(TestCommand::layerstore(), &["create-layer", "--name", "base"]).assert_success();
    run(TestCommand::layerstore(), &["create-layer", "base", "--name", "web"]).assert_success();
    // Where no program can work, since nobody opens the device that it needs.
    let script = "set -eu; if test -e /dev/fuse; then mount --bind /dev/fuse /dev/fuse
        mount -o remount,bind,nodev /dev/fuse; fi; exec \"$@\"";
    let without_fuse = TestCommand::new("unshare").args(["-m", "sh", "-c", script, "sh"]);
    let error = run(without_fuse.arg(crate::support::command::binary()), &["mount", "web"]).assert_exit(1);
    for part in [filesystem, reason, "ext4, XFS, Btrfs", "fuse-overlayfs"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert_eq!(dir.mounts().iter().filter(|mount| mount.starts_with(dir.run_root())).count(), 0);
    if !Path::new(PROGRAM).exists() || std::fs::File::options().write(true).open("/dev/fuse").is_err() {
        skip!("there is no {PROGRAM}, or no /dev/fuse");
    }
    let options = StoreOptions::at(&root).run_root(dir.run_root()).sync(SyncMode::Off).mount_program(PROGRAM);
    let store = Store::open(&options).unwrap();
    assert!(store.backing().unwrap().objection.is_some_and(|objection| objection.contains(reason)));
    let base = archive(&[Member::directory("d"), Member::file("d/1", b"1"), Member::file("d/2", b"2")]);
    let base = store.put_layer(None, &LayerOptions::default(), &*base).unwrap();
    let web: Layer = store.create_layer(&base.id, &LayerOptions::default()).unwrap();
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    assert_eq!(std::fs::read_to_string(mount.path().join("d/1")).unwrap(), "1");
    std::fs::write(mount.path().join("d/new"), "new").unwrap();
    std::fs::write(mount.path().join("d/1"), "one").unwrap();
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_eq!(lines(&store.changes(&web).unwrap()), ["C /d", "C /d/1", "A /d/new"]);
    let mut tar = Vec::new();
    store.diff_with(&web, &DiffOptions::default(), &mut tar).unwrap();
}

#[test]
fn an_overlay_on_an_overlay_is_for_the_mount_program() {
    if !machine::is_real_root() {
        skip!("an overlay of the test's own needs the machine's root");
    }
    let dir = Dir::new("on-overlay");
    let [lower, upper, work, at] = ["lower", "upper", "work", "merged"].map(|name| dir.create_dir(name));
    let paths = [&lower, &upper, &work].map(|path| path.display().to_string());
    let options = format!("lowerdir={},upperdir={},workdir={}", paths[0], paths[1], paths[2]);
    let mut command = TestCommand::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&at);
    if !command.output().status.success() {
        skip!("this kernel makes no overlay in {}", dir.path().display());
    }
    is_for_the_program(&dir, &at, "overlay", "overlay mount itself");
}

#[test]
fn a_filesystem_that_tells_no_kinds_of_names_is_for_the_mount_program() {
    let dir = Dir::new("no-d-type");
    match disk::mount(&dir, "disk", "ext4", &["-O", "^filetype"]) {
        Ok(at) => is_for_the_program(&dir, &at, "ext4", "d_type"),
        Err(why) => skip!("{why}"),
    }
}

#[test]
fn ext4_is_asked_to_place_layers_apart() {
    let dir = Dir::new("placed-apart");
    match filesystem(&dir, "ext4") {
        Ok(at) => {
            open(&dir, &at).create_layer(None, &LayerOptions::default()).unwrap();
            let listed = TestCommand::new("lsattr").arg("-d").arg(at.join("store/diffs")).stdout();
            let attributes = listed.split(' ').next().unwrap();
            assert!(attributes.contains('T'), "{attributes}");
        }
        Err(why) => skip!("{why}"),
    }
}
