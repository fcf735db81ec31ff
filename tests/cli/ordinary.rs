//! Every kind of command as an ordinary user types it. The other tests that run as such a user say `--no-unshare`, as they read what the
//! program writes with the library, in their own process.

use std::os::unix::fs::PermissionsExt;

use crate::support::oci::{Image, Layer};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, command, machine};

#[test]
fn every_kind_of_command_works_where_it_puts_itself() {
    if machine::is_root()
        && let Some(obstacle) = machine::no_other_user()
    {
        skip!("{obstacle}");
    }
    let dir = Dir::new("ordinary-commands");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let layer = Layer::new([Member::directory("etc"), Member::file("etc/one", "1")]);
    let reference = Image::new([layer]).write(dir.join("layout"), "image").reference();
    dir.write("one.tar", archive(&[Member::file("one", "1")]));
    if machine::is_root() {
        command::copy_binary(&dir.join("layerstore"));
    }
    let layerstore = |words: &[&str]| {
        let program = match machine::is_root() {
            true => TestCommand::new("setpriv")
                .args(["--reuid=54321", "--regid=54321", "--clear-groups", "--"])
                .arg(dir.join("layerstore")),
            false => TestCommand::layerstore(),
        };
        let roots = ["--root".into(), dir.root(), "--runroot".into(), dir.run_root()];
        program.args(roots).args(words).env("HOME", dir.path()).current_dir(dir.path())
    };
    for words in [
        &["load", &reference, "--name", "image"][..],
        &["create-container", "image", "--name", "web"],
        &["put-layer", "--file", "one.tar", "--name", "tar"],
        &["create-layer", "tar", "--name", "own"],
        &["apply", "own", "--file", "one.tar"],
        &["create-layer", "tar", "--name", "written"],
        &["seal", "written"],
        &["create-image", "tar", "--name", "made"],
        &["names", "web", "--add", "more"],
        &["names", "web"],
        &["item", "put", "web", "key", "one.tar"],
        &["item", "get", "web", "key", "-o", "item"],
        &["images"],
        &["layers"],
        &["containers"],
        &["containers", "--size"],
        &["inspect", "web"],
        &["du"],
        &["status"],
        &["events"],
        &["changes", "web"],
        &["diff", "web", "-o", "web.tar"],
        &["commit", "web", "--name", "next"],
        &["save", "next", "oci:saved"],
        &["check", "--deep"],
        &["repair"],
        &["sync"],
        &["prune", "--blobs"],
        &["compact"],
        &["backup", "backup.redb"],
        &["gc"],
        &["rm", "web"],
        &["rmi", "next"],
        &["rm", "--layer", "own"],
    ] {
        layerstore(words).assert_success();
    }
    assert_eq!(std::fs::read(dir.join("item")).unwrap(), std::fs::read(dir.join("one.tar")).unwrap());
    let left = layerstore(&["-q", "images"]).stdout().lines().count();
    assert_eq!(left, 2, "image and made");
    layerstore(&["wipe", "--force"]).assert_success();
    assert_eq!(std::fs::read_dir(dir.root().join("diffs")).unwrap().count(), 0);
}
