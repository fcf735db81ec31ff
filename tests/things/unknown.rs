//! An empty store: every call on an id that nothing has fails and says so; what asks for all there is succeeds.

use std::path::Path;

use layerstore::oci::{CommitOptions, SaveOptions};
use layerstore::{
    CheckOptions, ContainerId, ContainerOptions, Digest, Error, ImageId, ImageOptions, Kind, LayerId,
    LookupError, MountOptions, Store, ThingId, UnmountMode,
};

use super::{open, options};
use crate::support::Dir;

/// A call, and what it came to without its value.
type Call = (&'static str, fn(&Store) -> Result<(), Error>);

fn layer() -> LayerId {
    "beef".parse().unwrap()
}

fn image() -> ImageId {
    "beef".parse().unwrap()
}

fn container() -> ContainerId {
    "beef".parse().unwrap()
}

macro_rules! calls {
    ($($name:literal: |$store:ident| $call:expr),+ $(,)?) => {
        &[$(($name, |$store| $call.map(drop)),)+]
    };
}

const CALLS: &[Call] = calls! {
    "layer": |store| store.layer("beef"),
    "image": |store| store.image("beef"),
    "container": |store| store.container("beef"),
    "thing": |store| store.thing("beef"),
    "lookup": |store| store.lookup("beef", &[Kind::Layer, Kind::Image, Kind::Container]),
    "lookup of one kind": |store| store.lookup("beef", &[Kind::Image]),
    "lookup of no kind": |store| store.lookup("beef", &[]),
    "lookup of nothing": |store| store.lookup("", &[Kind::Layer]),
    "layer_chain": |store| store.layer_chain(&layer()),
    "images_by_top_layer": |store| store.images_by_top_layer(&layer()),
    "container_by_layer": |store| store.container_by_layer(&layer()),
    "create_image on a layer": |store| {
        let mut options = ImageOptions::named("new");
        options.top_layer = Some(layer());
        store.create_image(&options)
    },
    "create_image with a mapped layer": |store| {
        let mut options = ImageOptions::named("new");
        options.mapped_top_layers = vec![layer()];
        store.create_image(&options)
    },
    "create_container": |store| store.create_container(&image(), &ContainerOptions::named("new")),
    "commit": |store| store.commit(&container(), &CommitOptions::named("new")),
    "save": |store| {
        let to = format!("oci:{}:new", store.root().with_file_name("layout").display());
        store.save(&image(), &to.parse().unwrap(), &SaveOptions::default())
    },
    "remove_layer": |store| store.remove_layer(&layer()),
    "layers_removed_with": |store| store.layers_removed_with(&image()),
    "remove_image": |store| store.remove_image(&image()),
    "remove_container": |store| store.remove_container(&container()),
    "image_directory": |store| store.image_directory(&image()),
    "image_run_directory": |store| store.image_run_directory(&image()),
    "container_directory": |store| store.container_directory(&container()),
    "run_directory": |store| store.run_directory(&container()),
    "write_container_file": |store| store.write_container_file(&container(), "file", b"x"),
    "read_container_file": |store| store.read_container_file(&container(), "file"),
    "write_container_run_file": |store| store.write_container_run_file(&container(), "file", b"x"),
    "read_container_run_file": |store| store.read_container_run_file(&container(), Path::new("file")),
    "put_manifest": |store| {
        store.write(|txn| txn.put_manifest(&image(), "manifest", b"{}", &Digest::sha256(b"{}")))
    },
};

/// The same for a thing of each kind.
type CallOf = (&'static str, fn(&Store, &ThingId) -> Result<(), Error>);

macro_rules! calls_of {
    ($($name:literal: |$store:ident, $of:ident| $call:expr),+ $(,)?) => {
        &[$(($name, |$store, $of| $call.map(drop)),)+]
    };
}

const CALLS_OF: &[CallOf] = calls_of! {
    "names": |store, of| store.names(of),
    "set_names": |store, of| store.set_names(of, &["new".parse().unwrap()]),
    "set_names to none": |store, of| store.set_names(of, &[]),
    "add_names": |store, of| store.add_names(of, &["new".parse().unwrap()]),
    "move_names": |store, of| store.move_names(of, &["new".parse().unwrap()]),
    "remove_names": |store, of| store.remove_names(of, &["new".parse().unwrap()]),
    "metadata": |store, of| store.metadata(of),
    "set_metadata": |store, of| store.set_metadata(of, "new"),
    "set_flag": |store, of| store.set_flag(of, "flag", "1"),
    "clear_flag": |store, of| store.clear_flag(of, "flag"),
    "items": |store, of| store.items(of),
    "item": |store, of| store.item(of, "key"),
    "item_info": |store, of| store.item_info(of, "key"),
    "put_item": |store, of| store.put_item(of, "key", b"x"),
    "remove_item": |store, of| store.remove_item(of, "key"),
    "size": |store, of| store.size(of),
    "usage": |store, of| store.usage(of),
    "parent_owners": |store, of| store.parent_owners(of),
    "diff_size": |store, of| store.diff_size(of, None),
    "changes": |store, of| store.changes(of),
    "diff": |store, of| store.diff(of, &mut Vec::new()),
    "mount": |store, of| store.mount(of, &MountOptions::default()),
    "mount_entry": |store, of| store.mount_entry(of, &MountOptions::default()),
    "mounted": |store, of| store.mounted(of),
    "unmount": |store, of| store.unmount(of, UnmountMode::Plain),
    "unmount_all": |store, of| store.unmount_all(of, UnmountMode::Detach),
    "remove_regardless": |store, of| store.remove_regardless(of),
    "lease": |store, of| {
        store.lease(&"new".parse().unwrap(), of, std::time::Duration::from_secs(60))
    },
};

#[track_caller]
fn not_found(name: &str, done: Result<(), Error>) {
    let typed = matches!(
        done,
        Err(Error::Lookup(
            LookupError::NotFound { .. } | LookupError::NoItem { .. } | LookupError::NoLease { .. }
        ))
    );
    assert!(typed, "{name}: {done:?}");
}

#[test]
fn calls_on_what_is_not_there_fail() {
    let dir = Dir::new("things");
    fail_on_what_is_not_there(&open(&dir));
    let split = options(&dir).image_store_root(dir.join("images"));
    fail_on_what_is_not_there(&Store::open(&split).unwrap());
    fail_on_what_is_not_there(&Store::open(&split.transient(true)).unwrap());
}

#[track_caller]
fn fail_on_what_is_not_there(store: &Store) {
    let before = store.change_counter();
    for (name, call) in CALLS {
        not_found(name, call(store));
    }
    for of in [ThingId::Layer(layer()), ThingId::Image(image()), ThingId::Container(container())] {
        for (name, call) in CALLS_OF {
            not_found(&format!("{name} of {}", of.kind()), call(store, &of));
        }
    }
    for of in ["layer", "image"] {
        let mut options = CheckOptions::default();
        match of {
            "layer" => options.layer = Some(layer()),
            _ => options.image = Some(image()),
        }
        not_found("check", store.check(&options).map(drop));
    }
    assert_eq!(store.change_counter(), before, "nothing was changed");
    not_found("end_lease", store.end_lease(&"beef".parse().unwrap()).map(drop));
    assert!("".parse::<Digest>().is_err(), "no digest, no lock");
}

#[test]
fn an_empty_store_answers_what_asks_for_all() {
    let dir = Dir::new("things");
    answers_when_empty(open(&dir));
    let split = options(&dir).image_store_root(dir.join("images"));
    answers_when_empty(Store::open(&split).unwrap());
}

fn answers_when_empty(store: Store) {
    assert!(!store.exists("beef").unwrap() && !store.exists("").unwrap());
    assert_eq!(store.list(&[Kind::Layer, Kind::Image, Kind::Container]).unwrap(), Default::default());
    assert_eq!(store.images_by_digest(&Digest::sha256(b"x")).unwrap(), []);
    let status = store.status().unwrap();
    assert_eq!((status.layers, status.images, status.containers), (0, 0, 0));
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());
    for _ in 0..2 {
        store.wipe().unwrap();
        assert_eq!(store.shutdown(false).unwrap(), []);
        assert_eq!(store.shutdown(true).unwrap(), []);
    }
    // Closing is dropping, as often as there are handles.
    let second = store.clone();
    drop(store);
    second.wipe().unwrap();
}
