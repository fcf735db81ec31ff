//! `layerstore repair`.

use std::process::ExitCode;

use layerstore::oci::Source;
use layerstore::{Progress, RepairOptions, RepairReport, Repaired};
use serde_json::json;

use super::check::finding_json;
use crate::args::RepairArgs;
use crate::context::Context;
use crate::failure::{FOUND, Failure};
use crate::output::findings::{self, Names};
use crate::output::text;

pub fn run(args: &RepairArgs, context: &Context) -> Result<ExitCode, Failure> {
    let store = context.existing_store()?;
    let granted = store.options().granted();
    let open =
        |reference| Source::open_within(reference, store.root(), granted).map_err(layerstore::Error::from);
    let sources = args.sources.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let bars = context.progress();
    let update = |progress: &Progress<'_>| bars.update(progress);
    let mut options = RepairOptions::default();
    options.sources = sources.iter().collect();
    options.layer = args.layer.as_deref().map(|key| store.layer(key)).transpose()?.map(|layer| layer.id);
    options.image = args.image.as_deref().map(|key| store.image(key)).transpose()?.map(|image| image.id);
    (options.force, options.dry_run) = (args.force, args.dry_run);
    options.progress = Some(&update);
    // What goes has its names before.
    let names = Names::of(&store);
    let repaired = store.repair(&options);
    drop(bars);
    let report = repaired?;
    if context.out().is_json() {
        print_json(&report, args.dry_run, context)?;
    } else {
        print(&report, &names, args.dry_run, context)?;
    }
    let complete = report.is_complete();
    for failed in report.failed {
        context.tell(&Failure::Unrepaired { thing: names.thing(&failed.thing), source: failed.error });
    }
    if let Some(error) = report.ended {
        return Err(error.into());
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn print_json(report: &RepairReport, dry_run: bool, context: &Context) -> Result<(), Failure> {
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
    context.out().json(&json!({
        "dry_run": dry_run,
        "repaired": repaired,
        "failed": failed,
        "left": left,
        "ended": report.ended.as_ref().map(ToString::to_string),
    }))
}

fn print(report: &RepairReport, names: &Names, dry_run: bool, context: &Context) -> Result<(), Failure> {
    let out = context.out();
    for one in &report.repaired {
        out.line(format_args!("{}: {}", names.thing(&one.thing), findings::shown(&one.what)))?;
    }
    findings::print(&report.left, names, "left: ", out)?;
    if context.quiet() {
        return Ok(());
    }
    let count = |things: usize, word| text::count(u64::try_from(things).unwrap_or(u64::MAX), word);
    let did = if dry_run { "would do" } else { "done" };
    let removals = report.repaired.iter().filter(|one| one.code == Repaired::REMOVED).count();
    let repaired = match (report.repaired.len().saturating_sub(removals), removals) {
        (repairs, 0) => count(repairs, "repair"),
        (0, removals) => count(removals, "removal"),
        (repairs, removals) => format!("{}, {}", count(repairs, "repair"), count(removals, "removal")),
    };
    if report.ended.is_some() {
        return out.line(format_args!("{did}: {repaired}; what is left is not known"));
    }
    if report.repaired.is_empty() && report.left.is_empty() {
        return out.line("nothing to repair");
    }
    out.line(format_args!("{did}: {repaired}; left: {}", count(report.left.len(), "finding")))
}
