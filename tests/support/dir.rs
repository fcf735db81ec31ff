//! A temporary directory with a store in it, which leaves neither files nor mounts behind.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::command::binary;
use super::{TestCommand, machine};

/// A temporary directory; `root` and `run` below it are a store's graph root and run root.
#[derive(Debug)]
pub struct Dir {
    path: tempfile::TempDir,
}

impl Dir {
    /// A new empty directory. `name` helps to recognize it when a test hangs.
    pub fn new(name: &str) -> Self {
        Self { path: tempfile::Builder::new().prefix(&format!("layerstore-{name}-")).tempdir().unwrap() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.path.path()
    }

    /// A path below it.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path().join(relative)
    }

    /// Creates a directory with its parents.
    pub fn create_dir(&self, relative: impl AsRef<Path>) -> PathBuf {
        let path = self.join(relative);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Creates a file with its parents.
    pub fn write(&self, relative: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The graph root of this directory's store.
    pub fn root(&self) -> PathBuf {
        self.join("root")
    }

    /// The run root of this directory's store.
    pub fn run_root(&self) -> PathBuf {
        self.join("run")
    }

    /// The program, with this directory's store, and these arguments.
    pub fn layerstore<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> TestCommand {
        self.with_store(TestCommand::layerstore(), arguments)
    }

    /// Runs the same below strace. Returns what that writes if it is asked for `form`.
    #[track_caller]
    pub fn traced(&self, form: &[&str], arguments: &[&str]) -> String {
        let trace = self.join("trace");
        let strace = TestCommand::new("strace").args(["-f", "-qq"]).args(form).arg("-o").arg(&trace);
        self.with_store(strace.arg(binary()), arguments).assert_success();
        std::fs::read_to_string(&trace).unwrap()
    }

    /// Runs the same as `"$@"` of a script.
    pub fn within_shell<A: AsRef<OsStr>>(
        &self,
        script: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> TestCommand {
        let shell = TestCommand::new("sh").args(["-euc", script, "sh"]).arg(binary());
        self.with_store(shell, arguments)
    }

    fn with_store<A: AsRef<OsStr>>(
        &self,
        command: TestCommand,
        arguments: impl IntoIterator<Item = A>,
    ) -> TestCommand {
        // What the program writes is what the library reads, in this process. What ordinary users type themselves is in `cli::ordinary`.
        let command = if machine::is_root() { command } else { command.arg("--no-unshare") };
        command
            .args([OsStr::new("--root"), self.root().as_os_str()])
            .args([OsStr::new("--runroot"), self.run_root().as_os_str()])
            .args(arguments)
            .current_dir(self.path())
    }

    /// The mount points at and below this directory, innermost first.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let own = self.path().canonicalize().unwrap();
        let mut mounts = mount_points();
        mounts.retain(|mount| mount.starts_with(&own));
        mounts.reverse();
        mounts
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        for mount in self.mounts() {
            if let Err(error) = rustix::mount::unmount(&mount, UnmountFlags::DETACH) {
                eprintln!("cannot unmount {}: {error}", mount.display());
            }
        }
    }
}

/// Every mount point that this process sees, in the order of mounting.
fn mount_points() -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap();
    let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| unescape(line.split(|byte| *byte == b' ').nth(4).unwrap())).collect()
}

/// The mount table writes blanks, tabs, line feeds and backslashes as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| std::str::from_utf8(tail.get(..3)?).ok()).flatten();
        if let Some(code) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(code);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[test]
fn mount_table_fields_are_unescaped() {
    assert_eq!(unescape(b"/a\\040b\\134").as_os_str().as_bytes(), b"/a b\\");
    assert_eq!(unescape(b"/short\\0").as_os_str().as_bytes(), b"/short\\0");
}

#[test]
fn directory_leaves_no_mount() {
    if !super::machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("mounts");
    let point = dir.create_dir("a b");
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("none", &point, "tmpfs", flags, None) {
        skip!("cannot mount a tmpfs: {error}");
    }
    assert_eq!(dir.mounts(), [point.canonicalize().unwrap()]);
    let path = dir.path().to_path_buf();
    drop(dir);
    assert!(!path.exists());
    assert!(mount_points().iter().all(|mount| !mount.starts_with(&path)));
}
