//! `create-layer`, `create-storage-layer`, `import-layer`, `create-image`, `create-container`.

use layerstore::{ContainerOptions, Error, IdMapping, IdMaps, ImageOptions, Kind, Layer, LayerOptions, Name};

use super::super::call::Call;
use super::super::failure::{self, Failure, known};
use super::super::idmap;
use super::super::lookup;
use super::super::records::{ContainerRecord, ImageRecord, LayerRecord, texts};
use super::super::table::{DIGEST, ID, LABEL, NAME, READ_ONLY_LAYER, VOLATILE};
use super::input::{self, Input};
use super::metadata;

pub fn layer(call: &Call<'_>) -> Result<(), Failure> {
    let (parent, options) = layer_options(call)?;
    let layer = call.store.create_layer(parent.as_ref().map(|parent| &parent.id), &options)?;
    print_layer(call, &layer)
}

pub fn import_layer(call: &Call<'_>) -> Result<(), Failure> {
    let (parent, mut options) = layer_options(call)?;
    options.apply.allow_empty = true;
    let mut input = Input::open(call)?;
    let put = call.store.put_layer(parent.as_ref().map(|parent| &parent.id), &options, &mut input);
    let layer = put.map_err(|error| input::explained(&error))?;
    print_layer(call, &layer)
}

/// A layer that the reference's driver has and its records have not. Here it has a record, with a flag by which all other
/// commands but `storage-layers`, `check` and `gc` leave it out.
pub fn storage_layer(call: &Call<'_>) -> Result<(), Failure> {
    let maps = idmap::given(call)?;
    let parent = match call.arg(0) {
        "" => None,
        id => Some(lookup::storage_layer(&call.store, id)?.ok_or_else(|| Failure::new(known::LAYER))?),
    };
    let mut options = options_of_flags(call, maps, parent.as_ref())?;
    options.flags.push((lookup::WITHOUT_RECORD.to_owned(), "true".to_owned()));
    let layer = call.store.create_layer(parent.as_ref().map(|parent| &parent.id), &options)?;
    if call.is_json() { call.console.json(&layer.id.as_str()) } else { call.console.line(&layer.id) }
}

/// The parent of a new layer, and what flags say of it.
fn layer_options(call: &Call<'_>) -> Result<(Option<Layer>, LayerOptions), Failure> {
    let maps = idmap::given(call)?;
    let parent = match call.arg(0) {
        "" => None,
        word => Some(lookup::known_layer(&call.store, word)?),
    };
    let options = options_of_flags(call, maps, parent.as_ref())?;
    Ok((parent, options))
}

fn options_of_flags(call: &Call<'_>, maps: IdMaps, parent: Option<&Layer>) -> Result<LayerOptions, Failure> {
    let mut options = LayerOptions::default();
    options.id = call.flags.text(&ID).map(str::parse).transpose().map_err(Error::from)?;
    options.names = names(call);
    options.mount_label = call.flags.text(&LABEL).map(str::to_owned);
    options.read_only = call.flags.is(&READ_ONLY_LAYER);
    let (uids, gids) = parent.map_or((&[][..], &[][..]), |layer| (&layer.uid_map, &layer.gid_map));
    let maps = idmap::of_layer(call, maps, uids, gids);
    (options.uid_map, options.gid_map) = (maps.uids, maps.gids);
    Ok(options)
}

fn print_layer(call: &Call<'_>, layer: &Layer) -> Result<(), Failure> {
    if call.is_json() {
        return call.console.json(&LayerRecord::new(layer, &call.store)?);
    }
    created_thing(call, layer.id.as_str(), &texts(&layer.names))
}

pub fn image(call: &Call<'_>) -> Result<(), Failure> {
    let layer = match call.arg(0) {
        "" => None,
        word => Some(lookup::known_layer(&call.store, word)?),
    };
    let mut options = ImageOptions::default();
    options.id = call.flags.text(&ID).map(str::parse).transpose().map_err(Error::from)?;
    options.names = names(call);
    options.top_layer = layer.map(|layer| layer.id);
    options.metadata = metadata::given(call)?;
    if let Some(text) = call.flags.text(&DIGEST) {
        let invalid = || {
            Failure::Text(format!(
                "validating digests for new image: validating image digest \"{text}\": {}",
                failure::of_digest(text)
            ))
        };
        options.digests.push(text.parse().map_err(|_| invalid())?);
    }
    refuse_taken(call, &options)?;
    let image = call.store.create_image(&options)?;
    if call.is_json() {
        return call.console.json(&ImageRecord::new(&image, &call.store.items(&image)?));
    }
    created_thing(call, image.id.as_str(), &texts(&image.names))
}

/// The library lets a new image take names from others, and the reference does not.
fn refuse_taken(call: &Call<'_>, options: &ImageOptions) -> Result<(), Failure> {
    if let Some(id) = &options.id
        && lookup::own_image(&call.store, id.as_str())?.is_some_and(|image| image.id == *id)
    {
        return Err(Failure::Text(format!(
            "an image with ID \"{id}\" already exists: {}",
            known::DUPLICATE_ID
        )));
    }
    for name in &options.names {
        let parsed: Name = name.parse().map_err(Error::from)?;
        if let Some(holder) = call.store.name_holder(Kind::Image, &parsed)?
            && lookup::own_image(&call.store, holder.as_str())?.is_some()
        {
            return Err(Failure::Text(format!(
                "image name \"{name}\" is already associated with image \"{holder}\": {}",
                known::DUPLICATE_NAME
            )));
        }
    }
    Ok(())
}

pub fn container(call: &Call<'_>) -> Result<(), Failure> {
    let maps = idmap::complete(idmap::given(call)?)?;
    let image = match call.arg(0) {
        "" => None,
        word => Some(lookup::known_image(&call.store, word)?),
    };
    let mut options = ContainerOptions::default();
    options.id = call.flags.text(&ID).map(str::parse).transpose().map_err(Error::from)?;
    options.names = names(call);
    options.metadata = metadata::given(call)?;
    options.volatile = call.flags.is(&VOLATILE);
    if maps != IdMaps::default() {
        options.ids = IdMapping::Maps(maps);
    }
    // An image without layers is as good as none.
    let base = image.as_ref().filter(|image| image.top_layer.is_some()).map(|image| &image.id);
    let created = call.store.create_container(base, &options);
    let container = created.map_err(|error| explained(&error))?;
    if call.is_json() {
        return call.console.json(&ContainerRecord::new(&container, &call.store)?);
    }
    created_thing(call, container.id.as_str(), &texts(&container.names))
}

fn names(call: &Call<'_>) -> Vec<String> {
    call.flags.list(&NAME).into_iter().map(str::to_owned).collect()
}

/// Prints a new thing: its id, and below it its names.
fn created_thing(call: &Call<'_>, id: &str, names: &[String]) -> Result<(), Failure> {
    call.console.line(id)?;
    names.iter().try_for_each(|name| call.console.line(format_args!("\t{name}")))
}

fn explained(error: &Error) -> Failure {
    match error {
        Error::Meta(layerstore::MetaError::NameInUse { name, holder, .. }) => Failure::Text(format!(
            "the container name \"{name}\" is already in use by {holder}. \
             You have to remove that container to be able to reuse that name: {}",
            known::DUPLICATE_NAME
        )),
        error => Failure::Text(failure::text(error)),
    }
}
