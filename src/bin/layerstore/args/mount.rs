//! `layerstore mount`.

use clap::Args;

/// Mount a container, image or layer, and print where
///
/// A container and a writable layer are mounted for writing, an image and a sealed layer for reading. What is mounted already is counted once more and
/// keeps the options it has; it is unmounted when `unmount` was called as often.
///
/// Without root, mounts are made inside a user namespace: see `layerstore unshare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore mount web
  cd \"$(layerstore mount web)\"
  layerstore mount
  layerstore mount debian:12 --read-only
  layerstore unshare sh -c 'ls \"$(layerstore mount web)\"'")]
pub struct MountArgs {
    /// The container, image or layer; without one, the mounts are listed
    #[arg(value_name = "THING")]
    pub thing: Option<String>,

    /// Mount read-only
    #[arg(short, long, requires = "thing")]
    pub read_only: bool,

    /// Make a sealed layer writable first; it loses its digests
    #[arg(long, requires = "thing", conflicts_with = "read_only")]
    pub unseal: bool,

    /// Mount for writing even if images or other layers stand on the layer, which then show what is written
    #[arg(long, requires = "thing", conflicts_with = "read_only")]
    pub change_under_others: bool,

    /// Trust what an earlier volatile mount wrote that never ended, as after a shutdown in order
    #[arg(long, requires = "thing", conflicts_with = "read_only")]
    pub trust_volatile: bool,

    /// A mount option such as nodev or volatile; may be repeated
    #[arg(short, long = "option", value_name = "OPTION", requires = "thing")]
    pub options: Vec<String>,

    /// The SELinux label, in place of the container's or layer's own
    #[arg(long, value_name = "LABEL", requires = "thing")]
    pub label: Option<String>,
}
