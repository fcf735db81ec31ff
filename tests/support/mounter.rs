//! Mounts as containerd makes them of what a snapshotter hands out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore::MountEntry;
use rustix::mount::{MountFlags, UnmountFlags};

/// What is mounted; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts entries over each other at a directory, which is made if it is not there.
    pub fn new(entries: &[MountEntry], target: impl AsRef<Path>) -> Self {
        let target = target.as_ref();
        std::fs::create_dir_all(target).unwrap();
        let mounted = Self(target.to_owned());
        for entry in entries {
            mount(entry, target).unwrap_or_else(|error| panic!("{entry:?}: {error}"));
        }
        mounted
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.0.display());
        }
    }
}

/// Mounts one entry.
pub fn mount(entry: &MountEntry, target: &Path) -> std::io::Result<()> {
    let is = |word: &str| entry.options.iter().any(|option| option == word);
    if entry.kind == "bind" {
        assert!(is("rbind"), "{entry:?}");
        rustix::mount::mount_bind_recursive(Path::new(&entry.source), target)?;
        if is("ro") {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            rustix::mount::mount_remount(target, flags, c"")?;
        }
        return Ok(());
    }
    let mut options = entry.options.clone();
    let directory = shorten(&mut options);
    // libmount sends each option by itself, and the kernel takes 256 bytes of one.
    let output = Command::new("mount")
        .env("LIBMOUNT_FORCE_MOUNT2", "always")
        .current_dir(directory)
        .args(["-t", &entry.kind, "-o"])
        .arg(options.join(",".as_ref()))
        .arg(&entry.source)
        .arg(target)
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Begins the lower directories at the one that they have in common, if the options would not fit a page otherwise.
pub fn shorten(options: &mut [OsString]) -> PathBuf {
    let whole = PathBuf::from("/");
    let page = 4096;
    if options.join(",".as_ref()).len() < page - 512 {
        return whole;
    }
    let Some(word) = options.iter_mut().find(|option| option.as_bytes().starts_with(b"lowerdir=")) else {
        return whole;
    };
    let text = word.to_str().unwrap().strip_prefix("lowerdir=").unwrap().to_owned();
    let lowers: Vec<&Path> = text.split(':').map(Path::new).collect();
    let common = lowers[0].parent().unwrap().to_owned();
    let short: Vec<_> =
        lowers.iter().map(|lower| lower.strip_prefix(&common).unwrap().to_str().unwrap()).collect();
    *word = format!("lowerdir={}", short.join(":")).into();
    common
}
