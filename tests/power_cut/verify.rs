//! What a store must show on a disk that a cut left.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use layerstore::oci::SaveOptions;
use layerstore::{
    Algorithm, CheckLevel, CheckOptions, Error, Hasher, Image, Layer, MountOptions, Store, StoreOptions,
    SyncMode, UnmountMode, UnsyncedError,
};

use super::disk::Event;
use super::worker::{self, History, Mark, Part, THREADS};
use crate::support::oci::ReadImage;
use crate::support::random::Random;

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

/// The store below `top`, whose images are perhaps in one beside it.
pub fn options(top: &Path, run_root: &Path, separate: bool) -> StoreOptions {
    let options = StoreOptions::at(top.join("store")).run_root(run_root);
    if separate { options.image_store_root(top.join("images")) } else { options }
}

/// Opens a store. One that was not yet made is no loss, but nothing of it may be in the way of making it.
pub fn open(options: &StoreOptions, is_made: bool) -> Result<Store, String> {
    let options = options.clone().sync(SyncMode::Off).reserve(0).create(!is_made);
    Store::open(&options).map_err(|error| format!("the store does not open: {error:?}"))
}

/// Whether every record is there that was written, and nothing else.
pub fn verify_records(
    store: &Store,
    histories: &[History],
    progress: &[Progress; THREADS],
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
    Ok(())
}

/// Whether each container can be used and is its owner's, unless what it stands on is refused.
pub fn verify_containers(store: &Store) -> Result<(), String> {
    for container in store.containers().map_err(|error| format!("{error:?}"))? {
        match store.mount(&container, &MountOptions::default()) {
            Ok(_) => store.unmount(&container, UnmountMode::Plain).map_err(|error| format!("{error:?}"))?,
            Err(Error::Unsynced(_)) => continue,
            Err(error) => return Err(format!("mount of {}: {error:?}", container.id)),
        };
        let upper = store.layer_places(&container.layer).map_err(|error| format!("{error:?}"))?.upper;
        let found = upper.metadata().map_err(|error| format!("{}: {error}", upper.display()))?;
        let root = (found.mode() & 0o7777, found.uid(), found.gid());
        if root != worker::ROOT {
            return Err(format!("the root of {} is {root:?}", container.id));
        }
    }
    Ok(())
}

/// Whether every file is there, and nothing is damaged; and whether the store takes more.
pub fn verify_data(store: &Store, images: &Path, random: &mut Random) -> Result<(), String> {
    check(store, CheckLevel::Default, "before the collection", true)?;
    store.gc(false).map_err(|error| format!("gc: {error:?}"))?;
    check(store, CheckLevel::Deep, "after the collection", false)?;
    verify_containers(store)?;
    for layer in layers(store)? {
        export(store, &layer)?.map_err(|refused| format!("export of {}: {refused}", layer.id))?;
    }
    let (thread, number) = (random.below(THREADS), random.below(2));
    worker::load(store, images, thread, number, "afterwards").map_err(|error| format!("load: {error:?}"))?;
    check(store, CheckLevel::Default, "after a new load", false)
}

/// Whether each layer, whose files were not synced, is whole or refused, and whether loading its image again mends it.
/// Returns how many were refused.
pub fn verify_doubtful_data(store: &Store, images: &Path, saved: &Path) -> Result<usize, String> {
    verify_containers(store)?;
    let mut shown = BTreeSet::new();
    for image in store.images().map_err(|error| format!("{error:?}"))? {
        match store.mount(&image, &MountOptions::default()) {
            Ok(_) => {
                store.unmount(&image, UnmountMode::Plain).map_err(|error| format!("{error:?}"))?;
                shown.extend(chain(store, &image)?.into_iter().map(|layer| layer.id));
            }
            Err(Error::Unsynced(_)) => {}
            Err(error) => return Err(format!("mount of {}: {error:?}", image.id)),
        }
        let layout = saved.join(image.id.as_str());
        let reference = format!("oci:{}:saved", layout.display()).parse().unwrap();
        match store.save(&image.id, &reference, &SaveOptions::default()) {
            Ok(_) => {
                let saved = ReadImage::open(&layout, "saved");
                assert_eq!(saved.measured_diff_ids(), saved.diff_ids());
            }
            Err(Error::Unsynced(_)) => {}
            Err(error) => return Err(format!("save of {}: {error:?}", image.id)),
        }
    }
    let mut refused = 0;
    for layer in layers(store)? {
        match export(store, &layer)? {
            Err(why) if shown.contains(&layer.id) => {
                return Err(format!("{} was mounted, and refused afterwards: {why}", layer.id));
            }
            outcome => refused += usize::from(outcome.is_err()),
        }
    }
    for (thread, number) in worker::all_images() {
        let name = worker::image_name(thread, number);
        let image = worker::load(store, images, thread, number, &name);
        image.map_err(|error| format!("load of {name}: {error:?}"))?;
        let image = store.image(&name).map_err(|error| format!("{error:?}"))?;
        for layer in chain(store, &image)? {
            export(store, &layer)?.map_err(|why| format!("{name} was loaded again: {why}"))?;
        }
    }
    Ok(refused)
}

fn layers(store: &Store) -> Result<Vec<Layer>, String> {
    store.layers().map_err(|error| format!("{error:?}"))
}

fn chain(store: &Store, image: &Image) -> Result<Vec<Layer>, String> {
    let top = image.top_layer.as_ref().ok_or("an image without layers")?;
    store.layer_chain(top).map_err(|error| format!("{error:?}"))
}

fn check(store: &Store, level: CheckLevel, when: &str, may_have_garbage: bool) -> Result<(), String> {
    let mut options = CheckOptions::default();
    options.level = level;
    let report = store.check(&options).map_err(|error| format!("check {when}: {error:?}"))?;
    let is_whole = report.is_clean() && (may_have_garbage || report.garbage.is_empty());
    if is_whole { Ok(()) } else { Err(format!("damage {when}: {report:?}")) }
}

/// Whether a layer's tar is the one that came in; the inner error says that the store refuses it.
fn export(store: &Store, layer: &Layer) -> Result<Result<(), UnsyncedError>, String> {
    let Some(diff_id) = &layer.diff_id else { return Ok(Ok(())) };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    match store.diff(layer, &mut hasher) {
        Err(Error::Unsynced(refused)) => return Ok(Err(refused)),
        outcome => outcome.map_err(|error| format!("export of {}: {error:?}", layer.id))?,
    }
    let found = hasher.finish();
    if found != diff_id.0 {
        return Err(format!("export of {}: {found}, not {diff_id}", layer.id));
    }
    Ok(Ok(()))
}

/// A part without the bytes of its items.
fn shown(part: &Part) -> String {
    let containers = part.containers.iter().map(|(id, row)| {
        let items: Vec<_> = row.items.iter().map(|(key, bytes)| (key, bytes.len())).collect();
        format!("{id} of {:?}, {:?}, {items:?}", row.image, row.metadata)
    });
    format!("images {:?}, containers {:?}", part.images, containers.collect::<Vec<_>>())
}
