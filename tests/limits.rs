//! Limits: what meets one exactly comes in, what goes beyond it by one is refused by its name and leaves nothing.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;

use layerstore::oci::{LoadOptions, Source};
use layerstore::{
    AdditionalLayerStore, ApplyOptions, ChunkedBlob, Compression, DiffOptions, Digest, Error, LayerOptions,
    Limit, Limits, RangeSource, Store, StoreOptions, SyncMode,
};
use serde_json::{Value, json};

use crate::support::Dir;
use crate::support::compressed::packed;
use crate::support::oci::{self, Image, Layer, blob_path};
use crate::support::store::{assert_whole, exported};
use crate::support::tar::{Member, archive, pax_record};

/// The store of a directory, with these limits.
fn open(dir: &Dir, limits: Limits) -> Store {
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    Store::open(&options.limits(limits)).unwrap()
}

/// What is in the directories of the store.
fn entries(dir: &Dir) -> [usize; 4] {
    ["diffs", "blobs", "work", "trash"]
        .map(|name| std::fs::read_dir(dir.root().join(name)).map_or(0, Iterator::count))
}

type Bring<'a> = Box<dyn Fn(&Store) -> Result<(), Error> + 'a>;

/// Something comes in that has `value` of what is limited.
struct Case<'a> {
    limit: Limit,
    value: u64,
    /// The limits beside the one that is met.
    others: Limits,
    bring: Bring<'a>,
    /// The limit that is told, if it is another one.
    told: Limit,
}

impl<'a> Case<'a> {
    fn new(limit: Limit, value: u64, bring: impl Fn(&Store) -> Result<(), Error> + 'a) -> Self {
        Case { limit, value, others: Limits::default(), bring: Box::new(bring), told: limit }
    }

    /// A layer of these bytes.
    fn layer(limit: Limit, value: u64, blob: Vec<u8>) -> Self {
        Case::new(limit, value, move |store| {
            store.put_layer(None, &LayerOptions::default(), &blob[..]).map(drop)
        })
    }

    /// The same, without anything for which the expansion does not count.
    fn without_floor(mut self) -> Self {
        (self.others.expansion_floor, self.others.hole_bytes) = (0, 0);
        self
    }

    /// Brings it in with a limit that is met, and with one less.
    #[track_caller]
    fn check(self, prepare: &dyn Fn(&Store)) {
        let Case { limit, value, mut others, bring, told } = self;
        for (granted, passes) in [(value, true), (value - 1, false)] {
            let dir = Dir::new("limit");
            others.set(limit, granted).unwrap();
            let store = open(&dir, others);
            prepare(&open(&dir, Limits::default()));
            let before = (store.layers().unwrap().len(), store.images().unwrap().len(), entries(&dir));
            let brought = bring(&store);
            assert_whole(&store);
            match brought {
                Ok(()) => assert!(passes, "{limit}: {value} came in where {granted} are granted"),
                Err(error) if passes => panic!("{limit}: {value} was refused: {error:?}"),
                Err(error) => {
                    let found = error.limit().unwrap_or_else(|| panic!("{limit}: {error:?}"));
                    assert_eq!((found.limit, found.value), (told, others.get(told)), "{error}");
                    assert!(found.found.is_none_or(|met| met > found.value), "{found:?}");
                    assert!(found.to_string().contains(told.name()), "{found}");
                    let option = format!("--limit {told}=");
                    assert!(error.hint().is_some_and(|hint| hint.contains(&option)), "{error}");
                    let after = (store.layers().unwrap().len(), store.images().unwrap().len(), entries(&dir));
                    assert_eq!(after, before, "{limit}: something was left");
                }
            }
        }
    }
}

/// Checks cases that begin with an empty store.
fn check(cases: impl IntoIterator<Item = Case<'static>>) {
    cases.into_iter().for_each(|case| case.check(&|_| {}));
}

