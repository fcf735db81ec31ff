//! Archives of both forms, written by us and by hand.

use serde_json::json;

use super::support::*;
use crate::OciError;
use crate::compress::Compression;
use crate::oci::*;
use crate::sys::stat;
use crate::types::Digest;

fn compress(format: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    match format {
        "gzip" => return [gzip(&bytes[..1000]), gzip(&bytes[1000..])].concat(),
        "zstd" => return zstd::stream::encode_all(bytes, 1).unwrap(),
        "bzip2" => bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast()).read_to_end(&mut out),
        "xz" => liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut out),
        other => panic!("{other}"),
    }
    .unwrap();
    out
}

#[test]
fn archives_read_back_plain_and_compressed() {
    let place = Place::new();
    for transport in ["oci-archive", "docker-archive"] {
        let image = TestImage::new("a", transport == "oci-archive");
        image.save(&place, transport, "plain.tar", &["localhost/a:1"]);
        image.assert_same(&place.open(transport, "plain.tar").unwrap(), None, true);
        let plain = std::fs::read(place.path("plain.tar")).unwrap();
        for format in ["gzip", "zstd", "bzip2", "xz"] {
            std::fs::write(place.path(format), compress(format, &plain)).unwrap();
            image.assert_same(&place.open(transport, format).unwrap(), None, true);
        }
    }
}

#[test]
fn the_same_image_is_the_same_archive() {
    let place = Place::new();
    let image = TestImage::new("a", false);
    for transport in ["oci-archive", "docker-archive"] {
        image.save(&place, transport, "one.tar", &["a:1"]);
        image.save(&place, transport, "two.tar", &["a:1"]);
        let read = |name| std::fs::read(place.path(name)).unwrap();
        assert!(read("one.tar") == read("two.tar"));
    }
}

#[test]
fn an_unfinished_archive_leaves_the_old_one() {
    let place = Place::new();
    let (old, new) = (TestImage::new("old", true), TestImage::new("new", true));
    old.save(&place, "oci-archive", "a.tar", &[]);
    let archive = place.reference("oci-archive", "a.tar");
    let mut sink = Sink::create_or_replace(&archive, place.0.path()).unwrap();
    new.put(&mut sink, &[]);
    drop(sink);
    old.assert_same(&place.open("oci-archive", "a.tar").unwrap(), None, true);

    let mut sink = Sink::create_or_replace(&archive, place.0.path()).unwrap();
    let (descriptor, _) = &new.blobs[0];
    assert!(matches!(sink.put_blob(descriptor, &b"other"[..]), Err(OciError::Blob(_))));
    assert!(matches!(sink.finish(), Err(OciError::Unfinished(_))));
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 1, "temporary files are removed");
}

#[test]
fn an_archive_takes_the_place_of_none_that_it_was_not_told_of() {
    let place = Place::new();
    let (old, new) = (TestImage::new("old", true), TestImage::new("new", true));
    for transport in ["oci-archive", "docker-archive"] {
        let (name, late) = (format!("{transport}.tar"), format!("{transport}-late.tar"));
        let archive = place.reference(transport, &name);
        let (old, new) = match transport {
            "oci-archive" => (&old, &new),
            _ => (&TestImage::new("old", false), &TestImage::new("new", false)),
        };
        // An empty file has the name and nothing else.
        std::fs::write(place.path(&name), "").unwrap();
        let mut sink = Sink::create(&archive, place.0.path()).unwrap();
        old.put(&mut sink, &["old"]);
        sink.finish().unwrap();
        let refused = Sink::create(&archive, place.0.path());
        assert!(matches!(&refused, Err(OciError::ArchiveExists(path)) if *path == place.path(&name)));
        // One that comes meanwhile.
        let mut sink = Sink::create(&place.reference(transport, &late), place.0.path()).unwrap();
        new.put(&mut sink, &["new"]);
        std::fs::copy(place.path(&name), place.path(&late)).unwrap();
        assert!(matches!(sink.finish(), Err(OciError::ArchiveExists(_))));
        for name in [&name, &late] {
            old.assert_same(&place.open(transport, name).unwrap(), None, true);
        }
        let mut sink = Sink::create_or_replace(&archive, place.0.path()).unwrap();
        new.put(&mut sink, &["new"]);
        sink.finish().unwrap();
        new.assert_same(&place.open(transport, &name).unwrap(), None, true);
    }
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 4, "temporary files are removed");
}

