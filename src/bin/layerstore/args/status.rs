//! `layerstore status`.

use clap::Args;

/// Show where the store is, what it holds, what is mounted, and what can be done here
#[derive(Debug, Args)]
#[command(visible_alias = "info")]
pub struct StatusArgs {}
