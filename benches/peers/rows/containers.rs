//! Containers in stores that have many.

use std::path::{Path, PathBuf};

use super::measured;
use crate::Bench;
use crate::common;
use crate::containers_storage;
use crate::crew::{self, Task, Way};
use crate::figures::Unit;
use crate::filesystem::directories;
use crate::measure::Job;
use crate::programs::{OURS, STORAGE, layerstore, program, storage};
use crate::results::{Claim, Measured, Sync, Target};
use crate::turns::{Contender, Look, alone, claim, take_turns};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// How many times as fast as the peer it should be at each size.
const TIMES: [f64; 3] = [4.0, 15.0, 80.0];

/// Creates and deletes a container, so often, in layerstore.
pub fn ours(place: &Path, times: u32) -> Job {
    (0..times).fold(Job::default(), |job, _| {
        let create = layerstore(place, ["create-container", "image", "--name", "new"]);
        job.then(create).then(layerstore(place, ["rm", "new"]))
    })
}

/// The same in containers-storage.
pub fn peers(place: &Path, times: u32) -> Job {
    (0..times).fold(Job::default(), |job, _| {
        job.then(storage(place, "create-container", ["--name=new", "image"])).then(storage(
            place,
            "delete-container",
            ["new"],
        ))
    })
}

/// How often the peer does it in one run: it takes more than a second in the largest store.
pub fn peers_times(size: usize) -> u32 {
    if size > 1_000 { 2 } else { 10 }
}

/// Stores of both with so many containers.
fn filled(top: &Path, size: usize) -> [PathBuf; 2] {
    let names = ["ours", "peer"].map(|name| format!("{name}-{size}"));
    let places = directories(top, names.each_ref().map(String::as_str));
    common::filled(&places[0], size);
    containers_storage::filled(&places[1], size);
    places
}

pub fn create_and_delete(bench: &mut Bench) -> Measured {
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let sizes = SIZES.map(|size| bench.scaled(size));
    let own = |place: &Path, size: usize, look| {
        let name = format!("{OURS}, {} containers", Unit::Count.show(size as f64));
        Contender::new(&name, Sync::Included, look, |place| ours(place, 10)).at(place).repeated(10)
    };
    let (mut contenders, mut by_itself) = (Vec::new(), Vec::new());
    for size in sizes {
        let [ours, peer] = filled(disk.path(), size);
        contenders.push(own(&ours, size, Look::Closely));
        by_itself.push(own(&ours, size, Look::Not));
        let times = peers_times(size);
        let name = format!("{STORAGE}, {} containers", Unit::Count.show(size as f64));
        let contender = Contender::new(&name, Sync::Records, Look::Briefly, move |place| peers(place, times));
        contenders.push(contender.at(&peer).repeated(times));
    }
    let work = "create and delete a container, whole processes";
    let costs = take_turns(bench, work, &contenders);
    let mut claims: Vec<Claim> = costs
        .chunks(2)
        .zip(TIMES)
        .map(|pair| claim(&pair.0[0], &pair.0[1], Target::Faster(pair.1)))
        .collect();
    for (claim, size) in claims.iter_mut().zip(sizes) {
        claim.work = format!("{work}, beside {} others", Unit::Count.show(size as f64));
        claim.against = STORAGE.to_owned();
    }
    // The same time at all sizes, each beside the smallest. In turns of their own: what the other program does in its largest store
    // leaves the disk with work, and it is always the same store whose turn comes next.
    let own_costs = take_turns(bench, &format!("{work}, by itself"), &by_itself);
    let [smallest, larger @ ..] = &own_costs[..] else { unreachable!() };
    for larger in larger {
        claims.push(claim(larger, smallest, Target::Within(1.1)));
        claims.last_mut().unwrap().work = format!("the same, {}, in turns of their own", larger.program);
    }
    measured(claims, costs)
}

pub fn list(bench: &mut Bench) -> Measured {
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let size = bench.scaled(10_000);
    let [ours, peer] = filled(disk.path(), size);
    let contenders = [
        Contender::new(OURS, Sync::ReadOnly, Look::Closely, |place| {
            Job::of(layerstore(place, ["containers", "--json"]))
        })
        .at(&ours),
        Contender::new("`containers-storage containers --json`", Sync::ReadOnly, Look::Briefly, |place| {
            Job::of(storage(place, "containers", ["--json"]))
        })
        .at(&peer),
    ];
    let costs =
        take_turns(bench, &format!("list {} containers as JSON", Unit::Count.show(size as f64)), &contenders);
    measured(vec![claim(&costs[0], &costs[1], Target::Faster(20.0))], costs)
}

pub fn processes(bench: &mut Bench) -> Measured {
    const PROCESSES: usize = 8;
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let seconds = if bench.quick { 1.0 } else { 3.0 };
    let mut claims = Vec::new();
    for (size, times) in [(10, 10.0), (bench.scaled(1_000), 40.0)] {
        let tasks = [Way::Program, Way::ContainersStorage].map(|way| {
            let top = disk.path().join(format!("{way:?}-{size}"));
            std::fs::create_dir(&top).unwrap();
            let image = crew::prepare(way, &top, size);
            Task { way, top, program: program().to_owned(), image, seconds }
        });
        let work =
            format!("{PROCESSES} processes, operations beside {} containers", Unit::Count.show(size as f64));
        let (mut rates, mut evenness) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..bench.rounds + usize::from(bench.warms_up()) {
            for (task, rates) in tasks.iter().zip(&mut rates) {
                nix::unistd::sync();
                let outcome = crew::measure(task, PROCESSES);
                bench.say(&format!("{work}: {} {:.0}/s", task.way.title(), outcome.total()));
                if round == 0 && bench.warms_up() {
                    continue;
                }
                rates.push(outcome.total());
                if task.way == Way::Program {
                    evenness.push(outcome.slowest() / outcome.fastest());
                }
            }
        }
        let [ours, other] = rates;
        let mut claim = alone(&work, Unit::PerSecond, ours, Target::Faster(times));
        (claim.against, claim.other) = (STORAGE.to_owned(), other);
        claims.push(claim);
        let work = format!(
            "the same, the slowest process beside the fastest, {} containers",
            Unit::Count.show(size as f64)
        );
        claims.push(alone(&work, Unit::Ratio, evenness, Target::AtLeast(0.5)));
    }
    measured(claims, Vec::new())
}
