//! `layer-parent-owners`, `container-parent-owners`, `storage-layers`.

use layerstore::{Error, MountError, Store};
use serde::Serialize;

use super::super::call::Call;
use super::super::failure::{Failure, known};
use super::super::golang::list;
use super::super::lookup;

#[derive(Serialize)]
struct Owners {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "UIDs")]
    uids: Option<Vec<u32>>,
    #[serde(rename = "GIDs")]
    gids: Option<Vec<u32>>,
}

pub fn of_layers(call: &Call<'_>) -> Result<(), Failure> {
    let layers = found(call, lookup::layer)?;
    let owners = layers.iter().map(|layer| match call.store.parent_owners(&layer.id) {
        _ if layer.image_store.is_some() => Err(Failure::Text(format!("LayerParentOwner: {}", known::LAYER))),
        Err(Error::Mount(MountError::NotMounted { .. })) => {
            Err(Failure::Text(format!("LayerParentOwner: {}", known::NOT_MOUNTED)))
        }
        owners => {
            let owners = owners?;
            Ok(Owners::new(layer.id.to_string(), owners.uids, owners.gids))
        }
    });
    print(call, false, owners)
}

pub fn of_containers(call: &Call<'_>) -> Result<(), Failure> {
    let containers = found(call, lookup::container)?;
    let owners = containers.iter().map(|container| {
        let owners = call.store.parent_owners(container)?;
        Ok(Owners::new(container.id.to_string(), owners.uids, owners.gids))
    });
    print(call, true, owners)
}

/// The things that the words name. What is unknown is left out without a word, and shows in the status.
fn found<T>(
    call: &Call<'_>,
    find: fn(&Store, &str) -> Result<Option<T>, Failure>,
) -> Result<Vec<T>, Failure> {
    call.args.iter().filter_map(|word| find(&call.store, word).transpose()).collect()
}

/// Prints the owners of each thing; `empty` says whether lists that are empty are shown.
fn print(
    call: &Call<'_>,
    empty: bool,
    owners: impl Iterator<Item = Result<Owners, Failure>>,
) -> Result<(), Failure> {
    let all = owners.collect::<Result<Vec<_>, _>>()?;
    // Each is a document of its own.
    if call.is_json() {
        all.iter().try_for_each(|one| call.console.json(one))?;
    } else {
        for one in &all {
            call.console.line(format_args!("ID: {}", one.id))?;
            for (name, ids) in [("UIDs", &one.uids), ("GIDs", &one.gids)] {
                if let Some(ids) = ids.as_deref().or(empty.then_some(&[])) {
                    call.console.line(format_args!("{name}: {}", list(ids)))?;
                }
            }
        }
    }
    if all.len() == call.args.len() { Ok(()) } else { Err(Failure::Told) }
}

impl Owners {
    fn new(id: String, uids: Vec<u32>, gids: Vec<u32>) -> Self {
        let some = |ids: Vec<u32>| if ids.is_empty() { None } else { Some(ids) };
        Owners { id, uids: some(uids), gids: some(gids) }
    }
}

/// All layers that have a directory, those too that other commands do not know.
pub fn storage_layers(call: &Call<'_>) -> Result<(), Failure> {
    let mut ids: Vec<String> = call.store.layers()?.iter().map(|layer| layer.id.to_string()).collect();
    ids.sort();
    if call.is_json() {
        return call.console.json(&ids);
    }
    ids.iter().try_for_each(|id| call.console.line(id))
}
