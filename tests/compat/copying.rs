//! `copy`.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::can_mount;
use crate::support::Dir;
use crate::support::machine;
use crate::support::transcript::Session;

#[test]
fn files_and_trees_are_copied_in_and_out() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-copy");
    dir.write("tree/d/sub", "two\n");
    dir.write("tree/f1", "one\n");
    std::fs::hard_link(dir.join("tree/f1"), dir.join("tree/d/same")).unwrap();
    std::os::unix::fs::symlink("/etc", dir.join("tree/l")).unwrap();
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ create-layer -i one
one
$ create-layer -i two
two
$ copy tree/f1 one:/deep/er/f
$ copy tree one:/tree
$ changes one
Add "/deep"
Add "/deep/er"
Add "/deep/er/f"
Add "/tree"
Add "/tree/d"
Add "/tree/d/same"
Add "/tree/d/sub"
Add "/tree/f1"
Add "/tree/l"
$ copy one:/tree two:/
$ diffsize two
12
$ copy one:/tree/f1 two:/tree/l/../f2
$ changes two
Add "/d"
Add "/d/same"
Add "/d/sub"
Add "/f1"
Add "/l"
Add "/tree"
Add "/tree/f2"
$ mounted one two
$ copy one:/tree nope:/x
! error finding layer "nope": layer not known
= 1
$ copy one:/none two:/x
! error copying "one:/none" to "two:/x": stat /none: no such file or directory
= 1
$ copy tree/f1 one:/tree
! error copying "tree/f1" to "one:/tree": copy /tree: is a directory
= 1
$ copy tree/f1 relative
! path: relative should be absolute
= 1
$ copy --chown=junk tree/f1 one:/x
! bad UID: "junk"
= 1
"#,
    );
    let out = dir.join("out");
    session.command(["copy".into(), "two:/".into(), out.to_str().unwrap().into()]).assert_success();
    assert_eq!(std::fs::read(out.join("d/sub")).unwrap(), b"two\n");
    assert_eq!(std::fs::read_link(out.join("l")).unwrap(), std::path::Path::new("/etc"));
    let inode = |path: &str| std::fs::metadata(out.join(path)).unwrap().ino();
    assert_eq!(inode("f1"), inode("d/same"), "hard links stay hard links");
    let time = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().mtime_nsec();
    assert_eq!(time(out.join("d")), time(dir.join("tree/d")), "times are kept");
    assert!(dir.mounts().is_empty());
}

#[test]
fn links_in_a_layer_lead_nowhere_out_of_it() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-copy-links");
    dir.write("file", "text");
    let outside = dir.create_dir("outside");
    let mut session = Session::layerstore(&dir);
    std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
    session.expect(
        r#"
$ create-layer -i one
one
$ mount one
MOUNT
% cp -P link "$MOUNT/out" && ln -s ../../../../.. "$MOUNT/up" && ln -s /nowhere "$MOUNT/file"
$ unmount one
one mountpoint unmounted
$ copy file one:/up/here
$ copy file one:/file
"#,
    );
    assert_eq!(
        session.command(["copy".into(), "file".into(), "one:/out/x".into()]).output().status.code(),
        Some(1)
    );
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn owners_are_those_inside() {
    if !machine::is_real_root() {
        skip!("giving files away needs root");
    }
    let dir = Dir::new("compat-copy-owners");
    let file = dir.write("file", "text");
    std::os::unix::fs::chown(&file, Some(5), Some(6)).unwrap();
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ create-layer -i one
one
$ copy file one:/kept
$ copy --chown 7:8 file one:/given
$ copy -o 9 file one:/both
$ mount one
MOUNT
% stat -c '%u:%g' "$MOUNT/kept" "$MOUNT/given" "$MOUNT/both" | tr '\n' ' ' | grep -x '5:6 7:8 9:9 '
$ unmount one
one mountpoint unmounted
"#,
    );
}

/// What is below a directory, a line each: names of directories end in `/`.
fn listed(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let found = path.symlink_metadata().unwrap();
            let mode = found.permissions().mode() & 0o7777;
            let kind = found.file_type();
            lines.push(if kind.is_symlink() {
                format!("{name} -> {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                open.push(path);
                format!("{name}/ {mode:o}")
            } else if kind.is_file() {
                format!("{name} {mode:o} {}", std::fs::read_to_string(&path).unwrap())
            } else {
                format!("{name} {mode:o} {}", if kind.is_fifo() { "fifo" } else { "other" })
            });
        }
    }
    lines.sort();
    lines
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// What there is to be copied.
fn write_source(dir: &Dir) {
    set_mode(dir.write("s/file", "one"), 0o640);
    set_mode(dir.write("s/dir/sub/f", "two"), 0o4755);
    symlink("file", dir.join("s/lf")).unwrap();
    symlink("dir", dir.join("s/ld")).unwrap();
    symlink("nowhere", dir.join("s/gone")).unwrap();
    symlink("../file", dir.join("s/dir/in")).unwrap();
    set_mode(dir.join("s/dir/sub"), 0o750);
    set_mode(dir.join("s/dir"), 0o700);
}

