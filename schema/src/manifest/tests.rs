use super::*;

fn entry(path: &str, kind: Kind) -> Entry {
    let metadata = match kind {
        Kind::Whiteout | Kind::HardLink { .. } => Metadata::default(),
        _ => Metadata {
            mode: 0o4755,
            uid: 1000,
            gid: 0,
            mtime: Timestamp { seconds: -1, nanoseconds: 999_999_999 },
            xattrs: vec![(b"security.capability".to_vec(), vec![0, 1, 2]), (b"user.a".to_vec(), Vec::new())],
        },
    };
    Entry { path: path.as_bytes().to_vec(), kind, metadata }
}

fn every_kind() -> Manifest {
    let content = ContentHash(*blake3::hash(b"hello").as_bytes());
    Manifest::new(vec![
        entry("b", Kind::Symlink { target: b"../a".to_vec() }),
        entry("a/x", Kind::File { size: 5, content }),
        entry("a-b", Kind::Fifo),
        entry("a", Kind::Directory { opaque: true }),
        entry("", Kind::Directory { opaque: false }),
        entry("a/y", Kind::HardLink { target: b"a/x".to_vec() }),
        entry("c", Kind::CharDevice { major: 1, minor: 3 }),
        entry("d", Kind::BlockDevice { major: u32::MAX, minor: 0 }),
        entry("e", Kind::Socket),
        entry("f", Kind::Whiteout),
    ])
    .unwrap()
}

#[test]
fn every_kind_comes_back() {
    let manifest = every_kind();
    let bytes = manifest.encode();
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    assert_eq!(digest_of_encoded(&bytes), manifest.digest());
}

#[test]
fn order_is_depth_first() {
    let paths: Vec<_> = every_kind()
        .entries()
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
        .collect();
    assert_eq!(paths, ["", "a", "a/x", "a/y", "a-b", "b", "c", "d", "e", "f"]);
}

#[test]
fn the_digest_is_of_format_version_one() {
    // Part of the on-disk contract: a changed value here means that stores made by earlier builds
    // no longer share directories with new ones.
    let digest = every_kind().digest().to_string();
    assert_eq!(digest, "f042c2d384fd8ed67b769ed96f0b94ff054ea8108deee2a44e8cbfb6e61acee2");
}

#[test]
fn cut_and_changed_bytes_never_decode_to_the_same_digest() {
    let bytes = every_kind().encode();
    for end in 0..bytes.len() {
        if let Ok(shorter) = Manifest::decode(&bytes[..end]) {
            assert_eq!(shorter.encode(), &bytes[..end]);
        }
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        if let Ok(other) = Manifest::decode(&changed) {
            assert_eq!(other.encode(), changed, "a second encoding of one manifest at byte {at}");
        }
    }
}

#[test]
fn what_is_not_canonical_is_refused() {
    let root = || entry("", Kind::Directory { opaque: false });
    for (bad, why) in [
        (vec![], "no root"),
        (vec![entry("a", Kind::Fifo)], "no root"),
        (vec![root(), entry("a", Kind::Fifo), entry("a", Kind::Fifo)], "twice"),
        (vec![root(), entry("/a", Kind::Fifo)], "absolute"),
        (vec![root(), entry("a/../b", Kind::Fifo)], "dot dot"),
        (vec![root(), entry("a", Kind::HardLink { target: b"z".to_vec() })], "link before its first name"),
        (vec![entry("", Kind::Fifo)], "root is no directory"),
    ] {
        assert!(Manifest::new(bad).is_err(), "{why}");
    }
}

#[test]
fn sizes_beyond_all_disks_add_up_to_the_most() {
    let content = ContentHash([0; 32]);
    let manifest = Manifest::new(vec![
        entry("", Kind::Directory { opaque: false }),
        entry("a", Kind::File { size: u64::MAX, content }),
        entry("b", Kind::File { size: 2, content }),
    ]);
    assert_eq!(manifest.unwrap().content_bytes(), u64::MAX);
}

