//! `exists`, `metadata`, `set-metadata`.

use layerstore::Thing;
use serde_json::{Map, Value};

use super::super::call::Call;
use super::super::failure::{Failure, known};
use super::super::lookup;
use super::super::table::{CONTAINER, IMAGE, LAYER, METADATA, METADATA_FILE, QUIET};

pub fn exists(call: &Call<'_>) -> Result<(), Failure> {
    let mut all_hold = true;
    let mut found = Map::new();
    for word in &call.args {
        let layer = lookup::layer(&call.store, word)?.is_some();
        let image = lookup::image(&call.store, word)?.is_some();
        let container = lookup::container(&call.store, word)?.is_some();
        let anything = layer || image || container;
        // What is printed is whether there is anything; the flags are for the status alone.
        let asked = [(&LAYER, layer), (&IMAGE, image), (&CONTAINER, container)];
        all_hold &= anything && asked.into_iter().all(|(flag, is)| is || !call.flags.is(flag));
        if call.is_json() {
            found.insert(word.clone(), anything.into());
        } else if !call.flags.is(&QUIET) {
            call.console.line(format_args!("{word}: {anything}"))?;
        }
    }
    if call.is_json() {
        call.console.json(&sorted(found))?;
    }
    if all_hold { Ok(()) } else { Err(Failure::Told) }
}

pub fn show(call: &Call<'_>) -> Result<(), Failure> {
    let mut all_known = true;
    let mut found = Map::new();
    for word in &call.args {
        let thing = lookup::thing(&call.store, word)?;
        all_known &= thing.is_some();
        let metadata = thing.as_ref().map(metadata_of);
        // One line feed at the end is the file's, not the text's.
        let text = metadata.map(|text| text.strip_suffix('\n').unwrap_or(text));
        match (call.is_json(), text) {
            (true, Some(text)) => {
                found.insert(word.clone(), text.into());
            }
            (true, None) => {}
            (false, text) if call.flags.is(&QUIET) => call.console.line(text.unwrap_or_default())?,
            (false, text) => call.console.line(format_args!("{word}: {}", text.unwrap_or_default()))?,
        }
    }
    if call.is_json() {
        call.console.json(&sorted(found))?;
    }
    if all_known { Ok(()) } else { Err(Failure::Told) }
}

pub fn set(call: &Call<'_>) -> Result<(), Failure> {
    let metadata = given(call)?;
    if metadata.is_empty() {
        return Err(Failure::new("no new metadata provided"));
    }
    let thing = lookup::thing(&call.store, call.arg(0))?.filter(is_own);
    let thing = thing.ok_or_else(|| Failure::new(known::NOT_ANYTHING))?;
    Ok(call.store.write(|txn| txn.set_metadata(thing.id(), &metadata))?)
}

/// Whether a thing is not in a store that is only read.
fn is_own(thing: &Thing) -> bool {
    match thing {
        Thing::Layer(layer) => layer.image_store.is_none(),
        Thing::Image(image) => image.image_store.is_none(),
        _ => true,
    }
}

/// The metadata that flags give, as text or as a file; empty if they give none.
pub fn given(call: &Call<'_>) -> Result<String, Failure> {
    if call.flags.text(&METADATA_FILE).is_none() {
        return Ok(call.flags.text(&METADATA).unwrap_or_default().to_owned());
    }
    String::from_utf8(call.read_in(&METADATA_FILE)?).map_err(|_| Failure::new("metadata is not UTF-8"))
}

fn metadata_of(thing: &Thing) -> &str {
    match thing {
        Thing::Layer(layer) => &layer.metadata,
        Thing::Image(image) => &image.metadata,
        Thing::Container(container) => &container.metadata,
        _ => "",
    }
}

/// An object with its fields by name.
fn sorted(object: Map<String, Value>) -> std::collections::BTreeMap<String, Value> {
    object.into_iter().collect()
}
