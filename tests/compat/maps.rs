//! Id maps, in every form, and what mounts show with them.

use super::can_mount;
use crate::support::transcript::Session;
use crate::support::{Dir, TestCommand, machine};

/// A user and a group of that name, that have ranges of ids.
fn owner_of_ranges() -> Option<String> {
    let names = |file| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect::<Vec<_>>()
    };
    let of_groups = names("/etc/subgid");
    names("/etc/subuid").into_iter().find(|name| of_groups.contains(name))
}

/// What is said of the ranges of the user `nobody-has-this`. Not every machine has the file, and there is nothing else to tell then.
pub fn nobody_has_this() -> &'static str {
    if std::path::Path::new("/etc/subuid").exists() {
        "no subuid ranges found for user \"nobody-has-this\" in /etc/subuid"
    } else {
        "open /etc/subuid: no such file or directory"
    }
}

/// The first of the ranges in a file that a name has, and how many ids it has.
fn range(file: &str, name: &str) -> (u32, u32) {
    let text = std::fs::read_to_string(file).unwrap();
    let fields =
        text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let number = |index: usize| fields.as_ref().unwrap()[index].parse().unwrap();
    (number(1), number(2))
}

#[test]
fn maps_are_given_in_every_form() {
    if !machine::is_real_root() {
        skip!("giving a directory to ids of another needs root of the machine");
    }
    let dir = Dir::new("compat-map-forms");
    let mut session = Session::layerstore(&dir);
    // Users alone, groups alone, both, several runs, and what says that nobody is mapped.
    session.expect(
        r#"
$ create-container -j -i a --uidmap 0:100000:65536 ''
{"id":"a","image":"","layer":"ID1","created":"TIME","uidmap":[{"container_id":0,"host_id":100000,"size":65536}],"flags":{"MountLabel":"","ProcessLabel":""}}
$ create-container -j -i b --gidmap 0:100000:65536 ''
{"id":"b","image":"","layer":"ID2","created":"TIME","gidmap":[{"container_id":0,"host_id":100000,"size":65536}],"flags":{"MountLabel":"","ProcessLabel":""}}
$ create-container -j -i c --uidmap 0:100000:10:10:200000:5 --gidmap=0:300000:15 ''
{"id":"c","image":"","layer":"ID3","created":"TIME","uidmap":[{"container_id":0,"host_id":100000,"size":10},{"container_id":10,"host_id":200000,"size":5}],"gidmap":[{"container_id":0,"host_id":300000,"size":15}],"flags":{"MountLabel":"","ProcessLabel":""}}
$ create-container -j -i d --hostuidmap --hostgidmap ''
{"id":"d","image":"","layer":"ID4","created":"TIME","flags":{"MountLabel":"","ProcessLabel":""}}
$ create-container -j -i e --hostuidmap --gidmap 0:100000:65536 ''
{"id":"e","image":"","layer":"ID5","created":"TIME","gidmap":[{"container_id":0,"host_id":100000,"size":65536}],"flags":{"MountLabel":"","ProcessLabel":""}}
$ create-container -j -i f --uidmap '' ''
{"id":"f","image":"","layer":"ID6","created":"TIME","flags":{"MountLabel":"","ProcessLabel":""}}
$ create-container -j -i g --uidmap 0:0:65536 ''
{"id":"g","image":"","layer":"ID7","created":"TIME","uidmap":[{"container_id":0,"host_id":0,"size":65536}],"flags":{"MountLabel":"","ProcessLabel":""}}
$ create-layer -j -i layer --hostuidmap --gidmap 0:100000:65536
{"id":"layer","created":"TIME"}
$ import-layer -j -i imported --uidmap 0:100000:65536
{"id":"imported","created":"TIME","compressed-diff-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","diff-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
$ create-layer -j -i pieces --uidmap 0:1000:10:10:5000:10
{"id":"pieces","created":"TIME","uidmap":[{"container_id":0,"host_id":1000,"size":10},{"container_id":10,"host_id":5000,"size":10}]}
$ create-layer -j -i child pieces
{"id":"child","parent":"pieces","created":"TIME","uidmap":[{"container_id":0,"host_id":1000,"size":10},{"container_id":10,"host_id":5000,"size":10}]}
$ create-layer -j -i host --hostuidmap --hostgidmap pieces
{"id":"host","parent":"pieces","created":"TIME"}
$ layer-parent-owners pieces
! LayerParentOwner: layer is not mounted
= 1
$ layer-parent-owners -j layer nope
{"ID":"layer","UIDs":null,"GIDs":null}
= 1
$ container-parent-owners a nope d
ID: a
UIDs: [0]
GIDs: []
ID: d
UIDs: []
GIDs: []
= 1
"#,
    );
    let Some(name) = owner_of_ranges() else { skip!("nobody has ranges in /etc/subuid and /etc/subgid") };
    let ((uid, uids), (gid, gids)) = (range("/etc/subuid", &name), range("/etc/subgid", &name));
    let run = |host: u32, size: u32| format!("{{\"container_id\":0,\"host_id\":{host},\"size\":{size}}}");
    for (number, flags) in [
        format!("--subuidmap {name}"),
        format!("--subgidmap {name}"),
        format!("--subuidmap={name} --subgidmap={name}"),
    ]
    .into_iter()
    .enumerate()
    {
        let told = session.run(&format!("create-container -j -i sub{number} {flags} ''"));
        let expected = format!("\"uidmap\":[{}],\"gidmap\":[{}]", run(uid, uids), run(gid, gids));
        assert!(told.contains(&expected), "{told}");
    }
    // What is said of ids comes before what is looked up.
    let told = session.run(&format!("create-container -j -i more --subuidmap {name} --uidmap {uids}:7:1 ''"));
    assert!(told.contains("root of the container") || told.contains("\"host_id\":7,\"size\":1},{"), "{told}");
}

#[test]
fn maps_that_mean_nothing_are_refused() {
    let dir = Dir::new("compat-map-errors");
    let mut session = Session::layerstore(&dir);
    let malformed = [
        "junk",
        ":",
        "0",
        "0:1",
        "0:1:2:3",
        "0:1:2:",
        ":0:1:2",
        "0::2",
        "0:x:2",
        "0:-1:2",
        "+0:1:2",
        "0x0:1:2",
        "0:1:4294967296",
        "0,1,2",
        "0:1:2,3:4:5",
    ];
    for text in malformed {
        for (flag, what) in [("--uidmap", "uid"), ("--gidmap", "gid")] {
            for command in ["create-container", "create-layer", "import-layer"] {
                session.expect(&format!(
                    "$ {command} {flag} {text} ''\n! initializing ID mappings: {what} setting is malformed \
                     expected [\"uint32:uint32:uint32\"]: [\"{text}\"]\n= 1\n"
                ));
            }
        }
    }
    session.expect(
        r#"
$ create-container --uidmap junk --gidmap other ''
! initializing ID mappings: uid setting is malformed expected ["uint32:uint32:uint32"]: ["junk"]
= 1
$ create-layer --hostuidmap --uidmap 0:1:1
! host uid map specified along with UID mapping
= 1
$ create-layer --hostgidmap --gidmap 0:1:1
! host gid map specified along with GID mapping
= 1
$ create-container --hostuidmap --uidmap junk ''
! host uid map specified along with UID mapping
= 1
$ create-container --hostuidmap --hostgidmap --subuidmap nobody-has-this ''
! host uid map specified along with UID mapping
= 1
$ create-container --uidmap 0:0:1:0:1:1 ''
! the specified UID and/or GID mapping 0:1:1 conflicts with other mappings: invalid mappings specified
= 1
$ create-container --uidmap 0:0:5:7:3:1 ''
! the specified UID and/or GID mapping 7:3:1 conflicts with other mappings: invalid mappings specified
= 1
$ create-container --gidmap 0:0:5:4:30:1:3:1:1 ''
! the specified UID and/or GID mappings 3:1:1, 4:30:1 conflict with other mappings: invalid mappings specified
= 1
$ create-container --uidmap 1:1:1 ''
! the id map "1:1:1" is refused: root of the container, the id 0, is not mapped
= 1
$ create-container --uidmap 0:1:0 ''
! the id map "0:1:0" is refused: a run has no ids
= 1
$ containers
$ layers
"#,
    );
    let refused = nobody_has_this();
    for flags in ["--hostuidmap --subgidmap", "--subuidmap", "--subgidmap"] {
        session.expect(&format!("$ create-layer {flags} nobody-has-this\n! {refused}\n= 1\n"));
    }
    let Some(name) = owner_of_ranges() else { skip!("nobody has ranges in /etc/subuid and /etc/subgid") };
    session.expect(&format!(
        "$ create-layer --subuidmap {name} --subgidmap nobody-has-this\n\
         ! no subgid ranges found for group \"nobody-has-this\" in /etc/subgid\n= 1\n"
    ));
}

/// A mount has the owners of the host where the container has its own; what comes out has the container's.
#[test]
fn mounts_show_owners_as_they_are_mapped() {
    if !can_mount() || !machine::is_real_root() {
        skip!("mounts with id maps need root of the machine");
    }
    let dir = Dir::new("compat-map-mounts");
    let script =
        "mkdir t && echo one > t/one && echo two > t/two && chown 5:6 t/two && tar -C t -cf tar one two";
    TestCommand::new("sh").args(["-euc", script]).current_dir(dir.path()).assert_success();
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ import-layer -i base -f tar
base
$ create-image -i img base
img
$ create-container -i users --uidmap 0:100000:10 img
users
$ mount users
MOUNT
% test "$(stat -c %u:%g "$MOUNT/one" "$MOUNT/two" | xargs)" = "100000:0 100005:6"
% echo new > "$MOUNT/new" && chown 100003:4 "$MOUNT/new" && ln "$MOUNT/new" "$MOUNT/new too"
% chown 100007:8 "$MOUNT/two"
$ unmount users
users mountpoint unmounted
$ create-container -i both --uidmap 0:100000:5:5:200000:5 --gidmap 0:300000:10 img
both
$ mount both
MOUNT
% test "$(stat -c %u:%g "$MOUNT/one" "$MOUNT/two" | xargs)" = "100000:300000 200000:300006"
% touch "$MOUNT/stranger"
$ mounted both
both mounted
"#,
    );
    let shown = session.command(["container".into(), "-j".into(), "users".into()]).json();
    let layer = shown[0]["layer"].as_str().unwrap().to_owned();
    let tar = session.command(["diff".into(), "-u".into(), layer.clone()]).stdout_bytes();
    let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        let (uid, gid) = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
        format!("{} {uid}:{gid}", entry.path().unwrap().display())
    };
    let listed: Vec<_> = tar::Archive::new(&*tar).entries().unwrap().map(entry).collect();
    assert_eq!(listed, ["new 3:4", "new too 3:4", "two 7:8"]);
    let changes = session.command(["changes".into(), layer]).stdout();
    assert_eq!(changes, "Add \"/new\"\nAdd \"/new too\"\nModify \"/two\"\n");
    session.expect("$ unmount both\nboth mountpoint unmounted\n");
}
