//! What the suites of both projects ask of every graph driver.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use layerstore::LayerId;

use super::{Bench, each, hex, id, names, read};
use crate::support::machine;
use crate::support::tree::Tree;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Mode with set-id and sticky bits, and owner.
fn owner(path: &Path) -> (u32, u32, u32) {
    let found = std::fs::symlink_metadata(path).unwrap();
    (found.mode() & 0o7777, found.uid(), found.gid())
}

/// A directory and a file with unusual modes, and an owner where there is another.
fn make_base(bench: &Bench, base: &LayerId) {
    bench.create_read_write(base, None);
    bench.inside(base, |root| {
        let directory = root.join("a subdir");
        std::fs::create_dir(&directory).unwrap();
        chown(&directory, Some(other(1)), Some(other(2))).unwrap();
        set_mode(&directory, 0o1705);
        let file = root.join("a file");
        std::fs::write(&file, "Some data").unwrap();
        set_mode(&file, 0o4222);
    });
}

/// An id that this machine has, or root's.
fn other(id: u32) -> u32 {
    if machine::is_mapped(id) { id } else { 0 }
}

#[track_caller]
fn check_base(root: &Path) {
    assert_eq!(names(root), ["a file", "a subdir"]);
    assert_eq!(owner(&root.join("a subdir")), (0o1705, other(1), other(2)));
    assert_eq!(owner(&root.join("a file")), (0o4222, 0, 0));
    assert_eq!(read(&root.join("a file")), "Some data");
}

#[test]
fn a_new_layer_is_an_empty_directory() {
    each("empty", |bench| {
        let empty = id("empty");
        bench.create(&empty, None);
        assert!(bench.driver.exists(&empty).unwrap());
        bench.inside(&empty, |root| {
            assert_eq!(owner(root), (u32::from(bench.driver.dialect().root_mode()), 0, 0));
            assert!(names(root).is_empty());
        });
    });
}

#[test]
fn modes_and_owners_are_kept() {
    each("base", |bench| {
        let base = id("base");
        make_base(bench, &base);
        bench.inside(&base, check_base);
    });
}

#[test]
fn a_child_shows_the_same() {
    each("snap", |bench| {
        let (base, snap) = (id("base"), id("snap"));
        make_base(bench, &base);
        bench.create(&snap, Some(&base));
        bench.inside(&snap, check_base);
    });
}

#[test]
fn the_root_directory_is_like_that_of_the_parent() {
    each("root-mode", |bench| {
        let layers = [hex(1), hex(2), hex(3)];
        make_base(bench, &layers[0]);
        for (layer, mode) in [(1, 0o750), (2, 0o701)] {
            bench.create(&layers[layer], Some(&layers[layer - 1]));
            bench.inside(&layers[layer], |root| {
                let before = [u32::from(bench.driver.dialect().root_mode()), 0o750][layer - 1];
                assert_eq!(owner(root).0, before);
                set_mode(root, mode);
                check_base(root);
            });
        }
    });
}

#[test]
fn a_file_below_many_layers_is_seen() {
    each("deep", |bench| {
        // Each mount by a program is a process.
        let depth = if bench.by_program { 32 } else { 128 };
        bench.create(&hex(0), None);
        bench.inside(&hex(0), |root| std::fs::write(root.join("base"), "from below").unwrap());
        for layer in 1..=depth {
            bench.create(&hex(layer), Some(&hex(layer - 1)));
            bench.inside(&hex(layer), |root| {
                std::fs::write(root.join(format!("layer-{layer}")), layer.to_string()).unwrap();
                std::fs::write(root.join("top"), layer.to_string()).unwrap();
            });
        }
        bench.inside(&hex(depth), |root| {
            assert_eq!(read(&root.join("base")), "from below");
            assert_eq!(read(&root.join("top")), depth.to_string());
            for layer in 1..=depth {
                assert_eq!(read(&root.join(format!("layer-{layer}"))), layer.to_string());
            }
        });
    });
}

fn make_files(root: &Path, count: usize, text: &str) {
    for number in 0..count {
        std::fs::write(root.join(format!("file-{number}")), format!("{text} {number}")).unwrap();
    }
}

#[test]
fn an_archive_makes_of_the_base_what_it_was_made_from() {
    each("diff-apply", |bench| {
        let (base, upper, copy) = (id("base"), id("upper"), id("copy"));
        bench.create(&base, None);
        bench.inside(&base, |root| {
            make_files(root, 10, "base");
            std::fs::create_dir(root.join("dir")).unwrap();
            std::fs::write(root.join("dir/in"), "in").unwrap();
        });
        bench.create(&upper, Some(&base));
        bench.inside(&upper, |root| {
            make_files(root, 5, "upper");
            std::fs::write(root.join("new"), "new").unwrap();
            std::fs::remove_file(root.join("file-9")).unwrap();
            std::fs::remove_dir_all(root.join("dir")).unwrap();
        });
        let tar = bench.tar(&upper, Some(&base));
        bench.create(&copy, Some(&base));
        let applied = bench.driver.apply_diff(&copy, &*tar).unwrap();
        assert_eq!(applied, bench.driver.diff_size(&upper, Some(&base)).unwrap());
        assert!(applied > 0);
        // The time of the root directory is no change.
        let shown = |layer: &LayerId| {
            let mut tree = bench.inside(layer, |root| Tree::scan(root));
            tree.nodes.get_mut(&b""[..]).unwrap().mtime = (0, 0);
            tree
        };
        let found = shown(&copy);
        shown(&upper).assert_same(&found);
        assert!(found.get("file-9").is_none() && found.get("dir").is_none());
        assert_eq!(bench.tar(&copy, Some(&base)), tar, "it comes out as it went in");
    });
}

