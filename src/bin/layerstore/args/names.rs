//! `layerstore names`.

use clap::Args;

/// Show or change the names of a container, image or layer
///
/// Without a change it prints the names. All changes are made at once, or none is. A name that another thing of the kind
/// has is refused, unless --move is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore names web
  layerstore names web:1 --add web:latest --move
  layerstore names web --set web-1 --set frontend
  layerstore names web --remove frontend")]
pub struct NamesArgs {
    /// The container, image or layer
    #[arg(value_name = "THING")]
    pub thing: String,

    /// Add a name; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "set")]
    pub add: Vec<String>,

    /// Take a name away; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "set")]
    pub remove: Vec<String>,

    /// Give it exactly these names; may be repeated
    #[arg(long, value_name = "NAME")]
    pub set: Vec<String>,

    /// Take added names from the image that has them; images only
    #[arg(long = "move", requires = "add")]
    pub take: bool,
}

impl NamesArgs {
    /// Whether names are to be changed, and not only shown.
    pub fn is_change(&self) -> bool {
        [&self.add, &self.remove, &self.set].iter().any(|names| !names.is_empty())
    }
}
