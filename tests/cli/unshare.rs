//! User namespaces, and mounts in other mount namespaces.

use super::load_base;
use crate::support::{Dir, TestCommand, machine};

/// Whether this machine lets this user make user namespaces.
fn can_unshare() -> bool {
    TestCommand::layerstore().args(["-q", "unshare", "true"]).output().status.success()
}

#[test]
fn command_runs_as_root_and_finds_the_store() {
    if !can_unshare() {
        skip!("this machine lets nobody make user namespaces");
    }
    let dir = Dir::new("unshare");
    assert_eq!(dir.layerstore(["-q", "unshare", "id", "-u"]).stdout(), "0\n");
    let roots =
        dir.layerstore(["-q", "unshare", "sh", "-c", "echo $LAYERSTORE_ROOT $LAYERSTORE_RUNROOT"]).stdout();
    assert_eq!(roots.trim(), format!("{} {}", dir.root().display(), dir.run_root().display()));
    let status = dir.layerstore(["-q", "unshare", "sh", "-c", "exit 7"]).output().status;
    assert_eq!(status.code(), Some(7), "the command's own status");
    dir.layerstore(["-q", "unshare", "/etc/passwd"]).assert_exit(126);
    let error = dir.layerstore(["-q", "unshare", "/nowhere/program"]).assert_exit(127);
    assert!(error.contains("cannot run \"/nowhere/program\""), "{error}");
}

#[test]
fn ordinary_user_is_told_to_unshare() {
    if !machine::is_real_root() || !machine::has_program("setpriv") {
        skip!("becoming another user needs real root and setpriv");
    }
    let dir = Dir::new("ordinary");
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), everyone).unwrap();
    let written = super::image().write(dir.join("base.oci"), super::TAG);
    let program = dir.join("layerstore");
    crate::support::command::copy_binary(&program);
    let as_nobody = |arguments: &[&str]| {
        TestCommand::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&program)
            .arg("--root")
            .arg(dir.root())
            .arg("--runroot")
            .arg(dir.run_root())
            .args(arguments)
    };
    as_nobody(&["load", &written.reference(), "--name", "base"]).assert_success();
    let error = as_nobody(&["mount", "base"]).assert_exit(1);
    assert!(error.contains("not root") && error.contains("layerstore unshare"), "{error}");
    assert_eq!(dir.mounts(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn store_of_the_machines_root_is_named_as_such() {
    let namespace = || TestCommand::new("unshare").args(["--user", "--map-root-user"]);
    if !machine::is_real_root() || !namespace().arg("true").output().status.success() {
        skip!("a store of the machine's root needs real root, and a namespace without it needs unshare");
    }
    let dir = Dir::new("needs-root");
    load_base(&dir);
    let program = crate::support::command::binary();
    let error = namespace().arg(program).arg("--root").arg(dir.root()).arg("images").assert_exit(1);
    assert!(error.contains("machine's root") && error.contains("another root directory"), "{error}");
}

/// A long command would keep what is unmounted meanwhile, and one that waits would not know what is mounted.
#[test]
fn mounts_of_the_outside_come_and_go_and_none_gets_out() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("unshare-mounts");
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    crate::support::command::copy_binary(&dir.join("layerstore"));
    let script = r#"
        shared="$1/shared"; cd "$1"; mkdir "$shared"
        mount -t tmpfs -o mode=0777 shared "$shared"; mount --make-shared "$shared"
        mkdir "$shared/before" "$shared/after" "$shared/inside"; mkfifo -m 666 "$shared/ready" "$shared/go"
        mount -t tmpfs before "$shared/before"
        setpriv --reuid=54321 --regid=54321 --clear-groups -- "$1/layerstore" -q unshare sh -euc '
            cd "$0"; mount -t tmpfs inside inside
            echo > ready; timeout 60 sh -c "read -r _ < go" || true
            grep -o "shared/[a-z]* " /proc/self/mountinfo
        ' "$shared" &
        timeout 60 sh -c 'read -r _ < "$0"' "$shared/ready" || true
        if grep "$shared/inside" /proc/self/mountinfo; then echo "a mount got out"; fi
        umount "$shared/before"; mount -t tmpfs after "$shared/after"
        timeout 60 sh -c 'echo > "$0"' "$shared/go"; wait $!
    "#;
    let unshare = TestCommand::new("unshare").args(["--mount", "sh", "-euc", script, "sh"]).arg(dir.path());
    let told = unshare.env("HOME", dir.path()).stdout();
    let mut seen: Vec<_> = told.lines().map(str::trim).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["shared/after", "shared/inside"]);
}

/// A store with the containers `web` and `ro` and the layer `below`, which gets a child, all mounted in a mount namespace of its
/// own, `ro` for reading, while `script` runs, with the command line as `$@`. Returns what the script prints; and after it,
/// what is found in the mounts for writing, whether the third is there, and whether its path unmounts it.
fn while_mounted_elsewhere(dir: &Dir, script: &str) -> (String, String) {
    load_base(dir);
    for name in ["web", "ro"] {
        dir.layerstore(["create-container", "base", "--name", name]).assert_success();
    }
    dir.layerstore(["create-layer", "--name", "below"]).assert_success();
    let whole = r#"
        cd "$1"; script=$2; shift 2; mkfifo ready go; exec 3<> ready 4<> go
        unshare --mount sh -uc '
            for one in web below; do
                "$@" mount -o volatile $one > at-$one && echo kept > "$(cat at-$one)/written"
            done
            "$@" mount --read-only ro > at-ro
            echo >&3; timeout 60 sh -c "read -r _ <&4"
            for one in web below; do cat "$(cat at-$one)/written" || true; done
            grep -c " $(cat at-ro) " /proc/self/mountinfo || true
            "$@" unmount "$(cat at-ro)" 2> /dev/null && echo unmounted || true
        ' sh "$@" > there 2>&1 &
        timeout 60 sh -c "read -r _ <&3"
        "$@" create-layer below --name child > /dev/null; eval "$script"
        echo >&4; wait $!
    "#;
    let told = TestCommand::bare("sh")
        .args(["-uc", whole, "sh"])
        .arg(dir.path())
        .arg(script)
        .arg(crate::support::command::binary())
        .arg("-q")
        .arg("--root")
        .arg(dir.root())
        .arg("--runroot")
        .arg(dir.run_root())
        .stdout();
    (told, std::fs::read_to_string(dir.join("there")).unwrap())
}

