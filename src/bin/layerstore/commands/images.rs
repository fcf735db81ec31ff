//! `layerstore images`.

use crate::args::ImagesArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ImageJson;
use crate::output::table::{Align, Table};
use crate::output::text;

pub fn run(args: &ImagesArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mut images = store.images()?;
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    if context.quiet() && !context.out().is_json() {
        return images
            .iter()
            .try_for_each(|image| context.out().line(text::short(image.id.as_str(), args.list.no_trunc)));
    }
    let mut sized = Vec::with_capacity(images.len());
    for image in images {
        // One that another process has just removed is no part of the list.
        match store.usage(&image).map_err(Failure::from) {
            Ok(usage) => sized.push((image, usage.total)),
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    if context.out().is_json() {
        return context.out().json_list(&sized, |(image, size)| ImageJson::new(image, *size));
    }
    let mut columns = vec![
        ("IMAGE", Align::Left),
        ("CREATED", Align::Left),
        ("SIZE", Align::Right),
        ("NAMES", Align::Left),
    ];
    // Where it is, if there is more than one place.
    let several = !store.image_stores().is_empty();
    if several {
        columns.push(("STORE", Align::Left));
    }
    let mut table = Table::new(columns).heading(!args.list.no_heading);
    for (image, size) in &sized {
        let id = text::short(image.id.as_str(), args.list.no_trunc).to_owned();
        let mut row = vec![id, super::created(image.created), text::size(*size), super::joined(&image.names)];
        if several {
            row.push(image.image_store.as_ref().map(|root| root.display().to_string()).unwrap_or_default());
        }
        table.row(row);
    }
    context.out().table(&table)
}
