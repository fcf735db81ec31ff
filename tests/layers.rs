//! Layers of their own: made empty, from archives and from each other.

use std::io::Read;

use layerstore::{
    Algorithm, ApplyOptions, ArchiveError, CheckOptions, Compression, ContainerOptions, CreateError, DiffId,
    DiffOptions, Digest, Error, ExportError, ImportError, InUseError, Layer, LayerOptions, LookupError,
    MetaError, NewItem, ThingId,
};

use crate::support::Dir;
use crate::support::compressed::packed;
use crate::support::store::{assert_whole, changes, exported, open};
use crate::support::tar::{Member, archive, pax_record};

fn tar(members: &[(&str, &str)]) -> Vec<u8> {
    archive(&members.iter().map(|(path, content)| Member::file(path, content)).collect::<Vec<_>>())
}

#[test]
fn an_empty_layer_has_what_it_is_given() {
    let dir = Dir::new("layer-options");
    let store = open(&dir);
    let base = store.create_layer(None, &LayerOptions::with_id("base".parse().unwrap())).unwrap();
    assert!(base.is_writable());
    let mut options = LayerOptions::named("child");
    options.names.push("other".into());
    options.names.push("child".into());
    options.metadata = "text".into();
    options.flags = vec![("incomplete".into(), "false".into())];
    options.labels = vec![("key".into(), "value".into())];
    options.mount_label = Some("system_u:object_r:container_file_t:s0".into());
    options.volatile = true;
    options.items = vec![NewItem::new("key", b"value"), NewItem::new("manifest", b"no image's")];
    options.uid_map = vec!["0:1000:5".parse().unwrap(), "5:9:1".parse().unwrap()];
    options.gid_map = vec!["0:2000:5".parse().unwrap()];
    let child = store.create_layer(&base.id, &options).unwrap();
    assert_eq!(store.layer("other").unwrap(), child);
    assert_eq!(child.parent.as_ref(), Some(&base.id));
    assert_eq!(child.names.len(), 2, "a name that is given twice is kept once");
    assert_eq!((child.metadata.as_str(), child.flags.clone()), ("text", options.flags));
    assert_eq!((child.labels.clone(), child.mount_label.clone()), (options.labels, options.mount_label));
    assert!(child.volatile && !child.read_only && child.is_writable());
    assert_eq!((&child.uid_map, &child.gid_map), (&options.uid_map, &options.gid_map));
    assert_eq!(store.item(&child, "key").unwrap(), b"value");
    assert_eq!(changes(&store, &child), [""; 0]);

    let mut options = LayerOptions::named("sealed");
    options.read_only = true;
    options.items = vec![NewItem::new("key", b"other")];
    let sealed = store.create_layer(&child.id, &options).unwrap();
    assert!(sealed.tree.is_some() && sealed.read_only);
    assert_eq!(store.items(&sealed).unwrap().len(), 1);
    assert_eq!(changes(&store, &sealed), [""; 0]);
    assert_whole(&store);
    for layer in [&sealed, &child, &base] {
        store.remove_layer(&layer.id).unwrap();
    }
    assert!(store.layers().unwrap().is_empty());
    assert_whole(&store);
}

#[test]
fn a_layer_that_cannot_be_made_leaves_nothing() {
    let dir = Dir::new("layer-refused");
    let store = open(&dir);
    let base = store.create_layer(None, &LayerOptions::named("base")).unwrap();
    let container = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let before = store.layers().unwrap();
    let put = |parent: Option<&Layer>, options: &LayerOptions| {
        let parent = parent.map(|parent| &parent.id);
        let made = store.create_layer(parent, options).unwrap_err();
        let error = store.put_layer(parent, options, &*tar(&[("a", "a")])).unwrap_err();
        assert_eq!(made.to_string(), error.to_string());
        error
    };
    let taken = put(None, &LayerOptions::with_id(base.id.clone()));
    assert!(matches!(taken, Error::Create(CreateError::IdInUse { kind: "layer", .. })), "{taken:?}");
    // Who asks for the layer by its name would get another.
    let taken = put(None, &LayerOptions::with_id("base".parse().unwrap()));
    assert!(matches!(taken, Error::Create(CreateError::IdIsName { kind: "layer", .. })), "{taken:?}");
    let taken = put(None, &LayerOptions::named("base"));
    assert!(matches!(taken, Error::Meta(MetaError::NameInUse { .. })), "{taken:?}");
    let mut flag = LayerOptions::default();
    flag.flags = vec![("flag".to_owned(), "no JSON".to_owned())];
    let mut item = LayerOptions::default();
    item.items = vec![NewItem::new("", b"value")];
    for bad in [LayerOptions::named(" bad"), flag, item] {
        let bad = put(None, &bad);
        assert!(matches!(bad, Error::Value(_)), "{bad:?}");
    }
    let mut gone = base.clone();
    gone.id = "gone".parse().unwrap();
    let gone = put(Some(&gone), &LayerOptions::default());
    assert!(matches!(gone, Error::Lookup(LookupError::NotFound { kind: "layer", .. })), "{gone:?}");
    let above = store.layer(container.layer.as_str()).unwrap();
    let above = put(Some(&above), &LayerOptions::default());
    assert!(matches!(above, Error::Create(CreateError::ParentOfContainer { .. })), "{above:?}");
    assert_eq!(store.layers().unwrap(), before);
    assert_whole(&store);
}

