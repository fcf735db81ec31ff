//! What a driver is given, and what it says of itself.

use std::io::ErrorKind;

use layerstore::graphdriver::{CreateOptions, Dialect, Driver, DriverOptions, GetOptions};
use layerstore::{ConfigError, Error, IdMaps, StoreOptions, SyncMode};

use super::{DIALECTS, PROGRAM, has_fuse, hex, open, place, works};
use crate::support::{Dir, TestCommand, disk, machine};

fn reason(option: &str) -> String {
    match DriverOptions::parse([option]) {
        Err(ConfigError::Option { reason, .. }) => reason,
        other => panic!("{option}: {other:?}"),
    }
}

#[test]
fn options_are_read_as_other_drivers_read_them() {
    let dir = Dir::new("graph-options");
    let here = dir.path().display();
    for key in ["size", ".size", "overlay.size", "overlay2.size", "OVERLAY.SIZE", "Overlay2.Size", " size "] {
        let parsed = DriverOptions::parse([format!("{key}=10G")]).unwrap();
        assert_eq!(parsed.overlay().size.as_ref().unwrap().value, 10 << 30, "{key}");
    }
    let parsed = DriverOptions::parse([" overlay.size = 10G "]).unwrap();
    assert_eq!(parsed.overlay().size.as_ref().unwrap().value, 10 << 30, "spaces around both do not count");
    // Only the first one ends the key.
    let parsed = DriverOptions::parse(["mountopt=nodev,redirect_dir=off"]).unwrap();
    let mount_options = &parsed.overlay().mount_options.as_ref().unwrap().value;
    assert_eq!(mount_options.join(" "), "nodev redirect_dir=off");
    let good = [
        "mountopt=nodev,metacopy=on".to_owned(),
        "inodes=100".to_owned(),
        "override_kernel_check=true".to_owned(),
        format!("imagestore={here}"),
        format!("additionallayerstore={here}:ref"),
        format!("mount_program={here}"),
        "use_composefs=true".to_owned(),
        "skip_mount_home=1".to_owned(),
        "ignore_chown_errors=false".to_owned(),
        "force_mask=shared".to_owned(),
        "force_mask=private".to_owned(),
        "force_mask=0711".to_owned(),
        "zfs.mountopt=x".to_owned(),
        "vfs.nonsense=1".to_owned(),
    ];
    for option in &good {
        DriverOptions::parse([option.as_str()]).unwrap();
    }
    let parsed = DriverOptions::parse(good).unwrap();
    assert_eq!(parsed.overlay().force_mask.as_ref().unwrap().value, 0o711, "the last one counts");
    assert_eq!(parsed.overlay().inodes.as_ref().unwrap().value, 100);
    for (option, said) in [
        ("size=much", "size such as"),
        ("size", "no \"=\""),
        ("", "no \"=\""),
        ("=10G", "unknown"),
        ("size=", "size such as"),
        ("inodes=-1", "whole number"),
        ("imagestore=relative", "absolute"),
        ("imagestore=/no/such/store", "no directory"),
        ("additionallayerstore=relative", "absolute"),
        ("mount_program=/no/such/program", "cannot be used"),
        ("use_composefs=maybe", "true or false"),
        ("skip_mount_home=maybe", "true or false"),
        ("ignore_chown_errors=maybe", "true or false"),
        ("force_mask=rwx", "octal"),
        ("nosuch=1", "unknown"),
        ("overlay.nosuch=1", "unknown"),
        ("tape.size=1", "no storage driver"),
    ] {
        assert!(reason(option).contains(said), "{option}: {}", reason(option));
    }
    for suffix in ["ref:ref", "other"] {
        assert!(reason(&format!("additionallayerstore={here}:{suffix}")).contains(":ref"));
    }
}

