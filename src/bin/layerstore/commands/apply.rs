//! `layerstore apply`.

use layerstore::Error;

use super::create_layer::print;
use super::put_layer::{apply_options, failed, name, open};
use crate::args::ApplyArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: ApplyArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let layer = store.layer(&args.layer)?;
    if !args.unseal && !layer.is_writable() {
        return Err(Failure::Sealed { layer: layer.id.to_string() });
    }
    let (input, name) = (open(&args.archive)?, name(&args.archive));
    let mut options = apply_options(args.archive);
    options.change_under_others = args.change_under_others;
    let applied = store.apply_diff(&layer.id, input, &options).inspect_err(|error| {
        if matches!(error, Error::InUse(used) if used.is_below_others()) {
            context.note("--change-under-others changes it all the same");
        }
    });
    let layer = applied.map_err(|error| failed(&name, error))?;
    print(&store, &layer, None, context)
}
