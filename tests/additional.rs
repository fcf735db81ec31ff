//! Layers whose files are in an additional layer store: another program's directory, made up here.

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use layerstore::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
use layerstore::{
    AdditionalLayer, AdditionalLayerError, AdditionalLayerStore, CheckLevel, CheckOptions, CheckReport,
    ContainerOptions, DedupOptions, Digest, Error, InUseError, Layer, LayerOptions, Limits, MountOptions,
    RepairOptions, Store, StoreOptions, SyncMode, UnmountMode,
};
use serde_json::{Value, json};

use crate::support::oci::{self, Image};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine};

const REFERENCE: &str = "docker.io/library/lazy:1";
/// Its base64.
const ENCODED: &str = "ZG9ja2VyLmlvL2xpYnJhcnkvbGF6eTox";

fn toc() -> Digest {
    Digest::sha256(b"a table of contents")
}

/// The tar that the served layer came as.
fn tar() -> Vec<u8> {
    archive(&[
        Member::directory("etc").mode(0o755),
        Member::file("etc/served", b"from afar"),
        Member::file("big", vec![b'x'; 100_000]),
    ])
}

/// A made-up additional layer store with one layer, by reference or not.
pub struct Served {
    pub store: AdditionalLayerStore,
    pub layer: PathBuf,
}

impl Served {
    pub fn new(dir: &Dir, with_reference: bool) -> Self {
        Served::at(&dir.join("served"), with_reference)
    }

    fn at(root: &Path, with_reference: bool) -> Self {
        let above = if with_reference { root.join(ENCODED) } else { root.to_owned() };
        let layer = above.join(toc().to_string());
        std::fs::create_dir_all(layer.join("diff/etc")).unwrap();
        std::fs::write(layer.join("diff/etc/served"), "from afar").unwrap();
        std::fs::write(layer.join("diff/big"), vec![b'x'; 100_000]).unwrap();
        std::fs::write(layer.join("blob"), gzip(&tar())).unwrap();
        let served = Served { store: AdditionalLayerStore::at(root).with_reference(with_reference), layer };
        served.say(&Served::info());
        served
    }

    /// What it says of the layer.
    fn info() -> Value {
        let blob = gzip(&tar());
        json!({
            "toc-digest": toc().to_string(),
            "compressed-diff-digest": Digest::sha256(&blob).to_string(),
            "compressed-size": blob.len(),
            "diff-digest": Digest::sha256(&tar()).to_string(),
            "diff-size": tar().len(),
            "compression": 2,
            "uidset": [0],
            "gidset": [0],
            "flags": { "lazy": true },
        })
    }

    fn say(&self, info: &Value) {
        std::fs::write(self.layer.join("info"), info.to_string()).unwrap();
    }

    pub fn open(&self, dir: &Dir) -> Store {
        Store::open(&self.options(dir)).unwrap()
    }

    fn options(&self, dir: &Dir) -> StoreOptions {
        let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
        options.additional_layer_store(self.store.clone())
    }

    /// Runs `body` and says whether it told the store that the layer is used: then `use` is made, and as this store does not
    /// count, removed.
    fn is_told<T>(&self, body: impl FnOnce() -> T) -> (T, bool) {
        let sign = self.layer.join("use");
        std::fs::write(&sign, "").unwrap();
        let value = body();
        let told = !sign.exists();
        std::fs::remove_file(&sign).ok();
        (value, told)
    }

