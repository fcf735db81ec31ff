//! Getting and putting: counted over processes, for writing or not, with options.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstore::graphdriver::{CreateOptions, Dialect, Driver, GetOptions};
use layerstore::{Error, ExportError, IdMaps, InUseError, LookupError, MountError};

use super::{Bench, DIALECTS, each, each_kernel, hex, id, names, open, place, read, works};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine};

fn mounted(bench: &Bench) -> usize {
    bench.dir.mounts().len()
}

/// What the kernel's table says of the mount at a path.
fn mount_line(path: &Path) -> String {
    let table = read(Path::new("/proc/self/mountinfo"));
    let path = path.canonicalize().unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == path.to_str());
    line.unwrap_or_else(|| panic!("{} is not mounted", path.display())).to_owned()
}

fn with(options: &[&str]) -> GetOptions {
    let mut get = GetOptions::default();
    get.options = options.iter().map(|option| (*option).to_owned()).collect();
    get
}

#[test]
fn mounts_are_counted_over_processes() {
    each("count", |bench| {
        let (base, web) = (id("base"), id("web"));
        bench.create(&base, None);
        bench.create_read_write(&web, Some(&base));
        let first = bench.driver.get(&web, &GetOptions::default()).unwrap();
        let other = open(&bench.dir, bench.driver.dialect(), &[]);
        assert_eq!(other.get(&web, &GetOptions::default()).unwrap(), first);
        // A process that knows nothing of drivers.
        let third: PathBuf = bench.dir.layerstore(["mount", "web"]).stdout_path();
        assert_eq!(third.canonicalize().unwrap(), first.canonicalize().unwrap());
        assert_eq!(mounted(bench), 1);
        drop(other);
        bench.driver.put(&web).unwrap();
        bench.dir.layerstore(["unmount", "web"]).stdout();
        std::fs::write(first.join("file"), "still there").unwrap();
        bench.driver.put(&web).unwrap();
        assert_eq!(mounted(bench), 0);
        // What was written is in the layer.
        assert_eq!(bench.changes(&web, Some(&base)), ["A /file"]);
    });
}

#[test]
fn what_is_not_mounted_is_put_back_without_harm() {
    each("put", |bench| {
        let web = id("web");
        bench.create_read_write(&web, None);
        bench.driver.put(&web).unwrap();
        bench.inside(&web, |root| std::fs::write(root.join("file"), "file").unwrap());
        bench.driver.put(&web).unwrap();
        bench.inside(&web, |root| assert_eq!(read(&root.join("file")), "file"));
        let put = bench.driver.put(&id("nosuch"));
        match bench.driver.dialect() {
            Dialect::Moby => put.unwrap(),
            _ => assert!(matches!(put, Err(Error::Lookup(LookupError::NotFound { .. })))),
        }
    });
}

#[test]
fn a_mount_that_is_used_ends_for_others() {
    each("busy", |bench| {
        let web = id("web");
        bench.create_read_write(&web, None);
        let path = bench.driver.get(&web, &GetOptions::default()).unwrap();
        let mut file = std::fs::File::create(path.join("file")).unwrap();
        bench.driver.put(&web).unwrap();
        assert_eq!(mounted(bench), 0);
        std::io::Write::write_all(&mut file, b"late").unwrap();
    });
}

#[test]
fn what_others_stand_on_is_for_reading() {
    each("parents", |bench| {
        let (base, web) = (id("base"), id("web"));
        bench.create_read_write(&base, None);
        bench.inside(&base, |root| std::fs::write(root.join("file"), "file").unwrap());
        bench.create_read_write(&web, Some(&base));
        bench.inside(&base, |root| {
            assert_eq!(read(&root.join("file")), "file");
            std::fs::write(root.join("file"), "other").unwrap_err();
        });
        bench.driver.remove(&web).unwrap();
        bench.inside(&base, |root| std::fs::write(root.join("file"), "other").unwrap());
        bench.create(&web, Some(&base));
        let error = bench.driver.remove(&base).unwrap_err();
        assert!(matches!(error, Error::InUse(InUseError::LayerHasChild { .. })), "{error:?}");
    });
}

