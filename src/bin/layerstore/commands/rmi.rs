//! `layerstore rmi`.

use std::fmt;

use layerstore::{
    Container, ContainerId, Error, Image, ImageId, InUseError, Kind, LayerId, Name, Store, UnmountMode,
};
use serde_json::{Value, json};

use super::rm;
use crate::args::RmiArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Bytes;

pub fn run(args: &RmiArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mut removed: Vec<Value> = Vec::new();
    let mut tell = |done: Removed<'_>| match context.out().is_json() {
        true => {
            removed.push(done.json());
            Ok(())
        }
        false => context.out().line(format_args!("{done}")),
    };
    let done = super::each(&args.images, context, |key| match store.image(key).map_err(Failure::from) {
        Ok(image) => remove(&store, &image, key, (args, context), &mut tell),
        Err(failure) if args.ignore && failure.is_not_found() => Ok(()),
        Err(failure) if failure.is_not_found() => {
            Err(rm::other_kind(&store, key, Kind::Image)?.unwrap_or(failure))
        }
        Err(failure) => Err(failure),
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

/// Refuses what containers would be removed for in vain.
fn refuse_kept(store: &Store, image: &Image) -> Result<(), Failure> {
    if let Err(error @ Error::InUse(InUseError::Leased { .. })) = store.layers_removed_with(&image.id) {
        return Err(error.into());
    }
    match image.top_layer.as_ref().map(|_| store.mounted(image)).transpose()?.flatten() {
        Some(mount) => {
            let (what, target) = (format!("the image {}", image.id), mount.path().display().to_string());
            Err(Error::from(InUseError::Mounted { what, target }).into())
        }
        None => Ok(()),
    }
}

fn containers_of(store: &Store, image: &Image) -> Result<Vec<Container>, Failure> {
    let mut containers = store.containers()?;
    containers.retain(|container| container.image.as_ref() == Some(&image.id));
    Ok(containers)
}

/// What was taken away, and the files of it that could not be deleted.
enum Removed<'n> {
    Name(&'n Name),
    Container(&'n ContainerId, Vec<Bytes>),
    /// With these layers.
    Image(&'n ImageId, Vec<LayerId>, Vec<Bytes>),
}

impl Removed<'_> {
    fn json(self) -> Value {
        match self {
            Removed::Name(name) => json!({ "untagged": name.as_str() }),
            Removed::Container(id, left) => json!({ "kind": "container", "id": id.as_str(), "left": left }),
            Removed::Image(id, layers, left) => {
                let layers: Vec<_> = layers.iter().map(LayerId::as_str).collect();
                json!({ "kind": "image", "id": id.as_str(), "layers": layers, "left": left })
            }
        }
    }
}

impl fmt::Display for Removed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removed::Name(name) => write!(f, "untagged: {name}"),
            Removed::Container(id, _) => write!(f, "removed: {id}"),
            Removed::Image(id, ..) => write!(f, "removed: {id}"),
        }
    }
}

fn remove(
    store: &Store,
    image: &Image,
    key: &str,
    (args, context): (&RmiArgs, &Context),
    tell: &mut dyn FnMut(Removed<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Before containers go in vain.
    if let Some(root) = &image.image_store {
        let (id, root) = (image.id.to_string(), root.clone());
        return Err(Error::InOtherStore { kind: Kind::Image.word(), id, root }.into());
    }
    if let Some(name) = lost_name(image, key) {
        store.write(|txn| txn.remove_name(image, name))?;
        return tell(Removed::Name(name));
    }
    if args.force {
        refuse_kept(store, image)?;
        for container in containers_of(store, image)? {
            let remove = || store.begin_removing_container(&container.id);
            let left = rm::end(store.end_mounts_to(&container, remove)?, args.lazy, context);
            tell(Removed::Container(&container.id, left))?;
        }
    }
    let (layers, removal) = store.begin_removing_image(&image.id)?;
    let left = rm::end(removal, args.lazy, context);
    tell(Removed::Image(&image.id, layers, left))
}
