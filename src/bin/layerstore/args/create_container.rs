//! `layerstore create-container`.

use clap::Args;
use layerstore::{ContainerId, IdExtent, LayerId, Name, ValueError};

/// Create a container with a writable layer of its own
///
/// The layer stands on the image's top layer, or is empty if there is no image. Prints the container's id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore create-container debian:12 --name web
  layerstore create-container debian:12 --name build --mount-option volatile
  layerstore create-container debian:12 --name small --size 512M
  layerstore create-container debian:12 --name apart --uidmap 0:100000:65536
  layerstore create-container debian:12 --name apart --userns-auto
  layerstore create-container --name scratch")]
pub struct CreateContainerArgs {
    /// The image: its id, the beginning of it, a name, or a digest; none for an empty container
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,

    /// A name for the container; may be repeated
    #[arg(long = "name", value_name = "NAME", value_parser = name)]
    pub names: Vec<String>,

    /// The container's id [default: a random one]
    #[arg(long, value_name = "ID")]
    pub id: Option<ContainerId>,

    /// The id of its layer [default: a random one]
    #[arg(long, value_name = "ID")]
    pub layer: Option<LayerId>,

    /// A small text that is kept with the container
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub metadata: String,

    /// A label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,

    /// An option for every mount of it, such as nodev or volatile; may be repeated
    #[arg(long = "mount-option", value_name = "OPTION")]
    pub mount_options: Vec<String>,

    /// The SELinux label for every mount of it
    #[arg(long, value_name = "LABEL")]
    pub mount_label: Option<String>,

    /// The SELinux label of its processes, for whoever starts them
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,

    /// Skip syncs in every mount of it: faster, and after a power cut it can only be removed
    #[arg(long)]
    pub volatile: bool,

    /// How many bytes may be written into it, such as 10G; 0 is no limit [default: size= of the configuration]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub size: Option<u64>,

    /// How many files and directories it may have; 0 is no limit [default: inodes= of the configuration]
    #[arg(long, value_name = "COUNT", value_parser = count)]
    pub inodes: Option<u64>,

    /// A flag with a value in JSON; may be repeated
    #[arg(long = "flag", value_name = "NAME=JSON", value_parser = flag)]
    pub flags: Vec<(String, String)>,

    #[command(flatten)]
    pub ids: IdChoice,
}

/// Which ids of the host the container's are.
#[derive(Debug, Args)]
pub struct IdChoice {
    /// Which user ids of the host the container's are; may be repeated [default: as --gidmap, else the same]
    #[arg(long = "uidmap", value_name = "CONTAINER:HOST:COUNT", value_delimiter = ',')]
    pub uid_map: Vec<IdExtent>,

    /// Which group ids of the host the container's are; may be repeated [default: as --uidmap, else the same]
    #[arg(long = "gidmap", value_name = "CONTAINER:HOST:COUNT", value_delimiter = ',')]
    pub gid_map: Vec<IdExtent>,

    /// Choose ids that no other container has, as many as the image's accounts need; maps that are given are kept besides
    #[arg(long)]
    pub userns_auto: bool,

    /// How many ids to choose [default: as many as the image's accounts need, at least 1024]
    #[arg(long, value_name = "COUNT", requires = "userns_auto")]
    pub userns_size: Option<u32>,

    /// Whose ranges in /etc/subuid and /etc/subgid to choose from [default: those of the user containers]
    #[arg(long, value_name = "USER", requires = "userns_auto")]
    pub userns_user: Option<String>,
}

/// A word, an equals sign, and the rest.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err("not of the form KEY=VALUE".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}

/// A word, an equals sign, and JSON.
pub(super) fn flag(text: &str) -> Result<(String, String), String> {
    let (name, value) = key_value(text).map_err(|_| "not of the form NAME=JSON".to_owned())?;
    match serde_json::from_str::<serde::de::IgnoredAny>(&value) {
        Ok(_) => Ok((name, value)),
        Err(_) => Err(format!("{value:?} is no JSON; a text has quotes of its own, as in '{name}=\"text\"'")),
    }
}

/// A number of bytes, with a unit or without.
pub(super) fn size(text: &str) -> Result<u64, String> {
    layerstore::config::parse_size(text).ok_or_else(|| "not a size such as 512M or 10G".to_owned())
}

/// A number of things. Of those there are no thousands that would be 1024.
pub(super) fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "not a whole number such as 100000, without a unit".to_owned())
}

/// A name, as it was typed.
pub(super) fn name(text: &str) -> Result<String, ValueError> {
    text.parse::<Name>().map(|_| text.to_owned())
}
