//! Layers that were written to through mounts of others: told `redirect_dir=on` or `metacopy=on`, or not told anything on a
//! kernel with such defaults, these leave things in the layers below. What comes out is the same as without.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use layerstore::{
    ApplyOptions, DiffOptions, Error, Layer, LayerId, LayerOptions, MountOptions, Store, UnmountMode,
};
use rustix::mount::MountFlags;

use crate::support::store::{assert_whole, changes, open, shown, shown_by_store};
use crate::support::tar::{Member, archive};
use crate::support::tree::Tree;
use crate::support::{Dir, TestCommand, machine};

/// What programs do in a container, in ways that the features are about.
const WORK: &str = "set -eu; test -n \"$1\"; cd \"$1\"
    mv d e; chmod 600 e/f; rm e/gone; echo more >> e/grown; mv e/s e/s2; chmod 711 e/s2
    mkdir d; echo new > d/own; mv opt d/opt; mv d/opt/sub e/moved; ln e/f d/hard
    rm -r r; mv q r; chmod 640 r/inner
    mv a tmp; mv b a; mv tmp b; chmod 4755 plain; mv plain e/plain
    mv links linked; mkdir fresh; mv fresh/../u/deep fresh/deep; rm -r u
    echo x > back/x
    touch -h -d @1000000000 e/grown d/own back/x";

/// The options of mounts in which the features are in effect.
const FEATURES: [&[&str]; 4] = [
    &["redirect_dir=on", "metacopy=on", "index=off"],
    &["redirect_dir=on", "metacopy=off", "index=off", "xino=on"],
    &["redirect_dir=on", "metacopy=off", "index=on", "nfs_export=on"],
    &["redirect_dir=on", "metacopy=on", "index=on"],
];

fn put(store: &Store, parent: Option<&LayerId>, name: &str, members: &[Member]) -> Layer {
    store.put_layer(parent, &LayerOptions::named(name), &*archive(members)).unwrap()
}

/// Two layers that have something of each other's directories.
fn base(store: &Store) -> Layer {
    let file = |path: &str| Member::file(path, path.as_bytes());
    let bottom = put(
        store,
        None,
        "bottom",
        &[
            Member::directory("d"),
            file("d/f").xattr("user.note", "kept"),
            file("d/gone"),
            file("d/grown"),
            file("d/old"),
            Member::directory("d/s").mode(0o750),
            file("d/s/g"),
            Member::directory("d/s/t"),
            file("d/s/t/below"),
            Member::directory("opt"),
            Member::directory("opt/sub"),
            file("opt/sub/x"),
            file("opt/y"),
            Member::directory("q"),
            file("q/inner"),
            Member::directory("r"),
            file("r/was"),
            Member::directory("a"),
            file("a/1"),
            Member::directory("b"),
            file("b/2"),
            file("plain"),
            Member::directory("links"),
            file("links/1"),
            Member::hard_link("links/2", "links/1"),
            Member::symlink("links/symlink", "1"),
            Member::fifo("links/fifo"),
            Member::directory("u"),
            Member::directory("u/deep"),
            file("u/deep/z"),
            Member::directory("back"),
            file("back/again"),
        ],
    );
    put(
        store,
        Some(&bottom.id),
        "base",
        &[
            Member::directory("d"),
            file("d/top"),
            Member::whiteout("d/old"),
            Member::directory("d/s/t"),
            Member::opaque("d/s/t"),
            file("d/s/t/above"),
            file("opt/z"),
        ],
    )
}

