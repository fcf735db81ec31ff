//! What the fuzz targets in `fuzz/` run: each function takes any bytes and asserts what has to hold of them.

use std::io::{self, Cursor, Read};

use crate::archive::split::{Content, Source, SplitBuilder, SplitReader, assemble};
use crate::archive::whiteout::{Meaning, marker};
use crate::archive::{Entry, Reader, Tap, Writer};
use crate::types::{ContentHash, Limits, RelPath};

mod chunked;
mod database;
mod fields;
mod form;
mod import;
mod manifest;
mod members;
mod model;
mod overlay_options;
mod peer;
mod place;
mod record;
mod storage_conf;
mod store;
#[cfg(test)]
mod tests;
mod whiteout;
mod yard;

pub use chunked::fuzz_chunked;
pub use database::fuzz_database;
pub use import::fuzz_import_tar;
pub use manifest::fuzz_manifest;
pub use members::fuzz_members;
pub use overlay_options::fuzz_overlay_options;
pub use record::fuzz_record;
pub use storage_conf::fuzz_storage_conf;
pub use store::fuzz_store;
pub use whiteout::fuzz_whiteout;

/// A target: what has to hold of any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name in `fuzz/`, so that a test can give each its seeds, and what once broke it.
pub const TARGETS: &[(&str, Target)] = &[
    ("chunked", fuzz_chunked),
    ("database", fuzz_database),
    ("import_tar", fuzz_import_tar),
    ("manifest", fuzz_manifest),
    ("members", fuzz_members),
    ("oci", fuzz_oci),
    ("overlay_options", fuzz_overlay_options),
    ("record", fuzz_record),
    ("split", fuzz_split),
    ("storage_conf", fuzz_storage_conf),
    ("store", fuzz_store),
    ("tar", fuzz_tar),
    ("whiteout", fuzz_whiteout),
];

/// Small enough that a fuzzer's memory holds every file that is granted.
const LIMITS: Limits = Limits {
    pax_bytes: 1 << 16,
    sparse_extents: 1 << 10,
    hole_bytes: 1 << 20,
    entries: 1 << 12,
    ..Limits::DEFAULT
};

/// Reads bytes as a tar archive; the first byte says whether headers get a right checksum before, which no
/// fuzzer finds by itself. If the archive is accepted:
///
/// - the tar-split and the contents give the same bytes again;
/// - what a [`Writer`] makes of the entries is read back as the same entries, and by the `tar` crate as the same members;
/// - the `tar` crate sees the same members, as far as it accepts the archive too: paths, kinds, contents, links, owners, modes, times;
/// - a path that is a whiteout has a marker that means the same.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_tar(bytes: &[u8]) {
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    let archive = &if mode == 0 { bytes.to_vec() } else { with_checksums(bytes) };
    let mut spool = Vec::new();
    let Ok(mut builder) = SplitBuilder::new(&mut spool) else { return };
    let Some(entries) = read(archive, &mut builder) else { return };
    assert!(builder.finish().is_ok());
    let again = split_and_join(&entries, &spool);
    assert!(again.as_ref() == Some(archive), "the split does not give the archive back");

    let written = write(&entries);
    for (entry, _) in &entries {
        check_whiteout(&entry.path);
    }
    if let Some(written) = written {
        let back = read(&written, &mut ()).unwrap_or_default();
        let plain = |entries: &[(Entry, Vec<u8>)]| -> Vec<_> {
            let forget = |entry: &Entry| Entry { stored: 0, sparse: None, ordinal: None, ..entry.clone() };
            entries.iter().map(|(entry, stored)| (forget(entry), whole(entry, stored))).collect()
        };
        assert!(plain(&back) == plain(&entries), "the entries changed on the way through a writer");
        peer::check_peer(&written, &back);
    }
    peer::check_peer(archive, &entries);
}

/// Reads bytes as a tar-split; the first byte says whether they are all of it, or its records before compression.
///
/// It must not panic. If it can be joined,
///
/// - what it joins is as long as it says;
/// - with all its contents put among the records, it joins to the same bytes;
/// - with some of them put there and the others renumbered, too.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_split(bytes: &[u8]) {
    let Some(split) = split_of(bytes) else { return };
    let Some((contents, archive)) = join(&split) else { return };
    let Some(records) = split.get(16 + contents.len() * 40..) else { return };
    for kept in [None, Some(0), Some(1)] {
        // None of them, or every second.
        let is_kept = |at: usize| kept.is_some_and(|kept| at % 2 == kept);
        let table: Vec<_> =
            contents.iter().enumerate().map(|(at, content)| is_kept(at).then_some(*content)).collect();
        let content = |ordinal| usize::try_from(ordinal).ok().and_then(|at| contents.get(at));
        let mut replaced = |ordinal| file(content(ordinal).map(|content| content.hash));
        let again = assemble(Vec::new(), &table, records, &mut replaced).ok();
        let joined = again.and_then(|again| join(&again)).map(|(_, joined)| joined);
        assert!(joined.is_some(), "with {kept:?} kept it cannot be written again");
        assert!(joined.as_ref() == Some(&archive), "with {kept:?} kept it is another archive");
    }
}

