//! `layerstore layers`.

use std::collections::HashMap;

use layerstore::{Container, IdExtent, Image, Layer, LayerId, Store};

use crate::args::LayersArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::LayerJson;
use crate::output::table::{Align, Table};
use crate::output::text;
use crate::output::tree::Lines;

pub fn run(args: &LayersArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mut layers = store.layers()?;
    // As images and containers are listed. One import makes a layer after its parent.
    layers.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    let whole = args.list.no_trunc;
    if context.quiet() && !context.out().is_json() {
        return layers.iter().try_for_each(|layer| context.out().line(text::short(layer.id.as_str(), whole)));
    }
    let mut sized = Vec::with_capacity(layers.len());
    for layer in layers {
        // One that another process has just removed is no part of the list.
        match store.layer_size(&layer.id).map_err(Failure::from) {
            Ok(size) => sized.push(Sized { layer, size }),
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    if context.out().is_json() {
        return context.out().json_list(&sized, |one| LayerJson::new(&one.layer, one.size));
    }
    let users = Users::of(&store, whole)?;
    if args.tree {
        print_tree(&sized, &users, whole, context)
    } else {
        print_table(&store, &sized, &users, args, context)
    }
}

/// A layer and its size: on the disk, and of its content; none if it is written to.
struct Sized {
    layer: Layer,
    size: Option<(u64, u64)>,
}

impl Sized {
    fn size(&self) -> String {
        self.size.map_or_else(|| "writable".to_owned(), |(disk, _)| text::size(disk))
    }
}

/// Whose top layer a layer is, or whose copy with other owners.
pub(super) struct Users(HashMap<LayerId, Vec<String>>);

impl Users {
    pub(super) fn of(store: &Store, whole: bool) -> Result<Self, Failure> {
        let mut users: HashMap<LayerId, Vec<String>> = HashMap::new();
        for Image { id, names, top_layer, mapped_top_layers, .. } in store.images()? {
            let shown = names.first().map_or_else(|| text::short(id.as_str(), whole), |name| name.as_str());
            for copy in mapped_top_layers {
                let user = format!("copy of image {shown}{}", ids_of(store, &copy)?);
                users.entry(copy).or_default().push(user);
            }
            if let Some(layer) = top_layer {
                users.entry(layer).or_default().push(format!("image {shown}"));
            }
        }
        for Container { id, names, layer, .. } in store.containers()? {
            let shown = names.first().map_or_else(|| text::short(id.as_str(), whole), |name| name.as_str());
            users.entry(layer).or_default().push(format!("container {shown}"));
        }
        Ok(Users(users))
    }

    /// Those of one layer, if there are any.
    pub(super) fn of_layer(&self, layer: &LayerId) -> Option<String> {
        self.0.get(layer).map(|users| users.join(", "))
    }

    /// Names of the layer itself come first.
    fn shown(&self, layer: &Layer) -> String {
        let names = layer.names.iter().map(|name| format!("name {name}"));
        let users = self.0.get(&layer.id).into_iter().flatten().cloned();
        names.chain(users).collect::<Vec<_>>().join(", ")
    }
}

/// For which ids a copy is; nothing if it has just gone.
fn ids_of(store: &Store, copy: &LayerId) -> Result<String, Failure> {
    let layer = match store.layer(copy.as_str()).map_err(Failure::from) {
        Err(failure) if failure.is_not_found() => return Ok(String::new()),
        layer => layer?,
    };
    let (uids, gids) = (runs(&layer.uid_map), runs(&layer.gid_map));
    Ok(if uids == gids { format!(" for ids {uids}") } else { format!(" for uids {uids}, gids {gids}") })
}

/// A map as flags take it.
fn runs(map: &[IdExtent]) -> String {
    let runs = map.iter().map(|run| format!("{}:{}:{}", run.inside, run.outside, run.count));
    runs.collect::<Vec<_>>().join(" ")
}

fn print_table(
    store: &Store,
    sized: &[Sized],
    users: &Users,
    args: &LayersArgs,
    context: &Context,
) -> Result<(), Failure> {
    let mut columns = vec![
        ("LAYER", Align::Left),
        ("PARENT", Align::Left),
        ("CREATED", Align::Left),
        ("SIZE", Align::Right),
        ("USED BY", Align::Left),
    ];
    // Where it is, if there is more than one place.
    let several = !store.image_stores().is_empty();
    if several {
        columns.push(("STORE", Align::Left));
    }
    let mut table = Table::new(columns).heading(!args.list.no_heading);
    let shown = |id: &LayerId| text::short(id.as_str(), args.list.no_trunc).to_owned();
    for one in sized {
        let parent = one.layer.parent.as_ref().map(&shown).unwrap_or_default();
        let created = super::created(one.layer.created);
        let mut row = vec![shown(&one.layer.id), parent, created, one.size(), users.shown(&one.layer)];
        if several {
            row.push(
                one.layer.image_store.as_ref().map(|root| root.display().to_string()).unwrap_or_default(),
            );
        }
        table.row(row);
    }
    context.out().table(&table)
}

fn print_tree(sized: &[Sized], users: &Users, whole: bool, context: &Context) -> Result<(), Failure> {
    let nodes = forest(sized);
    let depths: Vec<usize> = nodes.iter().map(|(depth, _)| *depth).collect();
    let prefixes = Lines::of_locale().prefixes(&depths);
    let columns = [("LAYER", Align::Left), ("SIZE", Align::Right), ("USED BY", Align::Left)];
    let mut table = Table::new(columns).heading(false).blank();
    for ((_, one), prefix) in nodes.iter().zip(prefixes) {
        let id = text::short(one.layer.id.as_str(), whole);
        table.row([format!("{prefix}{id}"), one.size(), users.shown(&one.layer)]);
    }
    context.out().table(&table)
}

/// The layers with their depths, children below parents, in the order of the list among siblings.
fn forest(sized: &[Sized]) -> Vec<(usize, &Sized)> {
    let known: HashMap<&LayerId, &Sized> = sized.iter().map(|one| (&one.layer.id, one)).collect();
    let mut children: HashMap<Option<&LayerId>, Vec<&Sized>> = HashMap::new();
    for one in sized {
        // A parent that is not in the list was removed after the list was read.
        let parent = one.layer.parent.as_ref().filter(|parent| known.contains_key(parent));
        children.entry(parent).or_default().push(one);
    }
    let mut nodes = Vec::with_capacity(sized.len());
    // Hundreds of layers may stand on each other: a list of what is left, no recursion.
    let mut left: Vec<(usize, &Sized)> = Vec::new();
    let push = |left: &mut Vec<(usize, _)>, depth: usize, parent: Option<&LayerId>| {
        let below = children.get(&parent).into_iter().flatten();
        left.extend(below.rev().map(|one| (depth, *one)));
    };
    push(&mut left, 0, None);
    while let Some((depth, one)) = left.pop() {
        nodes.push((depth, one));
        push(&mut left, depth.saturating_add(1), Some(&one.layer.id));
    }
    nodes
}
