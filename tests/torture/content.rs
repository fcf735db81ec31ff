//! Bytes that tell which operation wrote them, and whether they are whole.

use serde::{Deserialize, Serialize};

/// Bytes made from a word that no other operation has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Content {
    pub word: String,
    /// How many bytes follow the first line.
    pub size: usize,
}

impl Content {
    pub fn new(word: impl Into<String>, size: usize) -> Self {
        Self { word: word.into(), size }
    }

    /// One line with word and size, then as many bytes that look random.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {}\n", self.word, self.size).into_bytes();
        let start = bytes.len();
        bytes.resize(start + self.size, 0);
        blake3::Hasher::new().update(self.word.as_bytes()).finalize_xof().fill(&mut bytes[start..]);
        bytes
    }

    /// Whose bytes these are; an error if they are not all there.
    pub fn of(bytes: &[u8]) -> Result<Self, String> {
        let text = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let (word, size) = text.split_once(' ').ok_or_else(|| format!("nobody wrote {text:?}"))?;
        let size = size.parse().map_err(|_| format!("nobody wrote {text:?}"))?;
        let content = Content::new(word, size);
        if content.bytes() != bytes {
            return Err(format!("{text:?} is not whole: {} bytes", bytes.len()));
        }
        Ok(content)
    }
}

#[test]
fn content_knows_whether_it_is_whole() {
    let content = Content::new("w0-r0-1", 5000);
    let mut bytes = content.bytes();
    assert_eq!(Content::of(&bytes), Ok(content));
    assert!(Content::of(&bytes[..4000]).is_err());
    bytes[4000] ^= 1;
    assert!(Content::of(&bytes).is_err());
}
