//! Layers with a table of contents: zstd:chunked.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use layerstore::oci::{LoadOptions, SaveOptions, Source};
use layerstore::{
    ApplyOptions, ChunkedBlob, ChunkedError, Compression as Form, DiffId, DiffOptions, Digest, Error,
    ExportError, Image, ImportError, LayerOptions, Limit, Limits, RangeSource, Store, StoreOptions,
};
use serde_json::Value;

use crate::support::command::TestCommand;
use crate::support::dir::Dir;
use crate::support::machine;
use crate::support::oci::{self, Compression, blob_path};
use crate::support::random::Random;
use crate::support::store::{assert_whole, exported, open};
use crate::support::tar::Member;

/// Files of all kinds: small, empty, in several parts, with zeros, and linked.
fn members() -> Vec<Member> {
    let mut random = Random::new(7);
    let holes = [random.bytes(5000), vec![0; 200_000], random.bytes(5000), vec![0; 3000]].concat();
    vec![
        Member::directory("etc").owner(7, 8),
        Member::file("etc/motd", "hello").mode(0o4755).mtime(1_700_000_000, 0),
        Member::file("etc/empty", ""),
        Member::file("large", random.bytes(900_000)).xattr("user.a", b"1\0\xff"),
        Member::file("holes", holes),
        Member::file("zeros", vec![0; 5000]),
        Member::symlink("link", "etc/motd"),
        Member::hard_link("hard", "large"),
        Member::fifo("fifo"),
        Member::whiteout("etc/old"),
    ]
}

/// An image of one layer, as skopeo writes it with a table of contents.
fn by_skopeo(dir: &Dir) -> Option<std::path::PathBuf> {
    let plain = oci::Image::new([oci::Layer::new(members()).compression(Compression::None)])
        .write(dir.join("plain"), "1");
    let chunked = dir.join("skopeo");
    let to = format!("oci:{}:1", chunked.display());
    TestCommand::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--dest-compress-format", "zstd:chunked"])
        .args([&plain.reference(), &to])
        .assert_success();
    // Early versions do not compress what is not compressed.
    descriptor(&chunked)["annotations"].is_object().then_some(chunked)
}

/// The descriptor of the layout's only layer.
fn descriptor(layout: &Path) -> Value {
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let index = read(&layout.join("index.json"));
    let manifest = read(&blob_path(layout, index["manifests"][0]["digest"].as_str().unwrap()));
    manifest["layers"][0].clone()
}

fn annotations(descriptor: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(descriptor["annotations"].clone()).unwrap()
}

fn load(store: &Store, layout: &Path) -> Result<Image, Error> {
    let source = Source::open(&format!("oci:{}:1", layout.display()).parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named("it"))
}

#[test]
fn what_skopeo_writes_is_compared_and_known_by_its_table() {
    if !machine::has_program("skopeo") {
        skip!("skopeo is not installed");
    }
    let dir = Dir::new("chunked-skopeo");
    let Some(layout) = by_skopeo(&dir) else { skip!("this skopeo writes no tables of contents") };
    let store = open(&dir);
    load(&store, &layout).unwrap();
    let descriptor = descriptor(&layout);
    let blob = ChunkedBlob::from_annotations(&annotations(&descriptor)).unwrap().unwrap();
    let [layer] = &store.layers_by_toc_digest(&blob.toc_digest).unwrap()[..] else { panic!("no layer") };
    assert_eq!(layer.toc_digest.as_ref(), Some(&blob.toc_digest));

    let bytes = std::fs::read(blob_path(&layout, descriptor["digest"].as_str().unwrap())).unwrap();
    let footer = ChunkedBlob::from_footer(&bytes[bytes.len() - 72..], blob.toc_digest.clone()).unwrap();
    assert_eq!(footer, blob);

    // Without a manifest, a caller says where the table is.
    let put = |blob: ChunkedBlob| {
        let mut options = LayerOptions::default();
        options.apply.chunked = Some(blob);
        store.put_layer(None, &options, &*bytes)
    };
    assert_eq!(put(blob.clone()).unwrap().toc_digest, Some(blob.toc_digest.clone()));
    let mut other = blob;
    other.toc_digest = Digest::sha256(b"other");
    let error = put(other).unwrap_err();
    assert!(matches!(error, Error::Import(ImportError::Chunked(ChunkedError::Digest { .. }))), "{error:?}");
    assert_whole(&store);
}

