//! Other programs: finding and running them.
//!
//! What is run is decided by the machine and by its configuration: names are looked for in the directories of the system, and never
//! where `PATH` says. A program gets its arguments and as good as no environment, and of the open files of this process its three
//! standard streams, whatever a host program forgot to close.

#![expect(unsafe_code, reason = "what happens between fork and exec is for the caller to prove")]

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::FileType;

use super::call::{Call, call};
use super::children;

/// Where programs are looked for, in this order. The last ones are those of NixOS, which has none in the others.
const DIRECTORIES: [&str; 8] = [
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/run/wrappers/bin",
    "/run/current-system/sw/bin",
];

/// Runs a program in a directory to its end, with nothing to read. It finds its own helpers in the directories of the system, and
/// speaks English.
///
/// Returns an error that [`children::is_unheard`] if it ran to its end, and this process ignores how children end.
pub(crate) fn run(
    program: &Path,
    directory: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    command.env_clear().env("PATH", DIRECTORIES.join(":")).env("LC_ALL", "C");
    // SAFETY: the closure makes two system calls with plain numbers: it allocates nothing and takes no lock, so it may run in the
    // child of a process with threads.
    unsafe {
        command.pre_exec(|| {
            children::take_back();
            close_others()
        });
    }
    call(Call::Run, || command.output())
}

/// Has every file but the standard streams closed by `exec`. Those of this library are in any case; others may be of a host program.
fn close_others() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: a plain system call with plain numbers. No descriptor is closed here: the one by which the parent is told of a
    // failed `exec` is still open for it.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // A filter may refuse the call; then the program has what a host program left open, as with any other way to start it.
    Ok(())
}

/// Looks for a program in the directories of the system.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|program| {
        let found = super::path::stat(program);
        found.is_ok_and(|found| found.kind == FileType::RegularFile && found.mode & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_program_gets_no_environment_and_no_files() {
        // As a host program may have it: open, and not to be closed by `exec`.
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let left_open = rustix::io::fcntl_dupfd_cloexec(&file, 100).unwrap();
        let flags = rustix::io::FdFlags::empty();
        rustix::io::fcntl_setfd(&left_open, flags).unwrap();
        let shell = find("sh").unwrap();
        assert!(DIRECTORIES.iter().any(|directory| shell.starts_with(directory)), "{shell:?}");
        // The shell's own glob reads the directory by a descriptor that is then listed too.
        let script = "env; for fd in /proc/$$/fd/*; do echo \"fd ${fd##*/}\"; done; pwd";
        let output = run(&shell, Path::new("/proc"), ["-c", script]).unwrap();
        rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::CLOEXEC).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (files, rest): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.starts_with("fd "));
        assert!(["fd 0", "fd 1", "fd 2"].iter().all(|file| files.contains(file)), "{said}");
        let inherited = format!("fd {}", left_open.as_raw_fd());
        assert!(!files.contains(&inherited.as_str()) && files.len() <= 4, "{said}");
        // The shell adds some of its own.
        let own = ["PATH=", "LC_ALL=C", "PWD=", "OLDPWD=", "SHLVL=", "_="];
        assert!(
            rest.iter().all(|line| own.iter().any(|own| line.starts_with(own)) || *line == "/proc"),
            "{said}"
        );
        assert!(rest.contains(&"/proc") && rest.contains(&"LC_ALL=C"), "{said}");
    }

    #[test]
    fn what_is_nowhere_is_not_found() {
        assert_eq!(find("no-such-program"), None);
        assert_eq!(find("local"), None, "a directory is no program");
    }
}
