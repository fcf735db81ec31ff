//! Equal files of layers that share their extents, on filesystems of the test's own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use layerstore::oci::{LoadOptions, Source};
use layerstore::{
    CheckLevel, CheckOptions, ContainerOptions, DedupOptions, DedupReport, Error, LayerOptions, MountOptions,
    Progress, Store, StoreOptions, SyncMode, UnmountMode,
};

use crate::support::random::Random;
use crate::support::store::assert_whole;
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, disk, machine, oci};

const MIB: u64 = 1 << 20;

/// The longest of the files: more than the kernel is asked for at a time, and it ends within a block.
const LONG: usize = (17 << 20) + 5;

fn open(root: &Path, dir: &Dir) -> Store {
    let options = StoreOptions::at(root).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    Store::open(&options).unwrap()
}

/// Bytes that no filesystem compresses away.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    Random::new(seed).bytes(length)
}

fn put(store: &Store, name: &str, members: &[Member]) {
    store.put_layer(None, &LayerOptions::named(name), &*archive(members)).unwrap();
}

/// Three layers with files that are equal, and some that are not. All of it is on the disk after this.
fn fill(store: &Store) {
    let (long, tail, tiny) = (noise(1, LONG), noise(2, 5000), noise(3, 100));
    put(
        store,
        "one",
        &[
            Member::file("long", &long).mtime(1_000_000_000, 0).mode(0o640),
            Member::file("tail", &tail),
            Member::file("tiny", &tiny),
            Member::file("only-here", noise(4, 9000)),
        ],
    );
    put(
        store,
        "two",
        &[Member::file("copy", &long).mtime(1_100_000_000, 0), Member::file("tiny-copy", &tiny)],
    );
    let members = [
        Member::file("another", &long),
        Member::file("tail-copy", &tail),
        Member::hard_link("tail-link", "tail-copy"),
        Member::file("elsewhere", noise(5, 9000)),
    ];
    put(store, "three", &members);
    rustix::fs::syncfs(File::open(store.root()).unwrap()).unwrap();
}

/// The file of this name in whichever directory has it.
fn find(store: &Store, name: &str) -> PathBuf {
    let directories = std::fs::read_dir(store.root().join("diffs")).unwrap();
    let mut found = directories.map(|entry| entry.unwrap().path().join(name)).filter(|path| path.exists());
    found.next().unwrap_or_else(|| panic!("no directory has {name}"))
}

/// Where a file lies on the disk, as filefrag has it: the places of its pieces, in blocks.
fn places(path: &Path) -> Vec<String> {
    let text = TestCommand::new("filefrag").arg("-v").arg(path).stdout();
    let pieces =
        text.lines().filter(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()));
    pieces.map(|line| line.split(':').nth(2).unwrap().trim().to_owned()).collect()
}

fn share(store: &Store, one: &str, other: &str) -> bool {
    places(&find(store, one)) == places(&find(store, other))
}

/// What must stay as it is: length, mode, inode, and the times of the content and of the inode.
type Stamp = (u64, u32, u64, [i64; 4]);

fn stamps(store: &Store) -> BTreeMap<PathBuf, Stamp> {
    let mut stamps = BTreeMap::new();
    for entry in std::fs::read_dir(store.root().join("diffs")).unwrap() {
        for file in std::fs::read_dir(entry.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let found = path.metadata().unwrap();
            let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
            stamps.insert(path, (found.len(), found.mode(), found.ino(), times));
        }
    }
    stamps
}

fn used(root: &Path) -> u64 {
    rustix::fs::syncfs(File::open(root).unwrap()).unwrap();
    let found = rustix::fs::statvfs(root).unwrap();
    (found.f_blocks - found.f_bfree) * found.f_frsize
}

fn dedup(store: &Store) -> DedupReport {
    let report = store.dedup(&DedupOptions::default()).unwrap();
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    report
}

