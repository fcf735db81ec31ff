//! How mounts are written down: as containerd's overlay snapshotter does it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use layerstore::snapshotter::{Code, CommitOptions, Snapshotter, SnapshotterOptions};
use layerstore::{MountEntry, Store, StoreOptions};

use super::{Snapshots, assert_code, none};
use crate::support::machine;
use crate::support::mounter::{Mounted, shorten};

/// What each overlay mount says besides its directories. A namespace has one word more.
const OPTIONS: [&str; 3] = ["redirect_dir=nofollow", "metacopy=off", "index=off"];

fn commit(snapshots: &Snapshots, name: &str, parent: Option<&str>) {
    let key = format!("{name}-active");
    snapshots.prepare(&key, parent, &none()).unwrap();
    snapshots.commit(name, &key, &CommitOptions::default()).unwrap();
}

fn words(entry: &MountEntry) -> Vec<&str> {
    entry.options.iter().map(|word| word.to_str().unwrap()).collect()
}

/// The paths of an option.
fn paths<'e>(entry: &'e MountEntry, key: &str) -> Vec<&'e Path> {
    let word = words(entry).into_iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    word.map_or_else(Vec::new, |paths| paths.split(':').map(Path::new).collect())
}

fn single(mut entries: Vec<MountEntry>) -> MountEntry {
    assert_eq!(entries.len(), 1);
    entries.pop().unwrap()
}

#[test]
fn nothing_below_is_a_bind() {
    let snapshots = Snapshots::new("snapshot-bind");
    let active = single(snapshots.prepare("active", None, &none()).unwrap());
    assert_eq!((active.kind.as_str(), words(&active)), ("bind", vec!["rw", "rbind"]));
    assert!(
        Path::new(&active.source).starts_with(snapshots.dir.root()) && Path::new(&active.source).is_dir()
    );
    let view = single(snapshots.view("view", None, &none()).unwrap());
    assert_eq!((view.kind.as_str(), words(&view)), ("bind", vec!["ro", "rbind"]));
    assert_ne!(view.source, active.source);
    assert_eq!(snapshots.mounts("active").unwrap(), [active]);
}

#[test]
fn something_below_is_an_overlay() {
    if !machine::is_root() {
        skip!("whether there can be overlay mounts is found out by root, or in a user namespace");
    }
    let snapshots = Snapshots::new("snapshot-overlay");
    let base = single(snapshots.prepare("base-active", None, &none()).unwrap());
    snapshots.commit("base", "base-active", &CommitOptions::default()).unwrap();
    let active = single(snapshots.prepare("active", Some("base"), &none()).unwrap());
    assert_eq!((active.kind.as_str(), active.source.to_str()), ("overlay", Some("overlay")));
    assert_eq!(active.directory, None);
    let keys: Vec<&str> = words(&active)[..3].iter().map(|word| word.split('=').next().unwrap()).collect();
    assert_eq!(keys, ["workdir", "upperdir", "lowerdir"]);
    assert_eq!(words(&active)[3..6], OPTIONS);
    assert_eq!(paths(&active, "lowerdir"), [Path::new(&base.source)]);
    let [upper, work] = ["upperdir", "workdir"].map(|key| paths(&active, key)[0]);
    assert!(upper.is_dir() && work.is_dir() && upper != work);
    assert_eq!(snapshots.mounts("active").unwrap(), [active]);
}

#[test]
fn a_view_has_no_upper_directory() {
    if !machine::is_root() {
        skip!("whether there can be overlay mounts is found out by root, or in a user namespace");
    }
    let snapshots = Snapshots::new("snapshot-views");
    let base = single(snapshots.prepare("base-active", None, &none()).unwrap());
    snapshots.commit("base", "base-active", &CommitOptions::default()).unwrap();
    let one = single(snapshots.view("one", Some("base"), &none()).unwrap());
    assert_eq!((one.kind.as_str(), words(&one)), ("bind", vec!["ro", "rbind"]));
    assert_eq!(one.source, base.source);
    let active = single(snapshots.prepare("next-active", Some("base"), &none()).unwrap());
    std::fs::write(paths(&active, "upperdir")[0].join("file"), "file").unwrap();
    let upper = paths(&active, "upperdir")[0].to_owned();
    snapshots.commit("next", "next-active", &CommitOptions::default()).unwrap();
    let two = single(snapshots.view("two", Some("next"), &none()).unwrap());
    assert_eq!(two.kind, "overlay");
    assert_eq!(paths(&two, "lowerdir"), [upper.as_path(), Path::new(&base.source)]);
    assert_eq!((paths(&two, "upperdir").len(), paths(&two, "workdir").len()), (0, 0));
    assert_code(snapshots.mounts("next"), Code::FailedPrecondition);
    assert_code(snapshots.mounts("missing"), Code::NotFound);
}

