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
    /// Give up the transient containers of this boot first, if their run root was removed
    ///
    /// While their records are not to be seen nothing is collected: they may be in another mount namespace, and the containers
    /// may run. Make sure that none does; a reboot does the same.
    #[arg(long, conflicts_with = "dry_run")]
    pub forget_transient: bool,
}
