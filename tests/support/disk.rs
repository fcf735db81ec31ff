//! Disks of the test's own: filesystems on loop devices.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Dir, TestCommand, machine};

/// What XFS wants at the least, and more. The file is sparse.
const BYTES: u64 = 512 << 20;

/// Makes a filesystem of this kind, with these options of its mkfs, and mounts it at `name` in the directory, which takes
/// the mount away in its end.
///
/// Returns why not, if this machine cannot.
pub fn mount(dir: &Dir, name: &str, kind: &str, options: &[&str]) -> Result<PathBuf, String> {
    mount_with(dir, name, kind, options, "defaults")
}

/// The same, with options of the mount.
pub fn mount_with(
    dir: &Dir,
    name: &str,
    kind: &str,
    options: &[&str],
    mount_options: &str,
) -> Result<PathBuf, String> {
    let mkfs = format!("mkfs.{kind}");
    if !machine::is_real_root() {
        return Err("mounting disks needs the machine's root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there is no /dev/loop-control".to_owned());
    }
    if !machine::has_program(&mkfs) {
        return Err(format!("there is no {mkfs}"));
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    if !known.lines().any(|line| line.trim_start_matches("nodev").trim() == kind) {
        return Err(format!("the kernel does not know {kind}"));
    }
    let disk = dir.join(format!("{name}.img"));
    File::create(&disk).unwrap().set_len(BYTES).unwrap();
    let force: &[&str] = if kind == "ext4" { &["-q", "-F"] } else { &["-q", "-f"] };
    TestCommand::new(mkfs).args(force).args(options).arg(&disk).assert_success();
    let at = dir.create_dir(name);
    let loop_and_more = format!("loop,{mount_options}");
    let mut mount = TestCommand::new("mount").args(["-t", kind, "-o", &loop_and_more]).arg(&disk).arg(&at);
    if mount_options == "defaults" {
        mount.assert_success();
    } else if !mount.output().status.success() {
        return Err(format!("the kernel mounts no {kind} with {mount_options}"));
    }
    Ok(at)
}
