//! `layerstore prune`.

use clap::Args;

/// Drop what can be made anew
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore prune --blobs")]
#[group(required = true, multiple = true)]
pub struct PruneArgs {
    /// Drop the compressed blobs that layers came as
    ///
    /// The layers stay. An image that is saved later has the same layers, in blobs that are compressed anew, and a
    /// damaged layer can no longer be repaired from its blob.
    #[arg(long)]
    pub blobs: bool,

    /// End all leases, and remove the layers that only they keep
    ///
    /// Loads that failed with --lease keep their finished layers under one; so do programs that use the library.
    #[arg(long)]
    pub leases: bool,

    /// Remove the copies of images with other owners that no container needs
    ///
    /// Where the kernel maps no ids in mounts, the first container with ids of its own that is mounted has its image copied. The
    /// copy stays for the next container with these ids, and goes with the image. `layers` shows copies, `du` what they take.
    #[arg(long)]
    pub copies: bool,
}
