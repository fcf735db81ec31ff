//! Others are faster: what comes of an operation if something happens between two of its steps.

use std::path::Path;
use std::time::Duration;

use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::error::{CreateError, Error, InUseError, LookupError, MetaError};
use crate::meta::Query;
use crate::store::{
    ApplyOptions, ContainerOptions, ImageOptions, LayerOptions, MountOptions, Store, StoreOptions, SyncMode,
    UnmountMode,
};
use crate::sys::moment;
use crate::types::{ImageId, LayerId, Timestamp};
use crate::{CheckLevel, CheckOptions, Damage};

fn options(dir: &Path) -> StoreOptions {
    StoreOptions::at(dir.join("root")).run_root(dir.join("run")).sync(SyncMode::Off).reserve(0)
}

fn open(dir: &Path) -> Store {
    Store::open(&options(dir)).unwrap()
}

fn transient(dir: &Path) -> Store {
    Store::open(&options(dir).transient(true)).unwrap()
}

/// Nothing is damaged, and nothing is left.
fn is_whole(store: &Store) {
    let options = CheckOptions { level: CheckLevel::Deep, ..CheckOptions::default() };
    let report = store.check(&options).unwrap();
    assert!(report.is_clean() && report.garbage.is_empty(), "{report:?}");
    let left = store.gc(true).unwrap().removed;
    assert!(left.is_empty(), "{left:?}");
}

fn is_name_in_use<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Meta(MetaError::NameInUse { .. }))), "{result:?}");
}

/// An image on a layer of its own, both with this id.
fn make_image(store: &Store, id: &str, layer: &str) -> ImageId {
    let top = store.create_layer(None, &LayerOptions::with_id(layer.parse().unwrap())).unwrap();
    let mut options = ImageOptions::named(id);
    options.id = Some(id.parse().unwrap());
    options.top_layer = Some(top.id);
    store.create_image(&options).unwrap().id
}

#[test]
fn a_transient_container_and_another_never_have_one_name() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (open(dir.path()), transient(dir.path()));
    // The first of all, made when the other has found that there is none.
    let first = other.clone();
    moment::meanwhile("transient looked for", move || {
        first.create_container(None, &ContainerOptions::named("web")).unwrap();
    });
    is_name_in_use(store.create_container(None, &ContainerOptions::named("web")));
    let db = store.create_container(None, &ContainerOptions::named("db")).unwrap();
    is_name_in_use(store.write(|txn| txn.add_name(&db, &"web".parse()?)));
    let web = store.container("web").unwrap();
    is_name_in_use(store.write(|txn| txn.set_names(&web, &["db".parse()?])));
    // A name that is moved leaves whoever has it, wherever.
    store.write(|txn| txn.move_name(&db, &"web".parse()?)).unwrap();
    assert_eq!(store.container("web").unwrap().id, db.id);
    assert!(store.container(web.id.as_str()).unwrap().names.is_empty());
    store.write(|txn| txn.move_name(&web, &"db".parse()?)).unwrap();
    assert_eq!(store.container("db").unwrap().id, web.id);
    is_whole(&store);
}

#[test]
fn who_makes_a_transient_container_keeps_others_from_making_any() {
    let dir = tempfile::tempdir().unwrap();
    let other = transient(dir.path());
    other.create_container(None, &ContainerOptions::named("first")).unwrap();
    let at = dir.path().to_owned();
    moment::meanwhile("before the commit", move || {
        let hasty = Store::open(&options(&at).lock_timeout(Duration::from_millis(50))).unwrap();
        let refused = hasty.create_container(None, &ContainerOptions::named("web"));
        assert!(matches!(refused, Err(Error::Meta(MetaError::Locked { .. }))), "{refused:?}");
    });
    other.create_container(None, &ContainerOptions::named("web")).unwrap();
}

