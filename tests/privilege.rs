//! What belongs to the owner of a store alone, and who decides what is run.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::command::binary;
use crate::support::oci::{Image, Layer};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, machine};

/// The program with a store in `dir`, under a mask of modes.
fn masked(dir: &Dir, umask: &str, arguments: &[&str]) -> TestCommand {
    TestCommand::new("sh")
        .args(["-euc", r#"umask "$1"; shift; exec "$@""#, "sh", umask])
        .arg(binary())
        .args(["--root".as_ref(), dir.root().as_os_str()])
        .args(["--runroot".as_ref(), dir.run_root().as_os_str()])
        .args(arguments)
        .current_dir(dir.path())
}

/// The modes of everything below a directory that is no layer's, by what stands there: numbers and ids are `N`.
fn modes(top: &Path) -> BTreeMap<String, u32> {
    let mut modes = BTreeMap::new();
    let mut rest = vec![top.to_owned()];
    while let Some(at) = rest.pop() {
        let mode = at.metadata().unwrap().permissions().mode() & 0o7777;
        let name = |part: &str| match part {
            part if part.starts_with("run.") => "run.BOOT.redb".to_owned(),
            part if part.len() > 12 && part.bytes().all(|byte| byte.is_ascii_hexdigit()) => "N".to_owned(),
            part => part.to_owned(),
        };
        let path = at
            .strip_prefix(top)
            .unwrap()
            .to_str()
            .unwrap()
            .split('/')
            .map(name)
            .collect::<Vec<_>>()
            .join("/");
        assert!(modes.insert(path.clone(), mode).is_none_or(|other| other == mode), "{path}: {mode:o}");
        // What is below these is the layer's, or the kernel's.
        let is_foreign = ["diffs/N", "work/N"].contains(&path.as_str());
        if at.is_dir() && !is_foreign {
            rest.extend(std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    modes
}

/// The table of modes in SECURITY.md, which this is a copy of.
#[test]
fn what_a_store_makes_has_its_mode_under_any_umask() {
    for umask in ["0", "022", "077", "0777"] {
        if umask == "0777" && !machine::is_root() {
            continue;
        }
        let dir = Dir::new("privilege-modes");
        let image = Image::new([Layer::new([Member::directory("etc"), Member::file("etc/motd", "hello")])]);
        let reference = image.write(dir.join("layout"), "image").reference();
        let run = |arguments: &[&str]| masked(&dir, umask, arguments).stdout();
        run(&["load", &reference, "--name", "image"]);
        run(&["create-container", "image", "--name", "web"]);
        run(&["--transient", "create-container", "image", "--name", "passing"]);
        run(&["item", "put", "web", "spec", "layout/index.json"]);
        if machine::is_root() {
            run(&["mount", "web"]);
            run(&["unmount", "web"]);
        }
        run(&["backup", "copy.redb"]);
        run(&["gc"]);
        let found = modes(&dir.root());
        for (path, mode) in &found {
            let expected = match path.as_str() {
                "diffs/N" => 0o755,
                path if dir.root().join(path).is_file() || path == "blobs/N" => 0o600,
                _ => 0o700,
            };
            assert_eq!(*mode, expected, "umask {umask}: {path:?} has mode {mode:04o}");
        }
        for there in
            ["", "LAYERSTORE", "store.redb", "store.holder", "reserve", "collected", "diffs/N", "blobs/N"]
        {
            assert!(found.contains_key(there), "umask {umask}: no {there:?} in {found:?}");
        }
        let found = modes(&dir.run_root());
        for (path, mode) in &found {
            let expected = if path == "run.BOOT.redb" { 0o600 } else { 0o700 };
            assert_eq!(*mode, expected, "umask {umask}: {path:?} of the run root has mode {mode:04o}");
        }
        assert!(["", "run.BOOT.redb", "mnt", "containers"].iter().all(|there| found.contains_key(*there)));
        let copy = dir.join("copy.redb").metadata().unwrap();
        assert_eq!(copy.permissions().mode() & 0o7777, 0o600, "umask {umask}");
    }
}

/// Of those that need a run root, and those that do not.
const WRITERS: [&[&str]; 5] =
    [&["gc"], &["create-layer"], &["create-container"], &["put-layer"], &["names", "base", "--add", "again"]];

#[test]
fn a_root_that_others_could_change_is_not_written_to() {
    let dir = Dir::new("privilege-root");
    dir.layerstore(["create-layer", "--name", "base"]).assert_success();
    let set = |path: &PathBuf, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let refused = |exposed: &Path, told: &[&str]| {
        for command in WRITERS {
            let archive = archive(&[Member::file("file", "content")]);
            let error = dir.layerstore(command).stdin(archive).assert_exit(1);
            let is_told = told.iter().chain(&[exposed.to_str().unwrap()]).all(|part| error.contains(part));
            assert!(is_told && !error.contains("chown"), "{command:?}: {error}");
        }
        // Looking is not.
        dir.layerstore(["--no-write", "layers"]).assert_success();
        let checked = dir.layerstore(["--no-write", "check"]).output();
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(matches!(checked.status.code(), Some(0 | 3)), "{said}");
        // What is beside it is told: nobody reads what others may have written.
        let is_of_mounts = exposed == dir.run_root();
        assert_eq!(said.contains("note: the notes of mounts in"), is_of_mounts, "{said}");
        let output = dir.layerstore(["--no-write", "--json", "check"]).output();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut notes = json["notes"].as_array().unwrap().iter();
        let noted = notes.any(|note| {
            note["code"] == "run-root-unused" && note["message"].as_str().unwrap().contains(told[0])
        });
        assert_eq!(noted, is_of_mounts, "{json}");
        let status = dir.layerstore(["--no-write", "status"]).stdout();
        let unknown = status.lines().find(|line| line.starts_with("mounted")).unwrap();
        assert_eq!(unknown.contains("unknown: ") && unknown.contains(told[0]), is_of_mounts, "{status}");
        let status = dir.layerstore(["--no-write", "status", "--json"]).json();
        assert_eq!(status["mounts_unknown"].is_string(), is_of_mounts, "{status}");
    };
    for exposed in [dir.root(), dir.run_root()] {
        // With the sticky bit names are safe that are there, and others can still make those that are missing.
        for mode in [0o777, 0o1777, 0o703] {
            set(&exposed, mode);
            refused(&exposed, &["can be written by everybody", "chmod 0700", "--no-write"]);
        }
        set(&exposed, 0o700);
    }
    // A directory above is not looked at: the log tells of it.
    set(&dir.path().to_owned(), 0o777);
    dir.layerstore(["create-layer"]).assert_success();
    set(&dir.path().to_owned(), 0o700);
    // Nor is a new store made.
    set(&dir.run_root(), 0o777);
    let other = dir.join("other");
    let mut command =
        TestCommand::layerstore().arg("--root").arg(&other).arg("--runroot").arg(dir.run_root());
    command = command.arg("create-layer");
    assert!(command.assert_exit(1).contains("can be written by everybody"));
    assert!(!other.exists());
    set(&dir.run_root(), 0o700);
    if !machine::is_real_root() {
        skip!("giving a directory to another user needs real root");
    }
    // As who finds out the name of a run root in a directory of everybody's may prepare it.
    for exposed in [dir.root(), dir.run_root()] {
        std::os::unix::fs::chown(&exposed, Some(65534), Some(65534)).unwrap();
        let advice = if exposed == dir.root() { "be that user" } else { "--runroot" };
        refused(&exposed, &["belongs to user 65534", advice, "--no-write"]);
        std::os::unix::fs::chown(&exposed, Some(0), Some(0)).unwrap();
    }
    dir.layerstore(["gc"]).assert_success();
}

/// What stands there was neither opened nor followed, and the store is whole.
#[test]
fn a_store_is_looked_at_whatever_stands_in_the_place_of_its_run_root() {
    let dir = Dir::new("privilege-no-run-root");
    dir.layerstore(["create-layer", "--name", "base"]).assert_success();
    std::fs::remove_dir_all(dir.run_root()).unwrap();
    let fifo = |path: &Path| TestCommand::new("mkfifo").arg(path).assert_success();
    let makes: [&dyn Fn(&Path); 2] = [&|path| std::fs::write(path, "").unwrap(), &|path| fifo(path)];
    for make in makes {
        make(&dir.run_root());
        let checked = dir.layerstore(["--no-write", "--json", "check"]).json();
        let notes = checked["notes"].as_array().unwrap();
        assert!(notes.iter().any(|note| note["code"] == "run-root-unused"), "{checked}");
        assert_eq!(checked["findings"], serde_json::json!([]));
        let status = dir.layerstore(["--no-write", "status", "--json"]).json();
        assert!(
            status["mounts_unknown"].as_str().unwrap().contains("where a store has a directory"),
            "{status}"
        );
        assert!(dir.layerstore(["gc"]).assert_exit(1).contains("where a store has a directory"));
        std::fs::remove_file(dir.run_root()).unwrap();
    }
}

#[test]
fn a_root_that_others_can_enter_is_told_and_shut() {
    let dir = Dir::new("privilege-open");
    dir.layerstore(["create-layer", "--name", "base"]).assert_success();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    let told = |mut command: TestCommand| {
        let output = command.output();
        let said = String::from_utf8(output.stderr).unwrap();
        (
            output.status.code().unwrap(),
            said.matches("other users can reach the files of images").count(),
            said,
        )
    };
    for root in [dir.root(), dir.run_root()] {
        for open in [0o770, 0o755, 0o711, 0o750] {
            if open == 0o770 && !machine::has_group_of_own_number() {
                continue;
            }
            std::fs::set_permissions(&root, PermissionsExt::from_mode(open)).unwrap();
            let advice = format!("chmod 0700 {}", root.display());
            for words in [&["create-layer"][..], &["layers"], &["gc"]] {
                let (code, count, said) = told(dir.layerstore(words));
                assert!(code == 0 && count == 1 && said.contains(&advice), "{words:?}: {said}");
            }
            for quiet in [["--quiet", "layers"], ["--no-write", "layers"]] {
                assert_eq!(told(dir.layerstore(quiet)).1, 0, "{quiet:?}");
            }
            let status = dir.layerstore(["status"]).stdout();
            let row = format!("{} (mode {open:04o}) to other users", root.display());
            assert!(status.lines().any(|line| line.starts_with("open ") && line.contains(&row)), "{status}");
            let status = dir.layerstore(["status", "--json"]).json();
            let expected = serde_json::json!([{ "root": root, "mode": format!("{open:04o}") }]);
            assert_eq!(status["open_roots"], expected);
            let found = dir.layerstore(["check"]).output();
            let said = String::from_utf8(found.stdout).unwrap();
            assert_eq!(found.status.code(), Some(3), "{said}");
            assert!(said.contains("root-open: ") && said.contains("chmod 0700 shuts it"), "{said}");
        }
        dir.layerstore(["repair", "--dry-run"]).output();
        assert_eq!(mode(&root), 0o750);
        let said = dir.layerstore(["repair"]).stdout();
        assert!(said.contains("gave it mode 0700"), "{said}");
        assert_eq!(mode(&root), 0o700);
        let (code, count, said) = told(dir.layerstore(["check"]));
        assert_eq!((code, count), (0, 0), "{said}");
    }
    // Whoever says that others are to read it has no set-id bits there.
    std::fs::set_permissions(dir.root(), PermissionsExt::from_mode(0o755)).unwrap();
    let shared = "[storage.options]\nforce_mask = 'shared'\nmount_program = 'true'\n";
    let command = dir.layerstore(["check", "--config"]).arg(dir.write("shared.conf", shared));
    let (code, count, said) = told(command);
    assert_eq!((code, count), (0, 0), "{said}");
}

/// What `setfacl -m user:7777:rwx` writes: with it, the group bits of the mode say nothing of the group.
#[test]
fn an_access_list_lets_others_write_as_a_mode_does() {
    let dir = Dir::new("privilege-acl");
    dir.layerstore(["create-layer", "--name", "base"]).assert_success();
    let list = |user: u8| {
        let none = [0xff; 4];
        let entry = |tag: u8, permissions: u8, id: [u8; 4]| [&[tag, 0, permissions, 0], &id[..]].concat();
        let named = entry(0x02, user, 7777u32.to_le_bytes());
        let rest = [entry(0x04, 0, none), entry(0x10, 7, none), entry(0x20, 0, none)].concat();
        [&[2, 0, 0, 0][..], &entry(0x01, 7, none), &named, &rest].concat()
    };
    let set = |path: &Path, list: &[u8]| {
        rustix::fs::setxattr(path, "system.posix_acl_access", list, rustix::fs::XattrFlags::empty())
    };
    for root in [dir.root(), dir.run_root()] {
        match set(&root, &list(7)) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => {
                skip!("the filesystem has no access lists, or the namespace no such user");
            }
            done => done.unwrap(),
        }
        let error = dir.layerstore(["gc"]).assert_exit(1);
        assert!(error.contains("can be written by user") && error.contains("setfacl"), "{error}");
        dir.layerstore(["--no-write", "layers"]).assert_success();
        // Only reading.
        set(&root, &list(5)).unwrap();
        let output = dir.layerstore(["gc"]).output();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("other users can reach"), "{said}");
        // The mode is the most that the list can give.
        set(&root, &list(7)).unwrap();
        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o700)).unwrap();
        dir.layerstore(["gc"]).assert_success();
    }
}

/// What is added to the time of day must not go beyond it.
#[test]
fn a_timeout_may_be_longer_than_any_clock() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("privilege-timeout");
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    dir.layerstore(["--lock-timeout", "1.8e19", "mount", "web"]).assert_success();
    dir.layerstore(["--lock-timeout", "1.8e19", "unmount", "web"]).assert_success();
}

