//! One session: a store is worked on while its disk is recorded, and cuts are tried on the record.
//!
//! A session is a process of its own, in a mount namespace of its own: however it ends, the kernel takes its mounts and
//! loop devices away.

use std::io::Write;
use std::path::{Path, PathBuf};

use layerstore::{Store, SyncMode};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::disk::{Cache, Content, Event, Replay};
use super::fuse::Recorder;
use super::verify::{Progress, open, options, progress, verify_data, verify_doubtful_data, verify_records};
use super::worker::{History, Mark, THREADS, Worker, write_images};
use crate::support::random::Random;
use crate::support::{Dir, TestCommand};

const ORDER: &str = "LAYERSTORE_POWER_CUT_SESSION";
const TALLY: &str = "tally ";
/// What XFS wants at the least, and more.
const DISK_BYTES: u64 = 640 << 20;
const OPERATIONS: usize = 14;
/// How much is said about one loss.
const LINE: usize = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filesystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl Filesystem {
    pub fn name(self) -> &'static str {
        match self {
            Filesystem::Ext4 => "ext4",
            Filesystem::Xfs => "xfs",
            Filesystem::Btrfs => "btrfs",
        }
    }

    pub fn mkfs(self) -> &'static str {
        match self {
            Filesystem::Ext4 => "mkfs.ext4",
            Filesystem::Xfs => "mkfs.xfs",
            Filesystem::Btrfs => "mkfs.btrfs",
        }
    }

    /// Nothing that is not asked for shall reach the disk: no commit by the clock, and no help for programs that forget
    /// to sync.
    fn mount_options(self) -> &'static str {
        match self {
            Filesystem::Ext4 => "loop,commit=300,noauto_da_alloc,noinit_itable",
            Filesystem::Xfs => "loop",
            Filesystem::Btrfs => "loop,commit=300",
        }
    }

    fn make(self, disk: &Path) {
        let options: &[&str] = match self {
            Filesystem::Ext4 => &["-q", "-F", "-E", "nodiscard"],
            Filesystem::Xfs | Filesystem::Btrfs => &["-q", "-f", "-K"],
        };
        TestCommand::new(self.mkfs()).args(options).arg(disk).assert_success();
    }

    fn mount(self, disk: &Path, at: &Path) -> Mounted {
        let mut command = TestCommand::new("mount").args(["-t", self.name(), "-o", self.mount_options()]);
        command = command.arg(disk).arg(at);
        command.assert_success();
        Mounted(at.to_owned())
    }
}

/// A mount, which ends with the value.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount(&self.0) {
            eprintln!("cannot unmount {}: {error}", self.0.display());
        }
    }
}

/// What a session is to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Session {
    pub filesystem: Filesystem,
    pub sync: Sync,
    pub seed: u64,
}

/// What is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sync {
    Everything,
    Records,
    Nothing,
}

impl Sync {
    fn mode(self) -> SyncMode {
        match self {
            Sync::Everything => SyncMode::Full,
            Sync::Records => SyncMode::Records,
            Sync::Nothing => SyncMode::Off,
        }
    }
}

/// What came of a session.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// Cuts that lost something, or damaged it.
    pub losses: usize,
    /// Layers that the store refused to use.
    pub refused: usize,
}

/// What a session recorded.
struct Record {
    /// The disk before the first event.
    before: Content,
    /// The event before which the store was opened, and with that made.
    opened: usize,
    events: Vec<Event>,
    histories: Vec<History>,
}

impl Session {
    /// Runs it in a process of its own.
    pub fn run_in_process(self) -> Tally {
        let mut command = super::this_program();
        command.args(["--exact", "power_cut::session::process", "--ignored", "--nocapture"]);
        let output = command.env(ORDER, serde_json::to_string(&self).unwrap()).output().unwrap();
        let [text, told] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let tally = text.lines().find_map(|line| line.strip_prefix(TALLY));
        let Some(tally) = tally.filter(|_| output.status.success()) else {
            panic!("{self:?}: {text}{told}");
        };
        // Without the lines that the test harness writes of a run, which would be taken for those of this one.
        eprintln!("{self:?}: {tally}\n{told}");
        serde_json::from_str(tally).unwrap()
    }

    /// How many moments are tried, besides two when the store is made.
    fn cuts(self) -> usize {
        if self.sync == Sync::Everything { 8 } else { 4 }
    }

    /// One thread alone, or all: the syncs of one also bring to the disk what another should have synced itself.
    fn threads(self) -> usize {
        if self.seed.is_multiple_of(2) { 1 } else { THREADS }
    }

    /// Whether the images are in a store of their own, in another directory of the same disk.
    fn is_separate(self) -> bool {
        self.seed / 2 % 2 == 1
    }