fn equal_files_share(kind: &str) {
    let dir = Dir::new("dedup");
    let root = match disk::mount(&dir, kind, kind, &[]) {
        Ok(at) => at.join("store"),
        Err(why) => skip!("{why}"),
    };
    let store = open(&root, &dir);
    fill(&store);
    let (before, used_before) = (stamps(&store), used(&root));
    let asked = 2 * LONG as u64 + 5000;

    let mut dry = DedupOptions::default();
    dry.dry_run = true;
    let report = store.dedup(&dry).unwrap();
    assert_eq!((report.files, report.candidates, report.candidate_bytes), (7, 3, asked));
    assert_eq!((report.bytes_asked, report.bytes_shared, report.bytes_shared_before), (asked, 0, 0));
    assert!(!share(&store, "long", "copy"), "a dry run does nothing");

    let steps = Mutex::new(Vec::new());
    let progress = |progress: &Progress<'_>| {
        if let Progress::Sharing { done, total } = progress {
            steps.lock().unwrap().push((*done, *total));
        }
    };
    let mut options = DedupOptions::default();
    options.progress = Some(&progress);
    let report = store.dedup(&options).unwrap();
    assert_eq!((report.files, report.candidates, report.candidate_bytes), (7, 3, asked));
    assert_eq!((report.bytes_asked, report.bytes_shared, report.bytes_shared_before), (asked, asked, 0));
    assert_eq!((report.skipped_count, report.skipped.len()), (0, 0), "{:?}", report.skipped);
    let steps = steps.into_inner().unwrap();
    assert_eq!((steps.len(), steps.last()), (3, Some(&(asked, asked))));

    assert_eq!(stamps(&store), before, "no time, mode or inode is another");
    let freed = used_before.saturating_sub(used(&root));
    assert!(freed > 32 * MIB, "{freed} bytes were freed");
    if machine::has_program("filefrag") {
        assert!(share(&store, "long", "copy") && share(&store, "copy", "another"));
        assert!(share(&store, "tail", "tail-copy"), "the last block of a file, too");
        assert!(!share(&store, "only-here", "elsewhere"));
    }

    let again = dedup(&store);
    assert_eq!((again.bytes_asked, again.bytes_shared, again.bytes_shared_before), (0, 0, asked));
    assert_whole(&store);
    let mut everything = DedupOptions::default();
    everything.min_size = 0;
    assert_eq!(store.dedup(&everything).unwrap().candidates, 4);
    assert_whole(&store);
}

#[test]
fn equal_files_share_their_extents_on_btrfs() {
    equal_files_share("btrfs");
}

#[test]
fn equal_files_share_their_extents_on_xfs() {
    equal_files_share("xfs");
}

/// The kernel looks for itself: what the records say is equal, and is not, stays as it is.
#[test]
fn damaged_files_are_left_as_they_are() {
    let dir = Dir::new("dedup-damaged");
    let root = match disk::mount(&dir, "btrfs", "btrfs", &[]) {
        Ok(at) => at.join("store"),
        Err(why) => skip!("{why}"),
    };
    let store = open(&root, &dir);
    fill(&store);
    let damaged = find(&store, "copy");
    let mtime = damaged.metadata().unwrap().modified().unwrap();
    let file = File::options().write(true).open(&damaged).unwrap();
    file.write_all_at(b"x", 16 * MIB + 3).unwrap();
    file.set_modified(mtime).unwrap();
    std::fs::remove_file(find(&store, "tail-copy")).unwrap();
    File::options().write(true).open(find(&store, "tail")).unwrap().set_len(4999).unwrap();
    let content = std::fs::read(&damaged).unwrap();

    let report = store.dedup(&DedupOptions::default()).unwrap();
    let mut reasons: Vec<_> = report.skipped.iter().map(|one| one.reason.word()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["changed", "differs", "gone"], "{:?}", report.skipped);
    assert_eq!(report.skipped_count, 3);
    // Up to where the damage is the kernel found them equal. The good ones share all.
    assert_eq!(report.bytes_shared % MIB, LONG as u64 % MIB);
    assert!(std::fs::read(&damaged).unwrap() == content);
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    let found = store.check(&options).unwrap();
    assert!(!found.is_clean());
    assert!(std::fs::read(find(&store, "another")).unwrap() == noise(1, LONG));
    if machine::has_program("filefrag") {
        assert!(share(&store, "long", "another"));
    }
}

