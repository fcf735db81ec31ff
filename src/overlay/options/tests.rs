use std::path::Path;

use super::*;
use crate::overlay::entry::{EntryPaths, MountEntry};
use crate::overlay::probe::ErofsSupport;
use crate::overlay::request::Masked;
use crate::sys::userns::IdExtent;

fn able() -> Probe {
    Probe {
        overlay: true,
        trusted_xattrs: true,
        user_xattrs: true,
        lower_descriptors: true,
        lower_paths: true,
        volatile: true,
        id_maps: IdMapSupport::Detached,
        program: Some("/usr/bin/fuse-overlayfs".into()),
        ..Probe::nothing()
    }
}

fn request(lowers: &[&str], upper: bool) -> MountRequest {
    let mut request = MountRequest::new("/s/diffs", "/s/diffs/empty", XattrClass::Trusted);
    request.lowers = lowers.iter().map(|name| Path::new("/s/diffs").join(name)).collect();
    request.upper = upper.then(|| Upper { upper: "/s/diffs/9".into(), work: "/s/work/9".into() });
    request
}

fn strings(entry: &MountEntry) -> Vec<&str> {
    entry.options.iter().map(|option| option.to_str().unwrap()).collect()
}

const FORCED: [&str; 3] = ["redirect_dir=nofollow", "metacopy=off", "index=off"];

#[test]
fn the_newest_interface_wins_and_each_older_one_follows() {
    let both = request(&["2", "1"], true);
    let method = |probe: &Probe| plan(probe, &both).unwrap().method;
    let mut probe = able();
    assert_eq!(method(&probe), Method::Descriptors);
    probe.lower_descriptors = false;
    assert_eq!(method(&probe), Method::Paths);
    probe.lower_paths = false;
    assert_eq!(method(&probe), Method::OptionString);
    probe.overlay = false;
    assert_eq!(method(&probe), Method::Program("/usr/bin/fuse-overlayfs".into()));
    probe.program = None;
    assert!(matches!(plan(&probe, &both), Err(MountError::NoMethod)));
    let mut preferred = both.clone();
    preferred.prefer_program = true;
    assert!(matches!(plan(&able(), &preferred).unwrap().method, Method::Program(_)));
}

#[test]
fn attribute_classes_must_work_here() {
    let mut asked = request(&["2", "1"], true);
    let in_namespace = Probe { trusted_xattrs: false, ..able() };
    assert!(matches!(plan(&in_namespace, &asked), Err(MountError::XattrClass { .. })));
    asked.xattrs = XattrClass::User;
    assert!(plan(&in_namespace, &asked).unwrap().settings.contains(&("userxattr", None)));
    let neither = Probe { user_xattrs: false, ..in_namespace };
    assert!(matches!(plan(&neither, &asked).unwrap().method, Method::Program(_)));
    assert!(matches!(plan(&Probe { program: None, ..neither }, &asked), Err(MountError::XattrClass { .. })));
}

#[test]
fn stacks_too_small_for_the_kernel_get_the_empty_directory() {
    let lowers = |request: &MountRequest| {
        let plan = plan(&able(), request).unwrap();
        let names = plan.lowers.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(" "), plan.method == Method::Bind)
    };
    assert_eq!(lowers(&request(&["2", "1"], false)), ("2 1".into(), false));
    assert_eq!(lowers(&request(&["1"], false)), ("1 empty".into(), false));
    assert_eq!(lowers(&request(&["1"], true)), ("1".into(), false));
    assert_eq!(lowers(&request(&[], true)), ("empty".into(), false));
    assert_eq!(lowers(&request(&[], false)), ("empty".into(), true));
    assert_eq!(lowers(&request(&["empty"], false)), ("empty".into(), true));
    assert_eq!(lowers(&request(&["2", "1", "2", "0", "1"], false)), ("2 1 0".into(), false));
}

#[test]
fn read_only_shows_the_upper_directory_as_a_layer() {
    let mut asked = request(&["1"], true);
    asked.read_only = true;
    let by_flag = plan(&able(), &asked).unwrap();
    asked.read_only = false;
    asked.options = vec!["ro".to_owned()];
    let by_option = plan(&able(), &asked).unwrap();
    assert_eq!(by_flag, by_option);
    assert!(by_flag.is_read_only() && by_flag.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY));
    assert_eq!(by_flag.lowers(), [PathBuf::from("/s/diffs/9"), PathBuf::from("/s/diffs/1")]);
}

