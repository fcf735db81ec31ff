//! `layerstore wipe`.

use clap::Args;

/// Remove every container, image and layer
///
/// What is mounted is unmounted first; if processes use it, or another mount namespace writes to it, nothing is removed. The
/// store stays, empty. Snapshots of containerd's are mounted where the store cannot see it: if there are any, nothing is
/// removed without --snapshots.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore wipe --force
  layerstore --root /var/lib/demo wipe --force")]
pub struct WipeArgs {
    /// Yes, everything
    #[arg(short, long, required = true)]
    pub force: bool,

    /// Also the snapshots of containerd's, even those of running containers
    #[arg(long)]
    pub snapshots: bool,
}
