//! Owners of what ordinary users write: the same wherever they are read, or not told at all.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use crate::support::oci::{Image, Layer};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, machine};

/// Has no ranges of ids, and is not the user that stands for all that a namespace does not know.
const OTHER: u32 = 54321;

/// A user of this machine, who is not root, with a store.
struct User {
    dir: Dir,
    uid: u32,
    gid: u32,
}

impl User {
    fn new(name: &str, uid: u32, gid: u32) -> Self {
        let dir = Dir::new(name);
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        crate::support::command::copy_binary(&dir.join("layerstore"));
        User { dir, uid, gid }
    }

    fn become_this(&self) -> TestCommand {
        TestCommand::new("setpriv")
            .args([format!("--reuid={}", self.uid), format!("--regid={}", self.gid)])
            .args(["--clear-groups", "--"])
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
    }

    fn program(&self) -> Vec<PathBuf> {
        let program = self.dir.join("layerstore");
        vec![program, "--root".into(), self.dir.root(), "--runroot".into(), self.dir.run_root()]
    }

    fn layerstore(&self, words: &[&str]) -> TestCommand {
        self.become_this().args(self.program()).args(words)
    }

    /// Loads an image with a file of 5:6, makes the container `web` of it, and runs a script in its mount.
    fn write_in_namespace(&self, script: &str) {
        let layer = Layer::new([Member::directory("etc"), Member::file("etc/one", "1").owner(5, 6)]);
        let reference = Image::new([layer]).write(self.dir.join("layout"), "image").reference();
        self.layerstore(&["load", &reference, "--name", "image"]).assert_success();
        self.layerstore(&["create-container", "image", "--name", "web"]).assert_success();
        self.write_in("web", script);
    }

    fn write_in(&self, thing: &str, script: &str) {
        let script =
            format!("cd \"$(layerstore mount {thing})\"; {script}\ncd /; layerstore unmount {thing}");
        let path = format!("{}:/usr/bin:/bin:/usr/sbin", self.dir.path().display());
        self.layerstore(&["-q", "unshare", "sh", "-euc", &script]).env("PATH", path).assert_success();
    }

    /// What an archive has, as lines `owner/group name`.
    fn listed(&self, tar: Vec<u8>) -> Vec<String> {
        let unpacked = if tar.starts_with(b"\x1f\x8b") { "-tvz" } else { "-tv" };
        let listed = TestCommand::new("tar").args([unpacked, "--numeric-owner"]).stdin(tar).stdout();
        let line = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            format!("{} {}", words[1], words[5].trim_end_matches('/'))
        };
        listed.lines().map(line).collect()
    }
}

