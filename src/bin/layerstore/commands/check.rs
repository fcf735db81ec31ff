//! `layerstore check`.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use layerstore::{CheckLevel, CheckOptions, CheckReport, Finding, Progress, Remedy};
use serde_json::json;

use crate::args::CheckArgs;
use crate::context::Context;
use crate::failure::{FOUND, Failure};
use crate::output::findings::{self, Names};
use crate::output::json::Bytes;
use crate::output::text;

pub fn run(args: &CheckArgs, context: &Context) -> Result<ExitCode, Failure> {
    let store = context.existing_store()?;
    let bars = context.progress();
    let update = |progress: &Progress<'_>| bars.update(progress);
    let mut options = CheckOptions::default();
    options.level = match (args.quick, args.deep) {
        (true, _) => CheckLevel::Quick,
        (_, true) => CheckLevel::Deep,
        (false, false) => CheckLevel::Default,
    };
    options.layer = args.layer.as_deref().map(|key| store.layer(key)).transpose()?.map(|layer| layer.id);
    options.image = args.image.as_deref().map(|key| store.image(key)).transpose()?.map(|image| image.id);
    options.progress = Some(&update);
    let (checked, level) = (store.check(&options), options.level);
    drop(bars);
    let report = checked?;
    if context.out().is_json() {
        print_json(&report, context)?;
    } else {
        print(&report, &Names::of(&store), level, context)?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn print_json(report: &CheckReport, context: &Context) -> Result<(), Failure> {
    let checked = &report.checked;
    let list: Vec<_> = report.findings.iter().map(finding_json).collect();
    let notes: Vec<_> = report
        .notes
        .iter()
        .map(|one| json!({ "code": one.code(), "thing": one.thing(), "message": one.to_string() }))
        .collect();
    let garbage: Vec<_> =
        report.garbage.iter().map(|path| Bytes(path.as_os_str().as_bytes().to_vec())).collect();
    context.out().json(&json!({
        "findings": list,
        "notes": notes,
        "garbage": garbage,
        "checked": {
            "records": checked.records,
            "directories": checked.directories,
            "files": checked.files,
            "bytes": checked.bytes,
        },
    }))
}

fn print(report: &CheckReport, names: &Names, level: CheckLevel, context: &Context) -> Result<(), Failure> {
    let out = context.out();
    findings::print(&report.findings, names, "", out)?;
    if context.quiet() {
        return Ok(());
    }
    let of_metadata = |finding: &Finding| finding.remedy == Remedy::RestoreMetadata;
    if level != CheckLevel::Deep && report.findings.iter().any(of_metadata) {
        out.line(
            "note: no file was read: `layerstore check --deep` tells whether contents have changed too",
        )?;
    }
    findings::print_notes(&report.notes, out)?;
    let checked = &report.checked;
    let mut line =
        format!("{}, {}", text::count(checked.directories, "layer"), text::count(checked.files, "file"));
    if checked.bytes > 0 {
        line.push_str(&format!(", {} read", text::size(checked.bytes)));
    }
    let found = |things: usize, word| text::count(u64::try_from(things).unwrap_or(u64::MAX), word);
    let result = match report.findings.len() {
        0 => "nothing found".to_owned(),
        some => found(some, "finding"),
    };
    out.line(format_args!("checked {line}: {result}"))?;
    if report.garbage.is_empty() {
        return Ok(());
    }
    let leftovers = found(report.garbage.len(), "leftover");
    out.line(format_args!(
        "{leftovers} that no record names: `layerstore gc` removes them, `gc --dry-run` lists them"
    ))
}

/// A finding with its remedy, as `check` and `repair` print it.
pub fn finding_json(finding: &Finding) -> serde_json::Value {
    let remedy = &finding.remedy;
    json!({
        "code": finding.code(),
        "thing": finding.thing(),
        "message": finding.damage.to_string(),
        "remedy": {
            "action": remedy.code(),
            "from": remedy.from(),
            "wanted": remedy.wanted(),
            "removes": remedy.removes(),
            "message": remedy.to_string(),
        },
    })
}
