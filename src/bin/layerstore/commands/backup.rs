//! `layerstore backup`.

use std::path::Path;

use layerstore::BackupMode;
use serde_json::json;

use crate::args::BackupArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text;

pub fn run(args: &BackupArgs, context: &Context) -> Result<(), Failure> {
    // Nobody means a file of that name, and a database is not made in order.
    if args.file == Path::new("-") {
        return Err(Failure::Setting {
            name: "FILE",
            value: "-".into(),
            reason: "a backup is written to a file, not to standard output".into(),
        });
    }
    let mode = if args.force { BackupMode::Replace } else { BackupMode::New };
    let bytes = context.existing_store()?.backup(&args.file, mode)?;
    if context.out().is_json() {
        return context.out().json(&json!({ "bytes": bytes }));
    }
    if context.quiet() {
        return Ok(());
    }
    context.out().line(format_args!("wrote {}", text::size(bytes)))
}
