//! A directory tree as a value: everything that a layer can say about it, and how two trees differ.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

/// Lines of a report before the rest is only counted.
const REPORT_LINES: usize = 40;

/// What a file is, with what only that kind has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Directory,
    File { size: u64, content: blake3::Hash },
    Symlink { target: Vec<u8> },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// Everything about one path. Times other than the modification time are not part of a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in byte order, of the same file; of those with more than one path in this tree.
    pub link_group: Option<Vec<u8>>,
}

/// A tree: nodes by path relative to its top. The top itself has the empty path.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tree {
    pub nodes: BTreeMap<Vec<u8>, Node>,
}

/// Which extended attributes count.
#[derive(Clone, Default, Debug)]
pub struct ScanOptions {
    /// Leave out `security.selinux`, which the machine's policy sets and not the image.
    pub ignore_selinux: bool,
    /// The tree is an overlay's mount: attributes with the overlay's names are what a layer brought under them, and the
    /// kernel lists whiteouts in a directory that one layer alone has, though nothing is there.
    pub of_mount: bool,
}

impl Tree {
    /// Reads a tree, without SELinux labels.
    pub fn scan(top: impl AsRef<Path>) -> Self {
        Self::scan_with(top, &ScanOptions { ignore_selinux: true, of_mount: false })
    }

    /// Reads a tree.
    pub fn scan_with(top: impl AsRef<Path>, options: &ScanOptions) -> Self {
        let top = top.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(top, flags, Mode::empty())
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", top.display()));
        let mut scanner = Scanner { options, tree: Self::default(), files: HashMap::new() };
        scanner.node(directory.as_fd(), b".", Vec::new());
        let Scanner { mut tree, files, .. } = scanner;
        for paths in files.into_values().filter(|paths| paths.len() > 1) {
            let first = paths.iter().min().unwrap().clone();
            for path in &paths {
                tree.nodes.get_mut(path).unwrap().link_group = Some(first.clone());
            }
        }
        tree
    }

    /// The node at a path such as `etc/passwd`.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path.as_bytes())
    }

    /// What must change in `self` to make it `other`, in the order of the paths.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (path, left) in &self.nodes {
            match other.nodes.get(path) {
                Some(right) => compare(path, left, right, &mut differences),
                None => {
                    differences.push(Difference::new(path, "presence", left.summary(), "absent".to_owned()))
                }
            }
        }
        for (path, right) in other.nodes.iter().filter(|(path, _)| !self.nodes.contains_key(*path)) {
            differences.push(Difference::new(path, "presence", "absent".to_owned(), right.summary()));
        }
        differences.sort_by(|left, right| left.path.cmp(&right.path));
        differences
    }

    /// Panics with a report when the trees differ.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        let differences = self.differences(other);
        assert!(differences.is_empty(), "{}", report(&differences));
    }
}

impl Node {
    fn summary(&self) -> String {
        format!("{} {:04o} {}:{}", self.kind, self.mode, self.uid, self.gid)
    }
}

/// One respect in which two trees differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    pub path: Vec<u8>,
    /// `presence`, `kind`, `mode`, `owner`, `mtime`, `links`, or `xattr` and a name.
    pub field: String,
    pub left: String,
    pub right: String,
}

impl Difference {
    fn new(path: &[u8], field: impl Into<String>, left: String, right: String) -> Self {
        Self { path: path.to_vec(), field: field.into(), left, right }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: {}: {} | {}", self.path.escape_ascii(), self.field, self.left, self.right)
    }
}

/// The differences as lines, the first ones in full, the others counted.
pub fn report(differences: &[Difference]) -> String {
    let mut text = format!("{} differences (left | right)\n", differences.len());
    for difference in differences.iter().take(REPORT_LINES) {
        writeln!(text, "  {difference}").unwrap();
    }
    if let Some(more @ 1..) = differences.len().checked_sub(REPORT_LINES) {
        writeln!(text, "  ... and {more} more").unwrap();
    }
    text
}