/// A script that says what it was given, and mounts nothing.
const TELLS: &str =
    "#!/bin/sh\nhere=${0%/*}; env > \"$here/env\"; ls -l /proc/$$/fd > \"$here/fd\"; exit 1\n";

#[test]
fn a_mount_program_gets_no_environment_and_no_open_files() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("privilege-program");
    let program = dir.write("tells", TELLS);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    // What whoever starts the program left open, and set.
    let script = r#"exec 7< /proc/self/status; exec "$@""#;
    TestCommand::new("sh")
        .args(["-euc", script, "sh"])
        .arg(binary())
        .args(["--root".as_ref(), dir.root().as_os_str(), "--runroot".as_ref(), dir.run_root().as_os_str()])
        .args(["--mount-program".as_ref(), program.as_os_str(), "mount".as_ref(), "web".as_ref()])
        .env("SECRET_OF_THE_CALLER", "1")
        .env("LD_DEBUG_OUTPUT", "1")
        .assert_exit(1);
    let environment = std::fs::read_to_string(dir.join("env")).unwrap();
    let own = ["PATH=/usr/bin:", "LC_ALL=C", "PWD=", "OLDPWD=", "SHLVL=", "_="];
    let foreign: Vec<_> =
        environment.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let files = std::fs::read_to_string(dir.join("fd")).unwrap();
    let numbers =
        files.lines().filter_map(|line| line.split(" -> ").next()?.rsplit(' ').next()?.parse::<u32>().ok());
    // Those of the shell itself have higher numbers.
    assert_eq!(numbers.filter(|number| (3..10).contains(number)).count(), 0, "{files}");
}

