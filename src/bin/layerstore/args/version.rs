//! `layerstore version`.

use clap::Args;

/// Print the version of the program
#[derive(Debug, Args)]
pub struct VersionArgs {}
