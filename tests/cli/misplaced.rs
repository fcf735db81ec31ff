//! Something else at the names of a store and of its run root: a fifo, a link to somewhere else, a socket, a device, a
//! directory for a file or a file for a directory. Nobody waits for it, nothing outside is touched, and the error says what it is.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};

use super::{can_mount, load_base};
use crate::support::command::binary;
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, machine};

/// What stands somewhere, in the words of the error, and how it gets there.
type Kind<'d> = (&'static str, Box<dyn Fn(&Path) + 'd>);

/// Every kind that this process can make.
fn kinds(elsewhere: &Path) -> Vec<Kind<'_>> {
    let node = |path: &Path, kind, device| {
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).unwrap();
    };
    let mut kinds: Vec<Kind<'_>> = vec![
        ("a fifo", Box::new(move |path| node(path, FileType::Fifo, 0))),
        ("a symbolic link", Box::new(|path| symlink(elsewhere.join("directory"), path).unwrap())),
        ("a symbolic link", Box::new(|path| symlink(elsewhere.join("file"), path).unwrap())),
        ("a symbolic link", Box::new(|path| symlink(elsewhere.join("none"), path).unwrap())),
        ("a socket", Box::new(|path| socket(&elsewhere.with_file_name("socket"), path))),
        ("a directory", Box::new(|path| std::fs::create_dir(path).unwrap())),
        ("a regular file", Box::new(|path| std::fs::write(path, "x").unwrap())),
    ];
    if machine::is_real_root() {
        let null = rustix::fs::makedev(1, 3);
        kinds.push(("a device", Box::new(move |path| node(path, FileType::CharacterDevice, null))));
    }
    kinds
}

/// Makes a socket, whose own path must be short.
fn socket(short: &Path, path: &Path) {
    drop(UnixListener::bind(short).unwrap());
    std::fs::rename(short, path).unwrap();
}

/// The files that nothing of a store leads to, as they have to stay.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn new(dir: &Dir) -> Self {
        dir.create_dir("elsewhere/directory/inside");
        dir.write("elsewhere/directory/7", "seven");
        dir.write("elsewhere/file", "content");
        Elsewhere(dir.join("elsewhere"))
    }

    fn assert_untouched(&self, story: &str) {
        let names = |path: &str| {
            let listed = std::fs::read_dir(self.0.join(path)).unwrap();
            let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["directory", "file"], "{story}");
        assert_eq!(names("directory"), ["7", "inside"], "{story}");
        assert_eq!(names("directory/inside").len(), 0, "{story}");
        for (file, content) in [("directory/7", "seven"), ("file", "content")] {
            assert_eq!(std::fs::read_to_string(self.0.join(file)).unwrap(), content, "{story}");
        }
    }
}

/// What became of a command: nothing if it succeeded, else its error. It fails the test if the command waits or crashes.
fn run(dir: &Dir, arguments: &[&str]) -> Option<String> {
    match outcome(dir, arguments) {
        Outcome::Failed(error) => Some(error),
        Outcome::Done | Outcome::Found(_) => None,
    }
}

/// How a command ended.
enum Outcome {
    Done,
    /// With findings of `check`: its output.
    Found(String),
    /// With an error.
    Failed(String),
}

fn outcome(dir: &Dir, arguments: &[&str]) -> Outcome {
    let command = TestCommand::new("timeout").arg("60").arg(binary());
    let command = command.args(["--root".as_ref(), dir.root().as_os_str()]);
    let command = command.args(["--runroot".as_ref(), dir.run_root().as_os_str()]).args(arguments);
    let output = command.current_dir(dir.path()).stdin(archive(&[Member::file("file", "content")])).output();
    let error = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => Outcome::Done,
        Some(3) if arguments == ["check"] => Outcome::Found(String::from_utf8(output.stdout).unwrap()),
        Some(1) => Outcome::Failed(error),
        other => panic!("{arguments:?}: {other:?} {error}"),
    }
}

/// Puts every kind but the right one at `path`, and calls `try_it` with it, its name, and what tells the case.
fn with_each_kind(path: &Path, elsewhere: &Elsewhere, try_it: impl Fn(&'static str, &str)) {
    let aside = elsewhere.0.with_file_name("aside");
    let had = path.symlink_metadata().ok();
    if had.is_some() {
        std::fs::rename(path, &aside).unwrap();
    }
    for (kind, make) in kinds(&elsewhere.0) {
        let is_right = match &had {
            Some(had) if had.is_dir() => "a directory",
            Some(_) => "a regular file",
            None => "",
        };
        if kind == is_right {
            continue;
        }
        make(path);
        let story = format!("{} as {kind}", path.display());
        try_it(kind, &story);
        elsewhere.assert_untouched(&story);
        // Some commands remove what they make anew.
        drop(std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path)));
    }
    if had.is_some() {
        std::fs::rename(&aside, path).unwrap();
    }
}

/// The commands that read, and those that write.
const COMMANDS: [&[&str]; 6] = [
    &["--no-write", "layers"],
    &["status"],
    &["check"],
    &["create-container", "base"],
    &["put-layer"],
    &["gc"],
];

