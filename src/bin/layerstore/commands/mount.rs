//! `layerstore mount`.

use std::os::unix::ffi::OsStrExt;

use layerstore::{Error, MountOptions, Store};
use serde_json::json;

use super::layers::Users;
use crate::args::MountArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::MountJson;
use crate::output::table::{Align, Table};
use crate::output::text;

pub fn run(args: MountArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let Some(key) = args.thing else { return list(&store, context) };
    let thing = store.thing(&key)?.id();
    context.require_mounts(&key)?;
    let mut options = MountOptions::default();
    options.read_only = args.read_only;
    options.unseal = args.unseal;
    options.change_under_others = args.change_under_others;
    options.trust_volatile = args.trust_volatile;
    options.options = args.options;
    options.label = args.label;
    let mount = store.mount(&thing, &options).inspect_err(|error| {
        if matches!(error, Error::InUse(used) if used.is_below_others()) {
            context
                .note("--read-only mounts it as it is, and --change-under-others for writing all the same");
        }
    })?;
    let printed = match context.out().is_json() {
        true => context.out().json(&MountJson::from(&mount)),
        false => context.out().bytes(&[mount.path().as_os_str().as_bytes(), b"\n"].concat()),
    };
    context.out().told(printed, || format!("{key:?} is mounted at {}", mount.path().display()))
}

/// Every mount: what is mounted, how many use it, and where it is.
fn list(store: &Store, context: &Context) -> Result<(), Failure> {
    let mounts = store.mounts()?;
    if context.out().is_json() {
        let list: Vec<_> = mounts
            .iter()
            .map(|(layer, mount)| json!({ "layer": layer.as_str(), "mount": MountJson::from(mount) }))
            .collect();
        return context.out().json(&list);
    }
    if context.quiet() {
        return mounts.iter().try_for_each(|(_, mount)| {
            context.out().bytes(&[mount.path().as_os_str().as_bytes(), b"\n"].concat())
        });
    }
    let users = Users::of(store, false)?;
    let mut table = Table::new([("MOUNTED", Align::Left), ("COUNT", Align::Right), ("PATH", Align::Left)]);
    for (layer, mount) in &mounts {
        let what = users.of_layer(layer).unwrap_or_else(|| {
            // Mounted by its own id or name.
            format!("layer {}", text::short(layer.as_str(), false))
        });
        table.row([what, mount.count.to_string(), mount.path().display().to_string()]);
    }
    context.out().table(&table)
}
