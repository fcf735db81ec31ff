use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use layerstore_schema::manifest::{Entry, Kind, Manifest};
use rustix::fs::FileType;
use rustix::mount::MountAttrFlags;

use super::tree::{Stack, image};
use crate::disk::XattrNamespace;
use crate::sys::loop_device::LoopDevice;
use crate::sys::mount::{FsContext, open_root};
use crate::sys::privileges::Privileges;
use crate::sys::xattr::{self, Target};
use crate::sys::{directory, node, stat};
use crate::types::{ContentHash, Metadata, Timestamp};

fn metadata(mode: u16) -> Metadata {
    Metadata {
        mode,
        uid: 70_000,
        gid: 5,
        mtime: Timestamp { seconds: -7, nanoseconds: 9 },
        xattrs: Vec::new(),
    }
}

fn entry(path: impl AsRef<[u8]>, kind: Kind) -> Entry {
    let metadata = match kind {
        Kind::Whiteout | Kind::HardLink { .. } => Metadata::default(),
        _ => metadata(0o4755),
    };
    Entry { path: path.as_ref().to_vec(), kind, metadata }
}

fn file(size: u64) -> Kind {
    Kind::File { size, content: ContentHash(*blake3::hash(&size.to_le_bytes()).as_bytes()) }
}

const DIRECTORY: Kind = Kind::Directory { opaque: false };

/// Everything that a layer can have, and what does not fit into a block.
fn everything() -> Manifest {
    let target = |length| Kind::Symlink { target: vec![b't'; length] };
    let mut entries = vec![
        entry("", DIRECTORY),
        entry("!before-the-dot", file(1)),
        entry("a", Kind::Directory { opaque: true }),
        entry("a/first", file(4097)),
        entry("a/second", Kind::HardLink { target: b"a/first".to_vec() }),
        entry("block", Kind::BlockDevice { major: 259, minor: 70_000 }),
        entry("char", Kind::CharDevice { major: 4, minor: 3 }),
        entry("empty", file(0)),
        entry("fifo", Kind::Fifo),
        entry("gone", Kind::Whiteout),
        entry("huge", file(20 << 40)),
        entry("link", target(9)),
        entry("link-of-a-block", target(4095)),
        entry("link-of-half-a-block", target(2100)),
        entry("many", DIRECTORY),
        entry("socket", Kind::Socket),
        entry("with-xattrs", file(3)),
    ];
    entries[16].metadata.xattrs = vec![
        (b"security.capability".to_vec(), b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
        (b"trusted.overlay.opaque".to_vec(), b"of the layer".to_vec()),
        (b"user.large".to_vec(), vec![b'v'; 9000]),
    ];
    for number in 0..700 {
        entries.push(entry(format!("many/{number:03}-{}", "n".repeat(number % 200)), DIRECTORY));
    }
    Manifest::new(entries).unwrap()
}

/// These layers, topmost first.
fn stack<'m>(layers: impl IntoIterator<Item = &'m Manifest>, namespace: XattrNamespace) -> Stack {
    let layers = layers.into_iter().map(|layer| (layer.digest(), Arc::new(layer.clone()))).collect();
    Stack { layers, namespace }
}

fn image_of(manifest: &Manifest) -> Vec<u8> {
    image(&stack([manifest], XattrNamespace::Trusted), None).unwrap()
}

/// An image in a file, and what the kernel makes of it; `None` where it mounts nothing.
fn mounted(dir: &Path, manifest: &Manifest) -> Option<(OwnedFd, OwnedFd)> {
    let path = dir.join("image");
    std::fs::write(&path, image_of(manifest)).unwrap();
    if !Privileges::of_this_process().unwrap().is_machine_root() {
        eprintln!("skipped: mounting EROFS needs root");
        return None;
    }
    let from = |source: &Path| {
        FsContext::open("erofs").and_then(|context| {
            context.flag("ro")?;
            context.string("source", source)?;
            context.create(MountAttrFlags::MOUNT_ATTR_RDONLY)
        })
    };
    // As a file, or by a loop device.
    let made = from(&path).or_else(|refusal| {
        let file = std::fs::File::open(&path).unwrap();
        match LoopDevice::attach(file.as_fd()) {
            Ok(device) => from(device.path()),
            Err(_) => Err(refusal),
        }
    });
    match made {
        Ok(tree) => Some((open_root(tree.as_fd()).unwrap(), tree)),
        Err(refusal) => {
            eprintln!("skipped: no EROFS image is mounted here: {refusal}");
            None
        }
    }
}