    /// Takes the layer's files away, so that its directory goes with the next release.
    pub fn vanish(&self) {
        std::fs::remove_dir_all(self.layer.join("diff")).unwrap();
        std::fs::remove_file(self.layer.join("info")).unwrap();
        std::fs::remove_file(self.layer.join("blob")).unwrap();
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn found(store: &Store) -> AdditionalLayer {
    store.lookup_additional_layer(&toc(), REFERENCE).unwrap().unwrap()
}

pub fn put(store: &Store) -> Layer {
    found(store).put_as(None, &LayerOptions::named("lazy")).unwrap()
}

fn tar_of(store: &Store, layer: &Layer) -> Vec<u8> {
    let mut out = Vec::new();
    store.diff(layer, &mut out).unwrap();
    out
}

fn check(store: &Store) -> CheckReport {
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    store.check(&options).unwrap()
}

#[test]
fn a_layer_is_found_and_put() {
    for with_reference in [false, true] {
        let dir = Dir::new("additional");
        let served = Served::new(&dir, with_reference);
        let store = served.open(&dir);
        assert!(store.lookup_additional_layer(&Digest::sha256(b"other"), REFERENCE).unwrap().is_none());
        let other = store.lookup_additional_layer(&toc(), "docker.io/library/other:1").unwrap();
        assert_eq!(other.is_none(), with_reference);
        drop(other);

        let (lazy, told) = served.is_told(|| found(&store));
        assert!(told);
        let info = lazy.info();
        assert_eq!((info.uids.as_slice(), info.diff_size), (&[0][..], Some(tar().len() as u64)));
        let mut blob = Vec::new();
        lazy.blob().unwrap().read_to_end(&mut blob).unwrap();
        assert_eq!(Some(Digest::sha256(&blob)), info.blob_digest);
        assert_eq!(lazy.path(), served.layer);

        let (layer, told) = served.is_told(|| lazy.put_as(None, &LayerOptions::named("lazy")).unwrap());
        assert!(told, "the layer is used by itself");
        lazy.release();
        assert_eq!(layer.additional.as_deref(), Some(served.layer.as_path()));
        assert!(layer.tree.is_none() && !layer.is_writable() && layer.read_only);
        assert_eq!(layer.toc_digest, Some(toc()));
        assert_eq!(layer.diff_id.as_ref().unwrap().0, Digest::sha256(&tar()));
        assert_eq!(layer.blob_size(), Some(blob.len() as u64));
        assert_eq!(layer.flags, [("lazy".to_owned(), "true".to_owned())]);
        let by_toc = store.layers_by_toc_digest(&toc()).unwrap();
        assert_eq!(by_toc.iter().map(|found| &found.id).collect::<Vec<_>>(), [&layer.id]);

        // Another handle finds it without knowing the store, as after a reboot.
        drop(store);
        let plain = crate::support::store::open(&dir);
        assert_eq!(plain.layer("lazy").unwrap(), layer);
        assert_eq!(tar_of(&plain, &layer), tar());
    }
}

/// What is said twice, in a store that is named for several references, or not at all.
#[test]
fn an_id_or_name_that_is_taken_is_an_error_and_the_layer_is_given_back() {
    let dir = Dir::new("additional-taken");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let layer = put(&store);
    let again = found(&store);
    let taken = again.put_as(None, &LayerOptions::with_id(layer.id.clone()));
    assert!(matches!(taken, Err(Error::Create(_))), "{taken:?}");
    let taken = again.put_as(None, &LayerOptions::named("lazy"));
    assert!(matches!(taken, Err(Error::Meta(_))), "{taken:?}");
    let above = again.put_as(&layer.id, &LayerOptions::named("above")).unwrap();
    assert_eq!(above.parent, Some(layer.id.clone()));
    assert!(matches!(store.remove_layer(&layer.id), Err(Error::InUse(_))));
}

#[test]
fn what_a_store_says_is_looked_at() {
    let dir = Dir::new("additional-bad");
    let served = Served::new(&dir, true);
    let store = served.open(&dir);
    let lookup = || store.lookup_additional_layer(&toc(), REFERENCE);
    for bad in
        ["", "{", "[]", "{\"diff-size\": -1}", "{\"compression\": 9}", "{\"diff-digest\": \"sha256:1\"}"]
    {
        std::fs::write(served.layer.join("info"), bad).unwrap();
        let error = lookup().unwrap_err();
        assert!(
            matches!(error, Error::AdditionalLayer(AdditionalLayerError::Info { .. })),
            "{bad}: {error:?}"
        );
    }
    // A file that never ends.
    let endless = std::fs::File::create(served.layer.join("info")).unwrap();
    endless.set_len(1 << 40).unwrap();
    assert!(matches!(lookup(), Err(Error::AdditionalLayer(AdditionalLayerError::Limit(_)))));
    let mut info = Served::info();
    info["toc-digest"] = json!(Digest::sha256(b"another").to_string());
    served.say(&info);
    assert!(matches!(lookup(), Err(Error::AdditionalLayer(AdditionalLayerError::Other { .. }))));
    // One that has no blob is none.
    served.say(&Served::info());
    std::fs::remove_file(served.layer.join("blob")).unwrap();
    assert!(lookup().unwrap().is_none());
    assert!(store.layers().unwrap().is_empty());
}

#[test]
fn the_first_store_that_has_it_counts() {
    let dir = Dir::new("additional-order");
    let (first, second) = (Served::at(&dir.join("first"), false), Served::at(&dir.join("second"), true));
    let options = first.options(&dir).additional_layer_stores([first.store.clone(), second.store.clone()]);
    let store = Store::open(&options).unwrap();
    assert_eq!(found(&store).path(), first.layer);
    std::fs::remove_dir_all(dir.join("first")).unwrap();
    assert_eq!(found(&store).path(), second.layer);
}

#[test]
fn containers_are_mounted_above_it_and_nothing_writes_into_it() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("additional-mount");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let layer = put(&store);
    let above = store.create_layer(&layer.id, &LayerOptions::named("above")).unwrap();
    let mount = store.mount(&above, &MountOptions::default()).unwrap();
    assert_eq!(std::fs::read_to_string(mount.path().join("etc/served")).unwrap(), "from afar");
    std::fs::write(mount.path().join("etc/served"), "changed").unwrap();
    std::fs::remove_file(mount.path().join("big")).unwrap();
    store.unmount(&above, UnmountMode::Plain).unwrap();
    assert_eq!(std::fs::read_to_string(served.layer.join("diff/etc/served")).unwrap(), "from afar");
    let changes = store.changes(&above).unwrap();
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["D /big", "C /etc", "C /etc/served"]);

