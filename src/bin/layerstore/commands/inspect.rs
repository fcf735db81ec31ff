//! `layerstore inspect`.

use layerstore::{Image, Layer, LayerId, Store, Thing, ThingId};
use serde::Serialize;
use serde_json::Value;

use crate::args::InspectArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::{ContainerJson, ImageJson, ItemJson, LayerJson};

pub fn run(args: &InspectArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mut inspected = Vec::new();
    let done = super::each(&args.things, context, |key| {
        inspected.push(inspect(&store, &store.thing(key)?, key)?);
        Ok(())
    });
    // What was found is printed, whatever became of the others.
    if !inspected.is_empty() {
        context.out().json(&inspected)?;
    }
    done
}

/// Everything about a thing.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Inspected<'a> {
    Image {
        #[serde(flatten)]
        image: ImageJson<'a>,
        layers: Vec<LayerJson<'a>>,
        config: Value,
        manifest: Value,
        items: Vec<ItemJson>,
    },
    Container {
        #[serde(flatten)]
        container: ContainerJson<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        quota: Option<QuotaJson>,
        layers: Vec<LayerJson<'a>>,
        items: Vec<ItemJson>,
    },
    Layer {
        #[serde(flatten)]
        layer: LayerJson<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        quota: Option<QuotaJson>,
        layers: Vec<LayerJson<'a>>,
        items: Vec<ItemJson>,
    },
}

/// What a layer may take, and takes.
#[derive(Serialize)]
struct QuotaJson {
    size: Option<u64>,
    inodes: Option<u64>,
    used_bytes: u64,
    used_inodes: u64,
}

/// Everything about a thing, as JSON.
fn inspect(store: &Store, thing: &Thing, key: &str) -> Result<Value, Failure> {
    let id = thing.id();
    let items: Vec<_> = store.items(&id)?.iter().map(ItemJson::from).collect();
    match thing {
        Thing::Image(image) => {
            let chain = image.top_layer.as_ref().map_or(Ok(Vec::new()), |top| chain(store, top))?;
            value(&Inspected::Image {
                config: document(store, &id, &items, &format!("sha256:{}", image.id))?,
                manifest: document(store, &id, &items, &manifest_key(store, image, key)?)?,
                layers: layers(&chain),
                image: ImageJson::new(image, store.usage(image)?.total),
                items,
            })
        }
        Thing::Container(container) => value(&Inspected::Container {
            container: ContainerJson::new(
                container,
                store.mounted(container)?.as_ref(),
                Some(store.usage(container)?.unique),
            ),
            quota: quota(store, &id),
            layers: layers(&chain(store, &container.layer)?),
            items,
        }),
        Thing::Layer(layer) => value(&Inspected::Layer {
            quota: quota(store, &id),
            layer: LayerJson::new(layer, store.layer_size(&layer.id)?),
            layers: layers(&chain(store, &layer.id)?),
            items,
        }),
        other => Err(Failure::WrongKind {
            key: other.id().as_str().to_owned(),
            found: other.id().kind().word(),
            wanted: "a container, image or layer",
        }),
    }
}

fn value(inspected: &Inspected<'_>) -> Result<Value, Failure> {
    serde_json::to_value(inspected).map_err(|error| Failure::Output(error.into()))
}

/// The limits of what is written to, if there are some and this process may know them.
fn quota(store: &Store, id: &ThingId) -> Option<QuotaJson> {
    let found = store.quota(id.clone()).ok().flatten()?;
    Some(QuotaJson {
        size: found.size,
        inodes: found.inodes,
        used_bytes: found.used_bytes,
        used_inodes: found.used_inodes,
    })
}

/// The key of the manifest that is meant.
fn manifest_key(store: &Store, image: &Image, key: &str) -> Result<String, Failure> {
    let manifest = store.manifest_of(image, key)?.map(|digest| format!("manifest-{digest}"));
    let is_there = |key: &String| image.manifests.iter().any(|(own, _)| own == key);
    Ok(manifest.filter(is_there).unwrap_or_else(|| "manifest".to_owned()))
}

/// A data item as JSON; null if there is none with this key or it is no JSON.
fn document(store: &Store, id: &ThingId, items: &[ItemJson], key: &str) -> Result<Value, Failure> {
    if !items.iter().any(|item| item.key == key) {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&store.item(id, key)?).unwrap_or_default())
}

/// A layer and what it takes, if it is not written to.
type Sized = (Layer, Option<(u64, u64)>);

/// A layer and those below it, the topmost first.
fn chain(store: &Store, top: &LayerId) -> Result<Vec<Sized>, Failure> {
    let sized = |layer: Layer| store.layer_size(&layer.id).map(|size| (layer, size));
    Ok(store.layer_chain(top)?.into_iter().map(sized).collect::<Result<_, _>>()?)
}

fn layers(chain: &[Sized]) -> Vec<LayerJson<'_>> {
    chain.iter().map(|(layer, size)| LayerJson::new(layer, *size)).collect()
}
