//! `layerstore rm`.

use layerstore::{Container, MountError, Store, UnmountMode};
use serde_json::json;

use crate::args::RmArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &RmArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mut removed = Vec::new();
    let done = super::each(&args.things, context, |key| {
        let id = match remove(&store, key, args) {
            Ok(id) => id,
            Err(failure) if args.ignore && failure.is_not_found() => return Ok(()),
            Err(failure) => return Err(failure),
        };
        if !context.out().is_json() {
            return context.out().line(id);
        }
        removed.push(json!({ "kind": if args.layer { "layer" } else { "container" }, "id": id }));
        Ok(())
    });
    if context.out().is_json() {
        context.out().json(&removed)?;
    }
    done
}

fn remove(store: &Store, key: &str, args: &RmArgs) -> Result<String, Failure> {
    if args.layer {
        let layer = store.layer(key)?;
        store.remove_layer(&layer.id)?;
        return Ok(layer.id.to_string());
    }
    let container = store.container(key)?;
    if args.force {
        unmount(store, &container)?;
    }
    store.remove_container(&container.id)?;
    Ok(container.id.to_string())
}

/// Takes the mount away, even while processes use it.
pub fn unmount(store: &Store, container: &Container) -> Result<(), Failure> {
    match store.unmount_all(container, UnmountMode::Detach) {
        Err(layerstore::Error::Mount(MountError::NotMounted { .. })) => Ok(()),
        unmounted => Ok(unmounted?),
    }
}
