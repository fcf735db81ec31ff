//! What the fuzz targets start from, and what once broke them, without a fuzzer.

use std::path::{Path, PathBuf};

use super::TARGETS;

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(list) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = list.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn names(directory: &str) -> Vec<String> {
    files(Path::new(directory))
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// Names the input that a target fails with, after what the target says.
struct Named<'f>(&'f Path);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this came of {}", self.0.display());
        }
    }
}

#[test]
fn every_target_is_listed() {
    let listed: Vec<_> = TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names("fuzz/fuzz_targets"), listed);
    for kind in ["fuzz/seeds", "fuzz/regressions"] {
        for name in names(kind) {
            assert!(listed.contains(&name), "{kind}/{name} belongs to no target");
        }
    }
}

/// What a seed or a regression asserts, its target says.
#[test]
fn seeds_and_regressions_hold() {
    for (name, target) in TARGETS {
        let seeds = files(&Path::new("fuzz/seeds").join(name));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for file in seeds.into_iter().chain(files(&Path::new("fuzz/regressions").join(name))) {
            let _named = Named(&file);
            target(&std::fs::read(&file).unwrap());
        }
    }
}

/// One that is refused has nothing to be joined, and what is asserted of that is asserted of nothing.
#[test]
fn seeds_of_tar_splits_in_order_are_joined() {
    for (name, length) in
        [("raw-and-content", Some(8)), ("contents-in-order", Some(15)), ("contents-in-turn", None)]
    {
        let bytes = std::fs::read(Path::new("fuzz/seeds/split").join(name)).unwrap();
        let joined = super::split_of(&bytes).and_then(|split| super::join(&split));
        assert_eq!(joined.map(|(_, archive)| archive.len()), length, "{name}");
    }
}
