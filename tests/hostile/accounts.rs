//! Where a container's ids are chosen by the accounts of its image: what stands at `etc/passwd` and `etc/group` is the
//! image's own, or nothing.

use layerstore::{AutoIdMaps, ContainerOptions, HostRanges, IdMapping, ImageOptions, LayerOptions};

use super::scene::{Scene, in_each_mode, in_each_mode_within};
use super::*;

/// What a container gets of an image that names no accounts.
const LEAST: u32 = 1024;

/// For twenty loads, four of them of files of 15 MiB.
const LARGE_CPU: Duration = Duration::from_secs(120);

/// The first and the number of ids for containers. Root of a user namespace has those that it maps; `None` if they are too few.
fn own_ids() -> Option<(u32, u32)> {
    let (first, count) = if machine::in_user_namespace() { (4000, 60_000) } else { (500_000, 60_000) };
    (machine::is_root() && machine::is_mapped(first + count - 1)).then_some((first, count))
}

/// How many ids a new container over the image gets.
fn ids(store: &Store, image: &layerstore::Image) -> Result<u32, Error> {
    let mut auto = AutoIdMaps::default();
    let own = vec![own_ids().unwrap()];
    auto.ranges = Some(HostRanges { uids: own.clone(), gids: own });
    let mut options = ContainerOptions::default();
    options.ids = IdMapping::Auto(auto);
    let made = store.create_container(&image.id, &options)?;
    store.remove_container(&made.id).unwrap();
    Ok(made.id_maps.unwrap().uids.iter().map(|extent| extent.count).sum())
}

fn load_image(dir: &Dir, store: &Store, layers: Vec<Layer>) -> Result<layerstore::Image, Error> {
    let layout = dir.join("layout");
    std::fs::remove_dir_all(&layout).ok();
    let written = Image::new(layers).write(&layout, TAG);
    let source = Source::open(&written.reference().parse()?, store.root())?;
    store.load(&source, &LoadOptions::default())
}

fn accounts(uid: u32) -> String {
    format!("root:x:0:0::/:/bin/sh\nuser:x:{uid}:{uid}::/:/bin/sh\n")
}

/// A victim that has accounts itself.
fn with_accounts(mode: Mode) -> Scene {
    let mut scene = Scene::new(mode);
    scene.change_victim(|victim| std::fs::write(victim.join("passwd"), accounts(3000)).unwrap());
    scene
}