#[test]
fn what_was_written_in_a_namespace_has_its_owners_outside() {
    let (uid, gid, [first_user, first_group]) = match machine::other_user_with_ranges() {
        Ok(user) => user,
        Err(obstacle) => skip!("{obstacle}"),
    };
    let user = User::new("owners-ranges", uid, gid);
    user.write_in_namespace(
        "echo r > root; echo w > www; chown 33:33 www; stat -c %u:%g etc/one > seen; rm etc/one",
    );
    let expected = ["5/6 etc/one", "0/0 root", "0/0 seen", "33/33 www"];
    let of_image = user.layerstore(&["diff", "image"]).stdout_bytes();
    assert_eq!(user.listed(of_image), ["0/0 etc", "5/6 etc/one"]);
    let written = user.listed(user.layerstore(&["diff", "web"]).stdout_bytes());
    assert_eq!(written, ["0/0 etc", "0/0 etc/.wh.one", "0/0 root", "0/0 seen", "33/33 www"]);
    assert_eq!(
        user.layerstore(&["changes", "web"]).stdout(),
        "C /etc\nD /etc/one\nA /root\nA /seen\nA /www\n"
    );
    let on_disk =
        TestCommand::new("find").arg(user.dir.root().join("diffs")).args(["-name", "www"]).stdout_path();
    assert_eq!(std::fs::metadata(on_disk).unwrap().uid(), 33 - 1 + first_user);
    let seen =
        TestCommand::new("find").arg(user.dir.root().join("diffs")).args(["-name", "seen"]).stdout_path();
    assert_eq!(std::fs::read_to_string(seen).unwrap(), "5:6\n", "the image was loaded outside");

    user.layerstore(&["commit", "web", "--name", "next"]).assert_success();
    user.layerstore(&["save", "next", "oci:saved"]).assert_success();
    let blobs = std::fs::read_dir(user.dir.join("saved/blobs/sha256")).unwrap();
    let archives = blobs.map(|blob| std::fs::read(blob.unwrap().path()).unwrap());
    let owners: Vec<_> = archives.filter(|blob| blob[0] != b'{').flat_map(|blob| user.listed(blob)).collect();
    assert!(expected.iter().all(|line| owners.iter().any(|other| other == line)), "{owners:?}");
    user.layerstore(&["check", "--deep"]).assert_success();

    // Who stays outside all the same learns nothing wrong.
    user.layerstore(&["create-layer", "--name", "own"]).assert_success();
    user.write_in("own", "echo w > www; chown 33:33 www");
    user.layerstore(&["create-layer", "--name", "sealed"]).assert_success();
    user.write_in("sealed", "echo w > www; chown 33:33 www");
    user.layerstore(&["seal", "sealed"]).assert_success();
    for words in [
        &["diff", "web", "-o", "out.tar"][..],
        &["changes", "web"],
        &["commit", "web"],
        &["seal", "own"],
        // It came in no archive, so nothing but its files says who owns them.
        &["diff", "sealed", "-o", "out.tar"],
    ] {
        let error = user.layerstore(&[&["--no-unshare"], words].concat()).assert_exit(1);
        let owner = format!("{}:{}", 33 - 1 + first_user, 33 - 1 + first_group);
        for part in ["\"/www\" was written in another user namespace", &owner, "`layerstore unshare`"] {
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }
    let unsealed = user.layerstore(&["--no-unshare", "diff", "image"]).stdout_bytes();
    assert_eq!(user.listed(unsealed), ["0/0 etc", "5/6 etc/one"], "those are on record");
    // Mounts would end with the command.
    assert!(user.layerstore(&["mount", "web"]).assert_exit(1).contains("`layerstore unshare`"));
    user.layerstore(&["wipe", "--force"]).assert_success();
    assert_eq!(std::fs::read_dir(user.dir.root().join("diffs")).unwrap().count(), 0);
}

#[test]
fn without_ranges_all_that_is_written_is_roots() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("owners-one-id", OTHER, OTHER);
    user.write_in_namespace("echo r > root");
    assert_eq!(user.listed(user.layerstore(&["diff", "web"]).stdout_bytes()), ["0/0 root"]);
    assert_eq!(user.listed(user.layerstore(&["diff", "image"]).stdout_bytes()), ["0/0 etc", "5/6 etc/one"]);
    user.layerstore(&["check", "--deep"]).assert_success();
    // As if the user had ranges once: the namespace shows all owners that it does not know as one.
    let of = |name: &str| {
        TestCommand::new("find").arg(user.dir.root().join("diffs")).args(["-name", name]).stdout_path()
    };
    std::os::unix::fs::chown(of("root"), Some(123_456), Some(OTHER)).unwrap();
    let error = user.layerstore(&["diff", "web", "-o", "out.tar"]).assert_exit(1);
    assert!(error.contains("\"/root\" was written in another user namespace"), "{error}");
    assert!(error.contains("65534:0") && error.contains("/etc/subuid"), "{error}");
    assert!(!user.dir.join("out.tar").exists());
}

#[test]
fn an_owner_that_a_namespace_does_not_have_is_named() {
    let (uid, gid, _) = match machine::other_user_with_ranges() {
        Ok(user) => user,
        Err(obstacle) => skip!("{obstacle}"),
    };
    let user = User::new("owners-large", uid, gid);
    let layer = archive(&[Member::file("large", "1").owner(1, 2_000_000_000)]);
    let put = |flags: &[&str]| {
        user.layerstore(&[flags, &["put-layer", "--name", "base"]].concat()).stdin(layer.clone())
    };
    let error = put(&[]).assert_exit(1);
    for part in ["\"large\" belongs to 1:2000000000", "/etc/subgid", "uid_map", "ignore_chown_errors"] {
        assert!(error.contains(part), "{error}");
    }
    user.dir.write("ignore.conf", "[storage.options]\nignore_chown_errors = \"true\"\n");
    put(&["--config", "ignore.conf"]).assert_success();
    assert_eq!(user.listed(user.layerstore(&["diff", "base"]).stdout_bytes()), ["1/2000000000 large"]);
    user.layerstore(&["check", "--deep"]).assert_success();
}

