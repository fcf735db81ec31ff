//! `layerstore unshare`.

use std::ffi::OsString;

use clap::Args;

/// Run a command in a user namespace, where it is root and may mount
///
/// For users who are not root, whose other commands enter such a namespace by themselves, each one of its own. The ids that /etc/subuid and /etc/subgid give the user are mapped, if newuidmap and
/// newgidmap are installed; else only the user's own id, and all files of images belong to that one. Root may mount already: the command
/// runs as it is then, so that scripts need not ask who runs them.
///
/// Mounts made inside end with the last process of the namespace.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore unshare
  layerstore unshare sh -c 'ls -l \"$(layerstore mount web)\"'
  layerstore unshare cat /proc/self/uid_map")]
pub struct UnshareArgs {
    /// The command with its arguments [default: $SHELL, else /bin/sh]
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}
