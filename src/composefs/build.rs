//! Makes the files of a layer, and the image of a stack of layers, and finds them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use layerstore_schema::manifest::{Entry, Kind, Manifest};

use super::content;
use super::tree::{Digests, Stack, StackName, image};
use crate::disk::{DiffName, Layout, StagedFiles, Subdirectory};
use crate::error::LayoutError;
use crate::sys::file::File;
use crate::sys::verity;
use crate::sys::{beneath, moment, node, path};
use crate::types::ContentHash;

/// The directory of the files; the other if all have fs-verity.
pub(super) const PLAIN: &str = "data";
pub(super) const VERIFIED: &str = "data.verity";

/// How the names of images end.
pub(super) const IMAGE: &str = ".erofs";

/// An image, as a mount takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    /// The filesystem.
    pub(crate) image: PathBuf,
    /// The directories that have the content of its files.
    pub(crate) data: Vec<PathBuf>,
    /// Whether the image has the fs-verity digests of all files.
    pub(crate) verified: bool,
}

/// The files of `diffs/<number>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) number: u64,
    /// Their directory.
    pub(crate) path: PathBuf,
    /// Whether all have fs-verity.
    pub(crate) verified: bool,
}

/// Contents, each with its length and a path that has it.
pub(super) type Files<'m> = BTreeMap<ContentHash, (u64, &'m [u8])>;

/// What of a layer is to be found by its hash.
pub(super) fn files(manifest: &Manifest) -> Files<'_> {
    let mut files = BTreeMap::new();
    for Entry { path, kind, .. } in manifest.entries() {
        if let Kind::File { size: size @ 1.., content } = kind {
            files.entry(*content).or_insert((*size, path.as_slice()));
        }
    }
    files
}

/// The files of `diffs/<number>`; `None` if there are none yet.
pub(crate) fn find_data(layout: &Layout, number: u64) -> Option<Data> {
    let directory = directory(layout, number);
    [(PLAIN, false), (VERIFIED, true)].into_iter().find_map(|(name, verified)| {
        let path = directory.join(name);
        path::is_directory(&path).then_some(Data { number, path, verified })
    })
}

fn directory(layout: &Layout, number: u64) -> PathBuf {
    layout.entry_path(Subdirectory::Composefs, DiffName::Entry(number))
}

/// Names the files of `diffs/<number>`, in a directory with the number `fresh` until all have a name, and in `shared`, which
/// is [`open_shared`](super::open_shared). `sync` brings the filesystem to the disk.
///
/// Files get fs-verity where the filesystem has it; what they have is then compared with the manifest, for the last time.
pub(crate) fn build_data(
    layout: &Layout,
    manifest: &Manifest,
    (number, fresh): (u64, u64),
    shared: BorrowedFd<'_>,
    sync: impl FnOnce() -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let staged = StagedFiles::create(layout, fresh)?;
    let fail = |action| failed(directory(layout, number), action);
    let files = files(manifest);
    let data = node::make_directory(staged.directory(), PLAIN.as_bytes(), 0o700)
        .and_then(|()| beneath::open_directory_beneath(staged.directory(), PLAIN.as_bytes()))
        .map_err(fail("create"))?;
    let root = layout.open_entry(Subdirectory::Diffs, number)?;
    for (content, (size, at)) in &files {
        content::link(shared, data.as_fd(), (content, *size), (root.as_fd(), at))
            .map_err(fail("link the files of"))?;
    }
    if seal(data.as_fd(), &files).map_err(fail("turn on fs-verity in"))? {
        node::rename(staged.directory(), PLAIN.as_bytes(), staged.directory(), VERIFIED.as_bytes())
            .map_err(fail("rename the files of"))?;
    }
    sync()?;
    moment::pass("files named");
    staged.place(number)
}

/// Names the directory of a layer in the error of a step.
fn failed(path: PathBuf, action: &'static str) -> impl FnOnce(io::Error) -> LayoutError {
    move |source| LayoutError::Io { path, action, source }
}