fn mounts_of_other_namespaces_are_seen() -> bool {
    super::can_mount()
        && machine::has_program("unshare")
        && TestCommand::new("unshare").args(["--mount", "true"]).output().status.success()
}

/// Mount tables are of one namespace each, and nobody may lose what is being written.
#[test]
fn what_another_namespace_writes_to_stays() {
    if !mounts_of_other_namespaces_are_seen() {
        skip!("this process makes no mounts, or no mount namespaces");
    }
    let dir = Dir::new("written-elsewhere");
    let script = r#"
        for command in "rm web" "mount web" "seal below" "wipe --force" "rm --layer --force below"; do
            "$@" $command > /dev/null 2>> refused && echo "done: $command"
        done
        "$@" mount --read-only web > at; "$@" unmount web
        "$@" names web
    "#;
    let (told, there) = while_mounted_elsewhere(&dir, script);
    assert_eq!((told.as_str(), there.as_str()), ("web\n", "kept\nkept\n1\nunmounted\n"));
    let refused = std::fs::read_to_string(dir.join("refused")).unwrap();
    let errors: Vec<_> = refused.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 5, "{refused}");
    let (last, others) = errors.split_last().unwrap();
    assert!(others.iter().all(|error| error.contains("another `layerstore unshare`")), "{refused}");
    assert!(others[..2].iter().all(|error| error.contains("the container web")), "{refused}");
    assert!(last.contains("has a layer above it"), "{refused}");
    // Who wanted to write to it is not told how to remove it.
    assert_eq!(refused.matches("--force").count(), 1, "{refused}");
    // There is nothing left of that namespace.
    dir.layerstore(["rm", "web"]).assert_success();
}

#[test]
fn what_another_namespace_writes_to_goes_by_force() {
    if !mounts_of_other_namespaces_are_seen() {
        skip!("this process makes no mounts, or no mount namespaces");
    }
    let dir = Dir::new("forced-elsewhere");
    let script = r#"
        "$@" rm --force web ro > /dev/null && "$@" rm --layer child > /dev/null
        ls "$6/mnt" | wc -l
        "$1" compat --graph "$4" --run "$6" wipe
        "$@" layers; "$@" containers; ls "$6/mnt"
    "#;
    let (told, there) = while_mounted_elsewhere(&dir, script);
    // That of the layer below.
    assert_eq!(told, "1\n");
    assert!(!there.contains("kept") && there.ends_with("\n0\n"), "{there}");
}

/// Whether somebody writes there can be asked with a few files open, and who may not open them does not know.
#[test]
fn what_another_namespace_writes_to_stays_where_nobody_can_look() {
    if !mounts_of_other_namespaces_are_seen() {
        skip!("this process makes no mounts, or no mount namespaces");
    }
    let dir = Dir::new("few-files-elsewhere");
    let script = r#"
        for files in $(seq 5 40); do
            (ulimit -n $files; "$@" rm web > /dev/null 2>> refused) && echo "done: $files"
        done
        "$@" names web
    "#;
    let (told, there) = while_mounted_elsewhere(&dir, script);
    assert_eq!((told.as_str(), there.as_str()), ("web\n", "kept\nkept\n1\nunmounted\n"));
    let refused = std::fs::read_to_string(dir.join("refused")).unwrap();
    assert!(refused.contains("another `layerstore unshare`") && refused.contains("open files"), "{refused}");
}

/// Mounts for reading are not seen, and their paths tell their layers.
#[test]
fn a_mount_is_ended_by_its_path_when_its_layer_is_gone() {
    if !mounts_of_other_namespaces_are_seen() {
        skip!("this process makes no mounts, or no mount namespaces");
    }
    let dir = Dir::new("path-of-the-gone");
    let (told, there) = while_mounted_elsewhere(&dir, r#""$@" rm ro > /dev/null && echo removed"#);
    assert_eq!((told.as_str(), there.as_str()), ("removed\n", "kept\nkept\n1\nunmounted\n"));
}

/// One that was killed, and a mount that was taken away by hand.
#[test]
fn mount_points_that_are_left_are_in_nobodys_way() {
    if !super::can_mount() {
        skip!("this process makes no mounts");
    }
    let dir = Dir::new("left-mount-points");
    load_base(&dir);
    for by_hand in [false, true] {
        dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
        let mount_point = dir.layerstore(["mount", "web"]).stdout_path();
        if by_hand {
            machine::unmount(&mount_point);
        } else {
            dir.layerstore(["unmount", "web"]).assert_success();
            std::fs::create_dir(&mount_point).unwrap();
        }
        dir.layerstore(["rm", "web"]).assert_success();
    }
}
