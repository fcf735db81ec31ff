//! The same archive, as the `tar` crate's iterator sees it.

use std::io::Read;

use super::whole;
use crate::archive::{Entry, EntryKind};

/// Compares with the `tar` crate: paths, kinds, contents, links, owners, modes, times, devices. Where it refuses the archive or a part
/// of it, what it gave before that is compared: who acts on each member as it comes has acted on those.
pub(super) fn check_peer(archive: &[u8], entries: &[(Entry, Vec<u8>)]) {
    let (members, is_whole) = members(archive);
    if is_whole {
        assert_eq!(members.len(), entries.len(), "another reader sees other members");
    }
    assert!(members.len() <= entries.len(), "another reader sees more members");
    for ((entry, stored), member) in entries.iter().zip(&members) {
        member.compare(entry, stored);
    }
}

/// The members that can be compared, and whether they are all. The other reader knows neither sparse files in PAX form nor global
/// headers, takes extension headers of the oldest form for members, and ends a record at the first line break.
fn members(archive: &[u8]) -> (Vec<Described>, bool) {
    let mut peer = tar::Archive::new(archive);
    let (mut members, mut has_globals) = (Vec::new(), false);
    let Ok(list) = peer.entries() else { return (members, false) };
    for member in list {
        let Ok(mut member) = member else { return (members, false) };
        if member.header().entry_type().is_pax_global_extensions() {
            has_globals = true;
            continue;
        }
        let oldest = member.header().as_ustar().is_none() && member.header().as_gnu().is_none();
        if oldest && matches!(member.header().entry_type().as_byte(), b'x' | b'L' | b'K') {
            return (members, false);
        }
        let Some(mut described) = describe(&mut member) else { return (members, false) };
        if member.take(1 << 24).read_to_end(&mut described.content).is_err() {
            return (members, false);
        }
        if has_globals {
            (described.uid, described.gid, described.seconds) = (None, None, None);
        }
        members.push(described);
    }
    (members, true)
}

/// A member, as far as the other reader says what it is.
#[derive(Debug)]
struct Described {
    path: Vec<u8>,
    kind: Option<EntryKind>,
    link: Vec<u8>,
    uid: Option<u64>,
    gid: Option<u64>,
    mode: Option<u32>,
    seconds: Option<i64>,
    content: Vec<u8>,
    /// Whether it is a sparse file of the form that the other reader knows.
    is_sparse: bool,
}

/// `None` if it does not see the records that are there.
fn describe<R: Read>(member: &mut tar::Entry<'_, R>) -> Option<Described> {
    let mut seconds = member.header().mtime().ok().map(u64::cast_signed);
    if let Ok(Some(records)) = member.pax_extensions() {
        for record in records {
            let record = record.ok()?;
            if record.key_bytes() == b"mtime" && !record.value_bytes().is_empty() {
                // What is before the point, if time runs forward.
                let text = record.value().ok()?.split('.').next().unwrap_or_default();
                seconds = text.parse().ok().filter(|_| !text.starts_with('-'));
            }
        }
    }
    let header = member.header();
    // A long name ends where a string in C does; the peer takes the rest for a part of it.
    let until_nul = |bytes: &[u8]| bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
    let device = || Some((header.device_major().ok()??, header.device_minor().ok()??));
    let path = until_nul(&member.path_bytes());
    let kind = match header.entry_type() {
        tar::EntryType::Regular if header.as_old().linkflag == [0] && path.ends_with(b"/") => {
            Some(EntryKind::Directory)
        }
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            Some(EntryKind::File)
        }
        tar::EntryType::Directory => Some(EntryKind::Directory),
        tar::EntryType::Link => Some(EntryKind::HardLink),
        tar::EntryType::Symlink => Some(EntryKind::Symlink),
        tar::EntryType::Fifo => Some(EntryKind::Fifo),
        tar::EntryType::Char => device().map(|(major, minor)| EntryKind::CharDevice { major, minor }),
        tar::EntryType::Block => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
        _ => None,
    };
    let is_device = header.entry_type().is_character_special() || header.entry_type().is_block_special();
    assert!(kind.is_some() || is_device, "a member of type {:?} was accepted", header.entry_type());
    Some(Described {
        kind,
        link: member.link_name_bytes().map(|link| until_nul(&link)).unwrap_or_default(),
        uid: header.uid().ok(),
        gid: header.gid().ok(),
        mode: header.mode().ok(),
        seconds,
        content: Vec::new(),
        is_sparse: header.entry_type().is_gnu_sparse(),
        path,
    })
}

impl Described {
    fn compare(&self, entry: &Entry, stored: &[u8]) {
        let content = whole(entry, stored);
        // A sparse file in PAX form has its name in a record, and its map in the content.
        let is_pax_sparse = entry.sparse.is_some() && !self.is_sparse;
        let is_linked = matches!(entry.kind, EntryKind::Symlink | EntryKind::HardLink);
        let checks = [
            ("kind", is_pax_sparse || self.kind.is_none_or(|kind| kind == entry.kind)),
            ("path", is_pax_sparse || trimmed(&self.path) == trimmed(&entry.path)),
            ("content", is_pax_sparse || self.content == content),
            ("link", !is_linked || self.link.is_empty() || self.link == entry.link),
            ("owner", self.uid.is_none_or(|uid| uid == u64::from(entry.uid))),
            ("group", self.gid.is_none_or(|gid| gid == u64::from(entry.gid))),
            ("mode", self.mode.is_none_or(|mode| mode & 0o7777 == u32::from(entry.mode))),
            ("time", self.seconds.is_none_or(|seconds| seconds == entry.mtime.seconds)),
        ];
        for (what, is_same) in checks {
            assert!(is_same, "another reader sees another {what}: {self:?}, not {entry:?}");
        }
    }
}

fn trimmed(mut path: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}
