//! `layerstore load`.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use layerstore::oci::{LoadOptions, Selection, Source};
use layerstore::{Error, Image, LayoutError, Progress, Store, StoreOptions};
use serde_json::json;

use crate::args::LoadArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::{ImageJson, time};
use crate::output::text;
use crate::output::timings::{Timed, measured};

pub fn run(args: LoadArgs, context: &Context) -> Result<(), Failure> {
    let dedup = args.dedup;
    let (loaded, timings) = measured(args.timings, || load(args, context));
    let (store, image) = loaded?;
    if dedup {
        tell_unshared(&store, context);
    }
    let printed = if context.out().is_json() {
        let shown = ImageJson::new(&image, store.usage(&image)?.total);
        context.out().json(&Timed::new(shown, timings.as_ref()))
    } else {
        context.tell_timings(timings.as_ref());
        context.out().line(&image.id)
    };
    context.out().told(printed, || format!("the image {} is loaded", image.id))
}

fn load(args: LoadArgs, context: &Context) -> Result<(Store, Image), Failure> {
    let (store, source) = open(&args, context)?;
    let bars = context.progress();
    let kept = Mutex::new(None);
    let update = |progress: &Progress<'_>| match progress {
        Progress::FinishedKept { layers, expires } => {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((*layers, time(*expires)));
        }
        progress => bars.update(progress),
    };
    let mut options = LoadOptions::default();
    options.names = args.names;
    options.platform = args.platform;
    options.tag = args.source.tag().map(str::to_owned);
    options.keep_finished = args.lease;
    options.progress = Some(&update);
    let loaded = store.load(&source, &options);
    drop(bars);
    match loaded {
        Ok(image) => Ok((store, image)),
        Err(error) => {
            if let Some((layers, until)) = *kept.lock().unwrap_or_else(PoisonError::into_inner) {
                tell_kept(layers, until, context)?;
            }
            Err(error.into())
        }
    }
}

/// Says why no files could share their space, though it was asked for.
fn tell_unshared(store: &Store, context: &Context) {
    // An image goes to the separate store for images, if there is one.
    let home = store.separate_images().unwrap_or(store);
    if let Err(error @ Error::CannotShare { .. }) = home.can_share() {
        context.note(&format!("--dedup has shared nothing: {error}"));
    }
}

/// Says that a load that fails has left something in the store.
fn tell_kept(layers: u64, until: Timestamp, context: &Context) -> Result<(), Failure> {
    let (count, are) = (text::count(layers, "layer"), if layers == 1 { "is" } else { "are" });
    context.note(&format!("{count} {are} kept until {until:.0}; the next try goes on from there"));
    if context.out().is_json() {
        context.out().json(&json!({ "kept": { "layers": layers, "until": until } }))?;
    }
    Ok(())
}

/// The store and the source. A store is made when there is an image to bring in, and not for a mistake.
fn open(args: &LoadArgs, context: &Context) -> Result<(Store, Source), Failure> {
    let source = |tmp_dir: &Path| {
        Source::open_within(&args.source, tmp_dir, context.options().granted()).map_err(Error::from)
    };
    let sharing = |options: StoreOptions| options.dedup_at_import(args.dedup);
    match context.existing_store_with(sharing) {
        Err(Failure::Store(Error::Layout(LayoutError::Missing { .. }))) => {
            // Where the store will be: on the same disk, as a rule.
            let above = std::path::absolute(context.root()).map_err(|source| Failure::File {
                action: "find",
                path: context.root().to_owned(),
                source,
            })?;
            let above = above.ancestors().find(|directory| directory.is_dir()).unwrap_or(Path::new("/"));
            let source = source(above)?;
            let selection =
                Selection { tag: args.source.tag().map(str::to_owned), platform: args.platform.clone() };
            source.resolve(&selection).map_err(Error::from)?;
            Ok((context.store_with(sharing)?, source))
        }
        store => {
            let store = store?;
            let source = source(store.root())?;
            Ok((store, source))
        }
    }
}
