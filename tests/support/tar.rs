//! Tar archives made member by member, honest or hostile.
//!
//! The `tar` crate's builder refuses what an attacker writes (`..` in names, lying sizes), so headers are
//! filled as bytes here; a member can also be any bytes at all.

use tar::{EntryType, Header};

/// The classic header's room for a name.
const NAME_BYTES: usize = 100;
const BLOCK_BYTES: usize = 512;

/// One member of an archive. Made by [`Member::file`] and its siblings, then refined.
#[derive(Clone, Debug)]
pub struct Member {
    path: Vec<u8>,
    target: Vec<u8>,
    entry_type: EntryType,
    content: Vec<u8>,
    declared_size: Option<u64>,
    mode: u32,
    owner: (u64, u64),
    mtime: (i64, u32),
    device: Option<(u32, u32)>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    header: fn(&mut Header),
    /// Stands for everything above.
    raw: Option<Vec<u8>>,
}

impl Member {
    fn new(path: impl AsRef<[u8]>, entry_type: EntryType, mode: u32) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            target: Vec::new(),
            entry_type,
            content: Vec::new(),
            declared_size: None,
            mode,
            owner: (0, 0),
            mtime: (1_700_000_000, 0),
            device: None,
            pax: Vec::new(),
            header: |_| {},
            raw: None,
        }
    }

    /// A regular file, 0644 of root.
    pub fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self { content: content.as_ref().to_vec(), ..Self::new(path, EntryType::Regular, 0o644) }
    }

    /// A directory, 0755 of root.
    pub fn directory(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, EntryType::Directory, 0o755)
    }

    /// A symbolic link.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { target: target.as_ref().to_vec(), ..Self::new(path, EntryType::Symlink, 0o777) }
    }

    /// A hard link to an earlier member.
    pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { target: target.as_ref().to_vec(), ..Self::new(path, EntryType::Link, 0o644) }
    }

    /// A character device.
    pub fn char_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: Some((major, minor)), ..Self::new(path, EntryType::Char, 0o600) }
    }

    /// A block device.
    pub fn block_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: Some((major, minor)), ..Self::new(path, EntryType::Block, 0o600) }
    }

    /// A fifo.
    pub fn fifo(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, EntryType::Fifo, 0o600)
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
        Self { entry_type: EntryType::new(byte), ..self }
    }

    /// The size that the header claims; the content stays as it is.
    pub fn declared_size(self, size: u64) -> Self {
        Self { declared_size: Some(size), ..self }
    }

    /// A last change to the header. The checksum is made afterwards.
    pub fn header(self, change: fn(&mut Header)) -> Self {
        Self { header: change, ..self }
    }

    /// How many bytes of content it has.
    pub fn content_length(&self) -> usize {
        self.content.len()
    }

    /// The member's bytes: PAX header if it needs one, header, content, padding.
    pub fn to_bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut bytes = Vec::new();
        let records = self.pax_records();
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            fill_name(&mut header, b"PaxHeaders/member");
            header.set_entry_type(EntryType::XHeader);
            header.set_size(records.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(&records);
            pad(&mut bytes);
        }
        bytes.extend_from_slice(self.plain_header().as_bytes());
        bytes.extend_from_slice(&self.content);
        pad(&mut bytes);
        bytes
    }

    fn plain_header(&self) -> Header {
        let mut header = Header::new_ustar();
        fill_name(&mut header, &self.path);
        let target = &self.target[..self.target.len().min(NAME_BYTES)];
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        header.set_entry_type(self.entry_type);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(u64::try_from(self.mtime.0).unwrap_or(0));
        header.set_size(self.declared_size.unwrap_or(self.content.len() as u64));
        if let Some((major, minor)) = self.device {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
        (self.header)(&mut header);
        header.set_cksum();
        header
    }

    /// What the classic header has no room for, then the caller's records.
    fn pax_records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if self.path.len() > NAME_BYTES {
            pax_record(&mut records, b"path", &self.path);
        }
        if self.target.len() > NAME_BYTES {
            pax_record(&mut records, b"linkpath", &self.target);
        }
        let (seconds, nanoseconds) = self.mtime;
        if nanoseconds != 0 || seconds < 0 {
            pax_record(&mut records, b"mtime", pax_time(seconds, nanoseconds).as_bytes());
        }
        for (key, value) in &self.pax {
            pax_record(&mut records, key, value);
        }
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

/// Appends `<length> <key>=<value>\n`, where the length counts its own digits.
pub fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let length =
        (1..20).map(|digits| rest + digits).find(|length| length.to_string().len() == length - rest).unwrap();
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with a fraction. Before 1970 the sign belongs to the whole number: -1 s and 0.75 s are `-0.25`.
fn pax_time(seconds: i64, nanoseconds: u32) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
}

fn fill_name(header: &mut Header, path: &[u8]) {
    let path = &path[..path.len().min(NAME_BYTES)];
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
}

#[test]
fn members_read_back_with_another_reader() {
    let long = "d/".repeat(80) + "file";
    let bytes = archive(&[
        Member::directory("d").mode(0o1777),
        Member::file(&long, b"content").mtime(-1, 750_000_000).xattr("user.k", b"v=w").owner(1000, 1001),
        Member::hard_link("hard", &long),
        Member::char_device("dev", 1, 3),
        Member::whiteout("etc/passwd"),
        Member::file("../escape", b""),
    ]);
    let mut reader = tar::Archive::new(&bytes[..]);
    let mut seen = Vec::new();
    for entry in reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut records = Vec::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for record in extensions {
                let record = record.unwrap();
                records.push((record.key_bytes().to_vec(), record.value_bytes().to_vec()));
            }
        }
        let link = entry.link_name_bytes().map(|name| name.into_owned());
        seen.push((entry.path_bytes().into_owned(), entry.size(), link, records));
    }
    let paths: Vec<_> = seen.iter().map(|(path, ..)| path.escape_ascii().to_string()).collect();
    assert_eq!(paths, ["d", &long, "hard", "dev", "etc/.wh.passwd", "../escape"]);
    assert_eq!(seen[1].1, 7);
    assert!(seen[1].3.contains(&(b"mtime".to_vec(), b"-0.250000000".to_vec())));
    assert!(seen[1].3.contains(&(b"SCHILY.xattr.user.k".to_vec(), b"v=w".to_vec())));
    assert_eq!(seen[2].2.as_deref(), Some(long.as_bytes()));
}

#[test]
fn pax_lengths_count_their_own_digits() {
    for value in [0, 1, 5, 90, 95, 100, 990, 1000] {
        let mut record = Vec::new();
        pax_record(&mut record, b"key", &vec![b'x'; value]);
        let length = std::str::from_utf8(record.split(|byte| *byte == b' ').next().unwrap()).unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), record.len());
    }
}
