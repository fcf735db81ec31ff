//! Fresh filesystems: ext4 on files whose space is there before.
//!
//! A filesystem that something was deleted from is slower than a new one, for minutes: ext4 does not take the inodes again
//! at once, and searches past them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Gives this process mounts of its own, which end with it however it ends; so do the loop devices below them.
pub fn keep_mounts_private() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// A file to make filesystems in.
#[derive(Clone, Debug)]
pub struct Disk {
    file: PathBuf,
    top: PathBuf,
}

impl Disk {
    /// In the directory, with so many bytes. If `written`, they are written once, so that the filesystem below has found
    /// all places before anything is timed.
    pub fn new(dir: &Path, name: &str, bytes: u64, written: bool) -> Self {
        let (file, top) = (dir.join(format!("{name}.img")), dir.join(name));
        std::fs::create_dir(&top).unwrap();
        run("fallocate", &["-l", &bytes.to_string(), file.to_str().unwrap()]);
        if written {
            let (output, count) = (format!("of={}", file.display()), format!("count={}", bytes >> 20));
            run("dd", &["if=/dev/zero", &output, "bs=1M", &count, "conv=notrunc,fsync", "status=none"]);
        }
        Self { file, top }
    }

    /// A new filesystem, which is mounted as long as this value lives.
    pub fn mount(&mut self) -> Mounted<'_> {
        // An inode for each 8 KiB: stores of many small things shall not run out of them. Nothing is left to a thread
        // of the kernel for later, and the file keeps its space.
        let extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1";
        let file = self.file.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-F", "-i", "8192", "-E", extended, file]);
        run("mount", &["-o", "loop,noatime,noinit_itable", file, self.top.to_str().unwrap()]);
        std::fs::remove_dir(self.top.join("lost+found")).unwrap();
        Mounted { disk: self }
    }
}

/// A filesystem that is mounted.
#[derive(Debug)]
pub struct Mounted<'d> {
    disk: &'d Disk,
}

impl Mounted<'_> {
    pub fn path(&self) -> &Path {
        &self.disk.top
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Programs leave mounts of their own below.
        let top = &self.disk.top;
        let status = Command::new("umount").arg("--recursive").arg(top).status();
        let is_unmounted = status.is_ok_and(|status| status.success());
        assert!(is_unmounted || std::thread::panicking(), "{} is still mounted", top.display());
    }
}

/// Brings the filesystem to the disk, and returns the seconds.
pub fn sync(path: &Path) -> f64 {
    let directory = std::fs::File::open(path).unwrap();
    let begun = Instant::now();
    nix::unistd::syncfs(directory).unwrap();
    begun.elapsed().as_secs_f64()
}

/// Makes directories with these names.
pub fn directories<const N: usize>(top: &Path, names: [&str; N]) -> [PathBuf; N] {
    let made = names.map(|name| top.join(name));
    for path in &made {
        std::fs::create_dir(path).unwrap();
    }
    made
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
}
