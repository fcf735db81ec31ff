//! `containers`, `container`, and the directories of containers and images.

use layerstore::Container;

use super::super::call::Call;
use super::super::failure::Failure;
use super::super::lookup;
use super::super::records::{ContainerRecord, keys};
use super::sizes;

pub fn list(call: &Call<'_>) -> Result<(), Failure> {
    let mut containers = call.store.containers()?;
    containers.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    if call.is_json() {
        return call.console.json(&records(call, &containers)?);
    }
    for container in &containers {
        call.console.line(&container.id)?;
        for name in &container.names {
            call.console.line(format_args!("\tname: {name}"))?;
        }
        for key in keys(&call.store.items(container)?) {
            call.console.line(format_args!("\tdata: {key}"))?;
        }
    }
    Ok(())
}

pub fn show(call: &Call<'_>) -> Result<(), Failure> {
    let mut containers = Vec::new();
    for word in &call.args {
        containers.extend(lookup::container(&call.store, word)?);
    }
    if call.is_json() {
        call.console.json(&records(call, &containers)?)?;
    } else {
        containers.iter().try_for_each(|container| describe(call, container))?;
    }
    if containers.len() == call.args.len() { Ok(()) } else { Err(Failure::Told) }
}

pub fn directory(call: &Call<'_>) -> Result<(), Failure> {
    let container = lookup::known_container(&call.store, call.arg(0))?;
    call.console.line(call.store.container_directory(&container.id)?.display())
}

pub fn run_directory(call: &Call<'_>) -> Result<(), Failure> {
    let container = lookup::known_container(&call.store, call.arg(0))?;
    call.console.line(call.store.run_directory(&container.id)?.display())
}

pub fn image_directory(call: &Call<'_>) -> Result<(), Failure> {
    let image = lookup::known_image(&call.store, call.arg(0))?;
    call.console.line(call.store.image_directory(&image.id)?.display())
}

pub fn image_run_directory(call: &Call<'_>) -> Result<(), Failure> {
    let image = lookup::known_image(&call.store, call.arg(0))?;
    call.console.line(call.store.image_run_directory(&image.id)?.display())
}

fn records(call: &Call<'_>, containers: &[Container]) -> Result<Vec<ContainerRecord>, Failure> {
    containers.iter().map(|container| ContainerRecord::new(container, &call.store)).collect()
}

fn describe(call: &Call<'_>, container: &Container) -> Result<(), Failure> {
    let console = call.console;
    console.line(format_args!("ID: {}", container.id))?;
    for name in &container.names {
        console.line(format_args!("Name: {name}"))?;
    }
    match &container.image {
        None => console.line("Image: ")?,
        Some(image) => {
            console.line(format_args!("Image: {image}"))?;
            for name in lookup::image(&call.store, image.as_str())?.iter().flat_map(|image| &image.names) {
                console.line(format_args!("Image name: {name}"))?;
            }
        }
    }
    match sizes::of_container(&call.store, container) {
        Ok(size) => console.line(format_args!("Size: {size}"))?,
        Err(failure) => console.line(format_args!("Size unknown: {}", failure.text()))?,
    }
    console.line(format_args!("Layer: {}", container.layer))?;
    for key in keys(&call.store.items(container)?) {
        console.line(format_args!("Data: {key}"))?;
    }
    Ok(())
}