/// Programs of such names in `PATH`, which would be run.
#[test]
fn no_variable_decides_what_is_run() {
    let dir = Dir::new("privilege-path");
    let (bin, ran) = (dir.create_dir("bin"), dir.join("ran"));
    for name in ["fuse-overlayfs", "fusermount3", "fusermount", "newuidmap", "newgidmap"] {
        let script = format!("#!/bin/sh\necho {name} >> '{}'\nexit 1\n", ran.display());
        let program = dir.write(Path::new("bin").join(name), script);
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    dir.layerstore(["create-container", "--name", "web"]).env("PATH", &path).assert_success();
    dir.layerstore(["status"]).env("PATH", &path).assert_success();
    for command in [["unshare", "true"], ["mount", "web"], ["unmount", "web"]] {
        // Not every user may do each of these.
        dir.layerstore(command).env("PATH", &path).output();
    }
    assert!(!ran.exists(), "{}", std::fs::read_to_string(&ran).unwrap_or_default());
}

/// What `storage.conf` says of the store in `dir`, with more options.
fn configuration(dir: &Dir, options: &str) -> String {
    let (root, run_root) = (dir.root(), dir.run_root());
    let roots = format!("graphroot = '{}'\nrunroot = '{}'\n", root.display(), run_root.display());
    format!("[storage]\ndriver = 'overlay'\n{roots}[storage.options]\n{options}")
}

/// A program that leaves a mark when it is run, and what it leaves.
fn marking(dir: &Dir, name: &str) -> (PathBuf, PathBuf) {
    let mark = dir.join(format!("{}-ran", Path::new(name).file_name().unwrap().to_str().unwrap()));
    let program = dir.write(name, format!("#!/bin/sh\n: > '{}'\nexit 1\n", mark.display()));
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    (program, mark)
}

/// A user's own directory, below which nothing is anybody else's.
fn with_home(dir: &Dir, command: TestCommand) -> TestCommand {
    ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "CONTAINERS_STORAGE_CONF"]
        .iter()
        .fold(command, |command, name| command.env(name, ""))
        .env("HOME", dir.path())
}

