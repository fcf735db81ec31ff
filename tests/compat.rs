//! The command line of containers-storage: what a script sees of it, and whether the other program says the same.

mod containers;
mod copying;
mod damage;
mod differential;
mod documented;
mod images;
mod invocation;
mod layers;
mod maps;
mod mounts;
mod ordinary;
mod staging;
mod stores;

use crate::support::machine;

/// Whether this process may mount.
fn can_mount() -> bool {
    machine::is_root()
}