#[test]
fn filesystems_that_cannot_share_are_named() {
    let dir = Dir::new("dedup-unable");
    let root = match disk::mount(&dir, "ext4", "ext4", &[]) {
        Ok(at) => at.join("store"),
        Err(why) => skip!("{why}"),
    };
    let refused = |root: &Path, name: &str| {
        let store = open(root, &dir);
        let error = store.dedup(&DedupOptions::default()).unwrap_err();
        assert!(matches!(&error, Error::CannotShare { filesystem, .. } if filesystem == name), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(root.to_str().unwrap()), "{text}");
        assert!(error.hint().unwrap().contains("Btrfs"));
    };
    refused(&root, "ext4");
    match disk::mount(&dir, "xfs", "xfs", &["-m", "reflink=0"]) {
        Ok(at) => refused(&at.join("store"), "xfs"),
        Err(why) => skip!("{why}"),
    }
}

/// A container has files that no record knows.
#[test]
fn files_that_were_written_are_read_if_asked() {
    let dir = Dir::new("dedup-writable");
    let root = match disk::mount(&dir, "xfs", "xfs", &[]) {
        Ok(at) => at.join("store"),
        Err(why) => skip!("{why}"),
    };
    let store = open(&root, &dir);
    fill(&store);
    dedup(&store);
    let transient = StoreOptions::at(&root).run_root(dir.run_root()).sync(SyncMode::Off).transient(true);
    let containers = [
        store.create_container(None, &ContainerOptions::named("web")).unwrap(),
        // One without a row in the store's database.
        Store::open(&transient).unwrap().create_container(None, &ContainerOptions::named("other")).unwrap(),
    ];
    for (number, container) in containers.iter().enumerate() {
        let mount = store.mount(container, &MountOptions::default()).unwrap();
        std::fs::write(mount.path().join(format!("written-{number}")), noise(1, LONG)).unwrap();
        std::fs::write(mount.path().join(format!("both-{number}")), noise(6, 7000)).unwrap();
        std::fs::write(mount.path().join(format!("as-long-{number}")), noise(7 + number as u64, 5000))
            .unwrap();
    }
    rustix::fs::syncfs(File::open(&root).unwrap()).unwrap();
    assert_eq!(dedup(&store).bytes_asked, 0);
    let mut options = DedupOptions::default();
    options.writable = true;
    let report = store.dedup(&options).unwrap();
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    assert_eq!(report.bytes_shared, 2 * LONG as u64 + 7000);
    for (number, container) in containers.iter().enumerate() {
        let mount = store.mounted(container).unwrap().unwrap();
        let written = mount.path().join(format!("written-{number}"));
        assert!(std::fs::read(&written).unwrap() == noise(1, LONG));
        // What shares its blocks is written to as ever.
        File::options().append(true).open(&written).unwrap().write_all(b"more").unwrap();
        store.unmount_all(container, UnmountMode::Plain).unwrap();
    }
    if machine::has_program("filefrag") {
        assert!(share(&store, "both-0", "both-1"));
    }
    assert_whole(&store);
}

