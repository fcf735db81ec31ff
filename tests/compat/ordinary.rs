//! Users who are not root: the program enters a user namespace by itself.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Dir, TestCommand, machine};

/// A user of this machine, who is not root, and a place to write.
struct User {
    dir: Dir,
    uid: u32,
    gid: u32,
}

/// Nobody has ranges of ids.
const NOBODY: u32 = 65534;

impl User {
    fn new(name: &str, uid: u32, gid: u32) -> Self {
        let dir = Dir::new(name);
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        crate::support::command::copy_binary(&dir.join("containers-storage"));
        dir.write("storage.conf", "[storage]\ndriver = \"overlay\"\n");
        User { dir, uid, gid }
    }

    fn program(&self) -> PathBuf {
        self.dir.join("containers-storage")
    }

    fn flags(&self) -> [String; 2] {
        [("graph", self.dir.root()), ("run", self.dir.run_root())]
            .map(|(flag, path)| format!("--{flag}={}", path.display()))
    }

    fn become_this(&self) -> TestCommand {
        TestCommand::new("setpriv")
            .args([format!("--reuid={}", self.uid), format!("--regid={}", self.gid)])
            .args(["--clear-groups", "--"])
            .env("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf"))
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
    }

    fn command(&self, words: &[&str]) -> TestCommand {
        self.become_this().arg(self.program()).args(self.flags()).args(words)
    }

    fn told(&self, words: &[&str]) -> String {
        self.command(words).stdout()
    }

    /// Runs a script in a namespace, with the program as `$CS`.
    fn in_namespace(&self, script: &str) -> TestCommand {
        let program = format!("{} {}", self.program().display(), self.flags().join(" "));
        self.command(&["unshare", "sh", "-euc", script]).env("CS", program)
    }
}

#[test]
fn commands_enter_a_namespace_by_themselves() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("compat-nobody", NOBODY, NOBODY);
    assert_eq!(user.told(&["create-layer", "-i", "base", "-n", "first"]), "base\n\tfirst\n");
    let file = user.dir.write("file", "text");
    std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    assert_eq!(user.told(&["copy", "file", "base:/d/f"]), "", "a mount in the namespace of one command");
    assert_eq!(user.told(&["changes", "base"]), "Add \"/d\"\nAdd \"/d/f\"\n");
    assert_eq!(user.told(&["create-image", "-i", "img", "base"]), "img\n");
    assert_eq!(user.told(&["create-container", "-i", "ctr", "img"]), "ctr\n");
    // The mount ends with its process.
    assert_eq!(user.told(&["mount", "ctr"]).lines().count(), 1);
    assert_eq!(user.told(&["mounted", "ctr"]), "");
    assert!(user.dir.mounts().is_empty());
    let script = "path=$($CS mount ctr); test \"$($CS mounted ctr)\" = 'ctr mounted'; cat \"$path/d/f\"; \
                  echo new > \"$path/new\"; $CS unmount ctr";
    assert_eq!(user.in_namespace(script).stdout(), "textctr mountpoint unmounted\n");
    assert!(user.told(&["container", "ctr"]).contains("Size: 4\n"));
    assert_eq!(user.told(&["--unshare=false", "containers"]), "ctr\n");
    user.command(&["check"]).assert_success();
    user.command(&["delete-container", "ctr"]).assert_success();
    assert_eq!(user.command(&["delete-image", "img"]).assert_exit(0), "img: base\n");
    user.command(&["wipe"]).assert_success();
    assert_eq!(user.told(&["layers", "-j"]), "null\n");
}

#[test]
fn stores_of_users_are_in_their_homes() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("compat-home", NOBODY, NOBODY);
    let runtime = user.dir.create_dir("runtime");
    std::os::unix::fs::chown(&runtime, Some(NOBODY), Some(NOBODY)).unwrap();
    // Whatever this machine has in /etc and /usr/share, which is root's.
    let mut command = TestCommand::new("setpriv")
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
        .args(["--clear-groups", "--"])
        .arg(user.program())
        .args(["status", "-j"])
        .env("HOME", user.dir.path())
        .env("XDG_RUNTIME_DIR", &runtime)
        .current_dir(user.dir.path());
    let status = command.stdout();
    let home = user.dir.join(".local/share/containers/storage");
    assert!(status.contains(&format!("[\"Root\",{home:?}]")), "{status}");
    assert!(status.contains(&format!("[\"Run Root\",{:?}]", runtime.join("containers"))), "{status}");
}

