//! What a stack of layers shows goes into the image: each path becomes a name, each file an inode.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use layerstore_schema::manifest::{Entry, Kind, Manifest, path_order};

use super::content;
use super::erofs::{self, Body, Inode, Name};
use crate::disk::XattrNamespace;
use crate::sys::verity::{SHA256, VerityDigest};
use crate::types::{ContentHash, Metadata, TreeDigest};

const DIRECTORY: u16 = 0o040_000;
const FILE: u16 = 0o100_000;
const LINK: u16 = 0o120_000;
const CHAR_DEVICE: u16 = 0o020_000;
const BLOCK_DEVICE: u16 = 0o060_000;
const FIFO: u16 = 0o010_000;
const SOCKET: u16 = 0o140_000;

/// The context of the digest of a stack. A change of what an image says changes this string.
const CONTEXT: &str = "layerstore 2026-11 composefs image v1";

/// Sealed layers that an image is made of.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    /// Their trees, topmost first.
    pub(crate) layers: Vec<(TreeDigest, Arc<Manifest>)>,
    /// The attributes that mounts of the image read.
    pub(crate) namespace: XattrNamespace,
}

impl Stack {
    /// What it is called.
    pub(super) fn name(&self) -> StackName {
        StackName::new(self.namespace, self.layers.iter().map(|(tree, _)| tree))
    }
}

/// What an image says, but for digests of files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StackName(pub(super) blake3::Hash);

impl StackName {
    /// That of the image of these trees, topmost first.
    pub(crate) fn new<'t>(
        namespace: XattrNamespace,
        trees: impl IntoIterator<Item = &'t TreeDigest>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(namespace.prefix());
        for tree in trees {
            hasher.update(&tree.0);
        }
        StackName(hasher.finalize())
    }
}

/// What EROFS has no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// The path in the layer.
    pub(crate) path: String,
    /// Why.
    pub(crate) reason: &'static str,
}

/// The fs-verity digests of files, by their content.
pub(crate) type Digests = HashMap<ContentHash, VerityDigest>;

/// A path, in the order of manifests: what is below a directory follows it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Path<'m>(&'m [u8]);

impl Ord for Path<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        path_order(self.0, other.0)
    }
}

impl PartialOrd for Path<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Path<'_> {
    fn is_below(self, directory: Self) -> bool {
        match directory.0 {
            [] => !self.0.is_empty(),
            above => self.0.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/")),
        }
    }

    fn shown(self) -> String {
        format!("/{}", String::from_utf8_lossy(self.0))
    }
}

/// What the stack shows: for each path the entry that made the file. Names of one file have the same entry.
fn merged<'m>(stack: &'m Stack) -> Result<BTreeMap<Path<'m>, &'m Entry>, Unfit> {
    let mut shown: BTreeMap<Path<'m>, &'m Entry> = BTreeMap::new();
    for (_, manifest) in stack.layers.iter().rev() {
        for entry in manifest.entries() {
            let path = Path(&entry.path);
            // Nothing is below what is no directory, so a directory in its place hides nothing but it.
            if !matches!(entry.kind, Kind::Directory { opaque: false }) {
                let below: Vec<_> = shown
                    .range(path..)
                    .map(|(path, _)| *path)
                    .take_while(|one| *one == path || one.is_below(path))
                    .collect();
                for path in below {
                    shown.remove(&path);
                }
            }
            let entry = match &entry.kind {
                Kind::Whiteout => continue,
                Kind::HardLink { target } => manifest
                    .get(target)
                    .ok_or_else(|| Unfit { path: path.shown(), reason: "its first name is not there" })?,
                _ => entry,
            };
            shown.insert(path, entry);
        }
    }
    Ok(shown)
}

