//! What names in an archive mean, by a second reading of the specification.
//!
//! What follows from it for the tree, in whatever order whiteouts come, the target `members` compares.

use crate::archive::whiteout::{Meaning, marker, opaque_marker};
use crate::types::RelPath;

/// Reads bytes as paths of an archive, one a line.
///
/// - A path is refused, or leads to where a walk over its parts leads; what it leads to has one spelling.
/// - Its meaning is what the OCI specification says of its last part.
/// - A whiteout is the marker of what it removes, as is an opaque marker of its directory; and what has no marker is no
///   path that a layer's content has.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_whiteout(bytes: &[u8]) {
    for line in bytes.split(|&byte| byte == b'\n').take(64) {
        let (parsed, walked) = (RelPath::from_archive(line), walk(line));
        assert_eq!(parsed.is_ok(), walked.is_some(), "{}", line.escape_ascii());
        let (Ok(path), Some(parts)) = (parsed, walked) else { continue };
        assert_eq!(path.as_bytes(), parts.join(&b'/'));
        assert!(path.parts().eq(parts.iter().copied()));
        assert_eq!(RelPath::from_archive(path.as_bytes()).as_ref().ok(), Some(&path));
        check_meaning(&path, &parts);
        check_markers(&path, &parts);
    }
}

fn walk(line: &[u8]) -> Option<Vec<&[u8]>> {
    let mut at: Vec<&[u8]> = Vec::new();
    for part in line.split(|&byte| byte == b'/') {
        match part {
            b".." if at.is_empty() => return None,
            b".." => at.truncate(at.len().saturating_sub(1)),
            b"" | b"." => {}
            part if part.len() > 255 || part.contains(&0) => return None,
            part => at.push(part),
        }
    }
    Some(at)
}

fn check_meaning(path: &RelPath, parts: &[&[u8]]) {
    let meaning = Meaning::of(path);
    let Some((&name, above)) = parts.split_last() else {
        assert!(matches!(meaning, Ok(Meaning::Content)), "the root is no marker");
        return;
    };
    let above = above.join(&b'/');
    match name.strip_prefix(b".wh.") {
        None => assert!(matches!(meaning, Ok(Meaning::Content)), "{path}"),
        Some(b".wh..opq") => {
            assert!(matches!(&meaning, Ok(Meaning::Opaque(of)) if of.as_bytes() == above), "{path}");
        }
        Some(rest) if rest.starts_with(b".wh.") => assert!(matches!(meaning, Ok(Meaning::Ignored)), "{path}"),
        // Followed, they would remove the directory itself, or the one above.
        Some(b"" | b"." | b"..") => assert!(meaning.is_err(), "{path}"),
        Some(rest) => {
            let named = if above.is_empty() { rest.to_vec() } else { [&above, &b"/"[..], rest].concat() };
            assert!(matches!(&meaning, Ok(Meaning::Removed(gone)) if gone.as_bytes() == named), "{path}");
        }
    }
    match &meaning {
        Ok(Meaning::Removed(gone)) => assert!(marker(gone).is_ok_and(|made| made == *path), "{path}"),
        Ok(Meaning::Opaque(of)) => assert!(opaque_marker(of).is_ok_and(|made| made == *path), "{path}"),
        _ => {}
    }
}

/// The path as one that a layer below has.
fn check_markers(path: &RelPath, parts: &[&[u8]]) {
    let has = parts.last().is_some_and(|name| !name.starts_with(b".wh.") && name.len() <= 251);
    match marker(path) {
        Ok(made) => {
            assert!(
                has && matches!(Meaning::of(&made), Ok(Meaning::Removed(gone)) if gone == *path),
                "{path}"
            );
        }
        Err(_) => assert!(!has, "{path} has no marker"),
    }
    let made = opaque_marker(path);
    assert!(
        made.is_ok_and(
            |made| Meaning::of(&made).is_ok_and(|meaning| meaning == Meaning::Opaque(path.clone()))
        )
    );
}