#[test]
fn accounts_are_read_from_files_of_the_image_alone() {
    const TEST: &str = "hostile::accounts::accounts_are_read_from_files_of_the_image_alone";
    if own_ids().is_none() {
        skip!("giving a directory to ids of another needs root, and in a namespace many ids");
    }
    in_each_mode_within(TEST, LARGE_CPU, |mode| {
        let scene = with_accounts(mode);
        let victim_dir = scene.victim().to_str().unwrap().to_owned();
        let victim = format!("{victim_dir}/passwd");
        let store = scene.open();
        let passwd = |uid: u32| Member::file("etc/passwd", accounts(uid));
        let etc = || Member::directory("etc");
        let base = || Layer::new([etc(), passwd(2000)]);
        let one = |member: Member| vec![Layer::new([etc(), member])];
        let above = |members: Vec<Member>| vec![base(), Layer::new(members)];
        let check = |name: &str, layers, expected: u32| match load_image(&scene.dir, &store, layers) {
            Ok(image) => assert_eq!(ids(&store, &image).unwrap(), expected, "{name}"),
            Err(error) => assert_eq!(expected, 0, "{name}: {error}"),
        };
        for (name, layers, expected) in [
            ("a file", one(passwd(2000)), 2001),
            ("a link to a device", one(Member::symlink("etc/passwd", "/dev/zero")), LEAST),
            ("a link into the victim", one(Member::symlink("etc/passwd", &victim)), LEAST),
            ("a link up", one(Member::symlink("etc/passwd", "../../../../victim/passwd")), LEAST),
            ("a link inside", one(Member::symlink("etc/passwd", "other")), LEAST),
            ("a pipe", one(Member::fifo("etc/passwd")), LEAST),
            ("a device", one(Member::char_device("etc/passwd", 1, 5)), LEAST),
            ("a directory", one(Member::directory("etc/passwd")), LEAST),
            ("a hard link", one(Member::hard_link("etc/passwd", "etc/none")), 0),
            ("a directory that is a link", vec![Layer::new([Member::symlink("etc", &victim_dir)])], LEAST),
            ("the lower file", above(vec![Member::file("x", b"")]), 2001),
            ("a link above a file", above(vec![Member::symlink("etc/passwd", &victim)]), LEAST),
            ("a pipe above a file", above(vec![Member::fifo("etc/passwd")]), LEAST),
            ("a whiteout", above(vec![Member::whiteout("etc/passwd")]), LEAST),
            ("an opaque directory", above(vec![etc(), Member::opaque("etc")]), LEAST),
            ("a link above the directory", above(vec![Member::symlink("etc", &victim_dir)]), LEAST),
            ("a file above the directory", above(vec![Member::file("etc", b"")]), LEAST),
        ] {
            check(name, layers, expected);
        }
        // One at a time: what they have is the kit's memory, too.
        for (name, path, byte) in [
            ("no end of colons", "etc/passwd", b':'),
            ("no end of lines", "etc/group", b'\n'),
            ("zeros", "etc/passwd", 0),
        ] {
            check(name, one(Member::file(path, vec![byte; 15 << 20])), LEAST);
        }
        let behind = [vec![b'\n'; 16 << 20], accounts(2000).into_bytes()].concat();
        check("accounts behind 16 MiB", one(Member::file("etc/passwd", behind)), LEAST);
        assert_eq!(store.containers().unwrap(), []);
    });
}

/// Nobody has looked at what is in a layer that is still written to.
#[test]
fn accounts_of_a_layer_that_is_written_to_are_files() {
    if own_ids().is_none() {
        skip!("giving a directory to ids of another needs root, and in a namespace many ids");
    }
    in_each_mode("hostile::accounts::accounts_of_a_layer_that_is_written_to_are_files", |mode| {
        let scene = with_accounts(mode);
        let victim = scene.victim().join("passwd");
        let store = scene.open();
        let layer = store.create_layer(None, &LayerOptions::default()).unwrap();
        let mut options = ImageOptions::default();
        options.top_layer = Some(layer.id.clone());
        let image = store.create_image(&options).unwrap();
        let entries: Vec<_> = std::fs::read_dir(store.root().join("diffs")).unwrap().collect();
        let [Ok(entry)] = entries.as_slice() else { panic!("{entries:?}") };
        let etc = entry.path().join("etc");
        let passwd = etc.join("passwd");
        assert_eq!(ids(&store, &image).unwrap(), LEAST, "nothing");
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(&passwd, accounts(2000)).unwrap();
        assert_eq!(ids(&store, &image).unwrap(), 2001, "a file");
        let make = |kind, device| {
            std::fs::remove_file(&passwd).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(rustix::fs::CWD, &passwd, kind, mode, device).unwrap();
        };
        make(rustix::fs::FileType::Fifo, 0);
        assert_eq!(ids(&store, &image).unwrap(), LEAST, "a pipe");
        make(rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(0, 0));
        assert_eq!(ids(&store, &image).unwrap(), LEAST, "a whiteout");
        for target in [Path::new("/dev/zero"), &victim, Path::new("../../../../../victim/passwd")] {
            std::fs::remove_file(&passwd).unwrap();
            std::os::unix::fs::symlink(target, &passwd).unwrap();
            assert_eq!(ids(&store, &image).unwrap(), LEAST, "{}", target.display());
        }
        std::fs::remove_dir_all(&etc).unwrap();
        std::os::unix::fs::symlink(scene.victim(), &etc).unwrap();
        assert_eq!(ids(&store, &image).unwrap(), LEAST, "a directory that is a link");
    });
}
