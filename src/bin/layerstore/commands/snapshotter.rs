//! `layerstore snapshotter`.

use layerstore::snapshotter::{Snapshotter, SnapshotterOptions};

use crate::args::SnapshotterArgs;
use crate::containerd::{Socket, serve};
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &SnapshotterArgs, context: &Context) -> Result<(), Failure> {
    // Before the store: it has a descriptor with a number that is known.
    let given = Socket::given()?;
    let store = context.store()?;
    let open = || Socket::open(given, args.address.as_deref());
    let ready = |address: &str| {
        if !context.quiet() {
            context.note(&format!("listening at {address}"));
        }
    };
    serve(Snapshotter::new(store, options(args)), open, ready)
}

fn options(args: &SnapshotterArgs) -> SnapshotterOptions {
    let mut options = SnapshotterOptions::default();
    options.upperdir_label = args.upperdir_label;
    options.async_remove = args.async_remove;
    options.remap_ids = args.remap_ids;
    options.adopt_references = args.adopt_references;
    options.mount_options = args.mount_options.clone();
    options
}
