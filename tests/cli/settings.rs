//! Mistakes in arguments and settings: found before anything is made, and told with what asks for it.

use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, machine};

/// A command that fails makes no store.
#[test]
fn a_mistake_makes_no_store() {
    let dir = Dir::new("settings-mistake");
    let (text, ok) = (dir.write("text", "no tar\n"), dir.write("ok.tar", archive(&[Member::file("a", "1")])));
    let (text, ok) = (text.to_str().unwrap(), ok.to_str().unwrap());
    for (arguments, code, message) in [
        (&["create-container", "--uidmap", "1:1:1"][..], 2, "root of the container"),
        (&["create-container", "--userns-auto", "--userns-user", "no such user"], 1, "no range of them"),
        (&["create-container", "--mount-option", "index=on"], 2, "index=on"),
        (&["create-layer", "--inodes", "1k"], 2, "without a unit"),
        (&["put-layer", "--file", text], 1, "not a tar archive"),
        (&["put-layer", "--file", "/no/such/file"], 1, "/no/such/file"),
        (&["put-layer"], 1, "the archive is empty"),
        (&["put-layer", "parent", "--file", ok], 1, "there is no store"),
        (&["create-layer", "--template", "other"], 1, "there is no store"),
    ] {
        let error = dir.layerstore(arguments).assert_exit(code);
        assert!(error.contains(message), "{arguments:?}: {error}");
        assert!(!dir.root().exists(), "{arguments:?} made a store");
    }
    dir.layerstore(["put-layer", "--file", ok, "--name", "layer"]).assert_success();
    let tar = dir.layerstore(["diff", "layer"]).stdout_bytes();
    assert_eq!(tar, std::fs::read(ok).unwrap(), "what was looked at comes in whole");
}

#[test]
fn limits_that_cannot_be_kept_are_told_with_what_asks_for_them() {
    let dir = Dir::new("settings-limits");
    if layerstore::StoreOptions::at(dir.root()).can_limit().is_ok() {
        skip!("the place of the tests has project quotas");
    }
    let file = dir.write("storage.conf", "[storage.options]\nsize = '10G'\n");
    for command in [&["create-layer", "--inodes", "5"][..], &["create-container", "--inodes", "5"]] {
        let error = dir.layerstore(command).assert_exit(1);
        assert!(error.contains("--inodes asks for it"), "{error}");
        assert!(!dir.root().exists(), "{command:?} made a store");
    }
    let with = |arguments: &[&str]| dir.layerstore(arguments).arg("--config").arg(&file);
    let error = with(&["create-layer"]).assert_exit(1);
    let asked = format!("size = 10737418240 ({}:2) asks for it", file.display());
    assert!(error.contains(&asked), "{error}");
    assert!(!dir.root().exists(), "a store was made in which nothing could be written to");
    // One that is there can be read, and be told to have no limit.
    dir.layerstore(["create-layer", "--name", "layer"]).assert_success();
    with(&["layers"]).assert_success();
    assert!(with(&["create-container"]).assert_exit(1).contains(&asked));
    with(&["create-container", "--size", "0"]).assert_success();
}

#[test]
fn variables_that_do_not_count_are_notes() {
    let dir = Dir::new("settings-variables");
    let said = |words: &[&str], name: &str, value: &str| {
        let output = dir.layerstore(["config", "--json"]).args(words).env(name, value).output();
        assert!(output.status.success(), "{output:?}");
        let note = format!("${name} has no effect: it counts with --config");
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (err.matches(&note).count(), out)
    };
    assert_eq!(said(&[], "STORAGE_OPTS", "overlay.mountopt=nodev").0, 1);
    assert_eq!(said(&[], "STORAGE_DRIVER", "vfs").0, 1);
    // It is so anyway.
    assert_eq!(said(&[], "STORAGE_DRIVER", "overlay").0, 0);
    assert_eq!(said(&[], "STORAGE_OPTS", "").0, 0);
    let file = dir.write("storage.conf", "[storage]\n");
    let (notes, settings) =
        said(&["--config", file.to_str().unwrap()], "STORAGE_OPTS", "overlay.mountopt=nodev");
    assert!(notes == 0 && settings.contains("nodev"), "{settings}");
}

