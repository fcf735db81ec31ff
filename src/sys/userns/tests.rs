use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Runs `work` in a child with a single thread, and gives back what it says. Tests run in many threads, and
/// `enter_user_namespace` takes one only.
fn in_child(work: impl FnOnce() -> String) -> String {
    let (answer, answers) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    // SAFETY: the allocator of libc is made whole after fork, and the tests take no other lock in the child.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => {
            drop(answer);
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let said = said.unwrap_or_else(|_| "panicked".to_owned());
            drop(fs::File::from(answers).write_all(said.as_bytes()));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(answers);
            let mut said = String::new();
            fs::File::from(answer).read_to_string(&mut said).unwrap();
            reap(child);
            said
        }
    }
}

/// A user of every machine: the set-id programs map nothing for a user without a name.
const NOBODY: u32 = 65_534;

/// Makes the child an ordinary user.
fn become_user(id: u32) {
    nix::unistd::setgroups(&[]).unwrap();
    nix::unistd::setresgid(id.into(), id.into(), id.into()).unwrap();
    nix::unistd::setresuid(id.into(), id.into(), id.into()).unwrap();
    // A process that changed its ids owns its /proc files no longer, unless it says so.
    nix::sys::prctl::set_dumpable(true).unwrap();
}

fn skip_unless_real_root() -> bool {
    let skip = !is_privileged() || in_user_namespace();
    if skip {
        eprintln!("skipped: needs root of the first user namespace");
    }
    skip
}

#[test]
fn threads_are_refused() {
    // The test harness itself has threads.
    let gate = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| gate.wait());
        assert!(matches!(enter_user_namespace(), Err(NamespaceError::Threads { count: 2.. })));
        gate.wait();
    });
}

#[test]
fn an_ordinary_user_without_ranges_gets_a_single_id() {
    if skip_unless_real_root() {
        return;
    }
    let said = in_child(|| {
        become_user(54321);
        let namespace = enter_user_namespace().unwrap();
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        let map = map.split_whitespace().collect::<Vec<_>>().join(" ");
        let mounts_private = crate::sys::mount::info::read().unwrap().iter().all(|mount| !mount.propagates);
        format!("{:?} {map} {} {mounts_private}", namespace.ids, is_privileged() && in_user_namespace())
    });
    assert_eq!(said, "Single 0 54321 1 true true");
}

#[test]
fn ranges_are_mapped_through_the_set_id_programs() {
    if skip_unless_real_root() {
        return;
    }
    if !Path::new("/usr/bin/newuidmap").exists() {
        return eprintln!("skipped: newuidmap is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ranges");
    fs::write(&file, format!("{NOBODY}:200000:1000\nnobody:300000:10\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let said = in_child(|| {
        // The ranges stand in for those of the machine in this child alone.
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        crate::sys::mount::make_private(Path::new("/"), true).unwrap();
        for target in ["/etc/subuid", "/etc/subgid"] {
            let none = None::<&str>;
            nix::mount::mount(Some(&file), target, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
        }
        become_user(NOBODY);
        format!("{:?}", enter_user_namespace())
    });
    if said.contains("unprivileged") || said.contains("Operation not permitted") {
        return eprintln!("skipped: newuidmap is not allowed here: {said}");
    }
    let extents = |own| {
        let row = |inside, outside, count| IdExtent { inside, outside, count };
        vec![row(0, own, 1), row(1, 200_000, 1000), row(1001, 300_000, 10)]
    };
    let ids = MappedIds::Ranges { uids: extents(NOBODY), gids: extents(NOBODY) };
    assert_eq!(said, format!("{:?}", Ok::<_, NamespaceError>(UserNamespace { ids, without_ranges: None })));
}

#[test]
fn a_namespace_carries_its_map_and_leaves_no_process() {
    if !is_privileged() {
        return eprintln!("skipped: needs root");
    }
    let extents = if in_user_namespace() {
        vec![IdExtent { inside: 5, outside: 0, count: 1 }]
    } else {
        vec![IdExtent { inside: 0, outside: 100_000, count: 65536 }]
    };
    let maps = IdMaps { uids: extents.clone(), gids: extents };
    for _ in 0..20 {
        match namespace_with(&maps) {
            Ok(namespace) => drop(namespace),
            // A namespace with one id has setgroups denied and may still write maps; anything else is an error.
            Err(error) => panic!("{error}"),
        }
    }
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(children.trim(), "", "children are left");
}