/// Mounts a layer as a program does that goes its own ways about the options.
fn mount_by_hand(store: &Store, layer: &Layer, at: &Path, features: &[&str]) -> Result<(), String> {
    let entry = store.mount_entry(layer, &MountOptions::default()).unwrap();
    let ours = ["redirect_dir=", "metacopy=", "index="];
    let is_ours = |option: &OsString| ours.iter().any(|key| option.as_bytes().starts_with(key.as_bytes()));
    let mut options: Vec<OsString> = features.iter().map(OsString::from).collect();
    options.extend(entry.options.into_iter().filter(|option| features.is_empty() || !is_ours(option)));
    if features.is_empty() {
        options.extend(ours.iter().map(|key| format!("{key}off").replace("dir=off", "dir=nofollow").into()));
    }
    let options = std::ffi::CString::new(options.join(std::ffi::OsStr::new(",")).as_bytes()).unwrap();
    rustix::mount::mount("overlay", at, "overlay", MountFlags::empty(), Some(&*options))
        .map_err(|error| format!("the kernel takes no {}: {error}", features.join(",")))
}

fn diff(store: &Store, layer: &Layer) -> Vec<u8> {
    let mut tar = Vec::new();
    store.diff(layer, &mut tar).unwrap();
    tar
}

/// Whether an upper directory has something that a plain one has not.
fn leaves_below(store: &Store, layer: &Layer) -> bool {
    let entry = store.mount_entry(layer, &MountOptions::default()).unwrap();
    let options = entry.options.iter().map(|option| option.to_str().unwrap());
    let upper = options.filter_map(|option| option.strip_prefix("upperdir=")).next().unwrap().to_owned();
    let names = TestCommand::new("getfattr").args(["-R", "-P", "-h", "-m", "overlay.(redirect|metacopy)"]);
    !names.arg(upper).stdout().is_empty()
}

/// A layer that has done its work through a mount with these options, and what that mount showed.
fn worked(
    dir: &Dir,
    store: &Store,
    base: &LayerId,
    features: &[&str],
    work: &str,
) -> Result<(Layer, Tree), String> {
    let layer = store.create_layer(base, &LayerOptions::default()).unwrap();
    let at = dir.create_dir("by-hand");
    mount_by_hand(store, &layer, &at, features)?;
    TestCommand::new("sh").args(["-c", work, "sh"]).arg(&at).assert_success();
    let tree = shown(&at);
    machine::unmount(&at);
    Ok((layer, tree))
}

/// Why nothing can be tried here.
fn reason_to_skip() -> Option<&'static str> {
    if !machine::is_root() {
        return Some("mounting needs root or a user namespace");
    }
    (!machine::has_program("getfattr")).then_some("there is no getfattr")
}

#[test]
fn what_foreign_mounts_leave_below_comes_out() {
    if let Some(why) = reason_to_skip() {
        skip!("{why}");
    }
    let dir = Dir::new("foreign-mounts");
    let store = open(&dir);
    let base = base(&store);
    let (plain, expected) = worked(&dir, &store, &base.id, &[], WORK).unwrap();
    assert!(store.native_diff(&plain).unwrap().native);
    assert!(!leaves_below(&store, &plain));
    let mut refused = Vec::new();
    for features in FEATURES {
        let (layer, tree) = match worked(&dir, &store, &base.id, features, WORK) {
            Ok(worked) => worked,
            Err(why) => {
                refused.push(why);
                continue;
            }
        };
        expected.assert_same(&tree);
        assert!(leaves_below(&store, &layer), "{features:?}");
        let native = store.native_diff(&layer).unwrap();
        assert!(!native.native && native.reason.contains("layers below"), "{native:?}");
        assert_eq!(changes(&store, &layer), changes(&store, &plain), "{features:?}");
        assert_eq!(store.diff_size(&layer, None).unwrap(), store.diff_size(&plain, None).unwrap());
        assert_eq!(store.changes_since(&layer, &plain).unwrap(), [], "{features:?}");
        assert_eq!(store.changes_since(&plain, &layer).unwrap(), [], "{features:?}");
        let tar = diff(&store, &layer);
        let again = store.put_layer(&base.id, &LayerOptions::default(), &*tar).unwrap();
        expected.assert_same(&shown_by_store(&store, &again));
        // Against anything else, too: a layer further down, and back.
        let mut since = Vec::new();
        let bottom = store.layer("bottom").unwrap();
        store.diff_with(&layer, &DiffOptions::since(&bottom), &mut since).unwrap();
        let on_bottom = store.put_layer(&bottom.id, &LayerOptions::default(), &*since).unwrap();
        expected.assert_same(&shown_by_store(&store, &on_bottom));
        since.clear();
        store.diff_with(&bottom, &DiffOptions::since(&layer), &mut since).unwrap();
        let back = store.put_layer(&on_bottom.id, &LayerOptions::default(), &*since).unwrap();
        shown_by_store(&store, &bottom).assert_same(&shown_by_store(&store, &back));
        let mut since = Vec::new();
        store.diff_with(&layer, &DiffOptions::since(&again), &mut since).unwrap();
        assert!(since.iter().all(|byte| *byte == 0), "nothing differs");
        // What is sealed is a plain changeset.
        let sealed = store.seal(&layer.id).unwrap();
        expected.assert_same(&shown_by_store(&store, &sealed));
        assert_eq!(changes(&store, &sealed), changes(&store, &plain));
        assert_eq!(diff(&store, &sealed), tar, "{features:?}");
    }
    assert_whole(&store);
    if !refused.is_empty() {
        crate::support::machine::note_skip(&format!("in part: {}", refused.join("; ")));
    }
}

