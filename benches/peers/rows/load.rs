//! Images in.

use std::path::Path;

use super::measured;
use crate::Bench;
use crate::figures::Unit;
use crate::filesystem::directories;
use crate::inputs::Image;
use crate::measure::Job;
use crate::programs::{OURS, SKOPEO, layerstore, skopeo, unpack};
use crate::results::{Measured, Sync, Target};
use crate::turns::{Contender, Look, alone, claim, take_turns};

pub fn gzip(bench: &mut Bench) -> Measured {
    let targets = [Target::Faster(4.0), Target::Faster(1.0)];
    whole_image(bench, "load the Debian image, gzip", "gzip", &["pigz", "-dc"], targets)
}

pub fn zstd(bench: &mut Bench) -> Measured {
    let targets = [Target::Faster(6.0), Target::Within(1.3)];
    whole_image(bench, "load the Debian image, zstd", "zstd", &["zstd", "-dcq"], targets)
}

/// Whole programs, and the floor: that which only decompresses and unpacks.
fn whole_image(
    bench: &mut Bench,
    work: &str,
    compression: &str,
    decompress: &[&str],
    [against_peer, against_floor]: [Target; 2],
) -> Measured {
    let image = Image::debian(compression);
    let floor = format!("`{} \\| tar -x`", decompress.join(" "));
    let load = |place: &Path, more: &[&str]| {
        Job::of(layerstore(place, ["load", &image.source, "--name", "image"].iter().chain(more)))
    };
    let contenders = [
        Contender::new(OURS, Sync::Included, Look::Closely, |place| load(place, &[])),
        Contender::new(SKOPEO, Sync::Records, Look::Briefly, |place| skopeo(place, &image.source)),
        Contender::new(&floor, Sync::Left, Look::Not, |place| unpack(place, decompress, &image.blobs)),
        Contender::new("layerstore --no-keep-blobs", Sync::Included, Look::Briefly, |place| {
            load(place, &["--no-keep-blobs"])
        }),
    ];
    let costs = take_turns(bench, work, &contenders);
    let [ours, peer, floor, without] = &costs[..] else { unreachable!() };
    let mut claims = vec![claim(ours, peer, against_peer), claim(ours, floor, against_floor)];
    let work = format!("{work}, blobs not kept");
    for other in [peer, floor] {
        let mut told = claim(without, other, Target::None);
        told.work.clone_from(&work);
        claims.push(told);
    }
    measured(claims, costs)
}

pub fn known(bench: &mut Bench) -> Measured {
    let work = "load the Debian image again";
    let image = Image::debian("gzip");
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let [ours, peer] = directories(disk.path(), ["ours", "peer"]);
    let load = |place: &Path| Job::of(layerstore(place, ["load", &image.source, "--name", "image"]));
    load(&ours).run(&bench.work);
    skopeo(&peer, &image.source).run(&bench.work);
    let contenders = [
        Contender::new(OURS, Sync::Included, Look::Closely, load).at(&ours),
        Contender::new(SKOPEO, Sync::Records, Look::Briefly, |place| skopeo(place, &image.source)).at(&peer),
    ];
    let costs = take_turns(bench, work, &contenders);
    let limit = alone(work, Unit::Seconds, costs[0].wall.clone(), Target::AtMost(0.010));
    measured(vec![limit, claim(&costs[0], &costs[1], Target::None)], costs)
}
