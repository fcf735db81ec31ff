//! `layerstore gc`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use layerstore::{Garbage, GarbageKind, GcReport};
use serde_json::json;

use crate::args::GcArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Bytes;
use crate::output::table::{Align, Table};
use crate::output::text;

pub fn run(args: &GcArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    if args.forget_transient {
        store.forget_transient()?;
    }
    let report = store.gc(args.dry_run)?;
    print(&report, args.dry_run, context)?;
    let all = report.removed.len().saturating_add(report.left.len());
    let failed = report.left.len();
    for left in report.left {
        context.tell(&Failure::Left { path: left.path, source: left.error });
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Several { failed, all }) }
}

fn print(report: &GcReport, dry_run: bool, context: &Context) -> Result<(), Failure> {
    let bytes = |path: &Path| Bytes(path.as_os_str().as_bytes().to_vec());
    if context.out().is_json() {
        let removed: Vec<_> = report
            .removed
            .iter()
            .map(|one| {
                json!({
                    "kind": one.kind.word(),
                    "path": bytes(&one.path),
                    "id": one.id,
                    "bytes": one.bytes,
                })
            })
            .collect();
        let left: Vec<_> = report.left.iter().map(|one| bytes(&one.path)).collect();
        return context.out().json(&json!({
            "dry_run": dry_run,
            "bytes": report.bytes,
            "removed": removed,
            "left": left,
        }));
    }
    if context.quiet() {
        return report
            .removed
            .iter()
            .try_for_each(|one| context.out().line(text::path(one.path.as_os_str().as_bytes())));
    }
    if !report.removed.is_empty() {
        let mut table = Table::new([("KIND", Align::Left), ("SIZE", Align::Right), ("WHAT", Align::Left)]);
        for one in &report.removed {
            table.row([one.kind.word().to_owned(), text::size(one.bytes), what(one)]);
        }
        context.out().table(&table)?;
    }
    if report.removed.is_empty() {
        // What could not be removed is told, each with its reason.
        return if report.left.is_empty() { context.out().line("nothing to remove") } else { Ok(()) };
    }
    let what = text::count(u64::try_from(report.removed.len()).unwrap_or(u64::MAX), "leftover");
    let would = if dry_run { "would remove" } else { "removed" };
    context.out().line(format_args!("{would} {what}, {}", text::size(report.bytes)))
}

/// What tells it from others of its kind.
fn what(garbage: &Garbage) -> String {
    match (garbage.kind, &garbage.id) {
        (GarbageKind::Lease | GarbageKind::Layer, Some(id)) => text::path(id.as_bytes()),
        _ => text::path(garbage.path.as_os_str().as_bytes()),
    }
}
