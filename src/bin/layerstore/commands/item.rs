//! `layerstore item`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::args::{ItemArgs, ItemCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ItemJson;
use crate::output::table::{Align, Table};
use crate::output::text;

pub fn run(args: ItemArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    match args.command {
        ItemCommand::List { thing } => {
            let items = store.items(store.thing(&thing)?.id())?;
            if context.out().is_json() {
                let list: Vec<_> = items.iter().map(ItemJson::from).collect();
                return context.out().json(&list);
            }
            if context.quiet() {
                return items.iter().try_for_each(|item| context.out().line(text::printable(&item.key)));
            }
            let mut table =
                Table::new([("KEY", Align::Left), ("SIZE", Align::Right), ("DIGEST", Align::Left)]);
            for item in items {
                table.row([item.key, text::size(item.size), item.digest.to_string()]);
            }
            context.out().table(&table)
        }
        ItemCommand::Get { thing, key, output } => {
            let bytes = store.item(store.thing(&thing)?.id(), &key)?;
            // Most items are documents, which a terminal shows well.
            let is_text = std::str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\x1b'));
            if is_text && output == Path::new("-") {
                return context.out().bytes(&bytes);
            }
            super::write_to(&output, "this item", (&store, context), |out| {
                out.write_all(&bytes).map_err(Failure::Output)
            })
        }
        ItemCommand::Put { thing, key, file } => {
            let id = store.thing(&thing)?.id();
            let bytes = read(&file).map_err(|source| Failure::File { action: "read", path: file, source })?;
            Ok(store.write(|txn| txn.put_item(&id, &key, &bytes))?)
        }
        ItemCommand::Rm { thing, key } => {
            let id = store.thing(&thing)?.id();
            Ok(store.write(|txn| txn.remove_item(&id, &key))?)
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
