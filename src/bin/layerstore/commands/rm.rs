//! `layerstore rm`.

use std::cmp::Reverse;
use std::os::unix::ffi::OsStrExt;

use layerstore::{
    Error, InUseError, Kind, LayoutError, MountError, Removal, Store, TreeError, Uncollected, UnmountMode,
};
use serde_json::json;

use crate::args::RmArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Bytes;
use crate::output::report;

pub fn run(args: &RmArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mut removed = Vec::new();
    let mut things = args.things.clone();
    if args.layer {
        // Those above others first: what is given in one call is no user of what else is.
        let height = |key: &String| store.layer_chain(&store.layer(key)?.id).map(|chain| chain.len());
        things.sort_by_cached_key(|key| Reverse(height(key).unwrap_or(usize::MAX)));
    }
    let done = super::each(&things, context, |key| {
        let (id, left) = match remove(&store, key, args, context) {
            Ok(removed) => removed,
            Err(failure) if args.ignore && failure.is_not_found() => return Ok(()),
            Err(failure) if failure.is_not_found() => {
                let wanted = if args.layer { Kind::Layer } else { Kind::Container };
                return Err(other_kind(&store, key, wanted)?.unwrap_or(failure));
            }
            Err(failure) => return Err(failure),
        };
        if !context.out().is_json() {
            return context.out().line(format_args!("removed: {id}"));
        }
        removed
            .push(json!({ "kind": if args.layer { "layer" } else { "container" }, "id": id, "left": left }));
        Ok(())
    });
    if context.out().is_json() {
        context.out().json(&removed)?;
    }
    done
}

/// Returns its id, and what could not be deleted.
fn remove(
    store: &Store,
    key: &str,
    args: &RmArgs,
    context: &Context,
) -> Result<(String, Vec<Bytes>), Failure> {
    if args.layer {
        let layer = store.layer(key)?;
        let snapshot = layer.snapshot_name().filter(|_| args.force);
        let remove = || match &snapshot {
            Some(name) => store.begin_removing_layer_named(&layer.id, name),
            None => store.begin_removing_layer(&layer.id),
        };
        let removed = match args.force && layer.image_store.is_none() {
            true => store.end_mounts_to(&layer, remove),
            false => remove(),
        };
        note_force(&removed, args, context);
        let left = end(removed.map_err(|error| explained(store, error))?, args.lazy, context);
        return Ok((layer.id.to_string(), left));
    }
    let container = store.container(key)?;
    let remove = || store.begin_removing_container(&container.id);
    let removed = if args.force { store.end_mounts_to(&container, remove) } else { remove() };
    note_force(&removed, args, context);
    Ok((container.id.to_string(), end(removed?, args.lazy, context)))
}

/// What a mount in another mount namespace keeps can be unmounted there alone.
fn note_force<T>(removed: &Result<T, Error>, args: &RmArgs, context: &Context) {
    if let Err(Error::InUse(InUseError::MountedElsewhere { .. })) = removed
        && !args.force
    {
        context.note("--force removes it from below all who have it mounted, wherever that is");
    }
}

/// Deletes the files of what was removed, or leaves them to who comes next. Tells what could not be deleted, and returns its paths.
pub fn end(removal: Removal, lazy: bool, context: &Context) -> Vec<Bytes> {
    if lazy {
        removal.leave();
        return Vec::new();
    }
    tell_left(&removal.finish(), context)
}

/// Tells what of the files is still there. The things are gone, so it is no failure.
pub fn tell_left(left: &[Uncollected], context: &Context) -> Vec<Bytes> {
    for one in left {
        let why = match &one.error {
            Error::Tree(TreeError::Mount { path }) | Error::Layout(LayoutError::Mounted { path }) => {
                format!("a filesystem is mounted at {}; when that is unmounted,", path.display())
            }
            error => format!("{};", report::line(error)),
        };
        context.note(&format!("{} is left: {why} `layerstore gc` removes it", one.path.display()));
    }
    left.iter().map(|one| Bytes(one.path.as_os_str().as_bytes().to_vec())).collect()
}

/// Names the container that a layer is below, or belongs to: its layer can be removed by that alone.
fn explained(store: &Store, error: Error) -> Failure {
    let Error::InUse(used) = &error else { return error.into() };
    let (layer, container) = match used {
        InUseError::LayerHasChild { layer, child } => {
            (layer, child.parse().ok().and_then(|child| store.container_by_layer(&child).ok()))
        }
        InUseError::LayerOfContainer { layer, container } => (layer, store.container(container).ok()),
        _ => return error.into(),
    };
    let Some(container) = container else { return error.into() };
    let shown = match container.names.first() {
        Some(name) => format!("{name} ({})", container.id),
        None => container.id.to_string(),
    };
    let (layer, is_own) = (layer.clone(), matches!(used, InUseError::LayerOfContainer { .. }));
    if is_own {
        return Error::from(InUseError::LayerOfContainer { layer, container: shown }).into();
    }
    Failure::BelowContainer { layer, container: shown }
}

/// What is said where `key` is a thing, and of a kind that another command removes.
pub fn other_kind(store: &Store, key: &str, wanted: Kind) -> Result<Option<Failure>, Failure> {
    match store.thing(key).map_err(Failure::from) {
        Ok(thing) => {
            let id = thing.id();
            let by_id = id.as_str() != key && id.as_str().starts_with(key);
            let found = id.kind();
            let failure = Failure::OtherKind { key: key.to_owned(), found, wanted, by_id };
            Ok(Some(failure).filter(|_| found != wanted))
        }
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Takes away the mounts of what will be removed. What is not there, or stays mounted, is told when it is removed.
pub fn unmount_before(args: &RmArgs, context: &Context) -> Result<(), Failure> {
    let Some(store) = context.store_before() else { return Ok(()) };
    for key in &args.things {
        let unmounted = match args.layer {
            true => store.layer(key).and_then(|layer| match layer.image_store {
                Some(_) => Ok(()),
                None => store
                    .check_removable(&layer.id)
                    .and_then(|()| store.unmount_all(&layer, UnmountMode::Detach)),
            }),
            false => store.container(key).and_then(|one| store.unmount_all(&one, UnmountMode::Detach)),
        };
        note_unmounted(unmounted);
    }
    Ok(())
}

/// A mount that stays is told when what it shows is removed.
pub fn note_unmounted(unmounted: Result<(), Error>) {
    match unmounted {
        Ok(()) | Err(Error::Mount(MountError::NotMounted { .. })) => {}
        Err(error) => tracing::info!(%error, "not unmounted beforehand"),
    }
}