#[test]
fn a_file_that_a_variable_leads_to_names_no_program() {
    let dir = Dir::new("privilege-variables");
    let (program, mark) = marking(&dir, "program");
    let named = format!("mount_program = '{}'\n", program.display());
    let compat = |words: &[&str]| with_home(&dir, TestCommand::layerstore().arg("compat").args(words));
    let told = |mut command: TestCommand, variable: &str| {
        let output = command.output();
        // As the other program does, the other command line says so on standard output.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let advice = format!("a file that ${variable} leads to does not decide");
        assert!(!output.status.success() && said.contains(&advice), "{variable}: {said}");
        assert!(said.contains("--mount-program") && said.contains("--config"), "{said}");
    };
    let file = dir.write("named.conf", configuration(&dir, &named));
    let usual = dir.write(".config/containers/storage.conf", configuration(&dir, &named));
    // The program is refused, and not only the mount.
    for words in [["status", "-j"], ["layers", "-j"]] {
        told(compat(&words).env("CONTAINERS_STORAGE_CONF", &file), "CONTAINERS_STORAGE_CONF");
        told(compat(&words), "HOME");
        let config_home = usual.parent().unwrap().parent().unwrap();
        told(compat(&words).env("XDG_CONFIG_HOME", config_home).env("HOME", "/"), "XDG_CONFIG_HOME");
    }
    std::fs::remove_file(&usual).unwrap();
    told(
        compat(&["status"]).env("CONTAINERS_STORAGE_CONF_OVERRIDE", &file),
        "CONTAINERS_STORAGE_CONF_OVERRIDE",
    );
    told(dir.layerstore(["status"]).env("LAYERSTORE_CONFIG", &file), "LAYERSTORE_CONFIG");
    let of_variable = compat(&["status"])
        .env("CONTAINERS_STORAGE_CONF", dir.write("plain.conf", configuration(&dir, "")))
        .env("STORAGE_OPTS", format!("overlay.mount_program={}", program.display()))
        .output();
    let said = String::from_utf8_lossy(&of_variable.stdout).into_owned();
    assert!(!of_variable.status.success() && said.contains("which a variable does not decide"), "{said}");

    // All else that such a file says counts.
    let file = dir.write("other.conf", configuration(&dir, "mountopt = 'nodev'\n"));
    let said = compat(&["status", "-j"]).env("CONTAINERS_STORAGE_CONF", &file).stdout();
    assert!(said.contains(dir.root().to_str().unwrap()) && said.contains("nodev"), "{said}");
    let settings =
        TestCommand::layerstore().args(["config", "--json"]).env("LAYERSTORE_CONFIG", &file).json();
    assert!(settings.to_string().contains("nodev"), "{settings}");

    // And whoever names the file, or the program, is asked.
    let file = dir.write("named.conf", configuration(&dir, &named));
    let by_flag = || TestCommand::layerstore().arg("--config").arg(&file);
    by_flag().args(["create-container", "--name", "web"]).assert_success();
    assert!(!mark.exists());
    if machine::is_root() {
        by_flag().args(["mount", "web"]).assert_exit(1);
        assert!(mark.exists(), "it is named to be run");
    }
}

