//! `layerstore create-container`.

use layerstore::ContainerOptions;

use crate::args::CreateContainerArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ContainerJson;

pub fn run(args: CreateContainerArgs, context: &Context) -> Result<(), Failure> {
    // A new store has no image.
    let store = if args.image.is_some() { context.existing_store()? } else { context.store()? };
    let image = args.image.as_deref().map(|key| store.image(key)).transpose()?;
    let mut options = ContainerOptions::default();
    options.id = args.id;
    options.names = args.names;
    options.metadata = args.metadata;
    options.labels = args.labels;
    options.mount_options = args.mount_options;
    options.mount_label = args.mount_label;
    let container = store.create_container(image.as_ref().map(|image| &image.id), &options)?;
    if context.out().is_json() {
        return context.out().json(&ContainerJson::new(&container, None, None));
    }
    context.out().line(&container.id)
}
