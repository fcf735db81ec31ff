//! `layerstore man`.

use std::path::PathBuf;

use clap::Args;

/// Print the manual page, or write the pages of all commands
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore man | man -l -
  layerstore man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write layerstore.1 and one page for each command to this directory, which is made if it is missing
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
