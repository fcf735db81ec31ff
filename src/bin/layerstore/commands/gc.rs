//! `layerstore gc`.

use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use crate::args::GcArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Bytes;
use crate::output::text;

pub fn run(args: &GcArgs, context: &Context) -> Result<(), Failure> {
    let report = context.existing_store()?.gc(args.dry_run)?;
    if context.out().is_json() {
        let removed: Vec<_> = report
            .removed
            .iter()
            .map(|(path, bytes)| json!({ "path": Bytes(path.as_os_str().as_bytes().to_vec()), "bytes": bytes }))
            .collect();
        return context.out().json(&json!({
            "dry_run": args.dry_run,
            "bytes": report.bytes,
            "removed": removed,
        }));
    }
    for (path, bytes) in &report.removed {
        let path = text::path(path.as_os_str().as_bytes());
        context.out().line(format_args!("{path} ({})", text::size(*bytes)))?;
    }
    if context.quiet() {
        return Ok(());
    }
    let what = text::count(u64::try_from(report.removed.len()).unwrap_or(u64::MAX), "leftover");
    let would = if args.dry_run { "would remove" } else { "removed" };
    context.out().line(format_args!("{would} {what}, {}", text::size(report.bytes)))
}
