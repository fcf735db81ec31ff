//! What grows: the time for one of many, by how many there are. Level lines are the aim.

use std::path::Path;

use layerstore::{ContainerOptions, Store, SyncMode};

use super::containers::{ours, peers, peers_times};
use super::layer::{import, put};
use super::plotted;
use crate::Bench;
use crate::common;
use crate::containers_storage;
use crate::figures::{Unit, median};
use crate::filesystem::directories;
use crate::inputs::{self, Image};
use crate::measure::Job;
use crate::programs::{OURS, SKOPEO, STORAGE, layerstore, skopeo};
use crate::results::{Cost, Line, Measured, Plot, Sync};
use crate::turns::{Contender, Look, take_turns};

/// Lines that are drawn while the sizes are gone through.
struct Growth {
    plot: Plot,
    costs: Vec<Cost>,
}

impl Growth {
    fn new(name: &str, title: &str, of: &str) -> Self {
        let plot =
            Plot { name: name.to_owned(), title: title.to_owned(), of: of.to_owned(), lines: Vec::new() };
        Self { plot, costs: Vec::new() }
    }

    /// Measures at one size, and adds a point to the line of each.
    fn measure(&mut self, bench: &mut Bench, work: &str, [at, parts]: [usize; 2], contenders: &[Contender]) {
        let work = format!("{work}: {}", Unit::Count.show(at as f64));
        for (number, cost) in take_turns(bench, &work, contenders).into_iter().enumerate() {
            let point = (at as f64, median(&cost.wall) / parts as f64);
            match self.plot.lines.iter_mut().find(|line| line.program == cost.program) {
                Some(line) => line.points.push(point),
                None => {
                    let (program, points) = (cost.program.clone(), vec![point]);
                    self.plot.lines.push(Line { program, is_ours: number == 0, points });
                }
            }
            self.costs.push(cost);
        }
    }

    fn done(mut self) -> Measured {
        // A name in a picture has no marks of code.
        self.plot.lines.iter_mut().for_each(|line| line.program = line.program.replace('`', ""));
        plotted(self.plot, self.costs)
    }
}

/// The sizes, smaller and each once in a quick run.
fn scaled(bench: &Bench, sizes: &[usize]) -> Vec<usize> {
    let mut sizes: Vec<usize> = sizes.iter().map(|size| bench.scaled(*size)).collect();
    sizes.dedup();
    sizes
}

pub fn layers(bench: &mut Bench) -> Measured {
    let mut growth = Growth::new("layers", "Load an image, time for each layer", "layers of 100 files");
    for count in scaled(bench, &[1, 10, 100]) {
        let image = Image::made(&bench.inputs, count, 100);
        let contenders = [
            Contender::new(OURS, Sync::Included, Look::Not, |place: &Path| {
                Job::of(layerstore(place, ["load", &image.source, "--name", "image"]))
            }),
            Contender::new(SKOPEO, Sync::Records, Look::Not, |place| skopeo(place, &image.source)),
        ];
        growth.measure(bench, "load an image of so many layers", [count, count], &contenders);
    }
    growth.done()
}

pub fn files(bench: &mut Bench) -> Measured {
    let mut growth = Growth::new("files", "Put a layer, time for each file", "files");
    for count in scaled(bench, &[10, 100, 1_000, 10_000, 100_000]) {
        let tar = inputs::small_files(&bench.inputs, count);
        let contenders = [
            Contender::new(OURS, Sync::Included, Look::Not, |place| put(place, &tar)),
            Contender::new(STORAGE, Sync::Records, Look::Not, |place| import(place, &tar)),
        ];
        growth.measure(bench, "put a layer of so many files", [count, count], &contenders);
    }
    growth.done()
}

pub fn containers(bench: &mut Bench) -> Measured {
    /// Beyond this it takes the peer minutes, and the line is clear.
    const MOST_OF_PEER: usize = 10_000;
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let [own, peer] = directories(disk.path(), ["ours", "peer"]);
    let (_, image) = common::filled(&own, 0);
    containers_storage::filled(&peer, 0);
    let mut growth =
        Growth::new("containers", "Create and delete a container, two processes", "containers in the store");
    let mut have = 0;
    for count in scaled(bench, &[10, 100, 1_000, 10_000, 100_000]) {
        bench.say(&format!("filling the stores up to {count} containers"));
        {
            let store = Store::open(&common::options(&own).sync(SyncMode::Off)).unwrap();
            for number in have..count {
                let options = ContainerOptions::named(format!("container-{number}"));
                store.create_container(&image.id, &options).unwrap();
            }
        }
        let mut contenders = vec![
            Contender::new(OURS, Sync::Included, Look::Not, |place| ours(place, 10)).at(&own).repeated(10),
        ];
        if count <= MOST_OF_PEER {
            containers_storage::fill(&peer, have, count);
            let times = peers_times(count);
            let contender =
                Contender::new(STORAGE, Sync::Records, Look::Not, move |place| peers(place, times));
            contenders.push(contender.at(&peer).repeated(times));
        }
        growth.measure(bench, "create and delete beside so many containers", [count, 1], &contenders);
        have = count;
    }
    growth.done()
}
