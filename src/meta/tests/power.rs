//! Power cuts, as far as the database file is concerned.
//!
//! A random history of two processes is recorded: every write, length and sync that reaches the file. Then the power
//! fails at random moments of it. What was synced is on the disk, and of the rest any part is: whole writes are lost or
//! kept in any combination, or torn at sectors; changes of the length are kept in order up to some point. Each disk
//! must open with every transaction that was acknowledged, and with nothing that never was one. Processes die at any step, and syncs
//! fail, after which the kernel does not write what it had to.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::*;
use crate::meta::recorder::{Event, Recorder};

const SECTOR: usize = 512;

/// `LAYERSTORE_POWER_CUTS` is how many cuts there are, `LAYERSTORE_POWER_SEED` the history to begin with.
pub(super) fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The generator `splitmix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What the disk does about a sync.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Obeys,
    /// Every third one is nothing to it.
    ForgetsSyncs,
}

/// A state that a transaction made, or tried to make.
struct State {
    rows: blake3::Hash,
    /// The step before which it cannot be on the disk, and that after which it is not wanted there.
    possible: Range<usize>,
    /// The step after which it, or a later one, must be there.
    acknowledged: usize,
}

const NEVER: usize = usize::MAX;

fn hash(tables: &impl Tables) -> Result<blake3::Hash, MetaError> {
    let mut hasher = blake3::Hasher::new();
    // The journal of a transaction is written when its body is done, which is where the rest is hashed.
    for (table, rows) in every_row(tables)?.into_iter().filter(|(table, _)| table != "journal") {
        hasher.update(table.as_bytes());
        for (key, value) in rows {
            for part in [key, value] {
                hasher.update(&part.len().to_le_bytes()).update(&part);
            }
        }
    }
    Ok(hasher.finalize())
}

/// A directory in memory, if there is one.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Two processes that work on one file, and what they have made of it.
struct History {
    _dir: tempfile::TempDir,
    recorder: Recorder,
    processes: [Database; 2],
    random: Random,
    states: Vec<State>,
}

impl History {
    fn new(seed: u64, sync: bool) -> Self {
        let dir = scratch();
        let recorder = Recorder::default();
        let options = DatabaseOptions { sync, recorder: Some(recorder.clone()), ..Default::default() };
        let process = || Database::new(dir.path().join("store.redb"), options.clone());
        let processes = [process(), process()];
        let header = Header { format: 0, ..Header::new([1; 16], 0) };
        processes[0].create(|txn| txn.initialize(header).map(drop)).unwrap();
        let rows = hash(&processes[0].begin_read().unwrap()).unwrap();
        // Without a name before it is complete, so there are no cuts before.
        let made = recorder.len();
        let states = vec![State { rows, possible: made..NEVER, acknowledged: made }];
        History { _dir: dir, recorder, processes, random: Random(seed), states }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            let which = usize::from(self.random.one_in(2));
            match self.random.below(13) {
                12 => self.sync_failed(which),
                0 => drop(self.processes[which].compact().unwrap()),
                11 => self.killed_in_compaction(which),
                1 | 2 => self.killed(which),
                3 => {
                    let failed: Result<(), MetaError> = self.processes[which].write(|txn| {
                        change(txn, &mut self.random)?;
                        Err(MetaError::Blob { key: "made up".into() })
                    });
                    assert!(failed.is_err());
                }
                _ => self.commit(which),
            }
        }
    }

    fn begin(&mut self, rows: blake3::Hash, at: usize) {
        self.states.push(State { rows, possible: at..NEVER, acknowledged: NEVER });
    }

    fn commit(&mut self, which: usize) {
        let begun = self.recorder.len();
        let random = &mut self.random;
        let body = |txn: &WriteTxn| -> Result<_, MetaError> {
            change(txn, random)?;
            hash(txn)
        };
        let rows = self.processes[which].write(body);
        self.begin(rows.unwrap(), begun);
        self.states.last_mut().unwrap().acknowledged = self.recorder.len();
    }

    /// A process that dies at some step of a transaction.
    fn killed(&mut self, which: usize) {
        let steps = self.random.below(60);
        self.recorder.die_after(steps);
        self.try_to_commit(which, Recorder::die);
    }

    /// A process one of whose syncs fails, which keeps the kernel from writing what it had to.
    fn sync_failed(&mut self, which: usize) {
        let syncs = self.random.below(3);
        self.recorder.fail_sync(Some(syncs));
        self.try_to_commit(which, |recorder| recorder.fail_sync(None));
    }

    /// A transaction that something is about to happen to, until `end`.
    fn try_to_commit(&mut self, which: usize, end: impl FnOnce(&Recorder)) {
        let begun = self.recorder.len();
        let random = &mut self.random;
        let mut tried = None;
        let done = self.processes[which].write::<_, MetaError>(|txn| {
            change(txn, random)?;
            tried = Some(hash(txn)?);
            Ok(())
        });
        end(&self.recorder);
        let ended = self.recorder.len();
        let found = hash(&self.processes[1 - which].begin_read().unwrap()).unwrap();
        let Some(rows) = tried else { return };
        self.begin(rows, begun);
        let state = self.states.last_mut().unwrap();
        match (done, found == rows) {
            (Ok(()), visible) => {
                assert!(visible);
                state.acknowledged = ended;
            }
            // What others see may be lost with the power, as nobody was told of it.
            (Err(_), true) => {}
            (Err(_), false) => state.possible.end = ended,
        }
    }

    /// A process that dies while it compacts: the next one that writes repairs what it finds.
    fn killed_in_compaction(&mut self, which: usize) {
        let steps = self.random.below(80);
        self.recorder.die_after(steps);
        self.processes[which].compact().ok();
        self.recorder.die();
        let found = hash(&self.processes[1 - which].begin_read().unwrap()).unwrap();
        let newest = self.states.iter().rev().find(|state| state.possible.end == NEVER).unwrap();
        assert_eq!(found, newest.rows);
    }

    /// The disks that power cuts leave, each with the states that it may have.
    fn cut(&mut self, count: u64, disk: Disk, mut check: impl FnMut(&[u8], &[blake3::Hash])) {
        let mut events = self.recorder.events();
        if disk == Disk::ForgetsSyncs {
            let syncs = events.iter_mut().filter(|event| matches!(event, Event::Sync));
            // Not the one that makes the file.
            syncs.skip(1).step_by(3).for_each(|event| *event = Event::Write { offset: 0, data: Vec::new() });
        }
        let first = self.states[0].acknowledged;
        let mut cuts: Vec<usize> = (0..count)
            .map(|_| first + usize::try_from(self.random.below((events.len() - first + 1) as u64)).unwrap())
            .collect();
        cuts.sort_unstable();
        let (mut disk, mut synced) = (Vec::new(), 0);
        for cut in cuts {
            let last_sync = events[..cut].iter().rposition(|event| matches!(event, Event::Sync));
            let until = last_sync.map_or(0, |at| at + 1);
            for event in &events[synced.min(until)..until] {
                apply(&mut disk, event, |_| true);
            }
            synced = synced.max(until);
            let image = lose(&disk, &events[until..cut], &mut self.random);
            let newest = self.states.iter().rposition(|state| state.acknowledged <= cut).unwrap();
            let allowed: Vec<_> = self.states[newest..]
                .iter()
                .filter(|state| state.acknowledged <= cut || state.possible.contains(&cut))
                .map(|state| state.rows)
                .collect();
            check(&image, &allowed);
        }
    }
}

/// Some changes of the kinds that a store makes.
fn change(txn: &WriteTxn, random: &mut Random) -> Result<(), MetaError> {
    for _ in 0..=random.below(4) {
        let key = format!("key-{}", random.below(12));
        match random.below(8) {
            0 | 1 => drop(txn.remove_item(Owner::Layer, "aa", &key)?),
            2 => {
                let id = format!("l{}", random.below(6));
                let content = LayerContent::Writable(random.below(1 << 50));
                txn.put_layer(&LayerRecord { content, blobs: vec![], ..layer(&id, None) })?;
            }
            kind => {
                // One that is large, now and then, so that the file grows.
                let length = if kind == 3 && random.one_in(8) { 400_000 } else { random.below(6000) };
                let bytes: Vec<u8> = (0..length / 8).flat_map(|_| random.next().to_le_bytes()).collect();
                txn.put_item(Owner::Layer, "aa", &key, String::new(), &PreparedBlob::from_bytes(&bytes))?;
            }
        }
    }
    Ok(())
}

/// What is on the disk if the power fails with these steps not synced.
fn lose(disk: &[u8], pending: &[Event], random: &mut Random) -> Vec<u8> {
    let mut disk = disk.to_vec();
    let lengths = pending.iter().filter(|event| matches!(event, Event::SetLen(_))).count() as u64;
    let mut lengths_kept = random.below(lengths + 1);
    let kept_in_hundred = [0, 10, 50, 90, 100][usize::try_from(random.below(5)).unwrap()];
    for event in pending {
        match event {
            Event::SetLen(_) if lengths_kept == 0 => {}
            Event::SetLen(_) => {
                lengths_kept -= 1;
                apply(&mut disk, event, |_| true);
            }
            _ if random.one_in(4) => apply(&mut disk, event, |_| random.one_in(2)),
            _ if random.below(100) < kept_in_hundred => apply(&mut disk, event, |_| true),
            _ => {}
        }
    }
    disk
}

/// Does a step, as far as `keeps` keeps its sectors. Nothing is beyond the end of the file.
fn apply(disk: &mut Vec<u8>, event: &Event, mut keeps: impl FnMut(usize) -> bool) {
    match event {
        Event::Sync => {}
        Event::SetLen(length) => disk.resize(usize::try_from(*length).unwrap(), 0),
        Event::Write { offset, data } => {
            let offset = usize::try_from(*offset).unwrap();
            for (at, sector) in data.chunks(SECTOR).enumerate() {
                let start = offset + at * SECTOR;
                if let Some(place) = disk.get_mut(start..start + sector.len())
                    && keeps(at)
                {
                    place.copy_from_slice(sector);
                }
            }
        }
    }
}

/// Opens a disk and says what is on it; and writes to it, or not.
fn open_image(path: &Path, image: &[u8], write: bool) -> Result<blake3::Hash, MetaError> {
    std::fs::write(path, image).unwrap();
    let options = DatabaseOptions { sync: false, ..Default::default() };
    let database = Database::new(path.to_owned(), options);
    let found = hash(&database.begin_read()?)?;
    // What a crash leaves is no damage.
    database.verify()?;
    if write {
        database.write::<_, MetaError>(|txn| txn.put_layer(&layer("new", None)))?;
        database.verify()?;
    }
    Ok(found)
}

/// Runs `work`, whose panics are counted and not told: hundreds of backtraces would bury what really failed.
pub(super) fn without_message<R>(work: impl FnOnce() -> R) -> R {
    thread_local!(static SILENT: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let tell = take_hook();
        set_hook(Box::new(move |panic| {
            if !SILENT.get() {
                tell(panic);
            }
        }));
    });
    SILENT.set(true);
    let done = work();
    SILENT.set(false);
    done
}

/// How many of so many power cuts lost or made up something, over several histories; the first of them told.
fn losses(cuts: u64, sync: bool, disk: Disk) -> (u64, String) {
    let first_seed = from_environment("LAYERSTORE_POWER_SEED", 1);
    let dir = scratch();
    let path = dir.path().join("image");
    let (mut bad, mut told) = (0, String::new());
    let histories = cuts.div_ceil(200);
    for seed in first_seed..first_seed + histories {
        eprintln!("LAYERSTORE_POWER_SEED={seed}");
        let mut history = History::new(seed, sync);
        history.run(25);
        let mut number = 0;
        history.cut(cuts / histories, disk, |image, allowed| {
            number += 1;
            // A panic is a loss as well.
            let found = without_message(|| catch_unwind(|| open_image(&path, image, number % 4 == 0)));
            if !matches!(&found, Ok(Ok(found)) if allowed.contains(found)) {
                bad += 1;
                if told.is_empty() {
                    told =
                        format!("LAYERSTORE_POWER_SEED={seed}, cut {number}: {found:?}, not of {allowed:?}");
                }
            }
        });
    }
    (bad, told)
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let (bad, told) = losses(from_environment("LAYERSTORE_POWER_CUTS", 2000), true, Disk::Obeys);
    assert_eq!(bad, 0, "{told}");
}

#[test]
fn a_disk_that_forgets_syncs_does_lose() {
    let (bad, _) = losses(300, true, Disk::ForgetsSyncs);
    assert!(bad > 0, "the model finds nothing");
}

#[test]
fn without_syncs_power_cuts_do_lose() {
    let (bad, _) = losses(60, false, Disk::Obeys);
    assert!(bad > 0, "the model finds nothing");
}
