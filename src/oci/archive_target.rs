//! Where an archive goes to.
//!
//! A file is written under a temporary name beside its place, synced, and renamed at the end. What was there before is
//! refused, or replaced if that is asked for, and stays then until the new one is complete. Pipes, devices and open files, such as
//! `/dev/stdout`, are written to as it comes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use super::dir::{Dir, TemporaryFile, io_error};
use crate::error::OciError;
use crate::sys::file::File;
use crate::sys::path;
use crate::sys::stat::{self, FileId, Stat};

/// A file that gets its name when it is complete.
pub(super) struct NewFile {
    dir: Arc<Dir>,
    name: OsString,
    temporary: TemporaryFile,
    replaces: Replaces,
}

/// What the new file may take the place of.
enum Replaces {
    Nothing,
    /// Of this file as long as it is empty: whoever made it has only taken the name.
    Empty(FileId),
    Anything,
}

/// Opens what is written to, and says what becomes of it, if it is a new file. `replace` says whether that may take the place of
/// an archive that is there.
pub(super) fn open(path: &Path, replace: bool) -> Result<(File, Option<NewFile>), OciError> {
    let found = match path::stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map_err(io_error("examine", path))?),
    };
    if let Some(found) = &found {
        // The name of an open file leads to it, but nothing new can have that name.
        let file = match path::open_descriptor(path).map_err(io_error("open", path))? {
            None if found.kind != FileType::RegularFile => {
                Some(File::open_write_only(path).map_err(io_error("open", path))?)
            }
            file => file,
        };
        if let Some(file) = file {
            return Ok((file, None));
        }
    }
    let replaces = match &found {
        _ if replace => Replaces::Anything,
        None => Replaces::Nothing,
        Some(found) if found.size == 0 => Replaces::Empty(found.id),
        Some(_) => return Err(OciError::ArchiveExists(path.to_owned())),
    };
    let place = behind_links(path, found.as_ref()).map_err(io_error("follow the link", path))?;
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = Arc::new(Dir::open(parent.unwrap_or(Path::new(".")))?);
    let temporary = dir.create_temporary()?;
    let file = temporary.file.try_clone().map_err(io_error("open", path))?;
    let name = place.file_name().unwrap_or(OsStr::new("")).to_owned();
    Ok((file, Some(NewFile { dir, name, temporary, replaces })))
}

/// Where the new file comes to stand: a link stays, and what it leads to is replaced. One that leads nowhere is an error.
fn behind_links(path: &Path, found: Option<&Stat>) -> io::Result<PathBuf> {
    let Some(found) = found else {
        return if path::exists(path)? { Err(io::ErrorKind::NotFound.into()) } else { Ok(path.to_owned()) };
    };
    if path::stat_itself(path)?.kind != FileType::Symlink {
        return Ok(path.to_owned());
    }
    let place = path::resolve(path)?;
    // The kernel follows no stranger's link in `/tmp`, but reads it.
    if path::stat_itself(&place)?.id != found.id {
        return Err(io::Error::other("it leads elsewhere by now"));
    }
    Ok(place)
}

impl NewFile {
    /// Gives the file its name.
    ///
    /// Returns [`OciError::ArchiveExists`] with `path` if something stands there that it may not take the place of.
    pub(super) fn finish(self, path: PathBuf) -> Result<(), OciError> {
        let NewFile { dir, name, temporary, replaces } = self;
        temporary.file.sync().map_err(io_error("sync", &path))?;
        let may_replace = match replaces {
            Replaces::Nothing => false,
            // Another may have written to it, or have put an archive in its place as this does.
            Replaces::Empty(id) => stat::stat_at(dir.as_fd(), name.as_encoded_bytes())
                .is_ok_and(|found| found.id == id && found.size == 0),
            Replaces::Anything => true,
        };
        if may_replace {
            temporary.rename(&dir, &name)?;
        } else if !temporary.rename_new(&dir, &name)? {
            return Err(OciError::ArchiveExists(path));
        }
        dir.sync()
    }
}
