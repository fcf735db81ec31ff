//! The attacks on paths once more, where the kernel lacks `openat2` or a filter of system calls does not know it. Then the store opens
//! a directory at a time by itself, and whatever holds where the kernel does it has to hold of that.

use std::process::Command;

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::process;
use crate::support::without::without;

/// Set in the process that tries them without the call, and in those that it starts.
const WITHOUT: &str = "LAYERSTORE_HOSTILE_WITHOUT_OPENAT2";

/// What resolves a path of a layer, or below a directory of a store.
const ATTACKS: [&str; 5] = [
    "hostile::accounts::",
    "hostile::links::",
    "hostile::metadata::",
    "hostile::whiteouts::",
    "hostile::wipes::",
];

/// Whether this process is one of those. They try each attack in one mode, since paths are resolved in the same way in all of them, and
/// above other layers alone, where more of them are.
pub(super) fn is_here() -> bool {
    std::env::var_os(WITHOUT).is_some()
}

#[test]
fn the_attacks_on_paths_fail_without_the_call() {
    let output = without(&[libc::SYS_openat2], Errno::ENOSYS, || {
        let opened = openat2(CWD, ".", OFlags::PATH, Mode::empty(), ResolveFlags::BENEATH);
        assert_eq!(opened.err(), Some(rustix::io::Errno::NOSYS));
        Command::new(std::env::current_exe().unwrap())
            .args(ATTACKS)
            .args(["--test-threads", "2"])
            .env(WITHOUT, "1")
            .output()
            .unwrap()
    });
    let told = format!("{}{}", process::quoted(&output.stdout), process::quoted(&output.stderr));
    assert!(output.status.success(), "{told}");
    for attacks in ATTACKS {
        assert!(told.contains(&format!("test {attacks}")), "{attacks} were not tried: {told}");
    }
}
