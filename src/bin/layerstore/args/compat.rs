//! `layerstore compat`.

use std::ffi::OsString;

use clap::Args;

/// Run the command line of containers-storage on a store of this program
///
/// For scripts that were written for containers-storage: commands, flags, output and exit status are that program's, as
/// far as docs/compat.md says. The word `compat` comes first, before any flag; all that follows are words of the other
/// command line, `compat --help` too. Under the name containers-storage, this program is that one.
///
/// The store is a store of this program; directories of containers-storage itself are refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore compat --help
  layerstore compat --graph /srv/store --run /run/store images --json
  ln -s /usr/bin/layerstore /usr/local/bin/containers-storage")]
pub struct CompatArgs {
    /// The words of the other command line
    #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}
