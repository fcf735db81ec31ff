//! Indexes, manifests and configs that lie.

use serde_json::{Value, json};

use std::io::Write;

use layerstore::oci::{Reference, Selection};
use layerstore::{Limit, Limits, SyncMode};

use super::scene::{Scene, in_each_mode, in_each_mode_within};
use super::*;
use crate::support::oci::blob_path;
use crate::support::tar::archive;

/// Writes a good image, then changes its index.
fn with_index(place: &Place, change: impl Fn(&mut Value)) {
    let layout = place.layout();
    std::fs::remove_dir_all(&layout).ok();
    Image::new([place.base()]).write(&layout, TAG);
    let path = layout.join("index.json");
    let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    std::fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
}

#[test]
fn digests_that_are_paths_are_refused() {
    let place = Place::new();
    let bad = [
        "sha256:../../../victim/hello",
        "../../victim/hello",
        "sha256:/etc/passwd",
        "sha256:ABCDEF",
        "sha256:",
        "",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8555",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85\0",
        "sha384:38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b",
    ];
    for digest in bad {
        with_index(&place, |index| index["manifests"][0]["digest"] = digest.into());
        place.check(&format!("{digest:?} in the index"), Refused("index.json has a wrong value"));
    }
    let long = format!("sha256:{}", "0".repeat(1 << 20));
    with_index(&place, |index| index["manifests"][0]["digest"] = long.as_str().into());
    place.check("a megabyte in the index", Refused("index.json has a wrong value"));
    fn layer_digest(manifest: &mut Value) {
        manifest["layers"][0]["digest"] = "sha256:../../../victim/hello".into();
    }
    fn config_digest(manifest: &mut Value) {
        manifest["config"]["digest"] = "sha256:../../../victim/hello".into();
    }
    for change in [layer_digest, config_digest] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).manifest(change).write(place.layout(), TAG);
        place.check("in the manifest", Refused("victim/hello"));
    }
    std::fs::remove_dir_all(place.layout()).ok();
    let image = Image::new([place.base()]);
    image.config(|config| config["rootfs"]["diff_ids"] = json!(["sha256:../.."])).write(place.layout(), TAG);
    place.check("in the config", Refused("sha256:../.."));
}

#[test]
fn sizes_that_lie_are_refused() {
    let place = Place::new();
    for (size, text) in [
        (json!(-1), "with the size -1"),
        (json!(0), "its descriptor says 0"),
        (json!(1), "its descriptor says 1"),
        (json!(1.5), "with the size 1.5"),
        (json!("12"), "index.json is malformed"),
        (Value::Null, "with the size missing"),
        (json!(u64::MAX), "with the size 18446744073709551615"),
        (json!(1u64 << 62), "manifest_bytes"),
    ] {
        with_index(&place, |index| index["manifests"][0]["size"] = size.clone());
        place.check(&format!("size {size} in the index"), Refused(text));
    }
    fn negative(manifest: &mut Value) {
        manifest["layers"][0]["size"] = json!(-1);
    }
    fn missing(manifest: &mut Value) {
        manifest["layers"][0].as_object_mut().unwrap().remove("size");
    }
    fn huge(manifest: &mut Value) {
        manifest["layers"][0]["size"] = json!(i64::MAX);
    }
    fn config(manifest: &mut Value) {
        manifest["config"]["size"] = json!(1u64 << 40);
    }
    for (change, text) in [
        (negative as fn(&mut Value), "with the size -1"),
        (missing, "with the size missing"),
        (huge, "the image needs at least"),
        (config, "manifest_bytes"),
    ] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).manifest(change).write(place.layout(), TAG);
        place.check(&format!("size of a layer: {text}"), Refused(text));
    }
}

