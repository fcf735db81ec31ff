//! The operations that are tried.

use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstore_schema::record::LayerContent;

use super::place::{Place, Variant};
use crate::error::Error;
use crate::meta::{Query, RowKey};
use crate::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
use crate::sys::node;
use crate::sys::pinned::Pinned;
use crate::sys::xattr::{self, Target};
use crate::types::TreeDigest;
use crate::{
    ApplyOptions, AutoIdMaps, BackupMode, CheckLevel, CheckOptions, Compression, Container, ContainerOptions,
    DiffOptions, HostRanges, IdExtent, IdMapping, IdMaps, Image, ImageOptions, LayerOptions, MountOptions,
    NewItem, RangeSource, Removal, RepairOptions, RepairReport, SealOptions, Store, SyncMode, UnmountMode,
    WatchOptions,
};

/// What an operation begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// No store.
    Nothing,
    /// A store that nobody has open.
    Closed,
    /// An open store.
    Open,
}

pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) start: Start,
    /// How the store is opened.
    pub(super) variant: Variant,
    /// Whether it needs the right to mount.
    pub(super) mounts: bool,
    /// Whether an error can come after all is done: a save ends with bringing names to the disk.
    pub(super) may_be_done: bool,
    /// Whether it is several transactions, so that an error can leave a part of it done. Doing it again does the rest.
    pub(super) in_steps: bool,
    /// Whether the store is damaged until it succeeds. A user sees no difference, so it is always done again.
    pub(super) mends: bool,
    /// Makes a copy of the template ready.
    pub(super) prepare: fn(&Place),
    pub(super) run: fn(&Place, Option<&Store>) -> Result<(), Error>,
}

