//! `layerstore wipe`.

use clap::Args;

/// Remove every container, image and layer
///
/// What is mounted is unmounted first; if processes use it, nothing is removed. The store stays, empty.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore wipe --force
  layerstore --root /var/lib/demo wipe --force")]
pub struct WipeArgs {
    /// Yes, everything
    #[arg(short, long, required = true)]
    pub force: bool,
}
