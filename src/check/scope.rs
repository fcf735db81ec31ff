//! Which things are checked: everything, or one layer, or one image with its layers.

use std::collections::BTreeSet;

use super::CheckOptions;
use crate::error::{Error, LookupError};
use crate::meta::Records;

/// Which things are checked.
pub(super) struct Scope {
    /// The ids of the layers; `None` for everything.
    layers: Option<BTreeSet<String>>,
    image: Option<String>,
}

impl Scope {
    pub(super) fn new(options: &CheckOptions<'_>, records: &Records) -> Result<Self, Error> {
        let known = |kind: &'static str, id: &str, good: bool| {
            if good || records.is_damaged(kind, id) {
                return Ok(());
            }
            Err(Error::from(LookupError::NotFound { kind, key: id.to_owned() }))
        };
        if options.layer.is_none() && options.image.is_none() {
            return Ok(Scope { layers: None, image: None });
        }
        let mut layers = BTreeSet::new();
        if let Some(layer) = &options.layer {
            known("layer", layer.as_str(), records.layers.contains_key(layer.as_str()))?;
            layers.insert(layer.to_string());
        }
        if let Some(image) = &options.image {
            let record = records.images.get(image.as_str());
            known("image", image.as_str(), record.is_some())?;
            for top in
                record.iter().flat_map(|record| record.top_layer.iter().chain(&record.mapped_top_layers))
            {
                let mut next = Some(top);
                while let Some(id) = next.take_if(|id| layers.insert((*id).clone())) {
                    next = records.layers.get(id).and_then(|layer| layer.parent.as_ref());
                }
            }
        }
        Ok(Scope { layers: Some(layers), image: options.image.as_ref().map(ToString::to_string) })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.layers.is_none()
    }

    pub(super) fn has_layer(&self, id: &str) -> bool {
        self.layers.as_ref().is_none_or(|layers| layers.contains(id))
    }

    pub(super) fn has_image(&self, id: &str) -> bool {
        self.is_everything() || self.image.as_deref() == Some(id)
    }

    pub(super) fn has(&self, kind: &str, id: &str) -> bool {
        match kind {
            "layer" => self.has_layer(id),
            "image" => self.has_image(id),
            _ => self.is_everything(),
        }
    }

    pub(super) fn record_count(&self) -> u64 {
        let layers = self.layers.as_ref().map_or(0, BTreeSet::len);
        layers.saturating_add(usize::from(self.image.is_some())) as u64
    }
}
