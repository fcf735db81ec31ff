//! Whole images that are there: deleted, and checked.

use std::path::Path;

use super::layer::{import, put};
use super::measured;
use crate::Bench;
use crate::figures::Unit;
use crate::inputs::{self, Image};
use crate::measure::{Job, words};
use crate::programs::{OURS, layerstore, storage, untar};
use crate::results::{Measured, Sync, Target};
use crate::turns::{Contender, Look, alone, claim, take_turns};

/// Without a daemon, what a command has left is removed by the next that writes, or by `gc`: the space is back after that.
pub fn delete(bench: &mut Bench) -> Measured {
    let count = bench.scaled(50_000);
    let tar = inputs::small_files(&bench.inputs, count);
    let work_dir = bench.work.clone();
    let image = |place: &Path| {
        let job = put(place, &tar).then(layerstore(place, ["create-image", "layer", "--name", "image"]));
        // A layer that has a name of its own stays.
        job.then(layerstore(place, ["names", "layer", "--remove", "layer"])).run(&work_dir);
        Job::of(layerstore(place, ["rmi", "--lazy", "image"]))
    };
    let contenders = [
        Contender::new(OURS, Sync::Included, Look::Closely, image),
        Contender::new("layerstore, then `gc`", Sync::Included, Look::Not, |place| {
            image(place).then(layerstore(place, ["gc"]))
        })
        .verified(|place| {
            let left = std::fs::read_dir(place.join("root/diffs")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "the layer's directory is still there");
        }),
        Contender::new("`rm -rf`", Sync::Left, Look::Not, |place| {
            untar(place, &tar).run(&work_dir);
            Job::of(words!["rm", "-rf", place.join("tree")])
        }),
        Contender::new("`containers-storage delete-layer`", Sync::Records, Look::Briefly, |place| {
            import(place, &tar).run(&work_dir);
            Job::of(storage(place, "delete-layer", ["layer"]))
        }),
    ];
    let work = format!("delete an image with a layer of {} files", Unit::Count.show(count as f64));
    let costs = take_turns(bench, &work, &contenders);
    let returns = format!("{work}, until it returns");
    let limit = alone(&returns, Unit::Seconds, costs[0].wall.clone(), Target::AtMost(0.020));
    let mut claims = vec![
        limit,
        claim(&costs[1], &costs[2], Target::Within(1.0)),
        claim(&costs[1], &costs[3], Target::None),
    ];
    for claim in &mut claims[1..] {
        claim.work = format!("{work}, until the space is back");
    }
    measured(claims, costs)
}

pub fn check(bench: &mut Bench) -> Measured {
    let image = Image::debian("gzip");
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let place = disk.path();
    // The blobs would be read, too, and the other reads only the files.
    Job::of(layerstore(place, ["load", &image.source, "--name", "image", "--no-keep-blobs"]))
        .run(&bench.work);
    let files = place.join("root/diffs");
    let contenders = [
        Contender::new(OURS, Sync::ReadOnly, Look::Closely, |place| {
            Job::of(layerstore(place, ["check", "--deep"]))
        })
        .at(place),
        Contender::new("`b3sum` of all files", Sync::ReadOnly, Look::Not, |_| {
            let find = words!["find", &files, "-type", "f", "-print0"];
            Job::default().then_pipe([find, words!["xargs", "-0", "b3sum"]])
        })
        .at(place),
    ];
    let costs = take_turns(bench, "check --deep of the Debian image, blobs not kept", &contenders);
    measured(vec![claim(&costs[0], &costs[1], Target::Within(1.2))], costs)
}