#[test]
fn options_have_their_effect_on_the_store() {
    let dir = Dir::new("graph-effect");
    let other = Dir::new("graph-other");
    open(&other, Dialect::Moby, &[]).create(&hex(9), None, &CreateOptions::default()).unwrap();
    let image_store = format!("imagestore={}", other.root().display());
    let driver = open(
        &dir,
        Dialect::ContainersStorage,
        &["overlay.mountopt=nodev,metacopy=on", "sync=none", &image_store],
    );
    assert_eq!(driver.sync_mode(), SyncMode::Records);
    assert_eq!(driver.additional_image_stores(), [other.root()]);
    assert!(driver.exists(&hex(9)).unwrap() && driver.list_layers().unwrap().is_empty());
    let ignored = driver.store().options().ignored();
    assert_eq!(ignored.len(), 1);
    assert!(
        ignored[0].to_string().contains("the driver's options: mountopt metacopy=on has no effect"),
        "{}",
        ignored[0]
    );
    assert_eq!((driver.name(), open(&other, Dialect::Moby, &[]).name()), ("overlay", "overlay2"));
    // What stays as it was opened, if no option says otherwise.
    let place = place(&dir).mount_options(["noatime"]).ignore_chown_errors(true);
    let driver = Driver::open(place, &DriverOptions::default()).unwrap();
    assert_eq!(driver.sync_mode(), SyncMode::Off);
    if machine::is_root() {
        driver.create(&hex(1), None, &CreateOptions::default()).unwrap();
        let path = driver.get(&hex(1), &Default::default()).unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(path.to_str().unwrap())).unwrap();
        assert!(line.contains("noatime"), "{line}");
        driver.put(&hex(1)).unwrap();
    }
}

#[test]
fn limits_are_for_layers_that_are_written_to() {
    for dialect in DIALECTS {
        let dir = Dir::new("graph-limits");
        let driver = open(&dir, dialect, &[]);
        for option in ["size=0", "inodes=0"] {
            let mut options = CreateOptions::default();
            options.storage_options = vec![option.to_owned()];
            let error = driver.create(&hex(1), None, &options).unwrap_err();
            assert!(matches!(error, Error::Config(ConfigError::Option { .. })), "{error:?}");
            driver.create_read_write(&hex(1), None, &options).unwrap();
            driver.remove(&hex(1)).unwrap();
        }
        let mut options = CreateOptions::default();
        options.storage_options = vec!["nosuch=1".to_owned()];
        let error = driver.create_read_write(&hex(1), None, &options).unwrap_err().to_string();
        assert!(error.contains("nosuch=1") && error.contains("unknown"), "{error}");
        if driver.store().can_limit().is_err() {
            options.storage_options = vec!["size=1G".to_owned()];
            let error = driver.create_read_write(&hex(1), None, &options).unwrap_err();
            assert!(matches!(error, Error::Quota(_)), "{error:?}");
        }
        assert!(driver.list_layers().unwrap().is_empty());
    }
}

/// Writes so many bytes; whether there was room for them.
fn fits(path: std::path::PathBuf, bytes: usize) -> bool {
    let written = std::fs::write(&path, vec![7; bytes]).and_then(|()| std::fs::File::open(path)?.sync_all());
    match written.as_ref().map_err(std::io::Error::kind) {
        Ok(()) => true,
        Err(ErrorKind::QuotaExceeded | ErrorKind::StorageFull) => false,
        Err(kind) => panic!("{kind}"),
    }
}

fn limits_are_kept(kind: &str) {
    let features: &[&str] = if kind == "ext4" { &["-O", "project,quota"] } else { &[] };
    for dialect in DIALECTS {
        let dir = Dir::new("graph-quota");
        let at = match disk::mount_with(&dir, "disk", kind, features, "prjquota") {
            Ok(at) => at,
            Err(why) => skip!("{why}"),
        };
        let place = StoreOptions::at(at.join("store")).run_root(dir.run_root()).reserve(0);
        let options = DriverOptions::parse(["overlay2.size=20M"]).unwrap().dialect(dialect);
        let driver = Driver::open(place, &options).unwrap();
        let mut larger = CreateOptions::default();
        larger.storage_options = vec!["size=50M".to_owned()];
        driver.create(&hex(1), None, &CreateOptions::default()).unwrap();
        driver.create_read_write(&hex(2), Some(&hex(1)), &CreateOptions::default()).unwrap();
        driver.create_read_write(&hex(3), Some(&hex(1)), &larger).unwrap();
        driver.create_from_template(&hex(4), &hex(1), None, &larger, true).unwrap();
        let parent = driver.store().layer(hex(4).as_str()).unwrap().parent;
        assert_eq!(parent, Some(hex(1)), "what a copy would bring is not counted");
        for (layer, megabytes) in [(2, 20), (3, 50), (4, 50)] {
            let path = driver.get(&hex(layer), &GetOptions::default()).unwrap();
            assert!(fits(path.join("small"), (megabytes - 2) << 20), "{megabytes}");
            assert!(!fits(path.join("large"), 4 << 20), "{megabytes}");
            driver.put(&hex(layer)).unwrap();
            driver.remove(&hex(layer)).unwrap();
        }
        // A layer for an image has none.
        let path = driver.get(&hex(1), &GetOptions::default()).unwrap();
        assert!(fits(path.join("large"), 60 << 20));
        driver.put(&hex(1)).unwrap();
    }
}

