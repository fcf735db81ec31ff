//! From writable to sealed and back, and mounts of layers.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    ApplyOptions, ContainerOptions, Error, GarbageKind, ImportError, InUseError, Layer, LayerOptions,
    MetaError, MountError, MountOptions, SealOptions, Store, UnmountMode,
};

use crate::support::store::{assert_whole, changes, exported, open};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine, oci};

fn named(name: &str) -> LayerOptions {
    LayerOptions::named(name)
}

fn tar(members: &[(&str, &str)]) -> Vec<u8> {
    archive(&members.iter().map(|(path, content)| Member::file(path, content)).collect::<Vec<_>>())
}

fn put(store: &Store, parent: Option<&Layer>, name: &str, members: &[(&str, &str)]) -> Layer {
    store.put_layer(parent.map(|parent| &parent.id), &named(name), &*tar(members)).unwrap()
}

/// The only directory of a store's layers, or the newest.
fn directories(store: &Store) -> usize {
    std::fs::read_dir(store.root().join("diffs")).unwrap().count()
}

fn writing() -> MountOptions {
    let mut options = MountOptions::default();
    options.unseal = true;
    options
}

fn write(store: &Store, layer: &Layer, options: &MountOptions, path: &str, content: &str) {
    let mount = store.mount(layer, options).unwrap();
    assert!(!mount.read_only);
    std::fs::write(mount.path().join(path), content).unwrap();
    store.unmount(layer, UnmountMode::Plain).unwrap();
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Says of a directory, as the store does, that a program mounts it.
fn mark_for_program(root: &Path) {
    let mark = |class: &str| {
        let name = format!("{class}.overlay.layerstore.program");
        rustix::fs::setxattr(root, name, b"y", rustix::fs::XattrFlags::empty())
    };
    mark("trusted").or_else(|_| mark("user")).unwrap();
}

#[test]
fn what_a_mount_program_marked_opaque_is_so_for_the_kernel() {
    let dir = Dir::new("sealing-program-marks");
    let store = open(&dir);
    let base = put(&store, None, "base", &[("dir/below", "below")]);
    let made = |name: &str| {
        let layer = store.create_layer(&base.id, &named(name)).unwrap();
        let at = store.layer_places(&layer.id).unwrap().upper.join("dir");
        std::fs::create_dir(&at).unwrap();
        // What fuse-overlayfs leaves if nobody sees it end, after the store has marked the directory for it.
        std::fs::write(at.join(".wh..wh..opq"), "").unwrap();
        mark_for_program(at.parent().unwrap());
        std::fs::write(at.join(name), name).unwrap();
        layer
    };
    let diff = tar(&[("new", "new")]);
    let layers = ["sealed", "settled", "applied", "template"].map(made);
    let [sealed, settled, applied, template] = &layers;
    store.seal(&sealed.id).unwrap();
    assert!(!store.settle(&settled.id).unwrap(), "nothing is below");
    store.apply_diff(&applied.id, &*diff, &ApplyOptions::default()).unwrap();
    let mut copy = named("copy");
    copy.template = Some(template.id.clone());
    copy.read_only = true;
    let copy = store.create_layer(&base.id, &copy).unwrap();
    for layer in [sealed, settled, applied, &copy] {
        let at = store.layer_places(&layer.id).unwrap().upper.join("dir");
        assert!(!at.join(".wh..wh..opq").exists(), "{}", layer.names[0]);
        assert!(changes(&store, layer).contains(&"D /dir/below".to_owned()));
        if machine::is_root() {
            let mut view = MountOptions::default();
            view.read_only = true;
            let mount = store.mount(layer, &view).unwrap();
            assert!(!mount.path().join("dir/below").exists(), "{}", layer.names[0]);
            store.unmount(layer, UnmountMode::Plain).unwrap();
        }
    }
    assert_whole(&store);
}

#[test]
fn a_layer_is_sealed_and_unsealed_where_it_stands() {
    let dir = Dir::new("seal");
    let store = open(&dir);
    let base = store.create_layer(None, &named("base")).unwrap();
    let layer = put(&store, Some(&base), "layer", &[("a", "a")]);
    let before = directories(&store);
    let unsealed = store.unseal(&layer.id).unwrap();
    assert!(unsealed.is_writable());
    assert_eq!((unsealed.diff_id.clone(), unsealed.diff_size, unsealed.blobs.len()), (None, None, 0));
    assert_eq!((unsealed.compression, unsealed.uids.len()), (None, 0));
    assert_eq!(directories(&store), before, "it is the same directory");
    assert_eq!(changes(&store, &layer), ["A /a"]);
    assert_whole(&store);
    let sealed = store.seal(&layer.id).unwrap();
    assert_eq!(sealed.tree, layer.tree, "what is in it is the same");
    assert_eq!(sealed.names, layer.names);
    assert_eq!(store.seal(&layer.id).unwrap(), sealed, "what is sealed stays so");
    let again = store.unseal(&layer.id).unwrap();
    assert_eq!(store.unseal(&layer.id).unwrap(), again);
    assert_whole(&store);
}

#[test]
fn what_equals_another_layer_takes_no_second_directory() {
    let dir = Dir::new("seal-equal");
    let store = open(&dir);
    let first = put(&store, None, "first", &[("a", "a")]);
    let second = put(&store, None, "second", &[("a", "a")]);
    assert_eq!(directories(&store), 1);
    store.unseal(&second.id).unwrap();
    assert_eq!(directories(&store), 2, "it has a copy");
    assert_whole(&store);
    let sealed = store.seal(&second.id).unwrap();
    assert_eq!((sealed.tree, directories(&store)), (first.tree, 1));
    assert_eq!(exported(&store, &first), tar(&[("a", "a")]));
    assert_whole(&store);
}

#[test]
fn a_layer_that_is_needed_as_it_is_stays_sealed() {
    let dir = Dir::new("seal-needed");
    let store = open(&dir);
    let base = put(&store, None, "base", &[("a", "a")]);
    let child = store.create_layer(&base.id, &named("child")).unwrap();
    let error = store.unseal(&base.id).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::LayerHasChild { .. })), "{error:?}");
    store.remove_layer(&child.id).unwrap();
    store.lease(&"kept".parse().unwrap(), &base, std::time::Duration::from_secs(600)).unwrap();
    let error = store.unseal(&base.id).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::Leased { .. })), "{error:?}");
    let mut options = named("read-only");
    options.read_only = true;
    let read_only = store.create_layer(None, &options).unwrap();
    let error = store.unseal(&read_only.id).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::ReadOnly { .. })), "{error:?}");
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let error = store.seal(&web.layer).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::LayerOfContainer { .. })), "{error:?}");
    assert_whole(&store);
}

