//! What the tests of this folder share: a place with a victim beside it, and entries by their initials.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use layerstore_schema::manifest::{Entry, Kind, Manifest};

use super::tree_writer::{TreeWriter, UnpackOptions, UnpackedTree, WrittenFile};
use super::{XattrNamespace, scan};
use crate::error::UnpackError;
use crate::sys::beneath;
use crate::sys::privileges::Privileges;
use crate::types::{ContentHash, Metadata, RelPath, Timestamp};

pub(super) fn path(text: &str) -> RelPath {
    RelPath::from_archive(text.as_bytes()).unwrap()
}

pub(super) fn metadata(mode: u16) -> Metadata {
    Metadata { mode, mtime: Timestamp { seconds: 1_700_000_000, nanoseconds: 5 }, ..Metadata::default() }
}

pub(super) fn with_xattrs(mode: u16, xattrs: &[(&str, &[u8])]) -> Metadata {
    let xattrs = xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
    Metadata { xattrs, ..metadata(mode) }
}

/// How many files and directories below `top` this process has open: what other tests have open does not count.
pub(crate) fn open_below(top: &Path) -> usize {
    let top = top.canonicalize().unwrap();
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let is_below = |entry: std::io::Result<std::fs::DirEntry>| match std::fs::read_link(entry.unwrap().path())
    {
        Ok(target) => target.starts_with(&top),
        // One that is so deep that its path cannot be told.
        Err(error) => error.raw_os_error() == Some(libc::ENAMETOOLONG),
    };
    entries.map(is_below).filter(|is_below| *is_below).count()
}

pub(super) fn is_machine_root() -> bool {
    Privileges::of_this_process().unwrap().is_machine_root()
}

/// The namespace that this process may use.
pub(super) fn namespace() -> XattrNamespace {
    if is_machine_root() { XattrNamespace::Trusted } else { XattrNamespace::User }
}

/// A diff directory being filled, its aside directory, and a victim that nothing may touch.
pub(super) struct Place {
    dir: tempfile::TempDir,
    before: BTreeMap<PathBuf, Snapshot>,
}

#[derive(PartialEq, Debug)]
struct Snapshot {
    numbers: [i64; 7],
    content: Option<Vec<u8>>,
}

impl Place {
    pub(super) fn new() -> Self {
        Place::with_secret(b"secret")
    }

