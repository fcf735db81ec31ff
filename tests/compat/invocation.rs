//! Flags, arguments, messages and exit statuses.

use crate::support::transcript::Session;
use crate::support::{Dir, TestCommand, machine};

fn session(dir: &Dir) -> Session {
    Session::layerstore(dir)
}

#[test]
fn wrong_words_have_their_messages_and_statuses() {
    let dir = Dir::new("compat-words");
    session(&dir).expect(
        r#"
$ nosuch
nosuch: unrecognized command.
= 1
$ ''
: unrecognized command.
= 1
$ images --nope
! flag provided but not defined: --nope
! See 'containers-storage images --help'.
= 125
$ images -quiet
! flag provided but not defined: -quiet
! See 'containers-storage images --help'.
= 125
$ images --quiet=maybe
! invalid boolean value "maybe" for  --quiet: strconv.ParseBool: parsing "maybe": invalid syntax
! See 'containers-storage images --help'.
= 125
$ add-names -n
! flag needs an argument: -n
! See 'containers-storage add-names --help'.
= 125
"#,
    );
}

#[test]
fn numbers_of_arguments_are_checked_before_the_store() {
    let dir = Dir::new("compat-arguments");
    let first_line = |words: &[&str]| {
        let mut command = session(&dir).command(words.iter().map(|word| (*word).to_owned()));
        let output = command.output();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(first_line(&["exists", "-q"]), "exists: more arguments required.");
    assert_eq!(first_line(&["images", "a", "b"]), "images: too many arguments ([a b]).");
    assert_eq!(
        first_line(&["create-container", "img", "-j"]),
        "create-container: too many arguments ([img -j])."
    );
    assert!(!dir.root().exists(), "no store is made for a command that is not run");
}

#[test]
fn usage_has_a_status_of_its_own() {
    let dir = Dir::new("compat-usage");
    let run = |words: &[&str], code| {
        let mut command = session(&dir).command(words.iter().map(|word| (*word).to_owned()));
        let output = command.output();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap())
    };
    for (words, code) in [(&["--help"][..], 0), (&["-h"], 0), (&[], 1)] {
        let [summary, errors] = run(words, code);
        assert!(summary.contains("create-container") && summary.contains("unmount"), "{summary}");
        assert!(summary.contains("\nOptions:\n\n  --debug") && errors.is_empty(), "{summary}{errors}");
    }
    for words in [&["images", "--help"], &["images", "-h"], &["images", "-help"]] {
        let [summary, flags] = run(words, 125);
        assert!(
            summary.contains("containers-storage images")
                && flags.starts_with("Options:\n\n")
                && flags.contains("--quiet, -q"),
            "{summary}{flags}"
        );
    }
    let [text, errors] = run(&["-x", "images"], 1);
    assert!(
        errors.starts_with("flag provided but not defined: -x\nSee 'containers-storage --help'.\n"),
        "{errors}"
    );
    assert!(text.contains("flag provided but not defined: -x while parsing arguments (1)"), "{text}");
}

#[test]
fn global_flags_stand_before_and_behind_the_command() {
    let dir = Dir::new("compat-global");
    let other = dir.join("other");
    let store = |root: &std::path::Path| format!("--graph={}", root.display());
    let run = format!("--run={}", dir.run_root().display());
    let program = || TestCommand::layerstore().arg("compat");
    program().args([&store(&dir.root()), &run, "create-container", "-i", "c", ""]).assert_success();
    let listed = program().args(["containers", &store(&dir.root()), &run]).stdout();
    assert_eq!(listed, "c\n");
    let run = format!("--run={}", dir.join("other-run").display());
    let listed = program().args([&store(&dir.root()), "containers", &store(&other), &run]).stdout();
    assert_eq!(listed, "", "the later flag wins");
    let listed = program().args(["-g", "root", "-R", "run", "status", "-j"]).current_dir(dir.path()).stdout();
    assert!(listed.contains(&format!("[\"Root\",\"{}\"]", dir.root().display())), "{listed}");
}

