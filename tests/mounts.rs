//! What a mount shows, and what may be mounted again.

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    ApplyOptions, ContainerOptions, Error, LayerOptions, MountError, MountOptions, Store, StoreOptions,
    SyncMode, UnmountMode,
};

use crate::support::Dir;
use crate::support::machine;
use crate::support::oci::{Image, Layer};
use crate::support::store::assert_whole;
use crate::support::tar::{Member, archive};

fn store_with(dir: &Dir, layers: impl IntoIterator<Item = Layer>) -> (Store, layerstore::Image) {
    let store =
        Store::open(&StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off)).unwrap();
    let written = Image::new(layers).write(dir.join("layout"), "image");
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    let image = store.load(&source, &LoadOptions::named("image")).unwrap();
    (store, image)
}

fn names(path: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_opaque_root_hides_all_layers_below() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("opaque-root");
    let base = Layer::new([Member::file("below", b"below"), Member::directory("etc")]);
    let top = Layer::new([Member::opaque(""), Member::file("above", b"above")]);
    let (store, image) = store_with(&dir, [base, top]);
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    assert_eq!(names(mount.path()), ["above"]);
    store.unmount(&web, UnmountMode::Plain).unwrap();
    let view = store.mount(&image, &MountOptions::default()).unwrap();
    assert_eq!(names(view.path()), ["above"]);
    assert!(view.read_only);
    store.unmount(&image, UnmountMode::Plain).unwrap();
}

#[test]
fn a_volatile_mount_can_be_made_again() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("volatile");
    let (store, image) = store_with(&dir, [Layer::new([Member::file("file", b"file")])]);
    let mut options = ContainerOptions::named("web");
    options.mount_options = vec!["volatile".to_owned()];
    let web = store.create_container(&image.id, &options).unwrap();
    for round in ["first", "second"] {
        let mount = store.mount(&web, &MountOptions::default()).unwrap();
        std::fs::write(mount.path().join(round), round).unwrap();
        store.unmount(&web, UnmountMode::Plain).unwrap();
    }
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    assert_eq!(names(mount.path()), ["file", "first", "second"]);
    // So can one that another has ended: a program, or a process that died before it said so.
    let end = || machine::unmount(mount.path());
    end();
    store.mount(&web, &MountOptions::default()).unwrap();
    end();
    assert_eq!(store.unmount(&web, UnmountMode::Plain).unwrap(), 0);
    store.mount(&web, &MountOptions::default()).unwrap();
    end();
    store.gc(false).unwrap();
    store.mount(&web, &MountOptions::default()).unwrap();
    store.unmount(&web, UnmountMode::Plain).unwrap();
}

#[test]
fn what_a_crash_left_in_doubt_is_neither_mounted_nor_committed() {
    let dir = Dir::new("volatile-doubt");
    let (store, image) = store_with(&dir, [Layer::new([Member::file("file", b"file")])]);
    let before = names(&dir.root().join("diffs"));
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    let number = names(&dir.root().join("diffs")).into_iter().find(|name| !before.contains(name)).unwrap();
    // What the kernel leaves of a volatile mount, in whichever boot.
    let work = dir.root().join("work").join(&number);
    std::fs::create_dir_all(work.join("work/incompat/volatile")).unwrap();
    let committed = store.commit(&web.id, &CommitOptions::named("doubtful"));
    assert!(
        matches!(&committed, Err(Error::Mount(MountError::VolatileLeft { work: left })) if left.ends_with(&number)),
        "{committed:?}"
    );
    if machine::is_root() {
        let refused = store.mount(&web, &MountOptions::default());
        assert!(matches!(refused, Err(Error::Mount(MountError::VolatileLeft { .. }))), "{refused:?}");
        // To look at what is there does not say that it is good.
        let mut view = MountOptions::default();
        view.read_only = true;
        store.mount(&web, &view).unwrap();
        store.unmount(&web, UnmountMode::Plain).unwrap();
        assert!(store.commit(&web.id, &CommitOptions::named("doubtful")).is_err());
    }
    if machine::is_root() {
        // Somebody knows better.
        let mut trusting = MountOptions::default();
        trusting.trust_volatile = true;
        trusting.read_only = true;
        store.mount(&web, &trusting).unwrap();
        store.unmount(&web, UnmountMode::Plain).unwrap();
        assert!(
            store.commit(&web.id, &CommitOptions::named("doubtful")).is_err(),
            "a view vouches for nothing"
        );
        trusting.read_only = false;
        store.mount(&web, &trusting).unwrap();
        assert!(!work.join("work/incompat/volatile").exists());
        store.unmount(&web, UnmountMode::Plain).unwrap();
    } else {
        std::fs::remove_dir_all(work.join("work/incompat")).unwrap();
    }
    store.commit(&web.id, &CommitOptions::named("trusted")).unwrap();
}