/// All that is written belongs to others then than at other times.
#[test]
fn ranges_that_cannot_be_mapped_are_told() {
    let (uid, gid, _) = match machine::other_user_with_ranges() {
        Ok(user) => user,
        Err(obstacle) => skip!("{obstacle}"),
    };
    let user = User::new("compat-not-mapped", uid, gid);
    for words in [&["create-layer"][..], &["unshare", "true"]] {
        // The programs that map them get no rights.
        let mut command = TestCommand::new("setpriv")
            .args([format!("--reuid={uid}"), format!("--regid={gid}")])
            .args(["--clear-groups", "--no-new-privs", "--"])
            .arg(user.program())
            .args(user.flags())
            .args(words)
            .env("CONTAINERS_STORAGE_CONF", user.dir.join("storage.conf"))
            .env("HOME", user.dir.path());
        let ran = command.output();
        let told = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.success(), "{told}");
        assert!(told.contains("level=warning") && told.contains("newgidmap failed"), "{words:?}: {told}");
    }
}

/// Everybody can know the name, and make it.
#[test]
fn a_run_directory_for_everybody_is_made_when_it_is_used() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("compat-shared-run", OTHER, OTHER);
    std::fs::set_permissions(user.dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let shared = user.dir.join(format!("storage-run-{OTHER}"));
    let homeless = |words: &[&str]| {
        user.become_this()
            .arg(user.program())
            .args(words)
            .env("HOME", "")
            .env("XDG_RUNTIME_DIR", "")
            .env("XDG_DATA_HOME", user.dir.join("data"))
            .env("TMPDIR", user.dir.path())
            .env("CONTAINERS_STORAGE_CONF", user.dir.join("storage.conf"))
    };
    for words in [&["--help"][..], &["unshare", "true"]] {
        homeless(words).assert_success();
        assert!(!shared.exists(), "{words:?}");
    }
    let give = |to| std::os::unix::fs::chown(&shared, Some(to), Some(to)).unwrap();
    std::fs::create_dir(&shared).unwrap();
    give(OTHER - 1);
    let refused = homeless(&["create-layer"]).output();
    let told = String::from_utf8([refused.stdout, refused.stderr].concat()).unwrap();
    assert!(!refused.status.success());
    assert!(told.contains(shared.to_str().unwrap()) && told.contains("set XDG_RUNTIME_DIR"), "{told}");
    assert!(!user.dir.join("data").exists() && std::fs::read_dir(&shared).unwrap().next().is_none());
    std::fs::remove_dir(&shared).unwrap();
    homeless(&["create-layer", "-i", "base"]).assert_success();
    homeless(&["unshare", user.program().to_str().unwrap(), "mount", "base"]).assert_success();
    assert_eq!(std::fs::metadata(&shared).unwrap().permissions().mode() & 0o7777, 0o700);
}

/// Has no ranges of ids, either.
const OTHER: u32 = 54321;

/// Inside, all who have no id are shown as one, and the machine's root is among them.
#[test]
fn what_another_user_prepared_is_not_trusted_inside() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("compat-prepared", OTHER, OTHER);
    // In which nobody takes another's names away.
    std::fs::set_permissions(user.dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let told = |words: &[&str]| {
        let output = user.command(words).output();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(OTHER - 1), Some(OTHER - 1)).unwrap();
    user.command(&["create-layer", "-i", "base"]).assert_success();
    let ran = user.dir.join("ran");
    let program = user.dir.write("theirs/program", format!("#!/bin/sh\n: > '{}'\nexit 1\n", ran.display()));
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    give(&program);
    let option = format!("--storage-opt=overlay.mount_program={}", program.display());
    let error = told(&[&option, "mount", "base"]);
    assert!(!ran.exists());
    assert!(error.contains(&format!("{} belongs to user {}", program.display(), OTHER - 1)), "{error}");

    // The other user keeps it, and lets this one write in it.
    let theirs = user.dir.create_dir("prepared");
    std::fs::set_permissions(&theirs, PermissionsExt::from_mode(0o770)).unwrap();
    let entry =
        |tag: u8, permissions: u8, id: u32| [&[tag, 0, permissions, 0], &id.to_le_bytes()[..]].concat();
    let none = u32::MAX;
    let entries = [
        entry(1, 7, none),
        entry(2, 7, OTHER),
        entry(4, 0, none),
        entry(0x10, 7, none),
        entry(0x20, 0, none),
    ];
    let list = [&[2, 0, 0, 0][..], &entries.concat()].concat();
    match rustix::fs::setxattr(&theirs, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => skip!("the filesystem has no access lists"),
        done => done.unwrap(),
    }
    give(&theirs);
    let error = told(&[&format!("--run={}", theirs.display()), "create-layer"]);
    assert!(error.contains("belongs to user 65534, whom this user namespace shows"), "{error}");
    assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 0);
}

#[test]
fn without_a_namespace_nothing_is_mounted() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("compat-unshare-not", NOBODY, NOBODY);
    user.command(&["--unshare=false", "create-layer", "-i", "base"]).assert_success();
    let error = user.command(&["-U=0", "mount", "base"]).assert_exit(1);
    assert!(
        error.contains("inside a user namespace") && error.ends_with(" while mounting base\n"),
        "{error}"
    );
    assert_eq!(user.told(&["mount", "base"]).lines().count(), 1);
}

