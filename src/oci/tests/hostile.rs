//! Layouts and archives that were made to do harm, each after a defect that some tool had.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::*;
use crate::archive::made::Member;
use crate::oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use crate::oci::*;
use crate::types::Digest;
use crate::{BlobError, Error, ImportError, Limit, OciError, Store, StoreOptions, SyncMode};

fn resolve(place: &Place) -> OciError {
    let source = match place.open("oci", "dir") {
        Ok(source) => source,
        Err(error) => return error,
    };
    let begin = Instant::now();
    let error = source.resolve(&Selection::default()).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}: {error}", begin.elapsed());
    error
}

/// Which limit the image goes beyond, and what was met.
fn limit(place: &Place) -> (Limit, Option<u64>) {
    match resolve(place) {
        OciError::Limit(limit) => (limit.limit, limit.found),
        error => panic!("{error:?}"),
    }
}

fn entry(media_type: &str, digest: &str, size: &Value) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn index_of(entries: &[Value]) -> Document {
    let value = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    Document::from_value(&value, OCI_INDEX)
}

#[test]
fn digests_never_become_other_paths() {
    let place = Place::new();
    let upper = format!("sha256:{}", "A".repeat(64));
    for digest in
        ["sha256:../../x", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper, "../../etc/passwd"]
    {
        write_layout(&place.path("dir"), &[], &[entry(OCI_MANIFEST, digest, &json!(1))]);
        assert!(matches!(resolve(&place), OciError::Value { .. }), "{digest}");
    }
}

#[test]
fn missing_oversized_and_corrupt_blobs() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    let digest = image.manifest.digest.to_string();
    let size = image.manifest.bytes.len();
    let layout = |size: Value| {
        write_layout(&place.path("dir"), &[&image.manifest.bytes], &[entry(OCI_MANIFEST, &digest, &size)])
    };
    layout(json!(size - 1));
    assert!(matches!(resolve(&place), OciError::Blob(BlobError::Size { .. })));
    layout(json!(1_u64 << 40));
    assert_eq!(limit(&place), (Limit::ManifestBytes, Some(1 << 40)));
    layout(json!(-1));
    assert!(matches!(resolve(&place), OciError::DescriptorSize { .. }));
    layout(json!(size));
    assert!(matches!(resolve(&place), OciError::BlobMissing { .. }), "the config is not there");
    let blob = place.path("dir/blobs/sha256").join(image.manifest.digest.hex());
    let mut bytes = image.manifest.bytes.clone();
    bytes[10] ^= 1;
    std::fs::write(blob, bytes).unwrap();
    assert!(matches!(resolve(&place), OciError::Blob(BlobError::Digest { .. })));
}

#[test]
fn a_corrupt_layer_fails_where_it_is_read() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    image.save(&place, "oci", "dir", &[]);
    let (descriptor, bytes) = &image.blobs[1];
    let mut bytes = bytes.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 0xff;
    std::fs::write(place.path("dir/blobs/sha256").join(descriptor.digest.hex()), &bytes).unwrap();
    let source = place.open("oci", "dir").unwrap();
    assert!(matches!(read_blob(&source, descriptor), Err(OciError::Blob(BlobError::Digest { .. }))));
    let extent = source.blob(descriptor).unwrap().extent().clone();
    assert_eq!((extent.offset(), extent.length()), (0, bytes.len() as u64));
    let longer = Descriptor::new("x", descriptor.digest.clone(), descriptor.size + 1);
    assert!(matches!(source.blob(&longer), Err(OciError::Blob(BlobError::Size { .. }))), "before reading");
}

