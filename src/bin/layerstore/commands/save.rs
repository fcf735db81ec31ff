//! `layerstore save`.

use layerstore::Progress;
use layerstore::oci::{SaveOptions, Transport};
use serde_json::json;

use crate::args::SaveArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text;

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
    if saved.compressed_anew > 0 && !context.quiet() && !context.out().is_json() {
        let layers = text::count(saved.compressed_anew, "layer");
        context.note(&format!(
            "the manifest is not the one that was loaded: the store has no blobs as they came of {layers}, compressed anew here"
        ));
    }
    if is_output {
        return Ok(());
    }
    if context.out().is_json() {
        return context.out().json(&json!({
            "manifest": saved.manifest.to_string(),
            "unchanged": saved.unchanged,
            "compressed_anew": saved.compressed_anew,
        }));
    }
    context.out().line(&saved.manifest)
}