#[test]
fn archives_are_limited() {
    let three = archive(&[Member::file("a", ""), Member::file("b", ""), Member::file("c", "")]);
    let paths = archive(&[Member::file("p".repeat(70), ""), Member::symlink("link", "t".repeat(60))]);
    let link = archive(&[Member::file("p", ""), Member::symlink("link", "t".repeat(70))]);
    let value = vec![b'v'; 1000];
    let xattrs = archive(&[
        Member::file("a", "").xattr("user.a", &value),
        Member::file("b", "").xattr("user.b", &value[..500]),
    ]);
    let mut record = Vec::new();
    pax_record(&mut record, b"SCHILY.xattr.user.a", &value);
    let sparse = archive(&[Member::file("s", vec![1; 1024])
        .pax("GNU.sparse.size", "4096")
        .pax("GNU.sparse.name", "s")
        .pax("GNU.sparse.map", "0,512,1024,512")]);
    check([
        Case::layer(Limit::Entries, 3, three),
        Case::layer(Limit::PathBytes, 70, paths.clone()),
        Case::layer(Limit::PathBytes, 70, link),
        Case::layer(Limit::AllPathBytes, 134, paths),
        Case::layer(Limit::PaxBytes, record.len() as u64, xattrs.clone()),
        Case::layer(Limit::XattrBytes, 1006, xattrs.clone()),
        Case::layer(Limit::AllXattrBytes, 1512, xattrs),
        // However short, one takes memory for itself.
        Case::layer(
            Limit::AllXattrBytes,
            3 * 64,
            archive(&[Member::file("a", "")
                .xattr("user.a", b"0")
                .xattr("user.b", b"1")
                .xattr("user.c", b"2")]),
        ),
        Case::layer(Limit::SparseExtents, 2, sparse.clone()),
        Case::layer(Limit::HoleBytes, 3072, sparse),
        // Two directories have no members.
        Case::layer(Limit::Entries, 3, archive(&[Member::file("a/b/c", "x")])),
        Case::layer(Limit::AllPathBytes, 1 + 3 + 5, archive(&[Member::file("a/b/c", "x")])),
        // `a`, and `a` with a name that is longer than what each counts for at least.
        Case::layer(
            Limit::ImpliedPathBytes,
            32 + 32 + 50,
            archive(&[Member::file(format!("a/{}/c", "b".repeat(50)), "x")]),
        ),
    ]);
}

#[test]
fn what_blobs_decompress_to_is_limited() {
    let zeros = archive(&[Member::file("zeros", vec![0; 1 << 20])]);
    // End blocks can be followed by any number of zeros.
    let padded = [archive(&[]), vec![0; 1 << 20]].concat();
    for tar in [zeros, padded] {
        let length = tar.len() as u64;
        check([Case::layer(Limit::UnpackedBytes, length, tar.clone())]);
        for compression in [Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz] {
            let blob = packed(compression, &tar);
            let times = length.div_ceil(blob.len() as u64);
            let mut floor = Case::layer(Limit::ExpansionFloor, length, blob.clone());
            (floor.told, floor.others.expansion, floor.others.hole_bytes) = (Limit::Expansion, 1, 0);
            check([
                Case::layer(Limit::UnpackedBytes, length, blob.clone()),
                Case::layer(Limit::Expansion, times, blob).without_floor(),
                floor,
            ]);
        }
    }
}

#[test]
fn windows_are_limited() {
    let tar = archive(&[Member::file("f", vec![7; 3 << 20])]);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(20).unwrap();
    encoder.write_all(&tar).unwrap();
    check([Case::layer(Limit::WindowBytes, 1 << 20, encoder.finish().unwrap())]);
}

/// With the limits that there are unless somebody says otherwise, after its first gigabyte. It is padding, so that nothing is
/// written to the disk; only zeros can be that, and they count from the first on here.
#[test]
fn a_bomb_ends_soon() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&archive(&[])).unwrap();
    io::copy(&mut io::repeat(0).take(1 << 30), &mut encoder).unwrap();
    let bomb = encoder.finish().unwrap();
    let dir = Dir::new("limits-bomb");
    let store = open(&dir, Limits::default().with("hole_bytes", 0).unwrap());
    let error = store.put_layer(None, &LayerOptions::default(), &bomb[..]).unwrap_err();
    assert_eq!(error.limit().unwrap().limit, Limit::Expansion, "{error:?}");
    assert_eq!(entries(&dir), [0; 4]);
}

