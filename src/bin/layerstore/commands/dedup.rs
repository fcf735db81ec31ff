//! `layerstore dedup`.

use std::os::unix::ffi::OsStrExt;

use layerstore::{DedupOptions, DedupReport, Progress, SkipReason};
use serde_json::json;

use crate::args::DedupArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::Bytes;
use crate::output::text;

/// How many files that were left out are named.
const NAMED: usize = 10;

pub fn run(args: &DedupArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let bars = context.progress();
    let update = |progress: &Progress<'_>| bars.update(progress);
    let mut options = DedupOptions::default();
    options.min_size = args.min_size;
    options.writable = args.writable;
    options.dry_run = args.dry_run;
    options.progress = Some(&update);
    let done = store.dedup(&options);
    drop(bars);
    let report = done?;
    if context.out().is_json() {
        return print_json(&report, args.dry_run, context);
    }
    if context.quiet() {
        return Ok(());
    }
    let (files, size) = (text::count(report.files, "file"), text::size);
    context.out().line(format_args!(
        "equal to another one: {} of {files}, {}",
        report.candidates,
        size(report.candidate_bytes)
    ))?;
    let (now, before) = match args.dry_run {
        true => (format!("would share up to {}", size(report.bytes_asked)), "are shared already"),
        false => (format!("shared {}", size(report.bytes_shared)), "were shared before"),
    };
    context.out().line(format_args!("{now}; {} {before}", size(report.bytes_shared_before)))?;
    tell_skipped(&report, context);
    Ok(())
}

fn tell_skipped(report: &DedupReport, context: &Context) {
    for one in report.skipped.iter().take(NAMED) {
        context.note(&format!("left out {}: {}", one.path.display(), one.reason));
    }
    let named = u64::try_from(report.skipped.len().min(NAMED)).unwrap_or(u64::MAX);
    if report.skipped_count > named {
        let more = text::count(report.skipped_count.saturating_sub(named), "more file");
        context.note(&format!("left out {more}; --json lists them"));
    }
    if report.skipped.iter().any(|one| matches!(one.reason, SkipReason::Differs { .. } | SkipReason::Changed))
    {
        context.note("`layerstore check --deep` tells what is damaged");
    }
}

fn print_json(report: &DedupReport, dry_run: bool, context: &Context) -> Result<(), Failure> {
    let skipped: Vec<_> = report
        .skipped
        .iter()
        .map(|one| {
            json!({
                "path": Bytes(one.path.as_os_str().as_bytes().to_vec()),
                "reason": one.reason.word(),
                "message": one.reason.to_string(),
            })
        })
        .collect();
    context.out().json(&json!({
        "dry_run": dry_run,
        "files": report.files,
        "candidates": report.candidates,
        "candidate_bytes": report.candidate_bytes,
        "bytes_asked": report.bytes_asked,
        "bytes_shared": report.bytes_shared,
        "bytes_shared_before": report.bytes_shared_before,
        "skipped_count": report.skipped_count,
        "skipped": skipped,
    }))
}