#[test]
fn changes_are_those_that_were_made() {
    each("changes", |bench| {
        let (base, upper) = (id("base"), id("upper"));
        bench.create(&base, None);
        bench.inside(&base, |root| {
            for directory in ["a", "b"] {
                std::fs::create_dir(root.join(directory)).unwrap();
                make_files(&root.join(directory), 20, "base");
            }
        });
        bench.create(&upper, Some(&base));
        let mut expected = Vec::new();
        bench.inside(&upper, |root| {
            for number in 0..20 {
                let path = root.join(format!("a/file-{number}"));
                let letter = match number % 3 {
                    0 => std::fs::remove_file(path).map(|()| 'D'),
                    1 => std::fs::write(path, "changed").map(|()| 'C'),
                    _ => std::fs::write(root.join(format!("a/new-{number}")), "new").map(|()| 'A'),
                };
                let name = if number % 3 == 2 { "new" } else { "file" };
                expected.push(format!("{} /a/{name}-{number}", letter.unwrap()));
            }
        });
        expected.push("C /a".to_owned());
        expected.sort_by_key(|line| line[2..].to_owned());
        let mut changes = bench.changes(&upper, Some(&base));
        changes.sort_by_key(|line| line[2..].to_owned());
        assert_eq!(changes, expected);
        // The base itself is all new.
        assert!(bench.changes(&base, None).iter().all(|line| line.starts_with('A')));
        assert_eq!(bench.changes(&base, None).len(), 42);
    });
}

#[test]
fn a_path_is_deleted_and_made_again_at_any_depth() {
    each("echo", |bench| {
        let path: Vec<String> = (1..=10).map(|depth| format!("d{depth}")).collect();
        for depth in 1..=path.len() {
            let [base, gone, back] = ["base", "gone", "back"].map(|name| id(&format!("{name}-{depth}")));
            let [whole, above] = [path.join("/"), path[..depth].join("/")];
            let parents: Vec<String> =
                (1..depth).map(|end| format!("C /{}", path[..end].join("/"))).collect();
            bench.create(&base, None);
            bench.inside(&base, |root| {
                std::fs::create_dir_all(root.join(&whole)).unwrap();
                std::fs::write(root.join(&whole).join("file"), "old").unwrap();
            });
            bench.create(&gone, Some(&base));
            bench.inside(&gone, |root| std::fs::remove_dir_all(root.join(&above)).unwrap());
            let deleted = [parents.clone(), vec![format!("D /{above}")]].concat();
            assert_eq!(bench.changes(&gone, Some(&base)), deleted, "depth {depth}");
            bench.create(&back, Some(&gone));
            bench.inside(&back, |root| {
                assert!(!root.join(&above).exists());
                std::fs::create_dir_all(root.join(&whole)).unwrap();
                assert!(names(&root.join(&whole)).is_empty(), "nothing leaks from below");
            });
            let added = (depth..=path.len()).map(|end| format!("A /{}", path[..end].join("/")));
            let made = [parents, added.collect()].concat();
            assert_eq!(bench.changes(&back, Some(&gone)), made, "depth {depth}");
            bench.inside(&back, |root| assert!(names(&root.join(&whole)).is_empty()));
        }
    });
}

#[test]
fn a_copy_of_a_template_stands_beside_it() {
    each("template", |bench| {
        let (base, template) = (id("base"), id("template"));
        make_base(bench, &base);
        bench.create(&template, Some(&base));
        bench.inside(&template, |root| std::fs::write(root.join("added"), "added").unwrap());
        let tree = bench.inside(&template, |root| Tree::scan(root));
        let of_base = bench.inside(&base, |root| Tree::scan(root));
        // As it is written, and as it came in an archive.
        for (round, sealed) in [false, true].into_iter().enumerate() {
            if sealed {
                bench.driver.store().seal(&template).unwrap();
            }
            for read_write in [false, true] {
                let copy = id(&format!("copy-{round}-{read_write}"));
                let options = layerstore::graphdriver::CreateOptions::default();
                let driver = &bench.driver;
                driver.create_from_template(&copy, &template, Some(&base), &options, read_write).unwrap();
                assert_eq!(driver.store().layer(copy.as_str()).unwrap().parent.as_ref(), Some(&base));
                assert_eq!(bench.changes(&copy, Some(&template)), [""; 0]);
                assert_eq!(bench.changes(&copy, Some(&base)), ["A /added"]);
                bench.inside(&copy, |root| {
                    tree.assert_same(&Tree::scan(root));
                    let written = std::fs::write(root.join("own"), "own");
                    assert_eq!(written.is_ok(), read_write || !sealed, "what is sealed is for reading");
                });
            }
        }
        bench.inside(&template, |root| tree.assert_same(&Tree::scan(root)));
        bench.inside(&base, |root| of_base.assert_same(&Tree::scan(root)));
    });
}