fn program(dir: &Path, manifest: &Manifest) -> Option<String> {
    let path = dir.join("image");
    std::fs::write(&path, image_of(manifest)).unwrap();
    match Command::new("fsck.erofs").arg("-d7").arg(&path).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "{} {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => {
            eprintln!("skipped: no fsck.erofs (erofs-utils): {error}");
            None
        }
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let (one, other) = (image_of(&everything()), image_of(&everything()));
    assert_eq!(one.len() % 4096, 0);
    assert!(one == other);
    assert_eq!(one[1024..1028], 0xE0F5_E1E2_u32.to_le_bytes());
}

#[test]
fn erofs_utils_find_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(program(dir.path(), &everything()), None);
    assert_eq!(program(dir.path(), &Manifest::new(vec![entry("", DIRECTORY)]).unwrap()), None);
    // Inodes at every distance from the end of a block.
    for length in 0..200 {
        let kind = Kind::Symlink { target: vec![b't'; 1 + length * 20] };
        let entries =
            vec![entry("", DIRECTORY), entry("a", kind.clone()), entry("b", kind), entry("c", DIRECTORY)];
        assert_eq!(program(dir.path(), &Manifest::new(entries).unwrap()), None, "{length}");
    }
}

#[test]
fn the_kernel_shows_what_the_manifest_has() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = everything();
    let Some((root, _tree)) = mounted(dir.path(), &manifest) else { return };
    let links = |path: &[u8]| stat::stat_at(root.as_fd(), path).unwrap().links;
    for Entry { path, kind, metadata } in manifest.entries() {
        if path.is_empty() || *kind == Kind::Whiteout {
            continue;
        }
        let shown = PathBuf::from(OsStr::from_bytes(path));
        let found =
            stat::stat_at(root.as_fd(), path).unwrap_or_else(|error| panic!("{}: {error}", shown.display()));
        let expected = match kind {
            Kind::Directory { .. } => FileType::Directory,
            Kind::File { size, .. } => {
                assert_eq!(found.size, *size, "{}", shown.display());
                FileType::RegularFile
            }
            Kind::Symlink { target } => {
                assert_eq!(node::read_symlink(root.as_fd(), path).unwrap(), *target, "{}", shown.display());
                FileType::Symlink
            }
            Kind::CharDevice { major, minor } => {
                assert_eq!(found.device, (*major, *minor));
                FileType::CharacterDevice
            }
            Kind::BlockDevice { major, minor } => {
                assert_eq!(found.device, (*major, *minor));
                FileType::BlockDevice
            }
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::Whiteout => unreachable!("it is left out"),
            Kind::HardLink { target } => {
                assert_eq!(found.id, stat::stat_at(root.as_fd(), target).unwrap().id);
                continue;
            }
        };
        assert_eq!(found.kind, expected, "{}", shown.display());
        assert_eq!(
            (found.mode & 0o7777, found.uid, found.gid),
            (metadata.mode, 70_000, 5),
            "{}",
            shown.display()
        );
        assert_eq!(found.mtime, (-7, 9), "{}", shown.display());
    }
    assert_eq!((links(b"a/first"), links(b"a"), links(b"many"), links(b".")), (2, 2, 702, 4));
    let many = crate::sys::beneath::open_directory_beneath(root.as_fd(), b"many").unwrap();
    assert_eq!(directory::list(many.as_fd()).unwrap().len(), 700);
    let of = |path: &'static str, name: &str| {
        xattr::get(Target::Name(root.as_fd(), path.as_bytes()), name.as_bytes()).unwrap()
    };
    assert!(stat::stat_at(root.as_fd(), b"gone").is_err(), "nothing is below that it could delete");
    assert_eq!(of("a/second", "trusted.overlay.metacopy").as_deref(), Some(&b""[..]));
    let redirect = of("a/first", "trusted.overlay.redirect").unwrap();
    assert_eq!(redirect, format!("/{}", blake3::hash(&4097_u64.to_le_bytes()).to_hex()).into_bytes());
    assert_eq!(of("empty", "trusted.overlay.metacopy"), None);
    assert_eq!(of("with-xattrs", "trusted.overlay.overlay.opaque").as_deref(), Some(&b"of the layer"[..]));
    assert_eq!(of("with-xattrs", "user.large").map(|value| value.len()), Some(9000));
    assert_eq!(of("with-xattrs", "security.capability").map(|value| value.len()), Some(20));
}

