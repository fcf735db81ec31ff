//! What an archive says about one path.

use crate::error::shown;
use crate::types::Timestamp;

/// One member of an archive, with everything its extension headers said about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The path as it stands in the archive, not yet proven safe; a directory's without trailing slashes.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The permission bits with set-id and sticky bits: 0 to 0o7777.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The modification time.
    pub mtime: Timestamp,
    /// Extended attributes in byte order of their names, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The target of a symlink or hard link as it stands in the archive; empty for other kinds.
    pub link: Vec<u8>,
    /// The length of the file, holes included.
    pub size: u64,
    /// How many bytes of it stand in the archive; less than `size` if and only if there are holes.
    pub stored: u64,
    /// Where the stored bytes belong, in order and without overlap; `None` if they are the whole file. Their
    /// lengths add up to `stored`.
    pub sparse: Option<Vec<Region>>,
    /// The number of the content among all contents of the archive, from 0 in the order of the stream; `None` if
    /// nothing is stored.
    pub ordinal: Option<u32>,
}

/// What an archive says of a member that has no place in a layer, for those who describe the archive itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Said {
    /// The byte that tells the type.
    pub typeflag: u8,
    /// The mode field with whatever stands above the permission bits.
    pub mode: u64,
    /// How many slashes at the end of the path mark a directory.
    pub slashes: usize,
    /// When the file was last read.
    pub atime: Option<Timestamp>,
    /// When its inode last changed.
    pub ctime: Option<Timestamp>,
}

/// What a member is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of a file that stands earlier in the archive.
    HardLink,
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Bytes of a sparse file that are not a hole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Region {
    /// Where they begin in the file.
    pub offset: u64,
    /// How many they are; not 0.
    pub len: u64,
}

impl Entry {
    /// An entry that is owned by root, dates from 1970 and has no content.
    pub(crate) fn new(path: impl Into<Vec<u8>>, kind: EntryKind) -> Self {
        Entry {
            path: path.into(),
            kind,
            mode: if kind == EntryKind::Directory { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: Vec::new(),
            link: Vec::new(),
            size: 0,
            stored: 0,
            sparse: None,
            ordinal: None,
        }
    }

    /// The path in a form for messages.
    pub(crate) fn shown(&self) -> String {
        shown(&self.path)
    }
}