#[test]
fn limits_are_kept_on_ext4() {
    limits_are_kept("ext4");
}

#[test]
fn limits_are_kept_on_xfs() {
    limits_are_kept("xfs");
}

#[test]
fn the_status_has_the_names_that_programs_look_for() {
    if !machine::is_root() {
        skip!("what the kernel can do is tried out with mounts");
    }
    let first = ["Backing Filesystem", "Supports d_type"];
    let of_moby = ["Using metacopy", "Native Overlay Diff", "userxattr"];
    let of_storage = ["Native Overlay Diff", "Using metacopy", "Supports shifting", "Supports volatile"];
    for dialect in DIALECTS {
        let dir = Dir::new("graph-status");
        let driver = open(&dir, dialect, &[]);
        let status = driver.status().unwrap();
        let keys: Vec<_> = status.iter().map(|(key, _)| *key).collect();
        match dialect {
            Dialect::Moby => assert_eq!(keys, [&first[..], &of_moby].concat()),
            _ => assert_eq!(keys, [&first[..], &of_storage].concat()),
        }
        let value = |key: &str| &status.iter().find(|(name, _)| *name == key).unwrap().1;
        let filesystem = TestCommand::new("stat").args(["-f", "-c", "%T"]).arg(dir.path()).stdout();
        if filesystem.trim() == "tmpfs" {
            assert_eq!(value("Backing Filesystem"), "tmpfs");
        }
        assert_eq!(
            (value("Supports d_type").as_str(), value("Native Overlay Diff").as_str()),
            ("true", "true")
        );
        if dialect == Dialect::ContainersStorage {
            assert_eq!(*value("Supports shifting"), driver.supports_shifting(None).unwrap().to_string());
            assert_eq!(*value("Supports volatile"), works(&driver, "volatile mounts").to_string());
        }
    }
}

#[test]
fn maps_are_for_the_kernel_any_and_for_a_program_contiguous() {
    if !machine::is_root() {
        skip!("what the kernel can do is tried out with mounts");
    }
    let maps =
        |text: &str| IdMaps::both(text.split(' ').map(|extent| extent.parse().unwrap()).collect::<Vec<_>>());
    let contiguous = maps("0:100000:10 10:100010:5");
    let pieces = maps("0:1000:1 1:100000:65535");
    let dir = Dir::new("graph-shifting");
    let driver = open(&dir, Dialect::ContainersStorage, &[]);
    let supports = |driver: &Driver| {
        [None, Some(&contiguous), Some(&pieces)].map(|maps| driver.supports_shifting(maps).unwrap())
    };
    let [any, first, second] = supports(&driver);
    assert_eq!([first, second], [any; 2], "the map makes no difference to the kernel");
    assert_eq!(any, works(&driver, "id-mapped mounts"));
    if !has_fuse() {
        skip!("without the mount program: there is no fuse-overlayfs that can be used");
    }
    let driver = open(&dir, Dialect::ContainersStorage, &[&format!("mount_program={PROGRAM}")]);
    assert_eq!(supports(&driver), [true, true, false]);
    let status = driver.status().unwrap();
    assert!(status.contains(&("Native Overlay Diff", "false".to_owned())), "{status:?}");
}