#[test]
fn what_cannot_be_seen_is_not_collected() {
    let dir = tempfile::tempdir().unwrap();
    let (run, hidden) = (dir.path().join("run"), dir.path().join("hidden"));
    let store = transient(dir.path());
    let image = make_image(&store, "base", "layer");
    let loose = store.create_layer(None, &LayerOptions::named("loose")).unwrap().id;
    let web = store.create_container(&image, &ContainerOptions::named("web")).unwrap();
    drop(store);
    let directories = || std::fs::read_dir(dir.path().join("root/diffs")).unwrap().count();
    assert_eq!(directories(), 3);
    // As from a mount namespace with something else over the run root.
    std::fs::rename(&run, &hidden).unwrap();
    let is_unseen = |error: Error| {
        assert!(
            matches!(&error, Error::Meta(MetaError::TransientUnseen { run_root }) if *run_root == run),
            "{error}"
        );
    };
    for run_root in [dir.path().join("other-run"), run.clone()] {
        let at = || Store::open(&options(dir.path()).run_root(&run_root)).unwrap();
        assert!(at().containers().unwrap().is_empty());
        is_unseen(at().gc(false).unwrap_err());
        is_unseen(at().gc(true).unwrap_err());
        is_unseen(at().remove_image(&image).unwrap_err());
        is_unseen(at().remove_layer(&loose).unwrap_err());
        is_unseen(at().wipe().unwrap_err());
        let again = Store::open(&options(dir.path()).run_root(&run_root).transient(true)).unwrap();
        is_unseen(again.create_container(None, &ContainerOptions::named("web")).unwrap_err());
        // The first write of a boot looks for garbage everywhere.
        std::fs::remove_file(dir.path().join("root/collected")).ok();
        let kept = at().create_container(&image, &ContainerOptions::named("kept")).unwrap();
        at().remove_container(&kept.id).unwrap();
        let report = at().check(&CheckOptions::default()).unwrap();
        assert!(report.is_clean() && report.garbage.is_empty(), "{report:?}");
        assert_eq!(directories(), 3);
    }
    std::fs::remove_dir_all(&run).unwrap();
    std::fs::rename(&hidden, &run).unwrap();
    let store = open(dir.path());
    assert_eq!(store.container("web").unwrap().id, web.id);
    assert!(!store.forget_transient().unwrap());
    is_whole(&store);
    drop(store);
    // Gone for good, which somebody has to say.
    std::fs::remove_dir_all(&run).unwrap();
    assert!(open(dir.path()).forget_transient().unwrap());
    assert_eq!(open(dir.path()).gc(false).unwrap().removed.len(), 1);
    transient(dir.path()).create_container(&image, &ContainerOptions::named("web")).unwrap();
    is_whole(&open(dir.path()));
}

#[test]
fn nobody_comes_between_two_commits() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path()).image_store_root(dir.path().join("images"));
    let hasty = options.clone().lock_timeout(Duration::from_millis(50)).transient(true);
    let is_locked = |refused: Result<(), Error>| {
        assert!(matches!(refused, Err(Error::Meta(MetaError::Locked { .. }))), "{refused:?}");
    };
    let store = Store::open(&options).unwrap();
    let image = make_image(&store, "base", "layer");
    let first = Store::open(&options.clone().transient(true)).unwrap();
    first.create_container(None, &ContainerOptions::named("first")).unwrap();
    let db = store.create_container(None, &ContainerOptions::named("db")).unwrap();
    let (late, id) = (Store::open(&hasty).unwrap(), image.clone());
    moment::meanwhile("others committed", move || {
        is_locked(late.create_container(None, &ContainerOptions::named("web")).map(drop));
        let images = late.separate_images().unwrap();
        is_locked(images.write(|txn| txn.set_metadata(&id, "late")));
    });
    store
        .write(|txn| {
            txn.add_name(&db, &"web".parse()?)?;
            txn.set_metadata(&image, "first")
        })
        .unwrap();
    is_name_in_use(first.create_container(None, &ContainerOptions::named("web")));
    // The locks are given up.
    store.write(|txn| txn.set_metadata(&image, "second")).unwrap();
    is_whole(&store);
}

#[test]
fn a_removal_keeps_transient_containers_of_another_run_root_from_coming() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    for separate in [false, true] {
        let dir = dir.path().join(format!("separate-{separate}"));
        std::fs::create_dir(&dir).unwrap();
        let mut here = options(&dir);
        if separate {
            here = here.image_store_root(&images);
        }
        let store = Store::open(&here.clone().run_root(dir.join("other-run"))).unwrap();
        let image = make_image(&store, "base", "layer");
        // The first of all.
        let (first, id) = (Store::open(&here.clone().transient(true)).unwrap(), image.clone());
        moment::meanwhile("run lock taken", move || {
            first.create_container(&id, &ContainerOptions::named("web")).unwrap();
        });
        let refused = store.remove_image(&image);
        assert!(matches!(refused, Err(Error::InUse(InUseError::ImageOfContainer { .. }))), "{refused:?}");
        let web = store.container("web").unwrap();
        store.remove_container(&web.id).unwrap();
        // And another one.
        let hasty = here.clone().transient(true).lock_timeout(Duration::from_millis(50));
        let (late, id) = (Store::open(&hasty).unwrap(), image.clone());
        moment::meanwhile("before the commit", move || {
            let refused = late.create_container(&id, &ContainerOptions::named("web"));
            assert!(matches!(refused, Err(Error::Meta(MetaError::Locked { .. }))), "{refused:?}");
        });
        store.remove_image(&image).unwrap();
        is_whole(&store);
    }
}

