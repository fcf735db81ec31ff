//! Mounts made by fuse-overlayfs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    CapabilityValue, ContainerOptions, MountOptions, Store, StoreOptions, SyncMode, UnmountMode,
};

use crate::support::oci::{Image, Layer};
use crate::support::store::assert_whole;
use crate::support::tar::Member;
use crate::support::{Dir, TestCommand, machine};

/// The program, if it could work.
fn program() -> Option<PathBuf> {
    let is_there = machine::has_program("fuse-overlayfs") && machine::has_program("fusermount3");
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    (is_there && device.is_ok() && machine::is_root()).then(|| PathBuf::from("fuse-overlayfs"))
}

/// The filesystem types of what is mounted at a path.
fn kinds(path: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = |line: &&str| line.split(' ').nth(4) == path.canonicalize().unwrap().to_str();
    let kind = |line: &str| line.split(" - ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    table.lines().filter(at).map(kind).collect()
}

#[test]
fn a_program_that_is_preferred_mounts_and_what_it_leaves_is_a_layer() {
    if program().is_none() {
        skip!("no root, or no fuse-overlayfs that could use /dev/fuse");
    }
    let dir = Dir::new("mount-program");
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    let kernel = Store::open(&options).unwrap();
    let base = Layer::new([
        Member::directory("."),
        Member::file("changed", "old"),
        Member::file("gone", "x"),
        Member::directory("dir"),
        Member::file("dir/below", "below"),
        Member::directory("moved"),
        Member::file("moved/inside", "inside"),
    ]);
    let written = Image::new([base]).write(dir.join("layout"), "image");
    let source = Source::open(&written.reference().parse().unwrap(), kernel.root()).unwrap();
    let image = kernel.load(&source, &LoadOptions::named("image")).unwrap();

    // It is found where PATH says.
    let store = Store::open(&options.prefer_mount_program(true)).unwrap();
    let rows = store.capabilities().unwrap();
    let row = rows.iter().find(|row| row.name == "mounts").unwrap();
    let CapabilityValue::By(found) = &row.value else { panic!("{row:?}") };
    assert!(found.ends_with("fuse-overlayfs") && row.reason.contains("preferred"), "{row:?}");

    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    assert_eq!(kinds(mount.path()), ["fuse.fuse-overlayfs"]);
    let at = |path: &str| mount.path().join(path);
    std::fs::write(at("changed"), "new").unwrap();
    std::fs::remove_file(at("gone")).unwrap();
    std::fs::remove_dir_all(at("dir")).unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    std::fs::write(at("dir/made"), "made").unwrap();
    assert!(std::fs::rename(at("moved"), at("renamed")).is_err(), "programs copy instead");
    assert_eq!(store.mount(&web, &MountOptions::default()).unwrap().count, 2);
    assert_eq!(store.unmount(&web, UnmountMode::Plain).unwrap(), 1);
    assert_eq!(store.unmount(&web, UnmountMode::Plain).unwrap(), 0);
    assert!(!mount.path().exists());

    let changes: Vec<_> = store.changes(&web).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["C /changed", "C /dir", "D /dir/below", "A /dir/made", "D /gone"]);
    let next = store.commit(&web.id, &CommitOptions::named("next")).unwrap();
    for (store, what) in [(&store, next.id.clone()), (&kernel, next.id)] {
        let view = store.mount(&what, &MountOptions::default()).unwrap();
        let names = |path: &str| {
            let entries = std::fs::read_dir(view.path().join(path)).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(
            (names(""), names("dir")),
            (["changed", "dir", "moved"].map(Into::into).into(), vec!["made".into()])
        );
        assert!(std::fs::write(view.path().join("changed"), "x").is_err(), "a view is for reading");
        store.unmount(&what, UnmountMode::Plain).unwrap();
    }
    assert_whole(&store);
}

#[test]
fn an_ordinary_user_mounts_and_unmounts_outside_a_namespace() {
    let has = |name| machine::has_program(name);
    if !machine::is_real_root() || program().is_none() || !has("setpriv") || !has("unshare") {
        skip!(
            "becoming a user with a /dev/fuse needs real root, setpriv, unshare, fuse-overlayfs and fusermount3"
        );
    }
    let dir = Dir::new("mount-program-user");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::copy(crate::support::command::binary(), dir.join("layerstore")).unwrap();
    // A mount namespace of its own, in which everybody may use the device.
    let script = r#"
        test -n "$DIR"; mkdir "$DIR/dev"; mount -t tmpfs dev "$DIR/dev"
        mknod "$DIR/dev/fuse" c 10 229; chmod 666 "$DIR/dev/fuse"; mount --bind "$DIR/dev/fuse" /dev/fuse
        exec setpriv --reuid=65534 --regid=65534 --clear-groups -- sh -euc "$INSIDE"
    "#;
    let inside = r#"
        ls() { "$DIR/layerstore" --root "$DIR/store" --runroot "$DIR/run" "$@"; }
        ls create-layer --name base > "$DIR/out"
        ls status
        ls create-container --name web > "$DIR/out"
        path=$(ls --mount-program "$(command -v fuse-overlayfs)" mount web); test -n "$path"
        echo text > "$path/file"
        grep "$path fuse" /proc/mounts > "$DIR/out"
        # Somebody uses it.
        if (cd "$path"; "$DIR/layerstore" --root "$DIR/store" --runroot "$DIR/run" unmount web 2> "$DIR/busy"); then
            echo "unmounted while in use"; exit 1
        fi
        ls unmount web
        if grep "$path" /proc/mounts; then echo "it is still mounted"; exit 1; fi
        ls changes web
        ls rm web
    "#;
    let told = TestCommand::new("unshare")
        .args(["--mount", "sh", "-euc", script])
        .env("DIR", dir.path())
        .env("INSIDE", inside)
        .env("HOME", dir.path())
        .current_dir(dir.path())
        .stdout();
    assert!(told.contains("A /file") && told.contains("fuse-overlayfs"), "{told}");
    let busy = std::fs::read_to_string(dir.join("busy")).unwrap();
    assert!(busy.contains("is in use"), "{busy}");
}
