//! Whether a store is what its log says, whole, and free of leftovers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use layerstore::{
    CheckLevel, CheckOptions, ContainerOptions, Garbage, GarbageKind, Layer, LayerId, Store, UnmountMode,
};

use super::images::SharedImage;
use super::log::History;
use super::model::{self, Owned};
use super::observe::{self, ARENA, Trouble};
use super::op::Shared;
use super::shared;
use super::snapshots;

/// Everything in a store, as far as workers change it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The things of each slot.
    pub owned: BTreeMap<usize, Owned>,
    /// The things of all.
    pub shared: Shared,
    /// Layers that nothing needs. Removing a layer leaves those that only it stood on.
    pub lonely: Vec<LayerId>,
}

/// What became of mounts and run directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    Kept,
    /// The machine was started anew.
    Lost,
}

/// Makes the arena, the one thing that workers need in a new store.
pub fn prepare(store: &Store, slots: usize) -> Known {
    let mut options = ContainerOptions::default();
    options.id = Some(ARENA.parse().unwrap());
    store.create_container(None, &options).unwrap();
    Known { owned: (0..slots).map(|slot| (slot, Owned::default())).collect(), ..Known::default() }
}

/// Compares a store, which nobody uses now, with what was known of it before and what has happened since. Returns
/// what is known of it now.
///
/// An error says what is lost, half done, or was never asked for.
pub fn history(
    store: &Store,
    images: &[SharedImage],
    before: &Known,
    history: &History,
    run_state: RunState,
) -> Result<Known, Trouble> {
    if !history.failures.is_empty() {
        return Err(history.failures.join("\n").into());
    }
    let mut known = Known { shared: observe::shared(store)?, ..Known::default() };
    for (slot, before) in &before.owned {
        let mut states = model::states_after(before, history.of_slot(*slot))?;
        if run_state == RunState::Lost {
            states.iter_mut().for_each(Owned::forget_run_state);
        }
        let seen = observe::owned(store, *slot)?;
        model::choose(&mut states, &seen).map_err(|why| format!("the things of slot {slot}: {why}"))?;
        known.owned.insert(*slot, seen);
    }
    refuse_strangers(store, images, &known)?;
    shared::check(images, history, &before.owned, &before.shared, &known.shared)?;
    if run_state == RunState::Kept {
        for (layer, (least, most)) in shared::mount_counts(images, history) {
            let mounted = store.layers()?.iter().any(|known| known.id.as_str() == layer);
            let mount = if mounted { store.mounted(layer_id(&layer))? } else { None };
            let count = mount.as_ref().map_or(0, |mount| mount.count);
            // A mount whose maker died before it was counted.
            let uncounted = mount.is_some() && count == 0 && most > 0;
            if !uncounted && !(least..=most).contains(&count) {
                return Err(format!("{layer} is mounted {count} times, not {least} to {most}").into());
            }
        }
    }
    known.lonely = observe::check_layers(store, images)?;
    if !known.lonely.is_empty() && !shared::may_leave_lonely_layers(history) {
        return Err(format!("nothing needs the layers {:?}", known.lonely).into());
    }
    Ok(known)
}

/// Nothing may be there that nobody has made.
fn refuse_strangers(store: &Store, images: &[SharedImage], known: &Known) -> Result<(), Trouble> {
    for container in store.containers()? {
        let id = container.id.as_str();
        if id != ARENA && !known.owned.values().any(|owned| owned.containers.contains_key(id)) {
            return Err(format!("nobody has made the container {id}").into());
        }
    }
    for image in store.images()? {
        let id = image.id.as_str();
        let ours = known.owned.values().any(|owned| owned.image_ids().any(|own| own == id));
        if !ours && !images.iter().any(|shared| shared.id == id) {
            return Err(format!("nobody has made the image {id} with the names {:?}", image.names).into());
        }
    }
    for layer in store.layers()?.iter().filter(|layer| !layer.names.is_empty()) {
        let id = layer.id.as_str();
        let key = layer.names.iter().find_map(|name| name.as_str().strip_prefix(snapshots::PREFIX));
        let has = |owned: &Owned| {
            let is_snapshot = key.is_some_and(|key| owned.snapshots.contains_key(key));
            is_snapshot || owned.layers.contains_key(id) || owned.own.contains_key(id)
        };
        if !known.owned.values().any(has) {
            return Err(format!("nobody has named the layer {}: {:?}", layer.id, layer.names).into());
        }
    }
    Ok(())
}

