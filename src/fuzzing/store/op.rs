//! What may happen to a store: an operation as bytes say it, and doing it.

use std::time::Duration;

use super::super::fields::Fields;
use super::snapshots::Snapshot;
use crate::archive::{Entry, EntryKind, Writer};
use crate::check::{CheckLevel, CheckOptions};
use crate::dedup::DedupOptions;
use crate::error::{Error, ImportError};
use crate::oci::CommitOptions;
use crate::store::{
    ApplyOptions, ContainerOptions, ImageOptions, LayerOptions, NewItem, Store, ThingId, WriteTxn,
};
use crate::types::{ImageId, LayerId, Name, Timestamp};

/// Few, so that they meet: some are names of things and ids of others.
const NAMES: [&str; 5] = ["a", "web", "ca", "ia", "la"];
const CONTAINERS: [&str; 3] = ["ca", "cab", "cb"];
const IMAGES: [&str; 3] = ["ia", "iab", "ib"];
/// The latter are also what the layers of containers are called.
const NEW_LAYERS: [&str; 6] = ["la", "lab", "lb", "lca", "lcab", "lcb"];
/// What layers are there, snapshots by their names.
const LAYERS: [&str; 8] = ["la", "lab", "lb", "lca", "lcab", "lcb", "snapshot:x", "snapshot:y"];
const LEASES: [&str; 2] = ["one", "two"];
const KEYS: [&str; 2] = ["spec", "state"];
pub(super) const FILES: [&str; 3] = ["f", "g", "h"];

/// The kinds of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Layer,
    Image,
    Container,
}

/// A thing by kind and id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) id: String,
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) enum Op {
    CreateContainer { id: String, image: Option<String>, names: Vec<String> },
    RemoveContainer(String),
    CreateLayer { id: String, parent: Option<String>, names: Vec<String> },
    PutLayer { id: String, parent: Option<String>, names: Vec<String>, files: Vec<(String, u8)> },
    CopyLayer { id: String, of: String, parent: Option<String> },
    ApplyDiff { id: String, files: Vec<(String, u8)> },
    Seal(String),
    Unseal(String),
    RemoveLayer(String),
    CreateImage { id: String, layer: Option<String>, names: Vec<String>, content: Vec<u8> },
    RemoveImage(String),
    Write(Vec<Change>),
    Commit(String),
    Lease { id: String, of: Target },
    EndLease(String),
    Snapshot(Snapshot),
    Dedup,
    Gc,
    Check,
    Reopen,
}

/// One change of a write transaction.
#[derive(Clone, Debug)]
pub(super) enum Change {
    SetNames(Target, Vec<String>),
    AddName(Target, String),
    RemoveName(Target, String),
    MoveName(String, String),
    SetMetadata(Target, String),
    PutItem(Target, String, Vec<u8>),
    RemoveItem(Target, String),
}

pub(super) fn choose<const N: usize>(fields: &mut Fields<'_>, list: [&str; N]) -> String {
    list.get(usize::from(fields.byte()) % N).map_or_else(String::new, ToString::to_string)
}

fn names(fields: &mut Fields<'_>) -> Vec<String> {
    let mut names: Vec<_> = (0..fields.byte() % 3).map(|_| choose(fields, NAMES)).collect();
    names.dedup();
    names
}

/// Bytes of an item: some are more than the database keeps in one row.
fn content(fields: &mut Fields<'_>) -> Vec<u8> {
    let byte = fields.byte();
    let length = if byte > 250 { 300_000 } else { usize::from(byte % 50) };
    vec![byte % 3; length]
}

fn files(fields: &mut Fields<'_>) -> Vec<(String, u8)> {
    let mut files: Vec<_> =
        (0..fields.byte() % 4).map(|_| (choose(fields, FILES), fields.byte() % 2)).collect();
    files.sort();
    files.dedup_by(|one, other| one.0 == other.0);
    files
}

impl Target {
    fn new(fields: &mut Fields<'_>) -> Self {
        match fields.byte() % 3 {
            0 => Target { kind: Kind::Layer, id: choose(fields, LAYERS) },
            1 => Target { kind: Kind::Image, id: choose(fields, IMAGES) },
            _ => Target { kind: Kind::Container, id: choose(fields, CONTAINERS) },
        }
    }

