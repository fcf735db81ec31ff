//! `layerstore images`, `layers` and `containers`.

use clap::Args;

/// How lists are printed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print ids and digests whole
    #[arg(long)]
    pub no_trunc: bool,

    /// Leave the heading out
    #[arg(short = 'n', long, alias = "noheading")]
    pub no_heading: bool,
}

/// List the images
///
/// SIZE is what all layers of the image take on the disk; images that share layers share that space.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore images
  layerstore images -q --no-trunc
  layerstore images --json | jq -r '.[] | select(.names == []) | .id'")]
pub struct ImagesArgs {
    #[command(flatten)]
    pub list: ListArgs,
}

/// List the layers
///
/// SIZE is what the layer itself takes on the disk. With --tree, layers are drawn below their parents, with the
/// images and containers whose top layer they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore layers --tree
  layerstore layers --json | jq '[.[].size] | add'")]
pub struct LayersArgs {
    /// Draw the layers as a tree
    #[arg(long)]
    pub tree: bool,

    #[command(flatten)]
    pub list: ListArgs,
}

/// List the containers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore containers
  layerstore containers --size
  layerstore containers --json | jq -r '.[] | select(.mount) | .mount.path'")]
pub struct ContainersArgs {
    /// Measure what was written into each container; reads their directories
    #[arg(short, long)]
    pub size: bool,

    #[command(flatten)]
    pub list: ListArgs,
}
