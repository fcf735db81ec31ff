//! `layerstore check`.

use clap::Args;

/// Compare the store with itself, and report what does not fit
///
/// Reads only, and works while other processes use the store. Prints each damaged thing with its findings: a code that does not
/// change between versions, what is wrong, and what to do about it. The exit status is 3 if there are findings. What
/// this user may not read is one (not-examined), and no damage.
///
/// Without a flag, it compares records, indexes, and the kind, size and metadata of every path of every layer. The last line
/// counts the records; the directories of layers, of which layers with equal contents share one; and the paths, each name of a file
/// with several for itself, and the kept blobs. `du` and `status` count inodes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore check
  layerstore check --deep
  layerstore check --deep --layer 3fa2b1c0ffee
  layerstore check --json | jq -r '.findings[].code'")]
pub struct CheckArgs {
    /// Also read everything: the content of files, blobs and data items, and the diffID of every layer
    #[arg(long, conflicts_with = "quick")]
    pub deep: bool,

    /// Only look at records and indexes, and whether every directory is there
    #[arg(long)]
    pub quick: bool,

    /// Only this layer
    #[arg(long, value_name = "LAYER", conflicts_with = "image")]
    pub layer: Option<String>,

    /// Also check the stores of --image-store, each by itself
    ///
    /// What is found there is told with the store's directory, and is not this store's to repair.
    #[arg(long, conflicts_with_all = ["layer", "image"])]
    pub image_stores: bool,

    /// Only this image and its layers
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
}
