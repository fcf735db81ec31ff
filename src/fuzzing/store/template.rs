//! A new store as it lies on the disk, so that each input begins with one for the price of some files.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a new store consists of.
pub(super) struct Template(Vec<Node>);

struct Node {
    path: PathBuf,
    mode: u32,
    /// `None` for a directory.
    file: Option<File>,
}

/// Most of a new database is a hole.
struct File {
    length: u64,
    pages: Vec<(u64, Vec<u8>)>,
}

const PAGE: usize = 4096;

impl Template {
    /// Reads what is there. The store must be closed.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut nodes = Vec::new();
        let mut next = vec![PathBuf::new()];
        while let Some(path) = next.pop() {
            let here = root.join(&path);
            let seen = here.symlink_metadata()?;
            if seen.is_dir() {
                for entry in fs::read_dir(&here)? {
                    next.push(path.join(entry?.file_name()));
                }
            } else if !seen.is_file() {
                return Err(io::Error::other(format!("a new store has {}", here.display())));
            }
            let file = seen.is_file().then(|| File::read(&here)).transpose()?;
            nodes.push(Node { path, mode: seen.mode() & 0o7777, file });
        }
        Ok(Template(nodes))
    }

    /// Makes a store of it.
    pub(super) fn make(&self, root: &Path) -> io::Result<()> {
        for Node { path, mode, file } in &self.0 {
            let path = root.join(path);
            match file {
                None => fs::create_dir(&path)?,
                Some(file) => file.write(&path)?,
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
        }
        Ok(())
    }
}

impl File {
    fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let pages = bytes.chunks(PAGE).zip((0u64..).step_by(PAGE));
        let pages = pages.filter(|(page, _)| page.iter().any(|byte| *byte != 0));
        Ok(File { length: bytes.len() as u64, pages: pages.map(|(page, at)| (at, page.to_vec())).collect() })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let file = fs::File::create_new(path)?;
        file.set_len(self.length)?;
        self.pages.iter().try_for_each(|(at, page)| file.write_all_at(page, *at))
    }
}
