//! `layerstore status`.

use clap::Args;

/// Show where the store is, what it holds and what works here
#[derive(Debug, Args)]
#[command(visible_alias = "info")]
pub struct StatusArgs {}