/// Where it is copied to.
fn write_target(root: &Path) {
    std::fs::create_dir_all(root.join("d/file/full")).unwrap();
    std::fs::create_dir(root.join("d/sub")).unwrap();
    std::fs::write(root.join("d/sub/kept"), "old").unwrap();
    std::fs::write(root.join("d/in"), "old").unwrap();
    std::fs::write(root.join("f"), "old").unwrap();
    for path in ["d/sub/kept", "d/in", "f"] {
        set_mode(root.join(path), 0o644);
    }
    for path in ["d/file/full", "d/file", "d/sub"] {
        set_mode(root.join(path), 0o755);
    }
    set_mode(root.join("d"), 0o711);
    symlink("f", root.join("lf")).unwrap();
    symlink("d", root.join("ld")).unwrap();
    symlink("nowhere", root.join("gone")).unwrap();
}

/// A source, a target, and what comes of it: lines that go and come, or the end of the error.
type Case = (&'static str, &'static str, Result<&'static [&'static str], &'static str>);

const NEW_FILE: &[&str] = &["+new 640 one"];
const NEW_TREE: &[&str] = &["+new/ 755", "+new/in -> ../file", "+new/sub/ 750", "+new/sub/f 4755 two"];
const NEW_LINK: &[&str] = &["+new/ 755", "+new/ld -> dir"];
/// The directory itself keeps its mode and what is in it.
const MERGED: &[&str] =
    &["-d/in 644 old", "-d/sub/ 755", "+d/in -> ../file", "+d/sub/ 750", "+d/sub/f 4755 two"];

/// The same whether source and target are in layers or of the host.
const CASES: &[Case] = &[
    // A: a file, to a name that is free. What is copied is what a link leads to.
    ("file", "new", Ok(NEW_FILE)),
    ("lf", "new", Ok(NEW_FILE)),
    ("ld/in", "new", Ok(NEW_FILE)),
    ("file", "deep/er/new", Ok(&["+deep/ 700", "+deep/er/ 700", "+deep/er/new 640 one"])),
    ("file", "ld/new", Ok(&["+d/new 640 one"])),
    ("file", "none/../new", Ok(NEW_FILE)),
    ("file", "ld/../new", Ok(NEW_FILE)),
    ("file", "f/new", Err("mkdir TARGET/f: not a directory")),
    ("file", "lf/new", Err("mkdir TARGET/lf: not a directory")),
    ("file", "gone/new", Err("mkdir TARGET/gone: file exists")),
    // C: to a file, or a link, whose place it takes.
    ("file", "f", Ok(&["-f 644 old", "+f 640 one"])),
    ("file", "lf", Ok(&["-lf -> f", "+lf 640 one"])),
    ("lf", "ld", Ok(&["-ld -> d", "+ld 640 one"])),
    ("file", "gone", Ok(&["-gone -> nowhere", "+gone 640 one"])),
    // D: to a directory.
    ("file", "d", Err("copy TARGET/d: is a directory")),
    // E and H: a directory, with the dot or without, to a name that is free.
    ("dir", "new", Ok(NEW_TREE)),
    ("dir/", "new", Ok(NEW_TREE)),
    ("dir/.", "new", Ok(NEW_TREE)),
    ("dir", "new/", Ok(NEW_TREE)),
    ("dir", "none/../new", Ok(NEW_TREE)),
    ("dir/sub", "deep/new", Ok(&["+deep/ 755", "+deep/new/ 755", "+deep/new/f 4755 two"])),
    // F and I: to a file.
    ("dir", "f", Err("mkdir TARGET/f: not a directory")),
    ("dir/.", "f", Err("mkdir TARGET/f: not a directory")),
    ("dir", "lf", Err("mkdir TARGET/lf: not a directory")),
    ("dir", "gone", Err("mkdir TARGET/gone: file exists")),
    ("dir", "f/new", Err("mkdir TARGET/f: not a directory")),
    // G and J: to a directory.
    ("dir", "d", Ok(MERGED)),
    ("dir/.", "d", Ok(MERGED)),
    ("dir", "d/", Ok(MERGED)),
    ("dir", "ld", Ok(MERGED)),
    // A link to a directory is put into the directory itself.
    ("ld", "new", Ok(NEW_LINK)),
    ("ld", "d", Ok(&["+d/ld -> dir"])),
    ("ld", "f", Err("mkdir TARGET/f: not a directory")),
    // What is not there.
    ("none", "new", Err("stat SOURCE/none: no such file or directory")),
    ("gone", "new", Err("stat SOURCE/gone: no such file or directory")),
    ("file/x", "new", Err("stat SOURCE/file/x: not a directory")),
];

