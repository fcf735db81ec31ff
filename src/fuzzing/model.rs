//! What layers mean, by a second reading of the specification: trees in memory, and none of the code that imports.
//!
//! Of one layer, the last member at a path counts. Whiteouts and opaque markers concern the layers below, wherever they stand;
//! but a directory that gives way to something else takes with it what stood below it, markers included.

use std::collections::{BTreeMap, BTreeSet};

use layerstore_schema::manifest::{ContentHash, Entry, Kind, Metadata};

use super::form::Form;

/// The parts of a path. Their order is that of a manifest.
pub(super) type Path = Vec<Vec<u8>>;

/// A member of an archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) what: What,
    pub(super) metadata: Metadata,
    pub(super) form: Form,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    File(Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// A layer that no store has to take.
#[derive(Debug)]
pub(super) struct Refused;

/// The changes of one layer, of which nothing is known of the layers below.
#[derive(Default)]
pub(super) struct Changes {
    nodes: BTreeMap<Path, Node>,
    gone: BTreeSet<Path>,
    opaque: BTreeSet<Path>,
    files: Vec<(Kind, Metadata)>,
}

enum Node {
    /// Without metadata if the archive has no member for it.
    Directory(Option<Metadata>),
    /// The number of a file, which has as many names as there are of these.
    File(usize),
}

impl Changes {
    pub(super) fn of(members: &[Member]) -> Result<Self, Refused> {
        let mut changes = Changes::default();
        changes.nodes.insert(Path::new(), Node::Directory(None));
        members.iter().try_for_each(|member| changes.add(member))?;
        Ok(changes)
    }

    fn add(&mut self, member: &Member) -> Result<(), Refused> {
        let path = parts(&member.path)?;
        check(member)?;
        let Some((name, above)) = path.split_last() else {
            return match member.what {
                What::Directory => self.directory(path, &member.metadata),
                _ => Err(Refused),
            };
        };
        let Some(marked) = name.strip_prefix(b".wh.") else { return self.content(path, member) };
        if matches!(&member.what, What::File(content) if !content.is_empty()) {
            return Err(Refused);
        }
        match marked {
            b".wh..opq" => {
                self.ensure_directory(above)?;
                self.opaque.insert(above.to_vec());
            }
            _ if marked.starts_with(b".wh.") => {}
            b"" | b"." | b".." => return Err(Refused),
            _ => {
                self.ensure_directory(above)?;
                self.gone.insert([above, &[marked.to_vec()]].concat());
            }
        }
        Ok(())
    }

    fn content(&mut self, path: Path, member: &Member) -> Result<(), Refused> {
        let kind = match &member.what {
            What::Directory => return self.directory(path, &member.metadata),
            What::HardLink(target) => return self.hard_link(path, &parts(target)?),
            What::CharDevice(0, 0) => return Err(Refused),
            What::CharDevice(major, minor) => Kind::CharDevice { major: *major, minor: *minor },
            What::BlockDevice(major, minor) => Kind::BlockDevice { major: *major, minor: *minor },
            What::Fifo => Kind::Fifo,
            What::Symlink(target) => Kind::Symlink { target: target.clone() },
            What::File(content) => Kind::File {
                size: content.len() as u64,
                content: ContentHash(*blake3::hash(content).as_bytes()),
            },
        };
        let mut metadata = member.metadata.clone();
        if matches!(kind, Kind::Symlink { .. }) {
            metadata.mode = 0o777;
        }
        self.make_room(&path)?;
        self.nodes.insert(path, Node::File(self.files.len()));
        self.files.push((kind, metadata));
        Ok(())
    }

    fn directory(&mut self, path: Path, metadata: &Metadata) -> Result<(), Refused> {
        if let Some((_, above)) = path.split_last() {
            self.ensure_directory(above)?;
        }
        self.nodes.insert(path, Node::Directory(Some(metadata.clone())));
        Ok(())
    }

    fn hard_link(&mut self, path: Path, target: &Path) -> Result<(), Refused> {
        if path.is_empty() || path == *target {
            return Err(Refused);
        }
        let Some(&Node::File(number)) = self.nodes.get(target) else { return Err(Refused) };
        self.make_room(&path)?;
        if !self.nodes.contains_key(target) {
            return Err(Refused);
        }
        self.nodes.insert(path, Node::File(number));
        Ok(())
    }

    /// For something that is no directory.
    fn make_room(&mut self, path: &Path) -> Result<(), Refused> {
        let (_, above) = path.split_last().ok_or(Refused)?;
        self.ensure_directory(above)?;
        let is_below = |other: &Path| other.len() > path.len() && other.starts_with(path);
        self.nodes.retain(|other, _| !is_below(other));
        self.gone.retain(|other| !is_below(other));
        self.opaque.retain(|other| !is_below(other));
        Ok(())
    }

    fn ensure_directory(&mut self, path: &[Vec<u8>]) -> Result<(), Refused> {
        for length in 0..=path.len() {
            let above = path.get(..length).unwrap_or_default();
            if let Node::File(_) = self.nodes.entry(above.to_vec()).or_insert(Node::Directory(None)) {
                return Err(Refused);
            }
        }
        Ok(())
    }

    fn is_opaque(&self, path: &Path) -> bool {
        self.opaque.contains(path) || self.gone.contains(path)
    }

    /// What a manifest of these changes says, above the layers that `below` shows: directories that the archive does not name
    /// are as they are there.
    pub(super) fn entries(&self, below: &Tree, implied: &Metadata) -> Vec<Entry> {
        let mut first_names: BTreeMap<usize, &Path> = BTreeMap::new();
        let mut entries: Vec<(&Path, Kind, Metadata)> = Vec::new();
        for (path, node) in &self.nodes {
            let (kind, metadata) = match node {
                Node::Directory(metadata) => {
                    let inherited = || match below.0.get(path) {
                        Some((Kind::Directory { .. }, metadata)) => metadata.clone(),
                        _ => implied.clone(),
                    };
                    let kind = Kind::Directory { opaque: self.is_opaque(path) };
                    (kind, metadata.clone().unwrap_or_else(inherited))
                }
                Node::File(number) => match first_names.get(number) {
                    Some(first) => (Kind::HardLink { target: first.join(&b'/') }, Metadata::default()),
                    None => {
                        first_names.insert(*number, path);
                        self.files.get(*number).cloned().unwrap_or((Kind::Socket, Metadata::default()))
                    }
                },
            };
            entries.push((path, kind, metadata));
        }
        for path in self.gone.iter().filter(|path| !self.nodes.contains_key(*path)) {
            entries.push((path, Kind::Whiteout, Metadata::default()));
        }
        entries.sort_by(|one, other| one.0.cmp(other.0));
        let entry = |(path, kind, metadata): (&Path, _, _)| Entry { path: path.join(&b'/'), kind, metadata };
        entries.into_iter().map(entry).collect()
    }

    /// Whether a name stands for something that it would not be in an archive.
    pub(super) fn has_marker_names(&self) -> bool {
        self.nodes.keys().any(|path| path.last().is_some_and(|name| name.starts_with(b".wh.")))
    }
}

/// What layers show together.
#[derive(Clone, Default)]
pub(super) struct Tree(pub(super) BTreeMap<Path, (Kind, Metadata)>);

impl Tree {
    /// This tree with one layer more.
    pub(super) fn with(&self, changes: &Changes, implied: &Metadata) -> Tree {
        let mut tree = self.0.clone();
        let entries = changes.entries(self, implied);
        tree.retain(|path, _| {
            let is_below = |hiding: &Path| path.len() > hiding.len() && path.starts_with(hiding);
            let is_gone = changes.gone.iter().any(|gone| path == gone || is_below(gone));
            !is_gone && !changes.opaque.iter().any(is_below)
        });
        for ((path, node), entry) in
            changes.nodes.iter().zip(entries.iter().filter(|entry| entry.kind != Kind::Whiteout))
        {
            let seen = match node {
                Node::Directory(_) => (Kind::Directory { opaque: false }, entry.metadata.clone()),
                Node::File(number) => {
                    self::file(changes, *number).unwrap_or((Kind::Socket, Metadata::default()))
                }
            };
            let was_directory = matches!(tree.get(path), Some((Kind::Directory { .. }, _)));
            if !(was_directory && matches!(node, Node::Directory(_))) {
                tree.retain(|other, _| !other.starts_with(path));
            }
            tree.insert(path.clone(), seen);
        }
        Tree(tree)
    }
}

fn file(changes: &Changes, number: usize) -> Option<(Kind, Metadata)> {
    changes.files.get(number).cloned()
}

/// The parts of a path in an archive.
fn parts(raw: &[u8]) -> Result<Path, Refused> {
    let mut parts = Path::new();
    for part in raw.split(|&byte| byte == b'/') {
        match part {
            b".." => drop(parts.pop().ok_or(Refused)?),
            b"" | b"." => {}
            _ if part.len() > 255 => return Err(Refused),
            _ => parts.push(part.to_vec()),
        }
    }
    Ok(parts)
}

/// What no header may say.
fn check(member: &Member) -> Result<(), Refused> {
    let is_wrong = member.form.is_refused()
        || match &member.what {
            What::File(_) => member.path.ends_with(b"/"),
            What::Symlink(target) | What::HardLink(target) => target.is_empty(),
            _ => false,
        };
    if is_wrong { Err(Refused) } else { Ok(()) }
}
