//! `unshare`.

use std::env;
use std::process::Command;

use super::super::failure::Failure;
use super::super::golang::system_text;

/// Tells programs in the namespace whose configuration theirs is.
const USER: &str = "_CONTAINERS_ROOTLESS_UID";
const GROUP: &str = "_CONTAINERS_ROOTLESS_GID";

pub fn unshare(words: &[String]) -> Result<(), Failure> {
    let shell =
        || env::var("SHELL").ok().filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let (program, arguments) = match words.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (shell(), &[][..]),
    };
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    layerstore::enter_user_namespace().map_err(|error| Failure::Text(error.to_string()))?;
    let status = Command::new(&program)
        .args(arguments)
        .env(USER, user.as_raw().to_string())
        .env(GROUP, group.as_raw().to_string())
        .status();
    let status =
        status.map_err(|error| Failure::Text(format!("fork/exec {program}: {}", system_text(&error))))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Text(format!("exit status {code}"))),
        None => Err(Failure::Text(status.to_string())),
    }
}
