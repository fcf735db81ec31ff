//! Where the members of an image archive are, so that they can be read in any order without unpacking.
//!
//! The archive is walked once. Nothing in it is trusted: a header must have a right checksum and fit into the
//! file, long names and PAX records are bounded in size (the tar crate's own iterator reads them whole), and
//! sparse members are refused. A member's size is that of its PAX record where there is one, for reading as
//! for skipping.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar::{EntryType, Header};

use super::blob::Extent;
use super::dir::io_error;
use crate::error::{Limit, OciError};
use crate::sys::file::File;
use crate::types::{Limits, RelPath};

/// The size of a tar block.
const BLOCK: u64 = 512;
/// The longest header extension, if no less is granted: a long name, or the PAX records of one member. A name that leads to a
/// blob is far shorter, and so is what is said of it.
const MAX_EXTENSION: u64 = 64 << 10;
/// How many links may lead from one to the next.
const MAX_LINKS: usize = 8;
/// Members that say what the others are. Twice the same of these is two archives in one.
const UNIQUE: [&[u8]; 4] = [b"manifest.json", b"index.json", b"oci-layout", b"repositories"];

/// The members of an uncompressed tar file.
#[derive(Debug)]
pub(super) struct TarIndex {
    path: PathBuf,
    file: Arc<File>,
    members: HashMap<RelPath, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    File { offset: u64, size: u64 },
    Link(RelPath),
}

