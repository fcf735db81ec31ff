//! `layerstore snapshotter`.

use std::path::PathBuf;

use clap::Args;

/// Serve the store to containerd, as a snapshotter
///
/// Answers containerd's snapshots service (containerd.services.snapshots.v1, gRPC) at a unix socket, until SIGTERM or SIGINT.
/// In containerd's configuration it is a proxy plugin of type snapshot. It keeps nothing in memory: it may be killed at any
/// moment, and other commands use the store meanwhile.
///
/// A systemd socket unit can start it (Accept=no, one ListenStream=); it says READY=1 to Type=notify.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore snapshotter --address /run/layerstore-snapshotter.sock
  ctr images pull --snapshotter layerstore docker.io/library/debian:12

In /etc/containerd/config.toml:
  [proxy_plugins.layerstore]
    type = \"snapshot\"
    address = \"/run/layerstore-snapshotter.sock\"")]
pub struct SnapshotterArgs {
    /// Listen at this socket, which is made and in the end removed
    ///
    /// Only the own user may connect. A socket that a killed process left is replaced; one where somebody answers is not.
    /// Not needed with a socket from systemd.
    #[arg(long, value_name = "SOCKET")]
    pub address: Option<PathBuf>,

    /// Show where changes are written, in the label containerd.io/snapshot/overlay.upperdir
    #[arg(long)]
    pub upperdir_label: bool,

    /// Leave the files of removed snapshots to containerd's cleanup, after its garbage collection
    #[arg(long)]
    pub async_remove: bool,

    /// Map the ids of snapshots with the labels containerd.io/snapshot/uidmapping and gidmapping, by mount options
    #[arg(long)]
    pub remap_ids: bool,

    /// Do not unpack, nor fetch, a layer that is there by the label containerd.io/snapshot.ref, such as of another namespace
    ///
    /// containerd does not fetch the blob of such a layer: the image can be run, but not be pushed or exported from there.
    #[arg(long)]
    pub adopt_references: bool,

    /// An option for every overlay mount, such as volatile; can be given several times
    #[arg(long = "mount-option", value_name = "OPTION")]
    pub mount_options: Vec<String>,
}