#[test]
fn statuses_pass_through_a_namespace() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("compat-statuses", NOBODY, NOBODY);
    // The commands' own.
    assert_eq!(user.command(&["exists", "nope"]).output().status.code(), Some(1));
    assert_eq!(user.command(&["images", "--nope"]).output().status.code(), Some(125));
    assert_eq!(user.command(&["layer", "nope"]).output().status.code(), Some(1));
    assert_eq!(user.command(&["delete-layer", "nope"]).assert_exit(1), "nope: identifier is not a layer\n");
    // Those of a command that is run inside.
    let unshare = |words: &[&str]| user.command(&[&["unshare"], words].concat());
    assert_eq!(unshare(&["id", "-u"]).stdout(), "0\n");
    assert_eq!(unshare(&["--", "sh", "-c", "exit 7"]).assert_exit(1), "exit status 7\n");
    assert_eq!(unshare(&["sh", "-c", "kill -9 $$"]).assert_exit(1), "signal: killed\n");
    assert_eq!(
        unshare(&["no-such-program"]).assert_exit(1),
        "exec: \"no-such-program\": executable file not found in $PATH\n"
    );
    assert_eq!(
        unshare(&["/nowhere/program"]).assert_exit(1),
        "fork/exec /nowhere/program: no such file or directory\n"
    );
    assert_eq!(unshare(&["sh", "-c", "echo $_CONTAINERS_ROOTLESS_UID"]).stdout(), "65534\n");
    // Whoever starts the program may ignore how its own children end, and programs inherit that.
    let mut command = user.become_this().args(["env", "--ignore-signal=CHLD"]).arg(user.program());
    command = command.args(user.flags()).args(["unshare", "sh", "-c", "exit 7"]);
    assert_eq!(command.assert_exit(1), "exit status 7\n");
}

#[test]
fn without_ranges_there_is_one_id() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("compat-one-id", NOBODY, NOBODY);
    let script = "awk '{ print $1, $2, $3 }' /proc/self/uid_map /proc/self/gid_map";
    assert_eq!(user.in_namespace(script).stdout(), "0 65534 1\n0 65534 1\n");
    // Files of others are the user's on the disk, and come out as they came in.
    let script = "echo text > f && tar -cf tar --owner=5 --group=6 f";
    TestCommand::new("sh").args(["-c", script]).current_dir(user.dir.path()).assert_success();
    user.command(&["import-layer", "-i", "base", "-f", "tar"]).assert_success();
    assert_eq!(user.command(&["diff", "base"]).stdout_bytes(), std::fs::read(user.dir.join("tar")).unwrap());
    let script = "path=$($CS mount base); stat -c %u:%g \"$path/f\"";
    assert_eq!(user.in_namespace(script).stdout(), "0:0\n");
    assert_eq!(
        user.command(&["create-layer", "--subuidmap", "nobody-has-this"]).assert_exit(1),
        format!("{}\n", super::maps::nobody_has_this())
    );
}

#[test]
fn with_ranges_files_have_their_owners() {
    let (uid, gid, [first, _]) = match machine::other_user_with_ranges() {
        Ok(user) => user,
        Err(obstacle) => skip!("{obstacle}"),
    };
    let user = User::new("compat-ranges", uid, gid);
    let script = "echo text > f && tar -cf tar --owner=5 --group=6 f";
    TestCommand::new("sh").args(["-c", script]).current_dir(user.dir.path()).assert_success();
    user.command(&["import-layer", "-i", "base", "-f", "tar"]).assert_success();
    let script = "path=$($CS mount base); stat -c %u:%g \"$path/f\"";
    assert_eq!(user.in_namespace(script).stdout(), "5:6\n");
    let script = format!("find {} -name f -uid $((5 - 1 + {first})) | wc -l", user.dir.root().display());
    assert_eq!(TestCommand::new("sh").args(["-c", &script]).stdout(), "1\n", "on the disk it is the range's");
    user.command(&["check"]).assert_success();
    // What has owners of the range can be removed by the program alone.
    user.command(&["wipe"]).assert_success();
    assert_eq!(std::fs::read_dir(user.dir.root().join("diffs")).unwrap().count(), 0);
}

#[test]
fn the_store_of_the_machines_root_is_none_of_theirs() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("compat-roots-store", NOBODY, NOBODY);
    let as_root = TestCommand::new(user.program()).args(user.flags()).args(["create-layer", "-i", "base"]);
    { as_root }.env("CONTAINERS_STORAGE_CONF", user.dir.join("storage.conf")).assert_success();
    let output = user.command(&["layers"]).output();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("error initializing: "), "{told}");
}
