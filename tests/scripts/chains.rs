//! Layers that are written through mounts, one above the other, and carried to another store as archives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::{CommandLine, Compat, Own, Reference, Scripted, can_mount};
use crate::support::machine;
use crate::support::tree::Tree;

/// What each layer of the chain does to the tree below it.
const LEVELS: [fn(&Path); 4] = [make_everything, replace_everything, undo_and_redo, change_little];

fn write(top: &Path, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = top.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn chmod(top: &Path, path: &str, mode: u32) {
    std::fs::set_permissions(top.join(path), PermissionsExt::from_mode(mode)).unwrap();
}

fn set_time(top: &Path, path: &str, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, top.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_xattr(top: &Path, path: &str, name: &str, value: &[u8]) {
    rustix::fs::setxattr(top.join(path), name, value, XattrFlags::empty()).unwrap();
}

/// Every kind of file, and all that a file can have.
fn make_everything(top: &Path) {
    write(top, "etc/passwd", "root:x:0:0\n");
    write(top, "etc/conf.d/one", "one\n");
    write(top, "etc/conf.d/two", "two\n");
    write(top, "old/a/deep/tree/file", "deep\n");
    write(top, "old/b", "");
    write(
        top,
        "large",
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>(),
    );
    let sparse = std::fs::File::create(top.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 5_000_000).unwrap();
    std::fs::hard_link(top.join("etc/passwd"), top.join("old/passwd")).unwrap();
    std::fs::hard_link(top.join("etc/passwd"), top.join("a name of it")).unwrap();
    symlink("../etc/passwd", top.join("old/link")).unwrap();
    symlink("/nowhere/at/all", top.join("dangling")).unwrap();
    rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
    write(top, OsStr::from_bytes(b"bytes \xff\n"), "any name");
    write(top, format!("{}/{}", "d".repeat(150), "n".repeat(255)), "a long path");
    write(top, "twice/file", "1");
    write(top, "becomes-directory", "file");
    write(top, "becomes-file/inside", "directory");
    chmod(top, "large", 0o4755);
    chmod(top, "etc/conf.d", 0o1777);
    chmod(top, "old/b", 0);
    set_xattr(top, "etc/passwd", "user.kept", b"v\0w");
    set_xattr(top, "etc/conf.d", "user.gone", b"");
    set_time(top, "etc/conf.d/one", -86_400, 0);
    set_time(top, "etc/conf.d/two", 1_600_000_000, 123_456_789);
    set_time(top, "dangling", 1_600_000_001, 0);
    set_time(top, "old", 1_600_000_002, 0);
    if machine::is_mapped(7) {
        chown(top.join("a name of it"), Some(7), Some(5)).unwrap();
        lchown(top.join("dangling"), Some(7), Some(7)).unwrap();
        chmod(top, "a name of it", 0o640);
    }
    if machine::is_real_root() {
        for (name, kind) in [("char", FileType::CharacterDevice), ("block", FileType::BlockDevice)] {
            let device = rustix::fs::makedev(7, 300);
            rustix::fs::mknodat(CWD, top.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
        }
    }
}

/// Each kind of thing is removed, or gives way to another kind.
fn replace_everything(top: &Path) {
    std::fs::remove_dir_all(top.join("old/a")).unwrap();
    std::fs::remove_file(top.join("old/link")).unwrap();
    std::fs::remove_file(top.join("fifo")).unwrap();
    symlink("large", top.join("fifo")).unwrap();
    std::fs::remove_file(top.join("dangling")).unwrap();
    std::fs::create_dir(top.join("dangling")).unwrap();
    std::fs::remove_file(top.join("becomes-directory")).unwrap();
    write(top, "becomes-directory/inside", "now");
    std::fs::remove_dir_all(top.join("becomes-file")).unwrap();
    write(top, "becomes-file", "now");
    // Opaque: what was below is not to be seen.
    std::fs::remove_dir_all(top.join("twice")).unwrap();
    write(top, "twice/other", "2");
    std::fs::remove_file(top.join("a name of it")).unwrap();
    write(top, "etc/passwd", "root:x:0:0\nuser:x:7:5\n");
    std::fs::rename(top.join("sparse"), top.join("old/sparse")).unwrap();
    chmod(top, "large", 0o600);
    chmod(top, "", 0o711);
    rustix::fs::removexattr(top.join("etc/conf.d"), "user.gone").unwrap();
    set_time(top, "etc", 1_600_000_003, 5);
    if machine::is_mapped(7) {
        chown(top.join("etc/conf.d/one"), Some(5), Some(7)).unwrap();
    }
}

/// What was removed is there again, and the other way round.
fn undo_and_redo(top: &Path) {
    write(top, "old/a/deep/other", "again");
    symlink("sparse", top.join("old/link")).unwrap();
    write(top, "twice/file", "3");
    std::fs::remove_file(top.join("twice/other")).unwrap();
    std::fs::remove_dir_all(top.join("becomes-directory")).unwrap();
    write(top, "becomes-directory", "file");
    std::fs::remove_dir_all(top.join("etc/conf.d")).unwrap();
    std::fs::hard_link(top.join("large"), top.join("large too")).unwrap();
    std::fs::remove_dir(top.join("dangling")).unwrap();
}

/// A layer with almost nothing in it, as most are.
fn change_little(top: &Path) {
    set_time(top, "becomes-file", 1_600_000_004, 0);
    write(top, "etc/passwd", "");
}

/// What a mount shows, but for the time of the top directory, which is nobody's. The reference keeps nothing of that
/// directory, no fractions of seconds, no time before 1970 and no empty attribute.
fn shown(path: &Path, with_reference: bool) -> Tree {
    let mut tree = Tree::scan(path);
    tree.nodes.get_mut(&b""[..]).unwrap().mtime = (0, 0);
    if with_reference {
        tree.nodes.remove(&b""[..]);
        for node in tree.nodes.values_mut() {
            node.mtime = (node.mtime.0.max(0), 0);
            node.xattrs.retain(|_, value| !value.is_empty());
        }
    }
    tree
}

/// Writes a chain of layers in one store, carries each to another, and finds the same files and the same bytes there.
fn carry(from: CommandLine, to: CommandLine) {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let with_reference = from == Reference || to == Reference;
    if with_reference && !(machine::is_real_root() && machine::has_program("containers-storage")) {
        skip!("the reference needs root and Debian's package containers-storage");
    }
    let (from, to) = (Scripted::new(from, "chain-from"), Scripted::new(to, "chain-to"));
    let mut parent: Option<(String, String)> = None;
    for (number, change) in LEVELS.into_iter().enumerate() {
        let id = format!("level-{number}");
        let below = parent.as_ref().map(|(id, _)| id.as_str());
        from.create_layer(&id, below);
        change(&from.mount(&id));
        from.unmount(&id);
        // In a mount that was written to, the kernel need not show at once which names are one file.
        let written = shown(&from.mount_above(&id), with_reference);
        from.unmount_above(&id);
        let archive = from.diff(&id);
        for compressed in from.compressed_diffs(&id) {
            assert!(decompressed(&compressed) == archive, "{id}: compressed, it is another archive");
        }

        // Made of the archive at once, and filled with it later, above what came in the same way.
        let applied = format!("applied-{number}");
        to.put_layer(&id, below, &from.compressed_diffs(&id)[0]);
        to.create_layer(&applied, parent.as_ref().map(|(_, applied)| applied.as_str()));
        to.apply(&applied, &archive);
        for id in [&id, &applied] {
            assert!(to.diff(id) == archive, "{id}: the bytes of the archive are others");
            written.assert_same(&shown(&to.mount_above(id), with_reference));
            to.unmount_above(id);
        }
        parent = Some((id, applied));
    }
    // The reference keeps a mount of its own.
    for store in [&from, &to].into_iter().filter(|store| store.line != Reference) {
        store.assert_whole();
        assert_eq!(store.dir.mounts(), [""; 0].map(std::path::PathBuf::from));
    }
}

fn decompressed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(bytes), &mut out).unwrap();
    } else {
        zstd::stream::copy_decode(bytes, &mut out).unwrap();
    }
    out
}

#[test]
fn a_chain_is_carried_to_another_store() {
    carry(Own, Own);
}

#[test]
fn a_chain_is_carried_by_the_other_command_line() {
    carry(Compat, Compat);
}

#[test]
fn a_chain_is_carried_from_one_command_line_to_the_other() {
    carry(Own, Compat);
    carry(Compat, Own);
}

#[test]
fn a_chain_is_carried_to_the_reference() {
    carry(Own, Reference);
}

#[test]
fn a_chain_is_carried_from_the_reference() {
    carry(Reference, Compat);
}
