//! What a process may not read. Its mode keeps an ordinary user out, also from files of his own, and says nothing of what is in it.

use std::error::Error;
use std::io;

/// Whether the kernel has refused something to this process, for whatever reason.
pub(crate) fn is_denied(error: &(dyn Error + 'static)) -> bool {
    of_the_system(error).any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether that may be for a mode: the machine's root, and that of a user namespace, may all the same.
pub(crate) fn is_by_mode(error: &(dyn Error + 'static)) -> bool {
    of_the_system(error).any(|error| error.raw_os_error() == Some(libc::EACCES))
}

/// The errors of system calls among an error and its causes.
fn of_the_system<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e io::Error> {
    std::iter::successors(Some(error), |&error| error.source()).filter_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ExportError, ScanError, TreeError};

    #[test]
    fn a_refusal_is_seen_through_what_was_to_be_done() {
        let of = |number| TreeError::Io {
            path: "closed".into(),
            action: "open",
            source: io::Error::from_raw_os_error(number),
        };
        for (number, denied, by_mode) in
            [(libc::EACCES, true, true), (libc::EPERM, true, false), (libc::EIO, false, false)]
        {
            let (one, other) = (ExportError::Scan(ScanError::Tree(of(number))), of(number).into_io());
            assert_eq!((is_denied(&one), is_by_mode(&one)), (denied, by_mode));
            assert_eq!((is_denied(&other), is_by_mode(&other)), (denied, by_mode));
        }
    }
}
