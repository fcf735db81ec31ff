//! Which manifest of an image is meant. The id of an image is the digest of its config, so one image can come with several
//! manifests: compressed otherwise, or with other annotations. The first is the image's, whoever loads what after it; what comes later
//! is found by its digest, and by the names that it was loaded with.

use std::collections::BTreeMap;

use layerstore_schema::record::ImageRecord;
use layerstore_schema::table::Owner;

use super::ImageImport;
use crate::error::{Error, LookupError, MetaError};
use crate::meta::{PreparedBlob, Query, WriteTxn};
use crate::store::Store;
use crate::types::{Digest, ImageId, Name};

/// The key of the data item that says which names an image was given by loads of other manifests than its first: a JSON
/// object, names to digests of manifests.
const LOADED_NAMES_ITEM: &str = "loaded-names";

/// What is in that item.
pub(crate) type LoadedNames = BTreeMap<String, String>;

impl Store {
    /// The names that an image was given by loads of other manifests than its first, with their digests.
    pub(crate) fn loaded_names(&self, image: &ImageId) -> Result<LoadedNames, Error> {
        match self.item(image, LOADED_NAMES_ITEM) {
            // It says nothing if somebody has put something else there.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(Error::Lookup(LookupError::NoItem { .. })) => Ok(LoadedNames::new()),
            Err(error) => Err(error),
        }
    }
}

/// The digest of an import's manifest, if the image has come with another before.
pub(super) fn is_further<'i>(
    txn: &WriteTxn,
    import: &'i ImageImport<'_>,
) -> Result<Option<&'i Digest>, MetaError> {
    let Some(record) = txn.image(import.id.as_str())? else { return Ok(None) };
    let Some(first) = txn.item(Owner::Image, &record.id, "manifest")? else { return Ok(None) };
    // What somebody else has put there is no load's.
    let was_loaded =
        record.manifests.iter().any(|(key, digest)| key != "manifest" && *digest == first.digest);
    Ok(import.digests.first().filter(|digest| was_loaded && digest.to_string() != first.digest))
}

/// Notes that the image was loaded with these names, from its first manifest or from a further one.
pub(super) fn note_names(
    txn: &WriteTxn,
    image: &ImageRecord,
    mut noted: LoadedNames,
    names: &[Name],
    further: Option<&Digest>,
) -> Result<(), MetaError> {
    if noted.is_empty() && further.is_none() {
        return Ok(());
    }
    noted.retain(|name, _| image.names.contains(name) && names.iter().all(|new| new.as_str() != name));
    if let Some(manifest) = further {
        noted.extend(names.iter().map(|name| (name.to_string(), manifest.to_string())));
    }
    if noted.is_empty() {
        txn.remove_item(Owner::Image, &image.id, LOADED_NAMES_ITEM)?;
        return Ok(());
    }
    let bytes = serde_json::json!(noted).to_string().into_bytes();
    let digest = Digest::sha256(&bytes).to_string();
    txn.put_item(Owner::Image, &image.id, LOADED_NAMES_ITEM, digest, &PreparedBlob::from_bytes(&bytes))
}
