//! What goes when things go: whatever stands on them, or was made of them.

use std::collections::BTreeSet;

use layerstore_schema::record::LayerContent;
use layerstore_schema::table::Owner;

use super::Casualty;
use crate::meta::Records;

/// Everything that goes when these things go: what stands on a layer goes with it.
pub(crate) fn doomed(records: &Records, first: impl IntoIterator<Item = Casualty>) -> BTreeSet<Casualty> {
    let mut doomed = BTreeSet::new();
    let mut next: Vec<Casualty> = first.into_iter().collect();
    while let Some(casualty) = next.pop() {
        let casualty = match casualty {
            Casualty::Tree(tree) => {
                let content = LayerContent::Sealed(tree);
                let layers = records.layers.values().filter(|layer| layer.content == content);
                next.extend(layers.map(|layer| Casualty::Layer(layer.id.clone())));
                continue;
            }
            Casualty::Split(id) | Casualty::Written(id) => Casualty::Layer(id),
            other => other,
        };
        if !doomed.insert(casualty.clone()) {
            continue;
        }
        match &casualty {
            Casualty::Layer(id) => {
                let above = records.layers.values().filter(|layer| layer.parent.as_ref() == Some(id));
                next.extend(above.map(|layer| Casualty::Layer(layer.id.clone())));
                // A copy with other ids that an image has is made anew when it is needed.
                let of = records.images.values().filter(|image| image.top_layer.as_ref() == Some(id));
                next.extend(of.map(|image| Casualty::Image(image.id.clone())));
                let of = records.containers.values().filter(|container| container.layer == *id);
                next.extend(of.map(|container| Casualty::Container(container.id.clone())));
            }
            Casualty::Image(id) => {
                let of = records.containers.values().filter(|container| container.image.as_ref() == Some(id));
                next.extend(of.map(|container| Casualty::Container(container.id.clone())));
                // Its copies with other ids are of no use without it, unless somebody has named one.
                let copies = records.images.get(id).into_iter().flat_map(|image| &image.mapped_top_layers);
                let goes = |copy: &&String| {
                    let named = records.layers.get(*copy).is_none_or(|layer| !layer.names.is_empty());
                    let shared = records
                        .images
                        .values()
                        .any(|other| other.id != *id && other.mapped_top_layers.contains(copy));
                    !named && !shared && are_copies(records, std::slice::from_ref(copy))
                };
                next.extend(copies.filter(goes).map(|copy| Casualty::Layer(copy.clone())));
            }
            Casualty::Container(id) => {
                let layer = records.containers.get(id).map(|container| container.layer.clone());
                let shared = |layer: &String| {
                    records.containers.values().any(|other| other.id != *id && other.layer == *layer)
                };
                next.extend(layer.filter(|layer| !shared(layer)).map(Casualty::Layer));
            }
            _ => {}
        }
    }
    doomed
}

/// What goes, as messages name it.
pub(crate) fn dependents(records: &Records, doomed: &BTreeSet<Casualty>) -> Vec<String> {
    let names = |names: &[String], id: &str| match names.first() {
        Some(name) => format!("{name} ({id})"),
        None => id.to_owned(),
    };
    let mut shown = Vec::new();
    for casualty in doomed {
        shown.push(match casualty {
            Casualty::Container(id) => {
                let of = records.containers.get(id).map(|container| container.names.as_slice());
                format!(
                    "the container {} with all that was written into it",
                    names(of.unwrap_or_default(), id)
                )
            }
            Casualty::Image(id) => {
                let of = records.images.get(id).map(|image| image.names.as_slice());
                format!("the image {}", names(of.unwrap_or_default(), id))
            }
            Casualty::Layer(id) | Casualty::Written(id) => format!("the layer {id}"),
            Casualty::Item(owner, id, key) => {
                let word = Owner::from_code(*owner).map_or("thing", Owner::word);
                format!("the data item {key:?} of {word} {id}")
            }
            Casualty::Tree(_) => format!("the {casualty}"),
            _ => continue,
        });
    }
    shown
}

/// Whether these layers are nothing but copies with other ids that images have: whoever needs one makes it anew. Their records may
/// be lost, so only what others say of them counts.
pub(crate) fn are_copies(records: &Records, layers: &[String]) -> bool {
    let is_copy = |layer: &String| {
        let is_top = records.images.values().any(|image| image.top_layer.as_ref() == Some(layer));
        let is_below = records.layers.values().any(|above| above.parent.as_ref() == Some(layer));
        let is_written = records.containers.values().any(|container| container.layer == *layer);
        records.images.values().any(|image| image.mapped_top_layers.contains(layer))
            && !(is_top || is_below || is_written)
    };
    // What cannot be read may say otherwise.
    let is_known = records.damaged.iter().all(|damaged| match damaged.kind {
        "layer" => layers.contains(&damaged.key),
        kind => !matches!(kind, "image" | "container"),
    });
    is_known && !layers.is_empty() && layers.iter().all(is_copy)
}
