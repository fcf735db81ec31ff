//! Mounts made by a program, where the kernel cannot: the only external program of the crate, but for the helper that takes such
//! mounts away.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::entry::{EntryPaths, escaped, extent_words};
use super::mount::is_mounted;
use super::options::PERMISSIONS;
use super::request::{MountPlan, Upper};
use crate::error::MountError;
use crate::sys::file::File;
use crate::sys::mount::info;
use crate::sys::{children, process};

/// Runs `program` to mount `plan` at `target`. It serves the mount in the background after this call.
///
/// The options are those that fuse-overlayfs knows. It forces what a plan forces by itself: it copies renamed
/// directories and has no index.
pub(super) fn mount(plan: &MountPlan, program: &Path, target: &Path) -> Result<(), MountError> {
    let failed = |message: String| MountError::Program {
        program: program.to_owned(),
        target: target.to_owned(),
        message,
    };
    let options = plan.program_options().map_err(|path| {
        failed(format!(
            "it takes no directory whose path has a colon or begins with two slashes, such as {}",
            path.display()
        ))
    })?;
    let output = match process::run(program, &plan.base, [OsStr::new("-o"), &options, target.as_os_str()]) {
        // It did run, and how it ended only the mount table says.
        Err(error) if children::is_unheard(&error) => {
            return match is_mounted(target)? {
                true => Ok(()),
                false => Err(failed(format!("it ended without a mount, and {}", children::UNHEARD))),
            };
        }
        ran => ran.map_err(|error| failed(format!("it cannot be run: {error}")))?,
    };
    // libfuse passes options of its own on, which the program names without need.
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("unknown argument ignored")).collect();
    let said = said.join("; ");
    if !output.status.success() {
        return Err(failed(if said.is_empty() { output.status.to_string() } else { said }));
    }
    if !is_mounted(target)? {
        return Err(failed("it ended without a mount".to_owned()));
    }
    Ok(())
}

/// Has the helper of FUSE end a mount that this process may not: an ordinary user's own, outside of a user namespace. `None` if it
/// is no such mount, or there is no helper.
pub(super) fn unmount(target: &Path, detach: bool) -> Option<io::Result<()>> {
    let helper = HELPERS.iter().filter(|_| made(target)).find_map(|name| process::find(name))?;
    let flags = if detach { ["-u", "-z", "--"].as_slice() } else { ["-u", "--"].as_slice() };
    let words = flags.iter().map(OsStr::new).chain([target.as_os_str()]);
    let output = match process::run(&helper, Path::new("/"), words) {
        Err(error) if children::is_unheard(&error) => {
            return Some(match made(target) {
                true => {
                    Err(io::Error::other(format!("{} did not, and {}", helper.display(), children::UNHEARD)))
                }
                false => Ok(()),
            });
        }
        Err(error) => return Some(Err(error)),
        Ok(output) => output,
    };
    if output.status.success() {
        return Some(Ok(()));
    }
    // It ends with 1 whatever the kernel said, and tells only people what that was.
    let said = String::from_utf8_lossy(&output.stderr);
    tracing::debug!(helper = %helper.display(), %said, "the mount stays");
    Some(Err(match said.contains("busy") {
        true => io::Error::from_raw_os_error(nix::libc::EBUSY),
        false => io::Error::from_raw_os_error(nix::libc::EPERM),
    }))
}

/// Whether a program serves the mount at `target`.
pub(crate) fn made(target: &Path) -> bool {
    let top = || {
        let target = info::resolved(target).ok()?;
        info::read().ok()?.into_iter().rfind(|mount| mount.target == target)
    };
    top().is_some_and(|mount| mount.kind == "fuse" || mount.kind.as_bytes().starts_with(b"fuse."))
}

/// Programs with the right to end FUSE mounts of those who run them.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

impl MountPlan {
    /// The options for a program.
    ///
    /// Returns the path of a directory that the program would take for something else.
    pub(crate) fn program_options(&self) -> Result<OsString, &Path> {
        if let Some(path) = misread(self) {
            return Err(path);
        }
        let mut words: Vec<OsString> = self.attribute_words().map(OsString::from).collect();
        words.extend(
            self.settings.iter().filter(|(key, _)| *key == "volatile").map(|(key, _)| OsString::from(key)),
        );
        if let Some((key, Some(value))) = self.settings.iter().find(|(key, _)| *key == PERMISSIONS) {
            words.push(format!("{key}={value}").into());
        }
        if let Some(label) = &self.context {
            words.push(for_fuse("context=", OsStr::new(&format!("\"{label}\""))));
        }
        if let Some((maps, _)) = &self.id_map {
            words.push(format!("uidmapping={}", extent_words(&maps.uids, ":")).into());
            words.push(format!("gidmapping={}", extent_words(&maps.gids, ":")).into());
        }
        if let Some(Upper { upper, work }) = &self.upper {
            words.push(for_fuse("upperdir=", short(self, upper)));
            words.push(for_fuse("workdir=", short(self, work)));
        }
        let lowers: Vec<&OsStr> = self.lowers.iter().map(|lower| short(self, lower)).collect();
        words.push(for_fuse("lowerdir=", &lowers.join(OsStr::new(":"))));
        Ok(words.join(OsStr::new(",")))
    }
}

