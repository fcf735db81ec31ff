//! `layerstore du`.

use std::collections::HashSet;

use layerstore::snapshotter::{Kind, SnapshotError, Snapshotter};
use layerstore::{LayerId, Name, Status, Store, Thing};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::DuArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::UsageJson;
use crate::output::table::{Align, Table};
use crate::output::text;

pub fn run(args: &DuArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    if args.things.is_empty() {
        return all(&store, args, context);
    }
    let mut rows = Vec::new();
    let done = super::each(&args.things, context, |key| {
        rows.push(measure(&store, &store.thing(key)?)?);
        Ok(())
    });
    if context.out().is_json() {
        context.out().json(&rows)?;
    } else if !rows.is_empty() {
        context.out().table(&table("THING", &rows, args.no_trunc))?;
    }
    done
}

fn all(store: &Store, args: &DuArgs, context: &Context) -> Result<(), Failure> {
    let images = store.images()?;
    let copies = copies(store, images.iter().flat_map(|image| &image.mapped_top_layers))?;
    let images = measure_all(store, images.into_iter().map(Thing::Image))?;
    let containers = measure_all(store, store.containers()?.into_iter().map(Thing::Container))?;
    let snapshots = snapshots(store)?;
    let status = store.status()?;
    let summary = Summary {
        status,
        written: containers.iter().map(|one| one.unique).fold(0, u64::saturating_add),
        copies,
        snapshots: &snapshots,
    };
    if context.out().is_json() {
        let summary = summary.json();
        return context.out().json(
            &json!({ "summary": summary, "images": images, "containers": containers, "snapshots": snapshots }),
        );
    }
    context.out().table(&summary.table())?;
    for (heading, rows) in [("IMAGE", &images), ("CONTAINER", &containers)] {
        if !rows.is_empty() {
            context.out().line("")?;
            context.out().table(&table(heading, rows, args.no_trunc))?;
        }
    }
    if !snapshots.is_empty() {
        context.out().line("")?;
        context.out().table(&snapshot_table(&snapshots))?;
    }
    Ok(())
}

/// What the things of a list take, the largest first. One that another process has just removed takes nothing.
fn measure_all(store: &Store, things: impl Iterator<Item = Thing>) -> Result<Vec<UsageJson>, Failure> {
    let mut rows = Vec::new();
    for thing in things {
        match measure(store, &thing) {
            Ok(row) => rows.push(row),
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    rows.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.id.cmp(&b.id)));
    Ok(rows)
}

fn measure(store: &Store, thing: &Thing) -> Result<UsageJson, Failure> {
    let id = thing.id();
    let names: &[Name] = match thing {
        Thing::Layer(layer) => &layer.names,
        Thing::Image(image) => &image.names,
        Thing::Container(container) => &container.names,
        _ => &[],
    };
    Ok(UsageJson::new(id.kind().word(), id.as_str(), names, &store.usage(&id)?))
}

