//! `layerstore rmi`.

use layerstore::{Container, Error, Image, Kind, Name, Store, UnmountMode};
use serde_json::{Value, json};

use super::rm;
use crate::args::RmiArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Bytes;

pub fn run(args: &RmiArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mut removed: Vec<Value> = Vec::new();
    let done = super::each(&args.images, context, |key| {
        let done = match store.image(key).map_err(Failure::from) {
            Ok(image) => remove(&store, &image, key, (args, context))?,
            Err(failure) if args.ignore && failure.is_not_found() => return Ok(()),
            Err(failure) if failure.is_not_found() => {
                return Err(rm::other_kind(&store, key, Kind::Image)?.unwrap_or(failure));
            }
            Err(failure) => return Err(failure),
        };
        match (done, context.out().is_json()) {
            (Removed::Name, false) => context.out().line(format_args!("untagged: {key}")),
            (Removed::Image { id, .. }, false) => context.out().line(format_args!("removed: {id}")),
            (Removed::Name, true) => {
                removed.push(json!({ "untagged": key }));
                Ok(())
            }
            (Removed::Image { id, layers, left }, true) => {
                removed.push(json!({ "kind": "image", "id": id, "layers": layers, "left": left }));
                Ok(())
            }
        }
    });
    if context.out().is_json() {
        context.out().json(&removed)?;
    }
    done
}

/// Takes away the mounts of the containers that will be removed.
pub fn unmount_before(args: &RmiArgs, context: &Context) -> Result<(), Failure> {
    let Some(store) = context.store_before() else { return Ok(()) };
    for key in &args.images {
        let Ok(image) = store.image(key) else { continue };
        if lost_name(&image, key).is_some() || image.image_store.is_some() {
            continue;
        }
        for container in containers_of(&store, &image)? {
            rm::note_unmounted(store.unmount_all(&container, UnmountMode::Detach));
        }
    }
    Ok(())
}

/// The name that an image loses, and nothing else, as it has others.
fn lost_name<'i>(image: &'i Image, key: &str) -> Option<&'i Name> {
    image.names.iter().find(|name| name.as_str() == key).filter(|_| image.names.len() > 1)
}

fn containers_of(store: &Store, image: &Image) -> Result<Vec<Container>, Failure> {
    let mut containers = store.containers()?;
    containers.retain(|container| container.image.as_ref() == Some(&image.id));
    Ok(containers)
}

/// What became of an image.
enum Removed {
    /// It lost a name.
    Name,
    /// It is gone, with these layers, and these files could not be deleted.
    Image { id: String, layers: Vec<String>, left: Vec<Bytes> },
}

fn remove(
    store: &Store,
    image: &Image,
    key: &str,
    (args, context): (&RmiArgs, &Context),
) -> Result<Removed, Failure> {
    // Before containers go in vain.
    if let Some(root) = &image.image_store {
        let (id, root) = (image.id.to_string(), root.clone());
        return Err(Error::InOtherStore { kind: Kind::Image.word(), id, root }.into());
    }
    if let Some(name) = lost_name(image, key) {
        store.write(|txn| txn.remove_name(image, name))?;
        return Ok(Removed::Name);
    }
    let mut left = Vec::new();
    if args.force {
        for container in containers_of(store, image)? {
            let remove = || store.begin_removing_container(&container.id);
            left.extend(rm::end(store.end_mounts_to(&container, remove)?, args.lazy, context));
        }
    }
    let (layers, removal) = store.begin_removing_image(&image.id)?;
    left.extend(rm::end(removal, args.lazy, context));
    let layers = layers.iter().map(ToString::to_string).collect();
    Ok(Removed::Image { id: image.id.to_string(), layers, left })
}
