//! `layerstore save`.

use layerstore::Progress;
use layerstore::oci::{SaveOptions, Transport};
use serde_json::json;

use crate::args::SaveArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &SaveArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let image = store.image(&args.image)?;
    let bars = context.progress();
    let update = |progress: &Progress<'_>| bars.update(progress);
    let mut options = SaveOptions::default();
    options.manifest = store.manifest_of(&image, &args.image)?;
    options.compression = args.compression.map(Into::into);
    options.level = args.level;
    options.replace = args.force;
    options.progress = Some(&update);
    let to = &args.destination;
    let is_output = to.transport() != Transport::Layout && context.out().is_at(to.path())?;
    let saved = store.save(&image.id, to, &options);
    drop(bars);
    let saved = saved?;
    if is_output {
        return Ok(());
    }
    if context.out().is_json() {
        let (manifest, unchanged) = (saved.manifest.to_string(), saved.unchanged);
        return context.out().json(&json!({ "manifest": manifest, "unchanged": unchanged }));
    }
    context.out().line(&saved.manifest)
}
