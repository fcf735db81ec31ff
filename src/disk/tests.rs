//! Someone changes a tree while it is read, copied or removed. Whatever comes of that, a victim elsewhere is neither touched nor
//! read.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::fixture::{Place, hash, namespace};
use super::walk::Life;
use super::{copy_below, hash_files, list_as_left};
use crate::disk::remove::remove_tree;
use crate::sys::beneath::tests::{Swapper, both_ways};
use crate::sys::{beneath, file::File};

const ROUNDS: usize = 20;
const DIRECTORIES: usize = 8;
const SECRET: &[u8] = b"what nobody may read";

/// Directories with what the victim has too, so that each name in them leads somewhere in the victim.
fn fill(top: &Path) -> Vec<PathBuf> {
    let directories: Vec<_> = (0..DIRECTORIES).map(|number| top.join(format!("d{number}"))).collect();
    for directory in &directories {
        std::fs::create_dir_all(directory.join("sub/deeper")).unwrap();
        for name in ["hello", "secret", "sub/file", "sub/deeper/file"] {
            std::fs::write(directory.join(name), name).unwrap();
        }
        // Removing lifts such modes.
        std::fs::set_permissions(directory.join("sub"), PermissionsExt::from_mode(0o500)).unwrap();
    }
    directories
}

/// Does `work` in a place whose victim has a secret, while somebody swaps the directories that `prepare` made there, both ways.
fn under_attack(prepare: impl Fn(&Place) -> Vec<PathBuf> + Sync, work: impl Fn(&Place) + Sync) {
    both_ways(|| {
        let place = Place::with_secret(SECRET);
        let directories = prepare(&place);
        let (link, victim) = (place.path("link"), place.path("victim"));
        Swapper::during(|| directories.clone(), &link, &victim, || work(&place));
        place.assert_victim_unchanged();
    });
}

fn many(place: &Place) -> Vec<PathBuf> {
    (0..ROUNDS).flat_map(|round| fill(&place.path(&format!("diff/{round}")))).collect()
}

#[test]
fn removing_goes_through_no_link_that_comes_up() {
    under_attack(many, |place| {
        let parent = place.open("diff");
        for round in 0..ROUNDS {
            // It ends with an error if a directory went elsewhere just then.
            for _ in 0..3 {
                drop(remove_tree(parent.as_fd(), round.to_string().as_bytes()));
            }
        }
    });
}

#[test]
fn reading_goes_through_no_link_that_comes_up() {
    under_attack(many, |place| {
        for round in 0..ROUNDS {
            let root = place.open(&format!("diff/{round}"));
            for life in [Life::Still, Life::Changing] {
                let Ok(listed) = list_as_left(root.as_fd(), namespace(), life) else { continue };
                let Ok(hashes) = hash_files(root.as_fd(), listed.iter(), life) else { continue };
                assert!(hashes.values().all(|found| *found != hash(SECRET)), "the victim was read");
            }
        }
    });
}

#[test]
fn copying_goes_through_no_link_that_comes_up() {
    under_attack(many, |place| {
        for round in 0..ROUNDS {
            let copy = format!("copy/{round}");
            std::fs::create_dir(place.path(&copy)).unwrap();
            let (from, to) = (place.open(&format!("diff/{round}")), place.open(&copy));
            drop(copy_below(from.as_fd(), to.as_fd(), namespace()));
            for number in 0..DIRECTORIES {
                let path = format!("d{number}/secret");
                let Ok(copied) = beneath::open_file_beneath(to.as_fd(), path.as_bytes()) else { continue };
                let mut bytes = Vec::new();
                File::from(copied).read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes, b"secret", "the victim was read");
            }
        }
    });
}

/// The other side of it: what is written into is swapped.
#[test]
fn a_copy_goes_through_no_link_that_comes_up() {
    let prepare = |place: &Place| {
        for round in 0..ROUNDS {
            for number in 0..DIRECTORIES {
                let directory = place.path(&format!("diff/{round}/d{number}"));
                std::fs::create_dir_all(directory.join(format!("sub/new-{round}"))).unwrap();
                for name in [format!("new-{round}"), format!("sub/file-{round}")] {
                    std::fs::write(directory.join(name), "new").unwrap();
                }
                std::os::unix::fs::symlink("x", directory.join(format!("link-{round}"))).unwrap();
            }
        }
        fill(&place.path("copy"))
    };
    under_attack(prepare, |place| {
        for round in 0..ROUNDS {
            let (from, to) = (place.open(&format!("diff/{round}")), place.open("copy"));
            drop(copy_below(from.as_fd(), to.as_fd(), namespace()));
        }
    });
}
