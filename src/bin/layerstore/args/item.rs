//! `layerstore item`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Read and write data items: named blobs that are kept with a thing
///
/// An image has its manifest and its config as items (`item list` shows them). Saving and committing need those, so they
/// are neither replaced nor removed: give items of your own other keys.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore item list web:1
  layerstore item get web:1 manifest | jq .
  layerstore item put web spec config.json
  layerstore item rm web spec")]
pub struct ItemArgs {
    #[command(subcommand)]
    pub command: ItemCommand,
}

/// What to do with items.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum ItemCommand {
    /// List the data items of a thing
    #[command(visible_alias = "ls")]
    List {
        /// The container, image or layer
        #[arg(value_name = "THING")]
        thing: String,
    },
    /// Write a data item to standard output or a file
    Get {
        /// The container, image or layer
        #[arg(value_name = "THING")]
        thing: String,
        /// The item's key
        #[arg(value_name = "KEY")]
        key: String,
        /// Write to this file; - is standard output
        #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
        output: PathBuf,
    },
    /// Store a data item, in place of the one that is there
    Put {
        /// The container, image or layer
        #[arg(value_name = "THING")]
        thing: String,
        /// The item's key
        #[arg(value_name = "KEY")]
        key: String,
        /// Read from this file; - is standard input
        #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
        file: PathBuf,
    },
    /// Remove a data item
    Rm {
        /// The container, image or layer
        #[arg(value_name = "THING")]
        thing: String,
        /// The item's key
        #[arg(value_name = "KEY")]
        key: String,
    },
}
