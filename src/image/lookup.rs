//! Finding a thing by what people call it: its id, a name, a digest, or the beginning of its id.

use layerstore_schema::record::{ContainerRecord, ImageRecord, LayerRecord};
use layerstore_schema::table::{LayerKey, Owner};

use crate::error::{LookupError, MetaError};
use crate::meta::{PrefixMatch, Query};
use crate::types::Digest;

/// Finds an image by id, name, the digest of its manifest or config, or a unique beginning of its id.
pub(crate) fn find_image<E>(txn: &impl Query, key: &str) -> Result<ImageRecord, E>
where
    E: From<MetaError> + From<LookupError>,
{
    let by_digest = || match key.parse::<Digest>() {
        Ok(digest) => {
            let mut ids = txn.images_by_digest(key)?;
            ids.extend(txn.image(digest.hex())?.map(|image| image.id));
            Ok(ids)
        }
        Err(_) => Ok(Vec::new()),
    };
    find(txn, Owner::Image, key, |id| txn.image(id), by_digest)
}

/// Finds a container by id, name, or a unique beginning of its id.
pub(crate) fn find_container<E>(txn: &impl Query, key: &str) -> Result<ContainerRecord, E>
where
    E: From<MetaError> + From<LookupError>,
{
    find(txn, Owner::Container, key, |id| txn.container(id), || Ok(Vec::new()))
}

/// Finds a layer by id, name, its diffID, the digest of its blob or of that one's table of contents, or a unique beginning
/// of its id.
pub(crate) fn find_layer<E>(txn: &impl Query, key: &str) -> Result<LayerRecord, E>
where
    E: From<MetaError> + From<LookupError>,
{
    let by_digest = || match key.parse::<Digest>() {
        Ok(_) => {
            for digest in [LayerKey::DiffId, LayerKey::Blob, LayerKey::Toc] {
                let ids = txn.layers_by(digest, key)?;
                if !ids.is_empty() {
                    return Ok(ids);
                }
            }
            Ok(Vec::new())
        }
        Err(_) => Ok(Vec::new()),
    };
    find(txn, Owner::Layer, key, |id| txn.layer(id), by_digest)
}

/// The order matters: what is exact wins over what is short, so that a new id never changes what an old name
/// or id means.
fn find<R, E>(
    txn: &impl Query,
    owner: Owner,
    key: &str,
    get: impl Fn(&str) -> Result<Option<R>, MetaError>,
    by_digest: impl FnOnce() -> Result<Vec<String>, MetaError>,
) -> Result<R, E>
where
    E: From<MetaError> + From<LookupError>,
{
    let not_found = || LookupError::NotFound { kind: owner.word(), key: key.to_owned() };
    if let Some(record) = get(key)? {
        return Ok(record);
    }
    let id = if let Some(id) = txn.named(owner, key)? {
        id
    } else if let Some(id) = by_digest()?.into_iter().next() {
        id
    } else if key.is_empty() {
        return Err(not_found().into());
    } else {
        match txn.by_prefix(owner, key)? {
            PrefixMatch::One(id) => id,
            PrefixMatch::None => return Err(not_found().into()),
            PrefixMatch::Several(first, second) => {
                let prefix = key.to_owned();
                return Err(LookupError::Ambiguous { kind: owner.word(), prefix, first, second }.into());
            }
        }
    };
    get(&id)?.ok_or_else(|| MetaError::Missing { kind: owner.word(), key: id }.into())
}
