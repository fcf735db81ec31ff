//! How much memory a manifest takes once it is decoded. Zeros compress to next to nothing, and an entry or an xattr is some bytes
//! where it is encoded and hundreds in memory: without a bound, a few hundred kilobytes of a database that somebody forged could ask
//! for any amount.

use super::{DecodeError, Entry, Kind};

/// How many bytes a manifest may [count for](super::Manifest::memory): eight million entries with paths of 64 bytes. It is part of the
/// format, so that whatever is sealed can be read back everywhere. No manifest is encoded in more bytes than it counts for.
pub const MEMORY_MAX: u64 = 2 << 30;

/// What an entry counts for, beside the bytes of its path and of its target.
pub const ENTRY_COUNTS: u64 = 192;

/// What an xattr counts for, beside the bytes of its name and value.
pub const XATTR_COUNTS: u64 = 112;

// What is counted is what it takes. An allocator takes up to 32 bytes more for a buffer than was asked for, and each entry and each
// xattr has two at the most.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(
    size_of::<Entry>() as u64 <= ENTRY_COUNTS - 2 * 32
        && size_of::<(Vec<u8>, Vec<u8>)>() as u64 <= XATTR_COUNTS - 2 * 32
);

const TOO_MUCH: DecodeError = DecodeError::NotCanonical("it takes more than 2 GiB of memory");

/// What is left of the memory for a manifest.
#[derive(Debug)]
pub struct Room(u64);

impl Default for Room {
    /// All that a manifest may take.
    fn default() -> Self {
        Room(MEMORY_MAX)
    }
}

impl Room {
    /// So many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Room(bytes)
    }

    /// Takes what an entry with this path, target and xattrs counts for.
    ///
    /// Returns [`DecodeError::NotCanonical`] if that is not left.
    pub fn take_entry(
        &mut self,
        path: &[u8],
        target: &[u8],
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), DecodeError> {
        self.take(memory_of(path, target, xattrs))
    }

    /// Takes bytes.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), DecodeError> {
        self.0 = self.0.checked_sub(bytes).ok_or(TOO_MUCH)?;
        Ok(())
    }
}

impl Entry {
    /// How many bytes it counts for.
    pub(super) fn memory(&self) -> u64 {
        let target: &[u8] = match &self.kind {
            Kind::Symlink { target } | Kind::HardLink { target } => target,
            _ => &[],
        };
        memory_of(&self.path, target, &self.metadata.xattrs)
    }
}

fn memory_of(path: &[u8], target: &[u8], xattrs: &[(Vec<u8>, Vec<u8>)]) -> u64 {
    let sum = |one: &[u8], other: &[u8]| length(one).saturating_add(length(other));
    let xattrs = xattrs.iter().map(|(name, value)| XATTR_COUNTS.saturating_add(sum(name, value)));
    xattrs.fold(ENTRY_COUNTS.saturating_add(sum(path, target)), u64::saturating_add)
}

/// The length of what is in memory, or may come to be.
pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