/// What long-name and PAX headers said about the member that follows.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl TarIndex {
    /// Walks the tar in `file`; `path` is its name in errors.
    pub(super) fn read(file: Arc<File>, path: &Path, limits: &Limits) -> Result<Self, OciError> {
        let length = file.length().map_err(io_error("stat", path))?;
        let mut walk = Walk {
            index: TarIndex { path: path.to_owned(), file, members: HashMap::new() },
            length,
            offset: 0,
            next: Extensions::default(),
            names: 0,
            limits: *limits,
        };
        while walk.step()? {}
        Ok(walk.index)
    }

    /// The file of this name, or that a link of this name leads to; `None` if there is none.
    pub(super) fn file(&self, name: &[u8]) -> Result<Option<Extent>, OciError> {
        let member = |reason| OciError::Member { path: self.path.clone(), member: lossy(name), reason };
        let mut path =
            RelPath::from_archive(name).map_err(|_| member("its name leads out of the archive"))?;
        for _ in 0..=MAX_LINKS {
            match self.members.get(&path) {
                None => return Ok(None),
                Some(Member::Link(target)) => path = target.clone(),
                Some(Member::File { offset, size }) => {
                    return Ok(Some(Extent::new(Arc::clone(&self.file), *offset, *size)));
                }
            }
        }
        Err(member("its links lead in a circle, or through too many links"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

struct Walk {
    index: TarIndex,
    length: u64,
    offset: u64,
    next: Extensions,
    names: u64,
    limits: Limits,
}

impl Walk {
    /// Reads the next header and what belongs to it; `false` at the end of the archive.
    fn step(&mut self) -> Result<bool, OciError> {
        if self.offset == self.length {
            // Some writers leave the end blocks out.
            return self.at_end().map(|()| false);
        }
        let block = self.block(self.offset)?;
        if block.iter().all(|&byte| byte == 0) {
            let second = if self.length - self.offset >= 2 * BLOCK {
                self.block(self.offset + BLOCK)?
            } else {
                [0; 512]
            };
            if second.iter().any(|&byte| byte != 0) {
                return Err(self.error("a single zero block stands between members"));
            }
            return self.at_end().map(|()| false);
        }
        let header = Header::from_byte_slice(&block);
        if !checksum_is_right(&block, header) {
            return Err(self.error("a header has a wrong checksum; the file is damaged or no tar"));
        }
        let header_size = header.entry_size().map_err(|_| self.error("a header has a malformed size"))?;
        match header.entry_type() {
            EntryType::GNULongName => self.next.name = Some(self.long_name(header_size)?),
            EntryType::GNULongLink => self.next.link = Some(self.long_name(header_size)?),
            EntryType::XHeader => self.pax(header_size)?,
            EntryType::XGlobalHeader => {
                let records = self.extension(header_size)?;
                let speaks_of_members = |key: &[u8]| matches!(key, b"path" | b"size" | b"linkpath");
                if pax_records(&records)
                    .ok_or_else(|| self.error("a PAX record is malformed"))?
                    .iter()
                    .any(|(key, _)| speaks_of_members(key))
                {
                    return Err(self.error("a global PAX header renames or resizes members"));
                }
            }
            kind => self.member(kind, header, header_size)?,
        }
        Ok(true)
    }

    fn member(&mut self, kind: EntryType, header: &Header, header_size: u64) -> Result<(), OciError> {
        let next = std::mem::take(&mut self.next);
        let raw_name = next.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let error =
            |reason| OciError::Member { path: self.index.path.clone(), member: lossy(&raw_name), reason };
        if next.sparse || kind == EntryType::GNUSparse {
            return Err(error("it is sparse; write the archive without --sparse"));
        }
        let name =
            RelPath::from_archive(&raw_name).map_err(|_| error("its name leads out of the archive"))?;
        let has_data = !matches!(
            kind,
            EntryType::Directory
                | EntryType::Symlink
                | EntryType::Link
                | EntryType::Fifo
                | EntryType::Char
                | EntryType::Block
        );
        let size = if has_data { next.size.unwrap_or(header_size) } else { 0 };
        let offset = self.offset + BLOCK;
        if size > self.length.saturating_sub(offset) {
            return Err(error("the archive ends before it does"));
        }
        let target = || {
            next.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default()
        };
        let member = match kind {
            EntryType::Regular | EntryType::Continuous => Some(Member::File { offset, size }),
            EntryType::Symlink => {
                let parent = name.parent().unwrap_or_default();
                let path = symlink_target(&parent, &target());
                Some(Member::Link(path.ok_or_else(|| error("it is a link that leads out of the archive"))?))
            }
            EntryType::Link => {
                let path = RelPath::from_archive(&target()).ok();
                Some(Member::Link(path.ok_or_else(|| error("it is a link that leads out of the archive"))?))
            }
            _ => None,
        };
        self.names += 1;
        self.limits.check(Limit::ArchiveMembers, self.names, || self.index.path.display().to_string())?;
        if let Some(member) = member {
            if UNIQUE.contains(&name.as_bytes()) && self.index.members.contains_key(&name) {
                return Err(error("the archive has it twice"));
            }
            self.index.members.insert(name, member);
        }
        self.skip(size)
    }

    /// Moves on past a header and `size` bytes of data.
    fn skip(&mut self, size: u64) -> Result<(), OciError> {
        let padded =
            size.checked_next_multiple_of(BLOCK).and_then(|size| size.checked_add(self.offset + BLOCK));
        match padded {
            // The padding of the last member may be cut off.
            Some(offset) => self.offset = offset.min(self.length),
            None => return Err(self.error("a member is too large")),
        }
        Ok(())
    }

    /// The data of a header extension.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, OciError> {
        self.limits.check(Limit::PaxBytes, size, || self.index.path.display().to_string())?;
        if size > MAX_EXTENSION {
            return Err(self.error("a long name or PAX header is larger than 64 KiB"));
        }
        if size > self.length.saturating_sub(self.offset + BLOCK) {
            return Err(self.error("the archive ends in a header"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let read = self.index.file.read_exact_at(&mut bytes, self.offset + BLOCK);
        read.map_err(io_error("read", &self.index.path))?;
        self.skip(size)?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, OciError> {
        let mut bytes = self.extension(size)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        Ok(bytes)
    }

    fn pax(&mut self, size: u64) -> Result<(), OciError> {
        let bytes = self.extension(size)?;
        let records = pax_records(&bytes).ok_or_else(|| self.error("a PAX record is malformed"))?;
        for (key, value) in records {
            match key {
                b"path" => self.next.name = Some(value.to_vec()),
                b"linkpath" => self.next.link = Some(value.to_vec()),
                b"size" => {
                    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.next.size =
                        Some(number.ok_or_else(|| self.error("a PAX record has a malformed size"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => self.next.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn block(&self, offset: u64) -> Result<[u8; 512], OciError> {
        if self.length - offset < BLOCK {
            return Err(self.error("it ends in the middle of a block"));
        }
        let mut block = [0; 512];
        self.index.file.read_exact_at(&mut block, offset).map_err(io_error("read", &self.index.path))?;
        Ok(block)
    }

    fn at_end(&self) -> Result<(), OciError> {
        let Extensions { name, link, size, sparse } = &self.next;
        if name.is_some() || link.is_some() || size.is_some() || *sparse {
            return Err(self.error("it ends after the header extension of a member that is not there"));
        }
        Ok(())
    }

    fn error(&self, reason: &'static str) -> OciError {
        OciError::Archive { path: self.index.path.clone(), offset: self.offset, reason }
    }
}

fn checksum_is_right(block: &[u8; 512], header: &Header) -> bool {
    let field = 148..156;
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(position, &byte)| u32::from(if field.contains(&position) { b' ' } else { byte }))
        .sum();
    header.cksum().is_ok_and(|stated| stated == sum)
}

/// The records of a PAX header: `<length> <key>=<value>\n`, the length counting all of it. A value may have any
/// bytes, newlines too; `None` if a length does not fit.
fn pax_records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
        let digits = std::str::from_utf8(bytes.get(..space)?).ok()?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: usize = digits.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        records.push((record.get(..equals)?, record.get(equals + 1..)?));
        bytes = bytes.get(length..)?;
    }
    Some(records)
}

/// Where a symbolic link in the directory `parent` of the archive leads, by its text alone.
fn symlink_target(parent: &RelPath, target: &[u8]) -> Option<RelPath> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let mut joined = parent.as_bytes().to_vec();
    joined.push(b'/');
    joined.extend_from_slice(target);
    RelPath::from_archive(&joined).ok()
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name.get(..300).unwrap_or(name)).into_owned()
}
