//! What an ordinary user may not read of his own store outside of a user namespace: files and directories whose mode keeps their
//! owner out. That is no damage, and no reason to remove anything.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use layerstore_schema::record::{BlobRecord, DiffRecord, Record};
use layerstore_schema::table;
use redb::ReadableTable;
use serde_json::Value;

use crate::support::machine::note_skip;
use crate::support::oci::{Image, Layer};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand, database, machine};

/// Has no ranges of ids, and is not the user that stands for all that a namespace does not know.
const OTHER: u32 = 54321;

/// An ordinary user with a store.
struct User {
    dir: Dir,
    uid: u32,
}

impl User {
    /// This one, or another if this is root.
    fn new(name: &str) -> Self {
        let dir = Dir::new(name);
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        crate::support::command::copy_binary(&dir.join("layerstore"));
        crate::support::command::copy_binary(&dir.join("containers-storage"));
        User { dir, uid: if machine::is_root() { OTHER } else { rustix::process::geteuid().as_raw() } }
    }

    fn command(&self, program: &[&str]) -> TestCommand {
        let words = program.iter().map(ToString::to_string);
        let command = match machine::is_root() {
            true => TestCommand::new("setpriv")
                .args([format!("--reuid={OTHER}"), format!("--regid={OTHER}")])
                .args(["--clear-groups", "--"]),
            false => TestCommand::new("env"),
        };
        command.args(words).env("HOME", self.dir.path()).current_dir(self.dir.path())
    }

    fn layerstore(&self, words: &[&str]) -> TestCommand {
        let program = self.dir.join("layerstore");
        self.command(&[program.to_str().unwrap()]).args(self.roots()).args(words)
    }

    fn containers_storage(&self, words: &[&str]) -> TestCommand {
        self.dir.write("storage.conf", "[storage]\ndriver = \"overlay\"\n");
        let program = self.dir.join("containers-storage");
        let roots = [("graph", self.dir.root()), ("run", self.dir.run_root())]
            .map(|(flag, path)| format!("--{flag}={}", path.display()));
        let command = self.command(&[program.to_str().unwrap()]).args(["--unshare=false"]);
        command.args(&roots).args(words).env("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf"))
    }

    /// Modes keep nobody out of a namespace of his own.
    fn roots(&self) -> [PathBuf; 5] {
        ["--no-unshare".into(), "--root".into(), self.dir.root(), "--runroot".into(), self.dir.run_root()]
    }

    /// The same in a user namespace, if this machine lets the user make one; a note if not.
    fn unshared(&self, words: &[&str]) -> Option<TestCommand> {
        let is_possible = self.command(&["unshare", "--user", "--mount", "true"]).output().status.success();
        let program = self.dir.join("layerstore");
        let within = || {
            let inside = self.layerstore(&["unshare", program.to_str().unwrap()]);
            inside.args(self.roots()).args(words)
        };
        if !is_possible {
            note_skip("half of it: no user namespace for an ordinary user");
        }
        is_possible.then(within)
    }

    /// Makes a layer of members that belong to the user, and returns its directory.
    fn put(&self, name: &str, members: Vec<Member>) -> PathBuf {
        let own = |member: Member| member.owner(self.uid.into(), self.uid.into());
        let members: Vec<_> = members.into_iter().map(own).collect();
        let before = self.directories();
        self.layerstore(&["put-layer", "--name", name]).stdin(archive(&members)).assert_success();
        self.directories().into_iter().find(|path| !before.contains(path)).unwrap()
    }

    fn directories(&self) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(self.dir.root().join("diffs"));
        listed.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    /// Code and message of what a check finds, without the kernel's words.
    fn findings(&self, flags: &[&str]) -> Vec<(String, String)> {
        let output = self.layerstore(&[&["--json", "check"], flags].concat()).output();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found: Vec<_> = report["findings"].as_array().unwrap().iter().map(told).collect();
        assert_eq!(output.status.code(), Some(if found.is_empty() { 0 } else { 3 }), "{found:?}");
        found
    }

    /// Repairs, which sets a mode right where it is and does nothing else; the program says the same before.
    fn assert_mode_given_back(&self, path: &Path, mode: u32) {
        for flags in [&["--force", "--dry-run"][..], &["--force"]] {
            let report = self.layerstore(&[&["--json", "repair"], flags].concat()).output();
            let report: Value = serde_json::from_slice(&report.stdout).unwrap();
            let [repaired] = report["repaired"].as_array().unwrap().as_slice() else { panic!("{report}") };
            assert_eq!(repaired["action"], "restore-mode", "{report}");
            assert_eq!(report["failed"], Value::Array(Vec::new()), "{report}");
        }
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(self.findings(&["--deep"]), []);
    }

    /// Repairs with force, which does nothing and leaves so much; the program says the same before.
    fn assert_left_by_repair(&self, left: usize) {
        for flags in [&["--force", "--dry-run"][..], &["--force"]] {
            let output = self.layerstore(&[&["--json", "repair"], flags].concat()).output();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(3), "{report}");
            assert_eq!(report["repaired"], Value::Array(Vec::new()), "{report}");
            assert_eq!(report["left"].as_array().unwrap().len(), left, "{report}");
        }
    }
}