#[test]
fn a_layer_that_is_not_removed_stays_mounted() {
    each("refused", |bench| {
        let (base, web) = (id("base"), id("web"));
        bench.create_read_write(&base, None);
        let path = bench.driver.get(&base, &GetOptions::default()).unwrap();
        std::fs::write(path.join("file"), "file").unwrap();
        bench.create(&web, Some(&base));
        let error = bench.driver.remove(&base).unwrap_err();
        assert!(matches!(error, Error::InUse(InUseError::LayerHasChild { .. })), "{error:?}");
        assert_eq!(read(&path.join("file")), "file");
        bench.driver.remove(&web).unwrap();
        let store = bench.driver.store();
        let lease = store.lease(&"kept".parse().unwrap(), &base, Duration::from_secs(3600)).unwrap();
        let error = bench.driver.remove(&base).unwrap_err();
        assert!(matches!(error, Error::InUse(InUseError::Leased { .. })), "{error:?}");
        assert_eq!(read(&path.join("file")), "file");
        bench.driver.put(&base).unwrap();
        store.end_lease(&lease.id).unwrap();
        bench.driver.remove(&base).unwrap();
    });
}

#[test]
fn what_another_store_has_is_for_reading() {
    each_kernel("elsewhere", |bench| {
        let web = id("web");
        bench.create_read_write(&web, None);
        bench.driver.apply_diff(&web, &*archive(&[Member::file("file", "file")])).unwrap();
        let dir = Dir::new("graph-elsewhere-reader");
        let option = format!("overlay.imagestore={}", bench.dir.root().display());
        let driver = open(&dir, bench.driver.dialect(), &[&option]);
        let path = driver.get(&web, &GetOptions::default()).unwrap();
        assert_eq!(read(&path.join("file")), "file");
        std::fs::write(path.join("file"), "other").unwrap_err();
        let error = driver.remove(&web).unwrap_err();
        assert!(matches!(error, Error::InOtherStore { .. }), "{error:?}");
        assert_eq!(read(&path.join("file")), "file");
        driver.put(&web).unwrap();
        assert_eq!(dir.mounts(), [""; 0].map(PathBuf::from));
    });
}

#[test]
fn what_came_as_an_archive_is_for_reading_unless_it_was_made_for_writing() {
    each("sealed", |bench| {
        let tar = archive(&[Member::file("file", "file")]);
        let (image, web) = (id("image"), id("web"));
        bench.create(&image, None);
        bench.create_read_write(&web, None);
        for layer in [&image, &web] {
            bench.driver.apply_diff(layer, &*tar).unwrap();
            assert_eq!(bench.tar(layer, None), tar);
        }
        bench.inside(&image, |root| std::fs::write(root.join("file"), "other").unwrap_err());
        assert_eq!(bench.tar(&image, None), tar);
        bench.inside(&web, |root| std::fs::write(root.join("file"), "other").unwrap());
        assert_eq!(bench.driver.diff_size(&web, None).unwrap(), 5);
        // Another archive comes on top.
        let more = archive(&[Member::file("more", "more"), Member::whiteout("file")]);
        bench.driver.apply_diff(&web, &*more).unwrap();
        bench.inside(&web, |root| {
            assert_eq!(names(root), ["more"]);
            std::fs::write(root.join("more"), "other").unwrap();
        });
    });
}

