//! What is loaded comes out as it went in: layers of any tar, in any compression, with any documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use layerstore::oci::{LoadOptions, Reference, SaveOptions, SavedImage, Source, Transport};
use layerstore::{Image, Store, StoreOptions, SyncMode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::Dir;
use crate::support::oci::{self, Compression, Layer, ReadImage, WrittenImage, blob_path};
use crate::support::tar::{Member, archive_without_end};

/// The directories of made-up layers; they are never anything else.
const DIRECTORIES: [&[u8]; 4] = [b"", b"d/", b"d/sub/", b"\xff\xfe/"];
/// The names in them; they are anything but directories that others lie in.
const LEAVES: [&[u8]; 6] = [b"a", b"b", b"\xe9\x80", b"line\nbreak", b".hidden", b"wh."];

/// What one member of a made-up layer is.
#[derive(Clone, Debug)]
enum What {
    File(Vec<u8>),
    /// A hole, then these bytes, then a hole.
    Sparse(u16, Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
    /// To one of the files before it, counted backwards.
    HardLink(usize),
    Fifo,
    Whiteout,
    /// The directory that it would lie in is made opaque.
    Opaque,
}

#[derive(Clone, Debug)]
struct Made {
    directory: usize,
    leaf: usize,
    what: What,
    mode: u32,
    mtime: (i64, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// How the stream ends.
#[derive(Clone, Debug)]
enum End {
    /// Two blocks of zeros.
    Blocks,
    /// Two blocks of zeros and anything.
    Junk(Vec<u8>),
    /// With the last padding.
    Padding,
    /// With the last content.
    Content,
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => bytes(2000).prop_map(What::File),
        1 => (1..9000u16, prop::collection::vec(any::<u8>(), 1..700)).prop_map(|(at, data)| What::Sparse(at, data)),
        2 => Just(What::Directory),
        2 => prop::collection::vec(1..=255u8, 1..200).prop_map(What::Symlink),
        2 => (0..4usize).prop_map(What::HardLink),
        1 => Just(What::Fifo),
        2 => Just(What::Whiteout),
        1 => Just(What::Opaque),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let xattrs = prop::collection::btree_map("user\\.[a-z]{1,8}", bytes(40), 0..3);
    let mtime = (-1_000_000_000..5_000_000_000i64, 0..1_000_000_000u32);
    (0..DIRECTORIES.len(), 0..LEAVES.len(), what(), 0..0o10000u32, mtime, xattrs).prop_map(
        |(directory, leaf, what, mode, mtime, xattrs)| Made { directory, leaf, what, mode, mtime, xattrs },
    )
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Blocks), bytes(1500).prop_map(End::Junk), Just(End::Padding), Just(End::Content)]
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Gzip), Just(Compression::Zstd)]
}

fn layer() -> impl Strategy<Value = Layer> {
    (prop::collection::vec(made(), 1..14), end(), compression())
        .prop_map(|(made, end, compression)| Layer::from_tar(tar(&made, &end)).compression(compression))
}

fn tar(made: &[Made], end: &End) -> Vec<u8> {
    let mut members = Vec::new();
    // The names that are files as the archive stands; a hard link needs one.
    let mut files: BTreeSet<Vec<u8>> = BTreeSet::new();
    for one in made {
        let path = [DIRECTORIES[one.directory], LEAVES[one.leaf]].concat();
        if let Some(member) = member(one, &path, &files) {
            match one.what {
                What::Opaque => files.clear(),
                What::File(_) | What::HardLink(_) => drop(files.insert(path)),
                _ => drop(files.remove(&path)),
            }
            members.push(member);
        }
    }
    let mut tar = archive_without_end(&members);
    match end {
        End::Blocks => tar.resize(tar.len() + 1024, 0),
        End::Junk(junk) => {
            tar.resize(tar.len() + 1024, 0);
            tar.extend_from_slice(junk);
        }
        End::Padding => {}
        // What is left of the last block is padding, if there is content at all.
        End::Content => {
            let last = members.last().map_or(0, Member::content_length) % 512;
            if last > 0 {
                tar.truncate(tar.len() - (512 - last));
            }
        }
    }
    if tar.is_empty() { vec![0; 1024] } else { tar }
}