/// One of those that work, whose number is lower when it is dropped: also if it fails, or who waits for it would never end.
struct Worker<'n>(&'n AtomicUsize);

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Layers come, go, and are written to meanwhile, and none has another byte for it.
#[test]
fn others_may_do_what_they_like() {
    let dir = Dir::new("dedup-beside");
    let root = match disk::mount(&dir, "btrfs", "btrfs", &[]) {
        Ok(at) => at.join("store"),
        Err(why) => skip!("{why}"),
    };
    let store = open(&root, &dir);
    let equal: Vec<_> = (0..8).map(|number| (format!("file-{number}"), noise(number, 20_000))).collect();
    let working = AtomicUsize::new(2);
    let members = |own: u64| {
        let mut members: Vec<_> = equal.iter().map(|(name, bytes)| Member::file(name, bytes)).collect();
        members.push(Member::file("own", noise(1000 + own, 6000)));
        archive(&members)
    };
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (store, members) = (store.clone(), &members);
            let at_work = Worker(&working);
            scope.spawn(move || {
                let _at_work = at_work;
                for round in 0..12 {
                    let name = format!("layer-{worker}-{round}");
                    let tar = members(worker * 100 + round);
                    let layer = store.put_layer(None, &LayerOptions::named(&name), &*tar).unwrap();
                    if round % 3 == 0 {
                        let mut writing = MountOptions::default();
                        writing.unseal = true;
                        let mount = store.mount(&layer, &writing).unwrap();
                        std::fs::write(mount.path().join("file-0"), noise(1, 20_000)).unwrap();
                        std::fs::write(mount.path().join("more"), noise(2, 20_000)).unwrap();
                        store.unmount(&layer, UnmountMode::Plain).unwrap();
                        store.seal(&layer.id).unwrap();
                    }
                    if round % 2 == 0 {
                        store.remove_layer(&layer.id).unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            while working.load(Ordering::Relaxed) > 0 {
                let mut options = DedupOptions::default();
                options.writable = true;
                let report = store.dedup(&options).unwrap();
                for one in report.skipped {
                    assert_ne!(one.reason.word(), "differs", "{one:?}");
                }
            }
        });
    });
    let last = dedup(&store);
    assert!(last.candidates > 0 && last.bytes_shared + last.bytes_shared_before == last.candidate_bytes);
    assert_whole(&store);
}

#[test]
fn the_command_tells_what_came_of_it() {
    let dir = Dir::new("dedup-command");
    if let Err(why) = disk::mount(&dir, "root", "btrfs", &[]) {
        skip!("{why}");
    }
    fill(&open(&dir.root(), &dir));
    let dry = dir.layerstore(["dedup", "--dry-run"]).stdout();
    assert_eq!(
        dry,
        "equal to another one: 3 of 7 files, 35.7 MB\n\
         would share up to 35.7 MB; 0 B are shared already\n"
    );
    let json = dir.layerstore(["dedup", "--json", "--min-size", "1M"]).json();
    let long = LONG as u64;
    let expected = serde_json::json!({
        "dry_run": false,
        "files": 3,
        "candidates": 2,
        "candidate_bytes": 2 * long,
        "bytes_asked": 2 * long,
        "bytes_shared": 2 * long,
        "bytes_shared_before": 0,
        "skipped_count": 0,
        "skipped": [],
    });
    assert_eq!(json, expected);
    let damaged = find(&open(&dir.root(), &dir), "tail");
    File::options().write(true).open(damaged).unwrap().write_all_at(b"x", 7).unwrap();
    let output = dir.layerstore(["dedup"]).output();
    assert!(output.status.success());
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(out.ends_with("shared 0 B; 35.7 MB were shared before\n"), "{out}");
    assert!(err.contains("note: left out") && err.contains("check --deep"), "{err}");
    assert_eq!(dir.layerstore(["dedup", "--quiet"]).stdout(), "");
    dir.layerstore(["dedup", "--min-size", "4KiB"]).assert_exit(2);
}

#[test]
fn the_command_says_where_it_would_work() {
    let dir = Dir::new("dedup-refused");
    let root = match disk::mount(&dir, "ext4", "ext4", &[]) {
        Ok(at) => at.join("store"),
        Err(why) => skip!("{why}"),
    };
    fill(&open(&root, &dir));
    let error = TestCommand::layerstore().arg("--root").arg(&root).arg("dedup").assert_exit(1);
    assert!(error.starts_with("error: files on ext4 cannot share their space"), "{error}");
    assert!(error.contains("\n  hint: only Btrfs can, and XFS"), "{error}");
}

/// Opened so that what is new shares its space with what is there.
fn open_sharing(root: &Path, dir: &Dir) -> Store {
    let options = StoreOptions::at(root).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    // XFS frees what is removed when it has time, and the test counts what is used.
    Store::open(&options.dedup_at_import(true).keep_blobs(false)).unwrap()
}

