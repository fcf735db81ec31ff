//! What was typed. One file per command; a doc comment is the help text. What it means is for
//! [`Context`](crate::context::Context) and the commands.

mod apply;
mod backup;
mod changes;
mod check;
mod commit;
mod compact;
mod compat;
mod completions;
mod config;
mod create_container;
mod create_image;
mod create_layer;
mod dedup;
mod diff;
mod du;
mod events;
mod gc;
mod global;
mod inspect;
mod item;
mod list;
mod load;
mod man;
mod mount;
mod names;
mod prune;
mod put_layer;
mod repair;
mod rm;
mod rmi;
mod save;
mod seal;
mod shutdown;
#[cfg(feature = "containerd")]
mod snapshotter;
mod status;
mod sync;
mod unmount;
mod unshare;
mod version;
mod wipe;

use clap::{Parser, Subcommand};

pub use apply::ApplyArgs;
pub use backup::BackupArgs;
pub use changes::ChangesArgs;
pub use check::CheckArgs;
pub use commit::{CommitArgs, time};
pub use compact::CompactArgs;
pub use compat::CompatArgs;
pub use completions::CompletionsArgs;
pub use config::ConfigArgs;
pub use create_container::{CreateContainerArgs, IdChoice};
pub use create_image::CreateImageArgs;
pub use create_layer::{CreateLayerArgs, NewLayerArgs};
pub use dedup::DedupArgs;
pub use diff::DiffArgs;
pub use du::DuArgs;
pub use events::{EventsArgs, Filter, FilterKey, Since};
pub use gc::GcArgs;
pub use global::{Color, GlobalArgs, Sync};
pub use inspect::InspectArgs;
pub use item::{ItemArgs, ItemCommand};
pub use list::{ContainersArgs, ImagesArgs, LayersArgs};
pub use load::LoadArgs;
pub use man::ManArgs;
pub use mount::MountArgs;
pub use names::NamesArgs;
pub use prune::PruneArgs;
pub use put_layer::{ArchiveArgs, PutLayerArgs};
pub use repair::RepairArgs;
pub use rm::RmArgs;
pub use rmi::RmiArgs;
pub use save::{CompressionKind, SaveArgs};
pub use seal::SealArgs;
pub use shutdown::ShutdownArgs;
#[cfg(feature = "containerd")]
pub use snapshotter::SnapshotterArgs;
pub use status::StatusArgs;
pub use sync::SyncArgs;
pub use unmount::UnmountArgs;
pub use unshare::UnshareArgs;
pub use version::VersionArgs;
pub use wipe::WipeArgs;

/// Keep container layers, images and containers in a directory, without a daemon
///
/// A store is a directory with the layers of images, the images themselves, and containers that stand on them.
/// Every process that opens it is equal: there is no server to start, and nothing to repair after one dies.
///
/// Things are named by their id, the beginning of it, one of their names, or (images and layers) a digest.
#[derive(Debug, Parser)]
#[command(name = "layerstore", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  layerstore load oci:debian.oci:12 --name debian:12
  layerstore create-container debian:12 --name web
  layerstore mount web
  layerstore changes web
  layerstore commit web --name web:1
  layerstore save web:1 oci:web.oci:1
  layerstore unmount web && layerstore rm web

Exit status: 0 if it was done, 1 if it failed, 2 if the command line is wrong, 3 if `check` found \
something, or `repair` left something.";

/// The commands, in the order in which the help lists them.
#[derive(Debug, Subcommand)]
pub enum Command {
    Load(LoadArgs),
    Save(SaveArgs),
    Images(ImagesArgs),
    Layers(LayersArgs),
    #[command(visible_alias = "ps")]
    Containers(ContainersArgs),
    #[command(visible_alias = "create")]
    CreateContainer(CreateContainerArgs),
    CreateLayer(CreateLayerArgs),
    PutLayer(PutLayerArgs),
    Apply(ApplyArgs),
    Seal(SealArgs),
    CreateImage(CreateImageArgs),
    Mount(MountArgs),
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    Changes(ChangesArgs),
    Diff(DiffArgs),
    Commit(CommitArgs),
    Rm(RmArgs),
    Rmi(RmiArgs),
    Names(NamesArgs),
    Item(ItemArgs),
    Inspect(InspectArgs),
    Du(DuArgs),
    Status(StatusArgs),
    Events(EventsArgs),
    #[command(visible_alias = "fsck")]
    Check(CheckArgs),
    Repair(RepairArgs),
    Gc(GcArgs),
    Dedup(DedupArgs),
    Prune(PruneArgs),
    Wipe(WipeArgs),
    Shutdown(ShutdownArgs),
    Backup(BackupArgs),
    Compact(CompactArgs),
    Sync(SyncArgs),
    Config(ConfigArgs),
    Unshare(UnshareArgs),
    Compat(CompatArgs),
    #[cfg(feature = "containerd")]
    Snapshotter(SnapshotterArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    Version(VersionArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn definitions_are_sound() {
        super::Args::command().debug_assert();
    }

    /// Of two arguments with one id, clap gives the value of the one to the other.
    #[test]
    fn no_command_has_a_flag_of_the_name_of_a_global_one() {
        let args = super::Args::command();
        let is_global =
            |id| args.get_arguments().any(|global| global.is_global_set() && global.get_id() == id);
        let mut commands: Vec<_> = args.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            for argument in command.get_arguments() {
                assert!(!is_global(argument.get_id()), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn every_command_and_flag_has_a_help_text() {
        for command in super::Args::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
