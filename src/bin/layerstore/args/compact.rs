//! `layerstore compact`.

use clap::Args;

/// Make the database file as small as it can be
///
/// Space that nothing needs any more is used again by what comes, so this is for a store that has lost most of what it
/// had. It needs a moment in which nothing is read or written, and whoever comes meanwhile waits.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore compact")]
pub struct CompactArgs {}
