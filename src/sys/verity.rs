//! fs-verity: files that the kernel verifies on each read, and that nobody can write to any more
//! (Documentation/filesystems/fsverity.rst of the kernel).

#![expect(unsafe_code, reason = "the ioctls of fs-verity have no wrapper in nix or rustix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::call::{Call, call};

/// SHA-256, the number of `FS_VERITY_HASH_ALG_SHA256`.
pub(crate) const SHA256: u8 = 1;

/// The digest of a file: SHA-256 of its fs-verity descriptor, which has the root of its Merkle tree.
pub(crate) type VerityDigest = [u8; 32];

/// Turns fs-verity on for a file that is open for reading, and for writing by nobody: with SHA-256 and blocks of 4096
/// bytes. A file that has it already stays as it is. The kernel reads the whole file.
pub(crate) fn enable(file: BorrowedFd<'_>) -> io::Result<()> {
    let request = EnableRequest {
        version: 1,
        hash_algorithm: u32::from(SHA256),
        block_size: 4096,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        _reserved: 0,
        signature: 0,
        _reserved_too: [0; 11],
    };
    let enabled = call(Call::Verity, || {
        // SAFETY: The kernel reads a structure of the size that the number of the call says, which is that of
        // `EnableRequest`; it lives until the call returns, and names no salt and no signature.
        unsafe { ioctl::enable(file.as_raw_fd(), &raw const request) }
    });
    match enabled {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        enabled => enabled.map(drop),
    }
}

/// The digest of an open file; `None` if it has no fs-verity, or one with another hash.
pub(crate) fn measure(file: BorrowedFd<'_>) -> io::Result<Option<VerityDigest>> {
    let mut request = MeasureRequest { header: MeasureHeader { algorithm: 0, size: 32 }, digest: [0; 32] };
    let measured = call(Call::Verity, || {
        // SAFETY: The kernel writes the header and at most as many bytes behind it as `size` says, which is the
        // length of the array that follows: `MeasureRequest` is `repr(C)` without padding, and lives until the call
        // returns.
        unsafe { ioctl::measure(file.as_raw_fd(), (&raw mut request).cast()) }
    });
    match measured {
        Ok(_) => {
            let known = request.header.algorithm == u16::from(SHA256) && request.header.size == 32;
            Ok(known.then_some(request.digest))
        }
        Err(error) if is_without(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error says that the file, its filesystem or this kernel has no fs-verity.
pub(crate) fn is_without(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    // EOVERFLOW: a longer digest than was asked for.
    matches!(
        number,
        Some(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS | Errno::ENODATA | Errno::EOVERFLOW)
    )
}

/// `struct fsverity_enable_arg` of linux/fsverity.h.
#[repr(C)]
pub(crate) struct EnableRequest {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    _reserved: u32,
    signature: u64,
    _reserved_too: [u64; 11],
}

/// `struct fsverity_digest`, without its bytes.
#[repr(C)]
pub(crate) struct MeasureHeader {
    algorithm: u16,
    size: u16,
}

#[repr(C)]
struct MeasureRequest {
    header: MeasureHeader,
    digest: VerityDigest,
}

const _: () = assert!(size_of::<EnableRequest>() == 128 && size_of::<MeasureHeader>() == 4);
const _: () = assert!(size_of::<MeasureRequest>() == 36);

mod ioctl {
    nix::ioctl_write_ptr!(enable, b'f', 133, super::EnableRequest);
    nix::ioctl_readwrite!(measure, b'f', 134, super::MeasureHeader);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::beneath;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_with_verity_has_the_known_digest_and_takes_no_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"hello, verity\n").unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        let file = beneath::open_file_beneath(root.as_fd(), b"f").unwrap();
        assert_eq!(measure(file.as_fd()).unwrap(), None);
        match enable(file.as_fd()) {
            Err(error) if is_without(&error) => {
                return eprintln!("skipped: no fs-verity in {}: {error}", dir.path().display());
            }
            enabled => enabled.unwrap(),
        }
        enable(file.as_fd()).unwrap();
        let digest = measure(file.as_fd()).unwrap().unwrap();
        // A file of one block has that block's hash for its root: the descriptor can be written by hand.
        use sha2::Digest;
        let mut block = b"hello, verity\n".to_vec();
        block.resize(4096, 0);
        let mut descriptor = vec![1, 1, 12, 0, 0, 0, 0, 0];
        descriptor.extend(14_u64.to_le_bytes());
        descriptor.extend(sha2::Sha256::digest(&block));
        descriptor.resize(256, 0);
        assert_eq!(digest[..], sha2::Sha256::digest(&descriptor)[..]);
        assert!(std::fs::write(&path, b"other").is_err());
    }
}