/// One on an open store.
pub(super) const fn on_store(
    name: &'static str,
    run: fn(&Place, Option<&Store>) -> Result<(), Error>,
) -> Operation {
    Operation {
        name,
        start: Start::Open,
        variant: Variant::PLAIN,
        mounts: false,
        may_be_done: false,
        in_steps: false,
        mends: false,
        prepare: |_| {},
        run,
    }
}

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        start: Start::Nothing,
        prepare: |place| {
            ["store", "run"].iter().for_each(|name| fs::remove_dir_all(place.path(name)).unwrap())
        },
        ..on_store("create_store", open)
    },
    Operation { start: Start::Closed, ..on_store("open_store", open) },
    Operation {
        start: Start::Closed,
        mounts: true,
        // Its counts must stay.
        prepare: |place| mount(place, Some(&place.open())).unwrap(),
        ..on_store("open_run_root", |place, _| Store::open(&place.options())?.status().map(drop))
    },
    on_store("load_image", |place, store| load(place, store, "oci", "in", "next")),
    on_store("load_known_layers", |place, store| load(place, store, "oci", "in", "base")),
    on_store("load_archive", |place, store| load(place, store, "oci-archive", "in.tar", "next")),
    on_store("create_container", |_, store| {
        let store = store.unwrap();
        let mut options = ContainerOptions::named("second");
        options.id = Some("second".parse().unwrap());
        store.create_container(&store.image("base")?.id, &options).map(drop)
    }),
    on_store("create_layer", |_, store| {
        let store = store.unwrap();
        let top = base(store)?.top_layer.unwrap();
        store.create_layer(&top, &LayerOptions::named("new")).map(drop)
    }),
    on_store("put_layer", |_, store| {
        let store = store.unwrap();
        let top = base(store)?.top_layer.unwrap();
        store.put_layer(&top, &LayerOptions::named("new"), &*archive("etc/new")).map(drop)
    }),
    on_store("stage_chunked", |_, store| {
        let store = store.unwrap();
        let top = base(store)?.top_layer.unwrap();
        let (bytes, blob) = crate::chunked::encode(&*archive("etc/new"), Vec::new(), 1).unwrap();
        let staged = store.stage_chunked(&blob, &mut Blob(bytes), &ApplyOptions::default())?;
        staged.insert(&top, &LayerOptions::named("new")).map(drop)
    }),
    Operation { prepare: |place| put(&place.open(), "layer"), ..on_store("apply_diff", apply) },
    Operation {
        // It is copied, and stays writable.
        prepare: |place| {
            let store = place.open();
            put(&store, "layer");
            store.unseal(&store.layer("layer").unwrap().id).unwrap();
        },
        ..on_store("apply_diff_to_writable", apply)
    },
    Operation {
        prepare: |place| {
            let store = place.open();
            put(&store, "layer");
            store.unseal(&store.layer("layer").unwrap().id).unwrap();
        },
        ..on_store("seal", |_, store| {
            let store = store.unwrap();
            store.seal(&store.layer("layer")?.id).map(drop)
        })
    },
    Operation { prepare: leave_below, ..on_store("seal_settled", seal) },
    Operation {
        prepare: leave_below,
        ..on_store("settle", |_, store| {
            let store = store.unwrap();
            store.settle(&store.layer("layer")?.id).map(drop)
        })
    },
    Operation { prepare: |place| put(&place.open(), "layer"), ..on_store("unseal", unseal) },
    Operation {
        prepare: |place| {
            let store = place.open();
            put(&store, "layer");
            store.unseal(&store.layer("layer").unwrap().id).unwrap();
            store.create_layer(None, &LayerOptions::named("below")).unwrap();
        },
        ..on_store("seal_onto_a_parent", |_, store| {
            let store = store.unwrap();
            let options = SealOptions {
                names: Some(vec!["sealed".to_owned(), "layer".to_owned()]),
                parent: Some(store.layer("below")?.id),
                read_only: true,
                ..SealOptions::default()
            };
            let done = store.seal_with(&store.layer("layer")?.id, &options)?;
            assert!(done.read_only && !done.is_writable());
            assert_eq!((done.parent, done.names.len()), (options.parent, 2));
            Ok(())
        })
    },
    Operation {
        prepare: |place| put(&place.open(), "layer"),
        ..on_store("begin_removing_layer", |_, store| {
            let store = store.unwrap();
            store.begin_removing_layer(&store.layer("layer")?.id).map(Removal::leave)
        })
    },
    Operation {
        prepare: |place| ["layer", "equal"].iter().for_each(|name| put(&place.open(), name)),
        ..on_store("unseal_shared", unseal)
    },
    Operation {
        prepare: |place| put(&place.open(), "layer"),
        ..on_store("compare", |_, store| {
            let store = store.unwrap();
            let (layer, web) = (store.layer("layer")?, web(store)?);
            let mut tar = Vec::new();
            store.diff_with(&layer, &DiffOptions::since(&web).compression(Compression::Zstd), &mut tar)?;
            let changes = store.changes_since(&layer, &web)?;
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            assert_eq!(changes, ["C /etc", "A /etc/file", "C /etc/motd", "D /new"]);
            Ok(())
        })
    },
    on_store("create_image", |_, store| {
        let store = store.unwrap();
        let mut options = ImageOptions::named("base");
        options.id = Some("second".parse().unwrap());
        options.top_layer = base(store)?.top_layer;
        options.items = vec![NewItem::new("manifest", "{}"), NewItem::new("notes", vec![7; 300_000])];
        store.create_image(&options).map(drop)
    }),
    on_store("container_directory", |_, store| {
        let store = store.unwrap();
        let path = store.container_directory(&web(store)?.id)?;
        assert!(path.is_dir());
        Ok(())
    }),
    Operation {
        prepare: |place| {
            let store = place.open();
            store.container_directory(&web(&store).unwrap().id).unwrap();
        },
        // The file has its name before that is synced.
        may_be_done: true,
        ..on_store("write_container_file", |_, store| {
            let store = store.unwrap();
            let id = web(store)?.id;
            let path = store.container_directory(&id)?.join("a/b");
            let before = fs::read(&path).ok();
            let written = store.write_container_file(&id, "a/b", b"whole");
            let after = fs::read(&path).ok();
            assert!(after == before || after.as_deref() == Some(b"whole"), "never a part");
            written
        })
    },
    Operation {
        mounts: true,
        // Nothing is known of the kernel then.
        prepare: |place| fs::remove_dir_all(place.path("run")).unwrap(),
        ..on_store("mount_first", mount)
    },
    Operation { mounts: true, ..on_store("mount", mount) },
    Operation {
        mounts: true,
        prepare: |place| mount(place, Some(&place.open())).unwrap(),
        ..on_store("unmount", unmount)
    },
    on_store("changes", |_, store| {
        let store = store.unwrap();
        let changes = store.changes(&web(store)?)?;
        let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["C /etc", "C /etc/motd", "A /new"]);
        assert_eq!(store.changes(&base(store)?)?.len(), 6);
        Ok(())
    }),
    on_store("diff", diff),
    on_store("commit", |_, store| {
        let store = store.unwrap();
        store.commit(&web(store)?.id, &CommitOptions::named("new")).map(drop)
    }),
    Operation {
        may_be_done: true,
        ..on_store("save_layout", |place, store| save(place, store, "oci", "out"))
    },
    Operation {
        may_be_done: true,
        ..on_store("save_archive", |place, store| save(place, store, "oci-archive", "out.tar"))
    },
    on_store("set_names", |_, store| {
        let store = store.unwrap();
        let web = web(store)?;
        store.write(|txn| txn.set_names(&web, &["one".parse()?, "two".parse()?]))
    }),
    on_store("put_item", |_, store| {
        let store = store.unwrap();
        let web = web(store)?;
        let large: Vec<u8> = (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect();
        store.write(|txn| {
            txn.put_item(&web, "large", &large)?;
            txn.remove_item(&web, "spec")
        })
    }),
    on_store("remove_container", |_, store| {
        let store = store.unwrap();
        store.remove_container(&web(store)?.id)
    }),
    Operation {
        prepare: |place| {
            let store = place.open();
            store.remove_container(&web(&store).unwrap().id).unwrap();
        },
        ..on_store("remove_image", |_, store| {
            let store = store.unwrap();
            store.remove_image(&base(store)?.id).map(drop)
        })
    },
    Operation {
        // The mount is ended before.
        may_be_done: true,
        ..on_store("remove_regardless", |_, store| {
            let store = store.unwrap();
            store.remove_regardless(&web(store)?)
        })
    },
    Operation { prepare: make_directories, ..on_store("wipe", |_, store| store.unwrap().wipe()) },
    on_store("lock_digest", |_, store| {
        let store = store.unwrap();
        let digest = crate::Digest::sha256(b"blob");
        let lock = store.lock_digest(&digest)?;
        if store.try_lock_digest(&digest)?.is_some() {
            return Err(other("two have the lock".to_owned()));
        }
        drop(lock);
        Ok(())
    }),
    on_store("drop_blobs", |_, store| store.unwrap().drop_blobs(None).map(drop)),
    Operation { prepare: make_garbage, ..on_store("gc", gc) },
    on_store("check", |_, store| {
        let options = CheckOptions { level: CheckLevel::Deep, ..CheckOptions::default() };
        let report = store.unwrap().check(&options)?;
        // What cannot be read is a finding.
        if report.is_clean() { Ok(()) } else { Err(other(format!("{:?}", report.findings))) }
    }),
    Operation { mends: true, prepare: lose_a_file, ..on_store("repair_by_a_blob", repair) },
    Operation { mends: true, prepare: lose_a_link, ..on_store("repair_by_a_file", repair) },
    Operation {
        mends: true,
        // A repair ends with a check.
        may_be_done: true,
        prepare: |place| {
            place.open().drop_blobs(None).unwrap();
            lose_a_file(place);
        },
        ..on_store("repair_by_force", |_, store| {
            let options = RepairOptions { force: true, ..RepairOptions::default() };
            complete(&store.unwrap().repair(&options)?)
        })
    },
    Operation { mends: true, prepare: lose_rows, ..on_store("repair_rows", repair) },
    Operation {
        prepare: |place| put(&place.open(), "layer"),
        ..on_store("create_layer_like_a_sealed_one", create_like)
    },
    Operation { prepare: put_writable, ..on_store("create_layer_like_a_writable_one", create_like) },
    Operation {
        prepare: |place| put(&place.open(), "layer"),
        ..on_store("stage_and_apply", |_, store| {
            let store = store.unwrap();
            let staged = store.stage_diff(&*archive("more"), &ApplyOptions::default())?;
            staged.apply_to(&store.layer("layer")?.id).map(drop)
        })
    },
    on_store("stage_and_put", |_, store| {
        let store = store.unwrap();
        let staged = store.stage_diff(&*archive("more"), &ApplyOptions::default())?;
        let top = base(store)?.top_layer;
        staged.insert(top.as_ref(), &LayerOptions::named("new")).map(drop)
    }),
    Operation {
        prepare: |place| {
            put_writable(place);
            put(&place.open(), "equal");
        },
        ..on_store("seal_like_another", seal)
    },
    Operation {
        mounts: true,
        // It stays unsealed if it cannot be mounted then.
        may_be_done: true,
        prepare: |place| put(&place.open(), "layer"),
        ..on_store("mount_unsealed", |_, store| {
            let store = store.unwrap();
            let layer = store.layer("layer")?;
            store.mount(&layer, &MountOptions { unseal: true, ..MountOptions::default() })?;
            store.unmount(&layer, UnmountMode::Plain).map(drop)
        })
    },
    on_store("image_directory", |_, store| {
        let store = store.unwrap();
        assert!(store.image_directory(&base(store)?.id)?.is_dir());
        Ok(())
    }),
    on_store("run_directory", |_, store| {
        let store = store.unwrap();
        let (image, container) = (base(store)?.id, web(store)?.id);
        assert!(store.image_run_directory(&image)?.is_dir());
        store.write_container_run_file(&container, "pid", b"1")?;
        assert_eq!(store.read_container_run_file(&container, "pid")?, b"1");
        Ok(())
    }),
    on_store("create_container_with_ids", |_, store| {
        // All that this user has, so that anybody may give them a directory.
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let ranges = HostRanges { uids: vec![(uid, 1)], gids: vec![(gid, 1)] };
        let auto = AutoIdMaps { ranges: Some(ranges), size: Some(1), ..AutoIdMaps::default() };
        create(store.unwrap(), IdMapping::Auto(auto))
    }),
    Operation {
        // Files are given away.
        mounts: true,
        // The copy is looked at when it is there.
        may_be_done: true,
        prepare: |place| create(&place.open(), IdMapping::Maps(own_ids())).unwrap(),
        ..on_store("copy_for_a_map", |_, store| {
            let store = store.unwrap();
            let layer = store.container("second")?.layer;
            let layer = store.begin_read()?.layer_ref(layer.as_str())?;
            assert!(store.mapped_copy(&layer, &own_ids())?.unwrap().join("etc").is_dir());
            Ok(())
        })
    },
    on_store("set_flag_and_metadata", |_, store| {
        let store = store.unwrap();
        let (web, image) = (web(store)?, base(store)?);
        store.write(|txn| {
            txn.set_flag(&web, "kept", "true")?;
            txn.set_metadata(&image, "text")
        })
    }),
    on_store("move_name", |_, store| {
        let store = store.unwrap();
        let bare = store.container("bare")?;
        store.write(|txn| txn.move_name(&bare, &"web".parse()?))
    }),
    on_store("lease", |_, store| {
        let store = store.unwrap();
        store.lease(&"new".parse()?, &base(store)?, Duration::from_secs(600)).map(drop)
    }),
    Operation {
        // The layer goes with it.
        prepare: |place| {
            let store = place.open();
            put(&store, "layer");
            let layer = store.layer("layer").unwrap();
            store.lease(&"kept".parse().unwrap(), &layer, Duration::from_secs(600)).unwrap();
            store.write(|txn| txn.remove_name(&layer, &"layer".parse()?)).unwrap();
        },
        ..on_store("end_lease", |_, store| {
            assert_eq!(store.unwrap().end_lease(&"kept".parse()?)?.len(), 1);
            Ok(())
        })
    },
    Operation {
        // It has its name before that is synced.
        may_be_done: true,
        ..on_store("backup", |place, store| {
            let to = place.path("backup");
            store.unwrap().backup(&to, BackupMode::Replace).map(drop)
        })
    },
    on_store("compact", |_, store| store.unwrap().compact().map(drop)),
    Operation {
        prepare: |place| {
            let store = Store::open(&place.options().sync(SyncMode::Records)).unwrap();
            put(&store, "layer");
        },
        ..on_store("sync", |_, store| store.unwrap().sync().map(drop))
    },
    on_store("watch", |_, store| {
        let store = store.unwrap();
        let mut watch = store.watch(&WatchOptions::oldest())?;
        let mut told = 0;
        while watch.try_next()?.is_some() {
            told += 1;
        }
        assert!(told > 3, "{told}");
        assert!(watch.next(Some(Duration::ZERO))?.is_none());
        Ok(())
    }),
    on_store("shutdown", |_, store| store.unwrap().shutdown(true).map(drop)),
    separate("load_into_separate", |place, store| load(place, store, "oci", "in", "next")),
    separate("put_layer_into_separate", |_, store| put_on(store.unwrap(), "new")),
    Operation { prepare: |place| put(&place.open(), "layer"), ..separate("apply_diff_in_separate", apply) },
    Operation { prepare: put_writable, ..separate("seal_in_separate", seal) },
    Operation { prepare: |place| put(&place.open(), "layer"), ..separate("unseal_in_separate", unseal) },
    separate("create_image_in_separate", |_, store| {
        let store = store.unwrap();
        let mut options = ImageOptions::named("second");
        options.id = Some("second".parse().unwrap());
        options.top_layer = base(store)?.top_layer;
        options.items = vec![NewItem::new("manifest", "{}")];
        store.create_image(&options).map(drop)
    }),
    separate("create_container_on_separate", |_, store| create(store.unwrap(), IdMapping::Host)),
    Operation {
        prepare: |place| {
            let store = place.open();
            store.remove_container(&web(&store).unwrap().id).unwrap();
        },
        ..separate("remove_image_of_separate", |_, store| {
            let store = store.unwrap();
            store.remove_image(&base(store)?.id).map(drop)
        })
    },
    Operation {
        // Two transactions, of which that of the images is the first.
        in_steps: true,
        ..separate("write_to_both", |_, store| {
            let store = store.unwrap();
            let (image, web) = (base(store)?, web(store)?);
            store.write(|txn| {
                txn.put_item(&web, "note", b"1")?;
                txn.put_item(&image, "note", b"1")
            })
        })
    },
    Operation { in_steps: true, ..separate("wipe_both", |_, store| store.unwrap().wipe()) },
    transient("create_transient", |_, store| create(store.unwrap(), IdMapping::Host)),
    Operation {
        prepare: make_transient,
        ..transient("create_transient_again", |_, store| create(store.unwrap(), IdMapping::Host))
    },
    Operation {
        prepare: make_transient,
        ..transient("remove_transient", |_, store| {
            let store = store.unwrap();
            store.remove_container(&store.container("gone")?.id)
        })
    },
    Operation {
        prepare: make_transient,
        ..transient("directory_of_transient", |_, store| {
            let store = store.unwrap();
            store.container_directory(&store.container("gone")?.id).map(drop)
        })
    },
    Operation {
        prepare: make_transient,
        // Two transactions, of which that of the transient ones is the first.
        in_steps: true,
        ..transient("write_beside_transient", |_, store| {
            let store = store.unwrap();
            let (gone, web) = (store.container("gone")?, web(store)?);
            store.write(|txn| {
                txn.add_name(&gone, &"other".parse()?)?;
                txn.put_item(&web, "note", b"1")
            })
        })
    },
    Operation {
        prepare: make_transient,
        in_steps: true,
        ..transient("wipe_transient", |_, store| store.unwrap().wipe())
    },
    Operation {
        variant: RECORDS,
        ..on_store("load_records", |place, store| load(place, store, "oci", "in", "next"))
    },
    Operation { variant: RECORDS, ..on_store("put_layer_records", |_, store| put_on(store.unwrap(), "new")) },
    Operation {
        variant: RECORDS,
        prepare: |place| put(&place.open(), "layer"),
        ..on_store("unseal_records", unseal)
    },
    Operation {
        variant: OFF,
        ..on_store("create_container_off", |_, store| create(store.unwrap(), IdMapping::Host))
    },
    Operation {
        variant: OFF,
        prepare: |place| put(&place.open(), "layer"),
        ..on_store("apply_diff_off", apply)
    },
];

