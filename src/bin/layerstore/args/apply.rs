//! `layerstore apply`.

use clap::Args;

use super::ArchiveArgs;

/// Change a layer by a tar of changes
///
/// An empty layer becomes what put-layer makes of the tar. A layer that has something gets the changes on top: files are
/// replaced and deleted as the tar says. All of it happens, or nothing.
///
/// A layer that came from a tar or was sealed has digests that say what is in it, so it is changed only with --unseal.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore apply next --file changes.tar
  layerstore diff web | layerstore apply --unseal next")]
pub struct ApplyArgs {
    /// The layer: its id, the beginning of it, a name, or a digest
    #[arg(value_name = "LAYER")]
    pub layer: String,

    #[command(flatten)]
    pub archive: ArchiveArgs,

    /// Change a sealed layer; it is sealed again, with another digest and without a diffID
    #[arg(long)]
    pub unseal: bool,

    /// Change it even if images or other layers stand on it, which then show something else than they did
    #[arg(long)]
    pub change_under_others: bool,
}