#[test]
fn an_archive_comes_out_as_it_went_in() {
    let dir = Dir::new("layer-put");
    let store = open(&dir);
    let below = store.create_layer(None, &LayerOptions::default()).unwrap();
    let bytes = archive(&[
        Member::directory("etc").owner(7, 8),
        Member::file("etc/motd", "hello").owner(0, 9),
        Member::file("tool", vec![1; 300_000]),
        Member::whiteout("old"),
    ]);
    for (number, compression) in
        [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz]
            .into_iter()
            .enumerate()
    {
        let blob = packed(compression, &bytes);
        let mut options = LayerOptions::named(compression.name());
        options.apply.blob_digest = Some(Digest::sha256(&blob));
        options.apply.diff_id = Some(DiffId(Digest::sha256(&bytes)));
        options.apply.toc_digest = Some(Digest::sha256(b"toc"));
        options.items = vec![NewItem::new("key", b"value")];
        let layer = store.put_layer(&below.id, &options, &*blob).unwrap();
        assert_eq!(store.item(&layer, "key").unwrap(), b"value");
        assert_eq!(store.layer(compression.name()).unwrap(), layer);
        assert_eq!(layer.diff_id, options.apply.diff_id);
        assert_eq!(layer.diff_size, Some(bytes.len() as u64));
        assert_eq!(layer.compression, Some(compression));
        assert_eq!(layer.toc_digest, options.apply.toc_digest);
        assert_eq!(
            (layer.blobs[0].digest.clone(), layer.blob_size()),
            (Digest::sha256(&blob), Some(blob.len() as u64))
        );
        assert_eq!((layer.uids.as_slice(), layer.gids.as_slice()), (&[0, 7][..], &[0, 8, 9][..]));
        assert_eq!(exported(&store, &layer), bytes);
        assert_eq!(changes(&store, &layer), ["A /etc", "A /etc/motd", "A /tool"]);
        let others = store.layers().unwrap().into_iter().filter(|other| other.tree == layer.tree).count();
        assert_eq!(others, number + 1, "equal trees are one directory");
    }
    assert_whole(&store);
}

#[test]
fn an_archive_that_is_not_what_was_said_leaves_nothing() {
    let dir = Dir::new("layer-wrong");
    let store = open(&dir);
    let bytes = tar(&[("a", "a")]);
    let put = |apply: ApplyOptions, bytes: &[u8]| {
        let mut options = LayerOptions::named("wrong");
        options.apply = apply;
        store.put_layer(None, &options, bytes).unwrap_err()
    };
    let other = Digest::sha256(b"other");
    let mut apply = ApplyOptions::default();
    apply.blob_digest = Some(other.clone());
    let error = put(apply, &bytes);
    assert!(matches!(error, Error::Import(ImportError::BlobDigest { .. })), "{error:?}");
    let mut apply = ApplyOptions::default();
    apply.diff_id = Some(DiffId(other));
    let error = put(apply, &bytes);
    assert!(matches!(error, Error::Import(ImportError::DiffId { .. })), "{error:?}");
    for bytes in [&bytes[..512], b"no tar", &[b'x'; 1024][..]] {
        let error = put(ApplyOptions::default(), bytes);
        assert!(matches!(error, Error::Import(_)), "{error:?}");
    }
    assert!(store.layers().unwrap().is_empty());
    assert_whole(&store);

    let mut options = LayerOptions::named("long digest");
    let mut hasher = layerstore::Hasher::new(Algorithm::Sha512);
    hasher.update(&bytes);
    options.apply.blob_digest = Some(hasher.finish());
    let layer = store.put_layer(None, &options, &*bytes).unwrap();
    assert_eq!(Some(&layer.blobs[0].digest), options.apply.blob_digest.as_ref());
    let mut options = LayerOptions::named("empty");
    options.apply.allow_empty = true;
    let empty = store.put_layer(None, &options, std::io::empty()).unwrap();
    assert_eq!((empty.diff_size, changes(&store, &empty).len()), (Some(0), 0));
    assert_whole(&store);
}