    // By itself it is shown, and never written to.
    let mut options = MountOptions::default();
    options.unseal = true;
    options.change_under_others = true;
    let view = store.mount(&layer, &options).unwrap();
    assert!(view.read_only && std::fs::write(view.path().join("new"), "").is_err());
    assert!(matches!(store.remove_layer(&layer.id), Err(Error::InUse(_))));
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    assert!(matches!(store.unseal(&layer.id), Err(Error::InUse(InUseError::ReadOnly { .. }))));
    let mut apply = layerstore::ApplyOptions::default();
    apply.change_under_others = true;
    let more = archive(&[Member::file("more", b"more")]);
    let applied = store.apply_diff(&layer.id, &*more, &apply);
    assert!(matches!(applied, Err(Error::InUse(InUseError::ReadOnly { .. }))), "{applied:?}");
    assert!(!served.layer.join("diff/more").exists());
}

#[test]
fn it_goes_out_as_it_was_delivered_or_as_its_tree_is() {
    let dir = Dir::new("additional-diff");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let layer = put(&store);
    assert_eq!(tar_of(&store, &layer), tar());
    // With a blob that is another, its tree is what there is.
    std::fs::write(served.layer.join("blob"), gzip(b"something else")).unwrap();
    let other = tar_of(&store, &layer);
    assert_ne!(other, tar());
    let unpacked = store.put_layer(None, &LayerOptions::named("unpacked"), &*other).unwrap();
    let differences = store.changes_since(&unpacked, &layer).unwrap();
    assert!(differences.is_empty(), "{differences:?}");
    std::fs::write(served.layer.join("blob"), "no gzip").unwrap();
    assert_eq!(tar_of(&store, &layer), other);
    // So if nobody knows what the blob should be.
    let mut info = Served::info();
    info.as_object_mut().unwrap().remove("diff-digest");
    served.say(&info);
    let unknown = found(&store).put_as(None, &LayerOptions::named("unknown")).unwrap();
    assert_eq!((&unknown.diff_id, tar_of(&store, &unknown)), (&None, other));
}

