//! `layerstore create-image`.

use std::path::PathBuf;

use clap::Args;
use layerstore::{Digest, ImageId};

use super::create_container::{flag, key_value, name};

/// Make an image of a layer that is there
///
/// A name that another image has is moved. Prints the image's id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore create-image 3fa2b1c0ffee --name web:1
  layerstore create-image 3fa2b1c0ffee --name web:1 --item manifest=manifest.json
  layerstore create-image --name marker")]
pub struct CreateImageArgs {
    /// The topmost layer: its id, the beginning of it, a name, or a digest; none for an image without layers
    #[arg(value_name = "LAYER")]
    pub layer: Option<String>,

    /// A name for the image; may be repeated
    #[arg(long = "name", value_name = "NAME", value_parser = name)]
    pub names: Vec<String>,

    /// The image's id [default: a random one]
    #[arg(long, value_name = "ID")]
    pub id: Option<ImageId>,

    /// A small text that is kept with the image
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub metadata: String,

    /// When it was made, in RFC 3339 or as seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    pub created: Option<jiff::Timestamp>,

    /// A digest that the image is found by; may be repeated
    #[arg(long = "digest", value_name = "DIGEST")]
    pub digests: Vec<Digest>,

    /// A data item from a file; may be repeated. By its items `manifest` and `manifest-...` an image is found
    #[arg(long = "item", value_name = "KEY=FILE", value_parser = key_file)]
    pub items: Vec<(String, PathBuf)>,

    /// A label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,

    /// A flag with a value in JSON; may be repeated
    #[arg(long = "flag", value_name = "NAME=JSON", value_parser = flag)]
    pub flags: Vec<(String, String)>,
}

fn key_file(text: &str) -> Result<(String, PathBuf), String> {
    match key_value(text) {
        Ok((key, file)) => Ok((key, file.into())),
        Err(_) => Err("not of the form KEY=FILE".to_owned()),
    }
}