/// A program that fails leaves a pipe without a byte. One that leaves out the end blocks is no failure, as for GNU tar.
#[test]
fn a_stream_without_a_byte_is_no_archive() {
    let dir = Dir::new("layer-no-bytes");
    let store = open(&dir);
    let layer = store.create_layer(None, &LayerOptions::named("made")).unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let nothing = if compression == Compression::None { Vec::new() } else { packed(compression, b"") };
        for error in [
            store.put_layer(None, &LayerOptions::default(), &*nothing).unwrap_err(),
            store.apply_diff(&layer.id, &*nothing, &ApplyOptions::default()).unwrap_err(),
            store.stage_diff(&*nothing, &ApplyOptions::default()).unwrap_err(),
        ] {
            let refused = matches!(error, Error::Import(ImportError::Archive(ArchiveError::Empty)));
            assert!(refused, "{compression:?}: {error}");
        }
    }
    assert_eq!(store.layers().unwrap().len(), 1);
    let whole = tar(&[("a", "a")]);
    for bytes in [&whole[..1024], &[0; 1024][..], &[0; 512][..]] {
        let put = store.put_layer(None, &LayerOptions::default(), bytes).unwrap();
        assert_eq!(exported(&store, &put), bytes);
    }
    assert_whole(&store);
}

/// Attributes that no filesystem here has, and headers that are no member, are part of the archive all the same.
#[test]
fn what_an_archive_says_beside_its_files_is_kept() {
    let dir = Dir::new("layer-beside");
    let store = open(&dir);
    let mut comment = Vec::new();
    pax_record(&mut comment, b"comment", b"1d2e3f");
    pax_record(&mut comment, b"gid", b"4");
    let flags = |member: Member| member.pax("SCHILY.fflags", "uarch,schg");
    let bytes = archive(&[
        Member::file("pax_global_header", &comment).entry_type(b'g'),
        flags(Member::directory("sub")),
        flags(Member::file("sub/no-parent/file", "x")).pax("atime", "5.5").pax("SUN.unknown", "y"),
        Member::file("pax_global_header", &comment).entry_type(b'g'),
    ]);
    let layer = store.put_layer(None, &LayerOptions::named("layer"), &*bytes).unwrap();
    assert_eq!(changes(&store, &layer), ["A /sub", "A /sub/no-parent", "A /sub/no-parent/file"]);
    assert_eq!(layer.gids, [4], "what holds for all members holds for each");
    assert_eq!(exported(&store, &layer), bytes);
    assert_whole(&store);
}

#[test]
fn what_else_lies_in_its_directory_is_not_in_a_sealed_layers_tar() {
    let dir = Dir::new("layer-foreign");
    let store = open(&dir);
    let bytes = tar(&[("a", "a"), ("d/b", "b")]);
    let layer = store.put_layer(None, &LayerOptions::named("layer"), &*bytes).unwrap();
    let directory = std::fs::read_dir(store.root().join("diffs")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(directory.join("d/foreign"), "x").unwrap();
    assert_eq!(exported(&store, &layer), bytes);
    assert_eq!(changes(&store, &layer), ["A /a", "A /d", "A /d/b"]);
    assert!(!store.check(&CheckOptions::default()).unwrap().is_clean(), "the check tells of it");
    // One that is written to is what its directory is.
    store.unseal(&layer.id).unwrap();
    assert_eq!(changes(&store, &layer), ["A /a", "A /d", "A /d/b", "A /d/foreign"]);
}

/// A source that gives what it has byte by byte, and is interrupted in between.
struct Slow<'a> {
    bytes: &'a [u8],
    interrupted: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(1);
        self.bytes.read(&mut buffer[..length])
    }
}

#[test]
fn a_slow_source_gives_the_same_layer() {
    let dir = Dir::new("layer-slow");
    let store = open(&dir);
    let bytes = tar(&[("dir/file", &"content".repeat(100)), ("empty", ""), ("last", "x")]);
    for compression in
        [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz]
    {
        let blob = packed(compression, &bytes);
        let slow = Slow { bytes: &blob, interrupted: false };
        let layer = store.put_layer(None, &LayerOptions::default(), slow).unwrap();
        assert_eq!(layer.diff_id, Some(DiffId(Digest::sha256(&bytes))));
        assert_eq!(layer.compression, Some(compression));
        assert_eq!(exported(&store, &layer), bytes);
    }
    assert_whole(&store);
}

