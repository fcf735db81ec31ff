//! Leases, and what is left when they are over.

use std::sync::Mutex;
use std::time::Duration;

use super::support::{image, is_clean, load, open};
use crate::error::{Error, InUseError, LookupError};
use crate::gc::GarbageKind;
use crate::store::{ContainerOptions, ImageImport, Store};
use crate::types::LayerId;
use crate::{Layer, Progress};

const HOUR: Duration = Duration::from_secs(3600);

/// A load whose upper layer is cut short.
fn failed_load(store: &Store, keep_finished: Option<Duration>) -> Vec<Layer> {
    let dir = store.root().parent().unwrap();
    let import = ImageImport { keep_finished, ..image(dir, "new", false) };
    store.import_image(&import).unwrap_err();
    assert!(store.images().unwrap().is_empty());
    store.layers().unwrap()
}

#[test]
fn the_next_load_goes_on_from_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(failed_load(&store, None), []);
    assert!(store.gc(true).unwrap().removed.is_empty());
    let kept = failed_load(&store, Some(HOUR));
    assert_eq!(kept.len(), 1);
    assert_eq!(failed_load(&store, Some(HOUR)), kept, "once more, and no further");
    let leases = store.leases().unwrap();
    assert!(leases.len() == 1 && !leases[0].is_expired());
    assert!(leases[0].id.as_str().starts_with("load-"));
    assert_eq!(store.gc(false).unwrap().removed, []);
    is_clean(&store);
    let refused = store.remove_layer(&kept[0].id);
    assert!(matches!(refused, Err(Error::InUse(InUseError::Leased { .. }))), "{refused:?}");

    let known = Mutex::new(Vec::new());
    let progress = |progress: &Progress<'_>| {
        if let Progress::LayerKnown { blob } = progress {
            known.lock().unwrap().push((*blob).clone());
        }
    };
    let import = ImageImport { progress: Some(&progress), ..image(dir.path(), "new", true) };
    let loaded = store.import_image(&import).unwrap();
    assert_eq!(*known.lock().unwrap(), [kept[0].blobs[0].digest.clone()]);
    assert_eq!(store.leases().unwrap(), []);
    assert_eq!(store.remove_image(&loaded.id).unwrap().len(), 2);
    assert_eq!(store.gc(true).unwrap().removed, []);
    is_clean(&store);
}

/// The second of two loads that fail does not come as far as the first.
#[test]
fn what_an_earlier_load_kept_stays_leased() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    load(dir.path(), &store, "demo");
    let demo = store.image("demo").unwrap();
    let mut import = ImageImport { keep_finished: Some(HOUR), ..image(dir.path(), "new", false) };
    let lease = format!("load-{}", import.id).parse().unwrap();
    store.lease(&lease, demo.top_layer.unwrap(), HOUR).unwrap();
    assert_eq!(store.remove_image(&demo.id).unwrap(), [] as [LayerId; 0]);
    import.layers.splice(..1, image(dir.path(), "demo", true).layers.drain(..1));
    store.import_image(&import).unwrap_err();
    assert_eq!(store.end_lease(&lease).unwrap().len(), 2);
    assert!(store.layers().unwrap().is_empty());
    is_clean(&store);
}

#[test]
fn what_only_a_lease_kept_goes_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let kept = failed_load(&store, Some(Duration::ZERO));
    let dry = store.gc(true).unwrap();
    assert_eq!(store.layers().unwrap(), kept);
    let wet = store.gc(false).unwrap();
    let kinds: Vec<_> = wet.removed.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [GarbageKind::Lease, GarbageKind::Layer]);
    assert_eq!((&wet.removed, wet.bytes), (&dry.removed, dry.bytes));
    assert!(wet.bytes > 0 && wet.removed[1].id.as_deref() == Some(kept[0].id.as_str()));
    assert_eq!((store.layers().unwrap(), store.leases().unwrap()), (vec![], vec![]));
    assert_eq!(std::fs::read_dir(store.root().join("diffs")).unwrap().count(), 0);
    is_clean(&store);

    // As well by the first write of another.
    failed_load(&store, Some(Duration::ZERO));
    let other = open(dir.path());
    other.create_container(None, &ContainerOptions::default()).unwrap();
    assert_eq!(other.leases().unwrap(), []);
    assert!(other.layers().unwrap().iter().all(Layer::is_writable));
    assert_eq!(other.gc(true).unwrap().removed, []);
}

#[test]
fn what_is_leased_stays_until_the_lease_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    load(dir.path(), &store, "demo");
    let image = store.image("demo").unwrap();
    let top = image.top_layer.clone().unwrap();
    let [first, second] = ["first", "second"].map(|id| id.parse().unwrap());
    store.lease(&first, &image, HOUR).unwrap();
    let lease = store.lease(&first, &top, HOUR).unwrap();
    assert_eq!(lease.things, [(&image).into(), (&top).into()]);
    let refused = store.remove_image(&image.id);
    assert!(
        matches!(&refused, Err(Error::InUse(InUseError::Leased { lease, .. })) if lease == "first"),
        "{refused:?}"
    );
    // Ended by a renewal that is over at once.
    assert!(store.lease(&first, &image, Duration::ZERO).unwrap().is_expired());
    store.lease(&second, &top, HOUR).unwrap();
    assert_eq!(store.remove_image(&image.id).unwrap(), [] as [LayerId; 0], "the layers are leased");
    let dry = store.gc(true).unwrap();
    assert_eq!(dry.removed.len(), 1, "only the first lease is over: {dry:?}");
    assert_eq!(store.gc(false).unwrap().removed, dry.removed);
    assert_eq!(store.layers().unwrap().len(), 2);
    is_clean(&store);
    assert_eq!(store.end_lease(&second).unwrap().len(), 2);
    let missing = store.end_lease(&second);
    assert!(matches!(missing, Err(Error::Lookup(LookupError::NoLease { .. }))), "{missing:?}");
    assert!(store.layers().unwrap().is_empty());
    assert_eq!(store.gc(true).unwrap().removed, []);
    is_clean(&store);
}

#[test]
fn a_lease_that_is_over_names_only_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let web = store.create_container(None, &ContainerOptions::default()).unwrap();
    let id = "over".parse().unwrap();
    store.lease(&id, &web, Duration::ZERO).unwrap();
    store.remove_container(&web.id).unwrap();
    assert_eq!(store.leases().unwrap(), []);
    let gone = store.lease(&id, &web, HOUR);
    assert!(matches!(gone, Err(Error::Lookup(LookupError::NotFound { .. }))), "{gone:?}");
    is_clean(&store);
}

#[test]
fn a_container_stays_while_its_layer_is_leased() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let container = store.create_container(None, &ContainerOptions::default()).unwrap();
    let lease = store.lease(&"copy".parse().unwrap(), &container.layer, HOUR).unwrap();
    let refused = store.remove_container(&container.id);
    assert!(
        matches!(&refused, Err(Error::InUse(InUseError::Leased { what, .. })) if what.contains(container.layer.as_str())),
        "{refused:?}"
    );
    assert_eq!(store.layer(container.layer.as_str()).unwrap().id, container.layer);
    assert_eq!(store.end_lease(&lease.id).unwrap(), [] as [LayerId; 0], "the container needs it");
    store.remove_container(&container.id).unwrap();
    assert!(store.layers().unwrap().is_empty());
    is_clean(&store);
}
