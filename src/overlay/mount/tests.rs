use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use tempfile::TempDir;

use super::*;
use crate::overlay::options::plan;
use crate::overlay::probe::{Probe, probe};
use crate::overlay::request::{MountRequest, XattrClass};
use crate::sys::userns::{IdExtent, IdMaps};

/// A directory as a store has it, with mounts that end with the test.
struct Fixture {
    _directory: TempDir,
    root: PathBuf,
    probe: Probe,
    class: XattrClass,
}

impl Fixture {
    /// `None`, with the reason printed, where nothing can be mounted.
    fn new() -> Option<Fixture> {
        Fixture::named("store")
    }

    fn named(name: &str) -> Option<Fixture> {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap().join(name);
        fs::create_dir(&root).unwrap();
        for part in ["diffs/empty", "work", "mnt", "scratch"] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        let (mut probe, _) = probe(&root.join("scratch")).unwrap();
        probe.program = program::find();
        if !probe.overlay {
            eprintln!("skipped: no right to make overlay mounts here");
            return None;
        }
        let class = if probe.trusted_xattrs { XattrClass::Trusted } else { XattrClass::User };
        Some(Fixture { _directory: directory, root, probe, class })
    }

    /// A layer with files, `(path, content)`.
    fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let directory = self.root.join("diffs").join(name);
        fs::create_dir(&directory).unwrap();
        for (path, content) in files {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        directory
    }

    fn upper(&self, name: &str) -> Upper {
        let upper =
            Upper { upper: self.root.join("diffs").join(name), work: self.root.join("work").join(name) };
        fs::create_dir(&upper.upper).unwrap();
        fs::create_dir(&upper.work).unwrap();
        upper
    }

    fn request(&self, lowers: &[&PathBuf]) -> MountRequest {
        let mut request =
            MountRequest::new(self.root.join("diffs"), self.root.join("diffs/empty"), self.class);
        request.lowers = lowers.iter().map(|lower| (*lower).clone()).collect();
        request
    }

    fn try_mount(&self, request: &MountRequest, name: &str) -> Result<PathBuf, MountError> {
        let target = self.root.join("mnt").join(name);
        fs::create_dir_all(&target).unwrap();
        mount(&plan(&self.probe, request)?, &target)?;
        Ok(target)
    }