/// Whatever an archive comes in by, no name in it leaves the layer, and no link that it brings is followed.
#[test]
fn names_that_leave_the_layer_are_refused_wherever_they_come_in() {
    let dir = Dir::new("layer-names");
    let victim = dir.write("victim/file", "untouched");
    let outside = victim.parent().unwrap().to_str().unwrap();
    let store = open(&dir);
    let empty = store.create_layer(None, &LayerOptions::named("empty")).unwrap();
    let full = store.put_layer(None, &LayerOptions::named("full"), &*tar(&[("a", "a")])).unwrap();
    let below = store
        .put_layer(None, &LayerOptions::named("below"), &*archive(&[Member::symlink("out", outside)]))
        .unwrap();
    let above = store.create_layer(&below.id, &LayerOptions::named("above")).unwrap();
    let through = |member: Member| archive(&[Member::symlink("out", outside), member]);
    for bytes in [
        tar(&[("../victim/file", "x")]),
        tar(&[("a/../../../victim/file", "x")]),
        archive(&[Member::whiteout("../victim/file")]),
        archive(&[Member::opaque("../victim")]),
        archive(&[Member::hard_link("h", "../../victim/file")]),
        archive(&[Member::hard_link("h", format!("{outside}/file"))]),
        through(Member::file("out/file", "x")),
        through(Member::whiteout("out/file")),
        through(Member::hard_link("h", "out/file")),
        through(Member::directory("out/dir")),
    ] {
        let refusals = [
            store.put_layer(None, &LayerOptions::default(), &*bytes).unwrap_err(),
            store.put_layer(&below.id, &LayerOptions::default(), &*bytes).unwrap_err(),
            store.apply_diff(&empty.id, &*bytes, &ApplyOptions::default()).unwrap_err(),
            store.apply_diff(&full.id, &*bytes, &ApplyOptions::default()).unwrap_err(),
            store.stage_diff(&*bytes, &ApplyOptions::default()).unwrap_err(),
        ];
        for error in refusals {
            assert!(matches!(error, Error::Import(_)), "{error:?}");
        }
    }
    // A link of a layer below is hidden by the directory, not followed.
    let applied = store.apply_diff(&above.id, &*tar(&[("out/file", "x")]), &ApplyOptions::default()).unwrap();
    assert_eq!(changes(&store, &applied), ["C /out", "A /out/file"]);
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(victim).unwrap(), "untouched");
    assert_whole(&store);
}

/// Size and time are no proof: what differs is told by the content.
#[test]
fn files_are_compared_by_their_content() {
    let dir = Dir::new("layer-content");
    let store = open(&dir);
    let [old, new] = ["old", "new"].map(|content| {
        let bytes = tar(&[("d/equal", "same"), ("d/file", content)]);
        store.put_layer(None, &LayerOptions::named(content), &*bytes).unwrap()
    });
    let since = |of: &Layer, from: &Layer| -> Vec<String> {
        store.changes_since(of, from).unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(since(&new, &old), ["C /d", "C /d/file"]);
    assert_eq!(since(&old, &old), [""; 0]);
    // An archive that brings what is there already changes nothing of what is shown.
    let twice = store.put_layer(&old.id, &LayerOptions::default(), &*tar(&[("d/equal", "same")])).unwrap();
    assert_eq!(changes(&store, &twice), ["C /d", "C /d/equal"]);
    assert_eq!(since(&twice, &old), [""; 0]);
}

#[test]
fn what_is_staged_waits_for_its_layer() {
    let dir = Dir::new("layer-staged");
    let store = open(&dir);
    let bytes = tar(&[("a", "a")]);
    let staged = store.stage_diff(&*packed(Compression::Gzip, &bytes), &ApplyOptions::default()).unwrap();
    assert_eq!(staged.diff_id(), &DiffId(Digest::sha256(&bytes)));
    assert_eq!((staged.diff_size(), staged.compression()), (bytes.len() as u64, Compression::Gzip));
    assert_eq!((staged.uids(), staged.gids()), (vec![0], vec![0]));
    assert!(store.layers().unwrap().is_empty());
    assert_eq!(store.status().unwrap().in_progress, 1);
    drop(staged);
    assert_eq!(store.status().unwrap().in_progress, 0);
    assert_whole(&store);
    let staged = store.stage_diff(&*bytes, &ApplyOptions::default()).unwrap();
    let layer = staged.insert(None, &LayerOptions::default()).unwrap();
    assert_eq!(exported(&store, &layer), bytes);
    assert_whole(&store);
}

#[test]
fn a_template_gives_its_content_and_no_more() {
    let dir = Dir::new("layer-template");
    let store = open(&dir);
    let base = store.create_layer(None, &LayerOptions::named("base")).unwrap();
    let template = store.put_layer(&base.id, &LayerOptions::named("template"), &*tar(&[("a", "a")])).unwrap();
    let mut options = LayerOptions::named("copy");
    options.template = Some(template.id.clone());
    options.items = vec![NewItem::new("key", b"value")];
    let copy = store.create_layer(&base.id, &options).unwrap();
    assert_eq!(
        (&copy.tree, &copy.diff_id, &copy.blobs),
        (&template.tree, &template.diff_id, &template.blobs)
    );
    assert_eq!(exported(&store, &copy), exported(&store, &template));
    assert_eq!((store.items(&copy).unwrap().len(), store.items(&template).unwrap().len()), (1, 0));
    assert_whole(&store);
    store.remove_layer(&template.id).unwrap();
    assert_eq!(changes(&store, &copy), ["A /a"]);

    // One that is written to has a directory of its own.
    options.names = vec!["of base".into()];
    options.template = Some(base.id.clone());
    let of_base = store.create_layer(None, &options).unwrap();
    assert!(of_base.is_writable());
    assert_eq!(changes(&store, &of_base), [""; 0]);
    options.names = vec!["of nothing".into()];
    options.template = Some("gone".parse().unwrap());
    let gone = store.create_layer(None, &options).unwrap_err();
    assert!(matches!(gone, Error::Lookup(LookupError::NotFound { .. })), "{gone:?}");
    assert_whole(&store);
}

#[test]
fn a_layer_that_others_need_stays() {
    let dir = Dir::new("layer-needed");
    let store = open(&dir);
    let base = store.create_layer(None, &LayerOptions::default()).unwrap();
    let child = store.put_layer(&base.id, &LayerOptions::default(), &*tar(&[("a", "a")])).unwrap();
    let error = store.remove_layer(&base.id).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::LayerHasChild { .. })), "{error:?}");
    store.remove_layer(&child.id).unwrap();
    store.remove_layer(&base.id).unwrap();
    assert_whole(&store);
}

