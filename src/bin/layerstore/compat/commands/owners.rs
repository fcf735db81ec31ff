//! `layer-parent-owners`, `container-parent-owners`, `storage-layers`.

use layerstore::{Error, Layer, MountError};
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
    print(call, false, |word| {
        let layer = lookup::known_layer(&call.store, word)?;
        Ok((layer.id.to_string(), layer))
    })
}

pub fn of_containers(call: &Call<'_>) -> Result<(), Failure> {
    print(call, true, |word| {
        let container = lookup::known_container(&call.store, word)?;
        let layer = lookup::known_layer(&call.store, container.layer.as_str())?;
        Ok((container.id.to_string(), layer))
    })
}

/// Prints the owners of each thing; `empty` says whether lists that are empty are shown.
fn print(
    call: &Call<'_>,
    empty: bool,
    find: impl Fn(&str) -> Result<(String, Layer), Failure>,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    let mut all_done = true;
    for word in &call.args {
        match find(word).and_then(|(id, layer)| owners(call, id, &layer)) {
            Ok(owners) => all.push(owners),
            Err(failure) => {
                all_done = false;
                call.console.tell(failure.text());
            }
        }
    }
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
    if all_done { Ok(()) } else { Err(Failure::Told) }
}

fn owners(call: &Call<'_>, id: String, layer: &Layer) -> Result<Owners, Failure> {
    let owners = match call.store.parent_owners(&layer.id) {
        Err(Error::Mount(MountError::NotMounted { .. })) => {
            return Err(Failure::Text(format!("LayerParentOwner: {}", known::NOT_MOUNTED)));
        }
        owners => owners?,
    };
    let some = |ids: Vec<u32>| if ids.is_empty() { None } else { Some(ids) };
    Ok(Owners { id, uids: some(owners.uids), gids: some(owners.gids) })
}

/// The layers that have a directory here are those that have a record: there are no others.
pub fn storage_layers(call: &Call<'_>) -> Result<(), Failure> {
    let mut ids: Vec<String> = call.store.layers()?.iter().map(|layer| layer.id.to_string()).collect();
    ids.sort();
    if call.is_json() {
        return call.console.json(&ids);
    }
    ids.iter().try_for_each(|id| call.console.line(id))
}