/// Such as the disk of a virtual machine in a layer of its own.
#[test]
fn a_layer_may_begin_with_zeros() {
    let disk = [vec![0; 4 << 20], b"a boot loader, somewhere".to_vec()].concat();
    let layer = packed(Compression::Zstd, &archive(&[Member::file("disk.img", disk)]));
    let put = |hole_bytes| {
        let dir = Dir::new("limits-zeros");
        let mut limits = Limits::default();
        (limits.expansion_floor, limits.hole_bytes) = (1 << 20, hole_bytes);
        open(&dir, limits).put_layer(None, &LayerOptions::default(), &layer[..]).map(drop)
    };
    put(4 << 20).unwrap();
    assert_eq!(put(1 << 20).unwrap_err().limit().unwrap().limit, Limit::Expansion);
}

#[test]
fn an_error_names_the_blob_or_the_file() {
    let dir = Dir::new("limits-names");
    let store = open(&dir, Limits::default().with("unpacked_bytes", 1000).unwrap());
    let subject = |error: Error| error.limit().unwrap_or_else(|| panic!("{error:?}")).subject.clone();
    let tar = archive(&[Member::file("f", "f")]);
    let mut options = LayerOptions::default();
    options.apply.name = Some("rootfs.tar".to_owned());
    assert_eq!(subject(store.put_layer(None, &options, &tar[..]).unwrap_err()), "rootfs.tar");
    options.apply = ApplyOptions::default();
    options.apply.blob_digest = Some(Digest::sha256(&tar));
    let found = subject(store.put_layer(None, &options, &tar[..]).unwrap_err());
    assert_eq!(found, Digest::sha256(&tar).to_string());
    let peeked = layerstore::peek_archive_within(
        &tar[..],
        "rootfs.tar",
        &Limits::default().with("unpacked_bytes", 0).unwrap(),
    );
    assert_eq!(subject(peeked.map(drop).unwrap_err().into()), "rootfs.tar");
    let image = Image::new([Layer::new([Member::file("f", "f")])]).write(dir.join("image"), "1");
    let manifest = std::fs::read(blob_path(&image.layout, &image.manifest_digest)).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(subject(load(&store, &image.reference()).unwrap_err()), manifest["layers"][0]["digest"]);
    let path = dir.write("image.tar.gz", packed(Compression::Gzip, &tar));
    let error = load(&store, &format!("oci-archive:{}:1", path.display())).unwrap_err();
    assert_eq!(subject(error), path.display().to_string());
}

/// Loads what a reference names.
fn load(store: &Store, reference: &str) -> Result<(), Error> {
    let source = Source::open_within(&reference.parse()?, store.root(), store.options().granted())?;
    store.load(&source, &LoadOptions::named("it")).map(drop)
}

/// Puts an index above the one that the layout has, as often as that.
fn nest(layout: &Path, times: usize) {
    let path = layout.join("index.json");
    for _ in 0..times {
        let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let annotations = index["manifests"][0]["annotations"].take();
        index["manifests"][0].as_object_mut().unwrap().remove("annotations");
        let bytes = serde_json::to_vec(&index).unwrap();
        let digest = oci::digest(&bytes);
        std::fs::write(blob_path(layout, &digest), &bytes).unwrap();
        let descriptor = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest,
            "size": bytes.len(), "annotations": annotations });
        index["manifests"] = json!([descriptor]);
        std::fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
    }
}

/// The members of a layout as an archive.
fn archive_of(layout: &Path) -> Vec<Member> {
    let mut members = vec![Member::directory("blobs"), Member::directory("blobs/sha256")];
    for name in ["oci-layout", "index.json"] {
        members.push(Member::file(name, std::fs::read(layout.join(name)).unwrap()));
    }
    for blob in std::fs::read_dir(layout.join("blobs/sha256")).unwrap().map(Result::unwrap) {
        let name = format!("blobs/sha256/{}", blob.file_name().to_str().unwrap());
        members.push(Member::file(name, std::fs::read(blob.path()).unwrap()));
    }
    members
}