#[test]
fn what_is_applied_to_an_empty_layer_is_its_content() {
    let dir = Dir::new("apply-empty");
    let store = open(&dir);
    let base = store.create_layer(None, &LayerOptions::named("base")).unwrap();
    let layer = store.create_layer(&base.id, &LayerOptions::named("layer")).unwrap();
    let blob = packed(Compression::Zstd, &tar(&[("dir/a", "a")]));
    let applied = store.apply_diff(&layer.id, &*blob, &ApplyOptions::default()).unwrap();
    assert_eq!((applied.id.clone(), applied.names.clone()), (layer.id.clone(), layer.names.clone()));
    assert_eq!(applied.diff_id, Some(DiffId(Digest::sha256(&tar(&[("dir/a", "a")])))));
    assert_eq!(
        (applied.blob_size(), applied.compression),
        (Some(blob.len() as u64), Some(Compression::Zstd))
    );
    assert_eq!(exported(&store, &applied), tar(&[("dir/a", "a")]));
    assert_whole(&store);
    // The same, for one that was sealed when it was empty, and with an archive of nothing.
    let mut options = LayerOptions::named("read-only");
    options.read_only = true;
    let sealed = store.create_layer(&base.id, &options).unwrap();
    let mut apply = ApplyOptions::default();
    apply.allow_empty = true;
    let applied = store.apply_diff(&sealed.id, std::io::empty(), &apply).unwrap();
    assert_eq!((applied.diff_size, applied.tree == sealed.tree), (Some(0), true));
    let applied = store.apply_diff(&sealed.id, &*blob, &ApplyOptions::default()).unwrap();
    assert_eq!(applied.diff_id, store.layer("layer").unwrap().diff_id);
    assert_whole(&store);
}

#[test]
fn what_is_applied_comes_on_top_of_what_is_there() {
    let dir = Dir::new("apply-top");
    let store = open(&dir);
    let base = store
        .put_layer(
            None,
            &LayerOptions::named("base"),
            &*tar(&[("etc/hosts", "h"), ("etc/motd", "old"), ("x", "x")]),
        )
        .unwrap();
    let first = archive(&[
        Member::directory("etc").mode(0o700),
        Member::file("etc/motd", "first"),
        Member::whiteout("etc/hosts"),
        Member::file("opt/1", "1"),
        Member::file("opt/2", "2"),
    ]);
    let layer = store.put_layer(&base.id, &LayerOptions::named("layer"), &*first).unwrap();
    let second = archive(&[
        Member::file("etc/motd", "second"),
        Member::whiteout("opt/1"),
        Member::file("opt/3", "3"),
        Member::whiteout("x"),
    ]);
    let layer = store.apply_diff(&layer.id, &*second, &ApplyOptions::default()).unwrap();
    let expected = ["C /etc", "D /etc/hosts", "C /etc/motd", "A /opt", "A /opt/2", "A /opt/3", "D /x"];
    assert_eq!(changes(&store, &layer), expected);
    assert!(layer.tree.is_some(), "it was sealed, and is");
    assert_eq!((layer.diff_id.clone(), layer.blobs.len(), layer.compression), (None, 0, None));
    let bytes = exported(&store, &layer);
    let mut etc = None;
    for entry in tar::Archive::new(&*bytes).entries().unwrap() {
        let entry = entry.unwrap();
        if &*entry.path_bytes() == b"etc/" {
            etc = Some(entry.header().mode().unwrap());
        }
    }
    assert_eq!(etc, Some(0o700), "what the second archive does not name keeps what the first one said");
    assert_whole(&store);

    // Of what is written to, and of a container's layer.
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    for round in ["a", "b"] {
        let layer = store.apply_diff(&web.layer, &*tar(&[(round, round)]), &ApplyOptions::default()).unwrap();
        assert!(layer.is_writable());
    }
    let found: Vec<_> = store.changes(&web).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(found, ["A /a", "A /b"]);
    store.unseal(&layer.id).unwrap();
    let layer = store.apply_diff(&layer.id, &*tar(&[("new", "n")]), &ApplyOptions::default()).unwrap();
    assert!(layer.is_writable());
    assert_eq!(changes(&store, &layer).len(), expected.len() + 1);
    assert_whole(&store);
}

