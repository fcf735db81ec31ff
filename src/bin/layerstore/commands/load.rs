//! `layerstore load`.

use layerstore::Progress;
use layerstore::oci::{LoadOptions, Source};

use crate::args::LoadArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ImageJson;

pub fn run(args: LoadArgs, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let source = Source::open(&args.source, store.root()).map_err(layerstore::Error::from)?;
    let bars = context.progress();
    let update = |progress: &Progress<'_>| bars.update(progress);
    let mut options = LoadOptions::default();
    options.names = args.names;
    options.platform = args.platform;
    options.tag = args.source.tag().map(str::to_owned);
    options.keep_finished = args.lease;
    options.progress = Some(&update);
    let loaded = store.load(&source, &options);
    drop(bars);
    let image = loaded?;
    if context.out().is_json() {
        let size = store.usage(&image)?.total;
        return context.out().json(&ImageJson::new(&image, size));
    }
    context.out().line(&image.id)
}