#[test]
fn settings_that_exclude_each_other_are_found_at_once() {
    let dir = Dir::new("settings-contradictions");
    let run = |text: &str, arguments: &[&str], code: i32| {
        let file = dir.write("storage.conf", text);
        dir.layerstore(arguments).arg("--config").arg(file).assert_exit(code)
    };
    let composefs = "[storage.options.overlay]\nuse_composefs = 'true'\n";
    let error = run(composefs, &["--mount-program", "sh", "create-layer"], 2);
    assert!(error.contains("storage.conf:2) and mount_program=sh (--mount-program) exclude"), "{error}");
    let masked = "[storage.options]\nforce_mask = '755'\n";
    let error = run(masked, &["--mount-program", "sh", "create-container", "--gidmap", "0:0:1"], 1);
    assert!(error.contains("force_mask = 755 (") && error.contains("storage.conf:2) asks for it"), "{error}");
    let error = run("[storage.options]\nforce_mask = 755\n", &["create-layer"], 2);
    assert!(error.contains("must be an octal mode") && error.contains("the number 755"), "{error}");
    assert!(!dir.root().exists(), "a store was made");
}

/// The flag and the key of a file are one option: the same program mounts, always.
#[test]
fn a_mount_program_is_found_the_same_way_by_flag_and_file() {
    let dir = Dir::new("settings-program");
    let option = |flag: Option<&str>, key: &str| {
        let file = dir.write(
            "storage.conf",
            format!("[storage.options]\nmount_program = '{key}'\nforce_mask = 0o700\n"),
        );
        let command = dir.layerstore(["config", "--json"]).arg("--config").arg(file);
        command.args(flag.iter().flat_map(|program| ["--mount-program", program]))
    };
    let program = option(None, "sh").json()["mount_program"]["value"].clone();
    assert!(program.as_str().is_some_and(|path| path.starts_with('/')), "{program}");
    let of_flag = option(Some("sh"), "/bin/cat").json();
    assert_eq!(
        (&of_flag["mount_program"]["value"], &of_flag["mount_program"]["from"]),
        (&program, &"--mount-program".into())
    );
    assert_eq!((&of_flag["force_mask"]["value"], &of_flag["size"]["value"]), (&"700".into(), &0.into()));
    for bad in ["bin/sh", "no-such-program"] {
        for error in [option(None, bad).assert_exit(2), option(Some(bad), "sh").assert_exit(2)] {
            assert!(error.contains("mount_program") && error.contains("full path"), "{error}");
        }
    }
}

#[test]
fn settings_without_effect_are_notes() {
    let dir = Dir::new("settings-notes");
    let file = dir.write(
        "storage.conf",
        "[storage.options]\nskip_mount_home = 'true'\npull_options = {enable_partial_images = 'true', bogus = '1'}\n\
         root-auto-userns-user = 'no such user'\nauto-userns-min-size = 2000\n[storage.options.btrfs]\nmin_space = '1G'\n",
    );
    let run = |arguments: &[&str]| {
        let command = dir.layerstore(arguments).arg("--config").arg(&file);
        let output = command.env("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "1").output();
        String::from_utf8(output.stderr).unwrap()
    };
    let notes = run(&["config"]);
    for part in [
        "storage.conf:2: skip_mount_home = true has no effect",
        "storage.conf:3: pull_options enable_partial_images has no effect: no command here pulls",
        "storage.conf:3: pull_options bogus = \"1\" has no effect: it is no option",
        "storage.conf:7: btrfs.min_space = 1G has no effect",
        "$_CONTAINERS_OVERLAY_DISABLE_IDMAP: the value \"1\" has no effect",
    ] {
        assert!(notes.contains(part), "no {part:?} in\n{notes}");
    }
    assert_eq!(notes.lines().count(), 5, "{notes}");
    // Those of automatic ids have one; in a namespace its own ids are chosen from, whoever they are of.
    if machine::is_real_root() {
        let refused = run(&["create-container", "--userns-auto"]);
        assert!(refused.contains("2000 uids") && refused.contains("the user no such user"), "{refused}");
    }
    let bare =
        TestCommand::layerstore().args(["config"]).env("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "1").output();
    assert!(String::from_utf8_lossy(&bare.stderr).contains("only \"yes\" has one"), "{bare:?}");
}

#[test]
fn ordinary_users_are_told_which_ids_they_may_have() {
    if !machine::is_real_root() || !machine::has_program("setpriv") {
        skip!("becoming another user needs real root and setpriv");
    }
    let dir = Dir::new("settings-ids");
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), everyone).unwrap();
    let program = dir.join("layerstore");
    crate::support::command::copy_binary(&program);
    let own = dir.create_dir("own");
    let as_nobody = |root: &std::path::Path, arguments: &[&str]| {
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        let command = TestCommand::new("setpriv").args(user).arg(&program).arg("--root").arg(root);
        command.args(arguments).assert_exit(1)
    };
    let error = as_nobody(&dir.root(), &["create-container", "--uidmap", "0:100000:65536"]);
    for part in ["the user 100000", "/etc/subuid", "`layerstore unshare cat /proc/self/uid_map"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!dir.root().exists(), "a store was made");
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let error = as_nobody(&own.join("store"), &["images"]);
    assert!(error.contains("Permission denied") && error.contains("--root and --runroot"), "{error}");
}