#[test]
fn a_mount_has_the_options_that_it_is_given() {
    each_kernel("get-options", |bench| {
        let web = id("web");
        bench.create_read_write(&web, None);
        let path = bench.driver.get(&web, &with(&["ro", "nodev"])).unwrap();
        std::fs::write(path.join("file"), "file").unwrap_err();
        let line = mount_line(&path);
        assert!(line.contains("ro,") && line.contains("nodev"), "{line}");
        bench.driver.put(&web).unwrap();
        // A mount without syncs can be made again.
        for round in ["first", "second"] {
            let mut options = GetOptions::default();
            options.volatile = true;
            let path = bench.driver.get(&web, &options).unwrap();
            let line = mount_line(&path);
            assert_eq!(line.contains("volatile"), works(&bench.driver, "volatile mounts"), "{line}");
            std::fs::write(path.join(round), round).unwrap();
            bench.driver.put(&web).unwrap();
        }
        let error = bench.driver.get(&web, &with(&["metacopy=on"])).unwrap_err();
        assert!(matches!(error, Error::Mount(MountError::Option { .. })), "{error:?}");
        assert_eq!(mounted(bench), 0);
        let mut labelled = GetOptions::default();
        labelled.mount_label = Some("a \"quoted\" label".to_owned());
        let error = bench.driver.get(&web, &labelled).unwrap_err();
        assert!(matches!(error, Error::Mount(MountError::Option { .. })), "{error:?}");
    });
}

#[test]
fn a_mount_shows_the_ids_that_it_is_given() {
    each("ids", |bench| {
        if !machine::is_real_root() {
            skip!("id-mapped mounts need root of the machine");
        }
        let (base, web, other) = (id("base"), id("web"), id("other"));
        bench.create(&base, None);
        bench.driver.apply_diff(&base, &*archive(&[Member::file("file", "file").owner(7, 8)])).unwrap();
        bench.create_read_write(&web, Some(&base));
        let mut options = GetOptions::default();
        options.id_maps = Some(IdMaps::both(["0:100000:65536".parse().unwrap()]));
        if !bench.driver.supports_shifting(options.id_maps.as_ref()).unwrap() {
            skip!("this kernel shows no layers with other ids");
        }
        let path = bench.driver.get(&web, &options).unwrap();
        assert_eq!(owner(&path.join("file")), (100_007, 100_008));
        std::fs::write(path.join("new"), "new").unwrap();
        std::os::unix::fs::chown(path.join("new"), Some(100_001), Some(100_002)).unwrap();
        bench.driver.put(&web).unwrap();
        options.disable_shifting = true;
        let path = bench.driver.get(&web, &options).unwrap();
        assert_eq!(owner(&path.join("file")), (7, 8));
        bench.driver.put(&web).unwrap();
        if bench.by_program {
            return;
        }
        // The host's ids that were written become those of the maps.
        bench.create(&other, None);
        for parent in [Some(&base), None, Some(&other)] {
            let mut tar = Vec::new();
            bench.driver.diff(&web, parent, options.id_maps.as_ref(), &mut tar).unwrap();
            let mut tar = tar::Archive::new(&*tar);
            let entries = tar.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().uid().unwrap(), entry.header().gid().unwrap())
            });
            let entries: Vec<_> = entries.collect();
            assert!(entries.contains(&("new".to_owned(), 1, 2)), "{parent:?}: {entries:?}");
            let below = entries.contains(&("file".to_owned(), 7, 8));
            assert_eq!(below, parent != Some(&base), "{parent:?}: {entries:?}");
        }
    });
}

