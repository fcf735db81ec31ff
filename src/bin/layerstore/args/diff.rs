//! `layerstore diff`.

use std::path::PathBuf;

use clap::Args;

/// Write the tar of a container's, image's or layer's changes
///
/// For a layer that came from a tar these are the bytes that came in, each file verified on its way. Deleted files are
/// whiteouts: empty files named .wh.NAME.
#[derive(Debug, Args)]
#[command(
    visible_alias = "export",
    after_help = "\
Examples:
  layerstore diff web > changes.tar
  layerstore diff web -o changes.tar
  layerstore diff web | tar -tv"
)]
pub struct DiffArgs {
    /// The container, image or layer
    #[arg(value_name = "THING")]
    pub thing: String,

    /// Write to this file; - is standard output. A file that is there is replaced when the tar is complete
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub output: PathBuf,
}