/// A slash at the end means something on the host. What is in a layer is told by the path without it.
const OF_THE_HOST: &[Case] = &[
    ("file", "new/", Ok(&["+new/ 700", "+new/file 640 one"])),
    ("file", "d/", Err("copy TARGET/d/file: is a directory")),
    ("file", "d/sub/", Ok(&["+d/sub/file 640 one"])),
    ("file/", "new", Err("stat SOURCE/file/: not a directory")),
    ("ld/", "new", Ok(NEW_TREE)),
    ("ld/.", "new", Ok(NEW_TREE)),
];

const IN_LAYERS: &[Case] = &[
    ("file", "new/", Ok(NEW_FILE)),
    ("file", "d/", Err("copy TARGET/d: is a directory")),
    ("file/", "new", Ok(NEW_FILE)),
    ("file/.", "new", Ok(NEW_FILE)),
    ("ld/", "new", Ok(NEW_LINK)),
    ("dir/../file", "../../new", Ok(NEW_FILE)),
];

/// Copies, and compares the target with what it was. `before` and `after` are its listings.
#[track_caller]
fn judge(case: &Case, error: Option<&str>, before: &[String], after: &[String]) {
    let (from, to, expected) = case;
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("-{line}"));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+{line}"));
    let found: Vec<String> = gone.chain(come).collect();
    match expected {
        Ok(lines) => {
            assert_eq!(error, None, "{from} to {to}");
            assert_eq!(found, *lines, "{from} to {to}");
        }
        Err(end) => {
            let error = error.unwrap_or_else(|| panic!("{from} to {to} is copied"));
            assert!(error.trim_end().ends_with(end), "{from} to {to}: {error}");
            assert_eq!(found, [""; 0], "{from} to {to}");
        }
    }
}

#[test]
fn each_kind_of_source_meets_each_kind_of_target() {
    let dir = Dir::new("compat-copy-cases");
    write_source(&dir);
    let session = Session::layerstore(&dir);
    let (source, target) = (dir.join("s"), dir.join("t"));
    for case in CASES.iter().chain(OF_THE_HOST) {
        write_target(&target);
        let before = listed(&target);
        let [from, to] = [(&source, case.0), (&target, case.1)]
            .map(|(root, path)| format!("{}/{path}", root.to_str().unwrap()));
        let output = session.command(["copy".into(), from, to]).output();
        let error = String::from_utf8(output.stderr).unwrap();
        let error =
            error.replace(source.to_str().unwrap(), "SOURCE").replace(target.to_str().unwrap(), "TARGET");
        judge(case, (!output.status.success()).then_some(&error), &before, &listed(&target));
        std::fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn layers_are_copied_from_and_to_as_the_host_is() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-copy-in-layers");
    write_source(&dir);
    write_target(&dir.create_dir("t"));
    let session = Session::layerstore(&dir);
    let run = |words: &[&str]| session.command(words.iter().map(ToString::to_string)).stdout_path();
    let fill = |layer: &str, from: &str| {
        run(&["create-layer", "-i", layer]);
        let mount = run(&["mount", layer]);
        let copied = std::process::Command::new("cp").arg("-a").arg(dir.join(from)).arg(&mount).status();
        assert!(copied.unwrap().success());
        run(&["unmount", layer]);
    };
    fill("from", "s/.");
    fill("base", "t/.");
    let before = listed(&dir.join("t"));
    for (number, case) in CASES.iter().chain(IN_LAYERS).enumerate() {
        let layer = format!("to-{number}");
        run(&["create-layer", "-i", &layer, "base"]);
        let words = ["copy".into(), format!("from:/{}", case.0), format!("{layer}:/{}", case.1)];
        let output = session.command(words).output();
        let error = String::from_utf8(output.stderr).unwrap();
        // Paths in errors are those in the layers.
        let error = match case.2 {
            Err(end) if end.contains("SOURCE/") => error.replace("stat /", "stat SOURCE/"),
            _ => error.replace("mkdir /", "mkdir TARGET/").replace("copy /", "copy TARGET/"),
        };
        let mount = run(&["mount", &layer]);
        judge(case, (!output.status.success()).then_some(&error), &before, &listed(&mount));
        run(&["unmount", &layer]);
    }
}

/// What a copied tree has takes the place of whatever has its name: but a directory joins one that is there.
#[test]
fn a_tree_takes_the_place_of_what_has_its_names() {
    let dir = Dir::new("compat-copy-collisions");
    let make = |kind: &str, at: &Path| match kind {
        "file" => set_mode((std::fs::write(at, "text"), at).1, 0o600),
        "full" => {
            std::fs::create_dir_all(at.join(if at.starts_with(dir.join("t")) { "old" } else { "new" }))
                .unwrap();
        }
        "link" => symlink("nowhere", at).unwrap(),
        "out" => symlink("../victim", at).unwrap(),
        _ => rustix::fs::mknodat(
            rustix::fs::CWD,
            at,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o600),
            0,
        )
        .unwrap(),
    };
    dir.create_dir("victim");
    let session = Session::layerstore(&dir);
    for source in ["file", "full", "link", "fifo"] {
        let from = dir.create_dir(format!("s-{source}"));
        make(source, &from.join("x"));
        for target in ["file", "full", "link", "out", "fifo"] {
            let to = dir.create_dir("t");
            make(target, &to.join("x"));
            let words = ["copy", from.to_str().unwrap(), to.to_str().unwrap()].map(String::from);
            session.command(words).assert_success();
            let mut expected = listed(&from);
            if (source, target) == ("full", "full") {
                expected.push("x/old/ 755".into());
            }
            assert_eq!(listed(&to), expected, "{source} onto {target}");
            assert_eq!(listed(&dir.join("victim")), [""; 0], "{source} onto {target}");
            std::fs::remove_dir_all(to).unwrap();
        }
    }
}

