//! `layerstore wipe`.

use layerstore::{Kind, WipeOptions};
use serde_json::json;

use super::rm;
use crate::args::WipeArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text;

pub fn run(args: &WipeArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let before = store.list(&[Kind::Layer, Kind::Image, Kind::Container])?;
    let options = options(args);
    let left = rm::tell_left(&store.wipe_with(&options)?, context);
    // What is in a store that is only read stays there.
    let images = before.images.iter().filter(|image| image.image_store.is_none()).count();
    let layers = before.layers.iter().filter(|layer| layer.image_store.is_none()).count();
    let containers = before.containers.len();
    if context.out().is_json() {
        return context
            .out()
            .json(&json!({ "containers": containers, "images": images, "layers": layers, "left": left }));
    }
    if context.quiet() {
        return Ok(());
    }
    let count = |number: usize, noun| text::count(u64::try_from(number).unwrap_or(u64::MAX), noun);
    context.out().line(format_args!(
        "removed {}, {} and {}",
        count(containers, "container"),
        count(images, "image"),
        count(layers, "layer")
    ))
}

/// Takes all mounts away, if nothing keeps the store from being wiped then.
pub fn unmount_before(args: &WipeArgs, context: &Context) -> Result<(), Failure> {
    match context.store_before() {
        Some(store) => Ok(store.unmount_for_wipe(&options(args))?),
        None => Ok(()),
    }
}

fn options(args: &WipeArgs) -> WipeOptions {
    let mut options = WipeOptions::default();
    options.snapshots = args.snapshots;
    options
}