/// An archive in the form of `docker save` whose image has three names, and one layer three times.
fn docker_archive() -> Vec<Member> {
    let layer = archive(&[Member::file("f", "f")]);
    let diff_ids = [oci::digest(&layer), oci::digest(&layer), oci::digest(&layer)];
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs }).to_string();
    let (names, layers) = (["a:1", "a:2", "a:3"], ["layer.tar"; 3]);
    let list = json!([{ "Config": "config.json", "RepoTags": names, "Layers": layers }]);
    vec![
        Member::file("manifest.json", list.to_string()),
        Member::file("config.json", config),
        Member::file("layer.tar", layer),
    ]
}

/// The parts of an image may not be more together than one of them may be.
#[test]
fn all_layers_of_an_image_have_one_budget() {
    let dir = Dir::new("limits-whole-images");
    let tar = |name: &str| archive(&[Member::file(name, name)]);
    let length = tar("a").len() as u64;
    let plain = |name| Layer::from_tar(tar(name)).compression(oci::Compression::None);
    let image = Image::new(["a", "b", "c"].map(plain)).write(dir.join("plain"), "1");
    let sparse = |name: &str| {
        Layer::new([Member::file(name, vec![1; 512])
            .pax("GNU.sparse.size", "4096")
            .pax("GNU.sparse.name", name)
            .pax("GNU.sparse.map", "0,512")])
    };
    let holes = Image::new(["a", "b", "c"].map(sparse)).write(dir.join("sparse"), "1");
    let of = |limit, value, image: &oci::WrittenImage| {
        let reference = image.reference();
        Case::new(limit, value, move |store| load(store, &reference))
    };
    let packed = ["a", "b", "c"].map(|name| {
        let layer = tar(name);
        let blob = packed(Compression::Zstd, &layer);
        let beyond = length - blob.len() as u64;
        (Layer::from_tar(layer).compression(oci::Compression::Zstd).packed(blob), beyond)
    });
    // What each is larger than its blob; they all have to be small enough by themselves.
    let beyond = packed.iter().map(|(_, beyond)| beyond).sum();
    let packed = Image::new(packed.map(|(layer, _)| layer)).write(dir.join("packed"), "1");
    let mut floor = of(Limit::ExpansionFloor, beyond, &packed);
    (floor.told, floor.others.expansion) = (Limit::Expansion, 1);
    check([
        of(Limit::UnpackedBytes, 3 * length, &image),
        of(Limit::HoleBytes, 3 * (4096 - 512), &holes),
        floor,
    ]);
    let attributed = |name: &str| {
        let link = Member::symlink(format!("{name}-link"), "to");
        Layer::new([Member::file(name, "").xattr("user.long", [1; 100]).xattr("user.s", b"1"), link])
    };
    let counted = Image::new(["a", "b", "c"].map(attributed)).write(dir.join("counted"), "1");
    check([
        of(Limit::Entries, 3 * 2, &counted),
        of(Limit::AllPathBytes, 3 * (1 + 6 + 2), &counted),
        of(Limit::AllXattrBytes, 3 * (109 + 64), &counted),
    ]);
    // What a layer has because of another: xattrs of a directory that it only implies, and the first name of a file, which may be
    // a longer one than its links lead to.
    let directory = Member::directory("d").xattr("user.long", [1; 100]);
    let implied = Image::new([Layer::new([directory]), Layer::new([Member::file("d/f", "")])]);
    let implied = implied.write(dir.join("implied"), "1");
    check([of(Limit::AllXattrBytes, 2 * 109, &implied), of(Limit::Entries, 3, &implied)]);
    let long = "a".repeat(100);
    let links = [Member::file("z", "z"), Member::hard_link(&*long, "z"), Member::hard_link("b", "z")];
    let links = Image::new([Layer::new(links)]).write(dir.join("links"), "1");
    // Three names with what they lead to, and in the manifest those of `b` and `z` once more.
    check([of(Limit::AllPathBytes, (1 + 101 + 2) + 200, &links)]);
    // The same layer again is not unpacked again.
    let again = Image::new(["a"; 40].map(plain)).write(dir.join("again"), "1");
    check([of(Limit::UnpackedBytes, length, &again)]);
}