    fn thing(&self, store: &Store) -> Result<ThingId, Error> {
        Ok(match self.kind {
            Kind::Layer => ThingId::Layer(layer(store, &self.id)?),
            Kind::Image => ThingId::Image(self.id.parse()?),
            Kind::Container => ThingId::Container(self.id.parse()?),
        })
    }
}

impl Op {
    pub(super) fn new(number: u8, fields: &mut Fields<'_>) -> Self {
        let layer = |fields: &mut Fields<'_>| choose(fields, LAYERS);
        let new = |fields: &mut Fields<'_>| choose(fields, NEW_LAYERS);
        match number % 23 {
            0 => Op::CreateContainer {
                id: choose(fields, CONTAINERS),
                image: fields.option(|fields| choose(fields, IMAGES)),
                names: names(fields),
            },
            1 => Op::RemoveContainer(choose(fields, CONTAINERS)),
            2 => Op::CreateLayer { id: new(fields), parent: fields.option(layer), names: names(fields) },
            3 => {
                let (id, parent) = (new(fields), fields.option(layer));
                Op::PutLayer { id, parent, names: names(fields), files: files(fields) }
            }
            4 => Op::ApplyDiff { id: layer(fields), files: files(fields) },
            5 => Op::Seal(layer(fields)),
            6 => Op::Unseal(layer(fields)),
            7 => Op::RemoveLayer(layer(fields)),
            8 => {
                let (id, layer) = (choose(fields, IMAGES), fields.option(layer));
                Op::CreateImage { id, layer, names: names(fields), content: content(fields) }
            }
            9 => Op::RemoveImage(choose(fields, IMAGES)),
            10 => Op::Write((0..=fields.byte() % 3).map(|_| Change::new(fields)).collect()),
            11 => Op::Commit(choose(fields, CONTAINERS)),
            12 => Op::Lease { of: Target::new(fields), id: choose(fields, LEASES) },
            13 => Op::EndLease(choose(fields, LEASES)),
            14 => Op::Gc,
            15 => Op::Check,
            16 => Op::Reopen,
            17 => Op::CopyLayer { id: new(fields), of: layer(fields), parent: fields.option(layer) },
            18 => Op::Dedup,
            _ => Op::Snapshot(Snapshot::new(fields)),
        }
    }

    /// Does it. [`Op::Reopen`] is the caller's.
    pub(super) fn perform(&self, store: &Store) -> Result<(), Error> {
        match self {
            Op::CreateContainer { id, image, names } => {
                let mut options = ContainerOptions { names: names.clone(), ..ContainerOptions::default() };
                options.id = Some(id.parse()?);
                options.layer = Some(layer_of(id).parse()?);
                let image = image.as_ref().map(|image| image.parse()).transpose()?;
                store.create_container(image.as_ref(), &options).map(drop)
            }
            Op::RemoveContainer(id) => store.remove_container(&id.parse()?),
            Op::CreateLayer { id, parent, names } => {
                let (parent, options) = new_layer(store, id, parent.as_ref(), names)?;
                store.create_layer(parent.as_ref(), &options).map(drop)
            }
            Op::PutLayer { id, parent, names, files } => {
                let (parent, options) = new_layer(store, id, parent.as_ref(), names)?;
                store.put_layer(parent.as_ref(), &options, &*tar(files)?).map(drop)
            }
            Op::CopyLayer { id, of, parent } => {
                let (parent, mut options) = new_layer(store, id, parent.as_ref(), &[])?;
                options.template = Some(layer(store, of)?);
                store.create_layer(parent.as_ref(), &options).map(drop)
            }
            Op::ApplyDiff { id, files } => {
                store.apply_diff(&layer(store, id)?, &*tar(files)?, &ApplyOptions::default()).map(drop)
            }
            Op::Seal(id) => store.seal(&layer(store, id)?).map(drop),
            Op::Unseal(id) => store.unseal(&layer(store, id)?).map(drop),
            Op::RemoveLayer(id) => store.remove_layer(&layer(store, id)?),
            Op::CreateImage { id, layer: top, names, content } => {
                let mut options = ImageOptions { names: names.clone(), ..ImageOptions::default() };
                options.id = Some(id.parse()?);
                options.top_layer = top.as_ref().map(|top| layer(store, top)).transpose()?;
                options.items = vec![NewItem::new("manifest", content.clone())];
                store.create_image(&options).map(drop)
            }
            Op::RemoveImage(id) => store.remove_image(&id.parse()?).map(drop),
            Op::Write(changes) => {
                store.write(|txn| changes.iter().try_for_each(|change| change.perform(store, txn)))
            }
            Op::Commit(id) => {
                let created = Some(Timestamp { seconds: 1, nanoseconds: 0 });
                store.commit(&id.parse()?, &CommitOptions { created, ..CommitOptions::default() }).map(drop)
            }
            Op::Lease { id, of } => {
                store.lease(&id.parse()?, of.thing(store)?, Duration::from_secs(1 << 20)).map(drop)
            }
            Op::EndLease(id) => store.end_lease(&id.parse()?).map(drop),
            Op::Snapshot(snapshot) => snapshot.perform(store),
            Op::Dedup => match store.dedup(&DedupOptions::default()) {
                // A tmpfs cannot.
                Err(Error::CannotShare { .. }) => Ok(()),
                done => done.map(drop),
            },
            Op::Gc => store.gc(false).map(drop),
            Op::Check => {
                store.check(&CheckOptions { level: CheckLevel::Deep, ..CheckOptions::default() }).map(drop)
            }
            Op::Reopen => Ok(()),
        }
    }
}