const RECORDS: Variant = Variant { sync: SyncMode::Records, ..Variant::PLAIN };
const OFF: Variant = Variant { sync: SyncMode::Off, ..Variant::PLAIN };

/// One on a store whose images have a store of their own.
const fn separate(name: &'static str, run: fn(&Place, Option<&Store>) -> Result<(), Error>) -> Operation {
    Operation { variant: Variant::SEPARATE, ..on_store(name, run) }
}

/// One with containers that the next boot drops.
const fn transient(name: &'static str, run: fn(&Place, Option<&Store>) -> Result<(), Error>) -> Operation {
    Operation { variant: Variant::TRANSIENT, ..on_store(name, run) }
}

fn make_transient(place: &Place) {
    let store = place.open();
    let mut options = ContainerOptions::named("gone");
    options.id = Some("gone".parse().unwrap());
    store.create_container(&base(&store).unwrap().id, &options).unwrap();
}

fn create(store: &Store, ids: IdMapping) -> Result<(), Error> {
    let mut options = ContainerOptions::named("second");
    options.id = Some("second".parse().unwrap());
    options.ids = ids;
    store.create_container(&base(store)?.id, &options).map(drop)
}

/// A map that gives everything to this user, as anybody may.
fn own_ids() -> IdMaps {
    let extent = |outside| vec![IdExtent { inside: 0, outside, count: 1 }];
    IdMaps { uids: extent(nix::unistd::geteuid().as_raw()), gids: extent(nix::unistd::getegid().as_raw()) }
}