    /// The same, with other bytes in the victim's file `secret`.
    pub(super) fn with_secret(secret: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["diff", "aside", "copy", "victim", "victim/sub"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("victim/hello"), b"hello").unwrap();
        std::fs::write(dir.path().join("victim/secret"), secret).unwrap();
        std::fs::set_permissions(dir.path().join("victim/secret"), PermissionsExt::from_mode(0o600)).unwrap();
        let before = snapshot(&dir.path().join("victim"));
        Place { dir, before }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn open(&self, name: &str) -> OwnedFd {
        beneath::open_directory(&self.path(name)).unwrap()
    }

    pub(super) fn writer(&self, options: UnpackOptions) -> TreeWriter {
        TreeWriter::new(self.open("diff"), self.open("aside"), options)
    }

    pub(super) fn strict_writer(&self) -> TreeWriter {
        self.writer(UnpackOptions::strict(namespace()))
    }

    pub(super) fn manifest(&self, name: &str) -> Manifest {
        scan(self.open(name).as_fd(), &[].into(), namespace()).unwrap()
    }

    pub(super) fn assert_victim_unchanged(&self) {
        assert_eq!(snapshot(&self.dir.path().join("victim")), self.before);
    }

    /// Unpacks in a place of its own, and checks the victim, however that ends.
    pub(super) fn unpack(members: &[Member<'_>]) -> (Place, Result<UnpackedTree, UnpackError>) {
        let place = Place::new();
        let mut tree = place.strict_writer();
        let victim = place.path("victim");
        let result = members.iter().try_for_each(|member| member.write(&mut tree, &victim));
        let result = result.and_then(|()| tree.finish());
        place.assert_victim_unchanged();
        (place, result)
    }

    /// A diff directory with a few of each: files with one name and with two, links, opaque directories, whiteouts.
    pub(super) fn with_each_kind() -> Place {
        let (place, unpacked) = Place::unpack(&[
            Member::D("a"),
            Member::F("a/file"),
            Member::H("a/link", "a/file"),
            Member::L("a/soft", "nowhere"),
            Member::Opaque("b"),
            Member::F("b/x"),
            Member::Whiteout("c"),
            Member::D("d"),
            Member::Whiteout("d/e"),
        ]);
        unpacked.unwrap();
        place
    }
}

/// An archive member. In the targets of links, `VICTIM` stands for the victim's absolute path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Member<'a> {
    D(&'a str),
    F(&'a str),
    L(&'a str, &'a str),
    H(&'a str, &'a str),
    Whiteout(&'a str),
    Opaque(&'a str),
}

impl Member<'_> {
    pub(super) fn write(&self, tree: &mut TreeWriter, victim: &Path) -> Result<(), UnpackError> {
        match *self {
            Member::D(at) => tree.directory(&path(at), &metadata(0o777)),
            Member::F(at) => write_file(tree, at, at.as_bytes(), &metadata(0o644)).map(drop),
            Member::L(at, target) => {
                let target = target.replace("VICTIM", victim.to_str().unwrap());
                tree.symlink(&path(at), target.as_bytes(), &metadata(0o777))
            }
            Member::H(at, target) => {
                let target = target.replace("VICTIM", victim.to_str().unwrap());
                tree.hard_link(&path(at), &path(&target))
            }
            Member::Whiteout(at) => tree.whiteout(&path(at)),
            Member::Opaque(at) => tree.opaque(&path(at)),
        }
    }
}

pub(super) fn write_file(
    tree: &mut TreeWriter,
    at: &str,
    content: &[u8],
    metadata: &Metadata,
) -> Result<WrittenFile, UnpackError> {
    let mut file = tree.file(&path(at), metadata, content.len() as u64)?;
    file.write_all(content)?;
    file.finish()
}

pub(super) fn hash(content: &[u8]) -> ContentHash {
    ContentHash(*blake3::hash(content).as_bytes())
}

pub(super) fn entry(at: &str, kind: Kind, metadata: Metadata) -> Entry {
    Entry { path: at.as_bytes().to_vec(), kind, metadata }
}

/// The manifest as text, without metadata: `d`irectory, `o`paque directory, `f`ile, `l`ink, `w`hiteout, ...
pub(super) fn shape(manifest: &Manifest) -> Vec<String> {
    let letter = |kind: &Kind| match kind {
        Kind::Directory { opaque: false } => 'd',
        Kind::Directory { opaque: true } => 'o',
        Kind::File { .. } => 'f',
        Kind::Symlink { .. } => 'l',
        Kind::HardLink { .. } => 'h',
        Kind::Whiteout => 'w',
        _ => '?',
    };
    let line = |entry: &Entry| format!("{} {}", letter(&entry.kind), String::from_utf8_lossy(&entry.path));
    manifest.entries().iter().skip(1).map(line).collect()
}

fn snapshot(top: &Path) -> BTreeMap<PathBuf, Snapshot> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(at) = waiting.pop() {
        let found = at.symlink_metadata().unwrap();
        if found.is_dir() {
            waiting.extend(std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
        let numbers = [
            i64::from(found.mode()),
            i64::from(found.uid()),
            i64::from(found.gid()),
            found.mtime(),
            found.mtime_nsec(),
            found.nlink().try_into().unwrap(),
            found.ctime_nsec(),
        ];
        let content = found.is_file().then(|| std::fs::read(&at).unwrap());
        all.insert(at, Snapshot { numbers, content });
    }
    all
}

/// The raw xattrs of a file, by name.
pub(super) fn raw_xattrs(at: &Path) -> BTreeMap<String, Vec<u8>> {
    let dir = beneath::open_directory(at.parent().unwrap()).unwrap();
    let name = at.file_name().map(OsStr::as_bytes).unwrap();
    let target = crate::sys::xattr::Target::Name(dir.as_fd(), name);
    let names = crate::sys::xattr::list(target).unwrap();
    let value = |name: &[u8]| crate::sys::xattr::get(target, name).unwrap().unwrap();
    names.iter().map(|name| (String::from_utf8_lossy(name).into_owned(), value(name))).collect()
}

/// An access list in which a user has a line of its own.
pub(super) fn access_list(user: u32) -> Vec<u8> {
    let none = u32::MAX;
    let lines = [(1_u16, 6_u16, none), (2, 4, user), (4, 4, none), (0x10, 4, none), (0x20, 0, none)];
    let lines = lines.iter().flat_map(|(tag, rights, id)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    2_u32.to_le_bytes().into_iter().chain(lines).collect()
}
