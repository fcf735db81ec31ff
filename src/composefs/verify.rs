//! Whether files and images are what the manifests say.

use std::io::{self, Read};
use std::os::fd::AsFd;

use layerstore_schema::manifest::Manifest;

use super::build::{self, Data, Named};
use super::content;
use super::tree::{Stack, image};
use crate::disk::{DiffName, Layout, Subdirectory};
use crate::error::LayoutError;
use crate::sys::file::File;
use crate::sys::{beneath, directory, stat};

/// Compares the files of `diffs/<number>` with its manifest; `deep` reads them. Returns what is wrong, in words; `None` if
/// all is right, or there are none.
pub(crate) fn flaw_of_data(
    layout: &Layout,
    manifest: &Manifest,
    number: u64,
    deep: bool,
) -> Result<Option<String>, LayoutError> {
    match layout.open_entry(Subdirectory::Composefs, number) {
        Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let Some(data) = build::find_data(layout, number) else {
        return Ok(Some("its files are not there".to_owned()));
    };
    Ok(compare(&data, manifest, deep).unwrap_or_else(|error| Some(unreadable(&error))))
}

fn unreadable(error: &io::Error) -> String {
    format!("it cannot be read: {error}")
}

fn compare(data: &Data, manifest: &Manifest, deep: bool) -> io::Result<Option<String>> {
    let directory = beneath::open_directory(&data.path)?;
    for (content, Named { size, .. }) in build::files(manifest) {
        let name = content::name(&content);
        let found = match stat::stat_at(directory.as_fd(), name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(format!("the file {name} is missing")));
            }
            found => found?,
        };
        if found.size != size {
            return Ok(Some(format!("the file {name} has another length")));
        }
        if deep && !content::has(directory.as_fd(), name.as_bytes(), &content, size) {
            return Ok(Some(format!("the file {name} has another content")));
        }
    }
    Ok(None)
}

/// Whether there are images beside `diffs/<number>`.
pub(crate) fn has_images(layout: &Layout, number: u64) -> Result<bool, LayoutError> {
    let directory = match layout.open_entry(Subdirectory::Composefs, number) {
        Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let listed = directory::list(directory.as_fd()).map_err(|source| {
        let path = layout.entry_path(Subdirectory::Composefs, DiffName::Entry(number));
        LayoutError::Io { path, action: "read", source }
    })?;
    Ok(listed.iter().any(|entry| entry.name.ends_with(build::IMAGE.as_bytes())))
}

/// Compares the image of a stack whose layers have these files with one that is made anew. Returns what is wrong; `None` if
/// all is right, or there is no image.
pub(crate) fn flaw_of_image(layout: &Layout, stack: &Stack, data: &[Data]) -> Option<String> {
    let built = build::find_image(layout, stack.name(), data)?;
    let read = || -> io::Result<bool> {
        let mut found = Vec::new();
        match File::open(&built.image) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            file => file?.read_to_end(&mut found)?,
        };
        let digests = build::digests(stack, data)?;
        Ok(image(stack, digests.as_ref()).is_ok_and(|expected| expected == found))
    };
    match read() {
        Ok(true) => None,
        Ok(false) => Some("its image is not that of the layers".to_owned()),
        Err(error) => Some(unreadable(&error)),
    }
}
