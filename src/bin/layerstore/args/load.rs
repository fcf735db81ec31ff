//! `layerstore load`.

use clap::Args;
use layerstore::oci::{Platform, Reference};

/// Bring an image in from an OCI layout or an archive
///
/// Everything is checked on its way in: the digests of the blobs and the diffIDs of the layers. Layers that the store
/// has already are not read again. If anything fails, nothing of the image is in the store.
///
/// Prints the image's id. A name that another image has moves to this one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore load oci:debian.oci:12
  layerstore load oci-archive:debian.tar --name debian:12
  layerstore load docker-archive:web.tar:example.org/web:1 --name web
  layerstore load oci:multi --platform linux/arm64

A layout or archive with several images needs the tag of one. Without --name the image gets the name that the \
source has for it, if any.")]
pub struct LoadArgs {
    /// Where it is: oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:REPO:TAG]
    #[arg(value_name = "SOURCE")]
    pub source: Reference,

    /// A name for the image, in place of those of the source; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,

    /// Which image of a multi-platform one: OS/ARCHITECTURE[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,
}
