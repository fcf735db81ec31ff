//! `layerstore du`.

use layerstore::{Name, Status, Store, Thing};
use serde_json::{Value, json};

use crate::args::DuArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::UsageJson;
use crate::output::table::{Align, Table};
use crate::output::text;

pub fn run(args: &DuArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    if args.things.is_empty() {
        return all(&store, args, context);
    }
    let mut rows = Vec::new();
    let done = super::each(&args.things, context, |key| {
        rows.push(measure(&store, &store.thing(key)?)?);
        Ok(())
    });
    if context.out().is_json() {
        context.out().json(&rows)?;
    } else if !rows.is_empty() {
        context.out().table(&table("THING", &rows, args.no_trunc))?;
    }
    done
}

fn all(store: &Store, args: &DuArgs, context: &Context) -> Result<(), Failure> {
    let images = measure_all(store, store.images()?.into_iter().map(Thing::Image))?;
    let containers = measure_all(store, store.containers()?.into_iter().map(Thing::Container))?;
    let status = store.status()?;
    let written = containers.iter().map(|one| one.unique).sum();
    if context.out().is_json() {
        let summary = summary_json(&status, written);
        return context
            .out()
            .json(&json!({ "summary": summary, "images": images, "containers": containers }));
    }
    context.out().table(&summary(&status, written))?;
    for (heading, rows) in [("IMAGE", &images), ("CONTAINER", &containers)] {
        if !rows.is_empty() {
            context.out().line("")?;
            context.out().table(&table(heading, rows, args.no_trunc))?;
        }
    }
    Ok(())
}

/// What the things of a list take, the largest first. One that another process has just removed takes nothing.
fn measure_all(store: &Store, things: impl Iterator<Item = Thing>) -> Result<Vec<UsageJson>, Failure> {
    let mut rows = Vec::new();
    for thing in things {
        match measure(store, &thing) {
            Ok(row) => rows.push(row),
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    rows.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.id.cmp(&b.id)));
    Ok(rows)
}

fn measure(store: &Store, thing: &Thing) -> Result<UsageJson, Failure> {
    let id = thing.id();
    let names: &[Name] = match thing {
        Thing::Layer(layer) => &layer.names,
        Thing::Image(image) => &image.names,
        Thing::Container(container) => &container.names,
        _ => &[],
    };
    Ok(UsageJson::new(id.kind().word(), id.as_str(), names, &store.usage(&id)?))
}

fn table(heading: &'static str, rows: &[UsageJson], whole: bool) -> Table {
    let columns = [
        (heading, Align::Left),
        ("TOTAL", Align::Right),
        ("UNIQUE", Align::Right),
        ("FILES", Align::Right),
        ("NAMES", Align::Left),
    ];
    let mut table = Table::new(columns);
    for row in rows {
        table.row([
            text::short(&row.id, whole).to_owned(),
            text::size(row.total),
            text::size(row.unique),
            row.inodes.to_string(),
            row.names.join(", "),
        ]);
    }
    table
}

fn summary(status: &Status, written: u64) -> Table {
    let mut table = Table::new([("WHAT", Align::Left), ("COUNT", Align::Right), ("SIZE", Align::Right)]);
    let sealed = status.layers.saturating_sub(status.containers);
    table.row(["sealed layers".into(), sealed.to_string(), text::size(status.layer_bytes)]);
    table.row(["containers".into(), status.containers.to_string(), text::size(written)]);
    table.row(["kept blobs".into(), String::new(), text::size(status.kept_blob_bytes)]);
    table.row(["database".into(), String::new(), text::size(status.database_bytes)]);
    table
}

fn summary_json(status: &Status, written: u64) -> Value {
    json!({
        "layers": status.layers,
        "images": status.images,
        "containers": status.containers,
        "layer_bytes": status.layer_bytes,
        "layer_inodes": status.layer_inodes,
        "container_bytes": written,
        "kept_blob_bytes": status.kept_blob_bytes,
        "item_bytes": status.item_bytes,
        "database_bytes": status.database_bytes,
    })
}
