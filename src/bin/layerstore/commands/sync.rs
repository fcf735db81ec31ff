//! `layerstore sync`.

use serde_json::json;

use crate::args::SyncArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(_: &SyncArgs, context: &Context) -> Result<(), Failure> {
    let synced = context.existing_store()?.sync()?;
    if context.out().is_json() {
        return context.out().json(&json!({ "synced": synced }));
    }
    if context.quiet() {
        return Ok(());
    }
    match synced {
        0 => context.out().line("nothing was left to sync"),
        left => context.out().line(format_args!("synced what was left of {left} layers and blobs")),
    }
}