fn compare(path: &[u8], left: &Node, right: &Node, differences: &mut Vec<Difference>) {
    let mut field = |name: String, left: String, right: String| {
        if left != right {
            differences.push(Difference::new(path, name, left, right));
        }
    };
    field("kind".to_owned(), left.kind.to_string(), right.kind.to_string());
    field("mode".to_owned(), format!("{:04o}", left.mode), format!("{:04o}", right.mode));
    field("owner".to_owned(), format!("{}:{}", left.uid, left.gid), format!("{}:{}", right.uid, right.gid));
    let time = |(seconds, nanoseconds): (i64, u32)| format!("{seconds}.{nanoseconds:09}");
    field("mtime".to_owned(), time(left.mtime), time(right.mtime));
    let group = |node: &Node| {
        node.link_group.as_ref().map_or("none".to_owned(), |path| path.escape_ascii().to_string())
    };
    field("links".to_owned(), group(left), group(right));
    let names: std::collections::BTreeSet<_> = left.xattrs.keys().chain(right.xattrs.keys()).collect();
    for name in names {
        let value = |node: &Node| node.xattrs.get(name).map_or("absent".to_owned(), |value| quote(value));
        field(format!("xattr {}", name.escape_ascii()), value(left), value(right));
    }
}

fn quote(value: &[u8]) -> String {
    match value.get(..64) {
        Some(start) => {
            format!(
                "\"{}...\" ({} bytes, {})",
                start.escape_ascii(),
                value.len(),
                blake3::hash(value).to_hex()
            )
        }
        None => format!("\"{}\"", value.escape_ascii()),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => write!(f, "directory"),
            Self::File { size, content } => write!(f, "file of {size} bytes ({})", &content.to_hex()[..16]),
            Self::Symlink { target } => write!(f, "symlink to {}", target.escape_ascii()),
            Self::CharDevice { major, minor } => write!(f, "character device {major}:{minor}"),
            Self::BlockDevice { major, minor } => write!(f, "block device {major}:{minor}"),
            Self::Fifo => write!(f, "fifo"),
            Self::Socket => write!(f, "socket"),
        }
    }
}

/// Walks by directory handles: a tree may be deeper than `PATH_MAX`.
struct Scanner<'options> {
    options: &'options ScanOptions,
    tree: Tree,
    /// Paths by device and inode, of files with more than one link.
    files: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Scanner<'_> {
    fn node(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) {
        let fail = |what: &str, error: rustix::io::Errno| -> ! {
            panic!("cannot {what} /{}: {error}", path.escape_ascii());
        };
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .unwrap_or_else(|error| fail("stat", error));
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match file_type {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => {
                let file = open(parent, name, OFlags::empty()).unwrap_or_else(|error| fail("open", error));
                let content =
                    blake3::Hasher::new().update_reader(std::fs::File::from(file)).unwrap().finalize();
                Kind::File { size: u64::try_from(stat.st_size).unwrap(), content }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new());
                Kind::Symlink { target: target.unwrap_or_else(|error| fail("read link", error)).into_bytes() }
            }
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => panic!("/{}: unknown file type", path.escape_ascii()),
        };
        if file_type != FileType::Directory && stat.st_nlink > 1 {
            self.files.entry((stat.st_dev, stat.st_ino)).or_default().push(path.clone());
        }
        let xattrs = self.xattrs(parent, name).unwrap_or_else(|error| fail("read the xattrs of", error));
        let node = Node {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap()),
            xattrs,
            link_group: None,
        };
        self.tree.nodes.insert(path.clone(), node);
        if file_type == FileType::Directory {
            let directory = open(parent, name, OFlags::DIRECTORY).unwrap_or_else(|error| fail("open", error));
            self.children(&directory, &path);
        }
    }

    fn children(&mut self, directory: &OwnedFd, path: &[u8]) {
        for entry in rustix::fs::Dir::read_from(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let find = || rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
            if self.options.of_mount && matches!(find(), Err(rustix::io::Errno::NOENT)) {
                continue;
            }
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            self.node(directory.as_fd(), name, [path, separator, name].concat());
        }
    }

    fn xattrs(&self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        // No handle of a link, device or fifo can be opened for this; a path through the parent's handle can.
        let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
        let mut names = vec![0; rustix::fs::llistxattr_query(&path)?];
        let length = rustix::fs::llistxattr(&path, &mut names[..])?;
        let mut xattrs = BTreeMap::new();
        for xattr in names[..length].split(|byte| *byte == 0).filter(|xattr| !xattr.is_empty()) {
            let overlay = xattr.starts_with(b"trusted.overlay.") || xattr.starts_with(b"user.overlay.");
            if (overlay && !self.options.of_mount)
                || (self.options.ignore_selinux && xattr == b"security.selinux")
            {
                continue;
            }
            let mut value = vec![0; rustix::fs::lgetxattr_query(&path, xattr)?];
            let length = rustix::fs::lgetxattr(&path, xattr, &mut value[..])?;
            value.truncate(length);
            xattrs.insert(xattr.to_vec(), value);
        }
        Ok(xattrs)
    }
}

fn open(parent: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let always = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::openat(parent, name, always | flags, Mode::empty())
}

mod tests;