#[test]
fn the_root_directory_belongs_to_root_of_the_container() {
    each("mapped-root", |bench| {
        if !machine::is_real_root() {
            skip!("id-mapped mounts need root of the machine");
        }
        let maps = IdMaps::both(["0:100000:65536".parse().unwrap()]);
        if !bench.driver.supports_shifting(Some(&maps)).unwrap() {
            skip!("this kernel shows no layers with other ids");
        }
        let (mut create, mut get) = (CreateOptions::default(), GetOptions::default());
        get.id_maps = Some(maps.clone());
        // A program writes the container's ids itself.
        create.id_maps = Some(maps).filter(|_| !bench.by_program);
        let (base, foreign) = (id("base"), id("foreign"));
        bench.create(&base, None);
        bench.inside(&base, |root| std::fs::write(root.join("file"), "file").unwrap());
        bench.create(&foreign, None);
        bench.inside(&foreign, |root| std::os::unix::fs::chown(root, Some(7), Some(8)).unwrap());
        let owned = if bench.by_program { 0 } else { 100_000 };
        for (name, parent, root) in
            [("above", Some(&base), (0, 0)), ("alone", None, (0, 0)), ("other", Some(&foreign), (7, 8))]
        {
            let layer = id(name);
            bench.driver.create_read_write(&layer, parent, &create).unwrap();
            if parent.is_none() {
                let own = bench.driver.differ_target(&layer).unwrap();
                assert_eq!(owner(&own), (owned, owned), "it has nothing to take after");
            }
            // What it once is, it stays.
            for round in ["first", "second"] {
                let path = bench.driver.get(&layer, &get).unwrap();
                assert_eq!(owner(&path), (100_000 + root.0, 100_000 + root.1), "{name}, {round}");
                let mode = std::fs::metadata(&path).unwrap().permissions().mode();
                // Who is root only in the container has to be given the right.
                if mode & 0o200 != 0 {
                    let [user, group] = [root.0, root.1].map(|id| 100_000 + id);
                    let mut made = std::process::Command::new("setpriv");
                    made.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
                    let made = made.args(["mkdir", round]).current_dir(&path).status().unwrap();
                    assert!(made.success(), "{name}: its root writes into it");
                }
                bench.driver.put(&layer).unwrap();
            }
            let own = bench.driver.differ_target(&layer).unwrap();
            assert_eq!(owner(&own), (owned + root.0, owned + root.1), "{name}");
        }
    });
}

fn owner(path: &Path) -> (u32, u32) {
    let found = std::fs::metadata(path).unwrap();
    (found.uid(), found.gid())
}

#[test]
fn who_writes_is_given_no_mount_for_reading() {
    each("for-writing", |bench| {
        let (web, sealed, above) = (id("web"), id("sealed"), id("above"));
        bench.create_read_write(&web, None);
        bench.create_read_write(&sealed, None);
        bench.driver.apply_diff(&sealed, &*archive(&[Member::file("file", "file")])).unwrap();
        for layer in [&web, &sealed] {
            let view = bench.driver.get(layer, &with(&["ro"])).unwrap();
            let error = bench.driver.get(layer, &GetOptions::default()).unwrap_err();
            assert!(matches!(error, Error::InUse(InUseError::MountedForReading { .. })), "{error:?}");
            assert!(error.to_string().contains(view.to_str().unwrap()), "{error}");
            // Nothing was counted.
            assert_eq!(bench.driver.get(layer, &with(&["ro"])).unwrap(), view);
            bench.driver.put(layer).unwrap();
            bench.driver.put(layer).unwrap();
            assert_eq!(mounted(bench), 0);
            bench.inside(layer, |root| std::fs::write(root.join("own"), "own").unwrap());
        }
        // What nobody may write to is given as often as it is asked for, and so is what is mounted for writing.
        bench.create_read_write(&above, Some(&web));
        for _ in 0..2 {
            bench.driver.get(&web, &GetOptions::default()).unwrap();
            bench.driver.get(&above, &GetOptions::default()).unwrap();
            bench.driver.get(&above, &with(&["ro"])).unwrap();
        }
        (0..2).for_each(|_| bench.driver.put(&web).unwrap());
        (0..4).for_each(|_| bench.driver.put(&above).unwrap());
        assert_eq!(mounted(bench), 0);
    });
}

