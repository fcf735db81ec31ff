//! Layers whose files have one mode on the disk, and their own modes and owners in an attribute.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use layerstore::config::{Environment, Settings};
use layerstore::{
    ContainerOptions, Error, IdMapping, IdMaps, Layer, LayerOptions, MountError, MountOptions, Store,
    StoreOptions, SyncMode, UnmountMode,
};

use crate::support::store::assert_whole;
use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine};

const OVERRIDE: &str = "user.containers.override_stat";

fn options(dir: &Dir, root: &str) -> StoreOptions {
    let options = StoreOptions::at(dir.join(root)).run_root(dir.join(format!("{root}-run")));
    options.sync(SyncMode::Off).reserve(0)
}

/// A program that is there; only mounts ask more of it.
fn program() -> PathBuf {
    let found = Path::new("/usr/bin/fuse-overlayfs");
    if found.exists() { found.to_owned() } else { "/bin/true".into() }
}

fn masked(dir: &Dir, root: &str, mask: u16) -> Store {
    Store::open(&options(dir, root).force_mask(mask).mount_program(program())).unwrap()
}

fn members() -> Vec<u8> {
    archive(&[
        Member::directory("").mode(0o751).owner(3, 4).mtime(5, 0),
        Member::directory("dir").mode(0o2770).owner(5, 6).mtime(6, 0),
        Member::file("dir/setuid", "content").mode(0o4755).owner(0, 8).xattr("user.note", "kept"),
        Member::file("dir/locked", "nobody").mode(0).owner(1000, 1000),
        Member::hard_link("dir/same", "dir/setuid"),
        Member::symlink("link", "dir/setuid"),
        Member::fifo("pipe").mode(0o622).owner(7, 0),
        Member::char_device("null", 1, 3).mode(0o666),
        Member::block_device("disk", 8, 1).mode(0o660).owner(0, 6),
        Member::whiteout("gone"),
        Member::file("implied/file", "x").mode(0o640),
    ])
}

fn directory_of(dir: &Dir, root: &str, layer_file: &str) -> PathBuf {
    let diffs = std::fs::read_dir(dir.join(root).join("diffs")).unwrap();
    let mut paths = diffs.map(|entry| entry.unwrap().path());
    paths.find(|path| path.join(layer_file).symlink_metadata().is_ok()).unwrap()
}

fn value(path: &Path) -> String {
    value_of(path, OVERRIDE)
}