#[test]
fn what_a_crash_left_in_doubt_goes_into_no_other_directory() {
    let dir = Dir::new("volatile-doubt-layer");
    let store = store_at(&dir, "root");
    let layer = store.create_layer(None, &LayerOptions::named("layer")).unwrap();
    let work = store.layer_places(&layer.id).unwrap().work.unwrap();
    std::fs::create_dir_all(work.join("work/incompat/volatile")).unwrap();
    let is_refused = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Mount(MountError::VolatileLeft { .. }))), "{result:?}");
    };
    let diff = archive(&[Member::file("new", "new")]);
    let mut copy = LayerOptions::named("copy");
    copy.template = Some(layer.id.clone());
    let mut sealed = LayerOptions::named("sealed");
    sealed.template = Some(layer.id.clone());
    sealed.read_only = true;
    for _ in 0..2 {
        is_refused(store.settle(&layer.id).map(drop));
        is_refused(store.apply_diff(&layer.id, &*diff, &ApplyOptions::default()).map(drop));
        is_refused(store.create_layer(None, &copy).map(drop));
        is_refused(store.create_layer(None, &sealed).map(drop));
        is_refused(store.seal(&layer.id).map(drop));
    }
    std::fs::remove_dir_all(work.join("work/incompat")).unwrap();
    store.create_layer(None, &sealed).unwrap();
    store.apply_diff(&layer.id, &*diff, &ApplyOptions::default()).unwrap();
    assert_whole(&store);
}

/// A store at `root`, with a container, beside whatever else is at `dir`.
fn store_at(dir: &Dir, root: &str) -> Store {
    let options = StoreOptions::at(dir.join(root)).run_root(dir.run_root()).sync(SyncMode::Off);
    let store = Store::open(&options).unwrap();
    store.create_container(None, &ContainerOptions::named("web")).unwrap();
    store
}

#[test]
fn a_run_root_goes_to_the_store_that_took_the_place_of_another() {
    let dir = Dir::new("run-root-again");
    let gone = store_at(&dir, "root");
    if machine::is_root() {
        let web = gone.containers().unwrap().remove(0);
        gone.mount(&web, &MountOptions::default()).unwrap();
    }
    drop(gone);
    std::fs::remove_dir_all(dir.root()).unwrap();
    let store = store_at(&dir, "root");
    if let [mounted] = dir.mounts().as_slice() {
        let error = store.shutdown(false).unwrap_err().to_string();
        assert!(error.contains(&format!("end it with `umount {}`", mounted.display())), "{error}");
        machine::unmount(mounted);
    }
    assert_eq!(store.shutdown(false).unwrap(), []);
    let web = store.containers().unwrap().remove(0);
    store.gc(false).unwrap();
    store.remove_container(&web.id).unwrap();
    store.wipe().unwrap();
}

#[test]
fn a_run_root_of_another_store_is_refused() {
    let dir = Dir::new("run-root-shared");
    let first = store_at(&dir, "first");
    let second = store_at(&dir, "second");
    let error = second.shutdown(false).unwrap_err().to_string();
    assert_eq!(second.wipe().unwrap_err().to_string(), error);
    let (run_root, root) =
        (dir.run_root().canonicalize().unwrap(), dir.join("first").canonicalize().unwrap());
    assert_eq!(
        error,
        format!(
            "the run root {run} belongs to the store {} at {}; give each store a run root of its own, or remove {run} if \
             that store is gone",
            first.uuid(),
            root.display(),
            run = run_root.display(),
        )
    );
}

/// A label is kept, and given to the kernel where that knows labels; where it does not, the mount is made without.
#[test]
fn a_label_does_no_harm_without_selinux() {
    let dir = Dir::new("mounts-label");
    let (store, image) = store_with(&dir, [Layer::new([Member::file("file", "1")])]);
    let label = "system_u:object_r:container_file_t:s0:c1,c2".to_owned();
    let mut options = ContainerOptions::named("web");
    options.mount_label = Some(label.clone());
    let web = store.create_container(&image.id, &options).unwrap();
    assert_eq!(store.container("web").unwrap().mount_label, Some(label.clone()));
    let on = std::fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs");
    let entry = store.mount_entry(&web, &MountOptions::default()).unwrap();
    let has_label = entry.options.iter().any(|option| option.to_string_lossy().starts_with("context="));
    assert_eq!(has_label, on);
    let mut bad = MountOptions::default();
    bad.label = Some("a\"b".to_owned());
    assert!(matches!(store.mount_entry(&web, &bad), Err(Error::Mount(MountError::Option { .. }))));
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    if on {
        let mut value = [0; 128];
        let length = rustix::fs::getxattr(mount.path().join("file"), "security.selinux", &mut value).unwrap();
        assert_eq!(value[..length].strip_suffix(b"\0"), Some(label.as_bytes()));
    }
    assert_eq!(std::fs::read(mount.path().join("file")).unwrap(), b"1");
    store.unmount(&web, UnmountMode::Plain).unwrap();
}
