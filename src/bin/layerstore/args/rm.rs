//! `layerstore rm`.

use clap::Args;

/// Remove containers, with everything written into them
///
/// A container that is mounted stays, unless --force is given. Prints the id of each one that is removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore rm web
  layerstore rm --force $(layerstore containers -q)
  layerstore rm --layer 3fa2b1")]
pub struct RmArgs {
    /// The containers: ids, beginnings of them, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub things: Vec<String>,

    /// Unmount first, even while processes use the mount
    #[arg(short, long, conflicts_with = "layer")]
    pub force: bool,

    /// Do not complain about containers that are not there
    #[arg(short, long)]
    pub ignore: bool,

    /// Remove layers instead: those that no layer, image or container stands on
    #[arg(long)]
    pub layer: bool,
}