/// What is sealed would be changed, and a repair would take that for damage.
#[test]
fn what_is_still_written_to_after_its_mount_was_detached_is_not_sealed() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("seal-detached");
    let store = open(&dir);
    let layer = store.create_layer(None, &named("layer")).unwrap();
    let mount = store.mount(&layer, &MountOptions::default()).unwrap();
    let mut file = std::fs::File::create(mount.path().join("file")).unwrap();
    store.unmount(&layer, UnmountMode::Detach).unwrap();
    let mut renamed = SealOptions::default();
    renamed.names = Some(vec!["new".to_owned()]);
    for options in [SealOptions::default(), renamed] {
        let error = store.seal_with(&layer.id, &options).unwrap_err();
        assert!(matches!(error, Error::InUse(InUseError::MountedElsewhere { .. })), "{error:?}");
    }
    // One that is mounted beside another is not known as one that is written to.
    let error = store.mount(&layer, &MountOptions::default()).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::MountedElsewhere { .. })), "{error:?}");
    let error = store.remove_layer(&layer.id).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::MountedElsewhere { .. })), "{error:?}");
    assert!(store.gc(true).unwrap().removed.iter().all(|garbage| garbage.kind != GarbageKind::MountPoint));
    store.gc(false).unwrap();
    let error = store.remove_layer(&layer.id).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::MountedElsewhere { .. })), "{error:?}");
    file.write_all(b"late").unwrap();
    drop(file);
    // What another test has just started has the file or the mount, too, until it is another program or ends.
    let begun = Instant::now();
    let sealed = loop {
        match store.seal(&layer.id) {
            Err(Error::InUse(InUseError::MountedElsewhere { .. }))
                if begun.elapsed() < Duration::from_secs(60) => {}
            sealed => break sealed.unwrap(),
        }
    };
    assert!(exported(&store, &sealed).windows(4).any(|bytes| bytes == b"late"));
    assert_whole(&store);
}

