//! The manifest's encoding.

use layerstore_schema::manifest::{Entry, Manifest, path_order};

/// Bytes of memory for some entries.
const LITTLE: u64 = 4096;

/// Reads bytes as a manifest.
///
/// - Bytes that decode are what the manifest encodes to, and no path or attribute takes memory that they did not pay for.
/// - It can be read with as much memory as it counts for, and not with one byte less; with next to none, nothing goes wrong.
/// - Its paths ascend; the first is the root, and only the root is empty.
/// - A lookup finds what going through all entries finds, also for paths that are not there.
/// - Entries make the same manifest in any order, and none if one stands there twice.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_manifest(bytes: &[u8]) {
    let within_little = Manifest::decode_within(bytes, LITTLE);
    let Ok(manifest) = Manifest::decode(bytes) else {
        assert!(within_little.is_err(), "less memory makes a manifest of what is none");
        return;
    };
    assert!(manifest.encode() == bytes, "a manifest with two encodings");
    let counted = manifest.memory();
    assert!(within_little.is_ok() == (counted <= LITTLE), "memory is not counted as it is taken");
    assert!(
        Manifest::decode_within(bytes, counted).as_ref() == Ok(&manifest),
        "no room for what was counted"
    );
    assert!(
        Manifest::decode_within(bytes, counted.saturating_sub(1)).is_err(),
        "room for more than was counted"
    );
    assert!(bytes.len() as u64 <= counted, "more bytes than it counts for");
    let entries = manifest.entries();
    // Prefix, rest, kind.
    assert!(entries.len().saturating_mul(3) <= bytes.len(), "more entries than bytes for them");
    let xattrs = entries.iter().flat_map(|entry| &entry.metadata.xattrs);
    let held: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
    assert!(held <= bytes.len(), "more attributes than bytes for them");
    assert!(entries.first().is_some_and(|root| root.path.is_empty()));
    assert!(entries.is_sorted_by(|one, other| path_order(&one.path, &other.path).is_lt()));

    for entry in entries {
        for path in around(&entry.path) {
            let scanned = entries.iter().find(|entry| entry.path == path);
            assert!(manifest.get(&path) == scanned, "a lookup of {} goes wrong", path.escape_ascii());
        }
    }
    let mut shuffled: Vec<Entry> = entries.iter().rev().cloned().collect();
    let half = shuffled.len() / 2;
    shuffled.rotate_left(half);
    assert!(Manifest::new(shuffled.clone()).as_ref() == Ok(&manifest), "the order of entries matters");
    if let Some(twice) = shuffled.first().cloned() {
        shuffled.push(twice);
        assert!(Manifest::new(shuffled).is_err(), "a path stands there twice");
    }
}

/// A path, and some that are like it.
fn around(path: &[u8]) -> [Vec<u8>; 5] {
    let (mut shorter, mut other) = (path.to_vec(), path.to_vec());
    shorter.pop();
    if let Some(last) = other.last_mut() {
        *last = last.wrapping_add(1);
    }
    let with = |more: &[u8]| [path, more].concat();
    [path.to_vec(), shorter, other, with(b"/"), with(b"/a")]
}