/// Gives a blob another table of contents, and returns both.
fn with_table(bytes: &[u8], blob: &ChunkedBlob, change: impl FnOnce(&mut Value)) -> (Vec<u8>, ChunkedBlob) {
    let span = |offset: u64, length: u64| {
        usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap()
    };
    let old = &bytes[span(blob.toc.offset, blob.toc.length)];
    let mut table: Value = serde_json::from_slice(&zstd::decode_all(old).unwrap()).unwrap();
    change(&mut table);
    let json = serde_json::to_vec(&table).unwrap();
    let packed = zstd::encode_all(&json[..], 1).unwrap();
    let start = usize::try_from(blob.toc.offset).unwrap();
    let mut changed = bytes[..start - 4].to_vec();
    changed.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
    changed.extend(&packed);
    let position = format!("{start}:{}:{}:1", packed.len(), json.len());
    let mut annotations = BTreeMap::from([
        (
            "io.github.containers.zstd-chunked.manifest-checksum".to_owned(),
            Digest::sha256(&packed).to_string(),
        ),
        ("io.github.containers.zstd-chunked.manifest-position".to_owned(), position),
    ]);
    if let Some(split) = blob.tar_split {
        let at = changed.len() + 8;
        changed.extend(&bytes[span(split.offset - 8, split.length + 8)]);
        annotations.insert(
            "io.github.containers.zstd-chunked.tarsplit-position".to_owned(),
            format!("{at}:{}:{}", split.length, split.unpacked),
        );
    }
    (changed, ChunkedBlob::from_annotations(&annotations).unwrap().unwrap())
}

#[test]
fn a_table_that_lies_is_refused_and_the_entry_named() {
    if !machine::has_program("skopeo") {
        skip!("skopeo is not installed");
    }
    let dir = Dir::new("chunked-lies");
    let Some(layout) = by_skopeo(&dir) else { skip!("this skopeo writes no tables of contents") };
    let store = open(&dir);
    let descriptor = descriptor(&layout);
    let blob = ChunkedBlob::from_annotations(&annotations(&descriptor)).unwrap().unwrap();
    let bytes = std::fs::read(blob_path(&layout, descriptor["digest"].as_str().unwrap())).unwrap();
    let stage = |change: fn(&mut Value)| {
        let (bytes, blob) = with_table(&bytes, &blob, change);
        let mut options = ApplyOptions::default();
        options.chunked = Some(blob);
        store.stage_diff(&*bytes, &options).map(drop)
    };
    stage(|_| {}).unwrap();
    type Lie = fn(&mut Value);
    let lies: [(Lie, &str); 4] = [
        (|table| table["entries"][1]["mode"] = 0o755.into(), "etc/motd"),
        (|table| table["entries"][1]["digest"] = Digest::sha256(b"x").to_string().into(), "etc/motd"),
        (|table| table["entries"].as_array_mut().unwrap().truncate(2), "etc/empty"),
        (
            |table| {
                let more = serde_json::json!({ "type": "dir", "name": "more" });
                table["entries"].as_array_mut().unwrap().push(more);
            },
            "more",
        ),
    ];
    for (lie, named) in lies {
        match stage(lie) {
            Err(Error::Import(ImportError::Chunked(ChunkedError::Disagrees { entry, .. }))) => {
                assert_eq!(entry, named);
            }
            other => panic!("{named}: {other:?}"),
        }
    }
    assert_whole(&store);
}

#[test]
fn annotations_of_another_blob_are_no_reason_to_refuse_a_layer() {
    let dir = Dir::new("chunked-stale");
    let store = open(&dir);
    let layout = dir.join("stale");
    oci::Image::new([oci::Layer::new(members()).compression(Compression::Zstd)])
        .manifest(|manifest| {
            manifest["layers"][0]["annotations"] = serde_json::json!({
                "io.github.containers.zstd-chunked.manifest-checksum": oci::digest(b"table"),
                "io.github.containers.zstd-chunked.manifest-position": "100:50:500:1",
            });
        })
        .write(&layout, "1");
    load(&store, &layout).unwrap();
    let layers = store.layers().unwrap();
    assert_eq!((layers.len(), &layers[0].toc_digest), (1, &None));
    assert!(store.layers_by_toc_digest(&Digest::sha256(b"table")).unwrap().is_empty());
}

