//! `layerstore prune`.

use serde_json::json;

use crate::args::PruneArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text;

pub fn run(args: &PruneArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let bytes = if args.blobs { store.drop_blobs(None)? } else { 0 };
    if context.out().is_json() {
        return context.out().json(&json!({ "bytes": bytes }));
    }
    if context.quiet() {
        return Ok(());
    }
    context.out().line(format_args!("freed {}", text::size(bytes)))
}