/// How many copies of images with other owners there are, and what they take.
fn copies<'i>(store: &Store, copies: impl Iterator<Item = &'i LayerId>) -> Result<(usize, u64), Failure> {
    let copies: HashSet<&LayerId> = copies.collect();
    let mut bytes = 0_u64;
    for copy in &copies {
        match store.layer_size(copy).map_err(Failure::from) {
            Ok(size) => bytes = bytes.saturating_add(size.map_or(0, |(disk, _)| disk)),
            // Another process has just removed it, or a repair will.
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok((copies.len(), bytes))
}

/// A snapshot of containerd, without those that it stands on.
#[derive(Debug, Serialize)]
struct SnapshotJson {
    key: String,
    kind: &'static str,
    size: u64,
    inodes: u64,
}

/// What the snapshots of containerd take, the largest first.
fn snapshots(store: &Store) -> Result<Vec<SnapshotJson>, Failure> {
    let snapshotter = Snapshotter::to_look_at(store.clone());
    let mut rows = Vec::new();
    snapshotter.walk(&[], |info| {
        match snapshotter.usage(&info.name) {
            Ok(usage) => {
                let (key, kind) = (info.name, info.kind.word());
                rows.push(SnapshotJson { key, kind, size: usage.size, inodes: usage.inodes });
            }
            // It has just gone.
            Err(SnapshotError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    rows.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.key.cmp(&b.key)));
    Ok(rows)
}

fn table(heading: &'static str, rows: &[UsageJson], whole: bool) -> Table {
    let columns = [
        (heading, Align::Left),
        ("TOTAL", Align::Right),
        ("UNIQUE", Align::Right),
        ("INODES", Align::Right),
        ("NAMES", Align::Left),
    ];
    let mut table = Table::new(columns);
    for row in rows {
        table.row([
            text::short(&row.id, whole).to_owned(),
            text::size(row.total),
            text::size(row.unique),
            row.inodes.to_string(),
            row.names.join(", "),
        ]);
    }
    table
}

fn snapshot_table(rows: &[SnapshotJson]) -> Table {
    let columns =
        [("KIND", Align::Left), ("SIZE", Align::Right), ("INODES", Align::Right), ("SNAPSHOT", Align::Left)];
    let mut table = Table::new(columns);
    for row in rows {
        table.row([row.kind.to_owned(), text::size(row.size), row.inodes.to_string(), row.key.clone()]);
    }
    table
}

/// The store as a whole.
struct Summary<'s> {
    status: Status,
    /// What was written into containers.
    written: u64,
    /// Copies with other owners, and their bytes.
    copies: (usize, u64),
    snapshots: &'s [SnapshotJson],
}

impl Summary<'_> {
    /// How many snapshots of a kind there are, and what they take.
    fn snapshots_of(&self, kind: Kind) -> (usize, u64) {
        let of_kind = || self.snapshots.iter().filter(|snapshot| snapshot.kind == kind.word());
        (of_kind().count(), of_kind().map(|snapshot| snapshot.size).fold(0, u64::saturating_add))
    }

    fn table(&self) -> Table {
        let status = &self.status;
        let mut table = Table::new([("WHAT", Align::Left), ("COUNT", Align::Right), ("SIZE", Align::Right)]);
        let (active, written) = self.snapshots_of(Kind::Active);
        let others = u64::try_from(active).unwrap_or(u64::MAX).saturating_add(status.containers);
        let sealed = status.layers.saturating_sub(others);
        table.row(["sealed layers".into(), sealed.to_string(), text::size(status.layer_bytes)]);
        // Parts of the row above.
        let (committed, views) = (self.snapshots_of(Kind::Committed), self.snapshots_of(Kind::View));
        let parts =
            [("  snapshots", committed), ("  views", views), ("  copies with other owners", self.copies)];
        let mut row = |(name, (count, bytes)): (&str, (usize, u64))| {
            if count > 0 {
                table.row([name.to_owned(), count.to_string(), text::size(bytes)]);
            }
        };
        parts.into_iter().for_each(&mut row);
        row(("active snapshots", (active, written)));
        table.row(["containers".into(), status.containers.to_string(), text::size(self.written)]);
        table.row(["kept blobs".into(), String::new(), text::size(status.kept_blob_bytes)]);
        table.row(["database".into(), String::new(), text::size(status.database_bytes)]);
        table
    }

    fn json(&self) -> Value {
        let status = &self.status;
        json!({
            "layers": status.layers,
            "images": status.images,
            "containers": status.containers,
            "layer_bytes": status.layer_bytes,
            "layer_inodes": status.layer_inodes,
            "container_bytes": self.written,
            "mapped_copies": self.copies.0,
            "mapped_copy_bytes": self.copies.1,
            "snapshots": self.snapshots.len(),
            "snapshot_bytes": self.snapshots.iter().map(|snapshot| snapshot.size).fold(0, u64::saturating_add),
            "kept_blob_bytes": status.kept_blob_bytes,
            "item_bytes": status.item_bytes,
            "database_bytes": status.database_bytes,
        })
    }
}
