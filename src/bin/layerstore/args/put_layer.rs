//! `layerstore put-layer`.

use std::path::PathBuf;

use clap::Args;
use layerstore::{DiffId, Digest};

use super::NewLayerArgs;

/// Create a layer with the content of a tar
///
/// The tar may be compressed with gzip, zstd, bzip2 or xz, and is read from standard input if no file is given. The layer comes
/// in whole or not at all, and `diff` gives the tar back byte for byte. A compressed file is not kept, as `load` does it with the
/// blobs of an image: `inspect` has its digest and length. Prints the layer's id.
#[derive(Debug, Args)]
#[command(
    visible_alias = "import-layer",
    after_help = "\
Examples:
  layerstore put-layer --file base.tar.gz --name base
  tar -c -C rootfs . | layerstore put-layer --name rootfs
  layerstore put-layer base --file next.tar.zst --digest sha256:2c26..."
)]
pub struct PutLayerArgs {
    #[command(flatten)]
    pub new: NewLayerArgs,

    #[command(flatten)]
    pub archive: ArchiveArgs,

    /// Tell on standard error how long reading, decompressing, hashing, writing, syncing and waiting for locks took
    ///
    /// In seconds, summed over all threads, and the time from beginning to end; with --json as `timings`.
    #[arg(long)]
    pub timings: bool,
}

/// A tar to be read, and what is known of it.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// The tar; - is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub file: PathBuf,

    /// The digest that the file must have, as it is
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<Digest>,

    /// The digest that the uncompressed tar must have
    #[arg(long, value_name = "DIGEST", value_parser = diff_id)]
    pub diff_id: Option<DiffId>,
}

fn diff_id(text: &str) -> Result<DiffId, layerstore::ValueError> {
    text.parse().map(DiffId)
}