/// What is granted is for what comes in: nobody made this layer just now.
#[test]
fn it_goes_out_whatever_is_granted_to_new_layers() {
    let dir = Dir::new("additional-limits");
    let served = Served::new(&dir, false);
    put(&served.open(&dir));
    let mut limits = Limits::default();
    (limits.unpacked_bytes, limits.expansion, limits.expansion_floor) = (1000, 1, 0);
    (limits.hole_bytes, limits.window_bytes) = (0, 1);
    let store = Store::open(&served.options(&dir).limits(limits)).unwrap();
    let layer = store.layer("lazy").unwrap();
    assert_eq!(tar_of(&store, &layer), tar());
}

/// Changes a file as soon as something is written.
struct ChangesMeanwhile<'p>(Option<&'p Path>);

impl Write for ChangesMeanwhile<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(path) = self.0.take() {
            let file = std::fs::OpenOptions::new().write(true).open(path)?;
            file.write_all_at(b"another", file.metadata()?.len() / 2)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blob_that_changes_while_it_is_read_is_an_error() {
    let dir = Dir::new("additional-changes");
    let served = Served::new(&dir, false);
    // As it is, so that a change is one of the content only.
    let tar = archive(&[Member::file("etc/served", b"from afar"), Member::file("big", vec![b'y'; 4 << 20])]);
    let blob = served.layer.join("blob");
    std::fs::write(&blob, &tar).unwrap();
    let mut info = Served::info();
    for key in ["diff-digest", "compressed-diff-digest"] {
        info[key] = Digest::sha256(&tar).to_string().into();
    }
    served.say(&info);
    let store = served.open(&dir);
    let layer = put(&store);
    assert_eq!(tar_of(&store, &layer), tar);
    let changed = store.diff(&layer, ChangesMeanwhile(Some(&blob)));
    let is_told =
        |error: &Error| matches!(error, Error::AdditionalLayer(AdditionalLayerError::Changed { .. }));
    assert!(changed.as_ref().is_err_and(is_told), "{changed:?}");
}

#[test]
fn it_takes_no_space_here_and_a_copy_of_it_does() {
    let dir = Dir::new("additional-space");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let layer = put(&store);
    let usage = store.usage(&layer).unwrap();
    assert_eq!((usage.total, usage.unique, usage.inodes), (0, 0, 0));
    assert_eq!(store.size(&layer).unwrap(), 100_009);
    assert_eq!(store.layer_size(&layer.id).unwrap(), None);
    let mut options = LayerOptions::named("copy");
    options.template = Some(layer.id.clone());
    let copy = store.create_layer(None, &options).unwrap();
    assert!(copy.additional.is_none());
    let seen = store.size(&copy).unwrap();
    assert_eq!(seen, 100_009);
    assert!(store.changes_since(&copy, &layer).unwrap().is_empty());
    // Sharing extents is asked of this store's own files alone.
    match store.dedup(&DedupOptions::default()) {
        Ok(report) => assert_eq!(report.candidates, 0),
        Err(error) => assert!(matches!(error, Error::CannotShare { .. }), "{error}"),
    }
    let status = store.status().unwrap();
    assert_eq!(status.layers, 2);
}

#[test]
fn removing_it_gives_it_back() {
    let dir = Dir::new("additional-remove");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let layer = put(&store);
    // A store that does not count keeps its files.
    store.remove_layer(&layer.id).unwrap();
    assert!(served.layer.join("diff/etc/served").exists());
    let layer = put(&store);
    // One that is empty shows that it was told, by the directory that goes.
    served.vanish();
    assert!(served.layer.exists());
    store.remove_layer(&layer.id).unwrap();
    assert!(!served.layer.exists());
    assert!(store.gc(true).unwrap().removed.is_empty());
}

#[test]
fn dropping_what_was_found_gives_it_back() {
    let dir = Dir::new("additional-drop");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let lazy = found(&store);
    served.vanish();
    drop(lazy);
    assert!(!served.layer.exists());
}

#[test]
fn a_check_says_what_it_cannot_verify_and_what_is_gone() {
    let dir = Dir::new("additional-check");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let layer = put(&store);
    let report = check(&store);
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.notes.iter().map(layerstore::Note::code).collect::<Vec<_>>(), ["served"]);
    let told = dir.layerstore(["check"]).stdout();
    assert!(
        told.contains("is served by an additional layer store from") && !told.contains("not synced"),
        "{told}"
    );
    assert!(store.gc(true).unwrap().removed.is_empty());
    // Changes there are not seen: nothing says what should be in it.
    std::fs::write(served.layer.join("diff/etc/served"), "another").unwrap();
    assert!(check(&store).is_clean());

