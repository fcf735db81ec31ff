use super::*;
use std::fs;

/// Whether the machine promises overlay mounts: the right, the module, and a filesystem that can be an upper one.
fn can_mount_overlay(directory: &Path) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("overlay\n");
    // OVERLAYFS_SUPER_MAGIC; the type of the field differs between architectures.
    let nested = rustix::fs::statfs(directory).is_ok_and(|status| status.f_type == 0x794c_7630);
    known && !nested && is_privileged()
}

#[test]
fn this_machine_is_probed_and_nothing_is_left() {
    let scratch = tempfile::tempdir().unwrap();
    let (probe, certain) = probe(scratch.path()).unwrap();
    assert!(certain || !probe.overlay);
    eprintln!("{probe}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    let mounts = crate::sys::mount::info::read().unwrap();
    assert!(!mounts.iter().any(|mount| mount.target.starts_with(scratch.path())));
    let boot = boot_id();
    assert!(probe.is_current(&boot, scratch.path()));
    assert!(!probe.is_current(&boot, Path::new("/proc")), "another filesystem");
    let other_boot = Probe { boot_id: "other".to_owned(), ..probe.clone() };
    assert!(!other_boot.is_current(&boot, scratch.path()));
    let other_rights = Probe { user_namespace: !probe.user_namespace, ..probe.clone() };
    assert!(!other_rights.is_current(&boot, scratch.path()));
    if can_mount_overlay(scratch.path()) {
        // All the other tests of mounts skip where this is not so.
        assert!(probe.overlay && probe.lower_paths >= probe.lower_descriptors);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split('.').take(2).filter_map(|part| part.parse().ok()).collect();
    if version >= vec![6, 15] {
        assert!(probe.id_maps != IdMapSupport::Attached, "this kernel takes detached layers");
    }
    for (key, works) in probe.clone().switches() {
        assert!(!*works || !probe.reasons.contains_key(key), "{key} works: {:?}", probe.reasons);
    }
    if !probe.overlay {
        assert!(probe.reasons.contains_key("overlay"), "{:?}", probe.reasons);
        return eprintln!("skipped the rest: no right to make overlay mounts here");
    }
    assert!(
        !probe.user_namespace || !probe.trusted_xattrs,
        "no namespace but the first sees trusted attributes"
    );
    assert!(probe.trusted_xattrs || probe.user_xattrs);
}

#[test]
fn a_missing_scratch_directory_is_an_error() {
    assert!(matches!(probe(Path::new("/no/such/place")), Err(MountError::Directory { .. })));
}

#[test]
fn text_comes_back_as_the_same_value() {
    let mut probe = Probe { boot_id: "b".to_owned(), device: 7, ..Probe::nothing() };
    for id_maps in [IdMapSupport::None, IdMapSupport::Attached, IdMapSupport::Detached] {
        for erofs in [ErofsSupport::None, ErofsSupport::Loop, ErofsSupport::File] {
            (probe.id_maps, probe.erofs) = (id_maps, erofs);
            assert_eq!(probe.to_string().parse::<Probe>().unwrap(), probe);
        }
    }
    for index in 0..probe.switches().len() {
        *probe.switches()[index].1 = true;
        assert_eq!(probe.to_string().parse::<Probe>().unwrap(), probe);
    }
    assert_eq!(probe.to_string().lines().count(), 17);
    probe.reasons.insert("volatile".to_owned(), "an odd \\ \n\t=\u{e4} reason".to_owned());
    assert_eq!(probe.to_string().lines().count(), 18);
    assert_eq!(probe.to_string().parse::<Probe>().unwrap(), probe);
}

#[test]
fn text_of_another_version_is_refused() {
    let text = Probe::nothing().to_string();
    for line in text.lines() {
        let without: String =
            text.lines().filter(|other| *other != line).map(|line| format!("{line}\n")).collect();
        assert!(matches!(without.parse::<Probe>(), Err(ProbeTextError::Missing(_))), "{line}");
    }
    for line in [
        "x",
        "unknown=yes",
        "overlay=maybe",
        "device=-1",
        "id_maps=yes",
        "erofs=yes",
        "program=/usr/bin/fuse-overlayfs",
        "why.volatile=\\x4",
        "why.volatile=\\q",
        "=",
    ] {
        let result = format!("{text}{line}\n").parse::<Probe>();
        assert_eq!(result, Err(ProbeTextError::Line(line.to_owned())));
    }
}
