//! The kernel's mount table, `/proc/thread-self/mountinfo`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::sys::path;

/// Where the table is.
pub(crate) const TABLE: &str = "/proc/thread-self/mountinfo";

/// One mount of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountPoint {
    /// The kernel's number for the mount.
    pub(crate) id: u64,
    /// Which filesystem it is of, `MAJOR:MINOR`.
    pub(crate) device: OsString,
    /// Which directory of the filesystem it shows: `/` but for bind mounts.
    pub(crate) root: PathBuf,
    /// Where it is.
    pub(crate) target: PathBuf,
    /// The filesystem type, such as `overlay`.
    pub(crate) kind: OsString,
    /// What the mounter named as its source.
    pub(crate) source: OsString,
    /// The filesystem's own options.
    pub(crate) options: OsString,
    /// Whether mounts below it propagate to or from other places.
    pub(crate) propagates: bool,
}

impl MountPoint {
    /// Whether it shows a directory of this name, as an overlay that has it among its layers or by a bind mount. The options
    /// of an overlay may have relative paths, so which directory of that name it is nobody can tell.
    pub(crate) fn names_directory(&self, name: &OsStr) -> bool {
        let is_separator = |byte: &u8| b",:=/".contains(byte);
        let mut words = self.options.as_bytes().split(is_separator);
        (self.kind == "overlay" && words.any(|word| word == name.as_bytes()))
            || self.root.components().any(|part| part.as_os_str() == name)
    }
}

/// The whole table, in the order of mounting.
pub(crate) fn read() -> io::Result<Vec<MountPoint>> {
    Ok(parse(&path::read(Path::new(TABLE))?))
}

/// Reads the table's text. A line that is not understood is left out: a kernel that adds fields must not make
/// every mount disappear.
pub(crate) fn parse(table: &[u8]) -> Vec<MountPoint> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// Reads `36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; the fields
/// before the lone dash vary in number.
fn parse_line(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let _above = fields.next()?;
    let device = unescape(fields.next()?);
    let root = unescape(fields.next()?);
    let target = unescape(fields.next()?);
    let _attributes = fields.next()?;
    let optional: Vec<&[u8]> = fields.by_ref().take_while(|field| *field != b"-").collect();
    let propagates = optional.iter().any(|tag| tag.starts_with(b"shared:") || tag.starts_with(b"master:"));
    let kind = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    let options = unescape(fields.next().unwrap_or_default());
    Some(MountPoint {
        id,
        device,
        root: root.into(),
        target: target.into(),
        kind,
        source,
        options,
        propagates,
    })
}

/// Takes back the kernel's escapes: space, tab, newline and backslash stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                // The lowest bits of a digit are its value.
                bytes.push((a & 7) << 6 | (b & 7) << 3 | (c & 7));
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The type of the filesystem that `path` lies on, such as `ext4`; `None` if the table does not have it.
pub(crate) fn filesystem_of(path: &Path) -> io::Result<Option<String>> {
    let table = read()?;
    Ok(mount_of(&table, &path::resolve(path)?).map(|mount| mount.kind.to_string_lossy().into_owned()))
}

/// The mount that a path without links is in.
pub(super) fn mount_of<'t>(table: &'t [MountPoint], path: &Path) -> Option<&'t MountPoint> {
    let above = table.iter().filter(|mount| path.starts_with(&mount.target));
    // Of those at one place, the last is on top.
    above.max_by_key(|mount| mount.target.components().count())
}

/// `path` as the table writes it: its directory resolved, its last part as it is. The last part may be a mount
/// whose server is dead, so nothing is asked of it.
pub(crate) fn resolved(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(path::resolve(parent)?.join(name))
        }
        _ => path::resolve(path),
    }
}
