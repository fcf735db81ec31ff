//! What layers show, mounted as an EROFS image over files that they share.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    CheckLevel, CheckOptions, ContainerOptions, Error, IdExtent, IdMapping, IdMaps, LayerOptions, MountError,
    MountOptions, RepairOptions, Store, StoreOptions, SyncMode, UnmountMode,
};

use crate::support::oci::{Image, Layer};
use crate::support::store::assert_whole;
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, machine};

mod verity;

fn options(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0)
}

fn load(dir: &Dir, store: &Store, name: &str, layers: impl IntoIterator<Item = Layer>) -> layerstore::Image {
    let written = Image::new(layers).write(dir.join(format!("{name}.oci")), name);
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named(name)).unwrap()
}

fn layers() -> [Layer; 2] {
    let base = Layer::new([
        Member::directory("etc"),
        Member::file("etc/hello", "hello").mode(0o640).mtime(1_600_000_000, 0),
        Member::file("etc/gone", "gone"),
        Member::directory("replaced"),
        Member::file("replaced/below", "below"),
        Member::file("shared", "the same content"),
    ]);
    let top = Layer::new([
        Member::whiteout("etc/gone"),
        Member::opaque("replaced"),
        Member::file("replaced/above", "above"),
        Member::file("also-shared", "the same content").mode(0o600),
        Member::hard_link("linked", "also-shared"),
        Member::symlink("link", "etc/hello"),
        Member::fifo("fifo"),
        Member::file("empty", ""),
    ]);
    [base, top]
}

/// Why this machine cannot mount images, if so.
fn obstacle(error: &Error) -> Option<&'static str> {
    match error {
        Error::Mount(MountError::Composefs { reason }) => Some(reason),
        _ => None,
    }
}

/// A store with an image and a container, mounted; `None` where the kernel cannot.
fn mounted(dir: &Dir) -> Option<(Store, layerstore::Image, layerstore::Container, PathBuf)> {
    mounted_in(dir, &options(dir))
}

/// The same, in a store with these options.
fn mounted_in(
    dir: &Dir,
    options: &StoreOptions,
) -> Option<(Store, layerstore::Image, layerstore::Container, PathBuf)> {
    if !machine::is_root() {
        machine::note_skip("mounting needs root or a user namespace");
        return None;
    }
    let store = Store::open(&options.clone().use_composefs(true)).unwrap();
    let image = load(dir, &store, "image", layers());
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    match store.mount(&web, &MountOptions::default()) {
        Ok(mount) => {
            let path = mount.path().to_owned();
            Some((store, image, web, path))
        }
        Err(error) => {
            let reason = obstacle(&error).unwrap_or_else(|| panic!("{error}"));
            assert!(!store.root().join("composefs").exists(), "nothing is made where nothing is mounted");
            machine::note_skip(reason);
            None
        }
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn names(path: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn loop_devices_of(dir: &Dir) -> usize {
    let backing = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("loop/backing_file")).ok();
    let entries = fs::read_dir("/sys/block").unwrap();
    let root = dir.path().to_str().unwrap().to_owned();
    entries.filter_map(|entry| backing(entry.unwrap())).filter(|file| file.contains(&root)).count()
}

#[test]
fn an_image_shows_what_the_directories_show() {
    let dir = Dir::new("composefs");
    let Some((store, image, web, path)) = mounted(&dir) else { return };
    assert_eq!(read(path.join("etc/hello")), "hello");
    let found = fs::metadata(path.join("etc/hello")).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime(), found.len()), (0o640, 1_600_000_000, 5));
    assert_eq!(names(path.join("etc")), ["hello"]);
    assert_eq!(names(path.join("replaced")), ["above"]);
    assert_eq!(names(&path), ["also-shared", "empty", "etc", "fifo", "link", "linked", "replaced", "shared"]);
    assert_eq!(read(path.join("linked")), "the same content");
    assert_eq!(fs::metadata(path.join("also-shared")).unwrap().nlink(), 2);
    // What is written is a changeset like any other: a change of the mode alone has the whole file.
    fs::set_permissions(path.join("shared"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path.join("etc/hello"), "changed").unwrap();
    fs::remove_file(path.join("linked")).unwrap();
    let changes: Vec<_> = store.changes(&web).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["C /etc", "C /etc/hello", "D /linked", "C /shared"]);
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_eq!(loop_devices_of(&dir), 0);
    let next = store.commit(&web.id, &CommitOptions::named("next")).unwrap();
    let view = store.mount(&next, &MountOptions::default()).unwrap();
    assert_eq!(read(view.path().join("shared")), "the same content");
    assert_eq!(read(view.path().join("etc/hello")), "changed");
    assert!(!view.path().join("linked").exists());
    store.unmount(&next, UnmountMode::Plain).unwrap();
    let view = store.mount(&image, &MountOptions::default()).unwrap();
    assert_eq!(read(view.path().join("etc/hello")), "hello");
    store.unmount(&image, UnmountMode::Plain).unwrap();
    assert_whole(&store);
    // Who does not ask for images has the same tree.
    let plain = Store::open(&options(&dir)).unwrap();
    let view = plain.mount(&next, &MountOptions::default()).unwrap();
    assert_eq!(read(view.path().join("shared")), "the same content");
    plain.unmount(&next, UnmountMode::Plain).unwrap();
}