/// Whichever way the damage shows first, to the decompressor or to the digest, the error is that of the digest.
#[test]
fn a_load_tells_a_damaged_blob_by_its_digest() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    image.save(&place, "oci", "dir", &[]);
    let source = place.open("oci", "dir").unwrap();
    for (position, keep, at) in [(0, true, 0), (0, false, 600), (1, true, 20), (1, false, 20)] {
        let (descriptor, bytes) = &image.blobs[position];
        let path = place.path("dir/blobs/sha256").join(descriptor.digest.hex());
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, damaged).unwrap();
        let options = StoreOptions::at(place.path("store")).sync(SyncMode::Off).reserve(0).keep_blobs(keep);
        let error = Store::open(&options).unwrap().load(&source, &LoadOptions::default()).unwrap_err();
        let expected = descriptor.digest.to_string();
        let told =
            matches!(&error, Error::Import(ImportError::BlobDigest { expected: e, .. }) if *e == expected);
        assert!(told, "{position} {keep} {at}: {error:?}");
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn links_and_pipes_in_a_layout_are_not_followed() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    let blob = place.path("dir/blobs/sha256").join(image.manifest.digest.hex());
    let fresh = || {
        let _gone = std::fs::remove_dir_all(place.path("dir"));
        image.save(&place, "oci", "dir", &[]);
    };
    fresh();
    std::fs::rename(&blob, place.path("victim")).unwrap();
    symlink(place.path("victim"), &blob).unwrap();
    assert!(matches!(resolve(&place), OciError::FileKind { .. }));
    std::fs::remove_file(&blob).unwrap();
    mkfifo(&blob);
    assert!(matches!(resolve(&place), OciError::FileKind { .. }));
    fresh();
    std::fs::rename(place.path("dir/blobs"), place.path("blobs")).unwrap();
    symlink(place.path("blobs"), place.path("dir/blobs")).unwrap();
    assert!(matches!(resolve(&place), OciError::FileKind { .. }));
    let sink = Sink::create(&place.reference("oci", "dir"), place.0.path());
    assert!(matches!(sink, Err(OciError::FileKind { .. })));
}

#[test]
fn indexes_are_bounded_in_depth_and_width() {
    let place = Place::new();
    let mut chain = vec![index_of(&[])];
    for _ in 0..10 {
        let below = Descriptor::of(chain.last().unwrap());
        chain.push(index_of(&[below.raw]));
    }
    let blobs: Vec<&[u8]> = chain.iter().map(|index| index.bytes.as_slice()).collect();
    write_layout(&place.path("dir"), &blobs, &[Descriptor::of(chain.last().unwrap()).raw]);
    assert_eq!(limit(&place), (Limit::IndexDepth, Some(5)));

    // A million descriptors do not fit into a document; the most that do are still too many.
    let wide = index_of(&vec![entry(OCI_MANIFEST, &chain[0].digest.to_string(), &json!(1)); 20_000]);
    write_layout(&place.path("dir"), &[&wide.bytes], &[Descriptor::of(&wide).raw]);
    assert_eq!(limit(&place), (Limit::IndexEntries, Some(10_001)));

    let many: Vec<Document> = (0..100)
        .map(|number| {
            Document::from_value(&json!({ "schemaVersion": 2, "manifests": [], "n": number }), OCI_INDEX)
        })
        .collect();
    let top = index_of(&many.iter().map(|index| Descriptor::of(index).raw).collect::<Vec<_>>());
    let blobs: Vec<&[u8]> = many.iter().chain([&top]).map(|index| index.bytes.as_slice()).collect();
    write_layout(&place.path("dir"), &blobs, &[Descriptor::of(&top).raw]);
    assert_eq!(limit(&place), (Limit::Indexes, Some(65)));
}

#[test]
fn an_index_that_lists_itself_is_refused() {
    let place = Place::new();
    // No one can make a document that holds its own digest; a reader has to be sure without that.
    let digest = Digest::sha256(b"loop");
    let own = index_of(&[entry(OCI_INDEX, &digest.to_string(), &json!(1))]);
    write_layout(&place.path("dir"), &[], &[entry(OCI_INDEX, &digest.to_string(), &json!(own.bytes.len()))]);
    std::fs::write(place.path("dir/blobs/sha256").join(digest.hex()), &own.bytes).unwrap();
    assert!(matches!(resolve(&place), OciError::Blob(BlobError::Digest { .. })));
}

#[test]
fn media_types_that_lie_are_refused() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    let index = index_of(&[]);
    let as_other = |document: &Document, media_type: &str| {
        let size = json!(document.bytes.len());
        write_layout(
            &place.path("dir"),
            &[&document.bytes],
            &[entry(media_type, &document.digest.to_string(), &size)],
        );
        resolve(&place)
    };
    assert!(matches!(as_other(&index, OCI_MANIFEST), OciError::MediaType { .. }));
    assert!(matches!(as_other(&image.manifest, OCI_INDEX), OciError::MediaType { .. }));
    assert!(matches!(as_other(&index, "text/plain"), OciError::UnknownManifestType { .. }));
}

#[test]
fn layers_and_diff_ids_must_match() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    image.save(&place, "oci", "dir", &["a"]);
    let mut manifest = Manifest::parse(&image.manifest, "m").unwrap();
    manifest.push_layer(image.blobs[0].0.clone());
    let manifest = manifest.to_document();
    write_layout(&place.path("dir"), &[&manifest.bytes], &[Descriptor::of(&manifest).raw]);
    assert!(matches!(resolve(&place), OciError::LayerCount { layers: 3, diff_ids: 2, .. }));
}

