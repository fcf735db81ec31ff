//! The user namespace in which users who are not root work on their stores.
//!
//! An owner is a number, and a number means another user inside of a namespace than outside. So all that reads or writes owners of a
//! store does it in one namespace, the one that `layerstore unshare` makes: root's files are the user's on the disk, and the others'
//! have ids of `/etc/subuid`. The process enters it by itself and stays the same one, so that whoever started it sees no difference.

use std::os::unix::fs::MetadataExt;

use layerstore::{MappedIds, NamespaceError};

use crate::args::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Whether this user needs a namespace: root has all ids, those of the machine or of the namespace that this is.
pub fn is_for_this_user() -> bool {
    !rustix::process::geteuid().is_root()
}

/// Enters a namespace if this user needs one for the command.
///
/// Where the machine lets nobody make one, the command runs without: there, nothing was written in one either.
pub fn enter_for(command: &Command, context: &Context) -> Result<(), Failure> {
    if !is_for_this_user() || !context.may_unshare() || !reads_owners(command) || is_of_others(context) {
        return Ok(());
    }
    match layerstore::enter_user_namespace() {
        Ok(namespace) => {
            let reason = namespace.without_ranges.as_deref().unwrap_or_default();
            match namespace.ids {
                MappedIds::Single => tracing::info!(reason, "entered a user namespace with one id"),
                MappedIds::Ranges { .. } => tracing::debug!("entered a user namespace"),
            }
            Ok(())
        }
        Err(NamespaceError::NotAllowed(reason)) => {
            tracing::info!(%reason, "not allowed to make a user namespace");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether owners of files matter to a command.
fn reads_owners(command: &Command) -> bool {
    match command {
        // Without a store.
        Command::Config(_) | Command::Completions(_) | Command::Man(_) | Command::Version(_) => false,
        // With a namespace of their own.
        Command::Unshare(_) | Command::Compat(_) => false,
        // About the mounts of this mount namespace, which a new one would only have copies of.
        Command::Mount(_) | Command::Unmount(_) | Command::Shutdown(_) => false,
        // Records alone, for as long as somebody likes: copies of mounts would keep what is unmounted meanwhile.
        Command::Events(_) => false,
        // What it serves is mounted where its caller is.
        #[cfg(feature = "containerd")]
        Command::Snapshotter(_) => false,
        _ => true,
    }
}

/// Whether what is written to belongs to another user. Inside, that one could not be told from the machine's root, whom everybody
/// trusts, and owners of files would be nobody's.
fn is_of_others(context: &Context) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let roots = [Some(context.root()), Some(context.run_root()), context.options().images_root()];
    let mut there = roots.into_iter().flatten().filter_map(|root| root.metadata().ok());
    there.any(|root| root.uid() != user)
}
