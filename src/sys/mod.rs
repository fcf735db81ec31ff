//! Safe wrappers for system calls, and all unsafe code of the crate.

pub(crate) mod mount;
pub(crate) mod userns;
