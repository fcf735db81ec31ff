//! The rows of containers that the next boot drops. They are in another database, and stand on what is in the store.
//!
//! A repair leaves what is found here: such a container is soon gone, and can be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use super::{
    Casualty, CheckOptions, Cure, Damage, Finding, Part, Remedy, Scope, directories, forget_what_is_there,
    records,
};
use crate::error::{Error, MetaError};
use crate::meta::Records;
use crate::store::{Store, way_past_refusal};

/// How long a name may be in both databases: what changes in two is committed in one after the other.
const PAUSES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// Checks the rows against themselves and the store, and the directories that they name.
pub(super) fn check(store: &Store, options: &CheckOptions<'_>, scope: &Scope) -> Result<Part, Error> {
    let mut part = Part::default();
    let Some(run) = store.transient(&store.database().begin_read()?)? else { return Ok(part) };
    let rows = Records::read(&run.rows().begin_read()?)?;
    part.checked.records = rows.count();
    part.damages.extend(records::check(&rows, scope));
    forget_what_is_there(store, &mut part.damages)?;
    directories::check(store, options, &rows, scope, &mut part)?;
    let mut shared = shared_names(store)?;
    for _ in 0..PAUSES {
        if shared.is_empty() {
            break;
        }
        thread::sleep(PAUSE);
        shared = shared_names(store)?;
    }
    part.damages.extend(shared);
    Ok(part)
}

/// What was found, as it is told.
pub(super) fn findings(part: Part) -> impl Iterator<Item = Finding> {
    let remedy = |damage: &Damage| match damage {
        Damage::NotExamined { by_mode, .. } => Remedy::Allow { advice: way_past_refusal(*by_mode) },
        _ => Remedy::Leave,
    };
    let finding = move |damage: Damage| match &damage {
        Damage::ModeLost { path, expected, .. } => {
            let (remedy, casualty) = (
                Remedy::RestoreMode { path: path.clone(), mode: *expected },
                Casualty::Shut(path.clone(), *expected),
            );
            let cures = vec![Cure { casualty, remedy: remedy.clone(), removes: BTreeSet::new() }];
            Finding { remedy, damage, cures }
        }
        _ => Finding { remedy: remedy(&damage), damage, cures: Vec::new() },
    };
    part.damages.into_iter().map(finding)
}

/// Names that a thing in the store has and one of the same kind here, too.
fn shared_names(store: &Store) -> Result<Vec<Damage>, MetaError> {
    let own = store.database().begin_read()?;
    let Some(run) = store.transient(&own)? else { return Ok(Vec::new()) };
    let (own, rows) = (Records::read(&own)?, Records::read(&run.rows().begin_read()?)?);
    let mut shared = Vec::new();
    for (kind, own, rows) in [
        ("layer", layer_names(&own), layer_names(&rows)),
        ("container", container_names(&own), container_names(&rows)),
    ] {
        for (name, other) in rows {
            if let Some(holder) = own.get(name) {
                let (name, holder, other) = (name.to_owned(), (*holder).to_owned(), other.to_owned());
                shared.push(Damage::NameShared { kind, name, holder, other });
            }
        }
    }
    Ok(shared)
}

fn layer_names(records: &Records) -> BTreeMap<&str, &str> {
    let layers = records.layers.values();
    layers.flat_map(|layer| layer.names.iter().map(|name| (name.as_str(), layer.id.as_str()))).collect()
}

fn container_names(records: &Records) -> BTreeMap<&str, &str> {
    let containers = records.containers.values();
    containers.flat_map(|one| one.names.iter().map(|name| (name.as_str(), one.id.as_str()))).collect()
}
