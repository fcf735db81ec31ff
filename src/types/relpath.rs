//! Paths inside a layer, proven relative.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{ValueError, shown};

/// A path below a layer's root: no leading slash, no `.` or `..`, no NUL, each part 1 to 255 bytes. The empty
/// path is the root itself. The bytes need not be UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RelPath(Vec<u8>);

/// The longest name that Linux filesystems hold.
const NAME_MAX: usize = 255;

impl RelPath {
    /// The root of the layer.
    pub fn root() -> Self {
        RelPath::default()
    }

    /// Reads a path as it stands in an archive: leading slashes mean the layer's own root, `.` and empty parts
    /// are dropped, and `..` takes back the part before it, by its text alone.
    ///
    /// Returns [`ValueError::Path`] if `..` leads out of the root, or a part has a NUL byte or is longer than
    /// 255 bytes.
    pub fn from_archive(bytes: &[u8]) -> Result<Self, ValueError> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in bytes.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop().ok_or_else(|| error(bytes, "it leads out of the layer"))?;
                }
                _ if part.contains(&0) => return Err(error(bytes, "it has a NUL byte")),
                _ if part.len() > NAME_MAX => return Err(error(bytes, "a part is longer than 255 bytes")),
                _ => parts.push(part),
            }
        }
        Ok(RelPath(parts.join(&b'/')))
    }

    /// The bytes, parts separated by single slashes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for calls of the standard library; empty for the root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path without its last part; `None` for the root.
    pub fn parent(&self) -> Option<RelPath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        self.0.get(..end).map(|bytes| RelPath(bytes.to_vec()))
    }

    /// The directory above, or the path itself, that has so many bytes, where a part must end.
    pub(crate) fn first(&self, bytes: usize) -> RelPath {
        debug_assert!(matches!(self.0.get(bytes), None | Some(b'/')), "{bytes} bytes of {self}");
        self.0.get(..bytes).map_or_else(|| self.clone(), |bytes| RelPath(bytes.to_vec()))
    }

    /// The last part; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        if self.is_root() { None } else { self.0.rsplit(|&byte| byte == b'/').next() }
    }

    /// The parts in order; none for the root.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|part| !part.is_empty())
    }

    /// This path with `name` below it.
    ///
    /// Returns [`ValueError::Path`] if `name` is empty, `.`, `..`, has a slash or NUL byte, or is longer than 255
    /// bytes.
    pub fn join(&self, name: &[u8]) -> Result<RelPath, ValueError> {
        let plain = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
        if !plain || name.len() > NAME_MAX {
            return Err(error(name, "it is not the name of one file"));
        }
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Ok(RelPath(bytes))
    }
}

fn error(path: &[u8], reason: &'static str) -> ValueError {
    ValueError::Path { path: shown(path), reason }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Manifest order: a directory before what is in it, and that before its next sibling.
impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        layerstore_schema::manifest::path_order(&self.0, &other.0)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({:?})", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_paths_stay_inside() {
        for (given, expected) in [
            ("", ""),
            ("./", ""),
            ("/", ""),
            ("/etc/passwd", "etc/passwd"),
            ("./usr//bin/", "usr/bin"),
            ("a/../b", "b"),
        ] {
            assert_eq!(RelPath::from_archive(given.as_bytes()).unwrap().as_bytes(), expected.as_bytes());
        }
        for bad in ["..", "../x", "/../x", "a/../../x", "a\0b", &"x".repeat(256)] {
            assert!(RelPath::from_archive(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parts_and_parents() {
        let path = RelPath::from_archive(b"a/b/c").unwrap();
        assert_eq!(path.file_name(), Some(&b"c"[..]));
        assert_eq!(path.parent().unwrap().as_bytes(), b"a/b");
        assert_eq!(RelPath::from_archive(b"a").unwrap().parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!([1, 3, 5].map(|bytes| path.first(bytes).to_string()), ["a", "a/b", "a/b/c"]);
        assert_eq!(path.parts().count(), 3);
        assert_eq!(RelPath::root().parts().count(), 0);
        assert!(path.join(b"..").is_err());
    }
}
