//! `layerstore seal`.

use clap::Args;

/// Seal layers that were written to, so that they are never written to again
///
/// A sealed layer has a digest, shares its directory with equal ones, and is checked. With --unseal it is the other way round:
/// the layer can be written to, and loses its digests.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore seal next
  layerstore seal --unseal next")]
pub struct SealArgs {
    /// The layers: ids, beginnings of them, names, or digests
    #[arg(value_name = "LAYER", required = true)]
    pub layers: Vec<String>,

    /// Make sealed layers writable
    #[arg(long)]
    pub unseal: bool,
}