#[test]
fn options_that_break_the_rules_are_refused_with_the_reason() {
    for (option, word) in [
        ("redirect_dir=on", "renamed"),
        ("metacopy=on", "content"),
        ("index=on", "inode"),
        ("nfs_export=on", "inode"),
        ("verity=require", "metacopy"),
        ("uuid=on", "attribute"),
        ("userxattr", "layers were written"),
        ("lowerdir=/etc", "directories"),
        ("upperdir=/etc", "directories"),
        ("context=x", "label"),
        ("nodev,metacopy=on", "safe"),
        ("", "safe"),
        ("NODEV", "safe"),
    ] {
        let mut asked = request(&["1"], true);
        asked.options = vec![option.to_owned()];
        match plan(&able(), &asked) {
            Err(MountError::Option { option: named, reason }) => {
                assert!(named == option && reason.contains(word), "{option}: {reason}");
            }
            other => panic!("{option}: {other:?}"),
        }
    }
}

#[test]
fn labels_cannot_bring_options_in() {
    for bad in ["x\",upperdir=/etc,\"", "x\\", "x\ny"] {
        let mut asked = request(&["1"], true);
        asked.context = Some(bad.to_owned());
        assert!(matches!(plan(&able(), &asked), Err(MountError::Option { .. })), "{bad}");
    }
}

#[test]
fn allowed_options_arrive_once() {
    let mut asked = request(&["1"], true);
    asked.volatile = true;
    asked.options =
        ["nodev", "noatime", "relatime", "strictatime", "xino=on", "xino=off", "volatile", "metacopy=off"]
            .map(str::to_owned)
            .to_vec();
    let entry = plan(&able(), &asked).unwrap().entry(EntryPaths::Absolute).unwrap();
    let dirs = ["upperdir=/s/diffs/9", "workdir=/s/work/9", "lowerdir=/s/diffs/1"];
    assert_eq!(
        strings(&entry),
        [&["nodev", "strictatime"][..], &FORCED, &["volatile", "xino=off"], &dirs].concat()
    );
    let plain = Probe { volatile: false, ..able() };
    let entry = plan(&plain, &asked).unwrap().entry(EntryPaths::Absolute).unwrap();
    assert!(!strings(&entry).contains(&"volatile"));
}

#[test]
fn entries_for_callers_that_mount_by_themselves() {
    let entry = plan(&able(), &request(&["2", "1"], true)).unwrap().entry(EntryPaths::Relative).unwrap();
    assert_eq!((entry.kind.as_str(), entry.source.to_str()), ("overlay", Some("overlay")));
    assert_eq!(entry.directory.as_deref(), Some(Path::new("/s/diffs")));
    let dirs = ["upperdir=9", "workdir=/s/work/9", "lowerdir=2:1"];
    assert_eq!(strings(&entry), [&FORCED[..], &dirs].concat());

    let nothing = plan(&able(), &request(&[], false)).unwrap().entry(EntryPaths::Relative).unwrap();
    assert_eq!((nothing.kind.as_str(), nothing.source.to_str()), ("bind", Some("/s/diffs/empty")));
    assert_eq!(strings(&nothing), ["ro", "rbind"]);

    let mut mapped = request(&["a:b", "c,d\\e"], false);
    let extents =
        vec![IdExtent { inside: 0, outside: 7, count: 1 }, IdExtent { inside: 1, outside: 9, count: 2 }];
    let groups = vec![IdExtent { inside: 0, outside: 8, count: 3 }];
    mapped.id_map = Some(IdMaps { uids: extents, gids: groups });
    mapped.context = Some("u:r:t:s0:c1,c2".to_owned());
    let entry = plan(&able(), &mapped).unwrap().entry(EntryPaths::Absolute).unwrap();
    let rest = [
        "context=\"u:r:t:s0:c1,c2\"",
        "lowerdir=/s/diffs/a\\:b:/s/diffs/c\\,d\\\\e",
        "uidmap=0:7:1,1:9:2",
        "gidmap=0:8:3",
    ];
    assert_eq!(strings(&entry), [&["ro"][..], &FORCED, &rest].concat());
    // In parts, the directories and the ids are by themselves, and that nothing is written.
    let parts = plan(&able(), &mapped).unwrap().parts(Path::new("/s/diffs/empty"));
    assert_eq!(parts.options, [&FORCED[..], &rest[..1]].concat());
    assert_eq!((parts.lowers.len(), parts.upper), (2, None));
    // A kernel without SELinux would refuse the option, and a label that is none is refused by any.
    mapped.has_labels = false;
    let entry = plan(&able(), &mapped).unwrap().entry(EntryPaths::Absolute).unwrap();
    assert_eq!(strings(&entry), [&["ro"][..], &FORCED, &rest[1..]].concat());
    mapped.context = Some("a\"b".to_owned());
    assert!(matches!(plan(&able(), &mapped), Err(MountError::Option { .. })));
    let program = plan(&Probe { overlay: false, ..able() }, &request(&["1"], true)).unwrap();
    assert_eq!(program.entry(EntryPaths::Absolute).unwrap().kind, "fuse3.fuse-overlayfs");
}

