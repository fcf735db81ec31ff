//! Collections beside processes that load, create and remove: nothing live is taken.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use layerstore::oci::{LoadOptions, Source};
use layerstore::{Progress, Store, StoreOptions, SyncMode};

use crate::support::Dir;
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;

/// How often each worker does its round.
const ROUNDS: usize = 6;

#[test]
fn collections_take_nothing_from_the_living() {
    let dir = Dir::new("gc-load");
    let shared = Layer::new([Member::file("shared", vec![7; 100_000])]);
    let layouts: Vec<_> = (0..3)
        .map(|worker| {
            let own = (0..40).map(|n| Member::file(format!("{worker}-{n}"), vec![worker; 3000]));
            let image = Image::new([shared.clone(), Layer::new(own.collect::<Vec<_>>())]);
            image.write(dir.join(format!("layout-{worker}")), "latest").reference()
        })
        .collect();
    // A layer that is removed while another image with it is loaded is another story.
    let anchor = Image::new([shared]).write(dir.join("anchor"), "latest").reference();
    dir.layerstore(["load", &anchor, "--name", "anchor"]).assert_success();
    let (done, collections) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let workers: Vec<_> = layouts
            .iter()
            .enumerate()
            .map(|(worker, layout)| {
                let dir = &dir;
                scope.spawn(move || {
                    let (image, container) = (format!("image-{worker}"), format!("container-{worker}"));
                    for _ in 0..ROUNDS {
                        dir.layerstore(["load", layout, "--name", &image]).assert_success();
                        dir.layerstore(["create-container", &image, "--name", &container]).assert_success();
                        dir.layerstore(["check", "--image", &image]).assert_success();
                        dir.layerstore(["rm", &container]).assert_success();
                        dir.layerstore(["rmi", &image]).assert_success();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let report = dir.layerstore(["gc", "--json"]).json();
                assert_eq!(report["removed"], serde_json::json!([]), "nobody has died");
                collections.fetch_add(1, Ordering::Relaxed);
            }
        });
        for worker in workers {
            let result = worker.join();
            // The collector ends in any case.
            if result.is_err() {
                done.store(true, Ordering::Relaxed);
            }
            result.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(collections.load(Ordering::Relaxed) > 0);
    dir.layerstore(["rmi", "anchor"]).assert_success();
    dir.layerstore(["check", "--deep"]).assert_success();
    assert_eq!(dir.layerstore(["gc"]).stdout(), "nothing to remove\n");
    for which in ["diffs", "blobs", "work", "locks", "trash"] {
        let left = std::fs::read_dir(dir.root().join(which)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{which}");
    }
}

/// A layer that two images share goes with the first, just when the second is loaded and has counted on it.
#[test]
fn a_layer_that_vanishes_during_a_load_is_loaded_after_all() {
    let dir = Dir::new("vanishing");
    let store =
        Store::open(&StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0))
            .unwrap();
    let shared = Layer::new([Member::file("shared", "x")]);
    let load = |name: &str, layers: Vec<Layer>, options: &LoadOptions<'_>| {
        let written = Image::new(layers).write(dir.join(name), name);
        let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
        store.load(&source, options)
    };
    let first = load("first", vec![shared.clone()], &LoadOptions::named("first")).unwrap();
    let known = AtomicUsize::new(0);
    let progress = |progress: &Progress<'_>| {
        if matches!(progress, Progress::LayerKnown { .. }) && known.fetch_add(1, Ordering::Relaxed) == 0 {
            store.remove_image(&first.id).unwrap();
        }
    };
    let mut options = LoadOptions::named("second");
    options.progress = Some(&progress);
    let own = Layer::new([Member::file("own", "x")]);
    load("second", vec![shared, own], &options).unwrap();
    assert_eq!((known.into_inner(), store.layers().unwrap().len()), (1, 2));
    assert!(store.check(&Default::default()).unwrap().is_clean());
}