/// Unmounts what processes that died had mounted, collects garbage, and looks whether all is whole and nothing is
/// left. Without deaths there is no garbage.
pub fn settle(store: &Store, known: &mut Known, history: &History) -> Result<(), Trouble> {
    let has_deaths = history.deaths > 0;
    // Removing a run directory takes the write lock a second time, and who waits for nobody may not get it.
    let in_haste = history.attempts().any(|attempt| !attempt.patient);
    let may_be = |garbage: &Garbage| has_deaths || in_haste && garbage.kind == GarbageKind::RunDirectory;
    if let Some(garbage) = store.gc(true)?.removed.into_iter().find(|garbage| !may_be(garbage)) {
        return Err(format!("garbage though nobody died: {garbage:?}").into());
    }
    for layer in store.layers()? {
        if store.mounted(&layer)?.is_some() {
            if !has_deaths {
                return Err(format!("{} is mounted still, though nobody died", layer.id).into());
            }
            store.unmount_all(&layer, UnmountMode::Plain)?;
        }
    }
    // Counts of mounts that are gone: who took them away died before it said so.
    for (layer, _) in store.status()?.mounts {
        if has_deaths && store.layers()?.iter().any(|known| known.id.as_str() == layer) {
            store.unmount_all(layer_id(&layer), UnmountMode::Plain)?;
        }
    }
    for container in known.owned.values_mut().flat_map(|owned| owned.containers.values_mut()) {
        container.mounts = None;
    }
    for layer in known.owned.values_mut().flat_map(|owned| owned.own.values_mut()) {
        layer.mounts = None;
    }
    for layer in known.lonely.drain(..) {
        store.remove_layer(&layer)?;
    }
    let report = store.gc(false)?;
    if !report.left.is_empty() {
        return Err(format!("garbage that cannot be removed: {:?}", report.left).into());
    }
    let again = store.gc(false)?;
    if !again.removed.is_empty() {
        return Err(format!("gc left for the next gc: {:?}", again.removed).into());
    }
    check(store)?;
    leftovers(store, known)?;
    let images = store.separate_images();
    images.map_or(Ok(()), |images| check(images).and_then(|()| entries(images, images.layers()?)))?;
    let counts = store.status()?.mounts;
    if counts.is_empty() {
        Ok(())
    } else {
        Err(format!("mounts are counted that are not there: {counts:?}").into())
    }
}

/// Checks every byte.
pub fn check(store: &Store) -> Result<(), Trouble> {
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    let report = store.check(&options)?;
    let is_whole = report.is_clean() && report.garbage.is_empty();
    if is_whole { Ok(()) } else { Err(format!("check found {report:?}").into()) }
}

/// Counts the directories, without asking the store what it thinks of them.
fn leftovers(store: &Store, known: &Known) -> Result<(), Trouble> {
    let mut layers = store.layers()?;
    if let Some(images) = store.separate_images() {
        let elsewhere = images.layers()?;
        layers.retain(|layer| elsewhere.iter().all(|other| other.id != layer.id));
    }
    entries(store, layers)?;
    let containers = known.owned.values().flat_map(|owned| &owned.containers);
    let expected: BTreeSet<String> =
        containers.filter(|(_, container)| container.run_directory).map(|(id, _)| id.clone()).collect();
    let run_directories: BTreeSet<String> = names(&store.run_root().join("containers")).into_iter().collect();
    if run_directories != expected {
        return Err(format!("the run directories {run_directories:?} should be {expected:?}").into());
    }
    Ok(())
}

/// Counts the directories of a store that has these layers.
fn entries(store: &Store, layers: Vec<Layer>) -> Result<(), Trouble> {
    let writable = layers.iter().filter(|layer| layer.is_writable()).count();
    let trees: BTreeSet<String> =
        layers.iter().filter_map(|layer| layer.tree.as_ref()).map(ToString::to_string).collect();
    let (root, run) = (store.root().to_owned(), store.run_root());
    let expect = |dir: PathBuf, names: Vec<String>, count: usize| {
        let good = names.len() == count;
        let story = || format!("{} has {names:?}, which should be {count}", dir.display());
        if good { Ok(()) } else { Err(Trouble::Wrong(story())) }
    };
    expect(root.join("diffs"), names(&root.join("diffs")), writable + trees.len())?;
    expect(root.join("trash"), names(&root.join("trash")), 0)?;
    expect(root.join("locks"), names(&root.join("locks")), 0)?;
    expect(run.join("mnt"), names(&run.join("mnt")), 0)?;
    let workdirs = names(&root.join("work"));
    if workdirs.len() > writable {
        expect(root.join("work"), workdirs, writable)?;
    }
    Ok(())
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Removes everything, one after the other or at once. A store with nothing in it has no directory, no blob and no byte.
pub fn empty(store: &Store, at_once: bool) -> Result<(), Trouble> {
    if at_once {
        store.wipe()?;
    }
    for container in store.containers()? {
        store.remove_container(&container.id)?;
    }
    for image in store.images()? {
        store.remove_image(&image.id)?;
    }
    // What is left has a name. The layers above come first.
    while !store.layers()?.is_empty() {
        let layers = store.layers()?;
        let parents: BTreeSet<&LayerId> = layers.iter().filter_map(|layer| layer.parent.as_ref()).collect();
        let top = layers.iter().find(|layer| !parents.contains(&layer.id)).unwrap();
        match top.names.iter().find_map(|name| name.as_str().strip_prefix(snapshots::PREFIX)) {
            Some(key) => snapshots::of(store).remove(key)?,
            None => store.remove_layer(&top.id)?,
        }
    }
    let status = store.status()?;
    let sums = [status.layer_bytes, status.layer_inodes, status.kept_blob_bytes, status.item_bytes];
    if sums != [0; 4] {
        return Err(format!("an empty store with {status:?}").into());
    }
    for store in std::iter::once(store).chain(store.separate_images()) {
        for dir in ["diffs", "data", "blobs", "work", "trash", "locks"] {
            let names = names(&store.root().join(dir));
            if !names.is_empty() {
                return Err(format!("an empty store with {dir}/{names:?}").into());
            }
        }
        check(store)?;
    }
    Ok(())
}

fn layer_id(text: &str) -> LayerId {
    text.parse().unwrap()
}
