//! What a check may not look at: findings that no repair cures, and a manifest without what they are about.
//!
//! Modes keep an ordinary user out of his own files, and owners of a user namespace are others outside of it. So a refusal says
//! nothing of what is there, and must not be why something is removed.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstore_schema::manifest::{Entry, Kind};

use super::compare::{PATHS_NAMED, shown};
use super::{Damage, SealedTree, chain};
use crate::disk::{Withheld, WithheldPart};
use crate::error::{is_by_mode, is_denied};
use crate::store::Store;
use crate::types::Metadata;

/// The finding for what cannot be opened, if that was refused to this process; else what the error says.
pub(super) fn unless_refused(
    thing: String,
    path: PathBuf,
    error: &(dyn Error + 'static),
    damage: impl FnOnce(String, PathBuf) -> Damage,
) -> Damage {
    match is_denied(error) {
        true => Damage::NotExamined { thing, path, reason: chain(error), by_mode: is_by_mode(error) },
        false => damage(thing, path),
    }
}

/// Of a thing of the store's that was refused, the finding that its mode is not the expected one, if that is why.
pub(super) fn of_lost_mode(store: &Store, damage: Damage, expected: u16) -> Damage {
    match damage {
        Damage::NotExamined { thing, path, reason, by_mode } => {
            match store.layout().lost_mode(&path, expected) {
                Some(mode) => Damage::ModeLost { thing, path, mode, expected },
                None => Damage::NotExamined { thing, path, reason, by_mode },
            }
        }
        damage => damage,
    }
}

/// The paths of a sealed directory that were refused for a mode that is not the one on record, as findings instead of those that
/// the mode has changed; returns what was refused for other reasons.
pub(super) fn split_lost_modes(
    store: &Store,
    (tree, directory): (&SealedTree, &Path),
    expected: &[Entry],
    withheld: Vec<Withheld>,
    damages: &mut Vec<Damage>,
) -> Vec<Withheld> {
    let refused: BTreeSet<&[u8]> = withheld.iter().map(|one| one.path.as_slice()).collect();
    let modes = expected.iter().filter(|entry| refused.contains(entry.path.as_slice()));
    let lost: HashMap<Vec<u8>, Damage> = modes
        .filter_map(|entry| {
            let (path, expected) = (directory.join(OsStr::from_bytes(&entry.path)), entry.metadata.mode);
            let mode = store.layout().lost_mode(&path, expected)?;
            Some((entry.path.clone(), Damage::ModeLost { thing: tree.to_string(), path, mode, expected }))
        })
        .collect();
    let told: BTreeSet<PathBuf> = lost.keys().map(|path| shown(path)).collect();
    damages.retain(|damage| {
        !matches!(damage, Damage::PathChanged { path, what, .. } if what == "mode" && told.contains(path))
    });
    let others = withheld.into_iter().filter(|one| !lost.contains_key(&one.path)).collect();
    let mut lost: Vec<(Vec<u8>, Damage)> = lost.into_iter().collect();
    lost.sort_by(|(one, _), (other, _)| one.cmp(other));
    damages.extend(lost.into_iter().map(|(_, damage)| damage).take(PATHS_NAMED));
    others
}

/// A finding for each path of a sealed directory of which something could not be read; those beyond the first hundred are counted.
pub(super) fn findings(tree: &SealedTree, withheld: &[Withheld]) -> Vec<Damage> {
    let mut paths: Vec<&Withheld> = withheld.iter().collect();
    paths.sort_by(|one, other| one.path.cmp(&other.path));
    paths.dedup_by(|one, other| one.path == other.path);
    let more = paths.len().saturating_sub(PATHS_NAMED);
    let named = paths.into_iter().take(PATHS_NAMED).enumerate();
    let finding = |(at, of): (usize, &Withheld)| {
        let is_last = at.saturating_add(1) == PATHS_NAMED;
        let reason = match more {
            1.. if is_last => format!("{}; nor {more} more paths", of.reason),
            _ => of.reason.to_string(),
        };
        let by_mode = is_by_mode(&of.reason);
        Damage::NotExamined { thing: tree.to_string(), path: shown(&of.path), reason, by_mode }
    };
    named.map(finding).collect()
}

/// A manifest's entries as far as they can be compared with what was seen.
pub(super) fn without<'m>(expected: &'m [Entry], withheld: &[Withheld]) -> Cow<'m, [Entry]> {
    let of = |part| -> BTreeSet<&[u8]> {
        withheld.iter().filter(|one| one.part == part).map(|one| one.path.as_slice()).collect()
    };
    let (shut, bare) = (of(WithheldPart::Names), of(WithheldPart::Attributes));
    if shut.is_empty() && bare.is_empty() {
        return Cow::Borrowed(expected);
    }
    // Of files with names in these directories: the entry, and the first name that is seen.
    let mut hidden: HashMap<&[u8], (&Entry, Option<&[u8]>)> = HashMap::new();
    let mut seen = Vec::with_capacity(expected.len());
    for entry in expected {
        if is_below(&entry.path, &shut) {
            hidden.insert(&entry.path, (entry, None));
            continue;
        }
        let mut seen_as = entry.clone();
        if let Kind::HardLink { target } = &mut seen_as.kind
            && let Some((file, first)) = hidden.get_mut(target.as_slice())
        {
            match first {
                Some(first) => *target = first.to_vec(),
                None => {
                    *first = Some(&entry.path);
                    seen_as = Entry { path: entry.path.clone(), ..(*file).clone() };
                }
            }
        }
        if bare.contains(seen_as.path.as_slice()) {
            seen_as.metadata = Metadata { xattrs: Vec::new(), ..seen_as.metadata };
            if let Kind::Directory { opaque } = &mut seen_as.kind {
                *opaque = false;
            }
        }
        seen.push(seen_as);
    }
    Cow::Owned(seen)
}

