//! What a layer changes, against any other; single files; and what is staged.

use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use layerstore::graphdriver::{ApplyDiffOptions, CreateOptions, Driver, DriverOptions};
use layerstore::{
    ApplyOptions, Compression, DedupOptions, DiffOptions, Error, IdMaps, ImportError, InUseError,
    LookupError, RangeSource,
};

use super::{Bench, each, each_kernel, id, place};
use crate::support::tar::{Member, archive};
use crate::support::{TestCommand, machine};

fn tar(members: &[(&str, &str)]) -> Vec<u8> {
    archive(&members.iter().map(|(path, content)| Member::file(path, content)).collect::<Vec<_>>())
}

/// A base, and a layer above it, each from an archive.
fn two(bench: &Bench) -> [layerstore::LayerId; 2] {
    let [base, top] = [id("base"), id("top")];
    bench.create(&base, None);
    bench.driver.apply_diff(&base, &*tar(&[("a", "a"), ("b", "bb"), ("same", "same")])).unwrap();
    bench.create(&top, Some(&base));
    let members = [Member::file("a", "changed"), Member::whiteout("b"), Member::file("dir/c", "ccc")];
    bench.driver.apply_diff(&top, &*archive(&members)).unwrap();
    [base, top]
}

#[test]
fn a_layer_is_compared_with_what_it_stands_on_with_nothing_and_with_any_other() {
    each("compare", |bench| {
        let [base, top] = two(bench);
        assert_eq!(bench.changes(&top, Some(&base)), ["C /a", "D /b", "A /dir", "A /dir/c"]);
        assert_eq!(bench.changes(&top, None), ["A /a", "A /dir", "A /dir/c", "A /same"]);
        assert_eq!(bench.changes(&base, Some(&top)), ["C /a", "A /b", "D /dir"]);
        let size = |parent| bench.driver.diff_size(&top, parent).unwrap();
        assert_eq!((size(Some(&base)), size(None)), (7 + 3, 7 + 3 + 4));
        // Alone on nothing it shows the same.
        let flat = id("flat");
        bench.create(&flat, None);
        bench.driver.apply_diff(&flat, &*bench.tar(&top, None)).unwrap();
        assert_eq!(bench.changes(&flat, Some(&top)), [""; 0]);
        assert_eq!(bench.changes(&top, Some(&flat)), [""; 0]);
        // And above another, what differs makes the same of it.
        let back = id("back");
        bench.create(&back, Some(&flat));
        bench.driver.apply_diff(&back, &*bench.tar(&base, Some(&flat))).unwrap();
        assert_eq!(bench.changes(&back, Some(&base)), [""; 0]);
    });
}

#[test]
fn a_file_that_nobody_put_there_is_not_in_the_archive() {
    each("stable", |bench| {
        let base = id("base");
        let given = archive(&[Member::file("a", "a"), Member::directory("d"), Member::hard_link("d/b", "a")]);
        bench.create(&base, None);
        bench.driver.apply_diff(&base, &*given).unwrap();
        let own = bench.driver.differ_target(&base).unwrap();
        std::fs::write(own.join("foreign"), "foreign").unwrap();
        assert_eq!(bench.tar(&base, None), given);
        // And what is changed is found.
        std::fs::write(own.join("a"), "b").unwrap();
        let mut out = Vec::new();
        let error = bench.driver.diff(&base, None, None, &mut out).unwrap_err();
        assert!(matches!(error, Error::Export(_)), "{error:?}");
        std::fs::write(own.join("a"), "a").unwrap();
        std::fs::remove_file(own.join("foreign")).unwrap();
        bench.driver.remove(&base).unwrap();
    });
}

#[test]
fn single_files_are_read_without_a_mount() {
    each("getter", |bench| {
        let [base, top] = two(bench);
        let web = id("web");
        bench.create_read_write(&web, Some(&top));
        bench.inside(&web, |root| {
            std::fs::write(root.join("own"), "own").unwrap();
            std::fs::remove_file(root.join("same")).unwrap();
        });
        let text = |layer, path: &str| {
            let mut text = String::new();
            bench.driver.diff_getter(layer).unwrap().open(path).map(|mut file| {
                file.read_to_string(&mut text).unwrap();
                text
            })
        };
        assert_eq!(text(&web, "own").unwrap(), "own");
        assert_eq!(text(&web, "/a").unwrap(), "changed");
        assert_eq!(text(&web, "dir/c").unwrap(), "ccc");
        assert_eq!(text(&top, "same").unwrap(), "same");
        assert_eq!(text(&base, "a").unwrap(), "a");
        for gone in ["b", "same", "dir", "nosuch", "../a", "dir/../a"] {
            let error = text(&web, gone).unwrap_err();
            assert!(matches!(error, Error::Lookup(LookupError::NotFound { .. })), "{gone}: {error:?}");
        }
    });
}

