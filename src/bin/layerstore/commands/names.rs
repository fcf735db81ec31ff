//! `layerstore names`.

use layerstore::{Error, Name, Thing, ThingId};

use crate::args::NamesArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json;

pub fn run(args: &NamesArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let found = store.thing(&args.thing)?;
    let id = found.id();
    let image = match &id {
        ThingId::Image(image) if args.take => Some(image),
        other if args.take => {
            let found = other.kind().word();
            return Err(Failure::WrongKind { key: args.thing.clone(), found, wanted: "an image" });
        }
        _ => None,
    };
    let (add, remove, set) = (parsed(&args.add)?, parsed(&args.remove)?, parsed(&args.set)?);
    if add.is_empty() && remove.is_empty() && set.is_empty() {
        return print(&found, context);
    }
    // A misspelt name would stay, and nobody would know.
    if let Some(name) = remove.iter().find(|name| !names(&found).contains(name)) {
        return Err(Failure::NoSuchName { thing: args.thing.clone(), name: name.to_string() });
    }
    store.write(|txn| {
        if !set.is_empty() {
            txn.set_names(&id, &set)?;
        }
        remove.iter().try_for_each(|name| txn.remove_name(&id, name))?;
        add.iter().try_for_each(|name| match image {
            Some(image) => txn.move_name(image, name),
            None => txn.add_name(&id, name),
        })
    })?;
    if context.out().is_json() { print(&store.thing(id.as_str())?, context) } else { Ok(()) }
}

fn parsed(names: &[String]) -> Result<Vec<Name>, Error> {
    names.iter().map(|name| Ok(name.parse()?)).collect()
}

fn names(thing: &Thing) -> &[Name] {
    match thing {
        Thing::Layer(layer) => &layer.names,
        Thing::Image(image) => &image.names,
        Thing::Container(container) => &container.names,
        _ => &[],
    }
}

fn print(thing: &Thing, context: &Context) -> Result<(), Failure> {
    let names = names(thing);
    if context.out().is_json() {
        return context.out().json(&json::names(names));
    }
    names.iter().try_for_each(|name| context.out().line(name))
}