fn create_like(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    let store = store.unwrap();
    let mut options = LayerOptions::named("new");
    options.template = Some(store.layer("layer")?.id);
    store.create_layer(base(store)?.top_layer.as_ref(), &options).map(drop)
}

fn put_writable(place: &Place) {
    let store = place.open();
    put(&store, "layer");
    store.unseal(&store.layer("layer").unwrap().id).unwrap();
}

/// A layer with a directory that a mount renamed and left in the layer below.
fn leave_below(place: &Place) {
    put_writable(place);
    let store = place.open();
    let layer = store.layer("layer").unwrap().id;
    let record = store.database().begin_read().unwrap().layer_ref(layer.as_str()).unwrap();
    let LayerContent::Writable(number) = record.content else { panic!() };
    let root = store.open_diff(number).unwrap();
    fs::create_dir(store.diff_path(number).join("moved")).unwrap();
    let moved = Target::Name(root.as_fd(), b"moved");
    xattr::set(moved, store.layout().xattrs().redirect(), b"/etc").unwrap();
    // Its digest is the same each time.
    Pinned::at(root.as_fd(), b"moved").unwrap().set_mtime((1_000_000_000, 0)).unwrap();
    node::set_mtime(root.as_fd(), (1_000_000_000, 0)).unwrap();
}