/// The inodes of the files with this content, in all images of a store.
fn inodes(store: &Store, content: &str) -> Vec<u64> {
    let name = blake3::hash(content.as_bytes()).to_hex();
    let layers = fs::read_dir(store.root().join("composefs")).unwrap().map(|layer| layer.unwrap().path());
    let files =
        layers.flat_map(|layer| ["data", "data.verity"].map(|data| layer.join(data).join(name.as_str())));
    files.filter_map(|file| Some(fs::metadata(file).ok()?.ino())).collect()
}

#[test]
fn equal_content_is_one_file_until_nobody_has_it() {
    let dir = Dir::new("composefs-shared");
    let Some((store, image, web, _)) = mounted(&dir) else { return };
    let shared = inodes(&store, "the same content");
    assert_eq!(shared.len(), 2);
    assert_eq!(shared[0], shared[1]);
    // Another image, whose layer knows nothing of these.
    let other = load(&dir, &store, "other", [Layer::new([Member::file("elsewhere", "the same content")])]);
    let view = store.mount(&other, &MountOptions::default()).unwrap();
    assert_eq!(inodes(&store, "the same content"), [shared[0]; 3]);
    store.unmount(&web, UnmountMode::Plain).unwrap();
    store.remove_container(&web.id).unwrap();
    store.remove_image(&image.id).unwrap();
    assert_eq!(names(store.root().join("composefs")).len(), 1, "what a layer has went with it");
    assert_eq!(read(view.path().join("elsewhere")), "the same content");
    assert_eq!(names(store.root().join("content")).len(), 1, "what nobody has takes no space");
    store.unmount(&other, UnmountMode::Plain).unwrap();
    store.remove_image(&other.id).unwrap();
    assert_eq!(names(store.root().join("content")).len(), 0);
    store.gc(true).unwrap();
    assert!(store.root().join("content").exists());
    store.gc(false).unwrap();
    assert!(!store.root().join("content").exists(), "layers are made writable where they stand again");
    assert_whole(&store);
}

#[test]
fn what_is_damaged_is_not_shared() {
    let dir = Dir::new("composefs-damaged");
    let Some((store, _, web, _)) = mounted(&dir) else { return };
    let name = blake3::hash(b"the same content").to_hex();
    let damaged = store.root().join("content").join(name.as_str());
    // Where the kernel verifies files, nobody can write to them.
    if let Err(error) = fs::write(&damaged, "another content!") {
        store.unmount(&web, UnmountMode::Plain).unwrap();
        skip!("the files cannot be written to: {error}");
    }
    let other = load(&dir, &store, "other", [Layer::new([Member::file("elsewhere", "the same content")])]);
    let view = store.mount(&other, &MountOptions::default()).unwrap();
    assert_eq!(read(view.path().join("elsewhere")), "the same content");
    assert_eq!(read(&damaged), "the same content", "the good one is shared from now on");
    store.unmount(&other, UnmountMode::Plain).unwrap();
    store.unmount(&web, UnmountMode::Plain).unwrap();
}

#[test]
fn who_writes_to_an_unsealed_layer_changes_no_other() {
    let dir = Dir::new("composefs-unseal");
    let Some((store, _, web, path)) = mounted(&dir) else { return };
    let tar =
        archive(&[Member::file("elsewhere", "the same content"), Member::file("own", "alone until now")]);
    let layer = store.put_layer(None, &LayerOptions::named("other"), &*tar).unwrap();
    let view = store.mount(&layer, &MountOptions::default()).unwrap();
    assert_eq!(read(view.path().join("own")), "alone until now");
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    let reader = load(&dir, &store, "reader", [Layer::new([Member::file("also", "alone until now")])]);
    let seen = store.mount(&reader, &MountOptions::default()).unwrap();
    assert_eq!(inodes(&store, "alone until now").len(), 2);
    store.unseal(&layer.id).unwrap();
    let mount = store.mount(&layer, &MountOptions::default()).unwrap();
    fs::write(mount.path().join("elsewhere"), "of this layer").unwrap();
    fs::write(mount.path().join("own"), "of this layer").unwrap();
    assert_eq!(read(path.join("shared")), "the same content");
    assert_eq!(read(seen.path().join("also")), "alone until now");
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    store.unmount(&reader, UnmountMode::Plain).unwrap();
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_whole(&store);
}

