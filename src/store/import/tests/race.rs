//! Someone who can write in the staging directory, and beside it, while a layer is unpacked there. The layer may fail; a victim
//! elsewhere is untouched, and what does come in is right.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};

use nix::errno::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::{BlobInput, LayerImport, open};
use crate::archive::made::{Member, archive};
use crate::error::Error;
use crate::layer::Progress;
use crate::store::{ApplyOptions, LayerOptions, Store};
use crate::sys::beneath::tests::Swapper;
use crate::sys::landlock;
use crate::sys::privileges::Privileges;
use crate::sys::without::without;
use crate::types::{DiffId, Digest};
use crate::{CheckLevel, CheckOptions, ContainerOptions, LayerId};

const DIRECTORIES: usize = 120;
/// How much of the archive is read at once, and how much of it has all directories, and goes to the unpacker as one piece.
const PIECE: usize = 4096;
const BEGINNING: usize = 64 * PIECE;

/// The calls that may be missing: how paths are resolved, and the second wall.
const MISSING: [&[libc::c_long]; 4] = [
    &[],
    &[libc::SYS_openat2],
    &[libc::SYS_landlock_create_ruleset],
    &[libc::SYS_openat2, libc::SYS_landlock_create_ruleset],
];

/// Thousands of members of every kind; each name leads somewhere in the victim if its directory is one of the victim's. Neighbours are
/// in different directories, more than the unpacker keeps open.
fn members() -> Vec<Member> {
    let may_make_devices = Privileges::of_this_process().unwrap().is_machine_root();
    let path = |number: usize, name: &str| format!("d{number}/{name}");
    let mut members: Vec<_> =
        (0..DIRECTORIES).map(|number| Member::directory(format!("d{number}")).mode(0o755)).collect();
    let mut each = |make: &dyn Fn(usize) -> Member| members.extend((0..DIRECTORIES).map(make));
    each(&|number| Member::file(path(number, "hello"), "pwned").mode(0o4777));
    each(&|number| Member::directory(path(number, "sub")).mode(0o777));
    each(&|number| Member::file(path(number, "sub/file"), "pwned").mode(0o666).xattr("user.pwned", "1"));
    each(&|number| Member::symlink(path(number, "link"), "hello"));
    each(&|number| Member::hard_link(path(number, "hard"), path(number, "hello")));
    each(&|number| Member::fifo(path(number, "pipe")).mode(0o666));
    each(&|number| Member::whiteout(path(number, "secret")));
    each(&|number| Member::file(path(number, "implied/deep/file"), "x"));
    each(&|number| Member::opaque(path(number, "sub")));
    if may_make_devices {
        each(&|number| Member::char_device(path(number, "null"), 1, 3).owner(5, 5));
    }
    // What stands there already gives way.
    each(&|number| Member::file(path(number, "implied/deep/file"), "again"));
    each(&|number| Member::directory(format!("d{number}")).mode(0o711));
    members
}

/// Everything of the victim that a system call can change: the time of the last change of any of it is in it.
fn state(top: &Path) -> BTreeMap<PathBuf, ([i64; 7], Option<Vec<u8>>)> {
    let (mut all, mut waiting) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(at) = waiting.pop() {
        let found = fs::symlink_metadata(&at).unwrap();
        if found.is_dir() {
            waiting.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
        let ids = [found.mode(), found.uid(), found.gid()].map(i64::from);
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        let content = found.is_file().then(|| fs::read(&at).unwrap());
        let numbers = [ids[0], ids[1], ids[2], times[0], times[1], times[2], times[3]];
        all.insert(at, (numbers, content));
    }
    all
}

fn make_victim(at: &Path) {
    make_files(at, "the victim's");
}

fn make_files(at: &Path, content: &str) {
    fs::create_dir_all(at.join("sub")).unwrap();
    fs::create_dir_all(at.join("implied/deep")).unwrap();
    for name in ["hello", "secret", "sub/file", "implied/deep/file", "null", "pipe"] {
        fs::write(at.join(name), content).unwrap();
    }
}

/// The directory that a layer is being unpacked into: it is locked meanwhile.
fn staged(store: &Store) -> Option<PathBuf> {
    let lock = fs::read_dir(store.root().join("locks")).ok()?.next()?.ok()?;
    Some(store.root().join("diffs").join(lock.file_name()))
}

/// The directories in it that the members are in.
fn attackable(store: &Store) -> Vec<PathBuf> {
    let of = |staged: PathBuf| (0..DIRECTORIES).map(|number| staged.join(format!("d{number}"))).collect();
    staged(store).map(of).unwrap_or_default()
}

fn put(store: &Store, archive: impl Read + Send) -> Result<LayerId, Error> {
    store.put_layer(None, &LayerOptions::default(), archive).map(|layer| layer.id)
}

/// How an archive comes into a store.
type Way = fn(&Store, Attacked) -> Result<LayerId, Error>;

const WAYS: [(&str, Way); 3] = [("put", put), ("load", load), ("apply", apply)];

/// As the layer of an image, on the threads of a load.
fn load(store: &Store, archive: Attacked) -> Result<LayerId, Error> {
    let diff_id = DiffId(Digest::sha256(&archive.archive));
    let archive = Mutex::new(Some(archive));
    let layer = LayerImport {
        diff_id,
        blob: None,
        chunked: None,
        toc_digest: None,
        unpacked_size: None,
        keep_blob: false,
        open: Box::new(move || {
            let reader = Box::new(archive.lock().unwrap().take().unwrap());
            Ok(BlobInput { reader, extent: None })
        }),
    };
    let image = store.import_image(&super::image(vec![layer]))?;
    Ok(image.top_layer.unwrap())
}

/// To a layer that is there and empty.
fn apply(store: &Store, archive: Attacked) -> Result<LayerId, Error> {
    let layer = store.create_layer(None, &LayerOptions::default())?.id;
    let applied = store.apply_diff(&layer, archive, &ApplyOptions::default());
    applied.map(|layer| layer.id)
}

/// A new store in `dir` whose mounts use `trusted.overlay.*`, or, as one that was made without privileges, `user.overlay.*`.
fn open_as(dir: &Path, privileged: bool) -> Store {
    let own = capabilities(None).unwrap();
    let mut fewer = own;
    if !privileged {
        fewer.effective.remove(CapabilitySet::SYS_ADMIN);
    }
    set_capabilities(None, fewer).unwrap();
    let store = open(dir);
    set_capabilities(None, own).unwrap();
    drop(store);
    let marker = fs::read_to_string(dir.join("store/LAYERSTORE")).unwrap();
    assert_eq!(marker.contains("xattrs trusted\n"), privileged, "{marker}");
    open(dir)
}

/// The kinds of store that this process can have.
fn kinds() -> &'static [bool] {
    if Privileges::of_this_process().unwrap().is_machine_root() { &[true, false] } else { &[false] }
}

