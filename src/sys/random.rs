//! Random bytes from the kernel.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use super::call::{Call, call};

/// `N` random bytes, fit for secrets and for names that nobody else chooses.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let count = call(Call::Random, || getrandom(&mut *rest, GetRandomFlags::empty()))?;
        filled = filled.saturating_add(count);
    }
    Ok(bytes)
}