#[test]
fn what_cannot_be_applied_changes_nothing() {
    let dir = Dir::new("apply-refused");
    let store = open(&dir);
    let base = store.put_layer(None, &LayerOptions::named("base"), &*tar(&[("a", "a")])).unwrap();
    let child = store.create_layer(&base.id, &LayerOptions::named("child")).unwrap();
    let more = tar(&[("b", "b")]);
    let error = store.apply_diff(&base.id, &*more, &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, Error::InUse(InUseError::LayerHasChild { .. })), "{error:?}");
    let mut options = ApplyOptions::default();
    options.diff_id = Some(DiffId(Digest::sha256(b"other")));
    let error = store.apply_diff(&child.id, &*more, &options).unwrap_err();
    assert!(matches!(error, Error::Import(ImportError::DiffId { .. })), "{error:?}");
    let error = store.apply_diff(&child.id, &more[..512], &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Import(_)), "{error:?}");
    assert_eq!((store.layer("base").unwrap(), store.layer("child").unwrap()), (base.clone(), child));
    assert_whole(&store);
    let mut options = ApplyOptions::default();
    options.change_under_others = true;
    let base = store.apply_diff(&base.id, &*more, &options).unwrap();
    assert_eq!(changes(&store, &base), ["A /a", "A /b"]);
    assert_whole(&store);
}

#[test]
fn layers_are_found_by_each_of_their_digests() {
    let dir = Dir::new("layer-digests");
    let store = open(&dir);
    let bytes = tar(&[("a", "a")]);
    let blob = packed(Compression::Gzip, &bytes);
    let mut options = LayerOptions::named("first");
    options.apply.toc_digest = Some(Digest::sha256(b"toc"));
    let first = store.put_layer(None, &options, &*blob).unwrap();
    let second = store.put_layer(&first.id, &LayerOptions::named("second"), &*bytes).unwrap();
    let ids = |layers: Vec<Layer>| layers.into_iter().map(|layer| layer.id).collect::<Vec<_>>();
    let by_blob = |bytes: &[u8]| ids(store.layers_by_blob_digest(&Digest::sha256(bytes)).unwrap());
    assert_eq!((by_blob(&blob), by_blob(&bytes)), (vec![first.id.clone()], vec![second.id.clone()]));
    let mut both = vec![first.id.clone(), second.id.clone()];
    both.sort();
    assert_eq!(ids(store.layers_by_diff_id(&DiffId(Digest::sha256(&bytes))).unwrap()), both);
    assert_eq!(ids(store.layers_by_toc_digest(&Digest::sha256(b"toc")).unwrap()), vec![first.id.clone()]);
    assert_eq!(store.layer(&Digest::sha256(b"toc").to_string()).unwrap(), first);
    store.remove_layer(&second.id).unwrap();
    store.unseal(&first.id).unwrap();
    assert_eq!(
        (by_blob(&blob), ids(store.layers_by_toc_digest(&Digest::sha256(b"toc")).unwrap())),
        (vec![], vec![])
    );
    assert_eq!(store.parent_owners(&first.id).unwrap(), layerstore::ParentOwners::default());
}

