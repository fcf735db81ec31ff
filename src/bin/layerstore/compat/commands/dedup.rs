//! `dedup`.

use layerstore::DedupOptions;
use serde::Serialize;

use super::super::call::Call;
use super::super::failure::Failure;
use super::super::table::HASH_METHOD;

#[derive(Serialize)]
struct Deduped {
    #[serde(rename = "Deduped")]
    bytes: u64,
}

/// The hashes of all files are known, so it makes no difference how the reference would look for equal ones.
pub fn dedup(call: &Call<'_>) -> Result<(), Failure> {
    match call.flags.text(&HASH_METHOD) {
        None | Some("crc" | "size" | "sha256") => {}
        Some(other) => return Err(Failure::Text(format!("invalid hash method: {other}"))),
    }
    let mut options = DedupOptions::default();
    options.writable = true;
    let report = call.store.dedup(&options)?;
    // Here what was shared before counts each time.
    let bytes = report.bytes_shared.saturating_add(report.bytes_shared_before);
    if call.is_json() {
        return call.console.json(&Deduped { bytes });
    }
    call.console.line(format_args!("Deduplicated {bytes} bytes"))
}
