//! `layerstore check`.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use layerstore::{CheckLevel, CheckOptions, CheckReport, Finding, Progress, Store};
use serde_json::json;

use crate::args::CheckArgs;
use crate::context::Context;
use crate::failure::{FOUND, Failure};
use crate::output::findings::{self, Names};
use crate::output::json::Bytes;
use crate::output::text;

/// A store that is only read, and what was found in it.
type Other<'s> = (&'s Store, CheckReport);

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
    let level = options.level;
    let others = if args.image_stores { store.image_stores() } else { &[] };
    let checked = store.check(&options).and_then(|report| {
        let others = others.iter().map(|other| Ok((other, other.check(&options)?)));
        Ok((report, others.collect::<Result<Vec<_>, layerstore::Error>>()?))
    });
    drop(bars);
    let (report, others) = checked?;
    if context.out().is_json() {
        print_json(&report, &others, context)?;
    } else {
        print(&store, &report, &others, level, context)?;
    }
    let clean = report.is_clean() && others.iter().all(|(_, report)| report.is_clean());
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn print_json(report: &CheckReport, others: &[Other<'_>], context: &Context) -> Result<(), Failure> {
    let checked = &report.checked;
    let list: Vec<_> = report.findings.iter().map(finding_json).collect();
    let notes: Vec<_> = report
        .notes
        .iter()
        .map(|one| json!({ "code": one.code(), "thing": one.thing(), "message": one.to_string() }))
        .collect();
    let garbage: Vec<_> =
        report.garbage.iter().map(|path| Bytes(path.as_os_str().as_bytes().to_vec())).collect();
    let others: Vec<_> = others
        .iter()
        .map(|(store, report)| {
            let findings: Vec<_> = report.findings.iter().map(finding_json).collect();
            json!({ "root": Bytes(store.root().as_os_str().as_bytes().to_vec()), "findings": findings })
        })
        .collect();
    context.out().json(&json!({
        "findings": list,
        "notes": notes,
        "garbage": garbage,
        "image_stores": others,
        "checked": {
            "records": checked.records,
            "directories": checked.directories,
            "files": checked.files,
            "bytes": checked.bytes,
        },
    }))
}

fn print(
    store: &Store,
    report: &CheckReport,
    others: &[Other<'_>],
    level: CheckLevel,
    context: &Context,
) -> Result<(), Failure> {
    let out = context.out();
    findings::print(&report.findings, &Names::of(store), "", out)?;
    for (other, report) in others.iter().filter(|(_, report)| !report.is_clean()) {
        let root = text::printable(&other.root().display().to_string());
        findings::print(&report.findings, &Names::of(other), &format!("{root}, only read here: "), out)?;
    }
    if context.quiet() {
        return Ok(());
    }
    findings::print_notes(&report.notes, out)?;
    if level != CheckLevel::Deep {
        out.line("note: no file was read: `layerstore check --deep` verifies contents, and every page of the database")?;
    }
    let checked = &report.checked;
    // Layers with equal contents are one directory, and others have none.
    let directories = match checked.directories {
        1 => "1 layer directory".to_owned(),
        some => format!("{some} layer directories"),
    };
    let (records, paths) = (text::count(checked.records, "record"), text::count(checked.files, "path"));
    let mut line = format!("{records}, {directories}, {paths}");
    if checked.bytes > 0 {
        line.push_str(&format!(", {} read", text::size(checked.bytes)));
    }
    let found = |things: usize, word| text::count(u64::try_from(things).unwrap_or(u64::MAX), word);
    let found_there: usize = others.iter().map(|(_, report)| report.findings.len()).sum();
    let result = match report.findings.len().saturating_add(found_there) {
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