/// What is copied is all that a container can have made.
#[test]
fn a_copy_has_every_kind_of_file() {
    each("copy", |bench| {
        let (template, copy) = (id("template"), id("copy"));
        bench.create_read_write(&template, None);
        bench.inside(&template, |root| {
            let directory = root.join("directory");
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("program"), "program").unwrap();
            set_mode(&directory.join("program"), 0o4755);
            // fuse-overlayfs shows two files where a directory has two names of one.
            if !bench.by_program {
                std::fs::hard_link(directory.join("program"), root.join("link")).unwrap();
            }
            std::os::unix::fs::symlink("/nowhere", root.join("symlink")).unwrap();
            std::fs::write(root.join("empty"), "").unwrap();
            std::fs::File::create(root.join("sparse")).unwrap().set_len(1 << 20).unwrap();
            if !bench.by_program {
                std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
            }
            if machine::is_real_root() {
                chown(&directory, Some(1), Some(2)).unwrap();
            }
            set_mode(&directory, 0o1705);
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            std::fs::File::open(&directory).unwrap().set_modified(time).unwrap();
        });
        // As another mount shows it: a mount program may write later what it has shown before, and then at another time.
        let tree = bench.inside(&template, |root| Tree::scan(root));
        let options = layerstore::graphdriver::CreateOptions::default();
        bench.driver.create_from_template(&copy, &template, None, &options, true).unwrap();
        bench.inside(&copy, |root| tree.assert_same(&Tree::scan(root)));
        if bench.by_program {
            return;
        }
        let [from, to] = [&template, &copy].map(|layer| bench.driver.differ_target(layer).unwrap());
        let number = |path: &Path| std::fs::symlink_metadata(path).unwrap().ino();
        assert_eq!(number(&to.join("link")), number(&to.join("directory/program")));
        for name in ["link", "directory", "symlink", "sparse"] {
            assert_ne!(number(&from.join(name)), number(&to.join(name)), "{name}");
        }
        bench.inside(&copy, |root| std::fs::write(root.join("link"), "other").unwrap());
        bench.inside(&template, |root| assert_eq!(read(&root.join("link")), "program"));
    });
}

#[test]
fn layers_are_listed() {
    each("list", |bench| {
        assert!(bench.driver.list_layers().unwrap().is_empty());
        let init = id(&format!("{}-init", hex(7)));
        bench.create(&hex(7), None);
        bench.create(&init, Some(&hex(7)));
        bench.create_read_write(&hex(8), Some(&init));
        assert_eq!(bench.driver.list_layers().unwrap(), [hex(7), init.clone(), hex(8)]);
        // The beginning of an id is none.
        assert!(!bench.driver.exists(&id(&hex(8).as_str()[..63])).unwrap());
        bench.driver.remove(&hex(8)).unwrap();
        bench.driver.remove(&hex(8)).unwrap();
        assert_eq!(bench.driver.list_layers().unwrap(), [hex(7), init]);
    });
}

#[test]
fn changes_of_an_init_layer_are_not_those_of_the_layer_above() {
    each("init", |bench| {
        let (base, init, web) = (hex(1), id(&format!("{}-init", hex(2))), hex(2));
        bench.create(&base, None);
        bench.inside(&base, |root| make_files(root, 3, "base"));
        bench.create_read_write(&init, Some(&base));
        bench.inside(&init, |root| {
            std::fs::write(root.join("file-0"), "init").unwrap();
            std::fs::write(root.join("resolv.conf"), "init").unwrap();
        });
        bench.create_read_write(&web, Some(&init));
        assert_eq!(
            (bench.changes(&web, Some(&init)), bench.driver.diff_size(&web, Some(&init)).unwrap()),
            (vec![], 0)
        );
        bench.inside(&web, |root| {
            std::fs::write(root.join("file-0"), "changed").unwrap();
            std::fs::write(root.join("resolv.conf"), "changed!").unwrap();
            std::fs::remove_file(root.join("file-1")).unwrap();
            std::fs::write(root.join("new"), "new").unwrap();
        });
        let changes = ["C /file-0", "D /file-1", "A /new", "C /resolv.conf"];
        assert_eq!(bench.changes(&web, Some(&init)), changes);
        assert_eq!(bench.driver.diff_size(&web, Some(&init)).unwrap(), 7 + 8 + 3);
        // Against what is below the init layer, its file is new.
        let since_base = ["C /file-0", "D /file-1", "A /new", "A /resolv.conf"];
        let with_root = bench.changes(&web, Some(&base));
        assert_eq!(with_root, since_base);
    });
}
