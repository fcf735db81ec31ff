//! How many system calls the program makes: everybody who uses the library pays for each of them, and they creep in one by one.

mod files;
mod operations;

use std::path::Path;

use crate::support::{Dir, TestCommand, command};

/// A run of the program under strace, which writes what `form` asks it for to `output`.
fn traced(dir: &Dir, form: &[&str], output: &Path, arguments: &[&str]) -> TestCommand {
    TestCommand::new("strace")
        .args(["-f", "-qq"])
        .args(form)
        .arg("-o")
        .arg(output)
        .arg(command::binary())
        .args([Path::new("--root"), &dir.root(), Path::new("--runroot"), &dir.run_root()])
        .args(arguments)
        .current_dir(dir.path())
}
