//! `layerstore diff`.

use crate::args::DiffArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &DiffArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let thing = store.thing(&args.thing)?.id();
    super::write_to(&args.output, "a tar archive", context, |out| Ok(store.diff(&thing, out)?))
}