#[test]
fn a_transient_container_goes_whatever_stands_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = transient(dir.path());
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let directory = store.run_directory(&web.id).unwrap();
    store
        .database()
        .write::<_, Error>(|txn| {
            let content = LayerContent::Writable(store.fresh_number()?);
            let mut above = LayerRecord::new("above", Timestamp::now().into(), content);
            above.parent = Some(web.layer.to_string());
            Ok(txn.put_layer(&above)?)
        })
        .unwrap();
    let refused = store.remove_container(&web.id);
    assert!(matches!(refused, Err(Error::InUse(InUseError::LayerHasChild { .. }))), "{refused:?}");
    assert!(directory.exists());
    store.remove_regardless(&web.layer).unwrap();
    assert!(store.containers().unwrap().is_empty() && !directory.exists());
}

#[test]
fn changes_see_the_first_transient_container() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let db = store.create_container(None, &ContainerOptions::named("db")).unwrap();
    let other = transient(dir.path());
    moment::meanwhile("transient looked for", move || {
        other.create_container(None, &ContainerOptions::named("web")).unwrap();
    });
    is_name_in_use(store.write(|txn| txn.add_name(&db, &"web".parse()?)));
}

#[test]
fn an_image_that_is_made_anew_has_its_new_layers_below_a_container() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let image = make_image(&store, "base", "old");
    let other = open(dir.path());
    let id = image.clone();
    moment::meanwhile("staged", move || {
        other.remove_image(&id).unwrap();
        make_image(&other, "base", "new");
    });
    let web = store.create_container(&image, &ContainerOptions::named("web")).unwrap();
    let below = store.layer(web.layer.as_str()).unwrap().parent;
    assert_eq!(below.as_ref().map(ToString::to_string).as_deref(), Some("new"));
    is_whole(&store);
    // Gone for good.
    let other = open(dir.path());
    let (id, web) = (image.clone(), web.id);
    moment::meanwhile("staged", move || {
        other.remove_container(&web).unwrap();
        other.remove_image(&id).unwrap();
    });
    let refused = store.create_container(&image, &ContainerOptions::named("web"));
    assert!(matches!(refused, Err(Error::Lookup(LookupError::NotFound { .. }))), "{refused:?}");
    is_whole(&store);
}

#[test]
fn no_container_stands_on_the_record_of_another_layer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let image = make_image(&store, "base", "top");
    store
        .database()
        .write::<_, Error>(|txn| {
            let record = crate::meta::Query::layer_ref(txn, "top")?;
            let other = LayerRecord { id: "other".into(), ..record };
            let bytes = layerstore_schema::record::Record::encode(&other).unwrap();
            let mut rows = crate::meta::Tables::open(txn, layerstore_schema::table::LAYERS)?;
            Ok(rows.insert("top", bytes.as_slice()).map(drop)?)
        })
        .unwrap();
    let refused = store.create_container(&image, &ContainerOptions::named("web"));
    assert!(
        matches!(&refused, Err(Error::Meta(MetaError::Record { key, .. })) if key == "top"),
        "{refused:?}"
    );
}

#[test]
fn nothing_stands_on_the_layer_of_a_container() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    for copy in [false, true] {
        let mut options = ImageOptions::named("web:1");
        match copy {
            true => options.mapped_top_layers = vec![web.layer.clone()],
            false => options.top_layer = Some(web.layer.clone()),
        }
        let refused = store.create_image(&options);
        assert!(matches!(refused, Err(Error::Create(CreateError::ParentOfContainer { .. }))), "{refused:?}");
    }
}

