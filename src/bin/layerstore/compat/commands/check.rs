//! `check`, `gc`.

mod report;

use std::time::Duration;

use jiff::Timestamp;
use layerstore::{CheckLevel, CheckOptions};

use super::super::call::Call;
use super::super::failure::Failure;
use super::super::golang;
use super::super::table::{MAX, QUICK_CHECK};
use super::mount;
use report::{Group, Report};

/// How old a layer that nothing uses may be.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub fn check(call: &Call<'_>) -> Result<(), Failure> {
    let max = call.flags.text(&MAX).map_or(Ok(DAY), golang::duration).map_err(Failure::Text)?;
    let is_quick = call.flags.is(&QUICK_CHECK);
    let mut options = CheckOptions::default();
    // Also the quick form reads every byte: it only does not say which files differ.
    options.level = CheckLevel::Deep;
    let found = call.store.check(&options)?;
    let mut report = Report::default();
    for finding in &found.findings {
        report.add(&finding.damage, is_quick);
    }
    found.garbage.iter().for_each(|path| report.add_garbage(path));
    report.add_unused(call, max)?;
    report.inherit(call)?;
    if call.is_json() {
        call.console.json(&report.document())?;
    } else {
        report.print(call.console)?;
    }
    mount::end_all(call)?;
    let count = |group| report.count(group);
    if report.is_clean() {
        return Ok(());
    }
    Err(Failure::Text(format!(
        "{} layer errors, {} read-only layer errors, {} image errors, {} read-only image errors, {} container errors",
        count(Group::Layer),
        count(Group::ReadOnlyLayer),
        count(Group::Image),
        count(Group::ReadOnlyImage),
        count(Group::Container),
    )))
}

pub fn gc(call: &Call<'_>) -> Result<(), Failure> {
    call.store.gc(false)?;
    mount::end_all(call)?;
    if call.is_json() { call.console.json(&"") } else { Ok(()) }
}

/// How long ago something was made.
fn age(created: layerstore::Timestamp) -> Duration {
    let age = Timestamp::now().duration_since(crate::output::json::time(created));
    age.try_into().unwrap_or_default()
}
