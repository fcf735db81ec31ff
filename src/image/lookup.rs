//! Finding a thing by what people call it: its id, a name, a digest, or the beginning of its id.

use layerstore_schema::record::{ContainerRecord, ImageRecord, LayerRecord};
use layerstore_schema::table::{LayerKey, Owner};

use crate::error::{LookupError, MetaError};
use crate::meta::{PrefixMatch, Query};
use crate::types::Digest;

/// What finding a thing, or who stands on it, asks: of one store, or of several as one.
pub(crate) trait Lookup {
    /// A layer by id.
    fn layer(&self, id: &str) -> Result<Option<LayerRecord>, MetaError>;
    /// An image by id.
    fn image(&self, id: &str) -> Result<Option<ImageRecord>, MetaError>;
    /// A container by id.
    fn container(&self, id: &str) -> Result<Option<ContainerRecord>, MetaError>;
    /// The id that has a name.
    fn named(&self, owner: Owner, name: &str) -> Result<Option<String>, MetaError>;
    /// Images known by a manifest digest.
    fn images_by_digest(&self, digest: &str) -> Result<Vec<String>, MetaError>;
    /// Layers found by a digest of one kind.
    fn layers_by(&self, key: LayerKey, digest: &str) -> Result<Vec<String>, MetaError>;
    /// The layers that stand on a layer.
    fn children(&self, parent: &str) -> Result<Vec<String>, MetaError>;
    /// The images whose top layer this is.
    fn images_of_layer(&self, layer: &str) -> Result<Vec<String>, MetaError>;
    /// What ids of a kind begin with `prefix`.
    fn by_prefix(&self, owner: Owner, prefix: &str) -> Result<PrefixMatch, MetaError>;
}

impl<Q: Query> Lookup for Q {
    fn layer(&self, id: &str) -> Result<Option<LayerRecord>, MetaError> {
        Query::layer(self, id)
    }

    fn image(&self, id: &str) -> Result<Option<ImageRecord>, MetaError> {
        Query::image(self, id)
    }

    fn container(&self, id: &str) -> Result<Option<ContainerRecord>, MetaError> {
        Query::container(self, id)
    }

    fn named(&self, owner: Owner, name: &str) -> Result<Option<String>, MetaError> {
        Query::named(self, owner, name)
    }

    fn images_by_digest(&self, digest: &str) -> Result<Vec<String>, MetaError> {
        Query::images_by_digest(self, digest)
    }

    fn layers_by(&self, key: LayerKey, digest: &str) -> Result<Vec<String>, MetaError> {
        Query::layers_by(self, key, digest)
    }

    fn children(&self, parent: &str) -> Result<Vec<String>, MetaError> {
        Query::children(self, parent)
    }

    fn images_of_layer(&self, layer: &str) -> Result<Vec<String>, MetaError> {
        Query::images_of_layer(self, layer)
    }

    fn by_prefix(&self, owner: Owner, prefix: &str) -> Result<PrefixMatch, MetaError> {
        Query::by_prefix(self, owner, prefix)
    }
}

/// Finds an image by id, name, the digest of its manifest or config, or a unique beginning of its id.
pub(crate) fn find_image<E>(txn: &impl Lookup, key: &str) -> Result<ImageRecord, E>
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
pub(crate) fn find_container<E>(txn: &impl Lookup, key: &str) -> Result<ContainerRecord, E>
where
    E: From<MetaError> + From<LookupError>,
{
    find(txn, Owner::Container, key, |id| txn.container(id), || Ok(Vec::new()))
}

/// Finds a layer by id, name, its diffID, the digest of its blob or of that one's table of contents, or a unique beginning
/// of its id.
pub(crate) fn find_layer<E>(txn: &impl Lookup, key: &str) -> Result<LayerRecord, E>
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

/// As many digits of an id as people are shown: the program's lists have as many.
const SHOWN: usize = 12;

/// Another thing than `id`, which has this name: one whose id people could take the name for, as it is what they are shown of it.
pub(crate) fn disguised_as(
    txn: &impl Lookup,
    owner: Owner,
    name: &str,
    id: &str,
) -> Result<Option<String>, MetaError> {
    let is_like_id =
        name.len() >= SHOWN && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_like_id {
        return Ok(None);
    }
    Ok(match txn.by_prefix(owner, name)? {
        PrefixMatch::One(other) | PrefixMatch::Several(other, _) => Some(other).filter(|other| other != id),
        PrefixMatch::None => None,
    })
}

/// The order matters: what is exact wins over what is short, so that a new id never changes what an old name or id means. But for
/// a name, which may come from a stranger's archive, that is what others see of another thing's id: it stands for neither.
fn find<R, E>(
    txn: &impl Lookup,
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
        if let Some(second) = disguised_as(txn, owner, key, &id)? {
            let prefix = key.to_owned();
            return Err(LookupError::Ambiguous { kind: owner.word(), prefix, first: id, second }.into());
        }
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
