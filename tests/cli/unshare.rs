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
    std::fs::copy(crate::support::command::binary(), &program).unwrap();
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