/// The image of a stack: the same bytes for the same trees and digests, on any machine.
///
/// With `digests`, which has those of all files, the mount can have the kernel verify each file.
pub(crate) fn image(stack: &Stack, digests: Option<&Digests>) -> Result<Vec<u8>, Unfit> {
    let shown = merged(stack)?;
    let mut inodes: Vec<Inode> = Vec::with_capacity(shown.len());
    let mut paths: Vec<Path<'_>> = Vec::with_capacity(shown.len());
    let mut of_entry: HashMap<*const Entry, usize> = HashMap::new();
    let mut of_path: HashMap<&[u8], usize> = HashMap::with_capacity(shown.len());
    for (path, entry) in &shown {
        let unfit = |reason| Unfit { path: path.shown(), reason };
        let index = match of_entry.get(&std::ptr::from_ref(*entry)) {
            Some(index) => *index,
            None => {
                paths.push(*path);
                inodes.push(inode(stack.namespace, entry, digests).map_err(unfit)?);
                inodes.len().saturating_sub(1)
            }
        };
        of_entry.insert(*entry, index);
        of_path.insert(path.0, index);
        let is_root = path.0.is_empty();
        let end = path.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let parent = of_path.get(path.0.get(..end).unwrap_or_default()).copied();
        let parent = parent.ok_or_else(|| unfit("its directory is not there"))?;
        let is_directory = matches!(entry.kind, Kind::Directory { .. });
        if let Some(inode) = inodes.get_mut(index) {
            // The name in the directory above, which the root has not, and `.` of a directory.
            inode.links = inode.links.saturating_add(1).saturating_add(u32::from(is_directory));
            if is_directory {
                let own = [(&b"."[..], index), (b"..", parent)];
                inode.body =
                    Body::Directory(own.map(|(name, inode)| Name { name: name.to_vec(), inode }).to_vec());
            }
        }
        if is_root {
            continue;
        }
        let name = path.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        match inodes.get_mut(parent) {
            Some(Inode { body: Body::Directory(names), links, .. }) => {
                names.push(Name { name, inode: index });
                // The name `..` of a directory in it.
                *links = links.saturating_add(u32::from(is_directory));
            }
            _ => return Err(unfit("its directory is none")),
        }
    }
    for inode in &mut inodes {
        if let Body::Directory(names) = &mut inode.body {
            names.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        }
    }
    let mut uuid = [0; 16];
    uuid.iter_mut().zip(stack.name().0.as_bytes()).for_each(|(to, from)| *to = *from);
    erofs::filesystem(&inodes, uuid).map_err(|unfit| Unfit {
        path: paths.get(unfit.inode).map_or_else(String::new, |path| path.shown()),
        reason: unfit.reason,
    })
}

fn inode(
    namespace: XattrNamespace,
    Entry { kind, metadata, .. }: &Entry,
    digests: Option<&Digests>,
) -> Result<Inode, &'static str> {
    let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let device = |major: &u32, minor: &u32| Body::Device { major: *major, minor: *minor };
    let (bits, body) = match kind {
        // Nothing is below that could be hidden.
        Kind::Directory { .. } => (DIRECTORY, Body::Directory(Vec::new())),
        Kind::File { size: 0, .. } => (FILE, Body::Empty),
        Kind::File { size, content } => {
            let mut mark =
                |name: &[u8], value: Vec<u8>| xattrs.push(([namespace.prefix(), name].concat(), value));
            let digest = match digests {
                // `struct ovl_metacopy`: version, length, flags, algorithm.
                Some(digests) => {
                    let digest = digests.get(content).ok_or("the digest of a file is not known")?;
                    [&[0, 36, 0, SHA256], &digest[..]].concat()
                }
                None => Vec::new(),
            };
            mark(b"metacopy", digest);
            mark(b"redirect", format!("/{}", content::name(content)).into_bytes());
            (FILE, Body::Hole(*size))
        }
        Kind::Symlink { target } => (LINK, Body::Link(target.clone())),
        Kind::CharDevice { major, minor } => (CHAR_DEVICE, device(major, minor)),
        Kind::BlockDevice { major, minor } => (BLOCK_DEVICE, device(major, minor)),
        Kind::Fifo => (FIFO, Body::Empty),
        Kind::Socket => (SOCKET, Body::Empty),
        Kind::HardLink { .. } | Kind::Whiteout => return Err("it is no file of its own"),
    };
    let own = metadata.xattrs.iter();
    xattrs.extend(own.filter_map(|(name, value)| Some((namespace.stored_name(name)?, value.clone()))));
    xattrs.sort_unstable();
    let Metadata { mode, uid, gid, mtime, .. } = *metadata;
    Ok(Inode { mode: bits | mode, uid, gid, mtime, links: 0, xattrs, body })
}