fn told(finding: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let message = text(&finding["message"]);
    let (thing, rest) = message.split_once(": ").unwrap();
    assert_eq!(thing, finding["thing"].as_str().unwrap());
    if finding["code"] == "not-examined" {
        let remedy = &finding["remedy"];
        assert!(
            remedy["action"] == "leave" && text(&remedy["message"]).contains("`layerstore unshare`"),
            "{remedy}"
        );
    }
    (text(&finding["code"]), rest.trim_end_matches(": Permission denied (os error 13)").to_owned())
}

fn not_examined(path: &str) -> (String, String) {
    ("not-examined".to_owned(), format!("this user may not read {path:?}, so it was not examined"))
}

fn lost_mode(path: &Path, mode: u32, expected: u32) -> (String, String) {
    let message =
        format!("{path:?} has mode {mode:04o}, which keeps its owner out, instead of {expected:04o}");
    ("mode-lost".to_owned(), message)
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Why there is nobody whom modes keep out.
fn obstacle() -> Option<&'static str> {
    let may_become = machine::is_real_root() && machine::has_program("setpriv");
    (machine::is_root() && !may_become).then_some("becoming an ordinary user needs real root and setpriv")
}

#[test]
fn a_file_that_its_owner_may_not_read_is_no_damage() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let user = User::new("withheld-file");
    let directory = user.put(
        "base",
        vec![
            Member::file("open", "seen"),
            Member::file("shut", "secret").mode(0),
            Member::hard_link("too", "shut"),
        ],
    );
    user.layerstore(&["create-layer", "base", "--name", "above"]).assert_success();
    user.layerstore(&["create-image", "above", "--name", "image"]).assert_success();
    user.layerstore(&["create-container", "image", "--name", "web"]).assert_success();
    assert_eq!(user.findings(&[]), []);
    assert_eq!(user.findings(&["--deep"]), [not_examined("/shut")]);
    user.assert_left_by_repair(1);
    let shown = user.layerstore(&["check", "--deep"]).output();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("  not-examined: this user may not read \"/shut\""), "{shown}");
    assert!(
        shown.contains("    a repair leaves it: the mode of something in a layer may keep its owner out"),
        "{shown}"
    );
    // What can be read is compared all the same.
    std::fs::write(directory.join("open"), "evil").unwrap();
    let found = user.findings(&["--deep"]);
    assert!(found.iter().any(|(code, _)| code == "content-changed"), "{found:?}");
    std::fs::write(directory.join("open"), "seen").unwrap();
    let modified = std::fs::metadata(directory.join("shut")).unwrap().modified().unwrap();
    std::fs::File::options()
        .write(true)
        .open(directory.join("open"))
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert_eq!(user.findings(&["--deep"]), [not_examined("/shut")]);
    if let Some(mut check) = user.unshared(&["check", "--deep"]) {
        check.assert_success();
    }
    let error = user.layerstore(&["diff", "base"]).assert_exit(1);
    assert!(error.contains("cannot read \"shut\"") && error.contains("`layerstore unshare`"), "{error}");
    assert!(!error.contains("damaged"), "{error}");
}

