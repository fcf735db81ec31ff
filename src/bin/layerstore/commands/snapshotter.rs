//! `layerstore snapshotter`.

use layerstore::ConfigError;
use layerstore::snapshotter::{SnapshotError, Snapshotter, SnapshotterOptions};

use crate::args::SnapshotterArgs;
use crate::containerd::{Socket, serve};
use crate::context::Context;
use crate::effective::Effective;
use crate::failure::Failure;

pub fn run(args: &SnapshotterArgs, context: &Context) -> Result<(), Failure> {
    // Before anything is opened: it has a descriptor with a number that is known.
    let given = Socket::given()?;
    let options = options(args);
    let explained = |error| explain(error, context.effective());
    options.check().map_err(explained)?;
    let open = || Socket::open(given, args.address.as_deref());
    // After the socket: a wrong address makes no store.
    let start = || Snapshotter::new(context.store()?, options).map_err(explained);
    let ready = |address: &str| {
        if !context.quiet() {
            context.note(&format!("listening at {address}"));
        }
    };
    serve(open, start, ready)
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

/// Says where what is wrong was said.
fn explain(error: SnapshotError, effective: &Effective) -> Failure {
    match error {
        SnapshotError::InvalidArgument { value, reason, .. } => {
            Failure::Setting { name: "--mount-option", value, reason }
        }
        SnapshotError::Setting { setting, reason } => {
            let line = effective.lines.iter().find(|line| line.option == setting);
            let file = || effective.file.as_ref().map(|file| file.display().to_string());
            let origin = line.map(|line| line.origin.to_string()).or_else(file).unwrap_or_default();
            let reason = format!("{reason}; give the snapshotter a configuration without it");
            Failure::Config(ConfigError::Option { option: setting.to_owned(), origin, reason })
        }
        SnapshotError::Store(error) => Failure::Store(error),
        error => Failure::Serve { source: std::io::Error::other(error) },
    }
}
