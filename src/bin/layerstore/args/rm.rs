//! `layerstore rm`.

use clap::Args;

/// Remove containers, with everything written into them, or layers
///
/// What is mounted stays, unless --force is given; so does what is written to in another mount namespace, as by another
/// `layerstore unshare`, but what a program such as fuse-overlayfs has mounted there is not seen. With --layer, layers are
/// removed instead: those that nothing stands on, be it a layer, an image or a container. Of several in one call those above
/// others go first, so a whole stack can be given in any order. Prints a line with the id of each one that is removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore rm web
  layerstore rm --force $(layerstore containers -q)
  layerstore rm --layer 3fa2b1
  layerstore rm --layer base next top")]
pub struct RmArgs {
    /// The containers, or with --layer the layers: ids, beginnings of them, or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub things: Vec<String>,

    /// Unmount what nothing else keeps, in every mount namespace, even while processes use the mount; with --layer, remove
    /// snapshots of containerd's, too
    #[arg(short, long)]
    pub force: bool,

    /// Do not complain about what is not there
    #[arg(short, long)]
    pub ignore: bool,

    /// Return when the records are gone, and leave the files to the next commands that write and to `layerstore gc`
    #[arg(long)]
    pub lazy: bool,

    /// Remove layers instead: those that no layer, image or container stands on
    #[arg(long)]
    pub layer: bool,
}