#[test]
fn a_layer_is_mounted_for_writing_only_when_it_is_said() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("layer-mount");
    let store = open(&dir);
    let layer = put(&store, None, "layer", &[("a", "a")]);
    let view = store.mount(&layer, &MountOptions::default()).unwrap();
    assert!(view.read_only);
    // What is mounted keeps what it was mounted with.
    assert!(store.mount(&layer, &writing()).unwrap().read_only);
    store.unmount_all(&layer, UnmountMode::Plain).unwrap();
    assert_eq!(exported(&store, &layer), tar(&[("a", "a")]));

    write(&store, &layer, &writing(), "b", "b");
    let layer = store.layer("layer").unwrap();
    assert!(layer.is_writable());
    assert_eq!(changes(&store, &layer), ["A /a", "A /b"]);
    write(&store, &layer, &MountOptions::default(), "c", "c");
    let mut options = MountOptions::default();
    options.read_only = true;
    let view = store.mount(&layer, &options).unwrap();
    assert_eq!(read(&view.path().join("c")), "c");
    std::fs::write(view.path().join("d"), "d").unwrap_err();
    let error = store.seal(&layer.id).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::Mounted { .. })), "{error:?}");
    let error = store.remove_layer(&layer.id).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::Mounted { .. })), "{error:?}");
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    let sealed = store.seal(&layer.id).unwrap();
    assert!(std::fs::read_dir(store.root().join("work")).unwrap().next().is_none());
    assert!(store.mount(&sealed, &MountOptions::default()).unwrap().read_only);
    store.unmount(&sealed, UnmountMode::Plain).unwrap();
    assert_whole(&store);

    let mut options = named("never");
    options.read_only = true;
    let never = store.put_layer(None, &options, &*tar(&[("x", "x")])).unwrap();
    assert!(store.mount(&never, &writing()).unwrap().read_only);
    store.unmount(&never, UnmountMode::Plain).unwrap();
    assert!(!store.layer("never").unwrap().is_writable());
}

#[test]
fn who_stands_on_a_writable_layer_sees_it_as_it_is() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("layer-children");
    let store = open(&dir);
    let mut options = named("base");
    options.volatile = true;
    let base = store.create_layer(None, &options).unwrap();
    write(&store, &base, &MountOptions::default(), "a", "old");
    let child = put(&store, Some(&base), "child", &[("dir/b", "b")]);
    assert_eq!(changes(&store, &child), ["A /dir", "A /dir/b"]);
    let error = store.mount(&base, &MountOptions::default()).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::LayerHasChild { .. })), "{error:?}");
    let mut options = MountOptions::default();
    options.change_under_others = true;
    write(&store, &base, &options, "a", "new");
    let view = store.mount(&child, &MountOptions::default()).unwrap();
    assert_eq!((read(&view.path().join("a")), read(&view.path().join("dir/b"))), ("new".into(), "b".into()));
    store.unmount(&child, UnmountMode::Plain).unwrap();
    write(&store, &child, &writing(), "a", "of the child");
    assert_eq!(changes(&store, &store.layer("child").unwrap()), ["C /a", "A /dir", "A /dir/b"]);
    assert_eq!(store.usage(&child).unwrap().inodes, 6);
    assert!(store.usage(&child).unwrap().content >= 16);
    assert_whole(&store);

    // Sealing what lies below changes nothing for who stands on it.
    store.seal(&base.id).unwrap();
    let view = store.mount(&child, &MountOptions::default()).unwrap();
    assert_eq!(read(&view.path().join("a")), "of the child");
    store.unmount(&child, UnmountMode::Plain).unwrap();
    assert_whole(&store);
}

#[test]
fn an_image_on_a_changed_layer_is_not_what_it_was() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("layer-image");
    let store = open(&dir);
    let written = oci::Image::new([
        oci::Layer::new([Member::file("a", "a")]),
        oci::Layer::new([Member::file("b", "b")]),
    ])
    .write(dir.join("layout"), "image");
    let load = || {
        let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
        store.load(&source, &LoadOptions::named("image"))
    };
    let image = load().unwrap();
    let top = store.layer(image.top_layer.as_ref().unwrap().as_str()).unwrap();
    let error = store.mount(&top, &writing()).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::LayerOfImage { .. })), "{error:?}");
    let mut options = writing();
    options.change_under_others = true;
    write(&store, &top, &options, "b", "changed");
    let view = store.mount(&image, &MountOptions::default()).unwrap();
    assert!(view.read_only);
    assert_eq!(read(&view.path().join("b")), "changed");
    store.unmount(&image, UnmountMode::Plain).unwrap();
    assert_whole(&store);

    let error = load().unwrap_err();
    assert!(matches!(error, Error::Import(ImportError::OtherContent { .. })), "{error:?}");
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    assert_eq!(store.changes(&web).unwrap(), []);
    let error = store.commit(&web.id, &CommitOptions::named("web:1")).unwrap_err();
    assert!(error.to_string().contains("no diffID"), "{error}");
    store.remove_container(&web.id).unwrap();
    store.remove_image(&image.id).unwrap();
    load().unwrap();
    assert_whole(&store);
}

