//! What one process leaves to the next: also if it was killed, and if the next one speaks the other command line.

use std::io::Write;

use super::{CommandLine, Compat, Own, Scripted, can_mount};
use crate::support::tar::{Member, archive};
use crate::support::transcript::Session;
use crate::support::{Dir, TestCommand};

/// More than a pipe holds: once it is written, the other side has read from it.
const LONG: usize = 1 << 20;

/// Starts a command, lets it read a part of its input, and kills it.
fn kill_while_reading(mut command: TestCommand, input: &[u8]) {
    let mut child = command.spawn_with_pipe();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&input[..LONG]).unwrap();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

/// Commands that take a layer or a data item are killed in the middle: nothing of it is seen, and they work as before.
fn survives_kills(line: CommandLine) {
    let store = Scripted::new(line, "killed");
    let small = archive(&[Member::file("small", "small")]);
    let large = archive(&[Member::file("large", vec![7; 2 * LONG]), Member::file("end", "end")]);
    store.put_layer("base", None, &small);
    store.put_layer("full", Some("base"), &small);
    store.create_layer("empty", Some("base"));
    let set_item = || match line {
        Own => store.command(&["item", "put", "base", "key"]),
        _ => store.command(&["set-layer-data", "base", "key"]),
    };
    let item = || match line {
        Own => store.command(&["item", "get", "base", "key"]),
        _ => store.command(&["get-layer-data", "base", "key"]),
    };
    set_item().stdin("old").assert_success();
    for _ in 0..2 {
        kill_while_reading(store.put_layer_command("new", Some("base")), &large);
        kill_while_reading(store.apply_command("empty"), &large);
        kill_while_reading(store.apply_command("full"), &large);
        kill_while_reading(set_item(), &large);
        assert_eq!(store.layers(), ["base", "empty", "full"]);
        assert_eq!(store.command(&["changes", "empty"]).stdout(), "");
        assert!(store.diff("full") == small);
        assert_eq!(item().stdout(), "old");
        store.dir.layerstore(["check", "--deep"]).assert_success();
    }
    store.put_layer("new", Some("base"), &large);
    store.apply("empty", &large);
    set_item().stdin("new").assert_success();
    assert!(store.diff("new") == large && store.diff("empty") == large);
    assert_eq!(item().stdout(), "new");
    store.command(&["gc"]).assert_success();
    store.assert_whole();
}

#[test]
fn killed_commands_leave_nothing() {
    survives_kills(Own);
}

#[test]
fn killed_commands_of_the_other_command_line_leave_nothing() {
    survives_kills(Compat);
}

#[test]
fn a_reader_that_goes_away_harms_nobody() {
    for line in [Own, Compat] {
        let store = Scripted::new(line, "reader");
        let large = archive(&[Member::file("large", vec![7; 2 * LONG])]);
        store.put_layer("base", None, &large);
        let words = store.dir.write("words", "");
        let program = crate::support::command::binary();
        let (root, run) = (store.dir.root(), store.dir.run_root());
        let flags = match line {
            Own => format!("--root {} --runroot {}", root.display(), run.display()),
            _ => format!("compat --unshare=false -g {} -R {}", root.display(), run.display()),
        };
        let script = format!(
            "set -o pipefail; {} {flags} diff base | head -c 100000 | wc -c > {}",
            program.display(),
            words.display()
        );
        TestCommand::new("bash").args(["-euc", &script]).assert_success();
        assert_eq!(std::fs::read_to_string(&words).unwrap().trim(), "100000");
        assert!(store.diff("base") == large);
        store.assert_whole();
    }
}

/// The two command lines, in turn on one store: each sees at once what the other did.
#[test]
fn both_command_lines_are_of_one_store() {
    let dir = Dir::new("shared");
    let own = |words: &[&str]| dir.layerstore(words).stdout();
    let session = Session::layerstore(&dir);
    let compat = |words: &[&str]| session.command(words.iter().map(|word| (*word).to_owned())).stdout();
    let tar = archive(&[Member::file("file", "text")]);
    dir.write("tar", &tar);
    assert_eq!(compat(&["create-layer", "-i", "base", "-n", "first"]), "base\n\tfirst\n");
    assert_eq!(own(&["apply", "base", "--file", "tar"]), "base\n");
    assert_eq!(compat(&["changes", "first"]), "Add \"/file\"\n");
    assert_eq!(own(&["create-image", "base", "--id", "img", "--name", "image:1"]), "img\n");
    assert_eq!(compat(&["get-names", "image:1"]), "image:1\n");
    assert_eq!(compat(&["set-names", "-n", "image:2", "img"]), "");
    assert_eq!(own(&["create-container", "image:2", "--id", "ctr", "--name", "web"]), "ctr\n");
    assert_eq!(compat(&["containers"]), "ctr\n\tname: web\n");
    assert_eq!(compat(&["set-metadata", "-m", "text", "web"]), "");
    assert_eq!(dir.layerstore(["inspect", "web"]).json()[0]["metadata"], "text");
    dir.layerstore(["item", "put", "web", "spec"]).stdin("{}").assert_success();
    assert_eq!(compat(&["get-container-data", "ctr", "spec"]), "{}");
    assert_eq!(compat(&["exists", "-l", "base"]), "base: true\n");
    if can_mount() {
        let path = own(&["mount", "web"]);
        assert_eq!(compat(&["mounted", "ctr"]), "ctr mounted\n");
        assert_eq!(compat(&["mount", "ctr"]), path, "counted together");
        std::fs::write(std::path::Path::new(path.trim_end()).join("new"), "12345").unwrap();
        assert_eq!(own(&["unmount", "web"]), "");
        assert_eq!(own(&["mount", "-q"]), path);
        assert_eq!(compat(&["unmount", "web"]), "web mountpoint unmounted\n");
        assert_eq!(own(&["mount", "-q"]), "");
        assert_eq!(own(&["changes", "web"]), "A /new\n");
        assert!(compat(&["container", "web"]).contains("Size: 7\n"), "what was written, and a data item");
    }
    assert_eq!(compat(&["delete-container", "web"]), "");
    assert_eq!(own(&["containers", "-q"]), "");
    assert_eq!(own(&["rmi", "image:2"]), "removed: img\n");
    assert_eq!(compat(&["layers"]), "base\n\tname: first\n");
    assert_eq!(own(&["rm", "--layer", "first"]), "removed: base\n");
    assert_eq!(compat(&["layers", "-j"]), "null\n");
    assert!(dir.mounts().is_empty());
}

#[test]
fn a_mount_outlives_its_process_and_ends_with_any() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    for line in [Own, Compat] {
        let store = Scripted::new(line, "mounts");
        store.create_layer("one", None);
        let path = store.mount("one");
        // A process has a file open there when it is killed.
        let script = "exec 9>\"$1/open\" && echo text >&9 && kill -9 $$";
        let killed = TestCommand::new("bash").args(["-c", script, "-"]).arg(&path).output();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9));
        assert_eq!(store.mount("one"), path);
        store.unmount("one");
        assert_eq!(std::fs::read_to_string(path.join("open")).unwrap(), "text\n");
        store.unmount("one");
        assert!(store.dir.mounts().is_empty());
        assert!(!path.join("open").exists());
        assert_eq!(store.command(&["changes", "one"]).stdout().lines().count(), 1);
        store.assert_whole();
    }
}
