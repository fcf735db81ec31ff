//! `changes`, `diff`, `diffsize`, `applydiff`.

use std::io::Write;

use layerstore::{ApplyOptions, Change, ChangeKind, Compression, DiffOptions, Layer, ThingId};
use serde::Serialize;

use super::super::call::Call;
use super::super::failure::Failure;
use super::super::golang::quoted;
use super::super::lookup;
use super::super::table::{BZIP2, GZIP, UNCOMPRESSED, XZ};
use super::input::{self, Input};

#[derive(Serialize)]
struct ChangeRecord {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Kind")]
    kind: u8,
}

pub fn changes(call: &Call<'_>) -> Result<(), Failure> {
    let (layer, base) = compared(call)?;
    let changes = match base {
        Some(base) => call.store.changes_since(&layer, &base)?,
        None => call.store.changes(&layer)?,
    };
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

pub fn diff(call: &Call<'_>) -> Result<(), Failure> {
    let (layer, base) = compared(call)?;
    let compression = wanted_compression(call, &layer);
    call.write_out(|out: &mut dyn Write| {
        let mut options = DiffOptions::default().compression(compression?);
        options.base = base;
        Ok(call.store.diff_with(&layer, &options, out).map(drop)?)
    })
}

pub fn diff_size(call: &Call<'_>) -> Result<(), Failure> {
    let (layer, base) = compared(call)?;
    call.console.line(call.store.diff_size(&layer, base.as_ref())?)
}

pub fn apply_diff(call: &Call<'_>) -> Result<(), Failure> {
    let layer = lookup::known_own_layer(&call.store, call.arg(0))?;
    let mut options = ApplyOptions::default();
    // Here nobody is asked.
    options.change_under_others = true;
    options.allow_empty = true;
    let mut input = Input::open(call)?;
    let applied = call.store.apply_diff(&layer.id, &mut input, &options);
    applied.map(drop).map_err(|error| input::explained(&error))
}

/// The layer, and what it is to be compared with if that is not its parent. A base that is not known is the parent.
fn compared(call: &Call<'_>) -> Result<(Layer, Option<ThingId>), Failure> {
    let layer = lookup::known_layer(&call.store, call.arg(0))?;
    let base =
        lookup::layer(&call.store, call.arg(1))?.filter(|base| layer.parent.as_ref() != Some(&base.id));
    Ok((layer, base.map(|base| ThingId::from(&base))))
}

/// What flags say, else what the layer came as.
fn wanted_compression(call: &Call<'_>, layer: &Layer) -> Result<Compression, Failure> {
    let by_flag = [
        (&UNCOMPRESSED, Compression::None),
        (&GZIP, Compression::Gzip),
        (&BZIP2, Compression::Bzip2),
        (&XZ, Compression::Xz),
    ];
    let asked = by_flag.into_iter().find(|(flag, _)| call.flags.is(flag)).map(|(_, compression)| compression);
    let unsupported = |name| Err(Failure::Text(format!("unsupported compression format tar.{name}")));
    match asked.or(layer.compression).unwrap_or_default() {
        Compression::Bzip2 => unsupported("bz2"),
        Compression::Xz => unsupported("xz"),
        compression => Ok(compression),
    }
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