/// What the layer of a container is called.
pub(super) fn layer_of(container: &str) -> String {
    format!("l{container}")
}

/// The id of a layer, which is a random one for those that are known by the name of a snapshot.
fn layer(store: &Store, id: &str) -> Result<LayerId, Error> {
    match id.starts_with("snapshot:") {
        true => Ok(store.layer(id)?.id),
        false => Ok(id.parse()?),
    }
}

/// What the model has no kind of error for.
pub(super) fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    ImportError::Io(std::io::Error::other(error)).into()
}

fn new_layer(
    store: &Store,
    id: &str,
    parent: Option<&String>,
    names: &[String],
) -> Result<(Option<LayerId>, LayerOptions), Error> {
    let options = LayerOptions { names: names.to_vec(), ..LayerOptions::with_id(id.parse()?) };
    Ok((parent.map(|parent| layer(store, parent)).transpose()?, options))
}

/// The tar of some files.
pub(super) fn tar(files: &[(String, u8)]) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        let content = [*content; 10];
        let mut entry = Entry::new(name.as_bytes(), EntryKind::File);
        (entry.size, entry.stored) = (10, 10);
        writer.append(&entry, &mut content.as_slice()).map_err(ImportError::from)?;
    }
    Ok(writer.finish().map_err(ImportError::from)?)
}

impl Change {
    fn new(fields: &mut Fields<'_>) -> Self {
        let of = Target::new(fields);
        match fields.byte() % 7 {
            0 => Change::SetNames(of, names(fields)),
            1 => Change::AddName(of, choose(fields, NAMES)),
            2 => Change::RemoveName(of, choose(fields, NAMES)),
            3 => Change::MoveName(choose(fields, IMAGES), choose(fields, NAMES)),
            4 => Change::SetMetadata(of, format!("metadata {}", fields.byte() % 3)),
            5 => Change::PutItem(of, choose(fields, KEYS), content(fields)),
            _ => Change::RemoveItem(of, choose(fields, KEYS)),
        }
    }

    fn perform(&self, store: &Store, txn: &WriteTxn<'_>) -> Result<(), Error> {
        match self {
            Change::SetNames(of, names) => {
                let names: Vec<Name> = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
                txn.set_names(of.thing(store)?, &names)
            }
            Change::AddName(of, name) => txn.add_name(of.thing(store)?, &name.parse()?),
            Change::RemoveName(of, name) => txn.remove_name(of.thing(store)?, &name.parse()?),
            Change::MoveName(to, name) => txn.move_name(&to.parse::<ImageId>()?, &name.parse()?),
            Change::SetMetadata(of, text) => txn.set_metadata(of.thing(store)?, text),
            Change::PutItem(of, key, content) => txn.put_item(of.thing(store)?, key, content),
            Change::RemoveItem(of, key) => txn.remove_item(of.thing(store)?, key),
        }
    }
}