fn put_on(store: &Store, name: &str) -> Result<(), Error> {
    store
        .put_layer(&base(store)?.top_layer.unwrap(), &LayerOptions::named(name), &*archive("etc/new"))
        .map(drop)
}

fn seal(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    let store = store.unwrap();
    store.seal(&store.layer("layer")?.id).map(drop)
}

/// Gives image and container directories of their callers.
fn make_directories(place: &Place) {
    let store = place.open();
    store.write_container_file(&web(&store).unwrap().id, "file", b"x").unwrap();
    store.image_directory(&base(&store).unwrap().id).unwrap();
    store.run_directory(&web(&store).unwrap().id).unwrap();
}

pub(super) fn other(text: String) -> Error {
    Error::Io { action: "be content with", path: "the result".into(), source: std::io::Error::other(text) }
}

fn web(store: &Store) -> Result<Container, Error> {
    store.container("web")
}

pub(super) fn base(store: &Store) -> Result<Image, Error> {
    store.image("base")
}

/// A tar of one file.
fn archive(path: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, path, &b"file"[..]).unwrap();
    builder.into_inner().unwrap()
}

/// A blob that is fetched in parts, from memory.
struct Blob(Vec<u8>);

impl RangeSource for Blob {
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> io::Result<Box<dyn Read + Send + '_>> {
        let at = |at: u64| usize::try_from(at).unwrap();
        let parts: Vec<_> = ranges.iter().map(|range| &self.0[at(range.start)..at(range.end)]).collect();
        Ok(Box::new(io::Cursor::new(parts.concat())))
    }
}

