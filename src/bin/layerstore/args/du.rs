//! `layerstore du`.

use clap::Args;

/// Show what takes how much space
///
/// TOTAL is everything that a thing stands on; UNIQUE is what only it has, and what its removal would free.
/// INODES are its files, links and directories, each once however many names it has.
/// Directories of containers are measured; everything else is known.
#[derive(Debug, Args)]
#[command(
    visible_alias = "df",
    after_help = "\
Examples:
  layerstore du
  layerstore du --json | jq '.summary'"
)]
pub struct DuArgs {
    /// Only these containers, images or layers
    #[arg(value_name = "THING")]
    pub things: Vec<String>,

    /// Print ids whole
    #[arg(long)]
    pub no_trunc: bool,
}
