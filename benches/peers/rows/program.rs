//! What is not a time: the memory of commands, and the size of the program; and how soon it starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::measured;
use crate::Bench;
use crate::common;
use crate::figures::Unit;
use crate::inputs::{self, Image};
use crate::measure::{Job, words};
use crate::programs::{self, OURS, layerstore, program};
use crate::results::{Claim, Cost, Measured, Sync, Target};
use crate::turns::{Contender, Look, alone, claim, take_turns};

const MIB: f64 = (1 << 20) as f64;

/// Peaks differ little between runs, so each is taken once.
pub fn memory(bench: &mut Bench) -> Measured {
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let store = |name: &str| {
        let place = disk.path().join(name);
        std::fs::create_dir(&place).unwrap();
        place
    };
    let layers = (2 * std::thread::available_parallelism().map_or(1, usize::from)).min(8);
    let large = Target::AtMost((64.0 + 16.0 * layers as f64) * MIB);
    let small = Target::AtMost(24.0 * MIB);
    let work = bench.work.clone();
    let mut claims: Vec<Claim> = Vec::new();
    let mut take = |name: &str, place: &Path, arguments: &[&str], target: Target| {
        let job = Job::of(layerstore(place, arguments));
        claims.push(alone(name, Unit::Bytes, vec![job.peak_memory(&work) as f64], target));
    };
    for compression in ["zstd", "gzip"] {
        let image = Image::debian(compression);
        let fresh = bench.disk.mount();
        let name = format!("memory: load the Debian image, {compression}");
        take(&name, fresh.path(), &["load", &image.source, "--name", "image"], large);
        if compression == "gzip" {
            take("memory: check --deep of it", fresh.path(), &["check", "--deep"], large);
        }
    }
    let one = store("large");
    let bytes = bench.scaled(1 << 30) as u64;
    let tar = inputs::large_file(&bench.inputs, bytes);
    let name = |what: &str| format!("memory: {what} one file of {}", Unit::Bytes.show(bytes as f64));
    take(
        &name("a layer with"),
        &one,
        &["put-layer", "--name", "layer", "--file", tar.to_str().unwrap()],
        large,
    );
    take(&name("export"), &one, &["diff", "layer"], large);
    let count = bench.scaled(50_000);
    let tar = inputs::small_files(&bench.inputs, count);
    let many = store("many");
    let name = |what: &str| format!("memory: {what} {} files", Unit::Count.show(count as f64));
    take(
        &name("a layer of"),
        &many,
        &["put-layer", "--name", "layer", "--file", tar.to_str().unwrap()],
        large,
    );
    take(&name("export"), &many, &["diff", "layer"], large);

    let full = store("full");
    let size = bench.scaled(10_000);
    common::filled(&full, size);
    let commands: &[&[&str]] = &[
        &["create-container", "image", "--name", "new"],
        &["mount", "new"],
        &["unmount", "new"],
        &["rm", "new"],
        &["containers", "--json"],
        &["images"],
        &["inspect", "image"],
        &["status"],
    ];
    for arguments in commands {
        let name =
            format!("memory: `{}` beside {} containers", arguments.join(" "), Unit::Count.show(size as f64));
        take(&name, &full, arguments, small);
    }
    measured(claims, Vec::new())
}

pub fn binary(bench: &mut Bench) -> Measured {
    const TIMES: u32 = 50;
    // The one that `cargo build --release` makes.
    let built = std::env::var_os("LAYERSTORE_SHARED_PROGRAM").expect("benches/peers.sh says where it is");
    let shared = bench.work.join("shared");
    programs::strip(Path::new(&built), &shared);
    let often =
        |words: Vec<std::ffi::OsString>| (0..TIMES).fold(Job::default(), |job, _| job.then(words.clone()));
    let contenders = [
        Contender::new(OURS, Sync::ReadOnly, Look::Closely, |_| often(words![program(), "--version"])),
        Contender::new("layerstore, with shared libraries", Sync::ReadOnly, Look::Closely, |_| {
            often(words![&shared, "--version"])
        }),
        Contender::new("`true`", Sync::ReadOnly, Look::Not, |_| often(words!["true"])),
        Contender::new("`skopeo --version`", Sync::ReadOnly, Look::Briefly, |_| {
            often(words!["skopeo", "--version"])
        }),
    ];
    let place: PathBuf = bench.work.clone();
    let costs = take_turns(
        bench,
        "start to `--version`",
        &contenders.map(|contender| contender.at(&place).repeated(TIMES)),
    );
    let start =
        |cost: &Cost, work: &str| alone(work, Unit::Seconds, cost.wall.clone(), Target::AtMost(0.003));
    let size = |program: &Path| vec![std::fs::metadata(program).unwrap().len() as f64];
    let needed = Command::new("readelf").arg("-d").arg(&shared).output().unwrap();
    let libraries = String::from_utf8_lossy(&needed.stdout).matches("(NEEDED)").count() as f64;
    let mut claims = vec![
        alone("the release program, stripped", Unit::Bytes, size(&shared), Target::AtMost(12.0 * MIB)),
        alone("shared libraries that it needs", Unit::Count, vec![libraries], Target::None),
        alone("the same, linked statically", Unit::Bytes, size(program()), Target::None),
        start(&costs[0], "start to `--version`"),
        start(&costs[1], "start to `--version`, with shared libraries"),
    ];
    claims.extend(costs[2..].iter().map(|other| claim(&costs[0], other, Target::None)));
    measured(claims, costs)
}