#[test]
fn a_changed_image_is_found_and_made_again() {
    let dir = Dir::new("composefs-check");
    let Some((store, image, web, _)) = mounted(&dir) else { return };
    store.unmount(&web, UnmountMode::Plain).unwrap();
    let view = store.mount(&image, &MountOptions::default()).unwrap();
    let layers = fs::read_dir(store.root().join("composefs")).unwrap().map(|layer| layer.unwrap().path());
    let images = layers.flat_map(|layer| names(&layer).into_iter().map(move |name| layer.join(name)));
    let file = images.into_iter().find(|path| path.to_str().unwrap().ends_with(".erofs")).unwrap();
    let directory = file.parent().unwrap().to_owned();
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, bytes).unwrap();
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Default;
    let report = store.check(&options).unwrap();
    let codes: Vec<_> = report.findings.iter().map(|finding| finding.code()).collect();
    assert_eq!(codes, ["composefs-changed"]);
    // While somebody sees it, it stays.
    let report = store.repair(&RepairOptions::default()).unwrap();
    assert!(!report.is_complete() && view.path().join("link").exists());
    store.unmount(&image, UnmountMode::Plain).unwrap();
    assert!(store.repair(&RepairOptions::default()).unwrap().is_complete());
    assert!(!directory.exists());
    store.mount(&image, &MountOptions::default()).unwrap();
    assert!(directory.exists());
    store.unmount(&image, UnmountMode::Plain).unwrap();
    assert_whole(&store);
    // Without its files it shows nothing.
    for data in ["data", "data.verity"] {
        fs::remove_dir_all(directory.join(data)).ok();
    }
    let report = store.check(&options).unwrap();
    let codes: Vec<_> = report.findings.iter().map(|finding| finding.code()).collect();
    assert_eq!(codes, ["composefs-changed"]);
    assert!(store.repair(&RepairOptions::default()).unwrap().is_complete());
    assert_whole(&store);
}

#[test]
fn the_option_reaches_the_store() {
    let dir = Dir::new("composefs-option");
    let Some((store, image, web, _)) = mounted(&dir) else { return };
    store.unmount(&web, UnmountMode::Plain).unwrap();
    fs::remove_dir_all(dir.root().join("composefs")).unwrap();
    let (root, run_root) = (dir.root(), dir.run_root());
    let compat = |options: &[&str], command: &[&str]| {
        let place = ["compat", "--graph", root.to_str().unwrap(), "--run", run_root.to_str().unwrap()];
        TestCommand::layerstore().args(place).args(options).args(command).assert_success();
    };
    let directories = &["--storage-opt", "overlay.use_composefs=false"][..];
    let images = &["--storage-opt", "overlay.use_composefs=true"][..];
    for (options, made) in [(directories, false), (images, true)] {
        compat(options, &["mount", "-r", image.id.as_str()]);
        compat(options, &["unmount", image.id.as_str()]);
        assert_eq!(dir.root().join("composefs").exists(), made, "{options:?}");
    }
    fs::remove_dir_all(dir.root().join("composefs")).unwrap();
    let text = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = {root:?}\nrunroot = {run_root:?}\n\
         [storage.options.overlay]\nuse_composefs = \"true\"\n"
    );
    let conf = dir.write("storage.conf", text);
    let program = |command: &[&str]| {
        TestCommand::layerstore().arg("--config").arg(&conf).args(command).assert_success();
    };
    program(&["mount", "web"]);
    program(&["unmount", "web"]);
    assert!(dir.root().join("composefs").exists());
}

#[test]
fn what_cannot_be_mounted_says_why() {
    let dir = Dir::new("composefs-refused");
    if !machine::in_user_namespace() {
        skip!("only a user namespace refuses images on every kernel");
    }
    let store = Store::open(&options(&dir).use_composefs(true)).unwrap();
    let image = load(&dir, &store, "image", layers());
    let error = store.mount(&image, &MountOptions::default()).unwrap_err();
    assert!(obstacle(&error).unwrap().contains("user namespace"), "{error}");
    assert!(!dir.root().join("composefs").exists());
}

#[test]
fn a_container_with_ids_of_its_own_sees_them() {
    let dir = Dir::new("composefs-ids");
    let Some((store, image, web, _)) = mounted(&dir) else { return };
    let mut options = ContainerOptions::named("mapped");
    options.ids = IdMapping::Maps(IdMaps::both(["0:100000:1000".parse::<IdExtent>().unwrap()].to_vec()));
    let mapped = store.create_container(&image.id, &options).unwrap();
    let mount = store.mount(&mapped, &MountOptions::default()).unwrap();
    assert_eq!(fs::metadata(mount.path().join("etc/hello")).unwrap().uid(), 100_000);
    assert_eq!(read(mount.path().join("etc/hello")), "hello");
    store.unmount(&mapped, UnmountMode::Plain).unwrap();
    store.unmount(&web, UnmountMode::Plain).unwrap();
}
