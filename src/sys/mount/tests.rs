use std::path::Path;

use super::*;

#[test]
fn mount_table_lines_are_read_with_their_escapes() {
    let table =
        b"36 35 98:0 /mnt1 /mnt/a\\040b\\134c\\011\\012 rw,noatime master:1 shared:3 - ext3 /dev/root rw,x\n\
        37 35 0:40 / /run rw - tmpfs a\\054b rw\n\
        not a line\n\
        38 35 0:41 / /cut rw -\n";
    let mounts = info::parse(table);
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    assert_eq!(mounts[0].target, Path::new("/mnt/a b\\c\t\n"));
    assert_eq!((mounts[0].id, mounts[0].propagates), (36, true));
    assert_eq!(mounts[0].kind, "ext3");
    assert_eq!((mounts[1].source.to_str(), mounts[1].propagates), (Some("a,b"), false));
}

#[test]
fn the_live_table_agrees_with_statx() {
    assert!(info::read().unwrap().iter().any(|mount| mount.target == Path::new("/proc")));
    assert_eq!(target(Path::new("/proc")).unwrap(), Target::Mounted);
    assert_eq!(target(Path::new("/proc/self")).unwrap(), Target::Unmounted);
    assert_eq!(target(Path::new("/no/such/place")).unwrap(), Target::Missing);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(target(directory.path()).unwrap(), Target::Unmounted);
}

#[test]
fn paths_lie_on_the_nearest_filesystem() {
    let of = |path: &str| info::filesystem_of(Path::new(path)).unwrap();
    assert_eq!(of("/proc/self").as_deref(), Some("proc"));
    assert_ne!(of("/").as_deref(), Some("proc"));
    assert!(info::filesystem_of(Path::new("/no/such/place")).is_err());
}

#[test]
fn a_refusal_has_the_words_of_the_kernel() {
    let context = match FsContext::open("overlay") {
        Ok(context) => context,
        Err(refusal) => return eprintln!("skipped: no right to open an overlay context: {refusal}"),
    };
    let Err(refusal) = context.string("no_such_option", "x") else {
        return eprintln!("skipped: this kernel looks at the options of overlayfs when it has all");
    };
    assert_eq!(refusal.source.raw_os_error(), Some(libc::EINVAL));
    assert!(refusal.log.contains("no_such_option"), "{refusal}");
}

#[test]
fn own_directory_leaves_that_of_the_process() {
    let before = std::env::current_dir().unwrap();
    let seen = with_own_directory(Path::new("/proc"), || Ok(std::env::current_dir()?)).unwrap();
    assert_eq!(seen, Path::new("/proc"));
    assert_eq!(std::env::current_dir().unwrap(), before);
}
