//! Where output goes: pipes that close, terminals, files.

use std::io::Read;
use std::process::{Command, Stdio};

use super::load_base;
use crate::support::command::binary;
use crate::support::{Dir, TestCommand, machine};

/// A command in its store, with its output in a pipe.
fn piped(dir: &Dir, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("--root").arg(dir.root()).arg("--runroot").arg(dir.run_root()).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn closed_pipe_is_a_quiet_end() {
    let dir = Dir::new("pipe");
    load_base(&dir);
    // More than any pipe holds.
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    dir.layerstore(["item", "put", "web", "x"]).stdin(vec![0xff; 4 << 20]).assert_success();
    for arguments in [&["item", "get", "web", "x"][..], &["images"], &["images", "--json"], &["diff", "base"]]
    {
        let mut child = piped(&dir, arguments).spawn().unwrap();
        drop(child.stdout.take());
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!(error, "", "{arguments:?}");
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }
}

#[test]
fn full_output_is_a_failure() {
    let dir = Dir::new("full-output");
    load_base(&dir);
    for arguments in [&["images"][..], &["diff", "base"], &["inspect", "base"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = piped(&dir, arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.starts_with("error: ") && error.contains("No space left"), "{arguments:?}: {error}");
        assert!(!error.contains("prune"), "the store's disk is not the one that is full: {error}");
    }
}

/// Whoever repeats the command would have two.
#[test]
fn full_output_says_what_was_done_all_the_same() {
    let dir = Dir::new("full-output-done");
    let written = load_base(&dir);
    let tar = dir.layerstore(["diff", "base"]).stdout_bytes();
    let tar = dir.write("layer.tar", tar);
    let mut told = Vec::new();
    for arguments in [
        &["create-container", "base", "--name", "web"][..],
        &["create-layer"],
        &["put-layer", "--file", tar.to_str().unwrap()],
        &["create-image", "--name", "made"],
        &["commit", "web", "--name", "again"],
        &["load", &written.reference()],
    ] {
        for form in [&[][..], &["--json"]] {
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            let words = [arguments, form].concat();
            if words.contains(&"--name") && !form.is_empty() {
                continue;
            }
            let output = piped(&dir, &words).stdout(full).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{words:?}");
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(error.contains(", and the output cannot be written\n"), "{words:?}: {error}");
            assert!(error.contains("No space left"), "{words:?}: {error}");
            let id = error.split(' ').nth(3).unwrap().to_owned();
            dir.layerstore(["inspect", &id]).assert_success();
            told.push(id);
        }
    }
    assert_eq!(told.len(), 9);
}

#[test]
fn failed_export_leaves_the_file_that_was_there() {
    let dir = Dir::new("keep");
    load_base(&dir);
    let file = dir.write("out/web.tar", "before");
    dir.layerstore(["diff", "nope", "-o", "out/web.tar"]).assert_exit(1);
    assert_eq!(std::fs::read(&file).unwrap(), b"before");
    dir.layerstore(["diff", "base", "-o", "out/web.tar"]).assert_success();
    assert_eq!(std::fs::read(&file).unwrap().len() % 512, 0);
    assert_eq!(std::fs::read_dir(dir.join("out")).unwrap().count(), 1, "no part file is left");
}

/// Runs a command on a terminal, and returns what that shows.
fn on_terminal(dir: &Dir, arguments: &str) -> String {
    let line = format!(
        "{} --root {} --runroot {} {arguments}; echo status=$?",
        binary().display(),
        dir.root().display(),
        dir.run_root().display()
    );
    TestCommand::new("script").args(["-qc", &line, "/dev/null"]).env("TERM", "xterm").stdout()
}

#[test]
fn tar_is_not_written_to_a_terminal() {
    if !machine::has_program("script") {
        skip!("script is not installed");
    }
    let dir = Dir::new("terminal");
    load_base(&dir);
    let shown = on_terminal(&dir, "diff base");
    assert!(shown.contains("not written to a terminal") && shown.contains("-o FILE"), "{shown}");
    assert!(shown.contains("status=1"), "{shown}");
}

#[test]
fn colors_are_for_terminals() {
    if !machine::has_program("script") {
        skip!("script is not installed");
    }
    let dir = Dir::new("colors");
    load_base(&dir);
    assert!(on_terminal(&dir, "images").contains("\x1b[1m"));
    assert!(!on_terminal(&dir, "images --color never").contains('\x1b'));
    assert!(!dir.layerstore(["images"]).stdout().contains('\x1b'));
    assert!(dir.layerstore(["images", "--color", "always"]).stdout().contains("\x1b[1m"));
}

#[test]
fn progress_is_shown_on_terminals_only() {
    if !machine::has_program("script") {
        skip!("script is not installed");
    }
    let dir = Dir::new("progress");
    let written = load_base(&dir);
    dir.layerstore(["rmi", "base"]).assert_success();
    let load = format!("load {}", written.reference());
    let shown = on_terminal(&dir, &load);
    assert!(shown.contains("total"), "{shown}");
    dir.layerstore(["rmi", "1"]).assert_success();
    assert!(!on_terminal(&dir, &format!("{load} --quiet")).contains("total"));
    let output = dir.layerstore(["load", &written.reference()]).output();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
