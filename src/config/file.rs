//! Reading a file of configuration, of which no more is known than a path that somebody named.

use std::io::{self, Read};
use std::path::Path;

use crate::error::ConfigError;
use crate::sys::path as sys_path;

/// The most bytes that a file of configuration may have: hundreds of times what the longest has.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The whole text of a file.
///
/// Returns [`ConfigError::NotAFile`] if it is something that may never end, [`ConfigError::TooLong`] if it is longer than
/// [`MAX_BYTES`], of which no more is read, and [`ConfigError::Read`] if it cannot be read or is no UTF-8.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let opened = sys_path::open_ending(path).map_err(failed)?;
    let file = opened.ok_or_else(|| ConfigError::NotAFile { path: path.to_owned() })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLong { path: path.to_owned(), limit: MAX_BYTES });
    }
    String::from_utf8(bytes).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_longest_is_read_and_one_byte_more_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("storage.conf");
        let text = "#".repeat(1 << 20);
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap(), text);
        std::fs::write(&path, text + "#").unwrap();
        assert!(matches!(read(&path), Err(ConfigError::TooLong { limit: 1_048_576, .. })));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(matches!(read(&path), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn nothing_is_opened_that_may_never_end() {
        let dir = tempfile::tempdir().unwrap();
        let (link, pipe) = (dir.path().join("zeros"), dir.path().join("pipe"));
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&link, &pipe, dir.path()] as [&Path; 3] {
            assert!(matches!(read(path), Err(ConfigError::NotAFile { .. })), "{}", path.display());
        }
    }

    #[test]
    fn what_stands_for_nothing_and_what_a_shell_writes_is_read() {
        assert_eq!(read(Path::new("/dev/null")).unwrap(), "");
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        // Also if the writer takes its time: there is nothing in the pipe when it is opened, most likely.
        let text = std::thread::scope(|scope| {
            scope.spawn(move || nix::unistd::write(&writer, b"[storage]\n").unwrap());
            read(Path::new(&path)).unwrap()
        });
        assert_eq!(text, "[storage]\n");
    }
}
