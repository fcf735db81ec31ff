//! Mounts made by fuse-overlayfs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    CapabilityValue, ContainerOptions, Error, ExportError, Layer as StoredLayer, LayerOptions, MountError,
    MountOptions, Store, StoreOptions, SyncMode, UnmountMode,
};

use crate::support::containerd::wait_until;
use crate::support::oci::{Image, Layer};
use crate::support::random::Random;
use crate::support::store::{assert_whole, shown, shown_by_store};
use crate::support::tar::{Member, archive};
use crate::support::tree::Tree;
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

    // It is found where programs are.
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

/// Runs a script as an ordinary user, with `$DIR/layerstore`, and a store and a mount program as `ls`. In a mount namespace of its own,
/// in which everybody may use the device.
fn as_ordinary_user(dir: &Dir, inside: &str) -> String {
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    crate::support::command::copy_binary(&dir.join("layerstore"));
    let script = r#"
        test -n "$DIR"; mkdir "$DIR/dev"; mount -t tmpfs dev "$DIR/dev"
        mknod "$DIR/dev/fuse" c 10 229; chmod 666 "$DIR/dev/fuse"; mount --bind "$DIR/dev/fuse" /dev/fuse
        exec setpriv --reuid=65534 --regid=65534 --clear-groups -- sh -euc "$INSIDE"
    "#;
    let store = r#"ls() { "$DIR/layerstore" --root "$DIR/store" --runroot "$DIR/run" "$@"; }"#;
    TestCommand::new("unshare")
        .args(["--mount", "sh", "-euc", script])
        .env("DIR", dir.path())
        .env("INSIDE", format!("{store}\n{inside}"))
        .env("HOME", dir.path())
        .current_dir(dir.path())
        .stdout()
}

/// Whether an ordinary user can be had for whom the program mounts.
fn has_ordinary_user() -> bool {
    let has = |name| machine::has_program(name);
    machine::is_real_root() && program().is_some() && has("setpriv") && has("unshare")
}

#[test]
fn an_ordinary_user_mounts_and_unmounts_outside_a_namespace() {
    if !has_ordinary_user() {
        skip!(
            "becoming a user with a /dev/fuse needs real root, setpriv, unshare, fuse-overlayfs and fusermount3"
        );
    }
    let dir = Dir::new("mount-program-user");
    let inside = r#"
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
    let told = as_ordinary_user(&dir, inside);
    assert!(told.contains("A /file") && told.contains("fuse-overlayfs"), "{told}");
    let busy = std::fs::read_to_string(dir.join("busy")).unwrap();
    assert!(busy.contains("is in use"), "{busy}");
}