#[test]
fn nobody_mounts_for_writing_what_is_being_sealed() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("seal-race");
    let store = open(&dir);
    let layer = store.create_layer(None, &named("layer")).unwrap();
    std::thread::scope(|scope| {
        let sealer = scope.spawn(|| {
            let mut sealed = 0;
            for _ in 0..40 {
                match store.seal(&layer.id) {
                    Ok(_) => sealed += 1,
                    Err(Error::InUse(used))
                        if used.is_mounted() || matches!(used, InUseError::Busy { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            sealed
        });
        for round in 0..40 {
            let mount = match store.mount(&layer, &writing()) {
                Ok(mount) => mount,
                Err(Error::InUse(InUseError::Busy { .. })) => continue,
                Err(error) => panic!("{error:?}"),
            };
            // The sealer may have been faster, and then it is a view.
            if !mount.read_only {
                std::fs::write(mount.path().join(format!("file-{round}")), "x").unwrap();
            }
            store.unmount(&layer, UnmountMode::Plain).unwrap();
        }
        assert!(sealer.join().unwrap() > 0);
    });
    assert_whole(&store);
}

#[test]
fn what_is_shown_above_keeps_its_directory_when_its_layer_is_sealed_like_another() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("seal-below");
    let store = open(&dir);
    let base = put(&store, None, "base", &[("file", "content")]);
    let mut options = named("twin");
    options.template = Some(base.id.clone());
    let twin = store.create_layer(None, &options).unwrap();
    let twin = store.unseal(&twin.id).unwrap();
    let above = store.create_layer(&twin.id, &named("above")).unwrap();
    let mount = store.mount(&above, &MountOptions::default()).unwrap();
    let refused = store.seal(&twin.id).unwrap_err();
    assert!(matches!(refused, Error::InUse(InUseError::Mounted { .. })), "{refused:?}");
    assert_eq!(read(&mount.path().join("file")), "content");
    store.unmount(&above, UnmountMode::Plain).unwrap();
    assert_eq!(store.seal(&twin.id).unwrap().tree, base.tree);
    let mount = store.mount(&above, &MountOptions::default()).unwrap();
    assert_eq!(read(&mount.path().join("file")), "content");
    store.unmount(&above, UnmountMode::Plain).unwrap();
    assert_whole(&store);
}

#[test]
fn a_mount_that_is_refused_leaves_no_mount_point() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("refused-mount");
    let store = open(&dir);
    let base = store.create_layer(None, &named("base")).unwrap();
    store.create_layer(&base.id, &named("above")).unwrap();
    let refused = store.mount(&base, &MountOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::InUse(InUseError::LayerHasChild { .. })), "{refused:?}");
    let mut options = MountOptions::default();
    options.change_under_others = true;
    options.options = vec!["no_such_option=1".to_owned()];
    assert!(store.mount(&base, &options).is_err());
    assert_eq!(store.gc(true).unwrap().removed, []);
}