#[test]
fn configured_options_are_not_overridden() {
    if !machine::is_root() {
        skip!("whether there can be overlay mounts is found out by root, or in a user namespace");
    }
    let mut options = SnapshotterOptions::default();
    options.mount_options = ["index=on", "volatile", "nodev"].map(str::to_owned).to_vec();
    let snapshots = Snapshots::with("snapshot-options", options);
    commit(&snapshots, "base", None);
    // An empty layer has the directory of the other empty one, and each directory is stacked once.
    let key = "next-active";
    let active = single(snapshots.prepare(key, Some("base"), &none()).unwrap());
    std::fs::write(paths(&active, "upperdir")[0].join("file"), "file").unwrap();
    snapshots.commit("next", key, &CommitOptions::default()).unwrap();
    let active = single(snapshots.prepare("active", Some("next"), &none()).unwrap());
    let has = |entry: &MountEntry, word: &str| words(entry).contains(&word);
    for word in ["index=on", "volatile", "nodev", "metacopy=off"] {
        assert!(has(&active, word), "{word}: {active:?}");
    }
    assert!(!has(&active, "index=off"));
    let view = single(snapshots.view("view", Some("next"), &none()).unwrap());
    assert!(has(&view, "index=on") && has(&view, "nodev") && !has(&view, "volatile"), "{view:?}");
    // Binds have none of them.
    assert_eq!(words(&single(snapshots.view("bind", Some("base"), &none()).unwrap())), ["ro", "rbind"]);
}

#[test]
fn what_is_mounted_without_syncs_is_committed_in_the_same_boot() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let mut options = SnapshotterOptions::default();
    options.mount_options = vec!["volatile".to_owned()];
    let snapshots = Snapshots::with("snapshot-volatile", options.clone());
    commit(&snapshots, "base", None);
    let mark = |key: &str| {
        let active = single(snapshots.mounts(key).unwrap());
        paths(&active, "workdir")[0].join("work/incompat/volatile")
    };
    let write = |key: &str| {
        snapshots.prepare(key, Some("base"), &none()).unwrap();
        std::fs::write(snapshots.mount(key).path().join(key), key).unwrap();
        // The client is told again, and the kernel's mark is there by then.
        assert!(mark(key).exists());
    };
    write("first");
    snapshots.commit("committed", "first", &CommitOptions::default()).unwrap();
    snapshots.view("view", Some("committed"), &none()).unwrap();
    assert_eq!(std::fs::read_to_string(snapshots.mount("view").path().join("first")).unwrap(), "first");
    // In another boot, nothing is known of who has mounted it.
    write("second");
    let store = StoreOptions::at(snapshots.dir.root()).run_root(snapshots.dir.join("another-boot"));
    let another = Snapshotter::new(Store::open(&store).unwrap(), options).unwrap();
    another.mounts("second").unwrap();
    let refused = another.commit("doubtful", "second", &CommitOptions::default()).unwrap_err();
    assert!(format!("{refused:?}").contains("VolatileLeft"), "{refused:?}");
    snapshots.remove("second").unwrap();
}

#[test]
fn equal_layers_are_stacked_once() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let snapshots = Snapshots::new("snapshot-equal");
    snapshots.layer("base", None, |root| std::fs::write(root.join("a"), "a").unwrap());
    let mut parent = "base".to_owned();
    for name in ["one", "two", "three"] {
        snapshots.layer(name, Some(&parent), |_| {});
        parent = name.to_owned();
    }
    let active = single(snapshots.prepare("active", Some(&parent), &none()).unwrap());
    let lowers = paths(&active, "lowerdir");
    let different: std::collections::HashSet<_> = lowers.iter().collect();
    assert_eq!(lowers.len(), different.len());
    assert_eq!(std::fs::read_to_string(snapshots.mount("active").join("a")).unwrap(), "a");
}

#[test]
fn what_hides_all_below_is_seen_alone() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let snapshots = Snapshots::new("snapshot-hides");
    snapshots.layer("base", None, |root| std::fs::write(root.join("below"), "below").unwrap());
    let active = single(snapshots.prepare("key", Some("base"), &none()).unwrap());
    let upper = paths(&active, "upperdir")[0];
    std::fs::write(upper.join("above"), "above").unwrap();
    let class = if words(&active).contains(&"userxattr") { "user" } else { "trusted" };
    let attribute = format!("{class}.overlay.opaque");
    rustix::fs::setxattr(upper, attribute.as_str(), b"y", rustix::fs::XattrFlags::empty()).unwrap();
    snapshots.commit("next", "key", &CommitOptions::default()).unwrap();
    let view = single(snapshots.view("view", Some("next"), &none()).unwrap());
    assert_eq!((view.kind.as_str(), paths(&view, "lowerdir").len()), ("overlay", 2));
    let names = |mounted: &Mounted| {
        std::fs::read_dir(mounted.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect::<Vec<OsString>>()
    };
    assert_eq!(names(&snapshots.mount("view")), ["above"]);
    snapshots.prepare("again", Some("next"), &none()).unwrap();
    assert_eq!(names(&snapshots.mount("again")), ["above"]);
}

