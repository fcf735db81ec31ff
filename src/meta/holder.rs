//! The file that names who holds the write lock. For messages only: the lock is the kernel's, and a dead
//! holder's line may stand here until the next one writes its own.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sys::file::File;
use crate::sys::path;

/// The line is padded to this length, so that one write replaces it.
const LINE: usize = 120;

/// `store.holder`: process id and command, in one padded line.
#[derive(Debug)]
pub(super) struct HolderFile {
    path: PathBuf,
    file: Option<File>,
}

impl HolderFile {
    /// Opens the file beside the database; a store without it works as well.
    pub(super) fn open(path: &Path) -> Self {
        HolderFile { path: path.to_owned(), file: File::ensure(path).ok() }
    }

    /// For a database that only this process knows.
    pub(super) fn none() -> Self {
        HolderFile { path: PathBuf::new(), file: None }
    }

    /// Writes this process into the file.
    pub(super) fn take(&self) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_all_at(&line(), 0) {
            tracing::debug!(path = %self.path.display(), %error, "cannot name the holder of the write lock");
        }
    }

    /// Who wrote last, if that process lives.
    pub(super) fn describe(&self) -> String {
        read_living(&self.path).unwrap_or_else(|_| "another process".into())
    }
}

fn line() -> [u8; LINE] {
    let command = std::env::args_os()
        .take(4)
        .map(|argument| argument.to_string_lossy().replace(char::is_control, "?"))
        .collect::<Vec<_>>()
        .join(" ");
    let text = format!("{} {command}", std::process::id());
    let mut line = [b' '; LINE];
    for (to, from) in line.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    line[LINE - 1] = b'\n';
    line
}

fn read_living(path: &Path) -> io::Result<String> {
    let (file, _) = path::open_regular(path, false)?.map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = Vec::new();
    file.take(LINE as u64).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (pid, command) = text.trim().split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
    let lives = pid.parse::<u32>().is_ok() && path::exists(&Path::new("/proc").join(pid))?;
    if lives { Ok(format!("process {pid} ({command})")) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.holder");
        let file = HolderFile::open(&path);
        assert_eq!(file.describe(), "another process");
        file.take();
        assert!(file.describe().starts_with(&format!("process {} (", std::process::id())));
        std::fs::write(&path, "4194305 gone\n").unwrap();
        assert_eq!(file.describe(), "another process");
    }
}