    let hidden = dir.join("hidden");
    std::fs::rename(dir.join("served"), &hidden).unwrap();
    let report = check(&store);
    assert_eq!(report.findings.iter().map(|found| found.code()).collect::<Vec<_>>(), ["additional-missing"]);
    let refused = store.diff(&layer, std::io::sink()).unwrap_err();
    assert!(matches!(refused, Error::AdditionalLayer(AdditionalLayerError::Missing { .. })), "{refused:?}");
    if machine::is_root() {
        let refused = store.mount(&layer, &MountOptions::default()).unwrap_err();
        assert!(
            matches!(refused, Error::AdditionalLayer(AdditionalLayerError::Missing { .. })),
            "{refused:?}"
        );
    }
    // It may come back: so a repair leaves it, with force too.
    let mut options = RepairOptions::default();
    options.force = true;
    let repaired = store.repair(&options).unwrap();
    assert!(repaired.repaired.is_empty() && repaired.failed.is_empty(), "{repaired:?}");
    assert_eq!(repaired.left.len(), 1);
    assert_eq!(store.layer("lazy").unwrap(), layer);
    std::fs::rename(hidden, dir.join("served")).unwrap();
    assert!(check(&store).is_clean());
    std::fs::remove_dir_all(dir.join("served")).unwrap();
    store.remove_layer(&layer.id).unwrap();
    assert!(check(&store).is_clean());
}

/// Writes an image of the served layer and one above, and names the table of contents in its manifest.
fn image(dir: &Dir) -> oci::WrittenImage {
    let name_toc: fn(&mut Value) = |manifest| {
        let toc = toc().to_string();
        manifest["layers"][0]["annotations"] = json!({ "containerd.io/snapshot/stargz/toc.digest": toc });
    };
    let top = oci::Layer::new([Member::file("top", b"top")]);
    Image::new([oci::Layer::from_tar(tar()), top]).manifest(name_toc).write(dir.join("layout"), "lazy")
}

fn load(store: &Store, written: &oci::WrittenImage) -> layerstore::Image {
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named("lazy:1")).unwrap()
}

fn bottom_of(store: &Store, image: &layerstore::Image) -> Layer {
    let top = store.layer(image.top_layer.as_ref().unwrap().as_str()).unwrap();
    store.layer(top.parent.unwrap().as_str()).unwrap()
}

