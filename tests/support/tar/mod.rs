//! Tar archives made member by member, honest or hostile: the one builder of unit, property, integration and
//! fuzz tests. The library includes this directory by its path for its own tests and for the fuzz target `members`.
//!
//! The `tar` crate's builder refuses what an attacker writes (`..` in names, lying sizes), so headers are
//! filled as bytes here. Every field of a header can be any bytes, and a member can be any bytes at all.
//!
//! | module | what it says |
//! | --- | --- |
//! | `field` | the fields of a header, numbers in every notation, checksums |
//! | `pax` | the records of extended headers |
//! | `sparse` | the four ways to say where a file has holes |
//! | `blocks` | archives put together from headers and bodies, for what is no list of members |

mod blocks;
mod field;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use tar::Header;

pub use blocks::Blocks;
pub use field::{Checksum, Field, Format, base256, octal};
pub use pax::{pax_record, pax_records};
pub use sparse::Sparse;

/// The classic header's room for a name.
const NAME_BYTES: usize = 100;
const BLOCK_BYTES: usize = 512;

/// One member of an archive. Made by [`Member::file`] and its siblings, then refined.
#[derive(Clone, Debug)]
pub struct Member {
    path: Vec<u8>,
    target: Vec<u8>,
    typeflag: u8,
    content: Vec<u8>,
    declared_size: Option<u64>,
    mode: u32,
    owner: (u64, u64),
    mtime: (i64, u32),
    device: Option<(u32, u32)>,
    sparse: Option<Sparse>,
    format: Format,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    pax_bytes: Vec<u8>,
    /// GNU long names in front: the type and what it says.
    long: Vec<(u8, Vec<u8>)>,
    header: fn(&mut Header),
    fields: Vec<(Field, Vec<u8>)>,
    checksum: Checksum,
    padding: bool,
    /// Stands for everything above.
    raw: Option<Vec<u8>>,
}

