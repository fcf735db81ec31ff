//! `layerstore diff`.

use layerstore::DiffOptions;

use crate::args::DiffArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &DiffArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let thing = store.thing(&args.thing)?.id();
    let mut options = DiffOptions::default();
    options.base = args.since.as_deref().map(|key| store.thing(key)).transpose()?.map(|base| base.id());
    options.compression = args.compression.into();
    options.level = args.level;
    super::write_to(&args.output, "a tar archive", (&store, context), |out| {
        Ok(store.diff_with(&thing, &options, out).map(drop)?)
    })
}