#[test]
fn many_lower_directories_fit_a_page() {
    if !machine::is_root() {
        skip!("whether there can be overlay mounts is found out by root, or in a user namespace");
    }
    let snapshots = Snapshots::new("snapshot-page");
    commit(&snapshots, "base", None);
    let mut parent = "base".to_owned();
    for level in 0..100 {
        let (key, name) = (format!("key-{level}"), format!("level-{level}"));
        let mounts = snapshots.prepare(&key, Some(&parent), &none()).unwrap();
        std::fs::write(paths(&mounts[0], "upperdir")[0].join(format!("file-{level}")), "").unwrap();
        snapshots.commit(&name, &key, &CommitOptions::default()).unwrap();
        parent = name;
    }
    let entry = single(snapshots.prepare("active", Some(&parent), &none()).unwrap());
    assert_eq!(paths(&entry, "lowerdir").len(), 101);
    let mut options = entry.options.clone();
    assert_ne!(shorten(&mut options), Path::new("/"));
    assert!(options.join(",".as_ref()).len() < 4096);
    let mounted = Mounted::new(&[entry], snapshots.dir.join("mnt"));
    assert_eq!(std::fs::read_dir(mounted.path()).unwrap().count(), 100);
}

#[test]
fn layers_that_do_not_fit_a_page_are_refused() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    // The directories of the snapshot itself have long paths, so that fewer layers do.
    let dir = crate::support::Dir::new("snapshot-page-full");
    let root = dir.join(["d".repeat(200).as_str(); 5].join("/"));
    std::fs::create_dir_all(root.parent().unwrap()).unwrap();
    let options = StoreOptions::at(root).run_root(dir.run_root()).sync(layerstore::SyncMode::Off).reserve(0);
    let store = Store::open(&options).unwrap();
    let snapshotter = Snapshotter::new(store.clone(), SnapshotterOptions::default()).unwrap();
    let snapshots = Snapshots { dir, store, snapshotter };
    let names: Vec<String> = (0..150).map(|level| format!("level-{level}")).collect();
    let mut onto = CommitOptions::default();
    for name in &names {
        let source = single(snapshots.prepare("key", None, &none()).unwrap()).source;
        std::fs::write(Path::new(&source).join(name), "").unwrap();
        snapshots.commit(name, "key", &onto).unwrap();
        onto.parent = Some(name.clone());
    }
    // Numbers are of fifteen digits or sixteen, so that what has no room may have it when it is tried once more.
    let mut refused = BTreeMap::new();
    let count = names.partition_point(|name| match snapshots.prepare("active", Some(name), &none()) {
        Ok(_) => snapshots.remove("active").is_ok(),
        Err(error) => {
            refused.insert(name.clone(), error);
            false
        }
    });
    let error = &refused[&names[count]];
    let text = error.to_string();
    assert_eq!(error.code(), Code::FailedPrecondition, "{text}");
    assert!(text.contains(&format!("{} layers", count + 1)) && text.contains("fewer layers"), "{text}");
    assert_code(snapshots.stat("active"), Code::NotFound);

    // Not one too early: the last that is handed out is mounted, and there is no room for another.
    let tries = std::iter::repeat_with(|| snapshots.prepare("active", Some(&names[count - 1]), &none()));
    let entry = single(tries.take(1000).find_map(Result::ok).unwrap());
    let (number, mut options) = (paths(&entry, "lowerdir")[0].file_name().unwrap().len(), entry.options);
    shorten(&mut options);
    let length = options.join(",".as_ref()).len();
    // Numbers differ by a digit or two.
    let another = ":".len() + number + 8;
    assert!(length < 4096 && length + another >= 4096, "{length}");
    assert_eq!(std::fs::read_dir(snapshots.mount("active").path()).unwrap().count(), count);
    // Options count; attributes of the mount are no part of them.
    for (words, fits) in
        [(&["nodev", "nosuid", "noexec"][..], true), (&["xino=auto", "uuid=auto", "nfs_export=off"], false)]
    {
        let mut options = SnapshotterOptions::default();
        options.mount_options = words.iter().map(|word| (*word).to_owned()).collect();
        match Snapshotter::new(snapshots.store.clone(), options).unwrap().mounts("active") {
            Ok(entries) => assert!(fits, "{entries:?}"),
            Err(error) => assert!(!fits && error.code() == Code::FailedPrecondition, "{error}"),
        }
    }
}

#[test]
fn a_place_that_options_cannot_say_is_refused() {
    if !machine::is_root() {
        skip!("whether there can be overlay mounts is found out by root, or in a user namespace");
    }
    let dir = crate::support::Dir::new("snapshot-place");
    let options = layerstore::StoreOptions::at(dir.join("a:b")).run_root(dir.run_root()).reserve(0);
    let store = layerstore::Store::open(&options.sync(layerstore::SyncMode::Off)).unwrap();
    let snapshots = Snapshotter::new(store, SnapshotterOptions::default()).unwrap();
    snapshots.prepare("key", None, &none()).unwrap();
    snapshots.commit("base", "key", &CommitOptions::default()).unwrap();
    assert_code(snapshots.prepare("active", Some("base"), &none()), Code::FailedPrecondition);
    // Nothing is left of what could not be mounted.
    assert_code(snapshots.stat("active"), Code::NotFound);
}
