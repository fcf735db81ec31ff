//! User namespaces.

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
    let error = dir.layerstore(["-q", "unshare", "/nowhere/program"]).assert_exit(1);
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
            echo > ready; read -r _ < go || true
            grep -o "shared/[a-z]* " /proc/self/mountinfo
        ' "$shared" &
        read -r _ < "$shared/ready" || true
        if grep "$shared/inside" /proc/self/mountinfo; then echo "a mount got out"; fi
        umount "$shared/before"; mount -t tmpfs after "$shared/after"
        echo > "$shared/go"; wait $!
    "#;
    let told =
        TestCommand::new("unshare").args(["--mount", "sh", "-euc", script, "sh"]).arg(dir.path()).stdout();
    let mut seen: Vec<_> = told.lines().map(str::trim).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["shared/after", "shared/inside"]);
}
