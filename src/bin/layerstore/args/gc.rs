//! `layerstore gc`.

use clap::Args;

/// Remove what no record names, such as what killed processes left behind
///
/// Such leftovers harm nothing but take space, and the next command that writes removes most of them anyway. Layers
/// that only a lease has kept go when it is over. It is safe at any time, also while other processes use the store:
/// what a living process is filling stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore gc --dry-run
  layerstore gc")]
pub struct GcArgs {
    /// Only show what would be removed
    #[arg(long)]
    pub dry_run: bool,
}