/// Names of a file are told by others of it where the first is not seen.
#[test]
fn below_a_directory_that_its_owner_may_not_read_nothing_is_missing() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let user = User::new("withheld-directory");
    let directory = user.put(
        "base",
        vec![
            Member::directory("a").mode(0o755),
            Member::file("a/first", "of three"),
            Member::hard_link("second", "a/first"),
            Member::hard_link("third", "a/first"),
            Member::file("z", "z"),
        ],
    );
    let shut = directory.join("a");
    // Without the right to list it, or to look what the names are.
    for mode in [0, 0o311, 0o444] {
        set_mode(&shut, mode);
        let expected = vec![lost_mode(&shut, mode, 0o755)];
        assert_eq!(
            (user.findings(&[]), user.findings(&["--deep"])),
            (expected.clone(), expected),
            "{mode:o}"
        );
        user.assert_mode_given_back(&shut, 0o755);
    }
    user.layerstore(&["inspect", "base"]).assert_success();
}

/// The root directory of a layer, and what its container has written.
#[test]
fn a_container_whose_directory_may_not_be_read_stays() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let user = User::new("withheld-root");
    let base = user.put("base", vec![Member::file("f", "f")]);
    let mode = std::fs::metadata(&base).unwrap().permissions().mode() & 0o7777;
    user.layerstore(&["create-image", "base", "--name", "image"]).assert_success();
    user.layerstore(&["create-container", "image", "--name", "web"]).assert_success();
    let container = user.directories().into_iter().find(|path| *path != base).unwrap();
    for (directory, layer) in [(&container, "web"), (&base, "base")] {
        set_mode(directory, 0);
        let is_on_record = *directory == base;
        for flags in [&["--quick"][..], &[], &["--deep"]] {
            let found = user.findings(flags);
            match is_on_record {
                true => assert_eq!(found, [lost_mode(directory, 0, mode)]),
                false => {
                    assert_eq!(found.iter().map(|(code, _)| code).collect::<Vec<_>>(), ["not-examined"]);
                }
            }
        }
        let error = user.layerstore(&["diff", layer]).assert_exit(1);
        assert!(error.contains("`layerstore unshare`"), "{error}");
        match is_on_record {
            true => user.assert_mode_given_back(directory, mode),
            false => user.assert_left_by_repair(1),
        }
        set_mode(directory, 0o755);
    }
    assert_eq!(user.findings(&["--deep"]), []);
    let containers = user.layerstore(&["--json", "containers"]).json();
    assert_eq!(containers.as_array().unwrap().len(), 1);
}

/// The store gives their modes, and no layer has a say in it.
#[test]
fn what_the_store_has_shut_to_itself_is_opened_again() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let user = User::new("withheld-store");
    let members = [Member::file("f", "f").owner(user.uid.into(), user.uid.into())];
    let image = Image::new([Layer::new(members)]).write(user.dir.join("layout"), "image");
    user.layerstore(&["load", &image.reference(), "--name", "image"]).assert_success();
    user.layerstore(&["create-container", "image", "--name", "web"]).assert_success();
    user.containers_storage(&["get-container-dir", "web"]).assert_success();
    for (below, mode) in [("blobs", 0o600), ("data", 0o700)] {
        let listed = std::fs::read_dir(user.dir.root().join(below)).unwrap();
        let [path] = listed.map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
        set_mode(&path, 0);
        assert_eq!(user.findings(&["--deep"]), [lost_mode(&path, 0, mode)]);
        user.assert_mode_given_back(&path, mode);
    }
}

