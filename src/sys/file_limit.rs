//! The limit of a process for the size of files (`RLIMIT_FSIZE`, `ulimit -f`): whoever writes past it gets the signal `SIGXFSZ`, of which
//! a process dies without a word, unless it does something with the signal. Then the write is an error (EFBIG).
//!
//! What a process does with a signal is one setting for all of its threads, and so the program's: the library leaves it alone.

#![expect(unsafe_code, reason = "signal actions have no safe form: a handler runs anywhere")]

/// Makes a write past the limit for the size of files (`ulimit -f`) an error, where it would end this process by a signal.
///
/// It is for the beginning of a program: the program does this. The library changes no signals of who uses it. Without, a process that dies so
/// leaves what any other death leaves: nothing is half recorded, and [`Store::gc`](crate::Store::gc) removes the rest. Nothing
/// changes where the signal is handled or ignored already. Programs that are started have the signal's default again.
pub fn hear_file_limit() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = nothing as extern "C" fn(libc::c_int);
    // A handler that does nothing, where ignoring would do: `exec` takes handlers back, and what is ignored stays so.
    // SAFETY: the handler touches nothing, so it may run at any point of any thread.
    let before = unsafe { libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t) };
    if ![libc::SIG_DFL, libc::SIG_ERR].contains(&before) {
        // SAFETY: gives back what was set before.
        unsafe { libc::signal(libc::SIGXFSZ, before) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;
    use crate::sys::process;
    use crate::sys::userns::tests::in_child;

    /// What a write past the limit comes to, and how a program ends that tries it.
    fn written() -> String {
        let dir = tempfile::tempdir().unwrap();
        let mut file = std::fs::File::create(dir.path().join("file")).unwrap();
        setrlimit(Resource::Fsize, Rlimit { current: Some(512), ..getrlimit(Resource::Fsize) }).unwrap();
        let written = file.write_all(&[0; 4096]).unwrap_err();
        let shell = process::find("sh").unwrap();
        let ran = process::run(&shell, dir.path(), ["-c", "head -c 4096 /dev/zero > other"]).unwrap();
        format!("{:?}, {}", written.kind(), ran.status.code().unwrap_or_default())
    }

    #[test]
    fn a_write_past_the_limit_is_an_error() {
        let said = in_child(|| {
            hear_file_limit();
            written()
        });
        assert_eq!(said, format!("FileTooLarge, {}", 128 + libc::SIGXFSZ));
    }

    #[test]
    fn who_ignores_the_signal_goes_on_doing_so() {
        let said = in_child(|| {
            // SAFETY: no handler is set.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            hear_file_limit();
            // SAFETY: no handler is set.
            let left = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
            format!("{}", left == libc::SIG_IGN)
        });
        assert_eq!(said, "true");
    }
}
