//! File handles: what a filesystem calls an inode, whatever its name.

#![expect(unsafe_code, reason = "name_to_handle_at has no wrapper in nix or rustix")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::call::{Call, call};

/// The most bytes that a handle has (`MAX_HANDLE_SZ`).
const BYTES: usize = 128;

/// What a filesystem calls an inode.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Handle {
    /// How the bytes are to be read.
    pub(crate) kind: i32,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

/// `struct file_handle`, with room for any.
#[repr(C)]
struct Buffer {
    length: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; BYTES],
}

/// The handle of what stands at `name`, a symbolic link itself. Fails with EOPNOTSUPP where there are none.
pub(crate) fn handle_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Handle> {
    let name = CString::new(name)?;
    let length = libc::c_uint::try_from(BYTES).unwrap_or(0);
    let mut buffer = Buffer { length, kind: 0, bytes: [0; BYTES] };
    let mut mount: libc::c_int = 0;
    call(Call::Stat, || {
        // SAFETY: `Buffer` has the layout of `struct file_handle`, followed by as many bytes as `length` says, and lives
        // until the call returns, as do the name, which ends with NUL, and `mount`.
        let done = unsafe {
            libc::name_to_handle_at(
                dir.as_raw_fd(),
                name.as_ptr(),
                (&raw mut buffer).cast(),
                &raw mut mount,
                0,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })?;
    let length = usize::try_from(buffer.length).unwrap_or(BYTES);
    Ok(Handle { kind: buffer.kind, bytes: buffer.bytes.get(..length).unwrap_or_default().to_vec() })
}
