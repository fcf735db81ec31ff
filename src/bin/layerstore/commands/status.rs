//! `layerstore status`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use layerstore::snapshotter::{Kind, Snapshotter};
use layerstore::{Capability, CapabilityValue, Lease, Store};
use serde_json::{Map, Value, json};

use crate::args::StatusArgs;
use crate::context::Context;
use crate::effective::{Line, shown};
use crate::failure::Failure;
use crate::output::json::{Bytes, time};
use crate::output::table::Align::Left;
use crate::output::table::Table;
use crate::output::text;

pub fn run(_: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let status = store.status()?;
    // What cannot be tried out here is no reason to say nothing at all.
    let capabilities = store.capabilities();
    let snapshots = Snapshots::count(&store)?;
    let open_roots = store.open_roots()?;
    // Mounts are noted in the run root.
    let is_shut_in = store.is_read_only() && context.run_root().starts_with(context.root());
    let bytes = |path: &Path| Bytes(path.as_os_str().as_bytes().to_vec());
    if context.out().is_json() {
        let mounts: Vec<_> =
            status.mounts.iter().map(|(layer, count)| json!({ "layer": layer, "count": count })).collect();
        let leases: Vec<_> = status
            .leases
            .iter()
            .map(|lease| {
                json!({ "id": lease.id.as_str(), "expires": time(lease.expires), "over": lease.is_expired() })
            })
            .collect();
        return context.out().json(&json!({
            "root": bytes(context.root()),
            "run_root": bytes(context.run_root()),
            "open_roots": open_roots.iter().map(|root| json!({ "root": bytes(&root.path), "mode": format!("{:04o}", root.mode) })).collect::<Vec<_>>(),
            "uuid": store.uuid(),
            "image_stores": store.image_stores().iter().map(|store| bytes(store.root())).collect::<Vec<_>>(),
            "image_store_root": store.separate_images().map(|store| bytes(store.root())),
            "version": layerstore::VERSION,
            "can_mount": context.may_mount() && !is_shut_in,
            "layers": status.layers,
            "images": status.images,
            "containers": status.containers,
            "layer_bytes": status.layer_bytes,
            "layer_inodes": status.layer_inodes,
            "kept_blob_bytes": status.kept_blob_bytes,
            "item_bytes": status.item_bytes,
            "database_bytes": status.database_bytes,
            "in_progress": status.in_progress,
            "leftovers": status.leftovers,
            "unsynced": status.unsynced,
            "unverified": status.unverified,
            "leases": leases,
            "mounts": mounts,
            "mounts_unknown": status.mounts_unknown,
            "snapshots": snapshots.json(),
            "settings": context.effective().lines.iter().filter(|line| SETTINGS.contains(&line.option)).map(setting).collect::<Map<_, _>>(),
            "capabilities": capabilities.as_ref().ok().map(|rows| rows.iter().map(capability).collect::<Vec<_>>()),
            "capabilities_unknown": capabilities.as_ref().err().map(ToString::to_string),
        }));
    }
    let path = |path: &Path| text::path(path.as_os_str().as_bytes());
    let by_program = context.has_mount_program()
        && capabilities.as_ref().is_ok_and(|rows| {
            rows.iter().any(|row| row.name == "mounts" && row.value != CapabilityValue::No)
        });
    let can_mount = match context.may_mount() {
        _ if is_shut_in => {
            "no: the store is only read, and its run root is in it: name another with --runroot"
        }
        true => "yes",
        false if by_program => {
            "with the mount program; for all else enter a user namespace: `layerstore unshare`"
        }
        false => "no: become root, or enter a user namespace: `layerstore unshare`",
    };
    let count = |number: usize, what| text::count(u64::try_from(number).unwrap_or(u64::MAX), what);
    let leftovers = match status.leftovers {
        0 => "none of dead processes; `layerstore gc --dry-run` looks for all that can go".to_owned(),
        some => format!(
            "{some} of dead processes; `layerstore gc --dry-run` lists their parts, and all else that can go"
        ),
    };
    let not_synced = match (status.unsynced, status.unverified) {
        (0, 0) => "nothing".to_owned(),
        (now, 0) => format!("{now}; see `layerstore sync`"),
        (now, before) => format!("{now}, and {before} since before this boot: verified when they are used"),
    };
    let mounted = match &status.mounts_unknown {
        Some(reason) => format!("unknown: {}", text::printable(reason)),
        None => count(status.mounts.len(), "layer"),
    };
    let mut lines = vec![
        ("root", path(context.root())),
        ("run root", path(context.run_root())),
        ("uuid", store.uuid().to_owned()),
        ("images", status.images.to_string()),
        ("containers", status.containers.to_string()),
        ("layers", format!("{} ({})", status.layers, text::size(status.layer_bytes))),
        ("layer inodes", status.layer_inodes.to_string()),
        ("kept blobs", text::size(status.kept_blob_bytes)),
        ("database", text::size(status.database_bytes)),
        ("leases", count(status.leases.len(), "lease")),
        ("leftovers", leftovers),
        ("not synced", not_synced),
        ("mounted", mounted),
        ("can mount", can_mount.to_owned()),
    ];
    let others = store.separate_images().map(|images| ("images in", path(images.root())));
    let read = store.image_stores().iter().map(|other| ("reads", path(other.root())));
    lines.splice(3..3, others.into_iter().chain(read));
    let open = open_roots.iter().map(|root| {
        let told = format!(
            "{} (mode {:04o}) to other users; see `layerstore check`",
            root.path.display(),
            root.mode
        );
        ("open", text::printable(&told))
    });
    lines.splice(2..2, open);
    if let Some(told) = snapshots.told() {
        let layers = lines
            .iter()
            .position(|(name, _)| *name == "layers")
            .map_or(lines.len(), |at| at.saturating_add(1));
        lines.insert(layers, ("snapshots", told));
    }
    let leases =
        lines.iter().position(|(name, _)| *name == "leases").map_or(lines.len(), |at| at.saturating_add(1));
    let each = status.leases.iter().map(|lease| ("", until(lease)));
    lines.splice(leases..leases, each);
    let unknown = capabilities.as_ref().err().map(|error| ("can do", format!("unknown: {error}")));
    lines.extend(unknown);
    lines.iter().try_for_each(|(name, value)| context.out().line(format_args!("{name:<11} {value}")))?;
    context.out().line("")?;
    let mut table = Table::new([("SETTING", Left), ("VALUE", Left), ("FROM", Left)]);
    for line in context.effective().lines.iter().filter(|line| SETTINGS.contains(&line.option)) {
        table.row([line.option.to_owned(), in_words(line), line.from()]);
    }
    context.out().table(&table)?;
    let Ok(capabilities) = capabilities else { return Ok(()) };
    context.out().line("")?;
    let mut table = Table::new([("CAPABILITY", Left), ("VALUE", Left)]).blank();
    for row in capabilities {
        let short = format!("{}: {}", row.value, row.reason);
        match row.reason.is_empty() || short.len() > REST {
            true => {
                table.row([row.name.to_owned(), row.value.to_string()]);
                table.note(row.reason);
            }
            false => table.row([row.name.to_owned(), short]),
        }
    }
    context.out().table(&table)?;
    if !layerstore::is_privileged() {
        let advice = "note: `layerstore unshare layerstore status` tells what a user namespace can do";
        context.out().line("")?;
        context.out().line(advice)?;
    }
    Ok(())
}