#[test]
fn members_stay_inside_the_archive() {
    let place = Place::new();
    let image = TestImage::new("x", false);
    let list = |layer: &str| json!([{ "Config": "c", "Layers": [layer, layer] }]).to_string();
    let open = |entries: &[Entry<'_>]| {
        write_tar(&place.path("a.tar"), entries);
        let source = place.open("docker-archive", "a.tar")?;
        source.resolve(&Selection::default())
    };
    let (ours, outside) = (list("layer"), list("../../etc/passwd"));
    let config = Entry::File("c", &image.config.bytes);
    let error = open(&[Entry::File("manifest.json", outside.as_bytes()), config]).unwrap_err();
    assert!(matches!(error, OciError::Member { .. }), "{error}");
    for target in ["/etc/passwd", "../etc/passwd", "a/../../x"] {
        let error = open(&[Entry::File("manifest.json", ours.as_bytes()), Entry::Symlink("layer", target)])
            .unwrap_err();
        assert!(matches!(error, OciError::Member { .. }), "{target}: {error}");
    }
    let error = open(&[
        Entry::File("manifest.json", ours.as_bytes()),
        Entry::File("c", &image.config.bytes),
        Entry::Symlink("layer", "other"),
        Entry::Hardlink("other", "layer"),
    ]);
    assert!(matches!(error, Err(OciError::Member { .. })), "a circle");
    let error = open(&[Entry::File("manifest.json", ours.as_bytes()), Entry::File("c", &image.config.bytes)]);
    assert!(matches!(error, Err(OciError::MemberMissing { .. })));
    let error = open(&[Entry::File("../manifest.json", ours.as_bytes())]);
    assert!(matches!(error, Err(OciError::Member { .. })));
    let twice = [Entry::File("manifest.json", ours.as_bytes()), Entry::File("./manifest.json", b"[]")];
    assert!(matches!(open(&twice), Err(OciError::Member { reason: "the archive has it twice", .. })));
    // Only of what is used it matters; and the name of a blob tells which of two it is.
    let configs = [
        Entry::File("manifest.json", br#"[{"Config":"c","Layers":[]}]"#),
        Entry::File("c", &image.config.bytes),
        Entry::File("c", b"{}"),
    ];
    assert!(matches!(open(&configs), Err(OciError::Member { reason: "the archive has it twice", .. })));
    let others = [
        Entry::File("x", b"1"),
        Entry::File("x", b"2"),
        Entry::File("manifest.json", br#"[{"Config":"c","Layers":[]}]"#),
        Entry::File("c", &image.config.bytes),
    ];
    assert!(matches!(open(&others), Err(OciError::LayerCount { .. })));
}

/// A member that says it has `size` bytes, and has these.
fn member(kind: u8, name: &str, size: u64, data: &[u8]) -> Vec<u8> {
    Member::file(name, data).entry_type(kind).declared_size(size).to_bytes()
}

#[test]
fn damaged_and_tricky_tars() {
    let place = Place::new();
    let open = |bytes: &[u8]| {
        std::fs::write(place.path("a.tar"), bytes).unwrap();
        place.open("oci-archive", "a.tar").map(drop).unwrap_err()
    };
    let archive = |error: OciError| assert!(matches!(error, OciError::Archive { .. }), "{error}");
    let entry = |error: OciError| assert!(matches!(error, OciError::Member { .. }), "{error}");
    let file = member(b'0', "x", 3, b"abc");
    archive(open(b"random bytes, not a tar"));
    archive(open(&[0xff; 2048]));
    archive(open(&[&b"PK\x03\x04"[..], &[0; 1000]].concat()));
    archive(open(b""));
    assert!(matches!(open(&[0; 1024]), OciError::Format { missing: "oci-layout", .. }));
    assert!(matches!(open(&file), OciError::Format { missing: "oci-layout", .. }));
    archive(open(&[&file[..], &[0; 512], &file].concat()));
    entry(open(&member(b'0', "x", 1 << 20, b"abc")));
    archive(open(&member(b'0', "x", u64::MAX, b"abc")));
    entry(open(&member(b'0', "x", i64::MAX as u64, b"abc")));
    archive(open(&member(b'S', "x", 0, b"")));
    archive(open(&member(b'Q', "x", 0, b"")));
    // A reader that skips a directory's size takes what follows for members, another does not.
    archive(open(&[member(b'5', "x", 512, b""), file.clone()].concat()));
    let claim = open(&member(b'L', "x", 1 << 33, b"abc"));
    assert!(matches!(claim, OciError::Limit(limit) if limit.limit == Limit::PaxBytes));
    let long = open(&[member(b'L', "x", 100 << 10, &[b'a'; 100 << 10]), file.clone()].concat());
    assert!(matches!(long, OciError::Limit(limit) if limit.limit == Limit::PathBytes));
    archive(open(&member(b'L', "x", 3, b"abc")));
    archive(open(&member(b'x', "x", 6, b"99 a=b")));
    let pax = |records: &str| member(b'x', "pax", records.len() as u64, records.as_bytes());
    archive(open(&[pax("22 GNU.sparse.major=1\n"), file.clone()].concat()));
    entry(open(&[pax("21 GNU.sparse.size=3\n22 GNU.sparse.map=0,3\n"), file.clone()].concat()));
    entry(open(&[pax("13 size=9999\n"), file.clone()].concat()));
    archive(open(&[pax("12 size=abc\n"), file.clone()].concat()));
    archive(open(&[pax("11 size=+3\n"), file.clone()].concat()));
    archive(open(&[pax("10 path=a\n"), pax("10 path=b\n"), file.clone()].concat()));
    archive(open(&[pax("10 path=a\n10 path=b\n"), file.clone()].concat()));
    archive(open(&[member(b'L', "x", 2, b"a\0"), member(b'L', "x", 2, b"b\0"), file.clone()].concat()));
    archive(open(&[pax("10 path=a\n"), member(b'L', "x", 2, b"b\0"), file.clone()].concat()));
    // A value with a newline is one record to some and two to others.
    let newline = pax("30 comment=a\n16 path=../../x\n\n");
    archive(open(&[newline, file.clone()].concat()));
    entry(open(&[pax("16 path=../../x\n"), file.clone()].concat()));
    archive(open(&pax("99999999999999999999 a=b\n")));
    archive(open(&pax("+9 a=bcd\n")));
    let global = "14 path=hello\n";
    archive(open(&[member(b'g', "pax", global.len() as u64, global.as_bytes()), file].concat()));
}

#[test]
fn the_size_of_a_pax_record_wins() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    image.save(&place, "oci-archive", "a.tar", &[]);
    let tar = std::fs::read(place.path("a.tar")).unwrap();
    // A whole header hides in the data of a member whose ustar size is zero.
    let hidden = member(b'0', "oci-layout", 1, b"x");
    let pax = format!("13 size={}\n", hidden.len());
    assert_eq!(pax.len(), 13);
    let smuggled =
        [&member(b'x', "pax", 13, pax.as_bytes())[..], &member(b'0', "data", 0, b""), &hidden, &tar].concat();
    std::fs::write(place.path("b.tar"), smuggled).unwrap();
    image.assert_same(&place.open("oci-archive", "b.tar").unwrap(), None, true);
}

#[test]
fn an_archive_cut_anywhere_fails_or_is_whole() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    image.save(&place, "oci-archive", "a.tar", &[]);
    let tar = std::fs::read(place.path("a.tar")).unwrap();
    for end in (0..tar.len() - 1024).step_by(128) {
        std::fs::write(place.path("b.tar"), &tar[..end]).unwrap();
        if let Ok(source) = place.open("oci-archive", "b.tar") {
            image.assert_same(&source, None, true);
        }
    }
}

