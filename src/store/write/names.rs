//! Names in a transaction: each belongs to one thing of its kind, in all databases that the store writes.

use std::collections::BTreeSet;

use layerstore_schema::table::Owner;

use crate::error::{Error, MetaError};
use crate::image;
use crate::meta::Query;
use crate::store::ThingId;
use crate::store::snapshot::refuse_renaming;
use crate::types::{Name, stored_list};

use super::WriteTxn;
use super::home::AnyRecord;

impl WriteTxn<'_> {
    /// The names of a thing, with what this transaction changed.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn names(&self, of: impl Into<ThingId>) -> Result<Vec<Name>, Error> {
        let of = of.into();
        let names = match self.record(&of)? {
            AnyRecord::Layer(record) => record.names,
            AnyRecord::Image(record) => record.names,
            AnyRecord::Container(record) => record.names,
        };
        Ok(stored_list(of.kind().word(), of.as_str(), names)?)
    }

    /// Gives a thing exactly these names.
    ///
    /// Returns [`Error::Meta`] with [`NameInUse`](crate::MetaError::NameInUse) if another thing of the kind has one, and
    /// [`Error::InUse`] if the name that makes the thing a [snapshot](crate::Layer::snapshot_name) is not among them.
    pub fn set_names(&self, of: impl Into<ThingId>, names: &[Name]) -> Result<(), Error> {
        self.change_names(&of.into(), |held| {
            held.clear();
            for name in names {
                push_name(held, name);
            }
        })
    }

    /// Gives a thing one name more.
    ///
    /// Returns [`Error::Meta`] with [`NameInUse`](crate::MetaError::NameInUse) if another thing of the kind has it.
    pub fn add_name(&self, of: impl Into<ThingId>, name: &Name) -> Result<(), Error> {
        self.change_names(&of.into(), |held| push_name(held, name))
    }

    /// Takes a name from a thing; nothing happens if it does not have it.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there, and [`Error::InUse`] if the name makes it a
    /// [snapshot](crate::Layer::snapshot_name).
    pub fn remove_name(&self, of: impl Into<ThingId>, name: &Name) -> Result<(), Error> {
        self.change_names(&of.into(), |held| held.retain(|other| other != name.as_str()))
    }

    /// Moves a name to a thing from whichever thing of its kind has it.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there, and [`Error::InUse`] if the name makes its holder a
    /// [snapshot](crate::Layer::snapshot_name).
    pub fn move_name(&self, to: impl Into<ThingId>, name: &Name) -> Result<(), Error> {
        let to = to.into();
        // Before the name is taken from its holder: the caller may go on after an error.
        self.copy_up(&to)?;
        self.record(&to)?;
        for txn in self.all_with(to.owner())? {
            let holder = txn.named(to.owner(), name.as_str())?;
            if let Some(holder) = holder.filter(|holder| holder != to.as_str()) {
                if to.owner() == Owner::Layer
                    && let Some(before) = txn.layer(&holder)?
                {
                    let mut after = before.clone();
                    after.names.retain(|held| held != name.as_str());
                    refuse_renaming(&before, &after)?;
                }
                txn.take_name(to.owner(), name.as_str())?;
            }
        }
        self.add_name(to, name)
    }

    fn change_names(&self, of: &ThingId, change: impl FnOnce(&mut Vec<String>)) -> Result<(), Error> {
        self.copy_up(of)?;
        let txn = self.home(of)?;
        match self.record(of)? {
            AnyRecord::Layer(mut record) => {
                let before = record.clone();
                self.change_list(of, &mut record.names, change)?;
                refuse_renaming(&before, &record)?;
                txn.put_layer(&record)?;
            }
            AnyRecord::Image(mut record) => {
                let given = self.change_list(of, &mut record.names, change)?;
                image::remember(&mut record, &given);
                txn.put_image(&record)?;
            }
            AnyRecord::Container(mut record) => {
                self.change_list(of, &mut record.names, change)?;
                txn.put_container(&record)?;
            }
        }
        Ok(())
    }

    /// Changes the names of a record. Returns those that are new, and nobody else's of the kind.
    fn change_list(
        &self,
        of: &ThingId,
        names: &mut Vec<String>,
        change: impl FnOnce(&mut Vec<String>),
    ) -> Result<Vec<String>, Error> {
        let before = names.clone();
        change(names);
        let given: Vec<_> = names.iter().filter(|name| !before.contains(name)).cloned().collect();
        if given.is_empty() {
            return Ok(given);
        }
        let all = self.all_with(of.owner())?;
        for name in given.iter().collect::<BTreeSet<_>>() {
            for txn in &all {
                if let Some(holder) = txn.named(of.owner(), name)?.filter(|holder| holder != of.as_str()) {
                    let (kind, name) = (of.kind().word(), name.clone());
                    return Err(MetaError::NameInUse { kind, name, holder }.into());
                }
            }
        }
        Ok(given)
    }
}

fn push_name(names: &mut Vec<String>, name: &Name) {
    if !names.iter().any(|held| held == name.as_str()) {
        names.push(name.as_str().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{Store, StoreOptions, SyncMode};
    use crate::types::ImageId;

    #[test]
    fn a_name_stays_when_it_cannot_be_moved() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&StoreOptions::at(dir.path().join("store")).sync(SyncMode::Off).reserve(0)).unwrap();
        let name = "busybox".parse().unwrap();
        let image: ImageId = "aa".repeat(32).parse().unwrap();
        let missing: ImageId = "bb".repeat(32).parse().unwrap();
        store
            .write(|txn| {
                txn.txn.put_image(&record(&image))?;
                txn.add_name(&image, &name)?;
                assert!(txn.move_name(&missing, &name).is_err());
                Ok(())
            })
            .unwrap();
        assert_eq!(store.image("busybox").unwrap().id, image);
    }

    #[test]
    fn names_that_cannot_be_given_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(
            &StoreOptions::at(dir.path().join("store")).sync(crate::store::SyncMode::Off).reserve(0),
        )
        .unwrap();
        let names = ["old", "taken", "new"].map(|name| name.parse().unwrap());
        let images: [ImageId; 2] = ["aa", "bb"].map(|id| id.repeat(32).parse().unwrap());
        store
            .write(|txn| {
                for (image, name) in images.iter().zip(&names) {
                    txn.txn.put_image(&record(image))?;
                    txn.add_name(image, name)?;
                }
                assert!(txn.set_names(&images[0], &[names[2].clone(), names[1].clone()]).is_err());
                Ok(())
            })
            .unwrap();
        assert_eq!(store.image("old").unwrap().id, images[0]);
        assert!(store.image("new").is_err());
    }

    fn record(id: &ImageId) -> layerstore_schema::record::ImageRecord {
        layerstore_schema::record::ImageRecord {
            id: id.to_string(),
            ..layerstore_schema::record::ImageRecord::default()
        }
    }
}
