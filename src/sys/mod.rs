//! Safe wrappers for system calls, and all unsafe code of the crate.
//!
//! | part | what it wraps |
//! | --- | --- |
//! | [`beneath`] | opening below a directory handle, never through a link |
//! | [`call`] | what all of them go through |
//! | [`children`] | how children of the process ended |
//! | [`directory`] | listing a directory |
//! | [`file`] | open files: reading, writing, length |
//! | [`file_limit`] | the limit for the size of files |
//! | [`path`] | calls by an ordinary path |
//! | [`node`] | making, renaming and removing names; owners, modes and times of open files |
//! | [`pinned`] | the same of what cannot be opened without effect |
//! | [`stat`] | `statx` |
//! | [`xattr`] | extended attributes of descriptors and of names |
//! | [`extent`] | reflinks, `copy_file_range`, holes, preallocation |
//! | [`sharing`] | extents that several files share |
//! | [`handle`] | what a filesystem calls an inode |
//! | [`landlock`] | threads that can reach some directories only |
//! | [`lock`] | locks of whole files |
//! | [`range_lock`] | OFD locks of byte ranges |
//! | [`sync`] | `syncfs` and `fsync` |
//! | [`thread`] | threads of one call |
//! | [`map`] | the first page of a file, shared with its writers |
//! | [`moment`] | where a test lets the process die |
//! | [`mount`] | the mount calls, new and old, and the mount table |
//! | [`loop_device`] | a file as a block device |
//! | [`verity`] | files that the kernel verifies |
//! | [`accounts`] | the user database |
//! | [`userns`] | entering a user namespace |
//! | [`privileges`] | what this process may do |
//! | [`owners`] | whether owners are seen as they are |
//! | [`exposure`] | what other users could change |
//! | `acl` | access lists |
//! | [`process`] | other programs |
//! | [`machine`] | what the kernel says of itself |
//! | [`quota`] | what the files of a project may take |
//! | [`random`] | random bytes |
//! | [`wakeup`] | waiting until a file is written to |
//! | `without` | a kernel without some calls, for tests |
//!
//! Every call returns [`std::io::Result`]: the caller knows which path and which step it was, and says so.

pub(crate) mod accounts;
pub(crate) mod acl;
pub(crate) mod beneath;
pub(crate) mod call;
pub(crate) mod children;
pub(crate) mod directory;
pub(crate) mod exposure;
pub(crate) mod extent;
pub(crate) mod file;
pub(crate) mod file_limit;
pub(crate) mod handle;
pub(crate) mod landlock;
pub(crate) mod lock;
pub(crate) mod loop_device;
pub(crate) mod machine;
pub(crate) mod map;
pub(crate) mod moment;
pub(crate) mod mount;
pub(crate) mod node;
pub(crate) mod owners;
pub(crate) mod path;
pub(crate) mod pinned;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod quota;
pub(crate) mod random;
pub(crate) mod range_lock;
pub(crate) mod sharing;
pub(crate) mod stat;
pub(crate) mod subvolume;
pub(crate) mod sync;
pub(crate) mod thread;
pub(crate) mod userns;
pub(crate) mod verity;
pub(crate) mod wakeup;
#[cfg(test)]
pub(crate) mod without;
pub(crate) mod xattr;
