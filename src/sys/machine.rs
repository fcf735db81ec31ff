//! What the kernel says of itself.

use std::io;
use std::path::Path;

use super::call::{Call, call};

/// Where the kernel gives each start of the machine an id.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this start of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(super::path::read_to_string(Path::new(BOOT_ID))?.trim().to_owned())
}

/// The kernel's name for the processor, such as `armv7l`.
pub(crate) fn processor() -> io::Result<String> {
    Ok(call(Call::Run, nix::sys::utsname::uname)?.machine().to_string_lossy().into_owned())
}
