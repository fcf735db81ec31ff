//! What moves data: import, export, changes, and the mounts of it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a benchmark stops at the first thing that is not as it should be"
)]

mod common;

use std::path::PathBuf;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use layerstore::{ContainerOptions, MountOptions, Store, SyncMode, UnmountMode, is_privileged};

/// The images: name, layout, tag, bytes of the uncompressed tars.
fn images(place: &std::path::Path) -> Vec<(&'static str, PathBuf, Option<&'static str>, u64)> {
    let layout = place.join("made");
    let tars = [common::many_files(5_000, 2_000), common::many_files(1_000, 20_000)];
    common::write_layout(&layout, &tars);
    let size = tars.iter().map(|tar| tar.len() as u64).sum();
    let mut images = vec![("6,000 small files", layout, None, size)];
    match common::debian() {
        Some(layout) if is_privileged() => {
            let place = common::place();
            let store = Store::open(&common::options(place.path()).sync(SyncMode::Off)).unwrap();
            common::load(&store, &layout, Some("debian"), "debian");
            let size = store.layers().unwrap().iter().filter_map(|layer| layer.diff_size).sum();
            images.push(("debian, six layers", layout, Some("debian"), size));
        }
        _ => eprintln!("the Debian image is not there, or this is not root: made-up images only"),
    }
    images
}

fn import(criterion: &mut Criterion) {
    let place = common::place();
    let mut group = criterion.benchmark_group("import");
    for (name, layout, tag, size) in images(place.path()) {
        group.throughput(Throughput::Bytes(size));
        for (what, keep) in [("with blobs", true), ("without blobs", false)] {
            group.bench_function(BenchmarkId::new(name, what), |bench| {
                bench.iter_batched(
                    || {
                        let place = common::place();
                        let store = Store::open(&common::options(place.path()).keep_blobs(keep)).unwrap();
                        (place, store)
                    },
                    |(place, store)| {
                        common::load(&store, &layout, tag, "image");
                        // Removing it all is not measured.
                        (place, store)
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn export(criterion: &mut Criterion) {
    let place = common::place();
    let mut group = criterion.benchmark_group("export");
    for (name, layout, tag, size) in images(place.path()) {
        let work = common::place();
        let store = Store::open(&common::options(work.path()).sync(SyncMode::Off)).unwrap();
        let image = common::load(&store, &layout, tag, "image");
        let chain = store.layer_chain(image.top_layer.as_ref().unwrap()).unwrap();
        group.throughput(Throughput::Bytes(size));
        group.bench_function(BenchmarkId::new(name, "all layers"), |bench| {
            bench.iter(|| chain.iter().for_each(|layer| store.diff(layer, std::io::sink()).unwrap()));
        });
    }
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let place = common::place();
    let (store, image) = common::filled(place.path(), 0);
    let before = directories(&store);
    let container = store.create_container(&image.id, &ContainerOptions::default()).unwrap();
    let upper = directories(&store).into_iter().find(|path| !before.contains(path)).unwrap();
    let mut group = criterion.benchmark_group("changes");
    let mut written = 0;
    for count in [0, 100, 10_000] {
        while written < count {
            std::fs::write(upper.join(format!("file-{written}")), b"written by the container").unwrap();
            written += 1;
        }
        group.bench_function(BenchmarkId::new("list", count), |bench| {
            bench.iter(|| assert!(store.changes(&container).unwrap().len() >= count));
        });
        group.bench_function(BenchmarkId::new("diff", count), |bench| {
            bench.iter(|| store.diff(&container, std::io::sink()).unwrap());
        });
    }
    group.finish();
}

fn directories(store: &Store) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.root().join("diffs")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

fn mount(criterion: &mut Criterion) {
    if !is_privileged() {
        eprintln!("mounting needs root: not measured");
        return;
    }
    let place = common::place();
    let mut group = criterion.benchmark_group("mount");
    for layers in [1, 10, 100] {
        let layout = place.path().join(format!("layers-{layers}"));
        let tars: Vec<_> = (1..=layers).map(|number| common::many_files(number, 10)).collect();
        common::write_layout(&layout, &tars);
        let work = common::place();
        let store = Store::open(&common::options(work.path()).sync(SyncMode::Off)).unwrap();
        let image = common::load(&store, &layout, None, "image");
        let container = store.create_container(&image.id, &ContainerOptions::default()).unwrap();
        if let Err(error) = store.mount(&container, &MountOptions::default()) {
            eprintln!("cannot mount here: {error}");
            return;
        }
        store.unmount(&container, UnmountMode::Plain).unwrap();
        group.bench_function(BenchmarkId::new("mount and unmount, by layers", layers), |bench| {
            bench.iter(|| {
                store.mount(&container, &MountOptions::default()).unwrap();
                store.unmount(&container, UnmountMode::Plain).unwrap();
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = import, export, changes, mount
}
criterion_main!(benches);
