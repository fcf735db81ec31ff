//! `unshare`.

use std::env;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::super::console::Console;
use super::super::enter;
use super::super::failure::Failure;
use super::super::golang::{quoted, signal_text, system_text};

/// Tells programs in the namespace whose configuration theirs is.
const USER: &str = "_CONTAINERS_ROOTLESS_UID";
const GROUP: &str = "_CONTAINERS_ROOTLESS_GID";

pub fn unshare(words: &[String], console: &Console) -> Result<(), Failure> {
    let shell =
        || env::var("SHELL").ok().filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let (program, arguments) = match words.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (shell(), &[][..]),
    };
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    enter(console)?;
    let status = Command::new(&program)
        .args(arguments)
        .env(USER, user.as_raw().to_string())
        .env(GROUP, group.as_raw().to_string())
        .status();
    let status = status.map_err(|error| Failure::Text(not_started(&program, &error)))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Text(format!("exit status {code}"))),
        (None, signal) => Err(Failure::Text(format!("signal: {}", signal_text(signal.unwrap_or_default())))),
    }
}

/// A name without a slash was looked for along `$PATH`, and what could not be looked at is not there.
fn not_started(program: &str, error: &io::Error) -> String {
    let is_missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
    if is_missing && !program.contains('/') {
        return format!("exec: {}: executable file not found in $PATH", quoted(program.as_bytes()));
    }
    format!("fork/exec {program}: {}", system_text(error))
}