/// The specification: whoever unpacks an image of another type has to refuse it.
#[test]
fn files_that_are_given_otherwise_than_as_layers_are_refused() {
    let place = Place::new();
    let types: [(fn(&mut Value), _); 6] = [
        (|config| config["rootfs"]["type"] = json!("base+layers"), Refused("\"base+layers\"")),
        (|config| config["rootfs"]["type"] = json!("Layers"), Refused("\"Layers\"")),
        (|config| config["rootfs"]["type"] = json!(1), Refused("the type 1;")),
        (|config| config["rootfs"]["type"] = json!(["layers"]), Refused("the type [\"layers\"];")),
        // Who reads it into a struct sees no difference to one that is missing.
        (|config| config["rootfs"]["type"] = json!(""), Harmless),
        (|config| config["rootfs"]["type"] = json!(null), Harmless),
    ];
    for (index, (change, outcome)) in types.into_iter().enumerate() {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).config(change).write(place.layout(), TAG);
        place.check(&format!("type {index} of a root filesystem"), outcome);
    }
}

#[test]
fn layers_and_diff_ids_have_to_match() {
    let place = Place::new();
    fn none(config: &mut Value) {
        config["rootfs"]["diff_ids"] = json!([]);
    }
    fn many(config: &mut Value) {
        let one = config["rootfs"]["diff_ids"][0].clone();
        config["rootfs"]["diff_ids"] = json!([one, one, one]);
    }
    for change in [none, many] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).config(change).write(place.layout(), TAG);
        place.check("the number of diffIDs", Refused("diffIDs"));
    }
}

#[test]
fn indexes_without_end_are_refused() {
    let place = Place::new();
    // An index cannot hold its own digest; but many can be nested, and one can be named many times.
    with_index(&place, |index| {
        let mut inner = index["manifests"][0].clone();
        for _ in 0..10_000 {
            inner = write_index(&place, &json!([inner, inner]));
        }
        index["manifests"] = json!([inner]);
    });
    place.check("ten thousand deep", Refused("index_depth"));
    with_index(&place, |index| {
        // Of a size that the descriptor can say, under the digest that it names itself.
        let own = digest(b"an index that nobody can make");
        let size = write_index(&place, &json!([index_descriptor(&own, 100)]))["size"].clone();
        let inner = index_descriptor(&own, size.as_u64().unwrap());
        let written = write_index(&place, &json!([inner]));
        let blob = |digest: &Value| blob_path(&place.layout(), digest.as_str().unwrap());
        std::fs::rename(blob(&written["digest"]), blob(&inner["digest"])).unwrap();
        index["manifests"] = json!([inner]);
    });
    place.check("one that refers to itself", Refused("is corrupt"));
    with_index(&place, |index| {
        let one = index["manifests"][0].clone();
        index["manifests"] = Value::Array(vec![one; 20_000]);
    });
    place.check("twenty thousand wide", Refused("manifest_bytes"));
    with_index(&place, |index| {
        let mut one = index["manifests"][0].clone();
        one.as_object_mut().unwrap().remove("annotations");
        let inner = write_index(&place, &Value::Array(vec![one; 20_000]));
        index["manifests"] = json!([inner]);
    });
    place.check("twenty thousand wide, below", Refused("index_entries"));
    // All of them are right in themselves: it is their number that is refused, in one document and in many.
    let one = index_descriptor(&digest(b"one"), 100);
    std::fs::write(place.layout().join("index.json"), wide(&one, 1_000_000)).unwrap();
    place.check("a million wide", Refused("manifest_bytes"));
    with_index(&place, |index| {
        let mut one = index["manifests"][0].clone();
        one.as_object_mut().unwrap().remove("annotations");
        // So that no index is another one: each has one descriptor more than the one before.
        let inner = |number: usize| write_index_bytes(&place, &wide(&one, 10_000 + number));
        index["manifests"] = (0..100).map(inner).collect();
    });
    place.check("a million wide, in a hundred indexes", Refused("index_entries"));
    std::fs::write(place.layout().join("index.json"), wide(&json!({}), 1_000_000)).unwrap();
    place.check("a million of nothing", Refused("more than 262144 JSON values"));
    with_index(&place, |index| {
        let many: Vec<Value> =
            (0..100).map(|number| write_index(&place, &json!([{ "n": number }]))).collect();
        index["manifests"] = json!([write_index(&place, &json!(many))]);
    });
    place.check("a hundred indexes", Refused("is malformed"));
    with_index(&place, |index| index["manifests"] = json!([]));
    place.check("nothing", Refused("holds no image"));
    let deep = "[".repeat(200_000);
    std::fs::write(place.layout().join("index.json"), deep).unwrap();
    place.check("deep JSON", Refused("index.json is malformed"));
    std::fs::write(place.layout().join("index.json"), vec![b' '; 64 << 20]).unwrap();
    place.check("a large index", Refused("index.json"));
}