fn value_of(path: &Path, attribute: &str) -> String {
    let mut buffer = [0; 100];
    let length = rustix::fs::getxattr(path, attribute, &mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn export(store: &Store, layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.diff(layer, &mut bytes).unwrap();
    bytes
}

/// Whether attributes of users can be set here, without which none of this is possible.
fn has_attributes(dir: &Dir) -> bool {
    let probe = dir.write("probe", "");
    rustix::fs::setxattr(&probe, OVERRIDE, b"0:0:0755", rustix::fs::XattrFlags::empty()).is_ok()
}

#[test]
fn modes_and_owners_are_kept_in_an_attribute() {
    let dir = Dir::new("force-mask");
    if !has_attributes(&dir) {
        skip!("the filesystem keeps no attributes of users");
    }
    let store = masked(&dir, "store", 0o700);
    let layer = store.put_layer(None, &LayerOptions::named("base"), &*members()).unwrap();
    let at = directory_of(&dir, "store", "dir/setuid");
    let expected = [
        ("", "3:4:0751"),
        ("dir", "5:6:02770"),
        ("dir/setuid", "0:8:04755"),
        ("dir/locked", "1000:1000:00"),
        ("dir/same", "0:8:04755"),
        ("pipe", "7:0:0622:pipe"),
        ("null", "0:0:0666:char-1-3"),
        ("disk", "0:6:0660:block-8-1"),
        ("implied", "0:0:0755"),
    ];
    let owner = std::fs::metadata(dir.path()).unwrap();
    for (path, stat) in expected {
        let found = at.join(path).symlink_metadata().unwrap();
        assert_eq!(value(&at.join(path)), stat, "{path}");
        assert_eq!(found.permissions().mode() & 0o7777, 0o700, "{path}");
        assert_eq!((found.uid(), found.gid()), (owner.uid(), owner.gid()), "{path}");
        assert!(found.is_dir() || found.is_file(), "{path}");
    }
    // Nothing of it is in the layer.
    assert_eq!(export(&store, &layer), members());
    assert_whole(&store);
    if machine::is_real_root() {
        let plain = Store::open(&options(&dir, "plain")).unwrap();
        let same = plain.put_layer(None, &LayerOptions::named("base"), &*members()).unwrap();
        assert_eq!(same.tree, layer.tree);
        // What is made from what is on the disk is the same, too.
        let mut diffs = Vec::new();
        for (store, layer) in [(&store, &layer), (&plain, &same)] {
            let mut copy = LayerOptions::default();
            copy.template = Some(layer.id.clone());
            let copy = store.create_layer(None, &copy).unwrap();
            store.unseal(&copy.id).unwrap();
            diffs.push(export(store, &copy));
            assert_eq!(store.seal(&copy.id).unwrap().tree, layer.tree);
        }
        assert_eq!(diffs[0], diffs[1]);
    }
}

/// What a layer has in the attribute is what those above and copies of it begin with, when the option is gone.
#[test]
fn a_layer_tells_of_its_modes_when_the_option_is_gone() {
    let dir = Dir::new("force-mask-gone");
    if !has_attributes(&dir) {
        skip!("the filesystem keeps no attributes of users");
    }
    if !machine::is_real_root() {
        skip!("giving files to others needs the machine's root");
    }
    let store = masked(&dir, "store", 0o700);
    let base = store.put_layer(None, &LayerOptions::named("base"), &*members()).unwrap();
    let masked_above = store.create_layer(&base.id, &LayerOptions::named("masked-above")).unwrap();
    drop(store);
    let store = Store::open(&options(&dir, "store")).unwrap();
    for parent in [&base, &masked_above] {
        let above = store.create_layer(&parent.id, &LayerOptions::default()).unwrap();
        let diffs: Vec<_> = std::fs::read_dir(dir.join("store/diffs")).unwrap().collect();
        let plain = diffs.iter().filter(|entry| {
            let found = entry.as_ref().unwrap().metadata().unwrap();
            found.permissions().mode() & 0o7777 == 0o751 && (found.uid(), found.gid()) == (3, 4)
        });
        assert_eq!(plain.count(), 1, "of {}", diffs.len());
        store.remove_layer(&above.id).unwrap();
    }
    store.remove_layer(&masked_above.id).unwrap();
    let mut copy = LayerOptions::default();
    copy.template = Some(base.id.clone());
    let copy = store.create_layer(None, &copy).unwrap();
    store.unseal(&copy.id).unwrap();
    assert_eq!(store.seal(&copy.id).unwrap().tree, base.tree);
    assert_eq!(export(&store, &base), members());
    assert_whole(&store);
}

/// Mode and owner that a caller gives the root directory of a layer are in the attribute, too.
#[test]
fn the_root_of_a_new_layer_is_what_was_asked_for() {
    let dir = Dir::new("force-mask-root");
    if !has_attributes(&dir) {
        skip!("the filesystem keeps no attributes of users");
    }
    let store = masked(&dir, "store", 0o700);
    let mut options = LayerOptions::named("first");
    (options.root_mode, options.root_owner) = (Some(0o1777), Some((5, 6)));
    let layer = store.create_layer(None, &options).unwrap();
    let at = std::fs::read_dir(dir.join("store/diffs")).unwrap().next().unwrap().unwrap().path();
    let found = at.metadata().unwrap();
    let owner = std::fs::metadata(dir.path()).unwrap();
    assert_eq!(value(&at), "5:6:01777");
    assert_eq!((found.permissions().mode() & 0o7777, found.uid()), (0o700, owner.uid()));
    store.seal(&layer.id).unwrap();
    assert_whole(&store);
    // No mount could show other ids.
    let mut options = ContainerOptions::named("web");
    options.ids = IdMapping::Maps(IdMaps::both(["0:1000:1".parse().unwrap()]));
    let refused = store.create_container(None, &options).unwrap_err();
    assert!(matches!(refused, Error::Mount(MountError::IdMap { .. })), "{refused:?}");
    assert!(refused.to_string().contains("force_mask") && refused.hint().is_some(), "{refused}");
}

#[test]
fn a_mount_program_shows_the_modes_of_the_layer() {
    let dir = Dir::new("force-mask-mount");
    if !machine::is_real_root() || !machine::has_program("fuse-overlayfs") || !has_attributes(&dir) {
        skip!("there is no fuse-overlayfs that could be used");
    }
    if std::fs::File::options().write(true).open("/dev/fuse").is_err() {
        skip!("there is no /dev/fuse");
    }
    let store = masked(&dir, "store", 0o755);
    let base = store.put_layer(None, &LayerOptions::named("base"), &*members()).unwrap();
    let layer = store.create_layer(&base.id, &LayerOptions::named("next")).unwrap();
    let at = store.mount(&layer, &MountOptions::default()).unwrap().path().to_owned();
    let stat = |path: &str| {
        let found = at.join(path).symlink_metadata().unwrap();
        (found.uid(), found.gid(), found.permissions().mode() & 0o7777)
    };
    assert_eq!(stat(""), (3, 4, 0o751));
    assert_eq!(stat("dir"), (5, 6, 0o2770));
    assert_eq!(stat("dir/setuid"), (0, 8, 0o4755));
    assert_eq!(stat("dir/locked"), (1000, 1000, 0));
    std::fs::write(at.join("new"), "new").unwrap();
    std::fs::set_permissions(at.join("new"), PermissionsExt::from_mode(0o604)).unwrap();
    std::os::unix::fs::chown(at.join("new"), Some(11), Some(12)).unwrap();
    assert_eq!(stat("new"), (11, 12, 0o604));
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    // What the program has written is read as it meant it.
    let upper = directory_of(&dir, "store", "new");
    let written = value_of(&upper.join("new"), "user.fuseoverlayfs.override_stat");
    assert!(written.starts_with("11:12:"), "{written}");
    assert_eq!(std::fs::metadata(upper.join("new")).unwrap().uid(), 0);
    let tar = export(&store, &layer);
    let mut archive = tar::Archive::new(&*tar);
    let new = archive.entries().unwrap().map(Result::unwrap);
    let new = new.map(|entry| {
        let header = entry.header();
        (entry.path().unwrap().to_path_buf(), header.uid().unwrap(), header.mode().unwrap() & 0o7777)
    });
    assert!(new.into_iter().any(|entry| entry == ("new".into(), 11, 0o604)));

    // The kernel would show the modes on the disk, so it makes no mount of such layers.
    drop(store);
    let store = Store::open(&options(&dir, "store")).unwrap();
    let mount = store.mount(&base, &MountOptions::default());
    match mount {
        Err(Error::Mount(MountError::Masked { .. })) => {}
        Ok(mount) => {
            let found = mount.path().join("dir/setuid").metadata().unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, 0o4755);
            store.unmount(&base, UnmountMode::Plain).unwrap();
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_mask_needs_a_mount_program() {
    let dir = Dir::new("force-mask-program");
    let refused = Store::open(&options(&dir, "store").force_mask(0o700)).unwrap_err();
    assert!(matches!(refused, Error::Mount(MountError::Masked { .. })), "{refused:?}");
    assert!(!dir.join("store").exists());
    let with = |program: &str| {
        let text = format!("[storage.options]\nforce_mask = 'shared'\n{program}");
        let path = dir.write("storage.conf", text);
        let environment = Environment {
            user: 0,
            variables: Default::default(),
            home: None,
            own_homes: Vec::new(),
            system_root: dir.path().to_owned(),
        };
        StoreOptions::from_settings(&Settings::load_file(&environment, &path).unwrap())
    };
    let refused = with("").unwrap_err().to_string();
    assert!(refused.contains("force_mask") && refused.contains("mount_program"), "{refused}");
    with("mount_program = '/bin/sh'\n").unwrap();
    // The attribute is nobody's to bring.
    if has_attributes(&dir) {
        let store = Store::open(&options(&dir, "plain")).unwrap();
        let members = archive(&[Member::file("file", "1").xattr(OVERRIDE, "0:0:04777").mode(0o600)]);
        let layer = store.put_layer(None, &LayerOptions::default(), &*members).unwrap();
        let file = directory_of(&dir, "plain", "file").join("file");
        assert!(rustix::fs::getxattr(&file, OVERRIDE, &mut [0; 10]).is_err());
        assert!(!file.metadata().unwrap().file_type().is_fifo());
        assert_eq!(export(&store, &layer), members);
        store.create_container(None, &ContainerOptions::default()).unwrap();
        assert_whole(&store);
    }
}

#[test]
fn owners_in_an_attribute_are_shown_by_no_map() {
    let dir = Dir::new("force-mask-map");
    if !machine::is_real_root() || !has_attributes(&dir) {
        skip!(
            "ids of its own and attributes of users need the machine's root, and a filesystem that has these"
        );
    }
    let store = masked(&dir, "root", 0o755);
    let maps = IdMaps::both(vec!["0:100000:1000".parse().unwrap()]);
    let mut options = ContainerOptions::named("mapped");
    options.ids = IdMapping::Maps(maps.clone());
    let made = store.create_container(None, &options).map(drop);
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let mut options = MountOptions::default();
    options.id_maps = Some(maps);
    for refused in [made, store.mount(&web, &options).map(drop)] {
        let is_told = |error: &Error| matches!(error, Error::Mount(MountError::IdMap { .. }));
        assert!(refused.as_ref().is_err_and(is_told), "{refused:?}");
    }
}