#[test]
fn documents_and_image_archives_are_limited() {
    let dir = Dir::new("limits-images");
    // A layer that is compressed would expand, too.
    let layer = || Layer::new([Member::file("f", "f")]).compression(oci::Compression::None);
    let image = Image::new([layer()]).write(dir.join("plain"), "1");
    let [manifest, config] =
        [&image.manifest_digest, &image.config_digest].map(|digest| blob_path(&image.layout, digest));
    let documents = [manifest, config, image.layout.join("index.json")];
    let largest = documents.iter().map(|path| path.metadata().unwrap().len()).max().unwrap();
    let nested = Image::new([layer()]).write(dir.join("nested"), "1");
    nest(&nested.layout, 2);
    let members = archive_of(&image.layout);
    let tar = archive(&members);
    let plain = dir.write("image.tar", &tar);
    let gzip = dir.write("image.tar.gz", packed(Compression::Gzip, &tar));
    let mut listed = tar::Archive::new(&tar[..]);
    let paths: usize = listed.entries().unwrap().map(|entry| entry.unwrap().path_bytes().len()).sum();
    let several = Image::new((0..3).map(|_| layer())).write(dir.join("several"), "1");
    let several_in_tar = dir.write("several.tar", archive(&archive_of(&several.layout)));
    let docker = dir.write("docker.tar", archive(&docker_archive()));
    let of = |limit, value, reference: String| Case::new(limit, value, move |store| load(store, &reference));
    check([
        of(Limit::ManifestBytes, largest, image.reference()),
        of(Limit::Layers, 3, several.reference()),
        of(Limit::Layers, 3, format!("oci-archive:{}:1", several_in_tar.display())),
        of(Limit::Layers, 3, format!("docker-archive:{}", docker.display())),
        of(Limit::IndexDepth, 2, nested.reference()),
        of(Limit::Indexes, 2, nested.reference()),
        of(Limit::IndexEntries, 3, nested.reference()),
        of(Limit::ArchiveMembers, members.len() as u64, format!("oci-archive:{}:1", plain.display())),
        of(Limit::ArchivePathBytes, paths as u64, format!("oci-archive:{}:1", plain.display())),
        of(Limit::Names, 3, format!("docker-archive:{}", docker.display())),
        of(Limit::UnpackedBytes, tar.len() as u64, format!("oci-archive:{}:1", gzip.display())),
        of(
            Limit::Expansion,
            (tar.len() as u64).div_ceil(gzip.metadata().unwrap().len()),
            format!("oci-archive:{}:1", gzip.display()),
        )
        .without_floor(),
    ]);
}

/// A blob in memory.
struct Memory<'b>(&'b [u8]);

impl RangeSource for Memory<'_> {
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> io::Result<Box<dyn Read + Send + '_>> {
        let at = |offset: u64| usize::try_from(offset).unwrap();
        let parts = ranges.iter().map(|range| &self.0[at(range.start)..at(range.end)]);
        Ok(Box::new(io::Cursor::new(parts.collect::<Vec<_>>().concat())))
    }
}

/// A blob with a table of contents, and where that is.
fn chunked(dir: &Dir, members: &[Member]) -> (Vec<u8>, ChunkedBlob) {
    let store = Store::open(&StoreOptions::at(dir.join("maker")).run_root(dir.join("maker-run"))).unwrap();
    let layer = store.put_layer(None, &LayerOptions::default(), &archive(members)[..]).unwrap();
    let mut blob = Vec::new();
    let options = DiffOptions::default().compression(Compression::ZstdChunked);
    let place = store.diff_with(&layer, &options, &mut blob).unwrap().unwrap();
    (blob, place)
}