/// A filesystem that shares nothing says so once, and the image is there.
#[test]
fn a_load_that_can_share_nothing_says_so() {
    let dir = Dir::new("settings-dedup");
    let written = super::image().write(dir.join("base.oci"), super::TAG);
    let output = dir.layerstore(["load", &written.reference(), "--dedup"]).output();
    assert!(output.status.success(), "{output:?}");
    let shares = dir.layerstore(["dedup"]).output().status.success();
    let said = String::from_utf8(output.stderr).unwrap();
    let noted = said.matches("--dedup has shared nothing: files on ").count();
    assert_eq!(noted, usize::from(!shares), "{said}");
}

/// By the flag and by the table of a file; the flag counts more.
#[test]
fn limits_are_set_by_flag_and_file() {
    let dir = Dir::new("settings-limits-of-archives");
    let members = ["a", "b", "c"].map(|name| Member::file(name, name));
    dir.write("three.tar", archive(&members));
    let file =
        |text: &str| dir.write("storage.conf", format!("[storage.options.layerstore.limits]\n{text}\n"));
    let put = |flags: &[&str]| dir.layerstore(["put-layer", "--file", "three.tar"]).args(flags);

    let error = put(&["--limit", "entries=2"]).assert_exit(1);
    assert!(
        error.contains("the limit entries: 3 members and implied directories were met, and 2 are granted"),
        "{error}"
    );
    assert!(error.contains("hint: ") && error.contains("`--limit entries=4`"), "{error}");
    let error = put(&["--limit", "unpacked_bytes=1KiB", "--limit", "entries=3"]).assert_exit(1);
    assert!(
        error.contains("three.tar goes beyond the limit unpacked_bytes") && error.contains("1024"),
        "{error}"
    );
    // A member is quoted, as in all that is said of it.
    dir.write("long.tar", archive(&[Member::file("a\nlong name", "x")]));
    let error = dir.layerstore(["put-layer", "--file", "long.tar", "--limit", "path_bytes=3"]).assert_exit(1);
    assert!(error.contains(r#""a\nlong name" goes beyond the limit path_bytes: 11 bytes"#), "{error}");
    let config = file("entries = 2").display().to_string();
    assert!(put(&["--config", &config]).assert_exit(1).contains("the limit entries"));
    assert_eq!(dir.layerstore(["layers", "--quiet"]).stdout(), "");
    put(&["--config", &config, "--limit", "entries=3"]).assert_success();

    let config = file("entries = 7\nunpacked_bytes = '10GiB'\npath_bytes = '16k'").display().to_string();
    let shown = dir.layerstore(["config", "--json", "--config", &config]).json();
    let limits = serde_json::json!({ "entries": 7, "unpacked_bytes": 10_u64 << 30 });
    assert_eq!(shown["limits"]["value"], limits, "only what is not the default");
    assert!(shown["limits"]["from"].as_str().unwrap().contains("storage.conf:1"), "{shown}");
    let shown = dir.layerstore(["config", "--json", "--config", &config, "--limit", "entries=8"]).json();
    assert_eq!(shown["limits"]["value"]["entries"], 8);
    assert_eq!(shown["limits"]["each"]["entries"], "--limit");
    let status = dir.layerstore(["status", "--limit", "entries=8"]).stdout();
    assert!(status.contains("entries=8"), "{status}");
    let status = dir.layerstore(["status"]).stdout();
    assert!(status.contains("the defaults"), "{status}");
}

#[test]
fn limits_that_there_are_not_are_refused_with_those_there_are() {
    let dir = Dir::new("settings-no-limits");
    for (text, told) in [
        ("entires=3", "there is no such limit; there are entries, path_bytes"),
        ("entries", "NAME=VALUE"),
        ("entries=1k", "without a unit"),
        ("all_path_bytes=3GiB", "no more than 2GiB can be granted"),
        ("unpacked_bytes=much", "a size such as"),
    ] {
        let error = dir.layerstore(["config", "--limit", text]).assert_exit(2);
        assert!(error.contains(told), "{text}: {error}");
        let Some((name, value)) = text.split_once('=') else { continue };
        let text = format!("[storage.options.layerstore]\nlimits = {{ {name} = '{value}' }}\n");
        let file = dir.write("storage.conf", text);
        let error = dir.layerstore(["config"]).arg("--config").arg(file).assert_exit(2);
        assert!(error.contains(told) && error.contains("storage.conf:2"), "{error}");
    }
}