/// What is left of a line of a terminal beside the names of capabilities. Longer reasons get lines of their own.
const REST: usize = 59;

/// The options that decide what is made and mounted, of those that `config` shows.
const SETTINGS: [&str; 10] = [
    "mount_program",
    "mount_options",
    "volatile_mounts",
    "id_mapped_mounts",
    "ignore_chown_errors",
    "size",
    "inodes",
    "force_mask",
    "use_composefs",
    "limits",
];

/// A setting for people: yes and no, and sizes with units.
fn in_words(line: &Line) -> String {
    match (line.option, &line.value) {
        ("size" | "inodes", value) if value.as_u64() == Some(0) => "no limit".to_owned(),
        ("limits", Value::Object(changed)) if changed.is_empty() => "the defaults".to_owned(),
        ("size", value) => value.as_u64().map_or_else(|| shown(value), text::size),
        (_, Value::Bool(true)) => "yes".to_owned(),
        (_, Value::Bool(false)) => "no".to_owned(),
        (_, value) => shown(value),
    }
}

fn setting(line: &Line) -> (String, Value) {
    (line.option.to_owned(), json!({ "value": line.value, "from": line.from() }))
}

/// How many snapshots of containerd there are.
#[derive(Default)]
struct Snapshots {
    active: u64,
    views: u64,
    committed: u64,
}

impl Snapshots {
    fn count(store: &Store) -> Result<Self, Failure> {
        let mut counts = Snapshots::default();
        Snapshotter::to_look_at(store.clone()).walk(&[], |info| {
            let count = match info.kind {
                Kind::Active => &mut counts.active,
                Kind::View => &mut counts.views,
                Kind::Committed => &mut counts.committed,
            };
            *count = count.saturating_add(1);
            Ok(())
        })?;
        Ok(counts)
    }

    fn json(&self) -> Value {
        json!({ "active": self.active, "view": self.views, "committed": self.committed })
    }

    /// `4: 2 committed, 1 active, 1 view`; nothing if there are none.
    fn told(&self) -> Option<String> {
        let kinds = [(self.committed, "committed"), (self.active, "active"), (self.views, "view")];
        let all = kinds.iter().fold(0_u64, |all, (count, _)| all.saturating_add(*count));
        let kinds = kinds.iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<_> = kinds.map(|(count, kind)| format!("{count} {kind}")).collect();
        (all > 0).then(|| format!("{all}: {}", kinds.join(", ")))
    }
}

fn capability(row: &Capability) -> Value {
    let value: Value = match &row.value {
        CapabilityValue::Yes => true.into(),
        CapabilityValue::No => false.into(),
        by => by.to_string().into(),
    };
    let reason = Some(&row.reason).filter(|reason| !reason.is_empty());
    json!({ "name": row.name, "value": value, "reason": reason })
}

/// `load-0123456789ab until 2026-01-31T12:00:00Z`
fn until(lease: &Lease) -> String {
    let (id, end) = (text::printable(lease.id.as_str()), time(lease.expires));
    // What begins like this is the id of an image, in whole.
    let id =
        id.strip_prefix("load-").map_or(id.clone(), |image| format!("load-{}", text::short(image, false)));
    if lease.is_expired() { format!("{id} over since {end:.0}") } else { format!("{id} until {end:.0}") }
}