fn member(one: &Made, path: &[u8], files: &BTreeSet<Vec<u8>>) -> Option<Member> {
    let member = match &one.what {
        What::File(content) => Member::file(path, content),
        What::Sparse(at, data) => {
            let map = format!("{at},{}", data.len());
            let size = usize::from(*at) + data.len() + 100;
            Member::file(path, data)
                .pax("GNU.sparse.major", "0")
                .pax("GNU.sparse.minor", "1")
                .pax("GNU.sparse.name", path)
                .pax("GNU.sparse.size", size.to_string())
                .pax("GNU.sparse.map", map)
        }
        // A name of its own, so that nothing else takes its place.
        What::Directory => Member::directory([path, b".d"].concat()),
        What::Symlink(target) => return Some(Member::symlink(path, target).mtime(one.mtime.0, one.mtime.1)),
        What::HardLink(back) => {
            let target = files.iter().rev().filter(|target| *target != path).nth(*back)?;
            return Some(Member::hard_link(path, target));
        }
        What::Fifo => return Some(Member::fifo(path).mode(one.mode)),
        What::Whiteout => return Some(Member::whiteout(path)),
        What::Opaque => {
            let directory = DIRECTORIES[one.directory].strip_suffix(b"/")?;
            return Some(Member::opaque(directory));
        }
    };
    let member = member.mode(one.mode).mtime(one.mtime.0, one.mtime.1);
    Some(one.xattrs.iter().fold(member, |member, (name, value)| member.xattr(name, value)))
}

fn store(dir: &Dir, name: &str) -> StoreOptions {
    StoreOptions::at(dir.join(name)).run_root(dir.join(format!("{name}-run"))).sync(SyncMode::Off).reserve(0)
}

fn load(store: &Store, layout: &Path, tag: &str) -> Image {
    let reference = Reference::new(Transport::Layout, layout, Some(tag)).unwrap();
    let source = Source::open(&reference, store.root()).unwrap();
    store.load(&source, &LoadOptions::named(tag)).unwrap()
}

fn save(store: &Store, image: &Image, layout: &Path) -> SavedImage {
    let reference = Reference::new(Transport::Layout, layout, Some("saved")).unwrap();
    store.save(&image.id, &reference, &SaveOptions::default()).unwrap()
}

fn document(layout: &Path, digest: &str) -> Vec<u8> {
    std::fs::read(blob_path(layout, digest)).unwrap()
}

