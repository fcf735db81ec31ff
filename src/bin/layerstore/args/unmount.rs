//! `layerstore unmount`.

use clap::Args;

/// Give a mount back, and unmount with the last
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore unmount web
  layerstore unmount --all web
  layerstore unmount --lazy web")]
pub struct UnmountArgs {
    /// The containers, images or layers, or the paths that `mount` printed
    #[arg(value_name = "THING", required = true)]
    pub things: Vec<String>,

    /// Unmount, however many times it was mounted
    #[arg(short, long)]
    pub all: bool,

    /// Take the mount away even while processes use it; they keep what they have open, and what they may write to is not
    /// mounted for writing, sealed or removed until they close it
    #[arg(short, long, visible_alias = "force", short_alias = 'f')]
    pub lazy: bool,
}
