//! Someone who can write in the staging directory, and beside it, while a layer is unpacked there. The layer may fail; a victim
//! elsewhere is untouched, and what does come in is right.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use nix::errno::Errno;

use super::open;
use crate::archive::made::{Member, archive};
use crate::error::Error;
use crate::layer::Progress;
use crate::store::{LayerOptions, Store};
use crate::sys::beneath::tests::{Swapper, without};
use crate::sys::landlock;
use crate::sys::privileges::Privileges;
use crate::{CheckLevel, CheckOptions, Layer};

const DIRECTORIES: usize = 120;
const IMPORTS: usize = 4;
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
    fs::create_dir_all(at.join("sub")).unwrap();
    fs::create_dir_all(at.join("implied/deep")).unwrap();
    for name in ["hello", "secret", "sub/file", "implied/deep/file", "null", "pipe"] {
        fs::write(at.join(name), "the victim's").unwrap();
    }
}

/// The directory that a layer is being unpacked into.
fn staged(store: &Store) -> Option<PathBuf> {
    let found = fs::read_dir(store.root().join("diffs")).ok()?;
    let names = found.filter_map(|entry| Some(entry.ok()?.path()));
    names
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u64>().is_ok()))
}

fn put(store: &Store, archive: impl Read + Send) -> Result<Layer, Error> {
    store.put_layer(None, &LayerOptions::default(), archive)
}

/// Nothing is damaged, and once the garbage is gone, nothing is left.
fn assert_whole(store: &Store) {
    store.gc(true).unwrap();
    let options = CheckOptions { level: CheckLevel::Deep, ..CheckOptions::default() };
    let report = store.check(&options).unwrap();
    assert!(report.is_clean() && report.garbage.is_empty(), "{report:?}");
}

/// An archive that waits for the attack before it goes on after its beginning, and ends the attack before its end.
struct Attacked<'a> {
    archive: &'a [u8],
    at: usize,
    swapper: &'a Swapper,
    ended: &'a std::sync::Barrier,
    is_over: bool,
}

impl Read for Attacked<'_> {
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

impl Attacked<'_> {
    fn end(&mut self) {
        self.is_over = true;
        self.swapper.stop();
        self.ended.wait();
    }
}

impl Drop for Attacked<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end();
        }
    }
}

/// The racing thread: directories of the staged layer and a link to the victim are exchanged all the while.
#[test]
fn a_racing_thread_cannot_win() {
    let archive = archive(&members());
    for missing in MISSING {
        without(missing, Errno::ENOSYS, || {
            let dir = tempfile::tempdir().unwrap();
            let (store, victim) = (open(dir.path()), dir.path().join("victim"));
            make_victim(&victim);
            let before = state(&victim);
            for round in 0..IMPORTS {
                let (swapper, ended) = (Swapper::default(), std::sync::Barrier::new(2));
                let directories = || match staged(&store) {
                    None => Vec::new(),
                    Some(staged) => {
                        (0..DIRECTORIES).map(|number| staged.join(format!("d{number}"))).collect()
                    }
                };
                let put = std::thread::scope(|scope| {
                    scope.spawn(|| {
                        swapper.run(directories, &dir.path().join(format!("link{round}")), &victim);
                        ended.wait();
                    });
                    put(
                        &store,
                        Attacked {
                            archive: &archive,
                            at: 0,
                            swapper: &swapper,
                            ended: &ended,
                            is_over: false,
                        },
                    )
                });
                assert_eq!(state(&victim), before, "without {missing:?}");
                if let Ok(layer) = put {
                    let mut out = Vec::new();
                    store.diff(&layer.id, &mut out).unwrap();
                    assert!(out == archive, "without {missing:?}: the layer is not what came in");
                    store.remove_layer(&layer.id).unwrap();
                }
                assert_whole(&store);
            }
        });
    }
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
