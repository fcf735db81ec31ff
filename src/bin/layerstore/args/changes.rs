//! `layerstore changes`.

use clap::Args;

/// List what a container, image or layer changes
///
/// For a container that is what was written into it, for an image what its top layer brings. A is added, C is
/// changed, D is deleted. Characters that are not seen, bytes that are no UTF-8, and backslashes are shown as \xNN;
/// --null prints paths as they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore changes web
  layerstore changes debian:13 --since debian:12
  layerstore changes web --null | tr '\\0' '\\n'
  layerstore changes web --json | jq -r '.[] | select(.kind == \"deleted\") | .path'")]
pub struct ChangesArgs {
    /// The container, image or layer
    #[arg(value_name = "THING")]
    pub thing: String,

    /// List what turns this container, image or layer into it
    #[arg(long, value_name = "THING")]
    pub since: Option<String>,

    /// End each line with a NUL byte, and print paths as they are
    #[arg(short = '0', long, conflicts_with = "json")]
    pub null: bool,
}
