//! A tar stream, put together.

use std::io::{self, Read, Write};

use super::entry::{Entry, EntryKind};
use super::header::{BLOCK, padding};
use super::{number, pax};
use crate::error::ArchiveError;

/// Writes entries as a tar stream. The bytes depend on the entries alone: the same entries are the same archive.
///
/// Headers are POSIX ustar. What ustar cannot say (a long path, nanoseconds, a large owner, xattrs) stands in a PAX
/// header before the member; a long name with a newline in a GNU long name before that, since some readers end a PAX
/// record at a newline. Sparse files are written in full, since not every reader knows a sparse form.
///
/// # Close semantics
///
/// The archive is complete only after [`finish`](Writer::finish).
pub(crate) struct Writer<W: Write> {
    inner: W,
    buffer: Vec<u8>,
}

/// The largest numbers that fit the octal fields: seven digits and eleven.
const ID_MAX: u32 = 0o7777777;
const LONG_MAX: u64 = 0o77777777777;
const BUFFER: usize = 128 * 1024;

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub(crate) fn new(inner: W) -> Self {
        Writer { inner, buffer: vec![0; BUFFER] }
    }

    /// Writes one entry; for a regular file with the content that `content` gives, else without reading from it.
    /// The fields `stored`, `sparse` and `ordinal` play no part: they tell how the entry stood in another archive.
    ///
    /// Returns [`ArchiveError::ContentSize`] if the content is not [`Entry::size`] bytes long, and
    /// [`ArchiveError::Unrepresentable`] if no tar header can say what the entry says. After the first of them, and
    /// after failing to write, the archive is unusable.
    pub(crate) fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), ArchiveError> {
        check(entry)?;
        let mut path = entry.path.clone();
        if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
            path.extend_from_slice(if path.is_empty() { b"./" } else { b"/" });
        }
        let mut header = tar::Header::new_ustar();
        let Overflow { long_link, long_path, records } = fill(&mut header, entry, &path)?;
        // The records come last: some readers take a size in them for that of the extension behind them.
        if let Some(link) = long_link {
            self.write_long_name(tar::EntryType::GNULongLink, link)?;
        }
        if let Some(path) = long_path {
            self.write_long_name(tar::EntryType::GNULongName, path)?;
        }
        if !records.is_empty() {
            self.write_records(&records)?;
        }
        self.write(header.as_bytes())?;
        if entry.kind == EntryKind::File { self.write_content(entry, content) } else { Ok(()) }
    }

    /// Writes the end blocks and gives the writer back.
    pub(crate) fn finish(mut self) -> Result<W, ArchiveError> {
        self.write(&[0; 2 * BLOCK])?;
        self.inner.flush().map_err(ArchiveError::Write)?;
        Ok(self.inner)
    }

    fn write_records(&mut self, records: &[u8]) -> Result<(), ArchiveError> {
        let mut header = tar::Header::new_ustar();
        put(&mut header.as_old_mut().name, b"././@PaxHeader");
        header.set_entry_type(tar::EntryType::XHeader);
        self.write_extension(header, records)
    }

    fn write_long_name(&mut self, kind: tar::EntryType, name: &[u8]) -> Result<(), ArchiveError> {
        let mut header = tar::Header::new_gnu();
        put(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_entry_type(kind);
        self.write_extension(header, &[name, b"\0"].concat())
    }

    fn write_extension(&mut self, mut header: tar::Header, body: &[u8]) -> Result<(), ArchiveError> {
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(body.len() as u64);
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(body)?;
        self.write_padding(body.len() as u64)
    }

    fn write_content(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), ArchiveError> {
        let failed = |source| ArchiveError::Content { member: entry.shown(), source };
        let changed = || ArchiveError::ContentSize { member: entry.shown(), size: entry.size };
        let mut left = entry.size;
        loop {
            // One byte more than there should be, so that a file that has grown is noticed.
            let length = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX).max(1));
            let count = match content.read(self.buffer.get_mut(..length).unwrap_or_default()) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            match (count, left) {
                (0, 0) => break,
                (0, _) | (_, 0) => return Err(changed()),
                _ => {}
            }
            let bytes = self.buffer.get(..count).unwrap_or_default();
            self.inner.write_all(bytes).map_err(ArchiveError::Write)?;
            left = left.saturating_sub(count as u64);
        }
        self.write_padding(entry.size)
    }

    fn write_padding(&mut self, size: u64) -> Result<(), ArchiveError> {
        let length = usize::try_from(padding(size)).unwrap_or(0);
        self.write([0; BLOCK].get(..length).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.inner.write_all(bytes).map_err(ArchiveError::Write)
    }
}

/// Refuses what would come back from the archive as something else.
fn check(entry: &Entry) -> Result<(), ArchiveError> {
    let is_link = matches!(entry.kind, EntryKind::Symlink | EntryKind::HardLink);
    let is_directory = entry.kind == EntryKind::Directory;
    let reason = match entry.kind {
        _ if entry.path.contains(&0) || entry.link.contains(&0) => "its path or link target has a NUL byte",
        _ if entry.path.is_empty() && !is_directory => "its path is empty",
        EntryKind::File if entry.path.ends_with(b"/") => "its path ends like a directory's",
        _ if is_link && entry.link.is_empty() => "its link target is empty",
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor }
            if major.max(minor) > ID_MAX =>
        {
            "its device number is out of range"
        }
        _ if entry.size > i64::MAX.unsigned_abs() => "its size is out of range",
        _ => return Ok(()),
    };
    Err(ArchiveError::Unrepresentable { member: entry.shown(), reason })
}