/// Makes a layer on the base image's.
fn put(store: &Store, name: &str) {
    let top = base(store).unwrap().top_layer.unwrap();
    store.put_layer(&top, &LayerOptions::named(name), &*archive("etc/file")).unwrap();
}

fn apply(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    let store = store.unwrap();
    let layer = store.layer("layer")?;
    store.apply_diff(&layer.id, &*archive("more"), &ApplyOptions::default()).map(drop)
}

fn unseal(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    let store = store.unwrap();
    store.unseal(&store.layer("layer")?.id).map(drop)
}

fn open(place: &Place, _: Option<&Store>) -> Result<(), Error> {
    Store::open(&place.options()).map(drop)
}

pub(super) fn load(
    place: &Place,
    store: Option<&Store>,
    transport: &str,
    name: &str,
    tag: &str,
) -> Result<(), Error> {
    let store = store.unwrap();
    let source = Source::open(&place.reference(transport, name, tag), store.root())?;
    store.load(&source, &LoadOptions::named("new")).map(drop)
}

fn save(place: &Place, store: Option<&Store>, transport: &str, name: &str) -> Result<(), Error> {
    let store = store.unwrap();
    let to = place.reference(transport, name, "new");
    store.save(&base(store)?.id, &to, &SaveOptions::default()).map(drop)
}

