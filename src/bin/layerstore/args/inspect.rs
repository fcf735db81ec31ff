//! `layerstore inspect`.

use clap::Args;

/// Print everything about containers, images or layers, as JSON
///
/// An image comes with its config, its manifest, its layers (the topmost first) and its data items; a container and a
/// layer with the layers below and the data items.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore inspect web
  layerstore inspect debian:12 | jq '.[0].config.config.Env'")]
pub struct InspectArgs {
    /// The containers, images or layers
    #[arg(value_name = "THING", required = true)]
    pub things: Vec<String>,
}