impl Member {
    fn new(path: impl AsRef<[u8]>, typeflag: u8, mode: u32) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            target: Vec::new(),
            typeflag,
            content: Vec::new(),
            declared_size: None,
            mode,
            owner: (0, 0),
            mtime: (1_700_000_000, 0),
            device: None,
            sparse: None,
            format: Format::Ustar,
            pax: Vec::new(),
            pax_bytes: Vec::new(),
            long: Vec::new(),
            header: |_| {},
            fields: Vec::new(),
            checksum: Checksum::Unsigned,
            padding: true,
            raw: None,
        }
    }

    /// A regular file, 0644 of root.
    pub fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self { content: content.as_ref().to_vec(), ..Self::new(path, b'0', 0o644) }
    }

    /// A directory, 0755 of root.
    pub fn directory(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, b'5', 0o755)
    }

    /// A symbolic link.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { target: target.as_ref().to_vec(), ..Self::new(path, b'2', 0o777) }
    }

    /// A hard link to an earlier member.
    pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { target: target.as_ref().to_vec(), ..Self::new(path, b'1', 0o644) }
    }

    /// A character device.
    pub fn char_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: Some((major, minor)), ..Self::new(path, b'3', 0o600) }
    }

    /// A block device.
    pub fn block_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: Some((major, minor)), ..Self::new(path, b'4', 0o600) }
    }

    /// A fifo.
    pub fn fifo(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, b'6', 0o600)
    }

    /// The whiteout of a path: `etc/passwd` gives the empty file `etc/.wh.passwd`.
    pub fn whiteout(path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        Self::file([&path[..name], b".wh.", &path[name..]].concat(), b"")
    }

    /// The marker that makes a directory opaque.
    pub fn opaque(directory: impl AsRef<[u8]>) -> Self {
        Self::file([directory.as_ref(), b"/.wh..wh..opq"].concat(), b"")
    }

    /// An extension header by itself, `x` or `g`, with these records: it speaks of whatever comes next.
    pub fn extension(typeflag: u8, records: &[(&str, &str)]) -> Self {
        Self::file("PaxHeaders/x", pax_records(records)).entry_type(typeflag)
    }

    /// A GNU long name (`L`) or long link target (`K`) by itself. The NUL at its end is the caller's.
    pub fn long_name(typeflag: u8, text: impl AsRef<[u8]>) -> Self {
        Self::file("././@LongLink", text).entry_type(typeflag)
    }

    /// These bytes, as they are, in place of header and content.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::file("", b"") }
    }

    /// Permission bits.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// User and group.
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }

    /// Modification time in seconds and nanoseconds.
    pub fn mtime(self, seconds: i64, nanoseconds: u32) -> Self {
        Self { mtime: (seconds, nanoseconds), ..self }
    }

    /// An extended attribute, in the form that GNU tar, Go and libarchive read.
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(format!("SCHILY.xattr.{name}"), value)
    }

    /// A PAX record, whatever it says.
    pub fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Another type, with the same header and content.
    pub fn entry_type(self, byte: u8) -> Self {
        Self { typeflag: byte, ..self }
    }

    /// The size that the header claims; the content stays as it is.
    pub fn declared_size(self, size: u64) -> Self {
        Self { declared_size: Some(size), ..self }
    }

    /// A last change to the header. The checksum is made afterwards.
    pub fn header(self, change: fn(&mut Header)) -> Self {
        Self { header: change, ..self }
    }

    /// PAX records as bytes, behind those of [`pax`](Self::pax), whatever they are.
    pub fn pax_bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.pax_bytes.extend_from_slice(bytes.as_ref());
        self
    }

    /// A GNU long name (`L`) or link target (`K`) in front, between the PAX header and the member.
    pub fn long(mut self, typeflag: u8, text: impl AsRef<[u8]>) -> Self {
        self.long.push((typeflag, text.as_ref().to_vec()));
        self
    }

    /// The header's kind.
    pub fn format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// A field of the header as bytes, last of all but the checksum. What is too long for the field is cut.
    pub fn field(mut self, field: Field, bytes: impl AsRef<[u8]>) -> Self {
        self.fields.push((field, bytes.as_ref().to_vec()));
        self
    }

    /// A field of the header as a number in base 256, negative ones in two's complement.
    pub fn base256(self, field: Field, value: i128) -> Self {
        let bytes = base256(field.range().len(), value);
        self.field(field, bytes)
    }

    /// How the header's checksum is made.
    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    /// A file with holes: its content is what stands in the regions of the map.
    pub fn sparse(self, sparse: Sparse) -> Self {
        Self { sparse: Some(sparse), ..self }
    }

    /// Nothing fills up the last block of the content.
    pub fn without_padding(self) -> Self {
        Self { padding: false, ..self }
    }

    /// How many bytes of content it has.
    pub fn content_length(&self) -> usize {
        self.content.len()
    }

    /// The member's bytes: extension headers if it needs them, header, content, padding.
    pub fn to_bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut bytes = Vec::new();
        let records = self.pax_records();
        if !records.is_empty() {
            let header = Self::file("PaxHeaders/member", records).entry_type(b'x').mtime(0, 0);
            bytes.extend_from_slice(&header.to_bytes());
        }
        for (typeflag, text) in &self.long {
            bytes.extend_from_slice(&Self::long_name(*typeflag, text).to_bytes());
        }
        let mut body = self.sparse.as_ref().map(Sparse::front_of_body).unwrap_or_default();
        body.extend_from_slice(&self.content);
        bytes.extend_from_slice(self.plain_header(body.len()).as_bytes());
        bytes.extend(self.sparse.as_ref().map(Sparse::blocks_after_header).unwrap_or_default());
        bytes.extend_from_slice(&body);
        if self.padding {
            bytes.resize(bytes.len() + body.len().next_multiple_of(BLOCK_BYTES) - body.len(), 0);
        }
        bytes
    }

    fn plain_header(&self, body: usize) -> Header {
        let mut header = self.format.header();
        field::put(&mut header, Field::Name, &self.path);
        field::put(&mut header, Field::Link, &self.target);
        header.as_old_mut().linkflag = [self.typeflag];
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(u64::try_from(self.mtime.0).unwrap_or(0));
        header.set_size(self.declared_size.unwrap_or(body as u64));
        if let Some((major, minor)) = self.device {
            field::put(&mut header, Field::Major, &field::number(8, u64::from(major)));
            field::put(&mut header, Field::Minor, &field::number(8, u64::from(minor)));
        }
        if let Some(sparse) = &self.sparse {
            sparse.fill(&mut header);
        }
        (self.header)(&mut header);
        for (field, bytes) in &self.fields {
            field::put(&mut header, *field, bytes);
        }
        self.checksum.put(&mut header);
        header
    }

    /// What the classic header has no room for, then the sparse map, then the caller's records.
    fn pax_records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let told = |typeflag| self.long.iter().any(|(other, _)| *other == typeflag);
        if self.path.len() > NAME_BYTES && !told(b'L') {
            pax_record(&mut records, b"path", &self.path);
        }
        if self.target.len() > NAME_BYTES && !told(b'K') {
            pax_record(&mut records, b"linkpath", &self.target);
        }
        let (seconds, nanoseconds) = self.mtime;
        if nanoseconds != 0 || seconds < 0 {
            pax_record(&mut records, b"mtime", pax::time(seconds, nanoseconds).as_bytes());
        }
        if let Some(sparse) = &self.sparse {
            sparse.records(&self.path, &mut records);
        }
        for (key, value) in &self.pax {
            pax_record(&mut records, key, value);
        }
        records.extend_from_slice(&self.pax_bytes);
        records
    }
}

/// A complete archive: the members and two blocks of zeros.
pub fn archive(members: &[Member]) -> Vec<u8> {
    let mut bytes = archive_without_end(members);
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    bytes
}

/// The members alone.
pub fn archive_without_end(members: &[Member]) -> Vec<u8> {
    members.iter().flat_map(Member::to_bytes).collect()
}