/// Inside of the namespace that they enter there are copies of the mounts alone.
#[test]
fn what_an_ordinary_user_mounted_is_removed_by_force() {
    if !has_ordinary_user() {
        skip!(
            "becoming a user with a /dev/fuse needs real root, setpriv, unshare, fuse-overlayfs and fusermount3"
        );
    }
    let dir = Dir::new("mount-program-force");
    let written = Image::new([Layer::new([Member::file("file", "text")])]).write(dir.join("layout"), "image");
    let inside = r#"
        program=$(command -v fuse-overlayfs)
        create() { ls create-container image --name "$1" > /dev/null; ls --mount-program "$program" mount "$1" > /dev/null; }
        none() { if grep "$DIR/run/mnt" /proc/mounts; then echo "still mounted after $1"; fi; }
        ls load "$REFERENCE" --name image > /dev/null
        create web
        ls status | grep "^mounted"
        if ls rm web 2> "$DIR/in-use"; then echo "removed what is mounted"; fi
        if ls unshare "$DIR/layerstore" rm --force web 2> "$DIR/outside"; then echo "removed from inside"; fi
        create other
        # Somebody uses it.
        (cd "$DIR"/run/mnt/*; ls --quiet rm --force web) > /dev/null
        ls rm --force other > /dev/null; none rm
        create web; ls rmi --force image > /dev/null; none rmi
        ls load "$REFERENCE" --name image > /dev/null
        create web
        if (cd "$DIR"/run/mnt/*; ls --quiet wipe --force 2> "$DIR/busy"); then echo "wiped what is used"; fi
        grep -c "$DIR/run/mnt" /proc/mounts
        ls wipe --force; none wipe
        ls status | grep "^mounted"
    "#;
    let inside = inside.replace("$REFERENCE", &written.reference());
    let told = as_ordinary_user(&dir, &inside);
    let lines: Vec<_> = told.lines().collect();
    let wiped = "removed 1 container, 1 image and 2 layers";
    assert_eq!(lines, ["mounted     1 layer", "1", wiped, "mounted     0 layers"], "{told}");
    let said = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert!(said("in-use").contains("is mounted"), "{}", said("in-use"));
    assert!(said("outside").contains("was mounted outside of this user namespace"), "{}", said("outside"));
    assert!(said("busy").contains("is in use"), "{}", said("busy"));
}

/// A store whose mounts the kernel makes, and the same one whose mounts the program makes.
fn both(dir: &Dir) -> (Store, Store) {
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    (Store::open(&options).unwrap(), Store::open(&options.prefer_mount_program(true)).unwrap())
}

fn base(store: &Store) -> StoredLayer {
    let members = [
        Member::directory("dir"),
        Member::file("dir/below", "below"),
        Member::file("gone", "x"),
        Member::file("changed", "old"),
        Member::directory("other"),
        Member::file("other/in", "in"),
    ];
    store.put_layer(None, &LayerOptions::named("base"), &*archive(&members)).unwrap()
}

fn mounted(store: &Store, layer: &StoredLayer) -> PathBuf {
    store.mount(layer, &MountOptions::default()).unwrap().path().to_owned()
}

fn changes(store: &Store, layer: &StoredLayer) -> Vec<String> {
    store.changes(layer).unwrap().iter().map(ToString::to_string).collect()
}

/// Kills what serves a mount, by its own number, and waits until the kernel knows.
fn kill_server(target: &Path) {
    let is_server = |directory: &Path| {
        let words = std::fs::read(directory.join("cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"fuse-overlayfs"))
            && words.any(|word| word == target.as_os_str().as_encoded_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let server = processes.filter(|directory| is_server(directory)).last().expect("a program serves it");
    let number = server.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let number = rustix::process::Pid::from_raw(number).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
    wait_until("the mount is dead", || {
        std::fs::read_dir(target).is_err_and(|error| error.raw_os_error() == Some(107))
    });
}

#[test]
fn a_containers_own_file_is_no_mark_of_a_program() {
    if !machine::is_root() || machine::in_user_namespace() {
        skip!("mounts of the kernel need root");
    }
    let dir = Dir::new("mount-program-own-file");
    let (kernel, by_program) = both(&dir);
    let base = base(&kernel);
    let layer = kernel.create_layer(&base.id, &LayerOptions::named("layer")).unwrap();
    let at = mounted(&kernel, &layer);
    std::fs::write(at.join("dir/.wh..wh..opq"), "").unwrap();
    std::fs::write(at.join("other/.wh.in"), "").unwrap();
    kernel.unmount(&layer, UnmountMode::Plain).unwrap();

    let added = ["C /dir", "A /dir/.wh..wh..opq", "C /other", "A /other/.wh.in"];
    assert_eq!(changes(&kernel, &layer), added);
    // No archive could have it, and no layer that is to become one.
    let refused = kernel.seal(&layer.id).unwrap_err();
    assert!(matches!(refused, Error::Export(ExportError::MarkerName { .. })), "{refused:?}");
    let refused = kernel.diff(&layer, &mut Vec::new()).unwrap_err();
    assert!(matches!(refused, Error::Export(ExportError::MarkerName { .. })), "{refused:?}");
    assert_eq!(changes(&kernel, &layer), added, "nothing was made of it");
    if program().is_some() {
        let refused = by_program.mount(&layer, &MountOptions::default()).unwrap_err();
        let named = "dir/.wh..wh..opq";
        assert!(
            matches!(&refused, Error::Mount(MountError::MarkerName { path, .. }) if path == Path::new(named)),
            "{refused:?}"
        );
    }
    let at = mounted(&kernel, &layer);
    assert!(at.join("dir/below").exists() && at.join("other/in").exists());
    std::fs::remove_file(at.join("dir/.wh..wh..opq")).unwrap();
    std::fs::remove_file(at.join("other/.wh.in")).unwrap();
    kernel.unmount(&layer, UnmountMode::Plain).unwrap();
    if program().is_some() {
        assert!(mounted(&by_program, &layer).join("dir/below").exists());
        by_program.unmount(&layer, UnmountMode::Plain).unwrap();
    }
    kernel.seal(&layer.id).unwrap();
    assert_whole(&kernel);
}

/// A layer may have a directory whose name begins as a whiteout's, and an attribute that means something to overlays of the other class.
/// The kernel shows them as they are, and a program would hide what is below.
#[test]
fn a_layer_that_a_program_would_misread_is_mounted_by_the_kernel_alone() {
    if program().is_none() {
        skip!("no root, or no fuse-overlayfs that could use /dev/fuse");
    }
    let dir = Dir::new("mount-program-misread");
    let (kernel, by_program) = both(&dir);
    let base = base(&kernel);
    let elsewhere = match machine::in_user_namespace() {
        false => "user.overlay.opaque",
        // Here only the machine's root could set the other.
        true => "user.own",
    };
    let cases = [
        (vec![Member::file(".wh.dir/file", "x")], Some(".wh.dir")),
        (vec![Member::file("dir/.wh..wh..opq/file", "x")], Some("dir/.wh..wh..opq")),
        (vec![Member::directory("dir").xattr(elsewhere, "y")], (elsewhere != "user.own").then_some("dir")),
        (vec![Member::directory(".").xattr(elsewhere, "y")], (elsewhere != "user.own").then_some("")),
        (vec![Member::file("plain", "x").xattr(elsewhere, "y"), Member::file("dir/.why", "x")], None),
    ];
    for (members, misread) in cases {
        let layer = kernel.put_layer(&base.id, &LayerOptions::named("layer"), &*archive(&members)).unwrap();
        assert!(mounted(&kernel, &layer).join("dir/below").exists(), "{misread:?}");
        kernel.unmount(&layer, UnmountMode::Plain).unwrap();
        let above = kernel.create_layer(&layer.id, &LayerOptions::named("above")).unwrap();
        for layer in [&layer, &above] {
            let refused = by_program.mount(layer, &MountOptions::default());
            let refused = match (&refused, misread) {
                (Ok(mount), None) => {
                    assert!(mount.path().join("dir/below").exists());
                    by_program.unmount(layer, UnmountMode::Plain).unwrap();
                    continue;
                }
                (Err(Error::Mount(refused)), Some(_)) => refused,
                _ => panic!("{misread:?}: {refused:?}"),
            };
            let (MountError::MarkerName { path, .. } | MountError::MarkerAttribute { path, .. }) = refused
            else {
                panic!("{refused:?}");
            };
            assert_eq!(path, Path::new(misread.unwrap()), "{refused}");
        }
        kernel.remove_layer(&above.id).unwrap();
        kernel.remove_layer(&layer.id).unwrap();
    }
    assert_whole(&kernel);
}

#[test]
fn an_attribute_that_a_container_gave_its_directory_is_no_mark_of_a_program() {
    if program().is_none() || machine::in_user_namespace() {
        skip!("no root of the machine, or no fuse-overlayfs that could use /dev/fuse");
    }
    let dir = Dir::new("mount-program-own-attribute");
    let (kernel, by_program) = both(&dir);
    let base = base(&kernel);
    let layer = kernel.create_layer(&base.id, &LayerOptions::named("layer")).unwrap();
    let at = mounted(&kernel, &layer).join("dir");
    rustix::fs::setxattr(&at, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    assert!(at.join("below").exists());
    kernel.unmount(&layer, UnmountMode::Plain).unwrap();
    let refused = by_program.mount(&layer, &MountOptions::default()).unwrap_err();
    assert!(
        matches!(&refused, Error::Mount(MountError::MarkerAttribute { path, .. }) if path == Path::new("dir")),
        "{refused:?}"
    );
    rustix::fs::removexattr(mounted(&kernel, &layer).join("dir"), "user.overlay.opaque").unwrap();
    kernel.unmount(&layer, UnmountMode::Plain).unwrap();
    assert!(mounted(&by_program, &layer).join("dir/below").exists());
    by_program.unmount(&layer, UnmountMode::Plain).unwrap();
}

#[test]
fn marks_are_settled_after_a_death() {
    if program().is_none() {
        skip!("no root, or no fuse-overlayfs that could use /dev/fuse");
    }
    for restarted in [false, true] {
        let dir = Dir::new("mount-program-death");
        let (kernel, by_program) = both(&dir);
        let base = base(&kernel);
        let layer = kernel.create_layer(&base.id, &LayerOptions::named("layer")).unwrap();
        let at = mounted(&by_program, &layer);
        std::fs::write(at.join("changed"), "new").unwrap();
        std::fs::remove_dir_all(at.join("dir")).unwrap();
        std::fs::create_dir(at.join("dir")).unwrap();
        let upper = kernel.layer_places(&layer.id).unwrap().upper;
        // As it writes where it can make no devices.
        std::fs::write(upper.join(".wh.gone"), "").unwrap();
        kill_server(&at);
        let expected = ["C /changed", "C /dir", "D /dir/below", "D /gone"];
        assert_eq!(changes(&kernel, &layer), expected, "also while it is dead");
        let mut tar = Vec::new();
        kernel.diff(&layer, &mut tar).unwrap();
        if restarted {
            rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
            std::fs::remove_dir_all(dir.run_root()).unwrap();
        }
        let (kernel, _) = (both(&dir).0, kernel);
        let at = mounted(&kernel, &layer);
        assert_eq!(kinds(&at), ["overlay"]);
        let mut names: Vec<_> =
            std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["changed", "dir", "other"]);
        assert_eq!(std::fs::read_dir(at.join("dir")).unwrap().count(), 0);
        assert_eq!(kernel.unmount(&layer, UnmountMode::Plain).unwrap(), 0);
        assert_eq!(changes(&kernel, &layer), expected);
        let copy = kernel.put_layer(Some(&base.id), &LayerOptions::named("copy"), &*tar).unwrap();
        shown_by_store(&kernel, &layer).assert_same(&shown_by_store(&kernel, &copy));
        kernel.seal(&layer.id).unwrap();
        assert_whole(&kernel);
    }
}

#[test]
fn a_mount_whose_program_was_killed_is_made_anew() {
    if program().is_none() {
        skip!("no root, or no fuse-overlayfs that could use /dev/fuse");
    }
    let dir = Dir::new("mount-program-killed");
    let (kernel, by_program) = both(&dir);
    let layer = kernel.create_layer(&base(&kernel).id, &LayerOptions::named("layer")).unwrap();
    for _ in 0..2 {
        mounted(&by_program, &layer);
    }
    let at = mounted(&by_program, &layer);
    std::fs::write(at.join("written"), "before").unwrap();
    kill_server(&at);
    let again = by_program.mount(&layer, &MountOptions::default()).unwrap();
    assert_eq!(again.count, 1, "nobody has anything of the dead one");
    assert_eq!(kinds(again.path()), ["fuse.fuse-overlayfs"]);
    assert_eq!(std::fs::read(again.path().join("written")).unwrap(), b"before");
    assert_eq!(by_program.unmount(&layer, UnmountMode::Plain).unwrap(), 0);
    assert!(!again.path().exists());
    assert_whole(&kernel);
}

#[test]
fn attributes_of_a_program_are_no_part_of_a_layer() {
    if program().is_none() {
        skip!("no root, or no fuse-overlayfs that could use /dev/fuse");
    }
    let dir = Dir::new("mount-program-attributes");
    let (kernel, by_program) = both(&dir);
    let base = base(&kernel);
    // One that a layer brings would hide what is below in mounts of the program only.
    let brought = [
        Member::directory("dir").xattr("user.fuseoverlayfs.opaque", "y"),
        Member::file("dir/own", "own").xattr("user.fuseoverlayfs.origin", "x").xattr("user.kept", "yes"),
    ];
    let brought =
        kernel.put_layer(Some(&base.id), &LayerOptions::named("brought"), &*archive(&brought)).unwrap();
    let seen = shown_by_store(&kernel, &brought);
    assert!(seen.get("dir/below").is_some());
    seen.assert_same(&shown_by_store(&by_program, &brought));

    let layer = kernel.create_layer(&brought.id, &LayerOptions::named("layer")).unwrap();
    let at = mounted(&by_program, &layer);
    std::fs::write(at.join("changed"), "new").unwrap();
    std::fs::write(at.join("dir/own"), "new").unwrap();
    let upper = kernel.layer_places(&layer.id).unwrap().upper;
    let origin =
        |name: &str| rustix::fs::getxattr(upper.join(name), "user.fuseoverlayfs.origin", &mut [0; 99]);
    assert!(origin("changed").is_ok(), "the program notes it");
    let archived = |store: &Store| {
        let mut tar = Vec::new();
        store.diff(&layer, &mut tar).unwrap();
        String::from_utf8_lossy(&tar).into_owned()
    };
    assert!(
        !archived(&by_program).contains("fuseoverlayfs"),
        "it is not in what goes out of a mounted layer"
    );
    by_program.unmount(&layer, UnmountMode::Plain).unwrap();
    assert!(origin("changed").is_err() && origin("dir/own").is_err());
    let found = rustix::fs::getxattr(upper.join("dir/own"), "user.kept", &mut [0; 9]);
    assert!(found.is_ok() && archived(&kernel).contains("user.kept"));
    // A container can set one where the kernel mounts.
    let at = mounted(&kernel, &layer);
    let own = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at.join("dir"), "user.fuseoverlayfs.opaque", b"y", own).unwrap();
    kernel.unmount(&layer, UnmountMode::Plain).unwrap();
    let seen = shown_by_store(&by_program, &layer);
    seen.assert_same(&shown_by_store(&kernel, &layer));
    kernel.seal(&layer.id).unwrap();
    shown_by_store(&kernel, &layer).assert_same(&shown_by_store(&by_program, &layer));
    assert_whole(&kernel);
}

#[test]
fn a_program_is_looked_for_at_each_use() {
    if program().is_none() {
        skip!("no root, or no fuse-overlayfs that could use /dev/fuse");
    }
    let dir = Dir::new("mount-program-installed");
    drop(both(&dir));
    // One that `PATH` names is nobody's.
    let planted = dir.create_dir("bin").join("fuse-overlayfs");
    std::os::unix::fs::symlink("/usr/bin/true", &planted).unwrap();
    let told = dir.layerstore(["status"]).env("PATH", dir.join("bin")).stdout();
    assert!(told.contains("/fuse-overlayfs") && !told.contains(planted.to_str().unwrap()), "{told}");
    // In a mount namespace of its own: gone, installed elsewhere, and gone again.
    let script = r#"
        status() { "$BIN" --root "$DIR/root" --runroot "$DIR/run" status; }
        installed=$(command -v fuse-overlayfs); test -n "$installed"
        mount -t tmpfs none /usr/local/bin
        mount --bind /dev/null "$installed"
        status > "$DIR/gone"
        ln -s /usr/bin/true /usr/local/bin/fuse-overlayfs
        status > "$DIR/there"
        rm /usr/local/bin/fuse-overlayfs
        status > "$DIR/gone again"
    "#;
    TestCommand::new("unshare")
        .args(["--mount", "sh", "-euc", script])
        .env("DIR", dir.path())
        .env("BIN", crate::support::command::binary())
        .assert_success();
    let told = |name: &str| {
        std::fs::read_to_string(dir.join(name)).unwrap().contains("/usr/local/bin/fuse-overlayfs")
    };
    assert_eq!([told("gone"), told("there"), told("gone again")], [false, true, false]);
}

/// The names that programs may use below.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Does something by chance in a tree: what fails is nothing done. No second names are made: a program shows all names of a file
/// in the layers below as changed if it is written to by one of them, and only until the next mount. Links lead nowhere, as it lists no
/// directory that has a link leading to itself in a layer below.
fn act(random: &mut Random, top: &Path) {
    let mut directories = vec![top.to_owned()];
    let mut files = Vec::new();
    let mut next = 0;
    while let Some(at) = directories.get(next).cloned() {
        next += 1;
        let entries = std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path());
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        for path in entries {
            match path.symlink_metadata().unwrap().is_dir() {
                true => directories.push(path),
                false => files.push(path),
            }
        }
    }
    let directory = random.choose(&directories).unwrap().clone();
    let name = random.choose(&directories).unwrap().join(random.choose(&NAMES).unwrap());
    let file = random.choose(&files).cloned().unwrap_or_else(|| name.clone());
    let is_file = file.symlink_metadata().is_ok_and(|found| found.is_file());
    let content = random.next().to_string();
    let own = rustix::fs::XattrFlags::empty();
    match random.below(13) {
        0 | 1 if name.symlink_metadata().is_err() => std::fs::write(&name, content).unwrap_or_default(),
        2 if is_file => std::fs::write(&file, content).unwrap_or_default(),
        3 if is_file => rustix::fs::setxattr(&file, "user.note", content.as_bytes(), own).unwrap_or_default(),
        4 => std::fs::remove_file(&file).unwrap_or_default(),
        5 if directory != top => std::fs::remove_dir_all(&directory).unwrap_or_default(),
        6 => std::fs::rename(&file, &name).unwrap_or_default(),
        7 if directory != top => std::fs::rename(&directory, &name).unwrap_or_default(),
        8 | 9 => std::fs::create_dir(&name).unwrap_or_default(),
        10 if is_file => {
            let mode = [0o755, 0o700, 0o640][random.below(3)];
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap_or_default();
        }
        11 => std::os::unix::fs::symlink("nowhere", &name).unwrap_or_default(),
        12 => std::os::unix::fs::lchown(&file, Some(7), Some(8)).unwrap_or_default(),
        _ => {}
    }
}

/// What is seen of a tree, but for times, which a program keeps for itself for a while.
fn without_times(mut tree: Tree) -> Tree {
    tree.nodes.values_mut().for_each(|node| node.mtime = (0, 0));
    tree
}

#[test]
fn what_a_program_shows_is_what_everybody_sees() {
    if program().is_none() {
        skip!("no root, or no fuse-overlayfs that could use /dev/fuse");
    }
    for seed in 0..12 {
        let dir = Dir::new("mount-program-chance");
        let (kernel, by_program) = both(&dir);
        let mut random = Random::for_purpose(seed, "mount program");
        let filled = |parent: Option<&StoredLayer>, random: &mut Random| {
            let layer = match parent {
                Some(parent) => kernel.create_layer(&parent.id, &LayerOptions::default()),
                None => kernel.create_layer(None, &LayerOptions::default()),
            };
            let layer = layer.unwrap();
            let at = mounted(&kernel, &layer);
            (0..25).for_each(|_| act(random, &at));
            kernel.unmount(&layer, UnmountMode::Plain).unwrap();
            kernel.seal(&layer.id).unwrap()
        };
        let bottom = filled(None, &mut random);
        let below = filled(Some(&bottom), &mut random);
        let layer = kernel.create_layer(&below.id, &LayerOptions::named("layer")).unwrap();
        let at = mounted(&by_program, &layer);
        (0..60).for_each(|_| act(&mut random, &at));
        let expected = without_times(shown(&at));
        if random.once_in(3) {
            kill_server(&at);
        }
        by_program.unmount(&layer, UnmountMode::Plain).unwrap();
        let mut tar = Vec::new();
        kernel.diff(&layer, &mut tar).unwrap();
        let copy = kernel.put_layer(Some(&below.id), &LayerOptions::named("copy"), &*tar).unwrap();
        let same = |what: &str, tree: Tree| {
            let differences = expected.differences(&without_times(tree));
            assert!(differences.is_empty(), "seed {seed}, {what}: {differences:#?}");
        };
        same("mounted by the kernel", shown_by_store(&kernel, &layer));
        same("as a layer of its own", shown_by_store(&kernel, &copy));
        kernel.seal(&layer.id).unwrap();
        same("sealed", shown_by_store(&kernel, &layer));
        same("sealed, by the program", shown_by_store(&by_program, &layer));
        assert_whole(&kernel);
    }
}
