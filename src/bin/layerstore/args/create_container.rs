//! `layerstore create-container`.

use clap::Args;
use layerstore::ContainerId;

/// Create a container with a writable layer of its own
///
/// The layer stands on the image's top layer, or is empty if there is no image. Prints the container's id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore create-container debian:12 --name web
  layerstore create-container debian:12 --name build --mount-option volatile
  layerstore create-container --name scratch")]
pub struct CreateContainerArgs {
    /// The image: its id, the beginning of it, a name, or a digest; none for an empty container
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,

    /// A name for the container; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,

    /// The container's id [default: a random one]
    #[arg(long, value_name = "ID")]
    pub id: Option<ContainerId>,

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
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err("not of the form KEY=VALUE".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}