#[test]
fn an_empty_file_is_replaced_once() {
    let place = Place::new();
    let (first, second) = (TestImage::new("first", true), TestImage::new("second", true));
    let archive = place.reference("oci-archive", "a.tar");
    let path = place.path("a.tar");
    let begin = |image: &TestImage| {
        let mut sink = Sink::create(&archive, place.0.path()).unwrap();
        image.put(&mut sink, &["a"]);
        sink
    };
    std::fs::write(&path, "").unwrap();
    let sinks = [&first, &second].map(begin);
    let done = sinks.map(Sink::finish);
    assert!(matches!(done, [Ok(()), Err(OciError::ArchiveExists(_))]), "{done:?}");
    first.assert_same(&place.open("oci-archive", "a.tar").unwrap(), None, true);
    // Written to meanwhile.
    std::fs::write(&path, "").unwrap();
    let sink = begin(&first);
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(sink.finish(), Err(OciError::ArchiveExists(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    // Gone meanwhile.
    std::fs::write(&path, "").unwrap();
    let sink = begin(&second);
    std::fs::remove_file(&path).unwrap();
    sink.finish().unwrap();
    second.assert_same(&place.open("oci-archive", "a.tar").unwrap(), None, true);
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 1, "temporary files are removed");
}

#[test]
fn an_archive_goes_where_a_link_leads() {
    let place = Place::new();
    let (old, new) = (TestImage::new("old", true), TestImage::new("new", true));
    std::fs::create_dir(place.path("other")).unwrap();
    std::os::unix::fs::symlink("other/second", place.path("link")).unwrap();
    std::os::unix::fs::symlink("a.tar", place.path("other/second")).unwrap();
    let archive = place.reference("oci-archive", "link");
    // Nowhere: told before anything is written.
    let refused = Sink::create(&archive, place.0.path());
    assert!(matches!(refused, Err(OciError::Io { action: "follow the link", .. })), "{refused:?}");
    let refused = Sink::create_or_replace(&archive, place.0.path());
    assert!(matches!(refused, Err(OciError::Io { action: "follow the link", .. })), "{refused:?}");
    std::fs::write(place.path("other/a.tar"), "").unwrap();
    for (image, begin) in [(&old, Sink::create as fn(&_, &_) -> _), (&new, Sink::create_or_replace)] {
        let mut sink = begin(&archive, place.0.path()).unwrap();
        image.put(&mut sink, &["a"]);
        sink.finish().unwrap();
        image.assert_same(&place.open("oci-archive", "other/a.tar").unwrap(), None, true);
    }
    assert!(matches!(Sink::create(&archive, place.0.path()), Err(OciError::ArchiveExists(_))));
    assert!(place.path("link").is_symlink() && place.path("other/second").is_symlink());
    let count = |path: &str| std::fs::read_dir(place.path(path)).unwrap().count();
    assert_eq!((count(""), count("other")), (2, 2), "temporary files are removed");
}

#[test]
fn a_docker_archive_takes_plain_layers_only() {
    let place = Place::new();
    let image = TestImage::new("a", true);
    let mut sink = Sink::create(&place.reference("docker-archive", "a.tar"), place.0.path()).unwrap();
    assert!(sink.needs_plain_layers());
    for (descriptor, bytes) in &image.blobs {
        sink.put_blob(descriptor, bytes.as_slice()).unwrap();
    }
    sink.put_document(&image.config).unwrap();
    let entry =
        SinkImage { manifest: &image.manifest, platform: None, tags: &[], annotations: &Annotations::new() };
    assert!(matches!(sink.add_image(&entry), Err(OciError::CompressedLayer { .. })));
}

#[test]
fn a_docker_archive_is_chosen_from_by_name() {
    let place = Place::new();
    let (first, second) = (TestImage::new("first", false), TestImage::new("second", false));
    let mut sink = Sink::create(&place.reference("docker-archive", "a.tar"), place.0.path()).unwrap();
    first.put(&mut sink, &["first", "me/first:2"]);
    second.put(&mut sink, &["localhost:5000/second:1"]);
    sink.finish().unwrap();
    let source = place.open("docker-archive", "a.tar").unwrap();
    for tag in ["first", "first:latest", "docker.io/library/first:latest", "docker.io/me/first:2"] {
        first.assert_same(&source, Some(tag), true);
    }
    second.assert_same(&source, Some("localhost:5000/second:1"), true);
    let image = source.resolve(&Selection { tag: Some("me/first:2".into()), platform: None }).unwrap();
    assert_eq!(image.names, ["docker.io/library/first:latest", "docker.io/me/first:2"]);
    assert!(matches!(source.resolve(&Selection::default()), Err(OciError::TagNeeded { .. })));
    // The same file is an image layout, with docker's annotations.
    let layout = place.open("oci-archive", "a.tar").unwrap();
    first.assert_same(&layout, Some("docker.io/me/first:2"), true);
}

#[test]
fn layers_of_old_docker_archives_may_be_links() {
    let place = Place::new();
    let image = TestImage::new("a", false);
    let list = json!([{
        "Config": "config.json", "RepoTags": null, "Layers": ["one/layer.tar", "two/layer.tar"]
    }]);
    let (base, top) = (&image.blobs[0].1, gzip(&image.blobs[1].1));
    write_tar(
        &place.path("a.tar"),
        &[
            Entry::File("./manifest.json", list.to_string().as_bytes()),
            Entry::File("config.json", &image.config.bytes),
            Entry::Symlink("one/layer.tar", "../zero/layer.tar"),
            Entry::File("zero/layer.tar", base),
            Entry::File("two/real.tar", &top),
            Entry::Hardlink("two/layer.tar", "two/real.tar"),
        ],
    );
    let source = place.open("docker-archive", "a.tar").unwrap();
    image.assert_same(&source, None, false);
    let resolved = source.resolve(&Selection::default()).unwrap();
    assert_eq!(resolved.layers[0].compression, Compression::None);
    assert_eq!(resolved.layers[1].compression, Compression::Gzip);
    assert_eq!(resolved.layers[1].descriptor.digest, Digest::sha256(&top));
    assert_eq!(resolved.tag, None);
}

#[test]
fn members_with_digests_for_names_must_have_them() {
    let place = Place::new();
    let image = TestImage::new("a", true);
    let name = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let config = name(&image.config.digest);
    let layers: Vec<String> = image.blobs.iter().map(|(layer, _)| name(&layer.digest)).collect();
    let list = json!([{ "Config": config, "RepoTags": [], "Layers": layers }]).to_string();
    let write = |config_bytes: &[u8], top: &[u8]| {
        let entries = [
            Entry::File(&layers[0], &image.blobs[0].1),
            Entry::File(&layers[1], top),
            Entry::File(&config, config_bytes),
            Entry::File("manifest.json", list.as_bytes()),
        ];
        write_tar(&place.path("a.tar"), &entries);
        place.open("docker-archive", "a.tar").unwrap()
    };
    image.assert_same(&write(&image.config.bytes, &image.blobs[1].1), None, true);

    let other = TestImage::new("b", true);
    let error = write(&other.config.bytes, &image.blobs[1].1).resolve(&Selection::default()).unwrap_err();
    assert!(matches!(error, OciError::Blob(_)), "{error}");
    let source = write(&image.config.bytes, &other.blobs[1].1);
    let resolved = source.resolve(&Selection::default()).unwrap();
    assert!(matches!(read_blob(&source, &resolved.layers[1].descriptor), Err(OciError::Blob(_))));
}

#[test]
fn archives_go_through_pipes() {
    let place = Place::new();
    for transport in ["oci-archive", "docker-archive"] {
        let image = TestImage::new("a", transport == "oci-archive");
        let name = format!("{transport}.pipe");
        mkfifo(&place.path(&name));
        std::thread::scope(|scope| {
            scope.spawn(|| image.save(&place, transport, &name, &["localhost/a:1"]));
            image.assert_same(&place.open(transport, &name).unwrap(), None, true);
        });
    }
}

#[test]
fn blobs_are_read_from_several_threads() {
    fn shared<T: Send + Sync>(value: T) -> T {
        value
    }
    let place = Place::new();
    let image = TestImage::new("a", true);
    image.save(&place, "oci-archive", "a.tar", &[]);
    let source = shared(place.open("oci-archive", "a.tar").unwrap());
    std::thread::scope(|scope| {
        for (descriptor, bytes) in &image.blobs {
            let source = &source;
            scope.spawn(move || {
                (0..50).for_each(|_| assert_eq!(&read_blob(source, descriptor).unwrap(), bytes))
            });
        }
    });
}

#[test]
fn a_compressed_archive_of_zeros_takes_no_space() {
    let place = Place::new();
    let image = TestImage::new("a", true);
    image.save(&place, "oci-archive", "a.tar", &[]);
    let mut bomb = std::fs::read(place.path("a.tar")).unwrap();
    bomb.resize(64 << 20, 0);
    std::fs::write(place.path("bomb"), gzip(&bomb)).unwrap();
    let source = place.open("oci-archive", "bomb").unwrap();
    let extent = source.blob(&image.blobs[0].0).unwrap().extent().clone();
    let found = stat::stat(extent.file()).unwrap();
    assert_eq!(found.size, 64 << 20);
    assert!(found.allocated < 2 << 20);
    image.assert_same(&source, None, true);
}