/// Whether a path lies in one of these directories.
fn is_below(path: &[u8], directories: &BTreeSet<&[u8]>) -> bool {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.filter_map(|(at, _)| path.get(..at)).any(|above| directories.contains(above))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::types::{ContentHash, TreeDigest};

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry { path: path.into(), kind, metadata: Metadata::default() }
    }

    fn withheld(path: &str, part: WithheldPart) -> Withheld {
        Withheld { path: path.into(), part, reason: io::ErrorKind::PermissionDenied.into() }
    }

    #[test]
    fn what_is_not_seen_is_not_expected() {
        let file = || Kind::File { size: 1, content: ContentHash([7; 32]) };
        let link = |target: &str| Kind::HardLink { target: target.into() };
        let all = [
            entry("a", Kind::Directory { opaque: true }),
            entry("a/b", file()),
            entry("a/c", link("a/b")),
            entry("a-", file()),
            entry("d", link("a/b")),
            entry("e", link("a/b")),
            entry("f", link("a-")),
        ];
        assert!(matches!(without(&all, &[withheld("a-", WithheldPart::Content)]), Cow::Borrowed(_)));
        let seen = without(&all, &[withheld("a", WithheldPart::Names)]);
        let expected =
            [all[0].clone(), all[3].clone(), entry("d", file()), entry("e", link("d")), all[6].clone()];
        assert_eq!(*seen, expected);
        let seen = without(&all, &[withheld("a", WithheldPart::Attributes)]);
        assert_eq!((&seen[0].kind, &seen[1..]), (&Kind::Directory { opaque: false }, &all[1..]));
    }

    #[test]
    fn many_paths_are_counted() {
        let tree = SealedTree { digest: TreeDigest([0; 32]), layers: vec!["l".to_owned()] };
        let many: Vec<_> =
            (0..PATHS_NAMED + 5).map(|at| withheld(&format!("{at:04}"), WithheldPart::Content)).collect();
        let told = findings(&tree, &many);
        assert_eq!(told.len(), PATHS_NAMED);
        assert!(told.last().unwrap().to_string().ends_with("nor 5 more paths"), "{told:?}");
        assert!(!told[0].to_string().contains("more paths"));
    }
}