fn save(store: &Store, image: &Image, layout: &Path, compression: Option<Form>) {
    let mut options = SaveOptions::default();
    options.compression = compression;
    store.save(&image.id, &format!("oci:{}:1", layout.display()).parse().unwrap(), &options).unwrap();
}

/// The entries of the table of a layout's only layer, without their places in the blob and in the order of names.
fn table(layout: &Path) -> Vec<Value> {
    let descriptor = descriptor(layout);
    let blob = ChunkedBlob::from_annotations(&annotations(&descriptor)).unwrap().unwrap();
    let bytes = std::fs::read(blob_path(layout, descriptor["digest"].as_str().unwrap())).unwrap();
    let range = usize::try_from(blob.toc.offset).unwrap()..usize::try_from(blob.toc.end()).unwrap();
    let mut table: Value = serde_json::from_slice(&zstd::decode_all(&bytes[range]).unwrap()).unwrap();
    let entries = table["entries"].as_array_mut().unwrap();
    for entry in &mut *entries {
        let entry = entry.as_object_mut().unwrap();
        // Early versions write the times that an archive does not have.
        entry.retain(|key, value| {
            !["offset", "endOffset"].contains(&key.as_str()) && value != "0001-01-01T00:00:00Z"
        });
    }
    entries.clone()
}