fn what_is_new_shares(kind: &str) {
    let dir = Dir::new("dedup-import");
    let root = match disk::mount(&dir, kind, kind, &[]) {
        Ok(at) => at.join("store"),
        Err(why) => skip!("{why}"),
    };
    let (long, other) = (noise(1, LONG), noise(2, LONG));
    let store = open(&root, &dir);
    put(&store, "plain", &[Member::file("first", &long)]);
    put(&store, "unshared", &[Member::file("not-shared", &long)]);
    let used_before = used(&root);
    let store = open_sharing(&root, &dir);
    // An image, of which one layer has what is there, one what is new, and one both.
    let layers = [
        oci::Layer::new([
            Member::file("again", &long).owner(7, 7).mode(0o640),
            Member::file("tiny", b"tiny"),
        ]),
        oci::Layer::new([Member::file("new", &other), Member::file("new-too", &other)]),
        oci::Layer::new([
            Member::file("new-above", &other),
            Member::file("again-above", &long),
            Member::hard_link("link", "again-above"),
        ]),
    ];
    let written = oci::Image::new(layers).write(dir.join("layout"), "image");
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    let image = store.load(&source, &LoadOptions::named("image")).unwrap();
    let grown = used(&root).saturating_sub(used_before);
    assert!(grown < (LONG as u64) * 3 / 2, "{grown} bytes for {} that are new", LONG);
    put(&store, "put", &[Member::file("put", &other)]);
    let grown = used(&root).saturating_sub(used_before);
    assert!(grown < (LONG as u64) * 3 / 2, "{grown} bytes for {} that are new", LONG);
    if machine::has_program("filefrag") {
        assert!(share(&store, "first", "again") || share(&store, "not-shared", "again"));
        assert!(share(&store, "again", "again-above"));
        assert!(share(&store, "new", "new-too") && share(&store, "new", "new-above"));
        assert!(share(&store, "new", "put"));
    }
    for (name, content) in [("again", &long), ("new", &other), ("new-above", &other), ("put", &other)] {
        assert!(std::fs::read(find(&store, name)).unwrap() == *content, "{name}");
    }
    let found = find(&store, "again").metadata().unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (7, 7, 0o640));
    assert_whole(&store);
    // What is removed takes nothing from what shares with it.
    store.remove_image(&image.id).unwrap();
    assert_whole(&store);
}

#[test]
fn what_is_new_shares_with_what_is_there_on_btrfs() {
    what_is_new_shares("btrfs");
}

#[test]
fn what_is_new_shares_with_what_is_there_on_xfs() {
    what_is_new_shares("xfs");
}

/// What was damaged on the disk is not taken for what its record says.
#[test]
fn what_is_new_shares_nothing_with_damage() {
    let dir = Dir::new("dedup-import-damaged");
    let root = match disk::mount(&dir, "btrfs", "btrfs", &[]) {
        Ok(at) => at.join("store"),
        Err(why) => skip!("{why}"),
    };
    let long = noise(1, LONG);
    let store = open_sharing(&root, &dir);
    put(&store, "damaged", &[Member::file("damaged", &long)]);
    let file = File::options().write(true).open(find(&store, "damaged")).unwrap();
    file.write_all_at(b"x", 3).unwrap();
    drop(file);
    put(&store, "next", &[Member::file("next", &long)]);
    assert!(std::fs::read(find(&store, "next")).unwrap() == long);
    put(&store, "last", &[Member::file("last", &long)]);
    assert!(std::fs::read(find(&store, "last")).unwrap() == long);
    if machine::has_program("filefrag") {
        assert!(share(&store, "next", "last") && !share(&store, "damaged", "last"));
    }
}

/// Where files share nothing, it is without effect.
#[test]
fn sharing_what_is_new_is_no_failure_where_it_cannot_be() {
    let dir = Dir::new("dedup-import-cannot");
    let at = if machine::is_root() { tmpfs(&dir) } else { dir.create_dir("plain") };
    let store = open_sharing(&at.join("store"), &dir);
    let long = noise(1, 9000);
    put(&store, "one", &[Member::file("one", &long)]);
    put(&store, "two", &[Member::file("two", &long)]);
    assert_whole(&store);
}

fn tmpfs(dir: &Dir) -> PathBuf {
    let at = dir.create_dir("tmpfs");
    TestCommand::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&at).assert_success();
    at
}