#[test]
fn an_image_is_loaded_with_what_is_there() {
    for with_reference in [false, true] {
        let dir = Dir::new("additional-load");
        let served = Served::new(&dir, with_reference);
        let store = served.open(&dir);
        let written = image(&dir);
        // Its blob is not read.
        let source = std::fs::read(written.layout.join("index.json")).unwrap();
        let blob = oci::blob_path(&written.layout, &Digest::sha256(&gzip(&tar())).to_string());
        let bytes = std::fs::read(&blob).unwrap();
        std::fs::write(&blob, vec![0; bytes.len()]).unwrap();
        let loaded = load(&store, &written);
        let bottom = bottom_of(&store, &loaded);
        assert_eq!(bottom.additional.as_deref(), Some(served.layer.as_path()));
        assert_eq!(bottom.diff_id.as_ref().unwrap().to_string(), written.diff_ids[0]);
        assert!(check(&store).is_clean());
        // Loading it again changes nothing.
        assert_eq!(load(&store, &written).id, loaded.id);
        assert_eq!(source, std::fs::read(written.layout.join("index.json")).unwrap());

        // It goes out as it came in, and a container of it can be committed.
        let saved = format!("oci:{}:lazy", dir.join("saved").display()).parse().unwrap();
        let out = store.save(&loaded.id, &saved, &SaveOptions::default()).unwrap();
        assert!(out.unchanged);
        assert_eq!(
            std::fs::read(oci::blob_path(&dir.join("saved"), &Digest::sha256(&bytes).to_string())).unwrap(),
            bytes
        );
        let web = store.create_container(&loaded.id, &ContainerOptions::named("web")).unwrap();
        let committed = store.commit(&web.id, &CommitOptions::named("web:1")).unwrap();
        assert_eq!(store.layer(committed.top_layer.unwrap().as_str()).unwrap().parent, loaded.top_layer);
        // With another blob than it had, the store's tree is compressed anew.
        std::fs::write(served.layer.join("blob"), "other").unwrap();
        let saved = format!("oci:{}:lazy", dir.join("tree").display()).parse().unwrap();
        assert!(!store.save(&loaded.id, &saved, &SaveOptions::default()).unwrap().unchanged);
    }
}

#[test]
fn a_layer_of_another_content_is_not_used() {
    let dir = Dir::new("additional-load-other");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let written = image(&dir);
    for key in ["diff-digest", "compressed-diff-digest", "toc-digest"] {
        let mut info = Served::info();
        info[key] = json!(Digest::sha256(b"other").to_string());
        served.say(&info);
        let loaded = load(&store, &written);
        assert_eq!(bottom_of(&store, &loaded).additional, None, "{key}");
        store.remove_image(&loaded.id).unwrap();
    }
    std::fs::write(served.layer.join("info"), "broken").unwrap();
    let loaded = load(&store, &written);
    assert_eq!(bottom_of(&store, &loaded).additional, None);
}

/// What serves a layer fails when its files are listed: there is the blob.
#[test]
fn a_layer_that_cannot_be_listed_is_unpacked() {
    let dir = Dir::new("additional-load-broken");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let written = image(&dir);
    std::fs::remove_dir_all(served.layer.join("diff")).unwrap();
    std::fs::write(served.layer.join("diff"), "no directory").unwrap();
    let loaded = load(&store, &written);
    let bottom = bottom_of(&store, &loaded);
    assert!(bottom.additional.is_none() && bottom.tree.is_some());
    assert_eq!(tar_of(&store, &bottom), tar());
}

/// An archive can have brought them.
#[test]
fn marks_of_overlayfs_in_a_served_layer_lead_nowhere() {
    let dir = Dir::new("additional-marks");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let namespace = if machine::is_real_root() { "trusted" } else { "user" };
    let mark = |path: &str, name: &str, value: &[u8]| {
        let name = format!("{namespace}.overlay.{name}");
        rustix::fs::setxattr(served.layer.join(path), name, value, rustix::fs::XattrFlags::empty())
    };
    if mark("diff/etc", "redirect", b"/elsewhere").is_err() {
        skip!("the filesystem keeps no such attributes");
    }
    mark("diff/big", "metacopy", b"").unwrap();
    let loaded = load(&store, &image(&dir));
    let bottom = bottom_of(&store, &loaded);
    assert_eq!(bottom.additional.as_deref(), Some(served.layer.as_path()));
    std::fs::write(served.layer.join("blob"), "other").unwrap();
    let names = |tar: &[u8]| -> Vec<PathBuf> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|entry| entry.path().unwrap().into_owned()).collect()
    };
    let found = names(&tar_of(&store, &bottom));
    assert!(["etc/served", "big"].iter().all(|name| found.contains(&name.into())), "{found:?}");
}

