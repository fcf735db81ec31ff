//! Keys of JSON that other programs take for another one.
//!
//! A key is found here by its exact text. Go's `encoding/json` folds letters: `Layers` is `layers` to it, and so is `layer` with
//! the long s of old print. The last one wins. A document with both would be one image here and another there, under one digest;
//! so whoever reads a document refuses keys that are [alike] and not the same.

/// Whether some programs take one key for the other.
pub(crate) fn alike(one: &str, other: &str) -> bool {
    folded(one).eq(folded(other))
}

/// The letters of a key, all that are taken for one another as one. Only letters of ASCII are in the keys that anybody knows.
pub(crate) fn folded(key: &str) -> impl Iterator<Item = char> {
    key.chars().map(|letter| match letter {
        // What `encoding/json` folds into ASCII: the long s, and the sign for kelvin.
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        // What `strings.ToLower` makes one of ASCII besides: the capital I with a dot.
        '\u{130}' => 'i',
        other => other.to_ascii_lowercase(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_folded_as_go_folds_them() {
        for (one, other) in [
            ("layers", "Layers"),
            ("layers", "layer\u{17f}"),
            ("disk", "DIS\u{212a}"),
            ("entries", "entr\u{130}es"),
        ] {
            assert!(alike(one, other) && alike(other, one), "{one} {other}");
        }
        // Each of these is another letter to everyone.
        for (one, other) in [("layers", "layer"), ("entries", "entr\u{131}es"), ("a-b", "a_b"), ("", "a")] {
            assert!(!alike(one, other), "{one} {other}");
        }
    }
}
