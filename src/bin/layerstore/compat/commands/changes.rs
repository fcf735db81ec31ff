//! `changes`.

use layerstore::{Change, ChangeKind};
use serde::Serialize;

use super::super::call::Call;
use super::super::failure::Failure;
use super::super::golang::quoted;
use super::super::lookup;

#[derive(Serialize)]
struct ChangeRecord {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Kind")]
    kind: u8,
}

pub fn changes(call: &Call<'_>) -> Result<(), Failure> {
    let layer = lookup::known_layer(&call.store, call.arg(0))?;
    let changes = call.store.changes(&layer)?;
    if call.is_json() {
        let records: Vec<_> = changes.iter().map(record).collect();
        // The reference's word for no changes at all.
        return if records.is_empty() { call.console.json(&()) } else { call.console.json(&records) };
    }
    changes.iter().try_for_each(|change| {
        let word = match change.kind {
            ChangeKind::Added => "Add",
            ChangeKind::Modified => "Modify",
            ChangeKind::Deleted => "Delete",
        };
        call.console.line(format_args!("{word} {}", quoted(&path(change))))
    })
}

fn record(change: &Change) -> ChangeRecord {
    let kind = match change.kind {
        ChangeKind::Modified => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    ChangeRecord { path: String::from_utf8_lossy(&path(change)).into_owned(), kind }
}

fn path(change: &Change) -> Vec<u8> {
    [b"/", change.path.as_bytes()].concat()
}