#[test]
fn an_image_whose_store_is_gone_can_be_loaded_again() {
    let dir = Dir::new("additional-reload");
    let served = Served::new(&dir, false);
    let store = served.open(&dir);
    let written = image(&dir);
    let first = load(&store, &written);
    std::fs::remove_dir_all(dir.join("served")).unwrap();
    let again = load(&store, &written);
    assert_eq!(first.id, again.id);
    let bottom = bottom_of(&store, &again);
    assert!(bottom.additional.is_none() && bottom.tree.is_some() && !bottom.read_only);
    assert_eq!(tar_of(&store, &bottom), tar());
    crate::support::store::assert_whole(&store);
    let removed = store.remove_image(&again.id).unwrap();
    assert_eq!(removed.len(), 2);
    crate::support::store::assert_whole(&store);
}

/// Of several at a time one puts it, and the others are told that it is there.
#[test]
fn one_of_several_puts_it() {
    let dir = Dir::new("additional-race");
    let served = Arc::new(Served::new(&dir, false));
    served.open(&dir);
    let puts = std::thread::scope(|scope| {
        let put = || {
            let store = served.open(&dir);
            found(&store).put_as(None, &LayerOptions::named("lazy")).is_ok()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(put)).collect();
        threads.into_iter().filter(|_| true).map(|thread| thread.join().unwrap()).filter(|put| *put).count()
    });
    assert_eq!(puts, 1);
    let store = served.open(&dir);
    assert_eq!(store.layers().unwrap().len(), 1);
    assert!(check(&store).is_clean());
}

#[test]
fn another_process_uses_it_by_a_file_of_configuration() {
    let dir = Dir::new("additional-config");
    let served = Served::new(&dir, true);
    let written = image(&dir);
    let stores = format!("{}:ref", served.store.path().display());
    let text =
        format!("[storage]\ndriver = 'overlay'\n[storage.options]\nadditionallayerstores = ['{stores}']\n");
    let config = dir.write("storage.conf", text);
    let with = |words: &[&str]| dir.layerstore(["--config", config.to_str().unwrap()]).args(words);
    let shown = with(&["config", "--json"]).json();
    assert!(shown.to_string().contains("with_reference\":true"), "{shown}");
    assert!(!shown.to_string().contains("without effect"));
    with(&["load", &written.reference(), "--name", "lazy:1"]).assert_success();
    let store = served.open(&dir);
    let bottom = bottom_of(&store, &store.image("lazy:1").unwrap());
    assert_eq!(bottom.additional.as_deref(), Some(served.layer.as_path()));
    let inspected = with(&["inspect", bottom.id.as_str()]).json();
    assert!(inspected.to_string().contains("\"additional\":\""), "{inspected}");
    served.vanish();
    with(&["rmi", "lazy:1"]).assert_success();
    assert!(!served.layer.exists(), "the other program is told");
}

#[test]
fn its_record_is_in_the_separate_store_for_images() {
    let dir = Dir::new("additional-images");
    let served = Served::new(&dir, false);
    let store = Store::open(&served.options(&dir).image_store_root(dir.join("images"))).unwrap();
    let layer = put(&store);
    let images = store.separate_images().unwrap();
    assert!(images.layer("lazy").is_ok());
    let reader = StoreOptions::at(dir.join("reader")).image_store(dir.join("images")).sync(SyncMode::Off);
    let reader = Store::open(&reader.reserve(0)).unwrap();
    let seen = reader.layer("lazy").unwrap();
    assert_eq!(seen.additional, layer.additional);
    assert_eq!(tar_of(&reader, &seen), tar());
    if machine::is_root() {
        let web = reader.create_layer(&seen.id, &LayerOptions::named("web")).unwrap();
        let mount = reader.mount(&web, &MountOptions::default()).unwrap();
        assert!(mount.path().join("etc/served").exists());
        reader.unmount(&web, UnmountMode::Plain).unwrap();
    }
    assert!(matches!(reader.remove_layer(&seen.id), Err(Error::InOtherStore { .. })));
    store.remove_layer(&layer.id).unwrap();
    assert!(images.layers().unwrap().is_empty());
}