#[test]
fn settled_layers_are_mounted_and_changed_as_ever() {
    if let Some(why) = reason_to_skip() {
        skip!("{why}");
    }
    let dir = Dir::new("settled");
    let store = open(&dir);
    let base = base(&store);
    let (layer, expected) = match worked(&dir, &store, &base.id, FEATURES[0], WORK) {
        Ok(worked) => worked,
        Err(why) => skip!("{why}"),
    };
    // A copy stands for itself, and what is applied lies above what was left below.
    let mut options = LayerOptions::default();
    options.template = Some(layer.id.clone());
    let copy = store.create_layer(&base.id, &options).unwrap();
    assert!(!leaves_below(&store, &copy));
    expected.assert_same(&shown_by_store(&store, &copy));
    let added = archive(&[Member::file("e/s2/added", b"added")]);
    store.apply_diff(&copy.id, &*added, &ApplyOptions::default()).unwrap();
    let tree = shown_by_store(&store, &copy);
    assert!(tree.get("e/s2/added").is_some() && tree.get("e/s2/t/above").is_some());

    assert!(store.settle(&layer.id).unwrap());
    assert!(!store.settle(&layer.id).unwrap(), "there is nothing left");
    assert!(!leaves_below(&store, &layer));
    expected.assert_same(&shown_by_store(&store, &layer));
    let mount = store.mount(&layer, &MountOptions::default()).unwrap();
    std::fs::write(mount.path().join("e/f"), "written").unwrap();
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    assert_eq!(shown_by_store(&store, &copy).get("e/f"), expected.get("e/f"), "the copy has its own files");
    assert_whole(&store);
}

#[test]
fn renames_in_layers_on_layers_that_are_written_to_are_followed() {
    if let Some(why) = reason_to_skip() {
        skip!("{why}");
    }
    let dir = Dir::new("foreign-stack");
    let store = open(&dir);
    let base = base(&store);
    let again =
        "set -eu; test -n \"$1\"; cd \"$1\"; mv e f; mv f/s2/t up; chmod 644 f/f; mv d/opt opt; rm -r d";
    let lower = match worked(&dir, &store, &base.id, FEATURES[0], WORK) {
        Ok((layer, _)) => layer,
        Err(why) => skip!("{why}"),
    };
    let (upper, expected) = worked(&dir, &store, &lower.id, FEATURES[0], again).unwrap();
    let (plain_lower, _) = worked(&dir, &store, &base.id, &[], WORK).unwrap();
    let (plain, plain_tree) = worked(&dir, &store, &plain_lower.id, &[], again).unwrap();
    expected.assert_same(&plain_tree);
    assert_eq!(changes(&store, &upper), changes(&store, &plain));
    assert_eq!(store.changes_since(&upper, &plain).unwrap(), []);
    let tar = diff(&store, &upper);
    let applied = store.put_layer(&plain_lower.id, &LayerOptions::default(), &*tar).unwrap();
    expected.assert_same(&shown_by_store(&store, &applied));
    store.seal(&lower.id).unwrap();
    assert_eq!(changes(&store, &upper), changes(&store, &plain), "the layer below has another form now");
    assert!(store.settle(&upper.id).unwrap());
    expected.assert_same(&shown_by_store(&store, &upper));
}

