//! `layerstore containers`.

use std::collections::HashMap;
use std::mem::ManuallyDrop;

use layerstore::{Container, ImageId, Mount, Store};

use crate::args::ContainersArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ContainerJson;
use crate::output::table::{Align, Table};
use crate::output::text;

/// The page cache where each record is read once. Memory that is used for the first time costs more than a page that is read again.
const READ_ONCE: usize = 256 * 1024;

pub fn run(args: &ContainersArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store_with(|options| match args.size {
        // What is measured is looked for in many places.
        true => options,
        false => options.page_cache(READ_ONCE),
    })?;
    // Nothing comes after the list: to free thousands one by one would take a twentieth of the time.
    let found = ManuallyDrop::new(store.containers()?);
    // What is sorted is moved often, and a container is large.
    let mut containers: Vec<&Container> = found.iter().collect();
    containers.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    if context.quiet() && !context.out().is_json() {
        return containers
            .iter()
            .try_for_each(|one| context.out().line(text::short(one.id.as_str(), args.list.no_trunc)));
    }
    let mounts = store.mounts()?;
    let mut rows = Vec::with_capacity(containers.len());
    for container in containers {
        let size = match args.size.then(|| store.usage(container)).transpose().map_err(Failure::from) {
            // One that another process has just removed is no part of the list.
            Err(failure) if failure.is_not_found() => continue,
            usage => usage?.map(|usage| usage.unique),
        };
        let mount = mounts.get(&container.layer);
        rows.push(Row { container, mount, size });
    }
    if context.out().is_json() {
        return context.out().json_list(&rows, |row| ContainerJson::new(row.container, row.mount, row.size));
    }
    print_table(&rows, &image_names(&store)?, args, context)
}

struct Row<'c> {
    container: &'c Container,
    mount: Option<&'c Mount>,
    /// Only if it was asked for.
    size: Option<u64>,
}

fn image_names(store: &Store) -> Result<HashMap<ImageId, String>, Failure> {
    let images = store.images()?.into_iter();
    Ok(images.filter_map(|image| Some((image.id, image.names.first()?.to_string()))).collect())
}

fn print_table(
    rows: &[Row<'_>],
    images: &HashMap<ImageId, String>,
    args: &ContainersArgs,
    context: &Context,
) -> Result<(), Failure> {
    let mut columns = vec![
        ("CONTAINER", Align::Left),
        ("IMAGE", Align::Left),
        ("CREATED", Align::Left),
        ("MOUNTED", Align::Left),
    ];
    columns.extend(args.size.then_some(("SIZE", Align::Right)));
    columns.push(("NAMES", Align::Left));
    let mut table = Table::new(columns).heading(!args.list.no_heading);
    let short = |id: &str| text::short(id, args.list.no_trunc).to_owned();
    for Row { container, mount, size } in rows {
        let image = |id: &ImageId| images.get(id).cloned().unwrap_or_else(|| short(id.as_str()));
        let mut cells = vec![
            short(container.id.as_str()),
            container.image.as_ref().map(image).unwrap_or_default(),
            super::created(container.created),
            mount.map(mounted).unwrap_or_default(),
        ];
        cells.extend(size.map(text::size));
        cells.push(super::joined(&container.names));
        table.row(cells);
    }
    context.out().table(&table)
}

fn mounted(mount: &Mount) -> String {
    match mount.count {
        0 | 1 => "yes".to_owned(),
        count => format!("{count} times"),
    }
}