#[test]
fn a_wipe_takes_what_is_made_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path()).image_store_root(dir.path().join("images"));
    let (store, other) =
        (Store::open(&options).unwrap(), Store::open(&options.clone().transient(true)).unwrap());
    let image = make_image(&store, "base", "layer");
    other.create_container(&image, &ContainerOptions::named("first")).unwrap();
    let (id, second) = (image.clone(), other);
    moment::meanwhile("transient wiped", move || {
        second.create_container(&id, &ContainerOptions::named("second")).unwrap();
    });
    let third = store.clone();
    moment::meanwhile("own wiped", move || {
        third.create_container(&image, &ContainerOptions::named("third")).unwrap();
    });
    store.wipe().unwrap();
    assert_eq!(store.database().begin_read().unwrap().counts().unwrap(), (0, 0, 0));
    assert!(store.containers().unwrap().is_empty() && store.images().unwrap().is_empty());
    is_whole(&store);
}

#[test]
fn a_mount_leaves_no_workdir_of_a_layer_that_is_sealed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = store.create_layer(None, &LayerOptions::named("layer")).unwrap();
    let (other, id) = (open(dir.path()), layer.id.clone());
    // In the planning, before the look at the records.
    moment::meanwhile("workdir to be made", move || drop(other.seal(&id).unwrap()));
    match store.mount(&layer, &MountOptions::default()) {
        Ok(mount) => {
            assert!(mount.read_only);
            store.unmount(&layer, UnmountMode::Plain).unwrap();
        }
        // Who may not mount has planned all the same.
        Err(error) => assert!(matches!(error, Error::Mount(_)), "{error}"),
    }
    is_whole(&store);

    // Its directory goes with it, as there is an equal one.
    let second = store.create_layer(None, &LayerOptions::named("second")).unwrap();
    let (other, id) = (open(dir.path()), second.id.clone());
    moment::meanwhile("workdir to be made", move || drop(other.seal(&id).unwrap()));
    match store.mount(&second, &MountOptions::default()) {
        Ok(_) => drop(store.unmount(&second, UnmountMode::Plain).unwrap()),
        Err(Error::Mount(_)) => {}
        Err(error) => panic!("{error}"),
    }
    is_whole(&store);
    assert_eq!(store.gc(false).unwrap().removed, []);
}

#[test]
fn what_goes_while_an_archive_is_unpacked_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let tar = |name: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, name, &b"file"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    let put = || store.put_layer(None, &LayerOptions::named("layer"), &*tar("file")).unwrap().id;
    let remove = |id: &LayerId| {
        let (other, id) = (open(dir.path()), id.clone());
        move || other.remove_layer(&id).unwrap()
    };
    let layer = put();
    moment::meanwhile("to be sealed", remove(&layer));
    let refused = store.put_layer(&layer, &LayerOptions::named("above"), &*tar("more"));
    assert!(matches!(refused, Err(Error::Lookup(LookupError::NotFound { .. }))), "{refused:?}");
    let layer = put();
    moment::meanwhile("to be sealed", remove(&layer));
    let refused = store.apply_diff(&layer, &*tar("more"), &ApplyOptions::default());
    assert!(matches!(refused, Err(Error::Lookup(LookupError::NotFound { .. }))), "{refused:?}");
    let layer = put();
    let (other, id) = (open(dir.path()), layer.clone());
    moment::meanwhile("to be sealed", move || drop(other.unseal(&id).unwrap()));
    let refused = store.apply_diff(&layer, &*tar("more"), &ApplyOptions::default());
    assert!(matches!(refused, Err(Error::InUse(InUseError::Changed { .. }))), "{refused:?}");
    is_whole(&store);
}

