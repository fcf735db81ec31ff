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

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args as _, CommandFactory, FromArgMatches, Parser, Subcommand};

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
#[command(name = PROGRAM, version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

const PROGRAM: &str = "layerstore";

impl Args {
    /// What was typed. Ends the process with a message, or the help, if it is no command.
    pub fn of_process() -> Self {
        let words: Vec<OsString> = std::env::args_os().collect();
        Self::by_named_commands(&words).unwrap_or_else(|| {
            let matches = Self::definition().get_matches_from(words);
            Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
        })
    }

    /// Reads a command line with the definitions of those commands only that it names: clap gives each a copy of all global flags, which
    /// for all commands takes longer than most of them run. `None` if something is wrong or help is wanted, which all have a part in.
    fn by_named_commands(words: &[OsString]) -> Option<Self> {
        let all = Command::augment_subcommands(clap::Command::default());
        let is_named = |command: &&clap::Command| {
            let names = command.get_name_and_visible_aliases();
            words.iter().any(|word| names.iter().any(|name| word == name))
        };
        let named = all.get_subcommands().filter(is_named).cloned();
        let program = clap::Command::new(PROGRAM).version(env!("CARGO_PKG_VERSION")).subcommands(named);
        match GlobalArgs::augment_args(program).try_get_matches_from(words) {
            Ok(matches) => Self::from_arg_matches(&matches).ok(),
            Err(error) if error.kind() == ErrorKind::DisplayVersion => error.exit(),
            Err(_) => None,
        }
    }

    /// The definition of all commands, in full.
    pub fn definition() -> clap::Command {
        let mut definition = Self::command();
        definition.build();
        definition
    }
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
#[command(defer = true)]
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
    #[test]
    fn what_is_right_needs_no_other_commands() {
        let read = |line: &str| {
            let words: Vec<_> = line.split(' ').map(Into::into).collect();
            super::Args::by_named_commands(&words).map(|args| args.command)
        };
        for (line, expected) in [
            ("layerstore --root load unmount web", "Unmount("),
            ("layerstore umount web --root load", "Unmount("),
            ("layerstore ps --no-write", "Containers("),
            ("layerstore rm -- rm", "Rm("),
        ] {
            let found = format!("{:?}", read(line));
            assert!(found.starts_with(&format!("Some({expected}")), "{line}: {found}");
        }
        for line in [
            "layerstore",
            "layerstore --help",
            "layerstore unmont web",
            "layerstore save",
            "layerstore help rm",
        ] {
            assert!(read(line).is_none(), "{line}");
        }
    }

    /// Among others, no command has a flag of the name of a global one: of two arguments with one id, clap gives the value of the one to the
    /// other.
    #[test]
    fn definitions_are_sound() {
        super::Args::definition().debug_assert();
    }

    #[test]
    fn every_command_and_flag_has_a_help_text() {
        for command in super::Args::definition().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
