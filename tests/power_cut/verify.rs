//! What a store must show on a disk that a cut left.

use std::path::Path;

use layerstore::{Algorithm, CheckLevel, CheckOptions, Hasher, Store, StoreOptions};

use super::disk::Event;
use super::random::Random;
use super::worker::{self, History, Mark, Part, THREADS};

/// The operations of each thread that were done before a cut, and whether one more had begun.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    done: usize,
    begun: usize,
}

/// How far each thread had come when the record had this length.
pub fn progress(events: &[Event]) -> [Progress; THREADS] {
    let mut all = [Progress::default(); THREADS];
    for event in events {
        if let Event::Mark(bytes) = event {
            let mark = Mark::parse(bytes);
            let progress = &mut all[mark.thread];
            *(if mark.done { &mut progress.done } else { &mut progress.begun }) = mark.operation + 1;
        }
    }
    all
}

/// Opens the store below `top`. One that was not yet made is no loss, but nothing of it may be in the way of making it.
pub fn open(top: &Path, run_root: &Path, is_made: bool) -> Result<Store, String> {
    let options = StoreOptions::at(top.join("store")).run_root(run_root).sync(false).reserve(0);
    Store::open(&options.create(!is_made)).map_err(|error| format!("the store does not open: {error:?}"))
}

/// Looks whether all is there that was done. Fails with what is lost.
pub fn verify(
    store: &Store,
    images: &Path,
    histories: &[History],
    progress: &[Progress; THREADS],
    random: &mut Random,
) -> Result<(), String> {
    for (thread, (history, progress)) in histories.iter().zip(progress).enumerate() {
        let part = Part::observe(store, thread).map_err(|error| format!("lists: {error:?}"))?;
        // What had begun may be done or not.
        let accepted = &history.parts[progress.done..=progress.begun];
        if !accepted.contains(&part) {
            return Err(format!(
                "thread {thread} after {progress:?} ({:?}):\n  the store: {}\n  expected:  {}",
                history.kinds.get(progress.done),
                shown(&part),
                accepted.iter().map(shown).collect::<Vec<_>>().join("\n  or:        ")
            ));
        }
    }
    check(store, CheckLevel::Default, "before the collection", true)?;
    store.gc(false).map_err(|error| format!("gc: {error:?}"))?;
    check(store, CheckLevel::Deep, "after the collection", false)?;
    export(store)?;
    let (thread, number) = (random.below(THREADS), random.below(2));
    worker::load(store, images, thread, number, "afterwards").map_err(|error| format!("load: {error:?}"))?;
    check(store, CheckLevel::Default, "after a new load", false)
}

fn check(store: &Store, level: CheckLevel, when: &str, may_have_garbage: bool) -> Result<(), String> {
    let mut options = CheckOptions::default();
    options.level = level;
    let report = store.check(&options).map_err(|error| format!("check {when}: {error:?}"))?;
    let is_whole = report.is_clean() && (may_have_garbage || report.garbage.is_empty());
    if is_whole { Ok(()) } else { Err(format!("damage {when}: {report:?}")) }
}

/// Each layer's tar is the one that came in.
fn export(store: &Store) -> Result<(), String> {
    for layer in store.layers().map_err(|error| format!("{error:?}"))? {
        let Some(diff_id) = &layer.diff_id else { continue };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        store.diff(&layer, &mut hasher).map_err(|error| format!("export of {}: {error:?}", layer.id))?;
        let found = hasher.finish();
        if found != diff_id.0 {
            return Err(format!("export of {}: {found}, not {diff_id}", layer.id));
        }
    }
    Ok(())
}

/// A part without the bytes of its items.
fn shown(part: &Part) -> String {
    let containers = part.containers.iter().map(|(id, row)| {
        let items: Vec<_> = row.items.iter().map(|(key, bytes)| (key, bytes.len())).collect();
        format!("{id} of {:?}, {:?}, {items:?}", row.image, row.metadata)
    });
    format!("images {:?}, containers {:?}", part.images, containers.collect::<Vec<_>>())
}