/// In a namespace, the owners of another's store would be nobody.
#[test]
fn a_store_of_another_user_is_read_as_it_is() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let owner = User::new("owners-others", OTHER - 1, OTHER - 1);
    owner.layerstore(&["create-layer", "--name", "base"]).assert_success();
    let directories = std::fs::read_dir(owner.dir.root().join("diffs")).unwrap();
    let [directory] = directories.map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    std::fs::write(directory.join("file"), "text").unwrap();
    std::os::unix::fs::chown(directory.join("file"), Some(7), Some(8)).unwrap();
    TestCommand::new("chmod").args(["-R", "a+rX"]).arg(owner.dir.root()).assert_success();
    let user = User { uid: OTHER, gid: OTHER, ..owner };
    let diff = user.layerstore(&["--no-write", "diff", "base"]).stdout_bytes();
    assert_eq!(user.listed(diff), ["7/8 file"]);
}

/// Of whom one could not be told from root.
#[test]
fn images_of_another_user_are_read_from_outside() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("owners-image-store", OTHER, OTHER);
    let entered = |words: &[&str]| {
        let said = user.layerstore(&[&["--log", "debug"], words].concat()).output();
        String::from_utf8(said.stderr).unwrap().contains("entered a user namespace")
    };
    let other = user.dir.create_dir("images");
    let read = ["--image-store", other.to_str().unwrap(), "gc"];
    assert!(!entered(&read), "root's");
    std::os::unix::fs::chown(&other, Some(OTHER), Some(OTHER)).unwrap();
    assert!(entered(&read));
    // What cannot be examined may be anybody's.
    let shut = user.dir.create_dir("shut/images").parent().unwrap().to_owned();
    std::fs::set_permissions(&shut, PermissionsExt::from_mode(0o700)).unwrap();
    assert!(!entered(&["--image-store", shut.join("images").to_str().unwrap(), "gc"]));
}

/// What reads records alone costs no namespace, and says what can be done where its caller is.
#[test]
fn commands_that_meet_no_owners_stay_outside() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("owners-records", OTHER, OTHER);
    let run = |words: &[&str]| {
        let ran = user.layerstore(&[&["--log", "debug"], words].concat()).output();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.success(), "{words:?}: {said}");
        (String::from_utf8(ran.stdout).unwrap(), said.contains("entered a user namespace"))
    };
    for words in [
        &["create-layer", "--name", "base"][..],
        &["create-container", "--name", "web"],
        &["names", "web", "--add", "more"],
        &["item", "put", "web", "key", "/dev/null"],
        &["images"],
        &["inspect", "web"],
        &["containers", "--size"],
        &["gc"],
    ] {
        assert!(run(words).1, "{words:?}");
    }
    for words in [
        &["layers"][..],
        &["containers"],
        &["names", "web"],
        &["item", "list", "web"],
        &["item", "get", "web", "key"],
        &["status"],
    ] {
        assert!(!run(words).1, "{words:?}");
    }
    let (status, _) = run(&["status"]);
    assert!(status.contains("`layerstore unshare layerstore status` tells"), "{status}");
    let row = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("can mount").contains("become root") && !row("mounts").contains("kernel"), "{status}");
}

/// A user who has ranges is told where they were not to be had: what is written then belongs to others than usual.
#[test]
fn ranges_that_cannot_be_mapped_are_told() {
    let (uid, gid, _) = match machine::other_user_with_ranges() {
        Ok(user) => user,
        Err(obstacle) => skip!("{obstacle}"),
    };
    let user = User::new("owners-not-mapped", uid, gid);
    // The programs that map them get no rights.
    let limited = |words: &[&str]| {
        let become_this = TestCommand::new("setpriv")
            .args([format!("--reuid={uid}"), format!("--regid={gid}")])
            .args(["--clear-groups", "--no-new-privs", "--"]);
        let ran = become_this.args(user.program()).args(words).env("HOME", user.dir.path()).output();
        assert!(ran.status.success());
        String::from_utf8(ran.stderr).unwrap()
    };
    let told = limited(&["create-layer"]);
    assert!(told.contains("your ranges of ids could not be mapped") && told.contains("newgidmap"), "{told}");
    assert_eq!(limited(&["--quiet", "create-layer"]), "");
    let without = User { uid: OTHER, gid: OTHER, ..User::new("owners-not-given", OTHER, OTHER) };
    let ran = without.layerstore(&["create-layer"]).output();
    assert_eq!(String::from_utf8(ran.stderr).unwrap(), "");
}

