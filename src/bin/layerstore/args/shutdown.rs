//! `layerstore shutdown`.

use clap::Args;

/// List what is mounted, or end all mounts
///
/// Prints the ids of the layers that are mounted, and fails if there are any. With --force they are unmounted, even while
/// processes use them. Mounts of other mount namespaces are not seen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore shutdown
  layerstore shutdown --force")]
pub struct ShutdownArgs {
    /// Unmount them
    #[arg(short, long)]
    pub force: bool,
}