    fn run(self) -> Tally {
        let dir = Dir::new("power-cut");
        enter_mount_namespace(dir.path());
        let [fuse, top, images] = ["fuse", "top", "images"].map(|name| dir.create_dir(name));
        let mut random = Random::new(self.seed);
        write_images(&images, &mut random);
        let recorder = Recorder::mount(&fuse, DISK_BYTES).unwrap();
        let record = self.record(&dir, &recorder, &top, &images, &mut random);
        begin_another_boot(dir.path());

        let mut replay = Replay::new(record.before.clone());
        let mut tally = Tally::default();
        for cut in choose_cuts(&record, self.cuts(), &mut random) {
            let content = replay.cut(&record.events, cut.position, cut.cache, &mut random);
            let disk = recorder.add_cut(content);
            let progress = progress(&record.events[..cut.position]);
            let verdict = {
                let _mounted = self.filesystem.mount(&disk, &top);
                let is_made = cut.position >= record.opened;
                self.verify(&dir, &record.histories, &progress, is_made, &mut random)
            };
            recorder.remove_cuts();
            let mut lost = match verdict {
                Ok(refused) => {
                    tally.refused += refused;
                    continue;
                }
                Err(lost) => lost,
            };
            tally.losses += 1;
            // One lost directory makes as many lines as it has files.
            lost.truncate(lost.floor_char_boundary(LINE));
            eprintln!("{self:?}, {cut:?} of {}: {lost}", record.events.len());
        }
        tally
    }

    /// Looks at the store that a cut left; returns how many layers it refuses.
    fn verify(
        self,
        dir: &Dir,
        histories: &[History],
        progress: &[Progress; THREADS],
        is_made: bool,
        random: &mut Random,
    ) -> Result<usize, String> {
        let (top, images) = (dir.join("top"), dir.join("images"));
        // What a reboot drops.
        let after = tempfile::tempdir_in(dir.path()).unwrap();
        let run_root = after.path().join("run");
        let options = options(&top, &run_root, self.is_separate());
        // It belongs to another boot, whose files nobody looks at.
        std::fs::remove_dir_all(top.join("images/run")).ok();
        let store = open(&options, is_made)?;
        verify_records(&store, histories, progress)?;
        if self.sync == Sync::Everything {
            return verify_data(&store, &images, random).map(|()| 0);
        }
        verify_doubtful_data(&store, &images, after.path())
    }

    /// Makes a store on a new filesystem, works on it, and returns what its disk was sent meanwhile.
    fn record(
        self,
        dir: &Dir,
        recorder: &Recorder,
        top: &Path,
        images: &Path,
        random: &mut Random,
    ) -> Record {
        self.filesystem.make(&recorder.disk());
        let (_, before) = recorder.take();
        let mounted = self.filesystem.mount(&recorder.disk(), top);
        let options = options(top, &dir.join("run"), self.is_separate());
        let store = Store::open(&options.reserve(1 << 20).sync(self.sync.mode())).unwrap();
        let opened = recorder.position();
        let histories = std::thread::scope(|scope| {
            let worker = |thread| Worker {
                store: &store,
                images,
                thread,
                random: Random::new(random.next()),
                marks: recorder.marks(),
            };
            let workers: Vec<_> = (0..self.threads()).map(worker).collect();
            let threads: Vec<_> =
                workers.into_iter().map(|worker| scope.spawn(|| worker.run(OPERATIONS))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let end = recorder.position();
        drop(store);
        drop(mounted);
        let (mut events, _) = recorder.take();
        events.truncate(end);
        Record { before, opened, events, histories }
    }
}

/// A moment in a record.
#[derive(Clone, Copy, Debug)]
struct Cut {
    position: usize,
    cache: Cache,
}

/// Chooses moments: while the store is made, within operations, and just after their end, when nothing of them may be
/// missing.
fn choose_cuts(record: &Record, count: usize, random: &mut Random) -> Vec<Cut> {
    let position_of = |wanted: Mark| {
        let is_wanted = |event: &Event| matches!(event, Event::Mark(bytes) if Mark::parse(bytes) == wanted);
        record.events.iter().position(is_wanted).unwrap()
    };
    let mut cuts: Vec<Cut> = (0..count)
        .map(|_| {
            let (thread, operation) = (random.below(record.histories.len()), random.below(OPERATIONS));
            let begin = position_of(Mark { thread, operation, done: false });
            let done = position_of(Mark { thread, operation, done: true });
            if random.below(2) == 0 {
                return Cut { position: done + 1, cache: Cache::Lost };
            }
            let cache = [Cache::Lost, Cache::Written, Cache::Mixed][random.below(3)];
            Cut { position: begin + random.below(done + 1 - begin), cache }
        })
        .collect();
    cuts.push(Cut { position: random.below(record.opened), cache: Cache::Mixed });
    cuts.push(Cut { position: record.opened, cache: Cache::Lost });
    cuts.sort_by_key(|cut| cut.position);
    cuts
}

/// A namespace of mounts that nobody else sees, with everything below `top` in memory.
fn enter_mount_namespace(top: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    mount(Some("tmpfs"), top, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

/// Has this process read the id of another boot.
fn begin_another_boot(directory: &Path) {
    let id = directory.join("boot_id");
    std::fs::write(&id, "11111111-1111-4111-8111-111111111111\n").unwrap();
    mount(Some(&id), "/proc/sys/kernel/random/boot_id", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap();
}

#[test]
#[ignore = "a part of the tests of power cuts, which run it in a process of its own"]
fn process() {
    let Some(order) = std::env::var_os(ORDER) else { return };
    let session: Session = serde_json::from_str(order.to_str().unwrap()).unwrap();
    let tally = serde_json::to_string(&session.run()).unwrap();
    std::io::stdout().write_all(format!("{TALLY}{tally}\n").as_bytes()).unwrap();
}
