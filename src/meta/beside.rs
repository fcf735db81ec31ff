//! The note of the other stores that records of this one stand on something of.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::record::{ContainerRecord, ImageRecord, LayerRecord};
use layerstore_schema::table::{self, BESIDE_KEY};

use super::{Query, Tables, WriteTxn};
use crate::error::MetaError;

/// A store that others read beside their own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StoreBeside {
    /// Whether it is the one that their images go to, and not only read.
    pub(crate) is_of_images: bool,
    /// Its UUID.
    pub(crate) uuid: String,
    /// Where it was when it was used first, absolute.
    pub(crate) root: PathBuf,
}

const OF_IMAGES: &str = "images";
const READ: &str = "read";

/// The stores that were read beside this one whenever a record here came to stand on something that is not here.
pub(crate) fn stores_beside(txn: &impl Tables) -> Result<Vec<StoreBeside>, MetaError> {
    let meta = txn.open(table::META)?;
    let Some(row) = meta.get(BESIDE_KEY)? else { return Ok(Vec::new()) };
    Ok(row.value().split(|byte| *byte == 0).filter_map(decode).collect())
}

/// One store of the note: a word, a space, a UUID, a space, and a path. What is none is no store.
fn decode(entry: &[u8]) -> Option<StoreBeside> {
    let mut parts = entry.splitn(3, |byte| *byte == b' ');
    let (word, uuid, root) = (parts.next()?, parts.next()?, parts.next()?);
    Some(StoreBeside {
        is_of_images: word == OF_IMAGES.as_bytes(),
        uuid: String::from_utf8_lossy(uuid).into_owned(),
        root: PathBuf::from(OsStr::from_bytes(root)),
    })
}

fn encode(stores: &[StoreBeside]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for store in stores {
        if !bytes.is_empty() {
            bytes.push(0);
        }
        let word = if store.is_of_images { OF_IMAGES } else { READ };
        bytes.extend_from_slice(format!("{word} {} ", store.uuid).as_bytes());
        bytes.extend_from_slice(store.root.as_os_str().as_bytes());
    }
    bytes
}

impl WriteTxn {
    /// Notes the stores beside this one, if a layer stands on something that must be there.
    pub(super) fn note_beside_layer(&self, record: &LayerRecord) -> Result<(), MetaError> {
        self.note_beside(record.parent.iter(), |layer| Ok(self.layer(layer)?.is_some()))
    }

    /// As [`note_beside_layer`](Self::note_beside_layer), of an image.
    pub(super) fn note_beside_image(&self, record: &ImageRecord) -> Result<(), MetaError> {
        let layers = record.top_layer.iter().chain(&record.mapped_top_layers);
        self.note_beside(layers, |layer| Ok(self.layer(layer)?.is_some()))
    }

    /// As [`note_beside_layer`](Self::note_beside_layer), of a container.
    pub(super) fn note_beside_container(&self, record: &ContainerRecord) -> Result<(), MetaError> {
        self.note_beside(record.image.iter(), |image| Ok(self.image(image)?.is_some()))
    }

    /// Without this note, whoever opens the store alone would take what is elsewhere for lost.
    fn note_beside<'r>(
        &self,
        mut needed: impl Iterator<Item = &'r String>,
        is_here: impl Fn(&str) -> Result<bool, MetaError>,
    ) -> Result<(), MetaError> {
        // Most stores are read alone.
        if self.2.is_empty() {
            return Ok(());
        }
        let elsewhere = needed.try_fold(false, |found, id| Ok::<_, MetaError>(found || !is_here(id)?))?;
        if !elsewhere {
            return Ok(());
        }
        let mut noted = stores_beside(self)?;
        let before = noted.clone();
        for store in self.2.iter() {
            // One that is another now, or elsewhere, takes the place of what is noted.
            noted.retain(|known| known == store || known.uuid != store.uuid && known.root != store.root);
            if !noted.contains(store) {
                noted.push(store.clone());
            }
        }
        if noted != before {
            self.open(table::META)?.insert(BESIDE_KEY, encode(&noted).as_slice())?;
        }
        Ok(())
    }
}
