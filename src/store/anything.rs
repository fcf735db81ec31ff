//! What can be asked of, and done to, a thing of any kind in one call. What must be seen together with more is done in
//! [`Store::write`].

use crate::error::{Error, LookupError};
use crate::image::{Container, Image, Item, Kind, disguised_as, find_container, find_image, find_layer};
use crate::layer::Layer;
use crate::types::Name;

use super::view::View;
use super::{Store, Thing, ThingId};

/// Things of several kinds, as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Things {
    /// Layers, by id.
    pub layers: Vec<Layer>,
    /// Images, by id.
    pub images: Vec<Image>,
    /// Containers, by id.
    pub containers: Vec<Container>,
}

impl Store {
    /// Everything of these kinds at one moment: an image in it has its layer in it, and a container its image.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ContainerOptions, Kind, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// store.create_container(None, &ContainerOptions::named("web"))?;
    /// let things = store.list(&[Kind::Layer, Kind::Container])?;
    /// assert_eq!(things.layers[0].id, things.containers[0].layer);
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn list(&self, kinds: &[Kind]) -> Result<Things, Error> {
        let txn = self.begin_read()?;
        let mut things = Things::default();
        if kinds.contains(&Kind::Layer) {
            things.layers = txn.layers()?;
        }
        if kinds.contains(&Kind::Image) {
            things.images = txn.images()?;
        }
        if kinds.contains(&Kind::Container) {
            let containers = txn.containers()?.into_iter().map(|record| txn.container_value(record));
            things.containers = containers.collect::<Result<_, _>>()?;
        }
        Ok(things)
    }

    /// The thing that `key` finds, of the first of these kinds that has one: by id, name or digest, else by the beginning of
    /// its id, as [`layer`](Self::layer), [`image`](Self::image) and [`container`](Self::container) do. What is exact wins over
    /// what is short across the kinds, too.
    ///
    /// Returns [`Error::Lookup`] if nothing is found, or more than one thing of the first kind that has any.
    pub fn lookup(&self, key: &str, kinds: &[Kind]) -> Result<Thing, Error> {
        let txn = self.begin_read()?;
        let mut short = None;
        for kind in kinds {
            match find(&txn, *kind, key) {
                Err(Error::Lookup(LookupError::NotFound { .. })) => {}
                // A thing of another kind may be called just this.
                found if is_short(&found, key) => {
                    short.get_or_insert(found);
                }
                Ok(thing) if thing.id().as_str() != key => {
                    refuse_disguised(&txn, &thing, key, kinds)?;
                    return Ok(thing);
                }
                found => return found,
            }
        }
        if let Some(found) = short {
            return found;
        }
        let kind = match kinds {
            [only] => only.word(),
            _ => "container, image or layer",
        };
        Err(LookupError::NotFound { kind, key: key.to_owned() }.into())
    }

    /// The container, else the image, else the layer that `key` finds; one that is called just this before one whose id
    /// begins with it.
    ///
    /// Returns [`Error::Lookup`] if nothing is found, or more than one thing of the first kind that has any.
    pub fn thing(&self, key: &str) -> Result<Thing, Error> {
        self.lookup(key, &[Kind::Container, Kind::Image, Kind::Layer])
    }

    /// Whether `key` finds a thing of any kind.
    ///
    /// Returns [`Error::Lookup`] if it is the beginning of several ids, and [`Error::Meta`] if the database fails.
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        match self.thing(key) {
            Err(Error::Lookup(LookupError::NotFound { .. })) => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// The names of a thing.
    ///
    /// Returns [`Error::Lookup`] if it is not there.
    pub fn names(&self, of: impl Into<ThingId>) -> Result<Vec<Name>, Error> {
        Ok(match self.get(&of.into())? {
            Thing::Layer(layer) => layer.names,
            Thing::Image(image) => image.names,
            Thing::Container(container) => container.names,
        })
    }

    /// The metadata of a thing.
    ///
    /// Returns [`Error::Lookup`] if it is not there.
    pub fn metadata(&self, of: impl Into<ThingId>) -> Result<String, Error> {
        Ok(match self.get(&of.into())? {
            Thing::Layer(layer) => layer.metadata,
            Thing::Image(image) => image.metadata,
            Thing::Container(container) => container.metadata,
        })
    }

    /// What is known of a data item without reading it: its size and digest.
    ///
    /// Returns [`Error::Lookup`] if the thing has none with this key.
    pub fn item_info(&self, of: impl Into<ThingId>, key: &str) -> Result<Item, Error> {
        let of = of.into();
        let txn = self.begin_read()?;
        let record = txn.item(of.owner(), of.as_str(), key)?.map(|(_, record)| record);
        let missing = || {
            let (kind, id) = (of.kind().word(), of.as_str().to_owned());
            LookupError::NoItem { kind, id, key: key.to_owned() }
        };
        Ok(Item::from_record(key.to_owned(), record.ok_or_else(missing)?)?)
    }

    /// Gives a thing exactly these names, in a transaction of its own. If others change the names too, one of the two is
    /// undone: [`add_names`](Self::add_names) and [`remove_names`](Self::remove_names) undo nothing.
    ///
    /// Returns what [`WriteTxn::set_names`](super::WriteTxn::set_names) does.
    pub fn set_names(&self, of: impl Into<ThingId>, names: &[Name]) -> Result<(), Error> {
        let of = of.into();
        self.write(|txn| txn.set_names(&of, names))
    }

    /// Gives a thing these names besides those that it has, in a transaction of its own.
    ///
    /// Returns [`Error::Meta`] with [`NameInUse`](crate::MetaError::NameInUse) if another thing of the kind has one, and
    /// [`Error::Lookup`] if the thing is not there. Nothing is changed then.
    pub fn add_names(&self, of: impl Into<ThingId>, names: &[Name]) -> Result<(), Error> {
        let of = of.into();
        self.write(|txn| names.iter().try_for_each(|name| txn.add_name(&of, name)))
    }

    /// Gives a thing these names, and takes them from whichever things of its kind have them, in a transaction of its own.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn move_names(&self, to: impl Into<ThingId>, names: &[Name]) -> Result<(), Error> {
        let to = to.into();
        self.write(|txn| names.iter().try_for_each(|name| txn.move_name(&to, name)))
    }

