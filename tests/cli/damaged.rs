//! What commands say of a store that is damaged: what, whose it is, and what to do.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use layerstore::{Store, StoreOptions};
use rustix::fs::{CWD, FileType, Mode};

use super::{TAG, can_mount, load_base};
use crate::support::Dir;
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;

/// Where the files of the image's two layers lie: of the one that has `file`.
fn directory_with(dir: &Dir, file: &str) -> PathBuf {
    let mut directories =
        std::fs::read_dir(dir.root().join("diffs")).unwrap().map(|entry| entry.unwrap().path());
    directories.find(|directory| directory.join(file).exists()).unwrap()
}

#[test]
fn a_missing_directory_is_the_layers() {
    let dir = Dir::new("missing-directory");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let store = Store::open(&StoreOptions::at(dir.root()).run_root(dir.run_root())).unwrap();
    let layers = store.layers().unwrap();
    let base = layers.iter().find(|layer| layer.parent.is_none()).unwrap();
    std::fs::remove_dir_all(directory_with(&dir, "etc/hostname")).unwrap();
    let mut commands = vec![["diff", base.id.as_str()]];
    if can_mount() {
        commands.push(["mount", "web"]);
    }
    for command in commands {
        let error = dir.layerstore(command).assert_exit(1);
        let named = format!("of the layer {} is missing", base.id);
        assert!(error.contains(&named), "{command:?}: {error}");
        assert!(
            error.contains("`layerstore check --deep`") && error.contains("`layerstore repair`"),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_file_is_named() {
    let dir = Dir::new("damaged-file");
    load_base(&dir);
    dir.layerstore(["prune", "--blobs"]).assert_success();
    std::fs::write(directory_with(&dir, "etc/motd").join("etc/motd"), "HELLO\n").unwrap();
    for command in
        [&["diff", "base"][..], &["save", "base", "oci-archive:out.tar"], &["save", "base", "oci:out"]]
    {
        let error = dir.layerstore(command).assert_exit(1);
        assert!(error.contains(": /etc/motd is damaged"), "{error}");
        assert!(error.contains("of the layer") || error.contains("the layer "), "{error}");
        assert!(error.contains("`layerstore repair`"), "{error}");
    }
}

#[test]
fn a_layout_that_does_not_become_complete_is_removed() {
    let dir = Dir::new("save-fails");
    load_base(&dir);
    let other = Image::new([Layer::new([Member::file("other", "fine")])]).write(dir.join("other.oci"), TAG);
    dir.layerstore(["load", &other.reference(), "--name", "other"]).assert_success();
    dir.layerstore(["prune", "--blobs"]).assert_success();
    std::fs::write(directory_with(&dir, "etc/motd").join("etc/motd"), "HELLO\n").unwrap();
    dir.layerstore(["save", "base", "oci:new"]).assert_exit(1);
    assert!(!dir.join("new").exists());
    // A directory that was there stays, empty as it was.
    dir.create_dir("empty");
    dir.layerstore(["save", "base", "oci:empty"]).assert_exit(1);
    assert_eq!(std::fs::read_dir(dir.join("empty")).unwrap().count(), 0);
    // And so does a layout with its image.
    dir.layerstore(["save", "other", "oci:kept:x"]).assert_success();
    dir.layerstore(["save", "base", "oci:kept:y"]).assert_exit(1);
    Dir::new("save-fails-other")
        .layerstore(["load", &format!("oci:{}:x", dir.join("kept").display())])
        .assert_success();
}

/// It is the store's copy that is damaged, and not what the image came from: the message leads to it and to what mends it.
#[test]
fn a_damaged_kept_blob_is_told_by_its_file() {
    let dir = Dir::new("save-kept");
    load_base(&dir);
    let blobs: Vec<_> = std::fs::read_dir(dir.root().join("blobs")).unwrap().collect();
    let file = blobs.into_iter().map(|entry| entry.unwrap().path()).find(|path| path.is_file()).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let other: Vec<u8> = whole.iter().map(|byte| byte ^ 1).collect();
    let longer = [whole.as_slice(), b"x"].concat();
    for (bytes, reason) in [(other, "its content has another digest"), (longer, "it has another size")] {
        std::fs::write(&file, bytes).unwrap();
        for target in ["oci:out", "oci-archive:out.tar"] {
            let error = dir.layerstore(["save", "base", target]).assert_exit(1);
            let told = format!("that the store keeps in {} is damaged: {reason}", file.display());
            assert!(error.contains(&told), "{target}: {error}");
            assert!(error.contains("hint: `layerstore repair --from` the image as it came"), "{error}");
        }
    }
    dir.layerstore(["repair"]).assert_success();
    dir.layerstore(["save", "base", "oci:out"]).assert_success();
}

#[test]
fn a_damaged_database_is_restored_from_a_copy() {
    let dir = Dir::new("damaged-database");
    load_base(&dir);
    let database = dir.root().join("store.redb");
    let whole = std::fs::read(&database).unwrap();
    let noise: Vec<u8> = whole.iter().map(|byte| byte ^ 0x5a).collect();
    let cut: [(&[u8], &str); 6] = [
        (&whole[..whole.len() / 2], ""),
        (&whole[..20_000], ""),
        (&whole[..4096], ""),
        (&whole[..100], "is damaged: the file is cut short"),
        (&whole[..0], "is damaged: the file is empty"),
        (&noise, "store.redb is not the database of a store, or is damaged: the file does not begin as one"),
    ];
    for (bytes, said) in cut {
        std::fs::write(&database, bytes).unwrap();
        for command in [&["create-container", "base"][..], &["check"], &["check", "--deep"], &["repair"]] {
            let error = dir.layerstore(command).assert_exit(1);
            assert!(error.contains("restore a copy made by `layerstore backup`"), "{} {error}", bytes.len());
            assert!(error.contains(said) && !error.contains("I/O error"), "{} {error}", bytes.len());
        }
        // All rows are there perhaps.
        let listed = dir.layerstore(["images"]).output();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&listed.stdout), String::from_utf8_lossy(&listed.stderr));
        let told = stderr.contains("restore a copy made by `layerstore backup`");
        assert!(if listed.status.success() { stdout.contains("base") } else { told }, "{stdout}{stderr}");
    }
    let help = dir.layerstore(["help", "backup"]).stdout();
    assert!(help.contains("To put it back"), "{help}");
}

/// Every error names the file and how much of it is there, and what its hint says can be done.
#[test]
fn a_database_cut_short_says_how_much_there_is() {
    let dir = Dir::new("cut-database");
    load_base(&dir);
    let length = dir.root().join("store.redb").metadata().unwrap().len() as usize;
    let lengths = (1..32).map(|part| part * length / 32).chain([24, 100, 320, 4096, 20_000, length - 1]);
    let [lost, unlisted, _, copied] = cut_at(&dir, lengths);
    assert!(lost > 0 && unlisted == 0 && copied > 0);
    // Where most of it is manifests, the lists are there without the last of them.
    let layers = (0..20).map(|layer| {
        let file = |file| Member::file(format!("{layer}-{file}"), format!("{file} of {layer}"));
        Layer::new((0..400).map(file).collect::<Vec<_>>())
    });
    let many = Image::new(layers).write(dir.join("many.oci"), TAG);
    dir.layerstore(["load", &many.reference(), "--name", "many"]).assert_success();
    let length = dir.root().join("store.redb").metadata().unwrap().len() as usize;
    let lengths = (95..100).map(|part| part * length / 100).chain([length / 2, length - 4096]);
    let told = cut_at(&dir, lengths);
    assert!(told[2] > 0, "{told:?}");
}

/// Cuts the database to each length, and holds the errors to account. Returns how often nothing of it could be read, how often
/// something but not the images, how often these but not all, and how often a backup succeeded.
fn cut_at(dir: &Dir, lengths: impl Iterator<Item = usize>) -> [usize; 4] {
    let database = dir.root().join("store.redb");
    let whole = std::fs::read(&database).unwrap();
    let images = dir.layerstore(["images"]).stdout();
    let copy = dir.join("copy");
    let (nothing, some) = ("nothing of it can be read", "can still be read (`layerstore save`)");
    let mut told = [0; 4];
    for length in lengths {
        let cut = || std::fs::write(&database, &whole[..length]).unwrap();
        let found = format!(
            "{} is not the database of a store, or is damaged: the file is cut short",
            database.display()
        );
        for command in [&["create-layer"][..], &["check"], &["repair"]] {
            cut();
            let error = dir.layerstore(command).assert_exit(1);
            let story = format!("{command:?} at {length} of {}: {error}", whole.len());
            assert!(error.contains("restore a copy made by `layerstore backup`"), "{story}");
            assert_ne!(error.contains(nothing), error.contains(some), "{story}");
            // What is read is perhaps a page with something else in it, before the end is met.
            let is_met = command != ["create-layer"]
                && error.contains(&format!("the database {} is damaged", database.display()));
            let is_counted = error.contains(&format!("it has {length} of {} bytes", whole.len()));
            assert!(is_met || error.contains(&found) && (is_counted || length < 32), "{story}");
            cut();
            let listed = dir.layerstore(["images"]).output();
            let backed_up =
                dir.layerstore(["backup".as_ref(), "--force".as_ref(), copy.as_os_str()]).output();
            let backup_error = String::from_utf8(backed_up.stderr).unwrap();
            if error.contains(nothing) {
                assert!(!listed.status.success() && !backed_up.status.success(), "{story}");
                let list_error = String::from_utf8(listed.stderr).unwrap();
                assert!(list_error.contains(&found) && list_error.contains(nothing), "{story}{list_error}");
                assert!(backup_error.contains(nothing), "{story}{backup_error}");
                told[0] += 1;
                continue;
            }
            let list_error = String::from_utf8(listed.stderr).unwrap();
            if !listed.status.success() {
                assert!(list_error.contains(some) && !backed_up.status.success(), "{story}{list_error}");
                assert!(backup_error.contains(some), "{story}{backup_error}");
                told[1] += 1;
                continue;
            }
            assert_eq!(String::from_utf8(listed.stdout).unwrap(), images, "{story}");
            if backed_up.status.success() {
                std::fs::copy(&copy, &database).unwrap();
                dir.layerstore(["check", "--deep"]).assert_success();
                told[3] += 1;
            } else {
                assert!(backup_error.contains(some), "{story}{backup_error}");
                told[2] += 1;
            }
        }
    }
    std::fs::write(&database, whole).unwrap();
    told
}

#[test]
fn what_is_no_file_is_not_opened_as_the_database() {
    let dir = Dir::new("database-no-file");
    load_base(&dir);
    let (root, elsewhere) = (dir.root(), dir.join("elsewhere"));
    let (database, holder) = (root.join("store.redb"), root.join("store.holder"));
    std::fs::rename(&database, &elsewhere).unwrap();
    let before = std::fs::read(&elsewhere).unwrap();
    let fifo = |path: &Path| {
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    };
    let kinds: [(&str, &dyn Fn()); 4] = [
        ("a fifo", &|| fifo(&database)),
        ("a symbolic link", &|| symlink(&elsewhere, &database).unwrap()),
        ("a directory", &|| std::fs::create_dir(&database).unwrap()),
        ("a socket", &|| drop(UnixListener::bind(&database).unwrap())),
    ];
    for (kind, make) in kinds {
        make();
        for command in [
            &["images"][..],
            &["--no-write", "images"],
            &["status"],
            &["check"],
            &["repair"],
            &["create-container", "base"],
            &["backup", "copy"],
        ] {
            let error = dir.layerstore(command).assert_exit(1);
            assert!(error.contains(&format!("store.redb is {kind}")), "{command:?}: {error}");
            assert!(error.contains("put the database file itself there"), "{command:?}: {error}");
        }
        std::fs::remove_file(&database).or_else(|_| std::fs::remove_dir(&database)).unwrap();
    }
    assert_eq!(std::fs::read(&elsewhere).unwrap(), before);
    // The note of who writes is only a help: a store works without it.
    std::fs::rename(&elsewhere, &database).unwrap();
    std::fs::remove_file(&holder).unwrap();
    fifo(&holder);
    dir.layerstore(["create-container", "base"]).assert_success();
}

#[test]
fn rows_of_pages_that_rotted_are_not_for_a_repair() {
    let dir = Dir::new("rotted-pages");
    load_base(&dir);
    dir.layerstore(["create-layer", "--name", "unmistakable"]).assert_success();
    let database = dir.root().join("store.redb");
    let whole = std::fs::read(&database).unwrap();
    let name = b"unmistakable";
    let places = (0..whole.len() - name.len()).filter(|at| whole[*at..].starts_with(name));
    let mut told = 0;
    for place in places {
        let mut bytes = whole.clone();
        bytes[place + 3] ^= 1;
        std::fs::write(&database, bytes).unwrap();
        let mut check = dir.layerstore(["check", "--quick"]);
        // A copy that no commit needs any more.
        if check.output().status.success() {
            continue;
        }
        let checked = check.assert_exit(1);
        let error = &checked;
        assert!(error.contains("store.redb is damaged"), "{error}");
        assert!(error.contains("`layerstore repair` mends rows and not the file"), "{error}");
        assert!(error.contains("restore a copy made by `layerstore backup`"), "{error}");
        let error = dir.layerstore(["repair"]).assert_exit(1);
        assert!(error.contains("store.redb is damaged"), "{error}");
        assert!(error.contains("restore a copy made by `layerstore backup`"), "{error}");
        // Else it was found while the page was read.
        told += usize::from(checked.contains("pages of it are not as they were written"));
    }
    assert!(told > 0, "no row was of a page that rotted");
    std::fs::write(&database, whole).unwrap();
    dir.layerstore(["check", "--deep"]).assert_success();
}

/// Whoever meets it, and wherever the end is: who reads may come to a page that is not there, or to none.
#[test]
fn a_database_that_is_cut_is_told_in_the_same_words() {
    let dir = Dir::new("cut-database");
    load_base(&dir);
    let database = dir.root().join("store.redb");
    let whole = std::fs::read(&database).unwrap();
    for length in [whole.len() - 4096, whole.len() / 2, 8192, 4096] {
        std::fs::write(&database, &whole[..length]).unwrap();
        let told = format!("the file is cut short: it has {length} of {} bytes", whole.len());
        for command in [
            &["check"][..],
            &["check", "--deep"],
            &["gc"],
            &["gc", "--dry-run"],
            &["create-layer"],
            &["repair"],
            &["rmi", "base"],
        ] {
            let error = dir.layerstore(command).assert_exit(1);
            assert!(error.contains(&told), "{command:?}: {error}");
        }
    }
    std::fs::write(&database, whole).unwrap();
    dir.layerstore(["check", "--deep"]).assert_success();
}

#[test]
fn a_marker_is_written_again_as_the_error_says() {
    let dir = Dir::new("marker");
    load_base(&dir);
    let marker = dir.root().join("LAYERSTORE");
    let whole = std::fs::read_to_string(&marker).unwrap();
    for damaged in [None, Some("layerstore 1\n"), Some("")] {
        match damaged {
            None => std::fs::remove_file(&marker).unwrap(),
            Some(text) => std::fs::write(&marker, text).unwrap(),
        }
        let error = dir.layerstore(["images"]).assert_exit(1);
        assert!(error.contains(&marker.display().to_string()), "{error}");
        let (_, lines) = error.split_once("write these lines into the file: ").unwrap();
        let lines = lines.lines().next().unwrap().replace("`, `", "\n").replace('`', "");
        assert_eq!(format!("{lines}\n"), whole);
        // Nor is another store made over it.
        dir.layerstore(["create-container"]).assert_exit(1);
    }
    // Where the database cannot say it either, the form of the file is told.
    std::fs::write(dir.root().join("store.redb"), "").unwrap();
    let error = dir.layerstore(["images"]).assert_exit(1);
    assert!(error.contains("LAYERSTORE") && error.contains("`uuid UUID`"), "{error}");
    std::fs::write(&marker, whole).unwrap();
}

/// The number of a container's directory is eight bytes in a page. Every bit of it decides whether the directory is one that a
/// record names.
#[test]
fn no_flipped_bit_lets_a_collection_take_what_a_container_wrote() {
    let dir = Dir::new("rotted-number");
    load_base(&dir);
    let names = || -> std::collections::BTreeSet<std::ffi::OsString> {
        let listed = std::fs::read_dir(dir.root().join("diffs")).unwrap();
        listed.map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = names();
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let new = names().difference(&before).next().unwrap().clone();
    let file = dir.root().join("diffs").join(&new).join("written");
    std::fs::write(&file, "by the container").unwrap();
    let number = new.to_str().unwrap().parse::<u64>().unwrap().to_le_bytes();
    let database = dir.root().join("store.redb");
    let whole = std::fs::read(&database).unwrap();
    let places: Vec<_> = (0..whole.len() - 8).filter(|at| whole[*at..].starts_with(&number)).collect();
    assert!(!places.is_empty());
    let mut told = 0;
    for place in places {
        let mut bytes = whole.clone();
        bytes[place + 1] ^= 4;
        std::fs::write(&database, bytes).unwrap();
        let mut gc = dir.layerstore(["gc"]);
        let collected = gc.output();
        assert!(file.exists());
        let mut check = dir.layerstore(["check"]);
        let checked = check.output();
        // In a copy that no commit needs any more nothing is wrong.
        assert_eq!(collected.status.success(), checked.status.success());
        if collected.status.success() {
            continue;
        }
        told += 1;
        assert!(gc.assert_exit(1).contains("store.redb is damaged"));
        let error = check.assert_exit(1);
        assert!(error.contains("store.redb is damaged: pages of it are not as they were written"), "{error}");
        assert!(!error.contains("--force"), "{error}");
        let stdout = String::from_utf8_lossy(&checked.stdout);
        assert!(!stdout.contains("--force") && !stdout.contains("gc"), "{stdout}");
    }
    assert!(told > 0, "no record was of a page that rotted");
    std::fs::write(&database, whole).unwrap();
    assert_eq!(dir.layerstore(["gc"]).stdout(), "nothing to remove\n");
    assert!(file.exists());
}
