//! `layerstore compact`.

use serde_json::json;

use crate::args::CompactArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text;

pub fn run(_: &CompactArgs, context: &Context) -> Result<(), Failure> {
    let report = context.existing_store()?.compact()?;
    if context.out().is_json() {
        return context
            .out()
            .json(&json!({ "bytes_before": report.bytes_before, "bytes_after": report.bytes_after }));
    }
    if context.quiet() {
        return Ok(());
    }
    let (before, after) = (text::size(report.bytes_before), text::size(report.bytes_after));
    context.out().line(format_args!("{before} before, {after} now"))
}
