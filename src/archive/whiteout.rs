//! Whiteouts: how a layer's archive says that something of the layers below is gone (OCI image specification,
//! `layer.md`, "Whiteouts").

use crate::error::ArchiveError;
use crate::types::RelPath;

/// What begins the name of a marker.
const PREFIX: &[u8] = b".wh.";
/// What begins the name of what AUFS kept for itself in old layers.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// Marks its directory as opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a path in a layer's archive means. Only its last part decides: `.wh.etc/file` is a file in a directory with
/// an odd name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
    /// Something that the layer brings.
    Content,
    /// Below this directory, nothing of the layers below is seen.
    Opaque(RelPath),
    /// What the layers below have at this path is deleted.
    Removed(RelPath),
    /// Bookkeeping of AUFS. It is no part of the tree.
    Ignored,
}

impl Meaning {
    /// The meaning of `path`.
    ///
    /// Returns [`ArchiveError::Whiteout`] if it is a whiteout of nothing, of `.` or of `..`: followed blindly, it
    /// would delete the directory it is in, or the one above.
    pub(crate) fn of(path: &RelPath) -> Result<Self, ArchiveError> {
        let (Some(name), Some(directory)) = (path.file_name(), path.parent()) else {
            return Ok(Meaning::Content);
        };
        if name == OPAQUE {
            return Ok(Meaning::Opaque(directory));
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(Meaning::Ignored);
        }
        let Some(removed) = name.strip_prefix(PREFIX) else {
            return Ok(Meaning::Content);
        };
        directory.join(removed).map(Meaning::Removed).map_err(|_| ArchiveError::Whiteout {
            path: path.to_string(),
            reason: "it names nothing that can be deleted",
        })
    }
}

/// The path of the marker that says `removed` is deleted.
///
/// Returns [`ArchiveError::Whiteout`] for the root, for a name too long to carry the marker's prefix, and for one that
/// would turn the marker into AUFS bookkeeping.
pub(crate) fn marker(removed: &RelPath) -> Result<RelPath, ArchiveError> {
    let refused = |reason| ArchiveError::Whiteout { path: removed.to_string(), reason };
    let (Some(name), Some(directory)) = (removed.file_name(), removed.parent()) else {
        return Err(refused("the root of a layer cannot be deleted"));
    };
    if name.starts_with(PREFIX) {
        return Err(refused("a name that begins with .wh. is no content, so that no whiteout can name it"));
    }
    directory
        .join(&[PREFIX, name].concat())
        .map_err(|_| refused("its name is too long for a whiteout: 251 bytes are the most"))
}

/// The path of the marker that makes `directory` opaque.
pub(crate) fn opaque_marker(directory: &RelPath) -> Result<RelPath, ArchiveError> {
    directory.join(OPAQUE).map_err(|_| ArchiveError::Whiteout {
        path: directory.to_string(),
        reason: "it cannot be made opaque",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_archive(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_last_part_decides() {
        for (given, meaning) in [
            ("", Meaning::Content),
            ("etc/passwd", Meaning::Content),
            (".wh.etc/file", Meaning::Content),
            ("etc/.who", Meaning::Content),
            ("etc/x.wh.y", Meaning::Content),
            ("etc/.wh.passwd", Meaning::Removed(path("etc/passwd"))),
            (".wh.etc", Meaning::Removed(path("etc"))),
            ("etc/.wh....", Meaning::Removed(path("etc/..."))),
            ("etc/.wh..hidden", Meaning::Removed(path("etc/.hidden"))),
            ("etc/.wh..wh..opq", Meaning::Opaque(path("etc"))),
            (".wh..wh..opq", Meaning::Opaque(path(""))),
            (".wh..wh.plnk", Meaning::Ignored),
            (".wh..wh.plnk/99.12", Meaning::Content),
            (".wh..wh.aufs", Meaning::Ignored),
            (".wh..wh..opq2", Meaning::Ignored),
            (".wh..wh.", Meaning::Ignored),
        ] {
            assert_eq!(Meaning::of(&path(given)).unwrap(), meaning, "{given}");
        }
    }

    #[test]
    fn whiteouts_of_the_directory_itself_are_refused() {
        for bad in [".wh.", ".wh..", ".wh...", "etc/.wh.", "etc/.wh..", "etc/.wh..."] {
            let error = Meaning::of(&path(bad)).unwrap_err();
            assert!(matches!(&error, ArchiveError::Whiteout { path, .. } if path == bad), "{error}");
        }
    }

    #[test]
    fn markers_mean_what_they_were_made_for() {
        for removed in ["a", "a/b", "a/.hidden", "a/...", &"x".repeat(251)] {
            let marker = marker(&path(removed)).unwrap();
            assert_eq!(Meaning::of(&marker).unwrap(), Meaning::Removed(path(removed)));
        }
        for directory in ["", "a", "a/b"] {
            let marker = opaque_marker(&path(directory)).unwrap();
            assert_eq!(Meaning::of(&marker).unwrap(), Meaning::Opaque(path(directory)));
        }
        for bad in ["", ".wh.a", ".wh..opq", &"x".repeat(252)] {
            assert!(marker(&path(bad)).is_err(), "{bad}");
        }
    }
}