#[test]
fn owners_are_changed_from_one_map_to_another() {
    each("owners", |bench| {
        if !machine::is_real_root() {
            skip!("only root of the machine gives files to any id");
        }
        let maps = |text: &str| IdMaps::both([text.parse().unwrap()]);
        let (base, copy) = (id("base"), id("copy"));
        bench.create(&base, None);
        let members = [
            Member::directory("d").owner(1, 1),
            Member::file("d/suid", "program").owner(7, 8).mode(0o4755),
            Member::hard_link("link", "d/suid"),
            Member::symlink("symlink", "/nowhere").owner(7, 8),
            Member::file("other", "other"),
        ];
        bench.driver.apply_diff(&base, &*archive(&members)).unwrap();
        let owners = |root: &Path| {
            ["", "d", "d/suid", "link", "symlink", "other"].map(|name| {
                let found = std::fs::symlink_metadata(root.join(name)).unwrap();
                (found.uid(), found.gid())
            })
        };
        bench.create_read_write(&copy, Some(&base));
        let first = maps("0:100000:1000");
        bench.driver.update_layer_id_map(&copy, None, Some(&first)).unwrap();
        let expected = [(0, 0), (1, 1), (7, 8), (7, 8), (7, 8), (0, 0)];
        let shifted = |by: u32| expected.map(|(uid, gid)| (uid + by, gid + by));
        bench.inside(&copy, |root| {
            assert_eq!(owners(root), shifted(100_000));
            let mode = std::fs::metadata(root.join("d/suid")).unwrap();
            assert_eq!(mode.mode() & 0o7777, 0o4755);
        });
        bench.driver.update_layer_id_map(&copy, Some(&first), Some(&maps("0:100500:1000"))).unwrap();
        bench.inside(&copy, |root| assert_eq!(owners(root), shifted(100_500)));
        bench.inside(&base, |root| assert_eq!(owners(root), expected));
        // An id that no container has is nobody's.
        let error = bench.driver.update_layer_id_map(&copy, Some(&maps("0:5:1")), None).unwrap_err();
        assert!(matches!(error, Error::Export(ExportError::Unmapped { .. })), "{error:?}");
        assert_eq!(mounted(bench), 0);
        bench.driver.get(&copy, &GetOptions::default()).unwrap();
        let error = bench.driver.update_layer_id_map(&copy, None, None).unwrap_err();
        assert!(matches!(error, Error::InUse(InUseError::Mounted { .. })), "{error:?}");
        bench.driver.put(&copy).unwrap();
    });
}

#[test]
fn a_layer_stands_on_so_many_others() {
    for dialect in DIALECTS {
        let dir = Dir::new("graph-depth");
        let driver = open(&dir, dialect, &[]);
        let options = CreateOptions::default();
        driver.create(&hex(0), None, &options).unwrap();
        let limit = dialect.max_depth();
        for layer in 1..=limit {
            driver.create(&hex(layer), Some(&hex(layer - 1)), &options).unwrap();
        }
        let error = driver.create(&hex(limit + 1), Some(&hex(limit)), &options).unwrap_err();
        assert!(matches!(error, Error::Mount(MountError::TooManyLayers { .. })), "{error:?}");
        assert!(error.to_string().contains(&limit.to_string()), "{error}");
        assert!(!driver.exists(&hex(limit + 1)).unwrap());
        if machine::is_root() {
            let path = driver.get(&hex(limit), &GetOptions::default()).unwrap();
            std::fs::write(path.join("file"), "file").unwrap();
            driver.put(&hex(limit)).unwrap();
        }
    }
}