#[test]
fn any_two_layers_can_be_compared() {
    let dir = Dir::new("layer-compare");
    let store = open(&dir);
    let base = store
        .put_layer(None, &LayerOptions::named("base"), &*tar(&[("a", "a"), ("d/1", "one"), ("d/2", "two")]))
        .unwrap();
    let top =
        archive(&[Member::whiteout("d/1"), Member::file("d/3", "three"), Member::symlink("l", "12345")]);
    let top = store.put_layer(&base.id, &LayerOptions::named("top"), &*top).unwrap();
    let other = tar(&[("a", "other"), ("d/1", "one"), ("e/f", "f")]);
    let other = store.put_layer(None, &LayerOptions::named("other"), &*other).unwrap();
    store.unseal(&other.id).unwrap();
    let since = |of: &Layer, from: &Layer| -> Vec<String> {
        store.changes_since(of, from).unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(since(&top, &base), ["C /d", "D /d/1", "A /d/3", "A /l"]);
    assert_eq!(since(&base, &top), ["C /d", "A /d/1", "D /d/3", "D /l"]);
    assert_eq!(since(&top, &top), [""; 0]);
    let expected = ["C /a", "C /d", "A /d/1", "D /d/2", "D /d/3", "A /e", "A /e/f", "D /l"];
    assert_eq!(since(&other, &top), expected);
    assert_eq!(store.diff_size(&top, None).unwrap(), 5 + 5);
    assert_eq!(store.diff_size(&top, &ThingId::from(&base)).unwrap(), 5 + 5);
    assert_eq!(store.diff_size(&other, &ThingId::from(&top)).unwrap(), 5 + 3 + 1);

    // What turns one into the other does.
    for (of, from) in [(&other, &top), (&top, &other), (&base, &top), (&top, &base)] {
        let mut tar = Vec::new();
        store.diff_with(of, &DiffOptions::since(from), &mut tar).unwrap();
        let made = store.put_layer(&from.id, &LayerOptions::named("made"), &*tar).unwrap();
        assert_eq!(since(&made, of), [""; 0], "{of:?} from {from:?}");
        store.remove_layer(&made.id).unwrap();
    }
    store.remove_layer(&top.id).unwrap();
    let error = store.changes_since(&top, &base).unwrap_err();
    assert!(matches!(error, Error::Lookup(_)), "{error:?}");
    assert_whole(&store);
}

#[test]
fn a_diff_is_written_in_what_compressions_there_are() {
    let dir = Dir::new("layer-compressed");
    let store = open(&dir);
    let bytes = tar(&[("a", "a")]);
    let layer = store.put_layer(None, &LayerOptions::named("layer"), &*bytes).unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let mut out = Vec::new();
        store.diff_with(&layer, &DiffOptions::default().compression(compression), &mut out).unwrap();
        assert_eq!(Compression::detect(&out), compression);
        let again = store.stage_diff(&*out, &ApplyOptions::default()).unwrap();
        assert_eq!(Some(again.diff_id()), layer.diff_id.as_ref());
    }
    for compression in [Compression::Bzip2, Compression::Xz] {
        let mut out = Vec::new();
        let options = DiffOptions::default().compression(compression);
        let error = store.diff_with(&layer, &options, &mut out).unwrap_err();
        assert!(matches!(error, Error::Export(ExportError::Compress(_))), "{error:?}");
        assert!(out.is_empty());
    }
    let mut options = DiffOptions::default().compression(Compression::Gzip);
    options.level = Some(10);
    store.diff_with(&layer, &options, &mut Vec::new()).unwrap_err();
}

#[test]
fn a_layer_that_is_not_there_is_no_layer() {
    let dir = Dir::new("layer-missing");
    let store = open(&dir);
    let gone: layerstore::LayerId = "gone".parse().unwrap();
    let refusals = [
        store.seal(&gone).unwrap_err(),
        store.unseal(&gone).unwrap_err(),
        store.apply_diff(&gone, &*tar(&[]), &ApplyOptions::default()).unwrap_err(),
        store.changes(&gone).unwrap_err(),
        store.changes_since(&gone, &gone).unwrap_err(),
        store.diff(&gone, &mut Vec::new()).unwrap_err(),
        store.diff_with(&gone, &DiffOptions::since(&gone), &mut Vec::new()).unwrap_err(),
        store.diff_size(&gone, None).unwrap_err(),
        store.parent_owners(&gone).unwrap_err(),
        store.layer_size(&gone).unwrap_err(),
        store.usage(&gone).unwrap_err(),
        store.remove_layer(&gone).unwrap_err(),
        store.mount(&gone, &Default::default()).unwrap_err(),
        store.mounted(&gone).unwrap_err(),
    ];
    for error in refusals {
        assert!(matches!(error, Error::Lookup(LookupError::NotFound { kind: "layer", .. })), "{error:?}");
    }
    assert!(store.layers_by_diff_id(&DiffId(Digest::sha256(b""))).unwrap().is_empty());
    assert_whole(&store);
}

/// Copies, changes and removals in any order keep the records right.
#[test]
fn layers_that_share_are_changed_apart() {
    let dir = Dir::new("layer-sharing");
    let store = open(&dir);
    let mut ids: Vec<layerstore::LayerId> = Vec::new();
    let mut history = Vec::new();
    let mut random = 7_u64;
    for round in 0..150 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let content = round.to_string();
        let members = tar(&[(&format!("file-{round}"), &content)]);
        let fresh: layerstore::LayerId = format!("layer-{round}").parse().unwrap();
        let choice = if ids.is_empty() { 0 } else { (random >> 40) % 6 };
        let at = (random >> 33) as usize % ids.len().max(1);
        history.push(format!("{round}: {choice} on {:?}", ids.get(at)));
        let mut options = LayerOptions::with_id(fresh.clone());
        match choice {
            0 => drop(store.put_layer(None, &options, &*members).unwrap()),
            1 => {
                options.template = Some(ids[at].clone());
                store.create_layer(None, &options).unwrap();
            }
            2 => drop(store.apply_diff(&ids[at], &*members, &ApplyOptions::default()).unwrap()),
            3 => drop(store.unseal(&ids[at]).unwrap()),
            4 => drop(store.seal(&ids[at]).unwrap()),
            _ => store.remove_layer(&ids.swap_remove(at)).unwrap(),
        }
        if choice < 2 {
            ids.push(fresh);
        }
        let report = store.check(&CheckOptions::default()).unwrap();
        assert!(report.is_clean(), "{:?} after {history:?}", report.findings);
    }
    assert_whole(&store);
}