/// Writes an index of these, and gives its descriptor.
fn write_index(place: &Place, manifests: &Value) -> Value {
    let document = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    write_index_bytes(place, &serde_json::to_vec(&document).unwrap())
}

fn write_index_bytes(place: &Place, bytes: &[u8]) -> Value {
    std::fs::write(blob_path(&place.layout(), &digest(bytes)), bytes).unwrap();
    index_descriptor(&digest(bytes), bytes.len() as u64)
}

/// An index of the same again and again, which no tree of values is made for.
fn wide(one: &Value, count: usize) -> Vec<u8> {
    let items = vec![one.to_string(); count].join(",");
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{items}]}}"#).into_bytes()
}

fn index_descriptor(digest: &str, size: u64) -> Value {
    let annotations = json!({ "org.opencontainers.image.ref.name": TAG });
    json!({ "mediaType": INDEX, "digest": digest, "size": size, "annotations": annotations })
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Of each document that an image has.
#[test]
fn missing_and_oversized_documents_are_refused() {
    let place = Place::new();
    for which in ["manifest", "config"] {
        let image = || {
            std::fs::remove_dir_all(place.layout()).ok();
            let written = Image::new([place.base()]).write(place.layout(), TAG);
            let digest = if which == "manifest" { written.manifest_digest } else { written.config_digest };
            blob_path(&place.layout(), &digest)
        };
        let blob = image();
        std::fs::remove_file(&blob).unwrap();
        place.check(&format!("no {which}"), Refused("does not hold the blob sha256:"));
        let blob = image();
        let mut bytes = std::fs::read(&blob).unwrap();
        bytes.push(b'\n');
        std::fs::write(&blob, &bytes).unwrap();
        place.check(&format!("a {which} with a byte more"), Refused("but its descriptor says"));
        std::fs::write(&blob, vec![b' '; 64 << 20]).unwrap();
        place.check(&format!("a {which} of 64 MiB"), Refused("but its descriptor says"));
        bytes.pop();
        *bytes.last_mut().unwrap() = b' ';
        std::fs::write(&blob, &bytes).unwrap();
        place.check(&format!("another {which}"), Refused("is corrupt"));
        std::fs::remove_file(&blob).unwrap();
        std::fs::create_dir(&blob).unwrap();
        place.check(&format!("a directory for a {which}"), Refused("is not a regular file"));
        std::fs::remove_dir(&blob).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &blob).unwrap();
        place.check(&format!("an endless {which}"), Refused("is not a regular file"));
    }
}

#[test]
fn links_in_a_layout_are_not_followed() {
    let place = Place::new();
    with_index(&place, |_| {});
    let layout = place.layout();
    std::fs::rename(layout.join("index.json"), layout.join("real.json")).unwrap();
    std::os::unix::fs::symlink("real.json", layout.join("index.json")).unwrap();
    place.check("index.json", Refused("index.json"));
    with_index(&place, |_| {});
    std::fs::rename(layout.join("blobs"), place.dir.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", layout.join("blobs")).unwrap();
    place.check("blobs", Refused("links in an image layout are not followed"));
}

#[test]
fn media_types_that_lie_are_refused() {
    let place = Place::new();
    fn manifest_as_index(manifest: &mut Value) {
        manifest["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
    }
    fn both(manifest: &mut Value) {
        manifest["manifests"] = json!([]);
    }
    fn artifact(manifest: &mut Value) {
        manifest["layers"][0]["mediaType"] = "application/x-cake".into();
    }
    fn cased(manifest: &mut Value) {
        manifest["Layers"] = json!([]);
    }
    fn encrypted(manifest: &mut Value) {
        manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
    }
    for (name, change, text) in [
        ("an index", manifest_as_index as fn(&mut Value), "calls itself"),
        ("both", both, "is ambiguous"),
        ("both cases", cased, "is ambiguous"),
        ("a cake", artifact, "application/x-cake"),
        ("encrypted", encrypted, "is encrypted"),
    ] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).manifest(change).write(place.layout(), TAG);
        place.check(name, Refused(text));
    }
    for (name, media_type, text) in [
        ("an index in the index", INDEX, "calls itself"),
        ("text in the index", "text/plain", "neither an image manifest nor an index"),
        ("a config in the index", "application/vnd.oci.image.config.v1+json", "neither an image manifest"),
    ] {
        with_index(&place, |index| index["manifests"][0]["mediaType"] = media_type.into());
        place.check(name, Refused(text));
    }
    // What the blob is counts, not what it is called.
    fn plain(manifest: &mut Value) {
        manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    }
    std::fs::remove_dir_all(place.layout()).ok();
    Image::new([place.base()]).manifest(plain).write(place.layout(), TAG);
    place.check("gzip called plain", Harmless);
}

