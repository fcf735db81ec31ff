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

/// Whether SELinux is on and has a policy: only then does a mount take a label.
pub(crate) fn has_selinux() -> bool {
    // A kernel that is started without it does not know its filesystem, wherever that may be mounted.
    let known = super::path::read_to_string(Path::new("/proc/filesystems")).unwrap_or_default();
    let is_on = known.lines().any(|line| line.split_whitespace().next_back() == Some("selinuxfs"));
    // Before there is a policy, everything has the label of the kernel.
    is_on
        && super::path::read(Path::new("/proc/thread-self/attr/current"))
            .is_ok_and(|label| label.strip_suffix(b"\0").unwrap_or(&label) != b"kernel")
}