    fn mount(&self, request: &MountRequest, name: &str) -> PathBuf {
        self.try_mount(request, name).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// This probe, made to say that the kernel is older.
    fn older(&self, change: impl FnOnce(&mut Probe)) -> Fixture {
        let mut probe = self.probe.clone();
        change(&mut probe);
        let directory = tempfile::tempdir().unwrap();
        Fixture { _directory: directory, root: self.root.clone(), probe, class: self.class }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for mount in mounts_below(&self.root.join("mnt")).unwrap_or_default() {
            drop(unmount(&mount.target, UnmountMode::Detach));
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

/// Writes, removes and replaces through a mount of two layers, and looks at what lands in the upper directory.
fn changes_land_in_the_upper(fixture: &Fixture, name: &str) {
    let make = |part: &str, files: &[(&str, &str)]| fixture.layer(&format!("{name}-{part}"), files);
    let bottom = make("bottom", &[("a", "old"), ("gone", "x"), ("dir/below", "x"), ("kept", "bottom")]);
    let top = make("top", &[("kept", "top"), ("b", "top")]);
    let upper = fixture.upper(&format!("{name}-upper"));
    let mut request = fixture.request(&[&top, &bottom]);
    request.upper = Some(upper.clone());
    let merged = fixture.mount(&request, name);

    assert!(is_mounted(&merged).unwrap());
    assert_eq!((read(merged.join("kept")), read(merged.join("a"))), ("top".into(), "old".into()));
    fs::write(merged.join("a"), "new").unwrap();
    fs::write(merged.join("created"), "1").unwrap();
    fs::remove_file(merged.join("gone")).unwrap();
    fs::remove_dir_all(merged.join("dir")).unwrap();
    fs::create_dir(merged.join("dir")).unwrap();

    assert_eq!((read(upper.upper.join("a")), read(upper.upper.join("created"))), ("new".into(), "1".into()));
    assert_eq!(read(bottom.join("a")), "old");
    assert!(!merged.join("gone").exists() && !merged.join("dir/below").exists());
    if !matches!(plan(&fixture.probe, &request).unwrap().method, Method::Program(_)) {
        let whiteout = fs::symlink_metadata(upper.upper.join("gone")).unwrap();
        assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
        let opaque = format!("{}opaque", fixture.class.prefix());
        assert_eq!(attribute(&upper.upper.join("dir"), &opaque).as_deref(), Some(&b"y"[..]));
        let renamed = fs::rename(merged.join("dir"), merged.join("dir2"));
        assert!(renamed.is_ok(), "a directory of the upper alone can be renamed");
    }
    unmount(&merged, UnmountMode::Plain).unwrap();
    assert!(!is_mounted(&merged).unwrap() && !merged.join("a").exists());
}

#[test]
fn changes_land_in_the_upper_directory() {
    let Some(fixture) = Fixture::new() else { return };
    changes_land_in_the_upper(&fixture, "new");
    let by_path = fixture.older(|probe| probe.lower_descriptors = false);
    changes_land_in_the_upper(&by_path, "path");
    let by_string = by_path.older(|probe| probe.lower_paths = false);
    changes_land_in_the_upper(&by_string, "string");
}

#[test]
fn the_user_class_works_for_root_too() {
    let Some(mut fixture) = Fixture::new() else { return };
    if !fixture.probe.user_xattrs {
        return eprintln!("skipped: the filesystem keeps no user attributes");
    }
    fixture.class = XattrClass::User;
    changes_land_in_the_upper(&fixture, "user");
}

#[test]
fn a_program_mounts_where_the_kernel_cannot() {
    let Some(fixture) = Fixture::new() else { return };
    if fixture.probe.program.is_none() {
        return eprintln!("skipped: no fuse-overlayfs that could use /dev/fuse");
    }
    changes_land_in_the_upper(&fixture.older(|probe| probe.overlay = false), "program");
}

#[test]
fn odd_names_reach_the_kernel_as_they_are() {
    for name in
        ["with space", "a,b", "a:b", "back\\slash", "new\nline", "\\,:\\", "quote\"", &"long".repeat(60)]
    {
        let Some(fixture) = Fixture::named(name) else { return };
        changes_land_in_the_upper(&fixture, name);
        let by_path = fixture.older(|probe| probe.lower_descriptors = false);
        changes_land_in_the_upper(&by_path, &format!("{name}2"));
        // Each mount point and layer has the odd name too, so nothing is saved by relative paths.
        let by_string = by_path.older(|probe| probe.lower_paths = false);
        changes_land_in_the_upper(&by_string, &format!("{name}3"));
        if fixture.probe.program.is_some() {
            let by_program = fixture.older(|probe| probe.overlay = false);
            if name.contains(':') {
                let mut request = by_program.request(&[]);
                request.upper = Some(by_program.upper("upper"));
                let error = by_program.try_mount(&request, "program").unwrap_err();
                assert!(error.to_string().contains("colon"), "{error}");
            } else {
                changes_land_in_the_upper(&by_program, &format!("{name}4"));
            }
        }
    }
}

#[test]
fn five_hundred_layers() {
    let Some(fixture) = Fixture::new() else { return };
    let content =
        |n: usize| [("own".to_owned() + &n.to_string(), n.to_string()), ("all".to_owned(), n.to_string())];
    let layers: Vec<PathBuf> = (0..501)
        .map(|n| {
            let files = content(n);
            let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            fixture.layer(&n.to_string(), &files)
        })
        .collect();
    let lowers: Vec<&PathBuf> = layers.iter().take(500).collect();
    for (name, probe) in
        [("descriptors", fixture.older(|_| {})), ("paths", fixture.older(|p| p.lower_descriptors = false))]
    {
        let mut request = probe.request(&lowers);
        let view = probe.mount(&request, &format!("{name}-view"));
        assert_eq!((read(view.join("own499")), read(view.join("all"))), ("499".into(), "0".into()));
        request.upper = Some(probe.upper(&format!("{name}-upper")));
        let merged = probe.mount(&request, name);
        fs::write(merged.join("own499"), "changed").unwrap();
        assert_eq!(read(merged.join("own499")), "changed");
    }
    // Short names below the base: 500 layers fit into the page of mount(2).
    let old = fixture.older(|p| (p.lower_descriptors, p.lower_paths) = (false, false));
    let mut request = old.request(&lowers);
    assert_eq!(read(old.mount(&request, "string-view").join("own499")), "499");
    request.upper = Some(old.upper("string-upper"));
    let merged = old.mount(&request, "string");
    fs::write(merged.join("own499"), "changed").unwrap();
    assert_eq!((read(merged.join("own499")), read(merged.join("own498"))), ("changed".into(), "498".into()));

    let all: Vec<&PathBuf> = layers.iter().collect();
    let error = fixture.try_mount(&fixture.request(&all), "more").unwrap_err();
    assert!(matches!(error, MountError::TooManyLayers { count: 501, limit: 500 }), "{error}");
}

#[test]
fn names_that_fill_a_page_go_by_number_and_what_is_left_is_refused_with_its_length() {
    let Some(fixture) = Fixture::new() else { return };
    let old = fixture.older(|p| (p.lower_descriptors, p.lower_paths) = (false, false));
    let long = |n: usize| format!("{}{n}", "x".repeat(200));
    let layers: Vec<PathBuf> = (0..30)
        .map(|n| fixture.layer(&long(n), &[(&n.to_string(), "own"), ("all", &n.to_string())]))
        .collect();
    let mut request = old.request(&layers.iter().collect::<Vec<_>>());
    assert!(plan(&old.probe, &request).unwrap().option_string(EntryPaths::Relative).len() > MOUNT_DATA_MAX);
    let before = std::env::current_dir().unwrap();
    let view = old.mount(&request, "long-view");
    assert_eq!((read(view.join("29")), read(view.join("all"))), ("own".into(), "0".into()));
    assert_eq!(std::env::current_dir().unwrap(), before);
    request.upper = Some(old.upper("long-upper"));
    let merged = old.mount(&request, "long");
    fs::write(merged.join("29"), "changed").unwrap();
    assert_eq!((read(merged.join("29")), read(layers[29].join("29"))), ("changed".into(), "own".into()));

    let deep = (0..12).fold(fixture.root.clone(), |path, n| path.join(long(n)));
    let (upper, work) = (deep.join("upper"), deep.join("work"));
    [&upper, &work].iter().for_each(|path| fs::create_dir_all(path).unwrap());
    request.upper = Some(Upper { upper, work });
    let error = old.try_mount(&request, "too-long").unwrap_err();
    assert!(matches!(error, MountError::OptionsTooLong { length: 4096.., limit: 4095 }), "{error}");
}

#[test]
fn views_refuse_writes_and_show_no_marks() {
    let Some(fixture) = Fixture::new() else { return };
    let layer = fixture.layer("one", &[("file", "1"), ("hidden", "x")]);
    fs::remove_file(layer.join("hidden")).unwrap();
    rustix::fs::mknodat(CWD, layer.join("hidden"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let single = fixture.mount(&fixture.request(&[&layer]), "single");
    assert_eq!(read(single.join("file")), "1");
    assert!(fs::symlink_metadata(single.join("hidden")).is_err());
    let error = fs::write(single.join("new"), "x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);

    let old = fixture.older(|p| (p.lower_descriptors, p.lower_paths) = (false, false));
    for (name, fixture) in [("nothing", &fixture), ("nothing-call", &old)] {
        let nothing = fixture.mount(&fixture.request(&[]), name);
        assert_eq!(fs::read_dir(&nothing).unwrap().count(), 0);
        assert_eq!(
            fs::write(nothing.join("new"), "x").unwrap_err().kind(),
            io::ErrorKind::ReadOnlyFilesystem
        );
        assert!(mounts_below(&nothing).unwrap().iter().all(|mount| !mount.propagates));
        unmount(&nothing, UnmountMode::Plain).unwrap();
    }

    let mut request = fixture.request(&[&layer]);
    request.upper = Some(fixture.upper("written"));
    let merged = fixture.mount(&request, "merged");
    fs::write(merged.join("file"), "2").unwrap();
    unmount(&merged, UnmountMode::Plain).unwrap();
    request.options = vec!["ro".to_owned()];
    let look = fixture.mount(&request, "look");
    assert_eq!(read(look.join("file")), "2");
    assert!(fs::write(look.join("file"), "3").is_err());
}

#[test]
fn a_layer_without_parent_and_a_directory_named_twice() {
    let Some(fixture) = Fixture::new() else { return };
    let mut request = fixture.request(&[]);
    request.upper = Some(fixture.upper("alone"));
    let merged = fixture.mount(&request, "alone");
    fs::write(merged.join("file"), "1").unwrap();
    assert_eq!(read(fixture.root.join("diffs/alone/file")), "1");

    let twice = fixture.layer("twice", &[("file", "twice")]);
    let between = fixture.layer("between", &[("file", "between"), ("other", "1")]);
    let view = fixture.mount(&fixture.request(&[&twice, &between, &twice]), "view");
    assert_eq!((read(view.join("file")), read(view.join("other"))), ("twice".into(), "1".into()));
}

#[test]
fn escaped_attributes_come_out_unescaped() {
    let Some(fixture) = Fixture::new() else { return };
    if !fixture.probe.xattr_escape {
        return eprintln!("skipped: this kernel unescapes no attributes");
    }
    let layer = fixture.layer("escaped", &[("dir/file", "1")]);
    let prefix = fixture.class.prefix();
    let on_disk = format!("{prefix}overlay.opaque");
    rustix::fs::lsetxattr(layer.join("dir"), on_disk.as_str(), b"y", XattrFlags::empty()).unwrap();
    let below = fixture.layer("below", &[("dir/below", "1")]);
    let view = fixture.mount(&fixture.request(&[&layer, &below]), "view");
    assert_eq!(attribute(&view.join("dir"), &format!("{prefix}opaque")).as_deref(), Some(&b"y"[..]));
    assert_eq!(read(view.join("dir/below")), "1", "an escaped mark means nothing to this mount");
}

#[test]
fn a_volatile_mount_leaves_a_mark_until_it_is_cleared() {
    let Some(fixture) = Fixture::new() else { return };
    if !fixture.probe.volatile {
        return eprintln!("skipped: this kernel has no volatile mounts");
    }
    let layer = fixture.layer("layer", &[("file", "1")]);
    let upper = fixture.upper("upper");
    let mut request = fixture.request(&[&layer]);
    request.upper = Some(upper.clone());
    request.volatile = true;
    let merged = fixture.mount(&request, "volatile");
    fs::write(merged.join("file"), "2").unwrap();
    unmount(&merged, UnmountMode::Plain).unwrap();
    let error = fixture.try_mount(&request, "volatile").unwrap_err();
    assert!(matches!(&error, MountError::VolatileLeft { work } if *work == upper.work), "{}", chain(&error));
    clear_volatile_mark(&upper.work).unwrap();
    clear_volatile_mark(&upper.work).unwrap();
    assert_eq!(read(fixture.mount(&request, "volatile").join("file")), "2");
}

fn shows_mapped_ids(fixture: &Fixture, name: &str) {
    let extent = vec![IdExtent { inside: 0, outside: 100_000, count: 1000 }];
    let layers = ["top", "bottom"].map(|part| fixture.layer(&format!("{name}-{part}"), &[(part, "1")]));
    std::os::unix::fs::chown(layers[1].join("bottom"), Some(5), Some(6)).unwrap();
    let upper = fixture.upper(&format!("{name}-upper"));
    std::os::unix::fs::chown(&upper.upper, Some(100_000), Some(100_000)).unwrap();
    let mut request = fixture.request(&[&layers[0], &layers[1]]);
    request.id_map = Some(IdMaps { uids: extent.clone(), gids: extent });
    request.upper = Some(upper.clone());
    let merged = fixture.mount(&request, name);
    let owner = |path: PathBuf| fs::metadata(path).map(|metadata| (metadata.uid(), metadata.gid())).unwrap();
    assert_eq!(owner(merged.join("top")), (100_000, 100_000));
    assert_eq!(owner(merged.join("bottom")), (100_005, 100_006));
    assert_eq!(owner(layers[1].join("bottom")), (5, 6));
    fs::write(merged.join("bottom"), "2").unwrap();
    assert_eq!(owner(upper.upper.join("bottom")), (100_005, 100_006));
    unmount(&merged, UnmountMode::Plain).unwrap();
}

#[test]
fn layers_show_mapped_ids() {
    let Some(fixture) = Fixture::new() else { return };
    if fixture.probe.id_maps == IdMapSupport::None {
        let mut request = fixture.request(&[]);
        request.upper = Some(fixture.upper("upper"));
        let extent = vec![IdExtent { inside: 0, outside: 0, count: 1 }];
        request.id_map = Some(IdMaps { uids: extent.clone(), gids: extent });
        assert!(matches!(fixture.try_mount(&request, "none"), Err(MountError::IdMap { .. })));
        return eprintln!("skipped: no id-mapped mounts here");
    }
    shows_mapped_ids(&fixture, "first");
    let attached = fixture.older(|probe| probe.id_maps = IdMapSupport::Attached);
    shows_mapped_ids(&attached, "attached");
    let by_path = attached.older(|probe| probe.lower_descriptors = false);
    shows_mapped_ids(&by_path, "path");
    shows_mapped_ids(&by_path.older(|probe| probe.lower_paths = false), "string");
    let own: Vec<_> =
        info::read().unwrap().into_iter().filter(|m| m.target.starts_with(&fixture.root)).collect();
    assert_eq!(own, [], "a mapped layer is still mounted");
}

#[test]
fn busy_mounts_name_their_holders_and_can_be_detached() {
    let Some(fixture) = Fixture::new() else { return };
    let layer = fixture.layer("layer", &[("file", "1")]);
    let target = fixture.mount(&fixture.request(&[&layer]), "busy");
    let error = fixture.try_mount(&fixture.request(&[&layer]), "busy").unwrap_err();
    assert!(matches!(error, MountError::AlreadyMounted { .. }), "{error}");
    let held = fs::File::open(target.join("file")).unwrap();
    let error = unmount(&target, UnmountMode::Plain).unwrap_err();
    let MountError::Busy { holders, .. } = &error else { panic!("{}", chain(&error)) };
    let this_process = format!("process {} (", std::process::id());
    assert!(holders.iter().any(|holder| holder.starts_with(&this_process)), "{error}");
    unmount(&target, UnmountMode::Detach).unwrap();
    assert!(!is_mounted(&target).unwrap());
    assert_eq!(io::read_to_string(held).unwrap(), "1");
    assert!(matches!(unmount(&target, UnmountMode::Plain), Err(MountError::NotMounted { .. })));
}

#[test]
fn mounts_below_come_last_first_and_are_private() {
    let Some(fixture) = Fixture::new() else { return };
    let layer = fixture.layer("layer", &[("inner/file", "1")]);
    let outer = fixture.mount(&fixture.request(&[&layer]), "outer dir");
    mount(&plan(&fixture.probe, &fixture.request(&[&layer])).unwrap(), &outer.join("inner")).unwrap();
    let mounts = mounts_below(&fixture.root.join("mnt")).unwrap();
    let targets: Vec<&Path> = mounts.iter().map(|mount| mount.target.as_path()).collect();
    assert_eq!(targets, [outer.join("inner"), outer.clone()]);
    assert!(
        mounts.iter().all(|mount| !mount.propagates && mount.kind == "overlay" && mount.source == SOURCE)
    );
    let error = unmount(&outer, UnmountMode::Plain).unwrap_err();
    assert!(error.to_string().contains("inner"), "{error}");
}

#[test]
fn refusals_of_the_kernel_say_what_is_wrong() {
    let Some(fixture) = Fixture::new() else { return };
    let layer = fixture.layer("layer", &[("inside/file", "1")]);
    let missing = fixture.root.join("diffs/missing");
    let nested = layer.join("inside");
    // `mount(2)`, which older kernels have alone, says nothing but a number.
    let older = fixture.older(|probe| (probe.lower_descriptors, probe.lower_paths) = (false, false));
    for fixture in [&fixture, &older] {
        let error = fixture.try_mount(&fixture.request(&[&layer, &missing]), "missing").unwrap_err();
        assert!(chain(&error).contains("diffs/missing"), "{}", chain(&error));
        let error = fixture.try_mount(&fixture.request(&[&layer, &nested]), "nested").unwrap_err();
        assert!(matches!(error, MountError::Loop { .. }), "{}", chain(&error));
        let mut request = fixture.request(&[&layer]);
        request.context = Some("system_u:object_r:container_file_t:s0:c1,c2".to_owned());
        match fixture.try_mount(&request, "label") {
            Ok(_) => eprintln!("this machine has SELinux"),
            Err(error) => assert!(chain(&error).contains("context"), "{}", chain(&error)),
        }
    }
}

#[test]
fn attributes_of_the_mount_hold() {
    let Some(fixture) = Fixture::new() else { return };
    for (name, fixture) in
        [("call", fixture.older(|p| (p.lower_descriptors, p.lower_paths) = (false, false))), ("new", fixture)]
    {
        let mut request = fixture.request(&[]);
        request.upper = Some(fixture.upper(name));
        request.options =
            ["nodev", "nosuid", "noexec", "noatime", "metacopy=off"].map(str::to_owned).to_vec();
        let merged = fixture.mount(&request, name);
        let table = read("/proc/self/mountinfo");
        let line = table.lines().find(|line| line.contains(merged.to_str().unwrap())).unwrap();
        for word in ["nodev", "nosuid", "noexec", "noatime"] {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
}

#[test]
fn a_program_that_fails_is_quoted() {
    let Some(fixture) = Fixture::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("mounter");
    fs::write(&script, "#!/bin/sh\necho no luck >&2\nexit 3\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let broken = fixture.older(|probe| (probe.overlay, probe.program) = (false, Some(script.clone())));
    let layer = fixture.layer("layer", &[]);
    let error = broken.try_mount(&broken.request(&[&layer]), "program").unwrap_err();
    assert!(error.to_string().ends_with("no luck"), "{error}");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    let error = broken.try_mount(&broken.request(&[&layer]), "program").unwrap_err();
    assert!(error.to_string().contains("without a mount"), "{error}");
}

#[test]
fn a_closed_root_of_somebody_who_is_not_mapped_is_named() {
    let Some(fixture) = Fixture::new() else { return };
    if fixture.probe.id_maps == IdMapSupport::None {
        return eprintln!("skipped: no id-mapped mounts here");
    }
    let layers = ["open", "closed"].map(|name| fixture.layer(name, &[]));
    for (layer, mode) in layers.iter().zip([0o755, 0o700]) {
        std::os::unix::fs::chown(layer, Some(5), Some(6)).unwrap();
        fs::set_permissions(layer, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let mut request = fixture.request(&[&layers[0], &layers[1]]);
    request.id_map = Some(IdMaps::both([IdExtent { inside: 0, outside: 100_000, count: 5 }]));
    match fixture.try_mount(&request, "closed") {
        Err(MountError::RootUnmapped { layer, uid: 5, gid: 6, .. }) => assert_eq!(layer, layers[1]),
        Ok(_) => eprintln!("skipped: this kernel mounts it"),
        other => panic!("{other:?}"),
    }
}

/// As long as somebody uses it, and without a trace of the question.
#[test]
fn the_upper_directory_of_an_overlay_is_known_as_that() {
    let Some(fixture) = Fixture::new() else { return };
    let (lower, upper) = (fixture.layer("lower", &[("a", "x")]), fixture.upper("upper"));
    let mut request = fixture.request(&[&lower]);
    request.upper = Some(upper.clone());
    if matches!(plan(&fixture.probe, &request).unwrap().method, Method::Program(_)) {
        return eprintln!("skipped: the kernel knows nothing of a program's mounts");
    }
    let look = || {
        let found = fs::symlink_metadata(&upper.upper).unwrap();
        let listed = fs::read_dir(&upper.upper).unwrap().count();
        (found.ctime(), found.ctime_nsec(), listed)
    };
    let before = look();
    let is_upper = |directory: &Path| crate::overlay::is_upper(directory).unwrap();
    assert!(!is_upper(&upper.upper));
    assert_eq!(look(), before);
    let merged = fixture.mount(&request, "merged");
    assert!(is_upper(&upper.upper) && !is_upper(&lower));
    let used = fs::File::open(merged.join("a")).unwrap();
    unmount(&merged, UnmountMode::Detach).unwrap();
    assert!(is_upper(&upper.upper), "a process has a file open");
    drop(used);
    // What another thread has just forked has the file too, until it becomes another program.
    let begun = Instant::now();
    while is_upper(&upper.upper) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody uses it");
        thread::sleep(FORK_WAIT);
    }
    assert!(!is_upper(&fixture.root.join("nowhere")));
}
