//! `layerstore config`.

use clap::Args;

/// Show the options that are in effect, and where each came from
///
/// That is a flag, a variable, the file and line of a configuration that was asked for with --config, or the default. What
/// in the file has no effect is told, with the reason. Opens no store.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore config
  layerstore --config /etc/demo/storage.conf config --json")]
pub struct ConfigArgs {}
