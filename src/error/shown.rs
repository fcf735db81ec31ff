//! Names that come from outside, in errors.

/// How many bytes of one an error keeps.
const MOST: usize = 300;

/// Stands where one was cut.
const MARK: char = '\u{2026}';

/// A name, or other text of somebody else's, for an error: as text, and of one that is longer than 300 bytes the beginning, with an ellipsis where it was
/// cut. An error outlives what it is about, and is not to hold megabytes of it.
///
/// Nothing is escaped: the messages do that, or whoever prints them.
pub(crate) fn shown(name: impl AsRef<[u8]>) -> String {
    let name = name.as_ref();
    let Some((head, _)) = name.split_at_checked(MOST).filter(|(_, tail)| !tail.is_empty()) else {
        return String::from_utf8_lossy(name).into_owned();
    };
    // Not in the middle of a character.
    let whole = match std::str::from_utf8(head) {
        Err(error) if error.error_len().is_none() => head.get(..error.valid_up_to()).unwrap_or(head),
        _ => head,
    };
    let mut text = String::from_utf8_lossy(whole).into_owned();
    text.push(MARK);
    text
}

/// The same in quotes, and with escapes, for a message that does neither.
pub(crate) fn quoted(name: impl AsRef<[u8]>) -> String {
    format!("{:?}", shown(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(shown("a".repeat(300)), "a".repeat(300));
        assert_eq!(shown("a".repeat(301)), format!("{}\u{2026}", "a".repeat(300)));
        // No half of a character is left.
        let long = format!("a{}", "\u{e4}".repeat(200));
        assert_eq!(shown(&long), format!("a{}\u{2026}", "\u{e4}".repeat(149)));
        assert_eq!(shown(b"\xff"), "\u{fffd}");
        assert_eq!(shown([0xff; 400]).chars().count(), 301);
    }
}