/// Readers in Go fold the letters of keys, and take the last of those that are the same then: to them, each of these would be
/// another image under the same digest.
#[test]
fn keys_that_other_readers_take_for_another_are_refused() {
    let place = Place::new();
    const REFUSED: Expected = Refused("other programs take the key");
    fn long_s(manifest: &mut Value) {
        manifest["layer\u{17f}"] = json!([]);
    }
    fn both(manifest: &mut Value) {
        manifest["manife\u{17f}ts"] = json!([]);
    }
    fn inside(manifest: &mut Value) {
        manifest["layers"][0]["Digest"] = manifest["config"]["digest"].clone();
    }
    for (name, change) in [("long s", long_s as fn(&mut Value)), ("both", both), ("inside", inside)] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).manifest(change).write(place.layout(), TAG);
        place.check(&format!("{name} in the manifest"), REFUSED);
    }
    fn diff_ids(config: &mut Value) {
        config["rootfs"]["diff_id\u{17f}"] = json!([]);
    }
    fn run(config: &mut Value) {
        config["config"]["wor\u{212a}ingdir"] = "/".into();
    }
    for (name, change) in [("diffIDs", diff_ids as fn(&mut Value)), ("how it is run", run)] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).config(change).write(place.layout(), TAG);
        place.check(&format!("{name} in the config"), REFUSED);
    }
    with_index(&place, |index| {
        index["manifests"][0]["platform"] =
            json!({ "os": "linux", "architecture": "amd64", "Architecture": "arm64" });
    });
    place.check("the platform in the index", REFUSED);
    // People name these as they like.
    fn names(manifest: &mut Value) {
        manifest["annotations"] = json!({ "a": "", "A": "" });
    }
    std::fs::remove_dir_all(place.layout()).ok();
    let image = Image::new([place.base()]).manifest(names);
    image
        .config(|config| config["config"]["Labels"] = json!({ "a": "", "A": "" }))
        .write(place.layout(), TAG);
    place.check("annotations and labels", Harmless);
}

/// Writes a docker archive with this list, a config for so many layers, and one member `layer`.
fn write_docker(scene: &Scene, list: &str, diff_ids: usize, layer: &[u8]) -> Reference {
    let diff_ids = vec![digest(layer); diff_ids];
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs });
    let members = [
        Member::file("manifest.json", list),
        Member::file("config", config.to_string()),
        Member::file("layer", layer),
    ];
    let path = scene.dir.write("docker.tar", archive(&members));
    Reference::new(Transport::DockerArchive, path, None).unwrap()
}

fn load_docker(store: &Store, reference: &Reference) -> Result<(), Error> {
    let source = Source::open_within(reference, store.root(), store.options().granted())?;
    store.load(&source, &LoadOptions::default()).map(drop)
}

