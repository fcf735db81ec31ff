//! The operations of the facades, and of stores with other options than most.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use super::operations::{Operation, base, load, mount, on_store, other};
use super::place::{Place, Variant};
use crate::error::Error;
use crate::graphdriver::{self, Driver};
use crate::snapshotter::{self, SnapshotError, Snapshotter};
use crate::{LayerId, Store};

pub(super) const FACADES: &[Operation] = &[
    Operation {
        prepare: make_snapshots,
        ..on_store("prepare_snapshot", |_, store| {
            said(snapshots(store).prepare("new", Some("base"), &BTreeMap::new()))
        })
    },
    Operation {
        prepare: make_snapshots,
        ..on_store("view_snapshot", |_, store| {
            said(snapshots(store).view("new", Some("base"), &BTreeMap::new()))
        })
    },
    Operation {
        prepare: make_snapshots,
        ..on_store("commit_snapshot", |_, store| {
            said(snapshots(store).commit("next", "above", &snapshotter::CommitOptions::default()))
        })
    },
    Operation {
        prepare: make_snapshots,
        ..on_store("commit_snapshot_onto_a_parent", |_, store| {
            let parent = Some("base".to_owned());
            let options = snapshotter::CommitOptions { parent, ..Default::default() };
            said(snapshots(store).commit("next", "alone", &options))
        })
    },
    Operation {
        prepare: make_snapshots,
        ..on_store("remove_snapshot", |_, store| said(snapshots(store).remove("above")))
    },
    Operation {
        prepare: make_snapshots,
        in_steps: true,
        ..on_store("remove_snapshot_and_clean_up", |_, store| {
            let options = snapshotter::SnapshotterOptions { async_remove: true, ..Default::default() };
            let snapshots = Snapshotter::new(store.unwrap().clone(), options).unwrap();
            match snapshots.remove("above") {
                // The second time it is gone.
                Err(SnapshotError::NotFound { .. }) => {}
                removed => said(removed)?,
            }
            said(snapshots.cleanup())
        })
    },
    Operation {
        prepare: make_snapshots,
        ..on_store("update_snapshot", |_, store| {
            let snapshots = snapshots(store);
            let mut info = snapshots.stat("base").map_err(of_store)?;
            info.labels.insert("a".to_owned(), "1".to_owned());
            said(snapshots.update(&info, &["labels.a"]))
        })
    },
    Operation {
        mounts: true,
        variant: Variant { composefs: true, ..Variant::PLAIN },
        // The template has one already, if it can be made.
        prepare: |place| drop(fs::remove_dir_all(place.path("store/composefs"))),
        ..on_store("mount_with_composefs", mount)
    },
    Operation {
        variant: Variant { dedup: true, ..Variant::PLAIN },
        ..on_store("load_with_dedup", |place, store| load(place, store, "oci", "in", "next"))
    },
    Operation {
        mounts: true,
        // It is unmounted first.
        may_be_done: true,
        prepare: |place| {
            let (driver, id) = driver(&place.open());
            let top = base(driver.store()).unwrap().top_layer;
            driver.create_read_write(&id, top.as_ref(), &graphdriver::CreateOptions::default()).unwrap();
            driver.get(&id, &graphdriver::GetOptions::default()).unwrap();
        },
        ..on_store("remove_mounted_by_driver", |_, store| {
            let (driver, id) = driver(store.unwrap());
            driver.remove(&id)
        })
    },
];

/// A committed snapshot, one above it that is written to, and one above nothing.
fn make_snapshots(place: &Place) {
    let store = place.open();
    let snapshots = snapshots(Some(&store));
    let write = |key: &str, parent: Option<&str>| {
        snapshots.prepare(key, parent, &BTreeMap::new()).unwrap();
        let layer = store.layer(&format!("snapshot:{key}")).unwrap();
        let upper = store.layer_places(&layer.id).unwrap().upper;
        fs::write(upper.join("file"), key).unwrap();
        // Its digest is the same each time.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for path in [upper.join("file"), upper] {
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        }
    };
    write("first", None);
    snapshots.commit("base", "first", &snapshotter::CommitOptions::default()).unwrap();
    write("above", Some("base"));
    write("alone", None);
}

fn snapshots(store: Option<&Store>) -> Snapshotter {
    Snapshotter::new(store.unwrap().clone(), snapshotter::SnapshotterOptions::default()).unwrap()
}

/// What a snapshotter said, as its store said it.
fn said<T>(done: Result<T, SnapshotError>) -> Result<(), Error> {
    done.map(drop).map_err(of_store)
}

fn of_store(error: SnapshotError) -> Error {
    match error {
        SnapshotError::Store(error) => error,
        error => other(error.to_string()),
    }
}

fn driver(store: &Store) -> (Driver, LayerId) {
    (Driver::new(store.clone(), graphdriver::Dialect::Moby), "driven".parse().unwrap())
}