#[test]
fn directories_are_told() {
    each("metadata", |bench| {
        let (base, middle, web) = (id("base"), id("middle"), id("web"));
        bench.create(&base, None);
        bench.driver.apply_diff(&base, &*archive(&[Member::file("of-base", "")])).unwrap();
        bench.create(&middle, Some(&base));
        bench.driver.apply_diff(&middle, &*archive(&[Member::file("of-middle", "")])).unwrap();
        bench.create_read_write(&web, Some(&middle));
        let of_base = bench.driver.metadata(&base).unwrap();
        assert!(of_base.lower_dirs.is_empty() && of_base.work_dir.is_none());
        assert_eq!(of_base.pairs().into_keys().collect::<Vec<_>>(), ["MergedDir", "UpperDir"]);
        let of_web = bench.driver.metadata(&web).unwrap();
        let merged = bench.inside(&web, |root| {
            std::fs::write(root.join("of-web"), "").unwrap();
            assert!(of_web.work_dir.as_ref().unwrap().is_dir());
            root.to_owned()
        });
        assert_eq!(of_web.merged_dir, merged);
        assert_eq!(names(&of_web.upper_dir), ["of-web"]);
        let lowers: Vec<_> = of_web.lower_dirs.iter().map(|lower| names(lower)).collect();
        assert_eq!(lowers, [["of-middle"], ["of-base"]]);
        assert_eq!(of_web.lower_dirs[1], of_base.upper_dir);
        assert_eq!(bench.driver.differ_target(&base).unwrap(), of_base.upper_dir);
        let pairs = of_web.pairs();
        assert_eq!(
            pairs.keys().copied().collect::<Vec<_>>(),
            ["LowerDir", "MergedDir", "UpperDir", "WorkDir"]
        );
        let lower = pairs["LowerDir"].to_str().unwrap();
        assert_eq!(lower.split(':').map(Path::new).collect::<Vec<_>>(), of_web.lower_dirs);
        let error = bench.driver.metadata(&id("nosuch")).unwrap_err();
        assert!(matches!(error, Error::Lookup(LookupError::NotFound { .. })), "{error:?}");
    });
}

#[test]
fn what_is_removed_is_unmounted_and_deleted_when_there_is_time() {
    each("remove", |bench| {
        let web = id("web");
        bench.create_read_write(&web, None);
        let path = bench.driver.get(&web, &GetOptions::default()).unwrap();
        for number in 0..50 {
            std::fs::write(path.join(number.to_string()), "file").unwrap();
        }
        let own = bench.driver.metadata(&web).unwrap().upper_dir;
        let removal = bench.driver.deferred_remove(&web).unwrap();
        assert!(!bench.driver.exists(&web).unwrap() && mounted(bench) == 0);
        assert!(own.exists(), "its files are there still");
        // The id is free at once.
        bench.create_read_write(&web, None);
        assert!(bench.driver.store().gc(false).unwrap().removed.is_empty(), "and they are nobody else's");
        removal.finish();
        assert!(!own.exists());
        // Dropping it does the same.
        let own = bench.driver.metadata(&web).unwrap().upper_dir;
        bench.inside(&web, |root| std::fs::write(root.join("file"), "file").unwrap());
        drop(bench.driver.deferred_remove(&web).unwrap());
        assert!(!own.exists());
        bench.driver.deferred_remove(&id("nosuch")).unwrap().finish();
    });
}

#[test]
fn a_second_driver_sees_what_the_first_has_made() {
    each("restore", |bench| {
        let (base, web) = (id("base"), id("web"));
        bench.create(&base, None);
        bench.create_read_write(&web, Some(&base));
        let path = bench.driver.get(&web, &GetOptions::default()).unwrap();
        let again = Driver::new(layerstore::Store::open(&place(&bench.dir)).unwrap(), bench.driver.dialect());
        assert_eq!(again.list_layers().unwrap(), [base, web.clone()]);
        assert_eq!(again.get(&web, &GetOptions::default()).unwrap(), path);
        let error = again.create(&web, None, &CreateOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Create(_)), "{error:?}");
        again.put(&web).unwrap();
        assert_eq!(mounted(bench), 1);
        again.put(&web).unwrap();
        bench.driver.put(&web).unwrap();
    });
}

#[test]
fn a_cleanup_does_what_the_dialect_says() {
    each("cleanup", |bench| {
        let web = id("web");
        bench.create_read_write(&web, None);
        bench.driver.get(&web, &GetOptions::default()).unwrap();
        bench.driver.cleanup().unwrap();
        let left = usize::from(bench.driver.dialect() == Dialect::ContainersStorage);
        assert_eq!(mounted(bench), left);
        bench.driver.put(&web).unwrap();
        assert_eq!(mounted(bench), 0);
    });
}
