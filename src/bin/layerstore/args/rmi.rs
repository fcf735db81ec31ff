//! `layerstore rmi`.

use clap::Args;

/// Remove images, with the layers that nothing else needs
///
/// An image with several names only loses the name that was given; its id removes it whole. An image with containers
/// stays, unless --force is given. Prints what was done, one line for each name and each id, those of containers included.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore rmi web:1
  layerstore rmi 3fa2b1c0ffee
  layerstore rmi --force web:1")]
pub struct RmiArgs {
    /// The images: ids, beginnings of them, names, or digests
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// Remove the containers of the image as well, unmounting them first
    #[arg(short, long)]
    pub force: bool,

    /// Do not complain about images that are not there
    #[arg(short, long)]
    pub ignore: bool,

    /// Return when the records are gone, and leave the files to the next commands that write and to `layerstore gc`
    #[arg(long)]
    pub lazy: bool,
}