/// Only for who is not root the programs are run at all that map ids.
#[test]
fn no_variable_says_which_programs_map_ids() {
    let (uid, gid, _) = match machine::other_user_with_ranges() {
        Ok(user) => user,
        Err(obstacle) => skip!("{obstacle}"),
    };
    let user = User::new("owners-path", uid, gid);
    let mark = user.dir.join("ran");
    for name in ["newuidmap", "newgidmap"] {
        let program = user.dir.write(format!("bin/{name}"), format!("#!/bin/sh\n: > '{}'\n", mark.display()));
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", user.dir.join("bin").display());
    let ran = user.layerstore(&["--log", "debug", "create-layer"]).env("PATH", path).output();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(!mark.exists(), "{said}");
    assert!(said.contains("entered a user namespace") && !said.contains("one id"), "{said}");
}

/// Another time there would be one, in which the files have other owners.
#[test]
fn a_namespace_that_cannot_be_had_now_ends_the_command() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("owners-no-process", OTHER, OTHER);
    let command = user.become_this().args(["prlimit", "--nproc=1", "--"]).args(user.program());
    let error = command.args(["create-layer"]).assert_exit(1);
    assert!(error.contains("cannot enter a user namespace: fork failed"), "{error}");
    assert!(!user.dir.root().exists());
}

/// Once a namespace is entered, it would be shown as one of root's.
#[test]
fn a_program_of_another_user_is_refused_before_a_namespace_is_entered() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("owners-program", OTHER, OTHER);
    // In which nobody takes another's names away.
    std::fs::set_permissions(user.dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let program = user.dir.write("theirs/program", "#!/bin/sh\n");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&program, Some(OTHER - 1), Some(OTHER - 1)).unwrap();
    let error =
        user.layerstore(&["--mount-program", program.to_str().unwrap(), "create-layer"]).assert_exit(2);
    assert!(error.contains(&format!("{} belongs to user {}", program.display(), OTHER - 1)), "{error}");
    assert!(!user.dir.root().exists());
}

/// As in most containers, and on machines whose administrator wants none.
#[test]
fn where_no_namespace_is_allowed_images_come_and_go() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("owners-not-allowed", OTHER, OTHER);
    let layer = Layer::new([Member::file("one", "1").owner(5, 6)]);
    let reference = Image::new([layer]).write(user.dir.join("layout"), "image").reference();
    let top = user.dir.create_dir("top");
    // A process below another root directory than its mount namespace has may make none.
    let script = r#"top=$1; shift; mount --rbind / "$top"; exec chroot "$top" "$@""#;
    let shut_in = |words: &[&str]| {
        TestCommand::new("unshare")
            .args(["--mount", "sh", "-euc", script, "sh"])
            .arg(&top)
            .args(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--"])
            .args(user.program())
            .args(words)
            .env("HOME", user.dir.path())
    };
    let error = shut_in(&["unshare", "true"]).assert_exit(1);
    assert!(error.contains("not allowed to make a user namespace"), "{error}");
    shut_in(&["load", &reference, "--name", "image"]).assert_success();
    assert_eq!(user.listed(shut_in(&["diff", "image"]).stdout_bytes()), ["5/6 one"]);
    shut_in(&["create-container", "image", "--name", "web"]).assert_success();
    assert_eq!(shut_in(&["changes", "web"]).stdout(), "");
    shut_in(&["check", "--deep"]).assert_success();
    shut_in(&["rm", "web"]).assert_success();
}

/// In a namespace the other user could not be told from root, whom everybody trusts.
#[test]
fn a_run_root_of_another_user_stays_one() {
    if let Some(obstacle) = machine::no_other_user() {
        skip!("{obstacle}");
    }
    let user = User::new("owners-run-root", OTHER, OTHER);
    user.layerstore(&["create-layer"]).assert_success();
    // The other user lets everybody in.
    std::fs::set_permissions(user.dir.run_root(), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(user.dir.run_root(), Some(OTHER - 1), Some(OTHER - 1)).unwrap();
    let error = user.layerstore(&["gc"]).assert_exit(1);
    assert!(error.contains(&format!("belongs to user {}", OTHER - 1)), "{error}");
    std::os::unix::fs::chown(user.dir.run_root(), Some(OTHER), Some(7)).unwrap();
    std::fs::set_permissions(user.dir.run_root(), PermissionsExt::from_mode(0o770)).unwrap();
    let error = user.layerstore(&["gc"]).assert_exit(1);
    assert!(error.contains("can be written by group"), "{error}");
    // The user's group, which others may be in.
    std::os::unix::fs::chown(user.dir.run_root(), Some(OTHER), Some(OTHER - 1)).unwrap();
    let user = User { gid: OTHER - 1, ..user };
    let error = user.layerstore(&["gc"]).assert_exit(1);
    assert!(error.contains(&format!("can be written by group {}", OTHER - 1)), "{error}");
}
