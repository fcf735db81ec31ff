//! `delete`, `delete-container`, `delete-image`, `delete-layer`, `wipe`.

use std::collections::BTreeMap;

use layerstore::{Container, Error, Image, Layer, LayerId, Store, ThingId, WipeOptions};
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::failure::{Failure, known};
use super::super::lookup;
use super::super::table::TEST;

/// Deletes things without looking who needs them.
pub fn anything(call: &Call<'_>) -> Result<(), Failure> {
    each(call, |word| {
        let container = lookup::container(&call.store, word)?.map(|container| ThingId::from(&container));
        let image =
            || Ok::<_, Failure>(lookup::own_image(&call.store, word)?.map(|image| ThingId::from(&image)));
        let thing = match container.map_or_else(image, |container| Ok(Some(container)))? {
            Some(thing) => thing,
            None => (&lookup::known_own_layer(&call.store, word)?).into(),
        };
        Ok(call.store.remove_regardless(&thing)?)
    })
}

pub fn wipe(call: &Call<'_>) -> Result<(), Failure> {
    let mut options = WipeOptions::default();
    options.mounts = true;
    call.store.wipe_with(&options)?;
    if call.is_json() { call.console.json(&"") } else { Ok(()) }
}

pub fn containers(call: &Call<'_>) -> Result<(), Failure> {
    each(call, |word| {
        let container =
            lookup::container(&call.store, word)?.ok_or_else(|| Failure::new(known::NOT_CONTAINER))?;
        remove_container(call, &container)
    })
}

/// Removes a container, mounted or not.
pub fn remove_container(call: &Call<'_>, container: &Container) -> Result<(), Failure> {
    Ok(call.store.end_mounts_to(container, || call.store.remove_container(&container.id))?)
}

pub fn layers(call: &Call<'_>) -> Result<(), Failure> {
    each(call, |word| {
        // What is in a store that is only read is none of those that can go.
        let layer = lookup::own_layer(&call.store, word)?.ok_or_else(|| Failure::new(known::NOT_LAYER))?;
        remove_layer(call, &layer)
    })
}

/// Removes a layer that nothing stands on, mounted or not.
pub fn remove_layer(call: &Call<'_>, layer: &Layer) -> Result<(), Failure> {
    Ok(call.store.end_mounts_to(layer, || call.store.remove_layer(&layer.id))?)
}

pub fn images(call: &Call<'_>) -> Result<(), Failure> {
    let mut all_done = true;
    let mut deleted = BTreeMap::new();
    for word in &call.args {
        let image = lookup::own_image(&call.store, word)?.ok_or_else(|| Failure::new(known::NOT_IMAGE));
        let result = image.and_then(|image| remove_image(call, &image));
        let value = match &result {
            Ok(layers) if layers.is_empty() => json!({}),
            Ok(layers) => json!({ "deleted-layers": layers.iter().map(LayerId::as_str).collect::<Vec<_>>() }),
            Err(failure) => json!({ "error": failure.text() }),
        };
        deleted.insert(word.as_str(), value);
        match result {
            _ if call.is_json() => {}
            Ok(layers) => layers.iter().for_each(|layer| call.console.tell(format_args!("{word}: {layer}"))),
            Err(ref failure) => call.console.tell(format_args!("{word}: {}", failure.text())),
        }
        all_done &= result_is_ok(&deleted, word);
    }
    if call.is_json() {
        call.console.json(&deleted)?;
    }
    if all_done { Ok(()) } else { Err(Failure::Told) }
}

fn result_is_ok(deleted: &BTreeMap<&str, Value>, word: &str) -> bool {
    deleted.get(word).is_some_and(|value| value.get("error").is_none())
}

/// Removes an image and the layers that nothing else uses, and tells which.
pub fn remove_image(call: &Call<'_>, image: &Image) -> Result<Vec<LayerId>, Failure> {
    if let Some(container) = call.store.containers_of_image(&image.id)?.first() {
        return Err(Failure::Text(format!("image used by {container}: {}", known::IMAGE_USED)));
    }
    let going = layers_of(&call.store, image)?;
    if call.flags.is(&TEST) {
        return Ok(going);
    }
    let mut removed = match call.store.remove_image(&image.id) {
        Err(Error::InUse(kept)) if kept.is_mounted() => {
            going.iter().try_for_each(|layer| call.store.end_mounts(layer))?;
            call.store.remove_image(&image.id)?
        }
        removed => removed?,
    };
    // The library keeps layers that have names, and all below them.
    for layer in going.iter().filter(|layer| !removed.contains(layer)).cloned().collect::<Vec<_>>() {
        match call.store.end_mounts_to(&layer, || call.store.remove_layer(&layer)) {
            Ok(()) => removed.push(layer),
            // Somebody uses it meanwhile.
            Err(Error::InUse(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

/// The layers that go with an image: from its top layer down to the first that something else uses.
fn layers_of(store: &Store, image: &Image) -> Result<Vec<LayerId>, Failure> {
    let layers = store.layers()?;
    let mut going: Vec<LayerId> = Vec::new();
    let mut next = image.top_layer.clone();
    let own = |id: &LayerId| layers.iter().find(|layer| layer.id == *id && layer.image_store.is_none());
    while let Some(layer) = next.as_ref().and_then(own) {
        let has_other_child = layers.iter().any(|other| is_child(other, layer) && !going.contains(&other.id));
        let has_other_image = store.images_of_layer(&layer.id)?.iter().any(|id| *id != image.id);
        if has_other_child || has_other_image || store.container_of_layer(&layer.id)?.is_some() {
            break;
        }
        going.push(layer.id.clone());
        next.clone_from(&layer.parent);
    }
    Ok(going)
}

fn is_child(layer: &Layer, of: &Layer) -> bool {
    layer.parent.as_ref() == Some(&of.id)
}

/// Removes each thing that is named, and tells what failed.
fn each(call: &Call<'_>, remove: impl Fn(&str) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut all_done = true;
    let mut results = BTreeMap::new();
    for word in &call.args {
        let text = remove(word).map_or_else(|failure| failure.text(), |()| String::new());
        all_done &= text.is_empty();
        if !text.is_empty() && !call.is_json() {
            call.console.tell(format_args!("{word}: {text}"));
        }
        results.insert(word, text);
    }
    if call.is_json() {
        call.console.json(&results)?;
    }
    if all_done { Ok(()) } else { Err(Failure::Told) }
}
