//! `layerstore completions`.

use clap::Args;
use clap_complete::Shell;

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore completions bash > /etc/bash_completion.d/layerstore
  layerstore completions zsh > ~/.zfunc/_layerstore
  layerstore completions fish > ~/.config/fish/completions/layerstore.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}