#[test]
fn a_file_that_others_could_write_names_no_program() {
    let dir = Dir::new("privilege-writable");
    let (program, mark) = marking(&dir, "program");
    let file = dir.write(
        "config/storage.conf",
        configuration(&dir, &format!("mount_program = '{}'\n", program.display())),
    );
    let link = dir.join("link.conf");
    symlink(&file, &link).unwrap();
    let status = |name: &Path| TestCommand::layerstore().arg("--config").arg(name).arg("config");
    status(&link).assert_success();
    std::fs::set_permissions(file.parent().unwrap(), PermissionsExt::from_mode(0o777)).unwrap();
    for name in [&file, &link] {
        let error = status(name).assert_exit(2);
        assert!(error.contains("config can be written by everybody"), "{error}");
    }
    assert!(!mark.exists());
}

#[test]
fn a_mount_program_that_others_could_replace_is_not_run() {
    let dir = Dir::new("privilege-exposed");
    let (bin, program) = (dir.create_dir("bin"), dir.join("bin/own"));
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    for (directory_mode, program_mode, exposed) in [(0o777, 0o755, &bin), (0o755, 0o757, &program)] {
        mode(&bin, directory_mode);
        mode(&program, program_mode);
        let error = dir.layerstore(["create-layer", "--mount-program"]).arg(&program).assert_exit(2);
        let told = format!("{} can be written by everybody", exposed.display());
        assert!(error.contains(&told), "{error}");
        let options = layerstore::StoreOptions::at(dir.root()).mount_program(&program);
        let error = layerstore::Store::open(&options).unwrap_err();
        assert!(matches!(error, layerstore::Error::ExposedProgram { .. }), "{error:?}");
    }
    assert!(!dir.root().exists(), "no store is made");
    mode(&program, 0o755);
    dir.layerstore(["create-layer", "--mount-program"]).arg(&program).assert_success();
}

