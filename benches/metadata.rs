//! What needs no layer's content: opening a store, lookups, creating containers.
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

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use layerstore::{ContainerOptions, Store, SyncMode};

/// How many containers, each with a layer of its own, the store has.
const SIZES: [usize; 3] = [10, 1_000, 10_000];

fn lookups(criterion: &mut Criterion) {
    for size in SIZES {
        let place = common::place();
        let (store, image) = common::filled(place.path(), size);
        let name = format!("container-{}", size / 2);
        let container = store.container(&name).unwrap();
        let mut group = criterion.benchmark_group("lookup");
        group.bench_function(BenchmarkId::new("container by name", size), |bench| {
            bench.iter(|| store.container(black_box(&name)).unwrap());
        });
        group.bench_function(BenchmarkId::new("container by the beginning of its id", size), |bench| {
            bench.iter(|| store.container(black_box(&container.id.as_str()[..12])).unwrap());
        });
        group.bench_function(BenchmarkId::new("layer by id", size), |bench| {
            bench.iter(|| store.layer(black_box(container.layer.as_str())).unwrap());
        });
        group.bench_function(BenchmarkId::new("image by name", size), |bench| {
            bench.iter(|| store.image(black_box("image")).unwrap());
        });
        group.finish();

        let options = common::options(place.path()).sync(SyncMode::Off);
        let mut group = criterion.benchmark_group("open");
        group.bench_function(BenchmarkId::new("open and look up", size), |bench| {
            bench.iter(|| Store::open(&options).unwrap().container(black_box(&name)).unwrap());
        });
        group.finish();

        let mut group = criterion.benchmark_group("create");
        for (sync, what) in [(SyncMode::Off, "container, not synced"), (SyncMode::Full, "container, synced")]
        {
            let store = Store::open(&common::options(place.path()).sync(sync)).unwrap();
            group.bench_function(BenchmarkId::new(what, size), |bench| {
                bench.iter_batched(
                    || (),
                    |()| store.create_container(&image.id, &ContainerOptions::default()).unwrap(),
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = lookups
}
criterion_main!(benches);