/// Names of one file below stay names of one file in a mount with an index, though the directory has only those that were
/// written to.
#[test]
fn names_that_an_index_keeps_together_come_out() {
    if let Some(why) = reason_to_skip() {
        skip!("{why}");
    }
    let dir = Dir::new("foreign-index");
    let store = open(&dir);
    let names = [
        Member::directory("a"),
        Member::file("a/1", b"one"),
        Member::hard_link("a/2", "a/1"),
        Member::directory("b"),
        Member::hard_link("b/3", "a/1"),
        Member::directory("c"),
        Member::file("c/4", b"four"),
        Member::hard_link("c/5", "c/4"),
        Member::hard_link("c/6", "c/4"),
        Member::directory("r"),
        Member::file("r/7", b"seven"),
        Member::hard_link("r/8", "r/7"),
    ];
    let base = put(&store, None, "base", &names);
    // The last of the names is written to, one is removed, a directory of them is renamed, as is one of the names.
    let work = "set -eu; test -n \"$1\"; cd \"$1\"; echo more >> b/3; rm c/5; echo x >> c/6; echo y >> r/8; mv r/8 r8; ln b/3 b/new
        touch -d @1000000000 b/3 c/6 r8";
    let redirects = "set -eu; test -n \"$1\"; cd \"$1\"; mv a moved; echo more >> b/3; touch -d @1000000000 b/3; chmod 600 c/5";
    for (features, work) in [
        (&["index=on", "redirect_dir=nofollow", "metacopy=off"][..], work),
        (&["index=on", "redirect_dir=on", "metacopy=on"], redirects),
    ] {
        let (layer, expected) = match worked(&dir, &store, &base.id, features, work) {
            Ok(worked) => worked,
            Err(why) => skip!("{why}"),
        };
        let content = |path: &str| expected.get(path).map(|node| &node.kind);
        if content("b/3") != content("a/1").or(content("moved/1")) {
            skip!("the kernel takes index=on, and keeps no index");
        }
        assert!(!store.native_diff(&layer).unwrap().native, "{features:?}");
        assert_comes_out(&store, &base, &layer, &expected);
    }
    assert_whole(&store);
}

/// What the mount of a layer showed is in its diff, and in the layer once it is sealed.
#[track_caller]
fn assert_comes_out(store: &Store, base: &Layer, layer: &Layer, expected: &Tree) {
    let tar = diff(store, layer);
    let again = store.put_layer(&base.id, &LayerOptions::default(), &*tar).unwrap();
    expected.assert_same(&shown_by_store(store, &again));
    assert_eq!(store.changes_since(layer, &again).unwrap(), []);
    let sealed = store.seal(&layer.id).unwrap();
    expected.assert_same(&shown_by_store(store, &sealed));
    assert!(store.native_diff(&sealed).unwrap().native);
    assert_eq!(diff(store, &sealed), tar);
}

