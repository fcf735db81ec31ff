//! The modes that a store can have: which extended attributes its overlay mounts use.

use std::path::{Path, PathBuf};

use layerstore::{Store, StoreOptions, SyncMode};
use rustix::thread::CapabilitySet;

use super::without_openat2;
use crate::support::machine;

/// Which extended attributes the overlay mounts of a store use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// `trusted.overlay.*`, on which only root of the machine can mount.
    Trusted,
    /// `user.overlay.*`, the option `userxattr`: the only ones in a user namespace, and root may have them too.
    UserXattr,
}

impl Mode {
    /// Those that this process can have.
    pub fn all() -> &'static [Mode] {
        match machine::is_real_root() {
            true if without_openat2::is_here() => &[Mode::Trusted],
            true => &[Mode::Trusted, Mode::UserXattr],
            false => &[Mode::UserXattr],
        }
    }

    /// The root of its store, among others in a directory: one is a prefix of the other.
    pub fn root(self, top: &Path) -> PathBuf {
        top.join(match self {
            Mode::Trusted => "root",
            Mode::UserXattr => "root-userxattr",
        })
    }

    /// The store in a directory that has one of each mode; it is made if it is not there.
    pub fn open_in(self, top: &Path) -> Store {
        self.open(&self.root(top), &top.join(format!("run-{}", self.word())))
    }

    /// The store at a root, which is made if it is not there.
    pub fn open(self, root: &Path, run_root: &Path) -> Store {
        let options = StoreOptions::at(root).run_root(run_root).sync(SyncMode::Off).reserve(0);
        if !root.exists() && self == Mode::UserXattr && machine::is_real_root() {
            // A store is of the kind that its maker can use.
            let own = rustix::thread::capabilities(None).unwrap();
            let mut fewer = own;
            fewer.effective.remove(CapabilitySet::SYS_ADMIN);
            rustix::thread::set_capabilities(None, fewer).unwrap();
            drop(Store::open(&options).unwrap());
            rustix::thread::set_capabilities(None, own).unwrap();
        }
        let store = Store::open(&options).unwrap();
        let marker = std::fs::read_to_string(root.join("LAYERSTORE")).unwrap();
        assert!(marker.contains(&format!("xattrs {}\n", self.word())), "{self:?}: {marker}");
        store
    }

    fn word(self) -> &'static str {
        match self {
            Mode::Trusted => "trusted",
            Mode::UserXattr => "user",
        }
    }
}