/// What does not fit a header, and stands before it.
struct Overflow<'e> {
    long_link: Option<&'e [u8]>,
    long_path: Option<&'e [u8]>,
    records: Vec<u8>,
}

/// Fills the header, and returns what does not fit. A field whose value stands in a record is zero.
fn fill<'e>(
    header: &mut tar::Header,
    entry: &'e Entry,
    path: &'e [u8],
) -> Result<Overflow<'e>, ArchiveError> {
    // The order of the keys is part of the promise that the same entries are the same bytes.
    let mut records = Vec::new();
    let path_too_long = (!put_path(header, path)).then_some(path);
    let link_too_long =
        (!put(&mut header.as_old_mut().linkname, &entry.link)).then_some(entry.link.as_slice());
    let (long_path, path_record) = long_name_or_record(path_too_long);
    let (long_link, link_record) = long_name_or_record(link_too_long);
    // Of both names, whichever of them stands in a record: archives keep the bytes that they have had.
    let is_binary = [path, &entry.link].iter().any(|text| std::str::from_utf8(text).is_err());
    if is_binary && (path_record.is_some() || link_record.is_some()) {
        // POSIX wants UTF-8 in records, or to be told.
        pax::put_record(&mut records, b"hdrcharset", b"BINARY");
    }
    if entry.gid > ID_MAX {
        pax::put_record(&mut records, b"gid", entry.gid.to_string().as_bytes());
    }
    if let Some(link) = link_record {
        pax::put_record(&mut records, b"linkpath", link);
    }
    let seconds = u64::try_from(entry.mtime.seconds).ok().filter(|&seconds| seconds <= LONG_MAX);
    if seconds.is_none() || entry.mtime.nanoseconds != 0 {
        pax::put_record(&mut records, b"mtime", number::time_text(entry.mtime).as_bytes());
    }
    if let Some(path) = path_record {
        pax::put_record(&mut records, b"path", path);
    }
    let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
    if size > LONG_MAX {
        pax::put_record(&mut records, b"size", size.to_string().as_bytes());
    }
    if entry.uid > ID_MAX {
        pax::put_record(&mut records, b"uid", entry.uid.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        pax::put_xattr_record(&mut records, name, value);
    }

    header.set_entry_type(typeflag(entry.kind));
    header.set_mode(u32::from(entry.mode));
    header.set_uid(u64::from(if entry.uid > ID_MAX { 0 } else { entry.uid }));
    header.set_gid(u64::from(if entry.gid > ID_MAX { 0 } else { entry.gid }));
    header.set_mtime(seconds.unwrap_or(0));
    header.set_size(if size > LONG_MAX { 0 } else { size });
    let (major, minor) = match entry.kind {
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => (major, minor),
        _ => (0, 0),
    };
    let devices = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
    devices.map_err(ArchiveError::Write)?;
    header.set_cksum();
    Ok(Overflow { long_link, long_path, records })
}

/// Which way a name goes that does not fit its field. Some readers end a record at a newline, and take what follows for another.
fn long_name_or_record(name: Option<&[u8]>) -> (Option<&[u8]>, Option<&[u8]>) {
    match name {
        Some(name) if name.contains(&b'\n') => (Some(name), None),
        _ => (None, name),
    }
}

fn typeflag(kind: EntryKind) -> tar::EntryType {
    match kind {
        EntryKind::File => tar::EntryType::Regular,
        EntryKind::Directory => tar::EntryType::Directory,
        EntryKind::Symlink => tar::EntryType::Symlink,
        EntryKind::HardLink => tar::EntryType::Link,
        EntryKind::CharDevice { .. } => tar::EntryType::Char,
        EntryKind::BlockDevice { .. } => tar::EntryType::Block,
        EntryKind::Fifo => tar::EntryType::Fifo,
    }
}

/// Puts a path into the name field, or split at a slash into prefix and name; `false` if it fits neither way. Then
/// the name field holds its beginning, for readers that know neither PAX nor GNU's long names.
fn put_path(header: &mut tar::Header, path: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    if put(&mut ustar.name, path) {
        return true;
    }
    // The first slash that leaves a name short enough; neither half may be empty.
    let split = path.iter().enumerate().skip(1).find(|&(at, &byte)| {
        let behind = path.len().saturating_sub(at).saturating_sub(1);
        byte == b'/' && (1..=ustar.name.len()).contains(&behind)
    });
    match split.and_then(|(at, _)| path.split_at_checked(at)) {
        Some((prefix, [_, name @ ..])) if prefix.len() <= ustar.prefix.len() => {
            put(&mut ustar.prefix, prefix) && put(&mut ustar.name, name)
        }
        _ => false,
    }
}

/// Puts bytes into a field, which NULs fill up; `false` if they do not fit and only their beginning was put.
fn put(field: &mut [u8], bytes: &[u8]) -> bool {
    for (target, byte) in field.iter_mut().zip(bytes.iter().copied().chain(std::iter::repeat(0))) {
        *target = byte;
    }
    bytes.len() <= field.len()
}
