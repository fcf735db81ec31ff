//! Several processes do random things to one store, some are killed or stopped at random moments, and after each round
//! the store is exactly what their log says.
//!
//! Each worker is this test executable, started again, and says in a log what it is about to do and then what came of it.
//! Each has things of its own, whose state is known to the last item, and shares others, for which the rules are those of
//! reading and writing ([`shared`]). What was answered is there; what was being done when a process was killed is there
//! as a whole or not at all; nothing else is there.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`op`], [`choose`], [`perform`] | operations: which there are, which is next, and doing it |
//! | [`worker`] | the process |
//! | [`log`] | what was begun, and what came of it |
//! | [`model`], [`own`], [`shared`] | what must be, of things with one owner and with many |
//! | [`observe`], [`verify`] | what is, and whether it must be |
//! | [`rounds`] | workers, signals, verification, again and again |
//!
//! A run for a long time: `just torture 10m`. One seed: `LAYERSTORE_TORTURE_SEED=7 cargo test torture`.

mod choose;
mod content;
mod images;
mod log;
mod model;
mod observe;
mod op;
mod own;
mod perform;
mod rounds;
mod shared;
mod snapshots;
mod verify;
mod worker;

use std::time::{Duration, Instant};

use rounds::Torture;

/// Seeds of the runs that belong to the tests: with 7, 3 and 8 processes.
const SEEDS: [u64; 3] = [2, 5, 10];
const ROUNDS: usize = 4;

/// No test, but what the workers run.
#[test]
fn worker_process() {
    worker::run_if_worker();
}

#[test]
fn nothing_is_lost_when_processes_are_killed() {
    let seeds = match std::env::var("LAYERSTORE_TORTURE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => SEEDS.to_vec(),
    };
    let rounds = std::env::var("LAYERSTORE_TORTURE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for seed in seeds {
        run(seed, |round, _| round < rounds);
    }
}

/// As long as `LAYERSTORE_TORTURE` says, such as `90s`, `10m` or `2h`; a new store every few minutes.
#[test]
#[ignore = "takes as long as it is told: just torture 10m"]
fn nothing_is_lost_in_a_long_time() {
    let limit = duration(&std::env::var("LAYERSTORE_TORTURE").unwrap_or_else(|_| "1m".to_owned()));
    let begun = Instant::now();
    let first = std::env::var("LAYERSTORE_TORTURE_SEED").map_or(100, |seed| seed.parse().unwrap());
    for seed in first.. {
        let store_begun = Instant::now();
        run(seed, |_, report| {
            println(&format!("{:>6.0?} seed {seed} {report}", begun.elapsed()));
            begun.elapsed() < limit && store_begun.elapsed() < Duration::from_secs(120)
        });
        if begun.elapsed() >= limit {
            break;
        }
    }
}

/// Rounds on one store until `go_on` says otherwise.
fn run(seed: u64, mut go_on: impl FnMut(usize, &str) -> bool) {
    let mut torture = Torture::new(seed);
    if !torture.mounts() {
        crate::support::machine::note_skip(
            "mounts as a part of the torture: they need root or a user namespace",
        );
    }
    for round in 1.. {
        match torture.round() {
            Ok(report) if go_on(round, &report) => {}
            Ok(_) => break,
            Err(why) => fail(seed, round, &why),
        }
    }
    if let Err(why) = torture.finish() {
        fail(seed, 0, &why);
    }
}

fn fail(seed: u64, round: usize, why: &str) -> ! {
    panic!(
        "{why}\n\nAgain, though processes never take the same turns:\n\
         LAYERSTORE_TORTURE_SEED={seed} LAYERSTORE_TORTURE_ROUNDS={} cargo test --test main torture::nothing_is_lost_when",
        round.max(ROUNDS)
    );
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("{text:?} is no time: 90s, 10m, 2h"),
    };
    Duration::from_secs(number.parse::<u64>().unwrap() * seconds)
}

/// To who watches, also when the output of tests is captured.
#[expect(clippy::explicit_write, reason = "what eprintln writes is captured")]
fn println(text: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "{text}").unwrap();
}
