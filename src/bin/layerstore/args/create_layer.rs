//! `layerstore create-layer`.

use clap::Args;
use layerstore::LayerId;

/// Create an empty layer that can be written to
///
/// The layer stands on its parent, or on nothing. Fill it with `apply` or by a mount; `seal` ends that. Others may stand on
/// it at any time. Prints the layer's id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore create-layer --name base
  layerstore create-layer base --name next --volatile
  layerstore create-layer base --template next --name copy")]
pub struct CreateLayerArgs {
    #[command(flatten)]
    pub new: NewLayerArgs,

    /// Begin with what this layer changes
    #[arg(long, value_name = "LAYER")]
    pub template: Option<String>,

    /// How many bytes may be written into it, such as 10G; 0 is no limit [default: size= of the configuration]
    #[arg(long, value_name = "SIZE", value_parser = super::create_container::size)]
    pub size: Option<u64>,

    /// How many files and directories it may have; 0 is no limit [default: inodes= of the configuration]
    #[arg(long, value_name = "COUNT", value_parser = super::create_container::count)]
    pub inodes: Option<u64>,
}

/// What a new layer is given.
#[derive(Debug, Args)]
pub struct NewLayerArgs {
    /// The layer below: its id, the beginning of it, a name, or a digest; none for a base layer
    #[arg(value_name = "PARENT")]
    pub parent: Option<String>,

    /// A name for the layer; may be repeated
    #[arg(long = "name", value_name = "NAME", value_parser = super::create_container::name)]
    pub names: Vec<String>,

    /// The layer's id [default: a random one]
    #[arg(long, value_name = "ID")]
    pub id: Option<LayerId>,

    /// A small text that is kept with the layer
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub metadata: String,

    /// A label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = super::create_container::key_value)]
    pub labels: Vec<(String, String)>,

    /// The SELinux label for every mount of it
    #[arg(long, value_name = "LABEL")]
    pub mount_label: Option<String>,

    /// Leave out syncs in every mount of it: after a crash, what was written is in doubt
    #[arg(long)]
    pub volatile: bool,

    /// Never mount it for writing
    #[arg(long)]
    pub read_only: bool,
}
