//! Other programs: finding and running them.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::call::{Call, call};

/// Runs a program in a directory to its end, with nothing to read.
pub(crate) fn run(
    program: &Path,
    directory: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    call(Call::Run, || command.output())
}

/// Looks for a program where `PATH` says, and where programs are when `PATH` says nothing.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let listed = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    listed.chain(usual).map(|directory| directory.join(name)).find(|program| super::path::is_file(program))
}