#[test]
fn what_is_none_of_a_stores_own_is_neither_waited_for_nor_followed() {
    let dir = Dir::new("misplaced");
    load_base(&dir);
    dir.layerstore(["gc"]).assert_success();
    let elsewhere = Elsewhere::new(&dir);
    let (root, run_root) = (dir.root(), dir.run_root());
    let names =
        ["LAYERSTORE", "store.redb", "store.holder", "reserve", "collected", "diffs", "blobs", "work"];
    let names = names.into_iter().chain(["data", "locks", "trash"]).map(|name| root.join(name));
    let listed = std::fs::read_dir(&run_root).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<PathBuf> = names.chain(listed).collect();
    assert!(paths.len() > 17, "{paths:?}");
    for path in paths {
        let extension = path.extension().unwrap_or_default();
        with_each_kind(&path, &elsewhere, |kind, story| {
            for command in COMMANDS {
                let ended = outcome(&dir, command);
                match &ended {
                    Outcome::Failed(error) => {
                        assert!(error.contains(path.to_str().unwrap()), "{story}: {command:?}: {error}");
                        assert!(error.contains(kind), "{story}: {command:?}: {error}");
                        assert!(!error.contains("os error"), "{story}: {command:?}: {error}");
                    }
                    Outcome::Found(said) => assert!(said.contains(path.to_str().unwrap()), "{story}: {said}"),
                    // A run root is looked at as far as a check needs it.
                    Outcome::Done => assert!(
                        command != ["check"] || !path.starts_with(&root),
                        "{story}: {command:?} found nothing"
                    ),
                }
                // Who writes the database is only for messages, and the reserve for a full disk. Everything else is needed by who looks
                // everywhere.
                let is_needed = command == ["gc"] && extension != "holder" && !path.ends_with("reserve");
                let has_failed = matches!(ended, Outcome::Failed(_));
                assert!(has_failed || !is_needed, "{story}: {command:?} succeeded");
                let is_spare = path.starts_with(&root) && path.ends_with("reserve");
                assert!(!has_failed || !is_spare, "{story}: {command:?} failed");
            }
        });
    }
    dir.layerstore(["check", "--deep"]).assert_success();
}

#[test]
fn a_root_that_is_no_directory_is_named() {
    let dir = Dir::new("misplaced-root");
    load_base(&dir);
    let elsewhere = Elsewhere::new(&dir);
    for (path, flag) in [(dir.root(), "--root"), (dir.run_root(), "--runroot")] {
        with_each_kind(&path, &elsewhere, |kind, story| {
            // A root may well be elsewhere, and then there is a store or not.
            if kind == "a symbolic link" {
                return;
            }
            for command in [&["layers"][..], &["create-layer"], &["gc"]] {
                let error = run(&dir, command).unwrap_or_else(|| panic!("{story}: {command:?} succeeded"));
                let told = format!("{:?} is {kind} where a store has a directory", path);
                assert!(error.contains(&told) && error.contains(flag), "{story}: {command:?}: {error}");
            }
        });
    }
    dir.layerstore(["check", "--deep"]).assert_success();
}

#[test]
fn lock_files_and_mount_points_are_what_they_should_be() {
    let dir = Dir::new("misplaced-numbers");
    load_base(&dir);
    let layer = dir.layerstore(["create-layer"]).stdout().trim().to_owned();
    let elsewhere = Elsewhere::new(&dir);
    let told = |path: &Path, command: &[&str], kind: &str, story: &str| {
        let error = run(&dir, command).unwrap_or_else(|| panic!("{story}: {command:?} succeeded"));
        assert!(error.contains(path.to_str().unwrap()) && error.contains(kind), "{story}: {error}");
        assert!(error.contains("remove it") && !error.contains("os error"), "{story}: {error}");
    };
    for path in [dir.root().join("locks/7"), dir.run_root().join("digests/sha256-7")] {
        with_each_kind(&path, &elsewhere, |kind, story| {
            // A dead lock is a file.
            if kind != "a regular file" {
                told(&path, &["gc"], kind, story);
                assert_eq!(run(&dir, &["create-layer"]), None, "{story}");
            }
        });
    }
    if can_mount() {
        let path = dir.run_root().join("mnt").join(&layer);
        with_each_kind(&path, &elsewhere, |kind, story| {
            if kind != "a directory" {
                told(&path, &["mount", &layer], kind, story);
            }
        });
    }
    // Garbage of any kind is removed as it is.
    let path = dir.root().join("trash/7");
    with_each_kind(&path, &elsewhere, |_, story| {
        assert_eq!(run(&dir, &["gc"]), None, "{story}");
        assert!(path.symlink_metadata().is_err(), "{story}");
    });
}

/// The note of the last collection saves a search: a store works without.
#[test]
fn a_note_that_is_no_file_is_a_finding() {
    let dir = Dir::new("misplaced-note");
    load_base(&dir);
    let path = dir.root().join("collected");
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_eq!(run(&dir, &["create-layer"]), None);
    let found = dir.layerstore(["check"]).output();
    assert_eq!(found.status.code(), Some(3));
    let said = String::from_utf8(found.stdout).unwrap();
    assert!(said.contains("stray: ") && said.contains(path.to_str().unwrap()), "{said}");
    let error = run(&dir, &["gc"]).unwrap();
    assert!(error.contains("remove it, and the file is made anew"), "{error}");
    std::fs::remove_file(&path).unwrap();
    dir.layerstore(["gc"]).assert_success();
}
