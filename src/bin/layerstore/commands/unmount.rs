//! `layerstore unmount`.

use std::path::Path;

use layerstore::{Error, LayerId, LookupError, MountError, Store, UnmountMode};
use serde_json::json;

use crate::args::UnmountArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text;

pub fn run(args: &UnmountArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mode = if args.lazy { UnmountMode::Detach } else { UnmountMode::Plain };
    let mut done = Vec::new();
    super::each(&args.things, context, |key| {
        let thing = match mounted_at(&store, key)? {
            Some(layer) => layer.into(),
            None => store.thing(key).map(|thing| thing.id()).map_err(|error| not_mounted(error, key))?,
        };
        let unmounted =
            if args.all { store.unmount_all(&thing, mode).map(|()| 0) } else { store.unmount(&thing, mode) };
        let left = match unmounted {
            Err(Error::Mount(MountError::NotMounted { .. })) => {
                return Err(Failure::NotMounted { thing: key.to_owned() });
            }
            left => left?,
        };
        if context.out().is_json() {
            done.push(json!({ "kind": thing.kind().word(), "id": thing.as_str(), "count": left }));
        } else if left > 0 && !context.quiet() {
            context.note(&format!("{key} stays mounted for {}", text::count(left, "more user")));
        }
        Ok(())
    })?;
    if context.out().is_json() { context.out().json(&done) } else { Ok(()) }
}

/// Nothing has a path for its name, as a rule: it is that of a mount which has ended.
fn not_mounted(error: Error, key: &str) -> Failure {
    match error {
        Error::Lookup(LookupError::NotFound { .. }) if Path::new(key).is_absolute() => {
            Failure::NotMounted { thing: key.to_owned() }
        }
        error => error.into(),
    }
}

/// The layer that is mounted at this path, as `mount` and messages give it.
fn mounted_at(store: &Store, key: &str) -> Result<Option<LayerId>, Failure> {
    let path = Path::new(key);
    if !path.is_absolute() {
        return Ok(None);
    }
    let mounts = store.mounts()?;
    Ok(mounts.into_iter().find_map(|(layer, mount)| (mount.path() == path).then_some(layer)))
}
