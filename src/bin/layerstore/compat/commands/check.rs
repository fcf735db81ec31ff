//! `check`, `gc`.

mod report;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use layerstore::{CheckLevel, CheckOptions, Layer, Remedy, RepairOptions, Store};

use super::super::call::Call;
use super::super::failure::{self, Failure};
use super::super::golang;
use super::super::lookup;
use super::super::table::{FORCE_REPAIR, MAX, QUICK_CHECK, REPAIR};
use super::{delete, mount};
use report::{Group, Report};

/// How old a layer that nothing uses may be.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub fn check(call: &Call<'_>) -> Result<(), Failure> {
    let max = call.flags.text(&MAX).map_or(Ok(DAY), golang::duration).map_err(Failure::Text)?;
    let report = examine(call, max)?;
    if call.is_json() {
        call.console.json(&report.document())?;
    } else {
        report.print(call.console)?;
    }
    let forced = call.flags.is(&FORCE_REPAIR);
    let left = match report.is_clean() {
        false if forced || call.flags.is(&REPAIR) => repair(call, max, forced),
        is_clean => Ok(if is_clean { None } else { Some(summary(&report, &Group::ALL)) }),
    };
    mount::end_all(call)?;
    left?.map_or(Ok(()), |left| Err(Failure::Text(left)))
}

/// Everything that is wrong.
fn examine(call: &Call<'_>, max: Duration) -> Result<Report, Failure> {
    let mut options = CheckOptions::default();
    // Also the quick form reads every byte: it only does not say which files differ.
    options.level = CheckLevel::Deep;
    let mut report = Report::default();
    let own = own_stores(call).map(|store| (store, false));
    for (store, is_other) in own.chain(call.store.image_stores().iter().map(|store| (store, true))) {
        report.of_other(is_other);
        let found = store.check(&options)?;
        for finding in &found.findings {
            report.add(&finding.damage, call.flags.is(&QUICK_CHECK));
        }
        found.garbage.iter().for_each(|path| report.add_garbage(path));
    }
    report.of_other(false);
    let unaccounted = unaccounted_layers(call)
        .map(|layers| layers.iter().for_each(|layer| report.add_unaccounted(layer.id.as_str())));
    // Where a record cannot be read, nobody knows what is used by what; the record is told above.
    let related = unaccounted
        .and_then(|()| report.add_unreadable_items(call))
        .and_then(|()| report.add_unused(call, max))
        .and_then(|()| report.inherit(call));
    if report.is_clean() {
        related?;
    }
    Ok(report)
}

/// The store, and the one that it has for its images.
fn own_stores<'c>(call: &'c Call<'_>) -> impl Iterator<Item = &'c Store> {
    std::iter::once(&call.store).chain(call.store.separate_images())
}

/// Mends what can be mended, and removes the rest: images and layers, and containers if `forced`. Returns what is
/// left.
fn repair(call: &Call<'_>, max: Duration, forced: bool) -> Result<Option<String>, Failure> {
    let mut options = RepairOptions::default();
    options.force = forced;
    let mut failures: Vec<String> = Vec::new();
    let mut out_of_sight = Vec::new();
    for store in own_stores(call) {
        let report = store.repair(&options)?;
        failures.extend(report.failed.iter().map(|failed| failure::text(&failed.error)));
        let is_out_of_sight = |remedy: &Remedy| {
            matches!(
                remedy,
                Remedy::OpenOther { .. } | Remedy::Unmount { .. } | Remedy::Allow { .. } | Remedy::Serve
            )
        };
        let left = report.left.iter().filter(|left| is_out_of_sight(&left.remedy));
        out_of_sight.extend(left.map(ToString::to_string));
        store.gc(false)?;
    }
    // Of what is below them, or uses them, nothing is known: nothing goes for it.
    if !out_of_sight.is_empty() {
        failures.extend(out_of_sight);
        return Ok(Some(failures.join("\n")));
    }
    let damaged = examine(call, max)?;
    let containers = if forced { damaged.ids(Group::Container).collect() } else { Vec::new() };
    for id in containers {
        if let Some(container) = lookup::container(&call.store, id)?
            && let Err(failure) = delete::remove_container(call, &container)
        {
            failures.push(failure.text());
        }
    }
    for id in damaged.ids(Group::Image) {
        // With its containers, an image is theirs to lose.
        if let Some(image) = lookup::image(&call.store, id)?
            && call.store.containers_of_image(&image.id)?.is_empty()
            && let Err(failure) = delete::remove_image(call, &image)
        {
            failures.push(failure.text());
        }
    }
    let mut unused = unused_layers(call, max)?;
    unused.sort_by_key(|layer| std::cmp::Reverse(layer.created));
    for layer in unaccounted_layers(call)?.into_iter().chain(unused) {
        if let Err(failure) = delete::remove_layer(call, &layer) {
            failures.push(failure.text());
        }
    }
    if !failures.is_empty() {
        return Ok(Some(failures.join("\n")));
    }
    let after = examine(call, max)?;
    let groups: &[Group] = match forced {
        true => &[Group::ReadOnlyLayer, Group::ReadOnlyImage],
        false => &[Group::ReadOnlyLayer, Group::ReadOnlyImage, Group::Container],
    };
    Ok(if after.is_clean() { None } else { Some(summary(&after, groups)) })
}

fn summary(report: &Report, groups: &[Group]) -> String {
    let texts: Vec<String> =
        groups.iter().map(|group| format!("{} {} errors", report.count(*group), group.heading())).collect();
    texts.join(", ")
}

pub fn gc(call: &Call<'_>) -> Result<(), Failure> {
    call.store.gc(false)?;
    for layer in unaccounted_layers(call)? {
        delete::remove_layer(call, &layer)?;
    }
    mount::end_all(call)?;
    if call.is_json() { call.console.json(&"") } else { Ok(()) }
}

/// The layers that the reference's driver would have alone, those above others first.
fn unaccounted_layers(call: &Call<'_>) -> Result<Vec<Layer>, Failure> {
    let mut layers = call.store.layers()?;
    layers.retain(|layer| layer.image_store.is_none() && lookup::is_without_record(layer));
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.created));
    Ok(layers)
}

/// The layers that no image and no container stands on, if they are older than `max`.
fn unused_layers(call: &Call<'_>, max: Duration) -> Result<Vec<Layer>, Failure> {
    let mut used = BTreeSet::new();
    let tops = call.store.images()?.into_iter().filter_map(|image| image.top_layer);
    for top in tops.chain(call.store.containers()?.into_iter().map(|container| container.layer)) {
        used.extend(report::chain(call, &top)?);
    }
    let mut layers = lookup::layers(&call.store)?;
    layers.retain(|layer| {
        layer.image_store.is_none() && !used.contains(&layer.id) && age(layer.created) >= max
    });
    Ok(layers)
}

/// How long ago something was made.
fn age(created: layerstore::Timestamp) -> Duration {
    let age = Timestamp::now().duration_since(crate::output::json::time(created));
    age.try_into().unwrap_or_default()
}