#[test]
fn a_table_that_is_written_is_the_one_that_skopeo_writes() {
    if !machine::has_program("skopeo") {
        skip!("skopeo is not installed");
    }
    let dir = Dir::new("chunked-same");
    let Some(layout) = by_skopeo(&dir) else { skip!("this skopeo writes no tables of contents") };
    let store = open(&dir);
    let image = load(&store, &dir.join("plain")).unwrap();
    let saved = dir.join("saved");
    save(&store, &image, &saved, Some(Form::ZstdChunked));
    let (ours, theirs) = (table(&saved), table(&layout));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn what_is_saved_with_a_table_is_read_by_everyone() {
    if !machine::has_program("skopeo") {
        skip!("skopeo is not installed");
    }
    let dir = Dir::new("chunked-saved");
    let plain = oci::Image::new([oci::Layer::new(members()).compression(Compression::None)])
        .write(dir.join("plain"), "1");
    let store = open(&dir);
    let image = load(&store, &plain.layout).unwrap();
    let saved = dir.join("saved");
    save(&store, &image, &saved, Some(Form::ZstdChunked));
    let said = descriptor(&saved);
    assert_eq!(said["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    let blob = ChunkedBlob::from_annotations(&annotations(&said)).unwrap().unwrap();
    assert!(blob.tar_split.is_some());

    // Skopeo reads every blob, and compresses it anew.
    let again = dir.join("again");
    TestCommand::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--dest-compress-format", "gzip"])
        .args([format!("oci:{}:1", saved.display()), format!("oci:{}:1", again.display())])
        .assert_success();
    assert_eq!(oci::ReadImage::open(&saved, "1").measured_diff_ids(), plain.diff_ids);
    assert_eq!(oci::ReadImage::open(&again, "1").measured_diff_ids(), plain.diff_ids);

    let other = Store::open(&StoreOptions::at(dir.join("other")).run_root(dir.join("other-run"))).unwrap();
    let same = load(&other, &saved).unwrap();
    assert_eq!(same.id, image.id);
    assert_eq!(other.layers_by_toc_digest(&blob.toc_digest).unwrap().len(), 1);
    assert_whole(&other);

    // As it came, in the same form without the blob, and in another form.
    let forms = |layout: &str, compression| {
        save(&other, &same, &dir.join(layout), compression);
        descriptor(&dir.join(layout))
    };
    assert_eq!(forms("kept", None), said);
    assert_eq!(forms("zstd", Some(Form::Zstd)), said, "it is zstd");
    let gzip = forms("gzip", Some(Form::Gzip));
    assert!(gzip.get("annotations").is_none(), "{gzip}");
    let options = StoreOptions::at(dir.join("third")).run_root(dir.join("third-run")).keep_blobs(false);
    let third = Store::open(&options).unwrap();
    let image = load(&third, &saved).unwrap();
    save(&third, &image, &dir.join("remade"), None);
    assert_eq!(descriptor(&dir.join("remade")), said, "the same bytes every time");
}

#[test]
fn a_diff_with_a_table_says_where_it_is() {
    let dir = Dir::new("chunked-diff");
    let store = open(&dir);
    let tar = crate::support::tar::archive(&members());
    let layer = store.put_layer(None, &LayerOptions::default(), &*tar).unwrap();
    let options = DiffOptions::default().compression(Form::ZstdChunked);
    let mut out = Vec::new();
    let blob = store.diff_with(&layer, &options, &mut out).unwrap().unwrap();
    assert_eq!(ChunkedBlob::from_footer(&out[out.len() - 72..], blob.toc_digest.clone()).unwrap(), blob);
    assert!(zstd::decode_all(&out[..]).unwrap() == tar);
    let mut apply = LayerOptions::default();
    apply.apply.chunked = Some(blob.clone());
    assert_eq!(store.put_layer(None, &apply, &*out).unwrap().toc_digest, Some(blob.toc_digest));

    let twice = crate::support::tar::archive(&[Member::file("a", "1"), Member::file("a", "2")]);
    let layer = store.put_layer(None, &LayerOptions::default(), &*twice).unwrap();
    let error = store.diff_with(&layer, &options, &mut Vec::new()).unwrap_err();
    let unrepresentable =
        matches!(&error, Error::Export(ExportError::Chunked(ChunkedError::Unrepresentable { .. })));
    assert!(unrepresentable, "{error:?}");
    let full = store.diff_with(&layer, &options, &mut [0u8; 5][..]).unwrap_err();
    assert!(matches!(full, Error::Export(_)), "{full:?}");
}

/// A blob in memory that counts what is asked of it, and may lie.
struct Memory<'b> {
    blob: &'b [u8],
    asked: Vec<Range<u64>>,
    calls: usize,
    /// The call that fails.
    fails: Option<usize>,
    /// How many bytes the second call gives at the most.
    short: Option<u64>,
}

impl<'b> Memory<'b> {
    fn new(blob: &'b [u8]) -> Self {
        Memory { blob, asked: Vec::new(), calls: 0, fails: None, short: None }
    }

    fn bytes(&self) -> u64 {
        self.asked.iter().map(|range| range.end - range.start).sum()
    }
}

impl RangeSource for Memory<'_> {
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> io::Result<Box<dyn Read + Send + '_>> {
        self.calls += 1;
        if self.fails == Some(self.calls) {
            return Err(io::Error::other("the network is down"));
        }
        assert!(ranges.iter().all(|range| range.start < range.end), "{ranges:?}");
        self.asked.extend_from_slice(ranges);
        let bytes: Vec<u8> = ranges
            .iter()
            .flat_map(|range| {
                &self.blob[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
            })
            .copied()
            .collect();
        let most = self.short.filter(|_| self.calls == 2).unwrap_or(u64::MAX);
        Ok(Box::new(io::Cursor::new(bytes).take(most)))
    }
}

/// The blob of an archive, by way of a store of its own.
fn blob_of(dir: &Dir, tar: &[u8]) -> (Vec<u8>, ChunkedBlob) {
    let store = Store::open(&StoreOptions::at(dir.join("maker")).run_root(dir.join("maker-run"))).unwrap();
    let layer = store.put_layer(None, &LayerOptions::default(), tar).unwrap();
    let mut out = Vec::new();
    let options = DiffOptions::default().compression(Form::ZstdChunked);
    let blob = store.diff_with(&layer, &options, &mut out).unwrap().unwrap();
    (out, blob)
}

#[test]
fn only_what_is_not_there_is_fetched() {
    let dir = Dir::new("chunked-partial");
    let store = open(&dir);
    let mut random = Random::new(11);
    let old = crate::support::tar::archive(&members());
    store.put_layer(None, &LayerOptions::default(), &*old).unwrap();
    let mut newer = members();
    newer.push(Member::file("new", random.bytes(70_000)));
    newer.push(Member::file("moved/motd", "hello"));
    // As long as one that is there.
    newer.push(Member::file("other", random.bytes(900_000)));
    newer.push(Member::file("more zeros", vec![0; 600_000]));
    // Far from the others: what is between is there.
    newer.insert(1, Member::file("first", random.bytes(10_000)));
    let tar = crate::support::tar::archive(&newer);
    let (bytes, blob) = blob_of(&dir, &tar);

    let mut source = Memory::new(&bytes);
    let mut options = ApplyOptions::default();
    options.diff_id = Some(DiffId(Digest::sha256(&tar)));
    let staged = store.stage_chunked(&blob, &mut source, &options).unwrap();
    assert_eq!(staged.fetched(), Some(source.bytes()));
    let needed = 980_000 + blob.toc.length + blob.tar_split.unwrap().length;
    assert!((needed..needed + 10_000).contains(&source.bytes()), "{} for {needed}", source.bytes());
    assert_eq!((source.calls, staged.diff_id().clone()), (2, options.diff_id.clone().unwrap()));
    let layer = staged.insert(None, &LayerOptions::named("new")).unwrap();
    assert_eq!(layer.toc_digest.as_ref(), Some(&blob.toc_digest));
    assert!(exported(&store, &layer) == tar);

    // All of it is there now, and only the table is fetched.
    let mut source = Memory::new(&bytes);
    let again = store.stage_chunked(&blob, &mut source, &options).unwrap();
    assert_eq!((source.calls, again.fetched().unwrap()), (1, needed - 980_000));
    drop(again);

    // A store without anything fetches everything but zeros.
    let empty = Store::open(&StoreOptions::at(dir.join("empty")).run_root(dir.join("empty-run"))).unwrap();
    let mut source = Memory::new(&bytes);
    let staged = empty.stage_chunked(&blob, &mut source, &options).unwrap();
    assert!(source.bytes() < bytes.len() as u64);
    let layer = staged.insert(None, &LayerOptions::default()).unwrap();
    assert!(exported(&empty, &layer) == tar);
    assert_whole(&empty);
    assert_whole(&store);
}

#[test]
fn a_file_that_is_damaged_here_is_fetched() {
    let dir = Dir::new("chunked-damaged");
    let store = open(&dir);
    let tar = crate::support::tar::archive(&members());
    let (bytes, blob) = blob_of(&dir, &tar);
    store.put_layer(None, &LayerOptions::default(), &*tar).unwrap();
    let diffs: Vec<_> = std::fs::read_dir(dir.root().join("diffs")).unwrap().collect();
    let [Ok(diff)] = &diffs[..] else { panic!("{diffs:?}") };
    let large = diff.path().join("large");
    let mut content = std::fs::read(&large).unwrap();
    content[5] ^= 1;
    std::fs::write(&large, content).unwrap();
    let mut source = Memory::new(&bytes);
    let mut options = ApplyOptions::default();
    options.diff_id = Some(DiffId(Digest::sha256(&tar)));
    store.stage_chunked(&blob, &mut source, &options).unwrap();
    assert!((900_000..910_000).contains(&source.bytes()), "{}", source.bytes());
}

#[test]
fn a_source_that_fails_leaves_nothing() {
    let dir = Dir::new("chunked-source");
    let store = open(&dir);
    let tar = crate::support::tar::archive(&members());
    let (bytes, blob) = blob_of(&dir, &tar);
    let entries = || {
        let names = ["diffs", "blobs", "work", "trash", "locks"];
        names.map(|name| std::fs::read_dir(dir.root().join(name)).map_or(0, Iterator::count))
    };
    let before = entries();
    let stage = |source: &mut Memory<'_>, blob: &ChunkedBlob| {
        let staged = store.stage_chunked(blob, source, &ApplyOptions::default()).map(drop);
        assert_eq!(entries(), before);
        staged.map_err(|error| match error {
            Error::Import(ImportError::Chunked(error)) => error,
            other => panic!("{other:?}"),
        })
    };
    stage(&mut Memory::new(&bytes), &blob).unwrap();
    for call in [1, 2] {
        let error = stage(&mut Memory { fails: Some(call), ..Memory::new(&bytes) }, &blob).unwrap_err();
        assert!(
            matches!(&error, ChunkedError::Source { source, .. } if source.to_string().contains("network")),
            "{error:?}"
        );
    }
    for short in [0, 1, 100_000] {
        let error = stage(&mut Memory { short: Some(short), ..Memory::new(&bytes) }, &blob).unwrap_err();
        let ends = |source: &io::Error| source.kind() == io::ErrorKind::UnexpectedEof;
        assert!(matches!(&error, ChunkedError::Source { source, .. } if ends(source)), "{short}: {error:?}");
    }
    // One wrong byte anywhere is noticed, or is in none of the parts that are used.
    let mut noticed = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x20;
        match stage(&mut Memory::new(&wrong), &blob) {
            Ok(()) => {}
            Err(ChunkedError::Chunk { .. } | ChunkedError::Digest { .. }) => noticed += 1,
            Err(other) => panic!("{at}: {other:?}"),
        }
    }
    assert!(noticed > 50, "{noticed}");

    // A table that says something else than the tar-split.
    let lies: [fn(&mut Value); 3] = [
        |table| table["entries"][1]["mode"] = 0o755.into(),
        |table| table["entries"][1]["name"] = "etc/other".into(),
        |table| table["entries"][2]["name"] = "etc/other".into(),
    ];
    for lie in lies {
        let (lying, place) = with_table(&bytes, &blob, lie);
        let error = stage(&mut Memory::new(&lying), &place).unwrap_err();
        assert!(
            matches!(&error, ChunkedError::Disagrees { entry, .. } if entry.starts_with("etc/")),
            "{error:?}"
        );
    }
    // Without a tar-split, or with one that nobody vouches for.
    let (bare, place) = with_table(&bytes, &blob, |table| table["tarSplitDigest"] = "".into());
    assert!(matches!(stage(&mut Memory::new(&bare), &place), Err(ChunkedError::NoSplit)));
    let mut place = blob.clone();
    place.tar_split = None;
    assert!(matches!(stage(&mut Memory::new(&bytes), &place), Err(ChunkedError::NoSplit)));
    let mut options = ApplyOptions::default();
    options.diff_id = Some(DiffId(Digest::sha256(b"other")));
    let error = store.stage_chunked(&blob, &mut Memory::new(&bytes), &options).map(drop).unwrap_err();
    assert!(matches!(error, Error::Import(ImportError::DiffId { .. })), "{error:?}");
    assert_eq!(entries(), before);
    assert_whole(&store);
}