#[test]
fn several_sources_and_odd_files_are_copied() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-copy-several");
    dir.write("a/one", "1");
    dir.write("b/two", "2");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("b/socket"),
        rustix::fs::FileType::Socket,
        rustix::fs::Mode::from(0o600),
        0,
    )
    .unwrap();
    rustix::fs::setxattr(dir.join("b"), "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ create-layer -i one
one
$ copy a b one:/both
$ changes one
Add "/both"
Add "/both/one"
Add "/both/two"
$ copy a/one b one:/file
! error copying "b" to "one:/file": mkdir /file: not a directory
= 1
$ copy b a/one one:/tree
! error copying "a/one" to "one:/tree": copy /tree: is a directory
= 1
$ copy one:/ one:/both/itself
$ changes one
Add "/both"
Add "/both/itself"
Add "/both/itself/both"
Add "/both/itself/both/one"
Add "/both/itself/both/two"
Add "/both/itself/file"
Add "/both/itself/tree"
Add "/both/itself/tree/two"
Add "/both/one"
Add "/both/two"
Add "/file"
Add "/tree"
Add "/tree/two"
"#,
    );
}

#[test]
fn directories_on_the_way_are_the_root_users_inside() {
    if !machine::is_real_root() {
        skip!("giving files away needs root");
    }
    let dir = Dir::new("compat-copy-mapped");
    std::os::unix::fs::chown(dir.write("tree/sub/f", "text"), Some(5), Some(6)).unwrap();
    let mut session = Session::layerstore(&dir);
    session.expect(
        "
$ create-container -i ctr --uidmap 0:100000:1000 --gidmap 0:200000:1000 ''
ctr
",
    );
    let layer = session.command(["layers".into(), "-q".into()]).stdout().trim().to_owned();
    for (words, target) in
        [(vec!["tree/sub/f"], "a/b/f"), (vec!["tree"], "c/d"), (vec!["--chown", "7:8", "tree"], "e")]
    {
        let words = std::iter::once("copy").chain(words).map(String::from);
        session.command(words.chain([format!("{layer}:/{target}")])).assert_success();
    }
    let mount = session.command(["mount".into(), layer.clone()]).stdout_path();
    let owner = |path: &str| {
        let found = std::fs::metadata(mount.join(path)).unwrap();
        (found.uid(), found.gid())
    };
    let (root, given) = ((100_000, 200_000), (100_007, 200_008));
    assert_eq!(["a", "a/b", "c", "c/d", "c/d/sub", "e"].map(owner), [root; 6]);
    assert_eq!(["a/b/f", "c/d/sub/f"].map(owner), [(100_005, 200_006); 2]);
    assert_eq!(["e/sub", "e/sub/f"].map(owner), [given; 2]);
    session.command(["unmount".into(), layer]).assert_success();
}