#[test]
fn stores_that_cannot_be_opened_are_told_on_standard_output() {
    let dir = Dir::new("compat-open");
    let program =
        |words: &[&str]| TestCommand::layerstore().arg("compat").args(words).current_dir(dir.path()).output();
    let told = |words: &[&str]| {
        let output = program(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        told(&["-s", "overlay", "images"]),
        "error initializing: no storage runroot or graphroot specified: missing necessary StoreOptions\n"
    );
    let place = ["-g", "g", "-R", "r"];
    assert_eq!(
        told(&[&place[..], &["--storage-opt", "x", "images"]].concat()),
        "error initializing: unable to parse key/value option: x\n"
    );
    assert_eq!(
        told(&[&place[..], &["--storage-opt", "overlay.nosuch=1", "images"]].concat()),
        "error initializing: unknown option \"nosuch\" (\"overlay.nosuch=1\")\n"
    );
    assert!(told(&[&place[..], &["-s", "nosuch", "images"]].concat()).ends_with(": driver not supported\n"));
    let of_another = program(&[&place[..], &["--storage-opt", "vfs.nosuch=1", "images"]].concat());
    assert!(of_another.status.success());
    dir.write("full/file", "");
    assert!(told(&["-g", "full", "-R", "r", "images"]).starts_with("error initializing: "));
}

#[test]
fn configuration_says_what_flags_do_not() {
    let dir = Dir::new("compat-configuration");
    let text = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n[storage.options.overlay]\nmountopt = \"nodev\"\n",
        dir.root().display(),
        dir.run_root().display()
    );
    let file = dir.write("storage.conf", text);
    let program = |words: &[&str]| {
        TestCommand::layerstore().arg("compat").args(words).env("CONTAINERS_STORAGE_CONF", &file)
    };
    let status = program(&["status", "-j"]).stdout();
    for pair in [
        format!("[\"Root\",\"{}\"]", dir.root().display()),
        format!("[\"Run Root\",\"{}\"]", dir.run_root().display()),
        "[\"Driver Name\",\"overlay\"]".to_owned(),
        "[\"Driver Options\",\"[overlay.mountopt=nodev]\"]".to_owned(),
    ] {
        assert!(status.contains(&pair), "{status}");
    }
    let config = program(&["config"]).stdout();
    assert_eq!(
        config,
        format!(
            "{{\"runroot\":\"{}\",\"root\":\"{}\",\"driver\":\"overlay\",\"driver-options\":[\"overlay.mountopt=nodev\"],\"PullOptions\":null}}\n",
            dir.run_root().display(),
            dir.root().display()
        )
    );
    let opts = program(&["status", "-j"]).env("STORAGE_OPTS", "overlay.mountopt=noexec").stdout();
    assert!(opts.contains("[overlay.mountopt=noexec]"), "{opts}");
    let refused = program(&["status"]).env("STORAGE_DRIVER", "zfs").output();
    assert_eq!(refused.status.code(), Some(1));
    // Where one of the flags is given, the configured options are not used.
    let one =
        program(&["-g"]).arg(dir.join("other")).args(["status", "-j"]).env("STORAGE_DRIVER", "zfs").stdout();
    assert!(one.contains("[\"Driver Options\",\"[]\"]"), "{one}");
    let missing =
        TestCommand::layerstore().args(["compat", "images"]).env("CONTAINERS_STORAGE_CONF", "/none");
    assert_eq!({ missing }.output().status.code(), Some(1));
}