/// A mount with `index=on` shows what was written to a file through one of its names under the others after that name was
/// removed, too: the index in the workdir alone has it then.
#[test]
fn what_only_an_index_has_is_not_lost() {
    if !machine::is_real_root() {
        skip!("the kernel takes index=on from root only");
    }
    let dir = Dir::new("kept-by-index");
    let store = open(&dir);
    let names = [
        Member::file("a", b"old"),
        Member::hard_link("b", "a"),
        Member::directory("c"),
        Member::file("c/1", b"one"),
        Member::hard_link("c/2", "c/1"),
        Member::file("gone", b"gone"),
        Member::hard_link("gone-too", "gone"),
        Member::symlink("s", "a"),
        Member::hard_link("t", "s"),
        Member::file("x", b"ex"),
        Member::hard_link("y", "x"),
        Member::hard_link("z", "x"),
    ];
    let base = put(&store, None, "base", &names);
    let work = "set -eu; test -n \"$1\"; cd \"$1\"; echo new > b; rm b; echo two > c/2; rm c/2; echo x > gone; rm gone gone-too
        chown -h 5:6 t; rm t; touch -d @1000000000 a c/1";
    // With a renamed directory around one of the names, and with files that have only another mode.
    let redirects = "set -eu; test -n \"$1\"; cd \"$1\"; echo new > b; rm b; touch -d @1000000000 a; echo two > c/2; rm c/2; mv c d
        chmod 600 y; rm y";
    for (features, work, changed) in [
        (&["index=on", "redirect_dir=nofollow", "metacopy=off"][..], work, "/a"),
        (&["index=on", "redirect_dir=on", "metacopy=off"], redirects, "/a"),
        (&["index=on", "redirect_dir=on", "metacopy=on"], redirects, "/x"),
    ] {
        let (layer, expected) = match worked(&dir, &store, &base.id, features, work) {
            Ok(worked) => worked,
            Err(why) => skip!("{why}"),
        };
        let told = changes(&store, &layer);
        assert!(told.contains(&format!("C {changed}")), "{features:?}: {told:?}");
        assert!(!store.native_diff(&layer).unwrap().native, "{features:?}");
        assert_comes_out(&store, &base, &layer, &expected);
    }
    assert_whole(&store);
}

/// What a redirect names is looked for among what the layers below show, and nowhere else.
#[test]
fn redirects_that_a_layer_brings_lead_nowhere() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("hostile-redirects");
    let store = open(&dir);
    let base = put(&store, None, "base", &[Member::directory("secret"), Member::file("secret/key", b"key")]);
    let mut members = vec![Member::directory("secret"), Member::opaque("secret")];
    for class in ["trusted", "user"] {
        let attribute = |name: &str| format!("{class}.overlay.{name}");
        members
            .push(Member::directory(format!("{class}-directory")).xattr(&attribute("redirect"), "/secret"));
        members.push(
            Member::file(format!("{class}-file"), b"")
                .xattr(&attribute("metacopy"), "")
                .xattr(&attribute("redirect"), "/secret/key"),
        );
    }
    let hostile = put(&store, Some(&base.id), "hostile", &members);
    let above = store.create_layer(&hostile.id, &LayerOptions::default()).unwrap();
    let at = dir.create_dir("by-hand");
    let features: &[&[&str]] = &[&[], FEATURES[0]];
    for features in features {
        if mount_by_hand(&store, &above, &at, features).is_err() {
            continue;
        }
        for class in ["trusted", "user"] {
            let listed = std::fs::read_dir(at.join(format!("{class}-directory"))).unwrap().count();
            assert_eq!(listed, 0, "{class} {features:?}");
            assert_eq!(std::fs::read(at.join(format!("{class}-file"))).unwrap(), b"", "{class} {features:?}");
        }
        machine::unmount(&at);
    }
    let listed: Vec<String> =
        store.changes_since(&hostile, &base).unwrap().iter().map(ToString::to_string).collect();
    assert!(!listed.iter().any(|line| line.contains("directory/")), "{listed:?}");
    let unsealed = store.unseal(&hostile.id);
    assert!(matches!(unsealed, Err(Error::InUse(_))), "another layer stands on it");
    store.remove_layer(&above.id).unwrap();
    store.unseal(&hostile.id).unwrap();
    assert!(!store.settle(&hostile.id).unwrap(), "nothing was left below");
    let sealed = store.seal(&hostile.id).unwrap();
    assert_eq!(sealed.tree, hostile.tree);
}
