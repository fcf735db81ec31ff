//! Files that the kernel verifies, on a disk whose filesystem has fs-verity. It takes a kernel that has it as well, and
//! data-only layers: `just vm-test` brings one.

use std::io::ErrorKind;

use rustix::io::Errno;

use super::*;
use crate::support::disk;

/// A store on an ext4 with fs-verity, at `disk` in the directory.
fn on_disk(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.join("disk/store")).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0)
}

/// Its image and container, mounted; `None` where the kernel cannot.
fn verified(dir: &Dir) -> Option<(Store, layerstore::Image, layerstore::Container, PathBuf)> {
    if let Err(reason) = disk::mount(dir, "disk", "ext4", &["-O", "verity"]) {
        machine::note_skip(&reason);
        return None;
    }
    let mounted = mounted_in(dir, &on_disk(dir))?;
    if named(&mounted.0, "hello").is_none() {
        machine::note_skip("this kernel has no fs-verity");
        mounted.0.unmount(&mounted.2, UnmountMode::Plain).unwrap();
        return None;
    }
    Some(mounted)
}

/// Where the verified file with this content is.
fn named(store: &Store, content: &str) -> Option<PathBuf> {
    let name = blake3::hash(content.as_bytes()).to_hex();
    let layers = fs::read_dir(store.root().join("composefs")).unwrap().map(|layer| layer.unwrap().path());
    layers.map(|layer| layer.join("data.verity").join(name.as_str())).find(|file| file.exists())
}

/// The options of the mount at a path, as the kernel has them.
fn options_of(path: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = format!(" {} ", path.display());
    table.lines().find(|line| line.contains(&place)).unwrap().to_owned()
}

fn refused(path: &Path) {
    let error = fs::read(path).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{}: {error}", path.display());
}

fn codes(store: &Store, level: CheckLevel) -> Vec<&'static str> {
    let mut options = CheckOptions::default();
    options.level = level;
    store.check(&options).unwrap().findings.iter().map(|finding| finding.code()).collect()
}

#[test]
fn the_kernel_shows_the_files_that_it_can_verify() {
    let dir = Dir::new("verity");
    let Some((store, image, web, path)) = verified(&dir) else { return };
    assert!(options_of(&path).contains("verity=require"), "{}", options_of(&path));
    assert_eq!(read(path.join("etc/hello")), "hello");
    assert_eq!(read(path.join("linked")), "the same content");
    assert_eq!(read(path.join("empty")), "");
    // Nobody writes to what is verified, by whatever name.
    let file = named(&store, "hello").unwrap();
    assert_eq!(fs::write(&file, "other").unwrap_err().kind(), ErrorKind::PermissionDenied);
    // A container does, to a whole file of its own.
    fs::set_permissions(path.join("shared"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path.join("etc/hello"), "changed").unwrap();
    assert_eq!(read(path.join("shared")), "the same content");
    assert_eq!(read(path.join("etc/hello")), "changed");
    store.unmount(&web, UnmountMode::Plain).unwrap();
    let next = store.commit(&web.id, &CommitOptions::named("next")).unwrap();
    let view = store.mount(&next, &MountOptions::default()).unwrap();
    assert!(options_of(view.path()).contains("verity=require"));
    assert_eq!(read(view.path().join("etc/hello")), "changed");
    assert_eq!(read(view.path().join("shared")), "the same content");
    store.unmount(&next, UnmountMode::Plain).unwrap();
    assert_eq!(codes(&store, CheckLevel::Deep), [""; 0]);
    // A layer that is written to again has files that can be.
    let view = store.mount(&image, &MountOptions::default()).unwrap();
    let tar = archive(&[Member::file("own", "of this layer alone")]);
    let layer = store.put_layer(None, &LayerOptions::named("other"), &*tar).unwrap();
    store.mount(&layer, &MountOptions::default()).unwrap();
    assert!(named(&store, "of this layer alone").is_some());
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    store.unseal(&layer.id).unwrap();
    let mount = store.mount(&layer, &MountOptions::default()).unwrap();
    fs::write(mount.path().join("own"), "another").unwrap();
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    assert_eq!(read(view.path().join("etc/hello")), "hello");
    store.unmount(&image, UnmountMode::Plain).unwrap();
    assert_whole(&store);
}

#[test]
fn the_kernel_refuses_a_file_that_the_image_was_not_made_for() {
    let dir = Dir::new("verity-other");
    let Some((store, image, web, _)) = verified(&dir) else { return };
    store.unmount(&web, UnmountMode::Plain).unwrap();
    let file = named(&store, "hello").unwrap();
    let other = dir.join("disk/other");
    fs::hard_link(named(&store, "below").unwrap(), &other).unwrap();
    let replace: [(&str, &dyn Fn()); 2] = [
        ("the same content, not verified", &|| fs::write(&file, "hello").unwrap()),
        ("verified, with another content", &|| fs::hard_link(&other, &file).unwrap()),
    ];
    for (what, replace) in replace {
        fs::remove_file(&file).unwrap();
        replace();
        let view = store.mount(&image, &MountOptions::default()).unwrap();
        refused(&view.path().join("etc/hello"));
        // It has its name, its length and so on, and the others are what they were.
        assert_eq!(fs::metadata(view.path().join("etc/hello")).unwrap().len(), 5, "{what}");
        assert_eq!(read(view.path().join("shared")), "the same content", "{what}");
        store.unmount(&image, UnmountMode::Plain).unwrap();
        assert_eq!(codes(&store, CheckLevel::Default), ["composefs-changed"], "{what}");
    }
    assert!(store.repair(&RepairOptions::default()).unwrap().is_complete());
    let view = store.mount(&image, &MountOptions::default()).unwrap();
    assert!(options_of(view.path()).contains("verity=require"));
    assert_eq!(read(view.path().join("etc/hello")), "hello");
    store.unmount(&image, UnmountMode::Plain).unwrap();
    assert_whole(&store);
}

#[test]
fn the_kernel_refuses_bits_that_changed_on_the_disk() {
    let dir = Dir::new("verity-bits");
    let Some((store, image, web, _)) = verified(&dir) else { return };
    store.unmount(&web, UnmountMode::Plain).unwrap();
    drop(store);
    let (at, disk) = (dir.join("disk"), dir.join("disk.img"));
    machine::unmount(&at);
    let mut bytes = fs::read(&disk).unwrap();
    let content = b"the same content";
    let places: Vec<_> =
        (0..bytes.len()).step_by(1024).filter(|at| bytes[*at..].starts_with(content)).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place] ^= 1;
    }
    fs::write(&disk, bytes).unwrap();
    TestCommand::new("mount").args(["-o", "loop"]).arg(&disk).arg(&at).assert_success();
    let store = Store::open(&on_disk(&dir).use_composefs(true)).unwrap();
    let view = store.mount(&image, &MountOptions::default()).unwrap();
    refused(&view.path().join("shared"));
    assert_eq!(read(view.path().join("etc/hello")), "hello");
    store.unmount(&image, UnmountMode::Plain).unwrap();
    assert!(codes(&store, CheckLevel::Deep).contains(&"composefs-changed"));
}
