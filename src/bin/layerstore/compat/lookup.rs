//! Words to things. What is exact wins: the id, then a name, then the beginning of one id.

use layerstore::{Container, Error, Image, Layer, LookupError, Store, Thing};

use super::failure::{Failure, known};

/// The flag of a layer that the reference would have in its driver alone.
pub const WITHOUT_RECORD: &str = "storage-layer";

/// Whether a layer is one that most commands do not know.
pub fn is_without_record(layer: &Layer) -> bool {
    layer.flags.iter().any(|(name, _)| name == WITHOUT_RECORD)
}

/// The layers that have a record.
pub fn layers(store: &Store) -> Result<Vec<Layer>, Failure> {
    let mut layers = store.layers()?;
    layers.retain(|layer| !is_without_record(layer));
    Ok(layers)
}

/// The layer that a word names.
pub fn layer(store: &Store, word: &str) -> Result<Option<Layer>, Failure> {
    Ok(found(store.layer(word))?.filter(|layer| !is_without_record(layer)))
}

/// The layer with this id, whether it has a record or not.
pub fn storage_layer(store: &Store, id: &str) -> Result<Option<Layer>, Failure> {
    Ok(found(store.layer(id))?.filter(|layer| layer.id.as_str() == id))
}

/// The image that a word names.
pub fn image(store: &Store, word: &str) -> Result<Option<Image>, Failure> {
    found(store.image(word))
}

/// The container that a word names.
pub fn container(store: &Store, word: &str) -> Result<Option<Container>, Failure> {
    found(store.container(word))
}

/// The layer that a word names, if it is not in a store that is only read.
pub fn own_layer(store: &Store, word: &str) -> Result<Option<Layer>, Failure> {
    Ok(layer(store, word)?.filter(|layer| layer.image_store.is_none()))
}

/// The image that a word names, if it is not in a store that is only read.
pub fn own_image(store: &Store, word: &str) -> Result<Option<Image>, Failure> {
    Ok(image(store, word)?.filter(|image| image.image_store.is_none()))
}

/// The layer, image or container that a word names, in this order.
pub fn thing(store: &Store, word: &str) -> Result<Option<Thing>, Failure> {
    if let Some(layer) = layer(store, word)? {
        return Ok(Some(Thing::Layer(layer)));
    }
    if let Some(image) = image(store, word)? {
        return Ok(Some(Thing::Image(image)));
    }
    Ok(container(store, word)?.map(Thing::Container))
}

/// The layer that a word names.
///
/// Returns [`Failure::Text`] if there is none.
pub fn known_layer(store: &Store, word: &str) -> Result<Layer, Failure> {
    layer(store, word)?.ok_or_else(|| Failure::new(known::LAYER))
}

/// The image that a word names.
///
/// Returns [`Failure::Text`] if there is none.
pub fn known_image(store: &Store, word: &str) -> Result<Image, Failure> {
    let missing = || Failure::Text(format!("locating image with ID \"{word}\": {}", known::IMAGE));
    image(store, word)?.ok_or_else(missing)
}

/// The layer that a word names.
///
/// Returns [`Failure::Text`] if there is none, or it is in a store that is only read.
pub fn known_own_layer(store: &Store, word: &str) -> Result<Layer, Failure> {
    own_layer(store, word)?.ok_or_else(|| Failure::new(known::LAYER))
}

/// The container that a word names.
///
/// Returns [`Failure::Text`] if there is none.
pub fn known_container(store: &Store, word: &str) -> Result<Container, Failure> {
    container(store, word)?.ok_or_else(|| Failure::new(known::CONTAINER))
}

/// The layer, image or container that a word names.
///
/// Returns [`Failure::Text`] if there is none.
pub fn known_thing(store: &Store, word: &str) -> Result<Thing, Failure> {
    thing(store, word)?.ok_or_else(|| Failure::new(known::LAYER))
}

/// A container, of which its layer is meant, or a layer.
pub fn mountable(store: &Store, word: &str) -> Result<Option<Layer>, Failure> {
    match container(store, word)? {
        Some(container) => layer(store, container.layer.as_str()),
        None => layer(store, word),
    }
}

/// A word that could mean several things means none.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Failure> {
    match result {
        Ok(thing) => Ok(Some(thing)),
        Err(Error::Lookup(LookupError::NotFound { .. } | LookupError::Ambiguous { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