#[test]
fn what_erofs_has_no_room_for_is_named() {
    let refused = |name: &[u8], length: usize| {
        let mut entries = vec![entry("", DIRECTORY), entry("f", Kind::Fifo)];
        entries[1].metadata.xattrs = vec![(name.to_vec(), vec![b'v'; length])];
        let manifest = Manifest::new(entries).unwrap();
        image(&stack([&manifest], XattrNamespace::User), None).unwrap_err()
    };
    assert_eq!(refused(b"system.nfs4_acl", 1).path, "/f");
    assert_eq!(refused(b"user.large", 70_000).reason, "an attribute is too long");
    assert_eq!(refused(&[b"user.".as_slice(), &[b'n'; 300]].concat(), 1).path, "/f");
}

#[test]
fn a_loop_device_shows_the_image_and_frees_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, image_of(&everything())).unwrap();
    if !Privileges::of_this_process().unwrap().is_machine_root() {
        return eprintln!("skipped: loop devices need root");
    }
    let file = std::fs::File::open(&path).unwrap();
    let device = match LoopDevice::attach(file.as_fd()) {
        Ok(device) => device,
        Err(error) => return eprintln!("skipped: no loop devices here: {error}"),
    };
    let backing = Path::new("/sys/block").join(device.path().file_name().unwrap()).join("loop/backing_file");
    let shown = std::fs::read(device.path()).unwrap();
    assert!(shown.starts_with(&std::fs::read(&path).unwrap()));
    assert!(std::fs::read_to_string(&backing).unwrap().starts_with(path.to_str().unwrap()));
    let read_only = Path::new("/sys/block").join(device.path().file_name().unwrap()).join("ro");
    assert_eq!(std::fs::read_to_string(read_only).unwrap().trim(), "1");
    drop(device);
    // The kernel may take a moment, and then the device may be another's.
    for _ in 0..500 {
        let now = std::fs::read_to_string(&backing).unwrap_or_default();
        if !now.starts_with(path.to_str().unwrap()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} is still there", backing.display());
}

