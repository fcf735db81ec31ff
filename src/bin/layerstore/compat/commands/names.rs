//! `get-names`, `add-names`, `remove-names`, `set-names`.

use layerstore::{Error, Kind, LookupError, MetaError, Name, Thing, ThingId, WriteTxn};

use super::super::call::Call;
use super::super::failure::Failure;
use super::super::lookup;
use super::super::records::texts;
use super::super::table::NAME;

pub fn get(call: &Call<'_>) -> Result<(), Failure> {
    let thing = lookup::known_thing(&call.store, call.arg(0))?;
    let names = texts(names_of(&thing));
    if call.is_json() {
        return call.console.json(&names);
    }
    names.iter().try_for_each(|name| call.console.line(name))
}

/// New names stand before those that are there.
pub fn add(call: &Call<'_>) -> Result<(), Failure> {
    change(call, |held, given| given.into_iter().chain(held).collect())
}

pub fn remove(call: &Call<'_>) -> Result<(), Failure> {
    change(call, |mut held, given| {
        held.retain(|name| !given.contains(name));
        held
    })
}

pub fn set(call: &Call<'_>) -> Result<(), Failure> {
    change(call, |_, given| given)
}

fn change(call: &Call<'_>, names: impl Fn(Vec<Name>, Vec<Name>) -> Vec<Name>) -> Result<(), Failure> {
    let thing = lookup::known_thing(&call.store, call.arg(0))?;
    let given = call.flags.list(&NAME).into_iter().map(str::parse).collect::<Result<Vec<Name>, _>>();
    let given = given.map_err(|error| Failure::from(Error::from(error)))?;
    let id = thing.id();
    let changed = call.store.write(|txn| {
        let mut wanted: Vec<Name> = Vec::new();
        let held = match txn.names(&id) {
            // An image of a store that is only read gets a record here, with its names.
            Err(Error::InOtherStore { .. }) if id.kind() == Kind::Image => names_of(&thing).to_vec(),
            held => held?,
        };
        for name in names(held, given.clone()) {
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        take(txn, &id, &wanted)?;
        Ok(wanted)
    })?;
    if !call.is_json() {
        return Ok(());
    }
    // The reference's word for no names at all.
    if changed.is_empty() { call.console.json(&()) } else { call.console.json(&texts(&changed)) }
}

/// Gives a thing these names, whoever of its kind has them.
fn take(txn: &WriteTxn<'_>, id: &ThingId, names: &[Name]) -> Result<(), Error> {
    loop {
        match txn.set_names(id, names) {
            Err(Error::Meta(MetaError::NameInUse { kind, name, holder })) => {
                let holder =
                    id_of_kind(id.kind(), &holder)?.ok_or(LookupError::NotFound { kind, key: holder })?;
                txn.remove_name(&holder, &name.parse()?)?;
            }
            done => return done,
        }
    }
}

fn id_of_kind(kind: Kind, id: &str) -> Result<Option<ThingId>, Error> {
    Ok(Some(match kind {
        Kind::Layer => ThingId::Layer(id.parse()?),
        Kind::Image => ThingId::Image(id.parse()?),
        Kind::Container => ThingId::Container(id.parse()?),
    }))
}

fn names_of(thing: &Thing) -> &[Name] {
    match thing {
        Thing::Layer(layer) => &layer.names,
        Thing::Image(image) => &image.names,
        Thing::Container(container) => &container.names,
        _ => &[],
    }
}
