//! `layerstore create-container`.

use layerstore::{AutoIdMaps, ContainerOptions, IdMapping, IdMaps, Quota};

use super::create_layer::asked_limit;
use crate::args::{CreateContainerArgs, IdChoice};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ContainerJson;

pub fn run(args: CreateContainerArgs, context: &Context) -> Result<(), Failure> {
    let mut options = ContainerOptions::default();
    options.id = args.id;
    options.names = args.names;
    options.metadata = args.metadata;
    options.labels = args.labels;
    options.mount_options = args.mount_options;
    options.mount_label = args.mount_label;
    options.layer = args.layer;
    options.process_label = args.process_label;
    options.volatile = args.volatile;
    options.flags = args.flags;
    options.quota = Quota { size: args.size, inodes: args.inodes };
    options.ids = mapping(args.ids);
    // A new store has no image, and none is made for a mistake.
    let store = match &args.image {
        Some(_) => context.existing_store()?,
        None => {
            context.options().check_container(&options).map_err(|error| asked_limit(error, options.quota))?;
            context.store()?
        }
    };
    let image = args.image.as_deref().map(|key| store.image(key)).transpose()?;
    let container = store
        .create_container(image.as_ref().map(|image| &image.id), &options)
        .map_err(|error| asked_limit(error, options.quota))?;
    let printed = match context.out().is_json() {
        true => context.out().json(&ContainerJson::new(&container, None, None)),
        false => context.out().line(&container.id),
    };
    context.out().told(printed, || format!("the container {} was made", container.id))
}

/// One map does for users and groups if the other is not given.
fn mapping(choice: IdChoice) -> IdMapping {
    let (mut uids, mut gids) = (choice.uid_map, choice.gid_map);
    if gids.is_empty() {
        gids.clone_from(&uids);
    } else if uids.is_empty() {
        uids.clone_from(&gids);
    }
    let maps = IdMaps { uids, gids };
    if choice.userns_auto {
        let mut auto = AutoIdMaps::default();
        auto.user = choice.userns_user;
        auto.size = choice.userns_size;
        auto.additional = maps;
        return IdMapping::Auto(auto);
    }
    if maps == IdMaps::default() { IdMapping::Host } else { IdMapping::Maps(maps) }
}
