//! `layerstore sync`.

use clap::Args;

/// Bring to the disk what was left to the kernel
///
/// For stores that are used with --sync records or --sync off: when it has ended, a power cut costs nothing of what was
/// there when it began. Every load with --sync full does the same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore --sync records load oci:debian.oci:12
  layerstore sync")]
pub struct SyncArgs {}