/// How many layers' directories the store has.
fn directories(store: &Store) -> usize {
    let entries = std::fs::read_dir(store.root().join("diffs")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
}

fn odd_config(config: &mut Value) {
    config["x-unknown"] = json!({ "deep": [1, 2.5, null, "\u{1f980}"], "z": 1, "a": 2 });
    config["config"]["x-unknown"] = json!("kept");
    config["history"] = json!([{ "created_by": "nobody", "x-unknown": true }]);
}

fn odd_manifest(manifest: &mut Value) {
    manifest["annotations"] = json!({ "org.example.z": "1", "org.example.a": "2" });
    manifest["x-unknown"] = json!([{ "kept": "yes" }]);
    manifest["layers"][0]["annotations"] = json!({ "org.example.layer": "bottom" });
    manifest["layers"][0]["x-unknown"] = json!(7);
}

fn check_saved(written: &WrittenImage, layout: &Path) -> ReadImage {
    let saved = ReadImage::open(layout, "saved");
    assert_eq!(saved.measured_diff_ids(), written.diff_ids);
    let config = document(layout, &written.config_digest);
    assert_eq!(config, document(&written.layout, &written.config_digest), "the config");
    assert_eq!(saved.manifest["config"]["digest"], *written.config_digest);
    assert_eq!(saved.manifest["x-unknown"], json!([{ "kept": "yes" }]));
    assert_eq!(saved.manifest["annotations"]["org.example.z"], "1");
    assert_eq!(saved.manifest["layers"][0]["annotations"]["org.example.layer"], "bottom");
    saved
}

fn goes_round(layers: Vec<Layer>) {
    let dir = Dir::new("roundtrip");
    let image = oci::Image::new(layers).config(odd_config).manifest(odd_manifest);
    let written = image.write(dir.join("written"), "image");
    let first = Store::open(&store(&dir, "first")).unwrap();
    let loaded = load(&first, &written.layout, "image");
    assert_eq!(format!("sha256:{}", loaded.id), written.config_digest);

    // With the blobs that came: the very manifest that came.
    let saved = save(&first, &loaded, &dir.join("kept"));
    assert!(saved.unchanged);
    assert_eq!(saved.manifest.to_string(), written.manifest_digest);
    let manifest = document(&dir.join("kept"), &written.manifest_digest);
    assert_eq!(manifest, document(&written.layout, &written.manifest_digest));
    check_saved(&written, &dir.join("kept"));

    // A second load changes nothing.
    let before = (first.images().unwrap(), first.layers().unwrap(), directories(&first));
    assert_eq!(load(&first, &written.layout, "image"), loaded);
    assert_eq!((first.images().unwrap(), first.layers().unwrap(), directories(&first)), before);

    // Without them: the same tars in other blobs.
    first.drop_blobs(None).unwrap();
    assert_eq!(std::fs::read_dir(first.root().join("blobs")).map_or(0, Iterator::count), 0);
    save(&first, &loaded, &dir.join("dropped"));
    check_saved(&written, &dir.join("dropped"));

    // What was saved without the blobs makes the same trees in a store that keeps none.
    let second = Store::open(&store(&dir, "second").keep_blobs(false)).unwrap();
    let again = load(&second, &dir.join("dropped"), "saved");
    let trees = |store: &Store, image: &Image| -> Vec<_> {
        let chain = store.layer_chain(image.top_layer.as_ref().unwrap()).unwrap();
        chain.into_iter().map(|layer| (layer.id, layer.diff_id, layer.tree)).collect()
    };
    assert_eq!(trees(&second, &again), trees(&first, &loaded));
    save(&second, &again, &dir.join("again"));
    check_saved(&written, &dir.join("again"));

    second.remove_image(&again.id).unwrap();
    assert_eq!((second.layers().unwrap().len(), directories(&second)), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_image_goes_round(layers in prop::collection::vec(layer(), 1..4)) {
        goes_round(layers);
    }
}

/// As `umoci insert` writes them: neither padding nor end blocks.
#[test]
fn a_layer_without_its_last_padding_goes_round() {
    let member = Member::file("file", [7; 700]);
    let mut tar = member.to_bytes();
    tar.truncate(512 + 700);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        goes_round(vec![Layer::from_tar(tar.clone()).compression(compression)]);
    }
}

#[test]
fn images_share_what_they_have_in_common() {
    let dir = Dir::new("sharing");
    let store = Store::open(&store(&dir, "store")).unwrap();
    let base = || Layer::new([Member::directory("d"), Member::file("d/base", b"base")]);
    let top = |content: &str| Layer::new([Member::directory("d"), Member::file("d/top", content)]);
    let layout = dir.join("layout");
    oci::Image::new([base(), top("one")]).write(&layout, "one");
    oci::Image::new([base(), top("two")]).write(&layout, "two");
    // The same tar in another compression, and another tar of the same tree.
    oci::Image::new([base().compression(Compression::Zstd), top("two")]).write(&layout, "two-zstd");
    let mut other = Member::directory("d").to_bytes();
    other.extend(Member::file("d/base", b"base").to_bytes());
    oci::Image::new([Layer::from_tar(other)]).write(&layout, "unended");

    let one = load(&store, &layout, "one");
    assert_eq!((store.layers().unwrap().len(), directories(&store)), (2, 2));
    let two = load(&store, &layout, "two");
    assert_eq!((store.layers().unwrap().len(), directories(&store)), (3, 3));
    let zstd = load(&store, &layout, "two-zstd");
    assert_eq!((zstd.id.clone(), zstd.top_layer.clone()), (two.id.clone(), two.top_layer.clone()));
    assert_eq!((store.layers().unwrap().len(), directories(&store)), (3, 3));
    let unended = load(&store, &layout, "unended");
    assert_eq!((store.layers().unwrap().len(), directories(&store)), (4, 3));

    // Each comes out as its own bytes, and goes without the others.
    for (image, tag) in [(&one, "one"), (&two, "two"), (&unended, "unended")] {
        let saved = dir.join(format!("saved-{tag}"));
        save(&store, image, &saved);
        let diff_ids = ReadImage::open(&layout, tag).diff_ids();
        assert_eq!(ReadImage::open(&saved, "saved").measured_diff_ids(), diff_ids);
    }
    store.remove_image(&one.id).unwrap();
    store.remove_image(&unended.id).unwrap();
    assert_eq!((store.layers().unwrap().len(), directories(&store)), (2, 2));
    save(&store, &two, &dir.join("left"));
    assert_eq!(ReadImage::open(dir.join("left"), "saved").measured_diff_ids().len(), 2);
}

#[test]
fn annotations_of_the_index_are_those_of_the_last_load() {
    let dir = Dir::new("annotations");
    let store = Store::open(&store(&dir, "store")).unwrap();
    oci::Image::new([Layer::new([Member::file("a", b"a")])]).write(dir.join("in"), "tag");
    let index_file = dir.join("in/index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&index_file).unwrap()).unwrap();
    let plain = index.clone();
    index["manifests"][0]["annotations"]["org.example.note"] = json!("kept");
    let note = |layout: &Path| {
        let index: Value =
            serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        index["manifests"][0]["annotations"]["org.example.note"].clone()
    };

    std::fs::write(&index_file, index.to_string()).unwrap();
    let image = load(&store, &dir.join("in"), "tag");
    save(&store, &image, &dir.join("with"));
    assert_eq!(note(&dir.join("with")), "kept");

    std::fs::write(&index_file, plain.to_string()).unwrap();
    let image = load(&store, &dir.join("in"), "tag");
    save(&store, &image, &dir.join("without"));
    assert_eq!(note(&dir.join("without")), Value::Null);
}