/// Nothing is damaged, and once the garbage is gone, nothing is left.
fn assert_whole(store: &Store) {
    store.gc(true).unwrap();
    let options = CheckOptions { level: CheckLevel::Deep, ..CheckOptions::default() };
    let report = store.check(&options).unwrap();
    assert!(report.is_clean() && report.garbage.is_empty(), "{report:?}");
}

/// An archive that waits for the attack before it goes on after its beginning, and ends the attack before its end.
struct Attacked {
    archive: Arc<[u8]>,
    at: usize,
    swapper: Arc<Swapper>,
    ended: Arc<Barrier>,
    is_over: bool,
}

impl Read for Attacked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = out.len().min(self.archive.len() - self.at).min(PIECE);
        if self.at == BEGINNING {
            self.swapper.wait();
        }
        if self.at > 0 && !self.is_over && self.at + count == self.archive.len() {
            self.end();
        }
        out[..count].copy_from_slice(&self.archive[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Attacked {
    fn end(&mut self) {
        self.is_over = true;
        self.swapper.stop();
        self.ended.wait();
    }
}

impl Drop for Attacked {
    fn drop(&mut self) {
        if !self.is_over {
            self.end();
        }
    }
}

/// The racing thread: directories of the staged layer and a link to the victim are exchanged all the while.
#[test]
fn a_racing_thread_cannot_win() {
    let archive: Arc<[u8]> = archive(&members()).into();
    let each = || MISSING.iter().flat_map(|missing| kinds().iter().map(move |kind| (*missing, *kind)));
    for (missing, privileged) in each() {
        without(missing, Errno::ENOSYS, || {
            let dir = tempfile::tempdir().unwrap();
            let (store, victim) = (open_as(dir.path(), privileged), dir.path().join("victim"));
            make_victim(&victim);
            let before = state(&victim);
            for (way, bring) in WAYS {
                let (swapper, ended) = (Arc::new(Swapper::default()), Arc::new(Barrier::new(2)));
                let brought = std::thread::scope(|scope| {
                    scope.spawn(|| {
                        swapper.run(|| attackable(&store), &dir.path().join(format!("link-{way}")), &victim);
                        ended.wait();
                    });
                    let (archive, swapper, ended) = (archive.clone(), swapper.clone(), ended.clone());
                    bring(&store, Attacked { archive, at: 0, swapper, ended, is_over: false })
                });
                let told = format!("{way}, without {missing:?}, privileged: {privileged}");
                assert_eq!(state(&victim), before, "{told}");
                if let Ok(layer) = brought {
                    let mut out = Vec::new();
                    store.diff(&layer, &mut out).unwrap();
                    assert!(*out == *archive, "{told}: the layer is not what came in");
                }
                for image in store.images().unwrap() {
                    store.remove_image(&image.id).unwrap();
                }
                for layer in store.layers().unwrap() {
                    store.remove_layer(&layer.id).unwrap();
                }
                assert_whole(&store);
            }
        });
    }
}

/// The same against what reads a directory that a container writes to, and against changes that are put on top of it: neither
/// does anything to the victim, and nothing of it comes into an archive.
#[test]
fn a_racing_thread_cannot_win_against_what_is_written_to() {
    let archive = archive(&members());
    let each = || MISSING.iter().flat_map(|missing| kinds().iter().map(move |kind| (*missing, *kind)));
    for (missing, privileged) in each() {
        without(missing, Errno::ENOSYS, || {
            let dir = tempfile::tempdir().unwrap();
            let (store, victim) = (open_as(dir.path(), privileged), dir.path().join("victim"));
            make_victim(&victim);
            let container = store.create_container(None, &ContainerOptions::default()).unwrap();
            let own = fs::read_dir(store.root().join("diffs")).unwrap().next().unwrap().unwrap().path();
            for number in 0..DIRECTORIES {
                make_files(&own.join(format!("d{number}")), "the container's");
            }
            let before = state(&victim);
            let link = dir.path().join("link");
            let during = |what: &str, work: &dyn Fn()| {
                let entries =
                    || fs::read_dir(store.root().join("diffs")).unwrap().map(|entry| entry.unwrap().path());
                let all = || {
                    entries()
                        .flat_map(|at| (0..DIRECTORIES).map(move |number| at.join(format!("d{number}"))))
                        .collect()
                };
                Swapper::during(all, &link, &victim, work);
                assert_eq!(state(&victim), before, "{what}, without {missing:?}, privileged: {privileged}");
            };
            for _ in 0..3 {
                during("commit", &|| {
                    if let Ok(image) = store.commit(&container.id, &Default::default()) {
                        let mut out = Vec::new();
                        drop(store.diff(&image.id, &mut out));
                        assert!(!holds(&out, b"the victim's"), "without {missing:?}");
                        store.remove_image(&image.id).unwrap();
                    }
                });
                during("diff", &|| {
                    let mut out = Vec::new();
                    drop(store.diff(&container.layer, &mut out));
                    assert!(!holds(&out, b"the victim's"), "without {missing:?}");
                });
                during("changes", &|| drop(store.changes(&container.id)));
                let diff = store.stage_diff(&archive[..], &ApplyOptions::default()).unwrap();
                let diff = Cell::new(Some(diff));
                during("apply", &|| drop(diff.take().unwrap().apply_to(&container.layer)));
            }
            during("remove", &|| drop(store.remove_container(&container.id)));
        });
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Reads an archive, and stops once on the way until somebody has done something.
struct Pausing<'a> {
    parts: [&'a [u8]; 2],
    reached: Option<Sender<()>>,
    go_on: std::sync::mpsc::Receiver<()>,
}

impl Read for Pausing<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.parts[0].read(out)?;
        if count > 0 {
            return Ok(count);
        }
        if self.reached.take().is_some_and(|reached| reached.send(()).is_ok()) {
            self.go_on.recv().map_err(io::Error::other)?;
        }
        self.parts[1].read(out)
    }
}

/// A directory of the staged layer is moved elsewhere while the unpacker has it open: the first wall goes by handles, and does not see
/// it. The thread that unpacks is confined to the staged directory, and so is not let write there any more; the caller's thread is
/// as free as before.
#[test]
fn what_was_moved_out_of_the_store_is_written_no_more() {
    if let Some(why) = landlock::against() {
        return eprintln!("skipped: {why}");
    }
    for (missing, is_written) in [(&[][..], false), (&[libc::SYS_landlock_create_ruleset], true)] {
        without(missing, Errno::ENOSYS, || {
            let dir = tempfile::tempdir().unwrap();
            let (store, moved) = (open(dir.path()), dir.path().join("moved"));
            let early =
                [Member::directory("d"), Member::file("d/early", "x"), Member::file("big", vec![7; 1 << 20])];
            let late = [Member::file("d/late", "x"), Member::directory("d/sub")];
            let whole = archive(&[&early[..], &late].concat());
            // Pieces of the archive go from thread to thread, so that what comes early is unpacked when this part was read.
            let (first, second) = whole.split_at(1 << 20);
            let (reached, is_reached) = channel();
            let (go, go_on) = channel();
            let (store, moved) = (&store, &moved);
            let put = std::thread::scope(|scope| {
                scope.spawn(move || {
                    is_reached.recv().unwrap();
                    let early = loop {
                        match staged(store).map(|staged| staged.join("d")) {
                            Some(staged) if staged.join("early").exists() => break staged,
                            _ => std::thread::yield_now(),
                        }
                    };
                    fs::rename(early, moved).unwrap();
                    go.send(()).unwrap();
                });
                put(store, Pausing { parts: [first, second], reached: Some(reached), go_on })
            });
            assert!(put.is_err());
            assert!(moved.join("early").exists());
            assert_eq!(moved.join("late").exists(), is_written, "without {missing:?}: {put:?}");
            fs::write(dir.path().join("free"), "the caller's thread is not confined").unwrap();
            assert_whole(store);
        });
    }
}

/// What belongs to the caller is called on threads that are not confined: progress, and the reading of blobs.
#[test]
fn callers_are_called_unconfined() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = super::layer(dir.path(), &super::tar_of("d/", 0o755));
    let write = |_: &Progress<'_>| fs::write(dir.path().join("log"), "x").unwrap();
    let mut image = super::image(vec![layer]);
    image.progress = Some(&write);
    store.import_image(&image).unwrap();
    assert!(dir.path().join("log").exists());
}