#[test]
fn paths_are_ordered_by_their_parts() {
    let mut paths = vec![Vec::new()];
    for length in 0..4 {
        let shorter: Vec<Vec<u8>> = paths.iter().filter(|path| path.len() == length).cloned().collect();
        paths.extend(shorter.iter().flat_map(|path| b"/-a".map(|byte| [&path[..], &[byte]].concat())));
    }
    // What is alike is passed over in blocks.
    for alike in [0, 1, 63, 64, 65, 128] {
        let paths: Vec<_> = paths.iter().map(|path| [&vec![b'x'; alike][..], path].concat()).collect();
        for (a, b) in paths.iter().flat_map(|a| paths.iter().map(move |b| (a, b))) {
            let by_parts = a.split(|&byte| byte == b'/').cmp(b.split(|&byte| byte == b'/'));
            assert_eq!(path_order(a, b), by_parts, "{a:?} {b:?}");
        }
    }
}

/// Each takes a few bytes, and what it shares with the one before is not among them.
#[test]
fn paths_take_no_memory_without_end() {
    let names = (0..100u8).map(|last| entry(&format!("{}{last:03}", "deep/".repeat(100)), Kind::Whiteout));
    let root = entry("", Kind::Directory { opaque: false });
    let manifest = Manifest::new(names.chain([root]).collect()).unwrap();
    let bytes = manifest.encode();
    assert!(bytes.len() < 2000);
    let root_xattrs = 2 * XATTR_COUNTS + ("security.capability".len() + 3 + "user.a".len()) as u64;
    let counted = 101 * ENTRY_COUNTS + 100 * 503 + root_xattrs;
    assert_eq!(manifest.memory(), counted);
    fits_exactly(&manifest);
}

/// Reads a manifest with as much memory as it counts for, and with one byte less.
fn fits_exactly(manifest: &Manifest) {
    let bytes = manifest.encode();
    assert!(bytes.len() as u64 <= manifest.memory());
    assert_eq!(&Manifest::decode_within(&bytes, manifest.memory()).unwrap(), manifest);
    let refused = Manifest::decode_within(&bytes, manifest.memory() - 1).unwrap_err();
    let text = "the manifest is not in its canonical form: it takes more than 2 GiB of memory";
    assert_eq!(refused.to_string(), text);
}

#[test]
fn targets_and_xattrs_take_no_memory_without_end() {
    fits_exactly(&every_kind());
    let mut root = entry("", Kind::Directory { opaque: false });
    root.metadata.xattrs = (0..1000).map(|at| (format!("user.{at:03}").into_bytes(), Vec::new())).collect();
    let manifest = Manifest::new(vec![root, entry("a", Kind::Symlink { target: vec![b't'; 5000] })]).unwrap();
    assert!(manifest.memory() > 1000 * XATTR_COUNTS + 5000);
    fits_exactly(&manifest);
}

/// Zeros, which compress to nothing. They are refused where they begin, and what says that much follows is not believed.
#[test]
fn empty_names_and_false_counts_are_refused_where_they_stand() {
    let mut root = entry("", Kind::Directory { opaque: false });
    root.metadata.xattrs.clear();
    let bytes = Manifest::new(vec![root]).unwrap().encode();
    let (metadata, count) = bytes.split_at(bytes.len() - 1);
    assert_eq!(count, [0]);
    let with_xattrs = |count: u64, rest: &[u8]| {
        let mut bytes = metadata.to_vec();
        varint::put(&mut bytes, count);
        [&bytes, rest].concat()
    };
    let zeros = vec![0; 3 << 20];
    let refused = Manifest::decode(&with_xattrs(1 << 20, &zeros));
    assert_eq!(refused, Err(DecodeError::NotCanonical("xattrs out of order")));
    // What comes after the first is not looked at.
    let refused = Manifest::decode(&with_xattrs(1 << 20, &[&[0][..], &[0xff; 3 << 20]].concat()));
    assert_eq!(refused, Err(DecodeError::NotCanonical("xattrs out of order")));
    assert_eq!(Manifest::decode(&with_xattrs((1 << 20) + 1, &zeros)), Err(DecodeError::Truncated));
    assert_eq!(Manifest::decode(&with_xattrs(u64::MAX, &zeros)), Err(DecodeError::Truncated));
    let refused = Manifest::decode_within(&with_xattrs(1 << 20, &zeros), 1 << 20).unwrap_err();
    assert!(refused.to_string().contains("memory"), "{refused}");
    // Entries that are all the root: the second is one too many, whatever follows.
    let twice = [&bytes[..], &bytes, b"cut"].concat();
    assert_eq!(Manifest::decode(&twice), Err(DecodeError::NotCanonical("paths out of order")));
}