/// Who may read the directory could make its manifest again, or see that it is the one that a row is missing for.
#[test]
fn rows_are_not_lost_with_a_directory_that_may_not_be_read() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let damages: [fn(&redb::WriteTransaction); 2] = [rot_the_manifest, |txn| {
        txn.open_table(table::DIFFS).unwrap().retain(|_, _| false).unwrap();
    }];
    for damage in damages {
        let user = User::new("withheld-rows");
        user.put("base", vec![Member::file("shut", "secret").mode(0)]);
        database::edit(&user.dir.root(), damage);
        for _ in 0..2 {
            let report = user.layerstore(&["--json", "repair", "--force"]).output();
            let report: Value = serde_json::from_slice(&report.stdout).unwrap();
            let repaired = report["repaired"].as_array().unwrap();
            assert!(repaired.iter().all(|one| one["action"] != "removed"), "{report}");
            assert!(!report["failed"].as_array().unwrap().is_empty(), "{report}");
        }
        user.layerstore(&["--json", "layers"]).assert_success();
        assert_eq!(user.directories().len(), 1, "it may be what is missing");
    }
}

/// It may be what is missing; that is no reason to leave what can be had otherwise.
#[test]
fn garbage_that_may_not_be_read_is_in_no_way_of_a_repair() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let user = User::new("withheld-garbage");
    let members = [Member::file("f", "f").owner(user.uid.into(), user.uid.into())];
    let image = Image::new([Layer::new(members)]).write(user.dir.join("layout"), "image");
    user.layerstore(&["load", &image.reference()]).assert_success();
    let [lost] = user.directories().try_into().unwrap();
    database::edit(&user.dir.root(), |txn| {
        txn.open_table(table::DIFFS).unwrap().retain(|_, _| false).unwrap();
    });
    std::fs::rename(&lost, lost.with_file_name("777")).unwrap();
    let lost = lost.with_file_name("777");
    std::fs::write(lost.join("f"), "g").unwrap();
    set_mode(&lost.join("f"), 0);
    for blob in std::fs::read_dir(user.dir.root().join("blobs")).unwrap() {
        std::fs::remove_file(blob.unwrap().path()).unwrap();
    }
    let repair = |words: &[&str]| {
        let report = user.layerstore(&[&["--json", "repair"], words].concat()).output();
        serde_json::from_slice::<Value>(&report.stdout).unwrap()
    };
    // Without the image there is nothing but what may not be read.
    for words in [&["--force", "--dry-run"][..], &["--force"]] {
        let report = repair(words);
        assert!(!report["failed"].as_array().unwrap().is_empty(), "{report}");
        assert!(
            report["repaired"].as_array().unwrap().iter().all(|one| one["action"] != "removed"),
            "{report}"
        );
    }
    for words in [&["--dry-run"][..], &[]] {
        let report = repair(&[&["--from", &image.reference()], words].concat());
        assert_eq!(report["failed"], Value::Array(Vec::new()), "{report}");
        assert!(
            report["repaired"].as_array().unwrap().iter().any(|one| one["action"] == "unpack-layer"),
            "{report}"
        );
    }
    assert_eq!(user.findings(&["--deep"]), []);
}

fn rot_the_manifest(txn: &redb::WriteTransaction) {
    let diffs = txn.open_table(table::DIFFS).unwrap();
    let record = DiffRecord::decode(diffs.iter().unwrap().next().unwrap().unwrap().1.value()).unwrap();
    let blobs = txn.open_table(table::BLOBS).unwrap();
    let blob = BlobRecord::decode(blobs.get(&record.manifest).unwrap().unwrap().value()).unwrap();
    let mut chunks = txn.open_table(table::BLOB_CHUNKS).unwrap();
    let mut bytes = chunks.get((blob.number, 0)).unwrap().unwrap().value().to_owned();
    *bytes.last_mut().unwrap() ^= 1;
    chunks.insert((blob.number, 0), bytes.as_slice()).unwrap();
}

