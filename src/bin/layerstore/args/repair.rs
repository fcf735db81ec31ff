//! `layerstore repair`.

use clap::Args;
use layerstore::oci::Reference;

/// Mend what `check --deep` finds
///
/// Rows that follow from others are written again; damaged files come from equal ones, from blobs that were kept, or
/// from images given by --from; manifests and tar-splits are made again. All of it is verified, and checked once more in
/// the end. What is mounted has to be unmounted first.
///
/// Prints one line for each thing that was mended, and then the damage that is left, if any; the exit status is 3 then.
/// What cannot be had again is only removed with --force; what this user may not read is left in any case.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore repair --dry-run
  layerstore repair
  layerstore repair --from oci:debian.oci --from docker-archive:web.tar
  layerstore repair --image web:1 --from oci:web.oci:1
  layerstore repair --force --dry-run")]
pub struct RepairArgs {
    /// Images to take layers and documents from: oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REPO:TAG]; all images in it if there is no tag. May be repeated
    #[arg(long = "from", value_name = "SOURCE")]
    pub sources: Vec<Reference>,

    /// Only this layer
    #[arg(long, value_name = "LAYER", conflicts_with = "image")]
    pub layer: Option<String>,

    /// Only this image and its layers
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,

    /// Remove what cannot be had again, with everything that stands on it: containers too, and what was written into
    /// them. See first what that is: without it, the output says so
    #[arg(long)]
    pub force: bool,

    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
}
