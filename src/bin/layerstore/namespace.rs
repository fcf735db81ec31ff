//! The user namespace in which users who are not root work on their stores.
//!
//! An owner is a number, and a number means another user inside of a namespace than outside. So all that reads or writes owners of a
//! store does it in one namespace, the one that `layerstore unshare` makes: root's files are the user's on the disk, and the others'
//! have ids of `/etc/subuid`. The process enters it by itself and stays the same one, so that whoever started it sees no difference.

use std::io;
use std::os::unix::fs::MetadataExt;

use layerstore::{NamespaceError, WithoutRanges};

use crate::args::{Command, ItemCommand};
use crate::commands;
use crate::context::Context;
use crate::failure::Failure;

/// What is said, with the reason behind it, where a user has ranges of ids and the programs could not map them.
pub const NOT_MAPPED: &str = "your ranges of ids could not be mapped, so all files belong to root this time";

/// Whether this user needs a namespace: root has all ids, those of the machine or of the namespace that this is.
pub fn is_for_this_user() -> bool {
    !rustix::process::geteuid().is_root()
}

/// Enters a namespace if this user needs one for the command.
///
/// Where the machine lets nobody make one, the command runs without: there, nothing was written in one either. What fails for another
/// reason, such as a limit of processes, ends the command: another time it would give files to others.
pub fn enter_for(command: &Command, context: &Context) -> Result<(), Failure> {
    if !is_for_this_user() || !context.may_unshare() || !meets_owners(command) || is_of_others(context) {
        return Ok(());
    }
    context.options().check_program()?;
    unmount_before(command, context)?;
    match layerstore::enter_user_namespace() {
        Ok(namespace) => {
            match namespace.without_ranges {
                Some(WithoutRanges::NotMapped(reason)) if !context.quiet() => {
                    context.note(&format!("{NOT_MAPPED}: {reason}"));
                }
                Some(reason) => tracing::info!(%reason, "entered a user namespace with one id"),
                None => tracing::debug!("entered a user namespace"),
            }
            Ok(())
        }
        Err(error @ NamespaceError::NotAllowed(_)) => {
            let reason: &dyn std::error::Error = &error;
            tracing::info!(reason, "not in a user namespace");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a command may come upon owners of files: it reads or writes the directories of layers, or deletes some. The first write through
/// each handle does that, whatever it writes, as others may have left some; what reads records alone does not.
fn meets_owners(command: &Command) -> bool {
    match command {
        // Without a store.
        Command::Config(_) | Command::Completions(_) | Command::Man(_) | Command::Version(_) => false,
        // With a namespace of their own.
        Command::Unshare(_) | Command::Compat(_) => false,
        // About the mounts of this mount namespace, which a new one would only have copies of.
        Command::Mount(_) | Command::Unmount(_) | Command::Shutdown(_) => false,
        // The same, and what can be done here, not inside.
        Command::Status(_) => false,
        // Records alone.
        Command::Events(_) | Command::Layers(_) => false,
        Command::Names(args) => args.is_change(),
        Command::Item(args) => match args.command {
            ItemCommand::List { .. } | ItemCommand::Get { .. } => false,
            ItemCommand::Put { .. } | ItemCommand::Rm { .. } => true,
        },
        Command::Containers(args) => args.size,
        // What it serves is mounted where its caller is.
        #[cfg(feature = "containerd")]
        Command::Snapshotter(_) => false,
        // They measure the directories of layers that are written to.
        Command::Images(_) | Command::Inspect(_) | Command::Du(_) => true,
        Command::Load(_)
        | Command::Save(_)
        | Command::CreateContainer(_)
        | Command::CreateLayer(_)
        | Command::PutLayer(_)
        | Command::Apply(_)
        | Command::Seal(_)
        | Command::CreateImage(_)
        | Command::Changes(_)
        | Command::Diff(_)
        | Command::Commit(_)
        | Command::Rm(_)
        | Command::Rmi(_)
        | Command::Check(_)
        | Command::Repair(_)
        | Command::Gc(_)
        | Command::Dedup(_)
        | Command::Prune(_)
        | Command::Wipe(_)
        | Command::Backup(_)
        | Command::Compact(_)
        | Command::Sync(_) => true,
    }
}

/// Takes away what a command would unmount. Inside there is a copy of each mount, which the kernel lets nobody unmount alone: an ordinary
/// user's mounts are a program's, made here, and the helper of FUSE ends them here.
fn unmount_before(command: &Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Rm(args) if args.force => commands::rm::unmount_before(args, context),
        Command::Rmi(args) if args.force => commands::rmi::unmount_before(args, context),
        Command::Wipe(args) => commands::wipe::unmount_before(args, context),
        _ => Ok(()),
    }
}

/// Whether what is read or written belongs to another user, or cannot be examined. Inside, that one could not be told from the machine's
/// root, whom everybody trusts, and owners of files would be nobody's.
fn is_of_others(context: &Context) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let options = context.options();
    let own = [context.root(), context.run_root()].into_iter();
    let mut roots = own.chain(options.images_root()).chain(options.roots_of_image_stores());
    roots.any(|root| match root.metadata() {
        Ok(found) => found.uid() != user,
        // It will be made by this user.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    })
}
