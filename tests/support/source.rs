//! Rust source as text: which files there are, and their code without comments and literals.

use std::path::{Path, PathBuf};

/// Every `.rs` file below a directory, sorted.
pub fn rust_files(top: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The source with every byte of comments, strings and characters turned into a blank; line breaks stay, so
/// positions and line numbers do too.
pub fn code_only(source: &str) -> String {
    let mut code = source.as_bytes().to_vec();
    let mut at = 0;
    while at < code.len() {
        let end = at
            + skipped_length(
                &source.as_bytes()[at..],
                at.checked_sub(1).map(|before| source.as_bytes()[before]),
            );
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).unwrap()
}

/// The length of the comment or literal that starts here, 0 if none does.
fn skipped_length(rest: &[u8], before: Option<u8>) -> usize {
    let until = |needle: &[u8], from: usize| {
        let found = rest[from..].windows(needle.len()).position(|window| window == needle);
        found.map_or(rest.len(), |position| from + position + needle.len())
    };
    match rest {
        [b'/', b'/', ..] => until(b"\n", 2) - usize::from(rest.contains(&b'\n')),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'r', b'"' | b'#', ..]
            if !before.is_some_and(|byte| is_name(byte) && byte != b'b' && byte != b'c') =>
        {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return 0; // a raw identifier
            }
            until(&[&b"\""[..], &vec![b'#'; hashes]].concat(), hashes + 2)
        }
        // A character, not a lifetime: those have no closing quote after one character.
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', tail @ ..] => {
            let first = std::str::from_utf8(&tail[..tail.len().min(4)]);
            let valid =
                first.unwrap_or_else(|error| std::str::from_utf8(&tail[..error.valid_up_to()]).unwrap());
            let width = valid.chars().next().map_or(1, char::len_utf8);
            if tail.get(width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Whether a byte can be part of an identifier.
pub fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The places where a whole word stands in some code.
pub fn words<'code>(code: &'code str, word: &'code str) -> impl Iterator<Item = usize> + 'code {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let after = bytes.get(at + word.len());
        !before.is_some_and(is_name) && !after.is_some_and(|byte| is_name(*byte))
    })
}

/// The number of the line that holds a position.
pub fn line_of(source: &str, position: usize) -> usize {
    source[..position].matches('\n').count() + 1
}

#[test]
fn comments_and_literals_are_blanked() {
    let source = r###"a // b
c /* d /* e */ f */ g "h \" i" j 'k' '\'' 'l m r#"n " o"# p b"q" r"s" t"###;
    let words: Vec<_> = code_only(source).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "c", "g", "j", "'l", "m", "p", "b", "t"]);
    assert_eq!(code_only(source).len(), source.len());
}
