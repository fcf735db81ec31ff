//! Landlock: a thread that gives up the right to touch files outside of some directories.
//!
//! It cannot be taken back, and threads and processes that the thread makes have it too. Opening, making, linking, renaming, truncating and
//! removing files is confined; owners, modes, times and attributes are not, nor is what was open before.

#![expect(unsafe_code, reason = "neither nix nor rustix has the three calls of Landlock")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::call::{Call, call};

/// The first version by which files can be linked and renamed from one directory to another (Linux 5.19).
const VERSION: libc::c_long = 2;
/// `LANDLOCK_CREATE_RULESET_VERSION`
const TELL_VERSION: libc::c_uint = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`
const PATH_BENEATH: libc::c_uint = 1;

/// `LANDLOCK_ACCESS_FS_EXECUTE`
const EXECUTE: u64 = 1;
/// `LANDLOCK_ACCESS_FS_WRITE_FILE`
const WRITE_FILE: u64 = 1 << 1;
/// `LANDLOCK_ACCESS_FS_READ_FILE`
const READ_FILE: u64 = 1 << 2;
/// `LANDLOCK_ACCESS_FS_READ_DIR`
const READ_DIRECTORY: u64 = 1 << 3;
/// `LANDLOCK_ACCESS_FS_REFER`
const REFER: u64 = 1 << 13;
/// Every right of version 2: execute, write and read files, read directories, remove and make each kind, and link or rename
/// to another directory (bits 0 to 13).
const ALL: u64 = (1 << 14) - 1;
/// `LANDLOCK_ACCESS_FS_TRUNCATE`, of version 3.
const TRUNCATE: u64 = 1 << 14;
/// `LANDLOCK_ACCESS_FS_IOCTL_DEV`, of version 5.
const IOCTL_DEVICE: u64 = 1 << 15;

/// `struct landlock_ruleset_attr`, as far as version 1 has it.
#[repr(C)]
struct Ruleset {
    handled_files: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: RawFd,
}

/// Why threads cannot be confined here; `None` if they can.
pub(crate) fn against() -> Option<String> {
    match version() {
        Ok(VERSION..) => None,
        Ok(_) => {
            Some("the kernel has only the first version of Landlock; Linux 5.19 has the second".to_owned())
        }
        Err(error) => Some(match error.raw_os_error() {
            Some(libc::ENOSYS) => "the kernel has no Landlock".to_owned(),
            Some(libc::EOPNOTSUPP) => {
                "Landlock is switched off: `lsm=` of the kernel does not name it".to_owned()
            }
            _ => format!("Landlock is refused: {error}"),
        }),
    }
}

/// What a confined thread may do in a directory. It runs nothing, wherever that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Everything else.
    Fill,
    /// Read.
    Read,
    /// Read, and give files second names in the directories that it may fill. The kernel lets a file have no name under which more may
    /// be done with it, so they may be written to as well; but none is made, removed or renamed.
    Link,
}

/// What a thread will be confined to. Its directories need not stay open.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: OwnedFd,
    handled: u64,
}

impl Rules {
    /// Those that allow nothing.
    ///
    /// Returns [`io::ErrorKind::Unsupported`] if the kernel has no Landlock that is good enough.
    pub(crate) fn new() -> io::Result<Self> {
        let handled = match version()? {
            ..VERSION => return Err(io::ErrorKind::Unsupported.into()),
            VERSION => ALL,
            3..=4 => ALL | TRUNCATE,
            _ => ALL | TRUNCATE | IOCTL_DEVICE,
        };
        Ok(Rules { rules: new_ruleset(&Ruleset { handled_files: handled })?, handled })
    }

    /// Allows something in a directory and below it.
    pub(crate) fn allow(&self, directory: BorrowedFd<'_>, access: Access) -> io::Result<()> {
        let allowed = match access {
            Access::Fill => !(EXECUTE | IOCTL_DEVICE),
            Access::Read => READ_FILE | READ_DIRECTORY,
            Access::Link => READ_FILE | READ_DIRECTORY | REFER | WRITE_FILE | TRUNCATE,
        };
        add_rule(&self.rules, &Beneath { allowed: allowed & self.handled, parent: directory.as_raw_fd() })
    }

    /// Confines the calling thread: from now on it can do what is allowed, and nothing else. It must be one that ends with its work.
    pub(crate) fn confine_thread(&self) -> io::Result<()> {
        // Without privileges this is asked for. It too is the thread's alone.
        call(Call::Confine, nix::sys::prctl::set_no_new_privs)?;
        call(Call::Confine, || {
            // SAFETY: the call takes two numbers, of which the first is an open descriptor.
            done(unsafe {
                libc::syscall(libc::SYS_landlock_restrict_self, self.rules.as_raw_fd(), 0 as libc::c_uint)
            })
        })
        .map(drop)
    }
}

fn version() -> io::Result<libc::c_long> {
    call(Call::Confine, || {
        // SAFETY: for the question for the version, there is no structure.
        done(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<Ruleset>(),
                0 as libc::size_t,
                TELL_VERSION,
            )
        })
    })
}

fn new_ruleset(ruleset: &Ruleset) -> io::Result<OwnedFd> {
    let made = call(Call::Confine, || {
        // SAFETY: `ruleset` has the layout that the kernel knows by its size, and lives until the call returns.
        done(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::from_ref(ruleset),
                size_of::<Ruleset>(),
                0 as libc::c_uint,
            )
        })
    })?;
    let made = RawFd::try_from(made).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it. It closes itself when a program is run.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

fn add_rule(rules: &OwnedFd, beneath: &Beneath) -> io::Result<()> {
    call(Call::Confine, || {
        // SAFETY: `beneath` has the packed layout that the kernel expects for this kind of rule, and lives until the call returns.
        done(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                rules.as_raw_fd(),
                PATH_BENEATH,
                std::ptr::from_ref(beneath),
                0 as libc::c_uint,
            )
        })
    })
    .map(drop)
}

fn done(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::{beneath, node};

    #[test]
    fn a_confined_thread_writes_and_reads_in_its_directories_alone() {
        if let Some(why) = against() {
            return eprintln!("skipped: {why}");
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["own", "own/sub", "second", "victim", "read", "old"] {
            fs::create_dir(at(name)).unwrap();
        }
        for file in ["victim/file", "read/file", "old/file"] {
            fs::write(at(file), "victim").unwrap();
        }
        let [own, second, victim] =
            ["own", "second", "victim"].map(|name| beneath::open_directory(&at(name)).unwrap());
        let [read, old] = ["read", "old"].map(|name| beneath::open_directory(&at(name)).unwrap());
        let free = || !nix::sys::prctl::get_no_new_privs().unwrap();
        let before = free();
        let denied = |result: io::Result<()>| {
            result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        std::thread::scope(|scope| {
            let confined = || {
                let rules = Rules::new().unwrap();
                rules.allow(own.as_fd(), Access::Fill).unwrap();
                rules.allow(second.as_fd(), Access::Fill).unwrap();
                rules.allow(read.as_fd(), Access::Read).unwrap();
                rules.allow(old.as_fd(), Access::Link).unwrap();
                rules.confine_thread().unwrap();
                // What an import does.
                fs::write(at("own/file"), "x").unwrap();
                node::make_directory(own.as_fd(), b"made", 0o755).unwrap();
                node::make_symlink(own.as_fd(), b"link", b"../victim/file").unwrap();
                node::make_node(own.as_fd(), b"pipe", node::NodeKind::Fifo, 0o600, (0, 0)).unwrap();
                node::make_hard_link(own.as_fd(), b"file", own.as_fd(), b"made/second").unwrap();
                node::rename(own.as_fd(), b"file", second.as_fd(), b"0").unwrap();
                assert_eq!(fs::read(at("second/0")).unwrap(), b"x");
                fs::OpenOptions::new().write(true).truncate(true).open(at("second/0")).unwrap();
                fs::remove_file(at("own/made/second")).unwrap();
                // Through a descriptor, a link, or a name of the file in the own directory: the victim is out of reach.
                assert!(denied(fs::write(at("victim/file"), "pwned")));
                assert!(denied(fs::write(at("own/link"), "pwned")));
                assert!(denied(fs::read(at("victim/file")).map(drop)));
                assert!(denied(beneath::create_file(victim.as_fd(), b"new", 0o600).map(drop)));
                assert!(denied(node::make_directory(victim.as_fd(), b"new", 0o700)));
                assert!(denied(node::remove_file(victim.as_fd(), b"file")));
                assert!(node::rename(victim.as_fd(), b"file", own.as_fd(), b"taken").is_err());
                assert!(node::make_hard_link(victim.as_fd(), b"file", own.as_fd(), b"taken").is_err());
                // What is read is not written, nor linked to where it could be; what is linked is neither removed nor joined.
                assert_eq!(fs::read(at("read/file")).unwrap(), b"victim");
                assert!(denied(fs::write(at("read/file"), "pwned")));
                assert!(node::make_hard_link(read.as_fd(), b"file", own.as_fd(), b"taken").is_err());
                assert!(denied(node::remove_file(read.as_fd(), b"file")));
                node::make_hard_link(old.as_fd(), b"file", own.as_fd(), b"linked").unwrap();
                assert!(denied(node::remove_file(old.as_fd(), b"file")));
                assert!(denied(fs::write(at("old/new"), "pwned")));
                assert!(node::rename(old.as_fd(), b"file", own.as_fd(), b"taken").is_err());
                // Threads of the thread have its walls.
                std::thread::scope(|scope| {
                    let inner = scope.spawn(|| denied(fs::write(at("victim/file"), "pwned")));
                    assert!(inner.join().unwrap());
                });
                assert!(!free());
            };
            scope.spawn(confined).join().unwrap();
        });
        assert_eq!(fs::read(at("victim/file")).unwrap(), b"victim");
        // The thread that made it is as free as before.
        assert_eq!(free(), before);
        fs::write(at("victim/file"), "free").unwrap();
        fs::rename(at("victim/file"), at("own/taken")).unwrap();
    }
}