/// Programs of the Docker family give a file what its last name in the archive says.
#[test]
fn hard_links_say_what_their_file_has() {
    let dir = Dir::new("layer-links");
    let store = open(&dir);
    let members = [
        Member::file("a/file", "text")
            .mode(0o4750)
            .owner(7, 8)
            .mtime(1_600_000_000, 5)
            .xattr("user.key", "value"),
        Member::hard_link("b", "a/file"),
        Member::hard_link("c", "a/file"),
    ];
    let sealed = store.put_layer(None, &LayerOptions::named("sealed"), &*archive(&members)).unwrap();
    let other = store.create_layer(None, &LayerOptions::named("other")).unwrap();
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let written = store.apply_diff(&web.layer, &*archive(&members), &ApplyOptions::default()).unwrap();
    assert!(written.is_writable());
    let mut against_other = Vec::new();
    store.diff_with(&sealed, &DiffOptions::since(&other), &mut against_other).unwrap();
    for bytes in [exported(&store, &written), against_other] {
        let mut seen = Vec::new();
        for entry in tar::Archive::new(&*bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let (is_link, path) =
                (entry.header().entry_type().is_hard_link(), entry.path().unwrap().into_owned());
            let records = entry.pax_extensions().unwrap().into_iter().flatten();
            let keys: Vec<_> = records.map(|record| record.unwrap().key().unwrap().to_owned()).collect();
            let header = entry.header();
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            if entry.path().unwrap() != std::path::Path::new("a/") {
                assert_eq!(
                    (header.mode().unwrap(), owner, header.mtime().unwrap(), keys),
                    (0o4750, (7, 8), 1_600_000_000, vec!["mtime".into(), "SCHILY.xattr.user.key".into()]),
                    "{}",
                    path.display()
                );
                seen.push((path.display().to_string(), is_link));
            }
        }
        assert_eq!(seen, [("a/file".to_owned(), false), ("b".to_owned(), true), ("c".to_owned(), true)]);
    }
    assert_whole(&store);
}

/// A layer has what its archive says, wherever the store is.
#[test]
fn layers_inherit_no_access_lists() {
    let dir = Dir::new("layer-lists");
    let store = open(&dir);
    drop(store.create_layer(None, &LayerOptions::named("first")).unwrap());
    let entries = [(0x01_u16, 7_u16), (0x04, 7), (0x10, 7), (0x20, 7)];
    let entries = entries.iter().flat_map(|(tag, rights)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &u32::MAX.to_le_bytes()].concat()
    });
    let list: Vec<u8> = 2_u32.to_le_bytes().into_iter().chain(entries).collect();
    let (diffs, flags) = (dir.root().join("diffs"), rustix::fs::XattrFlags::empty());
    if rustix::fs::setxattr(&diffs, "system.posix_acl_default", &list, flags).is_err() {
        skip!("this filesystem has no access lists");
    }
    let before = std::fs::read_dir(&diffs).unwrap().count();
    let members = [
        Member::directory(".").mode(0o755),
        Member::directory("d").mode(0o755),
        Member::file("d/bare", "bare").mode(0o604),
        Member::file("d/own", "own").mode(0o640).xattr("user.key", "value"),
    ];
    let sealed = store.put_layer(None, &LayerOptions::named("sealed"), &*archive(&members)).unwrap();
    drop(store.create_layer(None, &LayerOptions::named("written")).unwrap());
    let made: Vec<_> = std::fs::read_dir(&diffs).unwrap().map(|found| found.unwrap().path()).collect();
    assert_eq!(made.len(), before + 2);
    let mut seen = 0;
    for path in made.iter().flat_map(|root| ["", "d", "d/bare", "d/own"].map(|path| root.join(path))) {
        let mut names = Vec::with_capacity(1000);
        if path.exists() {
            rustix::fs::listxattr(&path, rustix::buffer::spare_capacity(&mut names)).unwrap();
            assert!(!String::from_utf8_lossy(&names).contains("posix_acl"), "{}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
    assert_eq!(exported(&store, &sealed), archive(&members));
    assert_whole(&store);
}
