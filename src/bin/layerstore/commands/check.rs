//! `layerstore check`.

use std::process::ExitCode;

use layerstore::CheckOptions;
use serde_json::json;

use crate::args::CheckArgs;
use crate::context::Context;
use crate::failure::{FOUND, Failure};
use crate::output::text;

pub fn run(args: &CheckArgs, context: &Context) -> Result<ExitCode, Failure> {
    let mut options = CheckOptions::default();
    options.deep = args.deep;
    let report = context.existing_store()?.check(&options)?;
    let findings = &report.findings;
    if context.out().is_json() {
        let list: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "code": finding.code(), "message": finding.to_string() }))
            .collect();
        context.out().json(&json!({ "findings": list }))?;
    } else {
        for finding in findings {
            context.out().line(format_args!("{}: {}", finding.code(), text::printable(&finding.to_string())))?;
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}
