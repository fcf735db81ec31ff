//! `layerstore save`.

use clap::{Args, ValueEnum};
use layerstore::Compression;
use layerstore::oci::Reference;

/// Write an image out as an OCI layout or an archive
///
/// An image that was loaded and whose blobs are kept comes out as it went in: the same manifest, byte for byte. Else
/// layers are compressed anew, each as the manifest says; their diffIDs, and so the image's id, stay the same. Tools
/// that cannot read zstd need --compression gzip.
///
/// An image that was loaded several times, with several manifests, keeps all of them. The digest of a manifest means that
/// one, a name the one that it was loaded with, and an id or another name the one that came first.
///
/// A layout may hold other images already, which stay. An archive is a new file, or with --force takes the place of one that
/// is there, once it is whole and on the disk.
///
/// A docker archive has names in full: `web` becomes `docker.io/library/web:latest`. Without a name in DESTINATION it gets
/// all names of the image. Of an OCI archive or a layout, TAG is the only name.
///
/// Prints the digest of the manifest, unless the archive goes to standard output, as with docker-archive:/dev/stdout.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore save web:1 oci:web.oci:1
  layerstore save web:1 oci:web.oci:1 --compression gzip
  layerstore save web:1 oci-archive:web.tar --compression zstd
  layerstore save web:1 docker-archive:web.tar:example.org/web:1")]
pub struct SaveArgs {
    /// The image: its id, the beginning of it, a name, or a digest
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Where to: oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:REPO:TAG]
    #[arg(value_name = "DESTINATION")]
    pub destination: Reference,

    /// How to compress layers; kept blobs that are compressed otherwise are compressed anew
    #[arg(long, value_name = "KIND")]
    pub compression: Option<CompressionKind>,

    /// How hard to compress: 0 to 9 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "LEVEL", requires = "compression")]
    pub level: Option<i32>,

    /// Replace an archive that is there, with all images in it
    #[arg(short, long)]
    pub force: bool,
}

/// How to compress layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CompressionKind {
    /// Not at all
    None,
    /// Every tool reads it
    Gzip,
    /// Smaller and faster
    Zstd,
    /// The same, with a table of contents: who has some of the files fetches only the others
    #[value(name = "zstd:chunked")]
    ZstdChunked,
}

impl From<CompressionKind> for Compression {
    fn from(kind: CompressionKind) -> Self {
        match kind {
            CompressionKind::None => Compression::None,
            CompressionKind::Gzip => Compression::Gzip,
            CompressionKind::Zstd => Compression::Zstd,
            CompressionKind::ZstdChunked => Compression::ZstdChunked,
        }
    }
}
