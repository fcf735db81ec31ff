//! `layerstore put-layer`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use layerstore::ApplyOptions;

use super::create_layer::{new_layer, print};
use crate::args::{ArchiveArgs, PutLayerArgs};
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: PutLayerArgs, context: &Context) -> Result<(), Failure> {
    // Before a store is made for it.
    let input = open(&args.archive)?;
    let store = if args.new.parent.is_some() { context.existing_store()? } else { context.store()? };
    let (parent, mut options) = new_layer(&store, args.new)?;
    options.apply = apply_options(args.archive);
    let layer = store.put_layer(parent.as_ref(), &options, input)?;
    print(&store, &layer, context)
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

pub(super) fn apply_options(args: ArchiveArgs) -> ApplyOptions {
    let mut options = ApplyOptions::default();
    options.blob_digest = args.digest;
    options.diff_id = args.diff_id;
    options
}