#[test]
fn files_with_verity_are_sealed_with_their_digests() {
    use crate::disk::{DiffName, Layout, Subdirectory, scan};
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
    let diff = layout.path().join("diffs/7");
    std::fs::create_dir_all(diff.join("d")).unwrap();
    std::fs::write(diff.join("d/one"), "one").unwrap();
    std::fs::write(diff.join("two"), vec![b'2'; 70_000]).unwrap();
    let root = crate::sys::beneath::open_directory(&diff).unwrap();
    let manifest = scan(root.as_fd(), &std::collections::HashMap::new(), XattrNamespace::User).unwrap();
    let stack = stack([&manifest], XattrNamespace::User);
    assert_eq!(super::flaw_of_data(&layout, &manifest, 7, true).unwrap(), None);
    let changed = || std::fs::metadata(diff.join("two")).unwrap().modified().unwrap();
    let when = changed();
    // A second one is welcome, and goes.
    let shared = super::open_shared(&layout).unwrap();
    for fresh in [8, 9] {
        super::build_data(&layout, &manifest, (7, fresh), shared.as_fd(), || Ok(())).unwrap();
    }
    assert_eq!(changed(), when, "the layer shows it");
    let data = super::find_data(&layout, 7).unwrap();
    let one = data.path.join(blake3::hash(b"one").to_hex().as_str());
    assert_eq!(std::fs::read(&one).unwrap(), b"one");
    assert_eq!(super::flaw_of_data(&layout, &manifest, 7, true).unwrap(), None);
    assert!(layout.entries(Subdirectory::Locks).unwrap().is_empty());
    assert_eq!(layout.entries(Subdirectory::Composefs).unwrap(), [DiffName::Entry(7)]);
    let built = super::build_image(&layout, &stack, std::slice::from_ref(&data), || Ok(())).unwrap().unwrap();
    assert_eq!(built.verified, data.verified);
    assert_eq!(super::flaw_of_image(&layout, &stack, std::slice::from_ref(&data)), None);
    let image = std::fs::read(&built.image).unwrap();
    let has = |part: &[u8]| image.windows(part.len()).any(|window| window == part);
    if !built.verified {
        std::fs::write(&built.image, "none").unwrap();
        assert!(super::flaw_of_image(&layout, &stack, std::slice::from_ref(&data)).is_some());
        std::fs::write(diff.join("d/one"), "eno").unwrap();
        assert!(super::flaw_of_data(&layout, &manifest, 7, false).unwrap().is_none());
        assert!(
            super::flaw_of_data(&layout, &manifest, 7, true).unwrap().unwrap().contains("another content")
        );
        return eprintln!("skipped the rest: no fs-verity in {}", dir.path().display());
    }
    let digest = |path: &Path| {
        let file = std::fs::File::open(path).unwrap();
        crate::sys::verity::measure(file.as_fd()).unwrap().unwrap()
    };
    assert!(has(&digest(&diff.join("d/one"))) && has(&digest(&diff.join("two"))));
    assert!(std::fs::write(diff.join("two"), "other").is_err());
    assert!(std::fs::write(&built.image, "other").is_err(), "the image is verified as well");
    // What a crash left right after fs-verity was turned on.
    std::fs::File::open(diff.join("two")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    super::build_data(&layout, &manifest, (7, 10), shared.as_fd(), || Ok(())).unwrap();
    assert_eq!(changed(), when);
    // A file of the same content, without fs-verity, is none that the image was made for.
    std::fs::remove_file(&one).unwrap();
    std::fs::write(&one, "one").unwrap();
    assert!(super::flaw_of_image(&layout, &stack, std::slice::from_ref(&data)).is_some());
}

#[test]
fn layers_are_merged_as_mounts_merge_them() {
    let of = |entries: Vec<(&str, Kind)>| {
        let root = entry("", DIRECTORY);
        let entries = entries.into_iter().map(|(path, kind)| entry(path, kind));
        Manifest::new(entries.chain([root]).collect()).unwrap()
    };
    let link = |target: &str| Kind::HardLink { target: target.as_bytes().to_vec() };
    let base = of(vec![
        ("a", file(1)),
        ("b", link("a")),
        ("c", link("a")),
        ("d", DIRECTORY),
        ("d/below", file(2)),
        ("d-beside", file(3)),
        ("e", DIRECTORY),
        ("e/below", file(4)),
        ("f", file(5)),
        ("g", DIRECTORY),
        ("g/kept", file(6)),
    ]);
    let top = of(vec![
        ("a", Kind::Whiteout),
        ("c", file(7)),
        ("d", Kind::Whiteout),
        ("e", Kind::Directory { opaque: true }),
        ("e/new", file(8)),
        ("f", DIRECTORY),
        ("f/new", link("c")),
        ("g", DIRECTORY),
    ]);
    // What it comes to: the second name of what is gone is the first one now.
    let flat = of(vec![
        ("b", file(1)),
        ("c", file(7)),
        ("d-beside", file(3)),
        ("e", DIRECTORY),
        ("e/new", file(8)),
        ("f", DIRECTORY),
        ("f/new", link("c")),
        ("g", DIRECTORY),
        ("g/kept", file(6)),
    ]);
    let mut merged = image(&stack([&top, &base], XattrNamespace::User), None).unwrap();
    let mut expected = image(&stack([&flat], XattrNamespace::User), None).unwrap();
    for image in [&mut merged, &mut expected] {
        // The checksum, and the name, which is that of the stack.
        image[1028..1032].fill(0);
        image[1072..1088].fill(0);
    }
    assert!(merged == expected);
}

#[test]
fn images_of_the_same_trees_are_one_only_if_mounts_read_the_same_attributes() {
    let (one, other) = (everything(), Manifest::new(vec![entry("", DIRECTORY)]).unwrap());
    let name = |layers: &[&Manifest], namespace| stack(layers.iter().copied(), namespace).name().0;
    let first = name(&[&one, &other], XattrNamespace::Trusted);
    assert_eq!(first, name(&[&one, &other], XattrNamespace::Trusted));
    assert_ne!(first, name(&[&other, &one], XattrNamespace::Trusted));
    assert_ne!(first, name(&[&one, &other], XattrNamespace::User));
}