/// Turns fs-verity on for all files; returns whether they have it now.
fn seal(data: BorrowedFd<'_>, files: &Files<'_>) -> io::Result<bool> {
    let open = |content: &ContentHash| beneath::open_file_beneath(data, content::name(content).as_bytes());
    // One says it for all.
    let Some(first) = files.keys().next() else { return Ok(true) };
    match verity::enable(open(first)?.as_fd()) {
        Err(error) if verity::is_without(&error) => return Ok(false),
        enabled => enabled?,
    }
    for (content, (size, _)) in files {
        verity::enable(open(content)?.as_fd())?;
        // From here on nobody can write to it, so what is right now stays right.
        if !content::has(data, content::name(content).as_bytes(), content, *size) {
            let reason = format!("a file is not what the manifest says: {}", content::name(content));
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
    }
    Ok(true)
}

/// The digests of all files of a stack, which `data` has; `None` if one has none.
pub(super) fn digests(stack: &Stack, data: &[Data]) -> io::Result<Option<Digests>> {
    let mut digests = Digests::new();
    for ((_, manifest), data) in stack.layers.iter().zip(data) {
        let directory = beneath::open_directory(&data.path)?;
        for content in files(manifest).into_keys().filter(|_| data.verified) {
            let file = beneath::open_file_beneath(directory.as_fd(), content::name(&content).as_bytes())?;
            match verity::measure(file.as_fd())? {
                Some(digest) => digests.insert(content, digest),
                None => return Ok(None),
            };
        }
    }
    Ok(data.iter().all(|data| data.verified).then_some(digests))
}

/// What the image of a stack is called, beside the files of its topmost layer.
fn image_name(stack: StackName, verified: bool) -> String {
    format!("{}{}", stack.0.to_hex(), if verified { ".verity.erofs" } else { IMAGE })
}

/// The image of a stack whose layers have these files, topmost first, wherever it is to be.
fn place_of_image(layout: &Layout, stack: StackName, data: &[Data]) -> Option<Built> {
    let top = data.first()?;
    let verified = data.iter().all(|data| data.verified);
    let image = directory(layout, top.number).join(image_name(stack, verified));
    let mut unique: Vec<PathBuf> = Vec::new();
    for path in data.iter().map(|data| &data.path) {
        if !unique.contains(path) {
            unique.push(path.clone());
        }
    }
    Some(Built { image, data: unique, verified })
}

/// The image of a stack whose layers have these files; `None` if there is none yet.
pub(crate) fn find_image(layout: &Layout, stack: StackName, data: &[Data]) -> Option<Built> {
    place_of_image(layout, stack, data).filter(|built| path::is_file(&built.image))
}

/// The image of a stack whose layers have these files, made if there is none; `None` if EROFS has no room for something.
pub(crate) fn build_image(
    layout: &Layout,
    stack: &Stack,
    data: &[Data],
    sync: impl FnOnce() -> Result<(), LayoutError>,
) -> Result<Option<Built>, LayoutError> {
    let (Some(top), Some(built)) = (data.first(), place_of_image(layout, stack.name(), data)) else {
        return Ok(None);
    };
    let fail = |action| failed(self::directory(layout, top.number), action);
    let (name, verified) = (image_name(stack.name(), built.verified), built.verified);
    if path::is_file(&built.image) {
        return Ok(Some(built));
    }
    let digests = digests(stack, data).map_err(fail("read the digests of"))?;
    let bytes = match image(stack, digests.as_ref()) {
        Ok(bytes) => bytes,
        Err(unfit) => {
            tracing::warn!(path = unfit.path, unfit.reason, "no composefs image of these layers");
            return Ok(None);
        }
    };
    let directory = layout.open_entry(Subdirectory::Composefs, top.number)?;
    let written = write(&directory, &bytes).map_err(fail("write an image in"))?;
    sync()?;
    moment::pass("image made");
    match node::name_file(written.as_fd(), directory.as_fd(), name.as_bytes()) {
        // The same bytes.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        named => named.map_err(fail("name an image in"))?,
    }
    drop(written);
    if verified {
        // What is read of the image is verified as well; where that fails, it only is not.
        let sealed = beneath::open_file_beneath(directory.as_fd(), name.as_bytes())
            .and_then(|file| verity::enable(file.as_fd()));
        if let Err(error) = sealed {
            tracing::debug!(%error, "the image has no fs-verity");
        }
    }
    Ok(Some(built))
}

/// A file without a name, with these bytes.
fn write(directory: &OwnedFd, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(beneath::unnamed_file(directory.as_fd())?);
    file.write_all(bytes)?;
    Ok(file)
}
