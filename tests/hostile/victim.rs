//! The tree that no attack may reach.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use crate::support::tree::{Tree, report};

/// A tree beside a store, and everything about it that a system call can change.
#[derive(Debug)]
pub struct Victim {
    top: PathBuf,
    tree: Tree,
    inodes: BTreeMap<PathBuf, Inode>,
}

/// Number of names, and when the inode was last changed in any way, even one that was taken back.
type Inode = (u64, i64, i64);

impl Victim {
    /// Makes the tree: files, a directory, a link, a second name, a mode and an attribute that are worth something.
    pub fn make(top: &Path) -> Self {
        std::fs::create_dir_all(top.join("dir")).unwrap();
        std::fs::write(top.join("hello"), "hello").unwrap();
        std::fs::write(top.join("dir/secret"), "secret").unwrap();
        std::fs::set_permissions(top.join("dir/secret"), PermissionsExt::from_mode(0o600)).unwrap();
        // Not every filesystem has attributes of this class.
        rustix::fs::setxattr(top.join("hello"), "user.victim", b"kept", XattrFlags::empty()).ok();
        symlink("dir/secret", top.join("link")).unwrap();
        std::fs::hard_link(top.join("hello"), top.join("second-name")).unwrap();
        Self::scan(top)
    }

    /// A tree as it is now.
    pub fn scan(top: &Path) -> Self {
        let (mut inodes, mut waiting) = (BTreeMap::new(), vec![top.to_owned()]);
        // The files are read first: to look at a directory may change the time of its last access, and nothing else.
        let tree = Tree::scan(top);
        while let Some(at) = waiting.pop() {
            let found = std::fs::symlink_metadata(&at).unwrap();
            if found.is_dir() {
                waiting.extend(std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
            }
            inodes.insert(at, (found.nlink(), found.ctime(), found.ctime_nsec()));
        }
        Self { top: top.to_owned(), tree, inodes }
    }

    pub fn path(&self) -> &str {
        self.top.to_str().unwrap()
    }

    /// What is different now. `None` if nothing is.
    pub fn change(&self) -> Option<String> {
        let now = Self::scan(&self.top);
        let differences = self.tree.differences(&now.tree);
        if !differences.is_empty() {
            return Some(format!("the victim was changed: {}", report(&differences)));
        }
        let touched = self.inodes != now.inodes;
        touched.then(|| format!("the victim was touched: {:?}, and now {:?}", self.inodes, now.inodes))
    }
}

/// What a victim does not notice would be no attack to any test.
#[test]
fn every_change_of_the_victim_is_noticed() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 8] = [
        ("a new file", |top| std::fs::write(top.join("new"), "new").unwrap()),
        ("another content", |top| std::fs::write(top.join("hello"), "HELLO").unwrap()),
        ("a file that is gone", |top| std::fs::remove_file(top.join("dir/secret")).unwrap()),
        ("another mode", |top| {
            std::fs::set_permissions(top.join("dir"), PermissionsExt::from_mode(0o777)).unwrap();
        }),
        ("another time", |top| {
            let file = std::fs::File::options().write(true).open(top.join("hello")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("a mode that was taken back", |top| {
            let own = std::fs::metadata(top.join("hello")).unwrap().permissions();
            std::fs::set_permissions(top.join("hello"), PermissionsExt::from_mode(0o600)).unwrap();
            std::fs::set_permissions(top.join("hello"), own).unwrap();
        }),
        ("a name that came and went", |top| {
            std::fs::hard_link(top.join("hello"), top.join("../third-name")).unwrap();
            std::fs::remove_file(top.join("../third-name")).unwrap();
        }),
        ("an owner that it had already", |top| {
            std::os::unix::fs::lchown(top.join("link"), Some(0), None).unwrap();
        }),
    ];
    for (name, change) in changes {
        if name.starts_with("an owner") && !crate::support::machine::is_root() {
            continue;
        }
        let dir = crate::support::Dir::new("hostile-victim");
        let victim = Victim::make(&dir.join("victim"));
        assert_eq!(victim.change(), None, "{name}");
        change(&dir.join("victim"));
        assert!(victim.change().is_some(), "{name}");
    }
}
