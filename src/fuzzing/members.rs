//! Layers of members that meet each other, against a model.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use layerstore_schema::manifest::{Entry, Kind, Manifest, Metadata, Timestamp};

use super::fields::Fields;
use super::form::Form;
use super::import::check_directory;
use super::model::{Changes, Member, Tree, What};
use super::yard::{Unpacked, Yard};
use crate::archive::made;
use crate::disk::XattrNamespace;
use crate::layer::Stack;
use crate::sys::xattr::{self, Target};

/// Takes bytes for the members of up to four layers, whose paths are of few names, so that they meet: files, directories,
/// links, devices, whiteouts, opaque markers, with owners, modes, times and attributes, each written down in one of several forms, right
/// and wrong ones. Each layer is unpacked above those before.
///
/// - A layer is refused if and only if the model refuses it.
/// - Its manifest, read from the disk, is the model's: paths, kinds, contents, hard links, metadata, what is hidden.
/// - The layers together show what the model shows.
/// - It comes out as the bytes that came in; and an archive of its directory makes the same directory.
///
/// What is hidden anyway is not compared: whiteouts in opaque directories, and whether directories in them are opaque.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_members(bytes: &[u8]) {
    thread_local!(static GROUND: io::Result<Ground> = Ground::new());
    GROUND.with(|ground| {
        assert!(ground.is_ok(), "no place to work in: {:?}", ground.as_ref().err());
        if let Ok(ground) = ground {
            ground.yard.guard(|| ground.run(&mut Fields(bytes)));
        }
    });
}

struct Ground {
    yard: Yard,
    /// Whether every owner, device and attribute can be made.
    is_root: bool,
    /// Whether the filesystem has attributes of users.
    has_attributes: bool,
    /// Who owns what this process makes.
    own: (u32, u32),
}

impl Ground {
    fn new() -> io::Result<Self> {
        let yard = Yard::new()?;
        let root = yard.store.layout().root();
        let made = yard.store.root().metadata()?;
        Ok(Ground {
            is_root: yard.store.layout().xattrs() == XattrNamespace::Trusted,
            has_attributes: xattr::set(Target::File(root), b"user.fuzzed", b"1").is_ok(),
            own: (made.uid(), made.gid()),
            yard,
        })
    }

    fn run(&self, fields: &mut Fields<'_>) {
        let (uid, gid) = if self.is_root { (0, 0) } else { self.own };
        let implied = Metadata { mode: 0o755, uid, gid, ..Metadata::default() };
        let (mut stack, mut tree) = (Stack::default(), Tree::default());
        for _ in 0..4 {
            if fields.0.is_empty() {
                break;
            }
            let count = fields.byte() % 24;
            let members: Vec<Member> = (0..count).map(|_| self.member(fields)).collect();
            let archive = encode(&members);
            let changes = Changes::of(&members);
            let unpacked = self.yard.unpack(&archive, &stack);
            let refused = unpacked.as_ref().err();
            assert_eq!(changes.is_ok(), refused.is_none(), "{members:#?}\nis taken, or refused: {refused:?}");
            let (Ok(changes), Ok(layer)) = (changes, unpacked) else { continue };
            assert!(self.yard.export(&layer) == archive, "other bytes came out");
            let manifest = &layer.sealed.content.manifest;
            let (found, meant) = (visible(manifest.entries()), visible(&changes.entries(&tree, &implied)));
            assert!(
                found == meant,
                "{members:#?}\nis another tree (found, meant): {:#?}",
                super::first_difference(&found, &meant)
            );
            check_whiteouts(manifest);
            self.check_export(&layer, &changes, &stack);
            tree = tree.with(&changes, &implied);
            stack = stack.push(Arc::clone(manifest));
            check_stack(&stack, &tree);
        }
    }

    fn check_export(&self, layer: &Unpacked, changes: &Changes, below: &Stack) {
        let exported = self.yard.export_directory(layer, below);
        assert_eq!(exported.is_err(), changes.has_marker_names(), "{:?}", exported.err());
        check_directory(&self.yard, layer, below);
    }

    fn member(&self, fields: &mut Fields<'_>) -> Member {
        let kind = fields.byte();
        let (form, kind) = (Form::of(kind >> 4, fields), kind & 15);
        let mut path = path(fields);
        let (look, marks) = (usize::from(fields.byte()), fields.byte());
        let what = match kind {
            0..3 => {
                let length = fields.byte();
                What::File(vec![length | 1; usize::from(length % 32)])
            }
            3..6 => What::Directory,
            6 => What::Symlink(self::path(fields)),
            7 | 8 => What::HardLink(self::path(fields)),
            9 if self.is_root => What::CharDevice(u32::from(fields.byte() % 3), u32::from(fields.byte() % 3)),
            10 if self.is_root => What::BlockDevice(u32::from(fields.byte() % 3), 0),
            9..12 => What::Fifo,
            12..15 => {
                let at = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
                path.splice(at..at, *b".wh.");
                What::File(Vec::new())
            }
            _ => {
                path.extend_from_slice(b"/.wh..wh..opq");
                What::File(Vec::new())
            }
        };
        let metadata = self.metadata(look, marks, &what);
        Member { path, what, metadata, form }
    }

