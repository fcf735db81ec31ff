//! `layerstore repair`.

use std::process::ExitCode;

use layerstore::oci::Source;
use layerstore::{Progress, RepairOptions, RepairReport};
use serde_json::json;

use super::check::finding_json;
use crate::args::RepairArgs;
use crate::context::Context;
use crate::failure::{FOUND, Failure};
use crate::output::text;

pub fn run(args: &RepairArgs, context: &Context) -> Result<ExitCode, Failure> {
    let store = context.existing_store()?;
    let open = |reference| Source::open(reference, store.root()).map_err(layerstore::Error::from);
    let sources = args.sources.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let bars = context.progress();
    let update = |progress: &Progress<'_>| bars.update(progress);
    let mut options = RepairOptions::default();
    options.sources = sources.iter().collect();
    options.layer = args.layer.as_deref().map(|key| store.layer(key)).transpose()?.map(|layer| layer.id);
    options.image = args.image.as_deref().map(|key| store.image(key)).transpose()?.map(|image| image.id);
    (options.force, options.dry_run) = (args.force, args.dry_run);
    options.progress = Some(&update);
    let repaired = store.repair(&options);
    drop(bars);
    let report = repaired?;
    print(&report, args.dry_run, context)?;
    let complete = report.is_complete();
    for failed in report.failed {
        context.tell(&Failure::Unrepaired { thing: failed.thing, source: failed.error });
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn print(report: &RepairReport, dry_run: bool, context: &Context) -> Result<(), Failure> {
    if context.out().is_json() {
        let repaired: Vec<_> = report
            .repaired
            .iter()
            .map(|one| json!({ "action": one.code, "thing": one.thing, "message": one.what }))
            .collect();
        let failed: Vec<_> = report
            .failed
            .iter()
            .map(|one| json!({ "thing": one.thing, "message": one.error.to_string() }))
            .collect();
        let left: Vec<_> = report.left.iter().map(finding_json).collect();
        return context.out().json(&json!({
            "dry_run": dry_run,
            "repaired": repaired,
            "failed": failed,
            "left": left,
        }));
    }
    for one in &report.repaired {
        context.out().line(text::printable(&one.to_string()))?;
    }
    for finding in &report.left {
        let message = text::printable(&finding.to_string());
        context.out().line(format_args!("left: {}: {message}", finding.code()))?;
    }
    if context.quiet() {
        return Ok(());
    }
    if report.repaired.is_empty() && report.left.is_empty() {
        return context.out().line("nothing to repair");
    }
    let count = |things: usize, word| text::count(u64::try_from(things).unwrap_or(u64::MAX), word);
    let did = if dry_run { "would do" } else { "done" };
    let (repaired, left) = (count(report.repaired.len(), "repair"), count(report.left.len(), "finding"));
    context.out().line(format_args!("{did}: {repaired}; left: {left}"))
}
