//! `layer-parent-owners`, `container-parent-owners`, `storage-layers`.

use layerstore::{Error, MountError, ParentOwners};
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
        let owners = match call.store.parent_owners(&layer.id) {
            Err(Error::Mount(MountError::NotMounted { .. })) => {
                return Err(Failure::Text(format!("LayerParentOwner: {}", known::NOT_MOUNTED)));
            }
            owners => owners?,
        };
        Ok(Owners::new(layer.id.to_string(), owners.uids, owners.gids))
    })
}

pub fn of_containers(call: &Call<'_>) -> Result<(), Failure> {
    print(call, true, |word| {
        let container = lookup::known_container(&call.store, word)?;
        let owners = match call.store.parent_owners(&container) {
            // The reference knows of none where it uses id-mapped mounts.
            Err(Error::Mount(MountError::NotMounted { .. })) => ParentOwners::default(),
            owners => owners?,
        };
        Ok(Owners::new(container.id.to_string(), owners.uids, owners.gids))
    })
}

/// Prints the owners of each thing; `empty` says whether lists that are empty are shown.
fn print(
    call: &Call<'_>,
    empty: bool,
    owners: impl Fn(&str) -> Result<Owners, Failure>,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    let mut all_done = true;
    for word in &call.args {
        match owners(word) {
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