/// A path that the program would split, as it does at every colon of the layers as they are given and of the upper
/// directory's full path, or take for the name of a plugin.
fn misread(plan: &MountPlan) -> Option<&Path> {
    let upper = plan.upper.iter().map(|upper| (upper.upper.as_path(), upper.upper.as_os_str()));
    let lowers = plan.lowers.iter().map(|lower| (lower.as_path(), short(plan, lower)));
    let is_misread = |given: &OsStr| given.as_bytes().contains(&b':') || given.as_bytes().starts_with(b"//");
    upper.chain(lowers).find(|(_, given)| is_misread(given)).map(|(path, _)| path)
}

/// A path as seen from the directory that the program runs in.
fn short<'a>(plan: &MountPlan, path: &'a Path) -> &'a OsStr {
    plan.shortened(path, EntryPaths::Relative).as_os_str()
}

/// An option for libfuse, which takes off one level of backslashes.
fn for_fuse(key: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(key);
    word.push(escaped(value, b"\\,"));
    word
}

/// The fuse-overlayfs of this machine, if it could work: the program and the device it needs.
pub(crate) fn find() -> Option<PathBuf> {
    File::open_to_write(Path::new(DEVICE)).ok()?;
    process::find(PROGRAM)
}

/// Why [`find`] finds none, and what to do.
pub(crate) fn objection() -> String {
    match (process::find(PROGRAM), File::open_to_write(Path::new(DEVICE))) {
        (None, _) => {
            format!("none found: install {PROGRAM}, or name another one by the option mount_program")
        }
        (Some(program), Err(error)) => {
            format!("{} needs {DEVICE}, which cannot be opened: {error}", program.display())
        }
        (Some(_), Ok(_)) => format!("{PROGRAM} was not there a moment ago"),
    }
}

const PROGRAM: &str = "fuse-overlayfs";
const DEVICE: &str = "/dev/fuse";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::options::plan;
    use super::super::probe::Probe;
    use super::super::request::{MountRequest, XattrClass};
    use super::*;
    use crate::sys::userns::IdMaps;
    use crate::sys::userns::tests::in_child;

    #[test]
    fn a_plan_becomes_options_of_the_program() {
        let mut request = MountRequest::new("/s/d", "/s/empty", XattrClass::Trusted);
        request.lowers = vec!["/s/d/2".into(), "/s/d/a,b".into()];
        request.upper = Some(Upper { upper: "/s/d/9".into(), work: "/s/w/9".into() });
        request.id_map = Some(IdMaps {
            uids: vec!["0:7:1".parse().unwrap(), "1:20:2".parse().unwrap()],
            gids: vec!["0:8:3".parse().unwrap()],
        });
        request.options = ["volatile", "nodev", "xino=on"].map(str::to_owned).to_vec();
        request.context = Some("u:r:t:s0:c1,c2".to_owned());
        let probe = Probe { volatile: true, program: Some("/bin/fuse-overlayfs".into()), ..Probe::nothing() };
        let expected = [
            "nodev",
            "volatile",
            r#"context="u:r:t:s0:c1\,c2""#,
            "uidmapping=0:7:1:1:20:2",
            "gidmapping=0:8:3",
            "upperdir=9",
            "workdir=/s/w/9",
            r"lowerdir=2:a\,b",
        ];
        assert_eq!(plan(&probe, &request).unwrap().program_options().unwrap(), *expected.join(","));
        for odd in ["/s/d/a:b", "//name/data/s"] {
            request.lowers = vec![odd.into()];
            assert_eq!(plan(&probe, &request).unwrap().program_options(), Err(Path::new(odd)));
        }
    }

    /// A host program may ignore how its children end, and the library changes none of its signals.
    #[test]
    fn the_mount_table_tells_how_a_program_ended_if_the_kernel_does_not() {
        if !crate::sys::userns::is_privileged() {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let (program, target) = (dir.path().join("program"), dir.path().join("target"));
        fs::create_dir(&target).unwrap();
        let mut request = MountRequest::new(dir.path(), dir.path(), XattrClass::Trusted);
        request.lowers = vec![target.clone()];
        let mount_by = |script: &str| {
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            let probe = Probe { program: Some(program.clone()), ..Probe::nothing() };
            let plan = plan(&probe, &request).unwrap();
            in_child(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                crate::sys::mount::make_private(Path::new("/"), true).unwrap();
                children::tests::ignore();
                match mount(&plan, &program, &target) {
                    Ok(()) => "mounted".to_owned(),
                    Err(error) => crate::error::Error::from(error).to_string(),
                }
            })
        };
        assert_eq!(mount_by("mount -t tmpfs none \"$3\""), "mounted");
        let error = mount_by("exit 1");
        assert!(error.contains("ended without a mount") && error.contains("hear_children"), "{error}");
    }
}