#[test]
fn what_is_applied_is_applied_whole_or_not_at_all() {
    each("apply", |bench| {
        let layer = id("layer");
        bench.create_read_write(&layer, None);
        let broken = &tar(&[("a", "a"), ("b", "b")])[..1500];
        let error = bench.driver.apply_diff(&layer, broken).unwrap_err();
        assert!(matches!(error, Error::Import(_)), "{error:?}");
        assert_eq!(bench.changes(&layer, None), [""; 0]);
        assert_eq!(bench.driver.apply_diff(&layer, std::io::empty()).unwrap(), 0);
        let path = bench.driver.get(&layer, &Default::default()).unwrap();
        let error = bench.driver.apply_diff(&layer, &*tar(&[("a", "a")])).unwrap_err();
        assert!(matches!(error, Error::InUse(InUseError::Mounted { .. })), "{error:?} at {}", path.display());
        bench.driver.put(&layer).unwrap();
        let error = bench.driver.apply_diff(&id("nosuch"), &*tar(&[])).unwrap_err();
        assert!(matches!(error, Error::Lookup(LookupError::NotFound { .. })), "{error:?}");
    });
}

/// A blob in memory.
struct Blob(Vec<u8>);

impl RangeSource for Blob {
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> std::io::Result<Box<dyn Read + Send + '_>> {
        let part = |range: &Range<u64>| &self.0[range.start as usize..range.end as usize];
        Ok(Box::new(std::io::Cursor::new(ranges.iter().map(part).collect::<Vec<_>>().concat())))
    }
}

#[test]
fn what_is_staged_is_applied_or_cleaned_up() {
    each("staging", |bench| {
        let layer = id("layer");
        bench.create(&layer, None);
        let given = tar(&[("a", "a"), ("b", "bb")]);
        let stage = || {
            let differ = |store: &layerstore::Store| store.stage_diff(&*given, &ApplyOptions::default());
            bench.driver.apply_diff_with_differ(differ).unwrap()
        };
        let directories = || std::fs::read_dir(bench.dir.root().join("diffs")).unwrap().count();
        let before = directories();
        let staged = stage();
        assert!(directories() > before);
        bench.driver.cleanup_staging_directory(staged);
        assert_eq!(directories(), before);
        assert_eq!(bench.changes(&layer, None), [""; 0]);
        let size = bench.driver.apply_diff_from_staging_directory(&layer, stage()).unwrap();
        assert_eq!((size, bench.changes(&layer, None)), (3, vec!["A /a".to_owned(), "A /b".to_owned()]));
        assert_eq!(bench.tar(&layer, None), given);
        let wrong = |store: &layerstore::Store| {
            let mut options = ApplyOptions::default();
            options.blob_digest = Some(layerstore::Digest::sha256(b"something else"));
            store.stage_diff(&*given, &options)
        };
        let error = bench.driver.apply_diff_with_differ(wrong).unwrap_err();
        assert!(matches!(error, Error::Import(ImportError::BlobDigest { .. })), "{error:?}");
        assert_eq!(directories(), before);
    });
}

#[test]
fn a_layer_of_which_parts_are_fetched_is_staged() {
    each("chunked", |bench| {
        let (base, copy) = (id("base"), id("copy"));
        bench.create(&base, None);
        let given = tar(&[("a", "a"), ("b", "bb")]);
        bench.driver.apply_diff(&base, &*given).unwrap();
        let mut blob = Vec::new();
        let options = DiffOptions::default().compression(Compression::ZstdChunked);
        let chunked = bench.driver.store().diff_with(&base, &options, &mut blob).unwrap().unwrap();
        bench.create(&copy, None);
        let staged = bench.driver.apply_diff_with_differ(|store| {
            store.stage_chunked(&chunked, &mut Blob(blob), &ApplyOptions::default())
        });
        let size = bench.driver.apply_diff_from_staging_directory(&copy, staged.unwrap()).unwrap();
        assert_eq!((size, bench.tar(&copy, None)), (3, given));
    });
}

