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
use crate::sys::{beneath, moment, node, path, stat};
use crate::types::{ContentHash, Timestamp};

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

/// A content, and one of the files of a layer that have it.
pub(super) struct Named<'m> {
    pub(super) size: u64,
    pub(super) path: &'m [u8],
    mtime: Timestamp,
}

/// What of a layer is to be found by its hash.
pub(super) type Files<'m> = BTreeMap<ContentHash, Named<'m>>;

/// What of a layer is to be found by its hash.
pub(super) fn files(manifest: &Manifest) -> Files<'_> {
    let mut files = BTreeMap::new();
    for Entry { path, kind, metadata } in manifest.entries() {
        if let Kind::File { size: size @ 1.., content } = kind {
            files.entry(*content).or_insert(Named { size: *size, path, mtime: metadata.mtime });
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
    let data = node::make_private_directory(staged.directory(), PLAIN.as_bytes())
        .and_then(|()| beneath::open_directory_beneath(staged.directory(), PLAIN.as_bytes()))
        .map_err(fail("create"))?;
    let root = layout.open_entry(Subdirectory::Diffs, number)?;
    for (content, Named { size, path, .. }) in &files {
        content::link(shared, data.as_fd(), (content, *size), (root.as_fd(), path))
            .map_err(fail("link the files of"))?;
    }
    if seal(data.as_fd(), root.as_fd(), &files).map_err(fail("turn on fs-verity in"))? {
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

/// Turns fs-verity on for all files; returns whether they have it now. `root` is the directory of the layer.
fn seal(data: BorrowedFd<'_>, root: BorrowedFd<'_>, files: &Files<'_>) -> io::Result<bool> {
    for (index, (content, named)) in files.iter().enumerate() {
        let name = content::name(content);
        match seal_file(&beneath::open_sealed_file_beneath(data, name.as_bytes())?, root, named) {
            // One says it for all.
            Err(error) if index == 0 && verity::is_without(&error) => return Ok(false),
            sealed => sealed?,
        }
        // From here on nobody can write to it, so what is right now stays right.
        if !content::has(data, name.as_bytes(), content, named.size) {
            let reason = format!("a file is not what the manifest says: {name}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
    }
    Ok(true)
}

/// Turns fs-verity on for a file. Some filesystems, ext4 for one, take that for a change of the file now. But the layer's
/// directory shows when it was changed, so the time is put back.
fn seal_file(file: &OwnedFd, root: BorrowedFd<'_>, Named { path, mtime, .. }: &Named<'_>) -> io::Result<()> {
    let file = file.as_fd();
    let before = stat::stat(file)?;
    verity::enable(file)?;
    let mtime = (mtime.seconds, mtime.nanoseconds);
    let now = stat::stat(file)?.mtime;
    if now == mtime {
        return Ok(());
    }
    // What it was before may be what a crash left. Of a file that another layer brought, that is all that is known.
    let (parent, last) = beneath::open_parent_beneath(root, path)?;
    let is_own = stat::stat_at(parent.as_fd(), last)?.id == before.id;
    let right = if is_own { mtime } else { before.mtime };
    if now == right { Ok(()) } else { node::set_mtime(file, right) }
}

/// The digests of all files of a stack, which `data` has; `None` if one has none.
pub(super) fn digests(stack: &Stack, data: &[Data]) -> io::Result<Option<Digests>> {
    let mut digests = Digests::new();
    for ((_, manifest), data) in stack.layers.iter().zip(data) {
        let directory = beneath::open_directory(&data.path)?;
        for content in files(manifest).into_keys().filter(|_| data.verified) {
            let file =
                beneath::open_sealed_file_beneath(directory.as_fd(), content::name(&content).as_bytes())?;
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
        let sealed = beneath::open_sealed_file_beneath(directory.as_fd(), name.as_bytes())
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
