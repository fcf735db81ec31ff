//! Archives put together from headers and bodies, where what is tested lies between the two.

use tar::Header;

use super::Member;

/// The bytes of an archive, appended to. Nothing is checked.
#[derive(Clone, Default, Debug)]
pub struct Blocks(pub Vec<u8>);

impl Blocks {
    pub fn new() -> Self {
        Self::default()
    }

    /// A POSIX header for `size` bytes that the caller may or may not let follow.
    pub fn header(typeflag: u8, name: &str, size: u64) -> Header {
        let member = Member::file(name, b"").entry_type(typeflag).declared_size(size).mtime(0, 0);
        member.plain_header(0)
    }

    /// Adds a header; its checksum is made right.
    pub fn put(self, mut header: Header) -> Self {
        header.set_cksum();
        self.bytes(header.as_bytes())
    }

    /// Adds bytes, padded to a block.
    pub fn body(self, bytes: &[u8]) -> Self {
        let mut blocks = self.bytes(bytes);
        blocks.0.resize(blocks.0.len().next_multiple_of(super::BLOCK_BYTES), 0);
        blocks
    }

    /// Adds bytes as they are.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a member.
    pub fn push(self, member: &Member) -> Self {
        self.bytes(&member.to_bytes())
    }

    /// Adds a member of 1970.
    pub fn member(self, typeflag: u8, name: &str, body: &[u8]) -> Self {
        self.push(&Member::file(name, body).entry_type(typeflag).mtime(0, 0))
    }

    /// Adds a regular file.
    pub fn file(self, name: &str, body: &[u8]) -> Self {
        self.member(b'0', name, body)
    }

    /// Adds a link.
    pub fn link(self, typeflag: u8, name: &str, target: &str) -> Self {
        self.push(&Member::symlink(name, target).entry_type(typeflag).mode(0o644).mtime(0, 0))
    }

    /// Adds an extended header.
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        self.push(&Member::extension(b'x', records))
    }

    /// Adds a global extended header.
    pub fn global(self, records: &[(&str, &str)]) -> Self {
        self.push(&Member::extension(b'g', records))
    }

    /// Adds a GNU long name (`L`) or long link target (`K`).
    pub fn long(self, typeflag: u8, name: &str) -> Self {
        self.push(&Member::long_name(typeflag, format!("{name}\0")))
    }

    /// Adds the end blocks.
    pub fn end(self) -> Vec<u8> {
        self.bytes(&[0; 2 * super::BLOCK_BYTES]).0
    }
}
