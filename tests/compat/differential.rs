//! The same scripts for Debian's containers-storage and for this program, each with a store of its own: the transcripts
//! are the same, but for what is known and listed here with its reason.

mod scripts;

use crate::support::machine;
use crate::support::transcript::Session;
use crate::support::{Dir, TestCommand};

/// A difference that is no fault.
struct Known {
    /// How the command begins.
    command: &'static str,
    /// What the transcript of this program has.
    ours: &'static str,
    /// What that of the other has.
    theirs: &'static str,
    /// Why that is right.
    reason: &'static str,
}

const fn known(
    command: &'static str,
    ours: &'static str,
    theirs: &'static str,
    reason: &'static str,
) -> Known {
    Known { command, ours, theirs, reason }
}

const PATHS: &str = "the paths are those in the layers here";
const OTHERS_IMAGE: &str = "1.43 mounts no image of another store";

/// What Debian's version 1.43 does otherwise than 1.63, which this program follows, and what cannot be the same.
const KNOWN: &[Known] = &[
    known("version", "! Version: ", "", "1.43 prints none"),
    known(
        "status",
        "Supports volatile",
        "Using metacopy",
        "1.43 does not tell what it can do with volatile mounts",
    ),
    known("remove-names", "", "unrecognized command", "1.43 has no such command"),
    known("layers -q", "", "not defined: -q", "1.43 has no such flag"),
    known("layers -j", "\nnull\n", "\n[]\n", "1.43 prints an empty list where 1.63 prints null"),
    known("copy base:/none", "error copying", "error copying", PATHS),
    known("copy tree/f1 relative", "should be absolute", "", "1.43 takes it"),
    known("applydiff -f half", "unexpected EOF", "unexpected EOF", "1.43 has two forms of it"),
    known("create-container --uidmap 1:1:1", "refused: root", "", "its root is nobody"),
    known("create-container --uidmap 0:1:0", "refused: a run has no ids", "", "nobody is mapped"),
    known(
        "container-parent-owners",
        "UIDs: [0]",
        "UIDs: []",
        "1.43 looks at the map of the layer, which has none",
    ),
    known("add-names -n ''", "is no name", "", "nothing is no name here"),
    known("get-names second", "new\nsecond", "old\nnew", "1.43 puts new names behind those that are there"),
    known("image img", "Digest", "a1fce4", "1.43 calls an image by its first manifest, also if that is gone"),
    known("images -j", "names-history", "", "1.43 forgets the names that another image has taken"),
    known("changes two", "Modify \"/d/e\"", "Delete \"/d/e\"", "a directory that was made anew is there"),
    known("changes -j two", "\"/d/e\",\"Kind\":0", "\"/d/e\",\"Kind\":2", "the same"),
    known("changes base nope", "Add", "stat MOUNT", "1.63 takes a base that is not known for the parent"),
    known("diffsize base nope", "nope\n", "stat MOUNT", "the same"),
    known("copy base:/l", "", "", "1.43 copies what a link leads to"),
    known("copy --chown", "bad", "numeric", "1.43 says it in other words"),
    known("copy base:/d two:/file", "not a directory", "not a directory", PATHS),
    known("copy none two:/x", "no such file", "no such file", PATHS),
    known("copy base:/d/f two:/both", "is a directory", "directory", "1.43 says it in other words"),
    known("copy base:/d rel", "should be absolute", "should be absolute", "1.43 says it in more words"),
    known("shutdown extra", "too many arguments", "", "1.43 takes any number"),
    known("get-image-data img big more", "too many arguments", "", "1.43 takes any number"),
    known("--storage-opt overlay.imagestore=DIR/other mount -r img", "MOUNT", "not known", OTHERS_IMAGE),
    known("--storage-opt overlay.imagestore=DIR/other unmount img", "", "not known", OTHERS_IMAGE),
    known(
        "--storage-opt overlay.imagestore=DIR/other mount base",
        "read-only store",
        "not known",
        "1.43 says less",
    ),
    known(
        "--storage-opt overlay.imagestore=DIR/other delete-image img",
        "",
        "layer not known",
        "1.43 looks for its layer in this store alone",
    ),
    known("create-container", "\n\tc1\n\ttwo\n", "\n\tc1\ttwo\n", "1.43 prints all names on one line"),
];

fn compare(scripts: &[&str]) {
    if !machine::is_real_root() {
        skip!("the reference works in its own way without root");
    }
    if !machine::has_program("containers-storage") {
        skip!("there is no containers-storage: install Debian's package of that name");
    }
    let mut differences = String::new();
    for script in scripts {
        let (ours, theirs) = (Dir::new("compat-ours"), Dir::new("compat-theirs"));
        for dir in [&ours, &theirs] {
            write_tars(dir);
        }
        let (mut ours, mut theirs) = (Session::layerstore(&ours), Session::reference(&theirs));
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (our, their) =
                (without_usage(&ours.run(line)), without_usage(&later_words(&theirs.run(line))));
            let excuse = KNOWN.iter().find(|known| {
                line.starts_with(known.command) && our.contains(known.ours) && their.contains(known.theirs)
            });
            match excuse {
                _ if our == their => {}
                Some(known) => eprintln!("{line}: {}", known.reason),
                None => {
                    differences.push_str(&format!("---- layerstore\n{our}---- containers-storage\n{their}"))
                }
            }
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
}

/// What 1.63 says of a tar that is none, where 1.43 says it in other words.
fn later_words(told: &str) -> String {
    let reword = |line: &str| {
        let reason = line.strip_prefix("! processing tar file(")?.strip_suffix("): exit status 1")?;
        Some(format!(
            "! unpacking failed (error: exit status 1; output: {reason})\n! exhausting input failed (error: {reason})\n"
        ))
    };
    told.lines().map(|line| reword(line).unwrap_or_else(|| format!("{line}\n"))).collect()
}

/// Usage has words of its own in each program: what comes between the first line and the status is left out.
fn without_usage(told: &str) -> String {
    let lines: Vec<&str> = told.lines().collect();
    match lines.as_slice() {
        [command, problem, .., status] if problem.contains(" arguments ") => {
            format!("{command}\n{problem}\n{status}\n")
        }
        _ => told.to_owned(),
    }
}

/// The files that scripts of layers read.
fn write_tars(dir: &Dir) {
    dir.write("tree/d/sub", "two\n");
    dir.write("tree/f1", "one\n");
    dir.write("junk", [7u8; 600]);
    dir.write("short", "short");
    dir.write("big", vec![b'x'; 3_000_000]);
    let script =
        "tar -C tree -cf tree.tar --sort=name --mtime=@1700000000 --owner=5 --group=6 . && gzip -kn tree.tar";
    TestCommand::new("sh").args(["-c", script]).current_dir(dir.path()).assert_success();
}

#[test]
fn layers_and_tars_are_the_same() {
    compare(scripts::LAYERS);
}

#[test]
fn names_move_in_the_same_way() {
    compare(scripts::MOVING);
}

#[test]
fn maps_are_read_in_the_same_way() {
    compare(scripts::MAPS);
}

#[test]
fn large_data_and_odd_words_are_the_same() {
    compare(scripts::DATA);
}

#[test]
fn other_stores_are_read_in_the_same_way() {
    compare(scripts::STORES);
}

#[test]
fn junk_is_refused_in_the_same_words() {
    compare(&[&scripts::junk()]);
}

#[test]
fn plain_scripts_print_the_same() {
    compare(scripts::PLAIN);
}

#[test]
fn mounting_scripts_print_the_same() {
    compare(scripts::MOUNTING);
}