#[test]
fn limits_and_relative_paths() {
    let names: Vec<String> = (1000..1500).map(|n| n.to_string()).collect();
    let mut asked = request(&names.iter().map(String::as_str).collect::<Vec<_>>(), true);
    let full = plan(&able(), &asked).unwrap();
    assert!(full.entry(EntryPaths::Relative).is_ok());
    assert!(matches!(full.entry(EntryPaths::Absolute), Err(MountError::OptionsTooLong { .. })));
    asked.read_only = true;
    assert!(matches!(plan(&able(), &asked), Err(MountError::TooManyLayers { count: 501, limit: 500 })));
    let mut asked = request(&["1"], true);
    asked.lowers.push("relative".into());
    assert!(matches!(plan(&able(), &asked), Err(MountError::NotAbsolute { .. })));
}

#[test]
fn id_maps_need_support_and_fall_back() {
    let mut asked = request(&["1"], true);
    let extents = vec![IdExtent { inside: 0, outside: 7, count: 1 }];
    asked.id_map = Some(IdMaps { uids: extents.clone(), gids: Vec::new() });
    assert!(matches!(plan(&able(), &asked), Err(MountError::IdMap { .. })));
    asked.id_map = Some(IdMaps { uids: extents.clone(), gids: extents });
    let support = |probe: &Probe| plan(probe, &asked).map(|plan| plan.id_map.unwrap().1);
    assert_eq!(support(&able()).unwrap(), IdMapSupport::Detached);
    assert_eq!(support(&Probe { lower_descriptors: false, ..able() }).unwrap(), IdMapSupport::Attached);
    let mut deep = asked.clone();
    deep.lowers = (0..257).map(|n| format!("/s/diffs/{n}").into()).collect();
    assert_eq!(plan(&able(), &deep).unwrap().id_map.unwrap().1, IdMapSupport::Attached);
    let none = Probe { id_maps: IdMapSupport::None, ..able() };
    assert!(matches!(support(&none), Err(MountError::IdMap { .. })));
    assert!(support(&Probe { overlay: false, ..none }).is_ok(), "the program maps ids by itself");
}

#[test]
fn an_image_is_the_lowest_layer_and_needs_a_kernel_that_copies_whole_files() {
    let able = Probe { privileged: true, erofs: ErofsSupport::File, data_lowers: true, ..able() };
    let (image, data) = (PathBuf::from("/s/image"), vec![PathBuf::from("/s/1"), PathBuf::from("/s/2")]);
    let mut request = MountRequest::new("/s", "/empty", XattrClass::Trusted);
    request.lowers = vec![image.clone()];
    request.images.insert(image.clone(), Built { image: image.clone(), data, verified: true });
    let made = plan(&able, &request).unwrap();
    assert_eq!((made.method, made.lowers), (Method::Descriptors, vec![image]), "nothing stands below it");
    assert!(made.settings.contains(&("metacopy", Some("off"))));
    assert!(made.settings.contains(&("verity", Some("require"))));
    let refused = |probe: Probe| match plan(&probe, &request) {
        Err(MountError::Composefs { reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused(Probe { data_lowers: false, ..able.clone() }).contains("metacopy=on"));
    assert!(refused(Probe { erofs: ErofsSupport::None, ..able.clone() }).contains("no EROFS"));
    assert!(
        refused(Probe { lower_descriptors: false, erofs: ErofsSupport::None, ..able.clone() })
            .contains("6.16")
    );
    assert!(refused(Probe { user_namespace: true, ..able.clone() }).contains("user namespace"));
    let by_program = MountRequest { prefer_program: true, ..request.clone() };
    let reason = plan(&able, &by_program).unwrap_err();
    assert!(matches!(reason, MountError::Composefs { reason: BY_PROGRAM }), "{reason}");
    // The directories of its files count.
    let mut deep = request.clone();
    deep.lowers.splice(..0, (0..498).map(|number| PathBuf::from(format!("/s/l{number}"))));
    assert!(matches!(plan(&able, &deep), Err(MountError::TooManyLayers { count: 501, .. })));
}

#[test]
fn modes_in_an_attribute_need_a_program() {
    let mut asked = request(&["2", "1"], true);
    asked.masked = Masked { any: true, upper: false };
    asked.prefer_program = true;
    let planned = |asked: &MountRequest| plan(&able(), asked);
    assert!(planned(&asked).unwrap().settings.iter().all(|(key, _)| *key != PERMISSIONS));
    asked.masked.upper = true;
    assert!(planned(&asked).unwrap().settings.contains(&(PERMISSIONS, Some("2"))));
    // Without one, this is what is wrong, whatever the kernel can do.
    for overlay in [true, false] {
        let none = plan(&Probe { program: None, overlay, ..able() }, &asked);
        assert!(matches!(none, Err(MountError::Masked { .. })), "{none:?}");
    }
    asked.prefer_program = false;
    assert!(matches!(planned(&asked), Err(MountError::Masked { .. })), "the kernel would show the mask");
}
