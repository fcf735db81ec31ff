//! A new diff directory from a manifest, and from files with the right contents wherever they are.
//!
//! Each file is hashed while it is copied, so what was good when somebody looked and is not now does no harm: the next
//! copy is tried. Whether the whole is right says its digest in the end.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use layerstore_schema::manifest::{Entry, Kind, Manifest};

use crate::check::Place;
use crate::disk::{self, Confinement, Staging, TreeWriter, UnpackOptions};
use crate::error::{Error, ImportError, RepairError, is_denied};
use crate::sys::file::{File, duplicate};
use crate::sys::{beneath, moment, stat};
use crate::types::{ContentHash, RelPath};

/// Where contents may be found: directories by number, and places in them.
pub(super) struct Contents<'c> {
    /// Open directories.
    pub(super) directories: HashMap<u64, OwnedFd>,
    /// The number of the directory that is being replaced.
    pub(super) old: Option<u64>,
    /// Files that should have a content.
    pub(super) places: &'c HashMap<ContentHash, Vec<Place>>,
}

impl Contents<'_> {
    /// Every place where the content of an entry may be, the likeliest first.
    fn of<'p>(
        &'p self,
        entry: &'p Entry,
        content: &ContentHash,
    ) -> impl Iterator<Item = (&'p OwnedFd, &'p [u8])> {
        let own = self.old.map(|number| (number, entry.path.as_slice()));
        let others = self.places.get(content).into_iter().flatten();
        let all = own.into_iter().chain(others.map(|place| (place.number, place.path.as_slice())));
        all.filter_map(|(number, path)| Some((self.directories.get(&number)?, path)))
    }
}

/// Fills a staged directory by a manifest, and returns the manifest of what came out.
///
/// Returns [`RepairError::NoContent`] if no place has the content of a file, and [`RepairError::Withheld`] if one may have it that
/// this process may not read.
pub(super) fn assemble(
    staging: &Staging,
    manifest: &Manifest,
    contents: &Contents<'_>,
    options: &UnpackOptions,
) -> Result<Manifest, Error> {
    let directories = contents.directories.values();
    let reach = directories.fold(Confinement::to(staging), |reach, open| reach.and_read(open.as_fd()));
    reach.run(|| assemble_confined(staging, manifest, contents, options)).map_err(RepairError::Io)?
}

fn assemble_confined(
    staging: &Staging,
    manifest: &Manifest,
    contents: &Contents<'_>,
    options: &UnpackOptions,
) -> Result<Manifest, Error> {
    let own = |fd: BorrowedFd<'_>| duplicate(fd).map_err(RepairError::Io);
    let (root, aside) = (own(staging.directory())?, own(staging.aside().map_err(RepairError::Io)?)?);
    let mut tree = TreeWriter::new(root, aside, options.clone());
    let mut known = HashMap::new();
    for entry in manifest.entries() {
        make(&mut tree, entry, contents, &mut known)?;
    }
    tree.finish().map_err(ImportError::from)?;
    Ok(disk::scan(staging.directory(), &known, options.xattr_namespace)?)
}

fn make(
    tree: &mut TreeWriter,
    entry: &Entry,
    contents: &Contents<'_>,
    known: &mut HashMap<u64, ContentHash>,
) -> Result<(), Error> {
    let path = if entry.path.is_empty() { RelPath::root() } else { RelPath::from_archive(&entry.path)? };
    match &entry.kind {
        Kind::File { size, content } => copy_any(tree, entry, (*size, content), contents, known),
        // No archive has one.
        Kind::Socket => Err(RepairError::Kind { path: path.as_path().to_owned() }.into()),
        kind => Ok(tree.entry(&path, kind, &entry.metadata)?),
    }
}

/// Makes a file from the first place that really has its content.
fn copy_any(
    tree: &mut TreeWriter,
    entry: &Entry,
    (size, content): (u64, &ContentHash),
    contents: &Contents<'_>,
    known: &mut HashMap<u64, ContentHash>,
) -> Result<(), Error> {
    let path = RelPath::from_archive(&entry.path)?;
    let mut withheld = None;
    for (directory, place) in contents.of(entry, content) {
        let file = match beneath::open_sealed_file_beneath(directory.as_fd(), place) {
            Ok(file) => file,
            Err(error) => {
                withheld = withheld.or(Some(error).filter(|error| is_denied(error)));
                continue;
            }
        };
        let is_right = stat::stat(file.as_fd())
            .is_ok_and(|found| found.kind == rustix::fs::FileType::RegularFile && found.size == size);
        if !is_right {
            continue;
        }
        // What was made of a wrong copy is replaced by the next.
        let writer = tree.file(&path, &entry.metadata, size).map_err(ImportError::from)?;
        if let Some(written) = writer.copy(&File::from(file)).map_err(ImportError::from)?
            && written.content == *content
        {
            known.insert(written.inode, written.content);
            moment::pass("file assembled");
            return Ok(());
        }
    }
    let path = path.as_path().to_owned();
    Err(match withheld {
        Some(source) => RepairError::Withheld { path, source }.into(),
        None => RepairError::NoContent { content: content.to_string(), path }.into(),
    })
}

#[cfg(test)]
mod tests {
    use crate::archive::made::{Member, archive};
    use crate::disk::tests_of_confinement::assert_confined;
    use crate::repair::RepairOptions;
    use crate::store::{LayerOptions, Store, StoreOptions, SyncMode};

    #[test]
    fn what_is_assembled_is_written_nowhere_else() {
        let prepare = |dir: &std::path::Path| {
            let options = StoreOptions::at(dir.join("store")).run_root(dir.join("run"));
            let store = Store::open(&options.sync(SyncMode::Off).reserve(0)).unwrap();
            let hurt = [
                Member::directory("d"),
                Member::file("d/early", "e"),
                Member::file("d/late", "l"),
                Member::file("hurt", "as it was"),
            ];
            for members in [&hurt[..], &[Member::file("same", "as it was")]] {
                store.put_layer(None, &LayerOptions::default(), &*archive(members)).unwrap();
            }
            for found in std::fs::read_dir(dir.join("store/diffs")).unwrap() {
                let file = found.unwrap().path().join("hurt");
                if file.exists() {
                    std::fs::write(file, "as it is ").unwrap();
                }
            }
            store
        };
        assert_confined("file assembled", prepare, |store| {
            let report = store.repair(&RepairOptions::default()).unwrap();
            assert!(!report.failed.is_empty() && report.repaired.is_empty(), "{report:?}");
        });
    }
}
