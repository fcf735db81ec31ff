//! `layerstore check`.

use clap::Args;

/// Compare records and directories, and report what does not fit
///
/// Reads only, and works while other processes use the store. Prints one line for each finding: a code that does not
/// change between versions, what it is about, and what to do. The exit status is 3 if there are findings.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore check
  layerstore check --deep
  layerstore check --json | jq -r '.findings[].code'")]
pub struct CheckArgs {
    /// Also read every file of every layer and compare its content with its digest
    #[arg(long)]
    pub deep: bool,
}