/// Several threads, each with a handle of its own, do what they like to a few layers. None of them sees an error that is
/// not about the others, and what is left is whole.
#[test]
fn layers_that_many_change_at_once_stay_whole() {
    let dir = Dir::new("layer-stress");
    let store = open(&dir);
    let mounts = machine::is_root();
    let base = put(&store, None, "base", &[("a", "a")]);
    let twin = put(&store, None, "twin", &[("a", "a")]);
    let child = put(&store, Some(&base), "child", &[("b", "b")]);
    let ids = [base.id, twin.id, child.id];
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (dir, ids) = (&dir, &ids);
            scope.spawn(move || {
                let store = open(dir);
                let mut random = thread * 0x9e37_79b9 + 1;
                for round in 0..60 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let (id, choice) = (&ids[(random >> 33) as usize % 3], (random >> 40) % 8);
                    let mut apply = layerstore::ApplyOptions::default();
                    apply.change_under_others = random >> 50 & 1 == 1;
                    let more = tar(&[(["a", "c", "d/e"][round % 3], "x")]);
                    let done = match choice {
                        0 => store.seal(id).map(drop),
                        1 => store.unseal(id).map(drop),
                        2 | 3 => store.apply_diff(id, &*more, &apply).map(drop),
                        4 => store.diff(id, std::io::sink()),
                        5 => store.gc(false).map(drop),
                        6 => {
                            let mut options = named(&format!("copy-{thread}-{round}"));
                            options.template = Some(id.clone());
                            store.create_layer(None, &options).and_then(|copy| store.remove_layer(&copy.id))
                        }
                        _ if mounts => {
                            let mut options = writing();
                            options.change_under_others = apply.change_under_others;
                            store.mount(id, &options).and_then(|mount| {
                                if !mount.read_only {
                                    std::fs::write(mount.path().join(format!("file-{thread}")), "x").unwrap();
                                }
                                store.unmount(id, UnmountMode::Plain).map(drop)
                            })
                        }
                        _ => Ok(()),
                    };
                    match done {
                        // A directory that is given up, or written to, while it is read.
                        Ok(()) | Err(Error::InUse(_)) => {}
                        Err(error)
                            if matches!(choice, 2 | 3 | 4 | 6) && is_about_a_lost_directory(&error) => {}
                        // Another thread is writing into it.
                        Err(Error::Mount(MountError::Busy { .. })) => {}
                        // Another thread was there between the unmounting of two.
                        Err(error @ Error::Mount(_)) => {
                            assert!(error.to_string().contains("mounted"), "{error:?}")
                        }
                        Err(error) => panic!("{choice}: {error:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(store.layers().unwrap().len(), 3);
    assert_eq!(store.gc(false).unwrap().removed, []);
    assert_whole(&store);
}

/// Nothing keeps a directory from being given up while it is read.
fn is_about_a_lost_directory(error: &Error) -> bool {
    matches!(
        error,
        Error::Layout(_)
            | Error::Export(_)
            | Error::Scan(_)
            | Error::Tree(_)
            | Error::Import(_)
            | Error::LayerMissing { .. }
            | Error::Meta(MetaError::Missing { .. })
    )
}

#[test]
fn what_is_deleted_and_made_again_is_told_so() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("layer-echo");
    let store = open(&dir);
    for depth in 1..=10 {
        let parts: Vec<_> = (0..depth).map(|part| format!("d{part}")).collect();
        let path = parts.join("/");
        let modified = |upto: usize| (1..=upto).map(|length| format!("C /{}", parts[..length].join("/")));
        let base = store.create_layer(None, &named(&format!("base-{depth}"))).unwrap();
        let mount = store.mount(&base, &MountOptions::default()).unwrap();
        std::fs::create_dir_all(mount.path().join(&path)).unwrap();
        std::fs::write(mount.path().join(&path).join("file"), "below").unwrap();
        store.unmount(&base, UnmountMode::Plain).unwrap();

        let child = store.create_layer(&base.id, &LayerOptions::default()).unwrap();
        let mount = store.mount(&child, &MountOptions::default()).unwrap();
        std::fs::remove_dir_all(mount.path().join(&path)).unwrap();
        store.unmount(&child, UnmountMode::Plain).unwrap();
        let mut expected: Vec<_> = modified(depth - 1).collect();
        expected.push(format!("D /{path}"));
        assert_eq!(changes(&store, &child), expected);

        let grandchild = store.create_layer(&child.id, &LayerOptions::default()).unwrap();
        let mount = store.mount(&grandchild, &MountOptions::default()).unwrap();
        std::fs::create_dir_all(mount.path().join(&path)).unwrap();
        std::fs::write(mount.path().join(&path).join("new"), "above").unwrap();
        store.unmount(&grandchild, UnmountMode::Plain).unwrap();
        let mut expected: Vec<_> = modified(depth - 1).collect();
        expected.extend([format!("A /{path}"), format!("A /{path}/new")]);
        assert_eq!(changes(&store, &grandchild), expected);
        for layer in [&base, &child, &grandchild] {
            store.seal(&layer.id).unwrap();
        }
        assert_eq!(changes(&store, &grandchild), expected, "sealed, it is the same");
    }
    assert_whole(&store);
}

#[test]
fn the_root_of_a_layer_is_that_of_the_one_below() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new("layer-root");
    let store = open(&dir);
    let base = store.create_layer(None, &named("base")).unwrap();
    let child = store.create_layer(&base.id, &named("child")).unwrap();
    let mount = store.mount(&child, &MountOptions::default()).unwrap();
    std::fs::set_permissions(mount.path(), PermissionsExt::from_mode(0o1711)).unwrap();
    store.unmount(&child, UnmountMode::Plain).unwrap();
    let empty = store.create_layer(&child.id, &named("empty")).unwrap();
    let filled = put(&store, Some(&child), "filled", &[("a", "a")]);
    for layer in [&empty, &filled] {
        let mount = store.mount(layer, &MountOptions::default()).unwrap();
        assert_eq!(std::fs::metadata(mount.path()).unwrap().permissions().mode() & 0o7777, 0o1711);
        store.unmount(layer, UnmountMode::Plain).unwrap();
    }
}