#[test]
fn tables_of_contents_are_limited() {
    let dir = Dir::new("limits-chunked");
    let here: Vec<u8> = (0..20_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let members = [
        Member::file("a", &here),
        Member::file("b", &here),
        Member::file("c", &here),
        Member::file("new", vec![7; 300_000]),
    ];
    let (blob, place) = chunked(&dir, &members);
    let spans = [place.toc, place.tar_split.unwrap()];
    let longest = spans.iter().map(|span| span.length.max(span.unpacked)).max().unwrap();
    let [from, to] = [place.toc.offset, place.toc.end()].map(|at| usize::try_from(at).unwrap());
    let table: Value = serde_json::from_slice(&zstd::stream::decode_all(&blob[from..to]).unwrap()).unwrap();
    let count = table["entries"].as_array().unwrap().len() as u64;
    let unpacked = archive(&members).len() as u64;
    let (blob, place) = (&blob, &place);
    let stage = |limit, value| {
        Case::new(limit, value, move |store: &Store| {
            let staged = store.stage_chunked(place, &mut Memory(blob), &ApplyOptions::default())?;
            let layer = staged.insert(None, &LayerOptions::named("new"))?;
            assert_eq!(exported(store, &layer).len() as u64, unpacked);
            Ok(())
        })
    };
    let has_one = |store: &Store| {
        let one = archive(&[Member::file("elsewhere", &here)]);
        store.put_layer(None, &LayerOptions::default(), &one[..]).unwrap();
    };
    stage(Limit::TocBytes, longest).check(&has_one);
    stage(Limit::TocEntries, count).check(&has_one);
    stage(Limit::CopiedBytes, 2 * here.len() as u64).check(&has_one);
    stage(Limit::UnpackedBytes, unpacked).check(&has_one);
    stage(Limit::Entries, 4).check(&has_one);
}

#[test]
fn what_is_said_of_an_additional_layer_is_limited() {
    let dir = Dir::new("limits-additional");
    let toc = Digest::sha256(b"a table of contents");
    let layer = dir.create_dir(format!("served/{toc}"));
    std::fs::create_dir(layer.join("diff")).unwrap();
    std::fs::write(layer.join("blob"), "").unwrap();
    let info = json!({ "toc-digest": toc.to_string() }).to_string();
    std::fs::write(layer.join("info"), &info).unwrap();
    let length = info.len() as u64;
    for (granted, passes) in [(length, true), (length - 1, false)] {
        let limits = Limits::default().with("layer_info_bytes", granted).unwrap();
        let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).limits(limits);
        let options = options.additional_layer_store(AdditionalLayerStore::at(dir.join("served")));
        match Store::open(&options).unwrap().lookup_additional_layer(&toc, "web:1") {
            Ok(found) => assert!(passes && found.is_some(), "{granted}"),
            Err(error) => {
                assert_eq!(error.limit().unwrap().limit, Limit::LayerInfoBytes, "{error:?}");
                assert!(!passes, "{error:?}");
            }
        }
    }
}

/// docs/cli.md tells each limit with its default.
#[test]
fn the_page_has_every_limit() {
    let page = std::fs::read_to_string(crate::support::machine::repository().join("docs/cli.md")).unwrap();
    for limit in Limit::ALL {
        let default = shown(*limit, Limits::DEFAULT.get(*limit));
        let row = format!("| `{limit}` | {default} |");
        assert!(page.contains(&row), "docs/cli.md has no row {row}");
    }
}

/// A limit that nothing meets here could be compared with too much, too late, or not at all.
#[test]
fn every_limit_is_met() {
    // An additional layer store is told to the store when it is opened, so it has a test instead of a case.
    let of_a_test = [Limit::LayerInfoBytes];
    let source: String = include_str!("limits.rs").split_whitespace().collect();
    for limit in Limit::ALL.iter().filter(|limit| !of_a_test.contains(limit)) {
        let begins =
            ["Case::layer", "Case::new", "of", "stage"].map(|name| format!("{name}(Limit::{limit:?},"));
        assert!(begins.iter().any(|begin| source.contains(begin)), "nothing meets the limit {limit}");
    }
}

/// A default as people write it.
fn shown(limit: Limit, value: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(power, _)| limit.is_bytes() && value.is_multiple_of(1 << power));
    unit.map_or_else(|| value.to_string(), |(power, unit)| format!("{} {unit}", value >> power))
}