#[test]
fn what_goes_from_two_stores_during_a_check_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path()).image_store_root(dir.path().join("images"));
    let (store, other) = (Store::open(&options).unwrap(), Store::open(&options).unwrap());
    let image = make_image(&store, "base", "layer");
    let web = store.create_container(&image, &ContainerOptions::named("web")).unwrap();
    let id = image.clone();
    moment::meanwhile("own rows read", move || {
        other.remove_container(&web.id).unwrap();
        other.remove_image(&id).unwrap();
    });
    is_whole(&store);
    // But what is missing for good is.
    make_image(&store, "base", "layer");
    store.create_container(&image, &ContainerOptions::named("web")).unwrap();
    store.separate_images().unwrap().remove_image(&image).unwrap();
    let found = store.check(&CheckOptions::default()).unwrap().findings;
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_check_looks_at_transient_containers() {
    let dir = tempfile::tempdir().unwrap();
    let store = transient(dir.path());
    let image = make_image(&store, "base", "layer");
    let web = store.create_container(&image, &ContainerOptions::named("web")).unwrap();
    open(dir.path()).create_container(None, &ContainerOptions::named("kept")).unwrap();
    is_whole(&store);
    let found = || {
        let findings = store.check(&CheckOptions::default()).unwrap().findings;
        findings.into_iter().map(|finding| finding.damage).collect::<Vec<_>>()
    };
    let run = store.transient(&store.database().begin_read().unwrap()).unwrap().unwrap();
    let change = |name: &str| {
        run.rows()
            .write_without_header::<_, Error>(|txn| {
                let mut record = txn.container(web.id.as_str())?.unwrap();
                record.names = vec![name.to_owned()];
                Ok(txn.put_container(&record)?)
            })
            .unwrap();
    };
    change("kept");
    assert!(matches!(&found()[..], [Damage::NameShared { name, .. }] if name == "kept"), "{:?}", found());
    change("web");
    let number = run.rows().begin_read().unwrap().layer(web.layer.as_str()).unwrap().unwrap();
    let LayerContent::Writable(number) = number.content else { panic!("{number:?}") };
    let (directory, aside) = (store.diff_path(number), dir.path().join("aside"));
    std::fs::rename(&directory, &aside).unwrap();
    assert!(matches!(&found()[..], [Damage::DirectoryMissing { .. }]), "{:?}", found());
    std::fs::rename(&aside, &directory).unwrap();
    is_whole(&store);
    store.remove_regardless(&image).unwrap();
    store.remove_regardless("layer".parse::<LayerId>().unwrap()).unwrap();
    let damages = found();
    assert!(
        matches!(&damages[..], [Damage::ParentMissing { .. }, Damage::ContainerImageMissing { .. }]),
        "{damages:?}"
    );
}

/// A whiteout in the form of a file is one in lower layers only: before a layer is written to, they become devices.
#[test]
fn a_layer_that_is_written_to_has_devices_for_whiteouts() {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;

    use crate::sys::node::{self, NodeKind};
    use crate::sys::xattr::{self, Target};

    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = store.create_layer(None, &LayerOptions::default()).unwrap();
    let at = || {
        let txn = store.database().begin_read().unwrap();
        let record = txn.layer_ref(layer.id.as_str()).unwrap();
        store.diff_path(crate::layer::directory(&txn, &record).unwrap().unwrap())
    };
    let is_device = || at().join("a/gone").symlink_metadata().unwrap().file_type().is_char_device();
    let make_file = || {
        let (root, a) = (at(), at().join("a"));
        let time = std::fs::metadata(&a).unwrap().modified().unwrap();
        std::fs::remove_file(a.join("gone")).unwrap();
        std::fs::write(a.join("gone"), "").unwrap();
        let namespace = store.layout().xattrs();
        let name = |name: &str| [namespace.prefix(), name.as_bytes()].concat();
        let open = |path: &Path| crate::sys::beneath::open_directory(path).unwrap();
        xattr::set(Target::Name(open(&a).as_fd(), b"gone"), &name("whiteout"), b"y").unwrap();
        for path in [&root, &a] {
            xattr::set(Target::File(open(path).as_fd()), &name("opaque"), b"x").unwrap();
        }
        std::fs::File::open(&a).unwrap().set_modified(time).unwrap();
    };
    std::fs::create_dir(at().join("a")).unwrap();
    let a = crate::sys::beneath::open_directory(&at().join("a")).unwrap();
    node::make_node(a.as_fd(), b"gone", NodeKind::CharDevice, 0, (0, 0)).unwrap();
    let tree = store.seal(&layer.id).unwrap().tree;
    make_file();
    let sealed = at();
    store.unseal(&layer.id).unwrap();
    assert!(is_device() && at() != sealed, "it was changed where nobody sees it");
    make_file();
    store.apply_diff(&layer.id, &[0; 1024][..], &ApplyOptions::default()).unwrap();
    assert!(is_device());
    make_file();
    let copy = LayerOptions { template: Some(layer.id.clone()), ..LayerOptions::default() };
    let copy = store.create_layer(None, &copy).unwrap();
    let number = match store.database().begin_read().unwrap().layer_ref(copy.id.as_str()).unwrap().content {
        LayerContent::Writable(number) => number,
        other => panic!("{other:?}"),
    };
    let found = store.diff_path(number).join("a/gone").symlink_metadata().unwrap();
    assert!(found.file_type().is_char_device());
    assert_eq!(store.seal(&layer.id).unwrap().tree, tree);
    is_whole(&store);
}
