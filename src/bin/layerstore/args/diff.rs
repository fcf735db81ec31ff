//! `layerstore diff`.

use std::path::PathBuf;

use clap::Args;

use super::CompressionKind;

/// Write the tar of a container's, image's or layer's changes
///
/// For a layer that came from a tar these are the bytes that came in, each file verified on its way. Deleted files are
/// whiteouts: empty files named .wh.NAME. Sockets are left out: whoever listens makes them anew. With --since it is what turns another thing into this one.
#[derive(Debug, Args)]
#[command(
    visible_alias = "export",
    after_help = "\
Examples:
  layerstore diff web > changes.tar
  layerstore diff web -o changes.tar
  layerstore diff web | tar -tv
  layerstore diff debian:13 --since debian:12 --compression zstd -o update.tar.zst"
)]
pub struct DiffArgs {
    /// The container, image or layer
    #[arg(value_name = "THING")]
    pub thing: String,

    /// Write what turns this container, image or layer into it
    #[arg(long, value_name = "THING")]
    pub since: Option<String>,

    /// How to compress the tar
    #[arg(long, value_name = "KIND", default_value = "none", hide_default_value = true)]
    pub compression: CompressionKind,

    /// How hard to compress: 0 to 9 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "LEVEL", requires = "compression")]
    pub level: Option<i32>,

    /// Write to this file; - is standard output. A file that is there is replaced when the tar is complete
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub output: PathBuf,
}