fn split_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let (&mode, bytes) = bytes.split_first()?;
    if mode == 0 {
        return Some(bytes.to_vec());
    }
    let table = FILES.map(|file| Some(Content { hash: hash(file), size: file.len() as u64 }));
    let frame = zstd::encode_all(bytes, 1).ok()?;
    assemble(Vec::new(), &table, frame.as_slice(), &mut |_| file(None)).ok()
}

/// The files that a tar-split of a fuzzer can refer to.
const FILES: [&[u8]; 2] = [b"the one file that can be referred to", b"and another"];

fn file(wanted: Option<ContentHash>) -> io::Result<Source<'static>> {
    let file = FILES.into_iter().find(|file| Some(hash(file)) == wanted);
    Ok(Box::new(file.ok_or(io::ErrorKind::NotFound)?))
}

/// The contents that a tar-split refers to, and the archive that it joins to; `None` if it does not.
fn join(split: &[u8]) -> Option<(Vec<Content>, Vec<u8>)> {
    let reader = SplitReader::new(split).ok()?;
    let contents = reader.contents().to_vec();
    assert!(contents.len() * 40 <= split.len());
    let mut archive = Vec::new();
    let total = reader.join(&mut archive, &|wanted, _| file(Some(*wanted)), &mut |_| ()).ok()?;
    assert_eq!(total, archive.len() as u64);
    Some((contents, archive))
}

/// Reads bytes as every document of an image: indexes, manifests, configs, docker's list, references, platforms.
///
/// - What is accepted is written, and read back as the same; so is what was changed, and only what was changed is other.
/// - Every descriptor has a digest that is one and a size that a file can have, and says what its JSON says.
/// - A manifest that becomes one of OCI has the same blobs in the same order, and no type of docker's.
/// - References, platforms and names of docker's are read back as they are written.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_oci(bytes: &[u8]) {
    crate::oci::check_documents(bytes);
}

fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    for block in archive.chunks_exact_mut(512) {
        if block.get(257..262) == Some(b"ustar") {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    archive
}

fn read(archive: &[u8], tap: &mut dyn Tap) -> Option<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::with_limits(archive, tap, LIMITS);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        let mut stored = Vec::new();
        reader.read_to_end(&mut stored).ok()?;
        assert_eq!(stored.len() as u64, entry.stored);
        entries.push((entry, stored));
    }
    Some(entries)
}

fn hash(file: &[u8]) -> ContentHash {
    ContentHash(*blake3::hash(file).as_bytes())
}

/// A file's bytes, holes filled in.
fn whole(entry: &Entry, stored: &[u8]) -> Vec<u8> {
    let Some(regions) = &entry.sparse else { return stored.to_vec() };
    let length = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let (mut file, mut stored) = (Vec::new(), stored);
    for region in regions {
        file.resize(length(region.offset), 0);
        let (now, later) = stored.split_at(length(region.len).min(stored.len()));
        file.extend_from_slice(now);
        stored = later;
    }
    file.resize(length(entry.size), 0);
    file
}

/// Every second content is taken to be replaced.
fn split_and_join(entries: &[(Entry, Vec<u8>)], spool: &[u8]) -> Option<Vec<u8>> {
    let files: Vec<_> = entries
        .iter()
        .filter(|(entry, _)| entry.ordinal.is_some())
        .map(|(entry, stored)| whole(entry, stored))
        .collect();
    let table: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(at, file)| (at % 2 == 0).then(|| Content { hash: hash(file), size: file.len() as u64 }))
        .collect();
    let file = |at: Option<usize>| -> io::Result<Source<'_>> {
        let file = at.and_then(|at| files.get(at)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(file.as_slice()))
    };
    let mut replaced = |ordinal: u32| file(usize::try_from(ordinal).ok());
    let split = assemble(Vec::new(), &table, spool, &mut replaced).ok()?;
    let mut archive = Vec::new();
    let open = |wanted: &ContentHash, _| file(files.iter().position(|file| hash(file) == *wanted));
    SplitReader::new(split.as_slice()).ok()?.join(&mut archive, &open, &mut |_| ()).ok()?;
    Some(archive)
}

/// `None` if an entry has a path that a writer has to change or refuse: an empty one, or slashes alone.
fn write(entries: &[(Entry, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for (entry, stored) in entries {
        if entry.path.iter().all(|&byte| byte == b'/') {
            return None;
        }
        writer.append(entry, &mut Cursor::new(whole(entry, stored))).ok()?;
    }
    writer.finish().ok()
}

fn check_whiteout(path: &[u8]) {
    let Ok(path) = RelPath::from_archive(path) else { return };
    if let Ok(Meaning::Removed(removed)) = Meaning::of(&path)
        && let Ok(marker) = marker(&removed)
    {
        assert!(marker == path, "{path} is no marker of {removed}");
    }
}

/// Where two lists begin to differ.
fn first_difference<'a, T: PartialEq>(one: &'a [T], other: &'a [T]) -> (Option<&'a T>, Option<&'a T>) {
    let at = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (one.get(at), other.get(at))
}