#[test]
fn a_layer_tells_what_it_takes() {
    each("usage", |bench| {
        let [base, top] = two(bench);
        let web = id("web");
        bench.create_read_write(&web, Some(&top));
        bench.inside(&web, |root| std::fs::write(root.join("own"), "own").unwrap());
        let usage = |id| bench.driver.read_write_disk_usage(id).unwrap();
        let found = [&base, &top, &web].map(|id| (usage(id).content, usage(id).inodes));
        // The root directory counts, and so does a whiteout.
        assert_eq!(found, [(7, 4), (10, 5), (3, 2)]);
        assert!(usage(&web).total > 0 && usage(&web).unique == usage(&web).total);
        let error = bench.driver.read_write_disk_usage(&id("nosuch")).unwrap_err();
        assert!(matches!(error, Error::Lookup(LookupError::NotFound { .. })), "{error:?}");
        let mut options = DedupOptions::default();
        options.dry_run = true;
        // Not every filesystem can.
        match bench.driver.dedup(&options) {
            Ok(report) => assert_eq!(report.bytes_shared, 0),
            Err(error) => assert!(matches!(error, Error::CannotShare { .. }), "{error:?}"),
        }
    });
}

/// A container runs while its layer is looked at. What it takes away meanwhile was not there.
#[test]
fn a_layer_is_looked_at_while_it_is_written_to() {
    each("churn", |bench| {
        let [base, top] = two(bench);
        let web = id("web");
        bench.create_read_write(&web, Some(&top));
        let path = bench.driver.get(&web, &Default::default()).unwrap();
        std::fs::write(path.join("kept"), "kept").unwrap();
        let rounds = if bench.by_program { 40 } else { 250 };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..rounds {
                    let deep = path.join(format!("{round}/deep"));
                    std::fs::create_dir_all(&deep).unwrap();
                    for file in 0..20 {
                        std::fs::write(deep.join(file.to_string()), "").unwrap();
                        std::os::unix::fs::symlink("nowhere", deep.join(format!("link-{file}"))).unwrap();
                    }
                    std::fs::hard_link(deep.join("1"), deep.join("other")).unwrap();
                    std::fs::remove_dir_all(path.join(round.to_string())).unwrap();
                }
            });
            let kept =
                |changes: Vec<String>| assert!(changes.iter().any(|line| line == "A /kept"), "{changes:?}");
            let mut looked = 0;
            while looked == 0 || !writer.is_finished() {
                looked += 1;
                assert!(bench.driver.read_write_disk_usage(&web).unwrap().content >= 4);
                for parent in [Some(&top), Some(&base), None] {
                    kept(bench.changes(&web, parent));
                    assert!(bench.driver.diff_size(&web, parent).unwrap() >= 4);
                    assert!(!bench.tar(&web, parent).is_empty());
                }
            }
            writer.join().unwrap();
        });
        bench.driver.put(&web).unwrap();
        assert_eq!(bench.changes(&web, Some(&top)), ["A /kept"]);
    });
}

/// What is mounted in a layer's own directory is not the layer's, and keeps it from being sealed.
#[test]
fn what_is_mounted_in_a_layer_is_none_of_it() {
    each_kernel("mounted-in", |bench| {
        let (base, web) = (id("base"), id("web"));
        bench.create(&base, None);
        bench.create_read_write(&web, Some(&base));
        bench.inside(&web, |root| {
            std::fs::create_dir(root.join("data")).unwrap();
            std::fs::write(root.join("file"), "file").unwrap();
        });
        let data = bench.driver.differ_target(&web).unwrap().join("data");
        TestCommand::new("mount").args(["-t", "tmpfs", "none"]).arg(&data).assert_success();
        std::fs::write(data.join("large"), [1; 5000]).unwrap();
        let usage = bench.driver.read_write_disk_usage(&web);
        let changes = bench.driver.changes(&web, Some(&base));
        let size = bench.driver.diff_size(&web, Some(&base));
        let sealed = bench.driver.store().seal(&web);
        TestCommand::new("umount").arg(&data).assert_success();
        let usage = usage.unwrap();
        assert_eq!((usage.content, usage.inodes, size.unwrap()), (4, 2, 4));
        assert_eq!(changes.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(), ["A /file"]);
        assert!(sealed.is_err(), "it would not be what it is without the mount");
        assert_eq!(bench.changes(&web, Some(&base)), ["A /data", "A /file"]);
    });
}

