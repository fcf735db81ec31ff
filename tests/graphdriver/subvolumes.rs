//! Layers with subvolumes of btrfs in them, which are filesystems of their own in one.

use std::path::Path;

use layerstore::graphdriver::{CreateOptions, Dialect, Driver, DriverOptions};
use layerstore::{LayerOptions, StoreOptions, SyncMode};

use super::{Bench, id, names, read};
use crate::support::store::assert_whole;
use crate::support::{Dir, TestCommand, disk, machine};

/// A driver on btrfs.
fn bench(name: &str) -> Result<Bench, String> {
    let dir = Dir::new(name);
    disk::mount(&dir, "root", "btrfs", &[])?;
    if !machine::has_program("btrfs") {
        return Err("there is no btrfs".to_owned());
    }
    let place = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    let options = DriverOptions::parse([""; 0]).unwrap().dialect(Dialect::ContainersStorage);
    Ok(Bench { driver: Driver::open(place, &options).unwrap(), dir, by_program: false })
}

fn btrfs(arguments: &[&str], paths: &[&Path]) {
    TestCommand::new("btrfs").args(arguments).args(paths).assert_success();
}

/// Puts subvolumes into a directory: one in another, and a copy of the first that nobody may write to.
fn fill(own: &Path) {
    let (sub, copy) = (own.join("sub"), own.join("copy"));
    btrfs(&["subvolume", "create"], &[&sub]);
    std::fs::write(sub.join("file"), "first").unwrap();
    btrfs(&["subvolume", "snapshot", "-r"], &[&sub, &copy]);
    btrfs(&["subvolume", "create"], &[&sub.join("nested")]);
    // It has the number of the first one.
    std::fs::write(sub.join("nested/file"), "other").unwrap();
}

const CONTENT: [(&str, &str); 3] =
    [("copy/file", "first"), ("sub/file", "first"), ("sub/nested/file", "other")];

#[test]
fn a_layer_with_subvolumes_is_removed() {
    let bench = match bench("graph-subvolumes-removed") {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let web = id("web");
    bench.create_read_write(&web, None);
    let own = bench.driver.differ_target(&web).unwrap();
    fill(&own);
    std::fs::remove_file(own.join("copy/file")).unwrap_err();
    bench.driver.remove(&web).unwrap();
    assert!(!own.exists());
    assert_eq!(names(&bench.dir.root().join("trash")), [""; 0]);
    let listed = TestCommand::new("btrfs").args(["subvolume", "list"]).arg(bench.dir.root()).stdout();
    assert_eq!(listed, "");
    assert_whole(bench.driver.store());
}

#[test]
fn files_in_subvolumes_are_told_apart() {
    let bench = match bench("graph-subvolumes-compared") {
        Ok(bench) => bench,
        Err(why) => skip!("{why}"),
    };
    let (base, web, copy) = (id("base"), id("web"), id("copy"));
    bench.create(&base, None);
    bench.create_read_write(&web, Some(&base));
    fill(&bench.driver.differ_target(&web).unwrap());
    let number = |name: &str| {
        let found = std::fs::metadata(bench.driver.differ_target(&web).unwrap().join(name)).unwrap();
        std::os::unix::fs::MetadataExt::ino(&found)
    };
    assert_eq!(number("sub/file"), number("sub/nested/file"));
    let contents = |tar: &[u8]| {
        let mut archive = tar::Archive::new(tar);
        let files = archive.entries().unwrap().filter_map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let text = std::io::read_to_string(&mut entry).unwrap();
            (!text.is_empty()).then_some((path, text))
        });
        files.collect::<Vec<_>>()
    };
    let expected = CONTENT.map(|(path, text)| (path.to_owned(), text.to_owned()));
    for parent in [Some(&base), None] {
        assert_eq!(contents(&bench.tar(&web, parent)), expected);
        assert_eq!(bench.driver.diff_size(&web, parent).unwrap(), 15);
    }
    bench.inside(&web, |root| {
        for (path, text) in CONTENT {
            assert_eq!(read(&root.join(path)), text);
        }
    });
    // A copy, and what is sealed, have the same.
    let mut options = LayerOptions::with_id(copy.clone());
    options.template = Some(web.clone());
    bench.driver.store().create_layer(&base, &options).unwrap();
    bench.driver.store().seal(&web).unwrap();
    for layer in [&web, &copy] {
        assert_eq!(contents(&bench.tar(layer, None)), expected);
    }
    assert_whole(bench.driver.store());
    bench.driver.create(&id("above"), Some(&web), &CreateOptions::default()).unwrap();
    bench.inside(&id("above"), |root| assert_eq!(read(&root.join("sub/nested/file")), "other"));
    bench.remove_all();
    assert_whole(bench.driver.store());
}
