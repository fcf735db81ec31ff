//! Power cuts on real filesystems: whatever the moment, what was reported as done is there and whole, and nothing is
//! damaged.
//!
//! A store lies on a filesystem on a loop device on a disk of our own, which records every write and every flush
//! ([`disk`], [`fuse`]). Threads work on the store, and mark in that record what they begin and what is done
//! ([`worker`]). Then, for moments chosen by chance, the disk is made as a power cut would leave it: with what was
//! flushed, and of the rest with nothing, all, or some. It is mounted, so that the filesystem recovers, and the store is
//! compared with the marks ([`verify`]). A write that the store or the filesystem should have flushed and did not is
//! missing then: a run with syncs switched off shows that the test sees it. Where only records are synced, a layer is whole
//! or refused.
//!
//! A few cuts here; `just power-cut 600` goes on for ten minutes. Seeds are printed; `LAYERSTORE_POWER_CUT_SEED` repeats
//! one, as far as threads and filesystems do the same again.

mod disk;
mod fuse;
mod session;
mod verify;
mod worker;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use self::session::{Filesystem, Session, Sync, Tally};
use crate::support::machine;

/// The sessions take turns: each has threads and disks enough.
static TURN: Mutex<()> = Mutex::new(());

/// How many sessions are run at the most until one has cut the power where something was not written yet: that is for chance.
const TRIES: usize = 10;

/// Why no session can run here.
fn obstacle(filesystem: Filesystem) -> Option<String> {
    let mkfs = filesystem.mkfs();
    if !machine::is_real_root() {
        return Some("mounting disks needs the machine's root".to_owned());
    }
    let missing = ["/dev/fuse", "/dev/loop-control"].into_iter().find(|path| !Path::new(path).exists());
    if let Some(path) = missing {
        return Some(format!("there is no {path}"));
    }
    if !machine::has_program(mkfs) {
        return Some(format!("there is no {mkfs}"));
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    let knows = |name: &str| known.lines().any(|line| line.trim_start_matches("nodev").trim() == name);
    let missing = ["fuse", filesystem.name()].into_iter().find(|name| !knows(name));
    missing.map(|name| format!("the kernel does not know {name}"))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs sessions, one at least, until the time is over or something is lost.
fn run(filesystem: Filesystem, sync: Sync) -> Tally {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let end = SystemTime::now() + Duration::from_secs(number("LAYERSTORE_POWER_CUT_SECONDS").unwrap_or(0));
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut seed = number("LAYERSTORE_POWER_CUT_SEED").unwrap_or(clock.as_millis() as u64);
    let mut tally = Tally::default();
    loop {
        let one = Session { filesystem, sync, seed }.run_in_process();
        tally.losses += one.losses;
        tally.refused += one.refused;
        if tally.losses > 0 || SystemTime::now() >= end {
            return tally;
        }
        seed += 1;
    }
}

fn nothing_is_lost(filesystem: Filesystem) {
    if let Some(why) = obstacle(filesystem) {
        skip!("{why}");
    }
    assert_eq!(run(filesystem, Sync::Everything).losses, 0);
}

#[test]
fn nothing_is_lost_on_ext4() {
    nothing_is_lost(Filesystem::Ext4);
}

#[test]
fn nothing_is_lost_on_xfs() {
    nothing_is_lost(Filesystem::Xfs);
}

#[test]
fn nothing_is_lost_on_btrfs() {
    nothing_is_lost(Filesystem::Btrfs);
}

#[test]
fn losses_are_seen_when_nothing_is_synced() {
    if let Some(why) = obstacle(Filesystem::Ext4) {
        skip!("{why}");
    }
    assert!((0..TRIES).any(|_| run(Filesystem::Ext4, Sync::Nothing).losses > 0));
}

/// Each layer is whole, or its use is refused: it never has other files than those that came in.
fn what_is_lost_is_refused(filesystem: Filesystem) {
    if let Some(why) = obstacle(filesystem) {
        skip!("{why}");
    }
    let is_refused = |_| {
        let tally = run(filesystem, Sync::Records);
        assert_eq!(tally.losses, 0);
        tally.refused > 0
    };
    // Else nothing was tried.
    assert!((0..TRIES).any(is_refused));
}

#[test]
fn what_is_lost_is_refused_on_ext4_when_only_records_are_synced() {
    what_is_lost_is_refused(Filesystem::Ext4);
}

#[test]
fn what_is_lost_is_refused_on_xfs_when_only_records_are_synced() {
    what_is_lost_is_refused(Filesystem::Xfs);
}

#[test]
fn what_is_lost_is_refused_on_btrfs_when_only_records_are_synced() {
    what_is_lost_is_refused(Filesystem::Btrfs);
}

/// The program that this is, to be run once more.
fn this_program() -> Command {
    Command::new(std::env::current_exe().unwrap())
}
