//! A header and its extension headers, made into one entry.

use super::entry::{Entry, EntryKind, Said};
use super::header::Header;
use super::number::{self, Reason};
use super::pax::{Records, SparseRecords};
use crate::error::{ArchiveError, shown};
use crate::types::Timestamp;

/// The extension headers in front of a member. All of them speak of the member, never of one another.
#[derive(Default)]
pub(super) struct Extensions {
    pub pax: Option<Records>,
    pub long_path: Option<Vec<u8>>,
    pub long_link: Option<Vec<u8>>,
}

impl Extensions {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_path.is_none() && self.long_link.is_none()
    }
}

/// How the content of a member stands in the archive. The sparse forms carry the length of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Whole,
    /// With the map in the header and in blocks after it.
    OldSparse { size: u64 },
    /// With the map in records.
    SparseRecords { size: u64 },
    /// With the map at the front of the content.
    SparseText { size: u64 },
}

/// A member before its content is looked at.
pub(super) struct Member {
    /// The entry; `size` and `stored` are not yet those of a sparse file.
    pub entry: Entry,
    /// What else it says.
    pub said: Said,
    /// How many bytes follow the header, without the padding.
    pub body: u64,
    /// How they are to be understood.
    pub form: Form,
}

/// Puts a member together.
///
/// Where a record and the header's own field say different things, the record wins, and the field may be anything:
/// programs put nonsense there when a value does not fit.
pub(super) fn assemble(
    header: &Header,
    found: Extensions,
    globals: &Records,
) -> Result<Member, ArchiveError> {
    let Extensions { pax, long_path, long_link } = found;
    let pax = pax.unwrap_or_default();
    let mut path = path(header, &pax, long_path)?;
    let (kind, form) = (kind(header, &path)?, form(header, &pax.sparse, &path)?);
    let number = |field| {
        let member = shown(&path);
        move |reason| ArchiveError::Number { member, field, reason }
    };

    let body = match given(&pax.size) {
        Some(text) => number::decimal(text).and_then(|size| number::size(i128::from(size))),
        None => header.size(),
    }
    .map_err(number("size"))?;
    if pax.size_after_newline && header.size() != Ok(body) {
        let reason = "its header has another, and a record before it has a newline, where some readers stop";
        return Err(number("size")(reason));
    }
    if kind != EntryKind::File && body > 0 {
        return Err(ArchiveError::Body { member: shown(&path), size: body });
    }
    if kind != EntryKind::File && form != Form::Whole {
        return Err(ArchiveError::Sparse {
            member: shown(&path),
            reason: "only a regular file can be sparse",
        });
    }
    let mode = header.mode().map_err(number("mode"))?;
    let uid = id(&pax.uid, &globals.uid, || header.uid()).map_err(number("uid"))?;
    let gid = id(&pax.gid, &globals.gid, || header.gid()).map_err(number("gid"))?;
    let mtime = mtime(header, &pax.mtime, &globals.mtime).map_err(number("mtime"))?;
    let said = said(header, &pax);
    let link = match kind {
        EntryKind::Symlink | EntryKind::HardLink => link(header, pax.linkpath, long_link, &path)?,
        _ => Vec::new(),
    };
    let whole = path.len();
    if kind == EntryKind::Directory {
        strip_slashes(&mut path);
    }
    let said = Said { slashes: whole.saturating_sub(path.len()), ..said };
    let xattrs = pax.xattrs;
    let (size, stored) = (body, body);
    let entry =
        Entry { path, kind, mode, uid, gid, mtime, xattrs, link, size, stored, sparse: None, ordinal: None };
    Ok(Member { entry, said, body, form })
}

/// A record's value, unless it is absent or takes back a global one.
fn given(record: &Option<Vec<u8>>) -> Option<&[u8]> {
    record.as_deref().filter(|value| !value.is_empty())
}

/// The path, by the most specific of what speaks of it. GNU and PAX long names for one member are ranked
/// differently by different readers, so they have to be the same.
fn path(header: &Header, pax: &Records, long: Option<Vec<u8>>) -> Result<Vec<u8>, ArchiveError> {
    let own = header.path();
    let refused = |reason| ArchiveError::Name { member: shown(&own), field: "path", reason };
    if header.has_doubtful_prefix() {
        return Err(refused("its header has a prefix that only some readers see"));
    }
    let said = given(&pax.sparse.name).or(given(&pax.path));
    match (said, long) {
        (Some(path), Some(long)) if path != long => Err(refused(TWO_NAMES)),
        (Some(path), _) if path.contains(&0) => Err(refused("it has a NUL byte")),
        (Some(path), _) => Ok(path.to_vec()),
        (None, Some(long)) => Ok(long),
        (None, None) => Ok(own.into_owned()),
    }
}

const TWO_NAMES: Reason = "a PAX record and a GNU long name contradict each other";

