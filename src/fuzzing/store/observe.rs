//! What a store shows, as the model has it.

use std::collections::BTreeMap;

use super::op::{Kind, Target};
use super::state::{Common, Container, Image, Layer, State};
use crate::error::Error;
use crate::store::{Store, ThingId};
use crate::types::LayerId;

/// All that a user sees, without what chance and time decide. A snapshot's layer, whose id is random, goes by its name.
pub(super) fn observe(store: &Store) -> Result<State, Error> {
    let mut state = State::default();
    let layers = store.layers()?;
    let shown: BTreeMap<_, _> = layers
        .iter()
        .map(|layer| (&layer.id, layer.snapshot_name().map_or(layer.id.to_string(), ToString::to_string)))
        .collect();
    let name = |id: &LayerId| shown.get(id).cloned().unwrap_or_else(|| format!("{id}, which is not there"));
    for layer in &layers {
        let of = ThingId::Layer(layer.id.clone());
        let changes = store.changes(layer)?.iter().map(ToString::to_string).collect();
        let is_kind = |(flag, _): &&(String, String)| flag == "snapshot.kind";
        let row = Layer {
            common: common(store, of, &layer.names, &layer.metadata)?,
            parent: layer.parent.as_ref().map(&name),
            is_writable: layer.is_writable(),
            diff_id: layer.diff_id.as_ref().map(ToString::to_string),
            changes,
            snapshot: layer.flags.iter().find(is_kind).map(|(_, kind)| kind.trim_matches('"').to_owned()),
        };
        state.layers.insert(name(&layer.id), row);
    }
    for image in store.images()? {
        let common = common(store, ThingId::Image(image.id.clone()), &image.names, &image.metadata)?;
        let top = image.top_layer.as_ref().map(&name);
        state.images.insert(image.id.to_string(), Image { common, top });
    }
    for container in store.containers()? {
        let of = ThingId::Container(container.id.clone());
        let row = Container {
            common: common(store, of, &container.names, &container.metadata)?,
            image: container.image.as_ref().map(ToString::to_string),
            layer: name(&container.layer),
        };
        state.containers.insert(container.id.to_string(), row);
    }
    for lease in store.leases()? {
        let target = |thing: &ThingId| match thing {
            ThingId::Layer(id) => Target { kind: Kind::Layer, id: name(id) },
            ThingId::Image(id) => Target { kind: Kind::Image, id: id.to_string() },
            ThingId::Container(id) => Target { kind: Kind::Container, id: id.to_string() },
        };
        state.leases.insert(lease.id.to_string(), lease.things.iter().map(target).collect());
    }
    Ok(state)
}

/// Of items the digests: a deep check says whether their bytes have them.
fn common<N: ToString>(store: &Store, of: ThingId, names: &[N], metadata: &str) -> Result<Common, Error> {
    let items = store.items(of)?.into_iter().map(|item| (item.key, item.digest.to_string())).collect();
    let names = names.iter().map(ToString::to_string).collect();
    Ok(Common { names, metadata: metadata.to_owned(), items })
}
