//! `layerstore backup`.

use std::path::PathBuf;

use clap::Args;

/// Copy the database to a file, while others use the store
///
/// The copy has every record, name and data item as they are at one moment, and is there when it is whole. The
/// files of layers are not in it: they lie beside the database, and are never changed.
///
/// To put it back, end everything that uses the store, and move a copy of it over `store.redb` in the store's directory.
/// Containers made since are lost then: no record names their directories, and `layerstore gc` deletes them. Look at what
/// `layerstore gc --dry-run` lists before, and run `layerstore check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore backup /backup/store.redb
  layerstore backup --force /backup/store.redb")]
pub struct BackupArgs {
    /// Where to write it
    pub file: PathBuf,

    /// Replace the file if there is one
    #[arg(short, long)]
    pub force: bool,
}
