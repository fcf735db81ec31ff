//! `layerstore create-layer`.

use layerstore::{Error, Layer, LayerId, LayerOptions, Quota, Store, Timings};

use crate::args::{CreateLayerArgs, NewLayerArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::LayerJson;
use crate::output::timings::Timed;

pub fn run(args: CreateLayerArgs, context: &Context) -> Result<(), Failure> {
    let (parent, mut options) = new_layer(args.new);
    options.quota = Quota { size: args.size, inodes: args.inodes };
    let store = store_for(&options, parent.is_some() || args.template.is_some(), context)?;
    let id = |key: Option<String>| -> Result<Option<LayerId>, Failure> {
        Ok(key.map(|key| store.layer(&key)).transpose()?.map(|layer| layer.id))
    };
    let parent = id(parent)?;
    options.template = id(args.template)?;
    let layer =
        store.create_layer(parent.as_ref(), &options).map_err(|error| asked_limit(error, options.quota))?;
    print(&store, &layer, None, context)
}

/// The store for a new layer. One that names another layer needs a store that is there; else one is made, but for no mistake.
pub(super) fn store_for(
    options: &LayerOptions,
    names_layer: bool,
    context: &Context,
) -> Result<Store, Failure> {
    if names_layer {
        return context.existing_store();
    }
    context.options().check_layer(options).map_err(|error| asked_limit(error, options.quota))?;
    context.store()
}

/// Says of a limit that cannot be set that a flag asks for it.
pub(super) fn asked_limit(source: Error, asked: Quota) -> Failure {
    let by = match asked {
        Quota { size: Some(1..), .. } => "--size",
        Quota { inodes: Some(1..), .. } => "--inodes",
        _ => return source.into(),
    };
    match &source {
        Error::Quota(error) if error.is_of_place() => Failure::Asked { source, by: by.to_owned() },
        _ => source.into(),
    }
}

/// What the arguments say of a new layer: its parent, and what it is given.
pub(super) fn new_layer(args: NewLayerArgs) -> (Option<String>, LayerOptions) {
    let mut options = LayerOptions::default();
    options.id = args.id;
    options.names = args.names;
    options.metadata = args.metadata;
    options.labels = args.labels;
    options.mount_label = args.mount_label;
    options.volatile = args.volatile;
    options.read_only = args.read_only;
    (args.parent, options)
}

pub(super) fn print(
    store: &Store,
    layer: &Layer,
    timings: Option<&Timings>,
    context: &Context,
) -> Result<(), Failure> {
    let printed = if context.out().is_json() {
        let shown = LayerJson::new(layer, store.layer_size(&layer.id)?);
        context.out().json(&Timed::new(shown, timings))
    } else {
        context.tell_timings(timings);
        context.out().line(&layer.id)
    };
    context.out().told(printed, || format!("the layer {} is in the store", layer.id))
}
