//! A directory as an archive, and the table of its contents in the form that zstd:chunked layers have.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use layerstore::{Algorithm, Hasher, Timestamp};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Serialize;
use tar::{Builder, EntryType, Header};

use super::super::super::failure::Failure;
use super::super::super::golang::{self, call_failed};

#[derive(Serialize)]
struct Contents {
    version: u32,
    entries: Vec<Entry>,
}

/// What the table says of one name.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    modtime: String,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it out so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Writes what is in `directory` to `out` as a tar, names in order, and returns the table of contents as JSON. One that is
/// not there is an empty one. Links are written as what they are, sockets left out.
pub fn write(directory: &Path, out: impl Write) -> Result<Vec<u8>, Failure> {
    let mut archive =
        Archive { top: directory, out: Builder::new(io::BufWriter::new(out)), links: HashMap::new() };
    let mut entries = Vec::new();
    let mut open = match children(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(failed("open", directory))?,
    };
    while let Some(path) = open.pop() {
        let found = path.symlink_metadata().map_err(failed("lstat", &path))?;
        entries.extend(archive.add(&path, &found)?);
        if found.is_dir() {
            open.extend(children(&path).map_err(failed("open", &path))?);
        }
    }
    let finished = archive.out.into_inner().and_then(|mut out| out.flush());
    finished.map_err(failed("write", directory))?;
    serde_json::to_vec(&Contents { version: 1, entries }).map_err(|error| Failure::Text(error.to_string()))
}

fn failed<'p>(call: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> Failure + use<'p> {
    move |error| Failure::Text(call_failed(call, path, &error))
}

/// What is in a directory, the last name first.
fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort_by(|a, b| b.cmp(a));
    Ok(paths)
}

struct Archive<'p, W: Write> {
    top: &'p Path,
    out: Builder<W>,
    /// The first name of each inode that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Archive<'_, W> {
    fn add(&mut self, path: &Path, found: &Metadata) -> Result<Option<Entry>, Failure> {
        let name = path.strip_prefix(self.top).unwrap_or(path).to_owned();
        let mut header = Header::new_gnu();
        header.set_mode(found.mode() & 0o7777);
        header.set_uid(found.uid().into());
        header.set_gid(found.gid().into());
        header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
        header.set_size(0);
        let mut entry = Entry {
            name: text(&name),
            mode: u64::from(found.mode() & 0o7777),
            uid: found.uid().into(),
            gid: found.gid().into(),
            modtime: golang::time(modified(found)),
            ..Entry::default()
        };
        let first = (found.nlink() > 1 && !found.is_dir())
            .then(|| self.links.insert((found.dev(), found.ino()), name.clone()))
            .flatten();
        if let Some(first) = first {
            entry.kind = "hardlink";
            entry.link_name = text(&first);
            header.set_entry_type(EntryType::Link);
            self.out.append_link(&mut header, &name, &first).map_err(failed("write", path))?;
            self.links.insert((found.dev(), found.ino()), first);
            return Ok(Some(entry));
        }
        let kind = found.file_type();
        let (word, entry_type) = match () {
            () if kind.is_dir() => ("dir", EntryType::Directory),
            () if kind.is_file() => ("reg", EntryType::Regular),
            () if kind.is_symlink() => ("symlink", EntryType::Symlink),
            () if kind.is_char_device() => ("char", EntryType::Char),
            () if kind.is_block_device() => ("block", EntryType::Block),
            () if kind.is_fifo() => ("fifo", EntryType::Fifo),
            () => return Ok(None),
        };
        entry.kind = word;
        header.set_entry_type(entry_type);
        self.add_extensions(path, found, &mut entry).map_err(failed("read", path))?;
        if kind.is_symlink() {
            let target = path.read_link().map_err(failed("readlink", path))?;
            entry.link_name = text(&target);
            self.out.append_link(&mut header, &name, &target).map_err(failed("write", path))?;
        } else if kind.is_file() {
            let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
            let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
            let mut file = Hashed::new(file.map_err(failed("open", path))?, found.size());
            header.set_size(found.size());
            self.out.append_data(&mut header, &name, &mut file).map_err(failed("write", path))?;
            (entry.size, entry.digest) = (found.size(), file.finish().map_err(failed("read", path))?);
        } else {
            let device = found.rdev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            if word == "char" || word == "block" {
                let set = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
                set.map_err(failed("write", path))?;
                (entry.dev_major, entry.dev_minor) = (major.into(), minor.into());
            }
            self.out.append_data(&mut header, &name, io::empty()).map_err(failed("write", path))?;
        }
        Ok(Some(entry))
    }

    /// What the header of an entry has no room for stands before it.
    fn add_extensions(&mut self, path: &Path, found: &Metadata, entry: &mut Entry) -> io::Result<()> {
        let mut extensions: Vec<(String, Vec<u8>)> = Vec::new();
        if found.mtime_nsec() != 0 || found.mtime() < 0 {
            let time = modified(found);
            let sign = if time.seconds < 0 { "-" } else { "" };
            // Seconds count towards zero there, and nanoseconds away from it.
            let (seconds, nanoseconds) = match (time.seconds, time.nanoseconds) {
                (seconds, nanoseconds) if seconds < 0 && nanoseconds > 0 => {
                    (seconds.unsigned_abs().saturating_sub(1), 1_000_000_000u32.saturating_sub(nanoseconds))
                }
                (seconds, nanoseconds) => (seconds.unsigned_abs(), nanoseconds),
            };
            extensions.push(("mtime".to_owned(), format!("{sign}{seconds}.{nanoseconds:09}").into_bytes()));
        }
        for (name, value) in attributes(path)? {
            extensions.push((format!("SCHILY.xattr.{name}"), value.clone()));
            entry.xattrs.insert(name, base64(&value));
        }
        if extensions.is_empty() {
            return Ok(());
        }
        self.out.append_pax_extensions(extensions.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
    }
}

fn modified(found: &Metadata) -> Timestamp {
    let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or_default();
    Timestamp { seconds: found.mtime(), nanoseconds }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}

/// The attributes that belong to a file's content: those of users, and its capabilities.
fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if name.starts_with("user.") || name == "security.capability" {
            let mut value = vec![0u8; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            value.truncate(length);
            found.push((name.to_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// A file that is hashed as it is read.
struct Hashed {
    file: io::Take<File>,
    hasher: Hasher,
}

impl Hashed {
    fn new(file: File, size: u64) -> Self {
        Hashed { file: file.take(size), hasher: Hasher::new(Algorithm::Sha256) }
    }

    /// Returns [`io::ErrorKind::UnexpectedEof`] if the file had fewer bytes than it should have.
    fn finish(self) -> io::Result<String> {
        match self.file.limit() {
            0 => Ok(self.hasher.finish().to_string()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.write_all(buffer.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}

/// As the table has the values of attributes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |index: usize| three.get(index).copied().map_or(0, u32::from);
        let number = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = usize::try_from(number.wrapping_shr(shift) & 63).unwrap_or_default();
            let digit = DIGITS.get(digit).copied().map_or('=', char::from);
            text.push(if place <= three.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn bytes_are_padded_to_threes() {
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{ff}", "w78="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }
}
