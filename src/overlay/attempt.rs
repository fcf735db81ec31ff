//! Tries a mount program out: what a path or `PATH` names may be missing, broken, or no mount program at all.

use std::os::fd::AsFd;
use std::path::Path;

use super::mount::{UnmountMode, mount, unmount};
use super::options::plan;
use super::probe::Probe;
use super::request::{MountRequest, Upper, XattrClass};
use crate::disk::remove_tree;
use crate::error::{MountError, TreeError};
use crate::sys::{beneath, path};

/// What the file of the scratch layer has.
const CONTENT: &[u8] = b"content\n";

/// Where everything of the trial is in the scratch directory.
const TRIED: &str = "program";

/// Has `program` mount a little layer below a writable one in `scratch`, an empty directory that is empty again afterwards, and
/// reads and writes through the mount.
///
/// Returns what [`mount`] does if it cannot, [`MountError::Program`] if the mount shows something else than the layer, and
/// [`MountError::Directory`] if `scratch` itself cannot be used.
pub(crate) fn try_program(program: &Path, scratch: &Path, xattrs: XattrClass) -> Result<(), MountError> {
    let failed =
        |source| MountError::Directory { action: "try a mount program in", path: scratch.to_owned(), source };
    let root = path::resolve(scratch).map_err(failed)?.join(TRIED);
    let directory = beneath::open_directory(scratch).map_err(failed)?;
    let at = |name: &str| root.join(name);
    for name in ["lower", "upper", "work", "target"] {
        path::make_directories(&at(name), 0o755).map_err(failed)?;
    }
    path::write(&at("lower/file"), CONTENT).map_err(failed)?;
    let mut request = MountRequest::new(&root, at("empty"), xattrs);
    request.lowers = vec![at("lower")];
    request.upper = Some(Upper { upper: at("upper"), work: at("work") });
    request.prefer_program = true;
    let able = Probe { program: Some(program.to_owned()), ..Probe::nothing() };
    let target = at("target");
    let tried = plan(&able, &request).and_then(|plan| mount(&plan, &target)).and_then(|()| {
        let used = path::read(&target.join("file")).and_then(|content| {
            path::write(&target.join("written"), CONTENT)?;
            Ok(content == CONTENT && path::read(&at("upper/written"))? == CONTENT)
        });
        let ended = unmount(&target, UnmountMode::Plain).or_else(|_| unmount(&target, UnmountMode::Detach));
        let wrong =
            |message| MountError::Program { program: program.to_owned(), target: target.clone(), message };
        match used {
            Ok(true) => ended,
            Ok(false) => Err(wrong("its mount shows something else than the layers".to_owned())),
            Err(error) => Err(wrong(format!("its mount cannot be used: {error}"))),
        }
    });
    remove_tree(directory.as_fd(), TRIED.as_bytes()).map_err(TreeError::into_io).map_err(failed)?;
    tried
}