#[test]
fn the_other_command_line_removes_nothing_for_it() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let user = User::new("withheld-compat");
    user.put("base", vec![Member::file("shut", "secret").mode(0)]);
    user.layerstore(&["create-image", "base", "--name", "image"]).assert_success();
    for words in [&["check"][..], &["check", "-r"], &["check", "-r", "-f"]] {
        let output = user.containers_storage(words).output();
        let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains("this user may not read"), "{words:?}: {told}");
    }
    assert_eq!(user.layerstore(&["--json", "images"]).json().as_array().unwrap().len(), 1);
}

/// It could not be read back, by this import or by anything after it.
#[test]
fn a_directory_that_its_owner_may_not_read_does_not_come_in_and_the_way_is_told() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let user = User::new("withheld-import");
    let own = |member: Member| member.owner(user.uid.into(), user.uid.into());
    for mode in [0, 0o311] {
        let members = [Member::directory("closed").mode(mode), Member::file("closed/in", "x")].map(own);
        let error = user.layerstore(&["put-layer"]).stdin(archive(&members)).assert_exit(1);
        assert!(
            error.contains("cannot open \"closed\"") && error.contains("`layerstore unshare`"),
            "{error}"
        );
        assert!(user.directories().is_empty(), "nothing is left of it");
        let image = Image::new([Layer::new(members.clone())])
            .write(user.dir.join(format!("layout-{mode:o}")), "image");
        let error = user.layerstore(&["load", &image.reference()]).assert_exit(1);
        assert!(
            error.contains("cannot open \"closed\"") && error.contains("`layerstore unshare`"),
            "{error}"
        );
        if let Some(mut put) = user.unshared(&["put-layer"]) {
            // In this namespace all is root's.
            let members = members.map(|member| member.owner(0, 0));
            put = put.stdin(archive(&members));
            put.assert_success();
            user.layerstore(&["wipe", "--force"]).assert_success();
        }
    }
}

/// What a check outside sends there for is mended there.
#[test]
fn a_repair_in_a_user_namespace_reads_what_is_shut() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let user = User::new("withheld-repair");
    let root = |member: Member| member.owner(0, 0);
    let layers = [
        ("base", vec![Member::file("open", "seen").mode(0o644), Member::file("shut", "secret").mode(0)]),
        ("other", vec![Member::file("same", "seen").mode(0o644)]),
    ];
    let mut directories = Vec::new();
    for (name, members) in layers {
        let Some(put) = user.unshared(&["put-layer", "--name", name]) else { return };
        put.stdin(archive(&members.into_iter().map(root).collect::<Vec<_>>())).assert_success();
        directories = user.directories();
    }
    let base = directories.iter().find(|path| path.join("shut").exists()).unwrap();
    std::fs::write(base.join("open"), "evil").unwrap();
    let found = user.findings(&["--deep"]);
    assert!(found.contains(&not_examined("/shut")), "{found:?}");
    let report = user.layerstore(&["--json", "repair"]).output();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(
        report["repaired"] == Value::Array(Vec::new()) && !report["failed"].as_array().unwrap().is_empty()
    );
    user.unshared(&["repair"]).unwrap().assert_success();
    user.unshared(&["check", "--deep"]).unwrap().assert_success();
    assert_eq!(user.findings(&["--deep"]), [not_examined("/shut")]);
    // Of somebody whom the namespace does not know.
    if machine::is_real_root() {
        let base = user.directories().into_iter().find(|path| path.join("shut").exists()).unwrap();
        std::os::unix::fs::chown(base.join("shut"), Some(OTHER + 1), None).unwrap();
        let shown = user.unshared(&["check", "--deep"]).unwrap().output();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(
            shown.contains("not-examined") && shown.contains("an owner that is not mapped here"),
            "{shown}"
        );
        assert!(!shown.contains("layerstore unshare"), "{shown}");
    }
}
