//! `images`, `image`, `images-by-digest`.

use layerstore::{Digest, Image, Item};

use super::super::call::Call;
use super::super::failure::{self, Failure};
use super::super::lookup;
use super::super::records::{ImageRecord, digests, keys};
use super::super::table::QUIET;
use super::sizes;

pub fn list(call: &Call<'_>) -> Result<(), Failure> {
    let images = all(call)?;
    if call.is_json() && images.is_empty() {
        return call.console.json(&());
    }
    print(call, &images)
}

pub fn list_by_digest(call: &Call<'_>) -> Result<(), Failure> {
    let word = call.arg(0);
    let digest: Digest =
        word.parse().map_err(|_| Failure::Text(format!("{word}: {}", failure::of_digest(word))))?;
    let mut images = all(call)?;
    images.retain(|(image, items)| digests(image, items).contains(&digest));
    print(call, &images)
}

pub fn show(call: &Call<'_>) -> Result<(), Failure> {
    let mut images = Vec::new();
    for word in &call.args {
        if let Some(image) = lookup::image(&call.store, word)? {
            let items = call.store.items(&image)?;
            images.push((image, items));
        }
    }
    if call.is_json() {
        call.console.json(&records(&images))?;
    } else {
        images.iter().try_for_each(|(image, items)| describe(call, image, items))?;
    }
    if images.len() == call.args.len() { Ok(()) } else { Err(Failure::Told) }
}

/// Every image with its data items: the own ones and then those of each other store, the oldest first.
fn all(call: &Call<'_>) -> Result<Vec<(Image, Vec<Item>)>, Failure> {
    let mut images = call.store.images()?;
    images.sort_by_cached_key(|image| {
        (call.store_order(image.image_store.as_deref()), image.created, image.id.clone())
    });
    let with_items = images.into_iter().map(|image| {
        let items = call.store.items(&image)?;
        Ok((image, items))
    });
    with_items.collect()
}

fn records(images: &[(Image, Vec<Item>)]) -> Vec<ImageRecord> {
    images.iter().map(|(image, items)| ImageRecord::new(image, items)).collect()
}

fn print(call: &Call<'_>, images: &[(Image, Vec<Item>)]) -> Result<(), Failure> {
    if call.is_json() {
        return call.console.json(&records(images));
    }
    for (image, items) in images {
        call.console.line(&image.id)?;
        if call.flags.is(&QUIET) {
            continue;
        }
        for name in &image.names {
            call.console.line(format_args!("\tname: {name}"))?;
        }
        for digest in digests(image, items) {
            call.console.line(format_args!("\tdigest: {digest}"))?;
        }
        for key in keys(items) {
            call.console.line(format_args!("\tdata: {key}"))?;
        }
    }
    Ok(())
}

fn describe(call: &Call<'_>, image: &Image, items: &[Item]) -> Result<(), Failure> {
    let console = call.console;
    console.line(format_args!("ID: {}", image.id))?;
    for name in &image.names {
        console.line(format_args!("Name: {name}"))?;
    }
    let top = image.top_layer.as_ref().map(ToString::to_string).unwrap_or_default();
    console.line(format_args!("Top Layer: {top}"))?;
    for layer in &image.mapped_top_layers {
        console.line(format_args!("Top Layer: {layer}"))?;
    }
    for digest in digests(image, items) {
        console.line(format_args!("Digest: {digest}"))?;
    }
    for key in keys(items) {
        console.line(format_args!("Data: {key}"))?;
    }
    match sizes::of_image(&call.store, image, items) {
        Ok(size) => console.line(format_args!("Size: {size}"))?,
        Err(failure) => console.line(format_args!("Size unknown: {}", failure.text()))?,
    }
    if image.image_store.is_some() { console.line("Read Only: true") } else { Ok(()) }
}