#[test]
fn broken_compression_is_an_error() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    image.save(&place, "oci-archive", "a.tar", &[]);
    let zipped = gzip(&std::fs::read(place.path("a.tar")).unwrap());
    std::fs::write(place.path("b.tar"), &zipped[..zipped.len() - 9]).unwrap();
    assert!(matches!(place.open("oci-archive", "b.tar"), Err(OciError::Io { action: "decompress", .. })));
    std::fs::write(place.path("b.tar"), [0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff]).unwrap();
    assert!(matches!(place.open("oci-archive", "b.tar"), Err(OciError::Io { action: "decompress", .. })));
}

proptest! {
    #[test]
    fn no_document_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_documents(&bytes);
    }

    #[test]
    fn no_changed_document_makes_a_reader_panic(which in 0..3_usize, at in any::<prop::sample::Index>(), text in "[\\[\\]{}\",:0-9a-z-]{0,6}") {
        let image = TestImage::new("x", true);
        let list = json!([{ "Config": "c", "RepoTags": ["a"], "Layers": [] }]).to_string().into_bytes();
        let mut bytes = [image.manifest.bytes, image.config.bytes, list][which].clone();
        let at = at.index(bytes.len());
        let end = (at + text.len()).min(bytes.len());
        bytes.splice(at..end, text.bytes());
        check_documents(&bytes);
    }
}
