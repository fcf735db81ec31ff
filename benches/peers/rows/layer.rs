//! One layer of many small files, in and out.

use std::path::Path;

use super::measured;
use crate::Bench;
use crate::figures::Unit;
use crate::filesystem::directories;
use crate::inputs;
use crate::measure::{Job, words};
use crate::programs::{OURS, layerstore, storage, untar};
use crate::results::{Measured, Sync, Target};
use crate::turns::{Contender, Look, claim, take_turns};

const FILES: usize = 50_000;

pub fn small_files(bench: &mut Bench) -> Measured {
    let count = bench.scaled(FILES);
    let tar = inputs::small_files(&bench.inputs, count);
    let work = format!("one layer of {} small files", Unit::Count.show(count as f64));
    let contenders = [
        Contender::new(OURS, Sync::Included, Look::Closely, |place| put(place, &tar)),
        Contender::new("`containers-storage import-layer`", Sync::Records, Look::Briefly, |place| {
            import(place, &tar)
        }),
        Contender::new("`tar -x`", Sync::Left, Look::Not, |place| untar(place, &tar)),
    ];
    let costs = take_turns(bench, &work, &contenders);
    let claims = vec![
        claim(&costs[0], &costs[1], Target::Faster(4.0)),
        claim(&costs[0], &costs[2], Target::Within(1.0)),
    ];
    measured(claims, costs)
}

/// The tar as a layer called `layer`, in layerstore.
pub fn put(place: &Path, tar: &Path) -> Job {
    Job::of(layerstore(place, words!["put-layer", "--name", "layer", "--file", tar]))
}

/// The same in containers-storage.
pub fn import(place: &Path, tar: &Path) -> Job {
    let file = format!("--file={}", tar.display());
    Job::of(storage(place, "import-layer", ["--name=layer", &file]))
}

/// Each writes into a pipe that another program reads, since GNU tar reads no file if its output is the null device.
pub fn export(bench: &mut Bench) -> Measured {
    let count = bench.scaled(FILES);
    let tar = inputs::small_files(&bench.inputs, count);
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let [ours, peer, tree] = &directories(disk.path(), ["ours", "peer", "tree"]);
    let diff = |place: &Path| layerstore(place, ["diff", "layer"]);
    let peer_diff = |place: &Path| storage(place, "diff", ["--uncompressed", "layer"]);
    for job in [put(ours, &tar), import(peer, &tar), untar(tree, &tar)] {
        job.run(&bench.work);
    }
    for words in [diff(ours), peer_diff(peer)] {
        Job::default().then_pipe([words, words!["cmp", "-", &tar]]).run(&bench.work);
    }
    let piped = |words| Job::default().then_pipe([words, words!["cat"]]);
    let contenders = [
        Contender::new(OURS, Sync::ReadOnly, Look::Closely, |place| piped(diff(place))).at(ours),
        Contender::new("`containers-storage diff`", Sync::ReadOnly, Look::Briefly, |place| {
            piped(peer_diff(place))
        })
        .at(peer),
        Contender::new("`tar -c`, not bit for bit", Sync::ReadOnly, Look::Not, |place| {
            piped(words!["tar", "-C", place.join("tree"), "-cf", "-", "."])
        })
        .at(tree),
    ];
    let costs = take_turns(
        bench,
        &format!("export a layer of {} files", Unit::Count.show(count as f64)),
        &contenders,
    );
    let claims = vec![
        claim(&costs[0], &costs[1], Target::Faster(3.0)),
        claim(&costs[0], &costs[2], Target::Within(1.2)),
    ];
    measured(claims, costs)
}