#[test]
fn stores_that_are_named_alone_have_run_roots_of_their_own() {
    let dir = Dir::new("compat-run-roots");
    let (root, run_root) = (dir.root(), dir.run_root());
    let text = format!("[storage]\ngraphroot = {root:?}\nrunroot = {run_root:?}\n");
    let conf = dir.write("storage.conf", text);
    let told = |words: &[&str]| {
        let program = TestCommand::layerstore().arg("compat").args(words).current_dir(dir.path());
        program.env("CONTAINERS_STORAGE_CONF", &conf).stdout()
    };
    let run_root_of = |graph: &str| {
        let status = told(&["-g", graph, "status", "-j"]);
        let pairs: Vec<[String; 2]> = serde_json::from_str(&status).unwrap();
        std::path::PathBuf::from(&pairs.iter().find(|[name, _]| name == "Run Root").unwrap()[1])
    };
    for graph in ["one", "two"] {
        told(&["-g", graph, "create-container", "-i", "c", ""]);
        assert_eq!(run_root_of(graph).parent(), Some(&*run_root));
    }
    assert_ne!(run_root_of("one"), run_root_of("two"));
    std::os::unix::fs::symlink("one", dir.join("link")).unwrap();
    assert_eq!(run_root_of("link"), run_root_of("one"), "a store has one run root, by whatever path");
    assert_eq!(run_root_of("root"), run_root, "that of the configuration");
    if machine::is_root() {
        let mounted: Vec<_> = ["one", "two"].iter().map(|graph| told(&["-g", graph, "mount", "c"])).collect();
        assert!(mounted[0] != mounted[1] && dir.mounts().len() == 2, "{mounted:?}");
    }
    for graph in ["one", "two"] {
        assert_eq!(told(&["-g", graph, "unmount", "c"]), "c mountpoint unmounted\n");
        assert_eq!(told(&["-g", graph, "gc"]), "");
    }
}

#[test]
fn a_store_of_containers_storage_is_told_and_left_alone() {
    let dir = Dir::new("compat-other-program");
    dir.write("root/overlay-layers/layers.json", "[]");
    dir.write("root/storage.lock", "");
    let told = format!(
        "{:?} is a store of containers-storage (podman, buildah, skopeo); layerstore has stores of its own: choose an \
         empty or a new directory",
        dir.root()
    );
    let output = session(&dir).command(["images".to_owned()]).output();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("error initializing: {told}\n"));
    let error = dir.layerstore(["create-layer"]).assert_failure();
    assert!(error.contains(&told), "{error}");
    assert_eq!(std::fs::read_dir(dir.root()).unwrap().count(), 2, "nothing is made");
}

#[test]
fn debug_lines_say_where_the_store_is() {
    let dir = Dir::new("compat-debug");
    session(&dir).expect(
        r#"
$ -D containers
! time="TIME" level=debug msg="Root: ROOT"
! time="TIME" level=debug msg="Run Root: RUN"
! time="TIME" level=debug msg="Driver Name: overlay"
! time="TIME" level=debug msg="Driver Options: []"
$ --debug --storage-opt overlay.mountopt=nodev containers --debug=false
"#,
    );
}

#[test]
fn version_and_status_go_to_standard_error() {
    let dir = Dir::new("compat-status");
    let mut session = session(&dir);
    let version = env!("CARGO_PKG_VERSION");
    session
        .expect(&format!("$ version\n! Version: {version}\n$ version -j\n[[\"Version\",\"{version}\"]]\n"));
    let told = session.run("--storage-opt overlay.mountopt=nodev,noexec status");
    for line in [
        "! Root: ROOT",
        "! Run Root: RUN",
        "! Driver Name: overlay",
        "! Driver Options: [overlay.mountopt=nodev,noexec]",
        "! Supports d_type: true",
        "! Native Overlay Diff: true",
    ] {
        assert!(told.lines().any(|told| told == line), "{line}\n{told}");
    }
    // With a program for the mounts that is not so, whether it works or not.
    let told = session.run("--storage-opt mount_program=/bin/true status");
    assert!(told.lines().any(|told| told == "! Native Overlay Diff: false"), "{told}");
}

#[test]
fn compat_is_the_first_word() {
    let error = TestCommand::layerstore().args(["--json", "compat", "images"]).assert_exit(2);
    assert!(error.contains("compat is the first word"), "{error}");
}

#[test]
fn unshare_runs_a_command_as_root() {
    let probe = TestCommand::layerstore().args(["-q", "unshare", "true"]).output();
    if !probe.status.success() {
        skip!("this machine lets nobody make user namespaces");
    }
    let program = || TestCommand::layerstore().args(["compat", "unshare"]);
    assert_eq!(program().args(["id", "-u"]).stdout(), "0\n");
    assert_eq!(program().args(["--", "sh", "-c", "exit 5"]).assert_exit(1), "exit status 5\n");
    assert!(program().arg("/nowhere/program").assert_exit(1).contains("no such file or directory"));
    assert_eq!(program().env("SHELL", "/bin/true").stdout(), "");
}
