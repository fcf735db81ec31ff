//! Programs that do the same work and take turns, each with a fresh filesystem each time: A B A B, so that whatever the
//! machine does besides falls on all of them.

use std::path::{Path, PathBuf};

use super::Bench;
use super::figures::Unit;
use super::filesystem;
use super::measure::{Job, Run};
use super::results::{Claim, Cost, Sync, Target};

/// What is looked at of a program besides its times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Memory, syncs and all system calls.
    Closely,
    /// Memory and syncs.
    Briefly,
    /// The times are all.
    Not,
}

/// A program that does some work.
pub struct Contender<'a> {
    pub name: String,
    pub sync: Sync,
    pub look: Look,
    /// How often the job does the work.
    pub times: u32,
    /// Where it works; each time a fresh filesystem, if it is nowhere.
    pub standing: Option<PathBuf>,
    /// Prepares a run at this place, which is not timed, and returns what is.
    pub job: Box<dyn Fn(&Path) -> Job + 'a>,
    /// Looks at the place after a run.
    pub verify: Box<dyn Fn(&Path) + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new(name: &str, sync: Sync, look: Look, job: impl Fn(&Path) -> Job + 'a) -> Self {
        let (job, verify) = (Box::new(job), Box::new(|_: &Path| ()));
        Self { name: name.to_owned(), sync, look, times: 1, standing: None, job, verify }
    }

    /// It always works at this place, where what it needs has been made.
    pub fn at(mut self, place: &Path) -> Self {
        self.standing = Some(place.to_owned());
        self
    }

    /// The job does the work so often, since it is too short to be measured once.
    pub fn repeated(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    pub fn verified(mut self, verify: impl Fn(&Path) + 'a) -> Self {
        self.verify = Box::new(verify);
        self
    }

    /// Calls this with a place and what to run there.
    fn at_its_place<T>(&self, bench: &mut Bench, then: impl FnOnce(&Path, &Path, &Job) -> T) -> T {
        let work = bench.work.clone();
        let run = |place: &Path| {
            let job = (self.job)(place);
            nix::unistd::sync();
            let outcome = then(place, &work, &job);
            (self.verify)(place);
            outcome
        };
        match &self.standing {
            Some(place) => run(place),
            None => run(bench.disk.mount().path()),
        }
    }

    fn run(&self, bench: &mut Bench) -> Run {
        let run = self.at_its_place(bench, |place, work, job| {
            let run = job.run(work);
            let synced = self.sync.is_left().then(|| run.wall + filesystem::sync(place));
            Run { synced, ..run }
        });
        run.part(f64::from(self.times))
    }

    /// The cost of the runs, with what runs of their own show.
    fn cost(&self, bench: &mut Bench, work: &str, runs: &[Run]) -> Cost {
        let times = f64::from(self.times);
        let (mut peak, mut syncs, mut calls) = (None, None, None);
        if self.look != Look::Not {
            bench.say(&format!("looking at {}", self.name));
            peak = Some(self.at_its_place(bench, |_, work, job| job.peak_memory(work)));
            let all = self.look == Look::Closely;
            let counted = self.at_its_place(bench, |_, work, job| job.calls(work, all));
            syncs = Some(counted.syncs as f64 / times);
            calls = all.then(|| counted.all as f64 / times);
        }
        Cost {
            work: work.to_owned(),
            program: self.name.clone(),
            sync: self.sync,
            wall: runs.iter().map(|run| run.wall).collect(),
            synced: runs.iter().filter_map(|run| run.synced).collect(),
            user: runs.iter().map(|run| run.user).collect(),
            system: runs.iter().map(|run| run.system).collect(),
            peak,
            syncs,
            calls,
        }
    }
}

/// Lets them take turns, and returns the costs in their order.
pub fn take_turns(bench: &mut Bench, work: &str, contenders: &[Contender]) -> Vec<Cost> {
    let warming_up = if bench.warms_up() { contenders } else { &[] };
    for contender in warming_up {
        bench.say(&format!("{work}: warming up {}", contender.name));
        contender.run(bench);
    }
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); contenders.len()];
    for round in 1..=bench.rounds {
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            let run = contender.run(bench);
            bench.say(&format!("{work}, round {round}: {} {}", contender.name, Unit::Seconds.show(run.wall)));
            runs.push(run);
        }
    }
    contenders.iter().zip(&runs).map(|(contender, runs)| contender.cost(bench, work, runs)).collect()
}

/// What the first takes, beside what another took in the same rounds.
pub fn claim(ours: &Cost, other: &Cost, target: Target) -> Claim {
    Claim {
        work: ours.work.clone(),
        against: other.program.clone(),
        unit: Unit::Seconds,
        ours: ours.wall.clone(),
        other: other.wall.clone(),
        other_synced: other.synced.clone(),
        target,
    }
}

/// What something of ours is, beside nothing.
pub fn alone(work: &str, unit: Unit, values: Vec<f64>, target: Target) -> Claim {
    let work = work.to_owned();
    Claim {
        work,
        against: String::new(),
        unit,
        ours: values,
        other: Vec::new(),
        other_synced: Vec::new(),
        target,
    }
}