    /// Takes these names from a thing, in a transaction of its own; those that it does not have do not matter.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn remove_names(&self, of: impl Into<ThingId>, names: &[Name]) -> Result<(), Error> {
        let of = of.into();
        self.write(|txn| names.iter().try_for_each(|name| txn.remove_name(&of, name)))
    }

    /// Replaces a thing's metadata, in a transaction of its own.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn set_metadata(&self, of: impl Into<ThingId>, metadata: &str) -> Result<(), Error> {
        let of = of.into();
        self.write(|txn| txn.set_metadata(&of, metadata))
    }

    /// Sets a flag of a thing to a JSON value, in a transaction of its own.
    ///
    /// Returns what [`WriteTxn::set_flag`](super::WriteTxn::set_flag) does.
    pub fn set_flag(&self, of: impl Into<ThingId>, flag: &str, value: &str) -> Result<(), Error> {
        let of = of.into();
        self.write(|txn| txn.set_flag(&of, flag, value))
    }

    /// Takes a flag from a thing, in a transaction of its own; nothing happens if it does not have it.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn clear_flag(&self, of: impl Into<ThingId>, flag: &str) -> Result<(), Error> {
        let of = of.into();
        self.write(|txn| txn.clear_flag(&of, flag))
    }

    /// Stores a data item of a thing, in a transaction of its own.
    ///
    /// Returns what [`WriteTxn::put_item`](super::WriteTxn::put_item) does.
    pub fn put_item(&self, of: impl Into<ThingId>, key: &str, bytes: &[u8]) -> Result<(), Error> {
        let of = of.into();
        self.write(|txn| txn.put_item(&of, key, bytes))
    }

    /// Removes a data item of a thing, in a transaction of its own.
    ///
    /// Returns what [`WriteTxn::remove_item`](super::WriteTxn::remove_item) does.
    pub fn remove_item(&self, of: impl Into<ThingId>, key: &str) -> Result<(), Error> {
        let of = of.into();
        self.write(|txn| txn.remove_item(&of, key))
    }

    /// The thing with this id.
    fn get(&self, of: &ThingId) -> Result<Thing, Error> {
        let txn = self.begin_read()?;
        let missing = || LookupError::NotFound { kind: of.kind().word(), key: of.as_str().to_owned() };
        Ok(match of {
            ThingId::Layer(id) => {
                Thing::Layer(txn.layer_value(txn.layer(id.as_str())?.ok_or_else(missing)?)?)
            }
            ThingId::Image(id) => {
                Thing::Image(txn.image_value(txn.image(id.as_str())?.ok_or_else(missing)?)?)
            }
            ThingId::Container(id) => {
                Thing::Container(txn.container_value(txn.container(id.as_str())?.ok_or_else(missing)?)?)
            }
        })
    }
}

/// Returns [`LookupError::Ambiguous`] if a thing of these kinds that was found by its name is called what people are shown of another's id.
fn refuse_disguised(txn: &View<'_>, found: &Thing, key: &str, kinds: &[Kind]) -> Result<(), Error> {
    let id = found.id();
    // Things of its own kind were looked through when it was found.
    for kind in kinds.iter().filter(|kind| **kind != id.kind()) {
        if let Some(second) = disguised_as(txn, kind.owner(), key, id.as_str())? {
            let (kind, prefix, first) = ("container, image or layer", key.to_owned(), id.as_str().to_owned());
            return Err(LookupError::Ambiguous { kind, prefix, first, second }.into());
        }
    }
    Ok(())
}

/// Whether a thing was found by the beginning of its id.
fn is_short(found: &Result<Thing, Error>, key: &str) -> bool {
    let (id, names) = match found {
        Ok(Thing::Layer(layer)) => (layer.id.as_str(), &layer.names),
        Ok(Thing::Image(image)) => (image.id.as_str(), &image.names),
        Ok(Thing::Container(container)) => (container.id.as_str(), &container.names),
        Err(error) => return matches!(error, Error::Lookup(LookupError::Ambiguous { .. })),
    };
    id != key && id.starts_with(key) && names.iter().all(|name| name.as_str() != key)
}

fn find(txn: &View<'_>, kind: Kind, key: &str) -> Result<Thing, Error> {
    Ok(match kind {
        Kind::Layer => Thing::Layer(txn.layer_value(find_layer::<Error>(txn, key)?)?),
        Kind::Image => Thing::Image(txn.image_value(find_image::<Error>(txn, key)?)?),
        Kind::Container => Thing::Container(txn.container_value(find_container::<Error>(txn, key)?)?),
    })
}