#[test]
fn what_is_in_a_store_configures_and_runs_nothing() {
    let dir = Dir::new("privilege-inside");
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    let refused = |what: &str, flag: &str, path: &Path| {
        let error = dir.layerstore([flag]).arg(path).arg("status").assert_exit(2);
        let told = format!("the {what} {} is part of the store", path.display());
        assert!(error.contains(&told) && error.contains("copy it to another place"), "{error}");
    };
    let both = |directory: &Path, script: &dyn Fn(&str, &str)| {
        script(directory.join("own.conf").to_str().unwrap(), "[storage]\n");
        script(directory.join("own").to_str().unwrap(), "#!/bin/sh\n");
        std::fs::set_permissions(directory.join("own"), PermissionsExt::from_mode(0o755)).unwrap();
        refused("configuration file", "--config", &directory.join("own.conf"));
        refused("mount program", "--mount-program", &directory.join("own"));
    };
    let plain = |path: &str, text: &str| std::fs::write(path, text).unwrap();
    let layer = std::fs::read_dir(dir.root().join("diffs")).unwrap().next().unwrap().unwrap().path();
    both(&layer, &plain);
    both(&dir.run_root(), &plain);
    // By a link, and of another store.
    let link = dir.join("link.conf");
    symlink(layer.join("own.conf"), &link).unwrap();
    refused("configuration file", "--config", &link);
    let other = Dir::new("privilege-inside-other");
    let error = other.layerstore(["create-layer", "--mount-program"]).arg(layer.join("own")).assert_exit(2);
    assert!(error.contains(dir.root().to_str().unwrap()), "{error}");
    assert!(!other.root().exists(), "no store is made");
    // The library's explicit setter is no exception.
    let options = layerstore::StoreOptions::at(dir.root()).mount_program(layer.join("own"));
    let error = layerstore::Store::open(&options).unwrap_err();
    assert!(matches!(error, layerstore::Error::InsideStore { .. }), "{error:?}");

    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let mounted = dir.layerstore(["mount", "web"]).stdout_path();
    both(&mounted, &plain);
    // As a runtime shows it elsewhere.
    let (elsewhere, bound) = (dir.create_dir("elsewhere"), dir.create_dir("bound"));
    let bind =
        |from: &Path, to: &Path| TestCommand::new("mount").arg("--bind").arg(from).arg(to).assert_success();
    bind(&mounted, &elsewhere);
    bind(&layer, &bound);
    let unmount = || {
        for path in [&elsewhere, &bound] {
            TestCommand::new("umount").arg(path).assert_success();
        }
        dir.layerstore(["unmount", "web"]).assert_success();
    };
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        both(&elsewhere, &plain);
        both(&bound, &plain);
    }));
    unmount();
    told.unwrap();
}
