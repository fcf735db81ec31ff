//! `layerstore create-layer`.

use layerstore::{Layer, LayerId, LayerOptions, Quota, Store};

use crate::args::{CreateLayerArgs, NewLayerArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::LayerJson;

pub fn run(args: CreateLayerArgs, context: &Context) -> Result<(), Failure> {
    // A new store has no layer.
    let names_layer = args.new.parent.is_some() || args.template.is_some();
    let store = if names_layer { context.existing_store()? } else { context.store()? };
    let (parent, mut options) = new_layer(&store, args.new)?;
    options.template = args.template.map(|key| store.layer(&key)).transpose()?.map(|layer| layer.id);
    options.quota = Quota { size: args.size, inodes: args.inodes };
    let layer = store.create_layer(parent.as_ref(), &options)?;
    print(&store, &layer, context)
}

/// What the arguments say of a new layer: its parent, and what it is given.
pub(super) fn new_layer(
    store: &Store,
    args: NewLayerArgs,
) -> Result<(Option<LayerId>, LayerOptions), Failure> {
    let parent = args.parent.map(|key| store.layer(&key)).transpose()?;
    let mut options = LayerOptions::default();
    options.id = args.id;
    options.names = args.names;
    options.metadata = args.metadata;
    options.labels = args.labels;
    options.mount_label = args.mount_label;
    options.volatile = args.volatile;
    options.read_only = args.read_only;
    Ok((parent.map(|parent| parent.id), options))
}

pub(super) fn print(store: &Store, layer: &Layer, context: &Context) -> Result<(), Failure> {
    if context.out().is_json() {
        return context.out().json(&LayerJson::new(layer, store.layer_size(&layer.id)?));
    }
    context.out().line(&layer.id)
}
