//! `layerstore put-layer`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use layerstore::{ApplyOptions, Error, Layer, LayerId, LayoutError, Store};

use super::create_layer::{new_layer, print, store_for};
use crate::args::{ArchiveArgs, PutLayerArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::timings::measured;

pub fn run(args: PutLayerArgs, context: &Context) -> Result<(), Failure> {
    let (put, timings) = measured(args.timings, || put(args, context));
    let (store, layer) = put?;
    print(&store, &layer, timings.as_ref(), context)
}

fn put(args: PutLayerArgs, context: &Context) -> Result<(Store, Layer), Failure> {
    let (parent, mut options) = new_layer(args.new);
    // Nobody waits for an archive that has no place, and no store is made for one that cannot be read.
    let below = parent.map(|parent| store_with(&parent, context)).transpose()?;
    let (input, name) = (open(&args.archive)?, name(&args.archive));
    let input = layerstore::peek_archive_within(input, &name, context.options().granted());
    let input = input.map_err(|error| failed(&name, error.into()))?;
    options.apply = apply_options(args.archive);
    let (store, parent) = match below {
        Some((store, parent)) => (store, Some(parent)),
        None => (store_for(&options, false, context)?, None),
    };
    let layer = store.put_layer(parent.as_ref(), &options, input).map_err(|error| failed(&name, error))?;
    Ok((store, layer))
}

/// The store with the layer that the archive is to be put on.
fn store_with(parent: &str, context: &Context) -> Result<(Store, LayerId), Failure> {
    let found = context.existing_store().and_then(|store| {
        let layer = store.layer(parent)?.id;
        Ok((store, layer))
    });
    found.map_err(|failure| {
        let is_nowhere = failure.is_not_found()
            || matches!(failure, Failure::Store(Error::Layout(LayoutError::Missing { .. })));
        match is_nowhere && Path::new(parent).is_file() {
            true => Failure::FileAsParent(parent.to_owned()),
            false => failure,
        }
    })
}

/// The archive that the arguments name.
pub(super) fn open(args: &ArchiveArgs) -> Result<Box<dyn Read + Send>, Failure> {
    if args.file == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let failed = |source| Failure::File { action: "read", path: args.file.clone(), source };
    let file = File::open(&args.file).map_err(failed)?;
    // A directory can be opened, and fails when it is read.
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    Ok(Box::new(file))
}

/// Says of an error that is about the archive which one that is.
pub(super) fn failed(archive: &str, error: Error) -> Failure {
    match error {
        Error::Import(_) => Failure::Archive { archive: archive.to_owned(), source: error },
        error => error.into(),
    }
}

/// What errors call it.
pub(super) fn name(args: &ArchiveArgs) -> String {
    if args.file == Path::new("-") { "standard input".to_owned() } else { args.file.display().to_string() }
}

pub(super) fn apply_options(args: ArchiveArgs) -> ApplyOptions {
    let mut options = ApplyOptions::default();
    options.name = Some(name(&args));
    options.blob_digest = args.digest;
    options.diff_id = args.diff_id;
    options
}