    fn metadata(&self, look: usize, marks: u8, what: &What) -> Metadata {
        const OWNERS: [(u32, u32); 4] = [(0, 0), (1000, 100), (u32::MAX - 1, 1 << 31), (0, 7)];
        const MODES: [u16; 8] = [0o644, 0o755, 0o4755, 0o2755, 0o1777, 0, 0o7777, 0o600];
        const TIMES: [(i64, u32); 8] = [
            (0, 0),
            (1, 0),
            (1_700_000_000, 5),
            (-1, 999_999_999),
            (-1000, 0),
            (i32::MAX as i64, 0),
            (12, 500_000_000),
            (0, 1),
        ];
        // Some mean something to overlayfs, and some are the host's or a mount program's: no layer has these.
        const ATTRIBUTES: [&[u8]; 8] = [
            b"user.a",
            b"user.b",
            b"user.overlay.opaque",
            b"user.overlay.whiteout",
            b"trusted.overlay.opaque",
            b"trusted.overlay.redirect",
            b"security.selinux",
            b"user.fuseoverlayfs.opaque",
        ];
        let pick = |at: usize, of: usize| (look >> at) % of;
        let (uid, gid) = match OWNERS.get(pick(0, 4)) {
            Some(owner) if self.is_root => *owner,
            _ => self.own,
        };
        let (seconds, nanoseconds) = TIMES.get(pick(5, 8)).copied().unwrap_or_default();
        let is_plain = matches!(what, What::File(_) | What::Directory);
        let may_have = |name: &[u8]| match name.starts_with(b"user.") {
            true => is_plain && self.has_attributes,
            false => self.is_root,
        };
        let chosen =
            ATTRIBUTES.iter().enumerate().filter(|(at, name)| marks >> at & 1 == 1 && may_have(name));
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> =
            chosen.map(|(at, name)| (name.to_vec(), vec![b'y'; usize::from(marks) % (at + 3)])).collect();
        xattrs.sort();
        Metadata {
            // Others than root cannot read what its owner may not.
            mode: MODES.get(pick(2, 8)).copied().unwrap_or_default() | if self.is_root { 0 } else { 0o700 },
            uid,
            gid,
            mtime: Timestamp { seconds, nanoseconds },
            xattrs,
        }
    }
}

/// A path of few names.
fn path(fields: &mut Fields<'_>) -> Vec<u8> {
    const NAMES: [&[u8]; 16] = [
        b"a",
        b"b",
        b"c",
        b"a",
        b"b",
        b"c",
        b"a",
        b"b",
        b"a.",
        b"a-",
        b"\xff",
        b".wh.a",
        b".wh..wh.plnk",
        b".",
        b"",
        b"..",
    ];
    let shape = fields.byte();
    let parts: Vec<&[u8]> = (0..shape & 3)
        .map(|_| NAMES.get(usize::from(fields.byte()) % NAMES.len()).copied().unwrap_or_default())
        .collect();
    let mut path = match shape >> 2 & 7 {
        1 => b"./".to_vec(),
        2 => b"/".to_vec(),
        _ => Vec::new(),
    };
    path.extend_from_slice(&parts.join(&b'/'));
    path
}

/// An archive, by the builder of all tests.
fn encode(members: &[Member]) -> Vec<u8> {
    let written: Vec<_> = members.iter().flat_map(|member| member.form.write(member)).collect();
    made::archive(&written)
}

/// Without what an opaque directory above hides anyway, and without the attributes that no layer has.
fn visible(entries: &[Entry]) -> Vec<Entry> {
    let opaque: Vec<&[u8]> = entries
        .iter()
        .filter(|entry| entry.kind == Kind::Directory { opaque: true })
        .map(|entry| entry.path.as_slice())
        .collect();
    let is_hidden = |path: &[u8]| opaque.iter().any(|above| is_below(path, above));
    entries
        .iter()
        .filter(|entry| entry.kind != Kind::Whiteout || !is_hidden(&entry.path))
        .cloned()
        .map(|mut entry| {
            if matches!(entry.kind, Kind::Directory { .. }) && is_hidden(&entry.path) {
                entry.kind = Kind::Directory { opaque: false };
            }
            let is_no_layers =
                |name: &[u8]| name == b"security.selinux" || name == b"user.fuseoverlayfs.opaque";
            entry.metadata.xattrs.retain(|(name, _)| !is_no_layers(name));
            entry
        })
        .collect()
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    match above {
        b"" => !path.is_empty(),
        above => path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/")),
    }
}

/// The digest of a tree must not depend on whether a whiteout came before what makes it needless.
fn check_whiteouts(manifest: &Manifest) {
    for entry in manifest.entries().iter().filter(|entry| entry.kind == Kind::Whiteout) {
        let above = entry.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let above = manifest.get(entry.path.get(..above).unwrap_or_default());
        assert!(
            above.is_some_and(|above| above.kind == Kind::Directory { opaque: false }),
            "a whiteout in an opaque directory, or in none"
        );
    }
}

/// The layers show what the model shows: at each path of either, and in each directory.
fn check_stack(stack: &Stack, tree: &Tree) {
    for (path, (kind, metadata)) in &tree.0 {
        let path = path.join(&b'/');
        let found = stack.find(&path);
        let kind_of = |kind: &Kind| match kind {
            Kind::Directory { .. } => Kind::Directory { opaque: false },
            kind => kind.clone(),
        };
        let shown =
            found.map(|entry| Entry { kind: kind_of(&entry.kind), path: path.clone(), ..entry.clone() });
        let meant = Entry { path: path.clone(), kind: kind.clone(), metadata: metadata.clone() };
        let meant = visible(&[meant]).pop();
        assert!(shown == meant, "the layers show {shown:?}, not {meant:?}");
        if matches!(kind, Kind::Directory { .. }) {
            let children = tree
                .0
                .keys()
                .filter(|other| other.split_last().is_some_and(|(_, above)| above.join(&b'/') == path));
            let children: Vec<Vec<u8>> = children.filter_map(|child| child.last().cloned()).collect();
            assert!(stack.children(&path) == children, "other names in {}", path.escape_ascii());
        }
    }
}