/// The target of a link.
fn link(
    header: &Header,
    pax: Option<Vec<u8>>,
    long: Option<Vec<u8>>,
    path: &[u8],
) -> Result<Vec<u8>, ArchiveError> {
    let refused = |reason| ArchiveError::Name { member: shown(path), field: "link target", reason };
    let target = match (given(&pax), long) {
        (Some(target), Some(long)) if target != long => return Err(refused(TWO_NAMES)),
        (Some(target), _) => target.to_vec(),
        (None, Some(long)) => long,
        (None, None) => header.link().to_vec(),
    };
    match target.as_slice() {
        [] => Err(refused("it is empty")),
        target if target.contains(&0) => Err(refused("it has a NUL byte")),
        _ => Ok(target),
    }
}

/// The body of a GNU long name: it ends with a NUL, and has none before.
pub(super) fn long_name(mut body: Vec<u8>) -> Result<Vec<u8>, Reason> {
    let end = body.iter().rposition(|&byte| byte != 0).map_or(0, |last| last.saturating_add(1));
    body.truncate(end);
    match body.as_slice() {
        [] => Err("a long name is empty"),
        name if name.contains(&0) => Err("a long name has a NUL byte"),
        _ => Ok(body),
    }
}

fn kind(header: &Header, path: &[u8]) -> Result<EntryKind, ArchiveError> {
    let device = || {
        header.device().map_err(|reason| ArchiveError::Number {
            member: shown(path),
            field: "device number",
            reason,
        })
    };
    Ok(match header.typeflag() {
        // The seventh edition had no type for directories.
        0 if path.ends_with(b"/") => EntryKind::Directory,
        b'0' | b'7' | b'S' if path.ends_with(b"/") => {
            let reason = "a regular file cannot end with a slash, and some readers make it a directory";
            return Err(ArchiveError::Name { member: shown(path), field: "path", reason });
        }
        // '7' is a contiguous file, which is how it lies on a disk and nothing else.
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
        b'4' => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => {
            let typeflag = char::from(other).escape_default().to_string();
            return Err(ArchiveError::Type { member: shown(path), typeflag });
        }
    })
}

/// How the content stands in the archive, by the type and the sparse records.
fn form(header: &Header, records: &SparseRecords, path: &[u8]) -> Result<Form, ArchiveError> {
    let number = |text: &Option<Vec<u8>>| {
        let size = number::decimal(given(text).ok_or("it does not say the length of the file")?)?;
        number::size(i128::from(size))
    };
    let form = || match (header.typeflag(), header.as_gnu()) {
        (b'S', _) if *records != SparseRecords::default() => Err("it has both an old and a PAX sparse map"),
        (b'S', Some(gnu)) => {
            number::field(&gnu.realsize).and_then(number::size).map(|size| Form::OldSparse { size })
        }
        (b'S', None) => Err("an old sparse file without a GNU header"),
        _ if *records == SparseRecords::default() => Ok(Form::Whole),
        _ if given(&records.size)
            .is_some_and(|size| given(&records.realsize).is_some_and(|real| real != size)) =>
        {
            Err("it gives the file two lengths")
        }
        _ => match (given(&records.major), given(&records.minor)) {
            (Some(b"1"), Some(b"0")) => Ok(Form::SparseText { size: number(&records.realsize)? }),
            (None, None) if given(&records.map).is_none() && records.pairs.is_empty() => {
                Err("it has neither a version nor regions, and some readers do not take it for one")
            }
            (Some(b"0"), Some(b"0" | b"1")) | (None, None) => {
                Ok(Form::SparseRecords { size: number(&records.size)? })
            }
            _ => Err("its version is not known"),
        },
    };
    form().map_err(|reason| ArchiveError::Sparse { member: shown(path), reason })
}

fn id(
    own: &Option<Vec<u8>>,
    global: &Option<Vec<u8>>,
    header: impl FnOnce() -> Result<i128, Reason>,
) -> Result<u32, Reason> {
    match given(effective(own, global)) {
        Some(text) => number::id(i128::from(number::decimal(text)?)),
        None => number::id(header()?),
    }
}

fn mtime(header: &Header, own: &Option<Vec<u8>>, global: &Option<Vec<u8>>) -> Result<Timestamp, Reason> {
    match given(effective(own, global)) {
        Some(text) => number::time(text),
        None => number::seconds(header.mtime()?),
    }
}

/// What cannot be understood of it is left out: nothing depends on it.
fn said(header: &Header, pax: &Records) -> Said {
    let [atime, ctime] = header.access_and_change();
    let time = |record| given(record).and_then(|text| number::time(text).ok());
    Said {
        typeflag: header.typeflag(),
        mode: header.whole_mode().unwrap_or_default(),
        slashes: 0,
        atime: time(&pax.atime).or(atime),
        ctime: time(&pax.ctime).or(ctime),
    }
}

/// A member's own record hides the global one even if it is empty.
fn effective<'a>(own: &'a Option<Vec<u8>>, global: &'a Option<Vec<u8>>) -> &'a Option<Vec<u8>> {
    if own.is_some() { own } else { global }
}

/// Drops the slashes that mark a directory; a path of slashes alone keeps one.
fn strip_slashes(path: &mut Vec<u8>) {
    while path.len() > 1 && path.ends_with(b"/") {
        path.pop();
    }
}
