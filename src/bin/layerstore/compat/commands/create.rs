//! `create-container`.

use layerstore::{ContainerOptions, Error};

use super::super::call::Call;
use super::super::failure::{Failure, known};
use super::super::lookup;
use super::super::records::{ContainerRecord, texts};
use super::super::table::{ID, NAME, VOLATILE};
use super::metadata;

pub fn container(call: &Call<'_>) -> Result<(), Failure> {
    let image = match call.arg(0) {
        "" => None,
        word => Some(lookup::known_image(&call.store, word)?),
    };
    let mut options = ContainerOptions::default();
    options.id = call.flags.text(&ID).map(str::parse).transpose().map_err(Error::from)?;
    options.names = call.flags.list(&NAME).into_iter().map(str::to_owned).collect();
    options.metadata = metadata::given(call)?;
    if call.flags.is(&VOLATILE) {
        options.mount_options.push("volatile".to_owned());
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

/// Prints a new thing: its id, and below it its names.
fn created_thing(call: &Call<'_>, id: &str, names: &[String]) -> Result<(), Failure> {
    call.console.line(id)?;
    names.iter().try_for_each(|name| call.console.line(format_args!("\t{name}")))
}

fn explained(error: &Error) -> Failure {
    match error {
        Error::Meta(layerstore::MetaError::NameInUse { name, holder, .. }) => Failure::Text(format!(
            "the container name \"{name}\" is already in use by {holder}. You have to remove that container to be able to reuse that name: {}",
            known::DUPLICATE_NAME
        )),
        error => Failure::Text(super::super::failure::text(error)),
    }
}