#[test]
fn an_archive_is_applied_with_the_ids_of_the_host() {
    each("apply-ids", |bench| {
        if !machine::is_real_root() {
            skip!("only root of the machine gives files to any id");
        }
        let maps = IdMaps::both(["0:100000:1000".parse().unwrap()]);
        let members = [
            Member::file("implied/file", "file").owner(7, 8),
            Member::hard_link("link", "implied/file"),
            Member::whiteout("gone"),
        ];
        let given = archive(&members);
        let owner = |path: PathBuf| {
            let found = std::fs::symlink_metadata(path).unwrap();
            (found.uid(), found.gid())
        };
        // The maps of a call, and those of a driver.
        let options = DriverOptions::parse(bench.options()).unwrap().dialect(bench.driver.dialect());
        let mapped = Driver::open(place(&bench.dir), &options.id_maps(maps.clone())).unwrap();
        let mut with = ApplyDiffOptions::default();
        with.id_maps = Some(maps.clone());
        let mut create = CreateOptions::default();
        create.id_maps = Some(maps.clone());
        let cases = [
            (&bench.driver, id("call"), &create, &with),
            (&mapped, id("driver"), &Default::default(), &Default::default()),
        ];
        for (driver, layer, create, with) in cases {
            driver.create(&layer, None, create).unwrap();
            assert_eq!(driver.apply_diff_with(&layer, &*given, with).unwrap(), 4);
            let own = driver.differ_target(&layer).unwrap();
            let owners = ["", "implied", "implied/file", "link"].map(|name| owner(own.join(name)));
            let (root, user) = ((100_000, 100_000), (100_007, 100_008));
            assert_eq!(owners, [root, root, user, user], "{layer}");
            assert_eq!(bench.tar(&layer, None), given, "it gives back the archive's");
            // What is written above it has the host's ids, and comes out with the archive's.
            let above = id(&format!("above-{layer}"));
            driver.create_read_write(&above, Some(&layer), create).unwrap();
            bench.inside(&above, |root| {
                assert_eq!(owner(root.join("implied/file")), user);
                std::fs::write(root.join("new"), "new").unwrap();
                std::os::unix::fs::chown(root.join("new"), Some(100_001), Some(100_002)).unwrap();
            });
            let mut out = Vec::new();
            driver.diff(&above, Some(&layer), with.id_maps.as_ref(), &mut out).unwrap();
            let mut out = tar::Archive::new(&*out);
            let members = out.entries().unwrap().map(|member| {
                let member = member.unwrap();
                (member.header().uid().unwrap(), member.header().gid().unwrap())
            });
            assert_eq!(members.collect::<Vec<_>>(), [(1, 2)]);
        }
        let stranger = archive(&[Member::file("file", "file").owner(1000, 0)]);
        let layer = id("stranger");
        bench.create(&layer, None);
        let error = bench.driver.apply_diff_with(&layer, &*stranger, &with).unwrap_err();
        assert!(matches!(error, Error::Import(ImportError::Unmapped { uid: 1000, .. })), "{error:?}");
        assert_eq!(bench.changes(&layer, None), [""; 0]);
        bench.driver.apply_diff(&layer, &*stranger).unwrap();
    });
}

/// An id that a namespace seldom has.
const STRANGER: u32 = 4_000_000_000;

/// Without the right to give files away, an archive of others' files is taken only if that is said.
#[test]
fn owners_that_cannot_be_given_are_left_out_where_that_is_said() {
    each("apply-owners", |bench| {
        if machine::is_mapped(STRANGER) {
            skip!("root may give files to everybody");
        }
        let layer = id("layer");
        bench.create(&layer, None);
        let given = archive(&[Member::file("file", "file").owner(STRANGER.into(), 0)]);
        // Where there is one id, this need not be said.
        if machine::is_mapped(1) {
            let error = bench.driver.apply_diff(&layer, &*given).unwrap_err();
            assert!(matches!(error, Error::Import(ImportError::Unpack(_))), "{error:?}");
        }
        let mut with = ApplyDiffOptions::default();
        with.ignore_chown_errors = true;
        assert_eq!(bench.driver.apply_diff_with(&layer, &*given, &with).unwrap(), 4);
        assert_eq!(bench.changes(&layer, None), ["A /file"]);
        assert_eq!(bench.tar(&layer, None), given);
    });
}
