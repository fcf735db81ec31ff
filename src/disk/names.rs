//! Every name that a store writes below its root.
//!
//! ```text
//! LAYERSTORE           format, UUID and xattr class; what has none is no store
//! store.redb           records
//! store.holder         who holds the write lock, for messages only
//! reserve              space given up first when the disk is full
//! collected            the boot in which garbage was last looked for everywhere
//! diffs/<n>            the diff directory of a layer
//! diffs/<n>.aside      files that the layer being unpacked replaced itself
//! blobs/<n>            a compressed layer as delivered
//! work/<n>             overlay workdir of a writable layer
//! locks/<n>            held while something with the number is being filled or removed
//! data/<n>             a directory that an image or a container has for its caller
//! composefs/<n>        the files of a diff directory by their hashes, and images of what it shows
//! content/<hash>       files that several of those share
//! trash/<n>            a directory that no row names any more; also <n>.blob, <n>.work, <n>.data, <n>.composefs and <n>.aside
//! ```

use rustix::fs::FileType;

use super::marker;

/// The database file.
pub(crate) const DATABASE: &str = "store.redb";
/// The space reserve.
pub(crate) const RESERVE: &str = "reserve";
/// The boot in which garbage was last looked for everywhere.
pub(crate) const COLLECTED: &str = "collected";

/// The directory of files that images of layers share, by their hashes.
pub(crate) const CONTENT: &str = "content";

/// Every file of the root.
const FILES: [&str; 5] = [marker::NAME, DATABASE, HOLDER, RESERVE, COLLECTED];
/// Who holds the write lock: the database makes it beside its file.
const HOLDER: &str = "store.holder";

/// Whether this is the name of something that a store has in its root, and of its kind if it is a file. Who opens a directory of the
/// store is told what else stands in its place.
pub(super) fn is_of_root(name: &[u8], kind: FileType) -> bool {
    let is_file = matches!(kind, FileType::RegularFile | FileType::Unknown);
    is_file && FILES.iter().any(|file| file.as_bytes() == name)
        || name == CONTENT.as_bytes()
        || Subdirectory::ALL.iter().any(|which| which.name().as_bytes() == name)
        || name.starts_with(marker::DRAFT.as_bytes())
}

/// A directory of the store that holds numbered entries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Subdirectory {
    /// Diff directories.
    Diffs,
    /// Compressed layers as delivered.
    Blobs,
    /// Overlay workdirs.
    Work,
    /// Directories of images and containers for their callers.
    Data,
    /// Images of diff directories.
    Composefs,
    /// Lock files of numbers that something is being done with.
    Locks,
    /// What is about to be removed.
    Trash,
}

impl Subdirectory {
    /// All of them.
    pub(crate) const ALL: [Subdirectory; 7] = [
        Subdirectory::Diffs,
        Subdirectory::Blobs,
        Subdirectory::Work,
        Subdirectory::Data,
        Subdirectory::Composefs,
        Subdirectory::Trash,
        Subdirectory::Locks,
    ];
    /// Those that hold what has a number, and not its lock.
    pub(crate) const LISTED: [Subdirectory; 6] = [
        Subdirectory::Diffs,
        Subdirectory::Blobs,
        Subdirectory::Work,
        Subdirectory::Data,
        Subdirectory::Composefs,
        Subdirectory::Trash,
    ];

    /// Its name below the root.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subdirectory::Diffs => "diffs",
            Subdirectory::Blobs => "blobs",
            Subdirectory::Work => "work",
            Subdirectory::Data => "data",
            Subdirectory::Composefs => "composefs",
            Subdirectory::Locks => "locks",
            Subdirectory::Trash => "trash",
        }
    }
}

/// What a name in a [`Subdirectory`] means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DiffName {
    /// The numbered directory or file itself.
    Entry(u64),
    /// The files set aside while the entry is being unpacked.
    Aside(u64),
    /// In the trash: what was a workdir.
    Work(u64),
    /// In the trash: what was a blob.
    Blob(u64),
    /// In the trash: what was a caller's directory.
    Data(u64),
    /// In the trash: what was the image of a diff directory.
    Composefs(u64),
}

impl DiffName {
    /// The number in the name.
    pub(crate) fn number(self) -> u64 {
        match self {
            DiffName::Entry(number)
            | DiffName::Aside(number)
            | DiffName::Work(number)
            | DiffName::Blob(number)
            | DiffName::Data(number)
            | DiffName::Composefs(number) => number,
        }
    }

    /// Reads a name; `None` if it is none that we write.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let (number, kind): (&str, fn(u64) -> DiffName) = match name.split_once('.') {
            None => (name, DiffName::Entry),
            Some((number, "aside")) => (number, DiffName::Aside),
            Some((number, "work")) => (number, DiffName::Work),
            Some((number, "blob")) => (number, DiffName::Blob),
            Some((number, "data")) => (number, DiffName::Data),
            Some((number, "composefs")) => (number, DiffName::Composefs),
            Some(_) => return None,
        };
        let parsed = kind(number.parse().ok()?);
        // "+1" and "01" are numbers, but not as we write them.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl std::fmt::Display for DiffName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiffName::Entry(number) => write!(f, "{number}"),
            DiffName::Aside(number) => write!(f, "{number}.aside"),
            DiffName::Work(number) => write!(f, "{number}.work"),
            DiffName::Blob(number) => write!(f, "{number}.blob"),
            DiffName::Data(number) => write!(f, "{number}.data"),
            DiffName::Composefs(number) => write!(f, "{number}.composefs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_names() {
        for name in [
            DiffName::Entry(0),
            DiffName::Work(7),
            DiffName::Blob(8),
            DiffName::Data(9),
            DiffName::Aside(u64::MAX),
        ] {
            assert_eq!(DiffName::parse(name.to_string().as_bytes()), Some(name));
        }
        for bad in ["", "01", "+1", "1.tmp", ".aside", "1.work.work", "-1", "x", "18446744073709551616"] {
            assert_eq!(DiffName::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
