//! `layerstore create-image`.

use layerstore::{ImageOptions, NewItem, Timestamp};

use crate::args::CreateImageArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ImageJson;

pub fn run(args: CreateImageArgs, context: &Context) -> Result<(), Failure> {
    let mut options = ImageOptions::default();
    for (key, path) in args.items {
        let bytes = std::fs::read(&path).map_err(|source| Failure::File { action: "read", path, source })?;
        options.items.push(NewItem::new(key, bytes));
    }
    // A new store has no layer.
    let store = if args.layer.is_some() { context.existing_store()? } else { context.store()? };
    options.top_layer = args.layer.as_deref().map(|key| store.layer(key)).transpose()?.map(|layer| layer.id);
    options.id = args.id;
    options.names = args.names;
    options.metadata = args.metadata;
    options.created = args.created.map(|time| Timestamp {
        seconds: time.as_second(),
        nanoseconds: time.subsec_nanosecond().unsigned_abs(),
    });
    options.digests = args.digests;
    options.labels = args.labels;
    options.flags = args.flags;
    let image = store.create_image(&options)?;
    let printed = match context.out().is_json() {
        true => context.out().json(&ImageJson::new(&image, store.usage(&image)?.total)),
        false => context.out().line(&image.id),
    };
    context.out().told(printed, || format!("the image {} was made", image.id))
}
