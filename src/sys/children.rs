//! How the children of a process ended: nobody is told where `SIGCHLD` is ignored.
//!
//! A program inherits that from who started it (`trap '' CHLD`), and then the kernel drops the status of each child. What the process does
//! with the signal is one setting for all of its threads, and so the program's: that takes it back once and for all ([`hear_children`]). The
//! library does so by itself only for the time of a call that is made with a single thread ([`Heard`]), as else another thread's children
//! would be meant too. What it runs elsewhere has an end that it may not learn of ([`is_unheard`]); what came of it is then looked at.

#![expect(unsafe_code, reason = "signal actions have no safe form: a handler runs anywhere")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Has the kernel tell this process how its children end, also where it was started with `SIGCHLD` ignored.
///
/// It is for the beginning of a program, before anything waits for a child: the program does this. The library changes no signals of who
/// uses it. It runs others' programs for mounts of a `mount_program` and to end those, and goes by the mount table alone where it cannot learn
/// how they ended: their error messages are missing then. Children that nobody waits for stay as zombies until this process ends.
pub fn hear_children() {
    if is_ignored().is_some() {
        take_back();
    }
}

/// Lets this process learn how its children end, until this is dropped. It is to have a single thread.
pub(super) struct Heard(Option<libc::sigaction>);

impl Heard {
    pub(super) fn new() -> Self {
        Heard(is_ignored().inspect(|_| take_back()))
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: the action is what the kernel gave for this signal, with whatever else was set.
            unsafe { libc::sigaction(libc::SIGCHLD, before, ptr::null_mut()) };
        }
    }
}

/// Undoes in a child, before `exec`, what the next program would inherit: it may start others.
///
/// Makes one system call: it allocates nothing and takes no lock.
pub(super) fn take_back() {
    // SAFETY: no handler is set, so the signal runs nothing of this process.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Why it is not known how a program ended, and what to do.
pub(crate) const UNHEARD: &str =
    "how it ended is not known, as this process ignores SIGCHLD: it has to call hear_children when it starts";

/// Whether an error says that a child ended and the kernel told nobody how.
pub(crate) fn is_unheard(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECHILD)
}

/// What the process does with the signal, if it learns nothing of its children by that.
fn is_ignored() -> Option<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: asks only, and there is room for the answer.
    if unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has filled it in.
    let action: libc::sigaction = unsafe { action.assume_init() };
    (action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0).then_some(action)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::sys::process;
    use crate::sys::userns::tests::in_child;

    pub(crate) fn ignore() {
        // SAFETY: no handler is set.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    }

    /// How a program ended, itself and one that it started.
    fn ran() -> String {
        let shell = process::find("sh").unwrap();
        match process::run(&shell, Path::new("/"), ["-c", "env -i sh -c 'exit 3'; exit $?"]) {
            Ok(output) => output.status.to_string(),
            Err(error) => format!("unheard: {}", is_unheard(&error)),
        }
    }

    #[test]
    fn a_program_hears_of_its_children() {
        let said = in_child(|| {
            ignore();
            let before = ran();
            hear_children();
            format!("{before}, {}", ran())
        });
        assert_eq!(said, "unheard: true, exit status: 3");
    }

    #[test]
    fn what_was_set_before_is_set_again() {
        let said = in_child(|| {
            ignore();
            let during = {
                let _heard = Heard::new();
                ran()
            };
            format!("{during}, {}", is_ignored().is_some())
        });
        assert_eq!(said, "exit status: 3, true");
    }

    /// A handler of the host's would miss what ends meanwhile.
    #[test]
    fn handlers_are_left_alone() {
        extern "C" fn handler(_: libc::c_int) {}
        let said = in_child(|| {
            let handler = handler as extern "C" fn(libc::c_int);
            // SAFETY: the handler does nothing.
            unsafe { libc::signal(libc::SIGCHLD, handler as libc::sighandler_t) };
            let (heard, ran) = (Heard::new(), ran());
            hear_children();
            // SAFETY: gives back what was set before.
            let left = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
            format!("{} {ran} {}", heard.0.is_none(), left == handler as libc::sighandler_t)
        });
        assert_eq!(said, "true exit status: 3 true");
    }
}