#[test]
fn keys_in_the_list_of_a_docker_archive_are_exact() {
    in_each_mode("hostile::documents::keys_in_the_list_of_a_docker_archive_are_exact", |mode| {
        let scene = Scene::new(mode);
        let store = scene.open();
        let tar = archive(&[Member::file("f", "f")]);
        let good = r#"{"Config":"config","RepoTags":["a:1"],"Layers":["layer"]"#;
        for more in
            [r#","config":"other""#, r#","layers":["other"]"#, ",\"Layer\u{17f}\":[]", r#","REPOTAGS":[]"#]
        {
            let list = format!("[{good}{more}}}]");
            let error = load_docker(&store, &write_docker(&scene, &list, 1, &tar)).unwrap_err();
            assert!(error.to_string().contains("other programs take the key"), "{more}: {error}");
        }
        let list = format!(r#"[{good},"Parent":"","other":1}}]"#);
        load_docker(&store, &write_docker(&scene, &list, 1, &tar)).unwrap();
    });
}

/// For documents of megabytes, and for what a test hashes itself. What takes time with the square of their length takes far longer.
const LARGE_CPU: Duration = Duration::from_secs(40);

#[test]
fn names_without_end_cost_no_more_than_they_are_long() {
    const TEST: &str = "hostile::documents::names_without_end_cost_no_more_than_they_are_long";
    in_each_mode_within(TEST, LARGE_CPU, |mode| {
        let scene = Scene::new(mode);
        let tar = archive(&[Member::file("f", "f")]);
        let names: Vec<String> = (0..64_000).map(|number| format!("a:{number}")).collect();
        let list = json!([{ "Config": "config", "RepoTags": names, "Layers": ["layer"] }]);
        let reference = write_docker(&scene, &list.to_string(), 1, &tar);
        let error = load_docker(&scene.open(), &reference).unwrap_err();
        assert_eq!(error.limit().map(|limit| limit.limit), Some(Limit::Names), "{error}");
        // Whoever grants so many gets them.
        let mut options = StoreOptions::at(scene.dir.root()).run_root(scene.dir.run_root());
        options = options.sync(SyncMode::Off).limits(Limits::default().with("names", 64_000).unwrap());
        load_docker(&Store::open(&options).unwrap(), &reference).unwrap();
    });
}

#[test]
fn a_layer_that_is_listed_again_and_again_is_read_once() {
    const TEST: &str = "hostile::documents::a_layer_that_is_listed_again_and_again_is_read_once";
    in_each_mode_within(TEST, LARGE_CPU, |mode| {
        let scene = Scene::new(mode);
        let store = scene.open();
        // It looks like gzip: its digest is not that of the layer.
        let layer = [&[0x1f, 0x8b, 8, 0][..], &[0; 16 << 20]].concat();
        let list = json!([{ "Config": "config", "Layers": vec!["layer"; 500] }]);
        let reference = write_docker(&scene, &list.to_string(), 500, &layer);
        let begun = process::cpu();
        (0..50).for_each(|_| drop(digest(&layer)));
        let most = process::cpu() - begun;
        let begun = process::cpu();
        let source = Source::open(&reference, store.root()).unwrap();
        let image = source.resolve(&Selection::default()).unwrap();
        let taken = process::cpu() - begun;
        assert_eq!(image.layers.len(), 500);
        assert!(taken < most, "{taken:?} of the processor's time; to hash it fifty times takes {most:?}");
    });
}

/// The names of members are in memory while an archive is read.
#[test]
fn members_with_long_names_take_no_memory() {
    in_each_mode_within("hostile::documents::members_with_long_names_take_no_memory", LARGE_CPU, |mode| {
        let scene = Scene::new(mode);
        let store = scene.open();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        for number in 0..20_000 {
            let name = format!("{}{number}", format!("{}/", "n".repeat(199)).repeat(79));
            encoder.write_all(&Member::file(name, "").to_bytes()).unwrap();
        }
        encoder.write_all(&[0; 1024]).unwrap();
        let path = scene.dir.write("image.tar.zst", encoder.finish().unwrap());
        for transport in [Transport::OciArchive, Transport::DockerArchive] {
            let reference = Reference::new(transport, &path, None).unwrap();
            let error = Error::from(Source::open(&reference, store.root()).unwrap_err());
            assert_eq!(error.limit().map(|limit| limit.limit), Some(Limit::ArchivePathBytes), "{error}");
        }
    });
}
