use std::any::Any;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::SigHandler;

use super::*;

/// Runs `work` in a child with a single thread, and gives back what it says. Tests run in many threads, and
/// `enter_user_namespace` takes one only.
pub(crate) fn in_child(work: impl FnOnce() -> String) -> String {
    in_child_with(|_| work())
}

/// The same in a child that has nothing open but its standard streams: what this process was given, and what other tests
/// have open just then, counts for none of its limits.
pub(crate) fn in_bare_child(work: impl FnOnce() -> String) -> String {
    in_child_with(|answers| {
        let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
        let open: Vec<i32> = open.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
        for descriptor in open.into_iter().filter(|one| *one > 2 && *one != answers.as_raw_fd()) {
            // SAFETY: who has it in the parent does nothing in the child. The one that listed them is closed already.
            unsafe { libc::close(descriptor) };
        }
        work()
    })
}

fn in_child_with(work: impl FnOnce(BorrowedFd<'_>) -> String) -> String {
    let (answer, answers) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    // SAFETY: the allocator of libc is made whole after fork, and the tests take no other lock in the child.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => {
            // Not dropped: it may be closed by then.
            std::mem::forget(answer);
            let work = || work(answers.as_fd());
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let said = said.unwrap_or_else(|panic| format!("panicked: {}", told(&*panic)));
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

/// What a panic says: what the child prints is lost with it.
fn told(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
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
        let is_kept_in = !fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" shared:");
        format!("{:?} {map} {} {is_kept_in}", namespace.ids, is_privileged() && in_user_namespace())
    });
    assert_eq!(said, "Single 0 54321 1 true true");
}

/// A filter of system calls, as sandboxes have it, may kill whoever makes a namespace.
#[test]
fn a_process_that_would_be_killed_stays_outside() {
    if skip_unless_real_root() {
        return;
    }
    let said = in_child(|| {
        become_user(54321);
        kill_who_calls(libc::SYS_unshare);
        let refused = enter_user_namespace().unwrap_err();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        format!("{} {} {cause}", refused.is_outside(), in_user_namespace())
    });
    assert!(said.starts_with("true false ") && said.ends_with("was killed by SIGSYS"), "{said}");
}

/// Has the kernel kill this process when it makes a system call.
fn kill_who_calls(number: libc::c_long) {
    let statement =
        |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let number = u32::try_from(number).unwrap();
    let mut filter = [
        // The number is the first field of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    nix::sys::prctl::set_no_new_privs().unwrap();
    // SAFETY: the program and its statements outlive the call, which copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_process_that_ids_are_refused_to_stays_outside() {
    if skip_unless_real_root() {
        return;
    }
    let said = in_child(|| {
        become_user(54321);
        // Its files in /proc are root's now.
        nix::sys::prctl::set_dumpable(false).unwrap();
        let refused = enter_user_namespace().unwrap_err();
        format!("{} {}", refused.is_outside(), in_user_namespace())
    });
    assert_eq!(said, "true false");
}

#[test]
fn ranges_that_cannot_be_mapped_are_told_from_none() {
    if skip_unless_real_root() || !Path::new("/usr/bin/newuidmap").exists() {
        return eprintln!("skipped: needs root of the first user namespace, and newuidmap");
    }
    let said = in_child(|| {
        become_user(54321);
        format!("{:?}", enter_user_namespace().unwrap().without_ranges)
    });
    assert!(said.starts_with("Some(NotGiven("), "{said}");
    let said = in_child_with_ranges("nobody:200000:1000\n", || {
        become_user(NOBODY);
        // So the set-id programs are nobody's.
        nix::sys::prctl::set_no_new_privs().unwrap();
        format!("{:?}", enter_user_namespace().unwrap())
    });
    assert!(said.contains("ids: Single") && said.contains("Some(NotMapped(\""), "{said}");
    assert!(said.contains("newgidmap failed"), "{said}");
}

/// As [`in_child`], with these lines in place of the machine's `/etc/subuid` and `/etc/subgid`.
fn in_child_with_ranges(lines: &str, work: impl FnOnce() -> String) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ranges");
    fs::write(&file, lines).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    in_child(|| {
        // The ranges stand in for those of the machine in this child alone.
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        crate::sys::mount::make_private(Path::new("/"), true).unwrap();
        for target in ["/etc/subuid", "/etc/subgid"] {
            let none = None::<&str>;
            nix::mount::mount(Some(&file), target, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
        }
        work()
    })
}

#[test]
fn ranges_are_mapped_through_the_set_id_programs() {
    if skip_unless_real_root() {
        return;
    }
    if !Path::new("/usr/bin/newuidmap").exists() {
        return eprintln!("skipped: newuidmap is not installed");
    }
    let entered = |children: SigHandler| {
        in_child_with_ranges(&format!("{NOBODY}:200000:1000\nnobody:300000:10\n"), || {
            become_user(NOBODY);
            // SAFETY: no handler is set.
            unsafe { nix::sys::signal::signal(nix::sys::signal::SIGCHLD, children) }.unwrap();
            format!("{:?}", enter_user_namespace())
        })
    };
    let said = entered(SigHandler::SigDfl);
    if said.contains("unprivileged") || said.contains("Operation not permitted") {
        return eprintln!("skipped: newuidmap is not allowed here: {said}");
    }
    // Programs inherit that from who does not wait for them.
    assert_eq!(entered(SigHandler::SigIgn), said);
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