pub(super) fn mount(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    let store = store.unwrap();
    let mount = store.mount(&web(store)?, &MountOptions::default())?;
    assert_eq!(fs::read(mount.path().join("etc/motd")).unwrap(), b"changed");
    Ok(())
}

fn unmount(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    let store = store.unwrap();
    store.unmount(&web(store)?, UnmountMode::Plain).map(drop)
}

fn diff(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    let store = store.unwrap();
    let (mut sealed, mut written) = (Vec::new(), Vec::new());
    let image = base(store)?;
    store.diff(&image, &mut sealed)?;
    store.diff(&web(store)?, &mut written)?;
    let layer = store.layer(image.top_layer.as_ref().unwrap().as_str())?;
    assert_eq!(layer.diff_id.unwrap().0, crate::Digest::sha256(&sealed));
    let mut names = Vec::new();
    for entry in tar::Archive::new(&*written).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().into_owned());
    }
    assert_eq!(names, ["etc/", "etc/motd", "new"].map(Path::new));
    Ok(())
}

/// What crashes leave: directories and blobs half made, something half deleted, and a mount point.
fn make_garbage(place: &Place) {
    let store = place.path("store");
    for tree in ["diffs/77/sub", "diffs/78.aside", "work/79", "trash/80/sub", "../run/mnt/feed"] {
        fs::create_dir_all(store.join(tree)).unwrap();
    }
    for file in ["diffs/77/sub/file", "locks/77", "blobs/81", "trash/80/sub/file"] {
        fs::write(store.join(file), "garbage").unwrap();
    }
}

fn gc(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    let report = store.unwrap().gc(false)?;
    if report.left.is_empty() { Ok(()) } else { Err(other(format!("{report:?}"))) }
}

/// The directory of the image's layer, and the key of its row.
fn sealed(store: &Store) -> (PathBuf, [u8; 32]) {
    let txn = store.database().begin_read().unwrap();
    let layer = base(store).unwrap().top_layer.unwrap();
    let LayerContent::Sealed(tree) = txn.layer_ref(layer.as_str()).unwrap().content else { panic!() };
    (store.diff_path(txn.diff(&TreeDigest(tree)).unwrap().unwrap().number), tree)
}

/// Nothing but the kept blob has its bytes.
fn lose_a_file(place: &Place) {
    fs::remove_file(sealed(&place.open()).0.join("etc/motd")).unwrap();
}

/// The other link has the same bytes.
fn lose_a_link(place: &Place) {
    fs::remove_file(sealed(&place.open()).0.join("bin/tool")).unwrap();
}

/// The row of a directory, which stays where it is.
fn lose_rows(place: &Place) {
    let store = place.open();
    // Its changes are not seen without the row.
    store.remove_container(&web(&store).unwrap().id).unwrap();
    let tree = sealed(&store).1;
    store.database().write::<_, Error>(|txn| Ok(txn.erase(&RowKey::Diff(tree))?)).unwrap();
}

fn repair(_: &Place, store: Option<&Store>) -> Result<(), Error> {
    complete(&store.unwrap().repair(&RepairOptions::default())?)
}

fn complete(report: &RepairReport) -> Result<(), Error> {
    if report.is_complete() { Ok(()) } else { Err(other(format!("{report:?}"))) }
}