#[test]
fn a_layer_without_members_is_written_and_fetched() {
    let dir = Dir::new("chunked-empty");
    let store = open(&dir);
    let mut empty = ApplyOptions::default();
    empty.allow_empty = true;
    for tar in [&[][..], &[0; 1024]] {
        let layer = store.stage_diff(tar, &empty).unwrap();
        let layer = layer.insert(None, &LayerOptions::default()).unwrap();
        let mut bytes = Vec::new();
        let form = DiffOptions::default().compression(Form::ZstdChunked);
        let blob = store.diff_with(&layer, &form, &mut bytes).unwrap().unwrap();
        let staged = store.stage_chunked(&blob, &mut Memory::new(&bytes), &ApplyOptions::default()).unwrap();
        let fetched = staged.insert(None, &LayerOptions::default()).unwrap();
        assert!(exported(&store, &fetched) == tar);
        let mut whole = ApplyOptions::default();
        whole.chunked = Some(blob.clone());
        let staged = store.stage_diff(&*bytes, &whole).unwrap();
        let put = staged.insert(None, &LayerOptions::default()).unwrap();
        assert_eq!(put.toc_digest, Some(blob.toc_digest));
        assert!(exported(&store, &put) == tar);
    }
    assert_whole(&store);
}

#[test]
fn a_layer_without_room_is_refused_before_its_files_are_fetched() {
    let dir = Dir::new("chunked-space");
    let tar = crate::support::tar::archive(&[Member::file("a", "content")]);
    let (bytes, blob) = blob_of(&dir, &tar);
    let (bytes, blob) = with_table(&bytes, &blob, |table| table["entries"][0]["size"] = (1u64 << 60).into());
    let mut source = Memory::new(&bytes);
    let error = open(&dir).stage_chunked(&blob, &mut source, &ApplyOptions::default()).map(drop).unwrap_err();
    assert_eq!((error.limit().map(|found| found.limit), source.calls), (Some(Limit::UnpackedBytes), 1));

    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).limits(Limits::NONE);
    let store = Store::open(&options).unwrap();
    let mut source = Memory::new(&bytes);
    match store.stage_chunked(&blob, &mut source, &ApplyOptions::default()).map(drop).unwrap_err() {
        Error::Import(ImportError::NoSpace { needed, .. }) => {
            assert_eq!((needed, source.calls), (1 << 60, 1));
        }
        Error::Import(ImportError::Chunked(ChunkedError::Disagrees { .. })) => {
            skip!("the filesystem may compress, so anything may fit");
        }
        other => panic!("{other:?}"),
    }
}
